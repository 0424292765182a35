//! What must hold of every cluster, whatever goes wrong: the invariants as functions that tests and simulators share.
//!
//! An [`Observer`] is shown replicas as they go, after every turn if it can be: it remembers who led which term and what
//! was committed where, and costs a few comparisons each time. [`logs_match`] and [`same_state`] compare two replicas as
//! they stand.

mod violation;

use std::collections::BTreeMap;

use dataplane_waist::{Slot, StateMachine, Term};

pub use self::violation::Violation;
use crate::{
    config::NODES_MAX,
    replica::{Replica, RoleName},
    transfer,
};

/// Remembers what was seen of a cluster, and compares it with what is seen.
#[derive(Clone, Debug)]
pub struct Observer {
    /// By term.
    leaders: BTreeMap<Term, u32>,
    /// By slot, from the first. A slot that a snapshot took over before it was looked at has none.
    committed: Vec<Option<Committed>>,
    /// By node: its last vote. It outlives the process.
    votes: [Option<(Term, u32)>; NODES_MAX],
    /// By node.
    seen: [Seen; NODES_MAX],
}

/// An entry that somebody had committed.
#[derive(Clone, Copy, Debug)]
struct Committed {
    term: Term,
    crc: u32,
    len_bytes: usize,
    by: u32,
    /// The term of whoever was seen to have it committed; the entry was committed in this term or in an earlier one.
    in_term: Term,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    commit_end: Slot,
    led_term: Option<Term>,
}

impl Default for Observer {
    fn default() -> Observer {
        Observer::new()
    }
}

impl Observer {
    /// Nothing was seen yet.
    pub fn new() -> Observer {
        Observer {
            leaders: BTreeMap::new(),
            committed: Vec::new(),
            votes: [None; NODES_MAX],
            seen: [Seen::default(); NODES_MAX],
        }
    }

    /// How many terms were seen to have a leader.
    pub fn led_terms_count(&self) -> usize {
        self.leaders.len()
    }

    /// Everything that was seen committed is before this slot.
    pub fn committed_end(&self) -> Slot {
        Slot(self.committed.len() as u64)
    }

    /// `node` has begun again from its log: what it knows of commits may be less than before.
    ///
    /// # Panics
    /// If `node` is not below [`NODES_MAX`].
    pub fn restarted(&mut self, node: u32) {
        self.seen[node as usize] = Seen::default();
    }

    /// Looks at a replica. The more often this is done, the less is missed.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub fn observe<S: StateMachine>(&mut self, replica: &Replica<S>) -> Result<(), Violation> {
        let node = replica.node();
        has_no_gap(replica)?;
        self.compare_vote(replica)?;
        let (before, after) = (self.seen[node as usize].commit_end, replica.commit_end());
        if after < before {
            return Err(Violation::CommitWentBack {
                node,
                before: before.0,
                after: after.0,
            });
        }
        if after > before {
            self.compare_committed(replica, before)?;
            self.seen[node as usize].commit_end = after;
        }
        if replica.role() == RoleName::Leader && self.seen[node as usize].led_term != Some(replica.term()) {
            self.seen[node as usize].led_term = Some(replica.term());
            self.admit_leader(replica)?;
        }
        match replica.counters().impossible_count {
            0 => Ok(()),
            count => Err(Violation::Impossible { node, count }),
        }
    }

    /// Votes are few, so this is two comparisons as a rule.
    fn compare_vote<S: StateMachine>(&mut self, replica: &Replica<S>) -> Result<(), Violation> {
        let (node, term) = (replica.node(), replica.term());
        let place = &mut self.votes[node as usize];
        if let Some((voted, _)) = *place
            && term < voted
        {
            return Err(Violation::TermWentBack {
                node,
                voted: voted.0,
                term: term.0,
            });
        }
        let Some(vote) = replica.vote_given() else {
            return Ok(());
        };
        match *place {
            Some((voted, first)) if voted == term && first != vote => Err(Violation::TwoVotes {
                node,
                term: term.0,
                first,
                second: vote,
            }),
            _ => {
                *place = Some((term, vote));
                Ok(())
            }
        }
    }

    /// Agreement, for what the replica has committed since it was looked at.
    fn compare_committed<S: StateMachine>(&mut self, replica: &Replica<S>, from: Slot) -> Result<(), Violation> {
        let window = replica.window();
        let end = replica.commit_end();
        if self.committed.len() < end.0 as usize {
            self.committed.resize(end.0 as usize, None);
        }
        for slot in from.0.max(window.begin().0)..end.0 {
            let Some(entry) = window.get(Slot(slot)) else { break };
            let here = Committed {
                term: entry.term,
                crc: entry.crc,
                len_bytes: entry.bytes.len(),
                by: replica.node(),
                in_term: replica.term(),
            };
            match &mut self.committed[slot as usize] {
                empty @ None => *empty = Some(here),
                Some(first) if first.is_same(&here) => first.in_term = first.in_term.min(here.in_term),
                Some(first) => {
                    return Err(Violation::Committed {
                        slot,
                        first: first.by,
                        first_term: first.term.0,
                        node: here.by,
                        term: here.term.0,
                    });
                }
            }
        }
        Ok(())
    }

    /// Election safety and leader completeness, once for each leader.
    fn admit_leader<S: StateMachine>(&mut self, replica: &Replica<S>) -> Result<(), Violation> {
        let (node, term) = (replica.node(), replica.term());
        let first = *self.leaders.entry(term).or_insert(node);
        if first != node {
            return Err(Violation::TwoLeaders {
                term: term.0,
                first,
                second: node,
            });
        }
        let window = replica.window();
        for slot in (window.begin().0 as usize).min(self.committed.len())..self.committed.len() {
            let Some(committed) = &self.committed[slot] else {
                continue;
            };
            let has_it = window.get(Slot(slot as u64)).is_some_and(|entry| {
                (entry.term, entry.crc, entry.bytes.len()) == (committed.term, committed.crc, committed.len_bytes)
            });
            // A leader may have been elected, on votes that took long, after a later one has committed more.
            if committed.in_term < term && !has_it {
                return Err(Violation::Incomplete {
                    node,
                    term: term.0,
                    slot: slot as u64,
                    committed_in: committed.in_term.0,
                });
            }
        }
        Ok(())
    }
}

