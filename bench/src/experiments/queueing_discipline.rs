//! `queueing-discipline`: one queue or many, stealing, the shorter of two, preemption: what a node's queue does to its tail.

mod nodes;
mod theory;

use std::{collections::BTreeMap, time::Duration};

use dataplane_service::{
    discipline::Kind,
    oracle::{Mm1, Mmk, Sojourn},
    service_time::ServiceTime,
    sim::{self, OneStation, StationOptions},
    workers::Overhead,
};

use crate::{
    claim::{Claim, Judgement, Source},
    experiment::{Allowed, Axis, Depth, Experiment, Lab},
    experiments::{
        judge::{self, Bound, measured},
        virtual_time::{BACKEND, Happened, Simulated},
    },
    measure::Recorder,
    record::{Better, Outcome, Row},
    table::{Arm, Table, latency_ns},
};

/// See the module.
#[derive(Debug)]
pub struct QueueingDiscipline;

const PART: Axis = Axis {
    name: "part",
    meaning: "theory: the simulator on trial, stations whose distribution is known; sim: disciplines beside each other, in virtual time; \
              nodes: in a real node",
    full: &[THEORY, SIM, NODES],
    tour: &[SIM],
    smallest: SIM,
    allowed: Allowed::Words,
};

const SYSTEM: Axis = Axis {
    name: "system",
    meaning: "of part theory: arrivals/service/workers as Kendall writes them; shared: all requests at once, each at a part of the speed",
    full: &theory::SYSTEMS,
    tour: &theory::SYSTEMS,
    smallest: "mm1",
    allowed: Allowed::Words,
};

pub(super) const DISCIPLINE: Axis = Axis {
    name: "discipline",
    meaning: "where requests wait and who takes them; preemptive: one queue, and a quantum of 5 µs",
    full: &[
        "single-queue",
        "per-worker",
        "stealing",
        "shortest-of-two",
        "preemptive",
    ],
    tour: &["single-queue", "per-worker", "stealing", "preemptive"],
    smallest: "single-queue",
    allowed: Allowed::Words,
};

pub(super) const SERVICE: Axis = Axis {
    name: "service",
    meaning: "how long a request takes: 10 µs always; exponential, lognormal or bimodal of the same mean; shinjuku: 0.5 µs, and one in 200 \
              500 µs",
    full: &[DETERMINISTIC, EXPONENTIAL, LOGNORMAL, BIMODAL, SHINJUKU],
    tour: &[EXPONENTIAL, SHINJUKU],
    smallest: EXPONENTIAL,
    allowed: Allowed::Words,
};

const WORKERS: Axis = Axis {
    name: "workers",
    meaning: "of part nodes: timers of one thread; threads that sleep over queues that they share; one thread that burns its CPU, that computes \
              checksums, that gets keys from a replica's store, or ranges of it; threads that read blocks of a file past the page cache",
    full: &[
        nodes::TIMER,
        nodes::SLEEP,
        nodes::BURN,
        nodes::CRC,
        nodes::KV_GET,
        nodes::KV_SCAN,
        nodes::DIRECT_READ,
    ],
    tour: &[nodes::TIMER],
    smallest: nodes::TIMER,
    allowed: Allowed::Words,
};

const LOAD_RATIO: Axis = Axis {
    name: "load_ratio",
    meaning: "share of the time in which workers are busy with requests",
    full: &["0.3", "0.5", "0.7", "0.8", "0.9", "0.95"],
    tour: &["0.5", "0.8"],
    smallest: "0.8",
    allowed: Allowed::Number(0.05, 0.98),
};

const THEORY: &str = "theory";
const SIM: &str = "sim";
const NODES: &str = "nodes";
const DETERMINISTIC: &str = "deterministic";
pub(super) const EXPONENTIAL: &str = "exponential";
const LOGNORMAL: &str = "lognormal";
const BIMODAL: &str = "bimodal";
pub(super) const SHINJUKU: &str = "shinjuku";

