//! Who votes, and how many votes make a quorum: what a reconfiguration sets and a snapshot carries.
//!
//! ```text
//!  0        4       5        6      8
//!  +--------+-------+--------+------+
//!  | voters | elect | commit | zero |
//!  +--------+-------+--------+------+
//! ```
//!
//! The quorums need not be majorities (Flexible Paxos, §4): a leader needs `elect_count` votes, an entry `commit_count`
//! copies. What must hold is that the two intersect, so that a new leader sees every committed entry, and that two
//! election quorums intersect, so that a term has one leader.

use core::ops::Range;

use crate::{Reject, frame::array};

/// Where each field stands.
pub mod field {
    use super::Range;
    /// One bit per node, node 0 in the lowest.
    pub const VOTERS: Range<usize> = 0..4;
    /// Votes that make a leader, the candidate's own included.
    pub const ELECT_COUNT: Range<usize> = 4..5;
    /// Copies that commit an entry, the leader's own included.
    pub const COMMIT_COUNT: Range<usize> = 5..6;
    /// Zero.
    pub const RESERVED: Range<usize> = 6..8;
}

/// Length of encoded members.
pub const BYTES: usize = 8;
/// The most voters, and one more than the largest node number of one: a bit each.
pub const VOTER_COUNT_MAX: u32 = u32::BITS;

/// The voters and their quorums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Members {
    /// One bit per node, node 0 in the lowest.
    pub voters: u32,
    /// Votes that make a leader, the candidate's own included.
    pub elect_count: u8,
    /// Copies that commit an entry, the leader's own included.
    pub commit_count: u8,
}

impl Members {
    /// How many vote.
    pub const fn count(&self) -> u32 {
        self.voters.count_ones()
    }

    /// Whether this node votes.
    pub const fn contains(&self, node: u32) -> bool {
        node < VOTER_COUNT_MAX && self.voters >> node & 1 == 1
    }

    /// Whether somebody votes, no quorum is empty or larger than all of them, every election quorum intersects every
    /// commit quorum, and every two election quorums intersect.
    pub const fn is_sound(&self) -> bool {
        let (count, elect, commit) = (self.count(), self.elect_count as u32, self.commit_count as u32);
        1 <= elect && elect <= count && 1 <= commit && commit <= count && elect + commit > count && 2 * elect > count
    }

    /// Parses sound members.
    ///
    /// # Errors
    /// [`Reject::Length`] where they are not sound, or a reserved byte is not zero.
    pub fn parse(bytes: &[u8; BYTES]) -> Result<Members, Reject> {
        let members = Members {
            voters: u32::from_be_bytes(array(bytes, field::VOTERS)),
            elect_count: bytes[field::ELECT_COUNT.start],
            commit_count: bytes[field::COMMIT_COUNT.start],
        };
        if !members.is_sound() || members.encode() != *bytes {
            return Err(Reject::Length);
        }
        Ok(members)
    }

    /// The inverse of [`Members::parse`]; what is not sound is encoded, too, and will be refused.
    pub fn encode(self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[field::VOTERS].copy_from_slice(&self.voters.to_be_bytes());
        bytes[field::ELECT_COUNT.start] = self.elect_count;
        bytes[field::COMMIT_COUNT.start] = self.commit_count;
        bytes
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Members that a store can work with.
    pub(crate) fn sound_members() -> impl Strategy<Value = Members> {
        (1u32.., any::<(u8, u8)>()).prop_map(|(voters, (elect, commit))| {
            let count = voters.count_ones() as u8;
            let elect_count = count / 2 + 1 + elect % (count - count / 2);
            let commit_count = count - elect_count + 1 + commit % elect_count;
            Members {
                voters,
                elect_count,
                commit_count,
            }
        })
    }

    proptest! {
        #[test]
        fn parse_undoes_encode(members in sound_members()) {
            prop_assert_eq!(Members::parse(&members.encode()), Ok(members));
        }

        #[test]
        fn what_parses_is_sound_and_what_encode_writes(bytes in [0u8..2, 0u8..2, 0u8..2, 0u8..255, 0u8..6, 0u8..6, 0u8..2, 0u8..2]) {
            if let Ok(members) = Members::parse(&bytes) {
                prop_assert!(members.is_sound());
                prop_assert_eq!(members.encode(), bytes);
            }
        }
    }

    /// Soundness, against what it is for: all pairs of quorums of up to four nodes, one by one.
    #[test]
    fn sound_quorums_intersect_and_others_do_not() {
        let subsets = |count: u32, size: u8| (0u32..1 << count).filter(move |set| set.count_ones() == u32::from(size));
        for count in 0..=4u32 {
            let intersect = |a: u8, b: u8| subsets(count, a).all(|a| subsets(count, b).all(|b| a & b != 0));
            for (elect_count, commit_count) in (0..=5u8).flat_map(|elect| (0..=5u8).map(move |commit| (elect, commit)))
            {
                let members = Members {
                    voters: (1 << count) - 1,
                    elect_count,
                    commit_count,
                };
                let can_be_had = [elect_count, commit_count]
                    .iter()
                    .all(|size| (1..=count).contains(&u32::from(*size)));
                let want = can_be_had && intersect(elect_count, commit_count) && intersect(elect_count, elect_count);
                assert_eq!(members.is_sound(), want, "{members:?}");
            }
        }
    }

    #[test]
    fn every_node_number_is_an_answer() {
        let members = Members {
            voters: 1 << 31 | 1,
            elect_count: 2,
            commit_count: 1,
        };
        assert_eq!(members.count(), 2);
        assert!(members.contains(0) && members.contains(31));
        assert!(!members.contains(1) && !members.contains(32) && !members.contains(u32::MAX));
    }
}
