//! M/M/1, first come first served: Poisson arrivals, exponential service, one worker. The time in the system is exponential
//! (Kleinrock, Queueing Systems vol. 1, 1975, §5.7).

use super::Sojourn;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Mm1 {
    mean_ns: f64,
}

impl Mm1 {
    /// A worker that is busy for a share `load` of the time, 0 to below 1, with requests that take `service_ns_mean`.
    pub fn new(load: f64, service_ns_mean: f64) -> Mm1 {
        Mm1 {
            mean_ns: service_ns_mean / (1.0 - load),
        }
    }
}

impl Sojourn for Mm1 {
    fn ratio_within(&self, t_ns: f64) -> f64 {
        1.0 - (-t_ns / self.mean_ns).exp()
    }

    fn mean_ns(&self) -> f64 {
        self.mean_ns
    }
}
