//! The capacity of a real node: the same search, each step of which is a measurement.

use std::time::Duration;

use dataplane_service::{
    policy::{Choice, FanOut},
    service_time::ServiceTime,
    sim::StationOptions,
    workers::Overhead,
};

use super::{Capacity, DISCIPLINE, LOAD_MAX, Objective, PART, SERVICE, SLO_PERCENTILE, SLO_US, number, theory};
use crate::{
    backends::BackEnd,
    experiment::{Depth, Experiment, Lab},
    experiments::{
        queueing_discipline::EXPONENTIAL,
        real_nodes::{self, NODES},
        virtual_nodes::At,
    },
    record::{Better, Metric, Row, Validity},
    service::{fleet::FleetPlan, plan::ServicePlan},
};

/// Of the node: so few that a client and a node on two CPUs can keep them busy.
const WORKERS_COUNT: usize = 2;
/// A request takes a tenth of the bound on average, as in virtual time.
const SERVICE_RATIO: f64 = 0.1;
/// If no bound was asked for, in microseconds: ten times services that are ten times as long as timers are late.
const SLO_US_OF_NODES: [&str; 1] = ["5000"];
/// If none were asked for: those whose capacity theory knows.
const DISCIPLINES_OF_NODES: [&str; 2] = ["single-queue", "per-worker"];
const ROUNDS_COUNT: u32 = 8;
/// The load is searched to this, of 1.
const PRECISION: f64 = 0.04;
/// Of each step.
const TRIAL: Duration = Duration::from_millis(1_400);

struct Arm {
    backend: &'static BackEnd,
    discipline: String,
    percentile: String,
    bound_us: String,
}

impl Arm {
    fn objective(&self) -> Objective {
        Objective {
            q: number(&self.percentile) / 100.0,
            bound_ns: number(&self.bound_us) * 1e3,
        }
    }

    fn service_ns_mean(&self) -> f64 {
        self.objective().bound_ns * SERVICE_RATIO
    }

    fn at(&self, round: u32) -> At {
        let axis = [
            (PART.name, NODES),
            (DISCIPLINE.name, &self.discipline),
            (SERVICE.name, EXPONENTIAL),
            (SLO_PERCENTILE.name, &self.percentile),
            (SLO_US.name, &self.bound_us),
        ];
        At {
            experiment: Capacity.id(),
            axis: axis.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            round,
        }
    }
}

pub(super) fn search_all(experiment: &Capacity, lab: &mut Lab<'_>) -> anyhow::Result<()> {
    let disciplines = real_nodes::values_or(lab, &DISCIPLINE, &DISCIPLINES_OF_NODES);
    let bounds = match lab.choice.axes.contains_key(SLO_US.name) {
        true => lab.values(&SLO_US),
        false => SLO_US_OF_NODES.map(ToOwned::to_owned).to_vec(),
    };
    let mut arms = Vec::new();
    for backend in lab.backends(experiment) {
        // Timers are not interrupted.
        for discipline in disciplines.iter().filter(|discipline| *discipline != "preemptive") {
            for percentile in lab.values(&SLO_PERCENTILE) {
                arms.extend(bounds.iter().map(|bound_us| Arm {
                    backend,
                    discipline: discipline.clone(),
                    percentile: percentile.clone(),
                    bound_us: bound_us.clone(),
                }));
            }
        }
    }
    let rounds_count = real_nodes::rounds_count(lab, ROUNDS_COUNT);
    lab.in_rounds(&arms, rounds_count, |lab, turn| {
        let arm = turn.arm;
        lab.progress.set_message(format!(
            "{}, a real node, p{} ≤ {} µs, round {}",
            arm.discipline,
            arm.percentile,
            arm.bound_us,
            turn.round + 1
        ));
        if let Some(row) = search(lab, arm, turn.round, turn.number)? {
            lab.record(row)?;
        }
        Ok(())
    })
}

