//! What a check answers, and how much it may cost.

use std::fmt;

use crate::op::OpId;

/// How much the search for one key's order may cost. What needs more is answered by [`Verdict::Unknown`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Configurations (instant, operations placed, state) that are looked at. This bounds the time.
    pub steps_max: u64,
    /// Memory for those kept, roughly.
    pub memory_bytes_max: u64,
}

impl Default for Limits {
    /// Five million steps and 256 MiB, for each key. A history that can be decided takes a few hundred steps, as a rule.
    fn default() -> Self {
        Limits {
            steps_max: 5_000_000,
            memory_bytes_max: 256 << 20,
        }
    }
}

/// Whether one order explains every answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// There is such an order.
    Linearizable,
    /// There is none; here is where every attempt ends.
    Violation(Box<Violation>),
    /// A limit was reached before either was found. Not a pass.
    Unknown {
        /// Which limit, for which key.
        why: String,
    },
}

impl Verdict {
    /// Whether an order was found.
    pub fn is_linearizable(&self) -> bool {
        *self == Verdict::Linearizable
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Linearizable => write!(f, "linearizable"),
            Verdict::Violation(violation) => write!(f, "not linearizable: {violation}"),
            Verdict::Unknown { why } => write!(f, "unknown: {why}"),
        }
    }
}

/// A key whose answers no order explains. Its text is a sentence and a small timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The key.
    pub key: Vec<u8>,
    /// The operation that cannot be placed: the first whose answer leaves no order, by the time of answers.
    pub op: OpId,
    /// The longest order found that explains everything answered before it.
    pub prefix: Vec<OpId>,
    /// The values that the key could have had then, over all such orders (at most [`Violation::POSSIBLE_MAX`]).
    pub possible: Vec<Option<Vec<u8>>>,
    /// The sentence and the timeline.
    pub(crate) text: String,
}

impl Violation {
    /// How many possible values are kept for the explanation.
    pub const POSSIBLE_MAX: usize = 8;
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
