//! `retry-storm`: a failure that outlasts its cause, because clients ask again.

use std::{collections::BTreeMap, time::Duration};

use dataplane_service::{
    policy::{Budget, Choice, FanOut, Policy, Retry},
    service_time::ServiceTime,
    sim::{self, ClusterOptions},
};

use crate::{
    backends::BackEnd,
    claim::{Claim, Judgement, Source},
    experiment::{Allowed, Axis, Experiment, Lab},
    experiments::{
        judge::{self, measured},
        real_nodes::{self, NODES, PART, REAL, SIM, in_parts},
        virtual_nodes::{At, seed_of, simulate},
        virtual_time::BACKEND,
    },
    load::schedule::Schedule,
    record::{Better, Metric, Outcome, Row},
    service::{fleet::FleetPlan, plan::ServicePlan},
    table::{Arm, Table},
};

/// See the module.
#[derive(Debug)]
pub struct RetryStorm;

const POLICY: Axis = Axis {
    name: "policy",
    meaning: "none: a call that times out is given up; unbounded: it is asked twice more; budget: twice more, but no more retries than a tenth \
              of the calls",
    full: &[NONE, UNBOUNDED, BUDGET],
    tour: &[NONE, UNBOUNDED, BUDGET],
    smallest: BUDGET,
    allowed: Allowed::Words,
};

const LOAD_RATIO: Axis = Axis {
    name: "load_ratio",
    meaning: "share of the time in which nodes are busy with what one request a call takes",
    full: &["0.2", "0.5", "0.7"],
    tour: &["0.7"],
    smallest: "0.7",
    allowed: Allowed::Number(0.05, 0.95),
};

const NONE: &str = "none";
const UNBOUNDED: &str = "unbounded";
const BUDGET: &str = "budget";

const NODES_COUNT: usize = 4;
const ATTEMPTS_MAX: u32 = 3;
/// Real nodes, if nothing else is asked for: the load of the claims.
const NODE_LOADS: [&str; 1] = ["0.7"];
/// Of real nodes: a round takes three times twelve seconds.
const NODE_ROUNDS_COUNT: u32 = 2;

/// What happens when. Times in nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Story {
    service_ns_mean: f64,
    /// Fifty times as long.
    timeout_ns: u64,
    /// The trigger: from when to when.
    surge_ns: (u64, u64),
    /// So many times as many calls.
    surge_times: f64,
    /// From then on it is long after the trigger.
    after_ns: u64,
    end_ns: u64,
}

const OF_SIM: Story = Story {
    service_ns_mean: 1e6,
    timeout_ns: 50_000_000,
    surge_ns: (5_000_000_000, 6_000_000_000),
    surge_times: 4.0,
    after_ns: 20_000_000_000,
    end_ns: 30_000_000_000,
};

/// Of real nodes. What their timers are late by is some hundredths of 2 ms; the surge is short, so that a service that recovers
/// has done so in the time that there is: what it leaves behind takes eight times as long at a load of 0.7.
const OF_NODES: Story = Story {
    service_ns_mean: 2e6,
    timeout_ns: 100_000_000,
    surge_ns: (2_000_000_000, 2_500_000_000),
    surge_times: 4.0,
    after_ns: 8_500_000_000,
    end_ns: 11_500_000_000,
};

impl Story {
    fn gap_ns_mean(&self, load: &str) -> f64 {
        let load_ratio: f64 = load.parse().expect("axis values are checked beforehand");
        self.service_ns_mean / load_ratio / NODES_COUNT as f64
    }

    fn patience_ns(&self) -> u64 {
        self.timeout_ns * u64::from(ATTEMPTS_MAX) + 1
    }

    fn trigger(&self) -> String {
        let s = |ns: u64| ns as f64 / 1e9;
        format!(
            "{} times the calls from second {} to second {}; `after` is from second {} on",
            self.surge_times,
            s(self.surge_ns.0),
            s(self.surge_ns.1),
            s(self.after_ns)
        )
    }

