//! A page cache over a disk, with the one habit of Linux that surprises: pages that could not be written are *clean*
//! afterwards. A write stays in memory until `sync` writes it back; if that fails, the caller is told once, what was to be
//! written stays readable, and the next `sync` has nothing left to do and says that all is well.
//!
//! Rebello et al., "Can Applications Recover from fsync Failures?" (USENIX ATC 2020), section 3: so on ext4 (data=ordered)
//! and XFS.

use std::{collections::BTreeMap, io};

use dataplane_wal::{
    Buffer, Completion, EngineStats, FileId, OpenFor, Storage,
    testing::{Disk, Loss, Tear},
};

/// Bytes of a page of memory on most machines.
const PAGE_BYTES: u64 = 4096;

/// What happens when pages are written back: waiting for the device, or its error.
pub type Writeback = Box<dyn FnMut() -> io::Result<()> + Send>;

/// A page in memory, and whether the disk has another.
#[derive(Debug)]
struct Page {
    bytes: Vec<u8>,
    is_dirty: bool,
}

/// A disk behind a page cache; see the module.
pub struct PageCache {
    disk: Disk,
    /// By file and number.
    pages: BTreeMap<(FileId, u64), Page>,
    writeback: Writeback,
    done: Option<Completion>,
}

impl PageCache {
    /// In front of `disk`. `writeback` is called before dirty pages are written; what it fails with, `sync` fails with.
    pub fn new(disk: Disk, writeback: impl FnMut() -> io::Result<()> + Send + 'static) -> PageCache {
        PageCache {
            disk,
            pages: BTreeMap::new(),
            writeback: Box::new(writeback),
            done: None,
        }
    }

    /// In front of `disk`, whose write-back number `at_index` fails with EIO, and that one alone.
    pub fn that_fails_once(disk: Disk, at_index: u64) -> PageCache {
        let mut next_index = 0;
        PageCache::new(disk, move || {
            next_index += 1;
            match next_index - 1 == at_index {
                true => Err(io::Error::from_raw_os_error(EIO)),
                false => Ok(()),
            }
        })
    }

    fn page(&mut self, file: FileId, page: u64) -> io::Result<&mut Page> {
        if !self.pages.contains_key(&(file, page)) {
            let mut bytes = vec![0; PAGE_BYTES as usize];
            let read_bytes = self.disk.read_at(file, page * PAGE_BYTES, &mut bytes)?;
            bytes.truncate(read_bytes);
            self.pages.insert((file, page), Page { bytes, is_dirty: false });
        }
        Ok(self.pages.get_mut(&(file, page)).expect("it has just been put there"))
    }
}

/// errno(3): "Input/output error".
const EIO: i32 = 5;

/// What a power loss leaves of `disk`: nothing that was not flushed.
pub fn after_power_loss(disk: &Disk) -> Disk {
    let loss = Loss {
        events_count: disk.events_count(),
        tear: Tear::Sectors,
    };
    disk.image(loss, &mut |_| false)
}

impl std::fmt::Debug for PageCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PageCache")
            .field("pages", &self.pages.len())
            .finish_non_exhaustive()
    }
}

impl Storage for PageCache {
    fn engine(&self) -> &'static str {
        "page cache"
    }
    fn align_bytes(&self) -> usize {
        self.disk.align_bytes()
    }
    fn place(&self) -> String {
        "memory".into()
    }
    fn list(&mut self) -> io::Result<Vec<(String, u64)>> {
        self.disk.list()
    }
    fn open(&mut self, name: &str, purpose: OpenFor) -> io::Result<FileId> {
        self.disk.open(name, purpose)
    }
    fn close(&mut self, file: FileId) {
        self.disk.close(file);
    }

    fn read_at(&mut self, file: FileId, at_bytes: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut read_bytes = 0;
        while read_bytes < into.len() {
            let at = at_bytes + read_bytes as u64;
            let page = self.page(file, at / PAGE_BYTES)?;
            let rest = page.bytes.get((at % PAGE_BYTES) as usize..).unwrap_or_default();
            let len = rest.len().min(into.len() - read_bytes);
            if len == 0 {
                break;
            }
            into[read_bytes..read_bytes + len].copy_from_slice(&rest[..len]);
            read_bytes += len;
        }
        Ok(read_bytes)
    }

    fn write_at(&mut self, file: FileId, at_bytes: u64, bytes: &[u8]) -> io::Result<()> {
        let mut written_bytes = 0;
        while written_bytes < bytes.len() {
            let at = at_bytes + written_bytes as u64;
            let page = self.page(file, at / PAGE_BYTES)?;
            let begin = (at % PAGE_BYTES) as usize;
            let len = (PAGE_BYTES as usize - begin).min(bytes.len() - written_bytes);
            if page.bytes.len() < begin + len {
                page.bytes.resize(begin + len, 0);
            }
            page.bytes[begin..begin + len].copy_from_slice(&bytes[written_bytes..written_bytes + len]);
            page.is_dirty = true;
            written_bytes += len;
        }
        Ok(())
    }

    fn sync(&mut self, file: FileId) -> io::Result<()> {
        let mut dirty: Vec<(u64, &mut Page)> = self
            .pages
            .iter_mut()
            .filter(|((owner, _), page)| *owner == file && page.is_dirty)
            .map(|((_, number), page)| (*number, page))
            .collect();
        if dirty.is_empty() {
            return Ok(());
        }
        // Clean before anybody knows whether it will be written: that is the habit.
        dirty.iter_mut().for_each(|(_, page)| page.is_dirty = false);
        (self.writeback)()?;
        for (number, page) in dirty {
            self.disk.write_at(file, number * PAGE_BYTES, &page.bytes)?;
        }
        self.disk.sync(file)
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }
    fn sync_folder(&mut self) -> io::Result<()> {
        self.disk.sync_folder()
    }

    /// Past the cache.
    fn make(&mut self, name: &str, head: &[u8], len_bytes: u64) -> io::Result<()> {
        self.disk.make(name, head, len_bytes)
    }
    fn made(&mut self, wait: bool) -> Option<io::Result<()>> {
        self.disk.made(wait)
    }

    fn commit(&mut self, file: FileId, at_bytes: u64, buffer: Buffer) -> io::Result<()> {
        let written = self.write_at(file, at_bytes, buffer.bytes());
        let result = written.and_then(|()| self.sync(file));
        self.done = Some(Completion { buffer, result });
        Ok(())
    }
    fn completed(&mut self, _wait: bool) -> io::Result<Option<Completion>> {
        Ok(self.done.take())
    }
    fn depth(&self) -> usize {
        1
    }
    fn stats(&self) -> EngineStats {
        self.disk.stats()
    }
}
