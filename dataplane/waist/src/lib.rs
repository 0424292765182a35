//! L1: the waist. Ports, logs and clocks below, protocols above; they meet only in the traits of this crate, and
//! [`Node::turn`] is the one loop on the data path.
//!
//! What is absent: no thread, no async, no socket. Time, network, disk and randomness come in as parameters.
#![forbid(unsafe_code)]

mod clock;
mod effects;
mod id;
mod kept;
mod log;
mod machine;
pub mod middleware;
mod node;
mod port;
mod protocol;
mod support;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod time;
mod window;

pub use clock::{Clock, MonotonicClock};
pub use effects::{Effects, EffectsFull, LogWrite};
pub use id::{Peer, Slot, Term, WrId};
pub use kept::Kept;
pub use log::{Durable, Log, MemoryLog, News, Recovered, STATE_BYTES_MAX, Snapshot, Tail};
pub use machine::{StateMachine, SurePuts};
pub use node::{Node, NodeStats};
pub use port::{LOOK_AGAIN, Misplaced, Port, PortCaps, PortStats, RxFrame, TxError, Wake};
pub use protocol::{Input, Protocol};
pub use support::{Mode, ProbeError, Support};
pub use time::Instant;
pub use window::{Completion, Window, WindowError};
