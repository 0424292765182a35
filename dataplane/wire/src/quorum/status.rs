//! What a replica says about itself when it is asked: the value that answers `Command::Status`.
//!
//! ```text
//!  0         8      12     13     14       16     24        32           40            48        56
//!  +---------+------+------+------+--------+------+---------+------------+-------------+---------+
//!  | cluster | node | role | zero | leader | term | members | commit end | applied end | log end |
//!  |         |      |      |      | + 1    |      |         |            |             |         |
//!  +---------+------+------+------+--------+------+---------+------------+-------------+---------+
//! ```
//!
//! A client compares the cluster with the one that it means, before it writes into somebody else's.

use core::ops::Range;

use super::{members::Members, message};
use crate::{Reject, frame::array};

/// Where each field stands.
pub mod field {
    use super::Range;
    /// Which cluster.
    pub const CLUSTER: Range<usize> = 0..8;
    /// Who answers.
    pub const NODE: Range<usize> = 8..12;
    /// 0 follower, 1 candidate, 2 leader.
    pub const ROLE: Range<usize> = 12..13;
    /// Zero.
    pub const RESERVED: Range<usize> = 13..14;
    /// The leader's number and one; 0 where none is known.
    pub const LEADER: Range<usize> = 14..16;
    /// The replica's term.
    pub const TERM: Range<usize> = 16..24;
    /// [`super::Members`].
    pub const MEMBERS: Range<usize> = 24..32;
    /// Everything before this slot is committed, as far as the replica knows.
    pub const COMMIT_END: Range<usize> = 32..40;
    /// Everything before this slot is applied.
    pub const APPLIED_END: Range<usize> = 40..48;
    /// End of the replica's log.
    pub const LOG_END: Range<usize> = 48..56;
}

/// Length of an encoded status.
pub const BYTES: usize = 56;

/// What a replica is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    /// Takes what the leader sends.
    Follower = 0,
    /// Stands for election, or asks whether it should.
    Candidate = 1,
    /// Assigns slots and counts.
    Leader = 2,
}

impl Role {
    /// The role's name, as lines for people print it.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Follower => "follower",
            Role::Candidate => "candidate",
            Role::Leader => "leader",
        }
    }
}

/// A replica's word about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Which cluster.
    pub cluster: u64,
    /// Who answers.
    pub node: u32,
    /// What it is.
    pub role: Role,
    /// The leader it knows of; below `u16::MAX`.
    pub leader: Option<u32>,
    /// Its term.
    pub term: u64,
    /// Who votes, by its log.
    pub members: Members,
    /// Everything before this slot is committed, as far as it knows.
    pub commit_end: u64,
    /// Everything before this slot is applied.
    pub applied_end: u64,
    /// End of its log.
    pub log_end: u64,
}

impl Status {
    /// Writes the status.
    ///
    /// # Panics
    /// If the leader's number does not fit.
    pub fn encode(&self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        let leader = self
            .leader
            .map_or(Some(0), |node| u16::try_from(node).ok()?.checked_add(1));
        let leader = leader.expect("node numbers are below 32");
        bytes[field::CLUSTER].copy_from_slice(&self.cluster.to_be_bytes());
        bytes[field::NODE].copy_from_slice(&self.node.to_be_bytes());
        bytes[field::ROLE.start] = self.role as u8;
        bytes[field::LEADER].copy_from_slice(&leader.to_be_bytes());
        bytes[field::TERM].copy_from_slice(&self.term.to_be_bytes());
        bytes[field::MEMBERS].copy_from_slice(&self.members.encode());
        bytes[field::COMMIT_END].copy_from_slice(&self.commit_end.to_be_bytes());
        bytes[field::APPLIED_END].copy_from_slice(&self.applied_end.to_be_bytes());
        bytes[field::LOG_END].copy_from_slice(&self.log_end.to_be_bytes());
        bytes
    }

    /// Reads a status.
    ///
    /// # Errors
    /// [`Reject::Short`] and [`Reject::Long`]; [`Reject::Length`] for an unknown role, members that are not sound, or a
    /// reserved byte that is not zero.
    pub fn parse(bytes: &[u8]) -> Result<Status, Reject> {
        let bytes = message::whole::<BYTES>(bytes)?;
        message::require(bytes[field::RESERVED.start] == 0)?;
        let role = match bytes[field::ROLE.start] {
            0 => Role::Follower,
            1 => Role::Candidate,
            2 => Role::Leader,
            _ => return Err(Reject::Length),
        };
        Ok(Status {
            cluster: u64::from_be_bytes(array(bytes, field::CLUSTER)),
            node: u32::from_be_bytes(array(bytes, field::NODE)),
            role,
            leader: u16::from_be_bytes(array(bytes, field::LEADER))
                .checked_sub(1)
                .map(u32::from),
            term: u64::from_be_bytes(array(bytes, field::TERM)),
            members: Members::parse(&array(bytes, field::MEMBERS))?,
            commit_end: u64::from_be_bytes(array(bytes, field::COMMIT_END)),
            applied_end: u64::from_be_bytes(array(bytes, field::APPLIED_END)),
            log_end: u64::from_be_bytes(array(bytes, field::LOG_END)),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn status(words: [u64; 5], leader: Option<u32>, role: Role) -> Status {
        let [cluster, term, commit_end, applied_end, log_end] = words;
        let members = Members {
            voters: 0b111,
            elect_count: 2,
            commit_count: 2,
        };
        Status {
            cluster,
            node: 3,
            role,
            leader,
            term,
            members,
            commit_end,
            applied_end,
            log_end,
        }
    }

    proptest! {
        #[test]
        fn parse_undoes_encode(words: [u64; 5], leader in prop::option::of(0u32..32)) {
            for role in [Role::Follower, Role::Candidate, Role::Leader] {
                let status = status(words, leader, role);
                prop_assert_eq!(Status::parse(&status.encode()), Ok(status));
            }
        }

        #[test]
        fn any_bytes_are_an_answer_that_encodes_as_it_came(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(status) = Status::parse(&bytes) {
                prop_assert_eq!(&status.encode()[..], &bytes[..]);
            }
        }
    }

    #[test]
    fn cuts_and_nonsense_are_refused() {
        let bytes = status([1; 5], Some(0), Role::Leader).encode();
        for cut in 0..BYTES {
            assert_eq!(Status::parse(&bytes[..cut]), Err(Reject::Short));
        }
        assert_eq!(Status::parse(&[&bytes[..], &[0]].concat()), Err(Reject::Long));
        for (index, byte) in [
            (field::ROLE.start, 3),
            (field::RESERVED.start, 1),
            (field::MEMBERS.start + 4, 9),
        ] {
            let mut bad = bytes;
            bad[index] = byte;
            assert_eq!(Status::parse(&bad), Err(Reject::Length), "byte {index}");
        }
    }
}
