//! When a timer fires on a host whose timers know only ticks.

use std::time::Duration;

/// A host's timer resolution.
#[derive(Clone, Copy, Debug)]
pub struct Tick {
    /// 0: exact.
    period_ns: u64,
    phase_ns: u64,
}

impl Tick {
    pub fn new(period: Duration, phase: Duration) -> Tick {
        let period_ns = saturating_ns(period);
        let phase_ns = saturating_ns(phase).checked_rem(period_ns).unwrap_or(0);
        Tick { period_ns, phase_ns }
    }

    /// It is exact.
    pub fn is_exact(self) -> bool {
        self.period_ns == 0
    }

    /// The first tick at or after `at_ns`.
    #[inline]
    pub fn round_up(self, at_ns: u64) -> u64 {
        if self.period_ns == 0 {
            return at_ns;
        }
        if at_ns <= self.phase_ns {
            return self.phase_ns;
        }
        let from_phase_ns = at_ns - self.phase_ns;
        from_phase_ns
            .div_ceil(self.period_ns)
            .saturating_mul(self.period_ns)
            .saturating_add(self.phase_ns)
    }
}

/// A duration's nanoseconds; 584 years if it is longer.
pub fn saturating_ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_fire_at_the_next_tick() {
        let hz_250 = Tick::new(Duration::from_millis(4), Duration::from_millis(1));
        for (at_ms, expected_ms) in [(0, 1), (1, 1), (2, 5), (5, 5), (202, 205)] {
            assert_eq!(
                hz_250.round_up(at_ms * 1_000_000),
                expected_ms * 1_000_000,
                "{at_ms} ms"
            );
        }
        assert_eq!(Tick::new(Duration::ZERO, Duration::ZERO).round_up(7), 7);
    }
}
