//! What stands on the disk, written once: file header, sectors, commits, records.
//!
//! ```text
//! segment file   [ header page | sector | sector | … ]       a header and sectors of 512 bytes
//! commit         one or more sectors in a row: what one sync made durable
//! sector         [ crc lsn index count | 496 bytes ]
//! a commit's     [ commit header | record | record | … | zeros ]   records run on from sector to sector
//! contents
//! ```
//!
//! **Why every sector has its checksum.** A device writes a sector of 512 bytes wholly or not at all, so a torn commit
//! consists of sectors that are new and sectors that are as before: zeros, or a valid sector of an older commit. A
//! sector that is neither has been damaged. With one checksum per commit, a torn end and a flipped bit look alike.
//!
//! **Why a commit never shares a sector with another.** To add to a half-full sector means to write again what has been
//! acknowledged, and no device here promises that the old contents survive a power loss in the middle. So each commit
//! begins in a sector of its own. That costs 512 bytes for a small commit, not 4096.
//!
//! **Commit numbers (LSN)** rise and are never used twice, also across torn ends: whoever opens a log continues above
//! the highest number that is seen anywhere. A sector with a lower number than its place calls for is a leftover.

use std::ops::Range;

use dataplane_wire::checksum::crc32c;

/// The unit of the format, and of what a device writes at once (INCITS 506 SBC-4 §4.5: a logical block; 512 bytes is
/// the smallest in use).
pub const SECTOR_BYTES: usize = 512;
/// What a sector's own header takes.
pub const SECTOR_HEADER_BYTES: usize = 16;
/// A sector's share of a commit's contents.
pub const SECTOR_PAYLOAD_BYTES: usize = SECTOR_BYTES - SECTOR_HEADER_BYTES;
/// The first bytes of a segment file.
pub const MAGIC: [u8; 8] = *b"DPLABWAL";
/// The format that this code writes, and the newest that it reads. Version 1 had no file for the state, version 2 no witness in it;
/// otherwise they are the same.
pub const VERSION: u16 = 3;
/// Where the commits begin: behind the file header and the rest of its page, so that every device can write there.
pub const FIRST_SECTOR: usize = 8;
/// Contents' first bytes: [`CommitHeader`].
pub const COMMIT_HEADER_BYTES: usize = 48;
/// A record's bytes before its payload.
pub const RECORD_HEADER_BYTES: usize = 20;
/// The most sectors of one commit: the index has 15 bits.
pub const COMMIT_SECTORS_MAX: usize = 0x7fff;
/// The longest payload of a record, unless the segments are smaller: what is left of the largest commit with room to
/// spare for its headers.
pub const RECORD_PAYLOAD_BYTES_MAX: usize = 8 << 20;

/// The largest commit number and slot: more than a century of a thousand million a second. What is above was written by
/// nobody's log, whatever its checksum says, and arithmetic on what is below does not overflow.
pub const NUMBER_MAX: u64 = 1 << 62;

/// The most records of one sector: what a sector that cannot be read may have held. One of them may have begun in the sector
/// before: so many sectors in a row have no more than so many times as much.
pub(crate) const SECTOR_RECORDS_MAX: u64 = SECTOR_PAYLOAD_BYTES.div_ceil(RECORD_HEADER_BYTES) as u64;

/// The sector's checksum, over all of its bytes that follow, mixed with its place ([`Place::mix`]).
const SECTOR_CRC: Range<usize> = 0..4;
const SECTOR_LSN: Range<usize> = 4..12;
/// The sector's index in its commit; the top bit says that it holds copies.
const SECTOR_INDEX: Range<usize> = 12..14;
/// How many sectors the commit has.
const SECTOR_COUNT: Range<usize> = 14..16;
const COPIES_BIT: u16 = 0x8000;

const FILE_MAGIC: Range<usize> = 0..8;
const FILE_VERSION: Range<usize> = 8..10;
const FILE_SECTOR_BYTES: Range<usize> = 10..12;
const FILE_INDEX: Range<usize> = 12..16;
const FILE_CLUSTER: Range<usize> = 16..24;
const FILE_BYTES: Range<usize> = 24..32;
const FILE_CRC: Range<usize> = SECTOR_BYTES - 4..SECTOR_BYTES;

