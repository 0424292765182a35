//! One key's part of a history, laid out for the search: its events in the order of time, and at each of them which
//! operations are open.

use std::collections::BTreeMap;

use crate::{
    history::{History, Stamp},
    intern::{State, Values},
    op::OpId,
    register::{Fit, Kind, Meaning, Outcome},
};

/// An operation of the key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlannedOp {
    pub(crate) id: OpId,
    pub(crate) meaning: Meaning,
    invoked: Stamp,
    /// `None`: never.
    answered: Option<Stamp>,
    is_stale: bool,
}

/// Something that happens at an instant. Operations are numbers into [`Plan::ops`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// An operation that was answered is invoked: it takes a slot, which it keeps until its answer.
    Invoke { slot: u8 },
    /// It is answered: by now it has its place in the order.
    Answer { slot: u8 },
    /// An operation that will never be answered is invoked; it is [`Plan::lost`]'s next.
    Lose,
    /// A stale get is answered: by now its state has been. It is the chain's get of this number.
    AnswerStale { chain: u16, number: u16 },
}

/// Stale gets of one client, each invoked after the one before was answered.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    /// What each saw.
    pub(crate) wanted: Vec<State>,
    /// Each as a number into [`Plan::ops`].
    pub(crate) ops: Vec<u32>,
}

/// One key's part of a history.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) ops: Vec<PlannedOp>,
    pub(crate) events: Vec<Event>,
    /// Changes that were never answered, in the order of their invocation.
    pub(crate) lost: Vec<u32>,
    pub(crate) chains: Vec<Chain>,
    /// How many slots there are: the most operations that are open at once and will be answered.
    pub(crate) slot_count: usize,
    /// For each event, before it happens: the operation in each slot, or [`EMPTY`]. `slot_count` numbers per event.
    slots: Vec<u32>,
    /// For each event, before it happens: how many of `lost` have been invoked.
    pub(crate) lost_count: Vec<u32>,
}

/// No operation in this slot.
pub(crate) const EMPTY: u32 = u32::MAX;
/// Slots have a bit each in a configuration's `placed`.
const SLOTS_MAX: usize = u64::BITS as usize;
/// Lost changes have a bit each in a configuration's `used`.
const LOST_MAX: usize = u128::BITS as usize;
/// A configuration counts the gets of a chain in 16 bits.
const CHAIN_MAX: usize = u16::MAX as usize;

impl Plan {
    /// # Errors
    /// In words, when more is open at once than the search has bits for.
    pub(crate) fn new(history: &History, ids: &[OpId]) -> Result<Plan, String> {
        let mut plan = Plan::default();
        // (when, operation, whether this is its answer)
        let mut instants: Vec<(Stamp, u32, bool)> = Vec::with_capacity(2 * ids.len());
        let mut stale: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for &id in ids {
            let record = &history.records[id.0 as usize];
            let meaning = Meaning::of(record.kind, record.outcome);
            if meaning == Meaning::Nothing {
                continue;
            }
            let number = plan.ops.len() as u32;
            plan.ops.push(PlannedOp {
                id,
                meaning,
                invoked: record.invoked,
                answered: (record.outcome != Outcome::Open).then_some(record.answered),
                is_stale: record.kind == Kind::StaleGet,
            });
            if record.kind == Kind::StaleGet {
                stale.entry(record.client).or_default().push(number);
            } else {
                instants.push((record.invoked, number, false));
            }
            if record.outcome != Outcome::Open {
                instants.push((record.answered, number, true));
            }
        }
        let chained = plan.chain(history, stale)?;
        instants.sort_unstable();
        plan.schedule(history, &instants, &chained)?;
        plan.lay_out();
        Ok(plan)
    }

    /// The operation in each slot before event `event`, or [`EMPTY`].
    pub(crate) fn slots(&self, event: usize) -> &[u32] {
        &self.slots[event * self.slot_count..][..self.slot_count]
    }

    pub(crate) fn meaning(&self, op: u32) -> Meaning {
        self.ops[op as usize].meaning
    }

