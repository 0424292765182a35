//! Disciplines in real nodes: workers that are timers, threads that sleep, or threads that work.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use dataplane_service::policy::{Choice, FanOut};

use super::{DISCIPLINE, LOAD_RATIO, NODES, PART, SERVICE, WORKERS};
use crate::{
    backends::BackEnd,
    experiment::{Experiment, Lab},
    experiments::{real_nodes, virtual_nodes::At},
    record::{Row, Validity},
    service::{
        fleet::FleetPlan,
        labour,
        plan::{ServicePlan, WorkerPlan},
    },
};

pub(super) const TIMER: &str = "timer";
pub(super) const SLEEP: &str = "sleep";
pub(super) const BURN: &str = "burn";
pub(super) const CRC: &str = "crc";
pub(super) const KV_GET: &str = "kv-get";
pub(super) const KV_SCAN: &str = "kv-scan";
pub(super) const DIRECT_READ: &str = "direct-read";

/// The load of all rows here.
pub(super) const LOAD: f64 = 0.8;
/// Where one thread burns, its node's other thread and the machine need some of its CPU, too.
const BURN_LOAD: f64 = 0.6;
/// Where all workers read from one disk, it is slower for each than it was for the one that found out how long a read takes.
const READ_LOAD: f64 = 0.3;
/// Two hundred times the resolution of a timer on a virtual machine.
const SLEEP_NS_MEAN: f64 = 2_000_000.0;
/// Of requests that are burnt: 100 µs, and one in a hundred 10 ms.
const SHORT_NS: u64 = 100_000;
const LONG_NS: u64 = 10_000_000;
const LONG_RATIO: f64 = 0.01;
/// Twice a short request.
const QUANTUM: Duration = Duration::from_micros(200);
/// Of every row: as long as the budget allows, between these.
const TRIAL_MIN: Duration = Duration::from_millis(500);
const TRIAL_MAX: Duration = Duration::from_millis(2_500);
const ROUNDS_COUNT: u32 = 8;

/// One point.
struct NodeArm {
    backend: &'static BackEnd,
    kind: WorkerPlan,
    workers: String,
    discipline: String,
    file: Option<PathBuf>,
}

impl NodeArm {
    fn workers_count(&self) -> usize {
        // More that burn would want CPUs that are not there.
        if self.kind.wants_cpu() { 1 } else { super::WORKERS_COUNT }
    }

    fn load(&self) -> f64 {
        match self.kind {
            WorkerPlan::Timer | WorkerPlan::Sleep => LOAD,
            WorkerPlan::DirectRead => READ_LOAD,
            WorkerPlan::Burn | WorkerPlan::Crc | WorkerPlan::KvGet | WorkerPlan::KvScan => BURN_LOAD,
        }
    }

    fn service(&self) -> ServicePlan {
        match self.kind.wants_cpu() {
            true => ServicePlan::Bimodal {
                short_ns: SHORT_NS,
                long_ns: LONG_NS,
                long_ratio: LONG_RATIO,
            },
            false => ServicePlan::Exponential { mean_ns: SLEEP_NS_MEAN },
        }
    }
}

fn kind(workers: &str) -> WorkerPlan {
    match workers {
        SLEEP => WorkerPlan::Sleep,
        BURN => WorkerPlan::Burn,
        CRC => WorkerPlan::Crc,
        KV_GET => WorkerPlan::KvGet,
        KV_SCAN => WorkerPlan::KvScan,
        DIRECT_READ => WorkerPlan::DirectRead,
        _ => WorkerPlan::Timer,
    }
}

pub(super) fn ask_all(experiment: &dyn Experiment, lab: &mut Lab<'_>) -> anyhow::Result<()> {
    let mut wanted = lab.values(&WORKERS);
    let to_read = match wanted.iter().any(|workers| workers == DIRECT_READ) {
        true => labour::file_to_read(lab, labour::FILE_BYTES)?,
        false => None,
    };
    wanted.retain(|workers| workers != DIRECT_READ || to_read.is_some());
    let mut arms = Vec::new();
    for backend in lab.backends(experiment) {
        for workers in &wanted {
            let kind = kind(workers);
            for discipline in lab.values(&DISCIPLINE) {
                // A thread that sleeps is not interrupted, and one thread has no others to share a queue with.
                let makes_sense = match kind.wants_cpu() {
                    true => matches!(discipline.as_str(), "single-queue" | "preemptive"),
                    false => discipline != "preemptive",
                };
                if makes_sense {
                    arms.push(NodeArm {
                        backend,
                        kind,
                        workers: workers.clone(),
                        discipline,
                        file: to_read.as_ref().map(|(_, file)| file.clone()),
                    });
                }
            }
        }
    }
    let rounds_count = real_nodes::rounds_count(lab, ROUNDS_COUNT);
    let share = lab.budget.div_f64(arms.len().max(1) as f64 * f64::from(rounds_count));
    // Starting and ending a node takes the rest.
    let trial = share.mul_f64(0.8).clamp(TRIAL_MIN, TRIAL_MAX);
    lab.in_rounds(&arms, rounds_count, |lab, turn| {
        let arm = turn.arm;
        lab.progress.set_message(format!(
            "{}, workers that {}, round {}",
            arm.discipline,
            arm.workers,
            turn.round + 1
        ));
        lab.record_until_valid(|lab| ask(lab, experiment.id(), arm, trial, (turn.round, turn.number)))
    })
}

