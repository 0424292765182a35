//! What is claimed of incast on a real kernel, and how the rows decide it. Goodputs are compared within a round, with an interval over
//! rounds.

use std::cmp::Ordering;

use super::{GOODPUT, KERNEL, QUERIES, TIMEOUTS};
use crate::{
    claim::{Claim, Judgement, Source},
    experiments::judge::{self, Bound, measured},
    order,
    record::{Outcome, Row},
    table::{Arm, Table},
};

/// Questions without which our own claim is not judged, of each arm.
const QUERIES_MIN: f64 = 200.0;

const INVARIANT: &str = "TCP of this machine's kernel. Answered bytes over the time that the questions took; ratios are of the same round, \
                         arms in an order that the seed draws, an interval by bootstrap over rounds.";

pub(super) const CLAIMS: &[Claim] = &[
    Claim {
        id: "incast-tlp-kernel",
        sentence: "Of a modern Linux sender with RTOmin of 200 ms, tail loss probes move the collapse: without them 4 servers lose half of \
                   the goodput, with them 8 do not; BBR's 8 do, probes or not",
        source: Source::Ours {
            seen: "a prototype in Python with 20 to 40 questions: CUBIC 12 Mbit/s without and 79 with TLP at 4 servers, 8.0 and 70 at 8; \
                   BBR 15 with TLP at 8",
        },
        invariant: INVARIANT,
        judge: tlp,
    },
    Claim {
        id: "incast-rtomin-kernel",
        sentence: "Without tail loss probes the least timeout decides: with 200 ms 16 servers lose 90 % of the throughput, with the least \
                   that the kernel can be set to less than 10 %",
        source: Source::Published {
            work: "Vasudevan et al., Safe and effective fine-grained TCP retransmissions for datacenter communication, SIGCOMM 2009",
            place: "abstract (90 %) and section 1 (1 ms, as others quote it). A kernel of 250 ticks a second has 8 ms; at a tenth of that \
                    work's rate these are 0.8 ms of its time",
        },
        invariant: INVARIANT,
        judge: rtomin,
    },
    Claim {
        id: "incast-collapse-fast08-kernel",
        sentence: "Without tail loss probes 8 servers lose an order of magnitude of throughput",
        source: Source::Published {
            work: "Phanishayee et al., Measurement and analysis of TCP throughput collapse in cluster-based storage systems, FAST 2008",
            place: "figure 1, recalled and not re-read; its block is 256 KB of each server, here 250 KB of all",
        },
        invariant: INVARIANT,
        judge: collapse,
    },
    Claim {
        id: "incast-dctcp-kernel",
        sentence: "DCTCP delays the collapse: without probes CUBIC and Reno time out with 4 servers and DCTCP does not; with so many servers \
                   that two segments of each overfill the port, DCTCP times out as they do",
        source: Source::Published {
            work: "Alizadeh et al., Data center TCP (DCTCP), SIGCOMM 2010",
            place: "figure 18 and its explanation: 35 servers there, whose two segments each exceed 100 KB; 11 here, of 32 KB",
        },
        invariant: INVARIANT,
        judge: dctcp,
    },
    Claim {
        id: "dctcp-marks-seen",
        sentence: "Every packet that the switch marks is seen marked by the receiver's kernel, and no other",
        source: Source::Ours {
            seen: "a prototype: 7,663 marked, 7,663 seen; an ECN experiment whose marks get lost judges something else",
        },
        invariant: "InCEPkts of the client's namespace against the switch's own count, of each row of DCTCP; one that differs fails it.",
        judge: marks_seen,
    },
    Claim {
        id: "incast-order-kernel",
        sentence: "Whoever controls and however many answer, neither a tail loss probe nor a shorter least timeout costs goodput",
        source: Source::Ours {
            seen: "the simulator, where of 112 such pairs with seed 1 three are the other way round, two of them BBR's with 64 servers; a \
                   figure of a busy machine varies, the order of arms should not",
        },
        invariant: "Arms that differ in nothing but the probe, or in nothing but the timeout, at the same number of servers. A pair is the \
                    other way round if the whole interval of its ratio says so, paired by round.",
        judge: in_order,
    },
    Claim {
        id: "incast-kernel-as-simulated",
        sentence: "The simulator's incast is the kernel's: nine of ten goodputs are within a factor of two of each other",
        source: Source::Ours {
            seen: "one scenario file at both levels; where they differ, the page says why",
        },
        invariant: "The kernel's goodput is the median of its valid rounds, the simulator's one number. The bounds are ours.",
        judge: as_simulated,
    },
];

