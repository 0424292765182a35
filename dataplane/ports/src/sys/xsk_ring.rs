//! The four rings of an AF_XDP socket as pure logic: one producer, one consumer, two indices in shared memory
//! (Documentation/networking/af_xdp.rst; the kernel's half is net/xdp/xsk_queue.h).
//!
//! ```text
//!        consumer            producer              both in shared memory, u32, running on past the end of the ring
//!           ▼                   ▼
//!  ··free··│ consumer's to read │··free, the producer's to write··
//!           ▲    taken▲         ▲       ▲written
//!        cached copies: what the other side was last seen to have done; looked at again only when they do not suffice
//! ```
//!
//! The producer writes entries and gives them away with a release store of its index; the consumer sees that index with an
//! acquire load, reads the entries, and gives the places back with a release store of its own. So no entry is read before
//! it is written, and none is overwritten before it is read. Which memory and which atomics is a parameter: the kernel's
//! mapping on the data path, loom's model in tests/loom.

use std::{
    fmt, io,
    sync::atomic::{AtomicU32, Ordering},
};

/// An index in shared memory.
pub(crate) trait Index {
    fn load(&self, ordering: Ordering) -> u32;
    fn store(&self, value: u32, ordering: Ordering);
}

impl Index for AtomicU32 {
    #[inline]
    fn load(&self, ordering: Ordering) -> u32 {
        AtomicU32::load(self, ordering)
    }
    #[inline]
    fn store(&self, value: u32, ordering: Ordering) {
        AtomicU32::store(self, value, ordering);
    }
}

/// Where a ring lies.
pub(crate) trait RingMemory {
    /// What the ring carries.
    type Entry: Copy;
    type Index: Index;
    /// Places: a power of two.
    fn entries_count(&self) -> u32;
    fn producer(&self) -> &Self::Index;
    fn consumer(&self) -> &Self::Index;
    /// The entry at `place`, below `entries_count`.
    fn read(&self, place: u32) -> Self::Entry;
    fn write(&self, place: u32, entry: Self::Entry);
}

/// The other side wrote an index that the protocol cannot produce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexCorrupt {
    index: &'static str,
    seen: u32,
    begin: u32,
    end: u32,
}

impl fmt::Display for IndexCorrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let IndexCorrupt {
            index,
            seen,
            begin,
            end,
        } = self;
        write!(
            f,
            "the {index} index of an AF_XDP ring is {seen}, outside {begin}..={end}: the kernel's side of the ring is corrupt; \
             close the port and open a new one"
        )
    }
}

impl From<IndexCorrupt> for io::Error {
    fn from(corrupt: IndexCorrupt) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, corrupt.to_string())
    }
}

/// The side that writes entries: ours of the fill and the transmit ring.
#[derive(Debug)]
pub(crate) struct Producer<M> {
    memory: M,
    written_end: u32,
    published_end: u32,
    consumed_seen: u32,
}

impl<M: RingMemory> Producer<M> {
    /// Goes on from the indices in memory, which are both 0 in a new ring.
    ///
    /// # Errors
    /// Indices that no ring of this size has.
    pub(crate) fn new(memory: M) -> Result<Producer<M>, IndexCorrupt> {
        let published_end = memory.producer().load(Ordering::Relaxed);
        let mut producer = Producer {
            memory,
            written_end: published_end,
            published_end,
            consumed_seen: published_end,
        };
        producer.see_consumed()?;
        Ok(producer)
    }

    /// Writes `entry` into the next place, for [`Producer::publish`] to give away. `false`: the ring is full.
    ///
    /// # Errors
    /// The consumer's index is corrupt; nothing was written.
    #[inline]
    pub(crate) fn push(&mut self, entry: M::Entry) -> Result<bool, IndexCorrupt> {
        let entries_count = self.memory.entries_count();
        if self.written_end.wrapping_sub(self.consumed_seen) == entries_count {
            self.see_consumed()?;
            if self.written_end.wrapping_sub(self.consumed_seen) == entries_count {
                return Ok(false);
            }
        }
        self.memory.write(self.written_end & (entries_count - 1), entry);
        self.written_end = self.written_end.wrapping_add(1);
        Ok(true)
    }

