//! What is claimed of ways to the disk, and how the rows decide it.

use super::{CPU_PER_OP, HOGS, THROUGHPUT};
use crate::{
    claim::{Claim, Judgement, Source},
    experiments::judge::{self, Bound},
    record::Row,
    table::{Arm, Table, latency_ns},
};

pub(super) const CLAIMS: &[Claim] = &[
    Claim {
        id: "wal-floor",
        sentence: "A durable record of 256 bytes takes at most 1.1 times as long as the same bytes written durably without a log",
        source: Source::Ours {
            seen: "the log adds checksums and bookkeeping, about a microsecond, to a flush of some 80",
        },
        invariant: "One thread, one record at a time, O_DIRECT, as many bytes, files written beforehand, CPUs otherwise idle. \
                    Decided by the paired ratio of p50, wal-dsync ÷ pwrite-dsync.",
        judge: wal_floor,
    },
    Claim {
        id: "uring-ladder",
        sentence: "With 32 under way, one thread with io_uring moves at least 1.5 times the blocks per second of CPU time that \
                   32 threads with pread and pwrite move, reading and writing",
        source: Source::Published {
            work: "M. Jasny, M. El-Hindi, T. Ziegler, V. Leis, C. Binnig: High-Performance DBMSs with io_uring: When and How \
                   to use it, arXiv 2512.04859",
            place: "abstract: io_uring in place of another interface does not by itself yield performance, and features like \
                    registered buffers do; the limit of 1.5 is ours",
        },
        invariant: "O_DIRECT, 4096 bytes anywhere in the same file; files and memory registered with the ring. CPU time is \
                    that of the calling threads; what interrupts and work queues use is in neither. Decided by the paired \
                    ratios of CPU time per block, blocking-direct ÷ uring-direct, both ways of access.",
        judge: uring_ladder,
    },
    Claim {
        id: "uring-durable-beside-hogs",
        sentence: "Beside busy CPUs, a durable write through io_uring takes at most 1.5 times as long as one by pwrite",
        source: Source::Ours {
            seen: "a prototype: 4 ms instead of 82 µs; the second half of an asynchronous O_DSYNC write is done by a kernel \
                   worker at ordinary priority, which waits for its turn",
        },
        invariant: "One write at a time, the same bytes, a hog on each CPU. Decided by the paired ratio of p50, uring-dsync ÷ \
                    pwrite-dsync.",
        judge: uring_beside_hogs,
    },
    Claim {
        id: "wal-beside-hogs",
        sentence: "Beside busy CPUs, a durable record takes at most 1.5 times as long as fio's durable write beside the same",
        source: Source::Ours {
            seen: "a bar that this log is held to",
        },
        invariant: "wal-dsync with 256 bytes against fio-dsync (psync, O_DIRECT, O_DSYNC) with as many as the log writes, a \
                    hog on each CPU. Decided by the paired ratio of p50.",
        judge: wal_beside_hogs,
    },
    Claim {
        id: "wal-beside-fio",
        sentence: "One thread makes at least 0.95 times the records durable that fio makes blocks with fdatasync",
        source: Source::Ours {
            seen: "a bar that this log is held to",
        },
        invariant: "wal-dsync with 256 bytes against fio-fdatasync (psync) with as many as the log writes, CPUs otherwise idle. \
                    Decided by the paired ratio of operations a second.",
        judge: wal_beside_fio,
    },
    Claim {
        id: "blocks-beside-fio",
        sentence: "One block or 32 under way, reading and writing, our ring does at least 0.95 times the operations of fio's io_uring",
        source: Source::Ours {
            seen: "a bar that this storage path is held to",
        },
        invariant: "The same file, O_DIRECT, 4096 bytes anywhere; both register files and memory. Decided by the paired ratios \
                    of operations a second, uring-direct ÷ fio-uring, of all four.",
        judge: blocks_beside_fio,
    },
];

type Position = [(&'static str, &'static str); 4];

const fn append_beside(beside: &'static str) -> Position {
    [
        ("work", super::APPEND),
        ("record_bytes", super::MAIN_BYTES),
        ("in_flight", "1"),
        ("beside", beside),
    ]
}

const fn blocks(work: &'static str, in_flight: &'static str) -> Position {
    [
        ("work", work),
        ("record_bytes", "4096"),
        ("in_flight", in_flight),
        ("beside", super::IDLE),
    ]
}

const APPEND_IDLE: &Position = &append_beside(super::IDLE);
const APPEND_HOGS: &Position = &append_beside(HOGS);

fn p50(row: &Row) -> Option<f64> {
    latency_ns(0.5)(row)
}

