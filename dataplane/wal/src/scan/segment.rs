//! One segment file in memory: its sectors, which of them are valid, and what stands in them.

use std::io;

use crate::{
    format::{
        COMMIT_HEADER_BYTES, CommitHeader, FIRST_SECTOR, FileHeader, HeaderFault, Origin, Place, RECORD_HEADER_BYTES,
        RecordKind, Records, SECTOR_BYTES, SECTOR_HEADER_BYTES, SECTOR_PAYLOAD_BYTES, Sector, SectorHeader,
        file_version,
    },
    replay::Location,
    storage::{OpenFor, Storage},
};

/// A segment file's name.
pub(crate) fn segment_name(file_index: u32) -> String {
    format!("segment-{file_index:04}")
}

/// The number in a segment file's name.
pub(crate) fn segment_index(name: &str) -> Option<u32> {
    let digits = name.strip_prefix("segment-")?;
    let file_index = digits.parse().ok()?;
    (segment_name(file_index) == name).then_some(file_index)
}

/// One segment file, in memory.
pub(crate) struct Segment {
    pub(crate) file_index: u32,
    pub(crate) header: Result<FileHeader, HeaderFault>,
    bytes: Vec<u8>,
    pub(super) sectors: Vec<Sector>,
}

impl Segment {
    /// Reads and judges a whole file. What the device cannot read counts as damaged.
    pub(crate) fn read(
        storage: &mut dyn Storage,
        file_index: u32,
        file_bytes: u64,
        cluster: u64,
    ) -> io::Result<Segment> {
        let file = storage.open(&segment_name(file_index), OpenFor::Use)?;
        let mut bytes = vec![0; file_bytes as usize / SECTOR_BYTES * SECTOR_BYTES];
        let read = match storage.read_at(file, 0, &mut bytes) {
            Ok(count) => Ok(count),
            Err(_) => read_piecewise(storage, file, &mut bytes),
        };
        storage.close(file);
        bytes.truncate(read? / SECTOR_BYTES * SECTOR_BYTES);
        let (chunks, _) = bytes.as_chunks::<SECTOR_BYTES>();
        let header = chunks.first().map_or(Err(HeaderFault::Magic), FileHeader::parse);
        let place = |sector: usize| Place {
            cluster,
            file_index,
            sector: sector as u32,
        };
        let sectors = chunks
            .iter()
            .enumerate()
            .map(|(sector, bytes)| match sector {
                0 => Sector::Zero,
                // The rest of the header's page is empty.
                1..FIRST_SECTOR if bytes.iter().any(|&byte| byte != 0) => Sector::Damaged,
                _ => Sector::parse(bytes, place(sector)),
            })
            .collect();
        Ok(Segment {
            file_index,
            header,
            bytes,
            sectors,
        })
    }

    pub(crate) fn name(&self) -> String {
        segment_name(self.file_index)
    }

    pub(crate) fn sectors(&self) -> &[Sector] {
        &self.sectors
    }

    pub(super) fn valid(&self, sector: usize) -> Option<SectorHeader> {
        match self.sectors.get(sector) {
            Some(Sector::Valid(header)) => Some(*header),
            _ => None,
        }
    }

    pub(super) fn payload(&self, sector: usize) -> &[u8] {
        &self.bytes[sector * SECTOR_BYTES + SECTOR_HEADER_BYTES..][..SECTOR_PAYLOAD_BYTES]
    }

    /// The header of the commit whose first sector this is.
    pub(crate) fn commit_header(&self, sector: usize) -> CommitHeader {
        let bytes = self.payload(sector).first_chunk::<COMMIT_HEADER_BYTES>();
        CommitHeader::parse(bytes.expect("a sector is longer"))
    }

    /// The format version, if the header can be read.
    pub(crate) fn version(&self) -> Option<u16> {
        self.header.ok()?;
        self.bytes.first_chunk().map(file_version)
    }

    /// The number of the commit that the file begins with; that of the first one that can be read, if that is another.
    pub(crate) fn first_lsn(&self) -> Option<u64> {
        (FIRST_SECTOR..self.sectors.len()).find_map(|sector| self.valid(sector).map(|header| header.lsn))
    }

