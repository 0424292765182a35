//! `client-bias`: the same server, the same load, two clients. The one that sleeps adds its own wake-up to every number
//! and calls it the server's.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context;

use crate::{
    backends::{self, Room},
    claim::{Claim, Judgement, Source},
    experiment::{Allowed, Axis, Experiment, Lab},
    experiments::judge::measured_ratio,
    load::schedule::Schedule,
    measure::compare,
    record::{Measured, Outcome},
    table::{Arm, ROUNDS_MIN, Table, latency_ns},
    trial::{self, Cpus, Load, Position, Trial},
};

/// See the module.
#[derive(Debug)]
pub struct ClientBias;

const CLIENT: Axis = Axis {
    name: "client",
    meaning: "how the client waits for replies",
    full: &["blocking", "spinning"],
    tour: &["blocking", "spinning"],
    smallest: "spinning",
    allowed: Allowed::Words,
};

const RATE: Axis = Axis {
    name: "rate_per_s",
    meaning: "requests a second, open loop",
    full: &["2000", "10000"],
    tour: &["2000"],
    smallest: "2000",
    allowed: Allowed::Number(100.0, 50_000.0),
};

const TIMEOUT: Duration = Duration::from_millis(200);

impl Experiment for ClientBias {
    fn id(&self) -> &'static str {
        "client-bias"
    }

    fn title(&self) -> &'static str {
        "The client's own share"
    }

    fn question(&self) -> &'static str {
        "How much of a measured latency is the measuring client's own wake-up?"
    }

    fn how(&self) -> &'static str {
        "One server (a spinning UDP socket on a CPU of its own) answers the same Poisson load for two clients that differ \
         only in how they wait: one sleeps in the kernel until a reply or the next send is due, one never sleeps. What the \
         first measures more than the second, it added itself."
    }

    fn axes(&self) -> &'static [Axis] {
        &[CLIENT, RATE]
    }

    fn backends(&self) -> Vec<&'static str> {
        vec!["udp-spin"]
    }

    fn claims(&self) -> &'static [Claim] {
        CLAIMS
    }

    fn tour_weight(&self) -> f64 {
        1.0
    }

    fn run(&self, lab: &mut Lab<'_>) -> anyhow::Result<()> {
        let mut arms = Vec::new();
        for server in lab.backends(self) {
            for rate_per_s in lab.numbers(&RATE) {
                for client in lab.values(&CLIENT) {
                    arms.push((server, rate_per_s, client));
                }
            }
        }
        let plan = lab.plan(arms.len(), Duration::from_millis(150));
        lab.in_rounds(&arms, plan.rounds_count, |lab, turn| {
            let (server, rate_per_s, client) = turn.arm;
            lab.progress
                .set_message(format!("{client} client, round {}", turn.round + 1));
            let name = if client == "blocking" { "udp-poll" } else { "udp-spin" };
            let seed = lab.choice.seed ^ u64::from(turn.round);
            let schedule = Schedule::poisson(*rate_per_s, plan.trial, seed).context("planning the load")?;
            let trial = Trial {
                backend: server,
                client_backend: backends::by_name(name),
                frame_bytes: 64,
                cpus: Cpus::Two,
                load: Load::Open(&schedule),
                timeout: TIMEOUT,
                stall: None,
                service_spin: Duration::ZERO,
                room: Room { frames_count: 1024 },
                overflow_is_measured: false,
            };
            lab.record_until_valid(|lab| {
                let outcome = trial::run(lab, &trial, turn.number)?;
                let position = Position {
                    experiment: self.id(),
                    axis: BTreeMap::from([
                        (CLIENT.name.to_owned(), client.clone()),
                        (RATE.name.to_owned(), format!("{rate_per_s}")),
                    ]),
                    round: turn.round,
                    twin: false,
                    seed,
                };
                Ok(outcome.into_row(&trial, position))
            })
        })
    }
}

const CLAIMS: &[Claim] = &[Claim {
    id: "client-bias",
    sentence: "A blocking client adds about 20 µs of its own to the median it measures (judged: 10 µs or more)",
    source: Source::Published {
        work: "Kogias et al., Lancet: A Self-correcting Latency Measuring Tool, USENIX ATC 2019",
        place: "abstract and evaluation: 10 to 20 µs below tools with blocking clients",
    },
    invariant: "Same server, same schedule in the same round; only the client's wait differs. Needs a CPU for each end.",
    judge: blocking_client_adds,
}];

fn blocking_client_adds(table: &Table) -> Judgement {
    const LIMIT_NS: f64 = 10_000.0;
    let axis_of = |client| [("client", client), ("rate_per_s", "2000")];
    let (blocking, spinning) = (axis_of("blocking"), axis_of("spinning"));
    let (blocking, spinning) = (Arm::of("udp-spin", &blocking), Arm::of("udp-spin", &spinning));
    if table
        .valid()
        .any(|row| row.facts.get("client_cpu") == row.facts.get("server_cpu"))
    {
        return Judgement::not_measured(
            "both ends share a CPU on this machine; a spinning client needs one of its own",
        );
    }
    let (a, b) = table.paired(blocking, spinning, latency_ns(0.5));
    if a.len() < ROUNDS_MIN {
        return Judgement::not_measured("fewer than six rounds have both rows; give it a longer --budget");
    }
    let difference = compare::difference(&b, &a, table.seed);
    let outcome = if difference.low >= LIMIT_NS {
        Outcome::Holds
    } else if difference.high < LIMIT_NS {
        Outcome::Fails
    } else {
        Outcome::Inconclusive {
            why: "the interval straddles 10 µs; more rounds (--budget) may decide it".to_owned(),
        }
    };
    let ratio = compare::ratio(&b, &a, table.seed);
    Judgement::new(
        outcome,
        vec![
            Measured {
                name: "p50 of the blocking client − p50 of the spinning client".to_owned(),
                value: Some(difference.value),
                unit: "ns".to_owned(),
                low: Some(difference.low),
                high: Some(difference.high),
                limit: "≥ 10 µs".to_owned(),
                samples_count: a.len() as u64,
            },
            measured_ratio("the same as a ratio", &ratio, ""),
        ],
    )
}
