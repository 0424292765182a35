//! The programs of the quorum, run on single packets: a put goes once around, what is lost is mended, and what must not be taken is
//! passed up.
#![forbid(unsafe_code)]

mod chain;
mod cluster;
mod lossy;
mod normal;
#[path = "../support/mod.rs"]
mod support;
