//! `tied-requests`: the same request in two queues, one of which is told to forget it.

use std::{collections::BTreeMap, time::Duration};

use dataplane_service::{
    policy::{Choice, FanOut, Policy, Tied},
    service_time::ServiceTime,
    sim::ClusterOptions,
};

use crate::{
    backends::BackEnd,
    claim::{Claim, Judgement, Source},
    experiment::{Allowed, Axis, Depth, Experiment, Lab},
    experiments::{
        judge::{self, Bound},
        real_nodes::{self, NODES, PART, REAL, SIM, in_parts},
        virtual_nodes::{At, seed_of, simulate},
        virtual_time::BACKEND,
    },
    record::Row,
    service::{fleet::FleetPlan, plan::ServicePlan},
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

const WAY_US: Axis = Axis {
    name: "way_us",
    meaning: "in virtual time: how long a message is under way, in microseconds; the word that a copy has begun takes two",
    full: &[WAY, SHORT_WAY],
    tour: &[WAY],
    smallest: WAY,
    allowed: Allowed::Number(0.1, 500.0),
};

const WAY: &str = "100";
const SHORT_WAY: &str = "50";

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
const SERVICE_OF_NODES: ServicePlan = ServicePlan::Lognormal {
    median_ns: 8e6,
    sigma: 0.7,
};
/// The paper's: 1 ms, more than two messages take.
const DELAY_NS: u64 = 1_000_000;
const ROUNDS_COUNT: u32 = 8;
/// Real nodes, if nothing else is asked for: what the claims compare.
const NODE_POLICIES: [&str; 2] = [ONE, TIED];
const NODE_LOADS: [&str; 2] = ["0.4", "0.6"];
/// Of real nodes: some thousand calls.
const TRIAL: Duration = Duration::from_millis(3_500);

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
        "Twenty nodes with one worker each and a queue, in virtual time, and real ones, processes that sleep by a timer. A call asks one of them, or two 1 ms apart; with tied requests the \
         node that begins says so, and the client withdraws the other copy. The same arrivals and service times for every policy."
    }

    fn axes(&self) -> &'static [Axis] {
        &[PART, POLICY, LOAD_RATIO, WAY_US]
    }

    fn backends(&self) -> Vec<&'static str> {
        vec![REAL]
    }

    fn claims(&self) -> &'static [Claim] {
        CLAIMS
    }

    fn tour_weight(&self) -> f64 {
        0.05
    }

    fn needs_one_machine(&self) -> Option<&'static str> {
        Some("its nodes are processes of this machine")
    }

    fn run(&self, lab: &mut Lab<'_>) -> anyhow::Result<()> {
        in_parts(lab, simulate_all, |lab| ask_all(self, lab))
    }
}

fn at(part: &str, policy: &str, load: &str, round: u32) -> At {
    At {
        experiment: TiedRequests.id(),
        axis: BTreeMap::from([
            (PART.name.to_owned(), part.to_owned()),
            (POLICY.name.to_owned(), policy.to_owned()),
            (LOAD_RATIO.name.to_owned(), load.to_owned()),
        ]),
        round,
    }
}

/// From one call to the next, in nanoseconds on average.
fn gap_ns_mean(load: &str) -> f64 {
    let load_ratio: f64 = load.parse().expect("axis values are checked beforehand");
    SERVICE.mean_ns() / load_ratio / NODES_COUNT as f64
}

fn simulate_all(lab: &mut Lab<'_>) -> anyhow::Result<()> {
    let (policies, loads, ways) = (lab.values(&POLICY), lab.values(&LOAD_RATIO), lab.values(&WAY_US));
    let calls_count = match lab.choice.depth {
        Depth::Full => 40_000,
        Depth::Tour => 10_000,
        Depth::Smallest => 1_000,
    };
    let mut points = Vec::new();
    for way_us in &ways {
        for load in &loads {
            points.extend(policies.iter().map(|name| (way_us, load, name)));
        }
    }
    lab.progress.set_length(points.len() as u64);
    for (way_us, load, name) in points {
        lab.progress
            .set_message(format!("{name} at {load}, messages of {way_us} µs"));
        for round in 0..ROUNDS_COUNT {
            if lab.interrupted() {
                return Ok(());
            }
            let options = ClusterOptions {
                nodes_count: NODES_COUNT,
                workers_count: 1,
                gap_ns_mean: gap_ns_mean(load),
                service: SERVICE,
                way_ns: (way_us.parse::<f64>().expect("axis values are checked beforehand") * 1e3) as u64,
                loss_ratio: 0.0,
                stalls: None,
                stalls_are_shared: false,
                surge: None,
                patience_ns: 60_000_000_000,
                seed: seed_of(lab, round),
            };
            let mut at = at(SIM, name, load, round);
            at.axis.insert(WAY_US.name.to_owned(), way_us.clone());
            let row = simulate(lab, at, options, policy(name), calls_count, 1, &mut |_| {});
            lab.record(row.into_row())?;
        }
        lab.progress.inc(1);
    }
    Ok(())
}

/// One point with real nodes.
struct NodeArm {
    backend: &'static BackEnd,
    policy: String,
    load: String,
}

