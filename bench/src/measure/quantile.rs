//! Which ranks of a sample bound a quantile, and when a sample is too small to say anything about it.

/// The quantiles that records carry unless an experiment wants others.
pub const QUANTILES: [f64; 5] = [0.5, 0.9, 0.99, 0.999, 0.9999];

/// What may fall outside the interval on each side, for 95 % in the middle.
const TAIL_RATIO: f64 = 0.025;
/// The normal distribution's quantile at 1 - [`TAIL_RATIO`].
const NORMAL_QUANTILE: f64 = 1.959_963_985;
/// Up to this variance of the binomial distribution its tails are summed, above it the normal approximation is used:
/// with a standard deviation of 200 ranks its error is below one rank.
const VARIANCE_EXACT_MAX: f64 = 40_000.0;

/// The ranks, counted from 1, whose samples bound a quantile with 95 % confidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RankInterval {
    /// The rank of the lower bound, if the sample is large enough to have one.
    pub low: Option<u64>,
    /// The rank of the upper bound, if the sample is large enough to have one.
    pub high: Option<u64>,
}

impl RankInterval {
    /// Is the sample large enough to say anything about this quantile?
    ///
    /// The rule: both bounds exist. A sample of n has an upper bound for `q` only if all of it lies below the quantile
    /// with a probability of at most 2.5 %, that is qⁿ ≤ 0.025: n ≥ 6 for the median, 36 for p90, 368 for p99, 3 688
    /// for p99.9, 36 887 for p99.99.
    pub fn is_supported(&self) -> bool {
        self.low.is_some() && self.high.is_some()
    }
}

/// The rank, counted from 1, of the quantile `q` among `count` samples: the smallest with at least `q` of the sample
/// at or below it. 0 when there is no sample.
pub fn rank(q: f64, count: u64) -> u64 {
    // 0.999 × 3000 is 2997.0000000000005 in binary; a millionth of a rank less is 2997 again.
    let exact = q.clamp(0.0, 1.0) * count as f64 - 1e-6;
    (exact.ceil().max(1.0) as u64).min(count)
}

/// The 95 % confidence interval of the quantile `q` of the distribution that `count` samples came from, as ranks.
///
/// The number of samples at or below the true quantile is binomial(count, q), whatever the distribution, so ranks that
/// hold 2.5 % of that binomial outside on each side bound the quantile (David & Nagaraja, Order Statistics, 3rd ed.,
/// §7.1; Le Boudec, Performance Evaluation, §2.2). It takes the samples for independent; samples of one queue in one
/// burst are not, so the interval is a lower bound of the uncertainty, and rounds show the rest.
pub fn interval(q: f64, count: u64) -> RankInterval {
    let variance = count as f64 * q * (1.0 - q);
    // An extreme has no interval that does not depend on the distribution.
    if count == 0 || !(q > 0.0 && q < 1.0) {
        return RankInterval { low: None, high: None };
    }
    if variance > VARIANCE_EXACT_MAX {
        let mean = count as f64 * q;
        let half = NORMAL_QUANTILE * variance.sqrt();
        return RankInterval {
            low: Some((mean - half).floor() as u64),
            high: Some((mean + half).ceil() as u64 + 1),
        };
    }
    let (first, weights) = binomial(q, count);
    // low: the largest rank l with P(below < l) ≤ 2.5 %. high: the smallest rank u with P(below ≥ u) ≤ 2.5 %.
    let mut below = 0.0;
    let mut low = first;
    for weight in &weights {
        if below + weight > TAIL_RATIO {
            break;
        }
        below += weight;
        low += 1;
    }
    let mut above = 0.0;
    let mut high = first + weights.len() as u64;
    for weight in weights.iter().rev() {
        if above + weight > TAIL_RATIO {
            break;
        }
        above += weight;
        high -= 1;
    }
    RankInterval {
        low: (low >= 1).then_some(low),
        high: (high <= count).then_some(high),
    }
}

