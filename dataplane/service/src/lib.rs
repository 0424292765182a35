//! L2: service nodes and their clients as state machines: how long requests take, where they wait, what a client does about
//! the slow ones, and what disturbs the nodes. No I/O, no clock: time and randomness come in as parameters, so that the same
//! code runs in real nodes and in virtual time.
//!
//! ```text
//! policy ──▶ message ──▶ node: service_time ─▶ discipline (over queue) ─▶ workers ◀── stalls
//!    │                                                                      │
//!    └───────────────────── sim: both, in virtual time ─────────────────────┘
//!                                       │
//!                                    oracle: what theory says of it; knows nothing of the others
//! ```
#![forbid(unsafe_code)]

pub mod discipline;
pub mod message;
pub mod node;
pub mod oracle;
pub mod policy;
pub mod queue;
pub mod random;
pub mod service_time;
pub mod sim;
pub mod stalls;
pub mod workers;