/// Of every node here: ZygOS and Shinjuku were measured with 16 and 14.
pub(super) const WORKERS_COUNT: usize = 8;
pub(super) const MEAN_NS: f64 = 10_000.0;
/// Shinjuku's (NSDI 2019, abstract).
pub(super) const QUANTUM: Duration = Duration::from_micros(5);
/// What a preemption takes away from the worker; of the order of what Shinjuku's posted interrupts cost, and in a row's facts.
pub(super) const PREEMPT_NS: u64 = 1_000;
/// What an answer means.
pub(super) const GUARANTEE: &str = "nothing is kept: a request is served once or never, and in no order";
/// Enough for an interval of 95 % over seeds.
const ROUNDS_COUNT: u32 = 8;

pub(super) fn service(name: &str) -> ServiceTime {
    match name {
        DETERMINISTIC => ServiceTime::Deterministic { ns: MEAN_NS as u64 },
        LOGNORMAL => ServiceTime::Lognormal {
            median_ns: MEAN_NS * (-0.5f64).exp(),
            sigma: 1.0,
        },
        BIMODAL => ServiceTime::Bimodal {
            short_ns: 5_000,
            long_ns: 55_000,
            long_ratio: 0.1,
        },
        SHINJUKU => ServiceTime::Bimodal {
            short_ns: 500,
            long_ns: 500_000,
            long_ratio: 0.005,
        },
        _ => ServiceTime::Exponential { mean_ns: MEAN_NS },
    }
}

impl Experiment for QueueingDiscipline {
    fn id(&self) -> &'static str {
        "queueing-discipline"
    }

    fn title(&self) -> &'static str {
        "Queueing disciplines"
    }

    fn question(&self) -> &'static str {
        "What does it do to a node's tail whether its workers share a queue, steal from each other, or are interrupted?"
    }

    fn how(&self) -> &'static str {
        "First the simulator is put on trial: at each load 20 independent runs of stations whose distribution theory knows; every decile \
         and the p99.9 must lie where theory says, within the runs' own spread. Then disciplines stand beside each other at the same \
         loads, eight workers, the same arrivals and service times; in the end the same in a real node over UDP."
    }

    fn axes(&self) -> &'static [Axis] {
        &[PART, SYSTEM, DISCIPLINE, SERVICE, LOAD_RATIO, WORKERS]
    }

    fn backends(&self) -> Vec<&'static str> {
        vec!["udp-epoll"]
    }

    fn claims(&self) -> &'static [Claim] {
        CLAIMS
    }

    fn keeps_files(&self) -> bool {
        true
    }

    fn tour_weight(&self) -> f64 {
        0.1
    }

    fn needs_one_machine(&self) -> Option<&'static str> {
        Some("its nodes are processes of this machine")
    }

    fn run(&self, lab: &mut Lab<'_>) -> anyhow::Result<()> {
        for part in lab.values(&PART) {
            match part.as_str() {
                THEORY => against_theory(lab)?,
                NODES => nodes::ask_all(self, lab)?,
                _ => beside_each_other(lab)?,
            }
        }
        Ok(())
    }
}

fn against_theory(lab: &mut Lab<'_>) -> anyhow::Result<()> {
    let (systems, loads) = (lab.values(&SYSTEM), lab.values(&LOAD_RATIO));
    let rows_count = systems.len() * loads.len();
    let requests_count = match lab.choice.depth {
        Depth::Smallest => 10_000,
        Depth::Tour => 50_000,
        Depth::Full => 250_000,
    };
    lab.progress.set_length(rows_count as u64);
    for (system, load) in systems
        .iter()
        .flat_map(|system| loads.iter().map(move |load| (system, load)))
    {
        if lab.interrupted() {
            return Ok(());
        }
        lab.progress.set_message(format!("{system} at {load}"));
        let load_ratio: f64 = load.parse().expect("axis values are checked beforehand");
        // Where requests wait for each other for long, fewer of them are independent.
        let requests_count = if load_ratio > 0.85 {
            requests_count * 4
        } else {
            requests_count
        };
        let found = theory::run(system, load_ratio, lab.choice.seed, requests_count, rows_count);
        let axis = BTreeMap::from([
            (PART.name.to_owned(), THEORY.to_owned()),
            (SYSTEM.name.to_owned(), system.clone()),
            (LOAD_RATIO.name.to_owned(), load.clone()),
        ]);
        let mut row = row(lab, axis, lab.choice.seed, found.requests_count, &found.latency);
        let outside_count = found.off.iter().filter(|off| **off > 1.0).count();
        row.put("held", theory::HELD.len() as f64, "count", Better::Neither);
        row.put("outside_99_percent", outside_count as f64, "count", Better::Lower);
        row.put(
            "off_together_max",
            found.off_together_max,
            "half intervals",
            Better::Lower,
        );
        row.put("half_interval_max", found.half_points_max, "points", Better::Lower);
        for (name, q) in [("oracle_p50", 0.5), ("oracle_p90", 0.9), ("oracle_p999", 0.999)] {
            let index = theory::HELD.iter().position(|held| *held == q).expect("one of them");
            row.put(name, found.oracle_ns[index], "ns", Better::Neither);
        }
        row.put(
            "requests_per_cpu_s",
            found.requests_count as f64 / found.cpu.as_secs_f64().max(1e-9),
            "1/s",
            Better::Higher,
        );
        row.fact("service", found.service.to_string());
        row.fact("guarantee", GUARANTEE);
        row.fact("seeds", theory::SEEDS_COUNT.to_string());
        lab.record(row.into_row())?;
        lab.progress.inc(1);
    }
    Ok(())
}

