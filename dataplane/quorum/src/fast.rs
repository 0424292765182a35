//! The fast path: a stable leader, the next slot, the same term. These few rules are all that a program in the kernel, a
//! pipeline in hardware or a one-sided write takes over; everything else is handed up to the replica.

use dataplane_waist::{Slot, Term};

use crate::config::NODES_MAX;

/// What a follower must know to take an entry without looking anywhere else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FastFollower {
    /// The term whose leader we follow.
    pub term: Term,
    /// Our log equals that leader's up to here, and ends here.
    pub next: Slot,
    /// Our log was compared with that leader's in this term. Without it nothing is taken.
    pub synced: bool,
}

impl FastFollower {
    /// Whether an entry for `slot` of `term` is simply the next one.
    ///
    /// Why that is enough: the log was matched with this leader's in this very term, and a leader only appends
    /// (Raft §5.3, Leader Append-Only), so the entry before `slot` is the same on both sides.
    #[inline]
    pub fn takes(&self, term: Term, slot: Slot) -> bool {
        self.synced && term == self.term && slot == self.next
    }
}

/// What a leader counts.
#[derive(Clone, Copy, Debug)]
pub struct FastLeader {
    /// Nodes that vote, as bits.
    pub voters: u32,
    /// How many of them must have an entry.
    pub commit_count: u32,
    /// By node: everything before is safe there.
    pub acked_end: [Slot; NODES_MAX],
    /// The first slot of this leader's term: what is before it is committed only together with it (Raft §5.4.2).
    pub term_begin: Slot,
    /// Everything before is committed.
    pub commit_end: Slot,
}

impl FastLeader {
    /// Notes that `node` has everything before `end`; says the new commit end, if that moved it.
    #[inline]
    pub fn acked(&mut self, node: u32, end: Slot) -> Option<Slot> {
        let place = &mut self.acked_end[node as usize];
        if end <= *place {
            return None;
        }
        *place = end;
        self.advance()
    }

    /// Says the new commit end, if there is one.
    #[inline]
    pub fn advance(&mut self) -> Option<Slot> {
        let end = self.quorum_end();
        if end <= self.commit_end || end <= self.term_begin {
            return None;
        }
        self.commit_end = end;
        Some(end)
    }

    /// The highest end that `commit_count` voters have reached: the `commit_count`-th largest.
    #[inline]
    fn quorum_end(&self) -> Slot {
        let mut ends = [Slot(0); NODES_MAX];
        let mut count = 0;
        let mut left = self.voters;
        while left != 0 {
            let node = left.trailing_zeros();
            left &= left - 1;
            // Insertion from the largest down: there are a handful of voters.
            let end = self.acked_end[node as usize];
            let mut at = count;
            while at > 0 && ends[at - 1] < end {
                ends[at] = ends[at - 1];
                at -= 1;
            }
            ends[at] = end;
            count += 1;
        }
        match (self.commit_count as usize).checked_sub(1) {
            Some(last) if last < count => ends[last],
            _ => Slot(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_follower_takes_the_next_slot_of_its_term_and_nothing_else() {
        let follower = FastFollower {
            term: Term(3),
            next: Slot(7),
            synced: true,
        };
        assert!(follower.takes(Term(3), Slot(7)));
        assert!(!follower.takes(Term(3), Slot(6)));
        assert!(!follower.takes(Term(3), Slot(8)));
        assert!(!follower.takes(Term(4), Slot(7)));
        let unsynced = FastFollower {
            synced: false,
            ..follower
        };
        assert!(!unsynced.takes(Term(3), Slot(7)));
    }

    proptest! {
        /// A commit end is one that `commit_count` voters have, the highest such, and never goes back.
        #[test]
        fn a_commit_has_its_quorum(voters in 1u32..256, commit in 1u32..6, acks in prop::collection::vec((0u32..8, 0u64..20), 0..40)) {
            let commit_count = commit.min(voters.count_ones());
            let mut leader = FastLeader {
                voters,
                commit_count,
                acked_end: [Slot(0); NODES_MAX],
                term_begin: Slot(0),
                commit_end: Slot(0),
            };
            let mut before = Slot(0);
            for (node, end) in acks {
                let moved = leader.acked(node, Slot(end));
                let has = |end: Slot| (0..8).filter(|&n| voters & (1 << n) != 0 && leader.acked_end[n as usize] >= end).count() as u32;
                let highest = (0..20).rev().map(Slot).find(|&end| has(end) >= commit_count).expect("all have 0");
                prop_assert_eq!(leader.commit_end, highest);
                prop_assert_eq!(moved.is_some(), highest > before);
                before = highest;
            }
        }
    }

    #[test]
    fn nothing_is_committed_before_an_entry_of_the_leaders_own_term() {
        let mut leader = FastLeader {
            voters: 0b111,
            commit_count: 2,
            acked_end: [Slot(0); NODES_MAX],
            term_begin: Slot(5),
            commit_end: Slot(2),
        };
        assert_eq!(leader.acked(0, Slot(6)), None);
        assert_eq!(leader.acked(1, Slot(5)), None, "older entries alone");
        assert_eq!(leader.acked(1, Slot(6)), Some(Slot(6)));
    }
}