fn metric(name: &'static str) -> impl Fn(&Row) -> Option<f64> {
    move |row| row.metrics.get(name).map(|metric| metric.value)
}

fn axis<'a>(arm: &'a str, servers: &'a str) -> [(&'a str, &'a str); 2] {
    [("arm", arm), ("servers", servers)]
}

/// Goodput of one cell over another's.
fn ratio(table: &Table, what: &str, a: (&str, &str), b: (&str, &str), bound: Bound) -> Judgement {
    let (a, b) = (axis(a.0, a.1), axis(b.0, b.1));
    let arms = (Arm::of(KERNEL, &a), Arm::of(KERNEL, &b));
    judge::ratio(table, what, arms, metric(GOODPUT), bound)
}

fn queries(table: &Table, arm: &str, servers: &str) -> f64 {
    let axis = axis(arm, servers);
    let rows = table.arm(Arm::of(KERNEL, &axis));
    rows.into_iter().filter_map(metric(QUERIES)).sum()
}

fn tlp(table: &Table) -> Judgement {
    let judged = judge::all(vec![
        ratio(
            table,
            "with ÷ without TLP, 8 servers",
            ("cubic-tlp-200ms", "8"),
            ("cubic-no-tlp-200ms", "8"),
            Bound::AtLeast(2.0),
        ),
        ratio(
            table,
            "without TLP, 4 servers ÷ one",
            ("cubic-no-tlp-200ms", "4"),
            ("cubic-no-tlp-200ms", "1"),
            Bound::AtMost(0.5),
        ),
        ratio(
            table,
            "with TLP, 8 servers ÷ one",
            ("cubic-tlp-200ms", "8"),
            ("cubic-tlp-200ms", "1"),
            Bound::AtLeast(0.5),
        ),
        ratio(
            table,
            "BBR with TLP, 8 servers ÷ one",
            ("bbr-tlp-200ms", "8"),
            ("bbr-tlp-200ms", "1"),
            Bound::AtMost(0.5),
        ),
    ]);
    if matches!(judged.outcome, Outcome::NotMeasured { .. }) {
        return judged;
    }
    let needed = [
        ("cubic-tlp-200ms", "1"),
        ("cubic-tlp-200ms", "8"),
        ("cubic-no-tlp-200ms", "1"),
        ("cubic-no-tlp-200ms", "4"),
        ("cubic-no-tlp-200ms", "8"),
        ("bbr-tlp-200ms", "1"),
        ("bbr-tlp-200ms", "8"),
    ];
    let fewest = needed
        .map(|(arm, servers)| (queries(table, arm, servers), arm, servers))
        .into_iter()
        .min_by(|a, b| a.0.total_cmp(&b.0));
    match fewest {
        Some((count, arm, servers)) if count < QUERIES_MIN => Judgement {
            measured: judged.measured,
            ..Judgement::not_measured(format!(
                "{count} questions with arm={arm} servers={servers} are too few, it takes {QUERIES_MIN} of each arm: give a longer \
                 --budget, or fewer arms"
            ))
        },
        _ => judged,
    }
}