impl Committed {
    fn is_same(&self, other: &Committed) -> bool {
        (self.term, self.crc, self.len_bytes) == (other.term, other.crc, other.len_bytes)
    }
}

/// Whether the replica's ends stand in their order.
///
/// # Errors
/// [`Violation::Gap`].
pub fn has_no_gap<S: StateMachine>(replica: &Replica<S>) -> Result<(), Violation> {
    let window = replica.window();
    let (begin, end) = (window.begin(), window.end());
    let (commit_end, applied_end) = (replica.commit_end(), replica.applied_end());
    let what = if applied_end > commit_end {
        "applied what is not committed"
    } else if commit_end > end {
        "committed what is not in the log"
    } else if begin > applied_end {
        "forgot what was not applied"
    } else if window.last_term() > replica.term() {
        "has an entry of a term that has not come"
    } else {
        return Ok(());
    };
    Err(Violation::Gap {
        node: replica.node(),
        what,
        begin: begin.0,
        end: end.0,
        commit_end: commit_end.0,
        applied_end: applied_end.0,
    })
}

/// Log matching, as far as both windows reach; and that what both have committed is equal.
///
/// # Errors
/// [`Violation::Logs`] or [`Violation::Committed`].
pub fn logs_match<S: StateMachine>(a: &Replica<S>, b: &Replica<S>) -> Result<(), Violation> {
    let (one, other) = (a.window(), b.window());
    let begin = one.begin().max(other.begin());
    let end = one.end().min(other.end());
    let commit_end = a.commit_end().min(b.commit_end());
    let mut same_slot = None;
    for slot in (begin.0..end.0).rev().map(Slot) {
        let (Some(here), Some(there)) = (one.get(slot), other.get(slot)) else {
            continue;
        };
        let is_equal = (here.term, here.crc, here.bytes) == (there.term, there.crc, there.bytes);
        if let (Some(Slot(same_slot)), false) = (same_slot, is_equal) {
            return Err(Violation::Logs {
                a: a.node(),
                b: b.node(),
                same_slot,
                slot: slot.0,
            });
        }
        if slot < commit_end && !is_equal {
            return Err(Violation::Committed {
                slot: slot.0,
                first: a.node(),
                first_term: here.term.0,
                node: b.node(),
                term: there.term.0,
            });
        }
        if here.term == there.term {
            if !is_equal {
                return Err(Violation::Logs {
                    a: a.node(),
                    b: b.node(),
                    same_slot: slot.0,
                    slot: slot.0,
                });
            }
            same_slot = same_slot.or(Some(slot));
        }
    }
    Ok(())
}

/// Whether two replicas that have applied the same entries are in the same state, sessions included. Says yes where one
/// is ahead of the other.
///
/// # Errors
/// [`Violation::States`].
pub fn same_state<S: StateMachine>(a: &Replica<S>, b: &Replica<S>) -> Result<(), Violation> {
    if a.applied_end() != b.applied_end() {
        return Ok(());
    }
    // Who votes is decided by the log, whose committed part is compared elsewhere.
    let saved = |replica: &Replica<S>| transfer::save(a.members(), &replica.sessions, &replica.machine);
    match saved(a) == saved(b) {
        true => Ok(()),
        false => Err(Violation::States {
            a: a.node(),
            b: b.node(),
            slot: a.applied_end().0,
        }),
    }
}

/// [`logs_match`] and [`same_state`] for every two of `replicas`.
///
/// # Errors
/// The first invariant that does not hold.
pub fn all_agree<S: StateMachine>(replicas: &[&Replica<S>]) -> Result<(), Violation> {
    for (index, a) in replicas.iter().enumerate() {
        for b in &replicas[index + 1..] {
            logs_match(a, b)?;
            same_state(a, b)?;
        }
    }
    Ok(())
}
