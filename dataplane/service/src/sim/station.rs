//! A node under Poisson arrivals: k workers, and any discipline.
//!
//! The next event is the next arrival or the first of k ends, so there is no list of events: with few workers looking at all of
//! them is faster than any heap.

use crate::{
    discipline::{Arrival, Discipline},
    random::{Random, mix},
    service_time::ServiceTime,
    stalls::Stalls,
    workers::{Event, Overhead, Work, WorkerCounts, Workers},
};

/// What a station is.
#[derive(Clone, Debug)]
pub struct StationOptions {
    /// Up to [`crate::workers::WORKERS_MAX`].
    pub workers_count: usize,
    /// The share of the time in which its workers are busy, overheads not counted, 0 to below 1 for a station that keeps up.
    pub load: f64,
    /// What a request takes.
    pub service: ServiceTime,
    /// What it costs beside.
    pub overhead: Overhead,
    /// Everything that is drawn is drawn from this.
    pub seed: u64,
}

/// When a request came.
pub type ArrivedNs = u64;

/// See the module.
#[derive(Debug)]
pub struct Station<D> {
    workers: Workers<ArrivedNs, D>,
    service: ServiceTime,
    seed: u64,
    arrivals: Random,
    services: Random,
    gap_ns_mean: f64,
    now_ns: u64,
    /// In doubles: whole nanoseconds would add up to a rate that is off.
    next_arrival_ns: f64,
    arrived_count: u64,
}

impl<D: Discipline<Work<ArrivedNs>>> Station<D> {
    /// An empty one.
    ///
    /// # Panics
    /// As [`Workers::new`], and with a load of 0.
    pub fn new(options: StationOptions, discipline: D) -> Station<D> {
        assert!(options.load > 0.0, "at a load of {} nothing ever comes", options.load);
        let gap_ns_mean = options.service.mean_ns() / (options.load * options.workers_count as f64);
        let mut arrivals = Random::new(options.seed, 1);
        Station {
            workers: Workers::new(options.workers_count, discipline, options.overhead, Stalls::never()),
            service: options.service,
            seed: options.seed,
            services: Random::new(options.seed, 2),
            gap_ns_mean,
            now_ns: 0,
            next_arrival_ns: arrivals.exponential(gap_ns_mean),
            arrivals,
            arrived_count: 0,
        }
    }

    /// Goes on until `requests_count` more are done; `sink` gets how long each was in the station, in nanoseconds, in the order
    /// in which they are done. Requests that are not done count for nothing: run long enough that they are few.
    pub fn run(&mut self, requests_count: u64, mut sink: impl FnMut(u64)) {
        let mut done_count = 0;
        while done_count < requests_count {
            match self.workers.first_end() {
                Some((worker, end_ns)) if end_ns <= self.next_arrival_ns as u64 => {
                    self.now_ns = end_ns;
                    self.workers.end(worker, end_ns, |event| {
                        if let Event::Done(arrived_ns) = event {
                            done_count += 1;
                            sink(end_ns - arrived_ns);
                        }
                    });
                }
                _ => self.arrive(),
            }
        }
    }

    /// What was counted so far.
    pub fn counts(&self) -> WorkerCounts {
        self.workers.counts()
    }

    /// Virtual time so far.
    pub fn now_ns(&self) -> u64 {
        self.now_ns
    }

    fn arrive(&mut self) {
        self.now_ns = self.next_arrival_ns as u64;
        self.next_arrival_ns += self.arrivals.exponential(self.gap_ns_mean);
        let work_ns = self.service.draw(&mut self.services);
        // Each request is a flow of its own: as even as a hash can be.
        let dice = mix(self.arrived_count ^ self.seed.rotate_left(32));
        let arrival = Arrival { flow: dice >> 8, dice };
        let (now_ns, id) = (self.now_ns, self.arrived_count);
        self.arrived_count += 1;
        self.workers.arrive(now_ns, now_ns, id, work_ns, arrival, |_| {});
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        discipline::{PerWorker, Quantum, ShortestOfTwo, SingleQueue, Stealing},
        oracle::{Mm1, Mm1Shared, Mmk, Sojourn},
        queue::LocalQueue,
    };

    type Local = LocalQueue<Work<ArrivedNs>>;

