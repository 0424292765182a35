//! The socket without a port around it: tokens, rings, segments, queues, one memory for several sockets.

use super::*;

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
