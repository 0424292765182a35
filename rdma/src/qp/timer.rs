//! A timer that begins when somebody next looks at the clock.

use std::time::Duration;

use dataplane_waist::Instant;

/// What it does. Asking for it needs no clock: reading one for every packet would cost as much as a packet. It may end as much later as the
/// looks at the clock are apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// Nothing.
    Off,
    /// It runs for so long from the next look at the clock on.
    Asked(Duration),
    /// It runs until then.
    Until(Instant),
}

impl Timer {
    /// Whether it runs, or will.
    pub(super) fn is_on(self) -> bool {
        self != Timer::Off
    }

    /// When it ends, if it has begun.
    pub(super) fn ends_at(self) -> Option<Instant> {
        match self {
            Timer::Until(at) => Some(at),
            Timer::Off | Timer::Asked(_) => None,
        }
    }

    /// A look at the clock: begins it, or ends it. Says whether it has run out, once.
    pub(super) fn has_run_out(&mut self, now: Instant) -> bool {
        match *self {
            Timer::Until(at) if at <= now => {
                *self = Timer::Off;
                true
            }
            Timer::Asked(duration) => {
                *self = Timer::Until(now + duration);
                false
            }
            Timer::Off | Timer::Until(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_with_the_first_look_and_ends_once() {
        let at = |ns| Instant::from_ns(ns);
        let mut timer = Timer::Asked(Duration::from_nanos(10));
        assert!(timer.is_on());
        assert_eq!(timer.ends_at(), None);
        assert!(!timer.has_run_out(at(1000)));
        assert_eq!(timer.ends_at(), Some(at(1010)));
        assert!(!timer.has_run_out(at(1009)));
        assert!(timer.has_run_out(at(1010)));
        assert!(!timer.is_on());
        assert!(!timer.has_run_out(at(2000)));
    }
}
