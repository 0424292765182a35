//! What a replica is told at its start, and the bounds that everything in it has.

use std::time::Duration;

use dataplane_waist::Peer;
use dataplane_wire::quorum::members::{Members, VOTER_COUNT_MAX};

/// The most nodes that a cluster can ever have: voters are bits of a 32-bit word.
pub const NODES_MAX: usize = VOTER_COUNT_MAX as usize;

/// A replica's settings. Those of one cluster agree in everything but `node`, `peers` and `seed`.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which cluster. Frames of another one are counted and dropped.
    pub cluster: u64,
    /// Our own number, below [`NODES_MAX`].
    pub node: u32,
    /// Whom our port knows, by node number: everybody who is or may become a member, not ourselves.
    pub peers: Vec<(u32, Peer)>,
    /// Who votes at first. A log or a snapshot that says otherwise is right.
    pub members: Members,
    /// How reads are made linearizable.
    pub reads: ReadMode,
    /// Timers.
    pub timing: Timing,
    /// Bounds.
    pub limits: Limits,
    /// What election time-outs are drawn from.
    pub seed: u64,
    /// A mistake to make on purpose, to show that the checks see it.
    pub mutation: Option<Mutation>,
}

/// How a leader makes sure that it still is the leader when it answers a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadMode {
    /// It asks a quorum after the read has come (Raft §8): right whatever the clocks do.
    Index,
    /// It relies on the followers' promise not to elect another within [`Timing::election_min`] after they heard from it
    /// (Gray and Cheriton, SOSP'89): right as long as no clock runs faster or slower than [`Timing::drift_ratio`] says.
    Lease,
}

/// Timers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// How often a leader lets everybody hear from it.
    pub heartbeat: Duration,
    /// A follower that has heard nothing for a time between this and `election_max` stands for election.
    pub election_min: Duration,
    /// See `election_min`; a leader that heard from no quorum for as long steps down (Raft thesis §6.2).
    pub election_max: Duration,
    /// A frame that brought no answer for as long is taken for lost.
    pub retransmit: Duration,
    /// By how much one clock may run faster than another, for leases.
    pub drift_ratio: f64,
}

impl Timing {
    /// For hosts of one rack or one machine.
    pub const LOCAL: Timing = Timing {
        heartbeat: Duration::from_millis(20),
        election_min: Duration::from_millis(150),
        election_max: Duration::from_millis(300),
        retransmit: Duration::from_millis(2),
        drift_ratio: 0.01,
    };
}

/// Bounds. What does not fit is refused with `Busy` and counted; nothing grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many slots of the log are held in memory: for followers that lag, and until a snapshot stands for them.
    pub window_slots: usize,
    /// How many bytes of payload.
    pub window_bytes: usize,
    /// How many slots may be appended and not committed.
    pub in_flight_slots: u64,
    /// How many slots a follower may have been sent and not acknowledged.
    pub pipeline_slots: u64,
    /// How many entries a follower holds that came before their turn.
    pub held_slots: usize,
    /// The longest frame we send; at most the port's.
    pub frame_bytes_max: usize,
    /// A snapshot is taken when as many slots have been applied since the last one.
    pub snapshot_slots: u64,
    /// How many slots behind a snapshot stay in memory for followers that lag a little.
    pub catch_up_slots: u64,
    /// The longest snapshot that is accepted from a leader.
    pub snapshot_bytes_max: usize,
    /// How many client sessions; the one unused for longest makes room for a new one.
    pub sessions_max: usize,
    /// How many answers a session remembers: a client has at most as many requests under way.
    pub session_replies: usize,
    /// How many reads may wait at a leader.
    pub reads_max: usize,
}

impl Limits {
    /// For small requests on a machine with some memory to spare.
    pub const SMALL: Limits = Limits {
        window_slots: 1 << 16,
        window_bytes: 32 << 20,
        in_flight_slots: 4096,
        pipeline_slots: 1024,
        held_slots: 1024,
        frame_bytes_max: 1472,
        snapshot_slots: 1 << 15,
        catch_up_slots: 1 << 12,
        snapshot_bytes_max: 256 << 20,
        sessions_max: 1024,
        session_replies: 1024,
        reads_max: 4096,
    };
}

