//! What a commit says about the log as it was before it.

use std::ops::Range;

use super::{COMMIT_HEADER_BYTES, NUMBER_MAX, get_u32, get_u64};

const COMMIT_PREV: Range<usize> = 0..4;
const COMMIT_DURABLE: Range<usize> = 4..8;
const COMMIT_STATES: Range<usize> = 8..12;
const COMMIT_CUT: Range<usize> = 12..16;
const COMMIT_CUT_SLOT: Range<usize> = 16..24;
const COMMIT_BEGIN: Range<usize> = 24..32;
const COMMIT_END: Range<usize> = 32..40;
const COMMIT_END_TERM: Range<usize> = 40..48;

/// What a commit says about the log as it was before it. A commit that is lost is judged by the next one that is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommitHeader {
    /// How far below this commit's number that of the commit before it is: 1, but after a torn end.
    pub prev_delta: u32,
    /// How far below this commit's number the last is that was known to be durable when this one was written. A commit
    /// that is missing and above that was never acknowledged; one at or below it was.
    pub durable_delta: u32,
    /// How many states had been set, ever.
    pub states_count: u32,
    /// How far below this commit's number the last is that overwrote earlier slots. 0: none, or long ago.
    pub cut_delta: u32,
    /// The lowest slot that any commit has overwritten, among those that may still be read.
    pub cut_slot: u64,
    /// The end of the snapshot that stood; 0 without one.
    pub begin: u64,
    /// The end of the log.
    pub end: u64,
    /// The term of the slot before `end`.
    pub end_term: u64,
}

/// What has been overwritten: whoever knows the log as it stood behind some commit, and nothing of what came after that, keeps
/// all entries if that commit's number is not below `lsn`, and those before `slot` otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// The last commit that overwrote slots; 0: none did.
    pub(crate) lsn: u64,
    /// The lowest slot that any has.
    pub(crate) slot: u64,
}

impl Default for Cut {
    fn default() -> Cut {
        Cut {
            lsn: 0,
            slot: NUMBER_MAX,
        }
    }
}

impl Cut {
    /// Commit `lsn` overwrites from `slot` on.
    pub(crate) fn at(self, lsn: u64, slot: u64) -> Cut {
        Cut {
            lsn,
            slot: slot.min(self.slot),
        }
    }
}

impl CommitHeader {
    /// The number of the commit before the one with number `lsn`. 0 if that is too long ago to be said: then nothing tells that
    /// any between them is missing.
    pub(crate) fn prev_lsn(&self, lsn: u64) -> u64 {
        before(lsn, self.prev_delta)
    }

    /// The last commit that was known to be durable. 0 if that is too long ago to be said.
    pub(crate) fn durable_lsn(&self, lsn: u64) -> u64 {
        before(lsn, self.durable_delta)
    }

    /// What had been overwritten before.
    pub(crate) fn cut(&self, lsn: u64) -> Cut {
        Cut {
            lsn: match self.cut_delta {
                0 => 0,
                delta => before(lsn, delta),
            },
            slot: self.cut_slot,
        }
    }

    /// Writes it.
    pub fn emit(&self, bytes: &mut [u8; COMMIT_HEADER_BYTES]) {
        bytes[COMMIT_PREV].copy_from_slice(&self.prev_delta.to_be_bytes());
        bytes[COMMIT_DURABLE].copy_from_slice(&self.durable_delta.to_be_bytes());
        bytes[COMMIT_STATES].copy_from_slice(&self.states_count.to_be_bytes());
        bytes[COMMIT_CUT].copy_from_slice(&self.cut_delta.to_be_bytes());
        bytes[COMMIT_CUT_SLOT].copy_from_slice(&self.cut_slot.to_be_bytes());
        bytes[COMMIT_BEGIN].copy_from_slice(&self.begin.to_be_bytes());
        bytes[COMMIT_END].copy_from_slice(&self.end.to_be_bytes());
        bytes[COMMIT_END_TERM].copy_from_slice(&self.end_term.to_be_bytes());
    }

    /// Reads it. Any bytes are one; the sector's checksum has vouched for them. Slots above [`NUMBER_MAX`] read as that.
    pub fn parse(bytes: &[u8; COMMIT_HEADER_BYTES]) -> CommitHeader {
        CommitHeader {
            prev_delta: get_u32(bytes, COMMIT_PREV),
            durable_delta: get_u32(bytes, COMMIT_DURABLE),
            states_count: get_u32(bytes, COMMIT_STATES),
            cut_delta: get_u32(bytes, COMMIT_CUT),
            cut_slot: get_u64(bytes, COMMIT_CUT_SLOT).min(NUMBER_MAX),
            begin: get_u64(bytes, COMMIT_BEGIN).min(NUMBER_MAX),
            end: get_u64(bytes, COMMIT_END).min(NUMBER_MAX),
            end_term: get_u64(bytes, COMMIT_END_TERM),
        }
    }
}

/// `delta` below `lsn`; the largest stands for everything above it.
fn before(lsn: u64, delta: u32) -> u64 {
    match delta {
        u32::MAX => 0,
        _ => lsn.saturating_sub(u64::from(delta)),
    }
}
