//! What became of frames at the programs of a history, and what the replicas did with them.

/// Of all programs, or of one NIC's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DriverCounts {
    /// Frames that went up.
    pub up_count: u64,
    /// Frames that a program dropped, because they were all that was to be known.
    pub dropped_count: u64,
    /// Requests that got a slot from a program.
    pub slots_count: u64,
    /// Acknowledgements and answers of programs.
    pub answers_count: u64,
    /// Frames that ran while the replica was at one of its calls.
    pub raced_count: u64,
    /// Programs that were replaced.
    pub swaps_count: u64,
    /// Of chains.
    pub chain: ChainCounts,
}

/// What is counted of chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum ChainCount {
    /// Leaders' grants whose entries go in a chain.
    Formed,
    /// Leaders' grants that flood, because somebody lacks what is committed.
    Flooded,
    /// Chains that the replica found broken, and gave up for flooding.
    Broken,
    /// Entries that a leader's program sent to the first follower.
    Begun,
    /// Entries that a follower's program handed on.
    HandedOn,
    /// Acknowledgements of a last follower, for all.
    Ended,
    /// Frames that a follower on their way passed up instead of handing them on.
    WentUp,
    /// Of these, those of another term than the follower's program had been told of last.
    OtherTerm,
    /// Frames that found a leader's program where they looked for a follower's, and came from nobody then.
    Strange,
    /// Frames lost on the way to the first follower.
    LostAtFirst,
    /// Frames lost between two followers.
    LostBetween,
    /// Acknowledgements for all that were lost.
    LostAtEnd,
    /// Programs replaced while they had a place in a chain.
    Swapped,
}

/// A number for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChainCounts(pub [u64; ChainCounts::NAMES.len()]);

impl ChainCounts {
    /// As a report lists them, in the order of [`ChainCount`].
    pub const NAMES: [&str; 13] = [
        "chain_formed_count",
        "chain_flooded_count",
        "chain_broken_count",
        "chain_begun_count",
        "chain_handed_on_count",
        "chain_ended_count",
        "chain_went_up_count",
        "chain_other_term_count",
        "chain_strange_count",
        "chain_lost_at_first_count",
        "chain_lost_between_count",
        "chain_lost_at_end_count",
        "chain_swapped_count",
    ];

    /// One more.
    pub fn count(&mut self, what: ChainCount) {
        self.0[what as usize] += 1;
    }

    /// Adds another's.
    pub fn add(&mut self, other: &ChainCounts) {
        for (sum, count) in self.0.iter_mut().zip(other.0) {
            *sum += count;
        }
    }
}

const _: () = assert!(ChainCount::Swapped as usize + 1 == ChainCounts::NAMES.len());