fn rtomin(table: &Table) -> Judgement {
    judge::all(vec![
        ratio(
            table,
            "Reno without TLP, RTOmin 200 ms: 16 servers ÷ one",
            ("reno-no-tlp-200ms", "16"),
            ("reno-no-tlp-200ms", "1"),
            Bound::AtMost(0.1),
        ),
        ratio(
            table,
            "the same with the least RTOmin of this kernel",
            ("reno-no-tlp-floor", "16"),
            ("reno-no-tlp-floor", "1"),
            Bound::AtLeast(0.9),
        ),
    ])
}

fn collapse(table: &Table) -> Judgement {
    ratio(
        table,
        "Reno without TLP, RTOmin 200 ms: 8 servers ÷ one",
        ("reno-no-tlp-200ms", "8"),
        ("reno-no-tlp-200ms", "1"),
        Bound::AtMost(0.1),
    )
}

/// The mean of all rounds, or what is missing.
fn timeouts_per_query(table: &Table, arm: &str, servers: &str) -> Result<(f64, u64), Judgement> {
    let axis = axis(arm, servers);
    let arm = Arm::of(KERNEL, &axis);
    let rows = table.arm(arm);
    if rows.len() < crate::table::ROUNDS_MIN {
        return Err(table.lacking(arm));
    }
    let sum = |name| rows.iter().copied().filter_map(metric(name)).sum::<f64>();
    Ok((sum(TIMEOUTS) / sum(QUERIES).max(1.0), rows.len() as u64))
}

fn dctcp(table: &Table) -> Judgement {
    let demand = |arm: &str, servers: &str, limit: &str, holds: fn(f64) -> bool| {
        let (value, rounds) = match timeouts_per_query(table, arm, servers) {
            Ok(found) => found,
            Err(lacking) => return lacking,
        };
        let outcome = if holds(value) { Outcome::Holds } else { Outcome::Fails };
        let what = format!("timeouts per question, {arm}, {servers} servers");
        Judgement::new(outcome, vec![measured(what, Some(value), "ratio", limit, rounds)])
    };
    let all = vec![
        demand("dctcp-no-tlp-200ms", "4", "≤ 0.01", |value| value <= 0.01),
        demand("cubic-no-tlp-200ms", "4", "≥ 0.1", |value| value >= 0.1),
        demand("reno-no-tlp-200ms", "4", "≥ 0.1", |value| value >= 0.1),
        demand("dctcp-no-tlp-200ms", "16", "≥ 0.1", |value| value >= 0.1),
    ];
    // It compares controllers: without one of them nothing is said of it, whatever the others did.
    match all
        .iter()
        .find(|judged| matches!(judged.outcome, Outcome::NotMeasured { .. }))
    {
        Some(lacking) => Judgement {
            measured: all.iter().flat_map(|judged| judged.measured.clone()).collect(),
            ..lacking.clone()
        },
        None => judge::all(all),
    }
}

/// Pairs that must not be the other way round: what should be above, what below.
fn in_order(table: &Table) -> Judgement {
    const PAIRS_MIN: u64 = 4;
    let (mut above, mut tied, mut reversed) = (0_u64, 0_u64, Vec::new());
    for order in order::orders(table).iter().filter(|order| order.at.starts_with(KERNEL)) {
        for ((a, b), ordering) in &order.pairs {
            let differs_by = |better: &str, worse: &str, upper: &str, lower: &str| {
                upper.contains(better) && upper.replace(better, worse) == lower
            };
            let is_above = |upper: &str, lower: &str| {
                let probes = !upper.contains("-no-tlp-") && differs_by("-tlp-", "-no-tlp-", upper, lower);
                probes || differs_by("-floor", "-200ms", upper, lower)
            };
            let said = match (is_above(a, b), is_above(b, a)) {
                (true, _) => *ordering,
                (_, true) => ordering.reverse(),
                _ => continue,
            };
            match said {
                Ordering::Greater => above += 1,
                Ordering::Equal => tied += 1,
                Ordering::Less => reversed.push(format!("{}: {a} and {b}", order.at)),
            }
        }
    }
    let count = above + tied + reversed.len() as u64;
    if count < PAIRS_MIN {
        return Judgement::not_measured(format!(
            "{count} pairs of arms that differ in one thing were measured in enough rounds, it takes {PAIRS_MIN}: give more arms, or a \
             longer --budget"
        ));
    }
    let outcome = if reversed.is_empty() {
        Outcome::Holds
    } else {
        Outcome::Fails
    };
    let mut figures = vec![
        measured(
            "pairs the other way round",
            Some(reversed.len() as f64),
            "count",
            "0",
            count,
        ),
        measured("pairs in that order", Some(above as f64), "count", "", count),
        measured(
            "pairs that the noise leaves undecided",
            Some(tied as f64),
            "count",
            "",
            count,
        ),
    ];
    let named = reversed.into_iter().take(3);
    figures.extend(named.map(|pair| measured(format!("the other way round: {pair}"), None, "", "", 1)));
    Judgement::new(outcome, figures)
}

