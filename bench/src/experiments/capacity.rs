//! `capacity`: the highest load at which a node keeps an objective, by discipline.

mod nodes;

use std::collections::BTreeMap;

use dataplane_service::{sim::StationOptions, workers::Overhead};
use dataplane_sim::SimTime;

use crate::{
    claim::{Claim, Judgement, Source},
    experiment::{Allowed, Axis, Depth, Experiment, Lab},
    experiments::{
        judge::{self, Bound, measured},
        queueing_discipline::{self, DISCIPLINE, EXPONENTIAL, GUARANTEE, PREEMPT_NS, SERVICE, SHINJUKU, WORKERS_COUNT},
        real_nodes::{NODES, PART, REAL, SIM, in_parts},
        virtual_nodes::seed_of,
        virtual_time::{BACKEND, Happened, Simulated},
    },
    measure::{Recorder, student},
    record::{Better, Outcome, QuantileValue, Row},
    table::{Arm, Table},
};

/// See the module.
#[derive(Debug)]
pub struct Capacity;

const SLO_PERCENTILE: Axis = Axis {
    name: "slo_percentile",
    meaning: "which percentile has to keep its bound",
    full: &["99"],
    tour: &["99"],
    smallest: "99",
    allowed: Allowed::Number(1.0, 99.99),
};

const SLO_US: Axis = Axis {
    name: "slo_us",
    meaning: "the bound, in microseconds; of real nodes 5000 by default, and their services take a tenth of it on average",
    full: &["100"],
    tour: &["100"],
    smallest: "100",
    allowed: Allowed::Number(0.1, 1e7),
};

/// Enough for an interval over seeds.
const ROUNDS_COUNT: u32 = 8;
/// The load is searched to this, of 1.
const PRECISION: f64 = 0.002;
/// Above it a station takes longer to settle than it is run.
const LOAD_MAX: f64 = 0.98;

impl Experiment for Capacity {
    fn id(&self) -> &'static str {
        "capacity"
    }

    fn title(&self) -> &'static str {
        "Capacity under an objective"
    }

    fn question(&self) -> &'static str {
        "How much load does a node carry if a percentile of its latency has a bound, by discipline?"
    }

    fn how(&self) -> &'static str {
        "A node: eight workers in virtual time, two timers of a real process. The highest load at which the percentile keeps its bound is searched by halving, once for \
         each of eight seeds or rounds, with the same arrivals and service times for every discipline. Where theory knows the distribution, the load \
         that it allows stands beside."
    }

    fn axes(&self) -> &'static [Axis] {
        &[PART, DISCIPLINE, SERVICE, SLO_PERCENTILE, SLO_US]
    }

    fn backends(&self) -> Vec<&'static str> {
        vec![REAL]
    }

    fn claims(&self) -> &'static [Claim] {
        CLAIMS
    }

    fn tour_weight(&self) -> f64 {
        0.0
    }

    fn needs_one_machine(&self) -> Option<&'static str> {
        Some("its nodes are processes of this machine")
    }

    fn run(&self, lab: &mut Lab<'_>) -> anyhow::Result<()> {
        in_parts(lab, simulate_all, |lab| nodes::search_all(self, lab))
    }
}

fn simulate_all(lab: &mut Lab<'_>) -> anyhow::Result<()> {
    let (disciplines, services) = (lab.values(&DISCIPLINE), lab.values(&SERVICE));
    let (percentiles, bounds) = (lab.values(&SLO_PERCENTILE), lab.values(&SLO_US));
    let mut points = Vec::new();
    for service in &services {
        for discipline in &disciplines {
            for percentile in &percentiles {
                points.extend(bounds.iter().map(|bound| [service, discipline, percentile, bound]));
            }
        }
    }
    lab.progress.set_length(points.len() as u64);
    for [service, discipline, percentile, bound] in points {
        lab.progress
            .set_message(format!("{discipline}, {service}, p{percentile} ≤ {bound} µs"));
        for round in 0..ROUNDS_COUNT {
            if lab.interrupted() {
                return Ok(());
            }
            let objective = Objective {
                q: number(percentile) / 100.0,
                bound_ns: number(bound) * 1e3,
            };
            let mut row = search(lab, discipline, service, objective, round);
            row.axis.insert(PART.name.to_owned(), SIM.to_owned());
            row.axis.insert(SLO_PERCENTILE.name.to_owned(), percentile.clone());
            row.axis.insert(SLO_US.name.to_owned(), bound.clone());
            lab.record(row)?;
        }
        lab.progress.inc(1);
    }
    Ok(())
}

fn number(value: &str) -> f64 {
    value.parse().expect("axis values are checked beforehand")
}

#[derive(Clone, Copy, Debug)]
struct Objective {
    q: f64,
    bound_ns: f64,
}

