//! Packets in the order in which they came, and how many bytes they are.

use std::collections::VecDeque;

use crate::{SimTime, packet::Queued};

/// What waits in a [`Fifo`].
pub(crate) trait Entry {
    fn entry_bytes(&self) -> u32;
}

impl<T: Queued> Entry for T {
    fn entry_bytes(&self) -> u32 {
        self.bytes()
    }
}

/// A packet that knows since when it waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamped<T> {
    pub packet: T,
    pub at: SimTime,
}

impl<T: Queued> Entry for Stamped<T> {
    fn entry_bytes(&self) -> u32 {
        self.packet.bytes()
    }
}

/// First in, first out.
#[derive(Clone, Debug)]
pub(crate) struct Fifo<E> {
    entries: VecDeque<E>,
    bytes: u64,
}

/// Without memory until something comes: most queues of a large topology stay empty.
impl<E> Default for Fifo<E> {
    fn default() -> Fifo<E> {
        Fifo {
            entries: VecDeque::new(),
            bytes: 0,
        }
    }
}

impl<E: Entry> Fifo<E> {
    pub fn push(&mut self, entry: E) {
        self.bytes += u64::from(entry.entry_bytes());
        self.entries.push_back(entry);
    }

    pub fn pop(&mut self) -> Option<E> {
        let entry = self.entries.pop_front()?;
        self.bytes -= u64::from(entry.entry_bytes());
        Some(entry)
    }

    /// The last to have come.
    pub fn pop_last(&mut self) -> Option<E> {
        let entry = self.entries.pop_back()?;
        self.bytes -= u64::from(entry.entry_bytes());
        Some(entry)
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}
