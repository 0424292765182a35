//! `loss-in-the-tail`: what a few lost messages do to a percentile: nothing below it, and the whole time-out above.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context;
use dataplane_service::{
    policy::{Budget, Choice, Retry},
    service_time::ServiceTime,
    sim::ClusterOptions,
};

use crate::{
    backends::BackEnd,
    claim::{Claim, Judgement, Source},
    experiment::{Allowed, Axis, Depth, Experiment, Lab},
    experiments::{
        judge::{self, Bound, measured},
        virtual_nodes::{At, seed_of, simulate},
        virtual_time::BACKEND,
    },
    load::schedule::Schedule,
    record::{Better, Metric, Outcome, Row},
    service::{
        client::ClientOptions,
        fleet::{self, FleetPlan},
        plan::{NodePlan, ServicePlan, WorkerPlan},
        row,
    },
    table::{Arm, Table, latency_ns},
    trial::Position,
};

/// See the module.
#[derive(Debug)]
pub struct LossInTheTail;

const PART: Axis = Axis {
    name: "part",
    meaning: "sim: nodes in virtual time; nodes: real ones over UDP, and requests that the client's port loses",
    full: &[SIM, NODES],
    tour: &[SIM],
    smallest: SIM,
    allowed: Allowed::Words,
};

const LOSS_PERCENT: Axis = Axis {
    name: "loss_percent",
    meaning: "of all calls whose request or answer is lost at the first attempt",
    full: &["0", "0.02", "0.2", "2"],
    tour: &["0", "0.2"],
    smallest: "2",
    allowed: Allowed::Number(0.0, 50.0),
};

const TIMEOUT_MS: Axis = Axis {
    name: "timeout_ms",
    meaning: "after how long a request is sent again: 200 is Linux's least retransmission time-out",
    full: &["2", "20", "200"],
    tour: &["200"],
    smallest: "20",
    allowed: Allowed::Number(1.0, 1_000.0),
};

const SIM: &str = "sim";
const NODES: &str = "nodes";

const NODES_COUNT: usize = 4;
const SERVICE_NS_MEAN: f64 = 200_000.0;
const CALLS_PER_S: f64 = 1_500.0;
/// As TCP would go on trying.
const ATTEMPTS_MAX: u32 = 8;
const ROUNDS_COUNT: u32 = 8;
/// A trial whose p99.9 is supported: 3,688 calls and some.
const TRIAL: Duration = Duration::from_millis(3_000);
/// Counts of a binomial distribution lie within as many standard deviations of their mean but for one time in two million.
const DEVIATIONS_MAX: f64 = 5.0;

impl Experiment for LossInTheTail {
    fn id(&self) -> &'static str {
        "loss-in-the-tail"
    }

    fn title(&self) -> &'static str {
        "Loss in the tail"
    }

    fn question(&self) -> &'static str {
        "What does one lost message in a thousand do to a p99.9?"
    }

    fn how(&self) -> &'static str {
        "A client asks nodes at rest, which answer in 0.2 ms on average. A share of the calls lose their request or their answer, and the client \
         asks again after a time-out. In virtual time, and with real nodes over UDP whose client's port loses what it sends."
    }

    fn axes(&self) -> &'static [Axis] {
        &[PART, LOSS_PERCENT, TIMEOUT_MS]
    }

    fn backends(&self) -> Vec<&'static str> {
        vec!["udp-epoll"]
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
        for part in lab.values(&PART) {
            match part.as_str() {
                SIM => simulate_all(lab)?,
                _ => ask_all(self, lab)?,
            }
        }
        Ok(())
    }
}

fn axis(part: &str, loss_percent: &str, timeout_ms: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        (PART.name.to_owned(), part.to_owned()),
        (LOSS_PERCENT.name.to_owned(), loss_percent.to_owned()),
        (TIMEOUT_MS.name.to_owned(), timeout_ms.to_owned()),
    ])
}

fn number(value: &str) -> f64 {
    value.parse().expect("axis values are checked beforehand")
}

fn policy(timeout_ms: f64) -> Retry {
    Retry::new(
        (timeout_ms * 1e6) as u64,
        ATTEMPTS_MAX,
        Budget::Unbounded,
        Choice::Random,
    )
}

/// How far the calls that needed more than one attempt are from their binomial mean.
fn deviations(late_count: f64, calls_count: f64, loss_ratio: f64) -> f64 {
    let mean = loss_ratio * calls_count;
    ((late_count - mean).abs() - 1.0).max(0.0) / (mean * (1.0 - loss_ratio)).max(1e-9).sqrt()
}

