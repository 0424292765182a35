//! `incast-swift-5000`: five thousand flows into one host, with and without windows of less than a packet.

use super::scenarios::{ARM, Demand, Scenario, judge_all, metric};
use crate::{
    claim::{Claim, Judgement, Source},
    experiment::{Allowed, Axis},
    table::Table,
};

const WORK: &str =
    "Kumar et al., Swift: delay is simple and effective for congestion control in the datacenter, SIGCOMM 2020";

const VIRTUAL: &str = "Virtual time: a row follows from the seed alone. Decided by the figures of the rows, without an interval. Figures \
                       are of the last four fifths of a second; the round trip is the mean of the flows' smoothed ones at its end.";

const WITHOUT: &str = "at-least-one";
const WITH: &str = "fractions";

/// Table 3.
pub static SWIFT_5000: Scenario = Scenario {
    id: "incast-swift-5000",
    title: "Swift, 5000 flows into one host",
    question: "What do windows of less than a packet do for 5,000 flows into one host?",
    how: "A hundred endless flows from each of 50 hosts to one, at 50 Gbit/s, in packets of 4 KB. Swift's window may be a fraction of a \
          packet, which then leaves after a pause of the round trip over the window; or it may not. Settings that the paper does not give \
          are said in the scenario file, with arms that differ in them.",
    axes: &[Axis {
        name: ARM,
        meaning: "the least window, timers, and the increase for each acknowledgement",
        full: &[
            WITHOUT,
            "at-least-one-rto-10ms",
            "at-least-one-rto-100ms",
            "at-least-one-rto-max-4ms",
            WITH,
            "fractions-increase-0.01",
        ],
        tour: &[WITHOUT, WITH],
        smallest: WITH,
        allowed: Allowed::Words,
    }],
    claims: &[
        Claim {
            id: "incast-swift-5000",
            sentence: "Windows of less than a packet bring 5,000 flows into one host from 8.7 Gbit/s, 28.7 % loss and 2,027 µs to 49.5 Gbit/s, \
                       0.0003 % and 110 µs",
            source: Source::Published {
                work: WORK,
                place: "table 3; within a factor of two is ours",
            },
            invariant: VIRTUAL,
            judge: both_columns,
        },
        Claim {
            id: "incast-swift-5000-queue",
            sentence: "With windows of less than a packet 5,000 flows fill the link without loss at a tenth of the round trip that they have \
                       without",
            source: Source::Published {
                work: WORK,
                place: "table 3: 110.2 of 2027.4 µs; a tenth is ours",
            },
            invariant: VIRTUAL,
            judge: a_tenth,
        },
    ],
    tour_weight: 0.0,
    own: None,
};

const GOODPUT: &str = "long_goodput_mbit_per_sec";
const LOSS: &str = "long_loss_percent";
const RTT: &str = "rtt_us_mean";

fn of(table: &Table, arm: &str, name: &str) -> Option<f64> {
    metric(table, arm, ("", ""), name)
}

fn with_fractions(table: &Table) -> [Demand<'static>; 2] {
    [
        Demand {
            what: "with fractions, goodput",
            value: of(table, WITH, GOODPUT),
            unit: "Mbit/s",
            limit: "≥ 45000, nine tenths of the link",
            meets: |rate| rate >= 45_000.0,
        },
        Demand {
            what: "with fractions, loss",
            value: of(table, WITH, LOSS),
            unit: "%",
            limit: "≤ 0.0006",
            meets: |percent| percent <= 0.000_6,
        },
    ]
}

fn both_columns(table: &Table) -> Judgement {
    let [goodput, loss] = with_fractions(table);
    judge_all(&[
        Demand {
            what: "without, goodput",
            value: of(table, WITHOUT, GOODPUT),
            unit: "Mbit/s",
            limit: "4350 to 17400",
            meets: |rate| (4_350.0..=17_400.0).contains(&rate),
        },
        Demand {
            what: "without, loss",
            value: of(table, WITHOUT, LOSS),
            unit: "%",
            limit: "14.35 to 57.4",
            meets: |percent| (14.35..=57.4).contains(&percent),
        },
        goodput,
        loss,
        Demand {
            what: "with fractions, round trip",
            value: of(table, WITH, RTT),
            unit: "µs",
            limit: "55.1 to 220.4",
            meets: |us| (55.1..=220.4).contains(&us),
        },
    ])
}

fn a_tenth(table: &Table) -> Judgement {
    let [goodput, loss] = with_fractions(table);
    let ratio = of(table, WITH, RTT)
        .zip(of(table, WITHOUT, RTT))
        .map(|(with, without)| with / without);
    judge_all(&[
        goodput,
        loss,
        Demand {
            what: "round trip with ÷ without fractions",
            value: ratio,
            unit: "ratio",
            limit: "≤ 0.1",
            meets: |ratio| ratio <= 0.1,
        },
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{experiments::scenarios::testing::table, record::Outcome};

    #[test]
    fn the_table_holds_fails_and_is_not_measured() {
        let rows = |goodput_without: f64, rtt_with: f64| {
            table(
                "",
                &[
                    (WITHOUT, "", &[(GOODPUT, goodput_without), (LOSS, 28.0), (RTT, 2_000.0)]),
                    (WITH, "", &[(GOODPUT, 49_000.0), (LOSS, 0.0), (RTT, rtt_with)]),
                ],
            )
        };
        assert_eq!(both_columns(&rows(8_700.0, 110.0)).outcome, Outcome::Holds);
        assert_eq!(both_columns(&rows(49_000.0, 110.0)).outcome, Outcome::Fails);
        assert_eq!(a_tenth(&rows(49_000.0, 110.0)).outcome, Outcome::Holds);
        assert_eq!(a_tenth(&rows(49_000.0, 500.0)).outcome, Outcome::Fails);
        assert!(matches!(
            a_tenth(&Table::default()).outcome,
            Outcome::NotMeasured { .. }
        ));
    }
}
