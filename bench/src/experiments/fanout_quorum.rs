//! `fanout-quorum`: waiting for k of n instead of all of them: a quorum cuts a tail.

use std::{collections::BTreeMap, time::Duration};

use dataplane_service::{
    oracle,
    policy::{Choice, FanOut, GoodEnough, Policy},
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
    record::{Better, Row},
    service::{fleet::FleetPlan, plan::ServicePlan},
    table::{Arm, Table, latency_ns},
};

/// See the module.
#[derive(Debug)]
pub struct FanoutQuorum;

const ASKED: Axis = Axis {
    name: "asked",
    meaning: "how many nodes are asked at once",
    full: &["3", "5", "100"],
    tour: &["5"],
    smallest: "5",
    allowed: Allowed::Number(1.0, 500.0),
};

const NEEDED_PERCENT: Axis = Axis {
    name: "needed_percent",
    meaning: "of those, how many answers are waited for, rounded up: 50 is a majority of an odd number",
    full: &["20", "50", "80", "95", "100"],
    tour: &["50", "100"],
    smallest: "50",
    allowed: Allowed::Number(0.1, 100.0),
};

const DEADLINE_MS: Axis = Axis {
    name: "deadline_ms",
    meaning: "0: as many answers as are needed are enough at once; above: all are waited for until then, and after that as many are enough",
    full: &["0", "10"],
    tour: &["0", "10"],
    smallest: "10",
    allowed: Allowed::Number(0.0, 1_000.0),
};

/// One leaf of the paper's table 1: p50, p95 and p99 of 1, 5 and 10 ms, which is nearly lognormal.
const SERVICE: ServiceTime = ServiceTime::Lognormal {
    median_ns: 1e6,
    sigma: 0.98,
};
const SERVICE_OF_NODES: ServicePlan = ServicePlan::Lognormal {
    median_ns: 1e6,
    sigma: 0.98,
};
const WAY_NS: u64 = 20_000;
/// Of real nodes, what the claims compare: nodes that are asked, answers that are needed in percent, deadline in milliseconds.
const NODE_ARMS: [(u32, &str, &str); 5] = [
    (5, "50", "0"),
    (5, "100", "0"),
    (100, "95", "0"),
    (100, "95", "10"),
    (100, "100", "0"),
];
/// Real nodes are processes: so many by default, and not more.
const NODES_MAX: u32 = 100;
/// Of a few real nodes, and of many: calls a second, and for how long. Of a few so that a p99.9 is supported (3,688 calls and
/// some); of many so that a p99 is (369), with no more answers a second than one client takes in beside its nodes.
const CALLS_OF_FEW: (f64, Duration) = (1_500.0, Duration::from_millis(2_700));
const CALLS_OF_MANY: (f64, Duration) = (100.0, Duration::from_millis(4_500));
const ROUNDS_COUNT: u32 = 8;

impl Experiment for FanoutQuorum {
    fn id(&self) -> &'static str {
        "fanout-quorum"
    }

    fn title(&self) -> &'static str {
        "Waiting for some of many"
    }

    fn question(&self) -> &'static str {
        "How much shorter is the tail if a request waits for k of n answers instead of all?"
    }

    fn how(&self) -> &'static str {
        "Nodes at rest, whose answers take 1 ms as a rule, 5 at p95 and 10 at p99. A request asks n of them and is done with the k-th answer: a quorum \
         of replicas, or a search that is content with most of its pieces; or it waits for all until a deadline and is content then. In virtual \
         time, where order statistics say what that takes; and with real nodes, processes that sleep by timers."
    }

    fn axes(&self) -> &'static [Axis] {
        &[PART, ASKED, NEEDED_PERCENT, DEADLINE_MS]
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

/// How many are asked, what is waited for.
#[derive(Clone, Debug)]
struct Waits {
    asked: u32,
    needed_percent: String,
    deadline_ms: String,
}

impl Waits {
    fn needed(&self) -> u32 {
        needed_count(self.asked, number(&self.needed_percent))
    }

    /// For a while for all, or for as many as are needed at once.
    fn deadline_ns(&self) -> Option<u64> {
        let ns = (number(&self.deadline_ms) * 1e6) as u64;
        (ns > 0).then_some(ns)
    }

