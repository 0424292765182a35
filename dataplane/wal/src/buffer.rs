//! Memory for one commit, aligned as O_DIRECT wants it, filled record by record and sealed sector by sector.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::format::{
    COMMIT_HEADER_BYTES, COMMIT_SECTORS_MAX, CommitHeader, Place, RECORD_HEADER_BYTES, RecordHeader, SECTOR_BYTES,
    SECTOR_HEADER_BYTES, SECTOR_PAYLOAD_BYTES, SectorHeader, seal_sector,
};

/// The strictest alignment that a device in use asks for: one page.
pub const MEMORY_ALIGN_BYTES: usize = 4096;

/// Bytes that begin at a multiple of [`MEMORY_ALIGN_BYTES`]. They never move while they are lent to the kernel, because
/// whoever lends them gives the whole buffer away.
#[derive(Debug)]
pub struct Buffer {
    /// Of all buffers that this process ever made.
    id: u64,
    memory: Vec<u8>,
    skip_bytes: usize,
    len_bytes: usize,
}

impl Buffer {
    /// Zeros; room for `capacity_bytes` rounded up to the alignment.
    pub fn new(capacity_bytes: usize) -> Buffer {
        let capacity_bytes = capacity_bytes.next_multiple_of(MEMORY_ALIGN_BYTES);
        let memory = vec![0; capacity_bytes + MEMORY_ALIGN_BYTES];
        let skip_bytes = memory.as_ptr().align_offset(MEMORY_ALIGN_BYTES);
        assert!(skip_bytes <= MEMORY_ALIGN_BYTES, "bytes can be aligned");
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Buffer {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            memory,
            skip_bytes,
            len_bytes: 0,
        }
    }

    /// `len_bytes` zeros.
    pub fn zeroed(len_bytes: usize) -> Buffer {
        Buffer {
            len_bytes,
            ..Buffer::new(len_bytes)
        }
    }

    /// Other memory with the same bytes to be written, and the same capacity.
    pub(crate) fn copy(&self) -> Buffer {
        let mut copy = Buffer::new(self.capacity_bytes());
        copy.len_bytes = self.len_bytes;
        copy.bytes_mut().copy_from_slice(self.bytes());
        copy
    }

    /// Names this memory: no other buffer, not even a later one at the same address, has the same.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// All its memory, used or not.
    pub(crate) fn whole(&self) -> &[u8] {
        &self.memory[self.skip_bytes..][..self.capacity_bytes()]
    }

    /// How much fits without new memory.
    pub fn capacity_bytes(&self) -> usize {
        self.memory.len() - MEMORY_ALIGN_BYTES
    }

    /// What is to be written.
    pub fn bytes(&self) -> &[u8] {
        &self.memory[self.skip_bytes..][..self.len_bytes]
    }

    /// The same, to be changed.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.skip_bytes..][..self.len_bytes]
    }

    /// Makes it `len_bytes` of `byte`, for whoever measures a disk without a log.
    ///
    /// # Panics
    /// If that is more than its capacity.
    pub fn fill(&mut self, len_bytes: usize, byte: u8) {
        self.all_mut()[..len_bytes].fill(byte);
        self.len_bytes = len_bytes;
    }

    fn all_mut(&mut self) -> &mut [u8] {
        let capacity_bytes = self.capacity_bytes();
        &mut self.memory[self.skip_bytes..][..capacity_bytes]
    }

    fn grow(&mut self, capacity_bytes: usize) {
        let mut larger = Buffer::new(capacity_bytes.max(2 * self.capacity_bytes()));
        let old_bytes = self.capacity_bytes();
        larger.all_mut()[..old_bytes].copy_from_slice(self.all_mut());
        *self = larger;
    }
}

/// A commit under construction.
#[derive(Debug)]
pub(crate) struct CommitBuilder {
    buffer: Buffer,
    /// How much of the contents is there, sector headers not counted; the commit header's room is.
    contents_bytes: usize,
}

impl CommitBuilder {
    pub(crate) fn new(capacity_bytes: usize) -> CommitBuilder {
        CommitBuilder::reuse(Buffer::new(capacity_bytes))
    }

