//! The io_uring port against itself and against plain sockets, over loopback addresses. A variant that this kernel does
//! not have is skipped, with the reason printed.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use dataplane_ports::uring::{self, TaskWork, UringOptions, UringPort, UringVariant, UringWait};
use dataplane_waist::{Peer, Port, Support, TxError};

/// How long anything here may take before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(5);

const ENTER: UringVariant = UringVariant::new(UringWait::Enter);

fn variants() -> Vec<UringVariant> {
    let waits = [
        UringWait::Enter,
        UringWait::Spin,
        UringWait::SqPoll { idle_ms: 10 },
        UringWait::NapiBusyPoll { microseconds: 20 },
    ];
    let mut variants = Vec::new();
    for wait in waits {
        for zero_copy_send in [false, true] {
            variants.push(UringVariant {
                zero_copy_send,
                ..UringVariant::new(wait)
            });
        }
    }
    variants.push(UringVariant {
        submit_with_wait: true,
        ..ENTER
    });
    variants.retain(exists);
    variants
}

fn exists(variant: &UringVariant) -> bool {
    match uring::probe(variant) {
        Ok(Support::Native) => true,
        Ok(other) => {
            println!("skipped {}: {other:?}", variant.name());
            false
        }
        Err(error) => {
            println!("skipped {}: {error}", variant.name());
            false
        }
    }
}

fn loopback(ipv4: bool) -> SocketAddr {
    match ipv4 {
        true => (Ipv4Addr::LOCALHOST, 0).into(),
        false => (Ipv6Addr::LOCALHOST, 0).into(),
    }
}

fn has_ipv6() -> bool {
    let has = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    if !has {
        println!("skipped: this host has no ::1");
    }
    has
}

fn server(variant: UringVariant) -> UringPort {
    UringPort::open(&UringOptions::new(loopback(true), variant)).expect("the variant was probed")
}

fn client(variant: UringVariant, server: SocketAddr) -> UringPort {
    let options = UringOptions {
        peers: vec![server],
        learn_peers_max: 0,
        ..UringOptions::new(loopback(server.is_ipv4()), variant)
    };
    UringPort::open(&options).expect("the variant was probed")
}

fn send(port: &mut UringPort, to: Peer, frame: &[u8]) {
    port.tx(to, frame.len(), &mut |bytes| bytes.copy_from_slice(frame))
        .expect("there is room");
    port.flush().expect("the port works");
    // What the merged variant has left to the next call.
    port.wait(Duration::ZERO).expect("the port works");
}

/// Turns the port until it has delivered `count` frames or patience ends.
fn receive(port: &mut UringPort, count: usize) -> Vec<(Peer, Vec<u8>)> {
    let mut frames = Vec::new();
    turn_until(port, &mut frames, |_, frames| frames.len() >= count);
    frames
}

fn turn_until(
    port: &mut UringPort,
    frames: &mut Vec<(Peer, Vec<u8>)>,
    done: impl Fn(&UringPort, &[(Peer, Vec<u8>)]) -> bool,
) {
    let since = Instant::now();
    while !done(port, frames) && since.elapsed() < PATIENCE {
        port.wait(Duration::from_millis(20)).expect("the port works");
        port.rx_burst(&mut |frame| frames.push((frame.from, frame.bytes.to_vec())))
            .expect("the port works");
    }
    assert!(
        done(port, frames),
        "{:?} {:?} {} frames",
        port.stats(),
        port.uring_stats(),
        frames.len()
    );
}

fn pattern(len_bytes: usize) -> Vec<u8> {
    (0..len_bytes).map(|i| (i * 31 + len_bytes) as u8).collect()
}

