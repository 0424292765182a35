//! L2: what clients asked of a key-value service and were answered, and whether one order of it explains every answer.
//!
//! A replicated service promises that it behaves as one: that each operation takes effect at one instant between its
//! invocation and its answer (linearizability: Herlihy & Wing, "Linearizability: a correctness condition for concurrent
//! objects", TOPLAS 12(3), 1990). Whoever drives such a service records what was asked and answered in a [`History`], and
//! [`History::check`] looks for an order of the operations that a single copy of the data could have gone through.
//!
//! - **Per key.** Linearizability is local (Herlihy & Wing, section 3.1): a history has it if each key's part has it. So
//!   each key is searched alone, which is what makes long histories feasible (P-compositionality: Horn & Kroening, "Faster
//!   linearizability checking via P-compositionality", FORTE 2015).
//! - **What has no answer may have happened**, at any time after its invocation, or never. What was refused did not happen.
//! - **Bounded.** Deciding is NP-complete in general. The search counts its steps and its memory, and where a [`Limits`] is
//!   reached the verdict is [`Verdict::Unknown`], which is not a pass. There is no clock here: the same history gets the
//!   same verdict on every machine.
//!   What makes a history hard is not its length but how much is open at once on one key, above all changes that will never
//!   be answered: spread clients over several keys, and keep histories with many losses short.
//! - **Stale reads** ([`Op::StaleGet`]) promise less and are judged apart, by [`History::check_stale`].
//!
//! What it cannot see: an operation over several keys (a range) is no operation of one key. Recorded as a get per key it is
//! judged as that, which is less than a range promises.
//!
//! ```
//! use dataplane_history::{Answer, History, Limits, Op, Verdict};
//!
//! let mut history = History::new();
//! let put = history.invoke(1, 0, Op::Put { key: b"k", value: b"new" });
//! history.answer(put, 10, Answer::Done)?;
//! let get = history.invoke(2, 20, Op::Get { key: b"k" });
//! history.answer(get, 30, Answer::Value(None))?; // after the put was answered: it must be seen
//! assert!(matches!(history.check(&Limits::default()), Verdict::Violation(_)));
//! # Ok::<(), dataplane_history::AnswerError>(())
//! ```
#![forbid(unsafe_code)]

mod history;
mod intern;
mod op;
mod plan;
mod register;
mod search;
mod timeline;
mod verdict;

pub use history::{AnswerError, History};
pub use op::{Answer, Op, OpId};
pub use verdict::{Limits, Verdict, Violation};