    fn policy(&self) -> Box<dyn Policy> {
        match self.deadline_ns() {
            Some(deadline_ns) => Box::new(GoodEnough {
                deadline_ns,
                enough_count: self.needed(),
            }),
            None => Box::new(FanOut {
                asked_count: self.asked,
                needed_count: self.needed(),
                choice: Choice::Random,
            }),
        }
    }

    fn at(&self, part: &str, round: u32) -> At {
        At {
            experiment: FanoutQuorum.id(),
            axis: BTreeMap::from([
                (PART.name.to_owned(), part.to_owned()),
                (ASKED.name.to_owned(), self.asked.to_string()),
                (NEEDED_PERCENT.name.to_owned(), self.needed_percent.clone()),
                (DEADLINE_MS.name.to_owned(), self.deadline_ms.clone()),
            ]),
            round,
        }
    }

    fn quorum(&self) -> String {
        match self.deadline_ns() {
            Some(_) => format!(
                "{} of {} after {} ms, all of them before",
                self.needed(),
                self.asked,
                self.deadline_ms
            ),
            None => format!("{} of {}", self.needed(), self.asked),
        }
    }
}

fn number(value: &str) -> f64 {
    value.parse().expect("axis values are checked beforehand")
}

/// All that was asked for. Who needs all answers waits for them whatever the deadline.
fn all_waits(lab: &Lab<'_>) -> Vec<Waits> {
    let mut all = Vec::new();
    for asked in lab.numbers(&ASKED) {
        for needed_percent in lab.values(&NEEDED_PERCENT) {
            let waits = lab.values(&DEADLINE_MS).into_iter().map(|deadline_ms| Waits {
                asked: asked as u32,
                needed_percent: needed_percent.clone(),
                deadline_ms,
            });
            all.extend(waits.filter(|waits| waits.deadline_ns().is_none() || waits.needed() < waits.asked));
        }
    }
    all
}

fn simulate_all(lab: &mut Lab<'_>) -> anyhow::Result<()> {
    let calls_count = match lab.choice.depth {
        Depth::Full => 10_000,
        Depth::Tour => 4_000,
        Depth::Smallest => 500,
    };
    let all = all_waits(lab);
    lab.progress.set_length(all.len() as u64);
    for waits in all {
        lab.progress.set_message(waits.quorum());
        for round in 0..ROUNDS_COUNT {
            if lab.interrupted() {
                return Ok(());
            }
            let row = measure(lab, &waits, round, calls_count);
            lab.record(row)?;
        }
        lab.progress.inc(1);
    }
    Ok(())
}

