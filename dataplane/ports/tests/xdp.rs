//! AF_XDP over veth pairs between namespaces of our own: against itself, against the kernel's UDP, and against everything
//! that can be wrong. Without root: skipped, with the reason printed.

#[path = "support/xdp_hosts.rs"]
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

/// A raw socket: memory, tokens and rings as they are.
fn raw(host: &Host, frames_count: usize, change: impl FnOnce(&mut SocketOptions)) -> (Umem, Vec<Frame>, Socket) {
    let (umem, frames) = Umem::new(&UmemOptions::new(frames_count)).expect("memory");
    let mut options = SocketOptions::new(&host.interface().name, 64);
    change(&mut options);
    let socket = host
        .run(|| Socket::open(&umem, &options))
        .expect("in the host")
        .unwrap_or_else(|error| panic!("{error}"));
    (umem, frames, socket)
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
    assert_eq!(turn_until(&mut port, |_, frames| frames.len() == 4).len(), 4);
    sender.send_to(&enveloped(b"room again"), to).expect("sent");
    let heard = turn_until(&mut port, |_, frames| !frames.is_empty());
    assert_eq!(heard, [enveloped(b"room again")]);
    assert_eq!(taken_count(&attachment), 11);
}

/// The other loss: frames enough, but nobody makes room in the receive ring.
#[test]
fn an_overrun_receive_ring_is_counted() {
    let Some(network) = pair(1500) else { return };
    let [us, them] = two(&network);
    let (umem, frames, mut socket) = raw(us, 64, |options| options.rx_entries = 4);
    for frame in frames {
        socket.fill(frame).expect("room for all");
    }
    socket.publish_fill();
    let attachment = steer_to(us, &socket, 0, Mode::Native);
    let sender = kernel_socket(them, them.ipv4());
    for number in 0..10 {
        sender
            .send_to(&enveloped(&[number; 8]), (us.ipv4(), 4001))
            .expect("sent");
    }
    let since = Instant::now();
    let counters = loop {
        let counters = socket.counters().expect("it is open");
        if counters.rx_ring_full_count == 6 {
            break counters;
        }
        assert!(since.elapsed() < PATIENCE, "{counters:?}");
    };
    assert_eq!(counters.rx_dropped_count, 0, "{counters:?}");
    for number in 0..4 {
        let segment = socket.receive().expect("an honest kernel").expect("four fitted");
        let packet = &umem.bytes(&segment.frame)[segment.bytes.clone()];
        assert_eq!(packet[packet.len() - 8..], [number; 8]);
        assert!(!segment.is_continued);
        socket.fill(segment.frame).expect("its place is free");
    }
    assert_eq!(socket.receive().expect("an honest kernel"), None);
    assert_eq!(taken_count(&attachment), 10);
}

/// Packets of several frames at the raw socket: in order, each but the last saying that it goes on.
#[test]
fn a_long_packet_comes_in_segments() {
    let Some(network) = pair(9000) else { return };
    let [us, them] = two(&network);
    let (umem, frames, mut socket) = raw(us, 16, |options| options.multi_buffer = true);
    for frame in frames {
        socket.fill(frame).expect("room for all");
    }
    socket.publish_fill();
    let _attachment = steer_to(us, &socket, 0, Mode::Native);
    let sender = kernel_socket(them, them.ipv4());
    let sent = enveloped(&pattern(8900));
    sender.send_to(&sent, (us.ipv4(), 4001)).expect("sent");
    let (mut packet, mut lengths, since) = (Vec::new(), Vec::new(), Instant::now());
    loop {
        assert!(since.elapsed() < PATIENCE, "{lengths:?} {:?}", socket.counters());
        let Some(segment) = socket.receive().expect("an honest kernel") else {
            continue;
        };
        packet.extend_from_slice(&umem.bytes(&segment.frame)[segment.bytes.clone()]);
        lengths.push(segment.bytes.len());
        if !segment.is_continued {
            break;
        }
    }
    // 4096 bytes less the 256 that the kernel keeps.
    assert_eq!(lengths, [3840, 3840, packet.len() - 2 * 3840]);
    assert_eq!(packet[packet.len() - sent.len()..], sent);
}

