//! L2: RDMA. Memory that peers read and write, queue pairs, completions; below them our own RoCEv2 endpoint, which
//! speaks what NICs and the kernel's rdma_rxe speak.
//!
//! Read [`wire`] first: what stands in a packet.
#![deny(unsafe_code)]

pub mod wire;
