//! One key as a register: what each operation, with the answer that it got, requires of the state and does to it.

use crate::intern::{State, Values};

/// What an operation is, its values as numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Get,
    StaleGet,
    Put(u32),
    Append(u32),
    CompareAndSwap { expected: State, new: u32 },
    Delete,
}

/// What it was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// No answer: perhaps.
    Open,
    Refused,
    Done,
    Value(State),
    Swapped,
    NotSwapped,
    Mismatch(State),
    Deleted {
        existed: bool,
    },
}

/// What an operation means to the search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// It changes nothing, and is explained by any state that fits.
    Observes(Fit),
    /// It changes the state, if the state fits.
    Changes(Fit, Change),
    /// It says nothing: refused, or a get without an answer.
    Nothing,
}

/// Which states an operation fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    Any,
    Is(State),
    IsNot(State),
}

/// What becomes of the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    To(State),
    Append(u32),
}

impl Fit {
    pub(crate) fn fits(self, state: State) -> bool {
        match self {
            Fit::Any => true,
            Fit::Is(wanted) => state == wanted,
            Fit::IsNot(unwanted) => state != unwanted,
        }
    }
}

impl Change {
    pub(crate) fn apply(self, state: State, values: &mut Values<'_>) -> State {
        match self {
            Change::To(new) => new,
            Change::Append(value) => values.append(state, value),
        }
    }
}

impl Meaning {
    /// An operation that was answered with something that is no answer to it never gets here
    /// ([`AnswerError::NotAnAnswer`](crate::AnswerError)).
    pub(crate) fn of(kind: Kind, outcome: Outcome) -> Meaning {
        use Meaning::{Changes, Nothing, Observes};
        match (kind, outcome) {
            (_, Outcome::Refused) => Nothing,
            (Kind::Get | Kind::StaleGet, Outcome::Value(state)) => Observes(Fit::Is(state)),
            (Kind::Get | Kind::StaleGet, _) => Nothing,
            (Kind::Put(value), _) => Changes(Fit::Any, Change::To(State::of(value))),
            (Kind::Append(value), _) => Changes(Fit::Any, Change::Append(value)),
            (Kind::CompareAndSwap { expected, .. }, Outcome::NotSwapped) => Observes(Fit::IsNot(expected)),
            (Kind::CompareAndSwap { .. }, Outcome::Mismatch(found)) => Observes(Fit::Is(found)),
            (Kind::CompareAndSwap { expected, new }, _) => Changes(Fit::Is(expected), Change::To(State::of(new))),
            (Kind::Delete, Outcome::Deleted { existed: false }) => Observes(Fit::Is(State::ABSENT)),
            (Kind::Delete, Outcome::Deleted { existed: true }) => {
                Changes(Fit::IsNot(State::ABSENT), Change::To(State::ABSENT))
            }
            (Kind::Delete, _) => Changes(Fit::Any, Change::To(State::ABSENT)),
        }
    }

    /// Whether it tells what the state before it was: a put does not, an append or a swap does.
    pub(crate) fn depends_on_state(self) -> bool {
        match self {
            Meaning::Observes(_) | Meaning::Changes(_, Change::Append(_)) => true,
            Meaning::Changes(fit, Change::To(_)) => fit != Fit::Any,
            Meaning::Nothing => false,
        }
    }
}
