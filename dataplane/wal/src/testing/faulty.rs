//! A storage around another one whose calls fail on demand.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::make_at_once;
use crate::{
    buffer::Buffer,
    storage::{Completion, EngineStats, FileId, OpenFor, Storage},
};

/// Which call fails, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The number of the call that fails; from 0, all calls that can fail counted.
    pub at_call: u64,
    /// The error's number (errno(3)).
    pub errno: i32,
    /// Whether all calls that write fail from there on, as on a disk that has become read-only, or that one alone, as
    /// after fsyncgate: the retry says that all is well.
    pub lasts: bool,
}

/// Around `S`; a clone of `calls` tells how many calls there have been.
#[derive(Debug)]
pub struct Faulty<S> {
    inner: S,
    fault: Option<Fault>,
    calls: Arc<AtomicU64>,
    /// A commit that has failed is over like any other.
    failed: Option<Buffer>,
    made: Option<io::Result<()>>,
}

impl<S: Storage> Faulty<S> {
    /// Around `inner`.
    pub fn new(inner: S, fault: Option<Fault>) -> Faulty<S> {
        Faulty {
            inner,
            fault,
            calls: Arc::default(),
            failed: None,
            made: None,
        }
    }

    /// How many calls that can fail there have been.
    pub fn calls(&self) -> Arc<AtomicU64> {
        self.calls.clone()
    }

    fn call(&self, writes: bool) -> io::Result<()> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        match self.fault {
            Some(fault) if call == fault.at_call || fault.lasts && writes && call > fault.at_call => {
                Err(io::Error::from_raw_os_error(fault.errno))
            }
            _ => Ok(()),
        }
    }
}

impl<S: Storage> Storage for Faulty<S> {
    fn engine(&self) -> &'static str {
        self.inner.engine()
    }
    fn align_bytes(&self) -> usize {
        self.inner.align_bytes()
    }
    fn place(&self) -> String {
        self.inner.place()
    }
    fn list(&mut self) -> io::Result<Vec<(String, u64)>> {
        self.call(false)?;
        self.inner.list()
    }
    fn open(&mut self, name: &str, purpose: OpenFor) -> io::Result<FileId> {
        self.call(purpose == OpenFor::Create)?;
        self.inner.open(name, purpose)
    }
    fn close(&mut self, file: FileId) {
        self.inner.close(file);
    }
    fn read_at(&mut self, file: FileId, at_bytes: u64, into: &mut [u8]) -> io::Result<usize> {
        self.call(false)?;
        self.inner.read_at(file, at_bytes, into)
    }
    fn write_at(&mut self, file: FileId, at_bytes: u64, bytes: &[u8]) -> io::Result<()> {
        self.call(true)?;
        self.inner.write_at(file, at_bytes, bytes)
    }
    fn sync(&mut self, file: FileId) -> io::Result<()> {
        self.call(true)?;
        self.inner.sync(file)
    }
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.call(true)?;
        self.inner.rename(from, to)
    }
    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.call(true)?;
        self.inner.remove(name)
    }
    fn sync_folder(&mut self) -> io::Result<()> {
        self.call(true)?;
        self.inner.sync_folder()
    }
    fn make(&mut self, name: &str, head: &[u8], len_bytes: u64) -> io::Result<()> {
        self.made = Some(make_at_once(self, name, head, len_bytes));
        Ok(())
    }
    fn made(&mut self, _wait: bool) -> Option<io::Result<()>> {
        self.made.take()
    }
    fn commit(&mut self, file: FileId, at_bytes: u64, buffer: Buffer) -> io::Result<()> {
        match self.call(true) {
            Ok(()) => self.inner.commit(file, at_bytes, buffer),
            Err(_) => {
                self.failed = Some(buffer);
                Ok(())
            }
        }
    }
    fn completed(&mut self, wait: bool) -> io::Result<Option<Completion>> {
        // What was started earlier is over earlier.
        if let Some(completion) = self.inner.completed(wait)? {
            return Ok(Some(completion));
        }
        let errno = self.fault.map_or(libc::EIO, |fault| fault.errno);
        Ok(self.failed.take().map(|buffer| Completion {
            buffer,
            result: Err(io::Error::from_raw_os_error(errno)),
        }))
    }
    fn depth(&self) -> usize {
        self.inner.depth()
    }
    fn leave(&mut self) {
        self.inner.leave();
    }
    fn stats(&self) -> EngineStats {
        self.inner.stats()
    }
}