const COMMIT_PREV: Range<usize> = 0..4;
const COMMIT_DURABLE: Range<usize> = 4..8;
const COMMIT_STATES: Range<usize> = 8..12;
const COMMIT_CUT: Range<usize> = 12..16;
const COMMIT_CUT_SLOT: Range<usize> = 16..24;
const COMMIT_BEGIN: Range<usize> = 24..32;
const COMMIT_END: Range<usize> = 32..40;
const COMMIT_END_TERM: Range<usize> = 40..48;

const RECORD_KIND: usize = 0;
const RECORD_LEN: Range<usize> = 1..4;
const RECORD_TERM: Range<usize> = 4..12;
const RECORD_SLOT: Range<usize> = 12..20;

fn array<const N: usize>(bytes: &[u8], range: Range<usize>) -> [u8; N] {
    bytes[range].try_into().expect("the ranges above have these lengths")
}

fn get_u16(bytes: &[u8], range: Range<usize>) -> u16 {
    u16::from_be_bytes(array(bytes, range))
}

fn get_u32(bytes: &[u8], range: Range<usize>) -> u32 {
    u32::from_be_bytes(array(bytes, range))
}

fn get_u64(bytes: &[u8], range: Range<usize>) -> u64 {
    u64::from_be_bytes(array(bytes, range))
}

/// Where a sector stands. It goes into the sector's checksum, so that a sector of another log, another file or another
/// place in the file (a misdirected write) is not taken for the one that should be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The cluster whose log it is.
    pub cluster: u64,
    /// The file's number, as in its name.
    pub file_index: u32,
    /// The sector's number in its file; the header is number 0.
    pub sector: u32,
}

impl Place {
    fn mix(&self) -> u32 {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.cluster.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.file_index.to_be_bytes());
        bytes[12..].copy_from_slice(&self.sector.to_be_bytes());
        crc32c(&bytes)
    }
}

/// A segment file's first sector. It is written once, when the file is made, and holds nothing that changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileHeader {
    /// The cluster whose log it is.
    pub cluster: u64,
    /// The file's number, as in its name.
    pub file_index: u32,
    /// The file's length in bytes.
    pub file_bytes: u64,
}

/// Why a file's first sector is not that of a segment of this log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderFault {
    /// It begins otherwise.
    #[error("it does not begin like a segment of a log")]
    Magic,
    /// Its checksum does not match.
    #[error("the checksum of its header does not match")]
    Checksum,
    /// It has a version that this code does not know.
    #[error(
        "it has format version {0}, and this build reads up to version {VERSION}: use the build that wrote it, or a newer one"
    )]
    Version(u16),
    /// It has sectors of another size.
    #[error("it has sectors of {0} bytes instead of {SECTOR_BYTES}")]
    SectorBytes(u16),
}

impl FileHeader {
    /// Writes it over the first bytes of `sector`; the rest becomes zeros.
    pub fn emit(&self, sector: &mut [u8; SECTOR_BYTES]) {
        sector.fill(0);
        sector[FILE_MAGIC].copy_from_slice(&MAGIC);
        sector[FILE_VERSION].copy_from_slice(&VERSION.to_be_bytes());
        sector[FILE_SECTOR_BYTES].copy_from_slice(&(SECTOR_BYTES as u16).to_be_bytes());
        sector[FILE_INDEX].copy_from_slice(&self.file_index.to_be_bytes());
        sector[FILE_CLUSTER].copy_from_slice(&self.cluster.to_be_bytes());
        sector[FILE_BYTES].copy_from_slice(&self.file_bytes.to_be_bytes());
        let crc = file_crc(sector);
        sector[FILE_CRC].copy_from_slice(&crc.to_be_bytes());
    }

