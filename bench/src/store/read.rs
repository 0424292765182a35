//! Reading record lines: every whole line is kept, everything else is reported by line number.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read as _},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{LINE_BYTES_MAX, RECORDS_FILE, StoreError};
use crate::record::{Record, Row, RunEnd, RunHeader, SCHEMA_VERSION, VerdictRecord};

/// Most lines that are read; the tour writes some hundreds.
const LINES_COUNT_MAX: u64 = 1_000_000;

/// Most damaged lines that are listed one by one.
const DAMAGE_COUNT_MAX: usize = 100;

/// Everything that a run left behind.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// The records file, when the run was read from one.
    pub path: Option<PathBuf>,
    /// What ran where.
    pub header: RunHeader,
    /// The measurements in the order they were taken.
    pub rows: Vec<Row>,
    /// The verdicts.
    pub verdicts: Vec<VerdictRecord>,
    /// How it ended. A run without one was killed.
    pub end: Option<RunEnd>,
    /// Lines that could not be read.
    pub damage: Vec<Damage>,
}

impl Run {
    /// A run of zero rows, to be filled.
    pub fn new(header: RunHeader) -> Run {
        Run {
            path: None,
            header,
            rows: Vec::new(),
            verdicts: Vec::new(),
            end: None,
            damage: Vec::new(),
        }
    }

    /// Did it come to its own end, neither killed nor stopped by a signal?
    pub fn is_complete(&self) -> bool {
        self.end.as_ref().is_some_and(|end| !end.interrupted)
    }
}

/// A line that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Which line, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub what: String,
}

/// Reads a run from its folder, or from its records file.
///
/// # Errors
/// When the file cannot be read, has no header, or was written by a newer schema. Damaged lines are no error: they are
/// in [`Run::damage`]. Nothing is ever changed on disk.
pub fn read(path: impl AsRef<Path>) -> Result<Run, StoreError> {
    let mut path = path.as_ref().to_path_buf();
    if path.is_dir() {
        path.push(RECORDS_FILE);
    }
    let file = File::open(&path).map_err(|source| StoreError::Unreadable {
        path: path.clone(),
        source,
    })?;
    let mut run = read_from(BufReader::new(file), &path)?;
    run.path = Some(path);
    Ok(run)
}

/// Reads a run from any bytes; `path` is for the error messages.
///
/// # Errors
/// As [`read`].
pub fn read_from(mut bytes: impl BufRead, path: &Path) -> Result<Run, StoreError> {
    let mut reader = Reader::default();
    let mut line = Vec::new();
    loop {
        let end = next_line(&mut bytes, &mut line).map_err(|source| StoreError::Unreadable {
            path: path.into(),
            source,
        })?;
        if matches!(end, LineEnd::Nothing) {
            break;
        }
        reader.line_number += 1;
        if reader.line_number > LINES_COUNT_MAX {
            reader.damaged(format!(
                "this and all later lines were not read: the bound is {LINES_COUNT_MAX} lines"
            ));
            break;
        }
        if let Some(newer) = reader.take(&line, end) {
            return Err(StoreError::NewerSchema {
                path: path.into(),
                found: newer.schema_version,
                writer: newer.version.unwrap_or_else(|| "it does not say which".into()),
            });
        }
    }
    reader.finish(path)
}

/// How a line ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LineEnd {
    /// There was none: the end of the file.
    Nothing,
    /// With a newline.
    Newline,
    /// With the end of the file.
    File,
    /// It was longer than the bound; the rest was skipped.
    TooLong,
}

/// The next line without its newline, and at most the bound of it.
fn next_line(bytes: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<LineEnd> {
    line.clear();
    let taken = bytes.by_ref().take(LINE_BYTES_MAX as u64).read_until(b'\n', line)?;
    if taken == 0 {
        return Ok(LineEnd::Nothing);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        return Ok(LineEnd::Newline);
    }
    if taken < LINE_BYTES_MAX {
        return Ok(LineEnd::File);
    }
    bytes.skip_until(b'\n')?;
    Ok(LineEnd::TooLong)
}

/// What every version of the schema has in a header.
#[derive(Deserialize)]
struct AnyHeader {
    record: String,
    schema_version: u64,
    version: Option<String>,
}

/// A run as far as it has been read.
#[derive(Default)]
struct Reader {
    line_number: u64,
    header: Option<RunHeader>,
    rows: Vec<Row>,
    verdicts: Vec<VerdictRecord>,
    end: Option<RunEnd>,
    damage: Vec<Damage>,
    damage_count: u64,
}

impl Reader {
    /// Takes one line in; answers with its header when that is of a newer schema.
    fn take(&mut self, line: &[u8], end: LineEnd) -> Option<AnyHeader> {
        if end == LineEnd::TooLong {
            self.damaged(format!("longer than {LINE_BYTES_MAX} bytes: not a record"));
            return None;
        }
        if line.trim_ascii().is_empty() {
            self.damaged("empty".into());
            return None;
        }
        // A newer header need not parse as ours, so it is looked at before that is tried.
        if self.header.is_none()
            && let Ok(header) = serde_json::from_slice::<AnyHeader>(line)
            && header.record == "run"
            && header.schema_version > u64::from(SCHEMA_VERSION)
        {
            return Some(header);
        }
        match serde_json::from_slice(line) {
            Ok(Record::Run(header)) if self.header.is_none() => self.header = Some(*header),
            Ok(Record::Run(_)) => self.damaged("a second header: two runs in one file? The first one counts".into()),
            Ok(Record::Row(row)) => self.rows.push(*row),
            Ok(Record::Verdict(verdict)) => self.verdicts.push(verdict),
            Ok(Record::End(end)) if self.end.is_none() => self.end = Some(end),
            Ok(Record::End(_)) => self.damaged("a second end: two runs in one file? The first one counts".into()),
            Err(_) if end == LineEnd::File => self.damaged(format!(
                "torn after {} bytes: the run was killed, or the disk was full, while this line was written",
                line.len()
            )),
            Err(error) => self.damaged(format!("not a record: {error}")),
        }
        None
    }

    fn damaged(&mut self, what: String) {
        self.damage_count += 1;
        if self.damage.len() < DAMAGE_COUNT_MAX {
            self.damage.push(Damage {
                line: self.line_number,
                what,
            });
        }
    }

    fn finish(mut self, path: &Path) -> Result<Run, StoreError> {
        let Some(header) = self.header else {
            let ends = u64::from(self.end.is_some());
            return Err(StoreError::NoHeader {
                path: path.into(),
                what: match self.damage.first() {
                    None if self.line_number == 0 => {
                        "the file is empty: the run was killed before its first line".into()
                    }
                    Some(damage) if damage.line == 1 => format!("line 1 is damaged ({})", damage.what),
                    _ => "line 1 is not the header of a run".into(),
                },
                others_count: self.rows.len() as u64 + self.verdicts.len() as u64 + ends,
            });
        };
        let unlisted_count = self.damage_count - self.damage.len() as u64;
        if unlisted_count > 0 {
            self.damage.push(Damage {
                line: self.line_number,
                what: format!("{unlisted_count} more damaged lines up to here are not listed"),
            });
        }
        Ok(Run {
            path: None,
            header,
            rows: self.rows,
            verdicts: self.verdicts,
            end: self.end,
            damage: self.damage,
        })
    }
}
