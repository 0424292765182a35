//! Memory that a program in the kernel writes and we read, and the other way round: an array map, mapped (mmap(2)). And the one
//! thing that aya does not ask of bpf(2): a program for a network card itself.

use std::{
    io,
    ops::Deref,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr::NonNull,
    sync::atomic::AtomicU64,
};

/// What BPF_PROG_LOAD takes (union bpf_attr, include/uapi/linux/bpf.h), as far as to the device.
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

/// Loads the program that passes everything for the device `interface_index` of the calling thread's network namespace, to run on
/// the device.
///
/// # Errors
/// What bpf(2) says: EINVAL if the device's driver translates no programs (`__bpf_prog_dev_bound_init`, kernel/bpf/offload.c).
pub(crate) fn load_for_device(interface_index: u32) -> io::Result<OwnedFd> {
    const BPF_PROG_LOAD: libc::c_long = 5;
    const BPF_PROG_TYPE_XDP: u32 = 6;
    /// `r0 = XDP_PASS; exit`, as instructions lie in memory on a little-endian machine.
    const PASS: [u64; 2] = [0x0000_0002_0000_00b7, 0x0000_0000_0000_0095];
    const LICENSE: &[u8; 4] = b"GPL\0";
    let attributes = ProgLoad {
        prog_type: BPF_PROG_TYPE_XDP,
        insn_cnt: PASS.len() as u32,
        insns: PASS.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name: [0; 16],
        prog_ifindex: interface_index,
        expected_attach_type: 0,
    };
    // SAFETY: what the attributes point to are constants that live for ever.
    unsafe { file_of_bpf(BPF_PROG_LOAD, &attributes) }
}

/// What BPF_LINK_CREATE takes, as far as to its flags.
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// Attaches a program of [`load_for_device`] on the device, for as long as what is returned is open.
///
/// # Errors
/// What bpf(2) says (dev_xdp_attach, net/core/dev.c).
pub(crate) fn link_to_device(program: BorrowedFd<'_>, interface_index: u32) -> io::Result<OwnedFd> {
    const BPF_LINK_CREATE: libc::c_long = 28;
    const BPF_XDP: u32 = 37;
    /// include/uapi/linux/if_link.h.
    const XDP_FLAGS_HW_MODE: u32 = 1 << 3;
    let attributes = LinkCreate {
        prog_fd: program.as_raw_fd() as u32,
        target_ifindex: interface_index,
        attach_type: BPF_XDP,
        flags: XDP_FLAGS_HW_MODE,
    };
    // SAFETY: the attributes point to nothing.
    unsafe { file_of_bpf(BPF_LINK_CREATE, &attributes) }
}

/// Asks bpf(2) for a new file.
///
/// # Safety
/// `attributes` are the beginning of those of `command`, which opens a file, and what they point to is there.
unsafe fn file_of_bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads as many bytes as it is told, and what they point to, which the caller answers for.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attributes, size_of::<T>()) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a file that the kernel has just opened for us.
    Ok(unsafe { OwnedFd::from_raw_fd(answer as i32) })
}

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
