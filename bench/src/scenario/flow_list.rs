//! A list of flows as CSV: who sends how much to whom, and when. Exported from any scenario, written by any program, and taken
//! by a scenario in the place of its loads.
//!
//! ```text
//!   start_ns,source,destination,bytes
//!   0,1,0,450000
//!   12500,2,0,450000
//! ```
//!
//! The unit of a time stands in its column's name: `s`, `ms`, `us`, `ns` or `ps`. Lines that begin with # say something to
//! people. Columns beyond the four are in [`COLUMNS`]; what answers a question belongs to a query and is asked for in rounds.

mod text;

#[cfg(test)]
mod tests;

use std::{fmt::Write, path::Path};

use dataplane_queue::SimTime;

use self::text::{Text, needed_columns};
use super::Problem;

/// A list of flows, in their order: the order is a part of what is simulated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowList {
    /// The flows.
    pub flows: Vec<ListedFlow>,
}

/// A row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedFlow {
    /// When it begins; of an answer, when it is asked for first.
    pub start: SimTime,
    /// The host that sends.
    pub source: u32,
    /// The host that receives.
    pub destination: u32,
    /// How much; of an answer, in each round. `None` is without end.
    pub bytes: Option<u64>,
    /// The scenario's load whose settings of TCP it has, by its place from 0.
    pub load: u32,
    /// The question that it answers, if it does.
    pub query: Option<ListedQuery>,
}

/// A question; every flow that answers it says the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedQuery {
    /// Its number: flows with the same one, which stand in a row, are asked for together.
    pub number: u32,
    /// How often it is asked.
    pub rounds_count: u32,
    /// Between the last answer and the next question.
    pub pause: SimTime,
    /// Each server answers later by a draw of up to this.
    pub jitter: SimTime,
    /// The frame that asks.
    pub request_bytes: u32,
    /// Each round has connections of its own.
    pub is_fresh: bool,
}

/// The columns that there are, times without their unit. The first four must be there; the others are empty or missing where
/// nothing is said.
pub const COLUMNS: &[&str] = &[
    "start",
    "source",
    "destination",
    "bytes",
    "load",
    "query",
    "rounds",
    "pause",
    "jitter",
    "request_bytes",
    "fresh",
];

/// How many of [`COLUMNS`] must be there.
const NEEDED_COUNT: usize = 4;

/// Those of them that are times.
const TIMES: &[&str] = &["start", "pause", "jitter"];

/// Units of times, and the power of ten of picoseconds in each.
const UNITS: &[(&str, u32)] = &[("s", 12), ("ms", 9), ("us", 6), ("ns", 3), ("ps", 0)];

/// A question's frame, where a list does not say.
const REQUEST_BYTES: u32 = 200;

/// Larger than any list that a simulation on one machine ends.
const FILE_BYTES_MAX: u64 = 256 << 20;

impl FlowList {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or something in it is wrong, with its place.
    pub fn read(path: &Path) -> anyhow::Result<FlowList> {
        use anyhow::Context;
        let what = || format!("reading the list of flows {}", path.display());
        let meta = std::fs::metadata(path).with_context(what)?;
        anyhow::ensure!(meta.is_file(), "{} is no file", path.display());
        anyhow::ensure!(
            meta.len() <= FILE_BYTES_MAX,
            "{} is larger than a list of flows may be, 256 MiB",
            path.display()
        );
        let source = std::fs::read_to_string(path).with_context(what)?;
        Ok(FlowList::parse(&path.display().to_string(), &source)?)
    }

    /// Reads a text. `path` is what messages call it.
    ///
    /// # Errors
    /// The first problem, with its place.
    pub fn parse(path: &str, source: &str) -> Result<FlowList, Problem> {
        let text = Text { path, source };
        let mut lines = text.lines();
        let header = lines.next().ok_or_else(|| text.problem(0..0, needed_columns()))?;
        let columns = text.columns(header)?;
        let mut list = FlowList::default();
        let mut last_query = None;
        for line in lines {
            let flow = text.flow(&columns, line.clone())?;
            text.belongs(&list, &flow, &mut last_query, line)?;
            list.flows.push(flow);
        }
        match list.flows.is_empty() {
            true => Err(text.problem(source.len()..source.len(), "there is no flow in this list")),
            false => Ok(list),
        }
    }