#[test]
fn every_variant_carries_frames_both_ways() {
    let families = if has_ipv6() { vec![true, false] } else { vec![true] };
    for variant in variants() {
        for (connect, &ipv4) in [false, true]
            .into_iter()
            .flat_map(|c| families.iter().map(move |f| (c, f)))
        {
            let mut server = UringPort::open(&UringOptions::new(loopback(ipv4), variant)).expect("probed");
            let mut client = client(UringVariant { connect, ..variant }, server.local_addr());
            for len_bytes in [0, 1, 64, 1472, 8972, 9000] {
                let request = pattern(len_bytes);
                send(&mut client, Peer(0), &request);
                let received = receive(&mut server, 1);
                assert_eq!(received, [(Peer(0), request.clone())], "{variant:?} connect {connect}");
                send(&mut server, Peer(0), &request);
                let received = receive(&mut client, 1);
                assert_eq!(received, [(Peer(0), request)], "{variant:?} connect {connect}");
            }
            for port in [&mut client, &mut server] {
                // The kernel's own thread may be late to say that it has sent.
                turn_until(port, &mut Vec::new(), |port, _| {
                    port.uring_stats().sends_completed_count == 6
                });
                let stats = port.stats();
                assert_eq!((stats.rx_frames_count, stats.tx_dropped_count), (6, 0), "{variant:?}");
                assert_eq!(stats.rx_dropped_count, 0, "{variant:?}");
            }
        }
    }
}

#[test]
fn speaks_with_plain_sockets() {
    for variant in variants() {
        let mut port = server(variant);
        let socket = UdpSocket::bind(loopback(true)).expect("loopback exists");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time-out is allowed");
        socket.send_to(b"ask", port.local_addr()).expect("loopback works");
        assert_eq!(receive(&mut port, 1), [(Peer(0), b"ask".to_vec())]);
        send(&mut port, Peer(0), b"answer");
        let mut bytes = [0; 100];
        let (len_bytes, from) = loop {
            match socket.recv_from(&mut bytes) {
                // The ring's task work interrupts this thread's other system calls.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                received => break received.expect("the answer comes"),
            }
        };
        assert_eq!(
            (&bytes[..len_bytes], from),
            (&b"answer"[..], port.local_addr()),
            "{variant:?}"
        );
    }
}

#[test]
fn a_burst_is_bounded_and_nothing_is_lost() {
    for variant in variants() {
        let mut server = server(variant);
        let batch_frames_max = server.caps().batch_frames_max;
        let mut client = client(variant, server.local_addr());
        let mut frames = Vec::new();
        for round in 0..20_u8 {
            for index in 0..batch_frames_max as u8 {
                client
                    .tx(Peer(0), 2, &mut |bytes| bytes.copy_from_slice(&[round, index]))
                    .expect("a batch fits");
            }
            client.flush().expect("the port works");
            client.wait(Duration::ZERO).expect("the port works");
            let due = (usize::from(round) + 1) * batch_frames_max;
            turn_until(&mut server, &mut frames, |_, frames| frames.len() >= due);
            // A slot is free again once its completions are reaped.
            turn_until(&mut client, &mut Vec::new(), |client, _| {
                client.uring_stats().sends_completed_count == due as u64
                    && (!variant.zero_copy_send || client.uring_stats().notifications_count == due as u64)
            });
        }
        let expected: Vec<_> = (0..20_u8)
            .flat_map(|round| (0..batch_frames_max as u8).map(move |index| (Peer(0), vec![round, index])))
            .collect();
        assert_eq!(frames, expected, "{variant:?}");
    }
}

#[test]
fn strangers_are_counted_and_learning_is_bounded() {
    if !exists(&ENTER) {
        return;
    }
    let mut port = UringPort::open(&UringOptions {
        learn_peers_max: 2,
        ..UringOptions::new(loopback(true), ENTER)
    })
    .expect("probed");
    let sockets: Vec<_> = (0..3)
        .map(|_| UdpSocket::bind(loopback(true)).expect("loopback exists"))
        .collect();
    for socket in &sockets {
        socket.send_to(b"hello", port.local_addr()).expect("loopback works");
    }
    let mut frames = Vec::new();
    turn_until(&mut port, &mut frames, |port, _| port.stats().strangers_count == 1);
    assert_eq!(frames, [(Peer(0), b"hello".to_vec()), (Peer(1), b"hello".to_vec())]);
    assert_eq!(port.tx(Peer(2), 1, &mut |_| ()), Err(TxError::NoPeer));

    let mut closed = client(ENTER, sockets[0].local_addr().expect("bound"));
    sockets[1]
        .send_to(b"who?", closed.local_addr())
        .expect("loopback works");
    turn_until(&mut closed, &mut Vec::new(), |port, _| {
        port.stats().strangers_count == 1
    });
    assert_eq!(closed.stats().rx_frames_count, 0);
}

