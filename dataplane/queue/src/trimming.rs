//! Packet trimming: when data does not fit its payload is cut off, and the header hurries to the receiver, which so learns of
//! every loss. Handley et al., Re-architecting datacenter networks and stacks for low latency and high performance (NDP),
//! SIGCOMM 2017, section 3.1.

use crate::{
    buffer::SharedBuffer,
    fifo::Fifo,
    limit::Limit,
    packet::{DropReason, Enqueued, Queued},
    random::Random,
};

/// A trimming port's parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrimmingOptions {
    /// How much data may wait: 8 packets in the paper.
    pub data: Limit,
    /// How many headers, acknowledgements and pulls may wait: as many bytes as data in the paper. What does not fit is lost,
    /// and a switch may return it to its sender.
    pub headers: Limit,
    /// Headers that leave for each packet of data while both wait: 10 in the paper, so that neither starves.
    pub headers_per_data: u32,
}

#[derive(Clone, Debug)]
pub struct Trimming<T> {
    data: Fifo<T>,
    headers: Fifo<T>,
    /// Headers that left since the last data.
    headers_since_count: u32,
    options: TrimmingOptions,
    random: Random,
}

impl<T: Queued> Trimming<T> {
    pub fn new(options: TrimmingOptions, seed: u64) -> Trimming<T> {
        Trimming {
            data: Fifo::default(),
            headers: Fifo::default(),
            headers_since_count: 0,
            options,
            random: Random::new(seed),
        }
    }

    pub fn enqueue(&mut self, packet: T, pool: &mut SharedBuffer) -> Enqueued<T> {
        if packet.is_header() {
            return self.enqueue_header(packet, pool, Enqueued::Queued);
        }
        let (bytes, more_bytes) = (self.data.bytes(), packet.bytes());
        if self.options.data.has_room(self.data.len(), bytes, more_bytes) && pool.take(bytes, more_bytes) {
            self.data.push(packet);
            return Enqueued::Queued;
        }
        // Always trimming the arrival would let phase effects pick the same sender again and again: half of the time it is
        // the last in the queue instead, if its place is large enough.
        if self.random.next() & 1 == 1
            && let Some(mut last) = self.data.pop_last()
        {
            let last_bytes = last.bytes();
            if last_bytes >= more_bytes && last.trim() {
                pool.exchange(last_bytes, more_bytes);
                self.data.push(packet);
                return self.enqueue_header(last, pool, Enqueued::Trimmed);
            }
            self.data.push(last);
        }
        self.trim(packet, pool)
    }

    fn trim(&mut self, mut packet: T, pool: &mut SharedBuffer) -> Enqueued<T> {
        match packet.trim() {
            true => self.enqueue_header(packet, pool, Enqueued::Trimmed),
            false => {
                let why = DropReason::QueueFull;
                Enqueued::Dropped { packet, why }
            }
        }
    }

    fn enqueue_header(&mut self, packet: T, pool: &mut SharedBuffer, enqueued: Enqueued<T>) -> Enqueued<T> {
        let (bytes, more_bytes) = (self.headers.bytes(), packet.bytes());
        if !self.options.headers.has_room(self.headers.len(), bytes, more_bytes) {
            let why = DropReason::HeaderQueueFull;
            return Enqueued::Dropped { packet, why };
        }
        if !pool.take(bytes, more_bytes) {
            let why = DropReason::BufferFull;
            return Enqueued::Dropped { packet, why };
        }
        self.headers.push(packet);
        enqueued
    }

    pub fn dequeue(&mut self, pool: &mut SharedBuffer) -> Option<T> {
        let takes_header = !self.headers.is_empty()
            && (self.data.is_empty() || self.headers_since_count < self.options.headers_per_data);
        let packet = match takes_header {
            true => {
                self.headers_since_count = self.headers_since_count.saturating_add(1);
                self.headers.pop()
            }
            false => {
                self.headers_since_count = 0;
                self.data.pop()
            }
        }?;
        pool.give_back(packet.bytes());
        Some(packet)
    }

    pub fn bytes(&self) -> u64 {
        self.data.bytes() + self.headers.bytes()
    }

    pub fn packets_count(&self) -> usize {
        self.data.len() + self.headers.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{HEADER_BYTES, Parcel};

    fn queue() -> Trimming<Parcel> {
        let options = TrimmingOptions {
            data: Limit::Packets(8),
            headers: Limit::Bytes(8 * 9_000),
            headers_per_data: 10,
        };
        Trimming::new(options, 3)
    }

    #[test]
    fn what_does_not_fit_leaves_its_payload_and_hurries() {
        let (mut pool, mut queue) = (SharedBuffer::default(), queue());
        let count = |outcome: Enqueued<Parcel>| u32::from(outcome == Enqueued::Trimmed);
        let trimmed: u32 = (0..1_000)
            .map(|number| count(queue.enqueue(Parcel::new(number, 9_000), &mut pool)))
            .sum();
        assert_eq!(trimmed, 992);
        assert_eq!(pool.used_bytes(), 8 * 9_000 + 992 * u64::from(HEADER_BYTES));
        let sent: Vec<Parcel> = std::iter::from_fn(|| queue.dequeue(&mut pool)).collect();
        assert_eq!(sent.len(), 1_000);
        // Ten headers, then a packet of data, while there is any.
        let data_at: Vec<usize> = (0..sent.len()).filter(|index| !sent[*index].is_header).collect();
        assert_eq!(data_at, [10, 21, 32, 43, 54, 65, 76, 87]);
        // Half of the time the last that waited was trimmed, so one that came late has kept its payload.
        assert!(data_at.iter().any(|index| sent[*index].number > 8));
        assert_eq!(pool.used_bytes(), 0);
    }

    #[test]
    fn headers_beyond_their_memory_are_lost() {
        let (mut pool, mut queue) = (SharedBuffer::default(), queue());
        let fit_count = 8 * 9_000 / u64::from(HEADER_BYTES);
        for number in 0..fit_count {
            assert_eq!(
                queue.enqueue(Parcel::new(number, HEADER_BYTES), &mut pool),
                Enqueued::Queued
            );
        }
        let outcome = queue.enqueue(Parcel::new(fit_count, HEADER_BYTES), &mut pool);
        assert!(matches!(
            outcome,
            Enqueued::Dropped {
                why: DropReason::HeaderQueueFull,
                ..
            }
        ));
        assert_eq!(
            queue.enqueue(Parcel::new(0, 9_000), &mut pool),
            Enqueued::Queued,
            "data has its own room"
        );
    }
}
