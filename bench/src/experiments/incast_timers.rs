//! `incast-rtomin`, `incast-collapse-fast08`, `incast-three-regions` and `incast-tlp`: which timer, and which part of a modern TCP, incast hangs on.

use super::scenarios::{ARM, Demand, Scenario, judge_all, metric};
use crate::{
    claim::{Claim, Judgement, Source},
    experiment::{Allowed, Axis},
    table::Table,
};

const fn servers(full: &'static [&'static str]) -> Axis {
    Axis {
        name: "servers",
        meaning: "hosts that answer one question at the same time",
        full,
        tour: &["4", "16"],
        smallest: "4",
        allowed: Allowed::Number(1.0, 100_000.0),
    }
}

const fn arms(full: &'static [&'static str]) -> Axis {
    Axis {
        name: ARM,
        meaning: "what of the senders or of the buffer differs",
        full,
        tour: full,
        smallest: full[0],
        allowed: Allowed::Words,
    }
}

const HOW: &str = "A client asks n servers at once over one switch, packet by packet in virtual time, and asks again when all answers \
                   are there; the scenario file beside this page says all of it. Goodput is bytes of answers over the time that the \
                   questions took.";

const VIRTUAL: &str =
    "Virtual time: a row follows from the seed alone. Decided by the figures of the rows, without an interval.";

const GOODPUT: &str = "goodput_mbit_per_sec";

fn goodput(table: &Table, arm: &str, servers: &str) -> Option<f64> {
    metric(table, arm, ("servers", servers), GOODPUT)
}

fn ratio(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    a.zip(b).map(|(a, b)| a / b)
}

/// Vasudevan et al.
pub static RTOMIN: Scenario = Scenario {
    id: "incast-rtomin",
    title: "Incast and RTOmin",
    question: "How much of incast is the least retransmission timeout?",
    how: HOW,
    axes: &[
        arms(&["rtomin-200ms", "rtomin-10ms", "rtomin-1ms", "rtomin-200us"]),
        servers(&["1", "2", "4", "8", "12", "16"]),
    ],
    claims: &[Claim {
        id: "incast-rtomin",
        sentence: "With RTOmin of 200 ms incast costs up to 90 % of throughput; with 1 ms or less 16 servers lose less than 10 %",
        source: Source::Published {
            work: "Vasudevan et al., Safe and effective fine-grained TCP retransmissions for datacenter communication, SIGCOMM 2009",
            place: "abstract (90 %) and section 1 (1 ms, as others quote it; the bound of 10 % is ours)",
        },
        invariant: VIRTUAL,
        judge: rtomin,
    }],
    tour_weight: 0.0,
    own: None,
};

fn rtomin(table: &Table) -> Judgement {
    let left = |arm: &str| ratio(goodput(table, arm, "16"), goodput(table, arm, "1"));
    judge_all(&[
        Demand {
            what: "goodput of 16 servers ÷ of one, RTOmin 200 ms",
            value: left("rtomin-200ms"),
            unit: "ratio",
            limit: "≤ 0.1",
            meets: |left| left <= 0.1,
        },
        Demand {
            what: "the same, 1 ms",
            value: left("rtomin-1ms"),
            unit: "ratio",
            limit: "≥ 0.9",
            meets: |left| left >= 0.9,
        },
        Demand {
            what: "the same, 200 µs",
            value: left("rtomin-200us"),
            unit: "ratio",
            limit: "≥ 0.9",
            meets: |left| left >= 0.9,
        },
    ])
}

/// Phanishayee et al.
pub static COLLAPSE: Scenario = Scenario {
    id: "incast-collapse-fast08",
    title: "Throughput collapse of synchronized reads",
    question: "With how many servers do synchronized reads of 256 KB each collapse, and what does more buffer do?",
    how: HOW,
    axes: &[
        arms(&["32-kb", "64-kb", "256-kb", "32-kb-rtomin-200us"]),
        servers(&["1", "2", "3", "4", "5", "6", "7", "8", "10", "12", "16"]),
    ],
    claims: &[Claim {
        id: "incast-collapse-fast08",
        sentence: "Synchronized reads lose an order of magnitude of throughput at 8 servers, and RTOmin of 200 µs gives it back",
        source: Source::Published {
            work: "Phanishayee et al., Measurement and analysis of TCP throughput collapse in cluster-based storage systems, FAST 2008",
            place: "figure 1 and the simulations of RTOmin, both recalled and not re-read",
        },
        invariant: VIRTUAL,
        judge: collapse,
    }],
    tour_weight: 0.0,
    own: None,
};

fn collapse(table: &Table) -> Judgement {
    let left = |arm: &str| ratio(goodput(table, arm, "8"), goodput(table, arm, "1"));
    let regained = ratio(goodput(table, "32-kb-rtomin-200us", "8"), goodput(table, "32-kb", "8"));
    judge_all(&[
        Demand {
            what: "goodput of 8 servers ÷ of one, 32 KB",
            value: left("32-kb"),
            unit: "ratio",
            limit: "≤ 0.1",
            meets: |left| left <= 0.1,
        },
        Demand {
            what: "goodput with RTOmin 200 µs ÷ 200 ms, 8 servers",
            value: regained,
            unit: "ratio",
            limit: "≥ 8, about ten",
            meets: |ratio| ratio >= 8.0,
        },
    ])
}

