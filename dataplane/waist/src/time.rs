//! A point in time that does not know where it came from: a real clock or a simulated one.

use core::{
    ops::{Add, Sub},
    time::Duration,
};

/// Nanoseconds since the epoch of whichever [`crate::Clock`] made it. Two clocks' instants are not comparable.
///
/// 64 bits of nanoseconds last 584 years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Instant(u64);

impl Instant {
    /// The clock's epoch.
    pub const ZERO: Instant = Instant(0);

    /// From nanoseconds since the epoch.
    pub const fn from_ns(ns: u64) -> Instant {
        Instant(ns)
    }

    /// Nanoseconds since the epoch.
    pub const fn as_ns(self) -> u64 {
        self.0
    }

    /// Time since `earlier`, or zero if that is later.
    pub const fn saturating_since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;
    /// # Panics
    /// Past the year 2554 of the clock's epoch.
    fn add(self, duration: Duration) -> Instant {
        let ns = u64::try_from(duration.as_nanos()).expect("a duration below 584 years");
        Instant(self.0.checked_add(ns).expect("an instant below 584 years"))
    }
}

impl Sub for Instant {
    type Output = Duration;
    /// # Panics
    /// If `earlier` is later: time ran backwards.
    fn sub(self, earlier: Instant) -> Duration {
        let ns = self.0.checked_sub(earlier.0);
        Duration::from_nanos(ns.unwrap_or_else(|| panic!("{earlier:?} is later than {self:?}")))
    }
}
