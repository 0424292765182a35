//! The exact distributions of the two rank statistics that comparisons rest on, by counting.

/// What may lie outside an interval on each side, for 95 % in the middle.
const TAIL_RATIO: f64 = 0.025;
/// Up to this many values together the rank-sum distribution is counted out; above, the normal one is as good.
const RANK_SUM_EXACT_MAX: usize = 50;
/// Up to this many pairs the signed-rank distribution is counted out.
const SIGNED_RANK_EXACT_MAX: usize = 100;

/// How many of the sorted pairwise means of `count` differences lie outside the 95 % interval on each side; `None`
/// when no interval of 95 % exists (below 6).
pub(super) fn signed_rank_outside(count: usize) -> Option<usize> {
    if count > SIGNED_RANK_EXACT_MAX {
        let n = count as f64;
        let (mean, variance) = (n * (n + 1.0) / 4.0, n * (n + 1.0) * (2.0 * n + 1.0) / 24.0);
        return Some((mean - 1.96 * variance.sqrt()).floor() as usize);
    }
    // The sum of the ranks with a positive sign: each rank is in it or not, with equal probability.
    let sums_count = count * (count + 1) / 2 + 1;
    let mut probabilities = vec![0.0; sums_count];
    probabilities[0] = 1.0;
    for rank in 1..=count {
        for sum in (0..sums_count).rev() {
            let with = if sum >= rank { probabilities[sum - rank] } else { 0.0 };
            probabilities[sum] = (probabilities[sum] + with) / 2.0;
        }
    }
    outside(&probabilities)
}

/// The same for the sorted pairwise differences between `a_count` and `b_count` values.
pub(super) fn rank_sum_outside(a_count: usize, b_count: usize) -> Option<usize> {
    if a_count == 0 || b_count == 0 {
        return None;
    }
    let (m, n) = (a_count as f64, b_count as f64);
    if a_count + b_count > RANK_SUM_EXACT_MAX {
        let half = 1.96 * (m * n * (m + n + 1.0) / 12.0).sqrt();
        let outside = (m * n / 2.0 - half).floor();
        return (outside >= 0.0).then_some(outside as usize);
    }
    // Mann and Whitney's U is the rank sum without its smallest value.
    let doubled_ranks: Vec<usize> = (1..=a_count + b_count).map(|rank| 2 * rank).collect();
    let sums = subset_sums(&doubled_ranks, a_count);
    let smallest = a_count * (a_count + 1);
    let probabilities: Vec<f64> = sums[smallest..]
        .iter()
        .step_by(2)
        .take(a_count * b_count + 1)
        .copied()
        .collect();
    outside(&probabilities)
}

/// The largest k for which a statistic of at most k has a probability of at most 2.5 %; `None` when even 0 has more.
///
/// The statistic counts the pairwise values below the truth. Where it is above k, the truth lies above k + 1 of them,
/// so with k of the sorted values left outside on each side the two ends bound it with 95 %.
fn outside(probabilities: &[f64]) -> Option<usize> {
    let mut below = 0.0;
    let mut count: usize = 0;
    for probability in probabilities {
        below += probability;
        // A sum of floats may exceed what it should equal in its last digits.
        if below > TAIL_RATIO + 1e-12 {
            break;
        }
        count += 1;
    }
    count.checked_sub(1)
}

