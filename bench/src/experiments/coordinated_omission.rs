//! `coordinated-omission`: a server that stands still for a fifth of every second, seen by an open loop, by a closed
//! loop, and by an oracle.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context;

use crate::{
    backends::{self, BackEnd, Kind, Room},
    claim::{Claim, Judgement, Source},
    experiment::{Allowed, Axis, Depth, Experiment, Lab},
    experiments::judge::measured,
    load::schedule::Schedule,
    oracle,
    record::{Better, Metric, Outcome, QuantileValue, Row},
    table::{Arm, Table},
    trial::{self, Cpus, Load, Position, Stall, Trial},
};

/// See the module.
#[derive(Debug)]
pub struct CoordinatedOmission;

const LOOP: Axis = Axis {
    name: "loop",
    meaning: "open: requests leave on schedule; closed: each waits for the reply before it",
    full: &["open", "closed"],
    tour: &["open", "closed"],
    smallest: "open",
    allowed: Allowed::Words,
};

const RATE: Axis = Axis {
    name: "rate_per_s",
    meaning: "requests a second of the open loop",
    full: &["1000", "10000"],
    tour: &["1000"],
    smallest: "1000",
    allowed: Allowed::Number(100.0, 20_000.0),
};

/// The stall of the published oracle.
const STALL: Stall = Stall {
    period: Duration::from_secs(1),
    stopped: Duration::from_millis(200),
};

/// Longer than any stall: nothing is lost for being late.
const TIMEOUT: Duration = Duration::from_secs(2);

const FRAME_BYTES: usize = 64;

impl Experiment for CoordinatedOmission {
    fn id(&self) -> &'static str {
        "coordinated-omission"
    }

    fn title(&self) -> &'static str {
        "Coordinated omission"
    }

    fn question(&self) -> &'static str {
        "Does a load generator see that its server stood still for a fifth of the time?"
    }

    fn how(&self) -> &'static str {
        "The server is stopped for 200 ms of every second (SIGSTOP for a process; a gate in its loop for the loopback \
         ring's thread). An open loop sends on schedule whatever happens; a closed loop waits for each reply, as ping and \
         most benchmark tools do. The oracle computes what every scheduled request had to wait, from the moments at which \
         the server was really stopped and the time that a request takes at the server when others wait behind it, by the \
         server's own clock; it never looks at the generator's clocks."
    }

    fn axes(&self) -> &'static [Axis] {
        &[LOOP, RATE]
    }

    fn backends(&self) -> Vec<&'static str> {
        // A program in the kernel cannot be stopped as a process can.
        let has_server = |backend: &&BackEnd| !matches!(backend.kind, Kind::XdpEcho(..));
        backends::BACKENDS
            .iter()
            .filter(has_server)
            .map(|backend| backend.name)
            .collect()
    }

    fn tour_backends(&self) -> Vec<&'static str> {
        vec!["udp-blocking"]
    }

    fn claims(&self) -> &'static [Claim] {
        CLAIMS
    }

    fn tour_weight(&self) -> f64 {
        1.3
    }

    fn run(&self, lab: &mut Lab<'_>) -> anyhow::Result<()> {
        let mut arms = Vec::new();
        for backend in lab.backends(self) {
            for kind in lab.values(&LOOP) {
                let rates = if kind == "open" { lab.numbers(&RATE) } else { vec![0.0] };
                for rate_per_s in rates {
                    arms.push((backend, kind.clone(), rate_per_s));
                }
            }
        }
        let rounds_count = if lab.choice.depth == Depth::Full { 3 } else { 1 };
        // Whole periods, so that stopped time is exactly a fifth.
        let periods = (lab.budget.as_secs_f64() / (arms.len().max(1) * rounds_count) as f64)
            .floor()
            .clamp(2.0, 5.0);
        let duration = STALL.period.mul_f64(periods);
        lab.in_rounds(&arms, rounds_count as u32, |lab, turn| {
            let (backend, kind, rate_per_s) = turn.arm;
            lab.progress
                .set_message(format!("{}, {kind} loop, stalled server", backend.name));
            let seed = lab.choice.seed ^ (u64::from(turn.round) << 32 | turn.index as u64);
            let row = measure(lab, self.id(), backend, kind, *rate_per_s, duration, turn.round, seed)?;
            lab.record(row)
        })
    }
}

#[expect(clippy::too_many_arguments, reason = "one arm of the table above, spelled out")]
fn measure(
    lab: &Lab<'_>,
    experiment: &'static str,
    backend: &BackEnd,
    kind: &str,
    rate_per_s: f64,
    duration: Duration,
    round: u32,
    seed: u64,
) -> anyhow::Result<Row> {
    let schedule = match kind {
        "open" => Some(Schedule::poisson(rate_per_s, duration, seed).context("planning the load")?),
        _ => None,
    };
    let load = match &schedule {
        Some(schedule) => Load::Open(schedule),
        None => Load::Closed { duration },
    };
    let trial = Trial {
        backend,
        client_backend: None,
        frame_bytes: FRAME_BYTES,
        cpus: Cpus::Two,
        load,
        timeout: TIMEOUT,
        stall: Some(STALL),
        service_spin: Duration::ZERO,
        // Everything that 10 000 requests a second pile up in 200 ms, and as much again: this experiment is about
        // waiting; `loss-exclusion` is about loss.
        room: Room { frames_count: 8192 },
        overflow_is_measured: false,
    };
    let outcome = trial::run(lab, &trial, round)?;
    let mut axis = BTreeMap::from([(LOOP.name.to_owned(), kind.to_owned())]);
    let mut truths = Vec::new();
    if let Some(schedule) = &schedule {
        axis.insert(RATE.name.to_owned(), format!("{rate_per_s}"));
        let service_ns = outcome.server.service_ns.unwrap_or(0);
        let replies = oracle::reply_times_ns(schedule.offsets_ns(), &outcome.stalls_ns, service_ns);
        for (name, q) in [("truth_p90", 0.9), ("truth_p99", 0.99)] {
            if let QuantileValue::Ns(ns) = oracle::quantile(&replies, 0, q) {
                truths.push((name, ns as f64));
            }
        }
    }
    let position = Position {
        experiment,
        axis,
        round,
        twin: false,
        seed,
    };
    let mut row = outcome.into_row(&trial, position);
    for (name, value) in truths {
        let metric = Metric {
            value,
            unit: "ns".to_owned(),
            better: Better::Neither,
        };
        row.metrics.insert(name.to_owned(), metric);
    }
    Ok(row)
}

