//! The faults are the ones asked for, in the shares asked for, and every frame is accounted for.

use proptest::prelude::*;

use super::*;
use crate::testing::{ManualClock, TestPort};

const PEER: Peer = Peer(5);

fn bad(options: FaultOptions) -> (Faults<TestPort, ManualClock>, ManualClock) {
    let clock = ManualClock::new();
    let faults = Faults::new(TestPort::new(16, 8), clock.clone(), options);
    (faults.expect("options within their bounds"), clock)
}

fn tx_options(tx: FaultRates) -> FaultOptions {
    FaultOptions {
        seed: 1,
        tx,
        ..FaultOptions::default()
    }
}

fn rx_options(rx: FaultRates) -> FaultOptions {
    FaultOptions {
        seed: 1,
        rx,
        ..FaultOptions::default()
    }
}

fn always_delayed_ms(min_ms: u64, max_ms: u64) -> FaultRates {
    FaultRates {
        delay_ratio: 1.0,
        delay_min: Duration::from_millis(min_ms),
        delay_max: Duration::from_millis(max_ms),
        ..FaultRates::default()
    }
}

fn tx(port: &mut dyn Port, bytes: &[u8]) -> Result<(), TxError> {
    port.tx(PEER, bytes.len(), &mut |frame| frame.copy_from_slice(bytes))
}

/// Sends frames 0, 1, 2 … and says what left.
fn sent(port: &mut Faults<TestPort, ManualClock>, frames_count: u64) -> Vec<Vec<u8>> {
    let mut left = Vec::new();
    for number in 0..frames_count {
        tx(port, &number.to_be_bytes()).expect("the batch is flushed after every frame");
        port.flush().expect("a test port");
        left.extend(port.port_mut().drain_tx().into_iter().map(|(_, bytes)| bytes));
    }
    left
}

fn received(port: &mut dyn Port) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let count = port.rx_burst(&mut |frame| {
        assert_eq!(frame.from, PEER);
        frames.push(frame.bytes.to_vec());
    });
    assert_eq!(count.expect("a test port"), frames.len());
    frames
}

#[test]
fn options_out_of_bounds_are_refused_with_the_field_and_the_bound() {
    let said = |options: FaultOptions| {
        let port = Faults::new(TestPort::new(16, 8), ManualClock::new(), options);
        port.expect_err("out of bounds").to_string()
    };
    for ratio in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
        let loss = said(rx_options(FaultRates {
            loss_ratio: ratio,
            ..FaultRates::default()
        }));
        assert_eq!(
            loss,
            format!("rx loss_ratio is {ratio}: a ratio is from 0 (never) to 1 (always)")
        );
        let corrupt = said(tx_options(FaultRates {
            corrupt_ratio: ratio,
            ..FaultRates::default()
        }));
        assert!(corrupt.starts_with("tx corrupt_ratio"), "{corrupt}");
    }
    let reversed = said(tx_options(always_delayed_ms(2, 1)));
    assert!(reversed.contains("from 2ms to 1ms"), "{reversed}");
    let long = said(tx_options(always_delayed_ms(0, 60_001)));
    assert!(long.contains("above 60s"), "{long}");
    for held_frames_max in [0, HELD_FRAMES_MAX + 1] {
        let held = said(FaultOptions {
            held_frames_max,
            ..FaultOptions::default()
        });
        assert_eq!(
            held,
            format!("held_frames_max is {held_frames_max}: it is from 1 to 65536")
        );
    }
}

#[test]
fn a_perfect_network_changes_nothing() {
    let (mut port, _) = bad(FaultOptions::default());
    let frames: Vec<Vec<u8>> = (0..50u64).map(|number| number.to_be_bytes().to_vec()).collect();
    assert_eq!(sent(&mut port, 50), frames);
    port.port_mut().put_rx(PEER, b"a");
    assert_eq!(received(&mut port), [b"a"]);
    assert_eq!(port.counts(), FaultsByDirection::default());
}

