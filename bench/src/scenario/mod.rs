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
pub(crate) mod memory;
mod problem;
pub mod units;

use std::path::Path;

pub use embedded::{EMBEDDED, Embedded, embedded};
pub use problem::Problem;

use file::ScenarioFile;

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
        let file: ScenarioFile = toml::from_str(source).map_err(|error| Problem::from_toml(path, source, &error))?;
        check::Checker { path, source }.check(&file)?;
        Ok(file)
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
        Ok(ScenarioFile::parse(&path.display().to_string(), &source)?)
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
