//! Is one slower than the other? Paired ratios over rounds, with an interval that holds on a noisy machine.
//!
//! # The interval
//!
//! Rounds are few (8 to 20) and a virtual machine gives some of them twice the latency. The percentile bootstrap is too
//! narrow for so few rounds, and Student's t and the studentised bootstrap become so wide with one outlier that a 5 %
//! slow-down drowns. The logarithm of a ratio of two runs that differ in nothing is symmetric about 0, however heavy
//! its tails, and that is all that Wilcoxon's signed-rank test needs: its interval, by inverting the sign-flip
//! distribution of the ranks, is exact for any number of rounds. So the estimate is Hodges and Lehmann's (the median
//! of all pairwise means), and the interval is the wider, at either end, of that exact one and of a bootstrap over
//! rounds of the same estimate, which also sees asymmetry.
//!
//! # How many rounds
//!
//! Simulated, 1 000 comparisons each, beside an A/A pair: ratios with a standard deviation of 2 %, and some runs 10 % to
//! 100 % slower. A test keeps the line of 12 rounds and 2 %.
//!
//! ```text
//!          false alarms        5 % slow-downs found, by share of runs that are outliers
//! rounds   (all shares)          none      2 %      5 %     10 %
//!      6     0.3–1.0 %         88.6 %   78.8 %   62.7 %   43.3 %
//!      8     0.5–1.1 %         98.9 %   84.8 %   62.5 %   42.0 %
//!     12     0.5–1.3 %         99.9 %   96.8 %   86.6 %   63.7 %
//!     20     0.3–1.3 %        100.0 %   99.7 %   93.4 %   72.6 %
//! ```
//!
//! So 12 rounds where the machine is quiet, 20 where it is not; and a quantile of many requests is an outlier far less
//! often than one request is.
//!
//! Sources: Hollander, Wolfe & Chicken, Nonparametric Statistical Methods, 3rd ed., §3.1 to 3.3 (paired) and §4.1 to
//! 4.3 (unpaired).

use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;
use serde::Serialize;

use super::{ranks, rounds::below};

/// Resamples of the bootstrap: the 25th from each end bounds 95 %.
const RESAMPLES_COUNT: usize = 999;
/// How many resampled estimates lie outside the interval on each side.
const RESAMPLES_OUTSIDE_COUNT: usize = 24;

/// How many times what the other takes, with a 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RatioEstimate {
    /// The estimate; 1.05 is 5 % slower. Infinite or zero where most of one side was lost; NaN without any round.
    pub ratio: f64,
    /// Lower end of the interval; 0 where so few rounds bound nothing.
    pub low: f64,
    /// Upper end of the interval; infinite where so few rounds bound nothing.
    pub high: f64,
    /// Rounds (paired), or the runs of the smaller side (unpaired), behind it.
    pub rounds_count: u64,
}

/// How much longer the other takes, with a 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct DifferenceEstimate {
    /// The estimate; NaN without any round.
    pub value: f64,
    /// Lower end of the interval; −∞ where so few rounds bound nothing.
    pub low: f64,
    /// Upper end of the interval; ∞ where so few rounds bound nothing.
    pub high: f64,
    /// Rounds behind it.
    pub rounds_count: u64,
}

/// Which of two it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Difference {
    /// The second takes longer, beyond the noise.
    Slower,
    /// The second takes less time, beyond the noise.
    Faster,
    /// The interval holds 1, or the difference is within the noise floor.
    Inconclusive,
}

impl RatioEstimate {
    const NOTHING: RatioEstimate = RatioEstimate {
        ratio: f64::NAN,
        low: 0.0,
        high: f64::INFINITY,
        rounds_count: 0,
    };

    /// Could the rounds bound the ratio at all? It takes 6 of them.
    pub fn is_bounded(&self) -> bool {
        self.low > 0.0 && self.high < f64::INFINITY
    }
}

/// How many times as long `b` takes as `a`, from times (or anything where less is better) paired by round.
///
/// A lost quantile is `f64::INFINITY`. Pairs that say nothing are left out: both infinite, or a value that is not
/// above zero. Fewer than 6 rounds give an estimate without bounds. `seed` decides the resampling alone.
///
/// # Panics
/// If the two have different lengths: then they are not pairs.
pub fn ratio(a: &[f64], b: &[f64], seed: u64) -> RatioEstimate {
    assert_eq!(a.len(), b.len(), "rounds are pairs");
    let logs: Vec<f64> = a
        .iter()
        .zip(b)
        .filter_map(|(&a, &b)| {
            let is_time = a > 0.0 && b > 0.0 && (a.is_finite() || b.is_finite());
            is_time.then(|| b.ln() - a.ln())
        })
        .collect();
    if logs.is_empty() {
        return RatioEstimate::NOTHING;
    }
    let (estimate, bounds) = estimate(&logs, seed);
    finish(estimate, bounds, logs.len())
}

