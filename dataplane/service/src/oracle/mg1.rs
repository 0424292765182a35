//! M/G/1, first come first served: Poisson arrivals, any service time, one worker.
//!
//! The mean is Pollaczek's and Khinchine's. The distribution of the wait W is that of a geometric number of residual service
//! times one after the other (Beneš, 1957; Kleinrock, Queueing Systems vol. 1, 1975, eq. 5.111), so it satisfies
//!
//! ```text
//! P(W ≤ t) = (1 − ρ) + ρ ∫₀ᵗ P(W ≤ t − u) (1 − F(u)) / E[S] du
//! ```
//!
//! which is solved on a grid, from 0 upwards: each value needs only those before it.

use super::Sojourn;
use crate::service_time::ServiceTime;

/// See the module.
#[derive(Clone, Debug)]
pub struct Mg1 {
    mean_ns: f64,
    step_ns: f64,
    /// P(W ≤ i × step).
    waits_within: Vec<f64>,
    /// Spans of service times, begin and end, and their shares; one that all have in common begins where it ends.
    services: Vec<(f64, f64, f64)>,
}

/// Steps of the grid. The work grows with the square of it; with so many the p99.9 of a bimodal service at a load of 0.95 is
/// right to a thousandth, which the tests hold against closed forms.
const STEPS_COUNT: usize = 5_000;
/// The grid ends where so few requests wait longer; beyond it they are taken for those that wait so long.
const BEYOND_RATIO: f64 = 2e-4;

impl Mg1 {
    /// A worker that is busy for a share `load` of the time with requests of that service time.
    pub fn new(load: f64, service: &ServiceTime) -> Mg1 {
        let mean_service_ns = service.mean_ns();
        let residual_ns_mean = service.second_moment() / (2.0 * mean_service_ns);
        let mean_ns = mean_service_ns + load / (1.0 - load) * residual_ns_mean;
        // A first guess of where the grid must end, doubled until it is right.
        let mut end_ns = mean_ns * 6.0;
        loop {
            let mg1 = Mg1::on_grid(load, service, mean_ns, end_ns / STEPS_COUNT as f64);
            if mg1.waits_within.last().is_some_and(|last| *last >= 1.0 - BEYOND_RATIO) {
                return mg1;
            }
            end_ns *= 1.6;
        }
    }

    fn on_grid(load: f64, service: &ServiceTime, mean_ns: f64, step_ns: f64) -> Mg1 {
        let at = |index: usize| index as f64 * step_ns;
        // What of a residual service time lies in each step, and how far into the step its middle is: integrals of 1 − F.
        let mut residual: Vec<(f64, f64)> = (0..STEPS_COUNT)
            .map(|index| {
                let (begin_ns, end_ns) = (at(index), at(index + 1));
                let grows = |power| service.least_moment(end_ns, power) - service.least_moment(begin_ns, power);
                let (mass, moment) = (grows(1), grows(2) / 2.0);
                let middle = if mass > 0.0 {
                    (moment / mass - begin_ns) / step_ns
                } else {
                    0.5
                };
                (mass / service.mean_ns(), middle.clamp(0.0, 1.0))
            })
            .collect();
        while residual.last().is_some_and(|(share, _)| *share < 1e-12) {
            residual.pop();
        }
        // W's distribution is taken for straight within a step, so a step's share counts for its two ends; by how far back.
        let end_weight = |back: usize| residual.get(back).map_or(0.0, |(share, middle)| share * (1.0 - middle));
        let weights: Vec<f64> = (0..=residual.len())
            .map(|back| {
                let of_last = back.checked_sub(1).and_then(|last| residual.get(last));
                end_weight(back) + of_last.map_or(0.0, |(share, middle)| share * middle)
            })
            .collect();
        let mut waits_within = Vec::with_capacity(STEPS_COUNT + 1);
        waits_within.push(1.0 - load);
        for index in 1..=STEPS_COUNT {
            let known: f64 = weights[1..]
                .iter()
                .zip(waits_within.iter().rev())
                .map(|(weight, within)| weight * within)
                .sum();
            // The step that begins at t has not begun yet.
            let too_much = end_weight(index) * waits_within[0];
            waits_within.push((1.0 - load + load * (known - too_much)) / (1.0 - load * weights[0]));
        }
        let services = match service {
            ServiceTime::Deterministic { ns } => vec![(*ns as f64, *ns as f64, 1.0)],
            ServiceTime::Bimodal {
                short_ns,
                long_ns,
                long_ratio,
            } => vec![
                (*short_ns as f64, *short_ns as f64, 1.0 - long_ratio),
                (*long_ns as f64, *long_ns as f64, *long_ratio),
            ],
            _ => (0..STEPS_COUNT)
                .map(|index| {
                    let share = service.ratio_within(at(index + 1)) - service.ratio_within(at(index));
                    (at(index), at(index + 1), share)
                })
                .filter(|(.., share)| *share > 1e-12)
                .collect(),
        };
        Mg1 {
            mean_ns,
            step_ns,
            waits_within,
            services,
        }
    }
}

/// Between two values of a grid.
fn straight(values: &[f64], place: f64) -> f64 {
    let index = place.floor().max(0.0) as usize;
    match (values.get(index), values.get(index + 1)) {
        (Some(low), Some(high)) => low + (high - low) * (place - index as f64),
        _ => values.last().copied().unwrap_or(0.0),
    }
}

impl Sojourn for Mg1 {
    fn ratio_within(&self, t_ns: f64) -> f64 {
        // Wait and service together.
        let met = self.services.iter().take_while(|(begin_ns, ..)| *begin_ns <= t_ns);
        met.map(|&(begin_ns, end_ns, share)| {
            // Of the span that t is in, what is before t.
            let last_ns = end_ns.min(t_ns);
            let part = match end_ns > begin_ns {
                true => (last_ns - begin_ns) / (end_ns - begin_ns),
                false => 1.0,
            };
            share
                * part
                * straight(
                    &self.waits_within,
                    (t_ns - f64::midpoint(begin_ns, last_ns)) / self.step_ns,
                )
        })
        .sum()
    }

    fn mean_ns(&self) -> f64 {
        self.mean_ns
    }
}