fn simulate_all(lab: &mut Lab<'_>) -> anyhow::Result<()> {
    let (losses, timeouts) = (lab.values(&LOSS_PERCENT), lab.values(&TIMEOUT_MS));
    let calls_count = match lab.choice.depth {
        Depth::Full => 60_000,
        Depth::Tour => 20_000,
        Depth::Smallest => 2_000,
    };
    lab.progress.set_length((losses.len() * timeouts.len()) as u64);
    for (loss, timeout) in losses
        .iter()
        .flat_map(|loss| timeouts.iter().map(move |timeout| (loss, timeout)))
    {
        lab.progress
            .set_message(format!("{loss} % lost, {timeout} ms, simulated"));
        for round in 0..ROUNDS_COUNT {
            if lab.interrupted() {
                return Ok(());
            }
            let loss_ratio = number(loss) / 100.0;
            let timeout_ns = (number(timeout) * 1e6) as u64;
            let options = ClusterOptions {
                nodes_count: NODES_COUNT,
                workers_count: 16,
                service: ServiceTime::Deterministic {
                    ns: SERVICE_NS_MEAN as u64,
                },
                gap_ns_mean: 1e9 / CALLS_PER_S,
                way_ns: 20_000,
                // Either of two messages.
                loss_ratio: 1.0 - (1.0 - loss_ratio).sqrt(),
                stalls: None,
                stalls_are_shared: false,
                surge: None,
                patience_ns: 60_000_000_000,
                seed: seed_of(lab, round),
            };
            let at = At {
                experiment: LossInTheTail.id(),
                axis: axis(SIM, loss, timeout),
                round,
            };
            let mut late_count = 0u64;
            let policy = Box::new(policy(number(timeout)));
            let mut row = simulate(lab, at, options, policy, calls_count, 1, &mut |outcome| {
                late_count += u64::from(outcome.took_ns.is_none_or(|ns| ns >= timeout_ns));
            });
            let off = deviations(late_count as f64, calls_count as f64, loss_ratio);
            row.put(
                "late_ratio",
                late_count as f64 / calls_count as f64,
                "ratio",
                Better::Lower,
            );
            row.put("deviations_from_oracle", off, "standard deviations", Better::Lower);
            lab.record(row.into_row())?;
        }
        lab.progress.inc(1);
    }
    Ok(())
}

/// One point with real nodes.
struct NodeArm {
    backend: &'static BackEnd,
    loss_percent: String,
    timeout_ms: String,
}

fn ask_all(experiment: &LossInTheTail, lab: &mut Lab<'_>) -> anyhow::Result<()> {
    let mut arms = Vec::new();
    for backend in lab.backends(experiment) {
        for loss_percent in lab.values(&LOSS_PERCENT) {
            arms.extend(lab.values(&TIMEOUT_MS).into_iter().map(|timeout_ms| NodeArm {
                backend,
                loss_percent: loss_percent.clone(),
                timeout_ms,
            }));
        }
    }
    let rounds_count = match lab.choice.depth {
        Depth::Smallest => 1,
        Depth::Tour | Depth::Full => ROUNDS_COUNT,
    };
    lab.in_rounds(&arms, rounds_count, |lab, turn| {
        let arm = turn.arm;
        lab.progress.set_message(format!(
            "{} % lost, {} ms, real nodes, round {}",
            arm.loss_percent,
            arm.timeout_ms,
            turn.round + 1
        ));
        let seed = lab.choice.seed ^ u64::from(turn.round) << 32;
        lab.record_until_valid(|lab| ask(lab, arm, turn.round, turn.number, seed))
    })
}

