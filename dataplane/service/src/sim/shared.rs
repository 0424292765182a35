//! One worker that serves all requests at once, each at a part of its speed: processor sharing itself, and not a quantum that
//! nears it.
//!
//! Every request that is there gets the same service, so each is known by how much all will have got when it is done: a heap
//! of those marks, and one number that grows.

use std::{cmp::Reverse, collections::BinaryHeap};

use crate::{random::Random, service_time::ServiceTime};

/// See the module.
#[derive(Debug)]
pub struct SharedStation {
    arrivals: Random,
    services: Random,
    service: ServiceTime,
    gap_ns_mean: f64,
    now_ns: f64,
    next_arrival_ns: f64,
    /// What every request that was there all the time has got, in nanoseconds of service.
    got_ns: f64,
    /// Requests by what all will have got when they are done, in 2⁻¹⁶ ns, and when they came.
    marks: BinaryHeap<Reverse<(u128, u64)>>,
}

/// Marks are whole numbers, so that they have an order.
const MARKS_PER_NS: f64 = 65_536.0;

impl SharedStation {
    /// An empty one that is busy for a share `load` of the time.
    pub fn new(load: f64, service: ServiceTime, seed: u64) -> SharedStation {
        let gap_ns_mean = service.mean_ns() / load;
        let mut arrivals = Random::new(seed, 1);
        SharedStation {
            next_arrival_ns: arrivals.exponential(gap_ns_mean),
            arrivals,
            services: Random::new(seed, 2),
            service,
            gap_ns_mean,
            now_ns: 0.0,
            got_ns: 0.0,
            marks: BinaryHeap::new(),
        }
    }

    /// As [`super::Station::run`].
    pub fn run(&mut self, requests_count: u64, sink: &mut dyn FnMut(u64)) {
        let mut done_count = 0;
        while done_count < requests_count {
            let sharers = self.marks.len() as f64;
            let first = self.marks.peek().map(|Reverse((mark, _))| *mark as f64 / MARKS_PER_NS);
            let end_ns = first.map_or(f64::INFINITY, |mark_ns| {
                self.now_ns + (mark_ns - self.got_ns).max(0.0) * sharers
            });
            if self.next_arrival_ns <= end_ns {
                if sharers > 0.0 {
                    self.got_ns += (self.next_arrival_ns - self.now_ns) / sharers;
                }
                self.now_ns = self.next_arrival_ns;
                self.next_arrival_ns += self.arrivals.exponential(self.gap_ns_mean);
                let mark_ns = self.got_ns + self.service.draw(&mut self.services).max(1) as f64;
                self.marks
                    .push(Reverse(((mark_ns * MARKS_PER_NS) as u128, self.now_ns as u64)));
                continue;
            }
            self.now_ns = end_ns;
            if let (Some(mark_ns), Some(Reverse((_, arrived_ns)))) = (first, self.marks.pop()) {
                self.got_ns = self.got_ns.max(mark_ns);
                done_count += 1;
                sink((self.now_ns as u64).saturating_sub(arrived_ns));
            }
            if self.marks.is_empty() {
                // Nobody remembers how much anybody got, and a small number is a more exact one.
                self.got_ns = 0.0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::{Mm1Shared, Sojourn};

    #[test]
    fn it_is_what_theory_says() {
        const COUNT: u64 = 300_000;
        for load in [0.3, 0.8] {
            let oracle = Mm1Shared::new(load, 100_000.0);
            let mut station = SharedStation::new(load, ServiceTime::Exponential { mean_ns: 100_000.0 }, 3);
            station.run(20_000, &mut |_| {});
            let quantiles = [0.1, 0.5, 0.9, 0.99];
            let limits_ns = quantiles.map(|q| oracle.quantile_ns(q));
            let mut within = [0u64; 4];
            station.run(COUNT, &mut |ns| {
                for (count, limit_ns) in within.iter_mut().zip(limits_ns) {
                    *count += u64::from(ns as f64 <= limit_ns);
                }
            });
            for (count, q) in within.into_iter().zip(quantiles) {
                let measured = count as f64 / COUNT as f64;
                assert!((measured - q).abs() < 0.01, "at {load}: {measured} and {q}");
            }
        }
    }

    #[test]
    fn two_that_come_together_share() {
        // The mean of what a request of twice the length takes is twice as long: E[T(x)] = x / (1 − ρ).
        let service = ServiceTime::Bimodal {
            short_ns: 50_000,
            long_ns: 150_000,
            long_ratio: 0.5,
        };
        let mut station = SharedStation::new(0.5, service, 5);
        let (mut sum, mut count) = (0u64, 0u64);
        station.run(200_000, &mut |ns| {
            sum += ns;
            count += 1;
        });
        let mean = sum as f64 / count as f64;
        assert!((mean / 200_000.0 - 1.0).abs() < 0.02, "{mean}");
    }
}
