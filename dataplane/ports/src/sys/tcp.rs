//! Two options of a TCP socket for which neither `std` nor `nix` has a call.

use std::{
    io, mem,
    os::fd::{AsRawFd, BorrowedFd},
};

use libc::{c_void, socklen_t};

/// Fills `bytes` with the kernel's `struct tcp_info` and says how many of them it filled: an older kernel has a shorter one.
pub(crate) fn info(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<usize> {
    let mut len = bytes.len() as socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, which `bytes` has, and `len` itself; both outlive the call.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            bytes.as_mut_ptr().cast::<c_void>(),
            &mut len,
        )
    };
    match answer {
        0 => Ok(bytes.len().min(len as usize)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sets the highest pacing rate; `u64::MAX` is none.
pub(crate) fn set_max_pacing_rate(socket: BorrowedFd<'_>, bytes_per_sec: u64) -> io::Result<()> {
    // SAFETY: the kernel reads eight bytes, which are there and outlive the call.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MAX_PACING_RATE,
            (&raw const bytes_per_sec).cast::<c_void>(),
            mem::size_of::<u64>() as socklen_t,
        )
    };
    match answer {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