/// How much longer `b` takes than `a`, in their own unit, from values paired by round.
///
/// The estimate and the interval are those of [`ratio`], of differences instead of log-ratios. Pairs with a value that is
/// not finite are left out.
///
/// # Panics
/// If the two have different lengths.
pub fn difference(a: &[f64], b: &[f64], seed: u64) -> DifferenceEstimate {
    assert_eq!(a.len(), b.len(), "rounds are pairs");
    let differences: Vec<f64> = a
        .iter()
        .zip(b)
        .map(|(a, b)| b - a)
        .filter(|value| value.is_finite())
        .collect();
    let (estimate, bounds) = estimate(&differences, seed);
    let (low, high) = bounds.unwrap_or((f64::NEG_INFINITY, f64::INFINITY));
    DifferenceEstimate {
        value: estimate,
        low,
        high,
        rounds_count: differences.len() as u64,
    }
}

/// The median of all pairwise means of what each round gave, and its 95 % interval where the rounds are enough for one.
fn estimate(rounds: &[f64], seed: u64) -> (f64, Option<(f64, f64)>) {
    if rounds.is_empty() {
        return (f64::NAN, None);
    }
    let mut means = pairwise_means(rounds);
    let estimate = median(&mut means);
    means.sort_unstable_by(f64::total_cmp);
    let bounds = ranks::signed_rank_outside(rounds.len()).map(|outside| {
        let exact = (means[outside], means[means.len() - 1 - outside]);
        let resampled = bootstrap(rounds, seed);
        (exact.0.min(resampled.0), exact.1.max(resampled.1))
    });
    (estimate, bounds)
}

/// How many times as long the runs of `b` take as those of `a`, which are not paired: two recorded runs, a value per
/// row of each. The interval inverts the Mann-Whitney test; [`mann_whitney`] is its p-value.
pub fn ratio_unpaired(a: &[f64], b: &[f64]) -> RatioEstimate {
    let logs = |values: &[f64]| -> Vec<f64> { values.iter().filter(|&&v| v > 0.0).map(|v| v.ln()).collect() };
    let (a, b) = (logs(a), logs(b));
    let mut differences = Vec::with_capacity(a.len() * b.len());
    for b in &b {
        // Both lost says nothing about how much slower either is.
        differences.extend(a.iter().map(|a| if a == b { 0.0 } else { b - a }));
    }
    if differences.is_empty() {
        return RatioEstimate::NOTHING;
    }
    let estimate = median(&mut differences);
    differences.sort_unstable_by(f64::total_cmp);
    let bounds = ranks::rank_sum_outside(a.len(), b.len())
        .map(|outside| (differences[outside], differences[differences.len() - 1 - outside]));
    finish(estimate, bounds, a.len().min(b.len()))
}

/// Mann and Whitney's test of whether `a` and `b` come from one distribution: the two-sided p-value, exact (ties
/// included) up to 50 values together and by the normal approximation above. Infinite values are the largest. 1 when
/// one side is empty.
pub fn mann_whitney(a: &[f64], b: &[f64]) -> f64 {
    ranks::rank_sum_p_value(a, b)
}

/// What the estimate says beside the noise floor of its run: the same back end compared with itself (A/A).
///
/// A difference is one only if all of its interval lies further from 1 than the A/A pair's estimate: what two equal
/// ones showed, this run may show of any two. Without bounds there is no difference to speak of, and an A/A pair that
/// could not be estimated allows any.
pub fn verdict(estimate: &RatioEstimate, noise_floor: Option<&RatioEstimate>) -> Difference {
    let floor = noise_floor.map_or(0.0, |floor| floor.ratio.ln().abs());
    // A NaN is on neither side.
    if estimate.low.ln() > floor {
        Difference::Slower
    } else if -estimate.high.ln() > floor {
        Difference::Faster
    } else {
        Difference::Inconclusive
    }
}

fn finish(estimate: f64, bounds: Option<(f64, f64)>, rounds_count: usize) -> RatioEstimate {
    let (low, high) = bounds.unwrap_or((f64::NEG_INFINITY, f64::INFINITY));
    RatioEstimate {
        ratio: estimate.exp(),
        low: low.exp(),
        high: high.exp(),
        rounds_count: rounds_count as u64,
    }
}

