//! Who plays, by which rules, and what may happen next.

use stateright::{Model, Property};

use crate::{
    properties,
    state::{Message, Replica, Role, SLOTS_MAX, State, TERMS_MAX},
};

/// Who plays, by which rules, how long.
#[derive(Clone, Debug)]
pub struct Rules {
    pub replica_count: usize,
    /// Votes that make a leader, its own included.
    pub elect_quorum: usize,
    /// Logs that make an entry committed, the leader's included.
    pub commit_quorum: usize,
    /// The scope: only the first so many replicas stand for election.
    pub candidate_count: usize,
    /// The scope: no election starts a term beyond this.
    pub terms_max: u8,
    /// The scope: no log grows beyond this.
    pub slots_max: u8,
    /// The scope: entries that leaders append, together.
    pub requests_max: u8,
    /// Broken: a restart loses whom the replica voted for in its term.
    pub forgets_vote: bool,
    /// Broken: a leader commits an entry of an earlier term when a quorum has it (the paper's figure 8).
    pub counts_older_terms: bool,
    /// Broken: a follower takes an entry without comparing the term of the one before.
    pub ignores_prev_term: bool,
}

impl Rules {
    pub fn majority(replica_count: usize, terms_max: u8, slots_max: u8, requests_max: u8) -> Rules {
        let quorum = replica_count / 2 + 1;
        Rules {
            replica_count,
            candidate_count: replica_count,
            elect_quorum: quorum,
            commit_quorum: quorum,
            terms_max,
            slots_max,
            requests_max,
            forgets_vote: false,
            counts_older_terms: false,
            ignores_prev_term: false,
        }
    }

    pub fn quorums(self, elect_quorum: usize, commit_quorum: usize) -> Rules {
        Rules {
            elect_quorum,
            commit_quorum,
            ..self
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A follower or candidate has not heard of a leader.
    TimeOut(u8),
    /// A candidate has the votes.
    Lead(u8),
    /// A client asks a leader.
    Request(u8),
    /// A leader has the acknowledgements for this slot.
    Commit(u8, u8),
    /// A message arrives, perhaps not for the first time.
    Deliver(u8, Message),
    /// A crash, and what was persisted comes back.
    Restart(u8),
}

impl Model for Rules {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let replica = Replica {
            role: Role::Follower,
            term: 0,
            vote: None,
            log: [0; SLOTS_MAX],
            commit: 0,
        };
        vec![State {
            replicas: vec![replica; self.replica_count],
            network: Vec::new(),
            requests_count: 0,
            leaders: [0; TERMS_MAX],
            chosen: [(0, 0); SLOTS_MAX],
            has_diverged: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (index, replica) in state.replicas.iter().enumerate() {
            let id = index as u8;
            if index < self.candidate_count && replica.role != Role::Leader && replica.term < self.terms_max {
                actions.push(Action::TimeOut(id));
            }
            if replica.role == Role::Candidate && state.votes(id) >= self.elect_quorum {
                actions.push(Action::Lead(id));
            }
            if replica.role == Role::Leader {
                if replica.last_slot() < self.slots_max && state.requests_count < self.requests_max {
                    actions.push(Action::Request(id));
                }
                for slot in replica.commit + 1..=replica.last_slot() {
                    let may_count = self.counts_older_terms || replica.term_at(slot) == replica.term;
                    if may_count && state.acks(id, slot) >= self.commit_quorum {
                        actions.push(Action::Commit(id, slot));
                    }
                }
            }
            for message in &state.network {
                if let Message::AskVote { term, from, .. } | Message::Append { term, from, .. } = *message
                    && from != id
                    && term >= replica.term
                {
                    actions.push(Action::Deliver(id, *message));
                }
            }
            actions.push(Action::Restart(id));
        }
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        match action {
            Action::TimeOut(id) => {
                let replica = &mut state.replicas[usize::from(id)];
                replica.role = Role::Candidate;
                replica.term += 1;
                replica.vote = Some(id);
                let (term, newness) = (replica.term, replica.newness());
                state.send(Message::AskVote {
                    term,
                    from: id,
                    newness,
                });
            }
            Action::Lead(id) => {
                let replica = &mut state.replicas[usize::from(id)];
                replica.role = Role::Leader;
                state.leaders[usize::from(replica.term) - 1] |= 1 << id;
                state.publish(id);
            }
            Action::Request(id) => {
                let replica = &mut state.replicas[usize::from(id)];
                let end = usize::from(replica.last_slot());
                replica.log[end] = replica.term;
                state.requests_count += 1;
                state.publish(id);
            }
            Action::Commit(id, slot) => {
                state.advance_commit(id, slot);
                state.publish(id);
            }
            Action::Deliver(id, message) => state.deliver(self, id, message),
            Action::Restart(id) => {
                let replica = &mut state.replicas[usize::from(id)];
                replica.role = Role::Follower;
                replica.commit = 0;
                if self.forgets_vote {
                    replica.vote = None;
                }
            }
        }
        state.forget();
        (state != *before).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}
