//! A claim: a sentence somebody published, and a predicate over measured rows.

use crate::{
    record::{Measured, Outcome},
    table::Table,
};

/// A sentence on trial.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// Short, kebab-case, unique.
    pub id: &'static str,
    /// The claim in one sentence, with its figure.
    pub sentence: &'static str,
    /// Who says so.
    pub source: Source,
    /// What must be true for the sentence to be worth anything, and how it is measured here.
    pub invariant: &'static str,
    /// Decides.
    pub judge: fn(&Table) -> Judgement,
}

/// Who says so, and where.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    /// A publication.
    Published {
        /// Authors, title, venue, year.
        work: &'static str,
        /// Figure, table or section.
        place: &'static str,
    },
    /// This project's own result, to be established or refuted.
    Ours {
        /// Where it was first seen.
        seen: &'static str,
    },
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::Published { work, place } => write!(f, "{work}, {place}"),
            Source::Ours { seen } => write!(f, "our own: {seen}"),
        }
    }
}

/// A verdict and what it rests on.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// The verdict.
    pub outcome: Outcome,
    /// The figures, the decisive one first.
    pub measured: Vec<Measured>,
    /// It would have been decided, had the rows it needs been valid.
    pub is_invalid: bool,
}

impl Judgement {
    /// A verdict and the figures it rests on.
    pub fn new(outcome: Outcome, measured: Vec<Measured>) -> Judgement {
        Judgement {
            outcome,
            measured,
            is_invalid: false,
        }
    }

    /// Nothing was measured, because…
    pub fn not_measured(why: impl Into<String>) -> Judgement {
        Judgement::new(Outcome::NotMeasured { why: why.into() }, Vec::new())
    }

    /// Rows that it needs were measured and are INVALID.
    pub fn invalid(why: impl Into<String>) -> Judgement {
        Judgement {
            is_invalid: true,
            ..Judgement::not_measured(why)
        }
    }
}
