//! Storages for tests: a disk in memory that can lose power at any moment, and a storage that fails on demand.

mod disk;
mod faulty;

pub use disk::{Disk, Loss, Tear};
pub use faulty::{Fault, Faulty};
