//! What only UDP has: strangers, ICMP, full buffers, trains, and how many system calls a turn takes.

use std::time::Instant;

use super::*;
use crate::sys::inet::set_option;

const ALL_BATCHINGS: [Batching; 3] = [Batching::Single, Batching::Multi, Batching::Gso];
const PATIENCE: Duration = Duration::from_secs(5);

fn open(options: UdpOptions) -> UdpPort {
    UdpPort::open(&options).expect("a socket on loopback")
}

/// A server that learns up to `learn_peers_max`, and a client connected to it.
fn link(wait: WaitHow, batch: Batching, learn_peers_max: usize) -> (UdpPort, UdpPort) {
    let options = UdpOptions {
        wait,
        batch,
        ..UdpOptions::default()
    };
    let server = open(UdpOptions {
        learn_peers_max,
        ..options.clone()
    });
    let client = open(UdpOptions {
        peers: vec![server.local_addr()],
        connect: true,
        ..options
    });
    (client, server)
}

fn send(port: &mut UdpPort, to: Peer, bytes: &[u8]) {
    port.tx(to, bytes.len(), &mut |frame| frame.copy_from_slice(bytes))
        .expect("tx");
    port.flush().expect("flush");
}

/// Turns `port` until its counters satisfy `enough`; the frames that came.
fn turn_until(port: &mut UdpPort, enough: impl Fn(&PortStats) -> bool) -> Vec<(Peer, Vec<u8>)> {
    let begin = Instant::now();
    let mut heard = Vec::new();
    while !enough(&port.stats()) {
        assert!(begin.elapsed() < PATIENCE, "{:?}", port.stats());
        port.wait(Duration::from_millis(20)).expect("wait");
        port.rx_burst(&mut |frame| heard.push((frame.from, frame.bytes.to_vec())))
            .expect("rx");
    }
    heard
}

/// What CONFIG_HZ may be: 1000, 300, 250 and 100.
const JIFFIES: [Duration; 4] = [
    Duration::from_millis(1),
    Duration::from_nanos(3_333_333),
    Duration::from_millis(4),
    Duration::from_millis(10),
];

#[test]
fn a_blocking_wait_is_over_in_time_whatever_the_kernel_makes_of_its_timeout() {
    for jiffy in JIFFIES {
        assert_eq!(blocking_timeout(Duration::from_micros(9999), jiffy), None);
        for max_us in (10_000..60_000).step_by(97) {
            let max = Duration::from_micros(max_us);
            let Some(timeout) = blocking_timeout(max, jiffy) else {
                continue;
            };
            // As `sock_set_timeout` rounds it, and one more for the jiffy that has begun.
            let mut ends_by = jiffy;
            while ends_by < timeout + jiffy {
                ends_by += jiffy;
            }
            assert!(ends_by <= max, "{timeout:?} of {max:?} with jiffies of {jiffy:?}");
        }
        let longest = blocking_timeout(Duration::from_secs(1), jiffy);
        assert_eq!(longest, Some(Duration::from_millis(20)));
        // What a node with nothing to do waits: it must not cost a poll.
        assert!(
            blocking_timeout(Duration::from_millis(20), jiffy).is_some(),
            "{jiffy:?}"
        );
    }
    let of_250 = |ms| blocking_timeout(Duration::from_millis(ms), Duration::from_millis(4));
    assert_eq!(
        [15, 16, 23, 24].map(of_250),
        [None, Some(10), Some(10), Some(20)].map(|ms| ms.map(Duration::from_millis))
    );
}

#[test]
fn the_kernel_says_how_often_it_ticks() {
    let jiffy = jiffy();
    assert!(
        (Duration::from_millis(1)..=Duration::from_millis(10)).contains(&jiffy),
        "{jiffy:?}"
    );
}

#[test]
fn a_blocking_turn_is_two_system_calls() {
    two_system_calls_per_turn(WaitHow::Blocking);
    two_system_calls_per_turn(WaitHow::Untimed);
}

