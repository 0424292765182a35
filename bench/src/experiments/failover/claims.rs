//! What is said of fail-overs, and how the table decides it.

use super::{
    BESIDE, CHECKED, DETECTION, FALSE_ALARMS, FIFO, HEARTBEAT, HOGS, HOW, IDLE, LOG, LOST, MEMORY, OF, OTHER, QUIET,
    RECOVERY, REFERENCE, SCHEDULER, STOP,
};
use crate::{
    claim::{Claim, Judgement, Source},
    experiments::judge,
    record::{Measured, Outcome, QuantileValue, Row},
    table::{Arm, Table},
};

pub(super) const CLAIMS: &[Claim] = &[
    Claim {
        id: "failover-detection",
        sentence: "With heartbeats of 100 µs and real-time scheduling, a leader's end is noticed within 0.5 ms",
        source: Source::Ours {
            seen: "predicted before it was measured: three to six misses of 100 µs are 0.3 to 0.6 ms, and the earlier of two \
                   followers notices",
        },
        invariant: "Three replicas under SCHED_FIFO on an idle machine; from the signal to the first suspicion by another \
                    replica. Decided by the 95 % interval of the median.",
        judge: detection,
    },
    Claim {
        id: "failover-below-1ms",
        sentence: "With heartbeats of 100 µs and real-time scheduling, a new leader commits less than 1 ms after the old one's end",
        source: Source::Published {
            work: "Aguilera et al., Microsecond Consensus for Microsecond Applications (Mu), OSDI 2020",
            place: "abstract: fail-over in less than a millisecond, over RDMA, by reading the leader's heartbeat counter",
        },
        invariant: "As failover-detection; from the signal to the first acknowledgement that a client has from another replica, \
                    over kernel UDP. Decided by the 95 % interval of the median.",
        judge: below_1ms,
    },
    Claim {
        id: "failover-needs-realtime",
        sentence: "Beside CPU hogs, heartbeats of 100 µs raise more false alarms under ordinary scheduling than under real time",
        source: Source::Ours {
            seen: "a follower that gets no CPU for three heartbeats cannot tell that from a leader that is gone",
        },
        invariant: "A process for each CPU that never sleeps; suspicions of a leader that was well, over the time in which it \
                    was. Decided by the 95 % intervals of both rates, as of Poisson counts; without a single alarm under \
                    ordinary scheduling in 10 s it fails.",
        judge: needs_realtime,
    },
    Claim {
        id: "failover-nothing-lost",
        sentence: "No acknowledged write is lost by a fail-over",
        source: Source::Published {
            work: "Ongaro and Ousterhout, In Search of an Understandable Consensus Algorithm (Raft), USENIX ATC 2014",
            place: "section 5.4.3, leader completeness",
        },
        invariant: "After the fail-overs of a cluster every write that was acknowledged in its life is read back, linearizably. \
                    One that is missing or altered refutes it, in whichever row.",
        judge: nothing_lost,
    },
];

const fn arm(scheduler: &'static str, beside: &'static str, of: &'static str) -> [(&'static str, &'static str); 6] {
    [
        (HEARTBEAT.name, "100"),
        (SCHEDULER.name, scheduler),
        (BESIDE.name, beside),
        (LOG.name, MEMORY),
        (HOW.name, STOP),
        (OF, of),
    ]
}

const DETECTION_ARM: &[(&str, &str)] = &arm(FIFO, IDLE, DETECTION);
const RECOVERY_ARM: &[(&str, &str)] = &arm(FIFO, IDLE, RECOVERY);
const FIFO_HOGS: &[(&str, &str)] = &arm(FIFO, HOGS, RECOVERY);
const OTHER_HOGS: &[(&str, &str)] = &arm(OTHER, HOGS, RECOVERY);

fn detection(table: &Table) -> Judgement {
    median_at_most(
        table,
        "median from the signal to the first suspicion",
        DETECTION_ARM,
        500_000,
    )
}

fn below_1ms(table: &Table) -> Judgement {
    median_at_most(
        table,
        "median from the signal to the new leader's first commit",
        RECOVERY_ARM,
        1_000_000,
    )
}

/// What it takes when an arm is not there.
fn lacking(table: &Table, axis: &[(&str, &str)]) -> Judgement {
    let arm = Arm::of(REFERENCE, axis);
    let is_there = table
        .rows
        .iter()
        .any(|row| row.axis.get(SCHEDULER.name).is_some_and(|scheduler| scheduler == FIFO));
    if axis.contains(&(SCHEDULER.name, FIFO)) && !is_there {
        return Judgement::not_measured(
            "no replica ran under SCHED_FIFO here: it takes root, CAP_SYS_NICE or `ulimit -r 10`, and scheduler=fifo",
        );
    }
    let lacking = table.lacking(arm);
    if lacking.is_invalid {
        return lacking;
    }
    let values: Vec<String> = axis.iter().map(|(name, value)| format!("{name}={value}")).collect();
    Judgement::not_measured(format!("no fail-over was timed at {} in this run", values.join(", ")))
}