fn beside_each_other(lab: &mut Lab<'_>) -> anyhow::Result<()> {
    let requests_count = match lab.choice.depth {
        Depth::Smallest => 20_000,
        Depth::Tour => 60_000,
        Depth::Full => 250_000,
    };
    let (loads, services, disciplines) = (lab.values(&LOAD_RATIO), lab.values(&SERVICE), lab.values(&DISCIPLINE));
    lab.progress
        .set_length((loads.len() * services.len() * disciplines.len()) as u64);
    for (load, service_name) in loads
        .iter()
        .flat_map(|load| services.iter().map(move |service| (load, service)))
    {
        for discipline in &disciplines {
            lab.progress
                .set_message(format!("{discipline}, {service_name} at {load}"));
            for round in 0..ROUNDS_COUNT {
                if lab.interrupted() {
                    return Ok(());
                }
                // The same arrivals and service times for every discipline of a round.
                let seed = lab.choice.seed.wrapping_mul(1_000).wrapping_add(u64::from(round));
                let options = StationOptions {
                    workers_count: WORKERS_COUNT,
                    load: load.parse().expect("axis values are checked beforehand"),
                    service: service(service_name),
                    overhead: Overhead {
                        take_ns: 0,
                        preempt_ns: PREEMPT_NS,
                    },
                    seed,
                };
                let (latency, preempted_ratio) = simulate(discipline, options.clone(), requests_count);
                let axis = BTreeMap::from([
                    (PART.name.to_owned(), SIM.to_owned()),
                    (DISCIPLINE.name.to_owned(), discipline.clone()),
                    (SERVICE.name.to_owned(), service_name.clone()),
                    (LOAD_RATIO.name.to_owned(), load.clone()),
                ]);
                let mut row = row(lab, axis, seed, requests_count, &latency);
                row.round(round);
                if let Some(oracle) = oracle(discipline, &options) {
                    row.put("oracle_p50", oracle.quantile_ns(0.5), "ns", Better::Neither);
                    row.put("oracle_p99", oracle.quantile_ns(0.99), "ns", Better::Neither);
                    row.put("oracle_p999", oracle.quantile_ns(0.999), "ns", Better::Neither);
                }
                if discipline == Kind::Preemptive.name() {
                    row.put("preemptions_per_request", preempted_ratio, "count", Better::Neither);
                    row.fact(
                        "preemption",
                        format!(
                            "a quantum of {} µs; a preemption costs {PREEMPT_NS} ns",
                            QUANTUM.as_micros()
                        ),
                    );
                }
                row.fact("service", options.service.to_string());
                row.fact("guarantee", GUARANTEE);
                row.fact("workers", WORKERS_COUNT.to_string());
                lab.record(row.into_row())?;
            }
            lab.progress.inc(1);
        }
    }
    Ok(())
}

