//! What the experiments over a disk have in common: a folder that goes with them, loops that measure, CPU hogs, the device
//! without a log, and fio beside all of that.

pub mod fio;
pub mod folder;
pub mod hogs;
pub mod logs;
pub mod raw;
pub mod sampled;

pub use folder::DiskFolder;
pub use hogs::Hogs;
pub use sampled::Sampled;
