//! The files that a scenario's run leaves beside its row, each with a head that says what was simulated.

use std::fs;

use anyhow::Context;

use crate::{
    experiment::{Axis, Lab},
    packet_sim::Point,
    scenario::{file::ScenarioFile, flow_list::FlowList},
};

/// Folder of lists of flows, in a run's folder.
const FLOWS_FOLDER: &str = "flows";

/// Where the files of one run go, and what their heads say.
#[derive(Debug)]
pub(super) struct Files {
    stem: String,
    about: Vec<String>,
}

impl Files {
    pub fn new(
        lab: &Lab<'_>,
        id: &str,
        file: &ScenarioFile,
        point: Point<'_>,
        varied: Option<&Axis>,
        seed: u64,
    ) -> Files {
        let mut stem = id.to_owned();
        let mut about = format!("scenario {id}, sha256 {}", file.sha256);
        if let Some(arm) = point.arm {
            stem.push_str(&format!(".{}", arm.name));
            about.push_str(&format!(", arm {}", arm.name));
        }
        if let (Some(varied), Some(value)) = (varied, point.value) {
            stem.push_str(&format!(".{}={value}", varied.name));
            about.push_str(&format!(", {} {value}", varied.name));
        }
        about.push_str(&format!(", seed {seed}"));
        if lab.choice.sim.flows.is_some() {
            about.push_str(", with the flows of a list");
        }
        let tame = |c: char| {
            if c.is_alphanumeric() || ".-_=".contains(c) {
                c
            } else {
                '_'
            }
        };
        Files {
            stem: stem.chars().map(tame).collect(),
            about: vec![about],
        }
    }

    /// Writes what is sent, if that was asked for.
    pub fn flows(&self, lab: &Lab<'_>, list: &FlowList) -> anyhow::Result<()> {
        if !lab.choice.sim.flows_out {
            return Ok(());
        }
        let folder = lab.folder.path().join(FLOWS_FOLDER);
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let name = format!("{FLOWS_FOLDER}/{}.csv", self.stem);
        let path = lab.folder.write_file(&name, list.to_csv(&self.about).as_bytes())?;
        lab.say(&format!("Flows: {}", path.display()));
        Ok(())
    }
}