/// Two queues of one interface, over one memory and over two.
#[test]
fn every_queue_has_a_socket_of_its_own() {
    if Command::new("ip").arg("-V").output().is_err() {
        println!("skipped: no `ip` here; install iproute2");
        return;
    }
    let Some(network) = pair(1500) else { return };
    let [us, _] = two(&network);
    ip(
        us,
        "link add q0 numrxqueues 2 numtxqueues 2 type veth peer name q1 numrxqueues 2 numtxqueues 2",
    );
    ip(us, "link set q0 up");
    ip(us, "link set q1 up");
    let on = |umem: &Umem, queue: u32| {
        let options = SocketOptions {
            queue,
            ..SocketOptions::new("q0", 64)
        };
        us.run(|| Socket::open(umem, &options)).expect("in the host")
    };
    let (one, mut frames) = Umem::new(&UmemOptions::new(4)).expect("memory");
    let first = on(&one, 0).expect("queue 0");
    let mut second = on(&one, 1).expect("queue 1, over the same memory");
    second
        .tx(frames.remove(0), 0..60, false, TxRequest::default())
        .expect("room");
    second.publish_tx();
    second.kick().expect("the link is up");
    assert!(second.complete().expect("an honest kernel").is_some());

    let (other, _) = Umem::new(&UmemOptions::new(4)).expect("memory");
    let busy = on(&other, 1).expect_err("it is taken");
    assert!(matches!(busy, OpenError::QueueBusy { queue: 1, .. }), "{busy}");
    drop(second);
    let third = on(&other, 1).expect("queue 1, over a memory of its own");
    let missing = on(&one, 2).expect_err("there are two");
    assert!(matches!(missing, OpenError::NoQueue { queue: 2, .. }), "{missing}");
    drop((first, third));
}

/// One memory, two sockets on two interfaces: what comes in at one goes out at the other, without a copy by us.
#[test]
fn a_frame_is_forwarded_within_one_memory() {
    let Some(network) = hosts(Topology::Chain { hosts: 3 }, 1500) else {
        return;
    };
    let [left, middle, right] = network.hosts() else {
        unreachable!("three hosts")
    };
    let [to_left, to_right] = middle.interfaces() else {
        unreachable!("the middle has two links")
    };
    let (umem, mut frames) = Umem::new(&UmemOptions::new(64)).expect("memory");
    let socket_on = |interface: &str| {
        middle
            .run(|| Socket::open(&umem, &SocketOptions::new(interface, 32)))
            .expect("in the host")
            .unwrap_or_else(|error| panic!("{error}"))
    };
    let mut at_left = socket_on(&to_left.name);
    let mut at_right = socket_on(&to_right.name);
    for frame in frames.drain(..16) {
        at_left.fill(frame).expect("room");
    }
    at_left.publish_fill();
    let attachment = middle
        .run(|| {
            let settings = ebpf_host::Settings {
                local_mac: Mac(to_left.mac),
                local_ipv4: Some(to_left.ipv4),
                local_port: 4001,
                kinds: ebpf_host::kinds(&[dataplane_wire::frame::Kind::EchoRequest]),
                ..Default::default()
            };
            let mut attachment = ebpf_host::Loaded::load(ebpf_host::Program::Steer, &settings)
                .expect("it loads")
                .attach(&to_left.name, Mode::Native)
                .expect("it attaches");
            attachment
                .set_socket(0, std::os::fd::AsFd::as_fd(&at_left))
                .expect("a socket");
            attachment
        })
        .expect("in the host");

    let sender = kernel_socket(left, left.ipv4());
    let receiver = kernel_socket(right, right.ipv4());
    for round in 0..100u32 {
        let sent = enveloped(&round.to_be_bytes());
        sender.send_to(&sent, (to_left.ipv4, 4001)).expect("sent");
        let since = Instant::now();
        let segment = loop {
            match at_left.receive().expect("an honest kernel") {
                Some(segment) => break segment,
                None => assert!(since.elapsed() < PATIENCE, "{round}: {:?}", attachment.counts()),
            }
        };
        at_left.release_rx();
        // New headers in front of the same payload, in the same memory.
        let mut frame = segment.frame;
        let packet = &mut umem.bytes_mut(&mut frame)[segment.bytes.clone()];
        let header = Header {
            dst_mac: Mac(right.mac()),
            src_mac: Mac(to_right.mac),
            vlan: None,
            addresses: Addresses::V4 {
                src: to_right.ipv4,
                dst: right.ipv4(),
            },
            src_port: 4001,
            dst_port: 4001,
        };
        datagram::emit(&header, Checksum::Full, packet);
        at_right
            .tx(frame, segment.bytes, false, TxRequest::default())
            .expect("room");
        at_right.publish_tx();
        at_right.kick().expect("the link is up");
        let mut buffer = [0; 100];
        let heard_bytes = receiver.recv(&mut buffer).expect("it was forwarded");
        assert_eq!(buffer[..heard_bytes], sent);
        let since = Instant::now();
        let completed = loop {
            match at_right.complete().expect("an honest kernel") {
                Some(completed) => break completed,
                None => assert!(since.elapsed() < PATIENCE, "{round}: never completed"),
            }
        };
        at_right.release_completions();
        at_left.fill(completed.frame).expect("room");
        at_left.publish_fill();
    }

    // The memory is known through the first socket: without it there can be no third.
    drop(at_left);
    let third = middle.run(|| Socket::open(&umem, &SocketOptions::new(&to_left.name, 32)));
    let error = third.expect("in the host").expect_err("it must be refused");
    assert!(matches!(error, OpenError::FirstClosed), "{error}");
}