fn metric(name: &'static str) -> impl Fn(&Row) -> Option<f64> {
    move |row| row.metrics.get(name).map(|metric| metric.value)
}

fn wal_floor(table: &Table) -> Judgement {
    judge::ratio(
        table,
        "p50 of a durable record ÷ of the same bytes without a log",
        (Arm::of("wal-dsync", APPEND_IDLE), Arm::of("pwrite-dsync", APPEND_IDLE)),
        p50,
        Bound::AtMost(1.1),
    )
}

fn uring_ladder(table: &Table) -> Judgement {
    let of = |what, position: &Position| {
        judge::ratio(
            table,
            what,
            (Arm::of("blocking-direct", position), Arm::of("uring-direct", position)),
            metric(CPU_PER_OP),
            Bound::AtLeast(1.5),
        )
    };
    judge::all(vec![
        of(
            "CPU time per block read by 32 threads ÷ by a ring with 32",
            &blocks(super::READ, "32"),
        ),
        of(
            "CPU time per block written by 32 threads ÷ by a ring with 32",
            &blocks(super::WRITE, "32"),
        ),
    ])
}

fn uring_beside_hogs(table: &Table) -> Judgement {
    judge::ratio(
        table,
        "p50 of a durable write through io_uring ÷ by pwrite, beside hogs",
        (
            Arm::of("uring-dsync", APPEND_HOGS),
            Arm::of("pwrite-dsync", APPEND_HOGS),
        ),
        p50,
        Bound::AtMost(1.5),
    )
}

fn wal_beside_hogs(table: &Table) -> Judgement {
    judge::beside_fio(table, || {
        judge::ratio(
            table,
            "p50 of a durable record ÷ of fio's durable write, beside hogs",
            (Arm::of("wal-dsync", APPEND_HOGS), Arm::of("fio-dsync", APPEND_HOGS)),
            p50,
            Bound::AtMost(1.5),
        )
    })
}

fn wal_beside_fio(table: &Table) -> Judgement {
    judge::beside_fio(table, || {
        judge::ratio(
            table,
            "durable records a second ÷ fio's blocks with fdatasync",
            (Arm::of("wal-dsync", APPEND_IDLE), Arm::of("fio-fdatasync", APPEND_IDLE)),
            metric(THROUGHPUT),
            Bound::AtLeast(0.95),
        )
    })
}