#[test]
fn ratios_are_met() {
    let rates = FaultRates {
        loss_ratio: 0.1,
        duplicate_ratio: 0.2,
        corrupt_ratio: 0.3,
        ..FaultRates::default()
    };
    let (mut port, _) = bad(tx_options(rates));
    const FRAMES_COUNT: u64 = 10_000;
    let left = sent(&mut port, FRAMES_COUNT);
    let counts = port.counts().tx;
    assert_eq!(
        left.len() as u64,
        FRAMES_COUNT - counts.lost_count + counts.duplicated_count
    );
    // Five standard deviations of a binomial of 10 000: the seed is fixed, so this is no matter of luck.
    let kept_count = (FRAMES_COUNT - counts.lost_count) as f64;
    for (seen_count, frames_count, ratio) in [
        (counts.lost_count, FRAMES_COUNT as f64, 0.1),
        (counts.duplicated_count, kept_count, 0.2),
        (counts.corrupted_count, kept_count, 0.3),
    ] {
        let deviation = (frames_count * ratio * (1.0 - ratio)).sqrt();
        let off = (seen_count as f64 - frames_count * ratio).abs();
        assert!(off < 5.0 * deviation, "{seen_count} of {frames_count} for {ratio}");
    }
}

#[test]
fn always_means_always() {
    let (mut port, _) = bad(tx_options(FaultRates {
        loss_ratio: 1.0,
        ..FaultRates::default()
    }));
    assert!(sent(&mut port, 1000).is_empty());
    assert_eq!(port.counts().tx.lost_count, 1000);
}

#[test]
fn corruption_flips_exactly_one_bit_and_the_copy_is_whole() {
    let rates = FaultRates {
        corrupt_ratio: 1.0,
        duplicate_ratio: 1.0,
        ..FaultRates::default()
    };
    let (mut port, _) = bad(tx_options(rates));
    for pair in sent(&mut port, 100).chunks(2) {
        let [corrupt, copy] = pair else {
            panic!("each frame leaves twice")
        };
        let flipped: u32 = corrupt.iter().zip(copy).map(|(a, b)| (a ^ b).count_ones()).sum();
        assert_eq!(flipped, 1, "{corrupt:?} {copy:?}");
    }
    tx(&mut port, b"").expect("an empty frame has no bit to flip");

    let (mut port, _) = bad(rx_options(rates));
    port.port_mut().put_rx(PEER, &[0; 16]);
    let ones = |frame: &Vec<u8>| frame.iter().map(|byte| byte.count_ones()).sum::<u32>();
    assert_eq!(received(&mut port).iter().map(ones).collect::<Vec<_>>(), [1]);
    assert_eq!(received(&mut port), [[0; 16]], "the copy comes with the next burst");
}

#[test]
fn one_fault_does_not_move_another() {
    let lossy = FaultRates {
        loss_ratio: 0.5,
        ..FaultRates::default()
    };
    let lossy_and_more = FaultRates {
        corrupt_ratio: 0.5,
        ..lossy
    };
    let lost = |rates| {
        let (mut port, _) = bad(tx_options(rates));
        (0..200).map(|_| sent(&mut port, 1).is_empty()).collect::<Vec<bool>>()
    };
    assert_eq!(lost(lossy), lost(lossy_and_more));
}

#[test]
fn the_seed_decides() {
    let transcript = |seed| {
        let rates = FaultRates {
            loss_ratio: 0.3,
            duplicate_ratio: 0.3,
            corrupt_ratio: 0.3,
            delay_ratio: 0.3,
            delay_max: Duration::from_millis(3),
            ..FaultRates::default()
        };
        let (mut port, clock) = bad(FaultOptions {
            seed,
            rx: rates,
            tx: rates,
            ..FaultOptions::default()
        });
        let mut seen = Vec::new();
        for number in 0..100u64 {
            port.port_mut().put_rx(PEER, &number.to_be_bytes());
            seen.extend(received(&mut port));
            seen.extend(sent(&mut port, 1));
            clock.advance(Duration::from_millis(1));
        }
        (seen, port.counts())
    };
    assert_eq!(transcript(7), transcript(7));
    assert_ne!(transcript(7), transcript(8));
    let (_, counts) = transcript(7);
    assert_ne!(counts.rx, counts.tx, "the directions are drawn apart");
}

