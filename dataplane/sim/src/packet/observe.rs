//! Looking at a run: packets as they leave, and queues as they grow. Neither changes what happens.

use std::fmt;

use dataplane_queue::{DropReason, SimTime};

use super::frame::Packet;

/// What a tap hears of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TapEvent {
    /// Its first bit is on the wire of the link.
    Sent,
    /// It ended in the queue before the link.
    Dropped(DropReason),
    /// The wire of the link lost it.
    Lost,
    /// It came to its host by the link.
    Delivered,
}

/// Hears of packets at links, in the order of time. For each group of nodes there is one.
pub trait Tap<H>: Send {
    /// Something happened to `packet` at `link`.
    fn on_packet(&mut self, now: SimTime, link: u32, event: TapEvent, packet: &Packet<H>);
}

pub(crate) struct TapSlot<H>(pub Option<Box<dyn Tap<H>>>);

impl<H> fmt::Debug for TapSlot<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "a tap" } else { "no tap" })
    }
}

/// The queue before a link at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DepthSample {
    /// When: what was due before has happened, what is due at this moment has not.
    pub at: SimTime,
    /// What waits.
    pub packets_count: u32,
    /// What waits, in bytes.
    pub bytes: u64,
}

/// The depth of one queue over time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DepthSeries {
    /// The link.
    pub link: u32,
    /// The time between two samples.
    pub every: SimTime,
    /// The samples. No more are kept than were asked for.
    pub samples: Vec<DepthSample>,
}

/// A series that is being taken.
#[derive(Debug)]
pub(crate) struct Sampler {
    pub port: u32,
    pub next_at: SimTime,
    pub samples_max: usize,
    pub series: DepthSeries,
}
