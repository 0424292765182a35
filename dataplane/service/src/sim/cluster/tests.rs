//! A cluster against arithmetic.

use super::*;
use crate::{
    oracle::{Mm1, Sojourn, kth_of_n_within, slow_ratio},
    policy::{Budget, Choice, FanOut, Hedge, HedgeAfter, Retry, Tied},
    service_time::ServiceTime,
    stalls::StallPattern,
};

const MS: u64 = 1_000_000;

fn options(nodes_count: usize) -> ClusterOptions {
    ClusterOptions {
        nodes_count,
        workers_count: 1,
        service: ServiceTime::Deterministic { ns: MS },
        gap_ns_mean: 100.0 * MS as f64,
        way_ns: 10_000,
        loss_ratio: 0.0,
        stalls: None,
        stalls_are_shared: false,
        surge: None,
        patience_ns: 10_000 * MS,
        seed: 1,
    }
}

fn all(options: ClusterOptions, policy: impl Policy + 'static, calls_count: u64) -> (Vec<Outcome>, Cluster) {
    let mut cluster = Cluster::new(options, Box::new(policy));
    let mut outcomes = Vec::new();
    cluster.run(calls_count, &mut |outcome| outcomes.push(outcome));
    assert_eq!(outcomes.len() as u64, calls_count, "every call ends once");
    (outcomes, cluster)
}

fn beyond(outcomes: &[Outcome], ns: u64) -> f64 {
    let slow = outcomes
        .iter()
        .filter(|outcome| outcome.took_ns.is_none_or(|took| took > ns));
    slow.count() as f64 / outcomes.len() as f64
}

fn fan_out(of: u32, needed_count: u32) -> FanOut {
    FanOut {
        asked_count: of,
        needed_count,
        choice: Choice::Random,
    }
}

#[test]
fn a_fan_out_is_as_slow_as_arithmetic_says() {
    let service = ServiceTime::Bimodal {
        short_ns: MS,
        long_ns: 50 * MS,
        long_ratio: 0.01,
    };
    let options = ClusterOptions {
        service,
        workers_count: 8,
        ..options(100)
    };
    let (outcomes, _) = all(options.clone(), fan_out(100, 100), 10_000);
    // Four standard deviations are 1.9 points.
    assert!((beyond(&outcomes, 10 * MS) - slow_ratio(0.01, 100)).abs() < 0.02);
    let (outcomes, _) = all(options, fan_out(100, 99), 10_000);
    let expected = 1.0 - kth_of_n_within(0.99, 99, 100);
    assert!((beyond(&outcomes, 10 * MS) - expected).abs() < 0.02);
}

#[test]
fn one_node_is_a_queue() {
    let load = 0.7;
    let options = ClusterOptions {
        service: ServiceTime::Exponential { mean_ns: MS as f64 },
        gap_ns_mean: MS as f64 / load,
        ..options(1)
    };
    let (outcomes, cluster) = all(options, fan_out(1, 1), 300_000);
    let oracle = Mm1::new(load, MS as f64);
    for q in [0.5, 0.9, 0.99] {
        let limit_ns = oracle.quantile_ns(q) as u64 + 20_000;
        assert!((1.0 - beyond(&outcomes, limit_ns) - q).abs() < 0.01);
    }
    let busy = cluster.node_counts().served_ns as f64 / cluster.now_ns() as f64;
    assert!((busy - load).abs() < 0.01, "{busy}");
}

#[test]
fn hedging_helps_unless_all_stand_still_together() {
    let run = |is_shared, hedges: bool| {
        let options = ClusterOptions {
            stalls: Some(StallPattern {
                gap_ns_mean: 1_960.0 * MS as f64,
                stall_ns: 40 * MS,
            }),
            stalls_are_shared: is_shared,
            gap_ns_mean: 10.0 * MS as f64,
            workers_count: 8,
            ..options(8)
        };
        let ns = if hedges { 2 * MS } else { 5_000 * MS };
        let policy = Hedge::new(HedgeAfter::Fixed { ns }, Choice::Random, false);
        let (outcomes, cluster) = all(options, policy, 100_000);
        let mut took: Vec<u64> = outcomes.iter().filter_map(|outcome| outcome.took_ns).collect();
        took.sort_unstable();
        (took[took.len() * 999 / 1000], cluster.counts().extra_ratio(1))
    };
    let ((alone, _), (hedged, extra)) = (run(false, false), run(false, true));
    assert!(alone > 10 * hedged && extra < 0.05, "{alone} and {hedged}, {extra}");
    let ((alone, _), (hedged, _)) = (run(true, false), run(true, true));
    assert!(alone < hedged * 12 / 10, "{alone} and {hedged}");
}

#[test]
fn of_tied_requests_one_is_served() {
    let options = ClusterOptions {
        service: ServiceTime::Exponential { mean_ns: MS as f64 },
        gap_ns_mean: MS as f64 / 1.2,
        ..options(2)
    };
    let tied = Tied {
        delay_ns: 0,
        choice: Choice::Random,
    };
    let (tied_outcomes, cluster) = all(options.clone(), tied, 50_000);
    let counts = cluster.node_counts();
    assert_eq!(
        counts.served_count + counts.withdrawn_count,
        cluster.counts().asked_count
    );
    // Both are served where both nodes were idle; at a load of 0.6 that is a part only.
    assert!(counts.withdrawn_count > 20_000, "{}", counts.withdrawn_count);
    let (alone, _) = all(options, fan_out(1, 1), 50_000);
    assert!(beyond(&tied_outcomes, 6 * MS) < beyond(&alone, 6 * MS));
}

#[test]
fn lost_messages_are_lost_calls_unless_somebody_asks_again() {
    let options = ClusterOptions {
        loss_ratio: 0.05,
        gap_ns_mean: 20.0 * MS as f64,
        ..options(4)
    };
    let (outcomes, _) = all(options.clone(), fan_out(1, 1), 10_000);
    let lost = outcomes.iter().filter(|outcome| outcome.took_ns.is_none()).count();
    // Either of two messages.
    assert!((870..=1_080).contains(&lost), "{lost}");
    let retry = Retry::new(10 * MS, 5, Budget::Unbounded, Choice::Random);
    let (outcomes, _) = all(options, retry, 10_000);
    let lost = outcomes.iter().filter(|outcome| outcome.took_ns.is_none()).count();
    assert!(lost <= 3, "{lost}");
}

#[test]
fn a_seed_is_a_run() {
    let run = |seed| {
        let options = ClusterOptions { seed, ..options(5) };
        all(options, fan_out(5, 3), 500).1.events()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}
