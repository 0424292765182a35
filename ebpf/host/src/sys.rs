//! Memory that a program in the kernel writes and we read, and the other way round: an array map, mapped (mmap(2)).

use std::{io, ops::Deref, os::fd::AsRawFd, os::fd::BorrowedFd, ptr::NonNull, sync::atomic::AtomicU64};

/// The words of an array map with `BPF_F_MMAPABLE`, until it is dropped.
///
/// They are atomics because somebody else changes them at any time: what is read is some value that was there, and which
/// words belong together, the words say (`ebpf_abi::quorum::grant`).
#[derive(Debug)]
pub(crate) struct SharedWords {
    addr: NonNull<AtomicU64>,
    words_count: usize,
}

// SAFETY: the mapping belongs to this value alone, and atomics may be used from every thread.
unsafe impl Send for SharedWords {}
// SAFETY: as above.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    /// Maps the first `words_count` words of the map behind `map`. The kernel keeps its memory as long as the mapping.
    ///
    /// # Errors
    /// What mmap(2) says: EINVAL if the map is smaller, or not mapable.
    pub(crate) fn map(map: BorrowedFd<'_>, words_count: usize) -> io::Result<SharedWords> {
        // SAFETY: a new mapping, at an address that the kernel chooses; nothing of ours is touched.
        let addr = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                words_count * size_of::<AtomicU64>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        if addr == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let addr = NonNull::new(addr.cast()).expect("mmap without MAP_FIXED never returns page 0");
        Ok(SharedWords { addr, words_count })
    }
}

impl Deref for SharedWords {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is as long, is page aligned, lives as long as `self`, and every bit pattern is a word. The kernel
        // changes it by whole aligned words, which is what an atomic expects of others.
        unsafe { std::slice::from_raw_parts(self.addr.as_ptr(), self.words_count) }
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length, and not used any more.
        unsafe { libc::munmap(self.addr.as_ptr().cast(), self.words_count * size_of::<AtomicU64>()) };
    }
}