fn two_system_calls_per_turn(wait: WaitHow) {
    let (mut client, mut server) = link(wait, Batching::Single, 1);
    for _ in 0..2 {
        send(&mut client, Peer(0), b"warm");
        turn_until(&mut server, |stats| stats.rx_frames_count > 0);
    }
    turn_until(&mut server, |stats| stats.rx_frames_count == 2);
    let before = server.stats();
    for turn in 0..100 {
        send(&mut client, Peer(0), b"ping");
        server.wait(Duration::from_millis(20)).expect("wait");
        let count = server
            .rx_burst(&mut |frame| assert_eq!(frame.bytes, b"ping"))
            .expect("rx");
        assert_eq!(count, 1, "turn {turn}: the frame was there before the wait");
        send(&mut server, Peer(0), b"pong");
    }
    let after = server.stats();
    assert_eq!(after.syscalls_count - before.syscalls_count, 200, "{after:?}");
}

#[test]
fn a_batched_turn_is_two_system_calls_for_all_its_frames() {
    for batch in [Batching::Multi, Batching::Gso] {
        let (mut client, mut server) = link(WaitHow::Blocking, batch, 1);
        let before = client.stats().syscalls_count;
        for number in 0..32u8 {
            client.tx(Peer(0), 100, &mut |frame| frame.fill(number)).expect("tx");
        }
        client.flush().expect("flush");
        assert_eq!(client.stats().syscalls_count - before, 1, "{batch:?}");
        // Wait sets the timeout (one call) and receives (one call); the burst then needs none.
        server.wait(Duration::from_millis(20)).expect("wait");
        let mut heard = Vec::new();
        server
            .rx_burst(&mut |frame| heard.push((frame.bytes.len(), frame.bytes[99])))
            .expect("rx");
        assert_eq!(
            heard,
            (0..32).map(|number| (100, number)).collect::<Vec<_>>(),
            "{batch:?}"
        );
        assert_eq!(server.stats().syscalls_count, 2, "{batch:?}");
    }
}

#[test]
fn strangers_are_counted_and_dropped() {
    for batch in ALL_BATCHINGS {
        let (mut first, mut server) = link(WaitHow::Poll, batch, 1);
        send(&mut first, Peer(0), b"I am learned");
        assert_eq!(
            turn_until(&mut server, |stats| stats.rx_frames_count == 1)[0].0,
            Peer(0)
        );
        let mut stranger = open(UdpOptions {
            peers: vec![server.local_addr()],
            connect: true,
            ..UdpOptions::default()
        });
        send(&mut stranger, Peer(0), b"so am I?");
        assert_eq!(turn_until(&mut server, |stats| stats.strangers_count == 1), []);
        assert_eq!(server.peer_addr(Peer(0)), Some(first.local_addr()));
        assert_eq!(server.peer_addr(Peer(1)), None);
        assert_eq!(server.tx(Peer(1), 1, &mut |_| panic!("nobody")), Err(TxError::NoPeer));
    }
}

#[test]
fn peers_keep_their_numbers() {
    let mut server = open(UdpOptions {
        learn_peers_max: 3,
        ..UdpOptions::default()
    });
    let mut clients: Vec<UdpPort> = (0..3)
        .map(|_| {
            open(UdpOptions {
                peers: vec![server.local_addr()],
                ..UdpOptions::default()
            })
        })
        .collect();
    for round in 0..3 {
        for (i, client) in clients.iter_mut().enumerate() {
            send(client, Peer(0), &[i as u8]);
            let wanted = round * 3 + i as u64 + 1;
            let heard = turn_until(&mut server, |stats| stats.rx_frames_count == wanted);
            assert_eq!(heard, [(Peer(i as u32), vec![i as u8])]);
            send(&mut server, Peer(i as u32), &[10 + i as u8]);
            let heard = turn_until(client, |stats| stats.rx_frames_count == round + 1);
            assert_eq!(heard, [(Peer(0), vec![10 + i as u8])]);
        }
    }
}

#[test]
fn a_dual_stack_server_knows_ipv4_peers() {
    let server = UdpPort::open(&UdpOptions {
        local: "[::]:0".parse().expect("an address"),
        learn_peers_max: 1,
        ..UdpOptions::default()
    });
    let mut server = match server {
        Ok(server) => server,
        Err(error) => return eprintln!("skipped: {error}"),
    };
    let mut client = open(UdpOptions {
        peers: vec![SocketAddr::from(([127, 0, 0, 1], server.local_addr().port()))],
        connect: true,
        ..UdpOptions::default()
    });
    send(&mut client, Peer(0), b"over IPv4");
    turn_until(&mut server, |stats| stats.rx_frames_count == 1);
    assert_eq!(server.peer_addr(Peer(0)), Some(client.local_addr()));
    send(&mut server, Peer(0), b"back");
    assert_eq!(
        turn_until(&mut client, |stats| stats.rx_frames_count == 1),
        [(Peer(0), b"back".to_vec())]
    );
}

