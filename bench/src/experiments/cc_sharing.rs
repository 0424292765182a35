//! `cc-bbr-vs-lossbased` and `cc-fairness`: who gets how much of one bottleneck.

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

fn independent(table: &Table) -> Judgement {
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
    let least = |arm: &str| {
        let of = |flows| metric(table, arm, ("flows", flows), "fairness");
        ["2", "4", "8", "16"]
            .into_iter()
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
    judge_all(&[
        demand("least index, NewReno", "newreno"),
        demand("least index, CUBIC", "cubic"),
        demand("least index, DCTCP", "dctcp"),
        demand("least index, BBRv1", "bbr1"),
        demand("least index, BBRv3", "bbr3"),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{experiments::scenarios::testing::table, record::Outcome};

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
