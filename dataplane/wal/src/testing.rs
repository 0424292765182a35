//! Storages for tests: a disk in memory that can lose power at any moment, and a storage that fails on demand.

mod disk;
mod faulty;

use std::io;

pub use disk::{Disk, Loss, Tear};
pub use faulty::{Fault, Faulty};

use crate::{
    snapshot::UNFINISHED,
    storage::{OpenFor, Storage},
};

/// [`Storage::make`](crate::Storage::make) as steps of `storage`'s own, so that power may go, and calls fail, at each.
fn make_at_once(storage: &mut dyn Storage, name: &str, head: &[u8], len_bytes: u64) -> io::Result<()> {
    let unfinished = format!("{name}{UNFINISHED}");
    let mut bytes = vec![0; len_bytes as usize];
    bytes[..head.len()].copy_from_slice(head);
    let file = storage.open(&unfinished, OpenFor::Create)?;
    let written = storage.write_at(file, 0, &bytes).and_then(|()| storage.sync(file));
    storage.close(file);
    if let Err(error) = written {
        let _ = storage.remove(&unfinished);
        return Err(error);
    }
    storage.rename(&unfinished, name)?;
    storage.sync_folder()
}
