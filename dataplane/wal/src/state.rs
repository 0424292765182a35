//! The file of the state: the state (term and vote) once more, and a witness of how the log stood, so that damage in the log never
//! hides that there was more.
//!
//! ```text
//!  sync ─▶ commit, durable ─▶ page 0, durable ─▶ page 1, durable ─▶ told that the commit is durable
//!                             ╰ if it does more than append ╯
//! ```
//!
//! **Why.** A commit says what came before it, so damage in the middle of the log is judged by the commit behind it. Behind the
//! last one there is none: if the sectors that held the state and its copy are damaged, nothing in the segments tells that a state
//! was there, and the one before it would be taken for the newest. A replica that does so may vote twice. So with what else a
//! commit does to what was there before it: see [`Witness`].
//!
//! **Why this helps.** Whoever was told that a state is durable has it in both pages. So either page, if it can be read, holds the
//! newest state that anybody was told of, or a later one; and one that cannot be read is seen, because a page of this file is never
//! empty. Two damaged sectors can take both pages, or both places in the log, and not all four. If both pages are lost and
//! the log cannot vouch for itself, it is refused.
//!
//! A page is written only when the log has the commit durably: nothing is found here that does not follow on what the log holds, as
//! long as no disk loses anything. The pages are apart by the largest physical sector in use, because a device that writes 512 bytes by
//! reading and writing 4096 may lose all of them when the power goes.

use std::io;

use dataplane_waist::STATE_BYTES_MAX;

use crate::{
    format::{
        Place, RECORD_HEADER_BYTES, RecordHeader, RecordKind, Records, SECTOR_BYTES, SECTOR_HEADER_BYTES,
        SECTOR_PAYLOAD_BYTES, Sector, SectorHeader, seal_sector,
    },
    report::{Finding, FindingKind},
    snapshot::UNFINISHED,
    storage::{FileId, OpenFor, Storage},
    witness::Witness,
};

/// The file's name.
pub(crate) const STATE_NAME: &str = "state";
/// Two pages.
const PAGES_COUNT: usize = 2;
/// As far are their first sectors apart. What follows each in its page is empty.
const PAGE_BYTES: usize = 4096;
/// No segment file has this number: a sector of one is not taken for one of these.
const FILE_INDEX: u32 = u32::MAX;

const _: () = assert!(
    2 * RECORD_HEADER_BYTES + STATE_BYTES_MAX + Witness::BYTES <= SECTOR_PAYLOAD_BYTES,
    "a page's contents are one sector, so that they are written wholly or not at all"
);

/// What a page holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    /// The number that its witness has; in older formats, that of the commit that set the state.
    pub(crate) lsn: u64,
    /// How many states had been set, ever. 2^32 would be a vote a second for more than a century.
    pub(crate) states_count: u32,
    /// `None`: none was ever set.
    pub(crate) state: Option<Vec<u8>>,
    /// `None`: an older build wrote it.
    pub(crate) witness: Option<Witness>,
}

/// What is to be written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Page<'a> {
    pub(crate) states_count: u32,
    pub(crate) state: Option<&'a [u8]>,
    pub(crate) witness: &'a Witness,
}

/// What the file holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct StateFile {
    pub(crate) is_there: bool,
    /// Its pages; `None`: it cannot be read.
    pages: [Option<Kept>; PAGES_COUNT],
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
            found.pages[page] = kept;
        }
        storage.close(file);
        Ok(found)
    }

    /// The newer of the pages that can be read.
    pub(crate) fn newest(&self) -> Option<&Kept> {
        let readable = self.pages.iter().flatten();
        readable.max_by_key(|kept| (kept.states_count, kept.lsn))
    }

    /// The pages that cannot be read; with `is_missing`, all.
    pub(crate) fn findings(&self, is_missing: bool) -> impl Iterator<Item = Finding> {
        let damaged = (0..PAGES_COUNT).filter(move |&page| is_missing || self.is_there && self.pages[page].is_none());
        damaged.map(|page| Finding {
            file: STATE_NAME.to_owned(),
            at_bytes: (page * PAGE_BYTES) as u64,
            lsn: None,
            slot: None,
            kind: FindingKind::StateCopy,
        })
    }

    /// Makes both pages hold `page`, durably; makes the file if it is not there.
    pub(crate) fn mend(&self, storage: &mut dyn Storage, cluster: u64, page: Page<'_>) -> io::Result<FileId> {
        if !self.is_there {
            create(storage, cluster, page)?;
        }
        let file = storage.open(STATE_NAME, OpenFor::Use)?;
        let is_it = |kept: &Kept| {
            let (state, witness) = (kept.state.as_deref(), kept.witness.as_ref());
            (kept.states_count, state, witness) == (page.states_count, page.state, Some(page.witness))
        };
        // What cannot be read first, then the older one: the newer is whole until then.
        let mut indices = [0, 1];
        indices.sort_by_key(|&index| self.pages[index].as_ref().map(|kept| (kept.states_count, kept.lsn)));
        for index in indices {
            if self.is_there && !self.pages[index].as_ref().is_some_and(is_it) {
                write_page(storage, file, cluster, index, page).inspect_err(|_| storage.close(file))?;
            }
        }
        Ok(file)
    }
}

