//! `incast-dctcp-fig18`, `incast-dctcp-fig19`, `incast-all-to-all` and `incast-queue-buildup`: what DCTCP's paper measured of
//! incast, in the packet simulator.

use super::scenarios::{ARM, Demand, Scenario, judge_all, metric};
use crate::{
    claim::{Claim, Judgement, Source},
    experiment::{Allowed, Axis},
    table::Table,
};

const WORK: &str = "Alizadeh et al., Data center TCP (DCTCP), SIGCOMM 2010";

const SERVERS: Axis = Axis {
    name: "servers",
    meaning: "hosts that answer one question at the same time",
    full: &["1", "5", "10", "15", "20", "25", "30", "35", "40"],
    tour: &["10", "35"],
    smallest: "5",
    allowed: Allowed::Number(1.0, 100_000.0),
};

const fn arms(full: &'static [&'static str], smallest: &'static str) -> Axis {
    Axis {
        name: ARM,
        meaning: "whose TCP, its least retransmission timeout, and the buffer if it differs",
        full,
        tour: full,
        smallest,
        allowed: Allowed::Words,
    }
}

const HOW: &str = "The topology, the switch and TCP are those of the paper's testbed, packet by packet in virtual time; the scenario \
                   file beside this page says all of it. A question goes to all servers at once; the next follows when the last byte of \
                   all answers is there. A query timed out if a retransmission timer of one of its flows fired while it was open.";

const VIRTUAL: &str = "Virtual time: a row follows from the seed alone. Decided by the figures of the rows, without an interval; another \
                       seed moves the hosts' clock ticks and drawn orders.";

/// Figure 18.
pub static FIG18: Scenario = Scenario {
    id: "incast-dctcp-fig18",
    title: "Incast, static buffers",
    question: "How many servers may answer at once before TCP and DCTCP time out, with 100 packets of buffer for each port?",
    how: HOW,
    axes: &[
        arms(
            &["tcp-300ms", "tcp-10ms", "dctcp-300ms", "dctcp-10ms", "dctcp-10ms-100kb"],
            "dctcp-10ms",
        ),
        SERVERS,
    ],
    claims: &[
        Claim {
            id: "incast-dctcp-fig18",
            sentence: "With 100 packets for each port TCP times out from 10 to 15 servers on, and DCTCP not before 35",
            source: Source::Published {
                work: WORK,
                place: "figure 18 and section 4.2.1",
            },
            invariant: VIRTUAL,
            judge: delays_collapse,
        },
        Claim {
            id: "incast-dctcp-fig18-convergence",
            sentence: "From 35 servers on DCTCP times out as TCP does, because two packets from each do not fit into the buffer",
            source: Source::Published {
                work: WORK,
                place: "figure 18b and section 4.2.1",
            },
            invariant: VIRTUAL,
            judge: converges_at_35,
        },
    ],
    tour_weight: 0.4,
    own: None,
};

fn at(table: &Table, arm: &str, servers: &str, name: &str) -> Option<f64> {
    metric(table, arm, ("servers", servers), name)
}

const TIMED_OUT: &str = "timeout_queries_percent";

fn delays_collapse(table: &Table) -> Judgement {
    let timed_out = |arm: &str, servers: &str| at(table, arm, servers, TIMED_OUT);
    judge_all(&[
        Demand {
            what: "mean query, one server",
            value: at(table, "dctcp-10ms", "1", "query_ms_mean"),
            unit: "ms",
            limit: "8 to 9",
            meets: |ms| (8.0..=9.0).contains(&ms),
        },
        Demand {
            what: "TCP queries with a timeout, 15 servers",
            value: timed_out("tcp-300ms", "15"),
            unit: "%",
            limit: "> 10",
            meets: |percent| percent > 10.0,
        },
        Demand {
            what: "TCP, mean query at 40 servers",
            value: at(table, "tcp-300ms", "40", "query_ms_mean"),
            unit: "ms",
            limit: "> 85, ten times the floor",
            meets: |ms| ms > 85.0,
        },
        Demand {
            what: "DCTCP queries with a timeout, 20 servers",
            value: timed_out("dctcp-300ms", "20"),
            unit: "%",
            limit: "≤ 1",
            meets: |percent| percent <= 1.0,
        },
        Demand {
            what: "DCTCP queries with a timeout, 30 servers",
            value: timed_out("dctcp-300ms", "30"),
            unit: "%",
            limit: "≤ 1",
            meets: |percent| percent <= 1.0,
        },
    ])
}

