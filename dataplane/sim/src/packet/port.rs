//! The two ends of a link: the port with its queue and transmitter, and the pipe that holds what is under way.

use dataplane_queue::{
    Discipline, DropReason, ETHERNET_OVERHEAD_BYTES, Enqueued, Limit, Queue, Serializer, SharedBuffer, Sharing, SimTime,
};

use super::{
    counters::LinkCounters,
    frame::Token,
    topology::{CUT_THROUGH_BYTES, Link},
};
use crate::random::{Purpose, Random, derive};

/// The sending end. What a packet needs that finds nothing before it comes first: with ten thousand hosts, the memory that a
/// packet touches is what it costs.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Port {
    pub wire: Serializer,
    /// From the departure of the last bit that matters to the arrival: the cable's delay and what hosts and switches add.
    delay: SimTime,
    /// Where packets go.
    pub to: Destination,
    /// What waits in the queue.
    waiting_count: u32,
    /// Up to that size, an empty queue would give out a packet as it came.
    passes_bytes_max: u32,
    /// Whose memory the queue takes.
    pub pool: u32,
    /// There is an event for the moment at which the wire becomes free.
    pub is_planned: bool,
    /// The next node begins to send when the header has come.
    cuts_through: bool,
    pub loss: Option<Box<Loss>>,
    pub counters: LinkCounters,
    queue: Queue<Token>,
}

/// Where a wire ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Destination {
    /// At a pipe of the same group.
    Pipe(u32),
    /// At a pipe of another group.
    Elsewhere { group: u32, pipe: u32 },
}

/// A wire that loses packets.
#[derive(Debug)]
pub(crate) struct Loss {
    pub ratio: f64,
    pub random: Random,
}

impl Port {
    pub fn new(link: &Link, number: u32, latency: SimTime, cuts_through: bool, seed: u64) -> Port {
        let loss = (link.cable.loss_ratio > 0.0).then(|| {
            Box::new(Loss {
                ratio: link.cable.loss_ratio,
                random: Random::new(seed, Purpose::Wire, number, 0),
            })
        });
        Port {
            wire: Serializer::new(link.cable.bits_per_sec, ETHERNET_OVERHEAD_BYTES),
            delay: link.cable.delay + latency,
            to: Destination::Pipe(0),
            waiting_count: 0,
            passes_bytes_max: 0,
            pool: 0,
            is_planned: false,
            cuts_through,
            loss,
            counters: LinkCounters::default(),
            queue: Queue::new(&link.discipline, derive(seed, Purpose::Queue, number, 0)),
        }
    }

    /// Packets that find nothing before them need not go through the queue, where that changes nothing: where its decision
    /// depends on no more than what waits, and memory is not shared.
    pub fn may_pass(&mut self, discipline: &Discipline, sharing: &Sharing, is_lossless: bool) {
        // A pause stops what the queue gives out.
        if is_lossless {
            return;
        }
        let limit_bytes = |limit: Limit| match limit {
            Limit::Packets(0) => 0,
            Limit::Packets(_) => u32::MAX,
            Limit::Bytes(bytes) => u32::try_from(bytes).unwrap_or(u32::MAX),
        };
        self.passes_bytes_max = match (discipline, sharing) {
            (Discipline::DropTail(options) | Discipline::Priority(options), Sharing::Static) => {
                limit_bytes(options.limit)
            }
            (Discipline::Trimming(options), Sharing::Static) => {
                limit_bytes(options.data).min(limit_bytes(options.headers))
            }
            _ => 0,
        };
    }

    /// Nothing is before a packet of so many bytes, and it may go at once.
    #[inline]
    pub fn passes(&self, now: SimTime, bytes: u32) -> bool {
        self.waiting_count == 0 && bytes <= self.passes_bytes_max && self.wire.free_at() <= now
    }

    /// What waits.
    #[inline]
    pub fn waiting_count(&self) -> u32 {
        self.waiting_count
    }

    /// What waits, in bytes.
    pub fn waiting_bytes(&self) -> u64 {
        match self.waiting_count {
            0 => 0,
            _ => self.queue.bytes(),
        }
    }

    /// A packet joins the queue, or does not.
    #[inline]
    pub fn enqueue(&mut self, now: SimTime, token: Token, pool: &mut SharedBuffer) -> Enqueued<Token> {
        let enqueued = self.queue.enqueue(now, token, pool);
        self.waiting_count = self.queue.packets_count() as u32;
        let counters = &mut self.counters;
        counters.queue_packets_max = counters.queue_packets_max.max(self.waiting_count);
        counters.queue_bytes_max = counters.queue_bytes_max.max(self.queue.bytes());
        enqueued
    }

