//! Histories of one-sided replicas: clusters whose log is written into each other's memory, under the faults that any cluster has,
//! and those that only memory has: partial writes that are seen, writes that a change of permission overtakes, answers that are
//! lost after the write was done, memory that is gone.
//!
//! `dplab soak --driver one-sided` and `tests/tests/soak/onesided.rs` call the same functions.

mod command;
mod plan;
mod runner;
#[cfg(test)]
mod scripted;
mod shrink;
mod world;

pub(super) use command::soak;
pub use dataplane_quorum::onesided::Mutation;
pub use plan::{Options, Plan};
pub use runner::{Report, run_plan, run_seeds};
pub use shrink::shrink;
pub use world::{Member, Outcome, Paths, run};