fn converges_at_35(table: &Table) -> Judgement {
    let timed_out = |arm: &str, servers: &str| at(table, arm, servers, TIMED_OUT);
    judge_all(&[
        Demand {
            what: "DCTCP queries with a timeout, 35 servers, 100 packets",
            value: timed_out("dctcp-10ms", "35"),
            unit: "%",
            limit: "> 10",
            meets: |percent| percent > 10.0,
        },
        Demand {
            what: "DCTCP queries with a timeout, 40 servers, 100 packets",
            value: timed_out("dctcp-10ms", "40"),
            unit: "%",
            limit: "> 10",
            meets: |percent| percent > 10.0,
        },
        Demand {
            what: "the same, 35 servers, 100 KB (no bound: for comparison)",
            value: timed_out("dctcp-10ms-100kb", "35"),
            unit: "%",
            limit: "any",
            meets: |_| true,
        },
        Demand {
            what: "the same, 40 servers, 100 KB (no bound: for comparison)",
            value: timed_out("dctcp-10ms-100kb", "40"),
            unit: "%",
            limit: "any",
            meets: |_| true,
        },
    ])
}

/// Figure 19.
pub static FIG19: Scenario = Scenario {
    id: "incast-dctcp-fig19",
    title: "Incast, a shared buffer",
    question: "And if the ports share 4 MB, of which one may take up to 700 KB?",
    how: HOW,
    axes: &[arms(&["tcp-10ms", "dctcp-10ms"], "dctcp-10ms"), SERVERS],
    claims: &[Claim {
        id: "incast-dctcp-fig19",
        sentence: "With a shared buffer DCTCP answers from 40 servers without a timeout; TCP still times out",
        source: Source::Published {
            work: WORK,
            place: "figure 19",
        },
        invariant: VIRTUAL,
        judge: shared_buffer,
    }],
    tour_weight: 0.0,
    own: None,
};

fn shared_buffer(table: &Table) -> Judgement {
    let timed_out = |arm: &str| at(table, arm, "40", TIMED_OUT);
    judge_all(&[
        Demand {
            what: "DCTCP queries with a timeout, 40 servers",
            value: timed_out("dctcp-10ms"),
            unit: "%",
            limit: "= 0",
            meets: |percent| percent == 0.0,
        },
        Demand {
            what: "TCP queries with a timeout, 40 servers",
            value: timed_out("tcp-10ms"),
            unit: "%",
            limit: "> 1",
            meets: |percent| percent > 1.0,
        },
    ])
}

/// Figure 20.
pub static ALL_TO_ALL: Scenario = Scenario {
    id: "incast-all-to-all",
    title: "Incast, all to all",
    question: "What if every machine asks every other at the same time?",
    how: HOW,
    axes: &[arms(&["tcp", "dctcp"], "dctcp")],
    claims: &[Claim {
        id: "incast-all-to-all",
        sentence: "When 41 machines ask each other for 25 KB, over 55 % of TCP's queries suffer a timeout, and none of DCTCP's",
        source: Source::Published {
            work: WORK,
            place: "figure 20 and section 4.2.2",
        },
        invariant: VIRTUAL,
        judge: all_to_all,
    }],
    tour_weight: 0.0,
    own: None,
};

fn all_to_all(table: &Table) -> Judgement {
    let of = |arm: &str| metric(table, arm, ("", ""), TIMED_OUT);
    judge_all(&[
        Demand {
            what: "TCP queries with a timeout",
            value: of("tcp"),
            unit: "%",
            limit: "> 55",
            meets: |percent| percent > 55.0,
        },
        Demand {
            what: "DCTCP queries with a timeout",
            value: of("dctcp"),
            unit: "%",
            limit: "= 0",
            meets: |percent| percent == 0.0,
        },
    ])
}

/// Figure 21.
pub static QUEUE_BUILDUP: Scenario = Scenario {
    id: "incast-queue-buildup",
    title: "Small answers behind long flows",
    question: "How long does a small answer take beside two long flows to the same host?",
    how: "Two hosts send for ever, a third answers 20 KB a thousand times, each time over a connection that begins with its initial \
          window. The switch shares 4 MB; the long flows' queue is what the answers wait in.",
    axes: &[arms(&["tcp", "dctcp", "tcp-300ms"], "dctcp")],
    claims: &[Claim {
        id: "incast-queue-buildup",
        sentence: "The median of 20 KB answers beside two long flows is 19 ms with TCP and less than 1 ms with DCTCP",
        source: Source::Published {
            work: WORK,
            place: "figure 21 and section 4.2.3",
        },
        invariant: VIRTUAL,
        judge: queue_buildup,
    }],
    tour_weight: 0.0,
    own: None,
};

