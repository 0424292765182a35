//! futex(2) on the low half of a 64-bit index, across processes.

use std::{sync::atomic::AtomicU64, time::Duration};

/// The half of the index that changes with every frame. A waiter misses a wake-up only if exactly a multiple of 2³²
/// frames is published between its look and its sleep, and rings are far smaller.
fn low_half(index: &AtomicU64) -> *const u32 {
    let halves = index.as_ptr().cast::<u32>().cast_const();
    halves.wrapping_add(cfg!(target_endian = "big").into())
}

/// Sleeps until woken, at most `max`, unless the index is no longer `seen`. A signal ends it early.
pub(crate) fn wait(index: &AtomicU64, seen: u64, max: Duration) {
    let timeout = libc::timespec {
        tv_sec: max.as_secs().min(i32::MAX as u64) as libc::time_t,
        tv_nsec: max.subsec_nanos().into(),
    };
    // SAFETY: the kernel reads four aligned bytes inside `index` and one timespec; both outlive the call. Every answer
    // (woken, changed, timed out, interrupted) means the same to the caller: look again.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            low_half(index),
            libc::FUTEX_WAIT,
            seen as u32,
            &raw const timeout,
        );
    }
}

/// Wakes one sleeper, if there is one.
pub(crate) fn wake_one(index: &AtomicU64) {
    // SAFETY: the kernel uses the address as a name only.
    unsafe {
        libc::syscall(libc::SYS_futex, low_half(index), libc::FUTEX_WAKE, 1);
    }
}
