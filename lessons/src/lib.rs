//! L4: what the lessons share, so that an assignment shows its one idea and little else. No lesson asserts a speed: in a
//! lesson's tests time is virtual, or what is counted is system calls, context switches, CPU time and frames.
#![forbid(unsafe_code)]

pub mod bpf;
pub mod clock;
pub mod cluster;
pub mod frames;
pub mod link;
pub mod nodes;
pub mod packets;
pub mod page_cache;
pub mod pipeline;
pub mod rings;
pub mod stall;
pub mod thread;
pub mod verbs;
pub mod veth;
