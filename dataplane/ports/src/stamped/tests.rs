//! Stamps over loopback, and control messages from nobody.

use std::{collections::BTreeMap, thread, time::Instant};

use dataplane_waist::Support;
use proptest::prelude::*;

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

fn open(local: &str, remote: Option<SocketAddr>, interface: bool) -> StampedSocket {
    StampedSocket::open(&StampedOptions {
        local: local.parse().expect("an address"),
        remote,
        wait: StampedWait::Blocking(Duration::from_millis(200)),
        hardware: true,
        interface,
    })
    .expect("a socket over loopback")
}

/// A sender connected to a receiver.
fn pair(local: &str, interface: bool) -> (StampedSocket, StampedSocket) {
    let to = open(local, None, false);
    (open(local, Some(to.local_addr()), interface), to)
}

/// The next datagram, within a bound.
fn next(socket: &mut StampedSocket, into: &mut [u8]) -> Received {
    let started = Instant::now();
    loop {
        if let Some(received) = socket.recv(into).expect("it receives") {
            return received;
        }
        assert!(started.elapsed() < PATIENCE, "nothing came");
    }
}

/// Both transmit stamps of the datagram `key`, within a bound.
fn both_stamps(socket: &mut StampedSocket, key: u64) -> [TxStamp; 2] {
    let started = Instant::now();
    let (mut scheduled, mut sent) = (None, None);
    while scheduled.is_none() || sent.is_none() {
        let look = &mut |stamp: TxStamp| match stamp.station {
            TxStation::Scheduled if stamp.key == key => scheduled = Some(stamp),
            TxStation::Sent if stamp.key == key => sent = Some(stamp),
            _ => {}
        };
        socket.tx_stamps(look).expect("the error queue can be read");
        assert!(started.elapsed() < PATIENCE, "{scheduled:?} {sent:?}");
    }
    [scheduled, sent].map(|stamp| stamp.expect("both are there"))
}

#[test]
fn stamps_come_in_the_order_of_the_way() {
    const WAYS_COUNT: u32 = 200;
    for local in ["127.0.0.1:0", "[::1]:0"] {
        let (mut from, mut to) = pair(local, true);
        let lo = nix::net::if_::if_nametoindex("lo").expect("loopback");
        let mut buffer = [0; 64];
        let started = Instant::now();
        let mut whole_ways_count = 0;
        for index in 0u64.. {
            if whole_ways_count == WAYS_COUNT {
                break;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "{whole_ways_count} of {index} had a receive stamp"
            );
            let offset =
                ClockOffset::measure(WallClock::Realtime).expect("nobody sets this machine's clock all the time");
            let app_send_ns = monotonic_ns();
            let key = from.send(&index.to_be_bytes()).expect("it sends");
            let received = next(&mut to, &mut buffer);
            let app_recv_ns = monotonic_ns();
            assert_eq!(key, index);
            assert_eq!((received.len_bytes, received.is_cut), (8, false));
            assert_eq!(received.from, Some(from.local_addr()));
            assert_eq!(received.hardware, None, "loopback has no clock of its own");
            let [scheduled, sent] = both_stamps(&mut from, key);
            assert_eq!(
                [scheduled.interface_index, sent.interface_index],
                [Some(lo); 2],
                "{local}"
            );
            let Some(in_stack) = received.software else {
                // The worker that switches them on waits for a CPU; or the one before it is just switching them off, for a
                // socket elsewhere on this machine, and has not come to ours yet.
                thread::sleep(Duration::from_millis(1));
                continue;
            };
            whole_ways_count += 1;
            assert_eq!(in_stack.clock, StampClock::Realtime);
            let way = [
                app_send_ns,
                offset.monotonic_ns(scheduled.stamp).expect("a software stamp"),
                offset.monotonic_ns(sent.stamp).expect("a software stamp"),
                offset.monotonic_ns(in_stack).expect("a software stamp"),
                app_recv_ns,
            ];
            let later = ClockOffset::measure(WallClock::Realtime).expect("as above");
            if later.step_since(&offset).is_some() {
                continue;
            }
            for (earlier, later) in way.iter().zip(&way[1..]) {
                assert!(
                    *earlier <= later + offset.error_ns,
                    "{way:?} within {}",
                    offset.error_ns
                );
            }
        }
    }
}

