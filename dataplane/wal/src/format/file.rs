//! A segment file's first sector.

use std::ops::Range;

use dataplane_wire::checksum::crc32c;

use super::{MAGIC, SECTOR_BYTES, VERSION, get_u16, get_u32, get_u64};

const FILE_MAGIC: Range<usize> = 0..8;
pub(super) const FILE_VERSION: Range<usize> = 8..10;
const FILE_SECTOR_BYTES: Range<usize> = 10..12;
const FILE_INDEX: Range<usize> = 12..16;
const FILE_CLUSTER: Range<usize> = 16..24;
const FILE_BYTES: Range<usize> = 24..32;
pub(super) const FILE_CRC: Range<usize> = SECTOR_BYTES - 4..SECTOR_BYTES;

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
pub(super) fn file_crc(sector: &[u8; SECTOR_BYTES]) -> u32 {
    crc32c(&sector[..FILE_CRC.start])
}
