//! What is claimed of the switch in user space, and how the rows decide it.

use super::{
    BUSY_SHARE, CAPACITY, CARRIED_BYTES, CARRIED_TIME, DCTCP, DELAY, DELIVERED, FLOOR, FRAMES_PER_CPU_SECOND,
    LINK_BITS_PER_SEC, PLAIN, RATE, SOFT, UNEXPLAINED,
    dctcp::{CE_SEEN, MARKED, RTT_RATIO, STEADY_DROPS},
};
use crate::{
    claim::{Claim, Judgement, Source},
    experiments::judge::{self, measured},
    record::{Outcome, QuantileValue, Row},
    table::{Arm, ROUNDS_MIN, Table},
};

/// What is asked of it.
const FRAMES_PER_CPU_SECOND_MIN: f64 = 900_000.0;
/// A thread that is busy for less does not limit anything.
const BUSY_SHARE_MIN: f64 = 0.7;
const RATE_ERROR_MAX: f64 = 0.001;
const RATE_SECONDS_MIN: f64 = 10.0;
const LATE_NS_MAX: u64 = 5_000;
const RTT_ERROR_MAX: f64 = 0.25;
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
                    them included, while the hosts' drivers send back whatever comes. The median of the rounds of every size decides. \
                    Bursts are short where the hosts are the limit, and short bursts are dear: a switch that fell short of it and was \
                    idle for more than 30 % of the time has not been measured.",
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
    Claim {
        id: "dctcp-over-the-switch",
        sentence: "DCTCP over the switch has its queue where the marks say: each mark is seen, nothing is dropped, and a round trip takes \
                   what 20 packets and an empty network take, within a quarter",
        source: Source::Published {
            work: "M. Alizadeh et al., Data Center TCP (DCTCP), SIGCOMM 2010",
            place: "section 3.3: the queue's length is K and a packet of each flow",
        },
        invariant: "Three long flows into 1 Gbit/s, K = 20 packets of 100. The switch's marks = packets that the receiver's kernel saw marked \
                    (InCEPkts), from the first frame to the last; frames dropped after the first 0.4 s = 0: of every row. The median of \
                    the rows' median smoothed round trips ÷ (K ÷ rate + the least round trip of a handshake) is 0.75 to 1.25.",
        judge: dctcp,
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

fn capacity(table: &Table) -> Judgement {
    let (speeds, shares) = match (
        by_size(table, CAPACITY, &metric(FRAMES_PER_CPU_SECOND)),
        by_size(table, CAPACITY, &metric(BUSY_SHARE)),
    ) {
        (Ok(speeds), Ok(shares)) => (speeds, shares),
        (Err(lacking), _) | (_, Err(lacking)) => return lacking,
    };
    let mut judged = Vec::new();
    for ((size, speeds), (_, shares)) in speeds.into_iter().zip(shares) {
        let (speed, share) = (median(&speeds), median(&shares));
        let rounds_count = speeds.len() as u64;
        let outcome = match speed >= FRAMES_PER_CPU_SECOND_MIN {
            true => Outcome::Holds,
            false if share < BUSY_SHARE_MIN => {
                return Judgement::not_measured(format!(
                    "with frames of {size} bytes the switch was busy for {:.0} % of the time, so its hosts were the limit; \
                     stop what else runs here, or give the hosts a CPU of their own",
                    share * 100.0
                ));
            }
            false => Outcome::Fails,
        };
        let mut figures = vec![measured(
            format!("frames per CPU-second, frames of {size} bytes"),
            Some(speed),
            "1/s",
            format!("≥ {} k/s", FRAMES_PER_CPU_SECOND_MIN / 1e3),
            rounds_count,
        )];
        // What the kernel leaves of a CPU's second, beside it: no part of the verdict.
        let axis = [("check", FLOOR), ("frame_bytes", size)];
        let mut floors: Vec<f64> = table
            .arm(Arm::of(PLAIN, &axis))
            .into_iter()
            .filter_map(metric(FRAMES_PER_CPU_SECOND))
            .collect();
        floors.sort_by(f64::total_cmp);
        if !floors.is_empty() {
            let what = format!("a loop that only passes on, frames of {size} bytes");
            figures.push(measured(what, Some(median(&floors)), "1/s", "", floors.len() as u64));
        }
        judged.push(Judgement::new(outcome, figures));
    }
    judge::all(judged)
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

fn dctcp(table: &Table) -> Judgement {
    let axis = [("check", DCTCP)];
    let arm = Arm::of(SOFT, &axis);
    let rows = table.arm(arm);
    if rows.len() < ROUNDS_MIN {
        return table.lacking(arm);
    }
    let values = |of: &'static str| -> Vec<f64> { rows.iter().filter_map(|row| metric(of)(row)).collect() };
    let (marked, seen, drops) = (values(MARKED), values(CE_SEEN), values(STEADY_DROPS));
    let mut ratios = values(RTT_RATIO);
    ratios.sort_by(f64::total_cmp);
    if ratios.is_empty() {
        return table.lacking(arm);
    }
    let rows_count = rows.len() as u64;
    let differing_count = marked.iter().zip(&seen).filter(|(marked, seen)| marked != seen).count();
    let (marked_sum, drops_sum, ratio) = (marked.iter().sum::<f64>(), drops.iter().sum::<f64>(), median(&ratios));
    let holds = differing_count == 0 && marked_sum > 0.0 && drops_sum == 0.0 && (ratio - 1.0).abs() <= RTT_ERROR_MAX;
    let outcome = if holds { Outcome::Holds } else { Outcome::Fails };
    Judgement::new(
        outcome,
        vec![
            measured(
                "loaded round trip ÷ expected",
                Some(ratio),
                "ratio",
                "1 ± 0.25",
                rows_count,
            ),
            measured(
                "rows whose marks were not all seen",
                Some(differing_count as f64),
                "count",
                "0",
                rows_count,
            ),
            measured("packets marked", Some(marked_sum), "count", "> 0", rows_count),
            measured("dropped in the steady state", Some(drops_sum), "count", "0", rows_count),
        ],
    )
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