#[test]
fn ten_thousand_sends_are_all_stamped_and_the_socket_still_receives() {
    const SENDS_COUNT: u64 = 10_000;
    let (mut from, mut to) = pair("127.0.0.1:0", false);
    let mut buffer = [0; 64];
    let mut stamps_of_key: BTreeMap<u64, u32> = BTreeMap::new();
    for index in 0..SENDS_COUNT {
        let key = from.send(&index.to_be_bytes()).expect("it sends");
        let request = next(&mut to, &mut buffer);
        assert_eq!(buffer[..8], index.to_be_bytes());
        // And back, through the receive buffer that the stamps share.
        to.send_to(&buffer[..8], request.from.expect("a sender"))
            .expect("it answers");
        next(&mut from, &mut buffer);
        assert_eq!(buffer[..8], key.to_be_bytes());
        // Taken seldom: in between the socket reads its error queue by itself.
        if index % 400 == 399 {
            let count = &mut |stamp: TxStamp| *stamps_of_key.entry(stamp.key).or_default() += 1;
            from.tx_stamps(count).expect("the error queue can be read");
        }
    }
    assert_eq!(stamps_of_key.len() as u64, SENDS_COUNT);
    assert!(stamps_of_key.values().all(|count| *count == 2), "one of each station");
    let stats = from.stats();
    assert_eq!((stats.sent_count, stats.received_count), (SENDS_COUNT, SENDS_COUNT));
    assert_eq!(stats.tx_stamps_count, 2 * SENDS_COUNT);
    assert_eq!((stats.tx_stamps_dropped_count, stats.strange_count), (0, 0));
    // Nobody ever took the other side's: kept within a bound, and counted.
    assert_eq!(
        to.stats().tx_stamps_dropped_count + to.held.len() as u64,
        to.stats().tx_stamps_count
    );
    assert!(to.held.len() <= HELD_STAMPS_MAX);
}

#[test]
fn a_peer_that_is_gone_costs_no_key() {
    let (mut from, to) = pair("127.0.0.1:0", false);
    let address = to.local_addr();
    drop(to);
    let mut keys = Vec::new();
    for _ in 0..20 {
        keys.push(from.send(b"anybody?").expect("refusals are no errors"));
        assert_eq!(from.recv(&mut [0; 64]).expect("nor are they here"), None);
    }
    assert_eq!(keys, (0..20).collect::<Vec<u64>>());
    // Somebody else's, on the same address: the keys still fit.
    let mut to = open(&address.to_string(), None, false);
    let key = from.send(b"you!").expect("it sends");
    next(&mut to, &mut [0; 64]);
    let [scheduled, _] = both_stamps(&mut from, key);
    assert_eq!(scheduled.key, 20);
}

#[test]
fn a_spinning_receive_returns_at_once_and_a_long_datagram_is_cut() {
    let mut to = StampedSocket::open(&StampedOptions {
        local: "127.0.0.1:0".parse().expect("an address"),
        remote: None,
        wait: StampedWait::Spin,
        hardware: false,
        interface: false,
    })
    .expect("a socket");
    assert_eq!(to.recv(&mut [0; 8]).expect("nothing is no error"), None);
    let mut from = open("127.0.0.1:0", Some(to.local_addr()), false);
    from.send(&[7; 100]).expect("it sends");
    let received = next(&mut to, &mut [0; 8]);
    assert_eq!((received.len_bytes, received.is_cut), (8, true));
}

#[test]
fn the_kernel_here_stamps() {
    assert_eq!(probe().expect("loopback is up"), Support::Native);
}

#[test]
fn the_kernel_s_counter_is_told_from_strangers_and_wraps() {
    let keys = Keys { next: 10, base: 4 };
    assert_eq!(keys.of(0), Some(4));
    assert_eq!(keys.of(5), Some(9));
    assert_eq!(keys.of(6), None, "not sent yet");
    assert_eq!(keys.of(u32::MAX), None);
    let wrapped = Keys {
        next: (1 << 32) + 3,
        base: 0,
    };
    assert_eq!(wrapped.of(2), Some((1 << 32) + 2));
    assert_eq!(wrapped.of(u32::MAX), Some(u64::from(u32::MAX)));
    assert_eq!(wrapped.of(3), Some(3));
    assert_eq!(Keys { next: 0, base: 0 }.of(0), None, "nothing was sent");
}

proptest! {
    #[test]
    fn any_control_bytes_are_answered_without_a_panic(control in prop::collection::vec(any::<u8>(), 0..300)) {
        let keys = Keys { next: 100, base: 0 };
        let _ = (stamps_of(&control), tx_stamps_of(&control, keys));
    }

    /// Right headers and wrong contents, which get further.
    #[test]
    fn control_messages_with_any_contents_are_answered_without_a_panic(
        messages in prop::collection::vec(
            (0usize..6, prop::collection::vec(any::<u8>(), 0..70), any::<bool>()), 0..5),
    ) {
        let kinds = [
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPING),
            (libc::SOL_IP, libc::IP_RECVERR),
            (libc::SOL_IPV6, libc::IPV6_RECVERR),
            (libc::SOL_IP, libc::IP_PKTINFO),
            (libc::SOL_IPV6, libc::IPV6_PKTINFO),
            (0, 0),
        ];
        let mut control = Vec::new();
        for (kind, data, is_padded) in messages {
            let (level, kind) = kinds[kind];
            control.extend((size_of::<libc::cmsghdr>() + data.len()).to_ne_bytes());
            control.extend(level.to_ne_bytes());
            control.extend(kind.to_ne_bytes());
            control.extend(data);
            if is_padded {
                control.resize(control.len().next_multiple_of(8), 0);
            }
        }
        let keys = Keys { next: 100, base: 0 };
        if let Some(stamps) = tx_stamps_of(&control, keys) {
            prop_assert!(stamps.iter().flatten().all(|stamp| stamp.key < 100));
        }
        for stamp in stamps_of(&control).iter().flatten() {
            prop_assert!(stamp.at_ns > 0);
        }
    }
}