fn row(lab: &Lab<'_>, axis: BTreeMap<String, String>, seed: u64, requests_count: u64, latency: &Recorder) -> Simulated {
    let happened = Happened {
        elapsed: dataplane_sim::SimTime::ZERO,
        event_hash: hash(latency),
        events_count: requests_count,
    };
    let mut row = Simulated::of(lab, QueueingDiscipline.id(), axis, seed, happened);
    row.latency(latency);
    row
}

/// Of everything that was measured.
pub(super) fn hash(latency: &Recorder) -> u64 {
    latency.histogram().iter_recorded().fold(0, |hash, step| {
        dataplane_service::random::mix(hash ^ step.value_iterated_to() ^ step.count_since_last_iteration() << 40)
    })
}

/// What a request takes under a discipline, and how often it is preempted.
pub(super) fn simulate(discipline: &str, options: StationOptions, requests_count: u64) -> (Recorder, f64) {
    let run = OneStation {
        kind: Kind::by_name(discipline).expect("axis values are checked beforehand"),
        quantum: QUANTUM,
        warm_up_count: requests_count / 4,
        requests_count,
    };
    let mut latency = Recorder::new();
    let counts = sim::station(options, run, &mut |ns| latency.record(ns));
    (latency, counts.preempted_count as f64 / requests_count as f64)
}

/// What theory knows of a discipline, with exponential service.
pub(super) fn oracle(discipline: &str, options: &StationOptions) -> Option<Box<dyn Sojourn>> {
    let ServiceTime::Exponential { mean_ns } = options.service else {
        return None;
    };
    match Kind::by_name(discipline)? {
        Kind::SingleQueue => Some(Box::new(Mmk::new(options.workers_count as u32, options.load, mean_ns))),
        // A hash splits Poisson arrivals into Poisson arrivals.
        Kind::PerWorker => Some(Box::new(Mm1::new(options.load, mean_ns))),
        // Two choices among eight are not yet the limit of many workers, and the others have no closed form.
        _ => None,
    }
}

const CLAIMS: &[Claim] = &[
    Claim {
        id: "queueing-theory",
        sentence: "The simulator's stations are what theory says: every decile and the p99.9 of M/M/1, M/M/4, M/G/1 and processor sharing",
        source: Source::Ours {
            seen: "Erlang 1909 and 1917, Pollaczek 1930, Khinchine 1932, Coffman, Muntz and Trotter 1970, as code that knows nothing of the \
                   simulator",
        },
        invariant: "20 independent seeds a row; the share of requests within each of theory's quantiles, its mean over the seeds, and \
                    Student's interval. Of hundreds of intervals of 99 % some miss by chance, so all rows together have 99 % \
                    (Bonferroni); how many single intervals of 99 % miss stands beside it.",
        judge: is_theory,
    },
    Claim {
        id: "queueing-shared-beats-split",
        sentence: "At a load of 0.8 one queue for eight workers has the p99 that theory says, as a share of a queue for each",
        source: Source::Ours {
            seen: "Erlang's C for eight workers beside M/M/1; within 10 %",
        },
        invariant: "Exponential service, the same arrivals and service times from the same seed; a ratio a seed.",
        judge: shared_beats_split,
    },
    Claim {
        id: "queueing-discipline",
        sentence: "One queue beats a queue for each worker, and preemption beats both where a few requests are long: the tail is at least \
                   88 % lower",
        source: Source::Published {
            work: "Kaffes et al., Shinjuku: preemptive scheduling for µsecond-scale tail latency, NSDI 2019; Prekas et al., ZygOS, SOSP 2017",
            place: "Shinjuku, abstract: up to 88 % lower tail latency; ZygOS §2: centralized before distributed FCFS. The load of 0.8 is \
                    ours",
        },
        invariant: "One request in 200 takes 500 µs, the others 0.5 µs; a quantum of 5 µs; a preemption costs 1 µs. p99 of one queue ÷ p99 \
                    of a queue for each, and p99 with preemption ÷ p99 of one queue without.",
        judge: preemption_beats_both,
    },
    Claim {
        id: "queueing-nodes",
        sentence: "In a real node, too, one queue has the lower p99 at a load of 0.8, whether its workers are timers or threads",
        source: Source::Ours {
            seen: "the order that Erlang's C and M/M/1 say; the share itself is the simulator's claim",
        },
        invariant: "Exponential service of 2 ms, really slept; the same requests for each discipline of a round; p99 of one queue ÷ p99 of a \
                    queue for each worker, a ratio a round.",
        judge: order_in_nodes,
    },
    Claim {
        id: "queueing-preemption-nodes",
        sentence: "Preemption in user space halves the p90 of a worker that burns, where one request in a hundred is long",
        source: Source::Published {
            work: "Kaffes et al., Shinjuku, NSDI 2019",
            place: "the idea; a half, a load of 0.6, 0.1 and 10 ms, and a quantum of 200 µs are ours",
        },
        invariant: "One thread that burns; between slices it looks at the clock, and at whether others wait. What that costs is in the rows: \
                    preemption_cost.",
        judge: |table| preemption_in_nodes(table, nodes::BURN),
    },
    Claim {
        id: "queueing-preemption-work-nodes",
        sentence: "It does so for real work: checksums, and gets and ranges of the store that replicas have",
        source: Source::Published {
            work: "Kaffes et al., Shinjuku, NSDI 2019",
            place: "§5: RocksDB; a half, and what is worked, are ours",
        },
        invariant: "As before; work is done in steps of some microseconds, as many as take 0.1 or 10 ms alone, and a quantum is as many as take \
                    200 µs.",
        judge: |table| {
            let all = [nodes::CRC, nodes::KV_GET, nodes::KV_SCAN];
            judge::all(all.map(|workers| preemption_in_nodes(table, workers)).into())
        },
    },
];

