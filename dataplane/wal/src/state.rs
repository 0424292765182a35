//! The state (term and vote) once more, in a file of its own, so that damage in the log never hides that a later one was set.
//!
//! ```text
//!  set_state, sync ─▶ commit, durable ─▶ page 0, durable ─▶ page 1, durable ─▶ told that the state is durable
//! ```
//!
//! **Why.** A commit says what came before it, so damage in the middle of the log is judged by the commit behind it. Behind the
//! last one there is none: if the sectors that held the state and its copy are damaged, nothing in the segments tells that a state
//! was there, and the one before it would be taken for the newest. A replica that does so may vote twice.
//!
//! **Why this helps.** Whoever was told that a state is durable has it in both pages. So either page, if it can be read, holds the
//! newest state that anybody was told of, or a later one; and one that cannot be read is seen, because a page of this file is never
//! empty. Two damaged sectors can take both pages, or both places in the log, and not all four. If both pages are lost and
//! the log cannot vouch for itself, it is refused.
//!
//! A page is written only when the log has the state durably: nothing is found here that does not follow on what the log holds, as
//! long as no disk loses anything. The pages are apart by the largest physical sector in use, because a device that writes 512 bytes by
//! reading and writing 4096 may lose all of them when the power goes.

use std::{io, ops::Range};

use dataplane_waist::STATE_BYTES_MAX;

use crate::{
    format::{
        Place, RecordHeader, RecordKind, Records, SECTOR_BYTES, SECTOR_HEADER_BYTES, Sector, SectorHeader, seal_sector,
    },
    report::{Finding, FindingKind},
    snapshot::UNFINISHED,
    storage::{FileId, OpenFor, Storage},
};

/// The file's name.
pub(crate) const STATE_NAME: &str = "state";
/// Two pages.
const PAGES_COUNT: usize = 2;
/// As far are their first sectors apart. What follows each in its page is empty.
const PAGE_BYTES: usize = 4096;
/// No segment file has this number: a sector of one is not taken for one of these.
const FILE_INDEX: u32 = u32::MAX;

/// A state as a page holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    /// The commit that set it.
    pub(crate) lsn: u64,
    /// How many had been set with it, ever. 2^32 would be a vote a second for more than a century.
    pub(crate) states_count: u32,
    /// `None`: none was ever set.
    pub(crate) state: Option<Vec<u8>>,
}

/// What the file holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct StateFile {
    pub(crate) is_there: bool,
    /// The newer of the pages that can be read.
    pub(crate) newest: Option<Kept>,
    /// Pages that cannot.
    is_damaged: [bool; PAGES_COUNT],
}

impl StateFile {
    /// Reads it. What the device cannot read counts as damaged.
    pub(crate) fn read(storage: &mut dyn Storage, cluster: u64) -> io::Result<StateFile> {
        let mut found = StateFile::default();
        if !storage.list()?.iter().any(|(name, _)| name == STATE_NAME) {
            return Ok(found);
        }
        found.is_there = true;
        let file = storage.open(STATE_NAME, OpenFor::Use)?;
        for page in 0..PAGES_COUNT {
            let mut sector = [0; SECTOR_BYTES];
            let read = storage.read_at(file, (page * PAGE_BYTES) as u64, &mut sector);
            let kept = match read {
                Ok(SECTOR_BYTES) => parse(&sector, cluster, page),
                Ok(_) => None,
                Err(error) if error.raw_os_error() == Some(libc::EIO) => None,
                Err(error) => {
                    storage.close(file);
                    return Err(error);
                }
            };
            found.is_damaged[page] = kept.is_none();
            let is_newer = |kept: &Kept| {
                let newest = found.newest.as_ref();
                newest.is_none_or(|newest| (newest.states_count, newest.lsn) < (kept.states_count, kept.lsn))
            };
            if let Some(kept) = kept.filter(is_newer) {
                found.newest = Some(kept);
            }
        }
        storage.close(file);
        Ok(found)
    }

    /// The pages that cannot be read; with `is_missing`, all.
    pub(crate) fn findings(&self, is_missing: bool) -> impl Iterator<Item = Finding> {
        let damaged = (0..PAGES_COUNT).filter(move |&page| is_missing || self.is_damaged[page]);
        damaged.map(|page| Finding {
            file: STATE_NAME.to_owned(),
            at_bytes: (page * PAGE_BYTES) as u64,
            lsn: None,
            slot: None,
            kind: FindingKind::StateCopy,
        })
    }

