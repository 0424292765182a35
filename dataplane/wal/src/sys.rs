//! Everything `unsafe` of this crate: system calls that no safe wrapper makes as we need them.

pub(crate) mod blocks;

use std::{
    collections::VecDeque,
    fs::File,
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    sync::atomic::AtomicU32,
    time::Duration,
};

use io_uring::{IoUring, opcode, types};

use crate::{buffer::Buffer, storage::Completion};

/// Writes at `at_bytes` and returns when the bytes are durable (RWF_DSYNC, pwritev2(2)). May write less than asked.
pub(crate) fn write_durably(file: &File, at_bytes: u64, bytes: &[u8]) -> io::Result<usize> {
    let vector = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: `vector` describes `bytes`, which is borrowed for the call, and the kernel only reads them.
    let written = unsafe { libc::pwritev2(file.as_raw_fd(), &vector, 1, at_bytes as libc::off_t, libc::RWF_DSYNC) };
    match written {
        0.. => Ok(written as usize),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What O_DIRECT asks of offsets and lengths in this file, in bytes (statx(2), STATX_DIOALIGN, Linux 6.1). 0: no direct
/// I/O on this file; `None`: the kernel or the file system does not say.
pub(crate) fn direct_align_bytes(file: &File) -> io::Result<Option<u32>> {
    let fd: RawFd = file.as_raw_fd();
    let mut facts = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the path is an empty C string, `facts` has room for one structure, and zeros are a valid one.
    let status = unsafe {
        libc::statx(
            fd,
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN,
            facts.as_mut_ptr(),
        )
    };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was zeroed, and the kernel has filled it.
    let facts = unsafe { facts.assume_init() };
    Ok((facts.stx_mask & libc::STATX_DIOALIGN != 0).then_some(facts.stx_dio_offset_align))
}

/// Sleeps until the word is woken, at most `max`, unless it is no longer `seen` (futex(2)). May return early.
pub(crate) fn futex_wait(word: &AtomicU32, seen: u32, max: Duration) {
    let timeout = libc::timespec {
        tv_sec: max.as_secs().min(i32::MAX as u64) as libc::time_t,
        tv_nsec: max.subsec_nanos().into(),
    };
    // SAFETY: the kernel reads the word and one timespec; both outlive the call. Every answer (woken, changed, timed
    // out, interrupted) means the same to the caller: look again.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
            seen,
            &raw const timeout,
        );
    }
}

/// Wakes up to `count` sleepers.
pub(crate) fn futex_wake(word: &AtomicU32, count: i32) {
    // SAFETY: the kernel uses the address as a name only.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
            count,
        );
    }
}

/// How many writes a ring takes: one commit on its way to the disk, one behind it, and room for those that are about to
/// be asked for.
pub(crate) const RING_DEPTH: usize = 4;

/// A write that was given to a ring.
#[derive(Debug)]
struct Write {
    fd: RawFd,
    at_bytes: u64,
    buffer: Buffer,
    written_bytes: usize,
    result: Option<io::Result<()>>,
}

/// A ring for durable writes (RWF_DSYNC), which are over in the order in which they were started. It is made with the first.
pub(crate) struct WriteRing {
    uring: Option<IoUring>,
    /// Oldest first.
    writes: VecDeque<Write>,
    /// The number of the oldest.
    first_number: u64,
    short_count: u64,
}

impl std::fmt::Debug for WriteRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriteRing")
            .field("writes", &self.writes.len())
            .finish_non_exhaustive()
    }
}

impl WriteRing {
    pub(crate) fn new() -> WriteRing {
        WriteRing {
            uring: None,
            writes: VecDeque::with_capacity(RING_DEPTH),
            first_number: 0,
            short_count: 0,
        }
    }

    /// Whether the kernel gives us a ring: EPERM (`kernel.io_uring_disabled`, seccomp), ENOSYS.
    pub(crate) fn ask() -> io::Result<()> {
        IoUring::new(RING_DEPTH as u32).map(drop)
    }

    /// Writes that the kernel cut short.
    pub(crate) fn short_count(&self) -> u64 {
        self.short_count
    }

    /// Whether there is a ring.
    pub(crate) fn is_made(&self) -> bool {
        self.uring.is_some()
    }

