//! What a client is asked, and what it says: of a request, of a replica, of itself.

use dataplane_waist::Instant;
use dataplane_wire::quorum::{reply::Outcome, request::Command};

/// A request's name, until its verdict is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// What is to be asked.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// What.
    pub command: Command<'a>,
    /// Whom.
    pub route: Route,
    /// When to give up.
    pub deadline: Instant,
}

/// Whom to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// The leader, whoever that is.
    Leader,
    /// This node and no other: for stale reads and status.
    Node(u32),
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// The cluster has answered: done, a value, absent, mismatch, entries, or refused.
    Answered(Outcome<'a>),
    /// The session was gone, or had forgotten the number. A new one is opened for the next request.
    Expired {
        /// It may have been done: it had been sent before.
        may_be_done: bool,
    },
    /// The deadline came first.
    TimedOut {
        /// It may have been done, or be done yet: it has been sent, and would change something.
        may_be_done: bool,
    },
}

/// What was tried at one node, for those who must say why nothing came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tried {
    /// Requests sent there.
    pub sent_count: u64,
    /// Answers that came from there, of any kind.
    pub answered_count: u64,
    /// Of those: "I do not lead".
    pub not_leader_count: u64,
    /// Of those: "no room".
    pub busy_count: u64,
}

/// What a client has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientCounters {
    /// Frames sent again because no answer came in time.
    pub timeouts_count: u64,
    /// Times another replica was taken for the leader.
    pub turns_count: u64,
    /// Sessions opened.
    pub sessions_count: u64,
    /// Answers to what was answered already, or was never asked.
    pub late_count: u64,
}
