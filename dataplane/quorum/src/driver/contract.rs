//! What a program that does the fast path is told, what it is asked, and what it has done.

use dataplane_waist::{Slot, Term};

use crate::config::NODES_MAX;

/// Whoever does the fast path in the replica's place.
pub trait Driver: Send {
    /// Lets it append, acknowledge and count from now on. Says no if it cannot.
    fn grant(&mut self, grant: &Grant<'_>) -> bool;
    /// Whether it would ever take a grant, a leader's or a follower's. Where it takes none, nobody is woken to look.
    fn takes_grants(&self, _leads: bool) -> bool {
        true
    }
    /// Takes the grant back, atomically. It has appended nothing behind what [`Driver::seen`] says from now on.
    fn revoke(&mut self);
    /// What it has done under the last grant.
    fn seen(&mut self) -> Seen;
    /// The entry in `slot`, which it appended under the last grant and may not have forgotten.
    fn entry(&mut self, slot: Slot) -> Option<Taken<'_>>;
    /// It may forget everything before `end`.
    fn drained(&mut self, end: Slot);
    /// It may append before `end`, and not behind: as [`Grant::append_end`].
    fn limit(&mut self, end: Slot);
    /// Whether it would do better under a new grant than under the one it has: the replica then takes that back and gives another.
    fn wants_new_grant(&self) -> bool {
        false
    }
    /// Whether a leader's program gives slots to requests. One that does not counts alone: the replica appends while the
    /// program has the grant, and says so by [`Driver::appended`].
    fn appends(&self) -> bool {
        true
    }
    /// Under a leader's grant, and if [`Driver::appends`] says no: the replica has appended everything before `end`, and nothing
    /// of it has left yet.
    fn appended(&mut self, _end: Slot) {}
    /// Whether programs of followers take what a leader in user space sends. They take single entries, so it sends them singly.
    fn takes_single_entries(&self) -> bool {
        false
    }
}

/// What the program is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant<'a> {
    /// As whom.
    pub part: Part<'a>,
    /// The term.
    pub term: Term,
    /// The slot of the next entry.
    pub next: Slot,
    /// Everything before is committed.
    pub commit_end: Slot,
    /// It appends nothing here or behind: the replica's log has no room for more. Without this bound a replica could be left
    /// with entries that were acknowledged in its name and do not fit, and could neither go on nor vote.
    pub append_end: Slot,
    /// The longest entry that it takes. A longer one could be sent to nobody again who has lost it.
    pub entry_bytes_max: usize,
}

/// As whom a program acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// It gives slots to requests, counts and answers.
    Leader {
        /// The first slot of this leader's term: what is before it is committed only together with it (Raft §5.4.2).
        term_begin: Slot,
        /// Who votes, as bits.
        voters: u32,
        /// How many of them must have an entry.
        commit_count: u32,
        /// By node: everything before is safe there.
        acked_end: &'a [Slot; NODES_MAX],
        /// Client sessions, with the newest request of each that has a slot. Only newer ones may be given one, and those between
        /// that were not given one by the program itself. Each has its place, the remainder of its number by the sessions that
        /// a replica has room for; those of whose client nothing was heard are left out.
        sessions: &'a [(u64, u64)],
        /// The answers that are remembered of a session: a request so far behind the newest that has a slot is given none.
        session_replies: u64,
    },
    /// It takes the entries of this leader.
    Follower {
        /// Whose.
        leader: u32,
    },
}

/// What a program has done under its last grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Behind the last entry that it appended.
    pub end: Slot,
    /// Leader: everything before is committed. Follower: the leader said so, whatever this log has.
    pub commit_end: Slot,
    /// Leader: by node, everything before is safe there.
    pub acked_end: [Slot; NODES_MAX],
    /// By node: grows whenever something was heard from there. A follower hears its leader alone.
    pub heard: [u64; NODES_MAX],
}

/// An entry that a program appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken<'a> {
    /// The payload.
    pub bytes: &'a [u8],
    /// CRC-32C of the payload, which the program has compared.
    pub crc: u32,
    /// Leader: the request's own word, which the answer brings back.
    pub sent_ns: u64,
    /// Leader: the program has answered.
    pub answered: bool,
}
