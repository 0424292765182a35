//! AF_XDP over veth pairs between namespaces of our own: against itself, against the kernel's UDP, and against everything
//! that can be wrong. Without root: skipped, with the reason printed.

mod raw;
mod refusals;
#[path = "../support/xdp_hosts.rs"]
mod xdp_hosts;

use std::{
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    process::Command,
    time::{Duration, Instant},
};

use caps::{CapSet, Capability};
use dataplane_netns::{Host, Network, Topology};
use dataplane_ports::xdp::{
    BusyPoll, Frame, Mac, OpenError, PacketPeer, Socket, SocketOptions, TxMetadata, TxRequest, Umem, UmemOptions,
    XdpChecksum, XdpCopy, XdpOptions, XdpPort, XdpWait, probe,
};
use dataplane_waist::{Peer, Port, Support, TxError};
use dataplane_wire::{
    datagram::{self, Header},
    internet::Addresses,
    udp::Checksum,
};
use ebpf_host::{Attachment, Count, Mode};
use nix::time::{ClockId, clock_gettime};
use xdp_hosts::{enveloped, hosts, options, peer, steer_to, steered};

/// How long anything here may take before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(5);

fn pair(mtu_bytes: u32) -> Option<Network> {
    hosts(Topology::Pair, mtu_bytes)
}

fn two(network: &Network) -> [&Host; 2] {
    let [a, b] = network.hosts() else {
        unreachable!("a pair has two hosts")
    };
    [a, b]
}

fn open(host: &Host, options: &XdpOptions) -> Result<XdpPort, OpenError> {
    host.run(|| XdpPort::open(options)).expect("in the host")
}

fn refused(host: &Host, options: &XdpOptions) -> OpenError {
    open(host, options).expect_err("it must be refused")
}

/// The kernel's own socket, UDP port 4001.
fn kernel_socket(host: &Host, ip: impl Into<std::net::IpAddr>) -> UdpSocket {
    let at = SocketAddr::new(ip.into(), 4001);
    let socket = host
        .run(|| UdpSocket::bind(at))
        .expect("in the host")
        .expect("its address");
    socket.set_read_timeout(Some(PATIENCE)).expect("an option");
    socket
}

fn send(port: &mut XdpPort, to: Peer, frame: &[u8]) {
    port.tx(to, frame.len(), &mut |bytes| bytes.copy_from_slice(frame))
        .expect("there is room");
    port.flush().expect("the port works");
}

/// Turns until `done`, with everything that came.
fn turn_until(port: &mut XdpPort, done: impl Fn(&XdpPort, &[Vec<u8>]) -> bool) -> Vec<Vec<u8>> {
    let (mut frames, since) = (Vec::new(), Instant::now());
    while !done(port, &frames) {
        assert!(
            since.elapsed() < PATIENCE,
            "{:?} {:?} {} frames",
            port.stats(),
            port.counters(),
            frames.len()
        );
        port.wait(Duration::from_millis(20)).expect("the port works");
        port.rx_burst(&mut |frame| frames.push(frame.bytes.to_vec()))
            .expect("the port works");
    }
    frames
}

/// Frames that the program sent to the socket.
fn taken_count(attachment: &Attachment) -> u64 {
    attachment.counts().expect("it is attached").get(Count::Taken)
}

fn pattern(len_bytes: usize) -> Vec<u8> {
    (0..len_bytes).map(|i| (i * 31 + len_bytes) as u8).collect()
}

/// The kernel drops what has a wrong checksum, and a partial one that nobody completed.
#[test]
fn the_kernel_hears_every_size_with_every_checksum() {
    let Some(network) = pair(9000) else { return };
    let [us, them] = two(&network);
    let v6 = us.ipv6().zip(them.ipv6());
    for checksum in [XdpChecksum::Port, XdpChecksum::Kernel, XdpChecksum::Device] {
        let mut ends = vec![(SocketAddr::from((us.ipv4(), 4001)), them.ipv4().into(), 8972)];
        ends.extend(v6.map(|(us, them)| (SocketAddr::from((us, 4001)), them.into(), 8952)));
        for (local, remote, longest) in ends {
            let socket = kernel_socket(them, remote);
            let mut port = open(
                us,
                &XdpOptions {
                    local,
                    peers: vec![PacketPeer {
                        addr: SocketAddr::new(remote, 4001),
                        mac: Mac(them.mac()),
                    }],
                    frame_bytes_max: longest,
                    checksum,
                    ..options(us, XdpWait::Poll)
                },
            )
            .unwrap_or_else(|error| panic!("{checksum:?}: {error}"));
            let mut buffer = [0; 9000];
            for len_bytes in [1, 2, 64, 1472, 3798, 3799, 4054, 4055, 8000, longest] {
                send(&mut port, Peer(0), &pattern(len_bytes));
                let (heard_bytes, from) = socket
                    .recv_from(&mut buffer)
                    .unwrap_or_else(|error| panic!("{len_bytes} bytes with {checksum:?} from {local}: {error}"));
                assert_eq!(from, local);
                assert_eq!(buffer[..heard_bytes], pattern(len_bytes), "{checksum:?}");
            }
            assert_eq!(port.counters().expect("it is open").tx_invalid_count, 0);
        }
    }
}