#[test]
fn a_frame_that_is_too_long_is_malformed() {
    if !exists(&ENTER) {
        return;
    }
    let socket = UdpSocket::bind(loopback(true)).expect("loopback exists");
    for connect in [false, true] {
        let mut port = UringPort::open(&UringOptions {
            peers: vec![socket.local_addr().expect("bound")],
            frame_bytes_max: 100,
            ..UringOptions::new(loopback(true), UringVariant { connect, ..ENTER })
        })
        .expect("probed");
        for len_bytes in [101, 5000, 100] {
            socket
                .send_to(&pattern(len_bytes), port.local_addr())
                .expect("loopback works");
        }
        assert_eq!(receive(&mut port, 1), [(Peer(0), pattern(100))], "connect {connect}");
        assert_eq!(port.stats().malformed_count, 2, "connect {connect}");
        assert_eq!(port.tx(Peer(0), 101, &mut |_| ()), Err(TxError::TooLong));
    }
}

#[test]
fn a_full_queue_refuses_and_counts() {
    for variant in variants() {
        let socket = UdpSocket::bind(loopback(true)).expect("loopback exists");
        let mut port = client(variant, socket.local_addr().expect("bound"));
        for _ in 0..port.caps().batch_frames_max {
            port.tx(Peer(0), 8, &mut |bytes| bytes.fill(7)).expect("a batch fits");
        }
        let mut filled = false;
        assert_eq!(port.tx(Peer(0), 8, &mut |_| filled = true), Err(TxError::Full));
        assert!(!filled, "a refused frame is not filled in");
        assert_eq!(port.stats().tx_dropped_count, 1);
        port.flush().expect("the port works");
        port.wait(Duration::ZERO).expect("the port works");
        let due = port.caps().batch_frames_max as u64;
        turn_until(&mut port, &mut Vec::new(), |port, _| {
            port.stats().tx_frames_count == due
        });
        assert_eq!(port.tx(Peer(0), 8, &mut |bytes| bytes.fill(7)), Ok(()), "{variant:?}");
    }
}

#[test]
fn a_dead_peer_is_loss_and_may_come_back() {
    let variant = UringVariant { connect: true, ..ENTER };
    if !exists(&variant) {
        return;
    }
    let socket = UdpSocket::bind(loopback(true)).expect("loopback exists");
    let address = socket.local_addr().expect("bound");
    let mut port = client(variant, address);
    drop(socket);
    for _ in 0..10 {
        send(&mut port, Peer(0), b"anybody?");
        port.wait(Duration::from_millis(1))
            .expect("refusal is loss, not an error");
        port.rx_burst(&mut |_| ()).expect("refusal is loss, not an error");
    }
    assert!(port.stats().tx_dropped_count > 0, "{:?}", port.stats());

    let socket = UdpSocket::bind(address).expect("the port is free");
    socket
        .set_read_timeout(Some(Duration::from_millis(100)))
        .expect("allowed");
    let mut bytes = [0; 100];
    let since = Instant::now();
    loop {
        // The first send may still carry the old refusal.
        send(&mut port, Peer(0), b"again");
        if socket.recv_from(&mut bytes).is_ok() {
            break;
        }
        assert!(since.elapsed() < PATIENCE, "{:?}", port.stats());
    }
    socket.send_to(b"yes", port.local_addr()).expect("loopback works");
    assert_eq!(receive(&mut port, 1), [(Peer(0), b"yes".to_vec())]);
}

