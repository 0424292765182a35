//! `tied-requests`: the same request in two queues, one of which is told to forget it.

use std::collections::BTreeMap;

use dataplane_service::{
    policy::{Choice, FanOut, Policy, Tied},
    service_time::ServiceTime,
    sim::ClusterOptions,
};

use crate::{
    claim::{Claim, Judgement, Source},
    experiment::{Allowed, Axis, Depth, Experiment, Lab},
    experiments::{
        judge::{self, Bound, measured},
        virtual_nodes::{At, seed_of, simulate},
        virtual_time::BACKEND,
    },
    record::{Outcome, Row},
    table::{Arm, Table, latency_ns},
};

/// See the module.
#[derive(Debug)]
pub struct TiedRequests;

const POLICY: Axis = Axis {
    name: "policy",
    meaning: "one: a node by chance; less-loaded: of two by chance the one that has less of ours under way; tied: two by chance, 1 ms apart, \
              the one that begins has the other withdrawn; both: two by chance, neither withdrawn",
    full: &[ONE, LESS_LOADED, TIED, BOTH],
    tour: &[ONE, TIED],
    smallest: TIED,
    allowed: Allowed::Words,
};

const LOAD_RATIO: Axis = Axis {
    name: "load_ratio",
    meaning: "share of the time in which nodes are busy with what one request a call takes",
    full: &["0.2", "0.4", "0.6", "0.8"],
    tour: &["0.4"],
    smallest: "0.4",
    allowed: Allowed::Number(0.01, 0.95),
};

const ONE: &str = "one";
const LESS_LOADED: &str = "less-loaded";
const TIED: &str = "tied";
const BOTH: &str = "both";

const NODES_COUNT: usize = 20;
/// Of a disk's read: lognormal, so that some are long.
const SERVICE: ServiceTime = ServiceTime::Lognormal {
    median_ns: 8e6,
    sigma: 0.7,
};
const WAY_NS: u64 = 100_000;
/// The paper's: 1 ms, more than two messages take.
const DELAY_NS: u64 = 1_000_000;
const ROUNDS_COUNT: u32 = 8;

impl Experiment for TiedRequests {
    fn id(&self) -> &'static str {
        "tied-requests"
    }

    fn title(&self) -> &'static str {
        "Tied requests"
    }

    fn question(&self) -> &'static str {
        "What does it bring to wait in two queues at once, if the one that begins has the other forget it?"
    }

    fn how(&self) -> &'static str {
        "Twenty nodes with one worker each and a queue, in virtual time. A call asks one of them, or two 1 ms apart; with tied requests the \
         node that begins says so, and the client withdraws the other copy. The same arrivals and service times for every policy."
    }

    fn axes(&self) -> &'static [Axis] {
        &[POLICY, LOAD_RATIO]
    }

    fn backends(&self) -> Vec<&'static str> {
        Vec::new()
    }

    fn claims(&self) -> &'static [Claim] {
        CLAIMS
    }

    fn tour_weight(&self) -> f64 {
        0.05
    }

    fn is_virtual(&self) -> bool {
        true
    }

    fn run(&self, lab: &mut Lab<'_>) -> anyhow::Result<()> {
        let (policies, loads) = (lab.values(&POLICY), lab.values(&LOAD_RATIO));
        let calls_count = match lab.choice.depth {
            Depth::Full => 40_000,
            Depth::Tour => 10_000,
            Depth::Smallest => 1_000,
        };
        lab.progress.set_length((policies.len() * loads.len()) as u64);
        for (load, name) in loads
            .iter()
            .flat_map(|load| policies.iter().map(move |policy| (load, policy)))
        {
            lab.progress.set_message(format!("{name} at {load}"));
            for round in 0..ROUNDS_COUNT {
                if lab.interrupted() {
                    return Ok(());
                }
                let load_ratio: f64 = load.parse().expect("axis values are checked beforehand");
                let options = ClusterOptions {
                    nodes_count: NODES_COUNT,
                    workers_count: 1,
                    gap_ns_mean: SERVICE.mean_ns() / load_ratio / NODES_COUNT as f64,
                    service: SERVICE,
                    way_ns: WAY_NS,
                    loss_ratio: 0.0,
                    stalls: None,
                    stalls_are_shared: false,
                    surge: None,
                    patience_ns: 60_000_000_000,
                    seed: seed_of(lab, round),
                };
                let at = At {
                    experiment: self.id(),
                    axis: BTreeMap::from([
                        (POLICY.name.to_owned(), name.clone()),
                        (LOAD_RATIO.name.to_owned(), load.clone()),
                    ]),
                    round,
                };
                let row = simulate(lab, at, options, policy(name), calls_count, 1, &mut |_| {});
                lab.record(row.into_row())?;
            }
            lab.progress.inc(1);
        }
        Ok(())
    }
}