    fn schedule(&self, load: &str, seed: u64) -> anyhow::Result<Schedule> {
        let rate_per_s = 1e9 / self.gap_ns_mean(load);
        let (from_ns, to_ns) = self.surge_ns;
        let part = |times: f64, ns: u64, index: u64| {
            real_nodes::calls(rate_per_s * times, Duration::from_nanos(ns), seed ^ index << 16)
        };
        let surge = part(self.surge_times, to_ns - from_ns, 1)?;
        let rest = part(1.0, self.end_ns - to_ns, 2)?;
        Ok(part(1.0, from_ns, 0)?.then(&surge).then(&rest))
    }
}

impl Experiment for RetryStorm {
    fn id(&self) -> &'static str {
        "retry-storm"
    }

    fn title(&self) -> &'static str {
        "Retry storms"
    }

    fn question(&self) -> &'static str {
        "Does a service recover when too much load is gone, if its clients ask again whenever they time out?"
    }

    fn how(&self) -> &'static str {
        "Four nodes at a load that they can bear, and for a second four times that. A call times out after 50 times what a request takes; the \
         client gives up, or asks another node, with a budget or without. Nodes serve whatever is in their queue, also what nobody waits for any \
         more. In virtual time, and with real nodes, processes that sleep by timers (whose surge lasts half a second)."
    }

    fn axes(&self) -> &'static [Axis] {
        &[PART, POLICY, LOAD_RATIO]
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