fn ask(lab: &Lab<'_>, arm: &NodeArm, round: u32, client: u32, seed: u64) -> anyhow::Result<Row> {
    let timeout_ms = number(&arm.timeout_ms);
    let plan = FleetPlan {
        backend: arm.backend,
        nodes_count: NODES_COUNT,
        nodes_per_process: 1,
        node: NodePlan {
            workers_count: 16,
            workers: WorkerPlan::Timer,
            discipline: "single-queue".to_owned(),
            quantum: Duration::ZERO,
            service: ServicePlan::Deterministic {
                ns: SERVICE_NS_MEAN as u64,
            },
            pauses: None,
            seed,
        },
        stops: None,
        loss_ratio: number(&arm.loss_percent) / 100.0,
        client: ClientOptions {
            client: client + 1,
            nodes_count: NODES_COUNT,
            patience: Duration::from_secs(5),
            service: None,
            slow_over: Duration::from_secs_f64(timeout_ms / 1e3),
            warm_up: Duration::from_millis(100),
            seed,
        },
    };
    let trial = match lab.choice.depth {
        Depth::Smallest => Duration::from_millis(400),
        Depth::Tour | Depth::Full => TRIAL,
    };
    let schedule = Schedule::poisson(CALLS_PER_S, trial, seed).context("planning the calls")?;
    let found = fleet::run(lab, &plan, &schedule, Box::new(policy(timeout_ms)))?;
    let position = Position {
        experiment: LossInTheTail.id(),
        axis: axis(NODES, &arm.loss_percent, &arm.timeout_ms),
        round,
        twin: false,
        seed,
    };
    let mut row = row::row(lab, &plan, &schedule, &found, position, 1);
    let late = row.metrics.get("slow_ratio").map_or(0.0, |metric| metric.value);
    let ratio = |value| Metric {
        value,
        unit: "ratio".to_owned(),
        better: Better::Lower,
    };
    row.metrics.insert("late_ratio".to_owned(), ratio(late));
    Ok(row)
}

const CLAIMS: &[Claim] = &[
    Claim {
        id: "loss-in-the-tail",
        sentence: "If two calls in a thousand lose a message the p99.9 is the time-out, and the p50 does not show it",
        source: Source::Ours {
            seen: "the chance of a loss against the percentile; loss-exclusion has the same with a generator that leaves the lost out",
        },
        invariant: "In virtual time, a time-out of 200 ms: p99.9 with 0.2 % ÷ without at least 100, p50 with ÷ without within 2 %, a ratio a seed.",
        judge: |table| tail_and_middle(table, BACKEND, "200"),
    },
    Claim {
        id: "loss-in-the-tail-nodes",
        sentence: "The same with real nodes over UDP, two calls in a hundred and a time-out of 20 ms",
        source: Source::Ours { seen: "as before" },
        invariant: "Paired by round: p99.9 with 2 % ÷ without at least 5, p50 with ÷ without within 10 %.",
        judge: nodes,
    },
    Claim {
        id: "loss-binomial",
        sentence: "As many calls take a time-out or longer as lose a message at the first attempt",
        source: Source::Ours {
            seen: "a binomial distribution",
        },
        invariant: "Every simulated row within 5 standard deviations of its mean.",
        judge: binomial,
    },
];

fn ratio(table: &Table, backend: &str, (with, timeout): (&str, &str), q: f64, bound: Bound) -> Judgement {
    let arm = |loss| [(LOSS_PERCENT.name, loss), (TIMEOUT_MS.name, timeout)];
    let (a, b) = (arm(with), arm("0"));
    judge::ratio(
        table,
        &format!("p{} with {with} % ÷ without loss, {backend}, {timeout} ms", q * 100.0),
        (Arm::of(backend, &a), Arm::of(backend, &b)),
        latency_ns(q),
        bound,
    )
}

fn tail_and_middle(table: &Table, backend: &str, timeout: &str) -> Judgement {
    judge::all(vec![
        ratio(table, backend, ("0.2", timeout), 0.999, Bound::AtLeast(100.0)),
        ratio(table, backend, ("0.2", timeout), 0.5, Bound::Within(0.98, 1.02)),
    ])
}

fn nodes(table: &Table) -> Judgement {
    judge::all(vec![
        ratio(table, "udp-epoll", ("2", "20"), 0.999, Bound::AtLeast(5.0)),
        ratio(table, "udp-epoll", ("2", "20"), 0.5, Bound::Within(0.9, 1.1)),
    ])
}

fn binomial(table: &Table) -> Judgement {
    let off = |row: &Row| Some(row.metrics.get("deviations_from_oracle")?.value);
    let all: Vec<f64> = table.valid().filter_map(off).collect();
    let Some(worst) = all.iter().copied().max_by(f64::total_cmp) else {
        return Judgement::not_measured("no row with part=sim");
    };
    let outcome = match worst <= DEVIATIONS_MAX {
        true => Outcome::Holds,
        false => Outcome::Fails,
    };
    let limit = format!("≤ {DEVIATIONS_MAX}");
    let what = "the farthest count from its mean";
    Judgement::new(
        outcome,
        vec![measured(
            what,
            Some(worst),
            "standard deviations",
            limit,
            all.len() as u64,
        )],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_that_chance_does_not_explain_are_seen() {
        assert!(deviations(205.0, 100_000.0, 0.002) < 1.0);
        assert!(deviations(300.0, 100_000.0, 0.002) > DEVIATIONS_MAX);
        assert_eq!(deviations(0.0, 1_000.0, 0.0), 0.0);
    }
}
