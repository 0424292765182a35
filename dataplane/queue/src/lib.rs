//! L1: what a switch's port does with a packet, as pure code: it knows no network and no clock.
//!
//! The packet simulator and the switch between real kernels use the same queues, so that what one shows can be held
//! against the other. Time comes in as a parameter, in picoseconds ([`SimTime`]).
#![forbid(unsafe_code)]

mod time;

pub use time::SimTime;
