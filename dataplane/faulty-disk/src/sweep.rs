//! Takes away what a disk has built, and what disks have left behind whose processes were killed.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use nix::mount::{MntFlags, umount2};

use crate::{
    protocol::Side,
    system::{FUSE_FOLDER, loops_over, run},
};

/// The folders' names begin with this; then the number of the process that made it, and one more.
const PREFIX: &str = "dplab-faulty-disk-";

/// A name for a folder that nobody else has.
pub(crate) fn fresh_folder() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("{PREFIX}{}-{number}", process::id()))
}

/// Unmounts the file systems on the disks, and detaches the loop devices over them: those whose file is in `folder`, no
/// other. What is in use goes when it is no longer.
pub(crate) fn dismantle(folder: &Path) {
    for side in Side::ALL {
        let place = folder.join(side.name());
        let Some(place) = place.to_str() else { continue };
        // What is not mounted says so, and that is well.
        if run("umount", &[place]).is_err() {
            let _ = run("umount", &["--lazy", place]);
        }
    }
    for (device, _) in loops_over(folder) {
        let _ = run("losetup", &["--detach", &device]);
    }
}

/// Removes the folder, which is empty by now: nothing is removed that has contents.
pub(crate) fn remove(folder: &Path) {
    // A loop device lets go of its file a moment after it was detached, and until then the plain way is refused.
    let _ = umount2(&folder.join(FUSE_FOLDER), MntFlags::MNT_DETACH);
    for name in [FUSE_FOLDER, Side::Disk.name(), Side::Image.name()] {
        let _ = fs::remove_dir(folder.join(name));
    }
    let _ = fs::remove_dir(folder);
}

/// Takes away what disks of processes that are no more have left: their namespace, and with it their mounts, went with
/// them.
pub(crate) fn stale() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(owner) = name.to_str().and_then(owner_of) else {
            continue;
        };
        if Path::new("/proc").join(owner.to_string()).exists() {
            continue;
        }
        let folder = entry.path();
        // A disk's process outlives its test by a moment, and is tidying up itself.
        for (device, _) in loops_over(&folder) {
            let _ = run("losetup", &["--detach", &device]);
        }
        remove(&folder);
    }
}

/// The process that made the folder of this name.
fn owner_of(name: &str) -> Option<u32> {
    let (owner, number) = name.strip_prefix(PREFIX)?.split_once('-')?;
    number.parse::<u32>().ok()?;
    owner.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_whose_they_are() {
        let folder = fresh_folder();
        let name = folder.file_name().and_then(|name| name.to_str()).unwrap();
        assert_eq!(owner_of(name), Some(process::id()));
        for other in [
            "dplab-faulty-disk-",
            "dplab-faulty-disk-1",
            "dplab-faulty-disk-1-x",
            "other-1-1",
        ] {
            assert_eq!(owner_of(other), None, "{other}");
        }
    }
}
