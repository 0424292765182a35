//! The rules of election and commit as a model, every state of which is visited at a small scope.
//!
//! It is a model of the rules, not the code: terms, votes, logs of terms, quorums, crashes. The rules are Raft's (Ongaro &
//! Ousterhout, "In search of an understandable consensus algorithm", ATC 2014, figure 2) with quorums that may differ
//! between election and commit (Howard, Malkhi & Spiegelman, "Flexible Paxos", OPODIS 2016). The properties are those of
//! the paper's figure 3, and one that is stronger and shows a broken rule a term earlier. Each rule is then broken in turn,
//! and must give a counterexample: a model in which nothing can go wrong shows nothing.
//!
//! The network is a set of messages that only grows. A message that is never taken is lost; one that is taken twice is
//! duplicated; any order is possible. A leader's messages are put there at once, for every slot, because whoever delays or
//! skips one is a case of losing it. A candidate counts the votes that are in the network, and a leader the
//! acknowledgements, for the same reason. Messages that nobody can act on any more are removed, which changes nothing but
//! the number of states.
#![forbid(unsafe_code)]

use stateright::{Checker, HasDiscoveries, Model, Property};

/// Slots of a log, counted from 1; the model's bound.
const SLOTS_MAX: usize = 3;
/// Terms, counted from 1; the model's bound.
const TERMS_MAX: usize = 4;

/// Who plays, by which rules, how long.
#[derive(Clone, Debug)]
struct Rules {
    replica_count: usize,
    /// Votes that make a leader, its own included.
    elect_quorum: usize,
    /// Logs that make an entry committed, the leader's included.
    commit_quorum: usize,
    /// The scope: only the first so many replicas stand for election.
    candidate_count: usize,
    /// The scope: no election starts a term beyond this.
    terms_max: u8,
    /// The scope: no log grows beyond this.
    slots_max: u8,
    /// The scope: entries that leaders append, together.
    requests_max: u8,
    /// Broken: a restart loses whom the replica voted for in its term.
    forgets_vote: bool,
    /// Broken: a leader commits an entry of an earlier term when a quorum has it (the paper's figure 8).
    counts_older_terms: bool,
    /// Broken: a follower takes an entry without comparing the term of the one before.
    ignores_prev_term: bool,
}

