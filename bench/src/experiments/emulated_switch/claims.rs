//! What is claimed of the switch in user space, and how the rows decide it.

use super::{
    CAPACITY, CARRIED_BYTES, CARRIED_TIME, DELAY, DELIVERED, FRAMES_PER_CPU_SECOND, LINK_BITS_PER_SEC, RATE, SOFT,
    UNEXPLAINED,
};
use crate::{
    claim::{Claim, Judgement, Source},
    experiments::judge::{self, measured},
    record::{Outcome, QuantileValue, Row},
    table::{Arm, ROUNDS_MIN, Table},
};

/// What is asked of it.
const FRAMES_PER_CPU_SECOND_MIN: f64 = 900_000.0;
const RATE_ERROR_MAX: f64 = 0.001;
const RATE_SECONDS_MIN: f64 = 10.0;
const LATE_NS_MAX: u64 = 5_000;
const SIZES: [&str; 3] = ["64", "512", "1442"];

pub(super) const CLAIMS: &[Claim] = &[
    Claim {
        id: "switch-capacity",
        sentence: "The switch in user space forwards at least 0.9 million frames per second of its CPU, whether they are short or \
                   long",
        source: Source::Ours {
            seen: "a prototype forwarded 0.72 to 0.79 million",
        },
        invariant: "Frames delivered ÷ time of the turns in which anything was done, system calls and the kernel's work within \
                    them included; the far end drops in its driver. The median of the rounds of every size decides.",
        judge: capacity,
    },
    Claim {
        id: "switch-rate",
        sentence: "A full link of the switch in user space carries its rate, exact to one in a thousand",
        source: Source::Ours {
            seen: "emulators whose link exceeds its rate, or leaves out what Ethernet adds to a frame, let a transport look \
                   better than it is",
        },
        invariant: "Bytes with preamble, check sequence and gap ÷ the time between the kernel's stamps of the first and the last \
                    frame at the receiver, over 20 Mbit/s: of all rounds of a size together, ten seconds at least. Every size decides.",
        judge: rate,
    },
    Claim {
        id: "switch-delay",
        sentence: "99 of 100 frames are handed over within 5 µs of when they are due",
        source: Source::Ours {
            seen: "a prototype's median was 42 ns, while its thread had a CPU",
        },
        invariant: "From a frame's due time to when the kernel had been told to deliver it, of all frames of a size together. \
                    Rounds in which the CPU was taken away are INVALID and not among them.",
        judge: delay,
    },
    Claim {
        id: "switch-account",
        sentence: "The switch knows where every frame went: none is without a counter",
        source: Source::Ours {
            seen: "an experiment about losses can only be judged where all of them are known",
        },
        invariant: "Frames that the program at the ports saw = frames delivered + dropped, each by a named counter, or held. Decided by \
                    every row; one frame without an explanation fails it.",
        judge: account,
    },
];

fn metric(name: &'static str) -> impl Fn(&Row) -> Option<f64> {
    move |row| row.metrics.get(name).map(|metric| metric.value)
}

/// Of each size: the rounds' values, lowest first; or what is missing.
fn by_size(
    table: &Table,
    check: &'static str,
    value: &dyn Fn(&Row) -> Option<f64>,
) -> Result<Vec<(&'static str, Vec<f64>)>, Judgement> {
    let mut all = Vec::new();
    for size in SIZES {
        let axis = [("check", check), ("frame_bytes", size)];
        let arm = Arm::of(SOFT, &axis);
        let mut values: Vec<f64> = table.arm(arm).into_iter().filter_map(value).collect();
        if values.len() < ROUNDS_MIN {
            return Err(table.lacking(arm));
        }
        values.sort_by(f64::total_cmp);
        all.push((size, values));
    }
    Ok(all)
}

fn median(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}

