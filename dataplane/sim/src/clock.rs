//! A host's own clock: begun at another moment than the simulator's, faster or slower, sometimes jumping ahead; never back.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use dataplane_waist::{Clock, Instant};

use crate::SimTime;

const PS_PER_NS: i128 = 1_000;
const MILLION: i128 = 1_000_000;

/// The fastest and slowest clock that can be asked for, in parts per million: Linux disciplines within 500
/// (`MAXFREQ` in include/linux/timex.h); the rest is room for clocks that are broken on purpose.
pub const DRIFT_PPM_MAX: i32 = 500_000;

/// A straight line from the simulator's time to a host's: `local = base_local + (now - base) · (1 + drift)`.
#[derive(Clone, Copy, Debug)]
pub struct HostClock {
    base: SimTime,
    base_local_ps: i128,
    drift_ppm: i32,
}

impl HostClock {
    /// A clock that shows `skew_ns` at the simulator's beginning and gains `drift_ppm` microseconds a second.
    ///
    /// # Panics
    /// If the drift is above [`DRIFT_PPM_MAX`] or below its negative.
    pub fn new(skew_ns: u64, drift_ppm: i32) -> HostClock {
        assert_drift(drift_ppm);
        HostClock {
            base: SimTime::ZERO,
            base_local_ps: i128::from(skew_ns) * PS_PER_NS,
            drift_ppm,
        }
    }

    /// What the clock shows at `now`.
    ///
    /// # Panics
    /// If `now` is before the last change of the clock.
    pub fn local(&self, now: SimTime) -> Instant {
        let ns = divide(self.local_ps(now), PS_PER_NS);
        Instant::from_ns(u64::try_from(ns).unwrap_or(u64::MAX))
    }

    /// The first moment, not before `now`, at which the clock shows `local` or more.
    pub fn when(&self, now: SimTime, local: Instant) -> SimTime {
        let wanted_ps = i128::from(local.as_ns()) * PS_PER_NS;
        let ahead_ps = wanted_ps - self.base_local_ps;
        if ahead_ps <= 0 {
            return now;
        }
        let rate = MILLION + i128::from(self.drift_ppm);
        // Rounded up, so that the clock has got there.
        let span_ps = divide(ahead_ps * MILLION + rate - 1, rate);
        let at_ps = u64::try_from(i128::from(self.base.as_ps()) + span_ps).unwrap_or(u64::MAX);
        SimTime::from_ps(at_ps).max(now)
    }

    /// Goes on from `now` at another speed.
    ///
    /// # Panics
    /// As [`HostClock::new`].
    pub fn set_drift(&mut self, now: SimTime, drift_ppm: i32) {
        assert_drift(drift_ppm);
        self.rebase(now);
        self.drift_ppm = drift_ppm;
    }

    /// Jumps ahead by `ahead_ns`, as a virtual machine's clock after a migration. There is no way back: the kernel's
    /// CLOCK_MONOTONIC does not step either (clock_gettime(2)).
    pub fn jump(&mut self, now: SimTime, ahead_ns: u64) {
        self.rebase(now);
        self.base_local_ps += i128::from(ahead_ns) * PS_PER_NS;
    }

    fn rebase(&mut self, now: SimTime) {
        self.base_local_ps = self.local_ps(now);
        self.base = now;
    }

    fn local_ps(&self, now: SimTime) -> i128 {
        let span_ps = i128::from((now - self.base).as_ps());
        self.base_local_ps + divide(span_ps * (MILLION + i128::from(self.drift_ppm)), MILLION)
    }
}

/// Division, in 64 bits where they suffice, which is always within some seconds: one of 128 bits is a loop in software, and
/// every turn of a host makes several.
fn divide(dividend: i128, divisor: i128) -> i128 {
    match (u64::try_from(dividend), u64::try_from(divisor)) {
        (Ok(dividend), Ok(divisor)) => i128::from(dividend / divisor),
        _ => dividend / divisor,
    }
}

fn assert_drift(drift_ppm: i32) {
    assert!(
        drift_ppm.abs() <= DRIFT_PPM_MAX,
        "a drift of {drift_ppm} ppm; at most {DRIFT_PPM_MAX} either way are simulated"
    );
}

/// A host's clock as its own code reads it: it stands still within a turn. Copies share the time.
#[derive(Clone, Debug, Default)]
pub struct SimClock(Arc<AtomicU64>);

impl SimClock {
    pub(crate) fn set(&self, now: Instant) {
        // One thread runs a simulation; the atomic makes the handle shareable, not the time.
        self.0.store(now.as_ns(), Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Instant {
        Instant::from_ns(self.0.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn drift_is_microseconds_a_second() {
        let second = SimTime::from_ms(1000);
        assert_eq!(HostClock::new(7, 0).local(second).as_ns(), 1_000_000_007);
        assert_eq!(HostClock::new(0, 100).local(second).as_ns(), 1_000_100_000);
        assert_eq!(HostClock::new(0, -100).local(second).as_ns(), 999_900_000);
    }

    #[test]
    fn a_change_of_speed_and_a_jump_begin_where_the_clock_stands() {
        let mut clock = HostClock::new(0, 100);
        let second = SimTime::from_ms(1000);
        clock.set_drift(second, -100);
        assert_eq!(clock.local(second).as_ns(), 1_000_100_000);
        assert_eq!(clock.local(second + second).as_ns(), 2_000_000_000);
        clock.jump(second + second, 5);
        assert_eq!(clock.local(second + second).as_ns(), 2_000_000_005);
    }

    #[test]
    fn a_clock_shows_the_same_in_64_bits_and_beyond() {
        for dividend in [
            0,
            1,
            999,
            1_000,
            i128::from(u64::MAX),
            i128::from(u64::MAX) + 1,
            i128::MAX,
        ] {
            for divisor in [1, 3, MILLION, i128::from(u64::MAX) + 1] {
                assert_eq!(divide(dividend, divisor), dividend / divisor);
            }
        }
        // A hundred days: the product of picoseconds and parts per million is far above 64 bits.
        let days = SimTime::from_ms(100 * 24 * 3_600_000);
        assert_eq!(
            HostClock::new(0, 500).local(days).as_ns(),
            days.as_ns() / 10_000 * 10_005
        );
    }

    proptest! {
        /// `when` is the first moment at which `local` is reached, and time never runs backwards.
        #[test]
        fn when_is_the_first_moment(
            skew_ns in 0u64..1_000_000,
            drift_ppm in -DRIFT_PPM_MAX..=DRIFT_PPM_MAX,
            now_ps in 0u64..1_000_000_000,
            local_ns in 0u64..3_000_000,
            step_ps in 0u64..10_000,
        ) {
            let clock = HostClock::new(skew_ns, drift_ppm);
            let (now, local) = (SimTime::from_ps(now_ps), Instant::from_ns(local_ns));
            let at = clock.when(now, local);
            prop_assert!(at >= now && clock.local(at) >= local);
            if at > now {
                prop_assert!(clock.local(at - SimTime::from_ps(1)) < local);
            }
            prop_assert!(clock.local(now + SimTime::from_ps(step_ps)) >= clock.local(now));
        }
    }
}