#[test]
fn exhausted_buffers_delay_and_lose_nothing() {
    for variant in variants() {
        let mut port = UringPort::open(&UringOptions {
            entries: 2,
            buffers: 4,
            frame_bytes_max: 64,
            ..UringOptions::new(loopback(true), variant)
        })
        .expect("probed");
        // Armed, so that the kernel fills all buffers before we look.
        port.rx_burst(&mut |_| ()).expect("the port works");
        let socket = UdpSocket::bind(loopback(true)).expect("loopback exists");
        for index in 0..40_u8 {
            socket.send_to(&[index], port.local_addr()).expect("loopback works");
        }
        let frames = receive(&mut port, 40);
        let expected: Vec<_> = (0..40).map(|index| (Peer(0), vec![index])).collect();
        assert_eq!(frames, expected, "{variant:?}");
        assert!(
            port.uring_stats().buffers_exhausted_count > 0,
            "{variant:?} {:?}",
            port.uring_stats()
        );
        assert!(port.uring_stats().receive_armed_count > 1);
        assert_eq!(port.stats().rx_dropped_count, 0, "the socket's own buffer held them");
    }
}

#[test]
fn what_the_socket_drops_is_counted() {
    if !exists(&ENTER) {
        return;
    }
    let mut port = server(ENTER);
    let socket = UdpSocket::bind(loopback(true)).expect("loopback exists");
    let frame = pattern(9000);
    // Far more than net.core.rmem_max lets a socket hold, and nobody reads.
    for _ in 0..5000 {
        socket.send_to(&frame, port.local_addr()).expect("loopback works");
    }
    let dropped_count = port.stats().rx_dropped_count;
    assert!(dropped_count > 0);
    let frames = receive(&mut port, 5000 - dropped_count as usize);
    assert_eq!(frames.len() as u64 + dropped_count, 5000);
}

#[test]
fn every_zero_copy_send_is_notified_once() {
    let variant = UringVariant {
        zero_copy_send: true,
        ..ENTER
    };
    if !exists(&variant) {
        return;
    }
    let socket = UdpSocket::bind(loopback(true)).expect("loopback exists");
    let mut port = client(variant, socket.local_addr().expect("bound"));
    for _ in 0..500 {
        if port.tx(Peer(0), 1000, &mut |bytes| bytes.fill(1)) == Err(TxError::Full) {
            port.wait(Duration::from_millis(1)).expect("the port works");
        }
        port.flush().expect("the port works");
    }
    turn_until(&mut port, &mut Vec::new(), |port, _| {
        port.uring_stats().notifications_count == port.stats().tx_frames_count
    });
    let stats = port.stats();
    assert_eq!(stats.tx_frames_count + stats.tx_dropped_count, 500);
    assert!(stats.tx_frames_count > 400, "{stats:?}");
}

