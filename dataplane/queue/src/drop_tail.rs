//! The queue of most switches: what does not fit is dropped. With a threshold, it is the queue that DCTCP asks for.

use crate::{
    buffer::SharedBuffer,
    fifo::Fifo,
    limit::Limit,
    packet::{DropReason, Enqueued, Queued, mark},
};

/// Whether and when packets are marked because many wait. Packets of senders that do not react are left alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Marking {
    /// Never.
    #[default]
    Never,
    /// A packet that finds more than the threshold waiting when it comes: DCTCP (SIGCOMM 2010, section 3.1).
    AtEnqueue(Limit),
    /// A packet that leaves more than the threshold behind when it goes: tells the sender earlier, by the time that the
    /// queue takes.
    AtDequeue(Limit),
}

/// First in, first out, up to a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropTailOptions {
    /// How much may wait.
    pub limit: Limit,
    /// Whether packets are marked.
    pub marking: Marking,
}

#[derive(Clone, Debug)]
pub struct DropTail<T> {
    fifo: Fifo<T>,
    options: DropTailOptions,
}

impl<T: Queued> DropTail<T> {
    pub fn new(options: DropTailOptions) -> DropTail<T> {
        DropTail {
            fifo: Fifo::default(),
            options,
        }
    }

    pub fn enqueue(&mut self, packet: T, pool: &mut SharedBuffer) -> Enqueued<T> {
        let (packets_count, bytes, more_bytes) = (self.fifo.len(), self.fifo.bytes(), packet.bytes());
        if !self.options.limit.has_room(packets_count, bytes, more_bytes) {
            let why = DropReason::QueueFull;
            return Enqueued::Dropped { packet, why };
        }
        self.enqueue_beyond(packet, pool)
    }

    /// Whatever the bound is.
    pub fn enqueue_beyond(&mut self, mut packet: T, pool: &mut SharedBuffer) -> Enqueued<T> {
        let (packets_count, bytes, more_bytes) = (self.fifo.len(), self.fifo.bytes(), packet.bytes());
        if !pool.take(bytes, more_bytes) {
            let why = DropReason::BufferFull;
            return Enqueued::Dropped { packet, why };
        }
        let is_marked = match self.options.marking {
            Marking::AtEnqueue(threshold) => threshold.is_exceeded(packets_count, bytes) && mark(&mut packet),
            Marking::Never | Marking::AtDequeue(_) => false,
        };
        self.fifo.push(packet);
        match is_marked {
            true => Enqueued::Marked,
            false => Enqueued::Queued,
        }
    }

    pub fn dequeue(&mut self, pool: &mut SharedBuffer) -> Option<T> {
        let mut packet = self.fifo.pop()?;
        pool.give_back(packet.bytes());
        if let Marking::AtDequeue(threshold) = self.options.marking
            && threshold.is_exceeded(self.fifo.len(), self.fifo.bytes())
        {
            mark(&mut packet);
        }
        Some(packet)
    }

    pub fn bytes(&self) -> u64 {
        self.fifo.bytes()
    }

    pub fn packets_count(&self) -> usize {
        self.fifo.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{packet::Ecn, testing::Parcel};

    fn queue(limit: Limit, marking: Marking) -> DropTail<Parcel> {
        DropTail::new(DropTailOptions { limit, marking })
    }

    fn is_dropped(enqueued: Enqueued<Parcel>, why: DropReason) -> bool {
        matches!(enqueued, Enqueued::Dropped { why: seen, .. } if seen == why)
    }

    #[test]
    fn a_bound_in_packets_counts_packets_and_one_in_bytes_bytes() {
        let mut pool = SharedBuffer::default();
        let mut by_packets = queue(Limit::Packets(2), Marking::Never);
        for number in 0..2 {
            assert_eq!(
                by_packets.enqueue(Parcel::new(number, 9_000), &mut pool),
                Enqueued::Queued
            );
        }
        assert!(is_dropped(
            by_packets.enqueue(Parcel::new(2, 64), &mut pool),
            DropReason::QueueFull
        ));
        let mut by_bytes = queue(Limit::Bytes(3_000), Marking::Never);
        assert_eq!(by_bytes.enqueue(Parcel::new(0, 1_500), &mut pool), Enqueued::Queued);
        assert!(is_dropped(
            by_bytes.enqueue(Parcel::new(1, 1_501), &mut pool),
            DropReason::QueueFull
        ));
        // A smaller one still fits: the queue is no list of who came.
        assert_eq!(by_bytes.enqueue(Parcel::new(2, 1_500), &mut pool), Enqueued::Queued);
    }

    /// "Marked if the queue occupancy is greater than K upon its arrival": with K = 2 the fourth is the first.
    #[test]
    fn marking_at_enqueue_looks_at_what_is_found() {
        let mut pool = SharedBuffer::default();
        let mut queue = queue(Limit::Packets(10), Marking::AtEnqueue(Limit::Packets(2)));
        let marked: Vec<bool> = (0..5)
            .map(|number| queue.enqueue(Parcel::capable(number, 1_500), &mut pool) == Enqueued::Marked)
            .collect();
        assert_eq!(marked, [false, false, false, true, true]);
        assert_eq!(
            queue.enqueue(Parcel::new(5, 1_500), &mut pool),
            Enqueued::Queued,
            "its sender would not react"
        );
        let seen: Vec<Ecn> = std::iter::from_fn(|| queue.dequeue(&mut pool))
            .map(|parcel| parcel.ecn)
            .collect();
        assert_eq!(seen.iter().filter(|ecn| **ecn == Ecn::Experienced).count(), 2);
    }

    /// Of five that wait together, the first two leave more than two behind.
    #[test]
    fn marking_at_dequeue_looks_at_what_is_left() {
        let mut pool = SharedBuffer::default();
        let mut queue = queue(Limit::Packets(10), Marking::AtDequeue(Limit::Bytes(3_000)));
        for number in 0..5 {
            assert_eq!(
                queue.enqueue(Parcel::capable(number, 1_500), &mut pool),
                Enqueued::Queued
            );
        }
        let seen: Vec<Ecn> = std::iter::from_fn(|| queue.dequeue(&mut pool))
            .map(|parcel| parcel.ecn)
            .collect();
        use Ecn::{Capable, Experienced};
        assert_eq!(seen, [Experienced, Experienced, Capable, Capable, Capable]);
    }

    #[test]
    fn the_switchs_memory_may_be_less_than_the_bound() {
        let mut pool = SharedBuffer::new(crate::Sharing::Dynamic {
            memory_bytes: 6_000,
            alpha: 1.0,
        });
        let mut queue = queue(Limit::Packets(100), Marking::Never);
        // At 3,000 of 6,000 bytes the threshold is reached.
        assert_eq!(queue.enqueue(Parcel::new(0, 1_500), &mut pool), Enqueued::Queued);
        assert_eq!(queue.enqueue(Parcel::new(1, 1_500), &mut pool), Enqueued::Queued);
        assert!(is_dropped(
            queue.enqueue(Parcel::new(2, 1_500), &mut pool),
            DropReason::BufferFull
        ));
        while queue.dequeue(&mut pool).is_some() {}
        assert_eq!(pool.used_bytes(), 0);
    }
}
