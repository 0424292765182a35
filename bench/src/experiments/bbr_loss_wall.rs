//! `bbr-loss-wall`: what random loss does to CUBIC, and up to which loss BBR does not mind.

use super::scenarios::{ARM, Demand, Scenario, judge_all, metric};
use crate::{
    claim::{Claim, Judgement, Source},
    experiment::{Allowed, Axis},
    table::Table,
};

const WORK: &str =
    "Cardwell, Cheng, Gunn, Yeganeh and Jacobson, BBR: Congestion-based congestion control, CACM 60(2), 2017";

const INVARIANT: &str = "Virtual time. Both directions lose at the same ratio; Linux's recovery with RACK, a queue of one bandwidth-delay \
                         product. Goodput is taken over the last four fifths of 60 s.";

/// The figure.
pub static WALL: Scenario = Scenario {
    id: "bbr-loss-wall",
    title: "BBR's wall of random loss",
    question: "How much random loss does a flow bear with CUBIC, and how much with BBR?",
    how: "One flow over 100 Mbit/s with a round trip of 100 ms. The wire loses packets at random, from one in a hundred thousand to \
          every second one.",
    axes: &[
        Axis {
            name: ARM,
            meaning: "the congestion controller",
            full: &["cubic", "bbr1", "bbr1-no-policers", "bbr3"],
            tour: &["cubic", "bbr1"],
            smallest: "bbr1",
            allowed: Allowed::Words,
        },
        Axis {
            name: "loss_ratio",
            meaning: "packets that the wire loses at random",
            full: &[
                "0.00001", "0.0001", "0.001", "0.01", "0.02", "0.05", "0.1", "0.15", "0.2", "0.25", "0.3", "0.5",
            ],
            tour: &["0.001"],
            smallest: "0.01",
            allowed: Allowed::Number(0.000_001, 0.9),
        },
    ],
    claims: &[
        Claim {
            id: "cubic-loss",
            sentence: "CUBIC falls to a tenth of its goodput at 0.1 % of loss and to about nothing at 1 %",
            source: Source::Published {
                work: WORK,
                place: "figure 8 and its text; about nothing is less than 5 %, which is ours",
            },
            invariant: INVARIANT,
            judge: cubic,
        },
        Claim {
            id: "bbr-loss-plateau",
            sentence: "BBRv1 keeps the link full, as far as it delivers, up to 5 % of random loss",
            source: Source::Published {
                work: WORK,
                place: "figure 8 and its text; full is 90 % of what the wire delivers, which is ours",
            },
            invariant: INVARIANT,
            judge: plateau,
        },
        Claim {
            id: "bbr-loss-wall",
            sentence: "BBRv1 bears 15 % of random loss and falls off beyond 20 %, where a probe of 1.25 no longer finds more: 1.25 (1 − p) < 1",
            source: Source::Published {
                work: WORK,
                place: "figure 8, and the authors' analysis on bbr-dev; half of the wire at 15 % and a tenth at 25 % are ours",
            },
            invariant: INVARIANT,
            judge: wall,
        },
    ],
    tour_weight: 0.0,
    own: None,
};

/// 1,448 of 1,538 bytes are payload: 12 of time stamps, 14 of Ethernet, 40 of TCP/IP, 24 between frames.
const WIRE_MBIT_PER_SEC: f64 = 100.0 * 1_448.0 / 1_538.0;

fn goodput(table: &Table, arm: &str, loss: &str) -> Option<f64> {
    metric(table, arm, ("loss_ratio", loss), "long_goodput_mbit_per_sec")
}

/// Of what the wire delivers at that loss.
fn share(table: &Table, loss: &str) -> Option<f64> {
    let delivered = |loss: f64| WIRE_MBIT_PER_SEC * (1.0 - loss);
    goodput(table, "bbr1", loss)
        .zip(loss.parse().ok())
        .map(|(goodput, loss)| goodput / delivered(loss))
}

pub(super) fn cubic(table: &Table) -> Judgement {
    let left = |loss| {
        let most = goodput(table, "cubic", "0.00001");
        goodput(table, "cubic", loss).zip(most).map(|(left, most)| left / most)
    };
    judge_all(&[
        Demand {
            what: "CUBIC at 0.1 %, of its goodput at 0.001 %",
            value: left("0.001"),
            unit: "ratio",
            limit: "≤ 0.1",
            meets: |ratio| ratio <= 0.1,
        },
        Demand {
            what: "CUBIC at 1 %, of its goodput at 0.001 %",
            value: left("0.01"),
            unit: "ratio",
            limit: "≤ 0.05",
            meets: |ratio| ratio <= 0.05,
        },
    ])
}

pub(super) fn plateau(table: &Table) -> Judgement {
    let demand = |what, loss| Demand {
        what,
        value: share(table, loss),
        unit: "ratio",
        limit: "≥ 0.9",
        meets: |ratio: f64| ratio >= 0.9,
    };
    judge_all(&[
        demand("BBRv1 at 0.1 %, of what the wire delivers", "0.001"),
        demand("BBRv1 at 1 %, of what the wire delivers", "0.01"),
        demand("BBRv1 at 5 %, of what the wire delivers", "0.05"),
    ])
}

pub(super) fn wall(table: &Table) -> Judgement {
    judge_all(&[
        Demand {
            what: "BBRv1 at 15 %, of what the wire delivers",
            value: share(table, "0.15"),
            unit: "ratio",
            limit: "≥ 0.5",
            meets: |ratio| ratio >= 0.5,
        },
        Demand {
            what: "BBRv1 at 25 %, of what the wire delivers",
            value: share(table, "0.25"),
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
    fn each_claim_holds_and_fails() {
        let rows = |cubic: f64, five: f64, beyond: f64| {
            let of = |goodput: f64| [("long_goodput_mbit_per_sec", goodput)];
            let all = [94.0, cubic, 0.5, 94.0, 92.0, five, 60.0, beyond].map(of);
            table(
                "loss_ratio",
                &[
                    ("cubic", "0.00001", &all[0]),
                    ("cubic", "0.001", &all[1]),
                    ("cubic", "0.01", &all[2]),
                    ("bbr1", "0.001", &all[3]),
                    ("bbr1", "0.01", &all[4]),
                    ("bbr1", "0.05", &all[5]),
                    ("bbr1", "0.15", &all[6]),
                    ("bbr1", "0.25", &all[7]),
                ],
            )
        };
        let good = rows(5.0, 88.0, 3.0);
        for judge in [cubic, plateau, wall] {
            assert_eq!(judge(&good).outcome, Outcome::Holds);
        }
        assert_eq!(cubic(&rows(20.0, 88.0, 3.0)).outcome, Outcome::Fails);
        assert_eq!(plateau(&rows(5.0, 60.0, 3.0)).outcome, Outcome::Fails);
        assert_eq!(wall(&rows(5.0, 88.0, 30.0)).outcome, Outcome::Fails);
    }
}
