//! Links against what they are told to do.

use super::*;

const FRAMES_COUNT: usize = 20_000;

fn mesh(options: LinkOptions, seed: u64) -> Mesh {
    Mesh::new(options, 2, seed)
}

/// Arrivals of many frames from 0 to 1, one a microsecond, in the order in which they left.
fn arrivals(options: LinkOptions, seed: u64) -> Vec<[Option<Arrival>; 2]> {
    let mut mesh = mesh(options, seed);
    let frames = 0..FRAMES_COUNT as u64;
    frames
        .map(|frame| mesh.carry(SimTime::from_us(frame), 0, 1, 100))
        .collect()
}

/// Whether `count` of `of_count` is what `ratio` gives: within five standard deviations, which 1 of 1.7 million
/// independent counts is not.
fn assert_binomial(count: usize, of_count: usize, ratio: f64, what: &str) {
    let expected = of_count as f64 * ratio;
    let bound = 5.0 * (expected * (1.0 - ratio)).sqrt();
    let off = (count as f64 - expected).abs();
    assert!(
        off <= bound,
        "{what}: {count} of {of_count}, expected {expected} ± {bound}"
    );
}

#[test]
fn faults_are_as_frequent_as_asked() {
    let faults = LinkFaults {
        loss_ratio: 0.05,
        duplicate_ratio: 0.1,
        corrupt_ratio: 0.2,
        ..LinkFaults::default()
    };
    let options = LinkOptions {
        faults,
        ..LinkOptions::default()
    };
    for seed in 0..5 {
        let arrivals = arrivals(options, seed);
        let arrived: Vec<_> = arrivals.iter().filter_map(|[first, _]| *first).collect();
        assert_binomial(FRAMES_COUNT - arrived.len(), FRAMES_COUNT, 0.05, "lost");
        let copies_count = arrivals.iter().filter(|[_, copy]| copy.is_some()).count();
        assert_binomial(copies_count, arrived.len(), 0.1, "doubled");
        let corrupt_count = arrived.iter().filter(|arrival| arrival.flipped_bit.is_some()).count();
        assert_binomial(corrupt_count, arrived.len(), 0.2, "corrupt");
    }
}

#[test]
fn a_good_link_delivers_everything_once_in_order_within_its_latency() {
    let arrivals = arrivals(LinkOptions::default(), 3);
    let mut last = SimTime::ZERO;
    let latency = crate::costs::LINK;
    let mut late_count = 0;
    for (frame, arrived) in arrivals.iter().enumerate() {
        let [Some(Arrival { at, flipped_bit: None }), None] = *arrived else {
            panic!("frame {frame}: {arrived:?}");
        };
        let takes = at - SimTime::from_us(frame as u64);
        assert!(takes >= latency.min, "frame {frame} took {takes}");
        // No frame is held up by more than the latest before it.
        assert!(
            takes <= latency.min + latency.spread + latency.tail,
            "frame {frame} took {takes}"
        );
        late_count += usize::from(takes > latency.min + latency.spread);
        assert!(at >= last, "frame {frame} overtook");
        last = at;
    }
    assert!(late_count > 0, "the tail was drawn");
}

#[test]
fn reordered_frames_are_overtaken_and_hold_up_nobody() {
    let faults = LinkFaults {
        reorder_ratio: 0.1,
        reorder: SimTime::from_ms(1),
        ..LinkFaults::default()
    };
    let options = LinkOptions {
        latency: Latency::fixed(SimTime::from_us(5)),
        faults,
        ..LinkOptions::default()
    };
    let arrivals = arrivals(options, 1);
    let takes = |(frame, arrived): (usize, &[Option<Arrival>; 2])| {
        arrived[0].expect("nothing is lost").at - SimTime::from_us(frame as u64)
    };
    let late_count = arrivals
        .iter()
        .enumerate()
        .filter(|&frame| takes(frame) > SimTime::from_us(5))
        .count();
    assert_binomial(late_count, FRAMES_COUNT, 0.1, "late");
}

#[test]
fn a_fault_of_one_kind_does_not_move_the_others() {
    let with_loss = |loss_ratio| {
        let faults = LinkFaults {
            loss_ratio,
            corrupt_ratio: 0.3,
            ..LinkFaults::default()
        };
        let latency = Latency::fixed(SimTime::from_us(5));
        let options = LinkOptions {
            latency,
            faults,
            ..LinkOptions::default()
        };
        arrivals(options, 9)
    };
    let (all, some) = (with_loss(0.0), with_loss(0.5));
    let mut kept_count = 0;
    for (full, thin) in all.iter().zip(&some).filter(|(_, thin)| thin[0].is_some()) {
        assert_eq!(full, thin);
        kept_count += 1;
    }
    assert_binomial(kept_count, FRAMES_COUNT, 0.5, "kept");
}

#[test]
fn a_blocked_link_carries_nothing_and_the_other_way_is_open() {
    let mut mesh = mesh(LinkOptions::default(), 0);
    let blocked = LinkFaults {
        blocked: true,
        ..LinkFaults::default()
    };
    mesh.set_faults(0, 1, blocked);
    assert_eq!(mesh.carry(SimTime::ZERO, 0, 1, 100), [None; 2]);
    assert!(mesh.carry(SimTime::ZERO, 1, 0, 100)[0].is_some());
    mesh.set_faults(0, 1, LinkFaults::default());
    assert!(mesh.carry(SimTime::ZERO, 0, 1, 100)[0].is_some());
}

#[test]
fn frames_share_the_rate_and_the_queue_has_an_end() {
    let options = LinkOptions {
        latency: Latency::fixed(SimTime::from_us(1)),
        bits_per_sec: Some(1_000_000_000),
        queue_bytes_max: 1000,
        faults: LinkFaults::default(),
    };
    let mut mesh = mesh(options, 0);
    // 434 bytes and 66 around them are 500: 4 µs at 1 Gbit/s. Behind three of them 1000 bytes wait.
    let mut carry = || mesh.carry(SimTime::ZERO, 0, 1, 434)[0].map(|arrival| arrival.at.as_ns());
    let arrivals: Vec<_> = (0..5).map(|_| carry()).collect();
    assert_eq!(arrivals, [Some(5000), Some(9000), Some(13000), None, None]);
}
