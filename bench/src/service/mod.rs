//! Service nodes on this machine, and a client with a policy: the state machines of [`dataplane_service`] with sockets, threads
//! and clocks.
//!
//! ```text
//! fleet     starts the nodes' processes, and stops them in their tracks (stalls)
//! process   one of them: nodes whose workers are timers, a thread each; or
//! threads   one node whose workers are threads that sleep or burn, over queues that they share
//! client    calls at their times, a policy decides, answers come back
//! row       what came of it
//! ```

pub mod client;
pub mod fleet;
pub mod plan;
pub mod process;
pub mod row;
pub mod stalls;
pub mod threads;

/// The hidden subcommand of a node's process.
pub const SUBCOMMAND: &str = "serve-service";
