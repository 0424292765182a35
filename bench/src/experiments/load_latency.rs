//! `load-latency`: how long a reply takes as more is asked for, up to and past the point where the server cannot follow.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::Context;

use crate::{
    backends::{BackEnd, Room},
    claim::{Claim, Judgement, Source},
    experiment::{Allowed, Axis, Depth, Experiment, Lab},
    experiments::judge::{self, Bound, measured},
    load::{
        saturate::{self, Objective, Probe, Search},
        schedule::{BurstArrivals, Bursts, Schedule},
    },
    record::{Better, Metric, QuantileValue},
    table::{Arm, Table, latency_ns},
    trial::{self, Cpus, Load, Position, Trial},
};

/// See the module.
#[derive(Debug)]
pub struct LoadLatency;

const LOAD_RATIO: Axis = Axis {
    name: "load_ratio",
    meaning: "offered load as a share of the highest load that keeps the objective (p99 ≤ 1 ms, at most 1 in 1000 lost)",
    full: &["0.1", "0.3", "0.5", "0.7", "0.8", "0.9", "1.0", "1.1"],
    tour: &["0.3", "0.9"],
    smallest: "0.3",
    allowed: Allowed::Number(0.01, 2.0),
};

const FRAME_BYTES: Axis = Axis {
    name: "frame_bytes",
    meaning: "size of request and reply",
    full: &["64"],
    tour: &["64"],
    smallest: "64",
    allowed: Allowed::Number(44.0, 8972.0),
};

const ARRIVALS: Axis = Axis {
    name: "arrivals",
    meaning: "when requests leave: poisson; uniform; bursty (32 at once, the bursts Poisson); or a file of times to replay, one \
              a line, in ns or with a point in seconds, whose own rate counts",
    full: &["poisson"],
    tour: &["poisson"],
    smallest: "poisson",
    allowed: Allowed::WordsOrFile(&["poisson", "uniform", "bursty"]),
};

/// Requests of a burst: as many as one batched system call takes.
const BURST: Bursts = Bursts {
    requests_count: 32,
    spacing: Duration::ZERO,
    arrivals: BurstArrivals::Poisson,
};

/// The schedule of one trial.
fn schedule(arrivals: &str, rate_per_s: f64, duration: Duration, seed: u64) -> anyhow::Result<Schedule> {
    match arrivals {
        "poisson" => Schedule::poisson(rate_per_s, duration, seed),
        "uniform" => Schedule::uniform(rate_per_s, duration),
        "bursty" => Schedule::bursty(rate_per_s, duration, BURST, seed),
        file => Schedule::replay_file(Path::new(file)),
    }
    .with_context(|| format!("planning {arrivals} arrivals"))
}

const TIMEOUT: Duration = Duration::from_millis(200);

/// The objective that defines saturation.
const OBJECTIVE: Objective = Objective {
    q: 0.99,
    latency_ns_max: 1_000_000,
    lost_ratio_max: 0.001,
    achieved_ratio_min: 0.98,
};

/// Work per request. A bare echo saturates where this machine's generator does; a server that works 20 µs saturates
/// first, which is what the experiment is about.
const SERVICE_SPIN: Duration = Duration::from_micros(20);

