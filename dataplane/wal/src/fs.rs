//! Folders of a Linux file system, and the ways to write a commit to them.

mod maker;
mod probe;

use std::{
    collections::VecDeque,
    fs::{File, OpenOptions, TryLockError},
    io,
    os::{
        fd::BorrowedFd,
        unix::fs::{FileExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use maker::{Make, Maker};
pub use probe::probe;

use crate::{
    buffer::Buffer,
    error::WalError,
    format::SECTOR_BYTES,
    storage::{Completion, EngineStats, FileId, OpenFor, Storage},
    sys::{
        self,
        ring::{Gear, RING_DEPTH, WriteRing},
    },
};

/// A way to write a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Engine {
    /// Write into the page cache, then fdatasync(2).
    File,
    /// O_DIRECT, and one pwritev2(2) with RWF_DSYNC: one system call, no copy.
    Dsync,
    /// The same write through io_uring: the thread does not wait for it, and several may be under way. With all that the
    /// kernel offers: one issuer, deferred task work, registered buffers and files.
    Uring,
    /// The same without these, to see what they are worth.
    UringPlain,
}

impl Engine {
    /// The ways to disk.
    pub const ALL: [Engine; 3] = [Engine::File, Engine::Dsync, Engine::Uring];
    /// These, and what is there for comparisons.
    pub const NAMED: [Engine; 4] = [Engine::File, Engine::Dsync, Engine::Uring, Engine::UringPlain];

    /// Does its thread sleep until a commit is on the disk?
    pub const fn blocks(self) -> bool {
        !self.is_ring()
    }

    const fn is_ring(self) -> bool {
        matches!(self, Engine::Uring | Engine::UringPlain)
    }

    /// Its name, for records.
    pub const fn name(self) -> &'static str {
        match self {
            Engine::File => "file",
            Engine::Dsync => "dsync",
            Engine::Uring => "uring",
            Engine::UringPlain => "uring-plain",
        }
    }
}

/// Memory that a probe of a ring locks for each write: as long as commits get, unless a log is told otherwise.
const PROBE_BYTES: usize = 256 << 10;
/// The file whose lock says that a log is open.
const LOCK_NAME: &str = "LOCK";

/// A folder. Locked as long as this lives.
#[derive(Debug)]
pub struct FolderStorage {
    /// Declared first: what is under way is over before the files are closed.
    ring: WriteRing,
    /// Ends before the lock is given back.
    maker: Maker,
    folder: PathBuf,
    folder_file: File,
    _lock: Option<File>,
    engine: Engine,
    align_bytes: usize,
    files: Vec<Option<File>>,
    done: VecDeque<Completion>,
    stats: EngineStats,
}

impl FolderStorage {
    /// Opens the folder, which is made if it is not there, for one owner.
    ///
    /// # Errors
    /// [`WalError::InUse`], [`WalError::Io`]; [`WalError::Options`] if the file system has no direct I/O.
    pub fn open(folder: &Path, engine: Engine) -> Result<FolderStorage, WalError> {
        let place = folder.display();
        std::fs::create_dir_all(folder).map_err(WalError::io(format!("making the folder {place}")))?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(folder.join(LOCK_NAME))
            .map_err(WalError::io(format!("opening {place}/{LOCK_NAME}")))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(WalError::InUse {
                    place: place.to_string(),
                });
            }
            Err(TryLockError::Error(error)) => {
                return Err(WalError::io(format!("locking {place}/{LOCK_NAME}"))(error));
            }
        }
        FolderStorage::with_lock(folder, engine, Some(lock))
    }

    /// Opens the folder for reading alone, whoever has it open: for looking at a log.
    ///
    /// # Errors
    /// [`WalError::Io`].
    pub fn open_to_read(folder: &Path) -> Result<FolderStorage, WalError> {
        FolderStorage::with_lock(folder, Engine::File, None)
    }

    fn with_lock(folder: &Path, engine: Engine, lock: Option<File>) -> Result<FolderStorage, WalError> {
        let place = folder.display();
        let folder_file = File::open(folder).map_err(WalError::io(format!("opening the folder {place}")))?;
        let align_bytes = match (engine, &lock) {
            (Engine::Dsync | Engine::Uring | Engine::UringPlain, Some(lock)) => {
                direct_align(lock).map_err(WalError::io(format!("asking {place}")))?
            }
            _ => SECTOR_BYTES,
        };
        if align_bytes == 0 {
            return Err(WalError::Options(format!(
                "the file system of {place} has no direct I/O, which the engine `{}` needs: use `file`",
                engine.name()
            )));
        }
        let gear = match engine.is_ring() && lock.is_some() {
            true => Gear::probe(PROBE_BYTES).map_err(|error| WalError::Options(refused_ring(&error)))?,
            false => Gear::PLAIN,
        };
        let gear = match engine {
            Engine::UringPlain => Gear::PLAIN,
            _ => gear,
        };
        Ok(FolderStorage {
            folder: folder.into(),
            folder_file,
            _lock: lock,
            engine,
            align_bytes,
            files: Vec::new(),
            done: VecDeque::new(),
            ring: WriteRing::new(gear),
            maker: Maker::default(),
            stats: EngineStats::default(),
        })
    }

    fn file(&self, id: FileId) -> &File {
        self.files[id.0 as usize].as_ref().expect("the file is open")
    }

    fn write(&mut self, id: FileId, at_bytes: u64, bytes: &[u8]) -> io::Result<()> {
        let mut short_count = 0;
        let file = self.file(id);
        let written = match self.engine {
            Engine::File => write_all(bytes, &mut short_count, |offset, rest| {
                file.write_at(rest, at_bytes + offset as u64)
            })
            .and_then(|()| file.sync_data()),
            Engine::Uring | Engine::UringPlain => unreachable!("it goes through the ring"),
            Engine::Dsync => write_all(bytes, &mut short_count, |offset, rest| {
                sys::write_durably(file, at_bytes + offset as u64, rest)
            }),
        };
        self.stats.short_writes_count += short_count;
        written
    }
}

