//! Packets in the order in which they came, and how many bytes they are.

use std::collections::VecDeque;

use crate::packet::Queued;

/// First in, first out.
#[derive(Clone, Debug)]
pub(crate) struct Fifo<T> {
    entries: VecDeque<T>,
    bytes: u64,
}

/// Without memory until something comes: most queues of a large topology stay empty.
impl<T> Default for Fifo<T> {
    fn default() -> Fifo<T> {
        Fifo {
            entries: VecDeque::new(),
            bytes: 0,
        }
    }
}

impl<T: Queued> Fifo<T> {
    pub fn push(&mut self, packet: T) {
        self.bytes += u64::from(packet.bytes());
        self.entries.push_back(packet);
    }

    pub fn pop(&mut self) -> Option<T> {
        let packet = self.entries.pop_front()?;
        self.bytes -= u64::from(packet.bytes());
        Some(packet)
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }
}