impl Experiment for LoadLatency {
    fn id(&self) -> &'static str {
        "load-latency"
    }

    fn title(&self) -> &'static str {
        "Latency under load"
    }

    fn question(&self) -> &'static str {
        "How does the reply time grow as the offered load nears what the server can do?"
    }

    fn how(&self) -> &'static str {
        "First a search finds the highest Poisson load at which 99 of 100 requests are answered within 1 ms and at most \
         one in a thousand is lost. Then shares of that load are offered, open loop: requests leave when the schedule says, whether or not \
         earlier ones were answered, and every reply is timed from its intended send time. The server works 20 µs per \
         request, so that it and not the load generator is the bottleneck."
    }

    fn axes(&self) -> &'static [Axis] {
        &[LOAD_RATIO, ARRIVALS, FRAME_BYTES]
    }

    fn backends(&self) -> Vec<&'static str> {
        vec![
            "loopback",
            "shm",
            "udp-blocking",
            "udp-epoll",
            "udp-spin",
            "udp-mmsg",
            "uring",
            "uring-spin",
            "af-packet-spin",
        ]
    }

    fn tour_backends(&self) -> Vec<&'static str> {
        vec!["udp-blocking", "udp-spin"]
    }

    fn claims(&self) -> &'static [Claim] {
        CLAIMS
    }

    fn tour_weight(&self) -> f64 {
        1.2
    }

    fn run(&self, lab: &mut Lab<'_>) -> anyhow::Result<()> {
        let arms = arms(self, lab)?;
        let plan = lab.plan(arms.len(), Duration::from_millis(120));
        lab.in_rounds(&arms, plan.rounds_count, |lab, turn| {
            let arm = turn.arm;
            let rate_per_s = arm.capacity_per_s
                * arm
                    .load_ratio
                    .parse::<f64>()
                    .expect("axis values are checked beforehand");
            lab.progress.set_message(format!(
                "{} at {rate_per_s:.0}/s, round {}",
                arm.backend.name,
                turn.round + 1
            ));
            let seed = lab.choice.seed ^ (u64::from(turn.round) << 32 | turn.index as u64);
            let schedule = schedule(&arm.arrivals, rate_per_s, plan.trial, seed)?;
            let trial = Trial {
                load: Load::Open(&schedule),
                ..trial_of(arm.backend, arm.frame_bytes)
            };
            lab.record_until_valid(|lab| {
                let outcome = trial::run(lab, &trial, turn.index as u32)?;
                let position = Position {
                    experiment: self.id(),
                    axis: BTreeMap::from([
                        (LOAD_RATIO.name.to_owned(), arm.load_ratio.clone()),
                        (ARRIVALS.name.to_owned(), arm.arrivals.clone()),
                        (FRAME_BYTES.name.to_owned(), arm.frame_bytes.to_string()),
                    ]),
                    round: turn.round,
                    twin: false,
                    seed,
                };
                let mut row = outcome.into_row(&trial, position);
                let offered = Metric {
                    value: schedule.offered_rate_per_s(),
                    unit: "1/s".to_owned(),
                    better: Better::Neither,
                };
                row.metrics.insert("offered_rate".to_owned(), offered);
                row.facts
                    .insert("capacity_per_s".to_owned(), format!("{:.0}", arm.capacity_per_s));
                Ok(row)
            })
        })
    }
}

/// One point of the experiment.
struct LoadArm {
    backend: &'static BackEnd,
    frame_bytes: usize,
    arrivals: String,
    load_ratio: String,
    capacity_per_s: f64,
}

/// Every point, with the capacity that its load is a share of.
fn arms(experiment: &LoadLatency, lab: &Lab<'_>) -> anyhow::Result<Vec<LoadArm>> {
    let mut arms = Vec::new();
    for frame_bytes in lab.frame_sizes(&FRAME_BYTES) {
        for backend in lab.backends(experiment) {
            let capacity_per_s = match lab.choice.depth {
                // One point of a known, small load: does it work?
                Depth::Smallest => Some(10_000.0),
                Depth::Tour | Depth::Full => capacity(lab, backend, frame_bytes)?,
            };
            let Some(capacity_per_s) = capacity_per_s else {
                lab.say(&format!(
                    "{} does not keep p99 ≤ 1 ms at any load here, so shares of its capacity mean nothing and it is left out; \
                     is something else using the CPUs?",
                    backend.name
                ));
                continue;
            };
            for arrivals in lab.values(&ARRIVALS) {
                for load_ratio in lab.values(&LOAD_RATIO) {
                    let arrivals = arrivals.clone();
                    arms.push(LoadArm {
                        backend,
                        frame_bytes,
                        arrivals,
                        load_ratio,
                        capacity_per_s,
                    });
                }
            }
        }
    }
    Ok(arms)
}

