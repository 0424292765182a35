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

pub use network::{shape, widen_buffers};
pub use sender::Sender;
pub use series::{Summary, keep};
pub use simulated::simulate;
pub use trial::{Ends, Trial};

use crate::{
    experiment::{Allowed, Axis, Lab},
    traffic::Controller,
};

/// Of rows: the kernel's TCP; the simulator's is `virtual_time::BACKEND`.
pub const KERNEL: &str = "kernel-tcp";
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
