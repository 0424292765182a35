//! L2: a switch for frames of real hosts, as a state machine: it is told what came and what time it is, and says what has to
//! leave and when. It knows no sockets and no clock, so the same frames at the same times leave in the same order.
//!
//! Its queues are those of the packet simulator (`dataplane-queue`), so that a run over real kernels and a simulated one
//! differ in their ends and not in what lies between.
//!
//! ```text
//!   host ─▶ uplink: the host's card ───▶ delay ─▶ whose is it? ─▶ downlink: the switch's port ─▶ delay ─▶ host
//!           queue, line rate                         │             queue, marks, line rate, losses
//!                                                    └ copies to all, if it is for many or nobody knows
//! ```
//!
//! [`Switch::receive`] takes a frame, [`Switch::advance`] lets time pass, [`Switch::next_due`] gives what has arrived at the
//! far end of its downlink. A frame's bytes lie with whoever calls ([`Memory`]); the switch changes its mark, cuts it, and
//! nothing else.
#![forbid(unsafe_code)]

mod account;
mod burst;
mod events;
mod headers;
mod link;
mod log;
mod memory;
mod options;
mod random;
mod stations;
mod switch;

pub use account::{Account, Drops, PortAccount};
pub use headers::{Headers, mark, trim};
pub use log::{QueueEvent, QueueLog, What};
pub use memory::Memory;
pub use options::{Faults, HostLink, Refused, SwitchOptions};
pub use switch::{Due, Switch};
