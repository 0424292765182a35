//! The search for an order of one key's operations.
//!
//! It is Wing & Gong's ("Testing and verifying concurrent objects", JPDC 17, 1993): place an operation that may come next,
//! go on, come back if that leads nowhere. With Lowe's two improvements ("Testing for linearizability", CCPE 29(4), 2017):
//! a configuration that was looked at is not looked at again, and operations are placed just in time, when an answer is due
//! whose operation has no place yet. So a configuration is small: an event, which of the few open operations are placed, and
//! the state. The event furthest reached is where the longest explainable prefix ends.
//!
//! Three things keep the number of configurations down; none changes the verdict.
//!
//! - What only observes is placed at once wherever it fits: it costs nothing and is owed.
//! - A change without an answer is placed only where something sees it: the operation that is placed next must be an
//!   observation that it explains, or a change that depends on the state. A put after it would hide it, and the order
//!   without it explains as much.
//! - Of two configurations that differ only in the unanswered changes used, the one that used fewer can do whatever the
//!   other can.

use std::collections::HashMap;

use crate::{
    intern::{Interner, State, Values},
    op::OpId,
    plan::{EMPTY, Event, Plan},
    register::Meaning,
    verdict::{Limits, Violation},
};

/// What a search ends with.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    /// An order that explains everything.
    Order,
    /// There is none.
    Stuck(Stuck),
}

/// Where every attempt ended.
#[derive(Clone, Debug)]
pub(crate) struct Stuck {
    /// The operation whose answer cannot be explained.
    pub(crate) op: OpId,
    /// The longest order up to there.
    pub(crate) prefix: Vec<OpId>,
    /// The values that the key could have had.
    pub(crate) possible: Vec<Option<Vec<u8>>>,
}

/// How far an attempt has come.
#[derive(Clone, Copy, Debug)]
struct Configuration {
    /// The next event.
    event: u32,
    state: State,
    /// Of the open operations, by slot: those that have their place.
    placed: u64,
    /// Of the changes without an answer: those that were placed.
    used: u128,
    /// The last one placed had no answer, and nothing has seen it yet.
    unseen: bool,
    /// How far each client's stale gets are explained, a number of [`Search::progress`].
    progress: u32,
    /// The last operation placed, in [`Search::placements`], or [`NOTHING`]; and how many there are.
    last: u32,
    order_len: u32,
}

/// A configuration without what may be dominated (`used`), and without how it came about.
type Key = (u32, State, u64, bool, u32);

const NOTHING: u32 = u32::MAX;

struct Search<'a> {
    plan: &'a Plan,
    values: Values<'a>,
    limits: &'a Limits,
    /// Configurations to go on from, the most promising last.
    todo: Vec<Configuration>,
    /// What was used when a configuration was first met; further sets, none of which contains another, in `seen_more`.
    seen: HashMap<Key, u128>,
    seen_more: HashMap<Key, Vec<u128>>,
    seen_more_count: usize,
    /// (operation, the placement before it): orders as a tree.
    placements: Vec<(u32, u32)>,
    progress: Vec<Vec<u16>>,
    progress_numbers: HashMap<Vec<u16>, u32>,
    /// Configurations that could not go on from the furthest event: what is kept of them.
    furthest: u32,
    furthest_last: u32,
    furthest_len: u32,
    furthest_states: Vec<State>,
    steps: u64,
}

/// Looks for an order.
///
/// # Errors
/// The limit that was reached, in words.
pub(crate) fn search(plan: &Plan, recorded: &Interner, limits: &Limits) -> Result<Found, String> {
    let start = vec![0; plan.chains.len()];
    let mut search = Search {
        plan,
        values: Values::new(recorded),
        limits,
        todo: Vec::new(),
        seen: HashMap::new(),
        seen_more: HashMap::new(),
        seen_more_count: 0,
        placements: Vec::new(),
        progress: vec![start.clone()],
        progress_numbers: HashMap::from([(start, 0)]),
        furthest: 0,
        furthest_last: NOTHING,
        furthest_len: 0,
        furthest_states: Vec::new(),
        steps: 0,
    };
    search.run()
}

