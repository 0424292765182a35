//! The load generator: asks at fixed times, or in turn, and records what became of each request.
//!
//! `schedule` decides when, `open` and `closed` ask, `flight` keeps what is under way. Open loop is the measurement:
//! latency counts from the *intended* send time, so a server that stops cannot stop the questions. Closed loop is
//! there for contrast and for saturation.

pub mod calibrate;
pub mod closed;
mod flight;
pub mod flood;
pub mod open;
mod outcome;
mod replay;
pub mod saturate;
pub mod schedule;
mod series;
pub mod spinning;
pub mod thread;

#[cfg(test)]
mod fake;

pub use closed::{ClosedOptions, closed};
pub use open::{OpenOptions, open};
pub use outcome::{LoadError, LoadResult};
pub use replay::REPLAY_BYTES_MAX;
pub use schedule::{BurstArrivals, Bursts, Schedule, ScheduleError};
