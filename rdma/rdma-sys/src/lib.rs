//! L1: libibverbs, opened at run time. Raw types and functions; what is safe is made of them in `rdma/src/sys/verbs.rs`.
#![deny(unsafe_code)]

mod layout;
mod library;

pub use layout::*;
pub use library::{Library, LoadError};
