//! Where transports meet the packet simulator: flows on hosts, and what comes of them.
//!
//! ```text
//!   scenario file ─▶ Point (one arm, one value) ─▶ Setup ─▶ PacketSim<Hosts> ─▶ Outcome ─▶ metrics of a row
//! ```
//!
//! The simulator knows no protocol and transports know no simulator. [`Hosts`] is the edge between them: a flow is a number,
//! its halves lie in two vectors, and nothing is looked up in a map on the way of a packet.

mod homa;
mod hosts;
mod listed;
mod loads;
mod ndp;
mod ndp_run;
mod observe;
mod outcome;
mod point;
#[cfg(feature = "quinn")]
mod quinn;
#[cfg(not(feature = "quinn"))]
#[path = "quinn_absent.rs"]
mod quinn;
mod receiver_driven;
mod series;
mod setup;
mod tcp;
mod trace;

pub use homa::{HomaCall, HomaHosts, homa_frame_bytes, homa_options};
pub use hosts::{Header, Hosts, Sending};
pub use ndp::{NdpCounts, NdpFlow, NdpHosts, frame_bytes};
pub use ndp_run::{NdpOutcome, NdpSetup};
pub use observe::{FlowSample, OBSERVED_FLOWS_MAX, OBSERVED_SAMPLES_MAX, Observer};
pub use outcome::{Outcome, QueryRecord, SLICES_COUNT, WindowSample, jain, quantile};
pub use point::{NotBuilt, Point, points};
pub use quinn::Payloads;
pub use series::Series;
pub use setup::{Flow, FlowKind, FlowOptions, Query, Setup};
pub use tcp::flow_options;
pub use trace::{Trace, TraceCounts, TraceOptions, TracePlace};

#[cfg(test)]
mod tests;