#[test]
fn a_burst_needs_one_system_call_per_32_frames() {
    let Some(network) = pair(1500) else { return };
    let [us, them] = two(&network);
    let mut port = open(
        us,
        &XdpOptions {
            peers: vec![peer(them)],
            ..options(us, XdpWait::Spin)
        },
    )
    .expect("a port");
    for _ in 0..port.caps().batch_frames_max {
        port.tx(Peer(0), 64, &mut |bytes| bytes.fill(7)).expect("room");
    }
    port.flush().expect("flush");
    assert_eq!(port.stats().syscalls_count, 1);
    // And as many more as the ring takes, in one flush, wholly.
    let mut queued_count = 0;
    while port.tx(Peer(0), 64, &mut |bytes| bytes.fill(7)).is_ok() {
        queued_count += 1;
    }
    assert_eq!(queued_count, 256);
    port.flush().expect("flush");
    assert_eq!(port.stats().syscalls_count, 1 + 256 / 32);
    assert_eq!(port.tx(Peer(0), 64, &mut |bytes| bytes.fill(7)), Ok(()));
}

#[test]
fn every_sent_frame_has_a_stamp_between_before_and_after() {
    let Some(network) = pair(9000) else { return };
    let [us, them] = two(&network);
    let tai_ns = || {
        let now = clock_gettime(ClockId::CLOCK_TAI).expect("a clock");
        now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
    };
    // The kernel reads its fast clock, which may be off by as much as its last adjustment.
    const SLACK_NS: u64 = 1_000_000;
    for checksum in [XdpChecksum::Port, XdpChecksum::Kernel] {
        let mut port = open(
            us,
            &XdpOptions {
                peers: vec![peer(them)],
                checksum,
                tx_stamps: true,
                frame_bytes_max: 8972,
                ..options(us, XdpWait::Spin)
            },
        )
        .expect("a port");
        for number in 0..100 {
            let before_ns = tai_ns();
            // Of one frame of memory and of several.
            send(&mut port, Peer(0), &pattern(if number % 2 == 0 { 64 } else { 8972 }));
            let mut stamps = Vec::new();
            let since = Instant::now();
            while stamps.is_empty() {
                assert!(since.elapsed() < PATIENCE, "no stamp of frame {number}");
                port.flush().expect("the port works");
                port.take_tx_stamps(&mut |stamp| stamps.push(stamp));
            }
            assert_eq!(stamps.len(), 1, "{stamps:?}");
            assert_eq!(stamps[0].number, number);
            let possible = before_ns - SLACK_NS..tai_ns() + SLACK_NS;
            assert!(possible.contains(&stamps[0].tai_ns), "{possible:?} {stamps:?}");
        }
    }
}

#[test]
fn what_is_not_for_us_is_counted_and_dropped() {
    let Some(network) = pair(9000) else { return };
    let [us, them] = two(&network);
    let (mut port, attachment) = steered(
        us,
        &XdpOptions {
            peers: vec![peer(them)],
            learn_peers_max: 0,
            ..options(us, XdpWait::Poll)
        },
        Mode::Native,
    );
    let known = kernel_socket(them, them.ipv4());
    let stranger = them
        .run(|| UdpSocket::bind((them.ipv4(), 4002)))
        .expect("in the host")
        .expect("its address");
    let to = port.local_addr();
    stranger.send_to(&enveloped(b"who?"), to).expect("sent");
    turn_until(&mut port, |port, _| port.stats().strangers_count == 1);
    // Above our own frame_bytes_max, though it fits the memory.
    known.send_to(&enveloped(&[7; 1500]), to).expect("sent");
    turn_until(&mut port, |port, _| port.stats().malformed_count == 1);
    // Above the memory's frame: of several we take none, so the kernel drops it and says so.
    known.send_to(&enveloped(&[7; 8000]), to).expect("sent");
    turn_until(&mut port, |port, _| port.stats().rx_dropped_count == 1);
    // Not of the lab: goes up the stack, where our companion socket swallows it.
    known.send_to(b"hello", to).expect("sent");
    known.send_to(&enveloped(b"hello"), to).expect("sent");
    let heard = turn_until(&mut port, |_, frames| !frames.is_empty());
    assert_eq!(heard, [enveloped(b"hello")]);
    known.set_nonblocking(true).expect("an option");
    assert_eq!(
        known.recv(&mut [0; 64]).expect_err("no ICMP error came").kind(),
        ErrorKind::WouldBlock
    );
    assert_eq!(taken_count(&attachment), 4);
}

