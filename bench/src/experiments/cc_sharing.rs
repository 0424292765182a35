//! `cc-bbr-vs-lossbased`, `cc-fairness` and `cc-rtt-unfairness`: who gets how much of one bottleneck.

use super::scenarios::{ARM, Demand, Scenario, judge_all, metric};
use crate::{
    claim::{Claim, Judgement, Source},
    experiment::{Allowed, Axis},
    table::Table,
};

const VIRTUAL: &str =
    "Virtual time: a row follows from the seed alone. Decided by the figures of the rows, without an interval.";

const fn arms(full: &'static [&'static str]) -> Axis {
    Axis {
        name: ARM,
        meaning: "the congestion controller of all flows, or of the loss-based ones",
        full,
        tour: full,
        smallest: full[0],
        allowed: Allowed::Words,
    }
}

const fn flows(full: &'static [&'static str]) -> Axis {
    Axis {
        name: "flows",
        meaning: "flows that differ in nothing but when they begin",
        full,
        tour: &["4"],
        smallest: "2",
        allowed: Allowed::Number(1.0, 10_000.0),
    }
}

/// Ware et al.
pub static BBR_VS_LOSSBASED: Scenario = Scenario {
    id: "cc-bbr-vs-lossbased",
    title: "One BBR among loss-based flows",
    question: "Does the share of a BBR flow shrink as more loss-based flows stand beside it?",
    how: "One BBRv1 flow beside 1 to 16 flows of CUBIC or NewReno, over 10 Mbit/s with an empty round trip of 40 ms and a buffer of eight \
          bandwidth-delay products. Goodput is taken after a fifth of 200 s.",
    axes: &[arms(&["newreno", "cubic"]), flows(&["1", "2", "4", "8", "16"])],
    claims: &[Claim {
        id: "cc-bbr-vs-lossbased",
        sentence: "The share of one BBRv1 flow does not depend on the number of loss-based flows beside it",
        source: Source::Published {
            work: "Ware, Mukerjee, Seshan and Sherry, Modeling BBR's interactions with loss-based congestion control, IMC 2019",
            place: "section 4 (the model); that a share beside 16 flows within 30 % of that beside 1 does not depend is ours",
        },
        invariant: VIRTUAL,
        judge: independent,
    }],
    tour_weight: 0.0,
    own: None,
};

fn bbr_share(table: &Table, arm: &str, flows: &str) -> Option<f64> {
    let of = |name| metric(table, arm, ("flows", flows), name);
    of("long_last_mbit_per_sec")
        .zip(of("long_goodput_mbit_per_sec"))
        .map(|(own, all)| own / all)
}

pub(super) fn independent(table: &Table) -> Judgement {
    let kept = |arm| {
        bbr_share(table, arm, "16")
            .zip(bbr_share(table, arm, "1"))
            .map(|(many, one)| many / one)
    };
    let demand = |what, arm| Demand {
        what,
        value: kept(arm),
        unit: "ratio",
        limit: "0.7 to 1.3",
        meets: |ratio: f64| (0.7..=1.3).contains(&ratio),
    };
    judge_all(&[
        demand("BBRv1's share beside 16 flows of CUBIC ÷ beside 1", "cubic"),
        demand("BBRv1's share beside 16 flows of NewReno ÷ beside 1", "newreno"),
    ])
}

/// Flows that differ in nothing.
pub static FAIRNESS: Scenario = Scenario {
    id: "cc-fairness",
    title: "Equal flows",
    question: "Do equal flows share a bottleneck equally, and how soon?",
    how: "2 to 16 flows of one controller begin a second apart, over 50 Mbit/s with an empty round trip of 40 ms and a buffer of one \
          bandwidth-delay product. Jain's index is that of the goodputs of the last four fifths of 100 s; shares have converged when it is \
          0.95 over 2 s, for the first time after the last flow began.",
    axes: &[
        arms(&["newreno", "cubic", "dctcp", "bbr1", "bbr3"]),
        flows(&["2", "4", "8", "16"]),
    ],
    claims: &[Claim {
        id: "cc-fairness",
        sentence: "Equal flows share a bottleneck: Jain's index is 0.9 or more over 80 s, with each controller, for 2 to 16 flows",
        source: Source::Published {
            work: "RFC 9743, Specifying New Congestion Control Algorithms, 2025",
            place: "which asks the question and gives no bound; 0.9 is ours",
        },
        invariant: VIRTUAL,
        judge: fair,
    }],
    tour_weight: 0.0,
    own: None,
};

