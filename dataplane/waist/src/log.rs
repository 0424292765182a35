//! A log keeps what must survive. Appending is not keeping: only `durable` says how far the bytes are safe.

use std::{io, os::fd::BorrowedFd, sync::Arc};

use crate::{Slot, Term};

/// The longest state that [`Log::set_state`] takes. A replica keeps its term, its vote and little more there.
pub const STATE_BYTES_MAX: usize = 64;

/// An append-only log of slots, a small state beside it, and a snapshot that stands for its beginning.
///
/// What is written through one log becomes durable in the order in which it was written: a state that was set before an
/// entry was appended is there after a crash if the entry is.
pub trait Log {
    /// Adds `payload` at `slot`, which is the end of the log, or an earlier slot: what stood from there on is gone
    /// (Raft §5.3, conflicting entries).
    ///
    /// # Errors
    /// `InvalidInput` for a gap, or a slot that a snapshot stands for; otherwise the device's. After a device error the
    /// log refuses everything.
    fn append(&mut self, slot: Slot, term: Term, payload: &[u8]) -> io::Result<()>;
    /// Replaces the state.
    ///
    /// # Errors
    /// `InvalidInput` above [`STATE_BYTES_MAX`]; otherwise as [`Log::append`].
    fn set_state(&mut self, state: &[u8]) -> io::Result<()>;
    /// From now on `snapshot` stands for every slot before its end; the log may forget them, and any older snapshot,
    /// once this one is durable.
    ///
    /// # Errors
    /// `InvalidInput` for a snapshot that ends before the one that stands now; otherwise as [`Log::append`].
    fn install(&mut self, snapshot: &Snapshot) -> io::Result<()>;
    /// Starts to make everything written so far durable. May return before it is.
    ///
    /// # Errors
    /// As [`Log::append`].
    fn sync(&mut self) -> io::Result<()>;
    /// How far what was written is safe (to the extent that the log's kind promises).
    ///
    /// # Errors
    /// A sync that failed. It is never retried: the kernel may have dropped the pages.
    fn durable(&mut self) -> io::Result<Durable>;
    /// Visits everything that survived: the state, the snapshot, every slot from the snapshot's end on in order, and at
    /// last what is known to be damaged. Says the end of what can be read.
    ///
    /// # Errors
    /// As [`Log::append`].
    fn recover(&mut self, visit: &mut dyn FnMut(Recovered<'_>)) -> io::Result<Slot>;
    /// How whoever is about to rest hears that `durable` has more to say. To be asked again before each rest.
    fn news(&mut self) -> News<'_> {
        News::Unannounced
    }
}

/// How whoever rests hears that [`Log::durable`] has more to say, an error included.
#[derive(Clone, Copy, Debug)]
pub enum News<'a> {
    /// It has already.
    Come,
    /// This descriptor becomes readable then, until `durable` is called. [`crate::Port::wait_or`] rests on it, too.
    Rings(BorrowedFd<'a>),
    /// Nobody says so: ask again after a while.
    Unannounced,
}

/// How far a log is safe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durable {
    /// Every slot before this one, as it was last appended, or a snapshot that stands for it.
    pub end: Slot,
    /// How many of the calls of [`Log::set_state`] since the log was opened: their state, or a later one.
    pub states_count: u64,
}

/// What applying all entries before `end` gives, in the words of whoever applied them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The first slot that it does not contain.
    pub end: Slot,
    /// The term of the slot before `end`.
    pub last_term: Term,
    /// What becomes of the slots from `end` on.
    pub tail: Tail,
    /// The contents.
    pub bytes: Arc<[u8]>,
}

/// What becomes of the slots behind a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// They go on where the snapshot ends.
    Keep,
    /// They belong to another history (Raft §7): the log ends where the snapshot ends.
    Drop,
}