fn marks_seen(table: &Table) -> Judgement {
    let is_dctcp = |row: &&Row| row.axis.get("arm").is_some_and(|arm| arm.starts_with("dctcp"));
    let both = |row: &Row| metric("marked")(row).zip(metric("ce_packets_in")(row));
    let of_kernel = table.valid().filter(|row| row.backend == KERNEL).filter(is_dctcp);
    let pairs: Vec<(f64, f64)> = of_kernel.filter_map(both).collect();
    let marked: f64 = pairs.iter().map(|(marked, _)| marked).sum();
    if marked == 0.0 {
        return Judgement::not_measured(
            "no row of DCTCP in which the switch marked anything: run the kernel's DCTCP arms",
        );
    }
    let seen: f64 = pairs.iter().map(|(_, seen)| seen).sum();
    let off_count = pairs.iter().filter(|(marked, seen)| marked != seen).count();
    let outcome = if off_count == 0 { Outcome::Holds } else { Outcome::Fails };
    let count = pairs.len() as u64;
    Judgement::new(
        outcome,
        vec![
            measured("rows in which they differ", Some(off_count as f64), "count", "0", count),
            measured("marked by the switch", Some(marked), "count", "", count),
            measured("seen by the client", Some(seen), "count", "the same", count),
        ],
    )
}

/// Of points that both levels have: how many are within this factor, and of how many that has to be so.
const FACTOR_MAX: f64 = 2.0;
const SHARE_MIN: f64 = 0.9;
/// Fewer points say little.
const POINTS_MIN: usize = 8;

/// The simulator's goodput over the kernel's, point by point, the furthest from one first.
pub(super) fn disagreements(table: &Table) -> Vec<(String, f64)> {
    let mut all: Vec<(String, f64)> = table
        .valid()
        .filter(|row| row.backend == crate::experiments::virtual_time::BACKEND)
        .filter_map(|row| {
            let (arm, servers) = (row.axis.get("arm")?, row.axis.get("servers")?);
            let axis = axis(arm, servers);
            let rows = table.arm(Arm::of(KERNEL, &axis));
            let mut kernel: Vec<f64> = rows.into_iter().filter_map(metric(GOODPUT)).collect();
            kernel.sort_by(f64::total_cmp);
            let median = *kernel.get(kernel.len() / 2)?;
            Some((format!("{arm} with {servers}"), metric(GOODPUT)(row)? / median))
        })
        .collect();
    all.sort_by(|a, b| b.1.ln().abs().total_cmp(&a.1.ln().abs()));
    all
}

