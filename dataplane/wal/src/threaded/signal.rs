//! How one thread says how much it has done, and wakes the other only if that one rests.
//!
//! Both sides write one word and then read the other's, with a sequentially consistent fence in between: either the writer sees
//! that somebody rests, or who is about to rest sees what was done. Every order of the two: tests/loom.

#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

/// Shared by a thread that writes and one that may rest.
#[derive(Debug)]
pub(super) struct Signal {
    /// How many batches are over, or [`FAILED`].
    over: AtomicU64,
    is_resting: AtomicBool,
}

/// Nothing more will be over.
pub(super) const FAILED: u64 = u64::MAX;

impl Signal {
    pub(super) fn new() -> Signal {
        Signal {
            over: AtomicU64::new(0),
            is_resting: AtomicBool::new(false),
        }
    }

    /// The writer: so many are over. True: the other rests, and is to be woken.
    pub(super) fn finish(&self, over: u64) -> bool {
        self.over.store(over, Ordering::Release);
        fence(Ordering::SeqCst);
        self.is_resting.swap(false, Ordering::AcqRel)
    }

    /// The other: how many are over.
    pub(super) fn over(&self) -> u64 {
        self.over.load(Ordering::Acquire)
    }

    /// The other is about to rest and has seen `seen`. False: there is more by now, and it must not.
    pub(super) fn rest(&self, seen: u64) -> bool {
        // An exchange rather than a store: all changes of this word are then in one order.
        self.is_resting.swap(true, Ordering::AcqRel);
        fence(Ordering::SeqCst);
        self.over() == seen
    }

    /// The other rests no more. True: the writer has woken it, or is about to.
    pub(super) fn awake(&self) -> bool {
        !self.is_resting.swap(false, Ordering::AcqRel)
    }
}