    /// Becomes readable when a write is over, until [`WriteRing::next`] has said so.
    pub(crate) fn bell(&self) -> Option<BorrowedFd<'_>> {
        let uring = self.uring.as_ref()?;
        // SAFETY: the descriptor is open as long as the ring, which is borrowed for as long.
        Some(unsafe { BorrowedFd::borrow_raw(uring.as_raw_fd()) })
    }

    /// What a completion still has to do is done when the thread that asked for the write is in the kernel anyhow, which costs no
    /// interrupt (Linux 5.19; older ones say EINVAL). Not DEFER_TASKRUN: who rests in poll(2) on such a ring is not woken.
    fn make() -> io::Result<IoUring> {
        let mut builder = IoUring::builder();
        builder.setup_coop_taskrun();
        match builder.build(RING_DEPTH as u32) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => IoUring::new(RING_DEPTH as u32),
            built => built,
        }
    }

    /// Starts a write. `file` stays open until it is over.
    pub(crate) fn start(&mut self, file: &File, at_bytes: u64, buffer: Buffer) -> io::Result<()> {
        if self.uring.is_none() {
            self.uring = Some(WriteRing::make()?);
        }
        assert!(
            self.writes.len() < RING_DEPTH,
            "{} writes are under way",
            self.writes.len()
        );
        self.writes.push_back(Write {
            fd: file.as_raw_fd(),
            at_bytes,
            buffer,
            written_bytes: 0,
            result: None,
        });
        self.submit(self.writes.len() - 1)
    }

    fn submit(&mut self, index: usize) -> io::Result<()> {
        let write = &self.writes[index];
        let rest = &write.buffer.bytes()[write.written_bytes..];
        let sqe = opcode::Write::new(types::Fd(write.fd), rest.as_ptr(), rest.len() as u32)
            .offset(write.at_bytes + write.written_bytes as u64)
            .rw_flags(libc::RWF_DSYNC)
            .build()
            .user_data(self.first_number + index as u64);
        let uring = self.uring.as_mut().expect("it has been prepared");
        // SAFETY: the bytes are on the heap and belong to `writes` until the write's completion has been seen; what is
        // not over when this is dropped is waited for, or never freed.
        unsafe { uring.submission().push(&sqe) }.map_err(|_| io::Error::other("the submission queue is full"))?;
        loop {
            match uring.submit() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                submitted => return submitted.map(drop),
            }
        }
    }

    /// The oldest write if it is over; with `wait`, waits for it.
    pub(crate) fn next(&mut self, wait: bool) -> io::Result<Option<Completion>> {
        if self.writes.is_empty() {
            return Ok(None);
        }
        loop {
            self.collect()?;
            if self.writes[0].result.is_some() {
                let write = self.writes.pop_front().expect("there is one");
                self.first_number += 1;
                return Ok(Some(Completion {
                    buffer: write.buffer,
                    result: write.result.expect("it has been seen"),
                }));
            }
            let uring = self.uring.as_mut().expect("something is under way");
            let entered = match wait {
                true => uring.submit_and_wait(1).map(drop),
                // What is due is done in any call; this one is for nothing else.
                // SAFETY: no argument points anywhere.
                false => unsafe {
                    uring
                        .submitter()
                        .enter::<libc::sigset_t>(0, 0, IORING_ENTER_GETEVENTS, None)
                }
                .map(drop),
            };
            match entered {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            if !wait {
                self.collect()?;
                if self.writes[0].result.is_none() {
                    return Ok(None);
                }
            }
        }
    }

    fn collect(&mut self) -> io::Result<()> {
        while let Some(cqe) = self.uring.as_mut().and_then(|uring| uring.completion().next()) {
            let index = (cqe.user_data() - self.first_number) as usize;
            let write = &mut self.writes[index];
            match cqe.result() {
                0 => write.result = Some(Err(io::ErrorKind::WriteZero.into())),
                count @ 1.. => {
                    write.written_bytes += count as usize;
                    if write.written_bytes == write.buffer.bytes().len() {
                        write.result = Some(Ok(()));
                    } else {
                        self.short_count += 1;
                        self.submit(index)?;
                    }
                }
                errno if -errno == libc::EINTR => self.submit(index)?,
                errno => write.result = Some(Err(io::Error::from_raw_os_error(-errno))),
            }
        }
        Ok(())
    }
}

/// io_uring_enter(2): run what is due and look for completions.
const IORING_ENTER_GETEVENTS: u32 = 1;

impl Drop for WriteRing {
    fn drop(&mut self) {
        while !self.writes.is_empty() {
            if self.next(true).is_err() {
                // The kernel may still read them.
                std::mem::take(&mut self.writes).into_iter().for_each(std::mem::forget);
            }
        }
    }
}