#[test]
fn a_datagram_above_the_frame_size_is_malformed() {
    for batch in ALL_BATCHINGS {
        let mut server = open(UdpOptions {
            learn_peers_max: 1,
            frame_bytes_max: 100,
            batch,
            ..UdpOptions::default()
        });
        let mut client = open(UdpOptions {
            peers: vec![server.local_addr()],
            ..UdpOptions::default()
        });
        send(&mut client, Peer(0), &[1; 101]);
        send(&mut client, Peer(0), &[2; 100]);
        let heard = turn_until(&mut server, |stats| stats.rx_frames_count == 1);
        assert_eq!(heard, [(Peer(0), vec![2; 100])], "{batch:?}");
        assert_eq!(server.stats().malformed_count, 1, "{batch:?}");
    }
}

/// A connected socket hears of a closed port by ICMP, at its next call.
#[test]
fn a_closed_port_is_loss() {
    for batch in ALL_BATCHINGS {
        let (mut client, server) = link(WaitHow::Blocking, batch, 1);
        drop(server);
        for _ in 0..20 {
            send(&mut client, Peer(0), b"anybody?");
            client.wait(Duration::from_millis(1)).expect("wait");
            client
                .rx_burst(&mut |frame| panic!("{frame:?} from a closed port"))
                .expect("rx");
        }
        let stats = client.stats();
        assert!(stats.tx_dropped_count > 0, "{batch:?}: {stats:?}");
        assert!(
            stats.tx_frames_count + stats.tx_dropped_count >= 20,
            "{batch:?}: {stats:?}"
        );
    }
}

#[test]
fn a_full_receive_buffer_is_counted() {
    for batch in ALL_BATCHINGS {
        let mut server = open(UdpOptions {
            learn_peers_max: 1,
            recv_buffer_bytes: 4096,
            batch,
            ..UdpOptions::default()
        });
        let mut client = open(UdpOptions {
            peers: vec![server.local_addr()],
            ..UdpOptions::default()
        });
        for _ in 0..100 {
            send(&mut client, Peer(0), &[1; 1000]);
        }
        let heard = turn_until(&mut server, |stats| {
            stats.rx_frames_count + stats.rx_dropped_count == 100
        });
        assert!(server.stats().rx_dropped_count > 0, "{} came", heard.len());
    }
}

#[test]
fn trains_hold_equal_frames_to_one_peer() {
    let (mut client, mut server) = link(WaitHow::Poll, Batching::Gso, 1);
    // A train of 3 and its shorter end, a train of 2, a lone frame behind the shorter one that ended it; an empty frame
    // belongs to no train.
    let lengths = [500, 500, 500, 64, 700, 700, 64, 64, 0, 0];
    for (number, len_bytes) in lengths.into_iter().enumerate() {
        client
            .tx(Peer(0), len_bytes, &mut |frame| frame.fill(number as u8))
            .expect("tx");
    }
    client.flush().expect("flush");
    let heard = turn_until(&mut server, |stats| stats.rx_frames_count == 10);
    let wanted: Vec<_> = lengths
        .into_iter()
        .enumerate()
        .map(|(number, len_bytes)| (Peer(0), vec![number as u8; len_bytes]))
        .collect();
    assert_eq!(heard, wanted);
    assert_eq!(client.train_stats().tx_train_frames_count, 7);
    assert_eq!(client.train_stats().tx_refused_count, 0);
    assert_eq!(server.train_stats().rx_train_frames_count, 7);
}

/// A socket without UDP checksums cannot cut trains (udp_send_skb answers EINVAL): every frame still arrives.
#[test]
fn a_refused_train_goes_frame_by_frame() {
    let (mut client, mut server) = link(WaitHow::Poll, Batching::Gso, 1);
    set_option(&client.socket, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1).expect("SO_NO_CHECK");
    for round in 1..3 {
        for number in 0..4u8 {
            client.tx(Peer(0), 300, &mut |frame| frame.fill(number)).expect("tx");
        }
        client.flush().expect("flush");
        let heard = turn_until(&mut server, |stats| stats.rx_frames_count == round * 4);
        assert_eq!(
            heard,
            (0..4).map(|number| (Peer(0), vec![number; 300])).collect::<Vec<_>>()
        );
    }
    let trains = client.train_stats();
    assert_eq!(
        (trains.tx_refused_count, trains.tx_train_frames_count),
        (1, 0),
        "tried once"
    );
}

