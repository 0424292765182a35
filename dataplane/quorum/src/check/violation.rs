//! The invariants by name, each with what was seen when it did not hold.

/// An invariant that does not hold: the protocol is broken, or what it stands on is (a disk that lies).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Election safety (Raft §5.2): at most one leader in a term.
    #[error("election safety: nodes {first} and {second} both led term {term}")]
    TwoLeaders {
        /// The term.
        term: u64,
        /// Who was seen to lead it first.
        first: u32,
        /// And who then.
        second: u32,
    },
    /// A replica votes once a term (Raft §5.2), however often it begins again within it.
    #[error("one vote a term: node {node} voted for node {first} in term {term}, and then for node {second}")]
    TwoVotes {
        /// Who voted.
        node: u32,
        /// The term.
        term: u64,
        /// Its first vote.
        first: u32,
        /// And its second.
        second: u32,
    },
    /// A replica is in no term before one in which it has voted.
    #[error("node {node} voted in term {voted}, and is now in term {term}")]
    TermWentBack {
        /// Who.
        node: u32,
        /// The term of its vote.
        voted: u64,
        /// Its term now.
        term: u64,
    },
    /// Log matching (Raft §5.3): two logs with an entry of one term in one slot are equal up to it.
    #[error("log matching: nodes {a} and {b} both have slot {same_slot} of one term, and differ in slot {slot}")]
    Logs {
        /// One replica.
        a: u32,
        /// The other.
        b: u32,
        /// The slot in which their terms are equal.
        same_slot: u64,
        /// The earlier slot in which they are not.
        slot: u64,
    },
    /// Agreement (state machine safety, Raft §5.4.3): what is committed in a slot is the same everywhere and for ever.
    #[error(
        "agreement: slot {slot} was committed with an entry of term {first_term} (by node {first}), and node {node} \
         commits another one, of term {term}, there"
    )]
    Committed {
        /// The slot.
        slot: u64,
        /// Who committed it first, as far as was seen.
        first: u32,
        /// That entry's term.
        first_term: u64,
        /// Who has something else.
        node: u32,
        /// Its entry's term.
        term: u64,
    },
    /// Leader completeness (Raft §5.4): a leader has everything that was committed in earlier terms.
    #[error(
        "leader completeness: node {node} leads term {term} without slot {slot}, which was committed in term {committed_in}"
    )]
    Incomplete {
        /// The leader.
        node: u32,
        /// Its term.
        term: u64,
        /// What it lacks, or has another entry in.
        slot: u64,
        /// When that was committed.
        committed_in: u64,
    },
    /// A commit end went back while its replica ran.
    #[error("node {node}: what is committed ended at {before}, and now at {after}")]
    CommitWentBack {
        /// The replica.
        node: u32,
        /// The end before.
        before: u64,
        /// The end now.
        after: u64,
    },
    /// No gap: what is applied is committed, what is committed is in the log, and terms in a log only grow.
    #[error("node {node}: {what} (log {begin}..{end}, committed to {commit_end}, applied to {applied_end})")]
    Gap {
        /// The replica.
        node: u32,
        /// Which rule.
        what: &'static str,
        /// Where its window begins.
        begin: u64,
        /// Where it ends.
        end: u64,
        /// Its commit end.
        commit_end: u64,
        /// Its applied end.
        applied_end: u64,
    },
    /// A replica received what no correct cluster sends.
    #[error("node {node} received {count} frames that no correct cluster sends")]
    Impossible {
        /// The replica.
        node: u32,
        /// Its `impossible_count`.
        count: u64,
    },
    /// Two replicas that have applied the same slots are not in the same state.
    #[error("nodes {a} and {b} have both applied everything before slot {slot}, and their states differ")]
    States {
        /// One replica.
        a: u32,
        /// The other.
        b: u32,
        /// Where both are.
        slot: u64,
    },
}
