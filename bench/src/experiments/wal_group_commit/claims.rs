//! What is claimed of group commit, and how the rows decide it.

use super::{RECORDS_PER_FLUSH, THROUGHPUT};
use crate::{
    claim::{Claim, Judgement, Source},
    experiments::judge::{self, Bound},
    record::Row,
    table::{Arm, ROUNDS_MIN, Table},
};

pub(super) const CLAIMS: &[Claim] = &[
    Claim {
        id: "wal-group-commit",
        sentence: "One flush carries the records of all that wait: with 16 threads the rate grows by at least 0.7 times as much \
                   as the number of records per flush, which grows at least tenfold",
        source: Source::Published {
            work: "P. Spiro, A. Joshi, T. Rengarajan: Designing an Optimized Transaction Commit Protocol, Digital Technical \
                   Journal 3(1), 1991",
            place: "abstract: committing many concurrent transactions together enables high rates; the figures are ours",
        },
        invariant: "The same log, the same records, each thread waiting for its own. Decided by the rate with 16 threads ÷ with \
                    one, over records per flush with 16 ÷ with one, paired by round: below 1, a fuller flush takes longer \
                    or the threads cost more than the disk; and by the growth of records per flush.",
        judge: grows_with_the_batch,
    },
    Claim {
        id: "group-commit-beside-fio",
        sentence: "16 threads over one log make at least 1.1 times the records durable that 16 jobs of fio, with a file each, \
                   make blocks",
        source: Source::Ours {
            seen: "a bar that this log is held to",
        },
        invariant: "Records of 256 bytes against blocks of 512, fdatasync after each. Decided by the paired ratio of operations \
                    a second.",
        judge: beside_fio,
    },
];

const ONE: &[(&str, &str)] = &[("writers", "1")];
const SIXTEEN: &[(&str, &str)] = &[("writers", "16")];

fn metric(name: &'static str) -> impl Fn(&Row) -> Option<f64> {
    move |row| row.metrics.get(name).map(|metric| metric.value)
}

fn grows_with_the_batch(table: &Table) -> Judgement {
    let (one, sixteen) = (Arm::of("wal-dsync", ONE), Arm::of("wal-dsync", SIXTEEN));
    let [rate_one, rate_sixteen] = table.aligned([one, sixteen], metric(THROUGHPUT));
    let [batch_one, batch_sixteen] = table.aligned([one, sixteen], metric(RECORDS_PER_FLUSH));
    for (arm, values) in [(one, &rate_one), (sixteen, &batch_sixteen)] {
        if values.len() < ROUNDS_MIN {
            return table.lacking(if table.arm(one).len() < ROUNDS_MIN { one } else { arm });
        }
    }
    let growth = |after: &[f64], before: &[f64]| -> Vec<f64> {
        after.iter().zip(before).map(|(after, before)| after / before).collect()
    };
    let rates = growth(&rate_sixteen, &rate_one);
    let batches = growth(&batch_sixteen, &batch_one);
    judge::all(vec![
        judge::ratio_of(
            table,
            "growth of the rate ÷ growth of records per flush, 16 threads over 1",
            (&rates, &batches),
            Bound::AtLeast(0.7),
        ),
        judge::ratio_of(
            table,
            "records per flush, 16 threads ÷ 1",
            (&batch_sixteen, &batch_one),
            Bound::AtLeast(10.0),
        ),
    ])
}

fn beside_fio(table: &Table) -> Judgement {
    judge::beside_fio(table, || {
        judge::ratio(
            table,
            "durable records a second of 16 threads ÷ blocks of 16 jobs of fio",
            (Arm::of("wal-dsync", SIXTEEN), Arm::of("fio-fdatasync", SIXTEEN)),
            metric(THROUGHPUT),
            Bound::AtLeast(1.1),
        )
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::record::{Better, Metric, ModeRecord, Outcome, Validity};

    fn row(backend: &str, writers: &str, round: u32, per_s: f64, per_flush: f64) -> Row {
        let metric = |value| Metric {
            value,
            unit: String::new(),
            better: Better::Neither,
        };
        Row {
            experiment: "wal-group-commit".to_owned(),
            backend: backend.to_owned(),
            mode: ModeRecord::Native,
            axis: BTreeMap::from([("writers".to_owned(), writers.to_owned())]),
            round,
            twin: false,
            seed: 1,
            at_s: 0.0,
            elapsed_s: 1.0,
            latency: None,
            service: None,
            schedule_lag: None,
            metrics: BTreeMap::from([
                (THROUGHPUT.to_owned(), metric(per_s)),
                (RECORDS_PER_FLUSH.to_owned(), metric(per_flush)),
            ]),
            series: Vec::new(),
            facts: BTreeMap::new(),
            validity: Validity::Valid,
        }
    }

    fn table(arms: &[(&str, &str, f64, f64)]) -> Table {
        let rows = (0..8).flat_map(|round| {
            arms.iter()
                .map(move |&(backend, writers, per_s, per_flush)| row(backend, writers, round, per_s, per_flush))
        });
        Table {
            rows: rows.collect(),
            seed: 1,
        }
    }

    #[test]
    fn the_rate_must_follow_the_batch() {
        let with = |per_s, per_flush| {
            let arms = [("wal-dsync", "1", 10_000.0, 1.0), ("wal-dsync", "16", per_s, per_flush)];
            grows_with_the_batch(&table(&arms)).outcome
        };
        assert_eq!(with(140_000.0, 15.0), Outcome::Holds);
        assert_eq!(
            with(80_000.0, 15.0),
            Outcome::Fails,
            "a flush of 15 takes twice as long"
        );
        assert_eq!(with(80_000.0, 8.0), Outcome::Fails, "two cohorts take turns");
        let alone = grows_with_the_batch(&table(&[("wal-dsync", "16", 1.0, 1.0)]));
        assert!(matches!(alone.outcome, Outcome::NotMeasured { .. }));
    }

    #[test]
    fn fio_is_a_peer_where_it_is_installed() {
        let with = |per_s| {
            let arms = [("wal-dsync", "16", per_s, 15.0), ("fio-fdatasync", "16", 50_000.0, 1.0)];
            beside_fio(&table(&arms)).outcome
        };
        assert_eq!(with(60_000.0), Outcome::Holds);
        assert_eq!(with(50_000.0), Outcome::Fails);
        let alone = beside_fio(&table(&[("wal-dsync", "16", 1.0, 1.0)])).outcome;
        assert!(matches!(alone, Outcome::NotMeasured { why } if why.contains("not installed")));
    }
}