impl Objective {
    fn is_kept_by(self, latency: &Recorder) -> bool {
        match latency.quantile_of_sample(self.q) {
            QuantileValue::Ns(ns) => ns as f64 <= self.bound_ns,
            QuantileValue::Lost | QuantileValue::Unsupported => false,
        }
    }
}

fn search(lab: &Lab<'_>, discipline: &str, service: &str, objective: Objective, round: u32) -> Row {
    let requests_count = match lab.choice.depth {
        Depth::Full => 100_000,
        Depth::Tour | Depth::Smallest => 10_000,
    };
    let seed = seed_of(lab, round);
    let options = |load| StationOptions {
        workers_count: WORKERS_COUNT,
        load,
        service: queueing_discipline::service(service),
        overhead: Overhead {
            take_ns: 0,
            preempt_ns: PREEMPT_NS,
        },
        seed,
    };
    let run = |load| queueing_discipline::simulate(discipline, options(load), requests_count).0;
    let (mut low, mut high) = (0.0, LOAD_MAX);
    let (mut best, mut events_count) = (Recorder::new(), 0);
    while high - low > PRECISION {
        let load = f64::midpoint(low, high);
        let latency = run(load);
        events_count += requests_count;
        match objective.is_kept_by(&latency) {
            true => (low, best) = (load, latency),
            false => high = load,
        }
    }
    let happened = Happened {
        elapsed: SimTime::ZERO,
        event_hash: queueing_discipline::hash(&best),
        events_count,
    };
    let axis = BTreeMap::from([
        (DISCIPLINE.name.to_owned(), discipline.to_owned()),
        (SERVICE.name.to_owned(), service.to_owned()),
    ]);
    let mut row = Simulated::of(lab, Capacity.id(), axis, seed, happened);
    row.round(round);
    if best.samples_count() > 0 {
        row.latency(&best);
    }
    row.put("capacity_ratio", low, "ratio", Better::Higher);
    if let Some(allowed) = theory(discipline, &options, objective) {
        row.put("oracle_capacity_ratio", allowed, "ratio", Better::Neither);
    }
    row.fact("service", queueing_discipline::service(service).to_string());
    row.fact("guarantee", GUARANTEE);
    row.into_row()
}

/// The load that theory allows, where it knows the distribution.
fn theory(discipline: &str, options: &impl Fn(f64) -> StationOptions, objective: Objective) -> Option<f64> {
    let (mut low, mut high) = (0.0, LOAD_MAX);
    while high - low > 1e-6 {
        let load = f64::midpoint(low, high);
        let oracle = queueing_discipline::oracle(discipline, &options(load))?;
        match oracle.quantile_ns(objective.q) <= objective.bound_ns {
            true => low = load,
            false => high = load,
        }
    }
    Some(low)
}

const CLAIMS: &[Claim] = &[
    Claim {
        id: "capacity-theory",
        sentence: "The load that a search finds is the load that theory allows, for one queue and for a queue each",
        source: Source::Ours {
            seen: "Erlang's C and M/M/1, solved for the load",
        },
        invariant: "Exponential service; the mean over eight seeds within Student's interval of 99 % of theory's load, widened by the search's \
                    precision; every objective of the run.",
        judge: is_theory,
    },
    Claim {
        id: "capacity-preemption",
        sentence: "Under a bound on the p99 preemption carries at least half as much again as one queue where one request in 200 is a thousand times as \
                   long",
        source: Source::Published {
            work: "Kaffes et al., Shinjuku, NSDI 2019",
            place: "abstract: up to 6.6 times the throughput of its peers; a half more, and a bound of 100 µs, are ours",
        },
        invariant: "capacity with preemption ÷ with one queue, p99 ≤ 100 µs, a ratio a seed.",
        judge: preemption_carries_more,
    },
    Claim {
        id: "capacity-nodes",
        sentence: "A real node whose two workers share a queue carries more load under a bound on its p99 than one with a queue for each",
        source: Source::Ours {
            seen: "Erlang's C and M/M/1 solved for the load, for a p99 of ten services: 0.76 and 0.54",
        },
        invariant: "Exponential service; the loads that two searches of a round found, in real measurements: with one queue ÷ with a queue each; \
                    every bound of the run. Student's interval of 95 % of each stands beside.",
        judge: one_queue_carries_more,
    },
];

fn capacity(row: &Row) -> Option<f64> {
    Some(row.metrics.get("capacity_ratio")?.value)
}

