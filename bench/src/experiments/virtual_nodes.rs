//! A client's policy over nodes in virtual time, as a row: what the experiments about policies have in common.

use std::collections::BTreeMap;

use dataplane_service::{
    policy::Policy,
    sim::{Cluster, ClusterOptions, Outcome},
    workers::WorkerCounts,
};
use dataplane_sim::SimTime;

use super::virtual_time::{Happened, Simulated};
use crate::{experiment::Lab, measure::Recorder, record::Better, service::row::GUARANTEE};

/// Where a row stands.
pub struct At {
    /// The experiment.
    pub experiment: &'static str,
    /// The row's axis values.
    pub axis: BTreeMap<String, String>,
    /// The round.
    pub round: u32,
}

/// The seed of a round: arms that are compared have the same arrivals, services and stalls.
pub fn seed_of(lab: &Lab<'_>, round: u32) -> u64 {
    lab.choice.seed.wrapping_mul(1_000).wrapping_add(u64::from(round))
}

/// Makes the calls, and tells `hear` of each in the order in which they end. `needed_per_call` requests are what a call takes without
/// a policy for its tail.
pub fn simulate(
    lab: &Lab<'_>,
    at: At,
    options: ClusterOptions,
    policy: Box<dyn Policy>,
    calls_count: u64,
    needed_per_call: u32,
    hear: &mut dyn FnMut(Outcome),
) -> Simulated {
    let seed = options.seed;
    let busy_ns_max = options.nodes_count as f64 * options.workers_count as f64;
    let mut cluster = Cluster::new(options, policy);
    let mut latency = Recorder::new();
    let mut answered_count = 0;
    cluster.run(calls_count, &mut |outcome| {
        answered_count += u64::from(outcome.answered_count);
        match outcome.took_ns {
            Some(ns) => latency.record(ns),
            None => latency.record_lost(),
        }
        hear(outcome);
    });
    let (events_count, event_hash) = cluster.events();
    let happened = Happened {
        elapsed: SimTime::from_ns(cluster.now_ns()),
        event_hash,
        events_count,
    };
    let mut row = Simulated::of(lab, at.experiment, at.axis, seed, happened);
    row.round(at.round);
    row.latency(&latency);
    let counts = cluster.counts();
    let nodes: WorkerCounts = cluster.node_counts();
    row.put("calls", calls_count as f64, "count", Better::Neither);
    row.put(
        "extra_requests_ratio",
        counts.extra_ratio(needed_per_call),
        "ratio",
        Better::Lower,
    );
    // What nodes really did: a request that was withdrawn in time cost none of them anything.
    let needed = (calls_count * u64::from(needed_per_call)) as f64;
    row.put(
        "extra_served_ratio",
        nodes.served_count as f64 / needed - 1.0,
        "ratio",
        Better::Lower,
    );
    row.put(
        "missing_ratio",
        1.0 - answered_count as f64 / needed,
        "ratio",
        Better::Lower,
    );
    row.put(
        "busy_ratio",
        nodes.served_ns as f64 / busy_ns_max / cluster.now_ns().max(1) as f64,
        "ratio",
        Better::Neither,
    );
    row.put("given_up", counts.given_up_count as f64, "count", Better::Lower);
    row.fact("guarantee", GUARANTEE);
    row
}
