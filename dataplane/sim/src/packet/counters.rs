//! What was counted: over the network, and by link.

use std::{iter::Sum, ops::Add};

use dataplane_queue::DropReason;

/// Where a packet ended that did not arrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    /// The queue was at its own bound.
    pub queue_full_count: u64,
    /// The switch's memory was full, or the queue at its share of it.
    pub buffer_full_count: u64,
    /// RED decided so.
    pub early_count: u64,
    /// CoDel decided so.
    pub delay_count: u64,
    /// The queue of headers was full.
    pub header_queue_full_count: u64,
    /// It was of a lossless class, and came beyond the headroom.
    pub headroom_full_count: u64,
    /// The wire lost it.
    pub wire_count: u64,
}

impl Drops {
    pub(crate) fn add(&mut self, why: DropReason) {
        let count = match why {
            DropReason::QueueFull => &mut self.queue_full_count,
            DropReason::BufferFull => &mut self.buffer_full_count,
            DropReason::Early => &mut self.early_count,
            DropReason::Delay => &mut self.delay_count,
            DropReason::HeaderQueueFull => &mut self.header_queue_full_count,
            DropReason::HeadroomFull => &mut self.headroom_full_count,
        };
        *count += 1;
    }

    /// All of them.
    pub fn count(&self) -> u64 {
        let queues = self.queue_full_count + self.buffer_full_count + self.early_count + self.delay_count;
        queues + self.header_queue_full_count + self.headroom_full_count + self.wire_count
    }
}

impl Add for Drops {
    type Output = Drops;
    fn add(self, other: Drops) -> Drops {
        Drops {
            queue_full_count: self.queue_full_count + other.queue_full_count,
            buffer_full_count: self.buffer_full_count + other.buffer_full_count,
            early_count: self.early_count + other.early_count,
            delay_count: self.delay_count + other.delay_count,
            header_queue_full_count: self.header_queue_full_count + other.header_queue_full_count,
            headroom_full_count: self.headroom_full_count + other.headroom_full_count,
            wire_count: self.wire_count + other.wire_count,
        }
    }
}

/// What happened in a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Events that were carried out: a wire became free, a packet arrived, a timer fired. A wire that nobody waits for
    /// makes no event when it becomes free.
    pub events_count: u64,
    /// Of them, timers.
    pub timers_count: u64,
    /// Packets put on a wire: one for each link that a packet takes.
    pub hops_count: u64,
    /// Packets that edges sent.
    pub sent_count: u64,
    /// Packets that edges got; those that came back to their sender among them.
    pub delivered_count: u64,
    /// Packets that came back to their sender.
    pub returned_count: u64,
    /// Packets that ended on the way.
    pub drops: Drops,
    /// Packets that a queue marked when they came. Marks made when they leave are seen by who gets them.
    pub marks_count: u64,
    /// Payloads that a queue cut off.
    pub trims_count: u64,
    /// Pauses that switches asked for, and took back.
    pub pauses_count: u64,
}

impl Counters {
    /// Packets that are under way, if every packet has one end.
    ///
    /// # Panics
    /// If more ended than were sent.
    pub fn in_flight_count(&self) -> u64 {
        let ended = self.delivered_count + self.drops.count();
        let in_flight = self.sent_count.checked_sub(ended);
        in_flight.unwrap_or_else(|| panic!("{} packets ended of {} that were sent", ended, self.sent_count))
    }
}

impl Sum for Counters {
    fn sum<I: Iterator<Item = Counters>>(counters: I) -> Counters {
        counters.fold(Counters::default(), |sum, more| Counters {
            events_count: sum.events_count + more.events_count,
            timers_count: sum.timers_count + more.timers_count,
            hops_count: sum.hops_count + more.hops_count,
            sent_count: sum.sent_count + more.sent_count,
            delivered_count: sum.delivered_count + more.delivered_count,
            returned_count: sum.returned_count + more.returned_count,
            drops: sum.drops + more.drops,
            marks_count: sum.marks_count + more.marks_count,
            trims_count: sum.trims_count + more.trims_count,
            pauses_count: sum.pauses_count + more.pauses_count,
        })
    }
}

/// What happened at a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Packets put on the wire.
    pub tx_packets_count: u64,
    /// Their frames' bytes, without what Ethernet adds.
    pub tx_bytes: u64,
    /// Packets that ended here, in the queue or on the wire.
    pub drops_count: u64,
    /// Packets that were marked when they came.
    pub marks_count: u64,
    /// Payloads cut off.
    pub trims_count: u64,
    /// The most packets that waited. One that goes at once does not wait.
    pub queue_packets_max: u32,
    /// The most bytes that waited.
    pub queue_bytes_max: u64,
}
