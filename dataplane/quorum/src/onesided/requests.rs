//! What clients ask: who waits for a slot, who for a round, who is turned away.

use dataplane_waist::{Effects, Peer, StateMachine, Term};
use dataplane_wire::{
    frame::{self, Frame, Kind},
    quorum::{
        reply::{Outcome, refusal},
        request::{self, Command, Request},
        status::{self, Status},
    },
};

use super::{
    config::Mutation,
    replica::{Replica, RoleName},
};
use crate::{answer, sessions::Known};

/// A request that waits for a slot.
#[derive(Debug)]
pub(super) struct QueuedWrite {
    pub(super) peer: Peer,
    pub(super) sent_ns: u64,
    pub(super) payload: Vec<u8>,
}

/// A read that waits until a round that began after it came is confirmed.
#[derive(Debug)]
pub(super) struct QueuedRead {
    peer: Peer,
    sent_ns: u64,
    payload: Vec<u8>,
    pub(super) round: u64,
}

/// Who is to be answered when a slot is applied.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) slot: u64,
    pub(super) peer: Peer,
    pub(super) sent_ns: u64,
}

impl<S: StateMachine> Replica<S> {
    /// A client's frame: as [`crate::Replica`] hears it.
    pub fn on_frame(&mut self, from: Peer, bytes: &[u8], out: &mut Effects) {
        let frame = match frame::parse(bytes) {
            Ok(frame) => frame,
            Err(reason) => return out.reject(reason),
        };
        if frame.header.kind != Kind::QuorumRequest {
            return out.reject(dataplane_wire::Reject::Kind);
        }
        match request::parse(frame.payload) {
            Ok(request) => self.on_request(from, &frame, &request, out),
            Err(reason) => out.reject(reason),
        }
    }

    fn on_request(&mut self, from: Peer, frame: &Frame<'_>, request: &Request<'_>, out: &mut Effects) {
        let (sent_ns, term) = (frame.header.sent_ns, Term(self.proposal_seen));
        if request.command == Command::Status {
            let status = self.status().encode();
            return answer::send(out, from, term, sent_ns, request, Outcome::Value(&status));
        }
        if request.command.is_stale() {
            self.counters.stale_reads_count += 1;
            return self.answer_read(from, sent_ns, request, out);
        }
        let outcome = match self.accept(from, frame, request) {
            Ok(()) => return,
            Err(Refusal::Outcome(outcome)) => outcome,
            Err(Refusal::Repeated) => match self.sessions.look_up(request.client, request.sequence) {
                Known::Answered(outcome) => outcome,
                Known::New | Known::Expired => Outcome::Expired,
            },
            Err(Refusal::Unchecked) => return self.answer_read(from, sent_ns, request, out),
        };
        answer::send(out, from, term, sent_ns, request, outcome);
    }

    fn accept(&mut self, from: Peer, frame: &Frame<'_>, request: &Request<'_>) -> Result<(), Refusal> {
        let refuse = |outcome| Err(Refusal::Outcome(outcome));
        let Some(reign) = self.reign.as_ref().filter(|reign| reign.is_settled()) else {
            self.counters.not_leader_count += 1;
            let leader = self.leader();
            return refuse(Outcome::NotLeader { leader });
        };
        let mut payload = std::mem::take(&mut self.spare_payload);
        payload.clear();
        payload.extend_from_slice(frame.payload);
        let (peer, sent_ns) = (from, frame.header.sent_ns);
        if request.command.reads_only() {
            if self.config.makes(Mutation::UncheckedRead) {
                return Err(Refusal::Unchecked);
            }
            if self.reads.len() == self.config.limits.queued_max {
                self.counters.busy_count += 1;
                return refuse(Outcome::Busy);
            }
            let round = reign.round + 1;
            self.reads.push_back(QueuedRead {
                peer,
                sent_ns,
                payload,
                round,
            });
            return Ok(());
        }
        let refused = match request.command {
            Command::Reconfigure { .. } => Some(refusal::MISPLACED),
            _ if payload.len() > self.config.layout.entry_bytes_max => Some(refusal::TOO_LARGE),
            _ => None,
        };
        if let Some(reason) = refused {
            self.counters.refused_count += 1;
            return refuse(Outcome::Refused { reason });
        }
        if request.command != Command::Open {
            match self.sessions.look_up(request.client, request.sequence) {
                Known::New => {}
                Known::Answered(_) => {
                    self.counters.repeated_count += 1;
                    return Err(Refusal::Repeated);
                }
                Known::Expired => {
                    self.counters.expired_count += 1;
                    return refuse(Outcome::Expired);
                }
            }
        }
        if self.writes.len() == self.config.limits.queued_max {
            self.counters.busy_count += 1;
            return refuse(Outcome::Busy);
        }
        self.writes.push_back(QueuedWrite { peer, sent_ns, payload });
        Ok(())
    }

    /// Who this replica is and how far it is.
    pub fn status(&self) -> Status {
        Status {
            cluster: self.config.cluster,
            node: self.config.node,
            role: match self.role() {
                RoleName::Follower => status::Role::Follower,
                RoleName::Candidate => status::Role::Candidate,
                RoleName::Leader => status::Role::Leader,
            },
            leader: self.leader(),
            term: self.proposal_seen,
            members: self.config.members(),
            commit_end: self.commit_end,
            applied_end: self.applied_end,
            log_end: self
                .reign
                .as_ref()
                .and_then(|reign| reign.log)
                .map_or(self.commit_end, |log| log.end),
        }
    }

    fn answer_read(&self, from: Peer, sent_ns: u64, request: &Request<'_>, out: &mut Effects) {
        let term = Term(self.proposal_seen);
        self.machine.read(&request.command, &mut |outcome| {
            answer::send(out, from, term, sent_ns, request, outcome);
        });
    }

    /// Answers the reads whose round a majority has taken.
    pub(super) fn serve_reads(&mut self, out: &mut Effects) {
        if self.reads.is_empty() {
            return;
        }
        let confirmed = self.confirmed_round();
        let begin = self
            .reign
            .as_ref()
            .and_then(|reign| reign.log)
            .map_or(u64::MAX, |log| log.begin);
        // Until an entry of our own is committed, and all before it applied, we do not know what is.
        if self.commit_end <= begin || self.applied_end < self.commit_end {
            return;
        }
        while let Some(read) = self.reads.pop_front_if(|read| read.round <= confirmed) {
            self.counters.round_reads_count += 1;
            if let Ok(request) = request::parse(&read.payload) {
                self.answer_read(read.peer, read.sent_ns, &request, out);
            }
        }
    }
}

enum Refusal {
    Outcome(Outcome<'static>),
    Repeated,
    /// A mistake that is made on purpose.
    Unchecked,
}