fn ask_all(experiment: &TiedRequests, lab: &mut Lab<'_>) -> anyhow::Result<()> {
    let policies = real_nodes::values_or(lab, &POLICY, &NODE_POLICIES);
    let loads = real_nodes::values_or(lab, &LOAD_RATIO, &NODE_LOADS);
    let mut arms = Vec::new();
    for backend in lab.backends(experiment) {
        for load in &loads {
            arms.extend(policies.iter().map(|policy| NodeArm {
                backend,
                policy: policy.clone(),
                load: load.clone(),
            }));
        }
    }
    let rounds_count = real_nodes::rounds_count(lab, ROUNDS_COUNT);
    lab.in_rounds(&arms, rounds_count, |lab, turn| {
        let arm = turn.arm;
        lab.progress.set_message(format!(
            "{} at {}, real nodes, round {}",
            arm.policy,
            arm.load,
            turn.round + 1
        ));
        lab.record_until_valid(|lab| ask(lab, arm, turn.round, turn.number))
    })
}

fn ask(lab: &Lab<'_>, arm: &NodeArm, round: u32, number: u32) -> anyhow::Result<Row> {
    let seed = real_nodes::seed_of(lab, round);
    let patience = Duration::from_secs(5);
    let mut plan = FleetPlan::new(arm.backend, NODES_COUNT, SERVICE_OF_NODES, patience, (number, seed));
    plan.node.workers_count = 1;
    let trial = real_nodes::trial(lab, TRIAL);
    // Until queues are what the load makes them.
    plan.client.warm_up = trial / 7;
    let calls = real_nodes::calls(1e9 / gap_ns_mean(&arm.load), trial, seed)?;
    let at = at(NODES, &arm.policy, &arm.load, round);
    Ok(real_nodes::ask(lab, at, &plan, &calls, policy(&arm.policy), 1)?.0)
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

const WORK: &str = "Dean and Barroso, The Tail at Scale, CACM 56(2), 2013";

const CLAIMS: &[Claim] = &[
    Claim {
        id: "tied-requests",
        sentence: "Tied requests take 37 % off the p99 or more",
        source: Source::Published {
            work: WORK,
            place: "table 2: p99 of a distributed file system's reads from 67 to 42 ms idle, 108 to 67 ms beside a sort. Loads \
                     of 0.4 and 0.6 are ours",
        },
        invariant: "Paired by seed. The node tells the client and the client the other node, which is twice the paper's way.",
        judge: |table| judge::all(vec![gains(table, BACKEND, "0.4"), gains(table, BACKEND, "0.6")]),
    },
    Claim {
        id: "tied-requests-nodes",
        sentence: "The same with twenty real nodes over UDP",
        source: Source::Published {
            work: WORK,
            place: "as before",
        },
        invariant: "Twenty processes with one worker each, a timer; the same calls in a round; paired by round.",
        judge: |table| judge::all(vec![gains(table, REAL, "0.4"), gains(table, REAL, "0.6")]),
    },
    Claim {
        id: "tied-requests-cost",
        sentence: "They cost less than 1 % more service",
        source: Source::Published {
            work: WORK,
            place: "text beside table 2: disk overhead below 1 %",
        },
        invariant: "Requests served beyond one a call, in the worst row with tied requests whose messages take 0.1 ms. Both copies are served where \
                    both begin while the word of it is under way, which here is two messages and in the paper one.",
        judge: |table| service(table, WAY),
    },
    Claim {
        id: "tied-requests-cost-of-word",
        sentence: "They do where the word that one has begun takes as long as one such message, and not two",
        source: Source::Published {
            work: WORK,
            place: "as before; there nodes tell each other",
        },
        invariant: "As before, with messages of half the time, so that two of them take what one takes in the paper's way.",
        judge: |table| service(table, SHORT_WAY),
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

/// In virtual time with the longer way; real messages take what they take.
fn axis<'a>(backend: &str, policy: &'a str, load: &'a str) -> Vec<(&'a str, &'a str)> {
    let mut axis = vec![(POLICY.name, policy), (LOAD_RATIO.name, load)];
    axis.extend((backend == BACKEND).then_some((WAY_US.name, WAY)));
    axis
}

fn ratio(table: &Table, backend: &str, load: &str, policy: &str, bound: Bound) -> Judgement {
    let (a, b) = (axis(backend, policy, load), axis(backend, ONE, load));
    judge::ratio(
        table,
        &format!("p99 {policy} ÷ p99 one, at {load}, {backend}"),
        (Arm::of(backend, &a), Arm::of(backend, &b)),
        latency_ns(0.99),
        bound,
    )
}

fn gains(table: &Table, backend: &str, load: &str) -> Judgement {
    ratio(table, backend, load, TIED, Bound::AtMost(0.63))
}

fn both_are_worse(table: &Table) -> Judgement {
    ratio(table, BACKEND, "0.6", BOTH, Bound::AtLeast(1.0))
}

fn service(table: &Table, way_us: &str) -> Judgement {
    const EXTRA_MAX: f64 = 0.01;
    let axis = [(POLICY.name, TIED), (WAY_US.name, way_us)];
    judge::worst(table, Arm::of(BACKEND, &axis), "extra_served_ratio", EXTRA_MAX)
}
