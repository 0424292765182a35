//! M/M/1 with processor sharing: all requests are served at once, each at a part of the speed. The limit of preemption at a
//! quantum as the quantum shrinks.
//!
//! Its mean is that of first come first served, 1 / (1 − ρ), and in proportion to what a request asks for; its tail is not.
//! A request that comes finds n others with probability (1 − ρ) ρⁿ. From then on it is a Markov chain over their number, which
//! ends when the request itself does: its distribution is computed by uniformization (Jensen, Skandinavisk Aktuarietidskrift
//! 36, 1953).

use super::Sojourn;

/// See the module.
#[derive(Clone, Debug)]
pub struct Mm1Shared {
    service_ns_mean: f64,
    load: f64,
    /// P(not done after so many steps of the chain).
    beyond: Vec<f64>,
    /// Steps per mean service time.
    steps_per_service: f64,
}

/// What the chain's end leaves out.
const BEYOND_RATIO: f64 = 1e-6;

impl Mm1Shared {
    /// A worker that is busy for a share `load` of the time, 0 to below 1, with requests that take `service_ns_mean` alone.
    pub fn new(load: f64, service_ns_mean: f64) -> Mm1Shared {
        // So many others that there are more only once in 10¹² times.
        let others_max = (1e-12f64.ln() / load.max(0.01).ln()).ceil() as usize + 8;
        // Per mean service time: departures happen at rate 1, arrivals at `load`.
        let steps_per_service = 1.0 + load;
        let (arrives, departs) = (load / steps_per_service, 1.0 / steps_per_service);
        let mut chance: Vec<f64> = (0..=others_max).map(|n| (1.0 - load) * load.powi(n as i32)).collect();
        let mut next = vec![0.0; chance.len()];
        let mut beyond = Vec::new();
        loop {
            let left: f64 = chance.iter().sum();
            beyond.push(left);
            if left < BEYOND_RATIO {
                break;
            }
            next.fill(0.0);
            for (n, &p) in chance.iter().enumerate() {
                // One more comes; above the bound it is turned away.
                next[(n + 1).min(others_max)] += p * arrives;
                // One of the others is done; with 1 / (n + 1) it is the request itself, which leaves the chain.
                if n > 0 {
                    next[n - 1] += p * departs * n as f64 / (n as f64 + 1.0);
                }
            }
            std::mem::swap(&mut chance, &mut next);
        }
        Mm1Shared {
            service_ns_mean,
            load,
            beyond,
            steps_per_service,
        }
    }
}

impl Sojourn for Mm1Shared {
    fn ratio_within(&self, t_ns: f64) -> f64 {
        // The number of steps in a time is a Poisson variable; weights from its middle outwards, so that none underflows.
        let steps_mean = t_ns / self.service_ns_mean * self.steps_per_service;
        let beyond_at = |steps: usize| self.beyond.get(steps).copied().unwrap_or(0.0);
        let middle = steps_mean.floor() as usize;
        let (mut beyond, mut total) = (0.0, 0.0);
        let mut weight = 1.0;
        let mut steps = middle;
        while weight > 1e-16 {
            beyond += weight * beyond_at(steps);
            total += weight;
            steps += 1;
            weight *= steps_mean / steps as f64;
        }
        weight = 1.0;
        steps = middle;
        while steps > 0 && weight > 1e-16 {
            weight *= steps as f64 / steps_mean;
            steps -= 1;
            beyond += weight * beyond_at(steps);
            total += weight;
        }
        1.0 - beyond / total
    }

    fn mean_ns(&self) -> f64 {
        self.service_ns_mean / (1.0 - self.load)
    }
}
