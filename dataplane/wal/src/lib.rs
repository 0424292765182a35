//! L2: a write-ahead log. One format (module `format`), several ways to disk ([`Engine`]), and a recovery that tells a torn
//! end, which nobody was ever told about, from damage in what was acknowledged, which nobody may forget.
//!
//! Who writes: the owner's thread ([`Wal`]), a thread of its own ([`ThreadedWal`]: for a node, whose turns must not wait for a
//! disk), or several threads that lead in turn ([`SharedWal`]).
//!
//! What is absent: no thread in [`Wal`] itself, no timer, no delay that would collect more entries. No knowledge of what
//! the entries mean.
#![deny(unsafe_code)]

pub mod blocks;
mod buffer;
mod error;
pub mod format;
mod fs;
mod inspect;
mod open;
mod repair;
mod replay;
mod report;
mod scan;
mod shape;
mod shared;
mod snapshot;
mod state;
mod storage;
#[allow(unsafe_code, reason = "the one place that talks to the kernel directly")]
mod sys;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod threaded;
mod wal;
mod witness;

pub use buffer::{Buffer, MEMORY_ALIGN_BYTES};
pub use error::WalError;
pub use fs::{Engine, FolderStorage, probe};
pub use inspect::{Inspection, Item, inspect, inspect_storage};
pub use open::WalOptions;
pub use repair::{Identity, Repair, identity, repair, repair_storage};
pub use report::{Finding, FindingKind, Report};
pub use shared::{SharedStats, SharedWal};
pub use storage::{Completion, EngineStats, FileId, OpenFor, Storage};
pub use threaded::{OwnHand, ThreadedStats, ThreadedWal};
pub use wal::Wal;
