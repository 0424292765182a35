//! `cc-quinn` and `cc-quinn-two`: controllers of quinn, a QUIC that people use, beside ours over the same link.

use super::scenarios::{ARM, Demand, Scenario, judge_all, metric};
use crate::{
    claim::{Claim, Judgement, Source},
    experiment::{Allowed, Axis},
    table::Table,
};

const INVARIANT: &str = "Virtual time. quinn-proto's own code at both ends of quinn's flows, Linux's recovery (RACK, SACK) at those of ours; \
    both directions lose at the same ratio. Decided by the figures of the rows, without an interval.";

const SEEN: &str = "nobody seems to have laid the two beside each other; bounds are ours";

const ARMS: Axis = Axis {
    name: ARM,
    meaning: "the congestion controller, ours or quinn's",
    full: &["cubic", "quinn-cubic", "newreno", "quinn-newreno"],
    tour: &["cubic", "quinn-cubic"],
    smallest: "cubic",
    allowed: Allowed::Words,
};

const LOSS: Axis = Axis {
    name: "loss_ratio",
    meaning: "packets that vanish on the link between the switches",
    full: &["0", "0.001", "0.01"],
    tour: &["0"],
    smallest: "0.01",
    allowed: Allowed::Number(0.0, 0.9),
};

/// One flow.
pub static ONE: Scenario = Scenario {
    id: "cc-quinn",
    title: "quinn beside our TCP",
    question: "Does the CUBIC of a QUIC that people use do what ours does on the same link?",
    how: "One endless flow over 100 Mbit/s with an empty round trip of 40 ms and a buffer of one bandwidth-delay product: of our TCP, or of \
          quinn-proto's endpoints, which run unchanged in virtual time. Goodput and round trips are taken after a fifth of 100 s.",
    axes: &[ARMS, LOSS],
    claims: &[
        Claim {
            id: "quinn-full-link",
            sentence: "On a link that loses nothing quinn's CUBIC gets the goodput of ours, within 5 %, under the same round trips, within 25 %",
            source: Source::Ours { seen: SEEN },
            invariant: INVARIANT,
            judge: full,
        },
        Claim {
            id: "quinn-random-loss",
            sentence: "Under random loss of 0.1 % and 1 % quinn's CUBIC gets between half and twice the goodput of ours",
            source: Source::Ours { seen: SEEN },
            invariant: INVARIANT,
            judge: lossy,
        },
    ],
    tour_weight: 0.0,
    own: None,
};

/// Two flows.
pub static TWO: Scenario = Scenario {
    id: "cc-quinn-two",
    title: "Two flows of quinn, two of ours",
    question: "Do two flows of quinn share a link as two of ours do?",
    how: "As cc-quinn, with two equal flows that begin a second apart. Jain's index is that of the goodputs of the last 80 of 100 s.",
    axes: &[ARMS, LOSS],
    claims: &[Claim {
        id: "quinn-shares",
        sentence: "Two flows of quinn's CUBIC share a link: Jain's index is 0.9 or more over 80 s, with random loss of 0, 0.1 % and 1 %",
        source: Source::Published {
            work: "RFC 9743, Specifying New Congestion Control Algorithms, 2025",
            place: "which asks the question and gives no bound; 0.9 is ours",
        },
        invariant: INVARIANT,
        judge: shares,
    }],
    tour_weight: 0.0,
    own: None,
};

fn not_built() -> Option<Judgement> {
    (!cfg!(feature = "quinn")).then(|| {
        Judgement::not_measured(
            "this dplab was built without quinn: build it with --features quinn, which needs a C compiler",
        )
    })
}

/// quinn's figure in units of ours.
fn ratio(table: &Table, loss: &str, name: &str) -> Option<f64> {
    let of = |arm| metric(table, arm, (LOSS.name, loss), name);
    of("quinn-cubic").zip(of("cubic")).map(|(quinn, own)| quinn / own)
}

fn full(table: &Table) -> Judgement {
    not_built().unwrap_or_else(|| decide_full(table))
}

