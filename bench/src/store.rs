//! Run folders: record lines written as they are measured, and read back whatever happened to the writer.
//!
//! ```text
//! FOLDER/records.jsonl     one Record a line; the first is the header, the last is the end
//! FOLDER/histograms/       NAME.hlog and NAME.hgrm, one pair per row
//! FOLDER/report.html …     made from the lines above, and can be made again
//! ```
//!
//! A line leaves in one write(2) with its newline at the end, so a run that is killed tears at most its last line, and a
//! full disk costs the line that did not fit. The reader keeps every whole line and reports the rest by line number.

mod error;
mod read;
mod schema;

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

pub use error::StoreError;
pub use read::{Damage, Run, read, read_from};
pub use schema::{SCHEMA_FILE, record_schema};

use crate::record::{Record, Row};

/// The record lines' file in a run folder.
pub const RECORDS_FILE: &str = "records.jsonl";

/// The histograms' folder in a run folder.
pub const HISTOGRAMS_FOLDER: &str = "histograms";

/// Longest line that is written or read. A row holds three histograms of at most some 100 kB each and a time series;
/// a line beyond this bound is not a record but damage.
pub const LINE_BYTES_MAX: usize = 16 << 20;

/// A run folder that is being written.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    lines: Lines<File>,
}

impl RunFolder {
    /// Makes `path` (and the folders above it) a run folder: an empty `records.jsonl` and `histograms/`.
    ///
    /// # Errors
    /// When the folder already holds a run, or cannot be made or written. Nothing that existed is touched.
    pub fn create(path: impl AsRef<Path>) -> Result<RunFolder, StoreError> {
        let path = path.as_ref();
        let unwritable = |source| StoreError::Unwritable {
            path: path.into(),
            source,
        };
        let file = path.join(RECORDS_FILE);
        fs::create_dir_all(path).map_err(unwritable)?;
        let open = OpenOptions::new().append(true).create_new(true).open(&file);
        let file = match open {
            Ok(file) => file,
            Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {
                return Err(StoreError::HoldsARun { path: path.into() });
            }
            Err(source) => return Err(unwritable(source)),
        };
        fs::create_dir_all(path.join(HISTOGRAMS_FOLDER)).map_err(unwritable)?;
        Ok(RunFolder {
            path: path.into(),
            lines: Lines::new(file),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes one record as one line, now. The [`Record::End`] is followed by an fdatasync.
    ///
    /// A metric that is not finite has no JSON form: it is left out of the row, and the row's fact `not_finite` names
    /// it.
    ///
    /// # Errors
    /// When the disk is full or fails: every earlier line stands, and the folder can still be appended to when there is
    /// room again. When the record is longer than [`LINE_BYTES_MAX`] or could not be read back.
    pub fn append(&mut self, record: &Record) -> Result<(), StoreError> {
        let line = encode(record)?;
        self.lines.write(&line).map_err(|source| self.lost_a_line(source))?;
        if matches!(record, Record::End(_)) {
            // Some file systems (NFS, quotas) report a full disk only now.
            self.lines.sink.sync_data().map_err(|source| self.lost_a_line(source))?;
        }
        Ok(())
    }

    /// Writes a file beside the records (a report, a histogram): whole or not at all, by way of a temporary name.
    ///
    /// # Errors
    /// When it cannot be written; a file of that name from before is then unchanged.
    pub fn write_file(&self, name: impl AsRef<Path>, bytes: &[u8]) -> Result<PathBuf, StoreError> {
        write_beside(&self.path, name.as_ref(), bytes)
    }

    fn lost_a_line(&self, source: io::Error) -> StoreError {
        StoreError::LineNotWritten {
            path: self.path.join(RECORDS_FILE),
            lines_count: self.lines.lines_count,
            source,
        }
    }
}

/// Writes `folder/name` whole or not at all, by way of a temporary name: for reports made from an old run.
///
/// # Errors
/// When it cannot be written; a file of that name from before is then unchanged.
pub fn write_beside(folder: &Path, name: &Path, bytes: &[u8]) -> Result<PathBuf, StoreError> {
    let path = folder.join(name);
    let mut unfinished = path.clone().into_os_string();
    unfinished.push(".unfinished");
    let unfinished = PathBuf::from(unfinished);
    let written = fs::write(&unfinished, bytes).and_then(|()| fs::rename(&unfinished, &path));
    match written {
        Ok(()) => Ok(path),
        Err(source) => {
            // Best effort: the failure to report is the one above.
            let _ = fs::remove_file(&unfinished);
            Err(StoreError::Unwritable { path, source })
        }
    }
}

/// A file name for a row's histograms, without extension: experiment, back end, axis values, round; only characters
/// that every file system takes.
pub fn histogram_stem(row: &Row) -> String {
    let mut name = format!("{}.{}", row.experiment, row.backend);
    for (axis, value) in &row.axis {
        name.push_str(&format!(".{axis}={value}"));
    }
    name.push_str(&format!(".round{}", row.round));
    if row.twin {
        name.push_str(".twin");
    }
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || "-_.=".contains(c) {
            c
        } else {
            '_'
        }
    };
    // 255 bytes is Linux's NAME_MAX; room is left for the extension.
    name.trim_start_matches('.').chars().map(plain).take(200).collect()
}

/// One record as a line with its newline.
fn encode(record: &Record) -> Result<Vec<u8>, StoreError> {
    let cleaned = finite(record);
    let unfit = |why: String| StoreError::NotARecord { why };
    let mut line = serde_json::to_vec(cleaned.as_ref().unwrap_or(record)).map_err(|error| unfit(error.to_string()))?;
    if line.len() >= LINE_BYTES_MAX {
        return Err(unfit(format!(
            "it takes {} bytes, the bound is {LINE_BYTES_MAX}; fewer series points would shorten it",
            line.len()
        )));
    }
    // A number that is not finite becomes `null` in JSON, which no reader takes for a number: better an error now than
    // a line that only looks written.
    if let Err(error) = serde_json::from_slice::<Record>(&line) {
        return Err(unfit(format!("it could not be read back: {error}")));
    }
    line.push(b'\n');
    Ok(line)
}

/// The record without metrics that are not finite; `None` when there are none of those.
fn finite(record: &Record) -> Option<Record> {
    let Record::Row(row) = record else { return None };
    let (kept, dropped): (Vec<_>, Vec<_>) = row.metrics.iter().partition(|(_, metric)| metric.value.is_finite());
    if dropped.is_empty() {
        return None;
    }
    let names: Vec<&str> = dropped.iter().map(|(name, _)| name.as_str()).collect();
    let mut cleaned = Row {
        metrics: kept
            .into_iter()
            .map(|(name, metric)| (name.clone(), metric.clone()))
            .collect(),
        ..(**row).clone()
    };
    cleaned.facts.insert("not_finite".into(), names.join(", "));
    Some(Record::Row(Box::new(cleaned)))
}

/// What the line writer needs of a file. Tests stand a small one in.
trait Sink: io::Write {
    /// Cuts the file back to `len_bytes`.
    fn cut(&mut self, len_bytes: u64) -> io::Result<()>;
}

impl Sink for File {
    fn cut(&mut self, len_bytes: u64) -> io::Result<()> {
        self.set_len(len_bytes)
    }
}

/// Whole lines at the end of a file, or nothing.
#[derive(Debug)]
struct Lines<S> {
    sink: S,
    /// Where the last whole line ends.
    end_bytes: u64,
    lines_count: u64,
    /// A part of a line stands after `end_bytes` and could not be cut off.
    torn: bool,
}

impl<S: Sink> Lines<S> {
    fn new(sink: S) -> Lines<S> {
        Lines {
            sink,
            end_bytes: 0,
            lines_count: 0,
            torn: false,
        }
    }

    /// Writes a line that carries its newline. On an error the file ends where it ended before.
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.torn {
            // The torn part becomes a line of its own, which the reader reports.
            self.sink.write_all(b"\n")?;
            self.torn = false;
        }
        // `write_all` is one write(2) unless the kernel takes less than was offered, which on a regular file means that
        // the next call fails: the disk is full.
        match self.sink.write_all(line) {
            Ok(()) => {
                self.end_bytes += line.len() as u64;
                self.lines_count += 1;
                Ok(())
            }
            Err(error) => {
                self.torn = self.sink.cut(self.end_bytes).is_err();
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests;
