//! Everything `unsafe` of this crate: system calls that no safe wrapper makes as we need them.

pub(crate) mod blocks;
pub(crate) mod ring;

use std::{
    fs::File,
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    sync::atomic::AtomicU32,
    time::Duration,
};

/// Writes at `at_bytes` and returns when the bytes are durable (RWF_DSYNC, pwritev2(2)). May write less than asked.
pub(crate) fn write_durably(file: &impl AsRawFd, at_bytes: u64, bytes: &[u8]) -> io::Result<usize> {
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
