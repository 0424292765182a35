//! Which clock a stamp was read from, and how one is told in the other's time.
//!
//! | stamp | clock |
//! |---|---|
//! | SO_TIMESTAMPING, software | CLOCK_REALTIME |
//! | SO_TIMESTAMPING, hardware | the NIC's own (PHC) |
//! | completion of an AF_XDP frame, in copy mode | CLOCK_TAI |
//! | `bpf_ktime_get_ns` in an XDP program | CLOCK_MONOTONIC |
//! | [`monotonic_ns`], [`std::time::Instant`] | CLOCK_MONOTONIC |
//!
//! CLOCK_REALTIME and CLOCK_MONOTONIC tick together: whatever adjusts the rate of one adjusts the other's, and the
//! difference between them changes only when the wall clock is *set* or the machine was suspended (`tk_set_wall_to_mono`
//! in kernel/time/timekeeping.c). CLOCK_TAI is CLOCK_REALTIME without leap seconds: whole seconds ahead of it, or level with
//! it where nobody has told the kernel how many, and changed by whoever sets either. So one difference, measured once, converts every stamp of a run; and if it is found
//! changed after the run, the clock was stepped meanwhile and the run's stamps mean nothing.

use std::io;

use nix::time::{ClockId, clock_gettime};

/// The clock that a stamp was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StampClock {
    /// CLOCK_REALTIME: nanoseconds since 1970, stepped when somebody sets the time.
    Realtime,
    /// CLOCK_TAI: CLOCK_REALTIME without leap seconds, and stepped with it.
    Tai,
    /// CLOCK_MONOTONIC: nanoseconds since the machine's start, never stepped.
    Monotonic,
    /// The NIC's own clock (PHC), which ticks and drifts by itself.
    Hardware,
}

impl StampClock {
    /// As the kernel's documentation calls it.
    pub fn name(self) -> &'static str {
        match self {
            StampClock::Realtime => "CLOCK_REALTIME",
            StampClock::Tai => "CLOCK_TAI",
            StampClock::Monotonic => "CLOCK_MONOTONIC",
            StampClock::Hardware => "PHC",
        }
    }
}

/// A point in time, on a named clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Nanoseconds of `clock`.
    pub at_ns: u64,
    /// Which clock.
    pub clock: StampClock,
}

/// CLOCK_MONOTONIC now: the clock of XDP's `bpf_ktime_get_ns`, counted from the machine's start.
///
/// # Panics
/// Never on Linux, which has had the clock since 2.6.
pub fn monotonic_ns() -> u64 {
    read_ns(ClockId::CLOCK_MONOTONIC)
}

/// CLOCK_REALTIME now: the clock of software stamps.
///
/// # Panics
/// As [`monotonic_ns`].
pub fn realtime_ns() -> u64 {
    read_ns(ClockId::CLOCK_REALTIME)
}

fn read_ns(clock: ClockId) -> u64 {
    let time = clock_gettime(clock).expect("Linux has these clocks");
    // Before 1970, which only a wall clock set wrongly can say: no time at all.
    time.tv_sec().max(0) as u64 * 1_000_000_000 + time.tv_nsec() as u64
}

/// A clock that ticks together with CLOCK_MONOTONIC, and is ahead of it by an offset that can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WallClock {
    /// CLOCK_REALTIME.
    Realtime,
    /// CLOCK_TAI.
    Tai,
}

impl WallClock {
    /// The clock of stamps that are read from it.
    pub fn of_stamps(self) -> StampClock {
        match self {
            WallClock::Realtime => StampClock::Realtime,
            WallClock::Tai => StampClock::Tai,
        }
    }

    fn now_ns(self) -> u64 {
        match self {
            WallClock::Realtime => realtime_ns(),
            WallClock::Tai => read_ns(ClockId::CLOCK_TAI),
        }
    }
}

/// One reading of a wall clock between two of CLOCK_MONOTONIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// CLOCK_MONOTONIC before.
    pub before_ns: u64,
    /// The wall clock between.
    pub wall_ns: u64,
    /// CLOCK_MONOTONIC after.
    pub after_ns: u64,
}

impl Reading {
    fn now(wall: WallClock) -> Reading {
        Reading {
            before_ns: monotonic_ns(),
            wall_ns: wall.now_ns(),
            after_ns: monotonic_ns(),
        }
    }

