//! What theory says: the distribution of the time that a request spends in a queueing system, waiting and service together.
//! They know nothing of the simulator, so they can judge it. All assume Poisson arrivals and a system that has run for ever.

mod fork_join;
mod mg1;
mod mm1;
mod mmk;
mod shared;
mod two_choices;

pub use fork_join::{fork_join_within, kth_of_n_within, slow_ratio};
pub use mg1::Mg1;
pub use mm1::Mm1;
pub use mmk::Mmk;
pub use shared::Mm1Shared;
pub use two_choices::TwoChoices;

/// The distribution of a time in nanoseconds.
pub trait Sojourn {
    /// The share of requests that take at most `t_ns`, 0 to 1.
    fn ratio_within(&self, t_ns: f64) -> f64;

    /// The mean, in nanoseconds.
    fn mean_ns(&self) -> f64;

    /// The time that a share `q` of requests takes at most, in nanoseconds; by bisection, to a millionth.
    ///
    /// # Panics
    /// If `q` is not above 0 and below 1.
    fn quantile_ns(&self, q: f64) -> f64 {
        assert!(q > 0.0 && q < 1.0, "a quantile between 0 and 1 was asked for, not {q}");
        let (mut low, mut high) = (0.0, self.mean_ns().max(1.0));
        while self.ratio_within(high) < q {
            (low, high) = (high, high * 2.0);
        }
        while high - low > high * 1e-7 {
            let middle = f64::midpoint(low, high);
            match self.ratio_within(middle) < q {
                true => low = middle,
                false => high = middle,
            }
        }
        high
    }
}

#[cfg(test)]
mod tests;
