//! The text of a list of flows: its columns, its cells, and messages that point into it.

use std::ops::Range;

use super::{
    COLUMNS, ENDLESS, FlowList, ListedFlow, ListedQuery, NEEDED_COUNT, Problem, REQUEST_BYTES, SimTime, TIMES, UNITS,
};
use crate::advice::advice;

pub(super) fn needed_columns() -> String {
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
pub(super) struct Column {
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
pub(super) struct Text<'a> {
    pub path: &'a str,
    pub source: &'a str,
}

impl<'a> Text<'a> {
    pub fn problem(&self, span: Range<usize>, message: impl Into<String>) -> Problem {
        Problem::at(self.path, self.source, span, message)
    }

    /// The lines that say something, by where they stand.
    pub fn lines(&self) -> impl Iterator<Item = Range<usize>> + use<'a> {
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

    pub fn columns(&self, header: Range<usize>) -> Result<Vec<Column>, Problem> {
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

    pub fn flow(&self, columns: &[Column], line: Range<usize>) -> Result<ListedFlow, Problem> {
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
    pub fn belongs(
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
