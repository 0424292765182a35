//! Service nodes on this machine, and a client with a policy: the state machines of [`dataplane_service`] with sockets, threads
//! and clocks.
//!
//! ```text
//! fleet     starts the nodes' processes, and ends them
//! process   one of them: nodes whose workers are timers, a thread each; or
//! threads   one node whose workers are threads over queues that they share
//! labour    what such a worker does: sleeps, burns its CPU, or does real work
//! stalls    stops or disturbs them, at times that a seed has drawn; cpu_limit is one of the means
//! client    calls at their times, a policy decides, answers come back
//! row       what came of it
//! ```

pub mod client;
pub mod cpu_limit;
pub mod fleet;
pub mod labour;
pub mod plan;
pub mod process;
pub mod row;
pub mod stalls;
pub mod threads;

/// The hidden subcommand of a node's process.
pub const SUBCOMMAND: &str = "serve-service";