    /// Puts each client's stale gets into chains. Gets that overlap have no order, so each goes to a chain of its own; that
    /// the one chain may then be behind the other is allowed. Returns each get's place.
    fn chain(
        &mut self,
        history: &History,
        stale: BTreeMap<u32, Vec<u32>>,
    ) -> Result<BTreeMap<u32, (u16, u16)>, String> {
        let mut places = BTreeMap::new();
        for mut numbers in stale.into_values() {
            let record = |number: u32| &history.records[self.ops[number as usize].id.0 as usize];
            numbers.sort_unstable_by_key(|&number| record(number).invoked);
            let own_start = self.chains.len();
            let mut own: Vec<(Stamp, Chain)> = Vec::new();
            for number in numbers {
                let record = record(number);
                let Meaning::Observes(Fit::Is(wanted)) = self.meaning(number) else {
                    unreachable!("a stale get that says something observes a state");
                };
                let free = own.iter().position(|(answered, _)| *answered < record.invoked);
                let index = free.unwrap_or_else(|| {
                    own.push((record.answered, Chain::default()));
                    own.len() - 1
                });
                let (answered, chain) = &mut own[index];
                *answered = record.answered;
                places.insert(number, ((own_start + index) as u16, chain.ops.len() as u16));
                chain.wanted.push(wanted);
                chain.ops.push(number);
                if chain.ops.len() > CHAIN_MAX || own_start + index > CHAIN_MAX {
                    return Err(format!(
                        "more than {CHAIN_MAX} stale gets of one client: check shorter histories"
                    ));
                }
            }
            self.chains.extend(own.into_iter().map(|(_, chain)| chain));
        }
        Ok(places)
    }

    /// Turns instants into events, and gives out the slots.
    fn schedule(
        &mut self,
        history: &History,
        instants: &[(Stamp, u32, bool)],
        chained: &BTreeMap<u32, (u16, u16)>,
    ) -> Result<(), String> {
        let mut slot_of = vec![u8::MAX; self.ops.len()];
        let mut free: Vec<u8> = (0..SLOTS_MAX as u8).rev().collect();
        for &(_, number, is_answer) in instants {
            let outcome = history.records[self.ops[number as usize].id.0 as usize].outcome;
            let event = if let Some(&(chain, number)) = chained.get(&number) {
                Event::AnswerStale { chain, number }
            } else if outcome == Outcome::Open {
                self.lost.push(number);
                Event::Lose
            } else if is_answer {
                let slot = slot_of[number as usize];
                free.push(slot);
                Event::Answer { slot }
            } else {
                let slot = free.pop().ok_or_else(|| {
                    format!("more than {SLOTS_MAX} operations are open at once: use fewer clients per key")
                })?;
                slot_of[number as usize] = slot;
                self.slot_count = self.slot_count.max(usize::from(slot) + 1);
                Event::Invoke { slot }
            };
            self.events.push(event);
        }
        if self.lost.len() > LOST_MAX {
            return Err(format!(
                "{} changes have no answer, more than {LOST_MAX}: check shorter histories",
                self.lost.len()
            ));
        }
        self.slots = vec![EMPTY; (self.events.len() + 1) * self.slot_count];
        let mut now = vec![EMPTY; self.slot_count];
        for (index, (event, &(_, number, _))) in self.events.iter().zip(instants).enumerate() {
            match *event {
                Event::Invoke { slot } => now[usize::from(slot)] = number,
                Event::Answer { slot } => now[usize::from(slot)] = EMPTY,
                Event::Lose | Event::AnswerStale { .. } => {}
            }
            self.slots[(index + 1) * self.slot_count..][..self.slot_count].copy_from_slice(&now);
        }
        Ok(())
    }

    /// Why `order`, numbers into `ops`, explains nothing, by the definition alone; `None`: it explains every answer.
    pub(crate) fn fault_of(&self, order: &[u32], values: &mut Values<'_>) -> Option<String> {
        let mut state = State::ABSENT;
        let mut invoked_last: Option<Stamp> = None;
        let mut is_placed = vec![false; self.ops.len()];
        for &number in order {
            let op = &self.ops[number as usize];
            if std::mem::replace(&mut is_placed[number as usize], true) {
                return Some(format!("{:?} is placed twice", op.id));
            }
            if op.answered.is_some_and(|answered| invoked_last > Some(answered)) {
                return Some(format!("{:?} is placed after what was invoked after its answer", op.id));
            }
            if !op.is_stale {
                invoked_last = invoked_last.max(Some(op.invoked));
            }
            match op.meaning {
                Meaning::Observes(fit) if fit.fits(state) => {}
                Meaning::Changes(fit, change) if fit.fits(state) => state = change.apply(state, values),
                _ => return Some(format!("{:?} does not fit where it is placed", op.id)),
            }
        }
        let missing = self
            .ops
            .iter()
            .zip(is_placed)
            .find(|(op, placed)| op.answered.is_some() && !placed);
        missing.map(|(op, _)| format!("{:?} was answered and has no place", op.id))
    }

    fn lay_out(&mut self) {
        let mut lost_count = 0;
        self.lost_count.push(0);
        for event in &self.events {
            lost_count += u32::from(*event == Event::Lose);
            self.lost_count.push(lost_count);
        }
    }
}