fn number(row: &Row, name: &str) -> f64 {
    row.metrics.get(name).map_or(f64::NAN, |metric| metric.value)
}

fn is_theory(table: &Table) -> Judgement {
    let rows: Vec<&Row> = table
        .valid()
        .filter(|row| row.axis.get(PART.name).is_some_and(|part| part == THEORY))
        .collect();
    if rows.is_empty() {
        return Judgement::not_measured("no row with part=theory");
    }
    let held_count: f64 = rows.iter().map(|row| number(row, "held")).sum();
    let outside_count: f64 = rows.iter().map(|row| number(row, "outside_99_percent")).sum();
    let worst = rows
        .iter()
        .map(|row| number(row, "off_together_max"))
        .fold(0.0, f64::max);
    let outcome = match worst <= 1.0 {
        true => Outcome::Holds,
        false => Outcome::Fails,
    };
    let slowest = rows
        .iter()
        .map(|row| number(row, "requests_per_cpu_s"))
        .fold(f64::INFINITY, f64::min);
    let count = rows.len() as u64;
    Judgement::new(
        outcome,
        vec![
            measured(
                "the farthest off, in half widths of intervals that hold together with 99 %",
                Some(worst),
                "half intervals",
                "≤ 1",
                count,
            ),
            measured(
                "single intervals of 99 % that miss",
                Some(outside_count),
                "count",
                format!("of {held_count}; {:.1} would by chance", held_count * 0.01),
                count,
            ),
            measured("the slowest row, requests simulated", Some(slowest), "1/s", "", count),
        ],
    )
}

/// What real nodes are asked over.
const NODE_BACKEND: &str = "udp-epoll";

fn at<'a>(axis: &'a [(&'a str, &'a str)]) -> Arm<'a> {
    Arm::of(BACKEND, axis)
}

fn shared_beats_split(table: &Table) -> Judgement {
    let load = 0.8;
    let theory =
        Mmk::new(WORKERS_COUNT as u32, load, MEAN_NS).quantile_ns(0.99) / Mm1::new(load, MEAN_NS).quantile_ns(0.99);
    let arm = |discipline| {
        [
            ("part", SIM),
            ("discipline", discipline),
            ("service", EXPONENTIAL),
            ("load_ratio", "0.8"),
        ]
    };
    let (single, split) = (arm("single-queue"), arm("per-worker"));
    judge::ratio(
        table,
        &format!("p99 of one queue ÷ p99 of a queue for each worker; theory says {theory:.4}"),
        (at(&single), at(&split)),
        latency_ns(0.99),
        Bound::Within(round4(theory * 0.9), round4(theory * 1.1)),
    )
}

