//! `loss-exclusion`: the stalled server again, with a receive buffer too small for what piles up. A generator that
//! leaves lost requests out of its percentiles flatters the server that lost them.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context;

use crate::{
    backends::Room,
    claim::{Claim, Judgement, Source},
    experiment::{Allowed, Axis, Depth, Experiment, Lab},
    experiments::judge::measured,
    load::schedule::Schedule,
    measure::Recorder,
    record::{Better, Metric, Outcome, QuantileValue},
    table::{Arm, Table},
    trial::{self, Cpus, Load, Position, Stall, Trial},
};

/// See the module.
#[derive(Debug)]
pub struct LossExclusion;

const RATE: Axis = Axis {
    name: "rate_per_s",
    meaning: "requests a second, open loop",
    full: &["10000"],
    tour: &["10000"],
    smallest: "10000",
    allowed: Allowed::Number(2_000.0, 20_000.0),
};

const STALL: Stall = Stall {
    period: Duration::from_secs(1),
    stopped: Duration::from_millis(200),
};

/// Longer than the stall: what is lost was dropped, not late.
const TIMEOUT: Duration = Duration::from_millis(500);

impl Experiment for LossExclusion {
    fn id(&self) -> &'static str {
        "loss-exclusion"
    }

    fn title(&self) -> &'static str {
        "Leaving out what was lost"
    }

    fn question(&self) -> &'static str {
        "What does a percentile say when lost requests are left out of it?"
    }

    fn how(&self) -> &'static str {
        "The server is stopped for 200 ms of every second and its receive buffer holds a few hundred requests of the \
         two thousand that come meanwhile; the rest is dropped. The same replies are then read twice: with every lost request counted as longer than any \
         reply, and, as common tools do, without them."
    }

    fn axes(&self) -> &'static [Axis] {
        &[RATE]
    }

    fn backends(&self) -> Vec<&'static str> {
        vec!["udp-blocking", "udp-spin", "udp-mmsg", "uring"]
    }

    fn tour_backends(&self) -> Vec<&'static str> {
        vec!["udp-blocking"]
    }

    fn claims(&self) -> &'static [Claim] {
        CLAIMS
    }

    fn tour_weight(&self) -> f64 {
        0.7
    }

    fn run(&self, lab: &mut Lab<'_>) -> anyhow::Result<()> {
        let backends = lab.backends(self);
        let rates = lab.numbers(&RATE);
        let rounds_count = if lab.choice.depth == Depth::Full { 3 } else { 1 };
        let trials_count = (backends.len() * rates.len()).max(1) * rounds_count as usize;
        let periods = (lab.budget.as_secs_f64() / trials_count as f64).floor().clamp(2.0, 5.0);
        lab.progress.set_length(trials_count as u64);
        for round in 0..rounds_count {
            for backend in &backends {
                for rate_per_s in &rates {
                    if lab.interrupted() {
                        return Ok(());
                    }
                    lab.progress
                        .set_message(format!("{}, small buffer, stalled server", backend.name));
                    let seed = lab.choice.seed ^ u64::from(round);
                    let schedule = Schedule::poisson(*rate_per_s, STALL.period.mul_f64(periods), seed)
                        .context("planning the load")?;
                    let trial = Trial {
                        backend,
                        client_backend: None,
                        frame_bytes: 64,
                        cpus: Cpus::Two,
                        load: Load::Open(&schedule),
                        timeout: TIMEOUT,
                        stall: Some(STALL),
                        service_spin: Duration::ZERO,
                        room: Room { frames_count: 128 },
                        overflow_is_measured: true,
                    };
                    let outcome = trial::run(lab, &trial, round)?;
                    let without: Vec<(&str, QuantileValue)> = [("p90_without_lost", 0.9), ("p99_without_lost", 0.99)]
                        .into_iter()
                        .map(|(name, q)| (name, without_lost(&outcome.load.latency, q)))
                        .collect();
                    let position = Position {
                        experiment: self.id(),
                        axis: BTreeMap::from([(RATE.name.to_owned(), format!("{rate_per_s}"))]),
                        round,
                        twin: false,
                        seed,
                    };
                    let mut row = outcome.into_row(&trial, position);
                    for (name, value) in without {
                        if let QuantileValue::Ns(ns) = value {
                            let metric = Metric {
                                value: ns as f64,
                                unit: "ns".to_owned(),
                                better: Better::Lower,
                            };
                            row.metrics.insert(name.to_owned(), metric);
                        }
                    }
                    lab.record(row)?;
                    lab.progress.inc(1);
                }
            }
        }
        Ok(())
    }
}

const CLAIMS: &[Claim] = &[Claim {
    id: "loss-exclusion",
    sentence: "Leaving lost requests out flatters the server: its p90 is a thousand times too low",
    source: Source::Ours {
        seen: "sockperf under load, 10 000 requests/s, printed a p90 of 57 µs where the truth is above 100 ms",
    },
    invariant: "One set of replies, read twice. More than a tenth of the requests must be lost, or there is nothing to hide.",
    judge: exclusion_flatters,
}];

/// The quantile of the replies alone: what a tool prints that forgets what it lost.
fn without_lost(recorder: &Recorder, q: f64) -> QuantileValue {
    match recorder.samples_count() {
        0 => QuantileValue::Unsupported,
        _ => QuantileValue::Ns(recorder.histogram().value_at_quantile(q)),
    }
}

fn exclusion_flatters(table: &Table) -> Judgement {
    let arm = Arm::of("udp-blocking", &[]);
    let Some(merged) = table.merged(arm, |row| row.latency.as_ref()) else {
        return table.lacking(arm);
    };
    let total_count = merged.total_count();
    let lost_ratio = merged.lost_count() as f64 / total_count.max(1) as f64;
    let without = without_lost(&merged, 0.9);
    let with = merged.quantile(0.9);
    let ns = |value| match value {
        QuantileValue::Ns(ns) => Some(ns as f64),
        QuantileValue::Lost | QuantileValue::Unsupported => None,
    };
    let figures = vec![
        measured(
            "p90 without the lost",
            ns(without),
            "ns",
            "a thousandth of the truth, or less",
            total_count,
        ),
        measured(
            "p90 with the lost as +∞ (no figure: lost)",
            ns(with),
            "ns",
            "",
            total_count,
        ),
        measured("requests lost", Some(lost_ratio), "ratio", "> 0.1", total_count),
    ];
    let outcome = match (with, without) {
        _ if lost_ratio <= 0.1 => Outcome::NotMeasured {
            why: "the buffer held almost everything that piled up; nothing to hide".to_owned(),
        },
        (QuantileValue::Lost, QuantileValue::Ns(ns)) if ns < 1_000_000 => Outcome::Holds,
        (QuantileValue::Ns(with), QuantileValue::Ns(without)) if without.saturating_mul(1000) <= with => Outcome::Holds,
        _ => Outcome::Fails,
    };
    Judgement::new(outcome, figures)
}