/// Mistakes that are known to lose data or to lie, each made by one line where the rule is kept. A check that cannot see
/// them proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// A commit needs one replica less.
    SmallCommitQuorum,
    /// An election needs one replica less.
    SmallElectionQuorum,
    /// The vote is not kept when the process ends.
    ForgottenVote,
    /// A lease is believed ten times as long as it was promised.
    StaleLease,
    /// Entries of older terms are committed by counting (Raft §5.4.2, figure 8).
    CommitsOldTerms,
    /// A follower does not ask which entry stands before the new ones.
    NoMatching,
    /// An acknowledgement does not wait for the disk.
    AckBeforeDurable,
    /// A request that comes twice is applied twice.
    ForgetsSessions,
    /// A voter does not look at the candidate's log.
    VotesForAnybody,
    /// A leader reads without asking anybody.
    UncheckedRead,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Mutation; 10] = [
        Mutation::SmallCommitQuorum,
        Mutation::SmallElectionQuorum,
        Mutation::ForgottenVote,
        Mutation::StaleLease,
        Mutation::CommitsOldTerms,
        Mutation::NoMatching,
        Mutation::AckBeforeDurable,
        Mutation::ForgetsSessions,
        Mutation::VotesForAnybody,
        Mutation::UncheckedRead,
    ];
}

/// Why a configuration cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A node number beyond the bound.
    #[error("node {0}: numbers go from 0 to {max}", max = NODES_MAX - 1)]
    NodeOutOfRange(u32),
    /// Two peers with one number, or one with ours: two replicas would vote as one.
    #[error("node {0} is named twice: every replica needs a number of its own")]
    NodeTwice(u32),
    /// One of the port's peers under two numbers.
    #[error("peer {0} has two node numbers")]
    PeerTwice(u32),
    /// The members contradict each other.
    #[error(
        "members {voters:#b} with quorums {elect} (election) and {commit} (commit): election + commit must exceed the \
         number of voters, and twice the election quorum too"
    )]
    UnsoundMembers {
        /// Bitmap.
        voters: u32,
        /// Election quorum.
        elect: u8,
        /// Commit quorum.
        commit: u8,
    },
    /// A voter that we have no address for.
    #[error("node {0} votes, and no peer has its number")]
    UnknownVoter(u32),
    /// A bound or a timer that makes no sense.
    #[error("{0}")]
    Bound(&'static str),
}

impl Config {
    /// Whether a replica can be made of this.
    ///
    /// # Errors
    /// What is wrong, the first of it.
    pub fn check(&self) -> Result<(), ConfigError> {
        let mut known = 1u32
            .checked_shl(self.node)
            .ok_or(ConfigError::NodeOutOfRange(self.node))?;
        for (index, &(node, peer)) in self.peers.iter().enumerate() {
            let bit = 1u32.checked_shl(node).ok_or(ConfigError::NodeOutOfRange(node))?;
            if known & bit != 0 {
                return Err(ConfigError::NodeTwice(node));
            }
            if self.peers[..index].iter().any(|&(_, other)| other == peer) {
                return Err(ConfigError::PeerTwice(peer.0));
            }
            known |= bit;
        }
        if !self.members.is_sound() {
            return Err(ConfigError::UnsoundMembers {
                voters: self.members.voters,
                elect: self.members.elect_count,
                commit: self.members.commit_count,
            });
        }
        let strangers = self.members.voters & !known;
        if strangers != 0 {
            return Err(ConfigError::UnknownVoter(strangers.trailing_zeros()));
        }
        let (timing, limits) = (&self.timing, &self.limits);
        let sound = [
            (
                timing.heartbeat * 2 <= timing.election_min,
                "election_min must be at least two heartbeats, or every delay elects a new leader",
            ),
            (
                timing.election_min < timing.election_max,
                "election_max must be above election_min, or all stand at once",
            ),
            (
                !timing.retransmit.is_zero() && !timing.heartbeat.is_zero(),
                "timers must be above zero",
            ),
            (
                (0.0..0.5).contains(&timing.drift_ratio),
                "drift_ratio must be at least 0 and below 0.5",
            ),
            (
                limits.frame_bytes_max >= 256,
                "frame_bytes_max below 256: not even a vote and a small entry fit",
            ),
            (
                limits.in_flight_slots <= limits.window_slots as u64 / 2 && limits.in_flight_slots > 0,
                "in_flight_slots must be above 0 and at most half of window_slots",
            ),
            (
                limits.snapshot_slots > 0 && limits.snapshot_slots <= limits.window_slots as u64 / 2,
                "snapshot_slots must be above 0 and at most half of window_slots",
            ),
            (
                limits.catch_up_slots < limits.window_slots as u64 / 4,
                "catch_up_slots must be below a quarter of window_slots",
            ),
            (
                limits.pipeline_slots > 0
                    && limits.held_slots > 0
                    && limits.sessions_max > 0
                    && limits.session_replies > 0,
                "bounds must be above zero",
            ),
        ];
        match sound.iter().find(|(holds, _)| !holds) {
            Some((_, why)) => Err(ConfigError::Bound(why)),
            None => Ok(()),
        }
    }
}

/// Majorities of `voters`.
pub fn majorities(voters: u32) -> Members {
    let majority = (voters.count_ones() / 2 + 1) as u8;
    Members {
        voters,
        elect_count: majority,
        commit_count: majority,
    }
}