fn fair(table: &Table) -> Judgement {
    fair_of(
        table,
        &["newreno", "cubic", "dctcp", "bbr1", "bbr3"],
        &["2", "4", "8", "16"],
    )
}

/// The same for some arms and numbers of flows.
pub(super) fn fair_of(table: &Table, arms: &[&str], counts: &[&str]) -> Judgement {
    let least = |arm: &str| {
        let of = |flows: &&str| metric(table, arm, ("flows", flows), "fairness");
        counts
            .iter()
            .map(of)
            .try_fold(1.0_f64, |least, index| index.map(|index| least.min(index)))
    };
    let demand = |what, arm| Demand {
        what,
        value: least(arm),
        unit: "ratio",
        limit: "≥ 0.9",
        meets: |index: f64| index >= 0.9,
    };
    const NAMES: [(&str, &str); 5] = [
        ("least index, NewReno", "newreno"),
        ("least index, CUBIC", "cubic"),
        ("least index, DCTCP", "dctcp"),
        ("least index, BBRv1", "bbr1"),
        ("least index, BBRv3", "bbr3"),
    ];
    let wanted = NAMES.into_iter().filter(|(_, arm)| arms.contains(arm));
    judge_all(&wanted.map(|(what, arm)| demand(what, arm)).collect::<Vec<_>>())
}

const HOST_DELAY: Axis = Axis {
    name: "host_delay_us",
    meaning: "of the second flow's host beyond 40 ms there and back, in one direction",
    full: &["1", "20000", "60000"],
    tour: &["20000"],
    smallest: "20000",
    allowed: Allowed::Number(0.0, 1e9),
};

/// Flows that differ in their round trip.
pub static RTT_UNFAIRNESS: Scenario = Scenario {
    id: "cc-rtt-unfairness",
    title: "Flows with unequal round trips",
    question: "Who gets more of a bottleneck: the flow from nearby or the one from far away?",
    how: "Two flows of one controller, over 50 Mbit/s with a buffer of 250 KB. The first has an empty round trip of 40 ms, the second one of 40, 80 \
          or 160 ms. Goodputs are those of the last four fifths of 200 s.",
    axes: &[arms(&["newreno", "cubic", "bbr1", "bbr3"]), HOST_DELAY],
    claims: &[
        Claim {
            id: "cc-rtt-unfairness",
            sentence: "Of two NewReno flows that with the shorter round trip gets more, at most by the square of the ratio; of two CUBIC flows by less",
            source: Source::Published {
                work: "Lakshman and Madhow, The performance of TCP/IP for networks with high bandwidth-delay products and random loss, \
                       IEEE/ACM Transactions on Networking 5(3), 1997; RFC 9438, section 5.1",
                place: "the abstract and the section, both recalled and not re-read; a tenth more at least is ours",
            },
            invariant: VIRTUAL,
            judge: the_near_one_wins,
        },
        Claim {
            id: "cc-rtt-unfairness-bbr",
            sentence: "Of two BBRv1 flows that with the longer round trip gets more",
            source: Source::Published {
                work: "Hock, Bless and Zitterbart, Experimental evaluation of BBR congestion control, ICNP 2017",
                place: "section on round-trip times, recalled and not re-read",
            },
            invariant: VIRTUAL,
            judge: the_far_one_wins,
        },
    ],
    tour_weight: 0.0,
    own: None,
};

/// What the flow from nearby gets over what the other gets.
fn near_to_far(table: &Table, arm: &str, delay: &str) -> Option<f64> {
    let of = |name| metric(table, arm, (HOST_DELAY.name, delay), name);
    of("long_first_mbit_per_sec")
        .zip(of("long_last_mbit_per_sec"))
        .map(|(near, far)| near / far)
}