    /// Reads it.
    ///
    /// # Errors
    /// What is wrong with it. The version is judged last, so that a flipped bit is not taken for a newer format.
    pub fn parse(sector: &[u8; SECTOR_BYTES]) -> Result<FileHeader, HeaderFault> {
        if sector[FILE_MAGIC] != MAGIC {
            return Err(HeaderFault::Magic);
        }
        if get_u32(sector, FILE_CRC) != file_crc(sector) {
            return Err(HeaderFault::Checksum);
        }
        let version = get_u16(sector, FILE_VERSION);
        if !(1..=VERSION).contains(&version) {
            return Err(HeaderFault::Version(version));
        }
        let sector_bytes = get_u16(sector, FILE_SECTOR_BYTES);
        if usize::from(sector_bytes) != SECTOR_BYTES {
            return Err(HeaderFault::SectorBytes(sector_bytes));
        }
        Ok(FileHeader {
            cluster: get_u64(sector, FILE_CLUSTER),
            file_index: get_u32(sector, FILE_INDEX),
            file_bytes: get_u64(sector, FILE_BYTES),
        })
    }
}

/// The format version of a file whose header has been parsed.
pub(crate) fn file_version(sector: &[u8; SECTOR_BYTES]) -> u16 {
    get_u16(sector, FILE_VERSION)
}

/// Over the whole sector but the checksum itself.
fn file_crc(sector: &[u8; SECTOR_BYTES]) -> u32 {
    crc32c(&sector[..FILE_CRC.start])
}

/// A sector's own header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SectorHeader {
    /// The commit's number.
    pub lsn: u64,
    /// Which of the commit's sectors this is.
    pub index: u16,
    /// How many the commit has; above `index`.
    pub count: u16,
    /// It holds nothing but copies of what must not be lost with one sector: state, origin, snapshot, what is overwritten.
    pub has_copies: bool,
}

/// What a sector is, judged by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sector {
    /// Never written since the file was made.
    Zero,
    /// As it was written, here, by a log of this cluster.
    Valid(SectorHeader),
    /// Neither: no device leaves this behind when the power goes.
    Damaged,
}

impl Sector {
    /// Judges `bytes` at `place`.
    pub fn parse(bytes: &[u8; SECTOR_BYTES], place: Place) -> Sector {
        if bytes.iter().all(|&byte| byte == 0) {
            return Sector::Zero;
        }
        let header = SectorHeader {
            lsn: get_u64(bytes, SECTOR_LSN),
            index: get_u16(bytes, SECTOR_INDEX) & !COPIES_BIT,
            count: get_u16(bytes, SECTOR_COUNT),
            has_copies: get_u16(bytes, SECTOR_INDEX) & COPIES_BIT != 0,
        };
        let crc = crc32c(&bytes[SECTOR_CRC.end..]) ^ place.mix();
        if get_u32(bytes, SECTOR_CRC) != crc || header.index >= header.count || !(1..=NUMBER_MAX).contains(&header.lsn)
        {
            return Sector::Damaged;
        }
        Sector::Valid(header)
    }
}

/// Writes `header` and the checksum around the contents that stand in `sector` already.
pub fn seal_sector(sector: &mut [u8; SECTOR_BYTES], header: SectorHeader, place: Place) {
    let copy_bit = if header.has_copies { COPIES_BIT } else { 0 };
    sector[SECTOR_LSN].copy_from_slice(&header.lsn.to_be_bytes());
    sector[SECTOR_INDEX].copy_from_slice(&(header.index | copy_bit).to_be_bytes());
    sector[SECTOR_COUNT].copy_from_slice(&header.count.to_be_bytes());
    let crc = crc32c(&sector[SECTOR_CRC.end..]) ^ place.mix();
    sector[SECTOR_CRC].copy_from_slice(&crc.to_be_bytes());
}

/// What a commit says about the log as it was before it. A commit that is lost is judged by the next one that is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommitHeader {
    /// How far below this commit's number that of the commit before it is: 1, but after a torn end.
    pub prev_delta: u32,
    /// How far below this commit's number the last is that was known to be durable when this one was written. A commit
    /// that is missing and above that was never acknowledged; one at or below it was.
    pub durable_delta: u32,
    /// How many states had been set, ever.
    pub states_count: u32,
    /// How far below this commit's number the last is that overwrote earlier slots. 0: none, or long ago.
    pub cut_delta: u32,
    /// The lowest slot that any commit has overwritten, among those that may still be read.
    pub cut_slot: u64,
    /// The end of the snapshot that stood; 0 without one.
    pub begin: u64,
    /// The end of the log.
    pub end: u64,
    /// The term of the slot before `end`.
    pub end_term: u64,
}