    /// Makes the file hold `kept` and nothing else, durably; makes the file if it is not there.
    pub(crate) fn mend(&self, storage: &mut dyn Storage, cluster: u64, kept: &Kept) -> io::Result<FileId> {
        if !self.is_there {
            create(storage, cluster, kept)?;
        }
        let file = storage.open(STATE_NAME, OpenFor::Use)?;
        let is_newest = |newest: &Kept| (newest.states_count, &newest.state) == (kept.states_count, &kept.state);
        if self.is_there && (self.is_damaged.contains(&true) || !self.newest.as_ref().is_some_and(is_newest)) {
            // What cannot be read first: the other page is whole until then.
            let mut pages = [0, 1];
            pages.sort_by_key(|&page| !self.is_damaged[page]);
            let written = pages.into_iter().try_for_each(|page| {
                write_page(
                    storage,
                    file,
                    cluster,
                    page,
                    kept.lsn,
                    kept.states_count,
                    kept.state.as_deref(),
                )
            });
            if let Err(error) = written {
                storage.close(file);
                return Err(error);
            }
        }
        Ok(file)
    }
}

/// Writes `state`, the number `states_count` of all, which commit `lsn` has made durable; durable afterwards.
pub(crate) fn write(
    storage: &mut dyn Storage,
    file: FileId,
    cluster: u64,
    lsn: u64,
    states_count: u32,
    state: &[u8],
) -> io::Result<()> {
    (0..PAGES_COUNT).try_for_each(|page| write_page(storage, file, cluster, page, lsn, states_count, Some(state)))
}

fn write_page(
    storage: &mut dyn Storage,
    file: FileId,
    cluster: u64,
    page: usize,
    lsn: u64,
    states_count: u32,
    state: Option<&[u8]>,
) -> io::Result<()> {
    let sector = sector(cluster, page, lsn, states_count, state);
    storage.write_at(file, (page * PAGE_BYTES) as u64, &sector)?;
    storage.sync(file)
}

fn create(storage: &mut dyn Storage, cluster: u64, kept: &Kept) -> io::Result<()> {
    let unfinished = format!("{STATE_NAME}{UNFINISHED}");
    let mut bytes = vec![0; PAGES_COUNT * PAGE_BYTES];
    for (page, bytes) in bytes.chunks_mut(PAGE_BYTES).enumerate() {
        let sector = sector(cluster, page, kept.lsn, kept.states_count, kept.state.as_deref());
        bytes[..SECTOR_BYTES].copy_from_slice(&sector);
    }
    let file = storage.open(&unfinished, OpenFor::Create)?;
    let written = storage.write_at(file, 0, &bytes).and_then(|()| storage.sync(file));
    storage.close(file);
    written?;
    storage.rename(&unfinished, STATE_NAME)?;
    storage.sync_folder()
}

fn place(cluster: u64, page: usize) -> Place {
    Place {
        cluster,
        file_index: FILE_INDEX,
        sector: (page * PAGE_BYTES / SECTOR_BYTES) as u32,
    }
}

/// Where the record's payload stands in its sector.
fn payload(payload_bytes: usize) -> Range<usize> {
    let begin = SECTOR_HEADER_BYTES + crate::format::RECORD_HEADER_BYTES;
    begin..begin + payload_bytes
}

fn sector(cluster: u64, page: usize, lsn: u64, states_count: u32, state: Option<&[u8]>) -> [u8; SECTOR_BYTES] {
    let mut sector = [0; SECTOR_BYTES];
    if let Some(state) = state {
        let record = RecordHeader {
            kind: RecordKind::State,
            payload_bytes: state.len() as u32,
            term: 0,
            slot: u64::from(states_count),
        };
        let payload = payload(state.len());
        sector[SECTOR_HEADER_BYTES..payload.start].copy_from_slice(&record.emit());
        sector[payload].copy_from_slice(state);
    }
    let header = SectorHeader {
        lsn: lsn.max(1),
        index: 0,
        count: 1,
        has_copies: true,
    };
    seal_sector(&mut sector, header, place(cluster, page));
    sector
}

/// `None`: it is damaged.
fn parse(sector: &[u8; SECTOR_BYTES], cluster: u64, page: usize) -> Option<Kept> {
    let Sector::Valid(header) = Sector::parse(sector, place(cluster, page)) else {
        return None;
    };
    match Records::new(&sector[SECTOR_HEADER_BYTES..]).next() {
        Ok(None) => Some(Kept {
            lsn: header.lsn,
            ..Kept::default()
        }),
        Ok(Some((_, record, state))) if record.kind == RecordKind::State && state.len() <= STATE_BYTES_MAX => {
            Some(Kept {
                lsn: header.lsn,
                states_count: record.slot as u32,
                state: Some(state.to_vec()),
            })
        }
        _ => None,
    }
}
