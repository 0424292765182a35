//! Reads that are linearizable without an entry in the log: a leader makes sure that it still leads, then reads.

use std::collections::VecDeque;

use dataplane_waist::{Effects, Instant, Peer, StateMachine};
use dataplane_wire::quorum::{
    reply::Outcome,
    request::{self, Request},
};

use crate::{
    answer,
    config::{Mutation, ReadMode},
    replica::{Replica, Role},
    rounds::Rounds,
};

/// The reads that wait.
#[derive(Debug)]
pub(crate) struct Reads {
    waiting: VecDeque<Read>,
    reads_max: usize,
    /// Memory of reads that were answered.
    spare: Vec<Vec<u8>>,
}

#[derive(Debug)]
struct Read {
    peer: Peer,
    sent_ns: u64,
    /// When it came. A lease counts only at a later reading of the clock: this one was taken before the frame was.
    came_at: Instant,
    /// A quorum must have answered this round, which began after the read came.
    round: u64,
    payload: Vec<u8>,
}

impl Reads {
    pub(crate) fn new(reads_max: usize) -> Reads {
        Reads {
            waiting: VecDeque::new(),
            reads_max,
            spare: Vec::new(),
        }
    }

    /// Whether a round should begin before its time. One at a time: what comes meanwhile shares the next.
    pub(crate) fn wants_round(&self, rounds: &Rounds) -> bool {
        let wanted = self.waiting.back().map_or(0, |read| read.round);
        wanted > rounds.current() && rounds.confirmed() == rounds.current()
    }

    /// Says whether there was room.
    fn push(&mut self, peer: Peer, sent_ns: u64, came_at: Instant, round: u64, payload: &[u8]) -> bool {
        if self.waiting.len() == self.reads_max {
            return false;
        }
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.clear();
        bytes.extend_from_slice(payload);
        self.waiting.push_back(Read {
            peer,
            sent_ns,
            came_at,
            round,
            payload: bytes,
        });
        true
    }
}

impl<S: StateMachine> Replica<S> {
    /// A read at a leader: it waits at least until the end of the burst.
    pub(crate) fn read(
        &mut self,
        now: Instant,
        from: Peer,
        sent_ns: u64,
        request: &Request<'_>,
        payload: &[u8],
        out: &mut Effects,
    ) {
        if self.makes(Mutation::UncheckedRead) {
            return self.answer_read(from, sent_ns, request, out);
        }
        let Role::Leader(leader) = &mut self.role else { return };
        let round = leader.rounds.current() + 1;
        if leader.reads.push(from, sent_ns, now, round, payload) {
            self.is_urgent = true;
            return;
        }
        self.counters.busy_count += 1;
        answer::send(out, from, self.state.term, sent_ns, request, Outcome::Busy);
    }

    pub(crate) fn answer_read(&mut self, from: Peer, sent_ns: u64, request: &Request<'_>, out: &mut Effects) {
        let term = self.state.term;
        self.machine.read(&request.command, &mut |outcome| {
            answer::send(out, from, term, sent_ns, request, outcome);
        });
    }

    /// Answers the reads that may be answered by now.
    pub(crate) fn serve_reads(&mut self, now: Instant, out: &mut Effects) {
        let is_lease = self.config.reads == ReadMode::Lease;
        let stale_lease = self.makes(Mutation::StaleLease);
        loop {
            let Role::Leader(leader) = &mut self.role else { return };
            // Until an entry of our own term is committed we do not know what is (thesis §6.4).
            if self.commit_end <= leader.fast.term_begin {
                return;
            }
            let Some(read) = leader.reads.waiting.front() else {
                return;
            };
            let mut lease_until = leader.rounds.lease_until();
            if stale_lease && lease_until > Instant::ZERO {
                lease_until = lease_until + self.config.timing.election_min * 9;
            }
            let by_lease = is_lease && now > read.came_at && now < lease_until;
            let by_round = leader.rounds.confirmed() >= read.round;
            if !by_lease && !by_round {
                // With a lease in force the next reading of the clock suffices.
                self.is_urgent |= is_lease && now < lease_until;
                return;
            }
            let read = leader.reads.waiting.pop_front().expect("there is one");
            match by_lease {
                true => self.counters.lease_reads_count += 1,
                false => self.counters.index_reads_count += 1,
            }
            if let Ok(request) = request::parse(&read.payload) {
                self.answer_read(read.peer, read.sent_ns, &request, out);
            }
            if let Role::Leader(leader) = &mut self.role {
                leader.reads.spare.push(read.payload);
            }
        }
    }
}