/// What has been overwritten: whoever knows the log as it stood behind some commit, and nothing of what came after that, keeps
/// all entries if that commit's number is not below `lsn`, and those before `slot` otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// The last commit that overwrote slots; 0: none did.
    pub(crate) lsn: u64,
    /// The lowest slot that any has.
    pub(crate) slot: u64,
}

impl Default for Cut {
    fn default() -> Cut {
        Cut {
            lsn: 0,
            slot: NUMBER_MAX,
        }
    }
}

impl Cut {
    /// Commit `lsn` overwrites from `slot` on.
    pub(crate) fn at(self, lsn: u64, slot: u64) -> Cut {
        Cut {
            lsn,
            slot: slot.min(self.slot),
        }
    }
}

impl CommitHeader {
    /// The number of the commit before the one with number `lsn`. 0 if that is too long ago to be said: then nothing tells that
    /// any between them is missing.
    pub(crate) fn prev_lsn(&self, lsn: u64) -> u64 {
        before(lsn, self.prev_delta)
    }

    /// The last commit that was known to be durable. 0 if that is too long ago to be said.
    pub(crate) fn durable_lsn(&self, lsn: u64) -> u64 {
        before(lsn, self.durable_delta)
    }

    /// What had been overwritten before.
    pub(crate) fn cut(&self, lsn: u64) -> Cut {
        Cut {
            lsn: match self.cut_delta {
                0 => 0,
                delta => before(lsn, delta),
            },
            slot: self.cut_slot,
        }
    }

    /// Writes it.
    pub fn emit(&self, bytes: &mut [u8; COMMIT_HEADER_BYTES]) {
        bytes[COMMIT_PREV].copy_from_slice(&self.prev_delta.to_be_bytes());
        bytes[COMMIT_DURABLE].copy_from_slice(&self.durable_delta.to_be_bytes());
        bytes[COMMIT_STATES].copy_from_slice(&self.states_count.to_be_bytes());
        bytes[COMMIT_CUT].copy_from_slice(&self.cut_delta.to_be_bytes());
        bytes[COMMIT_CUT_SLOT].copy_from_slice(&self.cut_slot.to_be_bytes());
        bytes[COMMIT_BEGIN].copy_from_slice(&self.begin.to_be_bytes());
        bytes[COMMIT_END].copy_from_slice(&self.end.to_be_bytes());
        bytes[COMMIT_END_TERM].copy_from_slice(&self.end_term.to_be_bytes());
    }

    /// Reads it. Any bytes are one; the sector's checksum has vouched for them. Slots above [`NUMBER_MAX`] read as that.
    pub fn parse(bytes: &[u8; COMMIT_HEADER_BYTES]) -> CommitHeader {
        CommitHeader {
            prev_delta: get_u32(bytes, COMMIT_PREV),
            durable_delta: get_u32(bytes, COMMIT_DURABLE),
            states_count: get_u32(bytes, COMMIT_STATES),
            cut_delta: get_u32(bytes, COMMIT_CUT),
            cut_slot: get_u64(bytes, COMMIT_CUT_SLOT).min(NUMBER_MAX),
            begin: get_u64(bytes, COMMIT_BEGIN).min(NUMBER_MAX),
            end: get_u64(bytes, COMMIT_END).min(NUMBER_MAX),
            end_term: get_u64(bytes, COMMIT_END_TERM),
        }
    }
}

/// `delta` below `lsn`; the largest stands for everything above it.
fn before(lsn: u64, delta: u32) -> u64 {
    match delta {
        u32::MAX => 0,
        _ => lsn.saturating_sub(u64::from(delta)),
    }
}

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

#[cfg(test)]
mod tests;
