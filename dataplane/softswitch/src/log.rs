//! What happened at the switch's queues, event by event, up to a bound.

use dataplane_queue::{DropReason, SimTime};

/// What became of a frame at a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum What {
    /// It waits.
    Queued,
    /// It waits with a mark that it did not have.
    Marked,
    /// Payload was cut off, its own or another's.
    Trimmed,
    /// It, or another that made room for it, was lost.
    Dropped(DropReason),
    /// It goes onto the wire.
    Sent,
}

/// One line of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueEvent {
    /// When, on the switch's clock.
    pub at: SimTime,
    /// At which port.
    pub port: u32,
    /// What.
    pub what: What,
    /// The frame's bytes: of the one that came, or that goes.
    pub frame_bytes: u32,
    /// Which flow it belongs to.
    pub flow_hash: u32,
    /// What waits afterwards.
    pub queue_bytes: u64,
    /// How many wait afterwards.
    pub queue_frames_count: u32,
}

/// The first events, and how many more there were.
#[derive(Clone, Debug, Default)]
pub struct QueueLog {
    events: Vec<QueueEvent>,
    events_max: usize,
    missed_count: u64,
}

impl QueueLog {
    /// All memory is taken now.
    pub(crate) fn new(events_max: usize) -> QueueLog {
        QueueLog {
            events: Vec::with_capacity(events_max),
            events_max,
            missed_count: 0,
        }
    }

    #[inline]
    pub(crate) fn note(&mut self, event: impl FnOnce() -> QueueEvent) {
        if self.events.len() < self.events_max {
            self.events.push(event());
        } else {
            self.missed_count += 1;
        }
    }

    /// In the order in which they happened.
    pub fn events(&self) -> &[QueueEvent] {
        &self.events
    }

    /// Events that came after the log was full.
    pub fn missed_count(&self) -> u64 {
        self.missed_count
    }
}
