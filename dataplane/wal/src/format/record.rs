//! Records: what a commit's contents consist of.

use std::ops::Range;

use super::{NUMBER_MAX, RECORD_HEADER_BYTES, get_u64};

const RECORD_KIND: usize = 0;
const RECORD_LEN: Range<usize> = 1..4;
const RECORD_TERM: Range<usize> = 4..12;
const RECORD_SLOT: Range<usize> = 12..20;

/// What a record does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// An entry at `slot`, in `term`; what stood from there on is gone.
    Append,
    /// The state. Its slot says how many states had been set with it.
    State,
    /// A snapshot up to `slot` stands; `term` is its last. Payload: the log's end after it, and the
    /// snapshot's generation.
    Install,
    /// The first record of each segment file: all that a reader needs of the files before it, which may be gone. `slot`
    /// and `term` are the snapshot's. Payload: [`Origin`].
    Origin,
    /// Entries up to `slot`, the last in `term`, are known to be damaged: the log ends earlier than it once did.
    Damage,
    /// Among a commit's copies alone: the lowest slot that the commit overwrites.
    Cut,
    /// In the file of the state alone: how the log stood behind a commit. `slot` and `term` are its end's.
    Witness,
}

impl RecordKind {
    const ALL: [RecordKind; 7] = [
        RecordKind::Append,
        RecordKind::State,
        RecordKind::Install,
        RecordKind::Origin,
        RecordKind::Damage,
        RecordKind::Cut,
        RecordKind::Witness,
    ];

    /// Its byte. 0 is no kind: the zeros behind the last record.
    fn code(self) -> u8 {
        1 + RecordKind::ALL
            .iter()
            .position(|&kind| kind == self)
            .expect("all kinds are listed") as u8
    }
}

/// A record's bytes before its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// What it does.
    pub kind: RecordKind,
    /// The payload's length in bytes.
    pub payload_bytes: u32,
    /// See [`RecordKind`].
    pub term: u64,
    /// See [`RecordKind`].
    pub slot: u64,
}

/// Why contents that a checksum vouches for make no sense: a fault of the writer, not of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// No such kind.
    #[error("a record of kind {0}, which does not exist")]
    Kind(u8),
    /// It would run on behind its commit's end.
    #[error("a record longer than its commit")]
    Length,
    /// No log has so many.
    #[error("a record of slot {0}, which no log reaches")]
    Slot(u64),
}

impl RecordHeader {
    /// Its bytes.
    pub fn emit(&self) -> [u8; RECORD_HEADER_BYTES] {
        let mut bytes = [0; RECORD_HEADER_BYTES];
        bytes[RECORD_KIND] = self.kind.code();
        bytes[RECORD_LEN].copy_from_slice(&self.payload_bytes.to_be_bytes()[1..]);
        bytes[RECORD_TERM].copy_from_slice(&self.term.to_be_bytes());
        bytes[RECORD_SLOT].copy_from_slice(&self.slot.to_be_bytes());
        bytes
    }

    /// Reads it; nothing if the records end here.
    ///
    /// # Errors
    /// [`RecordFault::Kind`], [`RecordFault::Slot`].
    pub fn parse(bytes: &[u8; RECORD_HEADER_BYTES]) -> Result<Option<RecordHeader>, RecordFault> {
        let code = bytes[RECORD_KIND];
        if code == 0 {
            return Ok(None);
        }
        let kind = *RecordKind::ALL
            .get(usize::from(code) - 1)
            .ok_or(RecordFault::Kind(code))?;
        let len = &bytes[RECORD_LEN];
        let slot = get_u64(bytes, RECORD_SLOT);
        if slot > NUMBER_MAX {
            return Err(RecordFault::Slot(slot));
        }
        Ok(Some(RecordHeader {
            kind,
            payload_bytes: u32::from_be_bytes([0, len[0], len[1], len[2]]),
            term: get_u64(bytes, RECORD_TERM),
            slot,
        }))
    }
}

/// What [`RecordKind::Origin`] carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The log's end.
    pub end: u64,
    /// The term of the slot before `end`.
    pub end_term: u64,
    /// The oldest commit that still counts: files that begin before the one that holds it are leftovers.
    pub live_lsn: u64,
    /// The end of what was once there, if entries are damaged; otherwise 0.
    pub damage_end: u64,
    /// The term of the slot before `damage_end`.
    pub damage_term: u64,
    /// The snapshot's generation.
    pub generation: u64,
}

impl Origin {
    /// Its bytes.
    pub const BYTES: usize = 48;

    /// Its bytes.
    pub fn emit(&self) -> [u8; Origin::BYTES] {
        let words = [
            self.end,
            self.end_term,
            self.live_lsn,
            self.damage_end,
            self.damage_term,
            self.generation,
        ];
        let mut bytes = [0; Origin::BYTES];
        for (index, word) in words.iter().enumerate() {
            bytes[index * 8..][..8].copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }

    /// Reads it; nothing if the length is wrong. Slots above [`NUMBER_MAX`] read as that.
    pub fn parse(bytes: &[u8]) -> Option<Origin> {
        let bytes: &[u8; Origin::BYTES] = bytes.try_into().ok()?;
        let word = |index: usize| get_u64(bytes, index * 8..index * 8 + 8);
        Some(Origin {
            end: word(0).min(NUMBER_MAX),
            end_term: word(1),
            live_lsn: word(2),
            damage_end: word(3).min(NUMBER_MAX),
            damage_term: word(4),
            generation: word(5),
        })
    }
}

/// Where a record's header begins in the contents, the header, and the payload.
pub type Record<'a> = (usize, RecordHeader, &'a [u8]);

/// Reads a commit's contents (its sectors without their headers, without the commit header) record by record.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    contents: &'a [u8],
    at_bytes: usize,
}

impl<'a> Records<'a> {
    /// Over `contents`.
    pub fn new(contents: &'a [u8]) -> Records<'a> {
        Records { contents, at_bytes: 0 }
    }

    /// The next record. With contents of which only a
    /// beginning is known, [`RecordFault::Length`] ends what can be read.
    ///
    /// # Errors
    /// What is wrong with it; nothing more is read then.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator of results would hide that it stops"
    )]
    pub fn next(&mut self) -> Result<Option<Record<'a>>, RecordFault> {
        let at_bytes = self.at_bytes;
        let rest = &self.contents[at_bytes..];
        let Some(head) = rest.first_chunk::<RECORD_HEADER_BYTES>() else {
            // Less room than a header: only zeros may stand here.
            return match rest.first() {
                None | Some(0) => Ok(None),
                Some(_) => Err(RecordFault::Length),
            };
        };
        let Some(header) = RecordHeader::parse(head)? else {
            return Ok(None);
        };
        let payload = rest[RECORD_HEADER_BYTES..]
            .get(..header.payload_bytes as usize)
            .ok_or(RecordFault::Length)?;
        self.at_bytes += RECORD_HEADER_BYTES + payload.len();
        Ok(Some((at_bytes, header, payload)))
    }
}
