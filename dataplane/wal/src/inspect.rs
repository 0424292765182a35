//! Looks at a log without opening it: every record, where it is, and what recovery would say about it all.

use std::{collections::BTreeSet, fmt, ops::Range, path::Path};

use crate::{
    error::WalError,
    format::{COMMIT_HEADER_BYTES, FIRST_SECTOR, RecordKind, Records, SECTOR_BYTES, Sector},
    fs::FolderStorage,
    open::{WalOptions, files, read},
    report::Report,
    scan::{Segment, segment_name},
    storage::Storage,
};

/// One record, or one commit that is not whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The segment's file.
    pub file: String,
    /// Where its commit begins, in bytes.
    pub at_bytes: u64,
    /// The commit's number.
    pub lsn: u64,
    /// What the record does; `None`: the commit is not whole, torn or damaged or a leftover.
    pub kind: Option<RecordKind>,
    /// See [`RecordKind`].
    pub slot: u64,
    /// See [`RecordKind`].
    pub term: u64,
    /// The payload's length in bytes.
    pub payload_bytes: u32,
}

/// What is in a log's folder.
#[derive(Debug)]
pub struct Inspection {
    /// By file, in the order in which they stand there. Leftovers of an earlier use of a file come last, with lower commit
    /// numbers.
    pub items: Vec<Item>,
    /// What recovery would say; or why it would refuse the log.
    pub outcome: Result<Report, WalError>,
}

/// Looks at the log in `folder`, which may be open elsewhere. Writes nothing.
///
/// # Errors
/// [`WalError::Io`]: it cannot be read at all.
pub fn inspect(folder: &Path, cluster: u64) -> Result<Inspection, WalError> {
    inspect_storage(&mut FolderStorage::open_to_read(folder)?, cluster)
}

/// As [`inspect`], wherever the log is kept.
///
/// # Errors
/// [`WalError::Io`].
pub fn inspect_storage(storage: &mut dyn Storage, cluster: u64) -> Result<Inspection, WalError> {
    let mut items = Vec::new();
    let mut contents = Vec::new();
    for (file_index, file_bytes) in files(storage)?.segments {
        let file = segment_name(file_index);
        let segment = Segment::read(storage, file_index, file_bytes, cluster)
            .map_err(WalError::io(format!("reading {}/{file}", storage.place())))?;
        let mut sector = FIRST_SECTOR;
        while sector < segment.sectors().len() {
            let Sector::Valid(header) = segment.sectors()[sector] else {
                sector += 1;
                continue;
            };
            let item = Item {
                file: file.clone(),
                at_bytes: (sector * SECTOR_BYTES) as u64,
                lsn: header.lsn,
                kind: None,
                slot: 0,
                term: 0,
                payload_bytes: 0,
            };
            let count = usize::from(header.count);
            if header.index != 0 || segment.contents(sector, header.lsn, count, &mut contents) < count {
                let belongs = |sector: &Sector| matches!(sector, Sector::Valid(other) if other.lsn == header.lsn);
                let rest = &segment.sectors()[sector..];
                sector += rest.iter().take_while(|sector| belongs(sector)).count();
                items.push(item);
                continue;
            }
            let mut records = Records::new(&contents[COMMIT_HEADER_BYTES..]);
            while let Ok(Some((_, record, _))) = records.next() {
                items.push(Item {
                    kind: Some(record.kind),
                    slot: record.slot,
                    term: record.term,
                    payload_bytes: record.payload_bytes,
                    ..item.clone()
                });
            }
            sector += count;
        }
    }
    let outcome = read(storage, &WalOptions::new(cluster)).map(|read| read.walked.report);
    Ok(Inspection { items, outcome })
}

impl Inspection {
    /// Those of the slots that do not count whose entries can be read all the same, in ranges. What is lost before them may have
    /// replaced them, so that nobody but the other replicas knows whether they are the right ones.
    pub fn readable_slots(&self) -> Vec<Range<u64>> {
        let Ok(Report {
            damaged_slots: Some((slot, end)),
            ..
        }) = self.outcome
        else {
            return Vec::new();
        };
        let entries = self.items.iter().filter(|item| item.kind == Some(RecordKind::Append));
        let slots: BTreeSet<u64> = entries
            .map(|item| item.slot)
            .filter(|read| (slot..end).contains(read))
            .collect();
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for slot in slots {
            match ranges.last_mut() {
                Some(range) if range.end == slot => range.end += 1,
                _ => ranges.push(slot..slot + 1),
            }
        }
        ranges
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:>10}  commit {:>8}  ", self.file, self.at_bytes, self.lsn)?;
        let Item {
            slot,
            term,
            payload_bytes,
            ..
        } = self;
        match self.kind {
            None => write!(f, "not whole"),
            Some(RecordKind::Append) => write!(f, "entry {slot}, term {term}, {payload_bytes} bytes"),
            Some(RecordKind::State) => write!(f, "state {slot}, {payload_bytes} bytes"),
            Some(RecordKind::Install) => write!(f, "snapshot up to {slot}, term {term}"),
            Some(RecordKind::Origin) => write!(f, "origin: snapshot up to {slot}, term {term}"),
            Some(RecordKind::Damage) => write!(f, "known damage up to {slot}, term {term}"),
            Some(RecordKind::Cut) => write!(f, "overwrites from {slot} on"),
            Some(RecordKind::Witness) => write!(f, "a witness, which does not belong here"),
        }
    }
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for item in &self.items {
            writeln!(f, "{item}")?;
        }
        match &self.outcome {
            Ok(report) => {
                write!(f, "{report}")?;
                let readable = self.readable_slots();
                if readable.is_empty() {
                    return Ok(());
                }
                let shown: Vec<String> = readable
                    .iter()
                    .map(|range| match range.end - range.start {
                        1 => range.start.to_string(),
                        _ => format!("{} to {}", range.start, range.end - 1),
                    })
                    .collect();
                writeln!(
                    f,
                    "among them, these can be read and are listed above, and what is lost may have replaced them: {}",
                    shown.join(", ")
                )
            }
            Err(error) => writeln!(f, "it would be refused: {error}"),
        }
    }
}