fn as_simulated(table: &Table) -> Judgement {
    let all = disagreements(table);
    if all.len() < POINTS_MIN {
        return Judgement::not_measured(format!(
            "{} points were measured at both levels, it takes {POINTS_MIN}: leave out --axis level, and take more servers or arms",
            all.len()
        ));
    }
    let within = |ratio: f64| (1.0 / FACTOR_MAX..=FACTOR_MAX).contains(&ratio);
    let share = all.iter().filter(|(_, ratio)| within(*ratio)).count() as f64 / all.len() as f64;
    let outcome = if share >= SHARE_MIN {
        Outcome::Holds
    } else {
        Outcome::Fails
    };
    let count = all.len() as u64;
    let mut figures = vec![measured(
        "points within a factor of two",
        Some(share),
        "ratio",
        "≥ 0.9",
        count,
    )];
    figures.extend(
        all.iter()
            .take(3)
            .map(|(name, ratio)| measured(format!("simulator ÷ kernel, {name}"), Some(*ratio), "ratio", "", 1)),
    );
    Judgement::new(outcome, figures)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        experiments::virtual_time::{BACKEND, row_of},
        table::ROUNDS_MIN,
    };

    /// So many rounds of each: arm, servers, goodput, questions, timeouts.
    fn table(cells: &[(&str, &str, f64, f64, f64)]) -> Table {
        let mut rows = Vec::new();
        for (arm, servers, goodput, queries, timeouts) in cells {
            for round in 0..ROUNDS_MIN as u32 + 2 {
                let noise = 1.0 + 0.01 * f64::from(round % 3);
                let metrics = [(GOODPUT, goodput * noise), (QUERIES, *queries), (TIMEOUTS, *timeouts)];
                let mut row = row_of(&axis(arm, servers), &metrics);
                row.backend = KERNEL.to_owned();
                row.round = round;
                rows.push(row);
            }
        }
        Table { rows, seed: 1 }
    }

    fn modern(at_8: f64, queries: f64) -> Table {
        table(&[
            ("cubic-tlp-200ms", "1", 90.0, 100.0, 0.0),
            ("cubic-tlp-200ms", "8", at_8, 100.0, 1.0),
            ("cubic-no-tlp-200ms", "1", 90.0, 100.0, 0.0),
            ("cubic-no-tlp-200ms", "4", 12.0, queries, 30.0),
            ("cubic-no-tlp-200ms", "8", 8.0, queries, 30.0),
            ("bbr-tlp-200ms", "1", 85.0, 100.0, 0.0),
            ("bbr-tlp-200ms", "8", 15.0, 50.0, 10.0),
        ])
    }

    #[test]
    fn probes_hold_and_fail_and_take_two_hundred_questions() {
        assert_eq!(tlp(&modern(70.0, 40.0)).outcome, Outcome::Holds);
        assert_eq!(tlp(&modern(20.0, 40.0)).outcome, Outcome::Fails);
        let few = tlp(&modern(70.0, 3.0)).outcome;
        assert!(
            matches!(few, Outcome::NotMeasured { ref why } if why.contains("24 questions")),
            "{few:?}"
        );
        assert!(matches!(tlp(&Table::default()).outcome, Outcome::NotMeasured { .. }));
    }

    #[test]
    fn timers_and_the_collapse_hold_and_fail() {
        let reno = |at_floor: f64, at_8: f64| {
            table(&[
                ("reno-no-tlp-200ms", "1", 90.0, 9.0, 0.0),
                ("reno-no-tlp-200ms", "8", at_8, 9.0, 9.0),
                ("reno-no-tlp-200ms", "16", 6.0, 9.0, 9.0),
                ("reno-no-tlp-floor", "1", 90.0, 9.0, 0.0),
                ("reno-no-tlp-floor", "16", at_floor, 9.0, 9.0),
            ])
        };
        assert_eq!(rtomin(&reno(88.0, 7.0)).outcome, Outcome::Holds);
        assert_eq!(rtomin(&reno(30.0, 7.0)).outcome, Outcome::Fails);
        assert_eq!(collapse(&reno(30.0, 7.0)).outcome, Outcome::Holds);
        assert_eq!(collapse(&reno(30.0, 20.0)).outcome, Outcome::Fails);
    }

    #[test]
    fn dctcp_holds_and_fails() {
        let at_4 = |timeouts: f64| {
            table(&[
                ("dctcp-no-tlp-200ms", "4", 90.0, 100.0, timeouts),
                ("cubic-no-tlp-200ms", "4", 12.0, 10.0, 12.0),
                ("reno-no-tlp-200ms", "4", 12.0, 10.0, 12.0),
                ("dctcp-no-tlp-200ms", "16", 6.0, 10.0, 12.0),
            ])
        };
        assert_eq!(dctcp(&at_4(0.0)).outcome, Outcome::Holds);
        assert_eq!(dctcp(&at_4(50.0)).outcome, Outcome::Fails);
    }

    #[test]
    fn dctcp_is_not_judged_by_others_alone() {
        let without = table(&[
            ("cubic-no-tlp-200ms", "4", 90.0, 100.0, 0.0),
            ("reno-no-tlp-200ms", "4", 90.0, 100.0, 0.0),
        ]);
        let judged = dctcp(&without);
        assert!(
            matches!(judged.outcome, Outcome::NotMeasured { ref why } if why.contains("dctcp-no-tlp-200ms")),
            "{:?}",
            judged.outcome
        );
        assert_eq!(judged.measured.len(), 2, "what was seen is told all the same");
    }

    #[test]
    fn pairs_are_in_order_undecided_or_the_other_way_round() {
        let arms = |cubic_without: f64| {
            table(&[
                ("cubic-tlp-200ms", "8", 60.0, 9.0, 0.0),
                ("cubic-tlp-floor", "8", 80.0, 9.0, 0.0),
                ("cubic-no-tlp-200ms", "8", cubic_without, 9.0, 0.0),
                ("cubic-no-tlp-floor", "8", 80.0, 9.0, 0.0),
            ])
        };
        let good = in_order(&arms(20.0));
        assert_eq!(good.outcome, Outcome::Holds);
        assert_eq!((good.measured[1].value, good.measured[2].value), (Some(3.0), Some(1.0)));
        let bad = in_order(&arms(70.0));
        assert_eq!(bad.outcome, Outcome::Fails);
        assert!(
            bad.measured[3].name.contains("cubic-no-tlp-200ms"),
            "{:?}",
            bad.measured[3]
        );
        assert!(matches!(
            in_order(&Table::default()).outcome,
            Outcome::NotMeasured { .. }
        ));
    }

    #[test]
    fn marks_are_seen_or_not() {
        let seen = |count: f64| {
            let mut table = table(&[("dctcp-tlp-200ms", "4", 90.0, 9.0, 0.0)]);
            for row in &mut table.rows {
                for (name, value) in [("marked", 100.0), ("ce_packets_in", count)] {
                    let mut metric = row.metrics[GOODPUT].clone();
                    metric.value = value;
                    row.metrics.insert(name.to_owned(), metric);
                }
            }
            marks_seen(&table).outcome
        };
        assert_eq!(seen(100.0), Outcome::Holds);
        assert_eq!(seen(99.0), Outcome::Fails);
        assert!(matches!(
            marks_seen(&Table::default()).outcome,
            Outcome::NotMeasured { .. }
        ));
    }

    #[test]
    fn two_levels_agree_or_not() {
        let both = |simulated: f64| {
            let names = ["1", "2", "4", "8", "16", "24", "32", "64"];
            let cells = names.map(|servers| ("cubic-tlp-200ms", servers, 50.0, 9.0, 0.0));
            let mut table = table(&cells);
            table.rows.extend(names.map(|servers| {
                let mut row = row_of(&axis("cubic-tlp-200ms", servers), &[(GOODPUT, simulated)]);
                row.backend = BACKEND.to_owned();
                row
            }));
            table
        };
        assert_eq!(as_simulated(&both(70.0)).outcome, Outcome::Holds);
        assert_eq!(as_simulated(&both(10.0)).outcome, Outcome::Fails);
        assert!(matches!(as_simulated(&table(&[])).outcome, Outcome::NotMeasured { .. }));
    }
}
