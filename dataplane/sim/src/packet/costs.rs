//! What hosts and switches cost where a scenario asks for more than wires. The defaults are zero, as in htsim's and ns-3's
//! incast: a published simulation is reproduced with its own costs.

use super::topology::HostOptions;
use crate::SimTime;

/// A host of 2011 with a kernel's network stack: 15 µs for the stack and 2.5 µs for the network card, each way. Rumble et
/// al., It's Time for Low Latency, HotOS'11, table 1 (the card's lower figure; it goes to 32 µs).
pub const KERNEL_2011: SimTime = SimTime::from_ns(15_000 + 2_500);

/// What the same table says is possible soon: 1 µs for the stack, 0.5 µs for the card.
pub const BYPASS_2011: SimTime = SimTime::from_ns(1_000 + 500);

/// A cut-through switch chip, from a header's arrival to its departure: 300 ns. The same paper, section 2.
pub const SWITCH_CUT_THROUGH: SimTime = SimTime::from_ns(300);

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