fn ask_all(experiment: &FanoutQuorum, lab: &mut Lab<'_>) -> anyhow::Result<()> {
    let is_chosen = [ASKED, NEEDED_PERCENT, DEADLINE_MS]
        .iter()
        .any(|axis| lab.choice.axes.contains_key(axis.name));
    let mut wanted = match is_chosen || lab.choice.depth == Depth::Smallest {
        true => all_waits(lab),
        false => NODE_ARMS
            .map(|(asked, needed_percent, deadline_ms)| Waits {
                asked,
                needed_percent: needed_percent.to_owned(),
                deadline_ms: deadline_ms.to_owned(),
            })
            .to_vec(),
    };
    wanted.retain(|waits| {
        if waits.asked > NODES_MAX {
            lab.say(&format!(
                "{} real nodes are left out: each is a process of this machine, and {NODES_MAX} are the most; the simulator has the rest",
                waits.asked
            ));
        }
        waits.asked <= NODES_MAX
    });
    let mut arms: Vec<(&'static BackEnd, Waits)> = Vec::new();
    for backend in lab.backends(experiment) {
        arms.extend(wanted.iter().map(|waits| (backend, waits.clone())));
    }
    let rounds_count = real_nodes::rounds_count(lab, ROUNDS_COUNT);
    lab.in_rounds(&arms, rounds_count, |lab, turn| {
        let (backend, waits) = turn.arm;
        lab.progress
            .set_message(format!("{}, real nodes, round {}", waits.quorum(), turn.round + 1));
        lab.record_until_valid(|lab| ask(lab, backend, waits, (turn.round, turn.number)))
    })
}

fn ask(lab: &Lab<'_>, backend: &'static BackEnd, waits: &Waits, (round, number): (u32, u32)) -> anyhow::Result<Row> {
    let seed = real_nodes::seed_of(lab, round);
    let patience = Duration::from_secs(2);
    let plan = FleetPlan::new(
        backend,
        waits.asked as usize,
        SERVICE_OF_NODES,
        patience,
        (number, seed),
    );
    let (rate_per_s, full) = if waits.asked > 10 { CALLS_OF_MANY } else { CALLS_OF_FEW };
    let calls = real_nodes::calls(rate_per_s, real_nodes::trial(lab, full), seed)?;
    let (mut row, _) = real_nodes::ask(lab, waits.at(NODES, round), &plan, &calls, waits.policy(), waits.asked)?;
    row.facts.insert("quorum".to_owned(), waits.quorum());
    Ok(row)
}

fn needed_count(asked: u32, percent: f64) -> u32 {
    ((f64::from(asked) * percent / 100.0).ceil() as u32).clamp(1, asked)
}

fn measure(lab: &Lab<'_>, waits: &Waits, round: u32, calls_count: u64) -> Row {
    let (asked, needed) = (waits.asked, waits.needed());
    let options = ClusterOptions {
        nodes_count: asked as usize,
        workers_count: 16,
        gap_ns_mean: 20e6,
        service: SERVICE,
        way_ns: WAY_NS,
        loss_ratio: 0.0,
        stalls: None,
        stalls_are_shared: false,
        surge: None,
        patience_ns: 60_000_000_000,
        seed: seed_of(lab, round),
    };
    let oracle_ns = oracle_ns(asked, needed, 0.99);
    // Half a nanosecond more: latencies are whole ones.
    let expected = oracle::kth_of_n_within(SERVICE.ratio_within(oracle_ns + 0.5), needed, asked);
    let limit_ns = oracle_ns + 0.5 + 2.0 * WAY_NS as f64;
    let mut beyond_count = 0u64;
    let mut row = simulate(
        lab,
        waits.at(SIM, round),
        options,
        waits.policy(),
        calls_count,
        asked,
        &mut |outcome| {
            beyond_count += u64::from(outcome.took_ns.is_none_or(|ns| ns as f64 > limit_ns));
        },
    );
    // What is waited for after a deadline is no order statistic.
    if waits.deadline_ns().is_none() {
        let deviations = judge::deviations(beyond_count, calls_count, 1.0 - expected);
        row.put("oracle_p99", oracle_ns + 2.0 * WAY_NS as f64, "ns", Better::Neither);
        row.put(judge::DEVIATIONS, deviations, "standard deviations", Better::Lower);
    }
    row.fact("quorum", waits.quorum());
    row.fact("service", SERVICE.to_string());
    row.into_row()
}

/// The time within which a share `q` of the k-th of n answers come, without the way.
fn oracle_ns(asked: u32, needed: u32, q: f64) -> f64 {
    let within = |t_ns: f64| oracle::kth_of_n_within(SERVICE.ratio_within(t_ns), needed, asked);
    let (mut low, mut high) = (0.0, 1e6);
    while within(high) < q {
        (low, high) = (high, high * 2.0);
    }
    while high - low > high * 1e-9 {
        let middle = f64::midpoint(low, high);
        match within(middle) < q {
            true => low = middle,
            false => high = middle,
        }
    }
    high
}

const WORK: &str = "Dean and Barroso, The Tail at Scale, CACM 56(2), 2013";

const CLAIMS: &[Claim] = &[
    Claim {
        id: "fanout-quorum",
        sentence: "A majority of five has less than a third of the p99.9 of all five",
        source: Source::Ours {
            seen: "order statistics of a lognormal answer; replicas as tail cutters",
        },
        invariant: "p99.9 of 3 of 5 ÷ p99.9 of 5 of 5, the same arrivals and answers, a ratio a seed.",
        judge: |table| cut(table, BACKEND, ("5", "50", "0"), 0.999, Bound::AtMost(1.0 / 3.0)),
    },
    Claim {
        id: "fanout-quorum-nodes",
        sentence: "The same with five real nodes over UDP",
        source: Source::Ours { seen: "as before" },
        invariant: "Five processes that sleep by timers; a ratio a round.",
        judge: |table| cut(table, REAL, ("5", "50", "0"), 0.999, Bound::AtMost(1.0 / 3.0)),
    },
    Claim {
        id: "good-enough",
        sentence: "Of a hundred leaves the slowest five make half of the p99: who is content with 95 waits half as long, or less",
        source: Source::Published {
            work: WORK,
            place: "table 1: p99 of all leaves 140 ms, of 95 % of them 70 ms",
        },
        invariant: "p99 of 95 of 100 ÷ p99 of 100 of 100. A leaf has the paper's p50, p95 and p99; its tail beyond is lognormal, and leaves have \
                    nothing to do with each other, which the paper's have.",
        judge: |table| cut(table, BACKEND, ("100", "95", "0"), 0.99, Bound::AtMost(0.5)),
    },
    Claim {
        id: "good-enough-nodes",
        sentence: "The same with a hundred real leaves over UDP",
        source: Source::Published {
            work: WORK,
            place: "as before",
        },
        invariant: "A hundred processes that sleep by timers; a ratio a round.",
        judge: |table| cut(table, REAL, ("100", "95", "0"), 0.99, Bound::AtMost(0.5)),
    },
    Claim {
        id: "good-enough-deadline",
        sentence: "Who waits for all until 10 ms and then is content with 95 of 100 has at most half the p99, for no more requests, and lacks at \
                   most one result in 80",
        source: Source::Published {
            work: WORK,
            place: "\"Large information retrieval systems\": good-enough responses; 10 ms and one in 80 are ours: a leaf's p99 is 10 ms",
        },
        invariant: "As before, and results that had not come when the call was done, of all that were asked for, in the worst row.",
        judge: |table| judge::all(good_enough(table, BACKEND)),
    },
    Claim {
        id: "good-enough-deadline-nodes",
        sentence: "The same with a hundred real leaves over UDP",
        source: Source::Published {
            work: WORK,
            place: "as before",
        },
        invariant: "A hundred processes that sleep by timers; a ratio a round. A real leaf may be late by itself as well.",
        judge: |table| judge::all(good_enough(table, REAL)),
    },
    Claim {
        id: "fanout-order-statistics",
        sentence: "The p99 of every k of n is that of the k-th smallest of n answers",
        source: Source::Ours {
            seen: "David and Nagaraja, Order Statistics, eq. 2.1.3, as code that knows nothing of the simulator",
        },
        invariant: "Counts beyond the oracle's p99 within 5 standard deviations of a binomial distribution's mean, in every row.",
        judge: |table| judge::as_the_oracle_counts(table, "no row with part=sim deadline_ms=0"),
    },
];

fn axis<'a>((asked, needed, deadline): (&'a str, &'a str, &'a str)) -> [(&'a str, &'a str); 3] {
    [
        (ASKED.name, asked),
        (NEEDED_PERCENT.name, needed),
        (DEADLINE_MS.name, deadline),
    ]
}