fn median_at_most(table: &Table, what: &str, axis: &'static [(&str, &str)], limit_ns: u64) -> Judgement {
    let Some(merged) = table.merged(Arm::of(REFERENCE, axis), |row| row.latency.as_ref()) else {
        return lacking(table, axis);
    };
    let median = merged.quantile_record(0.5);
    let outcome = match (median.low, median.high) {
        (_, QuantileValue::Ns(high)) if high <= limit_ns => Outcome::Holds,
        (QuantileValue::Ns(low), _) if low > limit_ns => Outcome::Fails,
        (QuantileValue::Lost, _) => Outcome::Fails,
        _ => Outcome::Inconclusive {
            why: format!(
                "of {} fail-overs, the median's interval is on both sides of the bound, or has no end; more of them (--budget) may \
                 decide it",
                merged.total_count()
            ),
        },
    };
    let ns = |value: QuantileValue| match value {
        QuantileValue::Ns(ns) => Some(ns as f64),
        QuantileValue::Lost | QuantileValue::Unsupported => None,
    };
    Judgement::new(
        outcome,
        vec![Measured {
            name: what.to_owned(),
            value: ns(median.value),
            unit: "ns".to_owned(),
            low: ns(median.low),
            high: ns(median.high),
            limit: format!("≤ {} ms", limit_ns as f64 / 1e6),
            samples_count: merged.total_count(),
        }],
    )
}

/// Events in a time, as a rate with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Rate {
    count: f64,
    quiet_s: f64,
    low_per_s: f64,
    high_per_s: f64,
}

impl Rate {
    /// Exact limits of a Poisson count (Garwood 1936) by Wilson and Hilferty's approximation of the chi-square
    /// distribution, which is within 1 % from one event on.
    fn of(count: f64, quiet_s: f64) -> Rate {
        /// 97.5 % of a normal distribution lie below.
        const Z: f64 = 1.96;
        let cubed = |n: f64, z: f64| n * (1.0 - 1.0 / (9.0 * n) + z / (3.0 * n.sqrt())).max(0.0).powi(3);
        let low = if count > 0.0 { cubed(count, -Z) } else { 0.0 };
        Rate {
            count,
            quiet_s,
            low_per_s: low / quiet_s,
            high_per_s: cubed(count + 1.0, Z) / quiet_s,
        }
    }

    fn in_arm(table: &Table, axis: &'static [(&str, &str)]) -> Option<Rate> {
        let rows = table.arm(Arm::of(REFERENCE, axis));
        let sum = |name: &str| rows.iter().filter_map(|row| value(row, name)).sum::<f64>();
        let quiet_s = sum(QUIET) / 1e9;
        (quiet_s > 0.0).then(|| Rate::of(sum(FALSE_ALARMS), quiet_s))
    }

    fn measured(self, what: &str, limit: &str) -> Measured {
        Measured {
            name: format!("{what} ({} in {:.1} s of quiet)", self.count, self.quiet_s),
            value: Some(self.count / self.quiet_s),
            unit: "1/s".to_owned(),
            low: Some(self.low_per_s),
            high: Some(self.high_per_s),
            limit: limit.to_owned(),
            samples_count: self.count as u64,
        }
    }
}

fn value(row: &Row, name: &str) -> Option<f64> {
    row.metrics.get(name).map(|metric| metric.value)
}

/// So much quiet without an alarm under ordinary scheduling says that it does not take real time.
const QUIET_ENOUGH_S: f64 = 10.0;

fn needs_realtime(table: &Table) -> Judgement {
    let Some(real_time) = Rate::in_arm(table, FIFO_HOGS) else {
        return lacking(table, FIFO_HOGS);
    };
    let Some(ordinary) = Rate::in_arm(table, OTHER_HOGS) else {
        return lacking(table, OTHER_HOGS);
    };
    let outcome = if ordinary.low_per_s > real_time.high_per_s {
        Outcome::Holds
    } else if ordinary.high_per_s < real_time.low_per_s || (ordinary.count == 0.0 && ordinary.quiet_s >= QUIET_ENOUGH_S)
    {
        Outcome::Fails
    } else {
        Outcome::Inconclusive {
            why: "the rates' intervals overlap; more quiet time (--budget) may decide it".to_owned(),
        }
    };
    Judgement::new(
        outcome,
        vec![
            ordinary.measured("false alarms under ordinary scheduling", "above real time's"),
            real_time.measured("false alarms under real time", ""),
        ],
    )
}

