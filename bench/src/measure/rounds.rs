//! In which order the arms of a comparison run: in rounds, each arm once a round and in each position equally often,
//! so that a machine that grows warmer, or slower, does so for all of them.

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

/// An arm of a comparison in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Arm {
    /// Which back end (or whatever is compared), from 0.
    pub index: usize,
    /// The same one measured a second time in the round: the A/A pair that shows the noise floor.
    pub twin: bool,
}

/// The order of `arms_count` arms in each of `rounds_count` rounds.
///
/// Rounds come in blocks of `arms_count`; in each block every arm stands in every position exactly once, and, for an
/// even number of arms, follows every other exactly once (E. J. Williams, Austral. J. Sci. Res. A 2, 1949). With two
/// arms that is ABBA. Which arm is which in a block, and the order of its rounds, are drawn from the seed, so that no
/// rhythm of the machine can fall in with it.
pub fn order(arms_count: usize, rounds_count: usize, seed: u64) -> Vec<Vec<usize>> {
    let mut rng = Pcg64Mcg::seed_from_u64(seed);
    let mut rounds = Vec::with_capacity(rounds_count);
    if arms_count == 0 {
        return vec![Vec::new(); rounds_count];
    }
    while rounds.len() < rounds_count {
        let arms = shuffled(arms_count, &mut rng);
        for shift in shuffled(arms_count, &mut rng) {
            // 0, 1, n-1, 2, n-2, …: neighbours differ by each of 1 … n-1 once.
            let position = |at: usize| {
                if at % 2 == 1 {
                    at.div_ceil(2)
                } else {
                    (arms_count - at / 2) % arms_count
                }
            };
            rounds.push(
                (0..arms_count)
                    .map(|at| arms[(position(at) + shift) % arms_count])
                    .collect(),
            );
        }
    }
    rounds.truncate(rounds_count);
    rounds
}

/// [`order`] of `arms_count` arms and a twin of the arm `twin_of`.
///
/// # Panics
/// If there is no arm `twin_of`.
pub fn order_with_twin(arms_count: usize, twin_of: usize, rounds_count: usize, seed: u64) -> Vec<Vec<Arm>> {
    assert!(twin_of < arms_count, "arm {twin_of} of {arms_count} cannot have a twin");
    let arm = |index| Arm {
        index: if index == arms_count { twin_of } else { index },
        twin: index == arms_count,
    };
    let rounds = order(arms_count + 1, rounds_count, seed);
    rounds
        .into_iter()
        .map(|round| round.into_iter().map(arm).collect())
        .collect()
}

/// 0 to `count` - 1 in an order drawn from `rng` (Fisher and Yates).
fn shuffled(count: usize, rng: &mut Pcg64Mcg) -> Vec<usize> {
    let mut items: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        items.swap(last, below(rng, last + 1));
    }
    items
}

/// A number below `end`, by multiplication; its bias is `end` ÷ 2⁶⁴.
pub(super) fn below(rng: &mut Pcg64Mcg, end: usize) -> usize {
    ((u128::from(rng.next_u64()) * end as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_arm_stands_in_each_position_equally_often() {
        for arms_count in 1..=7 {
            let rounds = order(arms_count, 3 * arms_count, 1);
            for position in 0..arms_count {
                for arm in 0..arms_count {
                    let count = rounds.iter().filter(|round| round[position] == arm).count();
                    assert_eq!(count, 3, "arm {arm} in position {position} of {arms_count}");
                }
            }
            let cut = order(arms_count, 3 * arms_count - 1, 1);
            assert_eq!(
                cut[..],
                rounds[..cut.len()],
                "a shorter run is the beginning of a longer one"
            );
        }
    }

    #[test]
    fn an_even_number_of_arms_follow_each_other_equally_often() {
        for arms_count in [2, 4, 6] {
            let rounds = order(arms_count, arms_count, 9);
            let pairs: HashSet<(usize, usize)> = rounds
                .iter()
                .flat_map(|round| round.windows(2).map(|pair| (pair[0], pair[1])))
                .collect();
            assert_eq!(pairs.len(), arms_count * (arms_count - 1));
        }
    }

    #[test]
    fn two_arms_are_abba_in_one_order_or_the_other() {
        for seed in 0..20 {
            let rounds = order(2, 2, seed);
            assert!(rounds == [[0, 1], [1, 0]] || rounds == [[1, 0], [0, 1]], "{rounds:?}");
        }
    }

    #[test]
    fn the_seed_decides_the_order() {
        assert_eq!(order(5, 20, 3), order(5, 20, 3));
        assert_ne!(order(5, 20, 3), order(5, 20, 4));
        assert_eq!(order(3, 4, 1), [[1, 0, 2], [2, 1, 0], [0, 2, 1], [0, 2, 1]], "golden");
    }

    #[test]
    fn a_twin_runs_once_in_each_round() {
        for round in order_with_twin(3, 1, 8, 5) {
            let mut arms = round.clone();
            arms.sort_unstable();
            let arm = |index, twin| Arm { index, twin };
            assert_eq!(arms, [arm(0, false), arm(1, false), arm(1, true), arm(2, false)]);
        }
    }

    #[test]
    fn nothing_to_order_is_an_empty_round() {
        assert_eq!(order(0, 2, 1), [[0usize; 0]; 2]);
        assert!(order(3, 0, 1).is_empty());
    }
}