/// What is there is found by looking, without a system call that sleeps; what is not, ends in one. Either is told by the bell, too.
#[test]
fn a_port_that_looks_first_finds_frames_and_bells_and_then_sleeps() {
    let (mut client, server) = link(WaitHow::Epoll, Batching::Gso, 1);
    let local = server.local_addr();
    drop(server);
    let mut server = open(UdpOptions {
        local,
        wait: WaitHow::Epoll,
        batch: Batching::Gso,
        look_max: Duration::from_micros(50),
        learn_peers_max: 1,
        ..UdpOptions::default()
    });
    assert_eq!(server.caps().wake, Wake::BusyPolls);
    let (bell, mut ringer) = std::io::pipe().expect("a pipe");

    send(&mut client, Peer(0), b"one");
    server.wait(PATIENCE).expect("wait");
    assert_eq!(server.stats().syscalls_count, 1, "one receive, and no sleep");
    assert_eq!(
        server
            .rx_burst(&mut |frame| assert_eq!(frame.bytes, b"one"))
            .expect("rx"),
        1
    );
    assert_eq!(
        server.stats().syscalls_count,
        1,
        "what was found is not asked for again"
    );

    std::io::Write::write_all(&mut ringer, b"!").expect("a pipe takes a byte");
    server.wait_or(PATIENCE, bell.as_fd()).expect("wait");
    assert_eq!(server.stats().syscalls_count, 3, "a receive and a look at the bell");

    // Nothing comes: it looks for a while, and sleeps for the rest.
    server.wait(Duration::from_millis(20)).expect("wait");
    send(&mut client, Peer(0), b"two");
    let heard = turn_until(&mut server, |stats| stats.rx_frames_count == 2);
    assert_eq!(heard, [(Peer(0), b"two".to_vec())]);
}

#[test]
fn epoll_without_nanoseconds_still_wakes() {
    let (mut client, mut server) = link(WaitHow::Epoll, Batching::Single, 1);
    server.epoll.as_mut().expect("an epoll port").nanoseconds = false;
    send(&mut client, Peer(0), b"ping");
    let heard = turn_until(&mut server, |stats| stats.rx_frames_count == 1);
    assert_eq!(heard, [(Peer(0), b"ping".to_vec())]);
    assert!(
        !server.sleep_in_epoll(Duration::from_millis(1)).expect("wait"),
        "nothing is left"
    );
}

/// A closed port wakes a sleeper, and what it then reads from the socket are no frames.
#[test]
fn a_closer_ends_every_wait() {
    for batch in ALL_BATCHINGS {
        let (mut client, mut server) = link(WaitHow::Untimed, batch, 1);
        send(&mut client, Peer(0), b"ping");
        turn_until(&mut server, |stats| stats.rx_frames_count == 1);
        for mut port in [client, server] {
            let closer = port.closer().expect("a descriptor");
            let before = port.stats();
            let sleeper = std::thread::spawn(move || {
                // Without the closer this would never end.
                for _ in 0..3 {
                    port.wait(Duration::from_secs(3600)).expect("wait");
                    let count = port
                        .rx_burst(&mut |frame| panic!("{frame:?} from a closed port"))
                        .expect("rx");
                    assert_eq!(count, 0);
                }
                port
            });
            std::thread::sleep(Duration::from_millis(5));
            closer.close();
            closer.close();
            let begin = Instant::now();
            while !sleeper.is_finished() {
                assert!(begin.elapsed() < PATIENCE, "{batch:?}: still asleep");
                std::thread::sleep(Duration::from_millis(1));
            }
            let port = sleeper.join().expect("the sleeper's own checks");
            let after = port.stats();
            assert_eq!(after.rx_frames_count, before.rx_frames_count);
            assert_eq!((after.strangers_count, after.malformed_count), (0, 0));
        }
    }
}