/// Holds with all sizes, fails with any.
fn every_size(
    rows: Result<Vec<(&'static str, Vec<f64>)>, Judgement>,
    (what, unit, limit): (&str, &str, String),
    holds: impl Fn(f64) -> bool,
) -> Judgement {
    let rows = match rows {
        Ok(rows) => rows,
        Err(lacking) => return lacking,
    };
    let judged = rows.into_iter().map(|(size, values)| {
        let value = median(&values);
        let outcome = if holds(value) { Outcome::Holds } else { Outcome::Fails };
        let figure = measured(
            format!("{what}, frames of {size} bytes"),
            Some(value),
            unit,
            limit.clone(),
            values.len() as u64,
        );
        Judgement::new(outcome, vec![figure])
    });
    judge::all(judged.collect())
}

fn capacity(table: &Table) -> Judgement {
    every_size(
        by_size(table, CAPACITY, &metric(FRAMES_PER_CPU_SECOND)),
        (
            "frames per CPU-second",
            "1/s",
            format!("≥ {} k/s", FRAMES_PER_CPU_SECOND_MIN / 1e3),
        ),
        |value| value >= FRAMES_PER_CPU_SECOND_MIN,
    )
}

fn rate(table: &Table) -> Judgement {
    let mut judged = Vec::new();
    for size in SIZES {
        let axis = [("check", RATE), ("frame_bytes", size)];
        let arm = Arm::of(SOFT, &axis);
        let rows = table.arm(arm);
        if rows.len() < ROUNDS_MIN {
            return table.lacking(arm);
        }
        let sum = |of: &'static str| rows.iter().filter_map(|row| metric(of)(row)).sum::<f64>();
        let (bytes, elapsed_s) = (sum(CARRIED_BYTES), sum(CARRIED_TIME) / 1e9);
        if elapsed_s < RATE_SECONDS_MIN {
            return Judgement::not_measured(format!(
                "the rounds with frames of {size} bytes last {elapsed_s:.1} s together, and one in a thousand takes \
                 {RATE_SECONDS_MIN} s: give a larger --budget"
            ));
        }
        let ratio = bytes * 8.0 / elapsed_s / LINK_BITS_PER_SEC as f64;
        let outcome = match (ratio - 1.0).abs() <= RATE_ERROR_MAX {
            true => Outcome::Holds,
            false => Outcome::Fails,
        };
        let figure = measured(
            format!("carried − promised, of what was promised, frames of {size} bytes, {elapsed_s:.1} s"),
            Some((ratio - 1.0) * 1e6),
            "ppm",
            format!("0 ± {}", RATE_ERROR_MAX * 1e6),
            rows.len() as u64,
        );
        judged.push(Judgement::new(outcome, vec![figure]));
    }
    judge::all(judged)
}

fn delay(table: &Table) -> Judgement {
    let mut judged = Vec::new();
    for size in SIZES {
        let axis = [("check", DELAY), ("frame_bytes", size)];
        let arm = Arm::of(SOFT, &axis);
        if table.arm(arm).len() < ROUNDS_MIN {
            return table.lacking(arm);
        }
        let Some(merged) = table.merged(arm, |row| row.latency.as_ref()) else {
            return table.lacking(arm);
        };
        let (late, samples_count) = (merged.quantile(0.99), merged.total_count());
        let outcome = match late {
            QuantileValue::Ns(ns) if ns <= LATE_NS_MAX => Outcome::Holds,
            QuantileValue::Ns(_) | QuantileValue::Lost => Outcome::Fails,
            QuantileValue::Unsupported => return table.lacking(arm),
        };
        let value = match late {
            QuantileValue::Ns(ns) => Some(ns as f64),
            _ => None,
        };
        let figure = measured(
            format!("p99 of lateness, frames of {size} bytes"),
            value,
            "ns",
            format!("≤ {} µs", LATE_NS_MAX / 1_000),
            samples_count,
        );
        judged.push(Judgement::new(outcome, vec![figure]));
    }
    judge::all(judged)
}

fn account(table: &Table) -> Judgement {
    let rows: Vec<&Row> = table.rows.iter().filter(|row| row.backend == SOFT).collect();
    let unexplained: Vec<f64> = rows.iter().filter_map(|row| metric(UNEXPLAINED)(row)).collect();
    if unexplained.is_empty() {
        return Judgement::not_measured("no frame went through the switch");
    }
    let delivered: f64 = rows.iter().filter_map(|row| metric(DELIVERED)(row)).sum();
    let worst = unexplained.iter().fold(0.0_f64, |worst, value| worst.max(value.abs()));
    let outcome = if worst == 0.0 { Outcome::Holds } else { Outcome::Fails };
    let rows_count = unexplained.len() as u64;
    Judgement::new(
        outcome,
        vec![
            measured(
                "frames without an explanation, the worst row",
                Some(worst),
                "count",
                "0",
                rows_count,
            ),
            measured("frames delivered", Some(delivered), "count", "", rows_count),
        ],
    )
}