/// A counter in the kernel on which somebody may rest (eventfd(2)): readable once it has rung.
#[derive(Debug)]
pub(crate) struct Bell(OwnedFd);

impl Bell {
    pub(crate) fn new() -> io::Result<Bell> {
        // SAFETY: no argument points anywhere.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        match fd {
            // SAFETY: the kernel has just given it to us, and to nobody else.
            0.. => Ok(Bell(unsafe { OwnedFd::from_raw_fd(fd) })),
            _ => Err(io::Error::last_os_error()),
        }
    }

    pub(crate) fn ring(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: the kernel reads eight bytes that outlive the call. It refuses only above 2⁶⁴ - 2 unread rings.
        unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// How often it has rung since it was last asked; it is then silent.
    pub(crate) fn clear(&self) -> u64 {
        let mut count = [0; 8];
        // SAFETY: the kernel writes eight bytes into eight. It writes none if the bell has not rung (EAGAIN).
        unsafe { libc::read(self.0.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
        u64::from_ne_bytes(count)
    }

    /// Rests until it has rung, at most `max`. May return early.
    pub(crate) fn wait(&self, max: Duration) {
        let mut polled = libc::pollfd {
            fd: self.0.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let max_ms = i32::try_from(max.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: one structure, which outlives the call.
        unsafe { libc::poll(&raw mut polled, 1, max_ms) };
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// Far longer than any disk takes.
    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn who_rests_on_a_ring_is_woken_when_a_write_is_over() {
        if let Err(error) = WriteRing::ask() {
            return println!("skipped: no io_uring: {error}");
        }
        let path = std::env::temp_dir().join(format!("dplab-wal-ring-{}", std::process::id()));
        let file = File::create(&path).expect("a folder for temporary files");
        let mut ring = WriteRing::new();
        assert!(ring.bell().is_none());
        for round in 0..50u64 {
            let buffer = Buffer::zeroed(4096);
            ring.start(&file, round * 4096, buffer).expect("a ring");
            let begin = Instant::now();
            let bell = ring.bell().expect("it has been made").try_clone_to_owned();
            let bell = Bell(bell.expect("a descriptor is free"));
            loop {
                bell.wait(PATIENCE);
                assert!(begin.elapsed() < PATIENCE, "the ring never rang");
                if let Some(completion) = ring.next(false).expect("the ring works") {
                    completion.result.expect("the disk is well");
                    break;
                }
            }
        }
        std::fs::remove_file(path).expect("it is ours");
    }

    /// Sets the limit on the length of this process's files (setrlimit(2)), and says what it was.
    fn limit_files(bytes_max: libc::rlim_t) -> libc::rlim_t {
        let mut limit = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: one structure each, which outlives the calls.
        unsafe {
            assert_eq!(libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit), 0);
            let before = std::mem::replace(&mut limit.rlim_cur, bytes_max);
            assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit), 0);
            before
        }
    }

    #[test]
    fn a_write_that_the_kernel_cuts_short_is_continued_where_it_ended() {
        if let Err(error) = WriteRing::ask() {
            return println!("skipped: no io_uring: {error}");
        }
        // Far above what any other test of this process writes: the limit is everybody's.
        const AT_BYTES: u64 = 1 << 30;
        const WRITTEN_BYTES: u64 = 1024;
        let flag = std::sync::Arc::default();
        signal_hook::flag::register(signal_hook::consts::SIGXFSZ, flag).expect("a signal that may be handled");
        let path = std::env::temp_dir().join(format!("dplab-wal-ring-short-{}", std::process::id()));
        let file = File::create(&path).expect("a folder for temporary files");
        let mut ring = WriteRing::new();
        let mut buffer = Buffer::new(4096);
        buffer.fill(4096, 7);
        let before = limit_files(AT_BYTES + WRITTEN_BYTES);
        ring.start(&file, AT_BYTES, buffer).expect("a ring");
        let bell = ring.bell().expect("it has been made").try_clone_to_owned();
        // The kernel is done with it, and nobody has looked.
        Bell(bell.expect("a descriptor is free")).wait(PATIENCE);
        limit_files(before);
        let completion = ring.next(true).expect("the ring works").expect("a write is under way");
        completion.result.expect("the rest was written, too");
        assert_eq!(ring.short_count(), 1);
        let mut found = [0; 4096];
        let file = File::open(&path).expect("it is there");
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut found, AT_BYTES).expect("it has its length");
        assert!(found.iter().all(|&byte| byte == 7));
        std::fs::remove_file(path).expect("it is ours");
    }
}
