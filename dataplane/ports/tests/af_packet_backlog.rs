//! A packet port whose frames are taken in later than it sends them: what the kernel left in the ring goes out with a later
//! flush, without a further frame. Without root: skipped, with the reason printed.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use dataplane_netns::{Host, NapiThreads, Network, NetworkOptions, Privilege, Topology, prepare};
use dataplane_ports::af_packet::{Mac, PacketOptions, PacketPeer, PacketPort, PacketWait};
use dataplane_waist::{Peer, Port};
use ebpf_host::{Loaded, Mode, Program, Settings};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

/// How long anything here may take before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// Several times what a send buffer of the usual size holds (net.core.wmem_default, 212 992 bytes: about 230 short frames).
const FRAMES_COUNT: usize = 1024;

/// Frames that `host`'s interface has taken in.
fn rx_packets_count(host: &Host) -> usize {
    let table = host
        .run(|| fs::read_to_string("/proc/thread-self/net/dev"))
        .expect("in the host")
        .expect("the kernel's table");
    let interface = format!("{}:", host.interface().name);
    let line = table
        .lines()
        .find_map(|line| line.trim().strip_prefix(&interface))
        .expect("the interface is there");
    line.split_ascii_whitespace()
        .nth(1)
        .and_then(|count| count.parse().ok())
        .expect("rx_packets is the second column")
}

/// Lets the thread `tid` (0: the caller) run on one CPU of the caller's only.
fn pin(tid: i32) {
    let allowed = sched_getaffinity(Pid::from_raw(0)).expect("own affinity");
    let cpu = (0..CpuSet::count())
        .find(|cpu| allowed.is_set(*cpu).unwrap_or(false))
        .expect("one CPU at least");
    let mut only = CpuSet::new();
    only.set(cpu).expect("it is within the set");
    sched_setaffinity(Pid::from_raw(tid), &only).expect("one of ours");
}

#[test]
fn what_the_send_buffer_had_no_room_for_leaves_with_a_later_flush() {
    if prepare() != Privilege::Root {
        return println!("skipped: needs root, for network namespaces and for BPF");
    }
    let network = Network::build(&NetworkOptions {
        publish_names: false,
        ..NetworkOptions::new(Topology::Pair)
    })
    .expect("root can build hosts");
    let [from, to] = network.hosts() else {
        unreachable!("a pair has two hosts")
    };
    let settings = Settings {
        frags: true,
        ..Settings::default()
    };
    // A veth has NAPI while it has a program.
    let attached = to
        .run(|| Loaded::load(Program::Pass, &settings)?.attach(&to.interface().name, Mode::Native))
        .expect("in the host");
    let _attached = match attached {
        Ok(attached) => attached,
        Err(error) => return println!("skipped: {error}"),
    };
    let napi = to
        .run(|| NapiThreads::start(&to.interface().name))
        .expect("in the host")
        .expect("a veth with a program has NAPI");
    // The thread that takes frames in has to wait for this one's CPU, so that they pile up.
    pin(0);
    for pid in napi.pids() {
        pin(*pid as i32);
    }

    let options = PacketOptions {
        peers: vec![PacketPeer {
            addr: (to.ipv4(), 4001).into(),
            mac: Mac(to.mac()),
        }],
        learn_peers_max: 0,
        ring_frames: FRAMES_COUNT,
        ..PacketOptions::new(
            &from.interface().name,
            (from.ipv4(), 4001).into(),
            Mac(from.mac()),
            PacketWait::Spin,
        )
    };
    let mut port = from
        .run(|| PacketPort::open(&options))
        .expect("in the host")
        .expect("a packet port");
    let before_count = rx_packets_count(to);
    for index in 0..FRAMES_COUNT {
        port.tx(Peer(0), 2, &mut |bytes| {
            bytes.copy_from_slice(&(index as u16).to_be_bytes())
        })
        .expect("the ring has room for all");
    }
    let since = Instant::now();
    loop {
        port.flush().expect("the port works");
        let arrived_count = rx_packets_count(to) - before_count;
        if arrived_count >= FRAMES_COUNT {
            break;
        }
        assert!(
            since.elapsed() < PATIENCE,
            "{arrived_count} of {FRAMES_COUNT} arrived: {:?}",
            port.stats()
        );
        thread::sleep(Duration::from_millis(1));
    }
    match port.stats().syscalls_count {
        1 => println!("the receiver kept up, so nothing was left in the ring this time"),
        kicks_count => println!("{kicks_count} kicks until all had left"),
    }
    let kicks_count = port.stats().syscalls_count;
    port.flush().expect("the port works");
    assert_eq!(port.stats().syscalls_count, kicks_count, "nothing is left to send");
}
