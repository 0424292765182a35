//! A reliable connection's queue pair, without I/O (IBA §9.7, §10.3): packets and time go in, packets and completions
//! come out.
//!
//! ```text
//!   RESET ─▶ INIT ─▶ RTR ─▶ RTS          RTR: answers the peer       (responder)
//!     ▲       │       │      │           RTS: also asks of the peer  (requester)
//!     └─────── ERROR ◀┴──────┘
//! ```
//!
//! Each state is a type that has what it needs and no more: before RTR there is nobody to ask. Nothing is allocated per
//! packet: queues are made with the queue pair.

use dataplane_waist::Instant;

mod completions;
mod options;
mod receives;
mod requester;
mod responder;
mod send_queue;
mod sequence;
mod state;
mod timer;

pub(crate) use completions::Completions;
pub use options::{MESSAGE_BYTES_MAX, MESSAGE_PACKETS_MAX, PathMtu, QpOptions, RNR_RETRY_FOREVER, rnr_delay};
pub(crate) use state::{Around, Path, QueuePair};

/// When there is something to send though no packet comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// At once.
    pub now: bool,
    /// When a timer ends: silence becomes loss, or a pause that the peer asked for is over.
    pub is_timed: bool,
    /// When the first of those ends that have begun.
    pub at: Option<Instant>,
}

/// What a queue pair has done and seen. Counted over all queue pairs of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QpCounters {
    /// Packets given out.
    pub sent_count: u64,
    /// Packets of those that had been sent before.
    pub resent_count: u64,
    /// Requests that had been executed before and came again.
    pub duplicates_count: u64,
    /// Requests ahead of their turn: something before them is missing.
    pub gaps_count: u64,
    /// Answers to what is finished, or to what was never asked.
    pub ghosts_count: u64,
    /// Timeouts.
    pub timeouts_count: u64,
    /// "A packet is missing", said.
    pub sequence_naks_sent_count: u64,
    /// "A packet is missing", heard.
    pub sequence_naks_count: u64,
    /// "No receive is posted", said.
    pub rnr_naks_sent_count: u64,
    /// "No receive is posted", heard.
    pub rnr_naks_count: u64,
    /// Requests that made no sense.
    pub invalid_count: u64,
    /// Requests dropped because answers wait to leave.
    pub busy_count: u64,
    /// Requests for memory that stayed shut, by the reason's [`crate::Refusal::index`].
    pub refused_counts: [u64; crate::Refusal::ALL.len()],
}
