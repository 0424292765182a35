//! One TCP, in two halves that meet in [`segment::Segment`].

pub mod receiver;
pub mod segment;
pub mod sender;

pub(crate) mod ranges;
mod rtt;
mod scoreboard;
pub(crate) mod timer;
