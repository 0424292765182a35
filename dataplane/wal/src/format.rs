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

mod commit;
mod file;
mod record;
mod sector;

use std::ops::Range;

pub use commit::CommitHeader;
pub(crate) use commit::Cut;
pub(crate) use file::file_version;
pub use file::{FileHeader, HeaderFault};
pub use record::{Origin, Record, RecordFault, RecordHeader, RecordKind, Records};
pub use sector::{Place, Sector, SectorHeader, seal_sector};

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

#[cfg(test)]
mod tests;