    /// The highest number in the file.
    pub(crate) fn max_lsn(&self) -> u64 {
        let lsns = (FIRST_SECTOR..self.sectors.len()).filter_map(|sector| self.valid(sector).map(|header| header.lsn));
        lsns.max().unwrap_or(0)
    }

    /// The highest number that some commit here says was durable.
    pub(crate) fn durable_lsn(&self) -> u64 {
        let firsts = (FIRST_SECTOR..self.sectors.len()).filter_map(|sector| {
            let header = self.valid(sector).filter(|header| header.index == 0)?;
            Some(self.commit_header(sector).durable_lsn(header.lsn))
        });
        firsts.max().unwrap_or(0)
    }

    /// For each commit whose header can be read: the number of the one before it, and its own.
    pub(super) fn links(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        (FIRST_SECTOR..self.sectors.len()).filter_map(|sector| {
            let header = self.valid(sector).filter(|header| header.index == 0)?;
            Some((self.commit_header(sector).prev_lsn(header.lsn), header.lsn))
        })
    }

    /// The oldest commit that counts, as the file's origin says.
    pub(crate) fn live_lsn(&self) -> Option<u64> {
        let (sector, header) =
            (FIRST_SECTOR..self.sectors.len()).find_map(|sector| Some((sector, self.valid(sector)?)))?;
        if sector != FIRST_SECTOR + usize::from(header.index) {
            return None;
        }
        // Its copy, in the commit's last sector, or itself.
        let last = FIRST_SECTOR + usize::from(header.count) - 1;
        let records = match self.valid(last) {
            Some(copy) if copy.has_copies && copy.lsn == header.lsn => self.payload(last),
            _ if sector == FIRST_SECTOR => &self.payload(sector)[COMMIT_HEADER_BYTES..],
            _ => return None,
        };
        match Records::new(records).next() {
            Ok(Some((_, header, payload))) if header.kind == RecordKind::Origin => {
                Origin::parse(payload).map(|origin| origin.live_lsn)
            }
            _ => None,
        }
    }

    /// The payload of the entry whose record is at `at`.
    pub(crate) fn entry_payload(&self, at: Location, into: &mut Vec<u8>) {
        into.clear();
        let mut begin = at.at_bytes as usize + RECORD_HEADER_BYTES;
        let end = begin + at.payload_bytes as usize;
        while begin < end {
            let (index, offset) = (begin / SECTOR_PAYLOAD_BYTES, begin % SECTOR_PAYLOAD_BYTES);
            let len = (SECTOR_PAYLOAD_BYTES - offset).min(end - begin);
            into.extend_from_slice(&self.payload(at.sector as usize + index)[offset..][..len]);
            begin += len;
        }
    }

    /// A commit's contents, commit header included, up to its first sector that is not what it should be; and how many
    /// sectors that are.
    pub(crate) fn contents(&self, first: usize, lsn: u64, count: usize, into: &mut Vec<u8>) -> usize {
        into.clear();
        for index in 0..count {
            match self.valid(first + index) {
                Some(header) if header.lsn == lsn && usize::from(header.index) == index => {
                    if !header.has_copies {
                        into.extend_from_slice(self.payload(first + index));
                    }
                }
                _ => return index,
            }
        }
        count
    }
}

/// How much a device that reported an error is asked for at once: the page of the page cache.
const PIECE_BYTES: usize = 4096;

fn read_piecewise(storage: &mut dyn Storage, file: crate::storage::FileId, bytes: &mut [u8]) -> io::Result<usize> {
    let mut read_bytes = 0;
    let mut worked = false;
    let mut failure = None;
    for (index, piece) in bytes.chunks_mut(PIECE_BYTES).enumerate() {
        match storage.read_at(file, (index * PIECE_BYTES) as u64, piece) {
            Ok(count) => {
                worked = true;
                read_bytes += count;
                if count < piece.len() {
                    break;
                }
            }
            Err(error) => {
                // No sector looks like this, so it is found to be damaged.
                piece.fill(0xff);
                read_bytes += piece.len();
                failure = Some(error);
            }
        }
    }
    match failure {
        Some(error) if !worked => Err(error),
        _ => Ok(read_bytes),
    }
}
