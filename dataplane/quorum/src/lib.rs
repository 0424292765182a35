//! L2: quorum replication as a state machine. No I/O, no clock, no randomness of its own.
#![forbid(unsafe_code)]

mod answer;
mod apply;
mod candidate;
pub mod check;
pub mod client;
mod config;
mod counters;
mod fast;
mod follower;
pub mod guarantees;
mod held;
mod leader;
mod nodes;
mod reads;
mod recovery;
mod replica;
mod requests;
mod rounds;
mod sessions;
mod state;
mod transfer;
mod window;

pub use config::{Config, ConfigError, Limits, Mutation, NODES_MAX, ReadMode, Timing, majorities};
pub use counters::Counters;
pub use fast::{FastFollower, FastLeader};
pub use recovery::RecoverError;
pub use replica::{Replica, RoleName};
pub use window::{EntryView, Window, WindowFull};
