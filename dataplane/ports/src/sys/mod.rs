//! Everything `unsafe` of this crate: memory shared with the kernel or a peer, and system calls that no safe wrapper
//! makes as we need them. Each file states its invariants; the modules above it are safe code.

pub(crate) mod futex;
pub(crate) mod inet;
pub(crate) mod mapping;
pub(crate) mod mmsg;
pub(crate) mod packet;
pub(crate) mod region;
pub(crate) mod ring;
pub(crate) mod stamps;
pub(crate) mod tcp;
pub(crate) mod uring;
mod uring_memory;
mod uring_setup;
pub(crate) mod xsk;
pub(crate) mod xsk_ring;
pub(crate) mod xsk_umem;
