//! Small stand-ins for transports: enough to fill links, overflow queues and recover. Tests and benches share them.

#![allow(dead_code, reason = "each test and bench uses some of it")]

pub mod pull;
pub mod tcp;
pub mod window;

use dataplane_sim::SimTime;

/// What one host has to send to another.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    pub from: u32,
    pub to: u32,
    pub packets_count: u32,
    pub packet_bytes: u32,
    pub start: SimTime,
}

/// The numbers of the flows that begin at a host, if the flows are sorted by that.
pub fn flows_from(flows: &[Flow], host: u32) -> std::ops::Range<usize> {
    flows.partition_point(|flow| flow.from < host)..flows.partition_point(|flow| flow.from <= host)
}
