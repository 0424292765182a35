//! The conformance suite of the fast path: frames, and what user space says becomes of each. The models, the RTL and the XDP
//! programs are shown the same frames and must answer with the same bytes.
//!
//! `oracle` asks `dataplane_wire` what a frame is and `dataplane_quorum`'s `FastLeader` and `FastFollower` what is done about it; it
//! has no parser and no rule of its own but the bounds that the planes state (no VLAN tag, no IPv6, no late request, nothing held),
//! and where those of two planes differ, which one is asked about ([`Plane`]).

mod frames;
mod history;
mod oracle;

pub use fpga_model::{
    frames::{CLIENT, GROUP, Place, framed, node_at, setup, wrapped},
    node::Setup,
};
pub use frames::{put, requested};
pub use history::{Sent, goldens, history};
pub use oracle::{Answer, Oracle, Plane, Role};
