//! Where time comes from.

use std::{sync::Arc, time};

use crate::Instant;

/// A source of time. The simulator has one of its own.
pub trait Clock {
    /// Now. Never earlier than the last answer.
    fn now(&self) -> Instant;
}

/// The kernel's CLOCK_MONOTONIC, counted from the clock's creation.
///
/// Copies share the epoch, so a client's threads can compare their instants.
#[derive(Clone, Copy, Debug)]
pub struct MonotonicClock {
    epoch: time::Instant,
}

impl MonotonicClock {
    /// A clock whose epoch is now.
    #[expect(
        clippy::new_without_default,
        reason = "a default suggests that two clocks are equal; their epochs differ"
    )]
    pub fn new() -> MonotonicClock {
        MonotonicClock {
            epoch: time::Instant::now(),
        }
    }
}

impl Clock for MonotonicClock {
    fn now(&self) -> Instant {
        Instant::from_ns(self.epoch.elapsed().as_nanos() as u64)
    }
}

impl<C: Clock + ?Sized> Clock for &C {
    fn now(&self) -> Instant {
        (**self).now()
    }
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Instant {
        (**self).now()
    }
}