fn is_theory(table: &Table) -> Judgement {
    let mut points: Vec<&BTreeMap<String, String>> = table
        .valid()
        .filter(|row| row.backend == BACKEND && row.metrics.contains_key("oracle_capacity_ratio"))
        .map(|row| &row.axis)
        .collect();
    points.sort_unstable();
    points.dedup();
    let judgements = points.into_iter().map(|axis| {
        let rows: Vec<&Row> = table.valid().filter(|row| row.axis == *axis).collect();
        let found: Vec<f64> = rows.iter().filter_map(|row| capacity(row)).collect();
        let allowed = rows[0].metrics["oracle_capacity_ratio"].value;
        let (mean, half) = student::mean_interval(&found, 0.99);
        let half = half + PRECISION;
        let outcome = if (mean - allowed).abs() <= half {
            Outcome::Holds
        } else {
            Outcome::Fails
        };
        let what = format!(
            "load of {}, p{} ≤ {} µs",
            axis[DISCIPLINE.name], axis[SLO_PERCENTILE.name], axis[SLO_US.name]
        );
        let limit = format!("{:.4} ± {half:.4}", allowed);
        Judgement::new(
            outcome,
            vec![measured(what, Some(mean), "ratio", limit, found.len() as u64)],
        )
    });
    let judgements: Vec<Judgement> = judgements.collect();
    match judgements.is_empty() {
        true => Judgement::not_measured(format!("no row with service={EXPONENTIAL}")),
        false => judge::all(judgements),
    }
}

fn preemption_carries_more(table: &Table) -> Judgement {
    let arm = |discipline| {
        [
            (DISCIPLINE.name, discipline),
            (SERVICE.name, SHINJUKU),
            (SLO_PERCENTILE.name, "99"),
            (SLO_US.name, "100"),
        ]
    };
    let (preemptive, single) = (arm("preemptive"), arm("single-queue"));
    judge::ratio(
        table,
        "load with preemption ÷ load with one queue",
        (Arm::of(BACKEND, &preemptive), Arm::of(BACKEND, &single)),
        capacity,
        Bound::AtLeast(1.5),
    )
}

/// At every objective that real nodes were measured at.
fn one_queue_carries_more(table: &Table) -> Judgement {
    let of = |row: &Row, axis: &Axis| row.axis.get(axis.name).cloned();
    let real = table.rows.iter().filter(|row| row.backend == REAL);
    let mut objectives: Vec<(String, String)> = real
        .filter_map(|row| Some((of(row, &SLO_PERCENTILE)?, of(row, &SLO_US)?)))
        .collect();
    objectives.sort_unstable();
    objectives.dedup();
    let judgements = objectives.iter().map(|(percentile, bound)| {
        let axis = |discipline| {
            [
                (PART.name, NODES),
                (DISCIPLINE.name, discipline),
                (SLO_PERCENTILE.name, percentile.as_str()),
                (SLO_US.name, bound.as_str()),
            ]
        };
        let (single, each) = (axis("single-queue"), axis("per-worker"));
        let mut judgement = judge::ratio(
            table,
            &format!("load with one queue ÷ with a queue each, p{percentile} ≤ {bound} µs"),
            (Arm::of(REAL, &single), Arm::of(REAL, &each)),
            capacity,
            Bound::AtLeast(1.0),
        );
        for (name, axis) in [("one queue", &single), ("a queue each", &each)] {
            let found: Vec<f64> = table
                .arm(Arm::of(REAL, axis))
                .into_iter()
                .filter_map(capacity)
                .collect();
            if found.len() > 1 {
                let (mean, half) = student::mean_interval(&found, 0.95);
                let what = format!("load with {name}, p{percentile} ≤ {bound} µs");
                let mut figure = measured(what, Some(mean), "ratio", "", found.len() as u64);
                (figure.low, figure.high) = (Some(mean - half), Some(mean + half));
                judgement.measured.push(figure);
            }
        }
        judgement
    });
    let judgements: Vec<Judgement> = judgements.collect();
    match judgements.is_empty() {
        true => Judgement::not_measured(format!("no row with {}={NODES}", PART.name)),
        false => judge::all(judgements),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::virtual_time::row_of;

    #[test]
    fn a_capacity_that_theory_does_not_allow_is_seen() {
        let judge = |found: f64| {
            let rows = (0..8)
                .map(|round| {
                    let mut row = row_of(
                        &[
                            ("discipline", "single-queue"),
                            ("service", EXPONENTIAL),
                            ("slo_percentile", "99"),
                            ("slo_us", "100"),
                        ],
                        &[
                            ("capacity_ratio", found + f64::from(round) * 1e-4),
                            ("oracle_capacity_ratio", 0.9),
                        ],
                    );
                    row.round = round;
                    row
                })
                .collect();
            is_theory(&Table { rows, seed: 1 }).outcome
        };
        assert_eq!(judge(0.9), Outcome::Holds);
        assert_eq!(judge(0.92), Outcome::Fails);
    }
}
