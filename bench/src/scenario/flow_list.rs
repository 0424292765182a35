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

use std::{fmt::Write, ops::Range, path::Path};

use dataplane_queue::SimTime;

use super::Problem;
use crate::advice::advice;

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

fn needed_columns() -> String {
    format!(
        "a list of flows begins with the names of its columns, as in start_ns,source,destination,bytes; known: {}",
        known_columns().join(", ")
    )
}

/// The names as they may stand in a file.
fn known_columns() -> Vec<String> {
    let with_unit = |name: &&str| match TIMES.contains(name) {
        true => format!("{name}_ns"),
        false => (*name).to_owned(),
    };
    COLUMNS.iter().map(with_unit).collect()
}

/// A column of a file: which of [`COLUMNS`], and the power of ten of picoseconds of its unit.
#[derive(Clone, Copy, Debug)]
struct Column {
    kind: usize,
    exponent: u32,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
struct Cell<'a> {
    text: &'a str,
    span: Range<usize>,
}

/// A file, for messages that point into it.
struct Text<'a> {
    path: &'a str,
    source: &'a str,
}

impl<'a> Text<'a> {
    fn problem(&self, span: Range<usize>, message: impl Into<String>) -> Problem {
        Problem::at(self.path, self.source, span, message)
    }

    /// The lines that say something, by where they stand.
    fn lines(&self) -> impl Iterator<Item = Range<usize>> + use<'a> {
        let source = self.source;
        let mut begin = 0;
        let all = source.split_inclusive('\n').map(move |line| {
            let start = begin;
            begin += line.len();
            start..start + line.trim_end().len()
        });
        all.filter(move |line| {
            let text = source[line.clone()].trim();
            !text.is_empty() && !text.starts_with('#')
        })
    }

    /// The values of a line.
    fn cells(&self, line: Range<usize>) -> impl Iterator<Item = Cell<'a>> + use<'a> {
        let mut begin = line.start;
        self.source[line].split(',').map(move |part| {
            let start = begin + (part.len() - part.trim_start().len());
            begin += part.len() + 1;
            let text = part.trim();
            Cell {
                text,
                span: start..start + text.len(),
            }
        })
    }

    fn columns(&self, header: Range<usize>) -> Result<Vec<Column>, Problem> {
        let mut columns: Vec<Column> = Vec::new();
        for cell in self.cells(header.clone()) {
            let column = self.column(&cell)?;
            if columns.iter().any(|before| before.kind == column.kind) {
                return Err(self.problem(cell.span, format!("a second column {:?}", COLUMNS[column.kind])));
            }
            columns.push(column);
        }
        for (kind, name) in COLUMNS.iter().enumerate().take(NEEDED_COUNT) {
            if !columns.iter().any(|column| column.kind == kind) {
                let name = if TIMES.contains(name) {
                    format!("{name}_ns")
                } else {
                    (*name).to_owned()
                };
                return Err(self.problem(header, format!("there is no column {name}; {}", needed_columns())));
            }
        }
        Ok(columns)
    }

    fn column(&self, cell: &Cell<'_>) -> Result<Column, Problem> {
        let plain = COLUMNS.iter().position(|name| *name == cell.text);
        if let Some(kind) = plain.filter(|kind| !TIMES.contains(&COLUMNS[*kind])) {
            return Ok(Column { kind, exponent: 0 });
        }
        if let Some((name, unit)) = cell.text.rsplit_once('_')
            && let Some(kind) = COLUMNS.iter().position(|known| *known == name && TIMES.contains(known))
        {
            let found = UNITS.iter().find(|(known, _)| *known == unit);
            let units: Vec<&str> = UNITS.iter().map(|(known, _)| *known).collect();
            let (_, exponent) = *found.ok_or_else(|| {
                let message = format!("{unit:?} is no unit of time here; {}", advice(unit, units));
                self.problem(cell.span.clone(), message)
            })?;
            return Ok(Column { kind, exponent });
        }
        let known = known_columns();
        let message = match plain {
            Some(_) => format!("{:?} has no unit: write {0}_ns, {0}_us, …", cell.text),
            None => {
                let known = known.iter().map(String::as_str);
                format!(
                    "there is no column {:?} in a list of flows; {}",
                    cell.text,
                    advice(cell.text, known)
                )
            }
        };
        Err(self.problem(cell.span.clone(), message))
    }

    fn flow(&self, columns: &[Column], line: Range<usize>) -> Result<ListedFlow, Problem> {
        let mut cells: [Option<(Cell<'a>, u32)>; COLUMNS.len()] = Default::default();
        let mut count = 0;
        for cell in self.cells(line.clone()) {
            if let Some(column) = columns.get(count) {
                cells[column.kind] = Some((cell, column.exponent)).filter(|(cell, _)| !cell.text.is_empty());
            }
            count += 1;
        }
        if count != columns.len() {
            let message = format!("{count} values, and there are {} columns", columns.len());
            return Err(self.problem(line, message));
        }
        for (kind, name) in COLUMNS.iter().enumerate().take(NEEDED_COUNT) {
            if cells[kind].is_none() {
                return Err(self.problem(line, format!("this flow has no {name}")));
            }
        }
        let [
            start,
            source,
            destination,
            bytes,
            load,
            query,
            rounds,
            pause,
            jitter,
            request_bytes,
            fresh,
        ] = &cells;
        let (source_host, destination_host) = (self.number(source)?, self.number(destination)?);
        if let Some(host) = source_host.filter(|_| source_host == destination_host) {
            let span = destination.as_ref().map_or(line.clone(), |(cell, _)| cell.span.clone());
            let message = format!("a flow from host {host} to itself: choose two hosts");
            return Err(self.problem(span, message));
        }
        let flow = ListedFlow {
            start: self.time(start)?.unwrap_or(SimTime::ZERO),
            source: source_host.unwrap_or(0),
            destination: destination_host.unwrap_or(0),
            bytes: self.bytes(bytes)?,
            load: self.number(load)?.unwrap_or(0),
            query: None,
        };
        let Some(number) = self.number(query)? else {
            let mut said = [rounds, pause, jitter, request_bytes, fresh].into_iter().flatten();
            if let Some((cell, _)) = said.next() {
                let message = "this belongs to a question, and the flow answers none: its column `query` is empty";
                return Err(self.problem(cell.span.clone(), message));
            }
            return Ok(flow);
        };
        if flow.bytes.is_none() {
            return Err(self.problem(line, "an answer without end: nobody could ask again"));
        }
        let rounds_count = self.number(rounds)?.unwrap_or(1);
        if rounds_count == 0 {
            return Err(self.problem(line, "0 rounds: nothing would be sent"));
        }
        let query = ListedQuery {
            number,
            rounds_count,
            pause: self.time(pause)?.unwrap_or(SimTime::ZERO),
            jitter: self.time(jitter)?.unwrap_or(SimTime::ZERO),
            request_bytes: self.number(request_bytes)?.unwrap_or(REQUEST_BYTES),
            is_fresh: self.is_fresh(fresh)?,
        };
        Ok(ListedFlow {
            query: Some(query),
            ..flow
        })
    }

    /// Flows that answer one question stand in a row and agree about it.
    fn belongs(
        &self,
        list: &FlowList,
        flow: &ListedFlow,
        last: &mut Option<u32>,
        line: Range<usize>,
    ) -> Result<(), Problem> {
        let Some(query) = flow.query else { return Ok(()) };
        let before = list
            .flows
            .last()
            .filter(|before| before.query.is_some_and(|before| before.number == query.number));
        match before {
            Some(before) => {
                let same = ListedFlow {
                    source: flow.source,
                    ..*before
                };
                if same != *flow {
                    let message = format!(
                        "flows that answer query {} differ in more than their source, which they may not",
                        query.number
                    );
                    return Err(self.problem(line, message));
                }
            }
            None => {
                if let Some(least) = last.filter(|last| query.number <= *last) {
                    let message = format!(
                        "query {} comes after query {least}: number them upwards, and let flows of one stand in a row",
                        query.number
                    );
                    return Err(self.problem(line, message));
                }
                *last = Some(query.number);
            }
        }
        Ok(())
    }

    fn number(&self, cell: &Option<(Cell<'_>, u32)>) -> Result<Option<u32>, Problem> {
        let Some((cell, _)) = cell else { return Ok(None) };
        let message = || format!("{:?} is no whole number up to {}", cell.text, u32::MAX);
        let number = cell
            .text
            .parse()
            .map_err(|_| self.problem(cell.span.clone(), message()))?;
        Ok(Some(number))
    }

    fn bytes(&self, cell: &Option<(Cell<'_>, u32)>) -> Result<Option<u64>, Problem> {
        /// A petabyte; sums of them still fit.
        const BYTES_MAX: u64 = 1_000_000_000_000_000;
        let Some((cell, _)) = cell else { return Ok(None) };
        if cell.text == ENDLESS {
            return Ok(None);
        }
        match cell.text.parse() {
            Ok(0) => Err(self.problem(cell.span.clone(), "a flow of 0 bytes: nothing would be sent")),
            Ok(bytes) if bytes <= BYTES_MAX => Ok(Some(bytes)),
            _ => {
                let message = format!(
                    "{:?} is no whole number of bytes up to 10^15, and not {ENDLESS:?}",
                    cell.text
                );
                Err(self.problem(cell.span.clone(), message))
            }
        }
    }

    fn is_fresh(&self, cell: &Option<(Cell<'_>, u32)>) -> Result<bool, Problem> {
        match cell.as_ref().map_or("no", |(cell, _)| cell.text) {
            "yes" => Ok(true),
            "no" => Ok(false),
            other => {
                let span = cell.as_ref().map_or(0..0, |(cell, _)| cell.span.clone());
                Err(self.problem(span, format!("{other:?} is neither yes nor no")))
            }
        }
    }

    /// A time, exactly: digits, and behind a point as many as its unit has powers of ten above a picosecond.
    fn time(&self, cell: &Option<(Cell<'_>, u32)>) -> Result<Option<SimTime>, Problem> {
        let Some((cell, exponent)) = cell else { return Ok(None) };
        exact_ps(cell.text, *exponent)
            .map(|ps| Some(SimTime::from_ps(ps)))
            .ok_or_else(|| {
                let message = format!(
                    "{:?} is no time: write digits, with at most {exponent} behind a point, up to 200 days",
                    cell.text
                );
                self.problem(cell.span.clone(), message)
            })
    }
}

/// A decimal number times ten to the power of `exponent`, if that is whole and no more than 200 days of picoseconds.
fn exact_ps(text: &str, exponent: u32) -> Option<u64> {
    const PS_MAX: u64 = 200 * 86_400 * 1_000_000_000_000;
    let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
    let is_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_digits(whole) || !is_digits(rest) {
        return None;
    }
    let rest = rest.trim_end_matches('0');
    let left = exponent.checked_sub(u32::try_from(rest.len()).ok()?)?;
    let scale = 10_u64.checked_pow(exponent)?;
    let fraction: u64 = if rest.is_empty() { 0 } else { rest.parse().ok()? };
    let ps = whole.parse::<u64>().ok()?.checked_mul(scale)?;
    let ps = ps.checked_add(fraction.checked_mul(10_u64.checked_pow(left)?)?)?;
    (ps <= PS_MAX).then_some(ps)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str =
        "# dplab flow list, version 1\nstart_us,source,destination,bytes\n0,1,0,1000\n12.5,2,0,endless\n";

    fn problem(text: &str) -> Problem {
        FlowList::parse("flows.csv", text).expect_err(text)
    }

    #[test]
    fn a_list_is_read_with_the_units_of_its_columns() {
        let list = FlowList::parse("flows.csv", GOOD).unwrap_or_else(|problem| panic!("{problem}"));
        assert_eq!(list.flows.len(), 2);
        assert_eq!(list.flows[1].start, SimTime::from_ns(12_500));
        assert_eq!((list.flows[0].bytes, list.flows[1].bytes), (Some(1_000), None));
    }

    #[test]
    fn every_mistake_has_a_place_and_advice() {
        let head = "start_ns,source,destination,bytes";
        let cases = [
            ("start_us,sorce,destination,bytes", "1:10", "did you mean source"),
            ("start,source,destination,bytes", "1:1", "write start_ns"),
            ("start_min,source,destination,bytes", "1:1", "no unit of time"),
            ("start_ns,source,bytes", "1:1", "no column destination"),
            ("start_ns,source,destination,bytes,source", "1:35", "second"),
            (&format!("{head}\n0,1,0"), "2:1", "3 values"),
            (&format!("{head}\n0,1, 1,5"), "2:6", "to itself"),
            (&format!("{head}\n0,1,0,0"), "2:7", "0 bytes"),
            (&format!("{head}\n0,1,0,lots"), "2:7", "endless"),
            (&format!("{head}\n1.0001,1,0,5"), "2:1", "at most 3"),
            (&format!("{head}\n-1,1,0,5"), "2:1", "no time"),
            (&format!("{head}\n0,x,0,5"), "2:3", "whole number"),
            (&format!("{head},rounds\n0,1,0,5,3"), "2:9", "`query` is empty"),
            (
                &format!("{head},query\n0,1,0,5,3\n0,2,0,6,3"),
                "3:1",
                "more than their source",
            ),
            (&format!("{head},query\n0,1,0,5,3\n0,2,0,6,2"), "3:1", "upwards"),
            (head, "1:34", "no flow"),
            ("", "1:1", "start_ns,source"),
        ];
        for (text, place, advice) in cases {
            let seen = problem(text).to_string();
            assert!(seen.starts_with(&format!("flows.csv:{place}: ")), "{place}: {seen}");
            assert!(seen.contains(advice), "{advice}: {seen}");
        }
    }

    #[test]
    fn hosts_and_loads_that_are_not_there_are_told() {
        let list = FlowList::parse("flows.csv", GOOD).expect("a good list");
        assert_eq!(list.check(3, 1), Ok(()));
        assert!(list.check(2, 1).expect_err("two hosts").contains("0 to 1"));
        let of = |load| FlowList::parse("x", &format!("start_ns,source,destination,bytes,load\n0,1,0,5,{load}"));
        assert_eq!(of(0).expect("a list").check(2, 0), Ok(()));
        assert!(
            of(2)
                .expect("a list")
                .check(2, 2)
                .expect_err("two loads")
                .contains("0 to 1")
        );
    }

    fn flows() -> impl Strategy<Value = ListedFlow> {
        let times = || any::<u32>().prop_map(|ps| SimTime::from_ps(u64::from(ps) * 500));
        (
            times(),
            0..9_u32,
            1..9_u32,
            prop::option::of(1..1_000_000_u64),
            0..3_u32,
        )
            .prop_map(|(start, source, behind, bytes, load)| ListedFlow {
                start,
                source,
                destination: source + behind,
                bytes,
                load,
                query: None,
            })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(mut flows in prop::collection::vec(flows(), 1..20), query in any::<bool>()) {
            if query {
                let query = Some(ListedQuery {
                    number: 4, rounds_count: 3, pause: SimTime::from_ns(7), jitter: SimTime::ZERO, request_bytes: 99,
                    is_fresh: true,
                });
                flows[0] = ListedFlow { query, bytes: Some(5), ..flows[0] };
            }
            let list = FlowList { flows };
            let text = list.to_csv(&["of a test".to_owned()]);
            prop_assert_eq!(FlowList::parse("x", &text).map_err(|problem| problem.to_string()), Ok(list));
        }

        #[test]
        fn any_text_is_answered(text in "[a-z0-9_.,# \\n\u{e9}]{0,60}") {
            let head = "start_ns,source,destination,bytes\n";
            for text in [text.clone(), format!("{head}{text}")] {
                if let Err(problem) = FlowList::parse("x", &text) {
                    prop_assert!(problem.line >= 1 && problem.column >= 1);
                }
            }
        }
    }
}
