//! A folder for an experiment's files: on a disk, with room, and gone afterwards, whatever ends the run.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, bail};
use nix::{
    fcntl::OFlag,
    sys::{
        statfs::{self, FsType},
        statvfs,
    },
};

/// What such folders are called; the number of the process follows.
const PREFIX: &str = ".dplab-disk-";
/// The file that is locked as long as its folder is wanted.
const LOCK: &str = "LOCK";
/// `RAMFS_MAGIC` of the kernel's include/uapi/linux/magic.h.
const RAMFS: u32 = 0x8584_58f6;
/// Room that is left to others, in bytes.
const SPARE_BYTES: u64 = 256 << 20;
/// How much is written at once when a file is made.
const PIECE_BYTES: usize = 1 << 20;

/// A folder, and all that is in it, until this is dropped. A run that is killed leaves it behind unlocked, and the next one
/// removes it.
#[derive(Debug)]
pub struct DiskFolder {
    path: PathBuf,
    _lock: File,
}

impl DiskFolder {
    /// Makes a folder in `parent`, where `needed_bytes` will be written.
    ///
    /// # Errors
    /// `parent` is in memory, is too full, or cannot be written to.
    pub fn create(parent: &Path, needed_bytes: u64) -> anyhow::Result<DiskFolder> {
        let shown = parent.display();
        fs::create_dir_all(parent).with_context(|| format!("making {shown}"))?;
        refuse_memory(parent)?;
        sweep(parent);
        let room = statvfs::statvfs(parent).with_context(|| format!("asking how much room {shown} has"))?;
        let free_bytes = room.blocks_available() as u64 * room.fragment_size() as u64;
        if free_bytes < needed_bytes + SPARE_BYTES {
            bail!(
                "{shown} has {} MiB free, and {} are wanted ({} for files, the rest stays free): name another folder with --dir",
                free_bytes >> 20,
                (needed_bytes + SPARE_BYTES) >> 20,
                needed_bytes >> 20,
            );
        }
        static NEXT: AtomicU32 = AtomicU32::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = parent.join(format!("{PREFIX}{}-{number}", process::id()));
            match fs::create_dir(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                made => made.with_context(|| format!("making {}", path.display()))?,
            }
            let lock = File::create(path.join(LOCK)).and_then(|lock| {
                lock.try_lock().map_err(io::Error::from)?;
                Ok((lock.metadata()?.nlink() > 0).then_some(lock))
            });
            match lock.with_context(|| format!("locking {}", path.display()))? {
                Some(lock) => return Ok(DiskFolder { path, _lock: lock }),
                // Another run swept between the two.
                None => continue,
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a file of `len_bytes`, written from end to end and durable, so that a write into it allocates nothing.
    ///
    /// # Errors
    /// The disk's.
    pub fn written_file(&self, name: &str, len_bytes: u64) -> anyhow::Result<PathBuf> {
        let path = self.path.join(name);
        let write = || -> io::Result<()> {
            let mut file = File::create(&path)?;
            // Not zeros, which a device might not store.
            let piece = vec![0x5a; PIECE_BYTES];
            let mut rest_bytes = len_bytes;
            while rest_bytes > 0 {
                let now_bytes = rest_bytes.min(PIECE_BYTES as u64) as usize;
                io::Write::write_all(&mut file, &piece[..now_bytes])?;
                rest_bytes -= now_bytes as u64;
            }
            file.sync_all()
        };
        write().with_context(|| format!("writing {} MiB to {}", len_bytes >> 20, path.display()))?;
        Ok(path)
    }

    /// What a row says of the disk: file system, device, whether it has a write cache.
    pub fn facts(&self) -> Vec<(String, String)> {
        let mut facts = Vec::new();
        if let Ok(answer) = statfs::statfs(&self.path) {
            facts.push(("file_system".to_owned(), name_of(answer.filesystem_type())));
        }
        if let Ok(device) = self.path.metadata().map(|metadata| metadata.dev()) {
            let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
            let sysfs = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
            // A partition's queue is that of its disk, one folder up.
            let queue = [sysfs.join("queue"), sysfs.join("../queue")];
            let read = |name: &str| {
                let mut texts = queue.iter().map(|queue| fs::read_to_string(queue.join(name)));
                texts.find_map(Result::ok).map(|text| text.trim().to_owned())
            };
            for (fact, file) in [("device_cache", "write_cache"), ("device_scheduler", "scheduler")] {
                facts.extend(read(file).map(|text| (fact.to_owned(), text)));
            }
        }
        facts
    }
}

impl Drop for DiskFolder {
    fn drop(&mut self) {
        // What cannot be removed is what the next run tries to remove.
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn refuse_memory(parent: &Path) -> anyhow::Result<()> {
    let kind = statfs::statfs(parent)
        .with_context(|| format!("asking what file system {} is", parent.display()))?
        .filesystem_type();
    let is_memory = kind == statfs::TMPFS_MAGIC || kind == statfs::HUGETLBFS_MAGIC || kind.0 as u32 == RAMFS;
    if is_memory {
        bail!(
            "{} is {}, which is memory: nothing there is durable, and what it measures is no disk; name a folder on a disk \
             with --dir",
            parent.display(),
            name_of(kind)
        );
    }
    Ok(())
}

fn name_of(kind: FsType) -> String {
    let known = [
        (statfs::EXT4_SUPER_MAGIC, "ext4"),
        (statfs::XFS_SUPER_MAGIC, "xfs"),
        (statfs::BTRFS_SUPER_MAGIC, "btrfs"),
        (statfs::OVERLAYFS_SUPER_MAGIC, "overlay"),
        (statfs::TMPFS_MAGIC, "tmpfs"),
        (statfs::HUGETLBFS_MAGIC, "hugetlbfs"),
    ];
    match known.iter().find(|(known, _)| *known == kind) {
        Some((_, name)) => (*name).to_owned(),
        None if kind.0 as u32 == RAMFS => "ramfs".to_owned(),
        None => format!("{:#x} (statfs(2))", kind.0),
    }
}

/// Removes folders whose owner is gone.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        if !is_ours || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let lock = OpenOptions::new()
            .write(true)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(entry.path().join(LOCK));
        if lock.is_ok_and(|lock| lock.try_lock().is_ok()) {
            // As in `drop`.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of a test's own on whatever the build is on.
    fn parent(name: &str) -> PathBuf {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tmp");
        target.join(format!("disk-folder-{name}-{}", process::id()))
    }

    #[test]
    fn it_goes_with_its_owner_and_what_a_killed_run_left_goes_too() {
        let parent = parent("goes");
        let left = parent.join(format!("{PREFIX}1-0"));
        fs::create_dir_all(&left).expect("a folder");
        fs::write(left.join(LOCK), "").expect("its lock, which nobody holds");
        let Ok(first) = DiskFolder::create(&parent, 1 << 20) else {
            println!("not run: the build is on no disk");
            let _ = fs::remove_dir_all(&parent);
            return;
        };
        assert!(!left.exists(), "nobody owns it");
        let file = first.written_file("file", (1 << 20) + 512).expect("a file");
        assert_eq!(file.metadata().expect("it is there").len(), (1 << 20) + 512);
        let second = DiskFolder::create(&parent, 1 << 20).expect("another one");
        assert!(first.path().exists(), "its owner lives");
        let paths = [first.path().to_owned(), second.path().to_owned()];
        drop((first, second));
        assert!(paths.iter().all(|path| !path.exists()));
        fs::remove_dir_all(&parent).expect("it is empty");
    }

    #[test]
    fn a_full_disk_and_memory_are_refused_with_a_way_out() {
        let parent = parent("refused");
        if let Err(error) = DiskFolder::create(&parent, u64::MAX / 2) {
            assert!(error.to_string().contains("--dir"), "{error:#}");
        } else {
            panic!("eight exabytes are free");
        }
        let _ = fs::remove_dir_all(&parent);
        match DiskFolder::create(Path::new("/dev/shm"), 0) {
            Err(error) => assert!(error.to_string().contains("--dir"), "{error:#}"),
            Ok(_) => println!("not run: /dev/shm is a disk here"),
        }
    }
}
