//! A request that asks many and waits for all of them, or for some: the maximum of n, and the k-th smallest of n, where the
//! answers have nothing to do with each other (David and Nagaraja, Order Statistics, 3rd ed., eq. 2.1.3).

/// P(all of n within) if one is within with probability `leaf_within`: F(x)ⁿ.
pub fn fork_join_within(leaf_within: f64, leaves_count: u32) -> f64 {
    leaf_within.powf(f64::from(leaves_count))
}

/// The share of requests that wait for at least one slow leaf: 1 − (1 − p)ⁿ (Dean and Barroso, The Tail at Scale, CACM 2013).
pub fn slow_ratio(leaf_slow_ratio: f64, leaves_count: u32) -> f64 {
    1.0 - fork_join_within(1.0 - leaf_slow_ratio, leaves_count)
}

/// P(at least `needed_count` of n within).
pub fn kth_of_n_within(leaf_within: f64, needed_count: u32, leaves_count: u32) -> f64 {
    let n = f64::from(leaves_count);
    if leaf_within >= 1.0 {
        return 1.0;
    }
    if leaf_within <= 0.0 {
        return f64::from(needed_count == 0);
    }
    // Binomial terms by their logarithms.
    let ln_choose = |k: u32| -> f64 {
        (1..=k)
            .map(|i| ((n - f64::from(k) + f64::from(i)) / f64::from(i)).ln())
            .sum()
    };
    let term = |k: u32| {
        let k_f = f64::from(k);
        (ln_choose(k) + k_f * leaf_within.ln() + (n - k_f) * (1.0 - leaf_within).ln()).exp()
    };
    (needed_count..=leaves_count).map(term).sum::<f64>().min(1.0)
}
