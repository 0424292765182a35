//! What the experiments on cycle models have in common: rows that count cycles first, clocks that are stated, and the clock that
//! place and route gave.

use std::collections::BTreeMap;

use super::virtual_time::Simulated;
use crate::{
    experiment::Lab,
    record::{Better, Row},
};

/// The name that rows of cycle models have where others name what moved their bytes.
pub const BACKEND: &str = "cycle-model";
/// The same for rows that are arithmetic over figures of others, published or measured in the same run.
pub const FORMULA: &str = "formula";

/// The clock at which so many bits a beat carry an Ethernet's rate: 64 bits at 10 Gb/s (IEEE 802.3, clause 46: XGMII's 156.25 MHz). 512 bits
/// at 250 MHz are 128 Gb/s: the user clock that PCIe's hard blocks give to cards of 100 GbE. Stated, not reached.
pub const fn stated_mhz(beat_bits: u32) -> f64 {
    match beat_bits {
        64 => 156.25,
        _ => 250.0,
    }
}

/// The device whose clocks are meant where none is named: a Lattice ECP5 of speed grade 8.
const DEVICE: &str = "ECP5-8";

/// The clock that place and route gave a block with this parameter, from register to register: `fpga/syn/TABLE.md` when this was built.
pub fn placed_mhz(block: &str, parameter: &str) -> Option<f64> {
    find_mhz(option_env!("DPLAB_FPGA_CLOCKS")?, block, parameter)
}

/// In rows as `build.rs` writes them, the first that is this block's on [`DEVICE`].
fn find_mhz(rows: &str, block: &str, parameter: &str) -> Option<f64> {
    rows.split(';').find_map(|row| {
        let mut columns = row.split('|');
        let (name, parameters, device, mhz) = (columns.next()?, columns.next()?, columns.next()?, columns.next()?);
        let has = |word: &str| word == parameter;
        let is_it = name == block && device == DEVICE && parameters.split([' ', ',']).any(has);
        is_it.then(|| mhz.parse().ok())?
    })
}

/// A row of a cycle model in the making.
#[derive(Debug)]
pub struct Counted {
    row: Simulated,
    clock_mhz: f64,
}

impl Counted {
    /// Of so many cycles at a stated clock.
    pub fn new(
        lab: &Lab<'_>,
        experiment: &str,
        axis: BTreeMap<String, String>,
        seed: u64,
        (clock_mhz, cycles): (f64, u64),
    ) -> Counted {
        let elapsed_s = cycles as f64 / clock_mhz / 1e6;
        let mut row = Simulated::by(BACKEND, lab, (experiment, axis), seed, elapsed_s);
        row.fact(
            "yardstick",
            "the cycle models of fpga/rtl (fpga-model), which show at every clock edge what the verilated RTL shows",
        );
        row.fact(
            "time",
            format!("cycles; ns at {clock_mhz} MHz, a clock that is stated and not reached"),
        );
        row.put("stated_clock", clock_mhz, "MHz", Better::Neither);
        Counted { row, clock_mhz }
    }

    /// The stated clock's.
    pub fn ns(&self, cycles: f64) -> f64 {
        cycles * 1e3 / self.clock_mhz
    }

    /// Adds cycles, all alike or the most of them.
    pub fn cycles(&mut self, name: &str, cycles: u64) {
        self.row
            .put(&format!("{name}_cycles"), cycles as f64, "cycles", Better::Lower);
    }

    /// Adds a figure.
    pub fn put(&mut self, name: &str, value: f64, unit: &str, better: Better) {
        self.row.put(name, value, unit, better);
    }

    /// Adds something that is no figure.
    pub fn fact(&mut self, name: &str, fact: impl Into<String>) {
        self.row.fact(name, fact);
    }

    /// Adds the histogram of what took so many cycles each.
    pub fn latencies(&mut self, cycles: impl Iterator<Item = u64> + Clone) {
        let clock_mhz = self.clock_mhz;
        self.row
            .latencies(cycles.map(|cycles| (cycles as f64 * 1e3 / clock_mhz).round() as u64));
    }

    /// The row.
    pub fn into_row(self) -> Row {
        self.row.into_row()
    }
}

/// A metric of a row.
pub fn metric(row: &Row, name: &str) -> Option<f64> {
    row.metrics.get(name).map(|metric| metric.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placed_clock_is_that_of_the_block_with_the_parameter_on_the_device() {
        let rows = "quorum_leader|DATA_W=64 N=5|ECP5-8|125.8;quorum_leader|DATA_W=512 N=5|ECP5-8|98.1;systolic_array|N=2|iCE40-HX8K|92.4;\
                    systolic_array|N=8|ECP5-8|101.8";
        assert_eq!(find_mhz(rows, "quorum_leader", "DATA_W=64"), Some(125.8));
        assert_eq!(find_mhz(rows, "quorum_leader", "DATA_W=512"), Some(98.1));
        assert_eq!(find_mhz(rows, "systolic_array", "N=8"), Some(101.8));
        assert_eq!(find_mhz(rows, "systolic_array", "N=2"), None);
        assert_eq!(find_mhz(rows, "kv_filter", "LANES=8"), None);
        assert_eq!(find_mhz("", "kv_filter", "LANES=8"), None);
    }
}