#[test]
fn a_delayed_frame_leaves_at_its_time_from_whichever_call_comes() {
    let calls: [fn(&mut Faults<TestPort, ManualClock>); 3] = [
        |port| port.flush().expect("a test port"),
        |port| port.wait(Duration::ZERO).expect("a test port"),
        |port| assert_eq!(received(port), Vec::<Vec<u8>>::new()),
    ];
    for call in calls {
        let (mut port, clock) = bad(tx_options(always_delayed_ms(2, 2)));
        tx(&mut port, b"late").expect("room");
        clock.advance(Duration::from_nanos(1_999_999));
        call(&mut port);
        assert_eq!(port.port_mut().drain_tx(), []);
        clock.advance(Duration::from_nanos(1));
        call(&mut port);
        assert_eq!(port.port_mut().drain_tx(), [(PEER, b"late".to_vec())]);
    }
}

#[test]
fn waiting_ends_when_the_earliest_delayed_frame_is_due() {
    let (mut port, clock) = bad(FaultOptions {
        seed: 1,
        rx: always_delayed_ms(3, 3),
        tx: always_delayed_ms(5, 5),
        ..FaultOptions::default()
    });
    port.wait(Duration::from_secs(1)).expect("a test port");
    tx(&mut port, b"tx").expect("room");
    port.wait(Duration::from_secs(1)).expect("a test port");
    port.port_mut().put_rx(PEER, b"rx");
    assert!(received(&mut port).is_empty());
    port.wait(Duration::from_secs(1)).expect("a test port");
    port.wait(Duration::from_millis(1)).expect("a test port");
    clock.advance(Duration::from_millis(3));
    // The received frame is due: no rest at all.
    port.wait(Duration::from_secs(1)).expect("a test port");
    assert_eq!(received(&mut port), [b"rx"]);
    let waits = [1000, 5, 3, 1].map(Duration::from_millis);
    assert_eq!(port.port_mut().waits(), waits);
}

#[test]
fn delays_reorder_and_equal_delays_do_not() {
    let (mut port, clock) = bad(rx_options(always_delayed_ms(0, 10)));
    for number in 0..8u8 {
        port.port_mut().put_rx(PEER, &[number]);
    }
    assert!(received(&mut port).len() <= 1, "uniform from zero up");
    clock.advance(Duration::from_millis(10));
    let order = received(&mut port).concat();
    assert!(!order.is_sorted(), "{order:?}");

    let (mut port, clock) = bad(rx_options(always_delayed_ms(4, 4)));
    for number in 0..8u8 {
        port.port_mut().put_rx(PEER, &[number]);
    }
    assert!(received(&mut port).is_empty());
    clock.advance(Duration::from_millis(4));
    assert_eq!(received(&mut port).concat(), (0..8).collect::<Vec<u8>>());
}

#[test]
fn more_frames_than_can_be_held_are_lost_and_counted() {
    let (mut port, clock) = bad(FaultOptions {
        held_frames_max: 3,
        ..tx_options(always_delayed_ms(1, 1))
    });
    for number in 0..5u8 {
        tx(&mut port, &[number]).expect("a delayed frame is taken");
    }
    clock.advance(Duration::from_millis(1));
    port.flush().expect("a test port");
    assert_eq!(port.port_mut().drain_tx().len(), 3);
    assert_eq!(port.counts().tx.overflow_count, 2);
}

