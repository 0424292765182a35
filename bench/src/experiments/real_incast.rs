//! `real-incast`: the incast of a real kernel over an emulated switch, and of the simulator, from one scenario file. Who moves the
//! number of servers at which throughput collapses: the controller, the tail loss probe, or the least retransmission timeout?

mod claims;
mod kernel;
mod simulated;

use std::collections::BTreeMap;

use anyhow::Context;

use crate::{
    claim::Claim,
    experiment::{Allowed, Axis, Depth, Experiment, Lab},
    experiments::kernel_tcp::{KERNEL, LEVEL, LEVEL_KERNEL, LEVEL_SIMULATOR, OWN_NETWORK},
    order,
    scenario::file::ScenarioFile,
};

use kernel::Ground;

/// See the module.
#[derive(Debug)]
pub struct RealIncast;

const FILE: &str = include_str!("../../scenarios/real-incast.toml");

const ID: &str = "real-incast";
const GOODPUT: &str = "goodput_mbit_per_sec";
const TIMEOUTS: &str = "timeouts";
const QUERIES: &str = "queries";

/// As in the file.
const ARM: Axis = Axis {
    name: "arm",
    meaning: "congestion controller, tail loss probes or none, and the least retransmission timeout",
    full: &[
        "cubic-tlp-200ms",
        "cubic-tlp-floor",
        "cubic-no-tlp-200ms",
        "cubic-no-tlp-floor",
        "reno-tlp-200ms",
        "reno-tlp-floor",
        "reno-no-tlp-200ms",
        "reno-no-tlp-floor",
        "bbr-tlp-200ms",
        "bbr-tlp-floor",
        "bbr-no-tlp-200ms",
        "bbr-no-tlp-floor",
        "dctcp-tlp-200ms",
        "dctcp-tlp-floor",
        "dctcp-no-tlp-200ms",
        "dctcp-no-tlp-floor",
    ],
    tour: &["cubic-tlp-200ms", "cubic-no-tlp-200ms"],
    smallest: "cubic-tlp-200ms",
    allowed: Allowed::Words,
};

/// As in the file.
const SERVERS: Axis = Axis {
    name: "servers",
    meaning: "hosts that answer one question at the same time",
    full: &["1", "2", "4", "8", "16", "32", "64"],
    tour: &["1", "4", "8"],
    smallest: "4",
    allowed: Allowed::Number(1.0, 64.0),
};

/// One point of the ladder.
#[derive(Clone, Debug)]
struct Cell {
    arm: String,
    servers_count: usize,
}

impl Cell {
    fn axis(&self, level: &str) -> BTreeMap<String, String> {
        BTreeMap::from([
            (LEVEL.name.to_owned(), level.to_owned()),
            (ARM.name.to_owned(), self.arm.clone()),
            (SERVERS.name.to_owned(), self.servers_count.to_string()),
        ])
    }
}

impl Experiment for RealIncast {
    fn id(&self) -> &'static str {
        ID
    }

    fn title(&self) -> &'static str {
        "Incast on this machine's kernel"
    }

    fn question(&self) -> &'static str {
        "On a real kernel: does the tail loss probe, the least timeout or the controller decide how many servers may answer at once?"
    }

    fn how(&self) -> &'static str {
        "A client asks n servers at once for 250 KB together, and asks again when the last answer is complete. Every host is a network \
         namespace with a line of 100 Mbit/s of its own; the switch between them is emulated and holds 32 KB for the client. One thread \
         drives all sockets. The simulator runs the same file."
    }

    fn axes(&self) -> &'static [Axis] {
        &[LEVEL, ARM, SERVERS]
    }

    fn backends(&self) -> Vec<&'static str> {
        Vec::new()
    }

    fn claims(&self) -> &'static [Claim] {
        claims::CLAIMS
    }

    fn tour_weight(&self) -> f64 {
        0.0
    }

    fn has_queue_log(&self) -> bool {
        true
    }

    fn own_network(&self) -> Option<&'static str> {
        Some(OWN_NETWORK)
    }

    fn needs_one_machine(&self) -> Option<&'static str> {
        Some("its hosts are network namespaces of this machine")
    }

    fn run(&self, lab: &mut Lab<'_>) -> anyhow::Result<()> {
        let mut file =
            ScenarioFile::parse("real-incast.toml", FILE).context("reading the scenario that comes along")?;
        if lab.choice.depth != Depth::Full {
            simulated::shorten(&mut file);
        }
        let levels = lab.values(&LEVEL);
        let cells = cells(lab);
        if levels.iter().any(|level| level == LEVEL_SIMULATOR) {
            simulated::run(lab, &file, &cells)?;
        }
        if !levels.iter().any(|level| level == LEVEL_KERNEL) || lab.interrupted() {
            return Ok(());
        }
        if let Some(ground) = Ground::prepare(lab, &file, &cells)? {
            ground.run(lab, &file, &cells)?;
        }
        // Which arms are above which is what a busy machine can repeat.
        for line in order::text(&order::orders(&lab.table)).lines() {
            lab.say(line);
        }
        Ok(())
    }
}

fn cells(lab: &Lab<'_>) -> Vec<Cell> {
    let servers = lab.numbers(&SERVERS);
    let of_arm = |arm: String| {
        let counts = servers.iter().map(|count| *count as usize);
        counts.map(move |servers_count| Cell {
            arm: arm.clone(),
            servers_count,
        })
    };
    lab.values(&ARM).into_iter().flat_map(of_arm).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::file::Varied;

    /// Neither has a value that the other lacks.
    #[test]
    fn the_experiment_and_its_file_agree() {
        let file = ScenarioFile::parse("real-incast.toml", FILE).expect("a good file");
        let arms: Vec<&str> = file.arm.iter().map(|arm| arm.name.as_str()).collect();
        assert_eq!(ARM.full, arms);
        let vary = file.vary.as_ref().expect("something is varied");
        assert_eq!(vary.what, Varied::Servers);
        let values: Vec<String> = vary.values.get_ref().iter().map(ToString::to_string).collect();
        assert_eq!(SERVERS.full, values);
        for arm in &file.arm {
            let floor = std::time::Duration::from_millis(8);
            let known = kernel::sender(&file, &arm.name, floor).expect("the kernel can be told of it");
            assert!(arm.name.starts_with(known.controller), "{}", arm.name);
            assert_eq!(known.ablation.tlp, !arm.name.contains("-no-tlp"), "{}", arm.name);
        }
    }
}