/// Writes until all is written; an interrupted call and a short one are continued, which is no retry of a failed one.
pub(crate) fn write_all(
    bytes: &[u8],
    short_count: &mut u64,
    mut write: impl FnMut(usize, &[u8]) -> io::Result<usize>,
) -> io::Result<()> {
    let mut offset = 0;
    while offset < bytes.len() {
        match write(offset, &bytes[offset..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                offset += count;
                *short_count += u64::from(offset < bytes.len());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Why there is no ring, and what to try.
fn refused_ring(error: &io::Error) -> String {
    let mend = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "`kernel.io_uring_disabled` or a seccomp filter forbids it (containers often do)"
        }
        Some(libc::ENOSYS) => "this kernel has no io_uring",
        Some(libc::ENOMEM) => "raise the memory that may be locked: `ulimit -l unlimited`",
        _ => "see io_uring_setup(2)",
    };
    format!("the kernel gives the engine `uring` no ring ({error}): {mend}; or use `dsync`")
}

/// Threads that io_uring has made for this process: requests that would have blocked are carried out by them (io-wq).
fn ring_workers_count() -> u64 {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else {
        return 0;
    };
    let names = tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with("iou-wrk")).count() as u64
}

/// What direct I/O wants in the folder of `file`; 0 if it does not exist there.
fn direct_align(file: &File) -> io::Result<usize> {
    // A file system that does not say takes pages if it takes anything; opening a file with O_DIRECT will tell.
    Ok(sys::direct_align_bytes(file)?.map_or(4096, |align_bytes| align_bytes as usize))
}

impl Storage for FolderStorage {
    fn engine(&self) -> &'static str {
        self.engine.name()
    }

    fn way(&self) -> &'static str {
        match self.engine.is_ring() {
            true => self.ring.gear().name(),
            false => self.engine.name(),
        }
    }

    fn align_bytes(&self) -> usize {
        self.align_bytes
    }

    fn place(&self) -> String {
        self.folder.display().to_string()
    }

    fn list(&mut self) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            // What is not text is no file of ours.
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            match entry.metadata() {
                Ok(metadata) => files.push((name, metadata.len())),
                // A segment file that is being made beside us has got its name since the folder was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        files.sort_unstable();
        Ok(files)
    }

    fn open(&mut self, name: &str, purpose: OpenFor) -> io::Result<FileId> {
        let path = self.folder.join(name);
        let mut options = OpenOptions::new();
        options.read(true);
        let file = match purpose {
            OpenFor::Use if self._lock.is_none() => options.open(path)?,
            OpenFor::Use => options.write(true).open(path)?,
            OpenFor::Create => options.write(true).create(true).truncate(true).open(path)?,
            OpenFor::Commits => {
                if self.engine != Engine::File {
                    options.custom_flags(libc::O_DIRECT);
                }
                options.write(true).open(path)?
            }
        };
        let free = self.files.iter().position(Option::is_none);
        let index = free.unwrap_or_else(|| {
            self.files.push(None);
            self.files.len() - 1
        });
        self.files[index] = Some(file);
        Ok(FileId(index as u32))
    }

    fn close(&mut self, file: FileId) {
        if let Some(file) = self.files[file.0 as usize].take() {
            self.ring.forget(&file);
        }
    }

    fn read_at(&mut self, file: FileId, at_bytes: u64, into: &mut [u8]) -> io::Result<usize> {
        let file = self.file(file);
        let mut read_bytes = 0;
        while read_bytes < into.len() {
            match file.read_at(&mut into[read_bytes..], at_bytes + read_bytes as u64) {
                Ok(0) => break,
                Ok(count) => read_bytes += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read_bytes)
    }

    fn write_at(&mut self, file: FileId, at_bytes: u64, bytes: &[u8]) -> io::Result<()> {
        self.file(file).write_all_at(bytes, at_bytes)
    }

    fn sync(&mut self, file: FileId) -> io::Result<()> {
        self.file(file).sync_all()
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.folder.join(from), self.folder.join(to))
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.folder.join(name))
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        self.folder_file.sync_all()
    }

    fn make(&mut self, name: &str, head: &[u8], len_bytes: u64) -> io::Result<()> {
        self.maker.start(Make {
            folder: self.folder.clone(),
            name: name.to_owned(),
            head: head.to_vec(),
            len_bytes,
            is_direct: self.engine != Engine::File,
        })
    }

    fn made(&mut self, wait: bool) -> Option<io::Result<()>> {
        self.maker.made(wait)
    }

    fn commit(&mut self, file: FileId, at_bytes: u64, buffer: Buffer) -> io::Result<()> {
        self.stats.commits_count += 1;
        self.stats.commits_bytes += buffer.bytes().len() as u64;
        if self.engine.is_ring() {
            let file = self.files[file.0 as usize].as_ref().expect("the file is open");
            return self.ring.start(file, at_bytes, buffer);
        }
        let result = self.write(file, at_bytes, buffer.bytes());
        self.done.push_back(Completion { buffer, result });
        Ok(())
    }

    fn completed(&mut self, wait: bool) -> io::Result<Option<Completion>> {
        if self.engine.is_ring() {
            return self.ring.next(wait);
        }
        Ok(self.done.pop_front())
    }

    fn bell(&self) -> Option<BorrowedFd<'_>> {
        self.ring.bell()
    }

    fn depth(&self) -> usize {
        match self.engine {
            Engine::File | Engine::Dsync => 1,
            Engine::Uring | Engine::UringPlain => RING_DEPTH,
        }
    }

    fn leave(&mut self) {
        // They end with the thread that they work for.
        self.stats.punt_workers_count = self.stats().punt_workers_count;
        self.ring.leave();
    }

    fn stats(&self) -> EngineStats {
        EngineStats {
            short_writes_count: self.stats.short_writes_count + self.ring.short_count(),
            punt_workers_count: match self.ring.is_made() {
                true => ring_workers_count().max(self.stats.punt_workers_count),
                false => self.stats.punt_workers_count,
            },
            ..self.stats
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a file holds after a write whose calls end as `calls` says: so many bytes, or an error.
    fn written(bytes: &[u8], calls: &[Result<usize, io::ErrorKind>]) -> (Vec<u8>, u64, io::Result<()>) {
        let (mut file, mut short_count) = (vec![0; bytes.len()], 0);
        let mut calls = calls.iter();
        let outcome = write_all(bytes, &mut short_count, |offset, rest| {
            let count = calls.next().copied().unwrap_or(Ok(rest.len()))?;
            file[offset..offset + count].copy_from_slice(&rest[..count]);
            Ok(count)
        });
        (file, short_count, outcome)
    }

    #[test]
    fn a_file_that_gets_its_name_while_the_folder_is_read_is_no_error() {
        let folder = std::env::temp_dir().join(format!("dplab-wal-list-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("the folder can be made");
        let mut storage = FolderStorage::open(&folder, Engine::File).expect("nobody has it");
        // Enough of them that others do something while each is looked at.
        const FILES_COUNT: usize = 300;
        for index in 0..FILES_COUNT {
            File::create(folder.join(format!("{index:03}"))).expect("it can be made");
        }
        let (unfinished, whole) = (folder.join("made.tmp"), folder.join("made"));
        File::create(&unfinished).expect("it can be made");
        let is_over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                    std::fs::rename(&unfinished, &whole).expect("it is there");
                    std::fs::rename(&whole, &unfinished).expect("it is there");
                }
            });
            let listed: Vec<_> = (0..100).map(|_| storage.list()).collect();
            is_over.store(true, std::sync::atomic::Ordering::Relaxed);
            for files in listed {
                let files = files.expect("what is gone is not there");
                let kept_count = files.iter().filter(|(name, _)| name.len() == 3).count();
                assert_eq!(kept_count, FILES_COUNT);
            }
        });
        std::fs::remove_dir_all(&folder).expect("it is ours");
    }

    #[test]
    fn a_short_write_is_continued_where_it_ended_and_a_failed_one_is_not() {
        let bytes: Vec<u8> = (0..2048).map(|index| (index / 8) as u8).collect();
        let interrupted = Err(io::ErrorKind::Interrupted);
        for first in (512..2048).step_by(512) {
            let (file, short_count, outcome) = written(&bytes, &[interrupted, Ok(first), interrupted]);
            assert!(outcome.is_ok() && file == bytes, "{first}: {outcome:?}");
            assert_eq!(short_count, 1);
            let (file, short_count, outcome) = written(&bytes, &[Ok(first), Err(io::ErrorKind::StorageFull), Ok(2048)]);
            assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::StorageFull);
            assert!(file[..first] == bytes[..first] && file[first..].iter().all(|&byte| byte == 0));
            assert_eq!(short_count, 1);
        }
        let (_, short_count, outcome) = written(&bytes, &[Ok(512), Ok(512), Ok(0)]);
        assert_eq!(
            (short_count, outcome.unwrap_err().kind()),
            (2, io::ErrorKind::WriteZero)
        );
    }
}