/// The means of all pairs, each value with itself too (Walsh averages).
fn pairwise_means(values: &[f64]) -> Vec<f64> {
    let mut means = Vec::with_capacity(values.len() * (values.len() + 1) / 2);
    push_pairwise_means(values, &mut means);
    means
}

fn push_pairwise_means(values: &[f64], means: &mut Vec<f64>) {
    for (index, &left) in values.iter().enumerate() {
        means.extend(values[index..].iter().map(|&right| {
            let mean = (left + right) / 2.0;
            // +∞ and -∞: lost on one side in one round, on the other in another.
            if mean.is_nan() { 0.0 } else { mean }
        }));
    }
}

/// The median; puts `values` in disorder.
fn median(values: &mut [f64]) -> f64 {
    let (middle, is_odd) = (values.len() / 2, values.len() % 2 == 1);
    let (below, &mut upper, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    if is_odd {
        return upper;
    }
    let lower = below.iter().copied().max_by(f64::total_cmp).unwrap_or(upper);
    if lower == upper { upper } else { (lower + upper) / 2.0 }
}

/// The interval that holds 95 % of the estimates over resampled rounds.
fn bootstrap(logs: &[f64], seed: u64) -> (f64, f64) {
    let mut rng = Pcg64Mcg::seed_from_u64(seed);
    let mut resample = vec![0.0; logs.len()];
    let mut means = Vec::with_capacity(logs.len() * (logs.len() + 1) / 2);
    let mut estimates: Vec<f64> = (0..RESAMPLES_COUNT)
        .map(|_| {
            resample.fill_with(|| logs[below(&mut rng, logs.len())]);
            means.clear();
            push_pairwise_means(&resample, &mut means);
            median(&mut means)
        })
        .collect();
    estimates.sort_unstable_by(f64::total_cmp);
    (
        estimates[RESAMPLES_OUTSIDE_COUNT],
        estimates[RESAMPLES_COUNT - 1 - RESAMPLES_OUTSIDE_COUNT],
    )
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;

    #[test]
    fn a_clear_ratio_is_found_and_bounded() {
        let a = [10.0, 11.0, 9.0, 10.5, 10.2, 9.8, 10.1, 9.9];
        let b: Vec<f64> = a.iter().map(|a| a * 1.5).collect();
        let estimate = ratio(&a, &b, 1);
        assert!(
            (estimate.ratio - 1.5).abs() < 1e-9 && estimate.is_bounded(),
            "{estimate:?}"
        );
        assert_eq!(verdict(&estimate, None), Difference::Slower);
        assert_eq!(verdict(&ratio(&b, &a, 1), None), Difference::Faster);
        assert_eq!(verdict(&ratio(&a, &a, 1), None), Difference::Inconclusive);
    }

    #[test]
    fn the_signed_rank_interval_is_the_textbook_s() {
        // Hollander, Wolfe & Chicken, table 3.1 and examples 3.1 to 3.5 (Hamilton depression scale factor): the
        // estimate is -0.46 and the 96 % interval of the nine differences (-0.786, -0.010).
        let logs = [-0.952, 0.147, -1.022, -0.430, -0.620, -0.590, -0.490, 0.080, -0.010];
        let a = [1.0; 9];
        let b = logs.map(f64::exp);
        let estimate = ratio(&a, &b, 1);
        assert!((estimate.ratio.ln() + 0.46).abs() < 1e-9, "{estimate:?}");
        assert!(
            estimate.low.ln() <= -0.786 + 1e-9 && estimate.high.ln() >= -0.010 - 1e-9,
            "{estimate:?}"
        );
    }

    #[test]
    fn five_rounds_bound_nothing() {
        let estimate = ratio(&[1.0; 5], &[2.0; 5], 1);
        assert!((estimate.ratio - 2.0).abs() < 1e-12);
        assert!(!estimate.is_bounded());
        assert_eq!(verdict(&estimate, None), Difference::Inconclusive);
        assert_eq!(verdict(&ratio(&[], &[], 1), None), Difference::Inconclusive);
    }

    #[test]
    fn lost_quantiles_are_infinite_and_still_compared() {
        const LOST: f64 = f64::INFINITY;
        let estimate = ratio(&[1.0; 8], &[LOST; 8], 1);
        assert_eq!((estimate.ratio, estimate.low), (LOST, LOST));
        assert_eq!(verdict(&estimate, None), Difference::Slower);
        assert_eq!(verdict(&ratio(&[LOST; 8], &[1.0; 8], 1), None), Difference::Faster);
        assert_eq!(
            ratio(&[LOST; 8], &[LOST; 8], 1).rounds_count,
            0,
            "both lost says nothing"
        );
        let mixed = ratio(
            &[1.0, LOST, 1.0, LOST, 1.0, LOST],
            &[LOST, 1.0, LOST, 1.0, LOST, 1.0],
            1,
        );
        assert_eq!(verdict(&mixed, None), Difference::Inconclusive);
        assert!(!mixed.ratio.is_nan());
    }

    #[test]
    fn a_difference_inside_the_noise_floor_is_inconclusive() {
        let estimate = |ratio, low, high| RatioEstimate {
            ratio,
            low,
            high,
            rounds_count: 10,
        };
        let difference = estimate(1.05, 1.03, 1.07);
        assert_eq!(
            verdict(&difference, Some(&estimate(1.0, 0.98, 1.02))),
            Difference::Slower
        );
        assert_eq!(
            verdict(&difference, Some(&estimate(0.97, 0.94, 1.0))),
            Difference::Inconclusive
        );
        assert_eq!(
            verdict(&difference, Some(&RatioEstimate::NOTHING)),
            Difference::Inconclusive
        );
    }

    #[test]
    fn unpaired_runs_are_compared_too() {
        let a = [1.00, 1.01, 0.99, 1.02, 0.98, 1.00];
        let b = a.map(|a| a * 1.1);
        let estimate = ratio_unpaired(&a, &b);
        assert!((estimate.ratio - 1.1).abs() < 0.01, "{estimate:?}");
        assert_eq!(verdict(&estimate, None), Difference::Slower);
        assert!(mann_whitney(&a, &b) < 0.01);
        assert_eq!(verdict(&ratio_unpaired(&a, &a), None), Difference::Inconclusive);
        assert!(
            !ratio_unpaired(&[1.0, 1.0, 1.0], &[2.0, 2.0, 2.0]).is_bounded(),
            "three against three bound nothing"
        );
    }

    /// Runs of a noisy machine: ratios of two equal ones have a standard deviation of 2 %, and beside that the given
    /// share of runs is 10 % to 100 % slower.
    struct Machine {
        rng: Pcg64Mcg,
        outliers_ratio: f64,
    }

    impl Machine {
        fn uniform(&mut self) -> f64 {
            (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
        }

        fn runs(&mut self, truth: f64, rounds_count: usize) -> Vec<f64> {
            let mut run = || {
                // Box and Muller.
                let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
                let normal = radius * (std::f64::consts::TAU * self.uniform()).cos();
                let is_outlier = self.uniform() < self.outliers_ratio;
                let outlier = if is_outlier { 1.1 + 0.9 * self.uniform() } else { 1.0 };
                truth * (0.02 / 2f64.sqrt() * normal).exp() * outlier
            };
            (0..rounds_count).map(|_| run()).collect()
        }

        /// How many of `trials_count` comparisons end as `wanted`, without and with a noise floor.
        fn count(&mut self, wanted: Difference, truth: f64, rounds_count: usize, trials_count: u64) -> (u64, u64) {
            let (mut alone, mut beside_floor) = (0, 0);
            for trial in 0..trials_count {
                let (a, twin) = (self.runs(1.0, rounds_count), self.runs(1.0, rounds_count));
                let b = self.runs(truth, rounds_count);
                let (estimate, floor) = (ratio(&a, &b, trial), ratio(&a, &twin, trial));
                alone += u64::from(verdict(&estimate, None) == wanted);
                beside_floor += u64::from(verdict(&estimate, Some(&floor)) == wanted);
            }
            (alone, beside_floor)
        }
    }

    #[test]
    fn equal_ones_seldom_differ_and_five_percent_are_found() {
        let mut machine = Machine {
            rng: Pcg64Mcg::seed_from_u64(1),
            outliers_ratio: 0.02,
        };
        let (alone, beside_floor) = machine.count(Difference::Inconclusive, 1.0, 12, 200);
        assert!(
            alone >= 190 && beside_floor >= 196,
            "{alone} and {beside_floor} of 200 equal pairs were called equal"
        );
        let (alone, beside_floor) = machine.count(Difference::Slower, 1.05, 12, 100);
        assert!(
            alone >= 95 && beside_floor >= 95,
            "{alone} and {beside_floor} of 100 slow-downs were found"
        );
    }
}