const CLAIMS: &[Claim] = &[
    Claim {
        id: "coordinated-omission",
        sentence: "A closed loop hides stalls: with the server stopped for 200 ms of every second its p99 is not even a \
                   hundredth of the true 190 ms",
        source: Source::Published {
            work: "Tene, How NOT to Measure Latency, Strange Loop 2015",
            place: "coordinated omission; the stall oracle is our own",
        },
        invariant: "The same server, stopped in the same way. The truth is computed from the stops, not from a generator.",
        judge: closed_loop_hides,
    },
    Claim {
        id: "open-loop-sees",
        sentence: "An open loop that counts from the intended send time sees the stall: p90 and p99 within 5 ms of the truth",
        source: Source::Ours {
            seen: "this load generator's own oath; every back end and rate of the run is held to it",
        },
        invariant: "|measured − oracle| ≤ 5 ms at p90 and at p99 of every open-loop row, lost requests counted as +∞.",
        judge: open_loop_sees,
    },
];

/// What a row's latency says at `q`.
fn quantile(row: &Row, q: f64) -> Option<QuantileValue> {
    Some(
        row.latency
            .as_ref()?
            .quantiles
            .iter()
            .find(|quantile| quantile.q == q)?
            .value,
    )
}

fn closed_loop_hides(table: &Table) -> Judgement {
    const TRUE_P99_NS: f64 = 190e6;
    let closed = Arm::of("udp-blocking", &[("loop", "closed")]);
    let Some(merged) = table.merged(closed, |row| row.latency.as_ref()) else {
        return table.lacking(closed);
    };
    let value = match merged.quantile(0.99) {
        QuantileValue::Ns(ns) => Some(ns as f64),
        QuantileValue::Lost => None,
        QuantileValue::Unsupported => return Judgement::not_measured("too few replies for a p99"),
    };
    let hides = value.is_some_and(|ns| ns < TRUE_P99_NS / 100.0);
    let limit = "truth: 190 ms; hidden when < 1.9 ms";
    Judgement::new(
        if hides { Outcome::Holds } else { Outcome::Fails },
        vec![measured(
            "p99 of the closed loop, udp-blocking",
            value,
            "ns",
            limit,
            merged.total_count(),
        )],
    )
}

fn open_loop_sees(table: &Table) -> Judgement {
    const TOLERANCE_NS: f64 = 5e6;
    let rows: Vec<&Row> = table
        .valid()
        .filter(|row| row.axis.get("loop").is_some_and(|kind| kind == "open"))
        .collect();
    if rows.is_empty() {
        return match table
            .rows
            .iter()
            .any(|row| row.axis.get("loop").is_some_and(|kind| kind == "open"))
        {
            true => Judgement::invalid("every open-loop row is INVALID; the report says why, and what to try"),
            false => Judgement::not_measured("no open-loop row in this run"),
        };
    }
    let mut worst: Option<(f64, String, Option<f64>)> = None;
    for row in &rows {
        for (q, truth) in [(0.9, "truth_p90"), (0.99, "truth_p99")] {
            let Some(truth) = row.metrics.get(truth) else { continue };
            let (error_ns, seen) = match quantile(row, q) {
                Some(QuantileValue::Ns(ns)) => ((ns as f64 - truth.value).abs(), Some(ns as f64)),
                Some(QuantileValue::Lost) => (f64::INFINITY, None),
                Some(QuantileValue::Unsupported) | None => continue,
            };
            if worst.as_ref().is_none_or(|(worst_ns, ..)| error_ns > *worst_ns) {
                let rate = row.axis.get("rate_per_s").map_or("", String::as_str);
                let what = format!(
                    "p{} of {} at {rate}/s; the truth is {:.1} ms",
                    q * 100.0,
                    row.backend,
                    truth.value / 1e6
                );
                worst = Some((error_ns, what, seen));
            }
        }
    }
    let Some((error_ns, what, seen)) = worst else {
        return Judgement::not_measured("no row has a p90 or a p99");
    };
    let error = error_ns.is_finite().then_some(error_ns);
    let samples_count = rows.len() as u64;
    Judgement::new(
        if error_ns <= TOLERANCE_NS {
            Outcome::Holds
        } else {
            Outcome::Fails
        },
        vec![
            measured("largest distance from the truth", error, "ns", "≤ 5 ms", samples_count),
            measured(what, seen, "ns", "", samples_count),
        ],
    )
}
