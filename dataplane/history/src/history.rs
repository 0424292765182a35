//! The record of what clients asked and were answered, and the two checks over it.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::{
    intern::{Interner, State},
    op::{Answer, Op, OpId},
    plan::Plan,
    register::{Kind, Outcome},
    search::{self, Found},
    timeline,
    verdict::{Limits, Verdict},
};

/// Why an answer was not recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AnswerError {
    /// No such operation.
    #[error("operation {0:?} was never invoked in this history: was its id taken from another one?")]
    NeverInvoked(OpId),
    /// It has an answer. A service that answers twice is to be looked at, but the client took the first.
    #[error("operation {0:?} has been answered already: the first answer stays")]
    Twice(OpId),
    /// Time went backwards between its invocation and its answer.
    #[error(
        "operation {op:?} would be answered at {answered_ns} ns, before it was invoked at {invoked_ns} ns: one clock must give both"
    )]
    BeforeInvoked {
        /// Which.
        op: OpId,
        /// When it was invoked.
        invoked_ns: u64,
        /// When it would be answered.
        answered_ns: u64,
    },
    /// A put answered with a value, a get with "swapped", a swap with "mismatch: it is" the expected value. The service is
    /// broken, or its decoder.
    #[error("operation {0:?} cannot have this answer: look at the service, or at what decodes its replies")]
    NotAnAnswer(OpId),
}

/// An instant of the history. What is recorded later counts as later where the clock says the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stamp {
    pub(crate) at_ns: u64,
    pub(crate) sequence: u32,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    pub(crate) client: u32,
    pub(crate) key: u32,
    pub(crate) kind: Kind,
    pub(crate) invoked: Stamp,
    /// When its outcome was known; meaningless while that is [`Outcome::Open`].
    pub(crate) answered: Stamp,
    pub(crate) outcome: Outcome,
}

/// What clients asked of a key-value service, and what they were answered.
///
/// All instants come from one clock. Where two are equal, what was recorded first happened first, as in a simulator; who
/// puts together what several threads saw must record the invocations of an instant before its answers, or an overlap
/// becomes an order. A client may have several operations open.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub(crate) records: Vec<Record>,
    pub(crate) keys: Interner,
    pub(crate) values: Interner,
    sequence: u32,
}

impl History {
    /// A history in which nothing has happened: every key is absent.
    pub fn new() -> Self {
        History::default()
    }

    /// How many operations were invoked.
    pub fn op_count(&self) -> usize {
        self.records.len()
    }

    /// `client` asks for `op` at `at_ns`.
    ///
    /// # Panics
    /// When 2^32 operations were invoked.
    pub fn invoke(&mut self, client: u32, at_ns: u64, op: Op<'_>) -> OpId {
        let id = OpId(u32::try_from(self.records.len()).expect("a history has fewer than 2^32 operations"));
        let kind = match op {
            Op::Get { .. } => Kind::Get,
            Op::StaleGet { .. } => Kind::StaleGet,
            Op::Put { value, .. } => Kind::Put(self.values.intern(value)),
            Op::Append { value, .. } => Kind::Append(self.values.intern(value)),
            Op::CompareAndSwap { expected, new, .. } => Kind::CompareAndSwap {
                expected: self.state(expected),
                new: self.values.intern(new),
            },
            Op::Delete { .. } => Kind::Delete,
        };
        let invoked = self.stamp(at_ns);
        self.records.push(Record {
            client,
            key: self.keys.intern(op.key()),
            kind,
            invoked,
            answered: invoked,
            outcome: Outcome::Open,
        });
        id
    }

    /// `op` is answered at `at_ns`. An operation that never is stays open: perhaps it happened.
    ///
    /// # Errors
    /// When `op` was never invoked, was answered before, was invoked later, or cannot have such an answer. The history
    /// stays as it was.
    pub fn answer(&mut self, op: OpId, at_ns: u64, answer: Answer<'_>) -> Result<(), AnswerError> {
        let &Record {
            kind, invoked, outcome, ..
        } = self.records.get(op.0 as usize).ok_or(AnswerError::NeverInvoked(op))?;
        if outcome != Outcome::Open {
            return Err(AnswerError::Twice(op));
        }
        if at_ns < invoked.at_ns {
            return Err(AnswerError::BeforeInvoked {
                op,
                invoked_ns: invoked.at_ns,
                answered_ns: at_ns,
            });
        }
        let outcome = match (kind, answer) {
            (_, Answer::Lost) => return Ok(()),
            (_, Answer::Refused) => Outcome::Refused,
            (Kind::Put(_) | Kind::Append(_) | Kind::Delete, Answer::Done) => Outcome::Done,
            (Kind::Get | Kind::StaleGet, Answer::Value(value)) => Outcome::Value(self.state(value)),
            (Kind::CompareAndSwap { .. }, Answer::Swapped) => Outcome::Swapped,
            (Kind::CompareAndSwap { .. }, Answer::NotSwapped) => Outcome::NotSwapped,
            (Kind::CompareAndSwap { expected, .. }, Answer::Mismatch { found }) => {
                let found = self.state(found);
                if found == expected {
                    return Err(AnswerError::NotAnAnswer(op));
                }
                Outcome::Mismatch(found)
            }
            (Kind::Delete, Answer::Deleted { existed }) => Outcome::Deleted { existed },
            _ => return Err(AnswerError::NotAnAnswer(op)),
        };
        let answered = self.stamp(at_ns);
        let record = &mut self.records[op.0 as usize];
        record.outcome = outcome;
        record.answered = answered;
        Ok(())
    }

    /// Whether one order of the operations, stale gets aside, explains every answer.
    pub fn check(&self, limits: &Limits) -> Verdict {
        self.check_keys(limits, false)
    }

    /// The same, and whether in that order each stale get can be given a state that the key had had before the get was
    /// answered, one client's stale gets of a key never going back to an earlier state.
    ///
    /// A violation that [`History::check`] does not find is a stale get's. Not checked: that a client's stale gets of
    /// *different* keys come from one prefix, and how old a value is.
    pub fn check_stale(&self, limits: &Limits) -> Verdict {
        self.check_keys(limits, true)
    }

    fn check_keys(&self, limits: &Limits, with_stale: bool) -> Verdict {
        let mut by_key: BTreeMap<u32, Vec<OpId>> = BTreeMap::new();
        for (index, record) in self.records.iter().enumerate() {
            if with_stale || record.kind != Kind::StaleGet {
                by_key.entry(record.key).or_default().push(OpId(index as u32));
            }
        }
        // A violation of a later key says more than a limit that an earlier one ran into.
        let mut unknown = None;
        for (key, ids) in by_key {
            let found = Plan::new(self, &ids).and_then(|plan| search::search(&plan, &self.values, limits));
            match found {
                Ok(Found::Order) => {}
                Ok(Found::Stuck(stuck)) => return Verdict::Violation(Box::new(timeline::explain(self, key, stuck))),
                Err(why) => {
                    let key = timeline::quoted(self.keys.bytes(key));
                    unknown.get_or_insert(format!("key {key}: {why}"));
                }
            }
        }
        match unknown {
            Some(why) => Verdict::Unknown { why },
            None => Verdict::Linearizable,
        }
    }

    fn state(&mut self, value: Option<&[u8]>) -> State {
        value.map_or(State::ABSENT, |bytes| State::of(self.values.intern(bytes)))
    }

    fn stamp(&mut self, at_ns: u64) -> Stamp {
        self.sequence = self
            .sequence
            .checked_add(1)
            .expect("a history has fewer than 2^32 events");
        Stamp {
            at_ns,
            sequence: self.sequence,
        }
    }
}
