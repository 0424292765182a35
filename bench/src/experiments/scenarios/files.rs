//! The files that a scenario's run leaves beside its row, each with a head that says what was simulated.

use std::{fs, path::PathBuf};

use anyhow::Context;
use dataplane_sim::SimTime;

use crate::{
    experiment::{Axis, Lab},
    packet_sim::{Flow, FlowKind, OBSERVED_FLOWS_MAX, Observer, Point, Series, Setup, Trace},
    scenario::{file::ScenarioFile, flow_list::FlowList},
    sim_args::SeriesFormat,
};

/// Folders in a run's folder.
const FLOWS_FOLDER: &str = "flows";
const TRACES_FOLDER: &str = "traces";
const SERIES_FOLDER: &str = "series";

/// Where the files of one run go, and what their heads say.
#[derive(Debug)]
pub(super) struct Files {
    stem: String,
    about: String,
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
            about,
        }
    }

    /// Writes what is sent, if that was asked for.
    pub fn flows(&self, lab: &Lab<'_>, list: impl FnOnce() -> FlowList) -> anyhow::Result<()> {
        if !lab.choice.sim.flows_out {
            return Ok(());
        }
        let text = list().to_csv(std::slice::from_ref(&self.about));
        self.write(lab, FLOWS_FOLDER, ".csv", text.as_bytes())
    }

    /// Whoever looks at the run, as was asked for.
    pub fn observer(&self, lab: &Lab<'_>, setup: &Setup) -> anyhow::Result<Observer> {
        let sim = &lab.choice.sim;
        let every = match (sim.series, sim.series_every) {
            (None, _) => SimTime::ZERO,
            (Some(_), Some(every)) => SimTime::from_ns(every.as_nanos() as u64),
            // Whole microseconds, so that the file's times are exact. Only endless flows are sure to fill the horizon.
            (Some(_), None) => {
                let is_endless = |flow: &Flow| matches!(flow.kind, FlowKind::Endless { .. });
                let most_us = if setup.flows.iter().any(is_endless) {
                    u64::MAX
                } else {
                    1_000
                };
                SimTime::from_us((setup.horizon.as_ns() / 1_000 / 2_000).clamp(1, most_us))
            }
        };
        let mut observer = Observer::every(every);
        if let Some(options) = &sim.trace {
            let path = self.path(lab, TRACES_FOLDER, ".pcapng")?;
            let trace = Trace::create(&path, setup, options, &self.about);
            observer.trace = Some(trace.with_context(|| format!("the trace {}", path.display()))?);
        }
        Ok(observer)
    }

    /// Writes what was seen.
    pub fn observed(&self, lab: &Lab<'_>, setup: &Setup, mut observer: Observer) -> anyhow::Result<()> {
        if let Some(trace) = observer.trace.take() {
            let path = self.path(lab, TRACES_FOLDER, ".pcapng")?;
            let counts = trace.finish().with_context(|| format!("writing {}", path.display()))?;
            let cut = match counts.cut_count {
                0 => String::new(),
                more => format!(", and {more} more that passed are not in it: --trace-packets sets how many are"),
            };
            lab.say(&format!(
                "Trace: {}, {} packets{cut}",
                path.display(),
                counts.written_count
            ));
        }
        let Some(format) = lab.choice.sim.series else {
            return Ok(());
        };
        let link = &setup.topology.links[setup.watched_link as usize];
        let mut about = vec![
            self.about.clone(),
            format!("virtual time, a value every {} ns", observer.every.as_ns()),
        ];
        if observer.is_full() {
            about.push("cut: the run went on when as many values were taken as are kept".to_owned());
        }
        let with = |line: String| about.iter().cloned().chain([line]).collect();
        let queue = with(format!(
            "the queue before link {}, node {} to node {} (hosts are nodes 0 to {}): what waits, without what is on the wire",
            setup.watched_link,
            link.from,
            link.to,
            setup.topology.hosts_count - 1
        ));
        let flows = with(format!(
            "of each of the first {OBSERVED_FLOWS_MAX} flows: the controller's window, what is thought to be in the network, the \
             smoothed round trip (0 before the first)"
        ));
        for (kind, series) in [
            ("queue", Series::of_queue(&observer, queue)),
            ("flows", Series::of_flows(&observer, flows)),
        ] {
            let (bytes, ending) = match format {
                SeriesFormat::Csv => (series.to_csv().into_bytes(), "csv"),
                SeriesFormat::Parquet => (series.to_parquet()?, "parquet"),
            };
            self.write(lab, SERIES_FOLDER, &format!(".{kind}.{ending}"), &bytes)?;
        }
        Ok(())
    }

    fn path(&self, lab: &Lab<'_>, folder: &str, ending: &str) -> anyhow::Result<PathBuf> {
        let folder = lab.folder.path().join(folder);
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        Ok(folder.join(format!("{}{ending}", self.stem)))
    }

    fn write(&self, lab: &Lab<'_>, folder: &str, ending: &str, bytes: &[u8]) -> anyhow::Result<()> {
        self.path(lab, folder, ending)?;
        let path = lab
            .folder
            .write_file(format!("{folder}/{}{ending}", self.stem), bytes)?;
        lab.say(&format!("Wrote {}", path.display()));
        Ok(())
    }
}
