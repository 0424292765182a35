//! What a one-sided replica is told at its start.

use std::time::Duration;

use dataplane_waist::Peer;

use dataplane_wire::quorum::members::Members;

use super::layout::{Entry, Layout};
use crate::{
    config::{self, NODES_MAX, ReadMode, majorities},
    guarantees::{Guarantees, Keeps},
};

/// A replica's settings. Those of one cluster agree in everything but `node`, `peers`, `life` and `start`.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which cluster.
    pub cluster: u64,
    /// Our own number, below [`NODES_MAX`]. The lowest that is alive leads.
    pub node: u32,
    /// The others, by node number, and what both of our windows call them.
    pub peers: Vec<(u32, Peer)>,
    /// A number that is larger at each start of this node: what it asked for in an earlier life is told from what it asks for now.
    pub life: u32,
    /// Whether our memory is new because the cluster is.
    pub start: Start,
    /// What stands where in a window.
    pub layout: Layout,
    /// Timers.
    pub timing: Timing,
    /// Bounds.
    pub limits: Limits,
    /// A mistake to make on purpose, to show that the checks see it.
    pub mutation: Option<Mutation>,
}

/// Why a replica starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The cluster is new: nobody has promised anything.
    First,
    /// It was here before, and its memory is gone, and with it whatever it had promised. Until a leader has brought it up it
    /// counts for nothing.
    Again,
}

/// Timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How often a replica counts its heartbeat up, reads those of the others, and a leader writes to its followers.
    pub heartbeat: Duration,
}

impl Timing {
    /// Mu reads counters as fast as it can and finds a dead leader in 600 µs (OSDI'20 §7.3); with this, in
    /// about as long.
    pub const LOCAL: Timing = Timing {
        heartbeat: Duration::from_micros(40),
    };
}

/// Bounds. What does not fit is refused with `Busy` and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Slots written and not committed.
    pub in_flight_slots: u64,
    /// Requests that wait for a slot, and reads that wait for a round; each.
    pub queued_max: usize,
    /// As [`crate::Limits::sessions_max`].
    pub sessions_max: usize,
    /// As [`crate::Limits::session_replies`].
    pub session_replies: usize,
    /// The longest read or write that is posted.
    pub request_bytes_max: usize,
}

/// Mistakes that lose data or lie, one line each where the rule is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// A follower lets the new leader write and does not stop the old one.
    PermissionKept,
    /// A slot is taken for whole whatever its canary and its checksum say.
    CanaryUnchecked,
    /// A leader does not look for what others have that it lacks.
    PrepareSkipped,
    /// A commit needs one replica less than a majority.
    MinorityCommit,
    /// A slot is used again when the leader has applied it, whether or not its followers have.
    RecycledEarly,
    /// A replica that lost its memory counts at once.
    AmnesiaIgnored,
    /// A leader reads without a round.
    UncheckedRead,
    /// An entry is taken for the next one though it was written behind another entry than stands before it.
    ChainUnchecked,
    /// A follower is told that something is committed that it may not have.
    CommitAhead,
    /// A leader counts a log that it has read though somebody else may have written there meanwhile, or the memory may be new.
    RecheckSkipped,
    /// A snapshot that has changed under its reader is fetched again as it was offered, and none is asked for.
    OfferBelieved,
    /// Permission is asked for again while something that was written under an earlier one is under way.
    AskedEarly,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Mutation; 12] = [
        Mutation::PermissionKept,
        Mutation::CanaryUnchecked,
        Mutation::PrepareSkipped,
        Mutation::MinorityCommit,
        Mutation::RecycledEarly,
        Mutation::AmnesiaIgnored,
        Mutation::UncheckedRead,
        Mutation::ChainUnchecked,
        Mutation::CommitAhead,
        Mutation::RecheckSkipped,
        Mutation::OfferBelieved,
        Mutation::AskedEarly,
    ];

    /// Its name on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Mutation::PermissionKept => "permission-kept",
            Mutation::CanaryUnchecked => "canary-unchecked",
            Mutation::PrepareSkipped => "prepare-skipped",
            Mutation::MinorityCommit => "minority-commit",
            Mutation::RecycledEarly => "recycled-early",
            Mutation::AmnesiaIgnored => "amnesia-ignored",
            Mutation::UncheckedRead => "unchecked-round",
            Mutation::ChainUnchecked => "chain-unchecked",
            Mutation::CommitAhead => "commit-ahead",
            Mutation::RecheckSkipped => "recheck-skipped",
            Mutation::OfferBelieved => "offer-believed",
            Mutation::AskedEarly => "asked-early",
        }
    }
}

/// Why a configuration cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A number beyond the bound, or two alike.
    #[error("node {0}: numbers go from 0 to {max}, each once", max = NODES_MAX - 1)]
    Node(u32),
    /// A bound that makes no sense.
    #[error("{0}")]
    Bound(&'static str),
}

impl Config {
    /// Whether a replica can be made of this.
    ///
    /// # Errors
    /// What is wrong, the first of it.
    pub fn check(&self) -> Result<(), ConfigError> {
        let mut known = 0u32;
        for node in self.peers.iter().map(|&(node, _)| node).chain([self.node]) {
            let bit = 1u32.checked_shl(node).ok_or(ConfigError::Node(node))?;
            if known & bit != 0 {
                return Err(ConfigError::Node(node));
            }
            known |= bit;
        }
        let limits = &self.limits;
        let sound = [
            (!self.timing.heartbeat.is_zero(), "the heartbeat must be above zero"),
            (
                limits.in_flight_slots > 0 && limits.in_flight_slots <= self.layout.slots_count / 2,
                "in_flight_slots must be above 0 and at most half of the log's slots",
            ),
            (
                limits.request_bytes_max >= self.layout.slot_bytes(),
                "request_bytes_max must be a slot at least",
            ),
            (
                limits.queued_max > 0 && limits.sessions_max > 0 && limits.session_replies > 0,
                "bounds must be above zero",
            ),
        ];
        match sound.iter().find(|(holds, _)| !holds) {
            Some((_, why)) => Err(ConfigError::Bound(why)),
            None => Ok(()),
        }
    }

    /// Everybody, and majorities of them.
    pub(crate) fn members(&self) -> Members {
        let nodes = self.peers.iter().map(|&(node, _)| node).chain([self.node]);
        majorities(nodes.fold(0, |voters, node| voters | 1 << node))
    }

    /// What the cluster promises: the memory of a majority, and reads for which the leader asks one.
    pub fn guarantees(&self) -> Guarantees {
        Guarantees::of(Keeps::Memory, self.members(), ReadMode::Index, &config::Timing::LOCAL)
    }

    /// How many make a majority.
    pub(crate) fn majority_count(&self) -> usize {
        let nodes_count = self.peers.len() + 1;
        nodes_count / 2 + 1
    }

    /// Whether an entry stands where its writer put it: behind an entry of proposal `last`. A lower proposal behind a higher one is
    /// left over from before.
    pub(super) fn is_behind(&self, entry: &Entry<'_>, last: u64) -> bool {
        entry.proposal >= last && (entry.before == last || self.makes(Mutation::ChainUnchecked))
    }

    pub(crate) fn makes(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }
}