/// Writes what a commit that is durable has made of the log; durable afterwards.
pub(crate) fn write(storage: &mut dyn Storage, file: FileId, cluster: u64, page: Page<'_>) -> io::Result<()> {
    (0..PAGES_COUNT).try_for_each(|index| write_page(storage, file, cluster, index, page))
}

fn write_page(storage: &mut dyn Storage, file: FileId, cluster: u64, index: usize, page: Page<'_>) -> io::Result<()> {
    storage.write_at(file, (index * PAGE_BYTES) as u64, &sector(cluster, index, page))?;
    storage.sync(file)
}

fn create(storage: &mut dyn Storage, cluster: u64, page: Page<'_>) -> io::Result<()> {
    let unfinished = format!("{STATE_NAME}{UNFINISHED}");
    let mut bytes = vec![0; PAGES_COUNT * PAGE_BYTES];
    for (index, bytes) in bytes.chunks_mut(PAGE_BYTES).enumerate() {
        bytes[..SECTOR_BYTES].copy_from_slice(&sector(cluster, index, page));
    }
    let file = storage.open(&unfinished, OpenFor::Create)?;
    let written = storage.write_at(file, 0, &bytes).and_then(|()| storage.sync(file));
    storage.close(file);
    written?;
    storage.rename(&unfinished, STATE_NAME)?;
    storage.sync_folder()
}

fn place(cluster: u64, index: usize) -> Place {
    Place {
        cluster,
        file_index: FILE_INDEX,
        sector: (index * PAGE_BYTES / SECTOR_BYTES) as u32,
    }
}

fn sector(cluster: u64, index: usize, page: Page<'_>) -> [u8; SECTOR_BYTES] {
    let mut sector = [0; SECTOR_BYTES];
    let mut at_bytes = SECTOR_HEADER_BYTES;
    let mut put = |bytes: &[u8]| {
        sector[at_bytes..][..bytes.len()].copy_from_slice(bytes);
        at_bytes += bytes.len();
    };
    if let Some(state) = page.state {
        let record = RecordHeader {
            kind: RecordKind::State,
            payload_bytes: state.len() as u32,
            term: 0,
            slot: u64::from(page.states_count),
        };
        put(&record.emit());
        put(state);
    }
    let (record, payload) = page.witness.emit();
    put(&record.emit());
    put(&payload);
    let header = SectorHeader {
        lsn: page.witness.lsn.max(1),
        index: 0,
        count: 1,
        has_copies: true,
    };
    seal_sector(&mut sector, header, place(cluster, index));
    sector
}

/// `None`: it is damaged.
fn parse(sector: &[u8; SECTOR_BYTES], cluster: u64, index: usize) -> Option<Kept> {
    let Sector::Valid(header) = Sector::parse(sector, place(cluster, index)) else {
        return None;
    };
    let mut kept = Kept {
        lsn: header.lsn,
        ..Kept::default()
    };
    let mut records = Records::new(&sector[SECTOR_HEADER_BYTES..]);
    while let Some((_, record, payload)) = records.next().ok()? {
        match record.kind {
            RecordKind::State if payload.len() <= STATE_BYTES_MAX => {
                kept.states_count = record.slot as u32;
                kept.state = Some(payload.to_vec());
            }
            RecordKind::Witness => kept.witness = Some(Witness::parse(record, payload)?),
            _ => return None,
        }
    }
    Some(kept)
}
