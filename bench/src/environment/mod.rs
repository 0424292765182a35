//! The machine a measurement was taken on, and what about it makes measurements noisy.
//!
//! ```text
//! /proc /sys ─▶ sysfs (reads) ─▶ parse (pure) ─▶ facts, nic ─▶ map of facts ─▶ noise (pure) ─▶ render
//!                                                hiccups (asks the clock) ──┘
//! ```
//!
//! Nothing here needs root, panics on what a kernel writes, or guesses: what could not be read is absent. A noise source
//! is derived from facts alone, so whoever reads a record can check it.

pub mod build;
pub mod cpu_times;
pub mod facts;
pub mod hiccups;
mod nic;
mod noise;
mod parse;
mod render;
pub mod sysfs;

use std::{collections::BTreeMap, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use cpu_times::{CpuTimes, steal_ratio};
pub use noise::sources;
pub use render::render_probe;
use sysfs::Sysfs;

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

/// How long the jitter probe spins on each CPU it tries.
pub const HICCUPS_PER_CPU: Duration = Duration::from_millis(200);
/// CPUs that [`capture`] tries at most, so that it ends within two seconds on a machine of any size.
pub const HICCUPS_CPUS_MAX: usize = 8;

/// Looks at this machine: reads the facts, spins [`HICCUPS_PER_CPU`] on up to [`HICCUPS_CPUS_MAX`] of the CPUs that this
/// process may use (isolated ones first), and names the noise. `interfaces` are described beside the physical ones; names that are not there
/// are left out.
pub fn capture(interfaces: &[String]) -> Environment {
    let machine = Sysfs::new("/");
    let mut facts = facts::read(&machine, interfaces);
    nic::offloads(&mut facts);
    let cpus: Vec<usize> = facts::cpus_usable(&facts).into_iter().take(HICCUPS_CPUS_MAX).collect();
    hiccups::record(
        &hiccups::on_cpus(&cpus, HICCUPS_PER_CPU),
        hiccups::sleep_lateness(hiccups::SLEEPS_COUNT, hiccups::SLEEP),
        &mut facts,
    );
    let noise = noise::sources(&facts);
    Environment { facts, noise }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_can_be_captured_and_survives_the_record() {
        let environment = capture(&["lo".into(), "no-such-interface".into(), "../../proc".into()]);
        for name in [
            "kernel",
            "cpus_online",
            "load_average",
            "nic_lo_mtu_bytes",
            "build_profile",
        ] {
            assert!(
                environment.facts.contains_key(name),
                "{name} is missing: {environment:?}"
            );
        }
        assert!(
            !environment
                .facts
                .keys()
                .any(|name| name.contains("no-such") || name.contains(".."))
        );
        let json = serde_json::to_string(&environment).expect("facts are strings");
        assert_eq!(
            serde_json::from_str::<Environment>(&json).expect("its own text"),
            environment
        );
    }

    #[test]
    fn a_noise_source_names_itself_once() {
        let environment = capture(&[]);
        let mut names: Vec<_> = environment.noise.iter().map(|source| &source.name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), environment.noise.len(), "{:?}", environment.noise);
    }
}