#[test]
fn a_busy_queue_a_missing_one_and_a_missing_interface_are_told_apart() {
    let Some(network) = pair(1500) else { return };
    let [us, _] = two(&network);
    let first = open(us, &options(us, XdpWait::Spin)).expect("a port");
    let second = XdpOptions {
        local: (us.ipv4(), 4002).into(),
        ..options(us, XdpWait::Spin)
    };
    let error = refused(us, &second);
    assert!(matches!(error, OpenError::QueueBusy { queue: 0, .. }), "{error}");
    assert!(error.to_string().contains("ss --xdp"), "{error}");
    let name = us.interface().name.clone();
    let asked = us.run(|| probe(&name, XdpCopy::Copy)).expect("in the host");
    let error = asked.expect_err("a busy queue tells nothing about support");
    assert!(error.to_string().contains("close that one"), "{error}");

    let error = refused(
        us,
        &XdpOptions {
            queue: 7,
            ..second.clone()
        },
    );
    assert!(matches!(error, OpenError::NoQueue { queue: 7, .. }), "{error}");
    assert!(error.to_string().contains("ethtool -l"), "{error}");

    let nowhere = XdpOptions {
        interface: "nowhere0".to_owned(),
        ..second.clone()
    };
    let error = refused(us, &nowhere);
    assert!(matches!(error, OpenError::NoInterface { .. }), "{error}");
    let asked = us.run(|| probe("nowhere0", XdpCopy::Copy)).expect("in the host");
    assert!(matches!(asked, Ok(Support::Absent { .. })), "{asked:?}");

    // The queue is free again at once, as far as the caller can see; often.
    drop(first);
    for _ in 0..20 {
        drop(open(us, &second).expect("the queue is free"));
    }
}

#[test]
fn polling_busily_needs_a_privilege_that_is_named() {
    let Some(network) = pair(1500) else { return };
    let [us, _] = two(&network);
    let busy = options(
        us,
        XdpWait::BusyPoll(BusyPoll {
            microseconds: 20,
            budget: 64,
        }),
    );
    let error = us
        .run(|| {
            caps::drop(None, CapSet::Effective, Capability::CAP_NET_ADMIN).expect("giving up is always allowed");
            let opened = XdpPort::open(&busy);
            caps::raise(None, CapSet::Effective, Capability::CAP_NET_ADMIN).expect("it is still permitted");
            opened.map(drop)
        })
        .expect("in the host")
        .expect_err("not allowed");
    assert!(matches!(error, OpenError::NotAllowed { .. }), "{error}");
    assert!(error.to_string().contains("CAP_NET_ADMIN to poll busily"), "{error}");
    open(us, &busy).expect("with the capability it works");
}