const REGIONS_SERVERS: &[&str] = &[
    "1", "2", "3", "4", "5", "6", "7", "8", "10", "12", "16", "24", "32", "48", "64",
];
const REGIONS_ARMS: &[&str] = &["rtomin-200ms", "rtomin-10ms", "rtomin-1ms"];

/// Chen et al.
pub static THREE_REGIONS: Scenario = Scenario {
    id: "incast-three-regions",
    title: "Three regions of incast goodput",
    question: "How does goodput go on beyond the collapse, and does the least timeout move it?",
    how: HOW,
    axes: &[arms(REGIONS_ARMS), servers(REGIONS_SERVERS)],
    claims: &[Claim {
        id: "incast-three-regions",
        sentence: "Goodput is least with 7 or 8 senders, whatever RTOmin; with more it recovers, and then declines slowly",
        source: Source::Published {
            work: "Chen, Griffith, Liu, Katz and Joseph, Understanding TCP incast throughput collapse in datacenter networks, WREN 2009",
            place: "figures 5 and 6, as others quote them; 5 to 10 senders, a fifth more and a twentieth less are ours",
        },
        invariant: VIRTUAL,
        judge: three_regions,
    }],
    tour_weight: 0.0,
    own: None,
};

/// Of several senders: how many make the least goodput, what is the most with more of them over that, and the last over the most.
fn regions(table: &Table, arm: &str, counts: &[&str]) -> Option<(f64, f64, f64)> {
    let all: Option<Vec<(f64, f64)>> = counts
        .iter()
        .map(|servers| servers.parse().ok().zip(goodput(table, arm, servers)))
        .collect();
    let all = all?;
    let least = (0..all.len()).min_by(|a, b| all[*a].1.total_cmp(&all[*b].1))?;
    let most = all[least..].iter().map(|(_, goodput)| *goodput).fold(0.0, f64::max);
    Some((all[least].0, most / all[least].1, all[all.len() - 1].1 / most))
}

fn three_regions(table: &Table) -> Judgement {
    three_regions_of(table, REGIONS_ARMS, &REGIONS_SERVERS[1..])
}

/// The same with other numbers of servers. Arms: the longest timeout first, three of them.
pub(super) fn three_regions_of(table: &Table, arms: &[&str], counts: &[&str]) -> Judgement {
    let [long, middle, short] = [0, 1, 2].map(|index| regions(table, arms[index], counts));
    let least = |what, regions: Option<(f64, f64, f64)>| Demand {
        what,
        value: regions.map(|(senders, ..)| senders),
        unit: "senders",
        limit: "5 to 10",
        meets: |senders: f64| (5.0..=10.0).contains(&senders),
    };
    let recovers = |what, regions: Option<(f64, f64, f64)>| Demand {
        what,
        value: regions.map(|(_, recovery, _)| recovery),
        unit: "ratio",
        limit: "≥ 1.2",
        meets: |ratio: f64| ratio >= 1.2,
    };
    let declines = |what, regions: Option<(f64, f64, f64)>| Demand {
        what,
        value: regions.map(|(.., decline)| decline),
        unit: "ratio",
        limit: "≤ 0.95",
        meets: |ratio: f64| ratio <= 0.95,
    };
    judge_all(&[
        least("senders with the least goodput, RTOmin 200 ms", long),
        least("the same, 10 ms", middle),
        least("the same, 1 ms", short),
        recovers("most goodput with more senders ÷ least, 200 ms", long),
        recovers("the same, 10 ms", middle),
        recovers("the same, 1 ms", short),
        declines("goodput of 64 senders ÷ most, 200 ms", long),
        declines("the same, 10 ms", middle),
        declines("the same, 1 ms", short),
    ])
}

/// Our own.
pub static TLP: Scenario = Scenario {
    id: "incast-tlp",
    title: "Which part of a modern TCP survives incast",
    question: "SACK, RACK, tail loss probes or a shorter timeout: what moves the number of servers at which throughput collapses?",
    how: HOW,
    axes: &[
        arms(&[
            "2008",
            "2008-rtomin-8ms",
            "no-rack-no-tlp",
            "no-tlp",
            "no-rack",
            "modern",
            "modern-rtomin-8ms",
        ]),
        servers(&["1", "2", "4", "8", "16", "32", "47", "64"]),
    ],
    claims: &[Claim {
        id: "incast-tlp",
        sentence: "Of a modern Linux sender, tail loss probes move the collapse: without them 4 servers lose half of the goodput, with \
                   them 8 do not; SACK and RACK alone do not help",
        source: Source::Ours {
            seen: "Linux 6.18 between network namespaces: 12 Mbit/s without and 79 with TLP at 4 servers, 8.0 and 70 at 8",
        },
        invariant: VIRTUAL,
        judge: tlp,
    }],
    tour_weight: 0.0,
    own: None,
};

