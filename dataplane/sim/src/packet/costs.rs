//! What hosts cost where a scenario asks for more than wires. The defaults are zero, as in htsim's and ns-3's incasts: a
//! published simulation is reproduced with its own costs.

use super::topology::HostOptions;
use crate::SimTime;

/// A host without a kernel in the way, each way: 1.25 µs, so that a call and its answer, which pass four times, take the 5 µs
/// that Rumble et al. say are possible (It's Time for Low Latency, HotOS'11, abstract: "5-10 µs remote procedure calls"), if
/// wires and switches took nothing.
pub const BYPASS: SimTime = SimTime::from_ns(1_250);

impl HostOptions {
    /// With the same latency each way.
    pub fn with_latency(self, latency: SimTime) -> HostOptions {
        HostOptions {
            tx_latency: latency,
            rx_latency: latency,
            ..self
        }
    }
}