fn blocks_beside_fio(table: &Table) -> Judgement {
    let of = |what, work, in_flight| {
        let position = blocks(work, in_flight);
        judge::ratio(
            table,
            what,
            (Arm::of("uring-direct", &position), Arm::of("fio-uring", &position)),
            metric(THROUGHPUT),
            Bound::AtLeast(0.95),
        )
    };
    judge::beside_fio(table, || {
        judge::all(vec![
            of("reads a second, one under way ÷ fio's", super::READ, "1"),
            of("reads a second, 32 under way ÷ fio's", super::READ, "32"),
            of("writes a second, one under way ÷ fio's", super::WRITE, "1"),
            of("writes a second, 32 under way ÷ fio's", super::WRITE, "32"),
        ])
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        measure::{QUANTILES, Recorder},
        record::{Better, Metric, ModeRecord, Outcome, Validity},
    };

    /// A row of which each operation took `us`, `per_s` times a second, for `cpu_us` of CPU time.
    fn row(backend: &str, position: &Position, round: u32, (us, per_s, cpu_us): (u64, f64, f64)) -> Row {
        let mut latency = Recorder::new();
        (0..100).for_each(|_| latency.record(us * 1000));
        let metric = |value| Metric {
            value,
            unit: String::new(),
            better: Better::Neither,
        };
        Row {
            experiment: "wal-ladder".to_owned(),
            backend: backend.to_owned(),
            mode: ModeRecord::Native,
            axis: position
                .iter()
                .map(|(axis, value)| ((*axis).into(), (*value).into()))
                .collect(),
            round,
            twin: false,
            seed: 1,
            at_s: 0.0,
            elapsed_s: 1.0,
            latency: Some(latency.distribution(&QUANTILES)),
            service: None,
            schedule_lag: None,
            metrics: BTreeMap::from([
                (THROUGHPUT.to_owned(), metric(per_s)),
                (CPU_PER_OP.to_owned(), metric(cpu_us * 1000.0)),
            ]),
            series: Vec::new(),
            facts: BTreeMap::new(),
            validity: Validity::Valid,
        }
    }

    type Figures = (u64, f64, f64);

    fn table(arms: &[(&str, &Position, Figures)]) -> Table {
        let rows = (0..8).flat_map(|round| {
            arms.iter()
                .map(move |&(name, position, figures)| row(name, position, round, figures))
        });
        Table {
            rows: rows.collect(),
            seed: 1,
        }
    }

    #[test]
    fn the_log_is_held_against_the_floor() {
        let with = |us| {
            wal_floor(&table(&[
                ("wal-dsync", APPEND_IDLE, (us, 1.0, 1.0)),
                ("pwrite-dsync", APPEND_IDLE, (80, 1.0, 1.0)),
            ]))
        };
        assert_eq!(with(84).outcome, Outcome::Holds);
        assert_eq!(with(100).outcome, Outcome::Fails);
        let alone = wal_floor(&table(&[("wal-dsync", APPEND_IDLE, (80, 1.0, 1.0))]));
        assert!(matches!(alone.outcome, Outcome::NotMeasured { .. }));
    }

    #[test]
    fn a_ring_must_be_cheaper_both_ways() {
        let with = |read_us, write_us| {
            uring_ladder(&table(&[
                ("blocking-direct", &blocks("read", "32"), (1, 1.0, 8.0)),
                ("uring-direct", &blocks("read", "32"), (1, 1.0, read_us)),
                ("blocking-direct", &blocks("write", "32"), (1, 1.0, 8.0)),
                ("uring-direct", &blocks("write", "32"), (1, 1.0, write_us)),
            ]))
        };
        assert_eq!(with(4.0, 4.0).outcome, Outcome::Holds);
        let failed = with(4.0, 7.0);
        assert_eq!((failed.outcome, failed.measured.len()), (Outcome::Fails, 2));
        let half = uring_ladder(&table(&[
            ("blocking-direct", &blocks("read", "32"), (1, 1.0, 8.0)),
            ("uring-direct", &blocks("read", "32"), (1, 1.0, 4.0)),
        ]));
        assert!(matches!(half.outcome, Outcome::NotMeasured { .. }));
    }

    #[test]
    fn hogs_decide_where_they_were() {
        let with = |us| {
            table(&[
                ("uring-dsync", APPEND_HOGS, (us, 1.0, 1.0)),
                ("wal-dsync", APPEND_HOGS, (us, 1.0, 1.0)),
                ("pwrite-dsync", APPEND_HOGS, (80, 1.0, 1.0)),
                ("fio-dsync", APPEND_HOGS, (80, 1.0, 1.0)),
            ])
        };
        for judge in [uring_beside_hogs, wal_beside_hogs] {
            assert_eq!(judge(&with(90)).outcome, Outcome::Holds);
            assert_eq!(judge(&with(4000)).outcome, Outcome::Fails);
        }
        let idle = table(&[
            ("uring-dsync", APPEND_IDLE, (80, 1.0, 1.0)),
            ("pwrite-dsync", APPEND_IDLE, (80, 1.0, 1.0)),
        ]);
        assert!(matches!(uring_beside_hogs(&idle).outcome, Outcome::NotMeasured { .. }));
    }

    #[test]
    fn fio_is_a_peer_where_it_is_installed() {
        let alone = table(&[("wal-dsync", APPEND_IDLE, (80, 12_000.0, 1.0))]);
        for judge in [wal_beside_fio, wal_beside_hogs, blocks_beside_fio] {
            let Outcome::NotMeasured { why } = judge(&alone).outcome else {
                panic!("there is no fio in the table")
            };
            assert!(why.contains("not installed"), "{why}");
        }
        let with = |per_s| {
            wal_beside_fio(&table(&[
                ("wal-dsync", APPEND_IDLE, (80, per_s, 1.0)),
                ("fio-fdatasync", APPEND_IDLE, (80, 10_000.0, 1.0)),
            ]))
        };
        assert_eq!(with(9_800.0).outcome, Outcome::Holds);
        assert_eq!(with(9_000.0).outcome, Outcome::Fails);
    }

    #[test]
    fn one_of_four_that_is_slower_is_one_too_many() {
        let positions =
            [("read", "1"), ("read", "32"), ("write", "1"), ("write", "32")].map(|(work, depth)| blocks(work, depth));
        let with = |last_per_s| {
            let mut arms = Vec::new();
            for (index, position) in positions.iter().enumerate() {
                let per_s = if index == 3 { last_per_s } else { 1000.0 };
                arms.push(("uring-direct", position, (1, per_s, 1.0)));
                arms.push(("fio-uring", position, (1, 1000.0, 1.0)));
            }
            blocks_beside_fio(&table(&arms))
        };
        assert_eq!(with(1000.0).outcome, Outcome::Holds);
        let failed = with(900.0);
        assert_eq!((failed.outcome, failed.measured.len()), (Outcome::Fails, 4));
    }
}
