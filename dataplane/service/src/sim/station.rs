//! A node under Poisson arrivals: k workers, and any discipline.
//!
//! The next event is the next arrival or the first of k ends, so there is no list of events: with few workers looking at all of
//! them is faster than any heap.

use crate::{
    discipline::{Arrival, Discipline, Taker},
    random::{Random, mix},
    service_time::ServiceTime,
};

/// What a station is.
#[derive(Clone, Debug)]
pub struct StationOptions {
    /// Up to 64.
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

/// What serving costs beside the service itself, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overhead {
    /// For each request that is taken.
    pub take_ns: u64,
    /// For each preemption.
    pub preempt_ns: u64,
}

/// What a station has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StationCounts {
    /// Requests that were served.
    pub served_count: u64,
    /// Quanta that were over before their request was.
    pub preempted_count: u64,
    /// The most that waited.
    pub waiting_count_max: usize,
}

/// A request in the station.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    arrived_ns: u64,
    left_ns: u64,
}

/// A worker that has nothing to do.
const IDLE: u64 = u64::MAX;

/// See the module.
#[derive(Debug)]
pub struct Station<D> {
    discipline: D,
    options: StationOptions,
    arrivals: Random,
    services: Random,
    gap_ns_mean: f64,
    quantum_ns: u64,
    now_ns: u64,
    next_arrival_ns: f64,
    /// When each worker's slice is over.
    ends_ns: Vec<u64>,
    /// What each worker works on; what is left of it after the slice.
    running: Vec<Job>,
    idle: u64,
    arrived_count: u64,
    counts: StationCounts,
}

impl<D: Discipline<Job>> Station<D> {
    /// An empty one.
    ///
    /// # Panics
    /// Without workers, with more than 64, or with a load of 0.
    pub fn new(options: StationOptions, discipline: D) -> Station<D> {
        let count = options.workers_count;
        assert!((1..=64).contains(&count), "a station has 1 to 64 workers, not {count}");
        assert!(options.load > 0.0, "at a load of {} nothing ever comes", options.load);
        let gap_ns_mean = options.service.mean_ns() / (options.load * count as f64);
        let mut arrivals = Random::new(options.seed, 1);
        Station {
            quantum_ns: discipline
                .quantum()
                .map_or(u64::MAX, |quantum| quantum.as_nanos() as u64),
            discipline,
            services: Random::new(options.seed, 2),
            gap_ns_mean,
            now_ns: 0,
            next_arrival_ns: arrivals.exponential(gap_ns_mean),
            arrivals,
            ends_ns: vec![IDLE; count],
            running: vec![
                Job {
                    arrived_ns: 0,
                    left_ns: 0
                };
                count
            ],
            idle: u64::MAX >> (64 - count),
            arrived_count: 0,
            counts: StationCounts::default(),
            options,
        }
    }

    /// Goes on until `requests_count` more are done; `sink` gets how long each was in the station, in nanoseconds, in the order
    /// in which they are done. Requests that are not done count for nothing: run long enough that they are few.
    pub fn run(&mut self, requests_count: u64, mut sink: impl FnMut(u64)) {
        let mut done_count = 0;
        while done_count < requests_count {
            let (worker, end_ns) = self.first_end();
            if (self.next_arrival_ns as u64) < end_ns {
                self.arrive();
                continue;
            }
            self.now_ns = end_ns;
            let mut job = self.running[worker];
            if job.left_ns == 0 {
                self.discipline.done(worker);
                self.counts.served_count += 1;
                done_count += 1;
                sink(end_ns - job.arrived_ns);
                self.next(worker, 0);
            } else if self.discipline.waiting_count() == 0 {
                // Nobody waits, so nothing is changed.
                let slice_ns = job.left_ns.min(self.quantum_ns);
                job.left_ns -= slice_ns;
                self.running[worker] = job;
                self.ends_ns[worker] = end_ns + slice_ns;
            } else {
                self.counts.preempted_count += 1;
                // Whoever is idle would have taken what waits, but for one that may not; nobody is woken for what is put back.
                self.discipline.put_back(worker, job);
                self.next(worker, self.options.overhead.preempt_ns);
            }
        }
    }

    /// What was counted so far.
    pub fn counts(&self) -> StationCounts {
        self.counts
    }

    /// Virtual time so far.
    pub fn now_ns(&self) -> u64 {
        self.now_ns
    }

    fn first_end(&self) -> (usize, u64) {
        let mut first = (0, self.ends_ns[0]);
        for (worker, &end_ns) in self.ends_ns.iter().enumerate().skip(1) {
            if end_ns < first.1 {
                first = (worker, end_ns);
            }
        }
        first
    }

    fn arrive(&mut self) {
        self.now_ns = self.next_arrival_ns as u64;
        // In doubles: whole nanoseconds would add up to a rate that is off.
        self.next_arrival_ns += self.arrivals.exponential(self.gap_ns_mean);
        let job = Job {
            arrived_ns: self.now_ns,
            left_ns: self.options.service.draw(&mut self.services).max(1),
        };
        // Each request is a flow of its own: as even as a hash can be.
        let dice = mix(self.arrived_count ^ self.options.seed.rotate_left(32));
        self.arrived_count += 1;
        let arrival = Arrival { flow: dice >> 8, dice };
        let taker = match self.discipline.put(job, arrival) {
            Taker::Only(worker) => worker,
            Taker::Any(worker) if self.idle >> worker & 1 == 1 => worker,
            Taker::Any(worker) => match self.idle {
                0 => worker,
                idle => idle.trailing_zeros() as usize,
            },
        };
        if self.idle >> taker & 1 == 1 {
            self.next(taker, 0);
        } else {
            self.counts.waiting_count_max = self.counts.waiting_count_max.max(self.discipline.waiting_count());
        }
    }

    /// The worker takes what is next.
    fn next(&mut self, worker: usize, before_ns: u64) {
        match self.discipline.take(worker) {
            Some(mut job) => {
                let slice_ns = job.left_ns.min(self.quantum_ns);
                job.left_ns -= slice_ns;
                self.running[worker] = job;
                self.ends_ns[worker] = self.now_ns + before_ns + self.options.overhead.take_ns + slice_ns;
                self.idle &= !(1 << worker);
            }
            None => {
                self.ends_ns[worker] = IDLE;
                self.idle |= 1 << worker;
            }
        }
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

    type Local = LocalQueue<Job>;

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
    fn within<D: Discipline<Job>>(mut station: Station<D>, t_ns: f64) -> f64 {
        const COUNT: u64 = 400_000;
        station.run(20_000, |_| {});
        let mut within_count = 0u64;
        station.run(COUNT, |ns| within_count += u64::from(ns as f64 <= t_ns));
        within_count as f64 / COUNT as f64
    }

    fn mean_ns<D: Discipline<Job>>(mut station: Station<D>) -> f64 {
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
