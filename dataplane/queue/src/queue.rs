//! One queue, whatever its discipline: a scenario chooses at run time, and the branch is always the same at a port.

use crate::{
    SimTime,
    buffer::SharedBuffer,
    codel::{CoDel, CoDelOptions},
    drop_tail::{DropTail, DropTailOptions},
    fq_codel::{FqCoDel, FqCoDelOptions},
    packet::{DropReason, Enqueued, Queued},
    priority::Priority,
    red::{Red, RedOptions},
    trimming::{Trimming, TrimmingOptions},
};

/// What a port does with packets that cannot leave at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Discipline {
    /// First in, first out, up to a bound; packets may be marked at a threshold.
    DropTail(DropTailOptions),
    /// Random early detection.
    Red(RedOptions),
    /// Controlled delay, RFC 8289.
    CoDel(CoDelOptions),
    /// A queue for each flow, and CoDel on each, RFC 8290.
    FqCoDel(FqCoDelOptions),
    /// The highest priority first. The bound is that of all priorities together.
    Priority(DropTailOptions),
    /// Payloads are cut off instead of packets dropped, and headers go first: NDP.
    Trimming(TrimmingOptions),
}

/// Packets that wait at a port.
#[derive(Clone, Debug)]
pub struct Queue<T> {
    kind: Kind<T>,
}

/// The usual ones stand in place, the large ones behind a pointer: a topology has many ports, and most are of one kind.
#[derive(Clone, Debug)]
enum Kind<T> {
    DropTail(DropTail<T>),
    Trimming(Trimming<T>),
    Red(Box<Red<T>>),
    CoDel(Box<CoDel<T>>),
    FqCoDel(Box<FqCoDel<T>>),
    Priority(Box<Priority<T>>),
}

/// Calls the same method on whichever it is.
macro_rules! each {
    ($kind:expr, $queue:ident => $call:expr) => {
        match $kind {
            Kind::DropTail($queue) => $call,
            Kind::Trimming($queue) => $call,
            Kind::Red($queue) => $call,
            Kind::CoDel($queue) => $call,
            Kind::FqCoDel($queue) => $call,
            Kind::Priority($queue) => $call,
        }
    };
}

impl<T: Queued> Queue<T> {
    /// An empty queue. What it leaves to chance follows from `seed`, which should be another for each queue.
    pub fn new(discipline: &Discipline, seed: u64) -> Queue<T> {
        let kind = match *discipline {
            Discipline::DropTail(options) => Kind::DropTail(DropTail::new(options)),
            Discipline::Trimming(options) => Kind::Trimming(Trimming::new(options, seed)),
            Discipline::Red(options) => Kind::Red(Box::new(Red::new(options, seed))),
            Discipline::CoDel(options) => Kind::CoDel(Box::new(CoDel::new(options))),
            Discipline::FqCoDel(options) => Kind::FqCoDel(Box::new(FqCoDel::new(options))),
            Discipline::Priority(options) => Kind::Priority(Box::new(Priority::new(options))),
        };
        Queue { kind }
    }

    /// A packet arrives. `pool` is the memory of the switch that the port belongs to.
    pub fn enqueue(&mut self, now: SimTime, packet: T, pool: &mut SharedBuffer) -> Enqueued<T> {
        match &mut self.kind {
            Kind::DropTail(queue) => queue.enqueue(packet, pool),
            Kind::Trimming(queue) => queue.enqueue(packet, pool),
            Kind::Red(queue) => queue.enqueue(now, packet, pool),
            Kind::CoDel(queue) => queue.enqueue(now, packet, pool),
            Kind::FqCoDel(queue) => queue.enqueue(now, packet, pool),
            Kind::Priority(queue) => queue.enqueue(packet, pool),
        }
    }

    /// The wire is free: the packet that leaves. `dropped` hears of packets that are lost only now. `None` means that nothing
    /// waits any more.
    pub fn dequeue(
        &mut self,
        now: SimTime,
        pool: &mut SharedBuffer,
        dropped: &mut impl FnMut(T, DropReason),
    ) -> Option<T> {
        match &mut self.kind {
            Kind::DropTail(queue) => queue.dequeue(pool),
            Kind::Trimming(queue) => queue.dequeue(pool),
            Kind::Red(queue) => queue.dequeue(now, pool),
            Kind::CoDel(queue) => queue.dequeue(now, pool, dropped),
            Kind::FqCoDel(queue) => queue.dequeue(now, pool, dropped),
            Kind::Priority(queue) => queue.dequeue(pool),
        }
    }

    /// A packet arrives that must not be dropped at the queue's own bound: what came in with its class is counted and bounded
    /// elsewhere ([`crate::Pfc`]).
    ///
    /// # Panics
    /// If the discipline is not [`Discipline::DropTail`] or [`Discipline::Priority`]: the others drop by their nature.
    pub fn enqueue_lossless(&mut self, packet: T, pool: &mut SharedBuffer) -> Enqueued<T> {
        match &mut self.kind {
            Kind::DropTail(queue) => queue.enqueue_beyond(packet, pool),
            Kind::Priority(queue) => queue.enqueue_beyond(packet, pool),
            _ => panic!("only drop-tail and priority queues can be lossless"),
        }
    }

    /// The wire is free, and the other end has paused the priorities whose bits are set in `paused`. A queue without priorities
    /// is one class: any of them stops it. `None` means that nothing may leave.
    ///
    /// # Panics
    /// As [`Queue::enqueue_lossless`].
    pub fn dequeue_unpaused(&mut self, paused: u8, pool: &mut SharedBuffer) -> Option<T> {
        match &mut self.kind {
            Kind::DropTail(queue) => (paused == 0).then(|| queue.dequeue(pool)).flatten(),
            Kind::Priority(queue) => queue.dequeue_unpaused(paused, pool),
            _ => panic!("only drop-tail and priority queues can be lossless"),
        }
    }

    /// What waits, in bytes.
    pub fn bytes(&self) -> u64 {
        each!(&self.kind, queue => queue.bytes())
    }

    /// How many packets wait.
    pub fn packets_count(&self) -> usize {
        each!(&self.kind, queue => queue.packets_count())
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.packets_count() == 0
    }
}
