//! Flow queueing with controlled delay (RFC 8290): a queue for each flow, served in turn by bytes, new flows first, and
//! CoDel on each.

use std::collections::VecDeque;

use crate::{
    SimTime,
    buffer::SharedBuffer,
    codel::{CoDelOptions, Law},
    fifo::{Fifo, Stamped},
    packet::{DropReason, Enqueued, Queued},
};

/// FQ-CoDel's parameters, with the RFC's defaults (section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FqCoDelOptions {
    /// Queues that flows are spread over by their hash: 1024.
    pub queues_count: u16,
    /// Packets that all queues may hold together: 10,240.
    pub packets_max: u32,
    /// Bytes that a queue may send before it is the next one's turn: 1,514.
    pub quantum_bytes: u32,
    /// Each queue's CoDel; its limit is not used.
    pub codel: CoDelOptions,
}

impl Default for FqCoDelOptions {
    fn default() -> FqCoDelOptions {
        FqCoDelOptions {
            queues_count: 1_024,
            packets_max: 10_240,
            quantum_bytes: 1_514,
            codel: CoDelOptions::default(),
        }
    }
}

#[derive(Clone, Debug)]
struct Flow<T> {
    fifo: Fifo<Stamped<T>>,
    law: Law,
    credit_bytes: i64,
    is_listed: bool,
}

#[derive(Clone, Debug)]
pub struct FqCoDel<T> {
    flows: Vec<Flow<T>>,
    new: VecDeque<u16>,
    old: VecDeque<u16>,
    packets_count: usize,
    bytes: u64,
    options: FqCoDelOptions,
}

impl<T: Queued> FqCoDel<T> {
    pub fn new(options: FqCoDelOptions) -> FqCoDel<T> {
        let flow = || Flow {
            fifo: Fifo::default(),
            law: Law::default(),
            credit_bytes: 0,
            is_listed: false,
        };
        FqCoDel {
            flows: (0..options.queues_count.max(1)).map(|_| flow()).collect(),
            new: VecDeque::new(),
            old: VecDeque::new(),
            packets_count: 0,
            bytes: 0,
            options,
        }
    }

    /// Section 4.1. When all queues together are too long, the longest loses its head, not the arrival.
    pub fn enqueue(&mut self, now: SimTime, packet: T, pool: &mut SharedBuffer) -> Enqueued<T> {
        if !pool.take(self.bytes, packet.bytes()) {
            let why = DropReason::BufferFull;
            return Enqueued::Dropped { packet, why };
        }
        let index = (packet.flow_hash() as usize % self.flows.len()) as u16;
        let flow = &mut self.flows[usize::from(index)];
        flow.fifo.push(Stamped { packet, at: now });
        self.packets_count += 1;
        self.bytes += u64::from(packet.bytes());
        if !flow.is_listed {
            flow.is_listed = true;
            flow.credit_bytes = i64::from(self.options.quantum_bytes);
            self.new.push_back(index);
        }
        if self.packets_count <= self.options.packets_max as usize {
            return Enqueued::Queued;
        }
        let packet = self.behead_longest(pool);
        let why = DropReason::QueueFull;
        Enqueued::Dropped { packet, why }
    }

    /// Takes the head of the queue with the most bytes. Linear, as in Linux: it happens only where too much waits.
    fn behead_longest(&mut self, pool: &mut SharedBuffer) -> T {
        let longest = self.new.iter().chain(&self.old).copied();
        let longest = longest.max_by_key(|index| self.flows[usize::from(*index)].fifo.bytes());
        let head = longest.and_then(|index| self.flows[usize::from(index)].fifo.pop());
        let Stamped { packet, .. } = head.expect("where too much waits, a listed queue has a packet");
        pool.give_back(packet.bytes());
        self.packets_count -= 1;
        self.bytes -= u64::from(packet.bytes());
        packet
    }

