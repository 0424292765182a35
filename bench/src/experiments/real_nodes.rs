//! A client's policy over real nodes, as a row: what the experiments about policies have in common. The same nodes in virtual time
//! are in [`super::virtual_nodes`]; the policies' code is the same.

use std::time::Duration;

use anyhow::Context;
use dataplane_service::policy::Policy;

use super::virtual_nodes::At;
use crate::{
    experiment::{Allowed, Axis, Depth, Lab},
    load::schedule::Schedule,
    record::Row,
    service::{
        fleet::{self, FleetFound, FleetPlan},
        row,
    },
    trial::Position,
};

/// In virtual time, or on this machine.
pub const PART: Axis = Axis {
    name: "part",
    meaning: "sim: nodes in virtual time; nodes: real ones, each a process that sleeps by a timer, and a real client",
    full: &[SIM, NODES],
    tour: &[SIM],
    smallest: SIM,
    allowed: Allowed::Words,
};

/// In virtual time.
pub const SIM: &str = "sim";
/// On this machine.
pub const NODES: &str = "nodes";

/// What rows of real nodes have as their back end.
pub const REAL: &str = "udp-epoll";

/// The parts that were asked for, one after the other.
///
/// # Errors
/// Those of either.
pub fn in_parts(
    lab: &mut Lab<'_>,
    simulate: impl Fn(&mut Lab<'_>) -> anyhow::Result<()>,
    ask: impl Fn(&mut Lab<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    for part in lab.values(&PART) {
        match part.as_str() {
            SIM => simulate(lab)?,
            _ => ask(lab)?,
        }
    }
    Ok(())
}

/// The values of an axis that were asked for; of real nodes, which take real time, the most telling ones otherwise.
pub fn values_or(lab: &Lab<'_>, axis: &Axis, telling: &[&str]) -> Vec<String> {
    match lab.choice.axes.contains_key(axis.name) || lab.choice.depth == Depth::Smallest {
        true => lab.values(axis),
        false => telling.iter().map(ToString::to_string).collect(),
    }
}

/// How many rounds of real nodes there are, at most.
pub fn rounds_count(lab: &Lab<'_>, full_count: u32) -> u32 {
    match lab.choice.depth {
        Depth::Smallest => 1,
        Depth::Tour | Depth::Full => full_count,
    }
}

/// How long a measurement of real nodes is.
pub fn trial(lab: &Lab<'_>, full: Duration) -> Duration {
    match lab.choice.depth {
        Depth::Smallest => Duration::from_millis(400),
        Depth::Tour | Depth::Full => full,
    }
}

/// What everything in a round is drawn from: arms that are compared have the same schedule, services and stalls.
pub fn seed_of(lab: &Lab<'_>, round: u32) -> u64 {
    lab.choice.seed ^ u64::from(round) << 32
}

/// Calls by chance, so many a second on average.
///
/// # Errors
/// A rate or a time that makes no schedule.
pub fn calls(rate_per_s: f64, trial: Duration, seed: u64) -> anyhow::Result<Schedule> {
    Schedule::poisson(rate_per_s, trial, seed).context("planning the calls")
}

/// Measures once: the row, and what it was made from. `needed_per_call` requests are what a call takes without a policy for its tail.
///
/// # Errors
/// As [`fleet::run`].
pub fn ask(
    lab: &Lab<'_>,
    at: At,
    plan: &FleetPlan<'_>,
    schedule: &Schedule,
    policy: Box<dyn Policy>,
    needed_per_call: u32,
) -> anyhow::Result<(Row, FleetFound)> {
    let found = fleet::run(lab, plan, schedule, policy)?;
    let position = Position {
        experiment: at.experiment,
        axis: at.axis,
        round: at.round,
        twin: false,
        seed: plan.client.seed,
    };
    let row = row::row(lab, plan, schedule, &found, position, needed_per_call);
    Ok((row, found))
}
