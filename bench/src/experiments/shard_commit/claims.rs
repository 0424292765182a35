//! What is said of commits of many shards, and how the table decides it.

use super::{COMMIT, DISK, OF, PING_PONG, RATE, RAW, REFERENCE, SHARDS};
use crate::{
    claim::{Claim, Judgement, Source},
    experiments::judge::{self, Bound},
    measure::Recorder,
    record::{Measured, Outcome, QuantileValue},
    table::{Arm, ROUNDS_MIN, Table, latency_ns},
};

pub(super) const CLAIMS: &[Claim] = &[
    Claim {
        id: "quorum-shard-ms",
        sentence: "Each of 16 shards commits durably in low single-digit milliseconds on one ordinary disk",
        source: Source::Ours {
            seen: "said of sharded stores in general; here made into figures: half of all commits within 3 ms, 99 % within 10 ms",
        },
        invariant: "Three replicas of each shard, each with its own log, every log on this machine's one disk; 100 writes per \
                    second to each shard by a Poisson schedule, latency from the intended send time. Decided by the 95 % \
                    intervals of both quantiles of all commits.",
        judge: single_digit_ms,
    },
    Claim {
        id: "shard-commit-near-floor",
        sentence: "With one shard, a durable commit costs at most 1.3 times one write of the disk and two ping-pongs",
        source: Source::Ours {
            seen: "the leader's and the followers' writes go on side by side, so one of them is on the path; so are four frames",
        },
        invariant: "The disk writes a sector as often, from as many files, in the same round; the ping-pong goes over the same \
                    sockets. Decided by the paired ratio of medians, at most 1.3.",
        judge: near_floor,
    },
];

const fn arm(shards: &'static str, of: &'static str) -> [(&'static str, &'static str); 3] {
    [(SHARDS.name, shards), (RATE.name, "100"), (OF, of)]
}

const SIXTEEN: &[(&str, &str)] = &arm("16", COMMIT);
const ONE: &[(&str, &str)] = &arm("1", COMMIT);
const ONE_DISK: &[(&str, &str)] = &arm("1", DISK);
const ONE_PING_PONG: &[(&str, &str)] = &arm("1", PING_PONG);

/// "Low single-digit" for what is usual: 1, 2 and 3 are the low ones of nine digits.
const P50_NS_MAX: u64 = 3_000_000;
/// "Single-digit" at all for one in a hundred.
const P99_NS_MAX: u64 = 10_000_000;

fn single_digit_ms(table: &Table) -> Judgement {
    let arm = Arm::of(REFERENCE, SIXTEEN);
    let Some(merged) = table.merged(arm, |row| row.latency.as_ref()) else {
        return table.lacking(arm);
    };
    let bounds = [(0.5, "p50", P50_NS_MAX), (0.99, "p99", P99_NS_MAX)];
    let outcomes = bounds.map(|(q, _, limit_ns)| at_most(&merged, q, limit_ns));
    let outcome = if outcomes.contains(&Some(false)) {
        Outcome::Fails
    } else if outcomes.contains(&None) {
        Outcome::Inconclusive {
            why: "an interval is on both sides of its bound, or has no end; more commits (--budget) may decide it"
                .to_owned(),
        }
    } else {
        Outcome::Holds
    };
    let measured = bounds.map(|(q, name, limit_ns)| {
        let quantile = merged.quantile_record(q);
        Measured {
            name: format!("{name} of all commits, 16 shards"),
            value: ns(quantile.value),
            unit: "ns".to_owned(),
            low: ns(quantile.low),
            high: ns(quantile.high),
            limit: format!("≤ {} ms", limit_ns / 1_000_000),
            samples_count: merged.total_count(),
        }
    });
    Judgement::new(outcome, measured.to_vec())
}

fn ns(value: QuantileValue) -> Option<f64> {
    match value {
        QuantileValue::Ns(ns) => Some(ns as f64),
        QuantileValue::Lost | QuantileValue::Unsupported => None,
    }
}

