//! Frames held back until their time: a fixed number of slots, and a heap of which is due first.

use std::{cmp::Reverse, collections::BinaryHeap};

use crate::{Instant, Peer};

/// The frames held in one direction.
#[derive(Debug)]
pub(super) struct Held {
    slots: Box<[Slot]>,
    free: Vec<usize>,
    /// Due first on top; frames due at the same time leave in the order in which they came.
    order: BinaryHeap<Reverse<(Instant, u64, usize)>>,
    pushed_count: u64,
}

#[derive(Clone, Debug)]
struct Slot {
    peer: Peer,
    stamp: Option<Instant>,
    len_bytes: usize,
    bytes: Box<[u8]>,
}

/// A frame, lent.
pub(super) struct Frame<'a> {
    pub(super) peer: Peer,
    pub(super) stamp: Option<Instant>,
    pub(super) bytes: &'a [u8],
}

impl Held {
    pub(super) fn new(frames_max: usize, frame_bytes_max: usize) -> Held {
        let empty = Slot {
            peer: Peer(0),
            stamp: None,
            len_bytes: 0,
            bytes: vec![0; frame_bytes_max].into(),
        };
        Held {
            slots: vec![empty; frames_max].into(),
            free: (0..frames_max).rev().collect(),
            order: BinaryHeap::with_capacity(frames_max),
            pushed_count: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// When the next frame is due.
    pub(super) fn earliest(&self) -> Option<Instant> {
        self.order.peek().map(|Reverse((due, ..))| *due)
    }

    /// Holds a frame. `false` if every slot is taken.
    pub(super) fn push(&mut self, due: Instant, peer: Peer, stamp: Option<Instant>, bytes: &[u8]) -> bool {
        let Some(index) = self.free.pop() else { return false };
        let slot = &mut self.slots[index];
        slot.bytes[..bytes.len()].copy_from_slice(bytes);
        (slot.peer, slot.stamp, slot.len_bytes) = (peer, stamp, bytes.len());
        self.order.push(Reverse((due, self.pushed_count, index)));
        self.pushed_count += 1;
        true
    }

    /// The frame due first, if its time has come. It stays until [`Held::pop`].
    pub(super) fn next_due(&self, now: Instant) -> Option<Frame<'_>> {
        let Reverse((due, _, index)) = self.order.peek()?;
        let slot = &self.slots[*index];
        (*due <= now).then(|| Frame {
            peer: slot.peer,
            stamp: slot.stamp,
            bytes: &slot.bytes[..slot.len_bytes],
        })
    }

    /// Lets go of the frame due first.
    pub(super) fn pop(&mut self) {
        if let Some(Reverse((_, _, index))) = self.order.pop() {
            self.free.push(index);
        }
    }
}