    /// The least and the most that the wall clock can be ahead, given this reading. Each clock rounds to a nanosecond.
    fn bounds_ns(self) -> (i64, i64) {
        let ahead_of = |monotonic_ns: u64| self.wall_ns.wrapping_sub(monotonic_ns) as i64;
        (ahead_of(self.after_ns) - 1, ahead_of(self.before_ns) + 1)
    }
}

/// How far a wall clock is ahead of CLOCK_MONOTONIC, and how exactly that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockOffset {
    /// Which wall clock.
    pub wall: WallClock,
    /// Nanoseconds that it is ahead.
    pub ahead_ns: i64,
    /// The truth is at most so far from that, in nanoseconds: half the tightest bracket.
    pub error_ns: u64,
}

/// The wall clock was set while it was being read, again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the wall clock stepped by {step_ns} ns against CLOCK_MONOTONIC while the two were compared; stamps of the two cannot be \
     put in one order; stop what sets the clock in steps (chronyc, ntpdate, a hypervisor's tools)"
)]
pub struct Stepped {
    /// By how much, at least.
    pub step_ns: i64,
}

impl ClockOffset {
    /// Readings of which the tightest is taken. One in a hundred is interrupted; 32 leave no doubt.
    const READINGS_COUNT: usize = 32;
    /// A clock that is set once is still for the next readings.
    const ATTEMPTS_COUNT: usize = 3;

    /// Measures it for `wall`.
    ///
    /// # Errors
    /// [`Stepped`] when the wall clock is set faster than it can be read.
    pub fn measure(wall: WallClock) -> Result<ClockOffset, Stepped> {
        let mut last = Err(Stepped { step_ns: 0 });
        for _ in 0..Self::ATTEMPTS_COUNT {
            let readings: [Reading; Self::READINGS_COUNT] = std::array::from_fn(|_| Reading::now(wall));
            last = ClockOffset::from_readings(wall, &readings);
            if last.is_ok() {
                break;
            }
        }
        last
    }

    /// The tightest of `readings` of `wall`, if all the others agree with it.
    ///
    /// # Errors
    /// [`Stepped`]: one of them cannot be true together with it.
    ///
    /// # Panics
    /// Without a reading.
    pub fn from_readings(wall: WallClock, readings: &[Reading]) -> Result<ClockOffset, Stepped> {
        let width = |reading: &&Reading| reading.after_ns.saturating_sub(reading.before_ns);
        let tightest = readings.iter().min_by_key(width).expect("at least one reading");
        let (low_ns, high_ns) = tightest.bounds_ns();
        for reading in readings {
            let (other_low_ns, other_high_ns) = reading.bounds_ns();
            if other_low_ns > high_ns {
                return Err(Stepped {
                    step_ns: other_low_ns - high_ns,
                });
            }
            if other_high_ns < low_ns {
                return Err(Stepped {
                    step_ns: other_high_ns - low_ns,
                });
            }
        }
        let width_ns = high_ns.abs_diff(low_ns);
        Ok(ClockOffset {
            wall,
            ahead_ns: low_ns + (width_ns / 2) as i64,
            error_ns: width_ns.div_ceil(2),
        })
    }

    /// A stamp in the time of CLOCK_MONOTONIC, off by at most [`ClockOffset::error_ns`]; `None` for a clock that this offset
    /// says nothing about, and for a stamp from before the machine's start.
    pub fn monotonic_ns(&self, stamp: Stamp) -> Option<u64> {
        if stamp.clock == StampClock::Monotonic {
            return Some(stamp.at_ns);
        }
        let at_ns = i128::from(stamp.at_ns) - i128::from(self.ahead_ns);
        u64::try_from(at_ns)
            .ok()
            .filter(|_| stamp.clock == self.wall.of_stamps())
    }

    /// By how much the wall clock was stepped between `earlier` and this, at least; `None` if both can be true together.
    pub fn step_since(&self, earlier: &ClockOffset) -> Option<i64> {
        let moved_ns = self.ahead_ns - earlier.ahead_ns;
        let doubt_ns = self.error_ns + earlier.error_ns;
        (moved_ns.unsigned_abs() > doubt_ns).then_some(moved_ns)
    }
}

