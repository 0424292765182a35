//! Lesson 14, solved, and two things more to think about.
#![forbid(unsafe_code)]

use dataplane_service::policy::{Choice, FanOut, Hedge, HedgeAfter};
use lessons::nodes::{MS, Took, with_slow_leaves, with_stalls};

const CALLS_COUNT: u64 = 60_000;

/// A client that asks another node after so long.
fn hedged(after_ns: u64, together: bool) -> Took {
    let policy = Hedge::new(HedgeAfter::Fixed { ns: after_ns }, Choice::Random, false);
    with_stalls(Box::new(policy), together, CALLS_COUNT)
}

/// Longer than anything takes.
const NEVER_NS: u64 = 1_000 * MS;

// ---- 1. When to ask again -------------------------------------------------------------------------------------------

/// After how long another node is asked, from what calls took without hedges.
fn hedge_after_ns(without: &Took) -> u64 {
    // The share of calls that take longer is the share of requests that it costs.
    without.quantile_ns(0.95)
}

#[test]
fn a_hedge_costs_five_percent_and_takes_nine_tenths_of_the_tail() {
    let without = hedged(NEVER_NS, false);
    let after_ns = hedge_after_ns(&without);
    let with = hedged(after_ns, false);
    let (before_ns, behind_ns) = (without.quantile_ns(0.999), with.quantile_ns(0.999));
    println!(
        "hedged after {:.2} ms: p99.9 from {:.1} to {:.1} ms, {:.1} % more requests",
        after_ns as f64 / MS as f64,
        before_ns as f64 / MS as f64,
        behind_ns as f64 / MS as f64,
        with.extra_ratio * 100.0
    );
    assert!(
        with.extra_ratio < 0.06,
        "{:.1} % more requests",
        with.extra_ratio * 100.0
    );
    assert!(behind_ns * 10 < before_ns, "p99.9 from {before_ns} to {behind_ns} ns");
}

// ---- 2. When it buys nothing ----------------------------------------------------------------------------------------

/// The share of calls that are slow although another node is asked, if a node stands still for a share `stalled_ratio` of the
/// time: each by itself, or all together.
fn slow_ratio_hedged(stalled_ratio: f64, together: bool) -> f64 {
    // Both must stand still; together they do.
    match together {
        true => stalled_ratio,
        false => stalled_ratio * stalled_ratio,
    }
}

#[test]
fn a_hedge_helps_as_far_as_the_second_node_has_another_reason_to_be_slow() {
    const STALLED_RATIO: f64 = 0.02;
    for together in [false, true] {
        let expected = slow_ratio_hedged(STALLED_RATIO, together);
        let seen = hedged(MS, together).slow_ratio(5 * MS);
        println!(
            "together: {together}: {:.3} % are slow, expected {:.3} %",
            seen * 100.0,
            expected * 100.0
        );
        // A call that comes in the last 5 ms of a stall is not slow; stalls are few, so their number is mostly chance.
        assert!(
            (expected * 0.3..expected * 1.6).contains(&seen),
            "together: {together}: {seen} of the calls are slow, and {expected} was expected"
        );
    }
}

// ---- 3. What a leaf may do ------------------------------------------------------------------------------------------

/// How many of a leaf's answers may be slow, if a request waits for so many leaves and this share of requests may be.
fn leaf_slow_ratio_max(fan_out: u32, request_slow_ratio_max: f64) -> f64 {
    // All must be fast.
    1.0 - (1.0 - request_slow_ratio_max).powf(1.0 / f64::from(fan_out))
}

#[test]
fn a_request_keeps_its_objective_if_its_leaves_keep_theirs() {
    for (fan_out, objective) in [(10, 0.05), (100, 0.05), (100, 0.5)] {
        let leaf_ratio = leaf_slow_ratio_max(fan_out, objective);
        let policy = FanOut {
            asked_count: fan_out,
            needed_count: fan_out,
            choice: Choice::Random,
        };
        let took = with_slow_leaves(Box::new(policy), fan_out as usize, leaf_ratio, 5_000);
        let seen = took.slow_ratio(50 * MS);
        println!(
            "{fan_out} leaves, {:.3} % slow each: {:.1} % of the requests, and {:.0} % may be",
            leaf_ratio * 100.0,
            seen * 100.0,
            objective * 100.0
        );
        // Four standard deviations.
        let spare = 4.0 * (objective * (1.0 - objective) / 5_000.0f64).sqrt();
        assert!(
            (seen - objective).abs() < spare,
            "{fan_out} leaves: {seen} of the requests are slow"
        );
    }
}

// ---- And ------------------------------------------------------------------------------------------------------------

/// A percentile that moves learns the while by itself, and costs what it must.
#[test]
fn a_moving_percentile_needs_no_number() {
    let after = HedgeAfter::Percentile {
        q: 0.95,
        first_ns: NEVER_NS,
    };
    let with = with_stalls(Box::new(Hedge::new(after, Choice::Random, false)), false, CALLS_COUNT);
    println!(
        "p99.9 {:.1} ms, {:.1} % more requests",
        with.quantile_ns(0.999) as f64 / MS as f64,
        with.extra_ratio * 100.0
    );
    assert!(with.extra_ratio < 0.08 && with.quantile_ns(0.999) < 5 * MS);
}

/// Asking two at once is the shortest while of all. On nodes at rest it is no faster at p99.9 than a hedge, and costs twenty
/// times as much.
#[test]
fn asking_two_at_once_costs_everything() {
    let both = FanOut {
        asked_count: 2,
        needed_count: 1,
        choice: Choice::Random,
    };
    let (both, hedge) = (with_stalls(Box::new(both), false, CALLS_COUNT), hedged(MS, false));
    assert!(both.extra_ratio > 20.0 * hedge.extra_ratio);
    assert!(hedge.quantile_ns(0.999) < both.quantile_ns(0.999) + 3 * MS);
}