fn trial_of(backend: &BackEnd, frame_bytes: usize) -> Trial<'_> {
    Trial {
        backend,
        client_backend: None,
        frame_bytes,
        cpus: Cpus::Two,
        load: Load::Closed {
            duration: Duration::ZERO,
        },
        timeout: TIMEOUT,
        stall: None,
        service_spin: SERVICE_SPIN,
        room: Room { frames_count: 4096 },
        // Past saturation requests are lost by design.
        overflow_is_measured: true,
    }
}

/// The highest rate at which the objective is kept, if there is one.
fn capacity(lab: &Lab<'_>, backend: &BackEnd, frame_bytes: usize) -> anyhow::Result<Option<f64>> {
    const PROBE: Duration = Duration::from_millis(120);
    /// So many requests bound a p99 (see [`crate::measure::interval`]); at low rates they take longer than that.
    const REQUESTS_COUNT_MIN: f64 = 400.0;
    let mut index = 0;
    let options = Search {
        rate_per_s_first: 8_000.0,
        rate_per_s_max: 1_000_000.0,
        precision: 1.1,
        probes_max: 20,
        ..Search::default()
    };
    let mut probe = |rate_per_s: f64| -> anyhow::Result<Probe> {
        lab.progress
            .set_message(format!("{}: can it do {rate_per_s:.0}/s?", backend.name));
        index += 1;
        let duration = PROBE.max(Duration::from_secs_f64(REQUESTS_COUNT_MIN / rate_per_s));
        let schedule = Schedule::poisson(rate_per_s, duration, lab.choice.seed ^ index)?;
        let trial = Trial {
            load: Load::Open(&schedule),
            ..trial_of(backend, frame_bytes)
        };
        Ok(Probe::of(&trial::run(lab, &trial, index as u32)?.load, OBJECTIVE.q))
    };
    let found = saturate::search(&options, &OBJECTIVE, &mut probe)
        .with_context(|| format!("searching the capacity of {}", backend.name))?;
    Ok(found.best.map(|best| best.offered_rate_per_s))
}

const CLAIMS: &[Claim] = &[Claim {
    id: "latency-hockey-stick",
    sentence: "Reply time is not linear in load: at 0.9 of capacity the p90 is at least twice that at 0.3",
    source: Source::Published {
        work: "Kleinrock, Queueing Systems vol. 1, 1975",
        place: "the wait in an M/G/1 queue grows as ρ/(1−ρ) (Pollaczek-Khinchine)",
    },
    invariant: "Open loop at both loads, Poisson arrivals, constant work per request; paired by round. Judged on the back \
                end that sleeps least, so that wake-ups do not hide the queue.",
    judge: hockey_stick,
}];

fn hockey_stick(table: &Table) -> Judgement {
    let low = Arm::of(
        "udp-spin",
        &[("load_ratio", "0.3"), ("arrivals", "poisson"), ("frame_bytes", "64")],
    );
    let high = Arm::of(
        "udp-spin",
        &[("load_ratio", "0.9"), ("arrivals", "poisson"), ("frame_bytes", "64")],
    );
    let what = "p90 at 0.9 of capacity ÷ p90 at 0.3, udp-spin";
    let mut judgement = judge::ratio(table, what, (high, low), latency_ns(0.9), Bound::AtLeast(2.0));
    for (name, arm) in [("p90 at 0.3", low), ("p90 at 0.9", high)] {
        if let Some(merged) = table.merged(arm, |row| row.latency.as_ref()) {
            let value = match merged.quantile(0.9) {
                QuantileValue::Ns(ns) => Some(ns as f64),
                QuantileValue::Lost | QuantileValue::Unsupported => None,
            };
            judgement
                .measured
                .push(measured(name, value, "ns", "", merged.total_count()));
        }
    }
    judgement
}
