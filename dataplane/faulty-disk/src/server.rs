//! The disk's process: serves the two disks as files of a FUSE mount, obeys lines from standard input, and tidies up when
//! that ends, because then the test is gone.

use std::{
    ffi::OsStr,
    io::{self, BufRead, Write},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, UNIX_EPOCH},
};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request,
    WriteFlags,
};

use crate::{
    medium::{Medium, Outcome},
    protocol::{Command, Side},
    sweep, system,
};

pub use crate::protocol::USAGE;

/// Nothing changes but contents, which the kernel does not cache.
const TTL: Duration = Duration::from_secs(3600);
/// The disks' inodes follow the root's.
const FIRST_INODE: u64 = 2;

struct Disks {
    media: [Medium; 2],
    delay: Duration,
}

#[derive(Clone)]
struct Shared(Arc<Mutex<Disks>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Disks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk of an inode, after the time that an I/O takes.
    fn with<R>(&self, inode: INodeNo, work: impl FnOnce(&mut Medium) -> R) -> Option<R> {
        let index = usize::try_from(u64::from(inode).checked_sub(FIRST_INODE)?).ok()?;
        let delay = self.lock().delay;
        if index == Side::Disk as usize && !delay.is_zero() {
            thread::sleep(delay);
        }
        self.lock().media.get_mut(index).map(work)
    }

    fn attributes(&self, inode: u64) -> Option<FileAttr> {
        let (kind, size, perm) = match inode.checked_sub(FIRST_INODE) {
            None => (FileType::Directory, 0, 0o700),
            Some(index) => (
                FileType::RegularFile,
                self.lock().media.get(index as usize)?.size_bytes(),
                0o600,
            ),
        };
        Some(FileAttr {
            ino: INodeNo(inode),
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }
}

impl Filesystem for Shared {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let index = Side::ALL.iter().position(|side| OsStr::new(side.name()) == name);
        match index.and_then(|index| self.attributes(FIRST_INODE + index as u64)) {
            Some(attributes) => reply.entry(&TTL, &attributes, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(inode.into()) {
            Some(attributes) => reply.attr(&TTL, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    /// No page cache in between: what the loop device asks is what is seen here.
    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        at_bytes: u64,
        len_bytes: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = self.with(inode, |medium| {
            medium.read(at_bytes, len_bytes as usize).map(<[u8]>::to_vec)
        });
        match read.unwrap_or(Err(nix::libc::ENOENT)) {
            Ok(bytes) => reply.data(&bytes),
            Err(errno) => reply.error(Errno::from_i32(errno)),
        }
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        at_bytes: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self.with(inode, |medium| medium.write(at_bytes, bytes));
        match written.unwrap_or(Err(nix::libc::ENOENT)) {
            Ok(()) => reply.written(bytes.len() as u32),
            Err(errno) => reply.error(Errno::from_i32(errno)),
        }
    }

    /// close(2) of some file; no flush of a disk.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    /// This is how a flush of the loop device arrives (drivers/block/loop.c, `lo_req_flush`).
    fn fsync(&self, _: &Request, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        match self.with(inode, Medium::flush).unwrap_or(Err(nix::libc::ENOENT)) {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(Errno::from_i32(errno)),
        }
    }

    /// "Not supported": then the block layer writes zeros instead of punching holes.
    fn fallocate(&self, _: &Request, _: INodeNo, _: FileHandle, _: u64, _: u64, _: i32, reply: ReplyEmpty) {
        reply.error(Errno::EOPNOTSUPP);
    }
}

/// Serves two disks of `size_bytes` in `folder` until standard input ends, then takes away everything that was built on
/// them.
///
/// # Errors
/// FUSE is not there, or forbidden.
pub fn serve(folder: &Path, size_bytes: usize) -> io::Result<()> {
    let shared = Shared(Arc::new(Mutex::new(Disks {
        media: [Medium::new(size_bytes), Medium::new(size_bytes)],
        delay: Duration::ZERO,
    })));
    let session = mount(&shared, folder)?;
    let mut out = io::stdout().lock();
    // Whoever started this process waits for a word.
    writeln!(out, "ok")?;
    out.flush()?;
    for line in io::stdin().lock().lines() {
        let answer = line.map_err(|error| error.to_string()).and_then(|line| {
            let command = line.parse()?;
            obey(&mut shared.lock(), command)
        });
        let said = match answer {
            Ok(lines) => writeln!(out, "{lines}ok"),
            Err(why) => writeln!(out, "error: {why}"),
        };
        // A reader that is gone has also closed standard input.
        let _ = said.and_then(|()| out.flush());
    }
    shared.lock().delay = Duration::ZERO;
    sweep::dismantle(folder);
    drop(session);
    sweep::remove(folder);
    Ok(())
}

fn mount(shared: &Shared, folder: &Path) -> io::Result<BackgroundSession> {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName("faulty-disk".into()),
        MountOption::NoSuid,
        MountOption::NoDev,
    ];
    fuser::spawn_mount(shared.clone(), folder.join(system::FUSE_FOLDER), &config)
}

/// Does it; the answer is lines.
fn obey(disks: &mut Disks, command: Command) -> Result<String, String> {
    let Disks {
        media: [disk, image],
        delay,
    } = disks;
    let mut lines = String::new();
    match command {
        Command::Record => disk.record(),
        Command::Count => lines = format!("{}\n", disk.events().len()),
        Command::Events => {
            for event in disk.events() {
                let outcome = match event.outcome {
                    Outcome::Done => "done".into(),
                    Outcome::Ignored => "ignored".into(),
                    Outcome::Refused(errno) => format!("refused {errno}"),
                };
                let line = match &event.bytes {
                    Some(bytes) => format!("write {} {} {outcome}\n", event.at_bytes, bytes.len()),
                    None => format!("flush 0 0 {outcome}\n"),
                };
                lines += &line;
            }
        }
        Command::Fail(fault) => disk.set_fault(Some(fault)),
        Command::Heal => {
            disk.set_fault(None);
            disk.ignore_flushes(false);
            *delay = Duration::ZERO;
        }
        Command::Faults => {
            let (seen_count, failed_count) = disk.fault_counts();
            lines = format!("{seen_count} {failed_count}\n");
        }
        Command::IgnoreFlushes => disk.ignore_flushes(true),
        Command::Delay(delay_ms) => *delay = Duration::from_millis(delay_ms),
        Command::Save => disk.save(),
        Command::Restore => disk.restore()?,
        Command::Cut {
            events_count,
            seed,
            keep_percent,
        } => {
            let cut = disk.image(events_count, seed, f64::from(keep_percent) / 100.0)?;
            image.exchange(&cut.bytes);
            lines = format!("{} {}\n", cut.doubtful_count, cut.kept_count);
        }
    }
    Ok(lines)
}
