//! What must hold of every cluster of one-sided replicas, whatever goes wrong.

use std::collections::BTreeMap;

use dataplane_waist::StateMachine;

use super::replica::Replica;
use crate::{config::majorities, transfer};

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A proposal belongs to one leader.
    #[error("nodes {first} and {second} both led under proposal {proposal}")]
    TwoLeaders {
        /// The proposal.
        proposal: u64,
        /// Who was seen first.
        first: u32,
        /// And who then.
        second: u32,
    },
    /// Agreement: what is applied in a slot is the same everywhere and for ever.
    #[error(
        "agreement: slot {slot} was applied with an entry of proposal {first_proposal} (by node {first}), and node {node} applies \
         another one, of proposal {proposal}"
    )]
    Applied {
        /// The slot.
        slot: u64,
        /// Who applied it first, as far as was seen.
        first: u32,
        /// That entry's proposal.
        first_proposal: u64,
        /// Who has something else.
        node: u32,
        /// Its entry's proposal.
        proposal: u64,
    },
    /// A name stands for one entry: a leader writes each slot once.
    #[error(
        "node {node} has an entry of proposal {proposal} in slot {slot}, and it is not the one that was seen under this name before"
    )]
    Renamed {
        /// The replica.
        node: u32,
        /// The slot.
        slot: u64,
        /// The proposal.
        proposal: u64,
    },
    /// Who begins to lead has everything that was committed under lower proposals (Raft's leader completeness): here a mistake in
    /// preparing shows even if nothing comes of it.
    #[error(
        "node {node} begins to lead under proposal {proposal} without the entry of slot {slot}, which node {applied_by} has applied"
    )]
    Incomplete {
        /// The new leader.
        node: u32,
        /// Its proposal.
        proposal: u64,
        /// What it lacks, or has another one of.
        slot: u64,
        /// Who has applied it.
        applied_by: u32,
    },
    /// No gap: slots are applied one after the other, and only a snapshot goes on elsewhere.
    #[error("node {node} goes on with slot {slot}, and had applied everything before {applied_end}")]
    Gap {
        /// The replica.
        node: u32,
        /// What it applies.
        slot: u64,
        /// What it should have.
        applied_end: u64,
    },
    /// What was applied, or committed, went back while its replica ran.
    #[error("node {node} had applied everything before {before}, and now before {after}")]
    WentBack {
        /// The replica.
        node: u32,
        /// Before.
        before: u64,
        /// Now.
        after: u64,
    },
    /// Equal states give equal bytes.
    #[error(
        "nodes {first} and {second} have both applied everything before {applied_end}, and differ in what came of it"
    )]
    States {
        /// One.
        first: u32,
        /// The other.
        second: u32,
        /// How far.
        applied_end: u64,
    },
}

/// A slot as it was applied first.
#[derive(Clone, Copy, Debug)]
struct Applied {
    node: u32,
    proposal: u64,
    crc: u32,
    /// Nobody had led under a higher proposal by then, so it was committed under this one or a lower one.
    led: u64,
}

/// Who is shown every replica after every turn.
#[derive(Debug, Default)]
pub struct Observer {
    leaders: BTreeMap<u64, u32>,
    applied: BTreeMap<u64, Applied>,
    /// By slot and proposal: the entry's checksum.
    names: BTreeMap<(u64, u64), u32>,
    /// By node: its life, and its applied end.
    ends: BTreeMap<u32, (u32, u64)>,
}

impl Observer {
    /// Looks at a replica that has had a turn.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn observe<S: StateMachine>(&mut self, replica: &Replica<S>) -> Result<(), Violation> {
        let node = replica.node();
        if let Some(proposal) = replica.leads() {
            let first = *self.leaders.entry(proposal).or_insert(node);
            if first != node {
                return Err(Violation::TwoLeaders {
                    proposal,
                    first,
                    second: node,
                });
            }
        }
        let (life, after) = (replica.config.life, replica.applied_end());
        let before = self.ends.insert(node, (life, after));
        let before = before.filter(|&(of, _)| of == life).map_or(0, |(_, end)| end);
        if after < before {
            return Err(Violation::WentBack { node, before, after });
        }
        let mut end = before;
        for &(slot, proposal, crc) in replica.applied() {
            end = without_gap(replica, end, slot)? + 1;
            let led = self.leaders.last_key_value().map_or(0, |(&proposal, _)| proposal);
            let now = Applied {
                node,
                proposal,
                crc,
                led,
            };
            let first = *self.applied.entry(slot).or_insert(now);
            if (first.proposal, first.crc) != (proposal, crc) {
                return Err(Violation::Applied {
                    slot,
                    first: first.node,
                    first_proposal: first.proposal,
                    node,
                    proposal,
                });
            }
            self.name(node, (slot, proposal, crc))?;
        }
        without_gap(replica, end, after)?;
        match replica.took_over() {
            Some(log) => self.take_over(replica, log),
            None => Ok(()),
        }
    }

    fn name(&mut self, node: u32, (slot, proposal, crc): (u64, u64, u32)) -> Result<(), Violation> {
        match *self.names.entry((slot, proposal)).or_insert(crc) == crc {
            true => Ok(()),
            false => Err(Violation::Renamed { node, slot, proposal }),
        }
    }

    /// Looks at the log with which a leader begins.
    fn take_over<S: StateMachine>(&mut self, replica: &Replica<S>, log: &[(u64, u64, u32)]) -> Result<(), Violation> {
        let (node, proposal) = (replica.node(), replica.leads().unwrap_or(0));
        for &entry in log {
            self.name(node, entry)?;
        }
        // What it has applied itself was compared when it did.
        let begin = log.first().map_or(replica.applied_end(), |&(slot, ..)| slot);
        for (&slot, applied) in self.applied.range(begin..) {
            let ours = log.get((slot - begin) as usize);
            if applied.led < proposal && ours != Some(&(slot, applied.proposal, applied.crc)) {
                return Err(Violation::Incomplete {
                    node,
                    proposal,
                    slot,
                    applied_by: applied.node,
                });
            }
        }
        Ok(())
    }

    /// How many proposals had a leader.
    pub fn leaders_count(&self) -> usize {
        self.leaders.len()
    }

    /// Behind the last slot that anybody applied.
    pub fn applied_end(&self) -> u64 {
        self.applied.last_key_value().map_or(0, |(slot, _)| slot + 1)
    }
}

/// `next`, if it is the end of what was applied so far, or of a snapshot that was taken over behind that.
fn without_gap<S: StateMachine>(replica: &Replica<S>, applied_end: u64, next: u64) -> Result<u64, Violation> {
    match next == applied_end || (next > applied_end && replica.installed() == Some(next)) {
        true => Ok(next),
        false => Err(Violation::Gap {
            node: replica.node(),
            slot: next,
            applied_end,
        }),
    }
}

/// Compares two replicas' states, if they have applied equally much.
///
/// # Errors
/// [`Violation::States`].
pub fn same_state<S: StateMachine>(first: &Replica<S>, second: &Replica<S>) -> Result<(), Violation> {
    let bytes = |replica: &Replica<S>| transfer::save(majorities(1), &replica.sessions, &replica.machine);
    if first.applied_end() != second.applied_end() || bytes(first) == bytes(second) {
        return Ok(());
    }
    Err(Violation::States {
        first: first.node(),
        second: second.node(),
        applied_end: first.applied_end(),
    })
}
