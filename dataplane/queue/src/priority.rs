//! Strict priority: a packet leaves only when none of a higher priority waits.

use crate::{
    buffer::SharedBuffer,
    drop_tail::{DropTailOptions, Marking},
    fifo::Fifo,
    packet::{DropReason, Enqueued, Queued, mark},
};

/// As many as IEEE 802.1Q has code points.
const LEVELS_COUNT: usize = 8;

#[derive(Clone, Debug)]
pub struct Priority<T> {
    levels: [Fifo<T>; LEVELS_COUNT],
    /// Bit n: something waits at level n.
    waiting: u8,
    packets_count: usize,
    bytes: u64,
    options: DropTailOptions,
}

impl<T: Queued> Priority<T> {
    /// The bound is that of all levels together; marking looks at the packet's own level.
    pub fn new(options: DropTailOptions) -> Priority<T> {
        Priority {
            levels: std::array::from_fn(|_| Fifo::default()),
            waiting: 0,
            packets_count: 0,
            bytes: 0,
            options,
        }
    }

    pub fn enqueue(&mut self, packet: T, pool: &mut SharedBuffer) -> Enqueued<T> {
        let more_bytes = packet.bytes();
        if !self.options.limit.has_room(self.packets_count, self.bytes, more_bytes) {
            let why = DropReason::QueueFull;
            return Enqueued::Dropped { packet, why };
        }
        self.enqueue_beyond(packet, pool)
    }

    /// Whatever the bound is.
    pub fn enqueue_beyond(&mut self, mut packet: T, pool: &mut SharedBuffer) -> Enqueued<T> {
        let more_bytes = packet.bytes();
        if !pool.take(self.bytes, more_bytes) {
            let why = DropReason::BufferFull;
            return Enqueued::Dropped { packet, why };
        }
        let index = usize::from(packet.priority()).min(LEVELS_COUNT - 1);
        let level = &mut self.levels[index];
        let is_marked = match self.options.marking {
            Marking::AtEnqueue(threshold) => threshold.is_exceeded(level.len(), level.bytes()) && mark(&mut packet),
            Marking::Never | Marking::AtDequeue(_) => false,
        };
        level.push(packet);
        self.waiting |= 1 << index;
        self.packets_count += 1;
        self.bytes += u64::from(more_bytes);
        match is_marked {
            true => Enqueued::Marked,
            false => Enqueued::Queued,
        }
    }

    pub fn dequeue(&mut self, pool: &mut SharedBuffer) -> Option<T> {
        self.dequeue_unpaused(0, pool)
    }

    /// The next of the levels whose bit in `paused` is not set.
    pub fn dequeue_unpaused(&mut self, paused: u8, pool: &mut SharedBuffer) -> Option<T> {
        let index = (self.waiting & !paused).checked_ilog2()? as usize;
        let level = &mut self.levels[index];
        let mut packet = level.pop()?;
        if level.is_empty() {
            self.waiting &= !(1 << index);
        }
        if let Marking::AtDequeue(threshold) = self.options.marking
            && threshold.is_exceeded(level.len(), level.bytes())
        {
            mark(&mut packet);
        }
        pool.give_back(packet.bytes());
        self.packets_count -= 1;
        self.bytes -= u64::from(packet.bytes());
        Some(packet)
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn packets_count(&self) -> usize {
        self.packets_count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{limit::Limit, testing::Parcel};

    #[test]
    fn the_highest_leaves_first_and_within_a_level_the_first() {
        let limit = Limit::Packets(8);
        let mut queue = Priority::new(DropTailOptions {
            limit,
            marking: Marking::Never,
        });
        let mut pool = SharedBuffer::default();
        for (number, priority) in [2, 7, 0, 7, 2, 9].into_iter().enumerate() {
            let parcel = Parcel {
                priority,
                ..Parcel::new(number as u64, 100)
            };
            assert_eq!(queue.enqueue(parcel, &mut pool), Enqueued::Queued);
        }
        let order: Vec<u64> = std::iter::from_fn(|| queue.dequeue(&mut pool))
            .map(|parcel| parcel.number)
            .collect();
        // A priority beyond 7 is 7.
        assert_eq!(order, [1, 3, 5, 0, 4, 2]);
        assert_eq!((queue.bytes(), pool.used_bytes()), (0, 0));
    }

    #[test]
    fn a_paused_level_waits_and_the_others_do_not() {
        let limit = Limit::Packets(2);
        let mut queue = Priority::new(DropTailOptions {
            limit,
            marking: Marking::Never,
        });
        let mut pool = SharedBuffer::default();
        let parcel = |number, priority| Parcel {
            priority,
            ..Parcel::new(number, 100)
        };
        // A class that is paused has no bound of packets: who counts what came in bounds it.
        for number in 0..3 {
            assert_eq!(queue.enqueue_beyond(parcel(number, 3), &mut pool), Enqueued::Queued);
        }
        assert!(matches!(
            queue.enqueue(parcel(3, 0), &mut pool),
            Enqueued::Dropped { .. }
        ));
        assert_eq!(queue.enqueue_beyond(parcel(4, 0), &mut pool), Enqueued::Queued);
        let number = |parcel: Option<Parcel>| parcel.map(|parcel| parcel.number);
        assert_eq!(number(queue.dequeue_unpaused(1 << 3, &mut pool)), Some(4));
        assert_eq!(number(queue.dequeue_unpaused(1 << 3, &mut pool)), None);
        assert_eq!(number(queue.dequeue_unpaused(0, &mut pool)), Some(0));
        assert_eq!((queue.packets_count(), queue.bytes()), (2, 200));
    }
}
