//! One way of a cable: what waits for the wire, the wire, and what is under way on it.

use std::collections::VecDeque;

use dataplane_queue::{Discipline, DropReason, Ecn, Enqueued, Queue, Queued, Serializer, SharedBuffer, SimTime};

use crate::Headers;

/// A frame as queues see it; its bytes lie in the switch's slot of that number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub slot: u32,
    pub frame_bytes: u32,
    pub headers: Headers,
    /// A queue decided so; the bytes follow when it leaves.
    pub is_marked: bool,
    pub is_trimmed: bool,
}

impl Queued for Waiting {
    fn bytes(&self) -> u32 {
        self.frame_bytes
    }

    fn ecn(&self) -> Ecn {
        self.headers.ecn
    }

    fn set_ecn(&mut self, ecn: Ecn) {
        self.is_marked |= ecn == Ecn::Experienced && self.headers.ecn == Ecn::Capable;
        self.headers.ecn = ecn;
    }

    fn priority(&self) -> u8 {
        self.headers.priority
    }

    fn flow_hash(&self) -> u32 {
        self.headers.flow_hash
    }

    fn trim(&mut self) -> bool {
        let trims = self.headers.trimmed_bytes > 0 && !self.is_trimmed;
        if trims {
            self.frame_bytes = self.headers.trimmed_bytes;
            self.is_trimmed = true;
        }
        trims
    }

    fn is_header(&self) -> bool {
        self.is_trimmed
    }
}

/// One way of a cable.
#[derive(Debug)]
pub(crate) struct Way {
    queue: Queue<Waiting>,
    wire: Serializer,
    delay: SimTime,
    /// What is on the wire, by when it arrives.
    under_way: VecDeque<(SimTime, Waiting)>,
    /// There is an event for the moment at which the wire takes the next frame.
    pub is_planned: bool,
}

impl Way {
    pub fn new(discipline: &Discipline, bits_per_sec: u64, overhead_bytes: u32, delay: SimTime, seed: u64) -> Way {
        Way {
            queue: Queue::new(discipline, seed),
            wire: Serializer::new(bits_per_sec, overhead_bytes),
            delay,
            under_way: VecDeque::new(),
            is_planned: false,
        }
    }

    pub fn enqueue(&mut self, now: SimTime, frame: Waiting, pool: &mut SharedBuffer) -> Enqueued<Waiting> {
        self.queue.enqueue(now, frame, pool)
    }

    pub fn dequeue(
        &mut self,
        now: SimTime,
        pool: &mut SharedBuffer,
        lost: &mut impl FnMut(Waiting, DropReason),
    ) -> Option<Waiting> {
        self.queue.dequeue(now, pool, lost)
    }

    /// What waits, in bytes.
    pub fn waiting_bytes(&self) -> u64 {
        self.queue.bytes()
    }

    /// How many wait.
    pub fn waiting_count(&self) -> usize {
        self.queue.packets_count()
    }

    /// When the wire takes the next frame.
    pub fn free_at(&self, now: SimTime) -> SimTime {
        self.wire.free_at().max(now)
    }

    /// How long the wire has carried nothing, if it has carried anything.
    pub fn idle_until(&self, now: SimTime) -> SimTime {
        match self.wire.free_at() {
            SimTime::ZERO => SimTime::ZERO,
            free_at => now.saturating_since(free_at),
        }
    }

    /// Puts a frame on the wire, which is free; when it will be at the other end. It is under way from now on, unless it is lost there.
    pub fn depart(&mut self, now: SimTime, frame_bytes: u32) -> SimTime {
        self.wire.depart(now, frame_bytes) + self.delay
    }

    /// Whether the frame is now the next one to arrive.
    pub fn carry(&mut self, arrives_at: SimTime, frame: Waiting) -> bool {
        // Only a frame that is late by chance has later ones before it.
        let before = self.under_way.iter().rposition(|(at, _)| *at <= arrives_at);
        let index = before.map_or(0, |index| index + 1);
        self.under_way.insert(index, (arrives_at, frame));
        index == 0
    }

    /// When the next frame arrives.
    pub fn next_arrival(&self) -> Option<SimTime> {
        self.under_way.front().map(|(at, _)| *at)
    }

    /// The frame that arrives next, if it does so by `now`.
    pub fn arrived(&mut self, now: SimTime) -> Option<(SimTime, Waiting)> {
        let (at, _) = self.under_way.front()?;
        if *at > now {
            return None;
        }
        self.under_way.pop_front()
    }

    /// All frames that are here.
    pub fn held_count(&self) -> u64 {
        (self.queue.packets_count() + self.under_way.len()) as u64
    }
}