    pub(crate) fn reuse(buffer: Buffer) -> CommitBuilder {
        CommitBuilder {
            buffer,
            contents_bytes: COMMIT_HEADER_BYTES,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.contents_bytes == COMMIT_HEADER_BYTES
    }

    /// How many sectors the contents take.
    pub(crate) fn sectors_count(&self) -> usize {
        self.contents_bytes.div_ceil(SECTOR_PAYLOAD_BYTES)
    }

    /// How many sectors they would take with one more record.
    pub(crate) fn sectors_with(&self, payload_bytes: usize) -> usize {
        (self.contents_bytes + RECORD_HEADER_BYTES + payload_bytes).div_ceil(SECTOR_PAYLOAD_BYTES)
    }

    /// Adds a record. The caller has seen to it that the commit does not become too long.
    pub(crate) fn push(&mut self, header: RecordHeader, payload: &[u8]) {
        let sectors_count = self.sectors_with(payload.len());
        assert!(
            sectors_count <= COMMIT_SECTORS_MAX,
            "a commit of {sectors_count} sectors"
        );
        // One more sector for a copy of the state.
        let needed_bytes = (sectors_count + 1) * SECTOR_BYTES;
        if needed_bytes > self.buffer.capacity_bytes() {
            self.buffer.grow(needed_bytes);
        }
        self.put(&header.emit());
        self.put(payload);
    }

    fn put(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (sector, offset_bytes) = (
                self.contents_bytes / SECTOR_PAYLOAD_BYTES,
                self.contents_bytes % SECTOR_PAYLOAD_BYTES,
            );
            let (now, later) = bytes.split_at(bytes.len().min(SECTOR_PAYLOAD_BYTES - offset_bytes));
            let at_bytes = sector * SECTOR_BYTES + SECTOR_HEADER_BYTES + offset_bytes;
            self.buffer.all_mut()[at_bytes..][..now.len()].copy_from_slice(now);
            self.contents_bytes += now.len();
            bytes = later;
        }
    }

    fn zero_to_sector_end(&mut self) {
        let offset_bytes = self.contents_bytes % SECTOR_PAYLOAD_BYTES;
        if offset_bytes > 0 {
            let rest_bytes = SECTOR_PAYLOAD_BYTES - offset_bytes;
            let at_bytes =
                self.contents_bytes / SECTOR_PAYLOAD_BYTES * SECTOR_BYTES + SECTOR_HEADER_BYTES + offset_bytes;
            self.buffer.all_mut()[at_bytes..][..rest_bytes].fill(0);
            self.contents_bytes += rest_bytes;
        }
    }

    /// Writes all headers and checksums. `copies` stand once more in a sector of their own, the commit's last: a state (a
    /// vote) must not be forgotten because one sector went bad. The first sector's place is `place`; the length becomes
    /// a multiple of `align_sectors`.
    pub(crate) fn seal(
        mut self,
        lsn: u64,
        header: CommitHeader,
        place: Place,
        align_sectors: usize,
        copies: &[(RecordHeader, &[u8])],
    ) -> Buffer {
        self.zero_to_sector_end();
        let used = self.sectors_count();
        let count = (used + usize::from(!copies.is_empty())).next_multiple_of(align_sectors);
        if count * SECTOR_BYTES > self.buffer.capacity_bytes() {
            self.buffer.grow(count * SECTOR_BYTES);
        }
        let bytes = &mut self.buffer.all_mut()[..count * SECTOR_BYTES];
        bytes[used * SECTOR_BYTES..].fill(0);
        let head = &mut bytes[SECTOR_HEADER_BYTES..][..COMMIT_HEADER_BYTES];
        header.emit(head.try_into().expect("it has this length"));
        let mut at_bytes = (count - 1) * SECTOR_BYTES + SECTOR_HEADER_BYTES;
        for (header, payload) in copies {
            bytes[at_bytes..][..RECORD_HEADER_BYTES].copy_from_slice(&header.emit());
            bytes[at_bytes + RECORD_HEADER_BYTES..][..payload.len()].copy_from_slice(payload);
            at_bytes += RECORD_HEADER_BYTES + payload.len();
        }
        let (sectors, _) = bytes.as_chunks_mut::<SECTOR_BYTES>();
        for (index, sector) in sectors.iter_mut().enumerate() {
            let header = SectorHeader {
                lsn,
                index: index as u16,
                count: count as u16,
                has_copies: !copies.is_empty() && index + 1 == count,
            };
            let place = Place {
                sector: place.sector + index as u32,
                ..place
            };
            seal_sector(sector, header, place);
        }
        self.buffer.len_bytes = count * SECTOR_BYTES;
        self.buffer
    }
}
