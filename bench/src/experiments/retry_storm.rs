//! `retry-storm`: a failure that outlasts its cause, because clients ask again.

use std::collections::BTreeMap;

use dataplane_service::{
    policy::{Budget, Choice, FanOut, Policy, Retry},
    service_time::ServiceTime,
    sim::ClusterOptions,
};

use crate::{
    claim::{Claim, Judgement, Source},
    experiment::{Allowed, Axis, Experiment, Lab},
    experiments::{
        judge::{self, measured},
        virtual_nodes::{At, seed_of, simulate},
    },
    record::{Better, Outcome, Row},
    table::Table,
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
const SERVICE_NS_MEAN: f64 = 1e6;
const TIMEOUT_NS: u64 = 50_000_000;
const ATTEMPTS_MAX: u32 = 3;
/// The trigger: so many times as many calls, from second 5 to second 6.
const SURGE: (u64, u64, f64) = (5_000_000_000, 6_000_000_000, 4.0);
/// The run, and its last part: long after the trigger is gone.
const RUN_NS: u64 = 30_000_000_000;
const AFTER_NS: u64 = 20_000_000_000;

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
        "Four nodes in virtual time at a load that they can bear, and for one second four times that. A call times out after 50 ms, 50 times \
         what a request takes; the client gives up, or asks another node, with a budget or without. Nodes serve whatever is in their queue, also \
         what nobody waits for any more."
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

fn measure(lab: &Lab<'_>, name: &str, load: &str) -> Row {
    let load_ratio: f64 = load.parse().expect("axis values are checked beforehand");
    let gap_ns_mean = SERVICE_NS_MEAN / load_ratio / NODES_COUNT as f64;
    let options = ClusterOptions {
        nodes_count: NODES_COUNT,
        workers_count: 1,
        service: ServiceTime::Exponential {
            mean_ns: SERVICE_NS_MEAN,
        },
        gap_ns_mean,
        way_ns: 20_000,
        loss_ratio: 0.0,
        stalls: None,
        stalls_are_shared: false,
        surge: Some(SURGE),
        patience_ns: TIMEOUT_NS * u64::from(ATTEMPTS_MAX) + 1,
        seed: seed_of(lab, 0),
    };
    let surge_ns = (SURGE.1 - SURGE.0) as f64;
    let calls_count = ((RUN_NS as f64 + surge_ns * (SURGE.2 - 1.0)) / gap_ns_mean) as u64;
    let (mut before, mut after) = (Part::default(), Part::default());
    // When calls were last answered worse than nine times in ten, in a tenth of a second.
    const STEP_NS: u64 = 100_000_000;
    let mut steps: BTreeMap<u64, Part> = BTreeMap::new();
    let at = At {
        experiment: RetryStorm.id(),
        axis: BTreeMap::from([
            (POLICY.name.to_owned(), name.to_owned()),
            (LOAD_RATIO.name.to_owned(), load.to_owned()),
        ]),
        round: 0,
    };
    let mut row = simulate(lab, at, options, policy(name), calls_count, 1, &mut |outcome| {
        let mut parts = vec![steps.entry(outcome.started_ns / STEP_NS).or_default()];
        if outcome.started_ns < SURGE.0 {
            parts.push(&mut before);
        }
        if outcome.started_ns >= AFTER_NS {
            parts.push(&mut after);
        }
        for part in parts {
            part.calls_count += 1;
            part.answered_count += u64::from(outcome.took_ns.is_some_and(|ns| ns <= TIMEOUT_NS));
        }
    });
    let bad = steps
        .iter()
        .rev()
        .find(|(_, part)| part.ratio() < 0.9)
        .map(|(step, _)| *step);
    let recovered_s = bad.map_or(0.0, |step| ((step + 1) * STEP_NS).saturating_sub(SURGE.1) as f64 / 1e9);
    row.put("answered_before_ratio", before.ratio(), "ratio", Better::Higher);
    row.put("answered_after_ratio", after.ratio(), "ratio", Better::Higher);
    row.put("recovered_after", recovered_s, "s", Better::Lower);
    row.fact(
        "trigger",
        format!(
            "{} times the calls from second 5 to second 6; `after` is from second 20 on",
            SURGE.2
        ),
    );
    row.into_row()
}

fn policy(name: &str) -> Box<dyn Policy> {
    let retry = |attempts_max, budget| Retry::new(TIMEOUT_NS, attempts_max, budget, Choice::Random);
    match name {
        UNBOUNDED => Box::new(retry(ATTEMPTS_MAX, Budget::Unbounded)),
        BUDGET => Box::new(retry(ATTEMPTS_MAX, Budget::Ratio(0.1))),
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
        judge: |table| {
            judge::all(vec![
                at_least(table, UNBOUNDED, "answered_before_ratio", 0.99),
                lasts(table),
            ])
        },
    },
    Claim {
        id: "retry-budget",
        sentence: "With retries for a tenth of the calls at most, or without any, the same service recovers",
        source: BRONSON,
        invariant: "From second 20 on at least 99 % of the calls are answered in time.",
        judge: |table| {
            judge::all(vec![
                at_least(table, BUDGET, "answered_after_ratio", 0.99),
                at_least(table, NONE, "answered_after_ratio", 0.99),
            ])
        },
    },
];

fn figure(table: &Table, policy: &str, name: &str) -> Option<f64> {
    let is_there = |row: &&Row| {
        let has = |axis: &Axis, value: &str| row.axis.get(axis.name).is_some_and(|have| have == value);
        has(&POLICY, policy) && has(&LOAD_RATIO, "0.7")
    };
    Some(table.valid().find(is_there)?.metrics.get(name)?.value)
}

fn judged(table: &Table, policy: &str, name: &str, limit: String, holds: impl Fn(f64) -> bool) -> Judgement {
    let Some(value) = figure(table, policy, name) else {
        return Judgement::not_measured(format!("no row with policy={policy} load_ratio=0.7"));
    };
    let outcome = if holds(value) { Outcome::Holds } else { Outcome::Fails };
    Judgement::new(
        outcome,
        vec![measured(format!("{name}, {policy}"), Some(value), "ratio", limit, 1)],
    )
}

fn at_least(table: &Table, policy: &str, name: &str, limit: f64) -> Judgement {
    judged(table, policy, name, format!("≥ {limit}"), |value| value >= limit)
}

fn lasts(table: &Table) -> Judgement {
    judged(table, UNBOUNDED, "answered_after_ratio", "≤ 0.5".to_owned(), |value| {
        value <= 0.5
    })
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
