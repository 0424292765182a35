//! Elections. A candidate asks first whether it would be elected (pre-vote, Raft thesis §9.6), so that a replica that was
//! cut off does not depose a leader that all others hear.

use dataplane_waist::{Effects, Instant, Slot, StateMachine, Term};
use dataplane_wire::{
    frame,
    quorum::vote::{self, VoteReply, VoteRequest},
};

use crate::{
    config::Mutation,
    replica::{Replica, Role},
};

/// What a candidate knows besides what every replica knows.
#[derive(Debug)]
pub(crate) struct Candidate {
    /// It asks whether it should stand; its term is still the old one.
    pre: bool,
    /// Who said yes, as bits.
    granted: u32,
    /// The others were asked. Not before our own vote is durable.
    asked: bool,
    /// When to begin again.
    pub(crate) deadline: Instant,
}

impl<S: StateMachine> Replica<S> {
    /// Begins with the pre-vote, if we may vote at all.
    pub(crate) fn stand(&mut self, now: Instant, out: &mut Effects) {
        let deadline = self.draw_deadline(now);
        // Entries that we acknowledged are missing here: somebody else has them and must lead.
        if !self.may_stand() || self.is_damaged() {
            if let Role::Follower(follower) = &mut self.role {
                follower.deadline = Some(deadline);
            } else {
                self.become_follower(now, self.state.term, None, out);
            }
            return;
        }
        self.counters.elections_count += 1;
        self.held.clear();
        self.role = Role::Candidate(Candidate {
            pre: true,
            granted: 1 << self.config.node,
            asked: true,
            deadline,
        });
        self.ask_for_votes(out);
        self.count_votes(now, out);
    }

    /// A voter may; so may one whose removal is not committed yet, because its log may be the longest there is, and then
    /// nobody else can be elected (Raft thesis §4.2.2).
    fn may_stand(&self) -> bool {
        let uncommitted_count = self
            .memberships
            .iter()
            .rev()
            .take_while(|&&(from, _)| from > self.commit_end)
            .count();
        let in_question = self.memberships.iter().rev().take(uncommitted_count + 1);
        in_question
            .into_iter()
            .any(|(_, members)| members.contains(self.config.node))
    }

    /// Stands in a new term, with our own vote.
    fn stand_for_real(&mut self, now: Instant, out: &mut Effects) {
        self.state.term.0 += 1;
        self.state.vote = Some(self.config.node);
        let deadline = self.draw_deadline(now);
        self.role = Role::Candidate(Candidate {
            pre: false,
            granted: 0,
            asked: false,
            deadline,
        });
        self.persist_state(out);
    }

    pub(crate) fn candidate_durable(&mut self, now: Instant, out: &mut Effects) {
        let is_durable = self.state_is_durable();
        let node = self.config.node;
        let Role::Candidate(candidate) = &mut self.role else {
            return;
        };
        if candidate.pre || candidate.asked || !is_durable {
            return;
        }
        candidate.asked = true;
        candidate.granted |= 1 << node;
        self.ask_for_votes(out);
        self.count_votes(now, out);
    }

    pub(crate) fn candidate_tick(&mut self, now: Instant, out: &mut Effects) {
        let Role::Candidate(candidate) = &self.role else { return };
        if now >= candidate.deadline {
            self.stand(now, out);
        }
    }

    fn ask_for_votes(&mut self, out: &mut Effects) {
        let Role::Candidate(Candidate { pre, .. }) = self.role else {
            return;
        };
        let (last_term, log_end) = self.log_position();
        let request = VoteRequest {
            term: self.state.term.0 + u64::from(pre),
            log_end: log_end.0,
            last_term: last_term.0,
            sender: self.sender(),
            pre,
        };
        let members = self.members();
        for (node, peer) in self.nodes.iter() {
            if members.contains(node) {
                let len_bytes = frame::HEADER_BYTES + vote::PAYLOAD_BYTES;
                let _ = out.send(peer, len_bytes, |bytes| request.emit(bytes));
            }
        }
    }

    /// How good our log is, for comparing with a candidate's: what we acknowledged counts even if we cannot read it.
    fn log_position(&self) -> (Term, Slot) {
        (self.window.last_term(), self.window.end()).max(self.state.promise)
    }

    /// Whether a leader may believe that we elect nobody else now.
    fn is_sticky(&self, now: Instant) -> bool {
        match self.role {
            Role::Leader(_) => true,
            _ => self
                .heard
                .is_some_and(|heard| now < heard + self.config.timing.election_min),
        }
    }

    pub(crate) fn on_vote_request(&mut self, now: Instant, node: u32, request: &VoteRequest, out: &mut Effects) {
        if !self.admit(node, request.sender) {
            return;
        }
        // We heard from a leader just now. Its leases rely on our silence, and whoever asks is not needed (thesis §4.2.3).
        if self.is_sticky(now) {
            return;
        }
        let term = Term(request.term);
        let is_as_good = (Term(request.last_term), Slot(request.log_end)) >= self.log_position();
        let is_as_good = is_as_good || self.makes(Mutation::VotesForAnybody);
        if request.pre {
            let granted = term > self.state.term && is_as_good;
            let reply_term = if granted { term } else { self.state.term };
            return self.send_vote_reply(node, reply_term, true, granted, out);
        }
        if term > self.state.term {
            self.become_follower(now, term, None, out);
        }
        let is_free = self.state.vote.is_none_or(|vote| vote == node);
        if term == self.state.term && is_free && is_as_good && matches!(self.role, Role::Follower(_)) {
            let deadline = self.draw_deadline(now);
            if let Role::Follower(follower) = &mut self.role {
                follower.deadline = Some(deadline);
            }
            self.vote_for(node, out);
        } else {
            self.send_vote_reply(node, self.state.term, false, false, out);
        }
    }

    pub(crate) fn send_vote_reply(&mut self, to: u32, term: Term, pre: bool, granted: bool, out: &mut Effects) {
        let reply = VoteReply {
            term: term.0,
            sender: self.sender(),
            pre,
            granted,
        };
        if let Some(peer) = self.nodes.peer(to) {
            let len_bytes = frame::HEADER_BYTES + vote::PAYLOAD_BYTES;
            let _ = out.send(peer, len_bytes, |bytes| reply.emit(bytes));
        }
    }

    pub(crate) fn on_vote_reply(&mut self, now: Instant, node: u32, reply: &VoteReply, out: &mut Effects) {
        if !self.admit(node, reply.sender) {
            return;
        }
        if !reply.granted {
            if Term(reply.term) > self.state.term {
                self.become_follower(now, Term(reply.term), None, out);
            }
            return;
        }
        let term = self.state.term;
        let Role::Candidate(candidate) = &mut self.role else {
            return;
        };
        let asked_term = Term(term.0 + u64::from(candidate.pre));
        if reply.pre == candidate.pre && Term(reply.term) == asked_term {
            candidate.granted |= 1 << node;
            self.count_votes(now, out);
        }
    }

    fn count_votes(&mut self, now: Instant, out: &mut Effects) {
        let members = self.members();
        let needed = u32::from(members.elect_count) - u32::from(self.makes(Mutation::SmallElectionQuorum));
        let Role::Candidate(candidate) = &self.role else { return };
        if (candidate.granted & members.voters).count_ones() < needed {
            return;
        }
        match candidate.pre {
            true => self.stand_for_real(now, out),
            false if candidate.asked => self.lead(now, out),
            false => {}
        }
    }
}
