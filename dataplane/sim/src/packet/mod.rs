//! Packets, queues and links in virtual time: the network below a [`crate::Sim`]'s, at the level of single packets.
//!
//! [`PacketSim`] knows no protocol. An [`Edge`] says what hosts do with packets and timers; [`Topology`] says what is
//! connected to what; `dataplane-queue` says what a port does with a packet. A packet-hop is about one and a half events:
//!
//! ```text
//!  edge ─▶ queue ─▶ wire ─▶ pipe ─────▶ switch ─▶ queue ─▶ wire ─▶ pipe ─────▶ edge
//!              free? (event) ▲    arrives (event)                     arrives (event)
//! ```
//!
//! - **Only heads are events.** A link has two: "the wire is free", only while somebody waits for it, and "the first
//!   packet of the pipe arrives". What is behind the first is no event, so the list is as long as there are busy links.
//! - **Timers are apart**, in a hierarchical wheel; moving one to a later time is one store. Idle flows are never looked at.
//! - **Queues hold tokens** of 20 bytes; packets with their headers stay in a slab, where only hosts touch them.
//! - **Order is (time, links before timers, number)**, and every node, link and host has a stream of randomness of its own.
//!   So neither threads nor the division into groups can change the result ([`PacketSim::hash`]).
//! - **Frames carry 24 bytes more** on the wire ([`dataplane_queue::ETHERNET_OVERHEAD_BYTES`]).

mod core;
pub mod costs;
mod counters;
mod edge;
mod events;
mod frame;
mod lossless;
mod memory;
mod observe;
mod parallel;
mod plan;
mod port;
mod routing;
mod sim;
mod slab;
mod topology;
mod wheel;

pub use counters::{Counters, Drops, LinkCounters};
pub use edge::{Edge, HostApi};
pub use frame::{Packet, TRIMMED_BYTES};
pub use memory::memory_estimate_bytes;
pub use observe::{DepthSample, DepthSeries, Tap, TapEvent};
pub use routing::{Balance, Route};
pub use sim::{Computing, Grouping, Outcome, PacketSim};
pub use topology::{
    CUT_THROUGH_BYTES, Cable, Forwarding, Headroom, HostOptions, LeafSpine, Link, Lossless, SwitchOptions, Topology,
    TopologyError,
};