#[test]
fn loopback_has_no_napi_queue() {
    let (mut client, mut server) = link(WaitHow::Spin, Batching::Single, 1);
    send(&mut client, Peer(0), b"ping");
    turn_until(&mut server, |stats| stats.rx_frames_count == 1);
    match server.napi_id() {
        Ok(id) => assert_eq!(id, 0),
        Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ENOPROTOOPT)),
    }
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let peer: SocketAddr = "127.0.0.1:9".parse().expect("an address");
    let peer_v6: SocketAddr = "[::1]:9".parse().expect("an address");
    let good = UdpOptions::default();
    for (options, complaint) in [
        (
            UdpOptions {
                frame_bytes_max: 0,
                ..good.clone()
            },
            "frame_bytes_max",
        ),
        (
            UdpOptions {
                frame_bytes_max: 65_508,
                ..good.clone()
            },
            "frame_bytes_max",
        ),
        (
            UdpOptions {
                learn_peers_max: usize::MAX,
                ..good.clone()
            },
            "at most 1024",
        ),
        (
            UdpOptions {
                connect: true,
                ..good.clone()
            },
            "connect with 0 peers",
        ),
        (
            UdpOptions {
                connect: true,
                peers: vec![peer; 2],
                ..good.clone()
            },
            "connect with 2 peers",
        ),
        (
            UdpOptions {
                connect: true,
                peers: vec![peer],
                learn_peers_max: 1,
                ..good.clone()
            },
            "1 to learn",
        ),
        (
            UdpOptions {
                peers: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
                ..good.clone()
            },
            "port 0",
        ),
        (
            UdpOptions {
                peers: vec![peer_v6],
                ..good.clone()
            },
            "IPv6 peer",
        ),
        (
            UdpOptions {
                local: "192.0.2.1:0".parse().expect("an address"),
                ..good.clone()
            },
            "bind",
        ),
    ] {
        let error = UdpPort::open(&options).expect_err(complaint).to_string();
        assert!(error.contains(complaint), "{error}");
    }
}

#[test]
fn every_variant_answers_its_probe() {
    let waits = [
        WaitHow::Blocking,
        WaitHow::Untimed,
        WaitHow::Poll,
        WaitHow::Epoll,
        WaitHow::Spin,
        WaitHow::BusyPoll { microseconds: 50 },
    ];
    for wait in waits {
        for batch in ALL_BATCHINGS {
            // What the answer is depends on the machine; what it must not do is disagree with `open`.
            let options = UdpOptions {
                wait,
                batch,
                ..UdpOptions::default()
            };
            let opens = UdpPort::open(&options).is_ok();
            let answer = probe(wait, batch);
            assert_eq!(
                answer.as_ref().is_ok_and(|support| support.mode().is_some()),
                opens,
                "{answer:?}"
            );
            assert_eq!(name(wait, batch).contains("gso"), batch == Batching::Gso);
        }
    }
}

#[test]
fn the_learned_peer_that_was_silent_for_longest_makes_room_and_a_given_one_never() {
    let client_of = |server: &UdpPort| {
        open(UdpOptions {
            peers: vec![server.local_addr()],
            ..UdpOptions::default()
        })
    };
    let friend = open(UdpOptions::default());
    let mut server = open(UdpOptions {
        peers: vec![friend.local_addr()],
        learn_peers_max: 2,
        forget_peers: true,
        ..UdpOptions::default()
    });
    let mut clients: Vec<UdpPort> = (0..3).map(|_| client_of(&server)).collect();
    let mut heard_count = 0;
    let mut hear = |server: &mut UdpPort, client: &mut UdpPort| {
        send(client, Peer(0), b"x");
        heard_count += 1;
        let heard = turn_until(server, |stats| stats.rx_frames_count == heard_count);
        heard[0].0
    };
    assert_eq!(hear(&mut server, &mut clients[0]), Peer(1));
    assert_eq!(hear(&mut server, &mut clients[1]), Peer(2));
    assert_eq!(hear(&mut server, &mut clients[0]), Peer(1));
    assert_eq!(
        hear(&mut server, &mut clients[2]),
        Peer(2),
        "the second was silent for longest"
    );
    assert_eq!(server.peer_addr(Peer(2)), Some(clients[2].local_addr()));
    assert_eq!(hear(&mut server, &mut clients[1]), Peer(1), "now the first");
    assert_eq!(server.peer_addr(Peer(0)), Some(friend.local_addr()));
    // Answers go to whoever has the number now.
    send(&mut server, Peer(1), b"y");
    let heard = turn_until(&mut clients[1], |stats| stats.rx_frames_count == 1);
    assert_eq!(heard, [(Peer(0), b"y".to_vec())]);
}