    /// Section 4.2.
    pub fn dequeue(
        &mut self,
        now: SimTime,
        pool: &mut SharedBuffer,
        dropped: &mut impl FnMut(T, DropReason),
    ) -> Option<T> {
        loop {
            let is_new = !self.new.is_empty();
            let list = if is_new { &mut self.new } else { &mut self.old };
            let index = *list.front()?;
            let flow = &mut self.flows[usize::from(index)];
            if flow.credit_bytes <= 0 {
                flow.credit_bytes += i64::from(self.options.quantum_bytes.max(1));
                list.pop_front();
                self.old.push_back(index);
                continue;
            }
            let (mut lost_count, mut lost_bytes) = (0, 0);
            let packet = flow
                .law
                .dequeue(&mut flow.fifo, &self.options.codel, now, pool, &mut |packet, why| {
                    lost_count += 1;
                    lost_bytes += u64::from(packet.bytes());
                    dropped(packet, why);
                });
            self.packets_count -= lost_count;
            self.bytes -= lost_bytes;
            match packet {
                Some(packet) => {
                    flow.credit_bytes -= i64::from(packet.bytes());
                    self.packets_count -= 1;
                    self.bytes -= u64::from(packet.bytes());
                    return Some(packet);
                }
                // A new flow that is empty goes round once with the old, or it would be new again with its next packet.
                None if is_new => {
                    self.new.pop_front();
                    self.old.push_back(index);
                }
                None => {
                    self.old.pop_front();
                    flow.is_listed = false;
                }
            }
        }
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
    use crate::testing::Parcel;

    fn parcel(flow: u32, number: u64, bytes: u32) -> Parcel {
        Parcel {
            flow,
            ..Parcel::new(number, bytes)
        }
    }

    fn drain(queue: &mut FqCoDel<Parcel>, pool: &mut SharedBuffer, packets_count: usize) -> Vec<Parcel> {
        let next = || queue.dequeue(SimTime::ZERO, pool, &mut |_, _| panic!("nothing waits long"));
        std::iter::from_fn(next).take(packets_count).collect()
    }

    /// Flows of large and of small packets get the same bytes, not the same packets.
    #[test]
    fn turns_are_counted_in_bytes() {
        let (mut pool, mut queue) = (SharedBuffer::default(), FqCoDel::new(FqCoDelOptions::default()));
        for number in 0..2_000 {
            queue.enqueue(SimTime::ZERO, parcel(1, number, 1_514), &mut pool);
            queue.enqueue(SimTime::ZERO, parcel(2, number, 200), &mut pool);
        }
        let sent = drain(&mut queue, &mut pool, 1_000);
        let bytes_of = |flow| {
            sent.iter()
                .filter(|parcel| parcel.flow == flow)
                .map(|parcel| i64::from(parcel.bytes))
                .sum::<i64>()
        };
        assert!(
            (bytes_of(1) - bytes_of(2)).abs() <= 2 * 1_514,
            "{} and {} bytes",
            bytes_of(1),
            bytes_of(2)
        );
    }

    /// A sparse flow's packet goes first, once: it joins the old flows afterwards.
    #[test]
    fn a_new_flow_is_served_before_the_old() {
        let (mut pool, mut queue) = (SharedBuffer::default(), FqCoDel::new(FqCoDelOptions::default()));
        for number in 0..10 {
            queue.enqueue(SimTime::ZERO, parcel(1, number, 1_514), &mut pool);
        }
        assert_eq!(drain(&mut queue, &mut pool, 2).len(), 2);
        queue.enqueue(SimTime::ZERO, parcel(2, 0, 100), &mut pool);
        assert_eq!(drain(&mut queue, &mut pool, 1)[0].flow, 2);
        // Its next packet waits for its turn: it was empty, and went to the end of the old flows.
        assert_eq!(drain(&mut queue, &mut pool, 1)[0].flow, 1);
        queue.enqueue(SimTime::ZERO, parcel(2, 1, 100), &mut pool);
        assert_eq!(queue.packets_count(), 8);
        assert!(drain(&mut queue, &mut pool, 2).iter().any(|parcel| parcel.flow == 2));
    }

    /// When all is full, the flow that fills it pays, at its head.
    #[test]
    fn the_longest_queue_loses_its_head() {
        let options = FqCoDelOptions {
            packets_max: 10,
            ..FqCoDelOptions::default()
        };
        let (mut pool, mut queue) = (SharedBuffer::default(), FqCoDel::new(options));
        for number in 0..10 {
            assert_eq!(
                queue.enqueue(SimTime::ZERO, parcel(1, number, 1_000), &mut pool),
                Enqueued::Queued
            );
        }
        let enqueued = queue.enqueue(SimTime::ZERO, parcel(2, 0, 1_000), &mut pool);
        let why = DropReason::QueueFull;
        assert_eq!(
            enqueued,
            Enqueued::Dropped {
                packet: parcel(1, 0, 1_000),
                why
            }
        );
        assert_eq!(
            (queue.packets_count(), queue.bytes(), pool.used_bytes()),
            (10, 10_000, 10_000)
        );
    }
}
