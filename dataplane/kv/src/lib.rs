//! L2: a key-value store as a state machine: what the replicated log is for.
//!
//! [`Store`] does what `dataplane_wire::quorum::request` asks: put, append, get, compare-and-swap, delete, range. It knows no
//! protocol: sessions, who leads, and what makes a read current are decided above it.
//!
//! What is absent: no I/O, no clock, no randomness, no hash map, no expiry of keys. Everything that decides what a command
//! does stands in the state or in the command, so every replica decides alike.
#![forbid(unsafe_code)]

mod image;
mod options;
mod store;

pub use image::{IMAGE_HEADER_BYTES, MAGIC, VERSION};
pub use options::{ENTRY_OVERHEAD_BYTES, StoreOptions, StoreOptionsError};
pub use store::Store;