    const SERVICE_NS: f64 = 100_000.0;

    fn options(workers_count: usize, load: f64) -> StationOptions {
        StationOptions {
            workers_count,
            load,
            service: ServiceTime::Exponential { mean_ns: SERVICE_NS },
            overhead: Overhead::default(),
            seed: 7,
        }
    }

    /// The share within `t_ns` of many, after a while.
    fn within<D: Discipline<Work<ArrivedNs>>>(mut station: Station<D>, t_ns: f64) -> f64 {
        const COUNT: u64 = 400_000;
        station.run(20_000, |_| {});
        let mut within_count = 0u64;
        station.run(COUNT, |ns| within_count += u64::from(ns as f64 <= t_ns));
        within_count as f64 / COUNT as f64
    }

    fn mean_ns<D: Discipline<Work<ArrivedNs>>>(mut station: Station<D>) -> f64 {
        const COUNT: u64 = 400_000;
        let mut sum = 0;
        station.run(COUNT, |ns| sum += ns);
        sum as f64 / COUNT as f64
    }

    /// Within a percent of what theory says: ten standard deviations of independent requests, and these are not.
    fn assert_near(what: &str, measured: f64, expected: f64) {
        assert!((measured - expected).abs() < 0.01, "{what}: {measured} and {expected}");
    }

    #[test]
    fn disciplines_are_what_theory_says_of_them() {
        let load = 0.7;
        let (one, four) = (Mm1::new(load, SERVICE_NS), Mmk::new(4, load, SERVICE_NS));
        for q in [0.5, 0.9, 0.99] {
            let t_ns = one.quantile_ns(q);
            assert_near(
                "M/M/1",
                within(Station::new(options(1, load), SingleQueue::<Local>::new()), t_ns),
                q,
            );
            assert_near(
                "per worker",
                within(Station::new(options(4, load), PerWorker::<Local>::new(4)), t_ns),
                q,
            );
            let t_ns = four.quantile_ns(q);
            assert_near(
                "M/M/4",
                within(Station::new(options(4, load), SingleQueue::<Local>::new()), t_ns),
                q,
            );
        }
        // Stealing is work-conserving, so its mean wait is the single queue's; its tail need not be.
        let stealing_ns = mean_ns(Station::new(options(4, load), Stealing::<Local>::new(4)));
        assert!((stealing_ns / four.mean_ns() - 1.0).abs() < 0.02, "{stealing_ns}");
        let two_ns = mean_ns(Station::new(options(16, load), ShortestOfTwo::<Local>::new(16)));
        assert!(two_ns < one.mean_ns() * 0.7 && two_ns > Mmk::new(16, load, SERVICE_NS).mean_ns());
    }

    #[test]
    fn a_small_quantum_is_nearly_sharing() {
        let load = 0.7;
        let shared = Mm1Shared::new(load, SERVICE_NS);
        for q in [0.5, 0.99] {
            let discipline = Quantum::new(SingleQueue::<Local>::new(), Duration::from_nanos(4_000));
            assert_near(
                "sharing",
                within(Station::new(options(1, load), discipline), shared.quantile_ns(q)),
                q,
            );
        }
    }

    #[test]
    fn a_preemption_costs_what_is_said() {
        let run = |preempt_ns| {
            let discipline = Quantum::new(SingleQueue::<Local>::new(), Duration::from_nanos(5_000));
            let overhead = Overhead { take_ns: 0, preempt_ns };
            let mut station = Station::new(
                StationOptions {
                    overhead,
                    ..options(1, 0.7)
                },
                discipline,
            );
            let mut sum = 0;
            station.run(50_000, |ns| sum += ns);
            (sum, station.counts().preempted_count)
        };
        let ((free, preempted_count), (paid, _)) = (run(0), run(500));
        assert!(preempted_count > 0 && paid > free, "{free} and {paid}");
    }

    #[test]
    fn a_seed_is_a_run() {
        let run = |seed| {
            let mut station = Station::new(
                StationOptions {
                    seed,
                    ..options(3, 0.8)
                },
                Stealing::<Local>::new(3),
            );
            let mut all = Vec::new();
            station.run(1_000, |ns| all.push(ns));
            all
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }
}
