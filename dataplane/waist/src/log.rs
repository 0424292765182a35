//! A log keeps what must survive. Appending is not keeping: only `durable_end` says how far the bytes are safe.

use std::io;

use crate::{Slot, Term};

/// An append-only log of slots.
pub trait Log {
    /// Adds `payload` at `slot`, which is the end of the log, or an earlier slot: what stood from there on is gone
    /// (Raft §5.3, conflicting entries).
    ///
    /// # Errors
    /// `InvalidInput` for a gap; otherwise the device's. After a device error the log refuses everything.
    fn append(&mut self, slot: Slot, term: Term, payload: &[u8]) -> io::Result<()>;
    /// Starts to make everything appended so far durable. May return before it is.
    ///
    /// # Errors
    /// As [`Log::append`].
    fn sync(&mut self) -> io::Result<()>;
    /// Everything before this slot is safe (to the extent that the log's kind promises).
    ///
    /// # Errors
    /// A sync that failed. It is never retried: the kernel may have dropped the pages.
    fn durable_end(&mut self) -> io::Result<Slot>;
    /// Visits every slot that survived, in order; says the end.
    ///
    /// # Errors
    /// As [`Log::append`].
    fn recover(&mut self, visit: &mut dyn FnMut(Slot, Term, &[u8])) -> io::Result<Slot>;
}

/// A log in memory. It keeps the trait's order and loses everything with the process: what "durable" means over it is
/// "in this process's memory", and records must say so.
#[derive(Debug, Default)]
pub struct MemoryLog {
    entries: Vec<(Term, Box<[u8]>)>,
    durable_end: Slot,
}

impl MemoryLog {
    /// An empty log.
    pub fn new() -> MemoryLog {
        MemoryLog::default()
    }
}

impl Log for MemoryLog {
    fn append(&mut self, slot: Slot, term: Term, payload: &[u8]) -> io::Result<()> {
        let end = self.entries.len() as u64;
        if slot.0 > end {
            let message = format!("slot {} would leave a gap: the log ends at {end}", slot.0);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        self.entries.truncate(slot.0 as usize);
        self.durable_end = self.durable_end.min(slot);
        self.entries.push((term, payload.into()));
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.durable_end = Slot(self.entries.len() as u64);
        Ok(())
    }

    fn durable_end(&mut self) -> io::Result<Slot> {
        Ok(self.durable_end)
    }

    fn recover(&mut self, visit: &mut dyn FnMut(Slot, Term, &[u8])) -> io::Result<Slot> {
        for (index, (term, payload)) in self.entries.iter().enumerate() {
            visit(Slot(index as u64), *term, payload);
        }
        Ok(Slot(self.entries.len() as u64))
    }
}