    /// A packet leaves the queue.
    #[inline]
    pub fn dequeue(
        &mut self,
        now: SimTime,
        pool: &mut SharedBuffer,
        lost: &mut Vec<(Token, DropReason)>,
    ) -> Option<Token> {
        let token = self.queue.dequeue(now, pool, &mut |token, why| lost.push((token, why)));
        self.waiting_count = self.queue.packets_count() as u32;
        token
    }

    /// A packet of a lossless class joins the queue, whatever its bound is.
    pub fn enqueue_lossless(&mut self, token: Token, pool: &mut SharedBuffer) -> Enqueued<Token> {
        let enqueued = self.queue.enqueue_lossless(token, pool);
        self.waiting_count = self.queue.packets_count() as u32;
        let counters = &mut self.counters;
        counters.queue_packets_max = counters.queue_packets_max.max(self.waiting_count);
        counters.queue_bytes_max = counters.queue_bytes_max.max(self.queue.bytes());
        enqueued
    }

    /// A packet leaves the queue whose priority is not among those paused.
    pub fn dequeue_unpaused(&mut self, paused: u8, pool: &mut SharedBuffer) -> Option<Token> {
        let token = self.queue.dequeue_unpaused(paused, pool);
        self.waiting_count = self.queue.packets_count() as u32;
        token
    }

    /// Puts a packet on the free wire: when it arrives.
    #[inline]
    pub fn transmit(&mut self, now: SimTime, bytes: u32) -> SimTime {
        let departs_at = self.wire.depart(now, bytes);
        self.counters.tx_packets_count += 1;
        self.counters.tx_bytes += u64::from(bytes);
        let seen_at = match self.cuts_through && bytes > CUT_THROUGH_BYTES {
            true => now + self.wire.time_of(CUT_THROUGH_BYTES),
            false => departs_at,
        };
        seen_at + self.delay
    }
}

/// The receiving end. What is under way arrives in the order in which it left, so only the first is an event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pipe {
    first: u32,
    last: u32,
    pub to: Node,
    pub link: u32,
}

const NONE: u32 = u32::MAX;

impl Pipe {
    pub fn new(to: Node, link: u32) -> Pipe {
        let (first, last) = (NONE, NONE);
        Pipe { first, last, to, link }
    }
}

/// What is under way in all pipes of a group, as lists through one array: places are used again at once, so that a packet
/// finds its own in the cache, whichever of ten thousand pipes it takes.
#[derive(Debug)]
pub(crate) struct Flights {
    flights: Vec<Flight>,
    /// The first free place; the others follow.
    free: u32,
}

/// 32 bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flight {
    pub at: SimTime,
    pub token: Token,
    next: u32,
}

impl Flights {
    pub fn new() -> Flights {
        let flights = Vec::new();
        Flights { flights, free: NONE }
    }

    /// Puts a packet behind the others. Whether it is the first.
    #[inline]
    pub fn push(&mut self, pipe: &mut Pipe, at: SimTime, token: Token) -> bool {
        let next = NONE;
        let flight = Flight { at, token, next };
        let place = self.free;
        let place = match self.flights.get_mut(place as usize) {
            Some(free) => {
                self.free = free.next;
                *free = flight;
                place
            }
            None => {
                self.flights.push(flight);
                self.flights.len() as u32 - 1
            }
        };
        let is_first = pipe.first == NONE;
        match is_first {
            true => pipe.first = place,
            false => self.flights[pipe.last as usize].next = place,
        }
        pipe.last = place;
        is_first
    }

    /// Takes the first packet out; and when the next arrives.
    #[inline]
    pub fn pop(&mut self, pipe: &mut Pipe) -> Option<(Token, Option<SimTime>)> {
        let place = pipe.first;
        let flight = self.flights.get_mut(place as usize)?;
        let (token, next) = (flight.token, flight.next);
        flight.next = self.free;
        self.free = place;
        pipe.first = next;
        Some((token, self.flights.get(next as usize).map(|next| next.at)))
    }

    /// How many packets are in a pipe; pauses are none.
    pub fn count(&self, pipe: &Pipe) -> usize {
        std::iter::successors(self.flights.get(pipe.first as usize), |flight| {
            self.flights.get(flight.next as usize)
        })
        .filter(|flight| !flight.token.is_pause())
        .count()
    }
}

/// A node, by its number within its group.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Node {
    Host(u32),
    Switch(u32),
    /// Of a network with lossless priorities: what comes may be a pause.
    LosslessHost(u32),
    LosslessSwitch(u32),
}
