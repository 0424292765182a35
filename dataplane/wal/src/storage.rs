//! What a log needs of the place where it is kept: a folder of files, and one way to write a commit durably. The engines
//! implement it over Linux, the crash tests over memory.

use std::{io, os::fd::BorrowedFd};

use crate::buffer::Buffer;

/// An open file of a [`Storage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(pub u32);

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenFor {
    /// Reading and writing, plainly. The file is there.
    Use,
    /// The same; the file is made, or emptied.
    Create,
    /// Commits, in the engine's own way. The file is there and has its full length.
    Commits,
}

/// A commit that is over.
#[derive(Debug)]
pub struct Completion {
    /// Its memory, to be used again.
    pub buffer: Buffer,
    /// Whether it is durable.
    pub result: io::Result<()>,
}

/// What an engine has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Commits written.
    pub commits_count: u64,
    /// Their bytes.
    pub commits_bytes: u64,
    /// Writes that the kernel cut short, and that were continued.
    pub short_writes_count: u64,
    /// Kernel worker threads that served this ring when last looked: requests that could not be submitted without
    /// blocking ("punted" to io-wq). Always 0 without a ring.
    pub punt_workers_count: u64,
}

/// A folder and a way to write to it. One owner; commits complete in the order in which they were started.
pub trait Storage: Send {
    /// The engine's name, for records.
    fn engine(&self) -> &'static str;
    /// The engine's name with what it was given to work with, where that differs from machine to machine.
    fn way(&self) -> &'static str {
        self.engine()
    }
    /// Offsets and lengths of commits are multiples of this; a multiple of 512, at most 4096.
    fn align_bytes(&self) -> usize;
    /// Where it is, for messages.
    fn place(&self) -> String;
    /// The files' names and lengths in bytes.
    ///
    /// # Errors
    /// The device's; so for all of these.
    fn list(&mut self) -> io::Result<Vec<(String, u64)>>;
    /// Opens a file.
    fn open(&mut self, name: &str, purpose: OpenFor) -> io::Result<FileId>;
    /// Closes it. No commit to it is under way.
    fn close(&mut self, file: FileId);
    /// Reads `into.len()` bytes, or fewer at the file's end.
    fn read_at(&mut self, file: FileId, at_bytes: u64, into: &mut [u8]) -> io::Result<usize>;
    /// Writes all of `bytes`. Durable after [`Storage::sync`].
    fn write_at(&mut self, file: FileId, at_bytes: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes the file durable, and all that the device has taken before.
    fn sync(&mut self, file: FileId) -> io::Result<()>;
    /// Renames, replacing. Durable after [`Storage::sync_folder`].
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;
    /// Removes. Durable after [`Storage::sync_folder`].
    fn remove(&mut self, name: &str) -> io::Result<()>;
    /// Makes names durable.
    fn sync_folder(&mut self) -> io::Result<()>;
    /// Starts to make a file, beside everything else: `head`, and zeros up to `len_bytes`, written from end to end. It has its
    /// name, and is durable with it, when [`Storage::made`] says so. One at a time.
    ///
    /// # Errors
    /// None but "cannot be started".
    fn make(&mut self, name: &str, head: &[u8], len_bytes: u64) -> io::Result<()>;
    /// What has become of the file that is being made; with `wait`, waits for that. `None`: none is being made, or it still is.
    fn made(&mut self, wait: bool) -> Option<io::Result<()>>;
    /// Starts a commit: writes `buffer` to a file opened for commits and makes it durable, now or later.
    ///
    /// # Errors
    /// None but "cannot be started"; what becomes of it is in its [`Completion`].
    fn commit(&mut self, file: FileId, at_bytes: u64, buffer: Buffer) -> io::Result<()>;
    /// The next commit that is over; with `wait`, waits for one if any is under way.
    fn completed(&mut self, wait: bool) -> io::Result<Option<Completion>>;
    /// What is readable once a commit that is under way is over, until [`Storage::completed`] has said so, where there is such
    /// a thing.
    fn bell(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    /// How many commits may usefully be under way at once.
    fn depth(&self) -> usize;
    /// The calling thread is about to end: gives back what no other one could. No commit is under way.
    fn leave(&mut self) {}
    /// The counters so far.
    fn stats(&self) -> EngineStats;
}

impl<S: Storage + ?Sized> Storage for Box<S> {
    fn engine(&self) -> &'static str {
        (**self).engine()
    }
    fn way(&self) -> &'static str {
        (**self).way()
    }
    fn align_bytes(&self) -> usize {
        (**self).align_bytes()
    }
    fn place(&self) -> String {
        (**self).place()
    }
    fn list(&mut self) -> io::Result<Vec<(String, u64)>> {
        (**self).list()
    }
    fn open(&mut self, name: &str, purpose: OpenFor) -> io::Result<FileId> {
        (**self).open(name, purpose)
    }
    fn close(&mut self, file: FileId) {
        (**self).close(file);
    }
    fn read_at(&mut self, file: FileId, at_bytes: u64, into: &mut [u8]) -> io::Result<usize> {
        (**self).read_at(file, at_bytes, into)
    }
    fn write_at(&mut self, file: FileId, at_bytes: u64, bytes: &[u8]) -> io::Result<()> {
        (**self).write_at(file, at_bytes, bytes)
    }
    fn sync(&mut self, file: FileId) -> io::Result<()> {
        (**self).sync(file)
    }
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        (**self).rename(from, to)
    }
    fn remove(&mut self, name: &str) -> io::Result<()> {
        (**self).remove(name)
    }
    fn sync_folder(&mut self) -> io::Result<()> {
        (**self).sync_folder()
    }
    fn make(&mut self, name: &str, head: &[u8], len_bytes: u64) -> io::Result<()> {
        (**self).make(name, head, len_bytes)
    }
    fn made(&mut self, wait: bool) -> Option<io::Result<()>> {
        (**self).made(wait)
    }
    fn commit(&mut self, file: FileId, at_bytes: u64, buffer: Buffer) -> io::Result<()> {
        (**self).commit(file, at_bytes, buffer)
    }
    fn completed(&mut self, wait: bool) -> io::Result<Option<Completion>> {
        (**self).completed(wait)
    }
    fn bell(&self) -> Option<BorrowedFd<'_>> {
        (**self).bell()
    }
    fn depth(&self) -> usize {
        (**self).depth()
    }
    fn leave(&mut self) {
        (**self).leave();
    }
    fn stats(&self) -> EngineStats {
        (**self).stats()
    }
}
