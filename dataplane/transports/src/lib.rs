//! L2: congestion-controlled flows as state machines without I/O, clock or randomness of their own.
//!
//! A flow is two halves that know nothing of each other but [`Segment`]s: a [`Sender`], which is given bytes and acks, and a
//! [`Receiver`], which is given data. Whoever owns them moves the segments: a simulator, or a test. The rules of use:
//!
//! 1. After every `write`, `on_segment` and `on_wake` call `poll_transmit` until it gives nothing more.
//! 2. Then call `on_wake` at `wake_at`, or later; a wake too early does nothing.
//!
//! Time is [`dataplane_waist::Instant`]; a seed in the options stands in for randomness. A flow starts established: there is no
//! handshake and no FIN, so a connection that has to be made costs what its owner says it costs.
//!
//! A congestion controller is one file behind the trait [`Controller`]. [`SenderOptions::linux_2008`] and
//! [`SenderOptions::linux_2026`] say what surrounds it.
#![forbid(unsafe_code)]

mod controller;
pub mod controllers;
pub mod homa;
pub mod ndp;
mod options;
mod tcp;

pub use controller::{AckSample, Controller, LossSample, LostPacket, Phase, RateSample};
pub use controllers::{AnyController, ControllerKind};
pub use options::{EcnMode, Ns3Ways, Pacing, ReceiverOptions, RecoveryTimer, RtoFloor, SenderOptions, Unproven};
pub use tcp::{
    receiver::{Receiver, ReceiverStats},
    segment::{PackedBlock, SACK_BLOCKS_MAX, SackBlock, Segment},
    sender::{Sender, SenderStats},
};
