//! One queue, whatever its discipline: a scenario chooses at run time, and the branch is always the same at a port.

use crate::{
    SimTime,
    buffer::SharedBuffer,
    drop_tail::{DropTail, DropTailOptions},
    packet::{DropReason, Enqueued, Queued},
};

/// What a port does with packets that cannot leave at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Discipline {
    /// First in, first out, up to a bound; packets may be marked at a threshold.
    DropTail(DropTailOptions),
}

/// Packets that wait at a port.
#[derive(Clone, Debug)]
pub struct Queue<T> {
    kind: Kind<T>,
}

#[derive(Clone, Debug)]
enum Kind<T> {
    DropTail(DropTail<T>),
}

impl<T: Queued> Queue<T> {
    /// An empty queue.
    pub fn new(discipline: &Discipline) -> Queue<T> {
        let kind = match *discipline {
            Discipline::DropTail(options) => Kind::DropTail(DropTail::new(options)),
        };
        Queue { kind }
    }

    /// A packet arrives. `pool` is the memory of the switch that the port belongs to.
    pub fn enqueue(&mut self, _now: SimTime, packet: T, pool: &mut SharedBuffer) -> Enqueued<T> {
        match &mut self.kind {
            Kind::DropTail(queue) => queue.enqueue(packet, pool),
        }
    }

    /// The wire is free: the packet that leaves. `dropped` hears of packets that are lost only now.
    pub fn dequeue(
        &mut self,
        _now: SimTime,
        pool: &mut SharedBuffer,
        _dropped: &mut impl FnMut(T, DropReason),
    ) -> Option<T> {
        match &mut self.kind {
            Kind::DropTail(queue) => queue.dequeue(pool),
        }
    }

    /// What waits, in bytes.
    pub fn bytes(&self) -> u64 {
        match &self.kind {
            Kind::DropTail(queue) => queue.bytes(),
        }
    }

    /// How many packets wait.
    pub fn packets_count(&self) -> usize {
        match &self.kind {
            Kind::DropTail(queue) => queue.packets_count(),
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.packets_count() == 0
    }
}