impl From<Stepped> for io::Error {
    fn from(stepped: Stepped) -> io::Error {
        io::Error::other(stepped)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reading(before_ns: u64, took_ns: u64, at_ns: u64, ahead_ns: u64) -> Reading {
        Reading {
            before_ns,
            wall_ns: before_ns + at_ns + ahead_ns,
            after_ns: before_ns + took_ns,
        }
    }

    proptest! {
        #[test]
        fn the_truth_is_within_the_error(
            ahead_ns in 0u64..2_000_000_000_000_000_000,
            takes in prop::collection::vec((1u64..100_000, 0.0f64..=1.0), 1..40),
        ) {
            let readings: Vec<Reading> = takes
                .iter()
                .map(|(took_ns, at)| reading(1_000_000, *took_ns, (*took_ns as f64 * at) as u64, ahead_ns))
                .collect();
            let offset = ClockOffset::from_readings(WallClock::Realtime, &readings).expect("nobody set the clock");
            prop_assert!(offset.ahead_ns.abs_diff(ahead_ns as i64) <= offset.error_ns, "{:?}", offset);
            let tightest_ns = takes.iter().map(|(took_ns, _)| *took_ns).min().expect("at least one");
            prop_assert!(offset.error_ns <= tightest_ns / 2 + 2);
        }

        #[test]
        fn any_readings_are_an_offset_or_a_step(numbers in prop::collection::vec(any::<[u64; 3]>(), 1..10)) {
            let readings: Vec<Reading> = numbers
                .iter()
                .map(|[before_ns, wall_ns, after_ns]| Reading {
                    before_ns: before_ns >> 2,
                    wall_ns: wall_ns >> 2,
                    after_ns: after_ns >> 2,
                })
                .collect();
            let _ = ClockOffset::from_readings(WallClock::Realtime, &readings);
        }
    }

    #[test]
    fn a_step_while_reading_is_seen_with_its_sign() {
        let stepped = |by_ns: i64| {
            let later = reading(2_000, 50, 25, (1_000_000_i64 + by_ns) as u64);
            ClockOffset::from_readings(WallClock::Realtime, &[reading(1_000, 40, 20, 1_000_000), later])
        };
        assert!(stepped(40).is_ok(), "both can be true");
        let Err(Stepped { step_ns }) = stepped(500_000) else {
            panic!("half a millisecond is a step")
        };
        assert!((499_900..=500_000).contains(&step_ns), "{step_ns}");
        let Err(Stepped { step_ns }) = stepped(-500_000) else {
            panic!("backwards, too")
        };
        assert!(step_ns < 0, "{step_ns}");
    }

    #[test]
    fn a_step_between_two_measurements_is_seen() {
        let at = |ahead_ns, error_ns| ClockOffset {
            wall: WallClock::Realtime,
            ahead_ns,
            error_ns,
        };
        assert_eq!(at(1_000, 30).step_since(&at(1_050, 30)), None);
        assert_eq!(at(2_000, 30).step_since(&at(1_050, 30)), Some(950));
        assert_eq!(at(0, 30).step_since(&at(1_050, 30)), Some(-1_050));
    }

    #[test]
    fn each_clock_is_converted_or_refused() {
        let stamp = |at_ns, clock| Stamp { at_ns, clock };
        for (wall, own, other) in [
            (WallClock::Realtime, StampClock::Realtime, StampClock::Tai),
            (WallClock::Tai, StampClock::Tai, StampClock::Realtime),
        ] {
            let offset = ClockOffset {
                wall,
                ahead_ns: 1_000,
                error_ns: 1,
            };
            assert_eq!(offset.monotonic_ns(stamp(1_500, own)), Some(500));
            assert_eq!(offset.monotonic_ns(stamp(999, own)), None);
            assert_eq!(offset.monotonic_ns(stamp(1_500, other)), None);
            assert_eq!(offset.monotonic_ns(stamp(1_500, StampClock::Hardware)), None);
            assert_eq!(offset.monotonic_ns(stamp(999, StampClock::Monotonic)), Some(999));
        }
    }

    #[test]
    fn this_machine_s_clocks_can_be_compared() {
        for wall in [WallClock::Realtime, WallClock::Tai] {
            let first = ClockOffset::measure(wall).expect("nobody sets this machine's clock all the time");
            let now = Stamp {
                at_ns: wall.now_ns(),
                clock: wall.of_stamps(),
            };
            let (before_ns, converted_ns) = (monotonic_ns(), first.monotonic_ns(now).expect("a wall-clock time"));
            assert!(
                converted_ns <= before_ns + first.error_ns,
                "{wall:?}: {converted_ns} above {before_ns}"
            );
        }
    }
}
