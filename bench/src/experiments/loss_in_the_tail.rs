//! `loss-in-the-tail`: what a few lost messages do to a percentile: nothing below it, and the whole time-out above.

use std::{collections::BTreeMap, time::Duration};

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
        judge::{self, Bound},
        real_nodes::{self, NODES, PART, REAL, SIM, in_parts},
        virtual_nodes::{At, seed_of, simulate},
        virtual_time::BACKEND,
    },
    record::{Better, Metric, Row},
    service::{fleet::FleetPlan, plan::ServicePlan},
    table::{Arm, Table, latency_ns},
};

/// See the module.
#[derive(Debug)]
pub struct LossInTheTail;

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

const NODES_COUNT: usize = 4;
const SERVICE_NS_MEAN: f64 = 200_000.0;
const CALLS_PER_S: f64 = 1_500.0;
/// As TCP would go on trying.
const ATTEMPTS_MAX: u32 = 8;
const ROUNDS_COUNT: u32 = 8;
/// A trial whose p99.9 is supported: 3,688 calls and some.
const TRIAL: Duration = Duration::from_millis(3_000);

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
            let off = judge::deviations(late_count, calls_count, loss_ratio);
            row.put(
                "late_ratio",
                late_count as f64 / calls_count as f64,
                "ratio",
                Better::Lower,
            );
            row.put(judge::DEVIATIONS, off, "standard deviations", Better::Lower);
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
    let rounds_count = real_nodes::rounds_count(lab, ROUNDS_COUNT);
    lab.in_rounds(&arms, rounds_count, |lab, turn| {
        let arm = turn.arm;
        lab.progress.set_message(format!(
            "{} % lost, {} ms, real nodes, round {}",
            arm.loss_percent,
            arm.timeout_ms,
            turn.round + 1
        ));
        lab.record_until_valid(|lab| ask(lab, arm, turn.round, turn.number))
    })
}

fn ask(lab: &Lab<'_>, arm: &NodeArm, round: u32, number: u32) -> anyhow::Result<Row> {
    let seed = real_nodes::seed_of(lab, round);
    let timeout_ms = self::number(&arm.timeout_ms);
    let service = ServicePlan::Deterministic {
        ns: SERVICE_NS_MEAN as u64,
    };
    let mut plan = FleetPlan::new(
        arm.backend,
        NODES_COUNT,
        service,
        Duration::from_secs(5),
        (number, seed),
    );
    plan.loss_ratio = self::number(&arm.loss_percent) / 100.0;
    plan.client.slow_over = Duration::from_secs_f64(timeout_ms / 1e3);
    let at = At {
        experiment: LossInTheTail.id(),
        axis: axis(NODES, &arm.loss_percent, &arm.timeout_ms),
        round,
    };
    let calls = real_nodes::calls(CALLS_PER_S, real_nodes::trial(lab, TRIAL), seed)?;
    let (mut row, _) = real_nodes::ask(lab, at, &plan, &calls, Box::new(policy(timeout_ms)), 1)?;
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
        judge: |table| judge::as_the_oracle_counts(table, "no row with part=sim"),
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
        ratio(table, REAL, ("2", "20"), 0.999, Bound::AtLeast(5.0)),
        ratio(table, REAL, ("2", "20"), 0.5, Bound::Within(0.9, 1.1)),
    ])
}
