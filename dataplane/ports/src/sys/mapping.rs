//! Pages from mmap(2): memory whose address the kernel is told, so it must not move and must outlive what the kernel
//! does with it.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    ptr::NonNull,
};

/// A mapping of whole pages, readable and writable, unmapped on drop.
#[derive(Debug)]
pub(crate) struct Mapping {
    addr: NonNull<u8>,
    len_bytes: usize,
}

// SAFETY: the mapping is plain memory without thread affinity; `Mapping` hands out only its address, and whoever
// dereferences it keeps the rules about who may write.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Zeroed private pages, present from the start: no page fault on the data path.
    ///
    /// # Errors
    /// ENOMEM, or EAGAIN above RLIMIT_MEMLOCK.
    pub(crate) fn anonymous(len_bytes: usize) -> io::Result<Mapping> {
        Mapping::map(len_bytes, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
    }

    /// Zeroed private memory in huge pages of the default size; `len_bytes` must be whole ones.
    ///
    /// # Errors
    /// ENOMEM: not so many are reserved and free. EINVAL: not whole pages, or a kernel without them.
    pub(crate) fn huge(len_bytes: usize) -> io::Result<Mapping> {
        Mapping::map(
            len_bytes,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB,
            -1,
            0,
        )
    }

    /// The ring that a driver or a socket shares through `fd`, from offset 0.
    ///
    /// # Errors
    /// What mmap(2) says.
    pub(crate) fn shared(fd: BorrowedFd<'_>, len_bytes: usize) -> io::Result<Mapping> {
        Mapping::shared_at(fd, 0, len_bytes)
    }

    /// The same from `offset_bytes`, by which some descriptors tell their several rings apart.
    ///
    /// # Errors
    /// What mmap(2) says.
    pub(crate) fn shared_at(fd: BorrowedFd<'_>, offset_bytes: libc::off_t, len_bytes: usize) -> io::Result<Mapping> {
        Mapping::map(len_bytes, libc::MAP_SHARED, fd.as_raw_fd(), offset_bytes)
    }

    fn map(len_bytes: usize, flags: libc::c_int, fd: libc::c_int, offset_bytes: libc::off_t) -> io::Result<Mapping> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address that the kernel chooses; no memory of ours is touched.
        let addr = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len_bytes,
                protection,
                flags | libc::MAP_POPULATE,
                fd,
                offset_bytes,
            )
        };
        if addr == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let addr = NonNull::new(addr.cast()).expect("mmap without MAP_FIXED never returns page 0");
        Ok(Mapping { addr, len_bytes })
    }

    /// The first byte.
    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.addr.as_ptr()
    }

    /// The address of `at_bytes`, from where `len_bytes` lie inside the mapping.
    ///
    /// # Panics
    /// If they do not.
    pub(crate) fn at(&self, at_bytes: usize, len_bytes: usize) -> *mut u8 {
        let end_bytes = at_bytes.checked_add(len_bytes);
        assert!(
            end_bytes.is_some_and(|end| end <= self.len_bytes),
            "{at_bytes}+{len_bytes} is outside a mapping of {} bytes",
            self.len_bytes
        );
        // SAFETY: in bounds, by the assertion.
        unsafe { self.as_ptr().add(at_bytes) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is ours since `map`. That nobody uses it any more is kept by whoever owns the mapping.
        unsafe { libc::munmap(self.as_ptr().cast(), self.len_bytes) };
    }
}
