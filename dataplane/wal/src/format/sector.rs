//! A sector: its header, its checksum mixed with its place, and what it is, judged by itself.

use std::ops::Range;

use dataplane_wire::checksum::crc32c;

use super::{NUMBER_MAX, SECTOR_BYTES, get_u16, get_u32, get_u64};

/// The sector's checksum, over all of its bytes that follow, mixed with its place ([`Place::mix`]).
const SECTOR_CRC: Range<usize> = 0..4;
const SECTOR_LSN: Range<usize> = 4..12;
/// The sector's index in its commit; the top bit says that it holds copies.
const SECTOR_INDEX: Range<usize> = 12..14;
/// How many sectors the commit has.
const SECTOR_COUNT: Range<usize> = 14..16;
const COPIES_BIT: u16 = 0x8000;

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
