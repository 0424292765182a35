//! What the experiments with TCP of this machine's kernel have in common: what an arm of a scenario asks of a kernel, the network of a
//! scenario around an emulated switch, one trial over it, and the row that comes of it.
//!
//! ```text
//!   sender.rs    a scenario's TCP as settings of a namespace and a controller
//!   network.rs   a scenario's topology and queue as hosts around an emulated switch
//!   trial.rs     connections, load, what switch and kernels counted meanwhile
//!   simulated.rs the same point in virtual time, under the same names
//!   series.rs    what the kernels said of each connection over time: figures of a row, and a file beside the record
//! ```

mod network;
mod sender;
mod series;
mod simulated;
mod trial;

use std::collections::BTreeMap;

pub use network::{log_queues, shape, widen_buffers};
pub use sender::Sender;
pub use series::{Summary, keep};
pub use simulated::simulate;
pub use trial::{Ends, Trial};

use crate::{
    experiment::{Allowed, Axis, Lab},
    table::Table,
    traffic::Controller,
};

/// Of rows: the kernel's TCP; the simulator's is `virtual_time::BACKEND`.
pub const KERNEL: &str = "kernel-tcp";
/// Where all of them measure.
pub const OWN_NETWORK: &str =
    "network namespaces of this machine around an emulated switch (level kernel) and in virtual time (level simulator)";
/// Of [`LEVEL`]: TCP of this machine.
pub const LEVEL_KERNEL: &str = "kernel";
/// Of [`LEVEL`]: the same file in virtual time.
pub const LEVEL_SIMULATOR: &str = "simulator";
/// Where a row comes from.
pub const LEVEL: Axis = Axis {
    name: "level",
    meaning: "kernel: TCP of this machine in namespaces, over an emulated switch; simulator: the same file in virtual time",
    full: &[LEVEL_KERNEL, LEVEL_SIMULATOR],
    tour: &[LEVEL_SIMULATOR],
    smallest: LEVEL_SIMULATOR,
    allowed: Allowed::Words,
};

/// The controllers that this kernel has, opened once for a run. Those that it has not are said.
#[derive(Debug, Default)]
pub struct Controllers(BTreeMap<&'static str, Controller>);

impl Controllers {
    /// Opens those of `words`.
    pub fn open(lab: &Lab<'_>, words: impl IntoIterator<Item = &'static str>) -> Controllers {
        let mut controllers = BTreeMap::new();
        let words: std::collections::BTreeSet<&str> = words.into_iter().collect();
        for word in words {
            match Controller::open(word) {
                Ok(controller) => drop(controllers.insert(word, controller)),
                Err(error) => lab.say(&format!("no row of this machine's kernel with {word}: {error:#}")),
            }
        }
        Controllers(controllers)
    }

    /// The one of that word, if this kernel has it.
    pub fn get(&self, word: &str) -> Option<&Controller> {
        self.0.get(word)
    }
}

/// Arm and round of what was measured, or was to be, and may not be judged. `axes` are the arms' own.
pub fn lost_rounds(table: &Table, axes: &[BTreeMap<String, String>], rounds_count: u32) -> Vec<(usize, u32)> {
    let is_there = |axis: &BTreeMap<String, String>, round: u32| {
        table
            .valid()
            .any(|row| row.backend == KERNEL && row.round == round && row.axis == *axis)
    };
    let rounds = (0..rounds_count).flat_map(|round| (0..axes.len()).map(move |index| (index, round)));
    rounds
        .filter(|(index, round)| !is_there(&axes[*index], *round))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{experiments::virtual_time::row_of, record::Validity};

    #[test]
    fn what_a_gate_spoiled_is_lost_and_what_was_measured_again_is_not() {
        let axis = |arm: &str| BTreeMap::from([("arm".to_owned(), arm.to_owned())]);
        let row = |arm: &str, round: u32, is_valid: bool| {
            let mut row = row_of(&[("arm", arm)], &[]);
            (row.backend, row.round) = (KERNEL.to_owned(), round);
            if !is_valid {
                row.validity = Validity::Invalid {
                    reasons: vec!["late".to_owned()],
                };
            }
            row
        };
        let mut table = Table {
            rows: vec![
                row("a", 0, true),
                row("a", 1, false),
                row("b", 0, false),
                row("b", 0, true),
            ],
            seed: 1,
        };
        let axes = [axis("a"), axis("b")];
        assert_eq!(lost_rounds(&table, &axes, 2), [(0, 1), (1, 1)]);
        table.rows.push(row("a", 1, true));
        assert_eq!(lost_rounds(&table, &axes, 2), [(1, 1)]);
    }
}