/// The probabilities of binomial(count, q) around its mode, and which value the first belongs to. What is left out is
/// beyond 12 standard deviations.
fn binomial(q: f64, count: u64) -> (u64, Vec<f64>) {
    let mode = (((count + 1) as f64 * q).floor() as u64).min(count);
    let reach = (12.0 * (count as f64 * q * (1.0 - q)).sqrt()).ceil() as u64 + 12;
    let first = mode.saturating_sub(reach);
    let last = mode.saturating_add(reach).min(count);
    let odds = q / (1.0 - q);
    let at = |value: u64| (value - first) as usize;
    // Neighbours' ratios from the mode outwards, then divided by the sum: no factorial, no logarithm.
    let mut weights = vec![0.0; at(last) + 1];
    weights[at(mode)] = 1.0;
    for value in mode + 1..=last {
        weights[at(value)] = weights[at(value - 1)] * (count - value + 1) as f64 / value as f64 * odds;
    }
    for value in (first..mode).rev() {
        weights[at(value)] = weights[at(value + 1)] * (value + 1) as f64 / (count - value) as f64 / odds;
    }
    let sum: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|weight| *weight /= sum);
    (first, weights)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranks(q: f64, count: u64) -> (Option<u64>, Option<u64>) {
        let interval = interval(q, count);
        (interval.low, interval.high)
    }

    #[test]
    fn the_median_s_interval_is_the_one_in_the_tables() {
        // Conover, Practical Nonparametric Statistics, table A3 (binomial), and the sign test's usual table.
        for (count, low, high) in [
            (6, 1, 6),
            (9, 2, 8),
            (10, 2, 9),
            (15, 4, 12),
            (20, 6, 15),
            (25, 8, 18),
            (30, 10, 21),
            (50, 18, 33),
        ] {
            assert_eq!(ranks(0.5, count), (Some(low), Some(high)), "n = {count}");
        }
        assert!(!interval(0.5, 5).is_supported(), "2 × 0.5⁵ is 6 %");
    }

    #[test]
    fn a_quantile_is_refused_below_the_sample_that_can_bound_it() {
        for (q, enough) in [(0.5, 6), (0.9, 36), (0.99, 368), (0.999, 3_688), (0.9999, 36_887)] {
            assert!(interval(q, enough).is_supported(), "q = {q}, n = {enough}");
            assert!(!interval(q, enough - 1).is_supported(), "q = {q}, n = {}", enough - 1);
        }
        assert!(!interval(0.5, 0).is_supported());
        assert!(
            !interval(1.0, 1_000_000).is_supported(),
            "the true maximum is not bounded by any sample"
        );
        assert!(!interval(f64::NAN, 100).is_supported());
    }

    #[test]
    fn exact_and_approximate_intervals_meet() {
        // Just below and above the switch, the ranks continue.
        let count = (VARIANCE_EXACT_MAX / 0.25) as u64;
        let (exact, approximate) = (interval(0.5, count), interval(0.5, count + 2));
        assert!(
            exact.low.unwrap().abs_diff(approximate.low.unwrap()) <= 3,
            "{exact:?} {approximate:?}"
        );
        assert!(
            exact.high.unwrap().abs_diff(approximate.high.unwrap()) <= 3,
            "{exact:?} {approximate:?}"
        );
        let (low, high) = ranks(0.9999, 1_000_000_000);
        assert!(low.unwrap() < 999_900_000 && high.unwrap() > 999_900_000);
    }

    #[test]
    fn the_rank_is_the_smallest_that_covers_the_share() {
        for (q, count, expected) in [
            (0.5, 1, 1),
            (0.5, 2, 1),
            (0.5, 3, 2),
            (0.99, 100, 99),
            (0.999, 3_000, 2_997),
            (1.0, 7, 7),
            (0.0, 7, 1),
            (0.5, 0, 0),
        ] {
            assert_eq!(rank(q, count), expected, "q = {q}, n = {count}");
        }
    }

    #[test]
    fn the_interval_covers_the_true_quantile_as_often_as_it_says() {
        use rand::{Rng, SeedableRng};
        let mut rng = rand_pcg::Pcg64Mcg::seed_from_u64(1);
        let (q, count, trials) = (0.9, 200, 2_000);
        let RankInterval {
            low: Some(low),
            high: Some(high),
        } = interval(q, count)
        else {
            panic!("supported")
        };
        let mut covered = 0;
        for _ in 0..trials {
            let mut sample: Vec<f64> = (0..count).map(|_| rng.next_u64() as f64 / 2f64.powi(64)).collect();
            sample.sort_unstable_by(f64::total_cmp);
            covered += u32::from(sample[low as usize - 1] <= q && q <= sample[high as usize - 1]);
        }
        let coverage = f64::from(covered) / f64::from(trials);
        assert!((0.945..=0.985).contains(&coverage), "{coverage}");
    }
}
