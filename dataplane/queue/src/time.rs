//! Virtual time in picoseconds: a byte at 100 Gbit/s takes 80 of them, so no link rounds its bytes away.

use std::{
    fmt,
    ops::{Add, AddAssign, Sub},
};

const PS_PER_NS: u64 = 1_000;

/// A point in virtual time, or a span of it, in picoseconds. The first point is zero; 64 bits last 213 days.
///
/// In the simulator it is a time that no host sees: hosts have clocks of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SimTime(u64);

impl SimTime {
    /// The beginning; no time at all.
    pub const ZERO: SimTime = SimTime(0);
    /// Later than everything that happens.
    pub const FOREVER: SimTime = SimTime(u64::MAX);

    /// From picoseconds.
    pub const fn from_ps(ps: u64) -> SimTime {
        SimTime(ps)
    }

    /// From nanoseconds; [`SimTime::FOREVER`] if that is too much.
    pub const fn from_ns(ns: u64) -> SimTime {
        SimTime(ns.saturating_mul(PS_PER_NS))
    }

    /// From microseconds; [`SimTime::FOREVER`] if that is too much.
    pub const fn from_us(us: u64) -> SimTime {
        SimTime(us.saturating_mul(1_000 * PS_PER_NS))
    }

    /// From milliseconds; [`SimTime::FOREVER`] if that is too much.
    pub const fn from_ms(ms: u64) -> SimTime {
        SimTime(ms.saturating_mul(1_000_000 * PS_PER_NS))
    }

    /// In picoseconds.
    pub const fn as_ps(self) -> u64 {
        self.0
    }

    /// In whole nanoseconds, rounded down.
    pub const fn as_ns(self) -> u64 {
        self.0 / PS_PER_NS
    }

    /// The time from `earlier`, or zero if that is later.
    pub const fn saturating_since(self, earlier: SimTime) -> SimTime {
        SimTime(self.0.saturating_sub(earlier.0))
    }
}

impl Add for SimTime {
    type Output = SimTime;
    /// Saturates: what lies behind the end of time is [`SimTime::FOREVER`].
    fn add(self, span: SimTime) -> SimTime {
        SimTime(self.0.saturating_add(span.0))
    }
}

impl AddAssign for SimTime {
    fn add_assign(&mut self, span: SimTime) {
        *self = *self + span;
    }
}

impl Sub for SimTime {
    type Output = SimTime;
    /// # Panics
    /// If `earlier` is later: time ran backwards.
    fn sub(self, earlier: SimTime) -> SimTime {
        let ps = self.0.checked_sub(earlier.0);
        SimTime(ps.unwrap_or_else(|| panic!("{earlier} is later than {self}")))
    }
}

/// In picoseconds, exactly; [`SimTime::FOREVER`] is "forever".
impl fmt::Display for SimTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            SimTime::FOREVER => f.write_str("forever"),
            SimTime(ps) => write!(f, "{ps}ps"),
        }
    }
}
