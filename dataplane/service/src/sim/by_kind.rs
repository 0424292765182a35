//! A station whose discipline has a name.

use std::time::Duration;

use super::{ArrivedNs, Station, StationOptions};
use crate::{
    discipline::{Discipline, Kind, PerWorker, Quantum, ShortestOfTwo, SingleQueue, Stealing},
    queue::LocalQueue,
    workers::{Work, WorkerCounts},
};

/// How a station is run.
#[derive(Clone, Copy, Debug)]
pub struct OneStation {
    /// Its discipline.
    pub kind: Kind,
    /// Of [`Kind::Preemptive`].
    pub quantum: Duration,
    /// Requests that are served before anything counts.
    pub warm_up_count: u64,
    /// Requests that count.
    pub requests_count: u64,
}

/// Runs a station from empty; `sink` gets how long each request that counts was in it, in nanoseconds. What was counted
/// meanwhile.
///
/// # Panics
/// As [`Station::new`].
pub fn station(options: StationOptions, run: OneStation, sink: &mut dyn FnMut(u64)) -> WorkerCounts {
    type Local = LocalQueue<Work<ArrivedNs>>;
    let workers_count = options.workers_count;
    match run.kind {
        Kind::SingleQueue => go(options, SingleQueue::<Local>::new(), run, sink),
        Kind::PerWorker => go(options, PerWorker::<Local>::new(workers_count), run, sink),
        Kind::Stealing => go(options, Stealing::<Local>::new(workers_count), run, sink),
        Kind::ShortestOfTwo => go(options, ShortestOfTwo::<Local>::new(workers_count), run, sink),
        Kind::Preemptive => go(
            options,
            Quantum::new(SingleQueue::<Local>::new(), run.quantum),
            run,
            sink,
        ),
    }
}

fn go<D: Discipline<Work<ArrivedNs>>>(
    options: StationOptions,
    discipline: D,
    run: OneStation,
    sink: &mut dyn FnMut(u64),
) -> WorkerCounts {
    let mut station = Station::new(options, discipline);
    station.run(run.warm_up_count, |_| {});
    let before = station.counts();
    station.run(run.requests_count, sink);
    let after = station.counts();
    WorkerCounts {
        served_count: after.served_count - before.served_count,
        preempted_count: after.preempted_count - before.preempted_count,
        withdrawn_count: after.withdrawn_count - before.withdrawn_count,
        waiting_count_max: after.waiting_count_max,
        served_ns: after.served_ns - before.served_ns,
    }
}
