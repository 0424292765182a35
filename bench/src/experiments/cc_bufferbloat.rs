//! `cc-bufferbloat`: how much of a buffer a flow fills, by its controller.

use super::scenarios::{ARM, Demand, Scenario, judge_all, metric};
use crate::{
    claim::{Claim, Judgement, Source},
    experiment::{Allowed, Axis},
    table::Table,
};

/// One flow, buffers of one to sixteen bandwidth-delay products.
pub static BUFFERBLOAT: Scenario = Scenario {
    id: "cc-bufferbloat",
    title: "Who fills the buffer",
    question: "How long is the queue that one flow keeps, when the buffer is larger than it needs?",
    how: "One flow over 10 Mbit/s with an empty round trip of 40 ms: 33 full frames. The buffer holds 1 to 16 times as many. The queue is \
          sampled after a fifth of 60 s.",
    axes: &[
        Axis {
            name: ARM,
            meaning: "the congestion controller",
            full: &["newreno", "cubic", "bbr1", "bbr3"],
            tour: &["cubic", "bbr1"],
            smallest: "cubic",
            allowed: Allowed::Words,
        },
        Axis {
            name: "limit_packets",
            meaning: "packets that the buffer holds",
            full: &["33", "66", "132", "264", "528"],
            tour: &["264"],
            smallest: "33",
            allowed: Allowed::Number(1.0, 100_000.0),
        },
    ],
    claims: &[Claim {
        id: "cc-bufferbloat",
        sentence: "Loss-based controllers fill the buffer, however large; BBR's queue stays within one bandwidth-delay product",
        source: Source::Published {
            work: "Cardwell, Cheng, Gunn, Yeganeh and Jacobson, BBR: Congestion-based congestion control, CACM 60(2), 2017",
            place: "introduction; that BBR holds one bandwidth-delay product is of its design, that a median of half the buffer is full is ours",
        },
        invariant: "Virtual time, drop-tail, one flow. The loss-based ones are judged by the queue's median, BBR by its 99th percentile, both \
                    before 16 bandwidth-delay products (528 packets) and before 4 (132).",
        judge: bufferbloat,
    }],
    tour_weight: 0.0,
    own: None,
};

/// 10 Mbit/s times 40 ms over 1,538 bytes of wire for each full frame is 32.5.
const BDP_PACKETS: f64 = 33.0;

fn bufferbloat(table: &Table) -> Judgement {
    let at = |arm: &str, limit: &str, name: &str| metric(table, arm, ("limit_packets", limit), name);
    let filled = |arm: &str, limit: &str| {
        at(arm, limit, "queue_packets_p50")
            .zip(limit.parse::<f64>().ok())
            .map(|(queue, limit)| queue / limit)
    };
    let fills = |what, arm, limit| Demand {
        what,
        value: filled(arm, limit),
        unit: "ratio",
        limit: "≥ 0.5",
        meets: |ratio: f64| ratio >= 0.5,
    };
    let holds = |what, limit| Demand {
        what,
        value: at("bbr1", limit, "queue_packets_p99").map(|packets| packets / BDP_PACKETS),
        unit: "bandwidth-delay products",
        limit: "≤ 1",
        meets: |ratio: f64| ratio <= 1.0,
    };
    judge_all(&[
        fills("part of 132 packets that CUBIC fills", "cubic", "132"),
        fills("part of 528 packets that CUBIC fills", "cubic", "528"),
        fills("part of 132 packets that NewReno fills", "newreno", "132"),
        fills("part of 528 packets that NewReno fills", "newreno", "528"),
        holds("BBRv1's queue before 132 packets", "132"),
        holds("BBRv1's queue before 528 packets", "528"),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{experiments::scenarios::testing::table, record::Outcome};

    #[test]
    fn the_claim_holds_and_fails() {
        let rows = |reno: f64, bbr: f64| {
            let of = |queue: f64| [("queue_packets_p50", queue), ("queue_packets_p99", queue)];
            let all = [100.0, 470.0, 90.0, reno, 8.0, bbr].map(of);
            table(
                "limit_packets",
                &[
                    ("cubic", "132", &all[0]),
                    ("cubic", "528", &all[1]),
                    ("newreno", "132", &all[2]),
                    ("newreno", "528", &all[3]),
                    ("bbr1", "132", &all[4]),
                    ("bbr1", "528", &all[5]),
                ],
            )
        };
        assert_eq!(bufferbloat(&rows(280.0, 8.0)).outcome, Outcome::Holds);
        assert_eq!(bufferbloat(&rows(200.0, 8.0)).outcome, Outcome::Fails);
        assert_eq!(bufferbloat(&rows(280.0, 60.0)).outcome, Outcome::Fails);
    }
}