    /// Gives all written entries to the consumer: one store for the whole batch.
    #[inline]
    pub(crate) fn publish(&mut self) {
        if self.published_end != self.written_end {
            self.published_end = self.written_end;
            self.memory.producer().store(self.written_end, Ordering::Release);
        }
    }

    /// Entries that the consumer was given and has not taken.
    ///
    /// # Errors
    /// The consumer's index is corrupt.
    #[inline]
    pub(crate) fn pending_count(&mut self) -> Result<u32, IndexCorrupt> {
        self.see_consumed()?;
        Ok(self.published_end.wrapping_sub(self.consumed_seen))
    }

    #[inline]
    pub(crate) fn memory(&self) -> &M {
        &self.memory
    }

    #[inline]
    fn see_consumed(&mut self) -> Result<(), IndexCorrupt> {
        let seen = self.memory.consumer().load(Ordering::Acquire);
        // The consumer takes what was published and nothing else.
        if self.published_end.wrapping_sub(seen) > self.memory.entries_count() {
            return Err(IndexCorrupt {
                index: "consumer",
                seen,
                begin: self.published_end.wrapping_sub(self.memory.entries_count()),
                end: self.published_end,
            });
        }
        self.consumed_seen = seen;
        Ok(())
    }
}

/// The side that reads entries: ours of the receive and the completion ring.
#[derive(Debug)]
pub(crate) struct Consumer<M> {
    memory: M,
    taken_end: u32,
    released_end: u32,
    produced_seen: u32,
}

impl<M: RingMemory> Consumer<M> {
    /// Goes on from the indices in memory, which are both 0 in a new ring.
    ///
    /// # Errors
    /// Indices that no ring of this size has.
    pub(crate) fn new(memory: M) -> Result<Consumer<M>, IndexCorrupt> {
        let released_end = memory.consumer().load(Ordering::Relaxed);
        let mut consumer = Consumer {
            memory,
            taken_end: released_end,
            released_end,
            produced_seen: released_end,
        };
        consumer.see_produced()?;
        Ok(consumer)
    }

    /// Takes the next entry; its place is given back by [`Consumer::release`].
    ///
    /// # Errors
    /// The producer's index is corrupt.
    #[inline]
    pub(crate) fn pop(&mut self) -> Result<Option<M::Entry>, IndexCorrupt> {
        if self.taken_end == self.produced_seen {
            self.see_produced()?;
            if self.taken_end == self.produced_seen {
                return Ok(None);
            }
        }
        let entry = self.memory.read(self.taken_end & (self.memory.entries_count() - 1));
        self.taken_end = self.taken_end.wrapping_add(1);
        Ok(Some(entry))
    }

    /// An entry is there to be taken.
    #[inline]
    pub(crate) fn has_some(&self) -> bool {
        self.taken_end != self.produced_seen || self.memory.producer().load(Ordering::Relaxed) != self.taken_end
    }

    /// Gives the places of all taken entries back: one store for the whole batch.
    #[inline]
    pub(crate) fn release(&mut self) {
        if self.released_end != self.taken_end {
            self.released_end = self.taken_end;
            self.memory.consumer().store(self.taken_end, Ordering::Release);
        }
    }

    #[inline]
    fn see_produced(&mut self) -> Result<(), IndexCorrupt> {
        let seen = self.memory.producer().load(Ordering::Acquire);
        // The producer writes forward, and never more than a ring ahead of what was released.
        let ahead_count = seen.wrapping_sub(self.released_end);
        let held_count = self.taken_end.wrapping_sub(self.released_end);
        if ahead_count > self.memory.entries_count() || ahead_count < held_count {
            return Err(IndexCorrupt {
                index: "producer",
                seen,
                begin: self.taken_end,
                end: self.released_end.wrapping_add(self.memory.entries_count()),
            });
        }
        self.produced_seen = seen;
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
