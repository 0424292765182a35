//! `dctcp-marking-threshold` and `cc-mathis`: controllers against the equations of their papers.

use super::scenarios::{Demand, Scenario, judge_all, metric};
use crate::{
    claim::{Claim, Judgement, Source},
    experiment::{Allowed, Axis},
    table::Table,
};

/// DCTCP's K.
pub static MARKING: Scenario = Scenario {
    id: "dctcp-marking-threshold",
    title: "DCTCP's marking threshold",
    question: "How low may the threshold be at which a switch marks, before a link is no longer full?",
    how: "Two DCTCP flows share a link of 10 Gbit/s with an empty round trip of about 100 µs, some 81 full frames. The threshold K \
          is varied around C × RTT / 7. Goodput and queue are taken after a fifth of the run.",
    axes: &[Axis {
        name: "mark_at_packets",
        meaning: "packets in the queue beyond which an arrival is marked",
        full: &["1", "2", "4", "8", "12", "16", "20", "30", "40", "65"],
        tour: &["2", "16"],
        smallest: "16",
        allowed: Allowed::Number(0.0, 100_000.0),
    }],
    claims: &[Claim {
        id: "dctcp-marking-threshold",
        sentence: "K > C × RTT / 7 suffices for full throughput, and the queue is at most K + N packets",
        source: Source::Published {
            work: "Alizadeh et al., Data center TCP (DCTCP), SIGCOMM 2010",
            place: "sections 3.3 and 3.4, equation 13",
        },
        invariant: "Virtual time. N = 2 flows, an acknowledgement for each segment. C × RTT / 7 is 12 packets here, so the claim is \
                    judged at the least K above it, 16. Full is 99 % of what the wire carries; the queue's bound is judged at its 99th \
                    percentile of samples.",
        judge: marking,
    }],
    tour_weight: 0.0,
    own: None,
};

/// 1,448 of 1,526 bytes on the wire are payload: no timestamps, 14 of Ethernet, 40 of TCP/IP, 24 between frames.
const WIRE_MBIT_PER_SEC: f64 = 10_000.0 * 1_448.0 / 1_526.0;
const FLOWS_COUNT: f64 = 2.0;

fn marking(table: &Table) -> Judgement {
    let at = |k: &str, name: &str| metric(table, "", ("mark_at_packets", k), name);
    let full = at("16", "long_goodput_mbit_per_sec").map(|goodput| goodput / WIRE_MBIT_PER_SEC);
    let starved = at("1", "long_goodput_mbit_per_sec").map(|goodput| goodput / WIRE_MBIT_PER_SEC);
    let beyond =
        |k: &str| at(k, "queue_packets_p99").map(|packets| packets - k.parse::<f64>().unwrap_or(0.0) - FLOWS_COUNT);
    judge_all(&[
        Demand {
            what: "share of the link at K = 16",
            value: full,
            unit: "ratio",
            limit: "≥ 0.99",
            meets: |share| share >= 0.99,
        },
        Demand {
            what: "share of the link at K = 1 (no bound: the other side)",
            value: starved,
            unit: "ratio",
            limit: "any",
            meets: |_| true,
        },
        Demand {
            what: "queue beyond K + N at K = 16, 99th percentile",
            value: beyond("16"),
            unit: "packets",
            limit: "≤ 0",
            meets: |packets| packets <= 0.0,
        },
        Demand {
            what: "queue beyond K + N at K = 65, 99th percentile",
            value: beyond("65"),
            unit: "packets",
            limit: "≤ 0",
            meets: |packets| packets <= 0.0,
        },
    ])
}

