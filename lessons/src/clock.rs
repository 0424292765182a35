//! A clock for lesson 1: time that passes only when somebody looks, with stalls at moments that are known beforehand.

use std::cell::Cell;

use dataplane_waist::{Clock, Instant};

/// A pause of the whole machine: another guest ran, or an interrupt took long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    /// It begins at the first reading at or after this.
    pub at_ns: u64,
    /// How much time is gone at that reading.
    pub length_ns: u64,
}

/// Each reading takes `reading_ns`, and the first one after a pause's beginning takes the pause as well.
#[derive(Debug)]
pub struct PausingClock<'a> {
    reading_ns: u64,
    pauses: &'a [Pause],
    now_ns: Cell<u64>,
    passed_count: Cell<usize>,
}

impl PausingClock<'_> {
    /// A clock at zero; `pauses` in the order of their beginnings.
    pub fn new(reading_ns: u64, pauses: &[Pause]) -> PausingClock<'_> {
        PausingClock {
            reading_ns,
            pauses,
            now_ns: Cell::new(0),
            passed_count: Cell::new(0),
        }
    }
}

impl Clock for PausingClock<'_> {
    fn now(&self) -> Instant {
        let mut now_ns = self.now_ns.get() + self.reading_ns;
        if let Some(pause) = self.pauses.get(self.passed_count.get())
            && pause.at_ns <= now_ns
        {
            now_ns += pause.length_ns;
            self.passed_count.set(self.passed_count.get() + 1);
        }
        self.now_ns.set(now_ns);
        Instant::from_ns(now_ns)
    }
}