fn simulate_all(lab: &mut Lab<'_>) -> anyhow::Result<()> {
    let (policies, loads) = (lab.values(&POLICY), lab.values(&LOAD_RATIO));
    lab.progress.set_length((policies.len() * loads.len()) as u64);
    for (load, name) in loads
        .iter()
        .flat_map(|load| policies.iter().map(move |policy| (load, policy)))
    {
        if lab.interrupted() {
            return Ok(());
        }
        lab.progress.set_message(format!("{name} at {load}"));
        let row = measure(lab, name, load);
        lab.record(row)?;
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

fn ask_all(experiment: &RetryStorm, lab: &mut Lab<'_>) -> anyhow::Result<()> {
    let (policies, loads) = (
        lab.values(&POLICY),
        real_nodes::values_or(lab, &LOAD_RATIO, &NODE_LOADS),
    );
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
    let rounds_count = real_nodes::rounds_count(lab, NODE_ROUNDS_COUNT);
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
    let story = OF_NODES;
    let service = ServicePlan::Exponential {
        mean_ns: story.service_ns_mean,
    };
    let patience = Duration::from_nanos(story.patience_ns());
    let mut plan = FleetPlan::new(arm.backend, NODES_COUNT, service, patience, (number, seed));
    plan.node.workers_count = 1;
    plan.client.slow_over = Duration::from_nanos(story.timeout_ns);
    plan.client.warm_up = Duration::ZERO;
    plan.client.keeps_outcomes = true;
    let calls = story.schedule(&arm.load, seed)?;
    let at = at(NODES, &arm.policy, &arm.load, round);
    let (mut row, found) = real_nodes::ask(lab, at, &plan, &calls, policy(&arm.policy, story), 1)?;
    let mut course = Course::new(story);
    found.client.outcomes.iter().for_each(|outcome| course.hear(outcome));
    for (name, value, unit, better) in course.figures() {
        let unit = unit.to_owned();
        row.metrics.insert(name.to_owned(), Metric { value, unit, better });
    }
    row.facts.insert("trigger".to_owned(), story.trigger());
    Ok(row)
}

fn at(part: &str, policy: &str, load: &str, round: u32) -> At {
    At {
        experiment: RetryStorm.id(),
        axis: BTreeMap::from([
            (PART.name.to_owned(), part.to_owned()),
            (POLICY.name.to_owned(), policy.to_owned()),
            (LOAD_RATIO.name.to_owned(), load.to_owned()),
        ]),
        round,
    }
}

/// Calls, and those that were answered in time.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    calls_count: u64,
    answered_count: u64,
}

impl Part {
    fn ratio(self) -> f64 {
        self.answered_count as f64 / self.calls_count.max(1) as f64
    }
}

/// How a service fared before, during and after.
struct Course {
    story: Story,
    before: Part,
    after: Part,
    /// By tenths of a second.
    steps: BTreeMap<u64, Part>,
}

const STEP_NS: u64 = 100_000_000;

impl Course {
    fn new(story: Story) -> Course {
        Course {
            story,
            before: Part::default(),
            after: Part::default(),
            steps: BTreeMap::new(),
        }
    }

    fn hear(&mut self, outcome: &sim::Outcome) {
        let started_ns = outcome.started_ns;
        let mut parts = vec![self.steps.entry(started_ns / STEP_NS).or_default()];
        if started_ns < self.story.surge_ns.0 {
            parts.push(&mut self.before);
        }
        if started_ns >= self.story.after_ns {
            parts.push(&mut self.after);
        }
        for part in parts {
            part.calls_count += 1;
            part.answered_count += u64::from(outcome.took_ns.is_some_and(|ns| ns <= self.story.timeout_ns));
        }
    }

    fn figures(&self) -> [(&'static str, f64, &'static str, Better); 3] {
        // When calls were last answered worse than nine times in ten.
        let bad = self.steps.iter().rev().find(|(_, part)| part.ratio() < 0.9);
        let surge_end_ns = self.story.surge_ns.1;
        let recovered_s = bad.map_or(0.0, |(step, _)| {
            ((step + 1) * STEP_NS).saturating_sub(surge_end_ns) as f64 / 1e9
        });
        [
            ("answered_before_ratio", self.before.ratio(), "ratio", Better::Higher),
            ("answered_after_ratio", self.after.ratio(), "ratio", Better::Higher),
            ("recovered_after", recovered_s, "s", Better::Lower),
        ]
    }
}

fn measure(lab: &Lab<'_>, name: &str, load: &str) -> Row {
    let story = OF_SIM;
    let gap_ns_mean = story.gap_ns_mean(load);
    let (from_ns, to_ns) = story.surge_ns;
    let options = ClusterOptions {
        nodes_count: NODES_COUNT,
        workers_count: 1,
        service: ServiceTime::Exponential {
            mean_ns: story.service_ns_mean,
        },
        gap_ns_mean,
        way_ns: 20_000,
        loss_ratio: 0.0,
        stalls: None,
        stalls_are_shared: false,
        surge: Some((from_ns, to_ns, story.surge_times)),
        patience_ns: story.patience_ns(),
        seed: seed_of(lab, 0),
    };
    let more_ns = (to_ns - from_ns) as f64 * (story.surge_times - 1.0);
    let calls_count = ((story.end_ns as f64 + more_ns) / gap_ns_mean) as u64;
    let mut course = Course::new(story);
    let at = at(SIM, name, load, 0);
    let mut row = simulate(lab, at, options, policy(name, story), calls_count, 1, &mut |outcome| {
        course.hear(&outcome);
    });
    for (name, value, unit, better) in course.figures() {
        row.put(name, value, unit, better);
    }
    row.fact("trigger", story.trigger());
    row.into_row()
}

fn policy(name: &str, story: Story) -> Box<dyn Policy> {
    let retry = |budget| Retry::new(story.timeout_ns, ATTEMPTS_MAX, budget, Choice::Random);
    match name {
        UNBOUNDED => Box::new(retry(Budget::Unbounded)),
        BUDGET => Box::new(retry(Budget::Ratio(0.1))),
        _ => Box::new(FanOut {
            asked_count: 1,
            needed_count: 1,
            choice: Choice::Random,
        }),
    }
}

const BRONSON: Source = Source::Published {
    work: "Bronson et al., Metastable failures in distributed systems, HotOS 2021",
    place: "§2.1: retries as the sustaining effect; loads, time-outs and limits are ours",
};

const CLAIMS: &[Claim] = &[
    Claim {
        id: "retry-storm",
        sentence: "With unbounded retries a surge of one second leaves a service that answers less than half of its calls in time fourteen seconds \
                   later, at a load of 0.7 that it bore before",
        source: BRONSON,
        invariant: "Virtual time. Before the surge at least 99 % of the calls are answered in time; from second 20 on at most half.",
        judge: |table| storm(table, BACKEND),
    },
    Claim {
        id: "retry-storm-nodes",
        sentence: "The same with real nodes over UDP, six seconds after a surge of half a second",
        source: BRONSON,
        invariant: "Four processes with one worker each, a timer; every valid round: before the surge at least 99 % of the calls are answered in \
                    time; from second 8.5 on at most half.",
        judge: |table| storm(table, REAL),
    },
    Claim {
        id: "retry-budget",
        sentence: "With retries for a tenth of the calls at most, or without any, the same service recovers",
        source: BRONSON,
        invariant: "From second 20 on at least 99 % of the calls are answered in time.",
        judge: |table| recovery(table, BACKEND, 0.99),
    },
    Claim {
        id: "retry-budget-nodes",
        sentence: "The same with real nodes over UDP",
        source: BRONSON,
        invariant: "Every valid round: from second 8.5 on at least 95 % of the calls are answered in time. Real ones take a little longer than \
                    was meant, and have six seconds.",
        judge: |table| recovery(table, REAL, 0.95),
    },
];

fn storm(table: &Table, backend: &str) -> Judgement {
    judge::all(vec![
        at_least(table, backend, UNBOUNDED, "answered_before_ratio", 0.99),
        held(table, backend, UNBOUNDED, "answered_after_ratio", Limit::AtMost(0.5)),
    ])
}

fn recovery(table: &Table, backend: &str, limit: f64) -> Judgement {
    judge::all(vec![
        at_least(table, backend, BUDGET, "answered_after_ratio", limit),
        at_least(table, backend, NONE, "answered_after_ratio", limit),
    ])
}

fn at_least(table: &Table, backend: &str, policy: &str, name: &str, limit: f64) -> Judgement {
    held(table, backend, policy, name, Limit::AtLeast(limit))
}

#[derive(Clone, Copy)]
enum Limit {
    AtLeast(f64),
    AtMost(f64),
}

/// A share of every row held against a limit; the row that is worst for it is the one that is told of.
fn held(table: &Table, backend: &str, policy: &str, name: &str, limit: Limit) -> Judgement {
    let axis = [(POLICY.name, policy), (LOAD_RATIO.name, "0.7")];
    let arm = Arm::of(backend, &axis);
    let rows = table.arm(arm);
    let values = rows.iter().filter_map(|row| Some(row.metrics.get(name)?.value));
    let (worst, bound) = match limit {
        Limit::AtLeast(bound) => (values.min_by(f64::total_cmp), format!("≥ {bound}")),
        Limit::AtMost(bound) => (values.max_by(f64::total_cmp), format!("≤ {bound}")),
    };
    let Some(value) = worst else {
        return table.lacking(arm);
    };
    let holds = match limit {
        Limit::AtLeast(bound) => value >= bound,
        Limit::AtMost(bound) => value <= bound,
    };
    let outcome = if holds { Outcome::Holds } else { Outcome::Fails };
    let what = format!("{name}, {policy}, {backend}");
    Judgement::new(
        outcome,
        vec![measured(what, Some(value), "ratio", bound, rows.len() as u64)],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::virtual_time::row_of;

    #[test]
    fn a_storm_that_ends_by_itself_is_none() {
        let judge = |after| {
            let rows = vec![row_of(
                &[("policy", UNBOUNDED), ("load_ratio", "0.7")],
                &[("answered_before_ratio", 1.0), ("answered_after_ratio", after)],
            )];
            (CLAIMS[0].judge)(&Table { rows, seed: 1 }).outcome
        };
        assert_eq!(judge(0.1), Outcome::Holds);
        assert_eq!(judge(0.9), Outcome::Fails);
    }
}
