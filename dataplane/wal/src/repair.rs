//! Takes the damage out of a log: says what would be dropped, and with the owner's word drops it.
//!
//! What can be read and counts is written once more; the files with damage are removed. What was acknowledged and cannot
//! be read stays known to be missing, so that the replica fetches it from the others and does not vote as if it had
//! never had it. A torn end is no damage: opening cuts it.

use std::{fmt, path::Path};

use crate::{
    error::WalError,
    format::{FileHeader, RecordKind, SECTOR_BYTES},
    fs::{Engine, FolderStorage},
    inspect::inspect_storage,
    open::{WalOptions, files},
    report::{Finding, FindingKind},
    scan::segment_name,
    state::STATE_NAME,
    storage::{OpenFor, Storage},
    wal::Wal,
};

/// What the log's files say of themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster whose log it is.
    pub cluster: u64,
    /// The length of each file, in bytes.
    pub segment_bytes: u64,
}

/// Whose log is in `storage`, from the first header that can be read; `None`: there is no log, or no header of it.
///
/// # Errors
/// [`WalError::Io`].
pub fn identity(storage: &mut dyn Storage) -> Result<Option<Identity>, WalError> {
    for (file_index, _) in files(storage)?.segments {
        let name = segment_name(file_index);
        let mut sector = [0; SECTOR_BYTES];
        let file = storage
            .open(&name, OpenFor::Use)
            .map_err(WalError::io(format!("opening {}/{name}", storage.place())))?;
        let read = storage.read_at(file, 0, &mut sector);
        storage.close(file);
        // A header that the device cannot read is as good as a damaged one: the next file says the same.
        if let (Ok(SECTOR_BYTES), Ok(header)) = (read, FileHeader::parse(&sector)) {
            return Ok(Some(Identity {
                cluster: header.cluster,
                segment_bytes: header.file_bytes,
            }));
        }
    }
    Ok(None)
}

/// What a repair drops, or would drop.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repair {
    /// The damage: each with its file and offset. Empty: nothing is to be repaired.
    pub findings: Vec<Finding>,
    /// The files that are removed, after what counts in them was written elsewhere.
    pub files: Vec<String>,
    /// The slots that were acknowledged and cannot be kept: first, and end.
    pub lost_slots: Option<(u64, u64)>,
    /// How many entries behind the damage can be read, and are dropped because those before them are missing.
    pub readable_count: usize,
    /// The lowest and the highest term among the readable ones.
    pub readable_terms: Option<(u64, u64)>,
    /// Whether it has been done.
    pub is_done: bool,
}

/// Repairs the log in `folder`. Without `yes` it says what it would do, and changes nothing.
///
/// # Errors
/// See [`WalError`]. What opening would refuse (another build's format, a lost state, a snapshot that is not whole)
/// cannot be repaired.
pub fn repair(folder: &Path, yes: bool) -> Result<Repair, WalError> {
    match yes {
        // Looking makes no folder and takes no lock.
        false => Ok(survey(&mut FolderStorage::open_to_read(folder)?)?.0),
        true => {
            survey(&mut FolderStorage::open_to_read(folder)?)?;
            repair_storage(Box::new(FolderStorage::open(folder, Engine::File)?), true)
        }
    }
}

/// As [`repair()`], wherever the log is kept.
///
/// # Errors
/// As [`repair()`].
pub fn repair_storage(mut storage: Box<dyn Storage>, yes: bool) -> Result<Repair, WalError> {
    let (mut repair, identity) = survey(&mut *storage)?;
    if !yes || repair.findings.is_empty() {
        return Ok(repair);
    }
    let new = WalOptions::new(identity.cluster);
    let options = WalOptions {
        segment_bytes: identity.segment_bytes,
        buffer_bytes: new.buffer_bytes.min(identity.segment_bytes as usize / 2),
        ..new
    };
    let mut wal = Wal::open(storage, options)?;
    if !repair.files.is_empty() {
        wal.rewrite(&repair.files)?;
    }
    repair.is_done = true;
    Ok(repair)
}

fn survey(storage: &mut dyn Storage) -> Result<(Repair, Identity), WalError> {
    let identity = identity(storage)?.ok_or_else(|| {
        WalError::Options(format!(
            "{} holds no log: there is no segment file there whose header can be read",
            storage.place()
        ))
    })?;
    let inspection = inspect_storage(storage, identity.cluster)?;
    let report = match &inspection.outcome {
        Ok(report) => report,
        Err(_) => return Err(inspection.outcome.expect_err("it has just been one")),
    };
    let findings: Vec<Finding> = report
        .findings
        .iter()
        .filter(|finding| finding.is_damage())
        .cloned()
        .collect();
    if findings.is_empty() {
        return Ok((Repair::default(), identity));
    }
    // The state's file is mended by opening the log.
    let damaged = findings.iter().filter(|finding| finding.file != STATE_NAME);
    let mut files: Vec<String> = damaged.map(|finding| finding.file.clone()).collect();
    files.sort_unstable();
    files.dedup();
    let mut repair = Repair {
        findings,
        files,
        lost_slots: report.damaged_slots,
        ..Repair::default()
    };
    if let Some((slot, end)) = report.damaged_slots {
        let behind = inspection
            .items
            .iter()
            .filter(|item| item.kind == Some(RecordKind::Append) && (slot..end).contains(&item.slot));
        let readable = inspection.readable_slots().into_iter();
        repair.readable_count = readable.map(|range| (range.end - range.start) as usize).sum();
        let terms = behind.map(|item| item.term);
        repair.readable_terms = terms.clone().min().zip(terms.max());
    }
    Ok((repair, identity))
}

impl Finding {
    /// Whether it is damage, and not what a power loss leaves.
    pub fn is_damage(&self) -> bool {
        self.kind != FindingKind::TornEnd
    }
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.findings.is_empty() {
            return writeln!(f, "nothing to repair");
        }
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        let (drops, removes, writes) = match self.is_done {
            true => ("dropped", "removed", "wrote"),
            false => ("would drop", "would remove", "would write"),
        };
        match self.lost_slots {
            None => writeln!(f, "{drops} no entry: all that counts can be read")?,
            Some((slot, end)) => {
                write!(f, "{drops} slots {slot} to {}", end.saturating_sub(1))?;
                match self.readable_terms {
                    None => write!(f, ", none of which can be read")?,
                    Some((min, max)) if min == max => {
                        write!(f, ", of which {} can be read (term {min})", self.readable_count)?;
                    }
                    Some((min, max)) => {
                        write!(
                            f,
                            ", of which {} can be read (terms {min} to {max})",
                            self.readable_count
                        )?;
                    }
                }
                writeln!(
                    f,
                    "; that they are missing is remembered until the other replicas have sent them"
                )?;
            }
        }
        match &self.files[..] {
            [] => writeln!(f, "{writes} the state's file anew"),
            files => writeln!(
                f,
                "{removes} {}, after all that counts in it was written to another file",
                files.join(", ")
            ),
        }
    }
}
