//! Seeded randomness: each link, disk and host has a stream of its own, so that a fault in one place moves no other.

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

use crate::SimTime;

/// What a stream is for. Part of its seed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    Link = 1,
    Disk = 2,
    Boot = 3,
    Faults = 4,
    Window = 5,
    Wire = 6,
    PacketHost = 7,
    Spray = 8,
    Queue = 9,
}

/// A stream of random values.
#[derive(Clone, Debug)]
pub(crate) struct Random(Pcg64Mcg);

impl Random {
    /// The stream of `purpose` that belongs to `a` and `b`, whatever these are there.
    pub fn new(seed: u64, purpose: Purpose, a: u32, b: u32) -> Random {
        Random(Pcg64Mcg::seed_from_u64(derive(seed, purpose, a, b)))
    }

    pub fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// True for `ratio` of all draws; always for 1, never for 0.
    pub fn chance(&mut self, ratio: f64) -> bool {
        // 53 bits are what a double holds exactly: a uniform value in 0..1, the same on every machine.
        let uniform = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        uniform < ratio
    }

    /// A value from 0 to `max`, both inclusive.
    pub fn up_to(&mut self, max: u64) -> u64 {
        // The high half of the product (Lemire, ACM TOMACS 29(1), 2019, without the rejection: a bias below max / 2⁶⁴).
        ((u128::from(self.next()) * (u128::from(max) + 1)) >> 64) as u64
    }

    /// A span from zero to `max`.
    pub fn span(&mut self, max: SimTime) -> SimTime {
        SimTime::from_ps(self.up_to(max.as_ps()))
    }
}

/// A seed for each purpose and place: SplitMix64's finalizer over their sum (Steele, Lea and Flood, OOPSLA'14, figure 17).
pub(crate) fn derive(seed: u64, purpose: Purpose, a: u32, b: u32) -> u64 {
    let place = u64::from(a) << 32 | u64::from(b);
    mix(mix(mix(seed) ^ place).wrapping_add(purpose as u64))
}

/// SplitMix64's next value.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}
