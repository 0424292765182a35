//! L4: whole-system tests live in `tests/tests/`; this library holds what they share.
#![forbid(unsafe_code)]

pub mod files;
pub mod netns;
