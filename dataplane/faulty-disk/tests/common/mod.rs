//! A faulty disk for a test, or the reason why there is none.

use std::path::Path;

use dataplane_faulty_disk::{Command, FaultyDisk, Side, StartError};

/// Enough for a journal (4 MiB is the least that mke2fs makes with blocks of 4 KiB) and a small log.
pub const SIZE_BYTES: u64 = 16 << 20;

/// A disk with an ext4 file system on it, saved; `None` with the reason printed where there can be none.
pub fn disk() -> Option<FaultyDisk> {
    let started = FaultyDisk::start(Path::new(env!("CARGO_BIN_EXE_faulty-disk")), SIZE_BYTES);
    let mut disk = match started {
        Ok(disk) => disk,
        Err(StartError::Unavailable(why)) => {
            println!("skipped: no faulty disk here: {why}");
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    disk.make_file_system(&[]).expect("mkfs.ext4 works on it");
    // Mounted once, so that no later mount has anything to do for the first time.
    let mounted = disk.mount(Side::Disk, "").expect("what mkfs.ext4 made can be mounted");
    mounted.unmount().expect("nothing is open");
    disk.tell(Command::Save).expect("the disk is well");
    disk.tell(Command::Record).expect("the disk is well");
    Some(disk)
}