fn ask(
    lab: &Lab<'_>,
    experiment: &'static str,
    arm: &NodeArm,
    trial: Duration,
    (round, number): (u32, u32),
) -> anyhow::Result<Row> {
    let service = arm.service().model()?;
    let load = arm.load();
    let rate_per_s = load * arm.workers_count() as f64 * 1e9 / service.mean_ns();
    let name = service.to_string();
    let seed = real_nodes::seed_of(lab, round);
    let patience = Duration::from_secs(2);
    let mut plan = FleetPlan::new(arm.backend, 1, arm.service(), patience, (number, seed));
    plan.node.workers_count = arm.workers_count();
    plan.node.workers = arm.kind;
    plan.node.file = arm.file.clone();
    plan.node.discipline = arm.discipline.clone();
    plan.node.quantum = QUANTUM;
    // Drawn by the client, so that every discipline has the same requests.
    plan.client.service = Some(service);
    plan.client.slow_over = Duration::from_millis(10);
    plan.client.warm_up = trial / 8;
    let calls = real_nodes::calls(rate_per_s, trial, seed)?;
    let one = FanOut {
        asked_count: 1,
        needed_count: 1,
        choice: Choice::Random,
    };
    let at = At {
        experiment,
        axis: BTreeMap::from([
            (PART.name.to_owned(), NODES.to_owned()),
            (WORKERS.name.to_owned(), arm.workers.clone()),
            (DISCIPLINE.name.to_owned(), arm.discipline.clone()),
            (SERVICE.name.to_owned(), name.clone()),
            (LOAD_RATIO.name.to_owned(), load.to_string()),
        ]),
        round,
    };
    let (mut row, _) = real_nodes::ask(lab, at, &plan, &calls, Box::new(one), 1)?;
    row.facts.insert("service".to_owned(), name);
    if arm.discipline == "preemptive" {
        row.facts.insert(
            "preemption".to_owned(),
            format!("a quantum of {} µs", QUANTUM.as_micros()),
        );
    }
    // Real work takes as long as it takes, and what was meant stands beside.
    if matches!(arm.kind, WorkerPlan::Timer | WorkerPlan::Sleep | WorkerPlan::Burn) {
        hold_service(&mut row);
    }
    Ok(row)
}

/// Workers that take much longer than was meant have another load than the one that was asked for: such a row is INVALID.
fn hold_service(row: &mut Row) {
    /// A timer is late by some tens of microseconds, of two milliseconds.
    const RATIO_MAX: f64 = 1.1;
    let of = |name: &str| row.metrics.get(name).map_or(f64::NAN, |metric| metric.value);
    let (took_ns, meant_ns) = (of("service_took"), of("service_meant"));
    // Not `>`: an unknown time is no time.
    if took_ns <= RATIO_MAX * meant_ns {
        return;
    }
    let reason = format!(
        "services took {:.2} ms on average where {:.2} ms were meant, above {RATIO_MAX} times; the load was not the one asked for; give the node's CPU less else to do, or lower the load",
        took_ns / 1e6,
        meant_ns / 1e6
    );
    match &mut row.validity {
        Validity::Valid => row.validity = Validity::Invalid { reasons: vec![reason] },
        Validity::Invalid { reasons } => reasons.push(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::virtual_time::row_of;

    #[test]
    fn a_node_that_was_slower_than_it_was_meant_to_be_is_not_judged() {
        let is_valid = |took_ns: f64| {
            let mut row = row_of(&[], &[("service_took", took_ns), ("service_meant", 2e6)]);
            hold_service(&mut row);
            row.validity.is_valid()
        };
        assert!(is_valid(2.1e6) && !is_valid(2.5e6) && !is_valid(f64::NAN));
    }
}
