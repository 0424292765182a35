//! Replicas, messages, and what a message does to a replica.

use crate::rules::Rules;

/// Slots of a log, counted from 1; the model's bound.
pub const SLOTS_MAX: usize = 2;
/// Terms, counted from 1; the model's bound.
pub const TERMS_MAX: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    Follower,
    Candidate,
    Leader,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Replica {
    pub role: Role,
    /// Persisted.
    pub term: u8,
    /// Persisted.
    pub vote: Option<u8>,
    /// Persisted: the term of the entry in each slot; 0: empty.
    pub log: [u8; SLOTS_MAX],
    /// The last slot known to be committed. Lost in a crash.
    pub commit: u8,
}

impl Replica {
    pub fn last_slot(&self) -> u8 {
        self.log.iter().take_while(|term| **term != 0).count() as u8
    }

    /// The term of the entry in `slot`; slot 0 is before every log.
    pub fn term_at(&self, slot: u8) -> u8 {
        match slot {
            0 => 0,
            _ => self.log[usize::from(slot) - 1],
        }
    }

    /// What decides whose log is newer (the paper's section 5.4.1): the last entry's term, then its slot.
    pub fn newness(&self) -> (u8, u8) {
        let last_slot = self.last_slot();
        (self.term_at(last_slot), last_slot)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Message {
    /// To everybody.
    AskVote {
        term: u8,
        from: u8,
        newness: (u8, u8),
    },
    Vote {
        term: u8,
        from: u8,
        to: u8,
    },
    /// To everybody. `entry_term` 0: no entry, an empty log's heartbeat.
    Append {
        term: u8,
        from: u8,
        prev_slot: u8,
        prev_term: u8,
        entry_term: u8,
        commit: u8,
    },
    /// The sender's log is the leader's up to `slot`.
    Ack {
        term: u8,
        from: u8,
        to: u8,
        slot: u8,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub replicas: Vec<Replica>,
    /// Sorted, so that equal sets are equal.
    pub network: Vec<Message>,
    pub requests_count: u8,
    /// For the properties: who ever led each term, a bit each.
    pub leaders: [u8; TERMS_MAX],
    /// For the properties: the first entry committed in each slot, by its term, and the term that its leader was in.
    pub chosen: [(u8, u8); SLOTS_MAX],
    /// For the properties: some replica took another entry than the chosen one as committed.
    pub has_diverged: bool,
}

impl State {
    pub fn send(&mut self, message: Message) {
        if let Err(at) = self.network.binary_search(&message) {
            self.network.insert(at, message);
        }
    }

    /// All that a leader can tell at this time.
    pub fn publish(&mut self, leader: u8) {
        let replica = self.replicas[usize::from(leader)].clone();
        // An empty log has only its term to tell.
        let end = replica.last_slot().max(1);
        for prev_slot in 0..end {
            self.send(Message::Append {
                term: replica.term,
                from: leader,
                prev_slot,
                prev_term: replica.term_at(prev_slot),
                entry_term: replica.term_at(prev_slot + 1),
                commit: replica.commit,
            });
        }
    }

    pub fn votes(&self, candidate: u8) -> usize {
        let replica = &self.replicas[usize::from(candidate)];
        let is_ours = |message: &&Message| matches!(message, Message::Vote { term, to, .. } if *term == replica.term && *to == candidate);
        1 + self.network.iter().filter(is_ours).count()
    }

    pub fn acks(&self, leader: u8, slot: u8) -> usize {
        let mut from_mask = 1u8 << leader;
        for message in &self.network {
            if let Message::Ack {
                term,
                from,
                to,
                slot: acked,
            } = *message
                && term == self.replicas[usize::from(leader)].term
                && to == leader
                && acked >= slot
            {
                from_mask |= 1 << from;
            }
        }
        from_mask.count_ones() as usize
    }

    /// `replica` knows that everything up to `commit` is committed.
    pub fn advance_commit(&mut self, replica: u8, commit: u8) {
        let Replica {
            log, term, commit: old, ..
        } = self.replicas[usize::from(replica)];
        for slot in old..commit.max(old) {
            let entry_term = log[usize::from(slot)];
            let chosen = &mut self.chosen[usize::from(slot)];
            match chosen.0 {
                0 => *chosen = (entry_term, term),
                already => self.has_diverged |= already != entry_term,
            }
        }
        self.replicas[usize::from(replica)].commit = commit.max(old);
    }

    pub fn deliver(&mut self, rules: &Rules, to: u8, message: Message) {
        let (Message::AskVote { term, .. } | Message::Append { term, .. }) = message else {
            unreachable!("votes and acknowledgements are counted where they lie");
        };
        let replica = &mut self.replicas[usize::from(to)];
        if term > replica.term {
            replica.term = term;
            replica.vote = None;
            replica.role = Role::Follower;
        }
        if term < replica.term {
            return;
        }
        match message {
            Message::AskVote { from, newness, .. } => {
                let is_free = replica.vote.is_none() || replica.vote == Some(from);
                if is_free && newness >= replica.newness() && replica.role == Role::Follower {
                    replica.vote = Some(from);
                    self.send(Message::Vote {
                        term,
                        from: to,
                        to: from,
                    });
                }
            }
            Message::Append {
                from,
                prev_slot,
                prev_term,
                entry_term,
                commit,
                ..
            } if replica.role != Role::Leader => {
                replica.role = Role::Follower;
                let has_prev = prev_slot <= replica.last_slot();
                if !has_prev || (replica.term_at(prev_slot) != prev_term && !rules.ignores_prev_term) {
                    return;
                }
                let mut matched = prev_slot;
                if entry_term != 0 {
                    if replica.term_at(prev_slot + 1) != entry_term {
                        replica.log[usize::from(prev_slot)..].fill(0);
                        replica.log[usize::from(prev_slot)] = entry_term;
                    }
                    matched += 1;
                }
                self.advance_commit(to, commit.min(matched));
                self.send(Message::Ack {
                    term,
                    from: to,
                    to: from,
                    slot: matched,
                });
            }
            _ => {}
        }
    }

    /// Removes what nobody can act on any more. Terms never fall, so it stays so.
    pub fn forget(&mut self) {
        let replicas = &self.replicas;
        let is = |to: u8, role: Role, term: u8| {
            let replica = &replicas[usize::from(to)];
            replica.role == role && replica.term == term
        };
        self.network.retain(|message| match *message {
            Message::AskVote { term, from, .. } | Message::Append { term, from, .. } => {
                (0..replicas.len()).any(|to| to != usize::from(from) && replicas[to].term <= term)
            }
            Message::Vote { term, to, .. } => is(to, Role::Candidate, term),
            Message::Ack { term, to, slot, .. } => {
                is(to, Role::Leader, term) && slot > replicas[usize::from(to)].commit
            }
        });
    }
}