fn tlp(table: &Table) -> Judgement {
    let left = |arm: &str, servers: &str| ratio(goodput(table, arm, servers), goodput(table, arm, "1"));
    let gain = ratio(goodput(table, "modern", "8"), goodput(table, "no-tlp", "8"));
    let sack = ratio(goodput(table, "no-rack-no-tlp", "16"), goodput(table, "2008", "16"));
    judge_all(&[
        Demand {
            what: "without TLP, goodput of 4 servers ÷ of one",
            value: left("no-tlp", "4"),
            unit: "ratio",
            limit: "≤ 0.5",
            meets: |left| left <= 0.5,
        },
        Demand {
            what: "with TLP and RACK, goodput of 8 servers ÷ of one",
            value: left("modern", "8"),
            unit: "ratio",
            limit: "≥ 0.5",
            meets: |left| left >= 0.5,
        },
        Demand {
            what: "with ÷ without TLP, 8 servers",
            value: gain,
            unit: "ratio",
            limit: "≥ 2",
            meets: |gain| gain >= 2.0,
        },
        Demand {
            what: "SACK ÷ no SACK, without RACK and TLP, 16 servers",
            value: sack,
            unit: "ratio",
            limit: "< 2",
            meets: |gain| gain < 2.0,
        },
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{experiments::scenarios::testing::table, record::Outcome};

    /// Goodput falls to `least_at`, rises again to 48 senders, and is less with 64.
    #[test]
    fn three_regions_hold_and_fail() {
        let judged = |least_at: f64| {
            let goodput = |servers: &str| {
                let senders: f64 = servers.parse().expect("a number");
                let off = (senders - least_at).abs().min(20.0);
                [(GOODPUT, if senders > 60.0 { 250.0 } else { 100.0 + 10.0 * off })]
            };
            let goodputs: Vec<_> = REGIONS_SERVERS.iter().map(|servers| goodput(servers)).collect();
            let of_arm = |arm| {
                let named = REGIONS_SERVERS.iter().zip(&goodputs);
                named.map(move |(servers, row)| (arm, *servers, &row[..]))
            };
            let rows: Vec<_> = REGIONS_ARMS.iter().flat_map(|arm| of_arm(*arm)).collect();
            three_regions(&table("servers", &rows)).outcome
        };
        assert_eq!(judged(8.0), Outcome::Holds);
        assert_eq!(judged(3.0), Outcome::Fails);
        assert!(matches!(
            three_regions(&Table::default()).outcome,
            Outcome::NotMeasured { .. }
        ));
    }

    #[test]
    fn each_claim_holds_and_fails() {
        let rto = |fine: f64| {
            let all = [("rtomin-200ms", 40.0), ("rtomin-1ms", fine), ("rtomin-200us", 890.0)];
            let one = [(GOODPUT, 936.0)];
            let many = all.map(|(_, goodput)| [(GOODPUT, goodput)]);
            let rows: Vec<_> = all
                .iter()
                .zip(&many)
                .flat_map(|((arm, _), many)| [(*arm, "1", &one[..]), (*arm, "16", &many[..])])
                .collect();
            table("servers", &rows)
        };
        assert_eq!(rtomin(&rto(880.0)).outcome, Outcome::Holds);
        assert_eq!(rtomin(&rto(500.0)).outcome, Outcome::Fails);
        let fast = |fine: f64| {
            table(
                "servers",
                &[
                    ("32-kb", "1", &[(GOODPUT, 900.0)]),
                    ("32-kb", "8", &[(GOODPUT, 40.0)]),
                    ("32-kb-rtomin-200us", "8", &[(GOODPUT, fine)]),
                ],
            )
        };
        assert_eq!(collapse(&fast(887.0)).outcome, Outcome::Holds);
        assert_eq!(collapse(&fast(100.0)).outcome, Outcome::Fails);
        let modern = |at_8: f64| {
            table(
                "servers",
                &[
                    ("no-tlp", "1", &[(GOODPUT, 93.0)]),
                    ("no-tlp", "4", &[(GOODPUT, 32.0)]),
                    ("no-tlp", "8", &[(GOODPUT, 23.0)]),
                    ("modern", "1", &[(GOODPUT, 93.0)]),
                    ("modern", "8", &[(GOODPUT, at_8)]),
                    ("no-rack-no-tlp", "16", &[(GOODPUT, 8.2)]),
                    ("2008", "16", &[(GOODPUT, 7.3)]),
                ],
            )
        };
        assert_eq!(tlp(&modern(62.0)).outcome, Outcome::Holds);
        assert_eq!(tlp(&modern(24.0)).outcome, Outcome::Fails);
        assert!(matches!(tlp(&Table::default()).outcome, Outcome::NotMeasured { .. }));
    }
}
