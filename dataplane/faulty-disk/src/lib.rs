//! L2, for tests alone: a block device that fails, lies and loses power on command, under a real file system.
//!
//! ```text
//! the log under test ─▶ ext4 ─▶ /dev/loopN, direct I/O ─▶ FUSE file ─▶ a process that keeps the bytes in memory
//!                                                                      and sees every write and every flush
//! ```
//!
//! What a disk in memory behind a trait cannot show is what the kernel makes of a bad device: what fsync(2) says after a
//! failed write, what a journal does, what a mount finds. Here all of that is Linux's own.
//!
//! The bytes are in a process of their own (`faulty-disk`), because a process that waits for a disk cannot be ended before
//! the disk has answered: it must not be its own disk. That process also tidies up when the test is gone, however that
//! came. The mounts are in a mount namespace that nobody else sees.
#![forbid(unsafe_code)]

mod disk;
mod medium;
mod protocol;
pub mod server;
mod sweep;
mod system;

pub use disk::{Cut, FaultyDisk, Mounted, StartError};
pub use medium::{Event, Fault, Image, IoKind, Medium, Outcome, SECTOR_BYTES};
pub use protocol::{Command, FaultOn, Side};
