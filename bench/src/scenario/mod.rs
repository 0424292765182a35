//! Scenarios: a network, what its hosts do, and what a paper says comes of it, in a file that anybody can write.
//!
//! ```text
//!   TOML ─▶ ScenarioFile ─▶ checked ─▶ one Setup for each arm and value ─▶ crate::packet_sim ─▶ a row
//! ```
//!
//! What is wrong with a file is said with its line, its column, and what would do ([`Problem`]), before anything runs.

mod check;
mod embedded;
pub mod file;
pub mod flow_list;
pub(crate) mod memory;
mod problem;
pub mod units;

use std::{path::Path, sync::Arc};

pub use embedded::{EMBEDDED, Embedded, embedded};
pub use problem::Problem;

use file::ScenarioFile;
use flow_list::FlowList;
use sha2::{Digest, Sha256};

/// Names that a paper's figure may be compared with: what every run of a scenario measures.
pub const METRICS: &[&str] = &[
    "goodput_mbit_per_sec",
    "query_ms_mean",
    "query_ms_p50",
    "query_ms_p95",
    "query_ms_p99",
    "timeout_queries_percent",
    "long_goodput_mbit_per_sec",
    "long_first_mbit_per_sec",
    "long_last_mbit_per_sec",
    "converged_ms",
    "loss_percent",
    "long_loss_percent",
    "queue_packets_p50",
    "queue_packets_p99",
    "queue_packets_max",
    "rtt_us_mean",
    "long_rtt_ms_p50",
    "fct_ms_p50",
    "fct_ms_p99",
    "fct_ms_max",
    "fairness",
];

impl ScenarioFile {
    /// Reads and checks the text of a file. `path` is what messages call it.
    ///
    /// # Errors
    /// The first problem, with its place.
    pub fn parse(path: &str, source: &str) -> Result<ScenarioFile, Problem> {
        let mut file: ScenarioFile =
            toml::from_str(source).map_err(|error| Problem::from_toml(path, source, &error))?;
        file.sha256 = Sha256::digest(source)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        check::Checker { path, source }.check(&file)?;
        Ok(file)
    }

    /// How many hosts its network has.
    pub fn hosts_count(&self) -> u32 {
        let checker = check::Checker { path: "", source: "" };
        // It was checked when the file was read.
        checker.topology(&self.topology).unwrap_or(0)
    }

    /// Puts a list of flows in the place of what the loads send.
    ///
    /// # Errors
    /// A sentence about a flow that this network or memory has no room for.
    pub fn take_list(&mut self, list: FlowList) -> Result<(), String> {
        list.check(self.hosts_count(), self.load.len())?;
        self.list = Some(Arc::new(list));
        memory::refuse(memory::estimate(self, self.hosts_count()))
    }

    /// Reads and checks a file.
    ///
    /// # Errors
    /// As [`ScenarioFile::parse`], or the file could not be read.
    pub fn read(path: &Path) -> anyhow::Result<ScenarioFile> {
        use anyhow::Context;
        /// Larger than any list of flows that a person writes; a device file never ends.
        const BYTES_MAX: u64 = 64 << 20;
        let what = || format!("reading the scenario {}", path.display());
        let meta = std::fs::metadata(path).with_context(what)?;
        anyhow::ensure!(meta.is_file(), "{} is no file", path.display());
        anyhow::ensure!(
            meta.len() <= BYTES_MAX,
            "{} is larger than a scenario may be, 64 MiB",
            path.display()
        );
        let source = std::fs::read_to_string(path).with_context(what)?;
        let name = path.display().to_string();
        let mut file = ScenarioFile::parse(&name, &source)?;
        if let Some(flows) = file.flows.clone() {
            let problem = |message: String| Problem::at(&name, &source, flows.span(), message);
            let beside = path.parent().unwrap_or(Path::new("")).join(flows.get_ref());
            let list = FlowList::read(&beside).map_err(|error| match error.downcast::<Problem>() {
                // It has a place of its own.
                Ok(within) => within,
                Err(error) => problem(format!("{error:#}")),
            })?;
            file.take_list(list).map_err(problem)?;
        }
        Ok(file)
    }
}

/// The JSON Schema (draft 2020-12) of a scenario file, for editors.
pub fn scenario_schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(ScenarioFile);
    schema.insert("title".into(), "dplab scenario, version 1".into());
    schema.to_value()
}

/// Where the schema of this build is published, from the workspace's root.
pub const SCENARIO_SCHEMA_FILE: &str = "docs/schema/scenario.v1.schema.json";

#[cfg(test)]
mod tests;
