//! The simulator on trial: stations whose distribution theory knows, at each load with many seeds.

use std::time::Duration;

use dataplane_service::{
    discipline::Kind,
    oracle::{Mg1, Mm1, Mm1Shared, Mmk, Sojourn},
    random::mix,
    service_time::ServiceTime,
    sim::{self, OneStation, SharedStation, StationOptions},
    workers::Overhead,
};

use crate::{
    host,
    measure::{Recorder, student},
};

/// The stations that theory knows, as the axis `system` names them.
pub(super) const SYSTEMS: [&str; 6] = ["mm1", "mm4", "md1", "m-bimodal-1", "m-lognormal-1", "mm1-shared"];

/// What is held against theory: every decile, and the p99.9.
pub(super) const HELD: [f64; 10] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.999];

/// Seeds of a row; each is a run from an empty station.
pub(super) const SEEDS_COUNT: u64 = 20;

/// Requests before anything counts: at a load of 0.95 a single worker forgets that it was empty after 1 ÷ (1 − √ρ)² = 1560
/// service times (Morse, Queues, Inventories and Maintenance, 1958).
const WARM_UP_COUNT: u64 = 60_000;

const MEAN_NS: f64 = 100_000.0;

/// What a row found.
pub(super) struct Found {
    pub(super) latency: Recorder,
    /// What theory says of each of [`HELD`], in nanoseconds.
    pub(super) oracle_ns: [f64; HELD.len()],
    /// How far the share within each of them is from what theory says, in half widths of an interval of 99 % over the seeds.
    pub(super) off: [f64; HELD.len()],
    /// The same in half widths of intervals that all hold together with 99 %, if there are so many.
    pub(super) off_together_max: f64,
    /// Widest half interval, in points of probability.
    pub(super) half_points_max: f64,
    pub(super) requests_count: u64,
    pub(super) cpu: Duration,
    pub(super) service: ServiceTime,
}

fn service(system: &str) -> ServiceTime {
    match system {
        "md1" => ServiceTime::Deterministic { ns: MEAN_NS as u64 },
        // One in twenty takes 15 times as long as the others; the mean is the same.
        "m-bimodal-1" => ServiceTime::Bimodal {
            short_ns: 58_000,
            long_ns: 898_000,
            long_ratio: 0.05,
        },
        "m-lognormal-1" => ServiceTime::Lognormal {
            median_ns: MEAN_NS * (-0.5f64).exp(),
            sigma: 1.0,
        },
        _ => ServiceTime::Exponential { mean_ns: MEAN_NS },
    }
}

fn workers_count(system: &str) -> usize {
    if system == "mm4" { 4 } else { 1 }
}

fn oracle(system: &str, load: f64) -> Box<dyn Sojourn> {
    match system {
        "mm1" => Box::new(Mm1::new(load, MEAN_NS)),
        "mm4" => Box::new(Mmk::new(workers_count(system) as u32, load, MEAN_NS)),
        "mm1-shared" => Box::new(Mm1Shared::new(load, MEAN_NS)),
        _ => Box::new(Mg1::new(load, &service(system))),
    }
}

/// Runs one system at one load, `requests_count` requests with each seed. `rows_count` rows are judged together.
pub(super) fn run(system: &str, load: f64, seed: u64, requests_count: u64, rows_count: usize) -> Found {
    let oracle = oracle(system, load);
    let oracle_ns = HELD.map(|q| oracle.quantile_ns(q));
    // Between two whole nanoseconds: where many requests take exactly the same, they are on one side.
    let limits_ns = oracle_ns.map(|ns| ns.round() + 0.5);
    let expected = limits_ns.map(|ns| oracle.ratio_within(ns));
    let mut latency = Recorder::new();
    let mut shares: [Vec<f64>; HELD.len()] = Default::default();
    let mut cpu_ns = 0;
    // Rows have nothing in common, so that what one has by chance says nothing of another.
    let row_seed = system
        .bytes()
        .fold(mix(seed ^ load.to_bits()), |hash, byte| mix(hash ^ u64::from(byte)));
    for index in 0..SEEDS_COUNT {
        let mut within_counts = [0u64; HELD.len()];
        let before_ns = host::thread_cpu_ns();
        station(system, load, mix(row_seed ^ index), requests_count, &mut |ns| {
            latency.record(ns);
            // The first limit that it keeps, and so all after it.
            let first = limits_ns.partition_point(|limit_ns| (ns as f64) > *limit_ns);
            if let Some(count) = within_counts.get_mut(first) {
                *count += 1;
            }
        });
        cpu_ns += host::thread_cpu_ns() - before_ns;
        let mut within_count = 0;
        for (shares, count) in shares.iter_mut().zip(within_counts) {
            within_count += count;
            shares.push(within_count as f64 / requests_count as f64);
        }
    }
    let confidence = 0.99;
    let together = 1.0 - (1.0 - confidence) / (rows_count * HELD.len()) as f64;
    let off_by = |index: usize, confidence| {
        let (mean, half) = student::mean_interval(&shares[index], confidence);
        let off = (mean - expected[index]).abs();
        // Where all seeds agree with theory and each other there is no width to divide by.
        if off == 0.0 { (0.0, half) } else { (off / half, half) }
    };
    let mut off = [0.0; HELD.len()];
    let (mut off_together_max, mut half_points_max) = (0.0f64, 0.0f64);
    for (index, off) in off.iter_mut().enumerate() {
        let (pointwise, half) = off_by(index, confidence);
        *off = pointwise;
        half_points_max = half_points_max.max(half * 100.0);
        off_together_max = off_together_max.max(off_by(index, together).0);
    }
    Found {
        latency,
        oracle_ns,
        off,
        off_together_max,
        half_points_max,
        requests_count: (requests_count + WARM_UP_COUNT) * SEEDS_COUNT,
        cpu: Duration::from_nanos(cpu_ns),
        service: service(system),
    }
}

fn station(system: &str, load: f64, seed: u64, requests_count: u64, sink: &mut dyn FnMut(u64)) {
    if system == "mm1-shared" {
        let mut station = SharedStation::new(load, service(system), seed);
        station.run(WARM_UP_COUNT, &mut |_| {});
        station.run(requests_count, sink);
        return;
    }
    let options = StationOptions {
        workers_count: workers_count(system),
        load,
        service: service(system),
        overhead: Overhead::default(),
        seed,
    };
    let run = OneStation {
        kind: Kind::SingleQueue,
        quantum: Duration::ZERO,
        warm_up_count: WARM_UP_COUNT,
        requests_count,
    };
    sim::station(options, run, sink);
}
