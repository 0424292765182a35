//! L1: what a switch's port does with a packet, as pure code: it knows no network and no clock.
//!
//! The packet simulator and the switch between real kernels use the same queues, so that what one shows can be held
//! against the other. Time comes in as a parameter, in picoseconds ([`SimTime`]).
//!
//! ```text
//!   packet ─▶ Queue::enqueue ─▶ waits ─▶ Queue::dequeue ─▶ Serializer::depart ─▶ when it has left
//!                 │  ▲                        │
//!             dropped SharedBuffer        dropped (CoDel)
//! ```
#![forbid(unsafe_code)]

mod buffer;
mod codel;
mod drop_tail;
mod fifo;
mod fq_codel;
mod limit;
mod packet;
mod pfc;
mod priority;
mod queue;
mod random;
mod red;
mod serializer;
#[cfg(test)]
mod testing;
mod time;
mod trimming;

pub use buffer::{SharedBuffer, Sharing};
pub use codel::CoDelOptions;
pub use drop_tail::{DropTailOptions, Marking};
pub use fq_codel::FqCoDelOptions;
pub use limit::Limit;
pub use packet::{DropReason, Ecn, Enqueued, Queued};
pub use pfc::{PAUSE_FRAME_BYTES, Pfc, PfcEvent, PfcOptions};
pub use queue::{Discipline, Queue};
pub use red::RedOptions;
pub use serializer::{ETHERNET_OVERHEAD_BYTES, Serializer};
pub use time::SimTime;
pub use trimming::TrimmingOptions;
