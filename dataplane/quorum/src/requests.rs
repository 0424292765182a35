//! What clients ask: who answers at once, who waits for a slot, who is turned away.

use dataplane_waist::{Effects, Instant, Peer, Slot, StateMachine};
use dataplane_wire::{
    frame::{self, Frame},
    quorum::{
        entries, entry,
        members::Members,
        reply::{Outcome, refusal},
        request::{self, Command, Request},
        status::{self, Status},
    },
};

use crate::{
    answer,
    config::Mutation,
    leader::Waiting,
    replica::{Replica, Role},
    sessions::Known,
};

impl<S: StateMachine> Replica<S> {
    pub(crate) fn on_request(&mut self, now: Instant, from: Peer, frame: &Frame<'_>, out: &mut Effects) {
        let request = match request::parse(frame.payload) {
            Ok(request) => request,
            Err(reason) => return out.reject(reason),
        };
        let sent_ns = frame.header.sent_ns;
        if let Some(place) = self.sessions.place_if_open(request.client) {
            self.askers.note(place, request.client, from);
        }
        if request.command == Command::Status {
            let status = self.status().encode();
            return answer::send(out, from, self.state.term, sent_ns, &request, Outcome::Value(&status));
        }
        if request.command.is_stale() {
            self.counters.stale_reads_count += 1;
            return self.answer_read(from, sent_ns, &request, out);
        }
        if !matches!(self.role, Role::Leader(_)) {
            self.counters.not_leader_count += 1;
            let leader = self.leader();
            return answer::send(
                out,
                from,
                self.state.term,
                sent_ns,
                &request,
                Outcome::NotLeader { leader },
            );
        }
        if request.command.reads_only() {
            return self.read(now, from, sent_ns, &request, frame.payload, out);
        }
        let outcome = match self.accept(&request, frame.payload) {
            Ok(()) if self.append_request(from, frame, out) => return,
            Ok(()) => {
                self.counters.busy_count += 1;
                Outcome::Busy
            }
            Err(Refusal::Busy) => {
                self.counters.busy_count += 1;
                Outcome::Busy
            }
            Err(Refusal::Expired) => {
                self.counters.expired_count += 1;
                Outcome::Expired
            }
            Err(Refusal::Reason(reason)) => {
                self.counters.refused_count += 1;
                Outcome::Refused { reason }
            }
            Err(Refusal::Repeated) => {
                self.counters.repeated_count += 1;
                match self.sessions.look_up(request.client, request.sequence) {
                    Known::Answered(outcome) => outcome,
                    Known::New | Known::Expired => Outcome::Expired,
                }
            }
        };
        answer::send(out, from, self.state.term, sent_ns, &request, outcome);
    }

    /// Who this replica is and how far it is, as it tells whoever asks.
    pub fn status(&self) -> Status {
        Status {
            cluster: self.config.cluster,
            node: self.config.node,
            role: match self.role {
                Role::Follower(_) => status::Role::Follower,
                Role::Candidate(_) => status::Role::Candidate,
                Role::Leader(_) => status::Role::Leader,
            },
            leader: self.leader(),
            term: self.state.term.0,
            members: self.members(),
            commit_end: self.commit_end.0,
            applied_end: self.applied_end.0,
            log_end: self.window.end().0,
        }
    }

    /// Whether a request that changes something may get a slot.
    fn accept(&self, request: &Request<'_>, payload: &[u8]) -> Result<(), Refusal> {
        if payload.len() > self.entry_bytes_max() {
            return Err(Refusal::Reason(refusal::TOO_LARGE));
        }
        if let Command::Open = request.command {
            return Ok(());
        }
        // What was answered is answered the same again, a change of members too, whatever has become of them since.
        if !self.makes(Mutation::ForgetsSessions) {
            match self.sessions.look_up(request.client, request.sequence) {
                Known::New => {}
                Known::Answered(_) => return Err(Refusal::Repeated),
                Known::Expired => return Err(Refusal::Expired),
            }
        }
        match request.command {
            Command::Reconfigure { members } => self.accept_members(members, payload),
            _ => Ok(()),
        }
    }