/// Reno's law.
pub static MATHIS: Scenario = Scenario {
    id: "cc-mathis",
    title: "Reno under random loss",
    question: "Does the rate of a Reno flow follow from the loss ratio, as 1 over its square root?",
    how: "One NewReno flow with SACK and an acknowledgement for each segment, a round trip of 20 ms, a link of 1 Gbit/s that loses \
          packets at random. Goodput is taken after a fifth of 400 s and held against MSS ÷ RTT × √(3/2) ÷ √p.",
    axes: &[Axis {
        name: "loss_ratio",
        meaning: "packets that the wire loses at random",
        full: &["0.0001", "0.0003", "0.001", "0.003", "0.01"],
        tour: &["0.001"],
        smallest: "0.01",
        allowed: Allowed::Number(0.000_01, 0.5),
    }],
    claims: &[Claim {
        id: "cc-mathis",
        sentence: "A Reno flow's goodput is MSS ÷ RTT × √(3/2) ÷ √p, to within 20 %",
        source: Source::Published {
            work: "Mathis, Semke, Mahdavi and Ott, The macroscopic behavior of the TCP congestion avoidance algorithm, CCR 27(3), 1997",
            place: "equation 3; the constant is that of periodic loss and an acknowledgement for each segment; 20 % is ours",
        },
        invariant: "Virtual time. Losses are drawn for each packet; the queue never fills. Judged at loss ratios of 0.0001, 0.001 and \
                    0.01.",
        judge: mathis,
    }],
    tour_weight: 0.0,
    own: None,
};

/// What the law says for the scenario's flow.
fn mathis_mbit_per_sec(loss_ratio: f64) -> f64 {
    // Two cables of 1 µs and one of 10 ms each way.
    const RTT_S: f64 = 0.020_004;
    const MSS_BITS: f64 = 1_448.0 * 8.0;
    MSS_BITS / RTT_S * 1.5_f64.sqrt() / loss_ratio.sqrt() / 1e6
}

fn mathis(table: &Table) -> Judgement {
    mathis_at(table, &["0.0001", "0.001", "0.01"])
}

/// The law at these of 0.0001, 0.001, 0.003 and 0.01.
pub(super) fn mathis_at(table: &Table, losses: &[&str]) -> Judgement {
    let of = |loss: &str| {
        let goodput = metric(table, "", ("loss_ratio", loss), "long_goodput_mbit_per_sec");
        goodput
            .zip(loss.parse().ok())
            .map(|(goodput, loss)| goodput / mathis_mbit_per_sec(loss))
    };
    let demand = |what, loss| Demand {
        what,
        value: of(loss),
        unit: "ratio",
        limit: "0.8 to 1.2",
        meets: |ratio| (0.8..=1.2).contains(&ratio),
    };
    const NAMES: [(&str, &str); 4] = [
        ("goodput ÷ the law, loss ratio 0.0001", "0.0001"),
        ("goodput ÷ the law, loss ratio 0.001", "0.001"),
        ("goodput ÷ the law, loss ratio 0.003", "0.003"),
        ("goodput ÷ the law, loss ratio 0.01", "0.01"),
    ];
    let wanted = NAMES.into_iter().filter(|(_, loss)| losses.contains(loss));
    judge_all(&wanted.map(|(what, loss)| demand(what, loss)).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{experiments::scenarios::testing::table, record::Outcome};

    #[test]
    fn the_threshold_holds_and_fails() {
        let rows = |at_16: f64, queue: f64| {
            table(
                "mark_at_packets",
                &[
                    ("", "1", &[("long_goodput_mbit_per_sec", 8_000.0)]),
                    (
                        "",
                        "16",
                        &[("long_goodput_mbit_per_sec", at_16), ("queue_packets_p99", queue)],
                    ),
                    ("", "65", &[("queue_packets_p99", 60.0)]),
                ],
            )
        };
        assert_eq!(marking(&rows(9_480.0, 18.0)).outcome, Outcome::Holds);
        assert_eq!(marking(&rows(9_000.0, 18.0)).outcome, Outcome::Fails);
        assert_eq!(marking(&rows(9_480.0, 19.0)).outcome, Outcome::Fails);
    }

    #[test]
    fn the_law_holds_and_fails() {
        // 1,448 B in 20 ms at 1 %: 7.09 Mbit/s.
        assert!((mathis_mbit_per_sec(0.01) - 7.09).abs() < 0.01);
        let rows = |off: f64| {
            let of = |loss: f64| [("long_goodput_mbit_per_sec", off * mathis_mbit_per_sec(loss))];
            let all = [of(0.0001), of(0.001), of(0.01)];
            table(
                "loss_ratio",
                &[
                    ("", "0.0001", &all[0][..]),
                    ("", "0.001", &all[1][..]),
                    ("", "0.01", &all[2][..]),
                ],
            )
        };
        assert_eq!(mathis(&rows(1.1)).outcome, Outcome::Holds);
        assert_eq!(mathis(&rows(0.7)).outcome, Outcome::Fails);
    }
}