    /// Whether its hosts exist, and whether its loads do.
    ///
    /// # Errors
    /// A sentence about the first flow that cannot be.
    pub fn check(&self, hosts_count: u32, loads_count: usize) -> Result<(), String> {
        let last_host = hosts_count - 1;
        let last_load = loads_count.max(1) - 1;
        for (number, flow) in self.flows.iter().enumerate() {
            for host in [flow.source, flow.destination] {
                if host >= hosts_count {
                    return Err(format!(
                        "flow {number} of the list is from host {} to host {}, and this scenario's hosts are numbered from 0 to {last_host}",
                        flow.source, flow.destination
                    ));
                }
            }
            if flow.load as usize > last_load {
                return Err(format!(
                    "flow {number} of the list belongs to load {}, and this scenario's are numbered from 0 to {last_load}",
                    flow.load
                ));
            }
        }
        Ok(())
    }

    /// How many connections it takes.
    pub fn connections_count(&self) -> u64 {
        let rounds = |flow: &ListedFlow| match flow.query {
            Some(query) if query.is_fresh => u64::from(query.rounds_count),
            _ => 1,
        };
        self.flows.iter().map(rounds).sum()
    }

    /// As a file that [`FlowList::parse`] reads back to the same. `about` says where it is from, line by line.
    pub fn to_csv(&self, about: &[String]) -> String {
        let mut text = String::from("# dplab flow list, version 1\n");
        about.iter().for_each(|line| text.push_str(&format!("# {line}\n")));
        text.push_str(
            "# Virtual time. Hosts are numbered from 0. Bytes are payload, of an answer in each round; a flow without end has \
             \"endless\".\n",
        );
        let queries = || self.flows.iter().filter_map(|flow| flow.query);
        let times = self.flows.iter().map(|flow| flow.start);
        let mut times = times.chain(queries().flat_map(|query| [query.pause, query.jitter]));
        let (unit, ps) = match times.all(|time| time.as_ps().is_multiple_of(1_000)) {
            true => ("ns", 1_000),
            false => ("ps", 1),
        };
        let has_loads = self.flows.iter().any(|flow| flow.load > 0);
        let has_queries = queries().next().is_some();
        let mut names: Vec<String> = vec![
            format!("start_{unit}"),
            "source".into(),
            "destination".into(),
            "bytes".into(),
        ];
        if has_loads {
            names.push("load".into());
        }
        if has_queries {
            names.extend(["query".into(), "rounds".into(), format!("pause_{unit}")]);
            names.extend([format!("jitter_{unit}"), "request_bytes".into(), "fresh".into()]);
        }
        text.push_str(&names.join(","));
        text.push('\n');
        for flow in &self.flows {
            let _ = write!(
                text,
                "{},{},{},",
                flow.start.as_ps() / ps,
                flow.source,
                flow.destination
            );
            let _ = match flow.bytes {
                Some(bytes) => write!(text, "{bytes}"),
                None => write!(text, "{ENDLESS}"),
            };
            if has_loads {
                let _ = write!(text, ",{}", flow.load);
            }
            let _ = match flow.query {
                Some(query) => write!(
                    text,
                    ",{},{},{},{},{},{}",
                    query.number,
                    query.rounds_count,
                    query.pause.as_ps() / ps,
                    query.jitter.as_ps() / ps,
                    query.request_bytes,
                    if query.is_fresh { "yes" } else { "no" }
                ),
                None if has_queries => write!(text, ",,,,,,"),
                None => Ok(()),
            };
            text.push('\n');
        }
        text
    }
}

/// In the place of a number of bytes.
const ENDLESS: &str = "endless";
