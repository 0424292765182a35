//! `self-test`: the measurer measured. Comparisons of a thing with itself must not find a difference; a slow-down that
//! was planted must be found.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context;

use crate::{
    backends::{self, Room},
    claim::{Claim, Judgement, Source},
    experiment::{Allowed, Axis, Experiment, Lab},
    experiments::judge::measured,
    measure::{
        compare::{self, Difference},
        rounds,
    },
    record::{Outcome, QuantileValue},
    table::{Arm, ROUNDS_MIN, Table, latency_ns},
    trial::{self, Cpus, Load, Position, Trial},
};

/// See the module.
#[derive(Debug)]
pub struct SelfTest;

const KIND: Axis = Axis {
    name: "planted",
    meaning: "what differs between the two arms: nothing, or 5 % more work at the server",
    full: &["nothing", "slower"],
    tour: &["nothing"],
    smallest: "nothing",
    allowed: Allowed::Words,
};

/// Rounds of one comparison.
const ROUNDS: usize = 12;
/// Comparisons of identical arms.
const IDENTICAL_COUNT: usize = 100;
/// Comparisons with a planted slow-down.
const PLANTED_COUNT: usize = 20;
/// The slow-down, as a share of the median RTT.
const PLANTED_RATIO: f64 = 0.05;

const BACKEND: &str = "udp-blocking";

impl Experiment for SelfTest {
    fn id(&self) -> &'static str {
        "self-test"
    }

    fn title(&self) -> &'static str {
        "The measurer measured"
    }

    fn question(&self) -> &'static str {
        "How often does this lab see a difference where there is none, and miss one where there is?"
    }

    fn how(&self) -> &'static str {
        "One hundred times, the same back end is compared with itself, in twelve interleaved rounds, by the same statistics \
         that every verdict uses. Then the server of one arm is made 5 % of the RTT slower by a calibrated spin, twenty \
         times. Both ends share a CPU and sleep."
    }

    fn axes(&self) -> &'static [Axis] {
        &[KIND]
    }

    fn backends(&self) -> Vec<&'static str> {
        vec![BACKEND]
    }

    fn claims(&self) -> &'static [Claim] {
        CLAIMS
    }

    fn tour_weight(&self) -> f64 {
        0.0
    }

    fn needs_one_machine(&self) -> Option<&'static str> {
        Some("its two ends share a CPU, so that what differs between arms is the planted work alone")
    }

    fn run(&self, lab: &mut Lab<'_>) -> anyhow::Result<()> {
        let backend = backends::by_name(BACKEND).context("the back end under test exists")?;
        let trial = Trial {
            backend,
            client_backend: None,
            frame_bytes: 64,
            cpus: Cpus::One,
            load: Load::Closed {
                duration: Duration::from_millis(300),
            },
            timeout: Duration::from_millis(500),
            stall: None,
            service_spin: Duration::ZERO,
            room: Room { frames_count: 64 },
            overflow_is_measured: false,
        };
        lab.progress.set_message("calibrating the planted slow-down");
        let calibration = trial::run(lab, &trial, 0)?;
        let QuantileValue::Ns(rtt_ns) = calibration.load.latency.quantile(0.5) else {
            anyhow::bail!("the calibration has no median");
        };
        let spin = Duration::from_nanos((rtt_ns as f64 * PLANTED_RATIO) as u64);

        let mut comparisons = Vec::new();
        for kind in lab.values(&KIND) {
            let planted = kind == "slower";
            let count = if planted { PLANTED_COUNT } else { IDENTICAL_COUNT };
            comparisons
                .extend((0..count).map(|index| (kind.clone(), if planted { spin } else { Duration::ZERO }, index)));
        }
        if lab.choice.depth == crate::experiment::Depth::Smallest {
            comparisons.truncate(1);
        }
        let trials_count = comparisons.len() * ROUNDS * 2;
        let duration = (lab.budget / trials_count as u32).saturating_sub(Duration::from_millis(40));
        let duration = duration.clamp(Duration::from_millis(40), Duration::from_millis(300));
        lab.progress.set_length(trials_count as u64);
        for (kind, spin, index) in comparisons {
            let seed = lab.choice.seed.wrapping_add(index as u64);
            for (round, order) in rounds::order(2, ROUNDS, seed).iter().enumerate() {
                for arm in order {
                    if lab.interrupted() {
                        return Ok(());
                    }
                    lab.progress
                        .set_message(format!("{kind} planted, comparison {}", index + 1));
                    let second = *arm == 1;
                    let trial = Trial {
                        load: Load::Closed { duration },
                        service_spin: if second { spin } else { Duration::ZERO },
                        ..trial.clone()
                    };
                    let outcome = trial::run(lab, &trial, (round * 2 + arm) as u32)?;
                    let position = Position {
                        experiment: self.id(),
                        axis: BTreeMap::from([
                            (KIND.name.to_owned(), kind.clone()),
                            ("comparison".to_owned(), format!("{index:03}")),
                            ("arm".to_owned(), if second { "b" } else { "a" }.to_owned()),
                        ]),
                        round: round as u32,
                        // A slowed arm is nobody's twin.
                        twin: second && spin.is_zero(),
                        seed,
                    };
                    lab.record(outcome.into_row(&trial, position))?;
                    lab.progress.inc(1);
                }
            }
        }
        Ok(())
    }
}