fn policy(name: &str) -> Box<dyn Policy> {
    let fan_out = |asked_count, choice| FanOut {
        asked_count,
        needed_count: 1,
        choice,
    };
    match name {
        TIED => Box::new(Tied {
            delay_ns: DELAY_NS,
            choice: Choice::Random,
        }),
        BOTH => Box::new(fan_out(2, Choice::Random)),
        LESS_LOADED => Box::new(fan_out(1, Choice::LessLoadedOfTwo)),
        _ => Box::new(fan_out(1, Choice::Random)),
    }
}

const CLAIMS: &[Claim] = &[
    Claim {
        id: "tied-requests",
        sentence: "Tied requests take 37 % off the p99 or more",
        source: Source::Published {
            work: "Dean and Barroso, The Tail at Scale, CACM 56(2), 2013",
            place: "table 2: p99 of a distributed file system's reads from 67 to 42 ms idle, 108 to 67 ms beside a sort. Loads \
                     of 0.4 and 0.6 are ours",
        },
        invariant: "Paired by seed. The node tells the client and the client the other node, which is twice the paper's way.",
        judge: |table| judge::all(vec![gains(table, "0.4"), gains(table, "0.6")]),
    },
    Claim {
        id: "tied-requests-cost",
        sentence: "They cost less than 1 % more service",
        source: Source::Published {
            work: "Dean and Barroso, The Tail at Scale, CACM 56(2), 2013",
            place: "text beside table 2: disk overhead below 1 %",
        },
        invariant: "Requests served beyond one a call, in every row with tied requests. Both copies are served where both begin while the word of \
                    it is under way, which here is two messages and in the paper one.",
        judge: service,
    },
    Claim {
        id: "tied-beats-both",
        sentence: "Without the withdrawal two requests a call are worse than one at a load of 0.6: nodes are busy twice",
        source: Source::Ours {
            seen: "0.6 twice is 1.2",
        },
        invariant: "p99 of two copies ÷ p99 of one, paired by seed.",
        judge: both_are_worse,
    },
];

fn ratio(table: &Table, load: &str, policy: &str, bound: Bound) -> Judgement {
    let (a, b) = (
        [(POLICY.name, policy), (LOAD_RATIO.name, load)],
        [(POLICY.name, ONE), (LOAD_RATIO.name, load)],
    );
    judge::ratio(
        table,
        &format!("p99 {policy} ÷ p99 one, at {load}"),
        (Arm::of(BACKEND, &a), Arm::of(BACKEND, &b)),
        latency_ns(0.99),
        bound,
    )
}

fn gains(table: &Table, load: &str) -> Judgement {
    ratio(table, load, TIED, Bound::AtMost(0.63))
}

fn both_are_worse(table: &Table) -> Judgement {
    ratio(table, "0.6", BOTH, Bound::AtLeast(1.0))
}

fn service(table: &Table) -> Judgement {
    const EXTRA_MAX: f64 = 0.01;
    let rows: Vec<&Row> = table
        .valid()
        .filter(|row| row.axis.get(POLICY.name).is_some_and(|policy| policy == TIED))
        .collect();
    let extra = |row: &&Row| {
        row.metrics
            .get("extra_served_ratio")
            .map_or(f64::NAN, |metric| metric.value)
    };
    let Some(worst) = rows.iter().map(extra).max_by(f64::total_cmp) else {
        return Judgement::not_measured("no row with policy=tied");
    };
    let outcome = if worst <= EXTRA_MAX {
        Outcome::Holds
    } else {
        Outcome::Fails
    };
    let what = "requests served beyond one a call, in the worst row";
    Judgement::new(
        outcome,
        vec![measured(
            what,
            Some(worst),
            "ratio",
            format!("≤ {EXTRA_MAX}"),
            rows.len() as u64,
        )],
    )
}
