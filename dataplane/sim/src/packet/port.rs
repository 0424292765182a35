//! The two ends of a link: the port with its queue and transmitter, and the pipe that holds what is under way.

use std::collections::VecDeque;

use dataplane_queue::{ETHERNET_OVERHEAD_BYTES, Queue, Serializer, SimTime};

use super::{
    counters::LinkCounters,
    frame::Token,
    topology::{CUT_THROUGH_BYTES, Link},
};
use crate::random::{Purpose, Random, derive};

/// The sending end.
#[derive(Debug)]
pub(crate) struct Port {
    pub queue: Queue<Token>,
    pub wire: Serializer,
    /// From the departure of the last bit that matters to the arrival: the cable's delay and what hosts and switches add.
    delay: SimTime,
    /// Whose memory the queue takes.
    pub pool: u32,
    /// There is an event for the moment at which the wire becomes free.
    pub is_planned: bool,
    /// The next node begins to send when the header has come.
    cuts_through: bool,
    /// Where packets go.
    pub to: Destination,
    pub loss: Option<Box<Loss>>,
    pub counters: LinkCounters,
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
            queue: Queue::new(&link.discipline, derive(seed, Purpose::Queue, number, 0)),
            wire: Serializer::new(link.cable.bits_per_sec, ETHERNET_OVERHEAD_BYTES),
            delay: link.cable.delay + latency,
            pool: 0,
            is_planned: false,
            cuts_through,
            to: Destination::Pipe(0),
            loss,
            counters: LinkCounters::default(),
        }
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

    #[inline]
    pub fn note_depth(&mut self) {
        let (packets, bytes) = (self.queue.packets_count() as u32, self.queue.bytes());
        self.counters.queue_packets_max = self.counters.queue_packets_max.max(packets);
        self.counters.queue_bytes_max = self.counters.queue_bytes_max.max(bytes);
    }
}

/// The receiving end. What is under way arrives in the order in which it left, so only the first is an event.
#[derive(Debug)]
pub(crate) struct Pipe {
    pub in_flight: VecDeque<InFlight>,
    pub to: Node,
    pub link: u32,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct InFlight {
    pub at: SimTime,
    pub token: Token,
}

/// A node, by its number within its group.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Node {
    Host(u32),
    Switch(u32),
}
