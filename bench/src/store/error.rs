//! What can go wrong with a run folder: what was seen, why it matters, what to try.

use std::{io, path::PathBuf};

use thiserror::Error;

use crate::record::SCHEMA_VERSION;

/// A run folder could not be written or read.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The folder or file cannot be made or written.
    #[error("cannot write {}: {source}. {}", path.display(), advice(source))]
    Unwritable {
        /// What was to be written.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The folder already holds a run.
    #[error(
        "{} already holds a run, and runs are never overwritten or mixed. Give another folder with --out, or move that \
         one away",
        path.display()
    )]
    HoldsARun {
        /// The folder.
        path: PathBuf,
    },
    /// A line could not be written.
    #[error(
        "cannot write line {} of {}: {source}. The {lines_count} lines before it are whole and stay readable \
         (`dplab report`). {}",
        lines_count + 1, path.display(), advice(source)
    )]
    LineNotWritten {
        /// The records file.
        path: PathBuf,
        /// Whole lines in it.
        lines_count: u64,
        /// What the kernel said.
        source: io::Error,
    },
    /// The record has no form that could be read back.
    #[error("this record cannot be written: {why}")]
    NotARecord {
        /// What is wrong with it.
        why: String,
    },
    /// The file cannot be read.
    #[error("cannot read {}: {source}. {}", path.display(), advice(source))]
    Unreadable {
        /// What was to be read.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Written by a newer dplab.
    #[error(
        "{} has schema version {found}, this dplab reads up to {SCHEMA_VERSION}: it could misunderstand what is in \
         there, so it has touched nothing. Read it with a dplab of the version that wrote it ({writer}) or a newer one",
        path.display()
    )]
    NewerSchema {
        /// The records file.
        path: PathBuf,
        /// Its version.
        found: u64,
        /// The version of dplab that wrote it, as far as it says.
        writer: String,
    },
    /// There is no readable header, so nothing says what the rows are of.
    #[error(
        "{}: {what}. Without the header nothing says where and how the rows were measured, so no report is made; the \
         file is unchanged. {}",
        path.display(), try_instead(*others_count)
    )]
    NoHeader {
        /// The records file.
        path: PathBuf,
        /// What stands in its place.
        what: String,
        /// Other lines that are records.
        others_count: u64,
    },
}

fn try_instead(others_count: u64) -> String {
    match others_count {
        0 => "Is it the folder of a run? `dplab run --out FOLDER` makes one".into(),
        1 => "One other line is a whole record and can be read as JSON".into(),
        n => format!("{n} other lines are whole records and can be read as JSON, one a line"),
    }
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "The disk is full: free some room, or give a folder on another file system with --out"
        }
        io::ErrorKind::PermissionDenied => {
            "This user may not do that there: give a folder of your own with --out, or change its owner"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "That file system is mounted read-only: give a folder on another one with --out"
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            "A part of that path is a file, not a folder: give another folder with --out"
        }
        io::ErrorKind::NotFound => "There is no such run: check the path (`ls` it), a run folder holds records.jsonl",
        _ => "Check the path and the file system (`df`, `ls -ld`, `dmesg`), or give another folder with --out",
    }
}