fn the_near_one_wins(table: &Table) -> Judgement {
    let less = |delay| {
        near_to_far(table, "cubic", delay)
            .zip(near_to_far(table, "newreno", delay))
            .map(|(cubic, newreno)| cubic / newreno)
    };
    judge_all(&[
        Demand {
            what: "NewReno, 40 ms ÷ 80 ms",
            value: near_to_far(table, "newreno", "20000"),
            unit: "ratio",
            limit: "1.1 to 4",
            meets: |ratio| (1.1..=4.0).contains(&ratio),
        },
        Demand {
            what: "NewReno, 40 ms ÷ 160 ms",
            value: near_to_far(table, "newreno", "60000"),
            unit: "ratio",
            limit: "1.1 to 16",
            meets: |ratio| (1.1..=16.0).contains(&ratio),
        },
        Demand {
            what: "CUBIC's ratio ÷ NewReno's, 40 and 80 ms",
            value: less("20000"),
            unit: "ratio",
            limit: "< 1",
            meets: |ratio| ratio < 1.0,
        },
        Demand {
            what: "CUBIC's ratio ÷ NewReno's, 40 and 160 ms",
            value: less("60000"),
            unit: "ratio",
            limit: "< 1",
            meets: |ratio| ratio < 1.0,
        },
    ])
}

fn the_far_one_wins(table: &Table) -> Judgement {
    let demand = |what, delay| Demand {
        what,
        value: near_to_far(table, "bbr1", delay),
        unit: "ratio",
        limit: "< 1",
        meets: |ratio: f64| ratio < 1.0,
    };
    judge_all(&[
        demand("BBRv1, 40 ms ÷ 80 ms", "20000"),
        demand("BBRv1, 40 ms ÷ 160 ms", "60000"),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{experiments::scenarios::testing::table, record::Outcome};

    #[test]
    fn round_trips_decide_hold_and_fail() {
        let rows = |newreno_near: f64, bbr1_near: f64| {
            let of = |near: f64| {
                [
                    ("long_first_mbit_per_sec", near),
                    ("long_last_mbit_per_sec", 47.0 - near),
                ]
            };
            let all = [of(newreno_near), of(26.0), of(bbr1_near)];
            let mut rows = Vec::new();
            for (arm, row) in ["newreno", "cubic", "bbr1"].into_iter().zip(&all) {
                rows.extend(["20000", "60000"].map(|delay| (arm, delay, &row[..])));
            }
            table(HOST_DELAY.name, &rows)
        };
        assert_eq!(the_near_one_wins(&rows(33.0, 10.0)).outcome, Outcome::Holds);
        assert_eq!(the_near_one_wins(&rows(25.0, 10.0)).outcome, Outcome::Fails);
        assert_eq!(the_far_one_wins(&rows(33.0, 10.0)).outcome, Outcome::Holds);
        assert_eq!(the_far_one_wins(&rows(33.0, 30.0)).outcome, Outcome::Fails);
        let nothing = the_far_one_wins(&Table::default()).outcome;
        assert!(matches!(nothing, Outcome::NotMeasured { .. }));
    }

    #[test]
    fn independence_holds_and_fails() {
        let rows = |cubic_16: f64| {
            let of = |last: f64| [("long_last_mbit_per_sec", last), ("long_goodput_mbit_per_sec", 9.4)];
            let all = [4.0, cubic_16, 4.0, 3.5].map(of);
            table(
                "flows",
                &[
                    ("cubic", "1", &all[0]),
                    ("cubic", "16", &all[1]),
                    ("newreno", "1", &all[2]),
                    ("newreno", "16", &all[3]),
                ],
            )
        };
        assert_eq!(independent(&rows(3.8)).outcome, Outcome::Holds);
        assert_eq!(independent(&rows(0.6)).outcome, Outcome::Fails);
    }

    #[test]
    fn fairness_holds_fails_and_wants_every_row() {
        let rows = |bbr3: f64, last: &'static str| {
            let (good, own) = ([("fairness", 0.97)], [("fairness", bbr3)]);
            let mut rows = Vec::new();
            for arm in ["newreno", "cubic", "dctcp", "bbr1", "bbr3"] {
                for flows in ["2", "4", "8", last] {
                    let is_own = arm == "bbr3" && flows == "8";
                    rows.push((arm, flows, if is_own { &own[..] } else { &good[..] }));
                }
            }
            table("flows", &rows)
        };
        assert_eq!(fair(&rows(0.92, "16")).outcome, Outcome::Holds);
        assert_eq!(fair(&rows(0.6, "16")).outcome, Outcome::Fails);
        assert!(matches!(fair(&rows(0.92, "32")).outcome, Outcome::NotMeasured { .. }));
    }
}