#[test]
fn zero_copy_is_refused_by_a_veth() {
    let Some(network) = pair(1500) else { return };
    let [us, _] = two(&network);
    let name = us.interface().name.clone();
    let asked = us.run(|| probe(&name, XdpCopy::ZeroCopy)).expect("in the host");
    let Ok(Support::Absent { why }) = asked else {
        panic!("{asked:?}")
    };
    assert!(why.contains("no zero-copy") && why.contains("copy mode"), "{why}");
    let error = refused(
        us,
        &XdpOptions {
            copy: XdpCopy::ZeroCopy,
            ..options(us, XdpWait::Spin)
        },
    );
    assert!(matches!(error, OpenError::ZeroCopyRefused { .. }), "{error}");
}

#[test]
fn options_that_cannot_be_are_refused_with_the_remedy() {
    let Some(network) = pair(9000) else { return };
    let [us, them] = two(&network);
    let good = XdpOptions {
        peers: vec![peer(them)],
        ..options(us, XdpWait::Spin)
    };
    let with = |change: &dyn Fn(&mut XdpOptions)| {
        let mut options = good.clone();
        change(&mut options);
        refused(us, &options).to_string()
    };
    for (said, must_say) in [
        (with(&|o| o.ring_frames = 100), "power of two"),
        (with(&|o| o.ring_frames = 0), "power of two"),
        (with(&|o| o.ring_frames = 1 << 20), "power of two"),
        (with(&|o| o.frame_bytes_max = 0), "1 to 65507"),
        (with(&|o| o.frame_bytes_max = usize::MAX), "1 to 65507"),
        (with(&|o| o.frame_bytes_max = 8973), "mtu 9001"),
        (
            with(&|o| {
                o.frame_bytes_max = 8000;
                o.multi_buffer = false;
            }),
            "frame_bytes_max of 3798 at most",
        ),
        (
            with(&|o| o.local = (std::net::Ipv4Addr::UNSPECIFIED, 1).into()),
            "not an address",
        ),
        (
            with(&|o| o.local = (std::net::Ipv6Addr::LOCALHOST, 1).into()),
            "not of the family",
        ),
        (
            with(&|o| {
                o.copy = XdpCopy::ZeroCopy;
                o.checksum = XdpChecksum::Kernel;
            }),
            "let the device",
        ),
    ] {
        assert!(said.contains(must_say), "{said:?} does not say {must_say:?}");
    }
    // The bound that the message names is one that works.
    let at_bound = XdpOptions {
        frame_bytes_max: 3798,
        multi_buffer: false,
        ..good.clone()
    };
    open(us, &at_bound).expect("as the message said");

    let (umem, _) = Umem::new(&UmemOptions::new(4)).expect("memory");
    for entries in [0, 3, 1 << 17] {
        let socket = SocketOptions {
            rx_entries: entries,
            ..SocketOptions::new(&us.interface().name, 4)
        };
        let error = us.run(|| Socket::open(&umem, &socket)).expect("in the host");
        let error = error.expect_err("it must be refused").to_string();
        assert!(
            error.contains("rx_entries") && error.contains("powers of two"),
            "{error}"
        );
    }
}

#[test]
fn a_missing_privilege_is_told_from_a_missing_feature() {
    let Some(network) = pair(1500) else { return };
    let [us, _] = two(&network);
    let name = us.interface().name.clone();
    let (asked, opened) = us
        .run(|| {
            // This thread's alone, and only until the end of the closure.
            caps::drop(None, CapSet::Effective, Capability::CAP_NET_RAW).expect("giving up is always allowed");
            let said = (
                probe(&name, XdpCopy::Copy),
                XdpPort::open(&options(us, XdpWait::Spin)).map(drop),
            );
            caps::raise(None, CapSet::Effective, Capability::CAP_NET_RAW).expect("it is still permitted");
            said
        })
        .expect("in the host");
    let error = asked.expect_err("it could not be asked");
    assert!(
        error.to_string().contains("CAP_NET_RAW") && error.to_string().contains("CAP_BPF"),
        "{error}"
    );
    let error = opened.expect_err("not allowed");
    assert!(matches!(error, OpenError::NotAllowed { .. }), "{error}");
}