/// A socket that is given no frame receives none, and the counter says why; with a frame it goes on.
#[test]
fn a_starved_fill_ring_is_counted() {
    let Some(network) = pair(1500) else { return };
    let [us, them] = two(&network);
    let (mut port, attachment) = steered(
        us,
        &XdpOptions {
            ring_frames: 4,
            ..options(us, XdpWait::Spin)
        },
        Mode::Native,
    );
    let sender = kernel_socket(them, them.ipv4());
    let to = port.local_addr();
    for _ in 0..10 {
        sender.send_to(&enveloped(b"more than four"), to).expect("sent");
    }
    let since = Instant::now();
    let counters = loop {
        let counters = port.counters().expect("it is open");
        if counters.rx_dropped_count == 6 {
            break counters;
        }
        assert!(since.elapsed() < PATIENCE, "{counters:?}");
    };
    assert_eq!(counters.rx_fill_ring_empty_count, 6, "{counters:?}");
    assert_eq!(counters.rx_ring_full_count, 0, "{counters:?}");
    let stats = port.stats();
    assert_eq!((stats.rx_dropped_count, stats.rx_no_buffer_count), (6, 6), "{stats:?}");
    assert_eq!(turn_until(&mut port, |_, frames| frames.len() == 4).len(), 4);
    sender.send_to(&enveloped(b"room again"), to).expect("sent");
    let heard = turn_until(&mut port, |_, frames| !frames.is_empty());
    assert_eq!(heard, [enveloped(b"room again")]);
    assert_eq!(taken_count(&attachment), 11);
}

fn ip(host: &Host, arguments: &str) {
    let output = host
        .run(|| Command::new("ip").args(arguments.split_whitespace()).output())
        .expect("in the host")
        .expect("iproute2 is installed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {said}");
}

#[test]
fn an_interface_that_goes_down_and_away_is_said() {
    if Command::new("ip").arg("-V").output().is_err() {
        println!("skipped: no `ip` here; install iproute2");
        return;
    }
    let Some(network) = pair(1500) else { return };
    let [us, them] = two(&network);
    let name = us.interface().name.clone();
    let mut port = open(
        us,
        &XdpOptions {
            peers: vec![peer(them)],
            ..options(us, XdpWait::Poll)
        },
    )
    .expect("a port");
    let attachment = steer_to(us, &port, port.queue(), Mode::Native);
    send(&mut port, Peer(0), b"up");

    // Down: what is sent is kept for when it comes up again.
    ip(us, &format!("link set {name} down"));
    port.tx(Peer(0), 4, &mut |bytes| bytes.copy_from_slice(b"late"))
        .expect("room");
    port.flush().expect("a link that is down is no error");
    port.wait(Duration::from_millis(5)).expect("nor is waiting for it");
    while port.tx(Peer(0), 4, &mut |bytes| bytes.fill(0)).is_ok() {}
    port.flush().expect("nor is a full ring");
    assert_eq!(port.tx(Peer(0), 4, &mut |_| ()), Err(TxError::Full));

    // One that is down to begin with is none either, in copy mode.
    ip(them, &format!("link set {} down", them.interface().name));
    let mut early = open(them, &options(them, XdpWait::Poll)).expect("it may come up");
    early.wait(Duration::from_millis(5)).expect("still down");
    ip(us, &format!("link set {name} up"));

    ip(us, &format!("link delete {name}"));
    let gone = port.wait(Duration::from_millis(5)).expect_err("it is gone");
    assert_eq!(gone.kind(), ErrorKind::NotConnected, "{gone}");
    assert!(gone.to_string().contains("open a new port"), "{gone}");
    let gone = port.flush().expect_err("it stays gone");
    assert_eq!(gone.kind(), ErrorKind::NotConnected, "{gone}");
    assert_eq!(port.rx_burst(&mut |_| ()).expect("nothing came"), 0);
    drop(attachment);
}

/// The other way of noticing: by sending.
#[test]
fn a_port_that_only_sends_hears_that_the_interface_is_gone() {
    if Command::new("ip").arg("-V").output().is_err() {
        println!("skipped: no `ip` here; install iproute2");
        return;
    }
    let Some(network) = pair(1500) else { return };
    let [us, them] = two(&network);
    let mut port = open(
        us,
        &XdpOptions {
            peers: vec![peer(them)],
            ..options(us, XdpWait::Spin)
        },
    )
    .expect("a port");
    send(&mut port, Peer(0), b"up");
    ip(us, &format!("link delete {}", us.interface().name));
    port.tx(Peer(0), 4, &mut |bytes| bytes.fill(0)).expect("room");
    let gone = port.flush().expect_err("it is gone");
    assert_eq!(gone.kind(), ErrorKind::NotConnected, "{gone}");
}