    /// Whether a request was applied, and its answer is remembered: it is answered again, and appends nothing.
    pub(crate) fn is_answered(&self, request: &Request<'_>) -> bool {
        !self.makes(Mutation::ForgetsSessions)
            && matches!(
                self.sessions.look_up(request.client, request.sequence),
                Known::Answered(_)
            )
    }

    /// One voter at a time, and every quorum of the old must meet every quorum of the new (Raft thesis §4.1).
    fn accept_members(&self, new: Members, payload: &[u8]) -> Result<(), Refusal> {
        let refuse = |reason| Err(Refusal::Reason(reason));
        let Role::Leader(leader) = &self.role else {
            return refuse(refusal::CHANGE_UNDER_WAY);
        };
        // The same request once more, while its first copy is not committed: a refusal would say that it is never done.
        let pending = leader.change.and_then(|from| self.window.get(Slot(from.0 - 1)));
        if pending.is_some_and(|entry| entry.bytes == payload) {
            return Err(Refusal::Busy);
        }
        // Also while nothing of our own term is committed: the bug of 2015 in the single-server change.
        if leader.change.is_some() || self.commit_end <= leader.fast.term_begin {
            return refuse(refusal::CHANGE_UNDER_WAY);
        }
        let old = self.members();
        let known = self
            .nodes
            .iter()
            .fold(1u32 << self.config.node, |bits, (node, _)| bits | 1 << node);
        if !new.is_sound() || new.voters & !known != 0 {
            return refuse(refusal::UNSOUND_MEMBERS);
        }
        let union_count = (old.voters | new.voters).count_ones();
        let meets = |elect: u8, commit: u8| u32::from(elect) + u32::from(commit) > union_count;
        let elections_meet = u32::from(old.elect_count) + u32::from(new.elect_count) > union_count;
        let one_at_a_time = (old.voters ^ new.voters).count_ones() <= 1;
        let overlaps = meets(old.elect_count, new.commit_count) && meets(new.elect_count, old.commit_count);
        match one_at_a_time && overlaps && elections_meet {
            true => Ok(()),
            false => refuse(refusal::NOT_OVERLAPPING),
        }
    }

    /// The longest entry that fits into a frame of entries.
    pub(crate) fn entry_bytes_max(&self) -> usize {
        let headers_bytes = frame::HEADER_BYTES + entries::HEADER_BYTES + entries::ENTRY_HEADER_BYTES;
        self.config.limits.frame_bytes_max.saturating_sub(headers_bytes)
    }

    /// Gives the request the next slot; says whether there was room.
    fn append_request(&mut self, from: Peer, frame: &Frame<'_>, out: &mut Effects) -> bool {
        let slot = self.window.end();
        if slot.0 - self.commit_end.0 >= self.config.limits.in_flight_slots {
            return false;
        }
        // The frame's checksum of its payload is the entry's.
        if !self.append_with_crc(frame.payload, frame.payload_crc, out) {
            return false;
        }
        self.counters.appended_count += 1;
        let Role::Leader(leader) = &mut self.role else {
            return true;
        };
        leader.wait_for(Waiting {
            slot,
            peer: from,
            sent_ns: frame.header.sent_ns,
        });
        true
    }

    /// An entry that changes who votes counts from its slot on, committed or not.
    pub(crate) fn learn_membership(&mut self, slot: Slot, bytes: &[u8]) {
        // Most entries are not one: the command's code says so without parsing the rest.
        if bytes.get(request::field::COMMAND.start) != Some(&request::code::RECONFIGURE) {
            return;
        }
        if let Ok(entry::Entry::Request(Request {
            command: Command::Reconfigure { members },
            ..
        })) = entry::parse(bytes)
        {
            self.memberships.push((Slot(slot.0 + 1), members));
            if let Role::Leader(leader) = &mut self.role {
                leader.change = Some(Slot(slot.0 + 1));
            }
            self.count_by_members();
        }
    }
}

enum Refusal {
    Busy,
    Expired,
    Repeated,
    Reason(u8),
}