/// The two-sided p-value of the rank-sum test.
pub(super) fn rank_sum_p_value(a: &[f64], b: &[f64]) -> f64 {
    if a.is_empty() || b.is_empty() {
        return 1.0;
    }
    let mut all: Vec<(f64, bool)> = Vec::with_capacity(a.len() + b.len());
    all.extend(a.iter().map(|&value| (value, true)));
    all.extend(b.iter().map(|&value| (value, false)));
    all.sort_unstable_by(|left, right| left.0.total_cmp(&right.0));
    // Twice the rank, so that the mean rank of a tie is whole.
    let mut doubled_ranks = vec![0; all.len()];
    let mut tie_term = 0.0;
    let mut first = 0;
    while first < all.len() {
        let tied_count = all[first..]
            .iter()
            .take_while(|item| item.0 == all[first].0)
            .count()
            .max(1);
        doubled_ranks[first..first + tied_count].fill(2 * first + 1 + tied_count);
        let t = tied_count as f64;
        tie_term += t * t * t - t;
        first += tied_count;
    }
    let is_a = |index: &usize| all[*index].1;
    let observed: usize = (0..all.len()).filter(is_a).map(|index| doubled_ranks[index]).sum();
    let (m, n, total) = (a.len() as f64, b.len() as f64, all.len() as f64);
    if all.len() <= RANK_SUM_EXACT_MAX {
        let sums = subset_sums(&doubled_ranks, a.len());
        let at_most: f64 = sums[..=observed].iter().sum();
        let at_least: f64 = sums[observed..].iter().sum();
        return (2.0 * at_most.min(at_least)).min(1.0);
    }
    let mean = m * (total + 1.0) / 2.0;
    let variance = m * n / 12.0 * (total + 1.0 - tie_term / (total * (total - 1.0)));
    if variance <= 0.0 {
        return 1.0;
    }
    let z = ((observed as f64 / 2.0 - mean).abs() - 0.5).max(0.0) / variance.sqrt();
    (2.0 * normal_above(z)).min(1.0)
}

/// The probability of each sum of `count` of the given numbers, all choices being equally likely.
fn subset_sums(numbers: &[usize], count: usize) -> Vec<f64> {
    let sum_max: usize = numbers.iter().sum();
    // chosen[k][s]: the probability that a random choice among the numbers so far has k members of sum s.
    let mut chosen = vec![vec![0.0; sum_max + 1]; count + 1];
    chosen[0][0] = 1.0;
    for &number in numbers {
        for members in (1..=count).rev() {
            let (fewer, more) = chosen.split_at_mut(members);
            for sum in number..=sum_max {
                more[0][sum] += fewer[members - 1][sum - number];
            }
        }
    }
    let mut sums = chosen.swap_remove(count);
    let choices: f64 = sums.iter().sum();
    sums.iter_mut().for_each(|sum| *sum /= choices);
    sums
}

/// The normal distribution's tail above `z` ≥ 0, to 7 digits (Abramowitz & Stegun 26.2.17).
fn normal_above(z: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * z);
    let polynomial =
        t * (0.319_381_530 + t * (-0.356_563_782 + t * (1.781_477_937 + t * (-1.821_255_978 + t * 1.330_274_429))));
    (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * polynomial
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p_values_are_the_tables() {
        // 4 against 4, completely apart: 2 of 70 choices.
        let p = rank_sum_p_value(&[1.0, 2.0, 3.0, 4.0], &[5.0, 6.0, 7.0, 8.0]);
        assert!((p - 2.0 / 70.0).abs() < 1e-12, "{p}");
        // 5 against 5, U = 2, has P(U ≤ 2) = 4/252 (Hollander, Wolfe & Chicken, table A.6).
        let p = rank_sum_p_value(&[1.0, 2.0, 3.0, 4.0, 7.0], &[5.0, 6.0, 8.0, 9.0, 10.0]);
        assert!((p - 8.0 / 252.0).abs() < 1e-12, "{p}");
        assert_eq!(rank_sum_p_value(&[1.0; 10], &[1.0; 10]), 1.0, "all tied");
        assert_eq!(rank_sum_p_value(&[], &[1.0]), 1.0);
        let lost = rank_sum_p_value(&[1.0; 6], &[f64::INFINITY; 6]);
        assert!((lost - 2.0 / 924.0).abs() < 1e-12, "{lost}");
    }

    #[test]
    fn the_exact_and_the_approximate_p_value_meet() {
        let a: Vec<f64> = (0..25).map(|i| f64::from(i) * 2.0).collect();
        let b: Vec<f64> = (0..25).map(|i| f64::from(i) * 2.0 + 11.0).collect();
        let exact = rank_sum_p_value(&a, &b);
        let longer: Vec<f64> = b.iter().copied().chain([36.0]).collect();
        let approximate = rank_sum_p_value(&a, &longer);
        assert!((exact - approximate).abs() < 0.01, "{exact} {approximate}");
    }
}
