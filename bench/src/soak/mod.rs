//! The soak: clusters of replicas under random faults in virtual time, history after history, each a function of its seed.
//!
//! A history is a [`Plan`] that is drawn from a seed, run ([`run_plan`]) and judged: the invariants of
//! [`dataplane_quorum::check`] at every turn; linearizability of what clients were answered, which an acknowledged write
//! that is lost breaks; recovery within a bound once nothing goes wrong any more; equal states at the end. `dplab soak`
//! and `tests/tests/soak.rs` call the same functions.

mod ambush;
mod client;
mod command;
mod coverage;
mod driver;
mod faults;
mod finding;
mod judge;
pub mod onesided;
mod plan;
mod runner;
mod shrink;
mod world;

pub use ambush::{Aim, Ambush};
pub use client::{Client, Habits};
pub use command::soak;
pub use coverage::{Coverage, Totals};
pub use driver::{Bpf, DrivenHost, DriverKind, Flaw, Model, Program, Ran};
pub use finding::{Finding, FindingKind};
pub use plan::{Break, Options, Plan};
pub use runner::{Failure, Report, Until, run_plan, run_seeds};
pub use shrink::{Shrunk, shrink};
pub use world::Outcome;
