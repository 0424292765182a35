//! How long something takes: a floor, a spread, and now and then much longer.

use crate::{SimTime, random::Random};

/// A distribution of delays: `min`, plus a uniform share of `spread`, plus, for `tail_ratio` of all draws, a uniform
/// share of `tail`.
///
/// Made of integers and one comparison, so that it is the same on every machine (a logarithm is not).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Latency {
    /// The least.
    pub min: SimTime,
    /// The most that is added every time.
    pub spread: SimTime,
    /// How often it takes much longer, 0 to 1.
    pub tail_ratio: f64,
    /// The most that is added then.
    pub tail: SimTime,
}

impl Latency {
    /// Always the same.
    pub const fn fixed(min: SimTime) -> Latency {
        Latency {
            min,
            spread: SimTime::ZERO,
            tail_ratio: 0.0,
            tail: SimTime::ZERO,
        }
    }

    /// From `min` to `min + spread`.
    pub const fn uniform(min: SimTime, spread: SimTime) -> Latency {
        Latency {
            min,
            spread,
            tail_ratio: 0.0,
            tail: SimTime::ZERO,
        }
    }

    /// One delay. Always three random values, whatever the distribution, so that changing it moves nothing else.
    pub(crate) fn draw(&self, random: &mut Random) -> SimTime {
        let spread = random.span(self.spread);
        let is_late = random.chance(self.tail_ratio);
        let tail = random.span(self.tail);
        let late = if is_late { tail } else { SimTime::ZERO };
        self.min + spread + late
    }
}
