//! Words in memory that processes share.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    ptr::NonNull,
    sync::atomic::AtomicU64,
};

/// A shared mapping of a file from its beginning, as words. Unmapped on drop.
#[derive(Debug)]
pub(crate) struct SharedWords {
    address: NonNull<AtomicU64>,
    words_count: usize,
}

// SAFETY: what it hands out are atomics, which any thread may use; the address itself has no thread affinity.
unsafe impl Send for SharedWords {}
// SAFETY: as above.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    /// Maps `words_count` words of `file`, which must be at least as long, and sealed against shrinking (or a peer could take
    /// the pages away: SIGBUS).
    ///
    /// # Errors
    /// What mmap(2) says; none to map.
    pub(crate) fn map(file: &impl AsFd, words_count: usize) -> io::Result<SharedWords> {
        let len_bytes = words_count * size_of::<AtomicU64>();
        // SAFETY: a new mapping at an address that the kernel chooses; no memory of ours is touched.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len_bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                // With its pages: a device pins what is registered, so nothing waits for one later.
                libc::MAP_SHARED | libc::MAP_POPULATE,
                file.as_fd().as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let address = NonNull::new(address.cast()).expect("mmap without MAP_FIXED never returns page 0");
        Ok(SharedWords { address, words_count })
    }

    /// The words.
    pub(crate) fn words(&self) -> &[AtomicU64] {
        // SAFETY: `map` mapped so many words, a page is aligned for them, the mapping lives as long as `self`, every bit pattern
        // is a u64, and all access, here and in other processes of this program, is by atomics of this one size.
        unsafe { std::slice::from_raw_parts(self.address.as_ptr(), self.words_count) }
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        let len_bytes = self.words_count * size_of::<AtomicU64>();
        // SAFETY: `map` mapped exactly this, and no borrow of `words` outlives `self`.
        unsafe { libc::munmap(self.address.as_ptr().cast(), len_bytes) };
    }
}
