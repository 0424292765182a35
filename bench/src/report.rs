//! Reports: what a run measured, for people. They read records and run nothing.
//!
//! ```text
//! Run ─▶ model (rows of all rounds merged) ─┬▶ html      one file, offline, charts
//!                                           ├▶ markdown  for an issue
//!                                           └▶ terminal  for the person who ran it
//! ```
//!
//! Names that the reports know beyond the record's own fields: a metric whose name contains `cpu` stands beside the
//! latency; where nothing has a latency, metrics whose names end in `_rate` and `lost_ratio` stand there too; the fact `wake`
//! says how a back end waits; the fact `caveat` stands below the table; the back end [`REFERENCE`] is what the others are divided by.
//! Everything else is listed under the name it has.

mod charts;
mod html;
mod levels;
mod markdown;
mod merge;
mod model;
mod ratio;
#[cfg(test)]
pub(crate) mod sample;
mod svg;
mod terminal;
pub(crate) mod text;
pub mod units;
mod words;

pub use html::html;
pub use markdown::markdown;
pub use terminal::{Style, terminal};
pub(crate) use words::NETWORK;

/// The back end that ratios are taken against, when an experiment measured it: the way everybody knows.
pub const REFERENCE: &str = "udp-blocking";

/// What a stranger needs to know of an experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExperimentText {
    /// Its id, as in the rows.
    pub id: &'static str,
    /// A heading.
    pub title: &'static str,
    /// The question it answers, one sentence.
    pub question: &'static str,
    /// How it is measured, a few sentences.
    pub how: &'static str,
}