/// The row is that of the highest load that kept the objective; nothing if the search was interrupted.
fn search(lab: &Lab<'_>, arm: &Arm, round: u32, number: u32) -> anyhow::Result<Option<Row>> {
    let precision = match lab.choice.depth {
        Depth::Smallest => 0.5,
        Depth::Tour | Depth::Full => PRECISION,
    };
    let (mut low, mut high) = (0.0, LOAD_MAX);
    let (mut best, mut lowest) = (None, None);
    // Why the load above was taken for too much, if that was not the node's doing.
    let mut blamed = None;
    while high - low > precision {
        let load = f64::midpoint(low, high);
        let (mut row, mut is_kept) = ask(lab, arm, load, round, number)?;
        if !row.validity.is_valid() && lab.choice.depth != Depth::Smallest && !lab.interrupted() {
            (row, is_kept) = ask(lab, arm, load, round, number)?;
        }
        if lab.interrupted() {
            return Ok(None);
        }
        match (is_kept, &row.validity) {
            (true, _) => {
                low = load;
                best = Some(row);
            }
            (false, validity) => {
                high = load;
                blamed = match validity {
                    Validity::Valid => None,
                    Validity::Invalid { reasons } => reasons.first().cloned(),
                };
                lowest = Some(row);
            }
        }
    }
    let Some(mut row) = best.or(lowest) else {
        return Ok(None);
    };
    if let (Some(reason), Validity::Valid) = (blamed, &row.validity) {
        let reason = format!(
            "the load above it was too much for the machine and not for the node, so that the capacity is at least this: {reason}"
        );
        row.validity = Validity::Invalid { reasons: vec![reason] };
    }
    let mut put = |name: &str, value: f64, unit: &str, better: Better| {
        let unit = unit.to_owned();
        row.metrics.insert(name.to_owned(), Metric { value, unit, better });
    };
    put("capacity_ratio", low, "ratio", Better::Higher);
    let rate_per_s = low * WORKERS_COUNT as f64 * 1e9 / arm.service_ns_mean();
    put("capacity_rate", rate_per_s, "1/s", Better::Higher);
    let options = |load| StationOptions {
        workers_count: WORKERS_COUNT,
        load,
        service: ServiceTime::Exponential {
            mean_ns: arm.service_ns_mean(),
        },
        overhead: Overhead::default(),
        seed: row.seed,
    };
    if let Some(allowed) = theory(&arm.discipline, &options, arm.objective()) {
        put("oracle_capacity_ratio", allowed, "ratio", Better::Neither);
    }
    Ok(Some(row))
}

/// One step: what was measured, and whether it kept the objective.
fn ask(lab: &Lab<'_>, arm: &Arm, load: f64, round: u32, number: u32) -> anyhow::Result<(Row, bool)> {
    let seed = real_nodes::seed_of(lab, round);
    let service = ServicePlan::Exponential {
        mean_ns: arm.service_ns_mean(),
    };
    let rate_per_s = load * WORKERS_COUNT as f64 * 1e9 / arm.service_ns_mean();
    let patience = Duration::from_secs(2);
    let mut plan = FleetPlan::new(arm.backend, 1, service.clone(), patience, (number, seed));
    plan.node.workers_count = WORKERS_COUNT;
    plan.node.discipline = arm.discipline.clone();
    // Drawn by the client, so that every discipline has the same requests.
    plan.client.service = Some(service.model()?);
    let trial = real_nodes::trial(lab, TRIAL);
    plan.client.warm_up = trial / 7;
    let calls = real_nodes::calls(rate_per_s, trial, seed)?;
    let one = FanOut {
        asked_count: 1,
        needed_count: 1,
        choice: Choice::Random,
    };
    let (row, found) = real_nodes::ask(lab, arm.at(round), &plan, &calls, Box::new(one), 1)?;
    let is_kept = arm.objective().is_kept_by(&found.client.latency);
    Ok((row, is_kept))
}
