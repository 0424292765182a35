//! Many workers with a queue each; a request joins the shorter of two that are chosen by chance. Exponential service. In the
//! limit of many workers a share ρ^(2^i − 1) of them has i requests or more (Vvedenskaya, Dobrushin and Karpelevich, Problems
//! of Information Transmission 32, 1996; Mitzenmacher 2001, §3).

use super::Sojourn;

/// See the module.
#[derive(Clone, Debug)]
pub struct TwoChoices {
    service_ns_mean: f64,
    /// P(a request finds exactly so many before it).
    found: Vec<f64>,
}

impl TwoChoices {
    /// Workers that are busy for a share `load` of the time, 0 to below 1, with requests that take `service_ns_mean`.
    pub fn new(load: f64, service_ns_mean: f64) -> TwoChoices {
        // The shorter of two has i or more where both have.
        let at_least = |i: i32| load.powf(2.0 * (2f64.powi(i) - 1.0));
        let found = (0..32)
            .map(|i| at_least(i) - at_least(i + 1))
            .take_while(|chance| *chance > 1e-15)
            .collect();
        TwoChoices { service_ns_mean, found }
    }
}

impl Sojourn for TwoChoices {
    fn ratio_within(&self, t_ns: f64) -> f64 {
        // Behind i others it takes i + 1 exponential times: Erlang's distribution, whose tail is a sum of Poisson terms.
        let t = t_ns / self.service_ns_mean;
        let (mut term, mut beyond_erlang, mut beyond) = ((-t).exp(), 0.0, 0.0);
        for (i, chance) in self.found.iter().enumerate() {
            beyond_erlang += term;
            beyond += chance * beyond_erlang;
            term *= t / (i as f64 + 1.0);
        }
        1.0 - beyond
    }

    fn mean_ns(&self) -> f64 {
        let behind = self
            .found
            .iter()
            .enumerate()
            .map(|(i, chance)| chance * (i as f64 + 1.0));
        behind.sum::<f64>() * self.service_ns_mean
    }
}