#[test]
fn a_ring_belongs_to_the_thread_that_used_it_first() {
    if !exists(&ENTER) {
        return;
    }
    // Opened here, used there, dropped here: what a benchmark's threads do.
    let mut port = server(ENTER);
    if port.task_work() != TaskWork::Deferred {
        println!("skipped: this kernel has no IORING_SETUP_SINGLE_ISSUER");
        return;
    }
    let address = port.local_addr();
    let mut port = std::thread::spawn(move || {
        port.rx_burst(&mut |_| ()).expect("the first thread may");
        port
    })
    .join()
    .expect("the thread ends");
    let error = port.wait(Duration::from_millis(1)).expect_err("the second may not");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    drop(port);
    let since = Instant::now();
    while UdpSocket::bind(address).is_err() {
        assert!(since.elapsed() < PATIENCE, "the port number is still taken");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_closed_port_frees_its_address() {
    for variant in variants() {
        let mut port = server(variant);
        let address = port.local_addr();
        port.rx_burst(&mut |_| ()).expect("the port works");
        drop(port);
        // At once, but for the kernel's own thread, which ends when it is scheduled.
        let is_sqpoll = matches!(variant.wait, UringWait::SqPoll { .. });
        let since = Instant::now();
        while let Err(error) = UdpSocket::bind(address) {
            assert!(is_sqpoll && since.elapsed() < PATIENCE, "{variant:?}: {error}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn nonsense_options_are_refused() {
    let good = UringOptions::new(loopback(true), ENTER);
    let v6 = loopback(false);
    let bad = [
        UringOptions {
            entries: 0,
            ..good.clone()
        },
        UringOptions {
            buffers: 33,
            ..good.clone()
        },
        UringOptions {
            buffers: 2,
            ..good.clone()
        },
        UringOptions {
            frame_bytes_max: 0,
            ..good.clone()
        },
        UringOptions {
            frame_bytes_max: 65_508,
            ..good.clone()
        },
        UringOptions {
            peers: vec![v6],
            ..good.clone()
        },
        UringOptions {
            variant: UringVariant { connect: true, ..ENTER },
            ..good.clone()
        },
        UringOptions {
            variant: UringVariant {
                submit_with_wait: true,
                ..UringVariant::new(UringWait::Spin)
            },
            ..good
        },
    ];
    for options in bad {
        let error = UringPort::open(&options).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{options:?}: {error}");
    }
}

#[test]
fn a_spinning_port_makes_no_system_call_while_nothing_comes() {
    let variant = UringVariant::new(UringWait::Spin);
    if !exists(&variant) {
        return;
    }
    let mut port = server(variant);
    port.rx_burst(&mut |_| ()).expect("the port works");
    let before = port.stats().syscalls_count;
    for _ in 0..10_000 {
        port.wait(Duration::from_secs(1)).expect("the port works");
        port.rx_burst(&mut |_| ()).expect("the port works");
        port.flush().expect("the port works");
    }
    assert_eq!(port.stats().syscalls_count, before);
}

/// Answers what comes until `turns_count` frames have been answered.
fn echo(mut port: UringPort, turns_count: usize) {
    let mut answered_count = 0;
    let since = Instant::now();
    while answered_count < turns_count && since.elapsed() < PATIENCE {
        port.wait(PATIENCE).expect("the port works");
        let count = port.rx_burst(&mut |_| ()).expect("the port works");
        for _ in 0..count {
            send(&mut port, Peer(0), b"pong");
        }
        answered_count += count;
    }
}

#[test]
fn merging_saves_one_system_call_of_two() {
    const TURNS_COUNT: usize = 200;
    if !exists(&ENTER) {
        return;
    }
    let [separate_count, merged_count] = [false, true].map(|submit_with_wait| {
        let server = server(ENTER);
        let mut client = client(
            UringVariant {
                submit_with_wait,
                ..ENTER
            },
            server.local_addr(),
        );
        client.rx_burst(&mut |_| ()).expect("the port works");
        let before = client.stats().syscalls_count;
        let echo = std::thread::spawn(move || echo(server, TURNS_COUNT));
        for _ in 0..TURNS_COUNT {
            client
                .tx(Peer(0), 4, &mut |bytes| bytes.copy_from_slice(b"ping"))
                .expect("there is room");
            client.flush().expect("the port works");
            let since = Instant::now();
            let mut count = 0;
            while count == 0 {
                assert!(since.elapsed() < PATIENCE, "{:?}", client.stats());
                client.wait(PATIENCE).expect("the port works");
                count = client.rx_burst(&mut |_| ()).expect("the port works");
            }
        }
        let made_count = client.stats().syscalls_count - before;
        echo.join().expect("the echo ends");
        made_count as usize
    });
    println!("{TURNS_COUNT} turns: {separate_count} system calls, merged {merged_count}");
    // An answer that is there before the wait saves the separate wait too, so only the merged count is exact.
    assert!(merged_count <= TURNS_COUNT + TURNS_COUNT / 10, "{merged_count}");
    assert!(merged_count < separate_count, "{merged_count} {separate_count}");
}