#[test]
fn a_burst_stays_within_its_bound_though_every_frame_comes_twice() {
    let (mut port, _) = bad(rx_options(FaultRates {
        duplicate_ratio: 1.0,
        ..FaultRates::default()
    }));
    for number in 0..16u8 {
        assert!(port.port_mut().put_rx(PEER, &[number]));
    }
    let mut frames = Vec::new();
    for _ in 0..8 {
        let burst = received(&mut port);
        assert!(burst.len() <= 8);
        frames.extend(burst.concat());
    }
    frames.sort();
    assert_eq!(frames, (0..16).flat_map(|number| [number; 2]).collect::<Vec<u8>>());
}

#[test]
fn a_frame_refused_by_a_full_port_keeps_its_fate() {
    let half_lost = FaultRates {
        loss_ratio: 0.5,
        ..FaultRates::default()
    };
    let refused_then_sent = |tries_when_full: usize| {
        let (mut port, _) = bad(tx_options(half_lost));
        let mut left = Vec::new();
        for number in 0..100u8 {
            for _ in 0..tries_when_full {
                if tx(&mut port, &[number]) != Err(TxError::Full) {
                    break;
                }
                port.flush().expect("a test port");
                left.extend(port.port_mut().drain_tx());
            }
        }
        port.flush().expect("a test port");
        left.extend(port.port_mut().drain_tx());
        left
    };
    let (mut port, _) = bad(tx_options(half_lost));
    let never_full = sent(&mut port, 100).iter().map(|bytes| bytes[7]).collect::<Vec<_>>();
    let often_full = refused_then_sent(2)
        .iter()
        .map(|(_, bytes)| bytes[0])
        .collect::<Vec<_>>();
    assert_eq!(never_full, often_full);
}

#[test]
fn a_frame_longer_than_the_port_carries_is_refused_before_its_fate() {
    let (mut port, _) = bad(tx_options(FaultRates {
        loss_ratio: 1.0,
        ..FaultRates::default()
    }));
    assert_eq!(tx(&mut port, &[0; 17]), Err(TxError::TooLong));
    assert_eq!(port.counts().tx.lost_count, 0);
}

fn rates() -> impl Strategy<Value = FaultRates> {
    let ratio = || prop_oneof![Just(0.0), Just(1.0), 0.0..1.0f64];
    (ratio(), ratio(), ratio(), ratio(), 0u64..4, 0u64..4).prop_map(|(loss, duplicate, corrupt, delay, min, more)| {
        FaultRates {
            loss_ratio: loss,
            duplicate_ratio: duplicate,
            corrupt_ratio: corrupt,
            delay_ratio: delay,
            delay_min: Duration::from_millis(min),
            delay_max: Duration::from_millis(min + more),
        }
    })
}

proptest! {
    /// Frames out = frames in + copies − lost − overflow, in both directions, however the calls fall.
    #[test]
    fn every_frame_is_accounted_for(
        seed: u64,
        rx in rates(),
        tx_rates in rates(),
        held_frames_max in 1usize..20,
        steps in prop::collection::vec(0u8..5, 0..80),
    ) {
        let options = FaultOptions { seed, rx, tx: tx_rates, held_frames_max };
        let (mut port, clock) = bad(options);
        let (mut rx_in_count, mut rx_out_count, mut tx_in_count, mut tx_out_count) = (0, 0, 0, 0);
        let drain = [2, 3].repeat(200);
        for step in steps.into_iter().chain(drain) {
            match step {
                0 => rx_in_count += u64::from(port.port_mut().put_rx(PEER, b"rx")),
                1 => tx_in_count += u64::from(tx(&mut port, b"tx").is_ok()),
                2 => rx_out_count += received(&mut port).len() as u64,
                3 => clock.advance(Duration::from_millis(1)),
                _ => port.wait(Duration::ZERO).expect("a test port"),
            }
            port.flush().expect("a test port");
            tx_out_count += port.port_mut().drain_tx().len() as u64;
        }
        let FaultsByDirection { rx, tx } = port.counts();
        prop_assert_eq!(rx_out_count + rx.lost_count + rx.overflow_count, rx_in_count + rx.duplicated_count);
        prop_assert_eq!(tx_out_count + tx.lost_count + tx.overflow_count, tx_in_count + tx.duplicated_count);
    }
}
