//! Seeded randomness: every station, leaf and client has a stream of its own, so that a draw in one place moves no other.

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

/// A stream of random values.
#[derive(Clone, Debug)]
pub struct Random(Pcg64Mcg);

impl Random {
    /// The stream number `stream` of a seed.
    pub fn new(seed: u64, stream: u64) -> Random {
        Random(Pcg64Mcg::seed_from_u64(mix(mix(seed) ^ stream)))
    }

    /// 64 random bits.
    #[inline]
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// From 0 to 1, without 1.
    #[inline]
    pub fn fraction(&mut self) -> f64 {
        // The 53 bits that a double holds.
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// True for `ratio` of all draws.
    #[inline]
    pub fn chance(&mut self, ratio: f64) -> bool {
        self.fraction() < ratio
    }

    /// A whole number below `end`.
    ///
    /// # Panics
    /// If `end` is 0.
    #[inline]
    pub fn below(&mut self, end: usize) -> usize {
        assert!(end > 0, "a number below 0 was asked for");
        // The high half of the product (Lemire, ACM TOMACS 29(1), 2019, without the rejection: a bias below end / 2⁶⁴).
        ((u128::from(self.bits()) * end as u128) >> 64) as usize
    }

    /// An exponential value of this mean.
    #[inline]
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.fraction()).ln()
    }

    /// A standard normal value (Box and Muller, Annals of Mathematical Statistics 29(2), 1958; the second of the pair is
    /// given up, so that a draw takes the same from the stream every time).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.fraction()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.fraction()).cos()
    }
}

/// SplitMix64's next value (Steele, Lea and Flood, OOPSLA 2014, figure 17): a hash of a number, too.
pub fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}