/// One thing that survived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovered<'a> {
    /// The last state set; first of all, if one ever was.
    State(&'a [u8]),
    /// The last snapshot installed; before the entries, if there is one.
    Snapshot {
        /// As [`Snapshot::end`].
        end: Slot,
        /// As [`Snapshot::last_term`].
        last_term: Term,
        /// As [`Snapshot::bytes`].
        bytes: &'a [u8],
    },
    /// An entry.
    Entry {
        /// Where it stands.
        slot: Slot,
        /// The term it was appended in.
        term: Term,
        /// What was appended.
        payload: &'a [u8],
    },
    /// Entries that once were durable and cannot be read any more: corruption, as opposed to a torn end, which nobody
    /// was ever told about. Last, at most once. Whoever acknowledged them must not act as if it never had
    /// (Protocol-Aware Recovery, FAST'18 §3).
    Damaged {
        /// The first of them.
        slot: Slot,
        /// Where the log ended. Exclusive.
        end: Slot,
        /// The term of the last entry before `end`.
        last_term: Term,
    },
}

impl<L: Log + ?Sized> Log for Box<L> {
    fn append(&mut self, slot: Slot, term: Term, payload: &[u8]) -> io::Result<()> {
        (**self).append(slot, term, payload)
    }
    fn set_state(&mut self, state: &[u8]) -> io::Result<()> {
        (**self).set_state(state)
    }
    fn install(&mut self, snapshot: &Snapshot) -> io::Result<()> {
        (**self).install(snapshot)
    }
    fn sync(&mut self) -> io::Result<()> {
        (**self).sync()
    }
    fn durable(&mut self) -> io::Result<Durable> {
        (**self).durable()
    }
    fn recover(&mut self, visit: &mut dyn FnMut(Recovered<'_>)) -> io::Result<Slot> {
        (**self).recover(visit)
    }
    fn news(&mut self) -> News<'_> {
        (**self).news()
    }
}

/// A log in memory. It keeps the trait's order and loses everything with the process: what "durable" means over it is
/// "in this process's memory", and records must say so.
#[derive(Clone, Debug)]
pub struct MemoryLog {
    /// The slot of `entries[head]`: everything before it a snapshot stands for.
    begin: Slot,
    /// Entries in front of this index are forgotten; their room is taken back when it is needed.
    head: usize,
    bytes: Vec<u8>,
    /// Each slot's term, and where its payload ends in `bytes`; it begins where the one before ends.
    entries: Vec<(Term, usize)>,
    slots_max: usize,
    bytes_max: usize,
    state: Vec<u8>,
    states_count: u64,
    snapshot: Option<Snapshot>,
    durable: Durable,
}

impl MemoryLog {
    /// An empty log without a bound. It takes memory as it grows: for tests, and for protocols that append nothing.
    pub fn new() -> MemoryLog {
        MemoryLog::of(usize::MAX, usize::MAX, Vec::new(), Vec::new())
    }

    /// An empty log that takes all its memory now and answers `StorageFull` beyond it.
    pub fn with_capacity(slots_max: usize, bytes_max: usize) -> MemoryLog {
        // Written to, or the kernel gives the pages one by one, each in the way of an entry.
        let (mut entries, mut bytes) = (vec![(Term(1), 1); slots_max], vec![1; bytes_max]);
        entries.clear();
        bytes.clear();
        MemoryLog::of(slots_max, bytes_max, entries, bytes)
    }

    fn of(slots_max: usize, bytes_max: usize, entries: Vec<(Term, usize)>, bytes: Vec<u8>) -> MemoryLog {
        MemoryLog {
            begin: Slot(0),
            head: 0,
            bytes,
            entries,
            slots_max,
            bytes_max,
            state: Vec::with_capacity(STATE_BYTES_MAX),
            states_count: 0,
            snapshot: None,
            durable: Durable::default(),
        }
    }

    fn end(&self) -> Slot {
        Slot(self.begin.0 + (self.entries.len() - self.head) as u64)
    }

    /// Where the payload of `entries[index]` begins in `bytes`.
    fn payload_begin_bytes(&self, index: usize) -> usize {
        match index {
            0 => 0,
            _ => self.entries[index - 1].1,
        }
    }