/// Decided by the whole interval; `None`: it is on both sides, or has no end where it takes one.
fn at_most(merged: &Recorder, q: f64, limit_ns: u64) -> Option<bool> {
    let quantile = merged.quantile_record(q);
    match (quantile.low, quantile.high) {
        (_, QuantileValue::Ns(high)) if high <= limit_ns => Some(true),
        (QuantileValue::Ns(low), _) if low > limit_ns => Some(false),
        (QuantileValue::Lost, _) => Some(false),
        _ => None,
    }
}

fn near_floor(table: &Table) -> Judgement {
    let arms = [
        Arm::of(REFERENCE, ONE),
        Arm::of(RAW, ONE_DISK),
        Arm::of(REFERENCE, ONE_PING_PONG),
    ];
    let [commits, disk, ping_pong] = table.aligned(arms, latency_ns(0.5));
    if commits.len() < ROUNDS_MIN {
        return table.lacking(arms[0]);
    }
    let floor: Vec<f64> = disk
        .iter()
        .zip(&ping_pong)
        .map(|(disk, ping_pong)| disk + 2.0 * ping_pong)
        .collect();
    judge::ratio_of(
        table,
        "p50 of a commit, one shard ÷ (p50 of a raw O_DSYNC write + 2 × p50 of a ping-pong)",
        (&commits, &floor),
        Bound::AtMost(1.3),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        measure::QUANTILES,
        record::{ModeRecord, Row, Validity},
    };

    fn row(backend: &str, axis: &[(&str, &str)], round: u32, times_ns: impl Iterator<Item = u64>) -> Row {
        let mut recorder = Recorder::new();
        times_ns.for_each(|ns| recorder.record(ns));
        let text = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Row {
            experiment: "shard-commit".to_owned(),
            backend: backend.to_owned(),
            mode: ModeRecord::Native,
            axis: axis.iter().map(text).collect(),
            round,
            twin: false,
            seed: 1,
            at_s: 0.0,
            elapsed_s: 1.0,
            latency: Some(recorder.distribution(&QUANTILES)),
            service: None,
            schedule_lag: None,
            metrics: BTreeMap::new(),
            series: Vec::new(),
            facts: BTreeMap::new(),
            validity: Validity::Valid,
        }
    }

    #[test]
    fn both_quantiles_must_keep_their_bounds() {
        let judged = |usual_ns: u64, rare_ns: u64| {
            let times = (0..2_000).map(|i| if i % 50 == 0 { rare_ns } else { usual_ns });
            let rows = vec![row(REFERENCE, SIXTEEN, 0, times)];
            single_digit_ms(&Table { rows, seed: 1 }).outcome
        };
        assert_eq!(judged(1_000_000, 9_000_000), Outcome::Holds);
        assert_eq!(judged(1_000_000, 20_000_000), Outcome::Fails, "p99 is above its bound");
        assert_eq!(judged(4_000_000, 5_000_000), Outcome::Fails, "p50 is above its bound");
        let few = vec![row(REFERENCE, SIXTEEN, 0, [1_000_000; 20].into_iter())];
        let judged = single_digit_ms(&Table { rows: few, seed: 1 }).outcome;
        assert!(matches!(judged, Outcome::Inconclusive { .. }), "20 commits have no p99");
    }

    #[test]
    fn a_commit_is_held_against_the_floor_of_its_own_round() {
        let judged = |commit_ns: u64| {
            let mut rows = Vec::new();
            for round in 0..8 {
                let slow = u64::from(round % 2) + 1;
                rows.push(row(REFERENCE, ONE, round, [commit_ns * slow; 20].into_iter()));
                rows.push(row(RAW, ONE_DISK, round, [150_000 * slow; 20].into_iter()));
                rows.push(row(REFERENCE, ONE_PING_PONG, round, [25_000 * slow; 20].into_iter()));
            }
            near_floor(&Table { rows, seed: 1 }).outcome
        };
        assert_eq!(judged(220_000), Outcome::Holds);
        assert_eq!(judged(400_000), Outcome::Fails);
        assert!(matches!(
            near_floor(&Table::default()).outcome,
            Outcome::NotMeasured { .. }
        ));
    }
}
