//! What a user may want of simulated runs beside their rows: other flows, and files about what happened.

use std::{path::PathBuf, sync::Arc, time::Duration};

use clap::{Args, ValueEnum};

use crate::{
    packet_sim::{TraceOptions, TracePlace},
    scenario::flow_list::FlowList,
};

/// What `run` takes for scenarios.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Scenarios in virtual time")]
pub struct SimArgs {
    /// Send what stands in this list (CSV) instead of what the scenario's loads say
    #[arg(long, value_name = "FILE.csv")]
    pub flows: Option<PathBuf>,
    /// Write what each run sends as a list that --flows takes: flows/*.csv in the run's folder
    #[arg(long)]
    pub flows_out: bool,
    /// Write the packets that pass these places as traces/*.pcapng, for Wireshark: host=3, link=17, or queue, the link whose
    /// queue the scenario looks at
    #[arg(long, value_name = "PLACE,…", value_delimiter = ',', value_parser = parse_place)]
    pub trace: Vec<TracePlace>,
    /// Packets in a trace, at most; how many more there were is said [default: 100000]
    #[arg(long, value_name = "N", requires = "trace", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub trace_packets: Option<u64>,
    /// Bytes kept of each packet; what is cut off simulated TCP is zeros [default: 128]
    #[arg(long, value_name = "N", requires = "trace", value_parser = clap::value_parser!(u32).range(14..=65_535))]
    pub snap_bytes: Option<u32>,
    /// Write the depth of the queue, and the first 64 flows' windows, over time: series/*
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub series: Option<SeriesFormat>,
    /// Virtual time between two values of a series: 100us, 1ms [default: a 2000th of the horizon, and
    /// at most 1 ms where no flow is endless]
    #[arg(long, value_name = "TIME", requires = "series", value_parser = parse_every)]
    pub series_every: Option<Duration>,
}

/// How a series is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SeriesFormat {
    /// Text with commas
    Csv,
    /// Apache Parquet, in a build with --features parquet
    Parquet,
}

/// The same, read and checked.
#[derive(Clone, Debug, Default)]
pub struct SimChoice {
    /// In the place of the loads.
    pub flows: Option<Arc<FlowList>>,
    /// Lists are written.
    pub flows_out: bool,
    /// Traces are written.
    pub trace: Option<TraceOptions>,
    /// Series are written.
    pub series: Option<SeriesFormat>,
    /// Between two values of a series.
    pub series_every: Option<Duration>,
}

const TRACE_PACKETS: u64 = 100_000;
/// Headers with all options, and the beginning of a payload.
const SNAP_BYTES: u32 = 128;

impl SimArgs {
    /// Is anything of it said, and what?
    pub fn first_said(&self) -> Option<&'static str> {
        let said = [
            ("--flows", self.flows.is_some()),
            ("--flows-out", self.flows_out),
            ("--trace", !self.trace.is_empty()),
            ("--series", self.series.is_some()),
        ];
        said.into_iter().find(|(_, is_said)| *is_said).map(|(name, _)| name)
    }

    /// Reads what is named.
    ///
    /// # Errors
    /// What is wrong with the list of flows, with its place; or a format that this build has not.
    pub fn read(&self) -> anyhow::Result<SimChoice> {
        anyhow::ensure!(
            self.series != Some(SeriesFormat::Parquet) || cfg!(feature = "parquet"),
            "this dplab was built without Parquet: build it with --features parquet, or take --series csv"
        );
        let flows = self.flows.as_deref().map(FlowList::read).transpose()?;
        let trace = (!self.trace.is_empty()).then(|| TraceOptions {
            places: self.trace.clone(),
            packets_max: self.trace_packets.unwrap_or(TRACE_PACKETS),
            snap_bytes: self.snap_bytes.unwrap_or(SNAP_BYTES),
        });
        Ok(SimChoice {
            flows: flows.map(Arc::new),
            flows_out: self.flows_out,
            trace,
            series: self.series,
            series_every: self.series_every,
        })
    }
}

fn parse_place(text: &str) -> Result<TracePlace, String> {
    let number = |number: &str| number.parse::<u32>().ok();
    let place = match text.split_once('=') {
        None if text == "queue" => Some(TracePlace::Queue),
        Some(("host", host)) => number(host).map(TracePlace::Host),
        Some(("link", link)) => number(link).map(TracePlace::Link),
        _ => None,
    };
    place.ok_or_else(|| "write host=NUMBER, link=NUMBER or queue".to_owned())
}

fn parse_every(text: &str) -> Result<Duration, String> {
    let every = humantime::parse_duration(text).map_err(|error| format!("{error}; write it like 100us or 1ms"))?;
    match (Duration::from_nanos(100)..=Duration::from_secs(3_600)).contains(&every) {
        true => Ok(every),
        false => Err("from 100ns to 1h".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_times_are_understood_or_answered() {
        assert_eq!(parse_place("host=3"), Ok(TracePlace::Host(3)));
        assert_eq!(parse_place("link=17"), Ok(TracePlace::Link(17)));
        assert_eq!(parse_place("queue"), Ok(TracePlace::Queue));
        for text in ["host", "host=", "hosts=1", "link=-1", ""] {
            assert!(parse_place(text).expect_err(text).contains("host=NUMBER"));
        }
        assert_eq!(parse_every("100us"), Ok(Duration::from_micros(100)));
        assert!(parse_every("1").is_err() && parse_every("1ns").is_err());
    }
}