fn decide_full(table: &Table) -> Judgement {
    judge_all(&[
        Demand {
            what: "goodput without loss, quinn's ÷ ours",
            value: ratio(table, "0", "long_goodput_mbit_per_sec"),
            unit: "ratio",
            limit: "0.95 to 1.05",
            meets: |ratio| (0.95..=1.05).contains(&ratio),
        },
        Demand {
            what: "median round trip under load, quinn's ÷ ours",
            value: ratio(table, "0", "long_rtt_ms_p50"),
            unit: "ratio",
            limit: "0.8 to 1.25",
            meets: |ratio| (0.8..=1.25).contains(&ratio),
        },
    ])
}

fn lossy(table: &Table) -> Judgement {
    not_built().unwrap_or_else(|| decide_lossy(table))
}

fn decide_lossy(table: &Table) -> Judgement {
    let demand = |what, loss| Demand {
        what,
        value: ratio(table, loss, "long_goodput_mbit_per_sec"),
        unit: "ratio",
        limit: "0.5 to 2",
        meets: |ratio: f64| (0.5..=2.0).contains(&ratio),
    };
    judge_all(&[
        demand("goodput at 0.1 % of loss, quinn's ÷ ours", "0.001"),
        demand("goodput at 1 % of loss, quinn's ÷ ours", "0.01"),
    ])
}

fn shares(table: &Table) -> Judgement {
    not_built().unwrap_or_else(|| decide_shares(table))
}

fn decide_shares(table: &Table) -> Judgement {
    let demand = |what, loss| Demand {
        what,
        value: metric(table, "quinn-cubic", (LOSS.name, loss), "fairness"),
        unit: "ratio",
        limit: "≥ 0.9",
        meets: |index: f64| index >= 0.9,
    };
    judge_all(&[
        demand("Jain's index of two flows of quinn's CUBIC without loss", "0"),
        demand("at 0.1 % of loss", "0.001"),
        demand("at 1 % of loss", "0.01"),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{experiments::scenarios::testing::table, record::Outcome};

    #[test]
    fn each_claim_holds_fails_and_wants_its_rows() {
        let rows = |goodput: f64, rtt: f64, fairness: f64| {
            let own = [
                ("long_goodput_mbit_per_sec", 90.0),
                ("long_rtt_ms_p50", 70.0),
                ("fairness", 0.99),
            ];
            let quinn = [
                ("long_goodput_mbit_per_sec", goodput),
                ("long_rtt_ms_p50", rtt),
                ("fairness", fairness),
            ];
            let mut rows = Vec::new();
            for loss in ["0", "0.001", "0.01"] {
                rows.push(("cubic", loss, &own[..]));
                rows.push(("quinn-cubic", loss, &quinn[..]));
            }
            table("loss_ratio", &rows)
        };
        let good = rows(89.0, 72.0, 0.95);
        for judge in [decide_full, decide_lossy, decide_shares] {
            assert_eq!(judge(&good).outcome, Outcome::Holds);
            assert!(matches!(
                judge(&table("loss_ratio", &[])).outcome,
                Outcome::NotMeasured { .. }
            ));
        }
        assert_eq!(decide_full(&rows(80.0, 72.0, 1.0)).outcome, Outcome::Fails);
        assert_eq!(decide_full(&rows(90.0, 40.0, 1.0)).outcome, Outcome::Fails);
        assert_eq!(decide_lossy(&rows(40.0, 72.0, 1.0)).outcome, Outcome::Fails);
        assert_eq!(decide_shares(&rows(90.0, 72.0, 0.6)).outcome, Outcome::Fails);
    }

    #[cfg(not(feature = "quinn"))]
    #[test]
    fn a_build_without_quinn_says_so() {
        let Outcome::NotMeasured { why } = full(&table("loss_ratio", &[])).outcome else {
            panic!("judged without quinn");
        };
        assert!(why.contains("--features quinn"), "{why}");
    }
}