/// A quantile of those that wait for fewer ÷ that of those that wait for all.
fn cut(table: &Table, backend: &str, less: (&str, &str, &str), q: f64, bound: Bound) -> Judgement {
    let (a, b) = (axis(less), axis((less.0, "100", "0")));
    let after = match less.2 {
        "0" => String::new(),
        deadline_ms => format!(" after {deadline_ms} ms"),
    };
    judge::ratio(
        table,
        &format!(
            "p{} of {} % of {}{after} ÷ of all, {backend}",
            q * 100.0,
            less.1,
            less.0
        ),
        (Arm::of(backend, &a), Arm::of(backend, &b)),
        latency_ns(q),
        bound,
    )
}

/// It is fast, asks no more, and lacks little.
fn good_enough(table: &Table, backend: &str) -> Vec<Judgement> {
    const MISSING_MAX: f64 = 1.0 / 80.0;
    let at = ("100", "95", "10");
    let worst = |metric: &str, limit: f64| judge::worst(table, Arm::of(backend, &axis(at)), metric, limit);
    vec![
        cut(table, backend, at, 0.99, Bound::AtMost(0.5)),
        worst("missing_ratio", MISSING_MAX),
        worst("extra_requests_ratio", 0.0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_the_papers_percentiles_and_a_majority_is_one() {
        for (q, ms) in [(0.5, 1.0), (0.95, 5.0), (0.99, 10.0)] {
            assert!((oracle_ns(1, 1, q) / 1e6 / ms - 1.0).abs() < 0.03, "{q}");
        }
        assert_eq!([3, 5, 7].map(|count| needed_count(count, 50.0)), [2, 3, 4]);
        assert_eq!(needed_count(100, 95.0), 95);
    }
}
