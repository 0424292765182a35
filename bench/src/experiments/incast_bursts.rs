//! `incast-meta-bursts` and `incast-buffer-pressure`: DCTCP with more flows than its window can shrink for, and an incast whose
//! buffer others use.

use super::scenarios::{ARM, Demand, Scenario, judge_all, metric};
use crate::{
    claim::{Claim, Judgement, Source},
    experiment::{Allowed, Axis},
    table::Table,
};

const VIRTUAL: &str =
    "Virtual time: a row follows from the seed alone. Decided by the figures of the rows, without an interval.";

const fn arms(meaning: &'static str, full: &'static [&'static str]) -> Axis {
    Axis {
        name: ARM,
        meaning,
        full,
        tour: full,
        smallest: full[0],
        allowed: Allowed::Words,
    }
}

/// Canel et al.
pub static META_BURSTS: Scenario = Scenario {
    id: "incast-meta-bursts",
    title: "Bursts of hundreds of DCTCP flows",
    question: "What is left in the queue when hundreds of DCTCP flows cannot shrink any further?",
    how: "Eleven bursts from 100 to 1,000 hosts to one, behind an uplink ten times as fast as its link; together each burst takes 15 ms or 2 ms \
          of that. Connections last, with the windows that the burst before left. The queue is looked at while a burst is under way.",
    axes: &[
        arms(
            "how long a burst takes at best, and the least window: one segment, or Linux's two",
            &["15-ms", "2-ms", "15-ms-least-two"],
        ),
        Axis {
            name: "servers",
            meaning: "flows of a burst, each from a host of its own",
            full: &["100", "500", "1000"],
            tour: &["100"],
            smallest: "100",
            allowed: Allowed::Number(1.0, 1_000.0),
        },
    ],
    claims: &[Claim {
        id: "incast-meta-bursts",
        sentence: "DCTCP cannot shrink below a segment: bursts of 500 and 1,000 flows leave a packet of each in the queue, many times its \
                   mark, or overflow it",
        source: Source::Published {
            work: "Canel et al., Understanding incast bursts in modern datacenters, IMC 2024",
            place: "section 4, as others quote it; to within a tenth is ours",
        },
        invariant: VIRTUAL,
        judge: a_packet_each,
    }],
    tour_weight: 0.0,
    own: None,
};

fn burst(table: &Table, arm: &str, servers: &str, name: &str) -> Option<f64> {
    metric(table, arm, ("servers", servers), name)
}

fn a_packet_each(table: &Table) -> Judgement {
    let queue = |servers, name| burst(table, "15-ms", servers, name);
    judge_all(&[
        Demand {
            what: "median queue, bursts of 100",
            value: queue("100", "queue_packets_p50"),
            unit: "packets",
            limit: "50 to 130: about its mark of 65",
            meets: |packets| (50.0..=130.0).contains(&packets),
        },
        Demand {
            what: "99th percentile of the queue, bursts of 500",
            value: queue("500", "queue_packets_p99"),
            unit: "packets",
            limit: "450 to 550: one of each flow",
            meets: |packets| (450.0..=550.0).contains(&packets),
        },
        Demand {
            what: "the same, bursts of 1000",
            value: queue("1000", "queue_packets_p99"),
            unit: "packets",
            limit: "900 to 1100: one of each flow",
            meets: |packets| (900.0..=1_100.0).contains(&packets),
        },
        Demand {
            what: "bursts of 1000 with a timeout, if a window is two segments at least",
            value: burst(table, "15-ms-least-two", "1000", "timeout_queries_percent"),
            unit: "%",
            limit: "≥ 50: 2,000 packets do not fit",
            meets: |percent| percent >= 50.0,
        },
    ])
}

/// Table 2.
pub static BUFFER_PRESSURE: Scenario = Scenario {
    id: "incast-buffer-pressure",
    title: "Incast beside long flows at other ports",
    question: "What do long flows between other hosts do to an incast with which they share nothing but the switch's memory?",
    how: "Ten hosts answer one with 1 MB together, a thousand times; 33 other hosts of the switch have two long flows each to others of \
          them, or none. The switch shares 4 MB.",
    axes: &[arms(
        "whose TCP, and whether there are long flows",
        &["tcp", "tcp-background", "dctcp", "dctcp-background"],
    )],
    claims: &[Claim {
        id: "incast-buffer-pressure",
        sentence: "66 long flows at other ports take the 95th percentile of a 10:1 incast from 9.87 to 46.94 ms with TCP, and leave it at 9.1 ms \
                   with DCTCP",
        source: Source::Published {
            work: "Alizadeh et al., Data center TCP (DCTCP), SIGCOMM 2010",
            place: "table 2 and section 4.2.4; within a factor of two is ours",
        },
        invariant: VIRTUAL,
        judge: pressure,
    }],
    tour_weight: 0.0,
    own: None,
};

fn pressure(table: &Table) -> Judgement {
    let p95 = |arm: &str| metric(table, arm, ("", ""), "query_ms_p95");
    let grows = |by: &str| {
        p95(&format!("{by}-background"))
            .zip(p95(by))
            .map(|(with, without)| with / without)
    };
    judge_all(&[
        Demand {
            what: "TCP, without long flows",
            value: p95("tcp"),
            unit: "ms",
            limit: "4.9 to 19.7",
            meets: |ms| (4.9..=19.7).contains(&ms),
        },
        Demand {
            what: "TCP, with ÷ without long flows",
            value: grows("tcp"),
            unit: "ratio",
            limit: "≥ 2.38, half of the paper's",
            meets: |ratio| ratio >= 2.38,
        },
        Demand {
            what: "DCTCP, without long flows",
            value: p95("dctcp"),
            unit: "ms",
            limit: "4.6 to 18.3",
            meets: |ms| (4.6..=18.3).contains(&ms),
        },
        Demand {
            what: "DCTCP, with ÷ without long flows",
            value: grows("dctcp"),
            unit: "ratio",
            limit: "0.9 to 1.1",
            meets: |ratio| (0.9..=1.1).contains(&ratio),
        },
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{experiments::scenarios::testing::table, record::Outcome};

    #[test]
    fn bursts_hold_fail_and_are_not_measured() {
        let rows = |of_500: f64| {
            let depths = |p50: f64, p99: f64| [("queue_packets_p50", p50), ("queue_packets_p99", p99)];
            let all = [depths(70.0, 110.0), depths(400.0, of_500), depths(950.0, 1_000.0)];
            let named = ["100", "500", "1000"].iter().zip(&all);
            let mut rows: Vec<_> = named.map(|(servers, row)| ("15-ms", *servers, &row[..])).collect();
            let hit = [("timeout_queries_percent", 100.0)];
            rows.push(("15-ms-least-two", "1000", &hit));
            table("servers", &rows)
        };
        assert_eq!(a_packet_each(&rows(510.0)).outcome, Outcome::Holds);
        assert_eq!(a_packet_each(&rows(80.0)).outcome, Outcome::Fails);
        assert!(matches!(
            a_packet_each(&Table::default()).outcome,
            Outcome::NotMeasured { .. }
        ));
    }

    #[test]
    fn pressure_holds_and_fails() {
        let rows = |tcp_beside: f64, dctcp_beside: f64| {
            let of = |ms: f64| [("query_ms_p95", ms)];
            let all = [of(9.9), of(tcp_beside), of(9.2), of(dctcp_beside)];
            let names = ["tcp", "tcp-background", "dctcp", "dctcp-background"];
            let rows: Vec<_> = names
                .iter()
                .zip(&all)
                .map(|(name, row)| (*name, "", &row[..]))
                .collect();
            table("", &rows)
        };
        assert_eq!(pressure(&rows(46.9, 9.1)).outcome, Outcome::Holds);
        assert_eq!(pressure(&rows(12.0, 9.1)).outcome, Outcome::Fails);
        assert_eq!(pressure(&rows(46.9, 19.0)).outcome, Outcome::Fails);
    }
}
