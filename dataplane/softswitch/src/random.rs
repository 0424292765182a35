//! Chance: each port has a stream of its own, so that more frames at one change nothing at another.

use dataplane_queue::SimTime;
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

use crate::Faults;

/// What happens to a frame on the cable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Arrives { late_by: SimTime },
    Lost,
}

#[derive(Clone, Debug)]
pub(crate) struct Chance {
    random: Pcg64Mcg,
    faults: Faults,
}

impl Chance {
    pub fn new(faults: Faults, seed: u64, port: usize) -> Chance {
        Chance {
            // Seeds of neighbouring ports have nothing in common: `seed_from_u64` mixes them (rand_core).
            random: Pcg64Mcg::seed_from_u64(seed.wrapping_add((port as u64) << 32)),
            faults,
        }
    }

    /// Draws twice for every frame, so that one ratio does not move the other's victims.
    pub fn fate(&mut self) -> Fate {
        let faults = self.faults;
        if faults.loss_ratio == 0.0 && faults.late_ratio == 0.0 {
            return Fate::Arrives { late_by: SimTime::ZERO };
        }
        let (is_lost, is_late) = (self.draws(faults.loss_ratio), self.draws(faults.late_ratio));
        match (is_lost, is_late) {
            (true, _) => Fate::Lost,
            (false, true) => Fate::Arrives {
                late_by: faults.late_by,
            },
            (false, false) => Fate::Arrives { late_by: SimTime::ZERO },
        }
    }

    fn draws(&mut self, ratio: f64) -> bool {
        // The 53 bits that a double holds.
        let uniform = (self.random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        uniform < ratio
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_kept_and_streams_repeat() {
        let faults = Faults {
            loss_ratio: 0.1,
            late_ratio: 0.02,
            late_by: SimTime::from_us(5),
        };
        let draw = |seed, port| {
            let mut chance = Chance::new(faults, seed, port);
            (0..100_000).map(|_| chance.fate()).collect::<Vec<Fate>>()
        };
        let fates = draw(1, 0);
        let lost_count = fates.iter().filter(|fate| **fate == Fate::Lost).count();
        let late = Fate::Arrives {
            late_by: faults.late_by,
        };
        let late_count = fates.iter().filter(|fate| **fate == late).count();
        // Six standard deviations: 95 and 42.
        assert!((9_430..10_570).contains(&lost_count), "{lost_count}");
        assert!((1_540..2_060).contains(&late_count), "{late_count}");
        assert_eq!(fates, draw(1, 0));
        assert_ne!(fates, draw(1, 1));
        assert_ne!(fates, draw(2, 0));
    }
}
