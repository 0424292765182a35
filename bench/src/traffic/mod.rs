//! TCP connections of real kernels under a load that is known to the byte: many senders, one receiver, one thread.
//!
//! ```text
//!   ablation.rs   what differs of the senders: set in their namespaces, and read back
//!   counters.rs   what the kernel of a namespace counted: timeouts, probes, retransmissions, marks
//!   capacity.rs   what the one thread carries where no link is a limit
//!   flows.rs      the connections: opened each in its host, driven by one thread over epoll
//!   pattern.rs    what is asked of them: questions to all at once, long flows, short ones beside long ones
//! ```
//!
//! A socket belongs to the namespace in which it was made, wherever its user stands later; so sixty-four hosts need no threads.

mod ablation;
mod capacity;
mod counters;
mod flows;
mod pattern;
#[cfg(test)]
mod tests;

pub use ablation::{Ablation, Applied, Controller, Ecn, RTO_MIN_DEFAULT};
pub use capacity::capacity;
pub use counters::{COUNTED, Counters};
pub use flows::{FlowTotals, Flows};
pub use pattern::{Done, Pattern, Questions, Sample};
