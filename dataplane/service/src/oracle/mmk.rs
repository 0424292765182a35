//! M/M/k, one queue for k workers (Erlang, 1917; Kleinrock, Queueing Systems vol. 1, 1975, §3.5).

use super::Sojourn;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Mmk {
    /// The share of requests that find all workers busy: Erlang's C.
    waits_ratio: f64,
    /// A worker's rate, per nanosecond.
    service_rate: f64,
    /// At what rate waiting ends: that of all workers less that of arrivals.
    drain_rate: f64,
}

impl Mmk {
    /// `workers_count` workers, each busy for a share `load` of the time, with requests that take `service_ns_mean`.
    pub fn new(workers_count: u32, load: f64, service_ns_mean: f64) -> Mmk {
        let offered = load * f64::from(workers_count);
        // Erlang's B by its recursion, and C from B.
        let blocked = (1..=workers_count).fold(1.0, |blocked, worker| {
            let offered_to_it = offered * blocked;
            offered_to_it / (f64::from(worker) + offered_to_it)
        });
        Mmk {
            waits_ratio: blocked / (1.0 - load * (1.0 - blocked)),
            service_rate: 1.0 / service_ns_mean,
            drain_rate: f64::from(workers_count) * (1.0 - load) / service_ns_mean,
        }
    }

    /// The share of requests that wait at all.
    pub fn waits_ratio(&self) -> f64 {
        self.waits_ratio
    }
}

impl Sojourn for Mmk {
    fn ratio_within(&self, t_ns: f64) -> f64 {
        let (mu, drain) = (self.service_rate, self.drain_rate);
        let served_beyond = (-mu * t_ns).exp();
        // An exponential wait and an exponential service, one after the other.
        let both_beyond = match (drain - mu).abs() < 1e-9 * mu {
            true => (1.0 + mu * t_ns) * served_beyond,
            false => (drain * served_beyond - mu * (-drain * t_ns).exp()) / (drain - mu),
        };
        1.0 - (1.0 - self.waits_ratio) * served_beyond - self.waits_ratio * both_beyond
    }

    fn mean_ns(&self) -> f64 {
        1.0 / self.service_rate + self.waits_ratio / self.drain_rate
    }
}