fn round4(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

fn preemption_beats_both(table: &Table) -> Judgement {
    let arm = |discipline| {
        [
            ("part", SIM),
            ("discipline", discipline),
            ("service", SHINJUKU),
            ("load_ratio", "0.8"),
        ]
    };
    let (single, split, preemptive) = (arm("single-queue"), arm("per-worker"), arm("preemptive"));
    judge::all(vec![
        judge::ratio(
            table,
            "p99 of one queue ÷ p99 of a queue for each worker",
            (at(&single), at(&split)),
            latency_ns(0.99),
            Bound::AtMost(1.0),
        ),
        judge::ratio(
            table,
            "p99 with preemption ÷ p99 of one queue without",
            (at(&preemptive), at(&single)),
            latency_ns(0.99),
            Bound::AtMost(0.12),
        ),
    ])
}

fn order_in_nodes(table: &Table) -> Judgement {
    let load = nodes::LOAD;
    let theory = Mmk::new(WORKERS_COUNT as u32, load, 1.0).quantile_ns(0.99) / Mm1::new(load, 1.0).quantile_ns(0.99);
    let of = |workers: &'static str| {
        let arm = |discipline| [("part", NODES), ("discipline", discipline), ("workers", workers)];
        let (single, split) = (arm("single-queue"), arm("per-worker"));
        judge::ratio(
            table,
            &format!("workers that {workers}: p99 of one queue ÷ p99 of a queue each; theory says {theory:.3}"),
            (Arm::of(NODE_BACKEND, &single), Arm::of(NODE_BACKEND, &split)),
            latency_ns(0.99),
            Bound::AtMost(1.0),
        )
    };
    judge::all(vec![of(nodes::TIMER), of(nodes::SLEEP)])
}

fn preemption_in_nodes(table: &Table, workers: &str) -> Judgement {
    let arm = |discipline| [("part", NODES), ("discipline", discipline), ("workers", workers)];
    let (preemptive, single) = (arm("preemptive"), arm("single-queue"));
    judge::ratio(
        table,
        &format!("workers that {workers}: p90 with preemption ÷ p90 without"),
        (Arm::of(NODE_BACKEND, &preemptive), Arm::of(NODE_BACKEND, &single)),
        latency_ns(0.9),
        Bound::AtMost(0.5),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::virtual_time::row_of;

    #[test]
    fn a_station_that_theory_does_not_know_is_seen() {
        let judge = |off: f64| {
            let rows = vec![row_of(
                &[("part", THEORY)],
                &[
                    ("held", 10.0),
                    ("outside_99_percent", 0.0),
                    ("off_together_max", off),
                    ("requests_per_cpu_s", 1e7),
                ],
            )];
            is_theory(&Table { rows, seed: 1 }).outcome
        };
        assert_eq!(judge(0.9), Outcome::Holds);
        assert_eq!(judge(1.1), Outcome::Fails);
        assert!(matches!(
            is_theory(&Table::default()).outcome,
            Outcome::NotMeasured { .. }
        ));
    }

    /// The same requests, at another load than the oracle was told of.
    #[test]
    fn a_load_that_is_off_by_two_percent_is_seen() {
        let found = theory::run("mm1", 0.7, 1, 30_000, 1);
        assert!(found.off_together_max <= 1.0, "{}", found.off_together_max);
        let oracle = Mm1::new(0.714, 100_000.0);
        let limit_ns = oracle.quantile_ns(0.5);
        let within = found.latency.histogram().quantile_below(limit_ns as u64);
        assert!((within - 0.5) * 100.0 > found.half_points_max, "{within}");
    }

    #[test]
    fn disciplines_differ_as_they_should() {
        let p99 = |discipline: &str| {
            let options = StationOptions {
                workers_count: WORKERS_COUNT,
                load: 0.8,
                service: service(SHINJUKU),
                overhead: Overhead::default(),
                seed: 1,
            };
            simulate(discipline, options, 40_000)
                .0
                .histogram()
                .value_at_quantile(0.99)
        };
        assert!(p99("preemptive") < p99("single-queue"));
        assert!(p99("single-queue") < p99("per-worker"));
    }
}
