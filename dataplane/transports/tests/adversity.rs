//! Whatever the path does to segments, every byte arrives once and in order, the window is kept, and somebody always wakes;
//! whatever acks say, a sender does not break.
#![forbid(unsafe_code)]

mod support;

use dataplane_transports::{
    ControllerKind, EcnMode, Pacing, Receiver, ReceiverOptions, SackBlock, Segment, Sender, SenderOptions,
};
use dataplane_waist::Instant;
use proptest::{prelude::*, test_runner::FileFailurePersistence};
use support::{Fate, MS, Path, PathOptions, SEC};

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate::Pass),
        2 => Just(Fate::Drop),
        1 => Just(Fate::Twice),
        1 => (1..200_u64).prop_map(|at_100_us| Fate::Late(at_100_us * MS / 10)),
    ]
}

fn sender_options() -> impl Strategy<Value = SenderOptions> {
    let switches = prop::array::uniform9(any::<bool>());
    (any::<bool>(), switches, 1..20_u32, 0..3_u8).prop_map(|(is_linux, switches, window, ecn)| {
        let [
            sack,
            rack,
            tlp,
            frto,
            limited_transmit,
            prr,
            timestamps,
            paced,
            randomised,
        ] = switches;
        let base = if is_linux {
            SenderOptions::linux_2026()
        } else {
            SenderOptions::default()
        };
        SenderOptions {
            initial_window_segments: window,
            sack,
            rack,
            tlp,
            frto,
            limited_transmit,
            prr,
            timestamps,
            rto_randomised: randomised,
            pacing: if paced { Pacing::Window } else { Pacing::Off },
            ecn: [EcnMode::Off, EcnMode::Classic, EcnMode::Dctcp][usize::from(ecn)],
            ..base
        }
    })
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..ProptestConfig::with_cases(cases)
    }
}

proptest! {
    #![proptest_config(config(400))]

    #[test]
    fn every_byte_arrives_whatever_the_path_does(
        kind in prop::sample::select(ControllerKind::ALL),
        sender in sender_options(),
        ack_delay_ms in 0..50_u64,
        fates in prop::collection::vec(fate(), 0..300),
        ack_fates in prop::collection::vec(fate(), 0..300),
        queue_segments in 2..50_u64,
        bytes in 1..300_000_u64,
    ) {
        let receiver = ReceiverOptions {
            sack: sender.sack,
            ecn: sender.ecn,
            ack_delay: std::time::Duration::from_millis(ack_delay_ms),
            ..ReceiverOptions::default()
        };
        let mut path = Path::new(PathOptions {
            queue_bytes_max: queue_segments * 1448,
            mark_above_bytes: 5 * 1448,
            ..PathOptions::default()
        });
        path.fate = Box::new(move |_, number, _| fates.get(number as usize).copied().unwrap_or(Fate::Pass));
        path.ack_fate = Box::new(move |_, number, _| ack_fates.get(number as usize).copied().unwrap_or(Fate::Pass));
        let flow = path.add(&sender, &receiver, kind.build(&sender));
        path.write(flow, bytes);
        let done_ns = path.run_to_the_end(1_000_000 * SEC);
        let ends = &path.flows[flow];
        prop_assert!(done_ns.is_some(), "{kind} stops: {:?} {:?}", ends.sender.stats(), ends.receiver.stats());
        prop_assert_eq!(ends.receiver.received_bytes(), bytes);
        prop_assert_eq!(ends.sender.stats().malformed_count, 0);
        prop_assert_eq!(ends.receiver.stats().malformed_count, 0);
        prop_assert_eq!((ends.sender.heap_bytes(), ends.receiver.heap_bytes()), (0, 0));
    }

    #[test]
    fn nonsense_breaks_nothing(
        kind in prop::sample::select(ControllerKind::ALL),
        options in sender_options(),
        steps in prop::collection::vec((0..4_u8, any::<[u16; 8]>(), any::<u8>()), 1..200),
    ) {
        let mut sender = Sender::new(&options, kind.build(&options));
        let mut receiver = Receiver::new(&ReceiverOptions { ecn: options.ecn, ..ReceiverOptions::default() });
        let mut now_ns = 0;
        for (what, numbers, flags) in steps {
            now_ns += u64::from(numbers[7]) * 10_000;
            let now = Instant::from_ns(now_ns);
            let mut segment = Segment {
                seq: u64::from(numbers[0]),
                len_bytes: u32::from(numbers[1]) * u32::from(flags & 1),
                ack: u64::from(numbers[2]),
                window_bytes: u32::from(numbers[3]) << (flags % 16),
                timestamps: flags & 2 != 0,
                ts_ecr: numbers[4].into(),
                ece: flags & 4 != 0,
                cwr: flags & 8 != 0,
                ..Segment::default()
            };
            for &number in &numbers[4..4 + usize::from(flags >> 6)] {
                let start = u64::from(number);
                segment.push_sack(SackBlock { start, end: start + u64::from(numbers[5]) });
            }
            match what {
                0 => sender.write(numbers[0].into()),
                1 => sender.on_wake(now),
                2 => receiver.on_segment(now, &segment, flags & 16 != 0),
                _ => sender.on_segment(now, &segment),
            }
            for _ in 0..10_000 {
                if sender.poll_transmit(now).is_none() {
                    break;
                }
            }
            while receiver.poll_transmit(now).is_some() {}
            prop_assert!(sender.poll_transmit(now).is_none(), "it sends without end");
            prop_assert!(sender.outstanding_bytes() == 0 || sender.wake_at().is_some());
            prop_assert!(sender.acked_bytes() <= sender.sent_bytes());
        }
    }
}

#[test]
fn an_ack_of_what_was_never_sent_is_counted_and_ignored() {
    let options = SenderOptions::linux_2026();
    let mut sender = Sender::new(&options, ControllerKind::NewReno.build(&options));
    sender.write(10_000);
    let now = Instant::from_ns(MS);
    while sender.poll_transmit(now).is_some() {}
    let sent_bytes = sender.sent_bytes();
    sender.on_segment(
        now,
        &Segment {
            ack: sent_bytes + 1,
            ..Segment::default()
        },
    );
    let mut nonsense = Segment {
        ack: 1448,
        ..Segment::default()
    };
    for (start, end) in [(2896, 2896), (2896, sent_bytes + 1), (1448, 2896)] {
        assert!(nonsense.push_sack(SackBlock { start, end }));
    }
    sender.on_segment(now, &nonsense);
    // One ack, and three blocks: empty, beyond what was sent, and beginning at the ack.
    assert_eq!(sender.stats().malformed_count, 4);
    assert_eq!(sender.acked_bytes(), 1448);
    assert_eq!(sender.outstanding_bytes(), sent_bytes - 1448);
}
