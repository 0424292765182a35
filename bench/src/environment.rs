//! The machine a measurement was taken on, and what about it makes measurements noisy.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is known of the machine. Facts that could not be read are absent from the map, not guessed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Environment {
    /// `kernel`, `cmdline`, `cpu_model`, `cpus_online`, `governor`, `smt`, `clock_source`, `hypervisor`, `thp`, …:
    /// names are stable, values are the kernel's own words.
    pub facts: BTreeMap<String, String>,
    /// What makes measurements noisy here, worst first.
    pub noise: Vec<NoiseSource>,
}

/// Something that makes measurements noisy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NoiseSource {
    /// Short name: `governor`, `smt`, `steal`, `load`, `thp`, `irq`, `capability`.
    pub name: String,
    /// What was seen.
    pub seen: String,
    /// Why it matters to a latency.
    pub why: String,
    /// The command or step that mends it, if there is one.
    pub mend: Option<String>,
}
