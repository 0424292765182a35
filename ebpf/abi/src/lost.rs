//! Which frames `lossy` drops: a function of its seed and of how many it has seen, so that whoever knows both can say.

/// The number that frame `number` (from 0) draws: SplitMix64, of which this is the `number`-th output (Steele, Lea and Flood,
/// "Fast splittable pseudorandom number generators", OOPSLA 2014, figure 15).
pub const fn draw(seed: u64, number: u64) -> u64 {
    const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut word = seed.wrapping_add(number.wrapping_add(1).wrapping_mul(GOLDEN_GAMMA));
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// Whether frame `number` is lost, where `threshold` of 2^64 are.
pub const fn is_lost(seed: u64, number: u64, threshold: u64) -> bool {
    draw(seed, number) < threshold
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_splitmix64() {
        // The first outputs for seed 1234567, of the reference implementation (prng.di.unimi.it/splitmix64.c).
        let outputs = [0x599e_d017_fb08_fc85, 0x2c73_f084_5854_0fa5, 0x883e_bce5_a3f2_7c77];
        for (number, output) in (0..).zip(outputs) {
            assert_eq!(draw(1_234_567, number), output);
        }
    }

    #[test]
    fn as_many_are_lost_as_the_threshold_says() {
        let lost = (0..100_000)
            .filter(|&number| is_lost(7, number, u64::MAX / 100))
            .count();
        assert!((900..1_100).contains(&lost), "{lost} of 100,000");
        assert!(!(0..1_000).any(|number| is_lost(7, number, 0)));
    }
}
