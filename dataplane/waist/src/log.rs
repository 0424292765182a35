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

impl<L: Log + ?Sized> Log for Box<L> {
    fn append(&mut self, slot: Slot, term: Term, payload: &[u8]) -> io::Result<()> {
        (**self).append(slot, term, payload)
    }
    fn sync(&mut self) -> io::Result<()> {
        (**self).sync()
    }
    fn durable_end(&mut self) -> io::Result<Slot> {
        (**self).durable_end()
    }
    fn recover(&mut self, visit: &mut dyn FnMut(Slot, Term, &[u8])) -> io::Result<Slot> {
        (**self).recover(visit)
    }
}

/// A log in memory. It keeps the trait's order and loses everything with the process: what "durable" means over it is
/// "in this process's memory", and records must say so.
#[derive(Debug)]
pub struct MemoryLog {
    bytes: Vec<u8>,
    /// Each slot's term, and where its payload ends in `bytes`; it begins where the one before ends.
    entries: Vec<(Term, usize)>,
    slots_max: usize,
    bytes_max: usize,
    durable_end: Slot,
}

impl MemoryLog {
    /// An empty log without a bound. It takes memory as it grows: for tests, and for protocols that append nothing.
    pub fn new() -> MemoryLog {
        MemoryLog {
            bytes: Vec::new(),
            entries: Vec::new(),
            slots_max: usize::MAX,
            bytes_max: usize::MAX,
            durable_end: Slot(0),
        }
    }

    /// An empty log that takes all its memory now and answers `StorageFull` beyond it.
    pub fn with_capacity(slots_max: usize, bytes_max: usize) -> MemoryLog {
        MemoryLog {
            bytes: Vec::with_capacity(bytes_max),
            entries: Vec::with_capacity(slots_max),
            slots_max,
            bytes_max,
            durable_end: Slot(0),
        }
    }

    fn payload_end_bytes(&self, slots_count: usize) -> usize {
        match slots_count {
            0 => 0,
            _ => self.entries[slots_count - 1].1,
        }
    }
}

impl Default for MemoryLog {
    fn default() -> MemoryLog {
        MemoryLog::new()
    }
}

impl Log for MemoryLog {
    fn append(&mut self, slot: Slot, term: Term, payload: &[u8]) -> io::Result<()> {
        let end = self.entries.len();
        let Some(index) = usize::try_from(slot.0).ok().filter(|&index| index <= end) else {
            let message = format!("slot {} would leave a gap: the log ends at {end}", slot.0);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        };
        let begin_bytes = self.payload_end_bytes(index);
        if index == self.slots_max || payload.len() > self.bytes_max - begin_bytes {
            let (slots_max, bytes_max) = (self.slots_max, self.bytes_max);
            let message = format!("the memory log is full: it has room for {slots_max} slots and {bytes_max} bytes");
            return Err(io::Error::new(io::ErrorKind::StorageFull, message));
        }
        self.entries.truncate(index);
        self.bytes.truncate(begin_bytes);
        self.durable_end = self.durable_end.min(slot);
        self.bytes.extend_from_slice(payload);
        self.entries.push((term, self.bytes.len()));
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
        let mut begin_bytes = 0;
        for (index, (term, end_bytes)) in self.entries.iter().enumerate() {
            visit(Slot(index as u64), *term, &self.bytes[begin_bytes..*end_bytes]);
            begin_bytes = *end_bytes;
        }
        Ok(Slot(self.entries.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn contents(log: &mut MemoryLog) -> Vec<(Term, Vec<u8>)> {
        let mut entries = Vec::new();
        let end = log.recover(&mut |slot, term, payload| {
            assert_eq!(slot.0, entries.len() as u64, "slots come in order, without a gap");
            entries.push((term, payload.to_vec()));
        });
        assert_eq!(end.expect("memory does not fail"), Slot(entries.len() as u64));
        entries
    }

    #[test]
    fn a_gap_is_refused_and_changes_nothing() {
        let mut log = MemoryLog::new();
        log.append(Slot(0), Term(1), b"a").expect("the end of the log");
        for slot in [2, u64::MAX] {
            let error = log.append(Slot(slot), Term(1), b"c").expect_err("a gap");
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.to_string().contains("ends at 1"), "{error}");
        }
        assert_eq!(contents(&mut log), [(Term(1), b"a".to_vec())]);
    }

    #[test]
    fn a_bounded_log_says_when_it_is_full_and_can_still_be_rewritten() {
        let mut log = MemoryLog::with_capacity(2, 4);
        log.append(Slot(0), Term(1), b"aaa").expect("room");
        let error = log.append(Slot(1), Term(1), b"bb").expect_err("a byte too much");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        log.append(Slot(1), Term(1), b"b").expect("room");
        let error = log.append(Slot(2), Term(1), b"").expect_err("a slot too much");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        log.append(Slot(0), Term(2), b"cccc")
            .expect("what stood there makes room");
        assert_eq!(contents(&mut log), [(Term(2), b"cccc".to_vec())]);
    }

    #[test]
    fn an_overwritten_slot_is_not_durable_until_the_next_sync() {
        let mut log = MemoryLog::new();
        log.append(Slot(0), Term(1), b"a").expect("the end of the log");
        log.append(Slot(1), Term(1), b"b").expect("the end of the log");
        log.sync().expect("memory does not fail");
        log.append(Slot(1), Term(2), b"c").expect("an earlier slot");
        assert_eq!(log.durable_end().expect("memory does not fail"), Slot(1));
        log.sync().expect("memory does not fail");
        assert_eq!(log.durable_end().expect("memory does not fail"), Slot(2));
    }

    proptest! {
        /// The log does what a plain vector of entries does.
        #[test]
        fn agrees_with_a_vector(
            steps in prop::collection::vec((0u64..8, any::<u64>(), prop::collection::vec(any::<u8>(), 0..9)), 0..40),
        ) {
            let mut log = MemoryLog::new();
            let mut model: Vec<(Term, Vec<u8>)> = Vec::new();
            for (slot, term, payload) in steps {
                let accepted = log.append(Slot(slot), Term(term), &payload).is_ok();
                prop_assert_eq!(accepted, slot <= model.len() as u64);
                if accepted {
                    model.truncate(slot as usize);
                    model.push((Term(term), payload));
                }
                prop_assert_eq!(&contents(&mut log), &model);
            }
        }
    }
}