const CLAIMS: &[Claim] = &[
    Claim {
        id: "no-false-alarms",
        sentence: "Of 100 comparisons of identical back ends, at most 5 show a difference",
        source: Source::Ours {
            seen: "an oath: 95 % intervals must mean it",
        },
        invariant: "The same comparison that verdicts use, on arms that differ in nothing.",
        judge: |table| {
            count_differences(table, "nothing", IDENTICAL_COUNT, "at most 5 of 100", |found, of| {
                found * 20 <= of
            })
        },
    },
    Claim {
        id: "planted-slowdowns-found",
        sentence: "Of 20 planted slow-downs of 5 %, at least 19 are found",
        source: Source::Ours {
            seen: "an oath: a lab that never sees a difference has no false alarms either",
        },
        invariant: "A calibrated spin of 5 % of the median RTT in the server of one arm, nothing else.",
        judge: |table| {
            count_differences(table, "slower", PLANTED_COUNT, "at least 19 of 20", |found, of| {
                found * 20 >= of * 19
            })
        },
    },
];

fn count_differences(
    table: &Table,
    kind: &str,
    wanted_count: usize,
    limit: &str,
    holds: fn(usize, usize) -> bool,
) -> Judgement {
    let mut compared = 0;
    let mut found = 0;
    for index in 0..wanted_count {
        let index = format!("{index:03}");
        let axis = |arm| [("planted", kind), ("comparison", index.as_str()), ("arm", arm)];
        let (base, second) = (axis("a"), axis("b"));
        let second = Arm {
            twin: kind == "nothing",
            ..Arm::of(BACKEND, &second)
        };
        let (base, second) = table.paired(Arm::of(BACKEND, &base), second, latency_ns(0.5));
        if base.len() < ROUNDS_MIN {
            continue;
        }
        compared += 1;
        let difference = compare::verdict(&compare::ratio(&base, &second, table.seed), None);
        found += usize::from(match kind {
            "slower" => difference == Difference::Slower,
            _ => difference != Difference::Inconclusive,
        });
    }
    if compared < wanted_count {
        return Judgement::not_measured(format!("{compared} of {wanted_count} comparisons were made"));
    }
    Judgement::new(
        if holds(found, compared) {
            Outcome::Holds
        } else {
            Outcome::Fails
        },
        vec![measured(
            "differences found",
            Some(found as f64),
            "count",
            limit,
            compared as u64,
        )],
    )
}
