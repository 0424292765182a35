//! What order statistics say of a commit: how long the k-th fastest of m followers takes, if each way there and back is slow
//! now and then, and no commit waits for another.

/// The ways between leader and followers, beyond what they take at least: nothing, or, for `slow_ratio` of all frames, a
/// time that is uniform from zero to `slow_ns_max`. Each frame is drawn for itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Excess {
    /// 0 to 1.
    pub slow_ratio: f64,
    /// The longest that a slow frame takes more, in nanoseconds.
    pub slow_ns_max: f64,
}

impl Excess {
    /// How likely a follower's append and acknowledgement together take at most `ns` more than they must.
    pub fn follower(&self, ns: f64) -> f64 {
        if ns < 0.0 {
            return 0.0;
        }
        let (slow, span) = (self.slow_ratio, ns / self.slow_ns_max);
        // Two uniform variables' sum: the triangle distribution.
        let both = match span {
            span if span <= 1.0 => span * span / 2.0,
            span if span <= 2.0 => 1.0 - (2.0 - span) * (2.0 - span) / 2.0,
            _ => 1.0,
        };
        let fast = 1.0 - slow;
        fast * fast + 2.0 * slow * fast * span.min(1.0) + slow * slow * both
    }

    /// How likely at least `needed_count` of `followers_count` take at most `ns` more than they must.
    pub fn quorum(&self, followers_count: u32, needed_count: u32, ns: f64) -> f64 {
        let each = self.follower(ns);
        let count = |count: u32| choose(followers_count, count) * each.powi(count as i32);
        let others = |count: u32| (1.0 - each).powi((followers_count - count) as i32);
        (needed_count..=followers_count).map(|k| count(k) * others(k)).sum()
    }

    /// The quantile of the same, in nanoseconds.
    pub fn quantile_ns(&self, followers_count: u32, needed_count: u32, q: f64) -> f64 {
        let (mut low, mut high) = (0.0, 2.0 * self.slow_ns_max);
        if self.quorum(followers_count, needed_count, low) >= q {
            return low;
        }
        // 60 halvings of a few milliseconds: far below a picosecond.
        for _ in 0..60 {
            let middle = (low + high) / 2.0;
            match self.quorum(followers_count, needed_count, middle) >= q {
                true => high = middle,
                false => low = middle,
            }
        }
        high
    }
}

fn choose(of: u32, count: u32) -> f64 {
    (0..count).map(|k| f64::from(of - k) / f64::from(k + 1)).product()
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_pcg::Pcg64Mcg;

    use super::*;

    #[test]
    fn known_points() {
        let excess = Excess {
            slow_ratio: 0.5,
            slow_ns_max: 100.0,
        };
        // A quarter of all pairs has no slow frame; a pair with two is at most 100 in half of all cases.
        assert_eq!(excess.follower(0.0), 0.25);
        assert_eq!(excess.follower(100.0), 0.25 + 0.5 + 0.125);
        assert_eq!(excess.follower(200.0), 1.0);
        // The faster of two, and the slower.
        assert_eq!(excess.quorum(2, 1, 0.0), 1.0 - 0.75 * 0.75);
        assert_eq!(excess.quorum(2, 2, 0.0), 0.25 * 0.25);
        assert_eq!(excess.quantile_ns(2, 1, 0.4), 0.0);
    }

    #[test]
    fn draws_agree() {
        let excess = Excess {
            slow_ratio: 0.1,
            slow_ns_max: 2000.0,
        };
        let mut rng = Pcg64Mcg::seed_from_u64(1);
        let mut draw = || match rng.random_bool(excess.slow_ratio) {
            true => rng.random_range(0.0..excess.slow_ns_max),
            false => 0.0,
        };
        const DRAWS: usize = 100_000;
        for needed in 1..=4 {
            let q99 = excess.quantile_ns(4, needed, 0.99);
            let beyond = (0..DRAWS)
                .filter(|_| {
                    let mut followers: Vec<f64> = (0..4).map(|_| draw() + draw()).collect();
                    followers.sort_by(f64::total_cmp);
                    followers[needed as usize - 1] > q99
                })
                .count();
            let expected = (1.0 - excess.quorum(4, needed, q99)) * DRAWS as f64;
            assert!(
                (beyond as f64 - expected).abs() < 5.0 * expected.sqrt().max(1.0),
                "{needed}: {beyond}, {expected}"
            );
        }
    }
}