pub(super) fn queue_buildup(table: &Table) -> Judgement {
    let median = |arm: &str| metric(table, arm, ("", ""), "query_ms_p50");
    let ratio = median("tcp").zip(median("dctcp")).map(|(tcp, dctcp)| tcp / dctcp);
    judge_all(&[
        Demand {
            what: "DCTCP, median",
            value: median("dctcp"),
            unit: "ms",
            limit: "< 1",
            meets: |ms| ms < 1.0,
        },
        Demand {
            what: "TCP, median",
            value: median("tcp"),
            unit: "ms",
            limit: "9.5 to 38, within a factor of two of 19",
            meets: |ms| (9.5..=38.0).contains(&ms),
        },
        Demand {
            what: "TCP ÷ DCTCP",
            value: ratio,
            unit: "ratio",
            limit: "> 10",
            meets: |ratio| ratio > 10.0,
        },
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{experiments::scenarios::testing::table, record::Outcome};

    #[test]
    fn figure_18_holds_fails_and_is_not_measured() {
        let rows = |dctcp_at_30: f64| {
            table(
                "servers",
                &[
                    ("dctcp-10ms", "1", &[("query_ms_mean", 8.5)]),
                    ("tcp-300ms", "15", &[(TIMED_OUT, 36.0)]),
                    ("tcp-300ms", "40", &[("query_ms_mean", 300.0)]),
                    ("dctcp-300ms", "20", &[(TIMED_OUT, 0.0)]),
                    ("dctcp-300ms", "30", &[(TIMED_OUT, dctcp_at_30)]),
                ],
            )
        };
        assert_eq!(delays_collapse(&rows(0.1)).outcome, Outcome::Holds);
        assert_eq!(delays_collapse(&rows(9.0)).outcome, Outcome::Fails);
        assert!(matches!(
            delays_collapse(&Table::default()).outcome,
            Outcome::NotMeasured { .. }
        ));
    }

    #[test]
    fn the_other_figures_can_fail() {
        let both = |tcp: f64, dctcp: f64| {
            table(
                "",
                &[("tcp", "", &[(TIMED_OUT, tcp)]), ("dctcp", "", &[(TIMED_OUT, dctcp)])],
            )
        };
        assert_eq!(all_to_all(&both(60.0, 0.0)).outcome, Outcome::Holds);
        assert_eq!(all_to_all(&both(60.0, 2.0)).outcome, Outcome::Fails);
        let medians = |tcp: f64| {
            table(
                "",
                &[
                    ("tcp", "", &[("query_ms_p50", tcp)]),
                    ("dctcp", "", &[("query_ms_p50", 0.9)]),
                ],
            )
        };
        assert_eq!(queue_buildup(&medians(19.0)).outcome, Outcome::Holds);
        assert_eq!(queue_buildup(&medians(8.0)).outcome, Outcome::Fails);
        let shared = |dctcp: f64| {
            table(
                "servers",
                &[
                    ("tcp-10ms", "40", &[(TIMED_OUT, 9.0)]),
                    ("dctcp-10ms", "40", &[(TIMED_OUT, dctcp)]),
                ],
            )
        };
        assert_eq!(shared_buffer(&shared(0.0)).outcome, Outcome::Holds);
        assert_eq!(shared_buffer(&shared(0.1)).outcome, Outcome::Fails);
        let at_35 = |percent: f64| {
            table(
                "servers",
                &[
                    ("dctcp-10ms", "35", &[(TIMED_OUT, percent)]),
                    ("dctcp-10ms", "40", &[(TIMED_OUT, percent)]),
                    ("dctcp-10ms-100kb", "35", &[(TIMED_OUT, 90.0)]),
                    ("dctcp-10ms-100kb", "40", &[(TIMED_OUT, 90.0)]),
                ],
            )
        };
        assert_eq!(converges_at_35(&at_35(80.0)).outcome, Outcome::Holds);
        assert_eq!(converges_at_35(&at_35(0.1)).outcome, Outcome::Fails);
    }
}
