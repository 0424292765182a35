//! What happens next: at most one entry for each place, the earliest first; at the same time, the lower place first.

use std::{cmp::Reverse, collections::BinaryHeap};

use dataplane_queue::SimTime;

/// Something of a port that happens at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// The host's card begins to send the next frame.
    Card(u32),
    /// A frame reaches the switch.
    Arrival(u32),
    /// The switch's port begins to send the next frame.
    Port(u32),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Events {
    heap: BinaryHeap<Reverse<(SimTime, Place)>>,
}

impl Events {
    pub fn plan(&mut self, at: SimTime, place: Place) {
        self.heap.push(Reverse((at, place)));
    }

    /// The earliest, if it is not later than `now`.
    pub fn next_until(&mut self, now: SimTime) -> Option<(SimTime, Place)> {
        let Reverse((at, _)) = self.heap.peek()?;
        if *at > now {
            return None;
        }
        self.heap.pop().map(|Reverse(event)| event)
    }

    pub fn next_at(&self) -> Option<SimTime> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }
}
