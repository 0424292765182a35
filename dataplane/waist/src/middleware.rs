//! Ports around ports: the same trait on both sides, so that a protocol cannot tell, and any port can wear them.
//!
//! ```text
//! Node ─▶ Tap ─▶ Faults ─▶ Counters ─▶ UDP       a tap here sees what the node meant to send,
//! Node ─▶ Faults ─▶ Tap ─▶ UDP                   and here what reached the wire.
//! ```
//!
//! Each costs time on the data path, so no measured row runs through one unless the row says so.

mod capture;
mod counters;
mod faults;
mod sealed;
mod tap;

pub use capture::{Capture, CaptureOptions, Direction};
pub use counters::{Counters, Counts, Traffic};
pub use faults::{
    DELAY_MAX, FaultCounts, FaultOptions, FaultOptionsError, FaultRates, Faults, FaultsByDirection, HELD_FRAMES_MAX,
};
pub use sealed::{
    CLIENT_NODE, ClusterKey, ClusterKeyError, KEY_BYTES_MIN, Sealed, SealedCounts, SealedOptions, SealedOptionsError,
    TAG_BYTES,
};
pub use tap::Tap;