#[test]
fn memory_above_the_limit_is_refused_with_the_limit_named() {
    let Some(network) = pair(1500) else { return };
    let [us, _] = two(&network);
    let (soft_bytes, _) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_MEMLOCK).expect("a limit");
    if soft_bytes > 64 << 20 {
        println!("skipped: RLIMIT_MEMLOCK is {soft_bytes} bytes, more than a test should lock");
        return;
    }
    let frames = (soft_bytes as usize / 4096 + 1).next_power_of_two();
    let error = us
        .run(|| {
            caps::drop(None, CapSet::Effective, Capability::CAP_IPC_LOCK).expect("giving up is always allowed");
            let opened = Umem::new(&UmemOptions::new(frames))
                .and_then(|(umem, _)| Socket::open(&umem, &SocketOptions::new(&us.interface().name, 64)));
            // Without the capability there may have been no right to begin with.
            let _ = caps::raise(None, CapSet::Effective, Capability::CAP_IPC_LOCK);
            opened.map(drop)
        })
        .expect("in the host")
        .expect_err("above the limit");
    assert!(matches!(error, OpenError::MemoryLimit { .. }), "{error}");
    assert!(error.to_string().contains("ulimit -l"), "{error}");
}

#[test]
fn huge_pages_are_used_or_asked_for() {
    let Some(network) = pair(1500) else { return };
    let [us, them] = two(&network);
    let socket = kernel_socket(them, them.ipv4());
    let opened = open(
        us,
        &XdpOptions {
            peers: vec![peer(them)],
            huge_pages: true,
            ..options(us, XdpWait::Spin)
        },
    );
    match opened {
        Ok(mut port) => {
            send(&mut port, Peer(0), b"from a huge page");
            let mut buffer = [0; 64];
            let heard_bytes = socket.recv(&mut buffer).expect("it was sent");
            assert_eq!(&buffer[..heard_bytes], b"from a huge page");
        }
        Err(error @ OpenError::NoHugePages { .. }) => {
            assert!(error.to_string().contains("nr_hugepages"), "{error}");
            println!("only the refusal was seen: {error}");
        }
        Err(error) => panic!("{error}"),
    }
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

#[test]
#[should_panic(expected = "without metadata")]
fn a_request_needs_metadata() {
    let Some(network) = pair(1500) else {
        panic!("skipped, so that it passes: without metadata")
    };
    let [us, _] = two(&network);
    let (umem, mut frames, mut socket) = raw(us, 4, |_| ());
    assert_eq!(umem.options().tx_metadata, TxMetadata::None);
    let request = TxRequest {
        stamp: true,
        ..TxRequest::default()
    };
    let _ = socket.tx(frames.remove(0), 64..128, false, request);
}

/// Rings say when they are full, and give the frame back.
#[test]
fn a_full_ring_gives_the_frame_back() {
    let Some(network) = pair(1500) else { return };
    let [us, _] = two(&network);
    let (_umem, mut frames, mut socket) = raw(us, 8, |options| {
        options.fill_entries = 4;
        options.tx_entries = 2;
    });
    for _ in 0..4 {
        socket.fill(frames.pop().expect("eight")).expect("room");
    }
    let back = socket.fill(frames.pop().expect("eight")).expect_err("four places");
    for _ in 0..2 {
        socket
            .tx(frames.pop().expect("eight"), 0..60, false, TxRequest::default())
            .expect("room");
    }
    let back = socket
        .tx(back, 0..60, false, TxRequest::default())
        .expect_err("two places");
    assert!(back.index() < 8);
    assert_eq!(socket.tx_pending_count().expect("an honest kernel"), 0, "not published");
    socket.publish_tx();
    assert_eq!(socket.tx_pending_count().expect("an honest kernel"), 2);
    socket.kick().expect("the link is up");
    assert_eq!(socket.tx_pending_count().expect("an honest kernel"), 0);
}