impl Search<'_> {
    fn run(&mut self) -> Result<Found, String> {
        let mut start = Configuration {
            event: 0,
            state: State::ABSENT,
            placed: 0,
            used: 0,
            unseen: false,
            progress: 0,
            last: NOTHING,
            order_len: 0,
        };
        self.observe(&mut start);
        self.todo.push(start);
        while let Some(mut configuration) = self.todo.pop() {
            self.steps += 1;
            self.within_limits()?;
            if self.walk(&mut configuration) {
                // Whatever was clever above, the order found is held against the definition in every test.
                if cfg!(debug_assertions) {
                    let order = self.order(configuration.last);
                    let fault = self.plan.fault_of(&order, &mut self.values);
                    assert_eq!(
                        fault, None,
                        "the order found is wrong: {order:?} of {:?}",
                        self.plan.ops
                    );
                }
                return Ok(Found::Order);
            }
            if !self.is_dominated(&configuration) {
                self.remember_furthest(&configuration);
                self.branch(&configuration);
            }
        }
        Ok(Found::Stuck(self.stuck()))
    }

    /// Goes on to the next answer that is due and has no place. True at the end of the history.
    fn walk(&mut self, at: &mut Configuration) -> bool {
        while let Some(event) = self.plan.events.get(at.event as usize) {
            match *event {
                Event::Invoke { .. } => {
                    at.event += 1;
                    self.observe_slots(at);
                }
                Event::Lose => at.event += 1,
                Event::Answer { slot } if at.placed & (1 << slot) != 0 => {
                    at.placed &= !(1 << slot);
                    at.event += 1;
                }
                Event::AnswerStale { chain, number } if self.is_explained(at, chain, number) => at.event += 1,
                Event::Answer { .. } | Event::AnswerStale { .. } => return false,
            }
        }
        true
    }

    /// Places a change, in every way that can matter; the most promising is pushed last.
    fn branch(&mut self, at: &Configuration) {
        let plan = self.plan;
        let event = plan.events[at.event as usize];
        let first_child = self.todo.len();
        // The one that used no lost change is to be met first, so that it dominates those that did.
        for (number, &op) in plan.lost[..plan.lost_count[at.event as usize] as usize]
            .iter()
            .enumerate()
        {
            let bit = 1u128 << number;
            if at.used & bit == 0
                && let Some(mut next) = self.place(at, op)
                && next.state != at.state
            {
                next.used |= bit;
                next.unseen = !self.observe(&mut next);
                self.todo.push(next);
            }
        }
        for (slot, &op) in plan.slots(at.event as usize).iter().enumerate() {
            let bit = 1u64 << slot;
            if op != EMPTY
                && at.placed & bit == 0
                && let Some(mut next) = self.place(at, op)
            {
                next.placed |= bit;
                next.unseen = false;
                self.observe(&mut next);
                self.todo.push(next);
            }
        }
        // Stable, so that among equals those with an answer come after those without, and are taken up first.
        let (plan, progress) = (self.plan, &self.progress);
        self.todo[first_child..].sort_by_key(|next| match event {
            Event::Answer { slot } => next.placed & (1 << slot) != 0,
            Event::AnswerStale { chain, number } => progress[next.progress as usize][usize::from(chain)] > number,
            Event::Invoke { .. } | Event::Lose => unreachable!("{event:?} of {} is walked over", plan.events.len()),
        });
    }

    /// The configuration with `op` as its next change; `None` where it does not fit, or would hide a lost change that
    /// nothing has seen.
    fn place(&mut self, at: &Configuration, op: u32) -> Option<Configuration> {
        let meaning = self.plan.meaning(op);
        let Meaning::Changes(fit, change) = meaning else {
            return None;
        };
        if !fit.fits(at.state) || (at.unseen && !meaning.depends_on_state()) {
            return None;
        }
        let mut next = *at;
        next.state = change.apply(at.state, &mut self.values);
        self.note(&mut next, op);
        Some(next)
    }

    fn note(&mut self, at: &mut Configuration, op: u32) {
        self.placements.push((op, at.last));
        at.last = self.placements.len() as u32 - 1;
        at.order_len += 1;
    }

    /// Places whatever the new state explains. True if there was something.
    fn observe(&mut self, at: &mut Configuration) -> bool {
        let by_slots = self.observe_slots(at);
        let by_chains = self.observe_chains(at);
        by_slots || by_chains
    }

    fn observe_slots(&mut self, at: &mut Configuration) -> bool {
        let plan = self.plan;
        let before = at.placed;
        for (slot, &op) in plan.slots(at.event as usize).iter().enumerate() {
            if op != EMPTY
                && at.placed & (1 << slot) == 0
                && let Meaning::Observes(fit) = plan.meaning(op)
                && fit.fits(at.state)
            {
                at.placed |= 1 << slot;
                self.note(at, op);
            }
        }
        at.placed != before
    }

    fn observe_chains(&mut self, at: &mut Configuration) -> bool {
        let plan = self.plan;
        let here = &self.progress[at.progress as usize];
        let waits_for =
            |chain: usize, number: u16| plan.chains[chain].wanted.get(usize::from(number)) == Some(&at.state);
        if !here.iter().enumerate().any(|(chain, &number)| waits_for(chain, number)) {
            return false;
        }
        let mut progress = here.clone();
        for (chain, number) in progress.iter_mut().enumerate() {
            while plan.chains[chain].wanted.get(usize::from(*number)) == Some(&at.state) {
                self.placements
                    .push((plan.chains[chain].ops[usize::from(*number)], at.last));
                at.last = self.placements.len() as u32 - 1;
                at.order_len += 1;
                *number += 1;
            }
        }
        let next_number = self.progress.len() as u32;
        at.progress = *self.progress_numbers.entry(progress).or_insert_with_key(|progress| {
            self.progress.push(progress.clone());
            next_number
        });
        true
    }

    fn is_explained(&self, at: &Configuration, chain: u16, number: u16) -> bool {
        self.progress[at.progress as usize][usize::from(chain)] > number
    }

    /// Whether a configuration was met that could do all that this one can. If not, this one is remembered.
    fn is_dominated(&mut self, at: &Configuration) -> bool {
        let key = (at.event, at.state, at.placed, at.unseen, at.progress);
        let first = match self.seen.entry(key) {
            std::collections::hash_map::Entry::Vacant(vacant) => {
                vacant.insert(at.used);
                return false;
            }
            std::collections::hash_map::Entry::Occupied(occupied) => *occupied.get(),
        };
        let is_part = |used: u128| used & !at.used == 0;
        if is_part(first) {
            return true;
        }
        let more = self.seen_more.entry(key).or_default();
        self.steps += more.len() as u64 / 8;
        if more.iter().any(|&used| is_part(used)) {
            return true;
        }
        more.push(at.used);
        self.seen_more_count += 1;
        false
    }

    fn within_limits(&self) -> Result<(), String> {
        if self.steps > self.limits.steps_max {
            return Err(format!(
                "no order found within {} steps; a shorter history, or a higher Limits::steps_max, may decide it",
                self.limits.steps_max
            ));
        }
        let memory_bytes = self.todo.capacity() * size_of::<Configuration>()
            + self.seen.capacity() * (size_of::<Key>() + size_of::<u128>())
            + self.seen_more.capacity() * (size_of::<Key>() + size_of::<Vec<u128>>())
            + self.seen_more_count * size_of::<u128>()
            + self.placements.capacity() * size_of::<(u32, u32)>()
            + self.progress.len() * 2 * (self.plan.chains.len() * size_of::<u16>() + size_of::<Vec<u16>>())
            + self.values.made_bytes();
        if memory_bytes as u64 > self.limits.memory_bytes_max || self.placements.len() >= NOTHING as usize {
            return Err(format!(
                "no order found within {} bytes of memory; a shorter history, or a higher Limits::memory_bytes_max, may \
                 decide it",
                self.limits.memory_bytes_max
            ));
        }
        Ok(())
    }

    /// Keeps what an explanation needs of the configurations that came as far as any.
    fn remember_furthest(&mut self, at: &Configuration) {
        if at.event > self.furthest {
            self.furthest = at.event;
            self.furthest_len = 0;
            self.furthest_last = NOTHING;
            self.furthest_states.clear();
        }
        if at.event == self.furthest {
            // One whose last change nothing saw explains no more than the one before it.
            if at.order_len >= self.furthest_len && !at.unseen {
                self.furthest_len = at.order_len;
                self.furthest_last = at.last;
            }
            if self.furthest_states.len() < Violation::POSSIBLE_MAX && !self.furthest_states.contains(&at.state) {
                self.furthest_states.push(at.state);
            }
        }
    }

    fn stuck(&self) -> Stuck {
        let op = match self.plan.events[self.furthest as usize] {
            Event::Answer { slot } => self.plan.slots(self.furthest as usize)[usize::from(slot)],
            Event::AnswerStale { chain, number } => self.plan.chains[usize::from(chain)].ops[usize::from(number)],
            event @ (Event::Invoke { .. } | Event::Lose) => unreachable!("nothing gets stuck at {event:?}"),
        };
        let bytes = |state: &State| state.value().map(|value| self.values.bytes(value).to_vec());
        Stuck {
            op: self.plan.ops[op as usize].id,
            prefix: self
                .order(self.furthest_last)
                .into_iter()
                .map(|op| self.plan.ops[op as usize].id)
                .collect(),
            possible: self.furthest_states.iter().map(bytes).collect(),
        }
    }

    /// The operations placed up to `last`, numbers into [`Plan::ops`].
    fn order(&self, last: u32) -> Vec<u32> {
        let mut order = Vec::new();
        let mut at = last;
        while at != NOTHING {
            let (op, before) = self.placements[at as usize];
            order.push(op);
            at = before;
        }
        order.reverse();
        order
    }
}
