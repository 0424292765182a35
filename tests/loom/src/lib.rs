//! What two threads share, under loom: it runs every order of the two, and every value that the memory model lets a load return.
//! Here are the models; what they look at is formatted, and tested otherwise, where it stands.
#![cfg(all(test, loom))]
#![deny(unsafe_code)]

#[allow(dead_code, reason = "the data path uses all of it")]
#[rustfmt::skip]
#[path = "../../../dataplane/ports/src/sys/xsk_ring.rs"]
mod xsk_ring;

#[allow(dead_code, reason = "the log's thread uses all of it")]
#[rustfmt::skip]
#[path = "../../../dataplane/wal/src/threaded/signal.rs"]
mod signal;

#[allow(unsafe_code, reason = "loom hands out a place as a pointer, and says who may use it")]
mod rings;
mod signals;