impl Rules {
    fn majority(replica_count: usize, terms_max: u8, slots_max: u8, requests_max: u8) -> Rules {
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

    fn quorums(self, elect_quorum: usize, commit_quorum: usize) -> Rules {
        Rules {
            elect_quorum,
            commit_quorum,
            ..self
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Role {
    Follower,
    Candidate,
    Leader,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Replica {
    role: Role,
    /// Persisted.
    term: u8,
    /// Persisted.
    vote: Option<u8>,
    /// Persisted: the term of the entry in each slot; 0: empty.
    log: [u8; SLOTS_MAX],
    /// The last slot known to be committed. Lost in a crash.
    commit: u8,
}

impl Replica {
    fn last_slot(&self) -> u8 {
        self.log.iter().take_while(|term| **term != 0).count() as u8
    }

    /// The term of the entry in `slot`; slot 0 is before every log.
    fn term_at(&self, slot: u8) -> u8 {
        match slot {
            0 => 0,
            _ => self.log[usize::from(slot) - 1],
        }
    }

    /// What decides whose log is newer (the paper's section 5.4.1): the last entry's term, then its slot.
    fn newness(&self) -> (u8, u8) {
        let last_slot = self.last_slot();
        (self.term_at(last_slot), last_slot)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Message {
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
struct State {
    replicas: Vec<Replica>,
    /// Sorted, so that equal sets are equal.
    network: Vec<Message>,
    requests_count: u8,
    /// For the properties: who ever led each term, a bit each.
    leaders: [u8; TERMS_MAX],
    /// For the properties: the first entry committed in each slot, by its term, and the term that its leader was in.
    chosen: [(u8, u8); SLOTS_MAX],
    /// For the properties: some replica took another entry than the chosen one as committed.
    has_diverged: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
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

impl State {
    fn send(&mut self, message: Message) {
        if let Err(at) = self.network.binary_search(&message) {
            self.network.insert(at, message);
        }
    }

    /// All that a leader can tell at this time.
    fn publish(&mut self, leader: u8) {
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

    fn votes(&self, candidate: u8) -> usize {
        let replica = &self.replicas[usize::from(candidate)];
        let is_ours = |message: &&Message| matches!(message, Message::Vote { term, to, .. } if *term == replica.term && *to == candidate);
        1 + self.network.iter().filter(is_ours).count()
    }

    fn acks(&self, leader: u8, slot: u8) -> usize {
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
    fn advance_commit(&mut self, replica: u8, commit: u8) {
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

    fn deliver(&mut self, rules: &Rules, to: u8, message: Message) {
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
    fn forget(&mut self) {
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
        vec![
            Property::always(ELECTION_SAFETY, |_, state: &State| {
                state.leaders.iter().all(|mask| mask.count_ones() <= 1)
            }),
            Property::always(LOG_MATCHING, |_, state: &State| {
                state.replicas.iter().enumerate().all(|(index, a)| {
                    state.replicas[index + 1..].iter().all(|b| {
                        let same = (0..SLOTS_MAX).rfind(|&slot| a.log[slot] == b.log[slot] && a.log[slot] != 0);
                        same.is_none_or(|slot| a.log[..slot] == b.log[..slot])
                    })
                })
            }),
            Property::always(LEADER_COMPLETENESS, |_, state: &State| {
                state
                    .replicas
                    .iter()
                    .filter(|replica| replica.role == Role::Leader)
                    .all(|leader| {
                        let was_before = |&(entry_term, in_term): &(u8, u8)| entry_term != 0 && in_term < leader.term;
                        let mut slots = state.chosen.iter().zip(leader.log);
                        slots.all(|(chosen, entry_term)| !was_before(chosen) || chosen.0 == entry_term)
                    })
            }),
            Property::always(STATE_MACHINE_SAFETY, |_, state: &State| !state.has_diverged),
            Property::always(NO_FORGETFUL_LEADER, |rules: &Rules, state: &State| {
                let has_all = |replica: &Replica| {
                    let mut slots = state.chosen.iter().zip(replica.log);
                    slots.all(|(chosen, entry_term)| chosen.0 == 0 || chosen.0 == entry_term)
                };
                let could_win = |replica: &Replica| {
                    let would_vote = |voter: &&Replica| voter.newness() <= replica.newness();
                    state.replicas.iter().filter(would_vote).count() >= rules.elect_quorum
                };
                state
                    .replicas
                    .iter()
                    .all(|replica| has_all(replica) || !could_win(replica))
            }),
            Property::sometimes(SOMETHING_IS_COMMITTED, |_, state: &State| {
                state
                    .replicas
                    .iter()
                    .any(|replica| replica.role == Role::Follower && replica.commit > 0)
            }),
            Property::sometimes(A_SECOND_LEADER_COMMITS, |_, state: &State| {
                let leaders_count = state.leaders.iter().filter(|mask| **mask != 0).count();
                let in_terms = state.chosen.map(|(_, in_term)| in_term);
                leaders_count >= 2 && in_terms.iter().any(|term| *term > 1)
            }),
        ]
    }
}

const ELECTION_SAFETY: &str = "a term has at most one leader";
const LOG_MATCHING: &str = "logs with the same entry are the same up to it";
const LEADER_COMPLETENESS: &str = "a leader has all that was committed in earlier terms";
const STATE_MACHINE_SAFETY: &str = "a slot is committed with one entry";
/// Inductive, unlike leader completeness: it fails already where the wrong leader could be elected.
const NO_FORGETFUL_LEADER: &str = "whoever lacks a committed entry cannot be elected";
const SOMETHING_IS_COMMITTED: &str = "a follower learns of a commit";
const A_SECOND_LEADER_COMMITS: &str = "a second leader commits";

/// The same state with its replicas in a fixed order: who is called what makes no difference to the rules.
fn sorted(state: &State) -> State {
    let key = |id: usize| {
        let Replica {
            role,
            term,
            vote,
            log,
            commit,
        } = &state.replicas[id];
        let led = state.leaders.map(|mask| mask & (1 << id) != 0);
        (role, term, vote.map(|to| usize::from(to) == id), log, commit, led)
    };
    let mut order: Vec<usize> = (0..state.replicas.len()).collect();
    order.sort_by_key(|&id| key(id));
    // `renamed[old]` is the new name.
    let mut renamed = [0u8; 8];
    for (new, &old) in order.iter().enumerate() {
        renamed[old] = new as u8;
    }
    let name = |id: u8| renamed[usize::from(id)];
    let mut network: Vec<Message> = state
        .network
        .iter()
        .map(|&message| match message {
            Message::AskVote { term, from, newness } => Message::AskVote {
                term,
                from: name(from),
                newness,
            },
            Message::Vote { term, from, to } => Message::Vote {
                term,
                from: name(from),
                to: name(to),
            },
            Message::Append {
                term,
                from,
                prev_slot,
                prev_term,
                entry_term,
                commit,
            } => Message::Append {
                term,
                from: name(from),
                prev_slot,
                prev_term,
                entry_term,
                commit,
            },
            Message::Ack { term, from, to, slot } => Message::Ack {
                term,
                from: name(from),
                to: name(to),
                slot,
            },
        })
        .collect();
    network.sort_unstable();
    State {
        replicas: order
            .iter()
            .map(|&old| Replica {
                vote: state.replicas[old].vote.map(name),
                ..state.replicas[old].clone()
            })
            .collect(),
        network,
        leaders: state.leaders.map(|mask| {
            (0..state.replicas.len() as u8)
                .filter(|&old| mask & (1 << old) != 0)
                .fold(0, |new, old| new | 1 << name(old))
        }),
        ..state.clone()
    }
}

/// Visits every state of the scope.
#[track_caller]
fn holds(rules: Rules) {
    // Where some may not stand, who is called what does make a difference.
    assert_eq!(rules.candidate_count, rules.replica_count);
    let name = format!("{rules:?}");
    let checker = rules.checker().threads(2).symmetry_fn(sorted).spawn_dfs().join();
    println!(
        "{} states, {} transitions, longest path {}: {name}",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth()
    );
    checker.assert_properties();
}

#[test]
fn the_rules_hold_for_three_replicas() {
    // Room for the paper's figure 8: an entry of term 1, another of term 2, and the first one's leader again in term 3.
    holds(Rules::majority(3, 3, 2, 2));
}

#[test]
fn the_rules_hold_for_quorums_that_differ() {
    holds(Rules::majority(3, 2, 2, 2).quorums(3, 1));
    holds(Rules::majority(3, 3, 2, 2).quorums(2, 3));
    holds(Rules::majority(4, 2, 1, 1).quorums(3, 2));
    holds(Rules::majority(5, 2, 1, 1).quorums(4, 2));
}

/// Breaks a rule and looks for the shortest way to break each property named.
#[track_caller]
fn breaks(rules: Rules, properties: &[&'static str]) {
    let name = format!("{rules:?}");
    for property in properties {
        let checker = rules
            .clone()
            .checker()
            .finish_when(HasDiscoveries::AnyOf([*property].into()))
            .target_state_count(STATES_UNTIL_BROKEN_MAX)
            .spawn_bfs()
            .join();
        let Some(path) = checker.discovery(property) else {
            panic!(
                "\"{property}\" holds in {} states of {name}",
                checker.unique_state_count()
            );
        };
        println!(
            "broken after {} states: \"{property}\" with {name}",
            checker.unique_state_count()
        );
        for (step, action) in path.into_actions().into_iter().enumerate() {
            println!("  {:2} {action:?}", step + 1);
        }
    }
}

/// Transitions looked at before a broken rule counts as not noticed: a bound for a test that fails.
const STATES_UNTIL_BROKEN_MAX: usize = 3_000_000;

#[test]
fn an_election_quorum_of_one_less_is_noticed() {
    let rules = Rules::majority(3, 2, 1, 1).quorums(1, 2);
    breaks(rules, &[ELECTION_SAFETY]);
}

#[test]
fn a_commit_quorum_of_one_less_is_noticed() {
    let rules = Rules::majority(3, 2, 1, 2).quorums(2, 1);
    breaks(rules, &[NO_FORGETFUL_LEADER, LEADER_COMPLETENESS, STATE_MACHINE_SAFETY]);
}

#[test]
fn a_forgotten_vote_is_noticed() {
    let rules = Rules {
        forgets_vote: true,
        ..Rules::majority(3, 2, 1, 1)
    };
    breaks(rules, &[ELECTION_SAFETY]);
}

#[test]
fn counting_for_an_older_term_is_noticed() {
    // The paper's figure 8 with three replicas: an entry of term 1 is counted in term 3, and the leader of term 2 still wins
    // term 4 without it. That it could win is visible a term earlier.
    for (terms_max, property) in [(3, NO_FORGETFUL_LEADER), (4, LEADER_COMPLETENESS)] {
        let rules = Rules {
            counts_older_terms: true,
            candidate_count: 2,
            ..Rules::majority(3, terms_max, 1, 2)
        };
        breaks(rules, &[property]);
    }
}

#[test]
fn an_unchecked_previous_term_is_noticed() {
    let rules = Rules {
        ignores_prev_term: true,
        ..Rules::majority(3, 2, 2, 3)
    };
    breaks(rules, &[LOG_MATCHING]);
}

#[test]
fn quorums_that_need_not_meet_are_noticed() {
    for (replica_count, elect_quorum, commit_quorum) in [(3, 2, 1), (4, 3, 1), (5, 3, 2)] {
        let rules = Rules {
            candidate_count: 2,
            ..Rules::majority(replica_count, 2, 1, 2).quorums(elect_quorum, commit_quorum)
        };
        breaks(rules, &[NO_FORGETFUL_LEADER, LEADER_COMPLETENESS]);
    }
    // Two elections that need not meet.
    let rules = Rules::majority(4, 2, 1, 1).quorums(2, 3);
    breaks(rules, &[ELECTION_SAFETY]);
}