/// Judged over every row, INVALID ones included: no noise of the machine excuses a lost write.
fn nothing_lost(table: &Table) -> Judgement {
    let sum = |name: &str| table.rows.iter().filter_map(|row| value(row, name)).sum::<f64>();
    let (checked, lost) = (sum(CHECKED), sum(LOST));
    if checked == 0.0 {
        return Judgement::not_measured("no write was acknowledged");
    }
    let outcome = if lost == 0.0 { Outcome::Holds } else { Outcome::Fails };
    Judgement::new(
        outcome,
        vec![
            judge::measured(
                "acknowledged writes that were not there afterwards",
                Some(lost),
                "count",
                "0",
                checked as u64,
            ),
            judge::measured(
                "fail-overs",
                Some(sum("failovers")),
                "count",
                "",
                table.rows.len() as u64,
            ),
        ],
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        measure::{QUANTILES, Recorder},
        record::{Better, Metric, ModeRecord, Validity},
    };

    fn row(axis: &[(&str, &str)], times_ns: &[u64], metrics: &[(&str, f64)]) -> Row {
        let mut recorder = Recorder::new();
        times_ns.iter().for_each(|ns| recorder.record(*ns));
        let text = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let metric = |(name, value): &(&str, f64)| {
            let (unit, better) = (String::new(), Better::Neither);
            (
                (*name).to_owned(),
                Metric {
                    value: *value,
                    unit,
                    better,
                },
            )
        };
        Row {
            experiment: "failover".to_owned(),
            backend: REFERENCE.to_owned(),
            mode: ModeRecord::Native,
            axis: axis.iter().map(text).collect(),
            round: 0,
            twin: false,
            seed: 1,
            at_s: 0.0,
            elapsed_s: 1.0,
            latency: Some(recorder.distribution(&QUANTILES)),
            service: None,
            schedule_lag: None,
            metrics: metrics.iter().map(metric).collect(),
            series: Vec::new(),
            facts: BTreeMap::new(),
            validity: Validity::Valid,
        }
    }

    fn table(rows: Vec<Row>) -> Table {
        Table { rows, seed: 1 }
    }

    #[test]
    fn a_median_holds_fails_and_can_be_too_few() {
        let judged = |times_ns: &[u64]| detection(&table(vec![row(DETECTION_ARM, times_ns, &[])])).outcome;
        assert_eq!(judged(&[400_000; 20]), Outcome::Holds);
        assert_eq!(judged(&[700_000; 20]), Outcome::Fails);
        let spread: Vec<u64> = (0..20).map(|i| 400_000 + i * 10_000).collect();
        assert!(matches!(judged(&spread), Outcome::Inconclusive { .. }));
        assert!(matches!(judged(&[400_000; 3]), Outcome::Inconclusive { .. }));
        let ordinary = row(&arm(OTHER, IDLE, DETECTION), &[1; 20], &[]);
        let Outcome::NotMeasured { why } = detection(&table(vec![ordinary])).outcome else {
            panic!("another arm was judged")
        };
        assert!(why.contains("CAP_SYS_NICE"), "{why}");
    }

    #[test]
    fn false_alarms_decide_whether_it_takes_real_time() {
        let judged = |real_time: f64, ordinary: f64, quiet_s: f64| {
            let quiet = (QUIET, quiet_s * 1e9);
            let rows = vec![
                row(FIFO_HOGS, &[], &[(FALSE_ALARMS, real_time), quiet]),
                row(OTHER_HOGS, &[], &[(FALSE_ALARMS, ordinary), quiet]),
            ];
            needs_realtime(&table(rows)).outcome
        };
        assert_eq!(judged(0.0, 100.0, 10.0), Outcome::Holds);
        assert_eq!(judged(100.0, 0.0, 10.0), Outcome::Fails);
        assert_eq!(judged(0.0, 0.0, 60.0), Outcome::Fails);
        assert!(matches!(judged(0.0, 0.0, 1.0), Outcome::Inconclusive { .. }));
        assert!(matches!(judged(5.0, 6.0, 10.0), Outcome::Inconclusive { .. }));
    }

    #[test]
    fn limits_of_a_poisson_count_are_those_of_the_tables() {
        // Garwood's limits: 0: 0 to 3.69, 1: 0.025 to 5.57, 10: 4.80 to 18.39.
        for (count, low, high) in [(0.0, 0.0, 3.69), (1.0, 0.025, 5.57), (10.0, 4.80, 18.39)] {
            let rate = Rate::of(count, 1.0);
            assert!((rate.low_per_s - low).abs() < 0.05, "{rate:?}");
            assert!((rate.high_per_s - high).abs() < 0.05, "{rate:?}");
        }
    }

    #[test]
    fn one_lost_write_refutes_whatever_the_row_is_worth() {
        let mut bad = row(RECOVERY_ARM, &[], &[(CHECKED, 10.0), (LOST, 1.0)]);
        bad.validity = Validity::Invalid { reasons: Vec::new() };
        let good = row(RECOVERY_ARM, &[], &[(CHECKED, 10.0), (LOST, 0.0)]);
        assert_eq!(nothing_lost(&table(vec![good.clone()])).outcome, Outcome::Holds);
        assert_eq!(nothing_lost(&table(vec![good, bad])).outcome, Outcome::Fails);
        assert!(matches!(
            nothing_lost(&table(Vec::new())).outcome,
            Outcome::NotMeasured { .. }
        ));
    }
}
