//! L2: ways to move frames. Each module is one back end: `probe()` asks the machine, `open()` gives a
//! [`dataplane_waist::Port`]. No module here knows a protocol.
#![deny(unsafe_code)]

pub mod af_packet;
mod companion;
mod either;
mod endpoint;
pub mod loopback;
mod peer_table;
pub mod shm;
pub mod stamped;
#[allow(unsafe_code, reason = "the one place that talks to the kernel and to shared memory")]
mod sys;
pub mod tcp;
pub mod udp;
pub mod uring;
pub mod xdp;
