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
mod drop_tail;
mod fifo;
mod limit;
mod packet;
mod queue;
mod serializer;
#[cfg(test)]
mod testing;
mod time;

pub use buffer::{SharedBuffer, Sharing};
pub use drop_tail::{DropTailOptions, Marking};
pub use limit::Limit;
pub use packet::{DropReason, Ecn, Enqueued, Queued};
pub use queue::{Discipline, Queue};
pub use serializer::{ETHERNET_OVERHEAD_BYTES, Serializer};
pub use time::SimTime;
