//! How one thread says how much it has done, and wakes the other only if that one rests.
//!
//! Both sides exchange one word, the writer after it has said what is over, who rests before it looks at that. Exchanges of a word have one
//! order: either the writer's is the later one, and sees that somebody rests, or the other's is, and sees what was done (tests/loom).

#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};

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
        self.is_resting.swap(false, Ordering::AcqRel)
    }

    /// The other: how many are over.
    pub(super) fn over(&self) -> u64 {
        self.over.load(Ordering::Acquire)
    }

    /// The other is about to rest and has seen `seen`. False: there is more by now, and it must not.
    pub(super) fn rest(&self, seen: u64) -> bool {
        // An exchange rather than a store: a store would have no place in the order of the writer's, nor see what they tell.
        self.is_resting.swap(true, Ordering::AcqRel);
        self.over() == seen
    }

    /// The other rests no more. True: the writer has woken it, or is about to.
    pub(super) fn awake(&self) -> bool {
        !self.is_resting.swap(false, Ordering::AcqRel)
    }
}