    /// Takes back the room of what is forgotten.
    fn compact(&mut self) {
        let dead_bytes = self.payload_begin_bytes(self.head);
        self.bytes.drain(..dead_bytes);
        self.entries.drain(..self.head);
        for (_, end_bytes) in &mut self.entries {
            *end_bytes -= dead_bytes;
        }
        self.head = 0;
    }

    fn has_room(&self, index: usize, payload_bytes: usize) -> bool {
        index < self.slots_max && payload_bytes <= self.bytes_max - self.payload_begin_bytes(index)
    }
}

impl Default for MemoryLog {
    fn default() -> MemoryLog {
        MemoryLog::new()
    }
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

impl Log for MemoryLog {
    fn append(&mut self, slot: Slot, term: Term, payload: &[u8]) -> io::Result<()> {
        let (begin, end) = (self.begin, self.end());
        if slot > end {
            let message = format!("slot {} would leave a gap: the log ends at {}", slot.0, end.0);
            return Err(invalid(message));
        }
        let Some(offset) = slot.0.checked_sub(begin.0) else {
            let message = format!(
                "slot {} is in the past: a snapshot stands for all before {}",
                slot.0, begin.0
            );
            return Err(invalid(message));
        };
        let mut index = self.head + offset as usize;
        if !self.has_room(index, payload.len()) && self.head > 0 {
            self.compact();
            index = offset as usize;
        }
        if !self.has_room(index, payload.len()) {
            let (slots_max, bytes_max) = (self.slots_max, self.bytes_max);
            let message = format!("the memory log is full: it has room for {slots_max} slots and {bytes_max} bytes");
            return Err(io::Error::new(io::ErrorKind::StorageFull, message));
        }
        let begin_bytes = self.payload_begin_bytes(index);
        self.entries.truncate(index);
        self.bytes.truncate(begin_bytes);
        self.durable.end = self.durable.end.min(slot);
        self.bytes.extend_from_slice(payload);
        self.entries.push((term, self.bytes.len()));
        Ok(())
    }

    fn set_state(&mut self, state: &[u8]) -> io::Result<()> {
        if state.len() > STATE_BYTES_MAX {
            let message = format!(
                "a state of {} bytes; at most {STATE_BYTES_MAX} are allowed",
                state.len()
            );
            return Err(invalid(message));
        }
        self.state.clear();
        self.state.extend_from_slice(state);
        self.states_count += 1;
        Ok(())
    }

    fn install(&mut self, snapshot: &Snapshot) -> io::Result<()> {
        let (begin, end) = (self.begin, self.end());
        if snapshot.end < begin {
            let message = format!(
                "a snapshot up to {}: one up to {} stands already",
                snapshot.end.0, begin.0
            );
            return Err(invalid(message));
        }
        if snapshot.tail == Tail::Keep && snapshot.end <= end {
            self.head += (snapshot.end.0 - begin.0) as usize;
        } else {
            self.entries.clear();
            self.bytes.clear();
            self.head = 0;
            self.durable.end = self.durable.end.min(begin);
        }
        self.begin = snapshot.end;
        self.snapshot = Some(snapshot.clone());
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.durable = Durable {
            end: self.end(),
            states_count: self.states_count,
        };
        Ok(())
    }

    fn durable(&mut self) -> io::Result<Durable> {
        Ok(self.durable)
    }

    fn recover(&mut self, visit: &mut dyn FnMut(Recovered<'_>)) -> io::Result<Slot> {
        if self.states_count > 0 {
            visit(Recovered::State(&self.state));
        }
        if let Some(snapshot) = &self.snapshot {
            visit(Recovered::Snapshot {
                end: snapshot.end,
                last_term: snapshot.last_term,
                bytes: &snapshot.bytes,
            });
        }
        for index in self.head..self.entries.len() {
            let (term, end_bytes) = self.entries[index];
            visit(Recovered::Entry {
                slot: Slot(self.begin.0 + (index - self.head) as u64),
                term,
                payload: &self.bytes[self.payload_begin_bytes(index)..end_bytes],
            });
        }
        Ok(self.end())
    }
}

#[cfg(test)]
mod tests;
