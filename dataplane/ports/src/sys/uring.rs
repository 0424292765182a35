//! One io_uring over one UDP socket: the part that shares memory with the kernel.
//!
//! ```text
//!   free slots ──send()──▶ SQ ──enter()──▶ kernel ──▶ CQ ──next()──▶ slot free again
//!   buffer ring ─────────── multishot receive ──────▶ CQ ──next()──▶ Buffer ──give_back()──▶ buffer ring
//! ```
//!
//! What is safe to touch follows from two tokens: a transmit slot is written only while it is free, a receive buffer is
//! read only through a [`Buffer`], which exists from its completion until it is given back.

use std::{
    io,
    mem::ManuallyDrop,
    net::UdpSocket,
    os::fd::{AsRawFd, BorrowedFd},
    time::Duration,
};

use io_uring::{
    IoUring, cqueue, opcode, squeue,
    types::{CancelBuilder, Fixed, Napi, NapiTracking, SubmitArgs, Timespec},
};
use nix::poll::PollFlags;

use super::{
    uring_memory::{Memory, NO_BUFFER},
    uring_setup::build,
};

use crate::either;

pub use super::uring_setup::TaskWork;
pub(crate) use super::{
    uring_memory::{Buffer, Datagram, RawAddress},
    uring_setup::RingConfig,
};

/// The only registered file, and the only group of provided buffers.
const SOCKET: Fixed = Fixed(0);
const BUFFER_GROUP: u16 = 0;
/// `user_data` of the multishot receive; a send carries the index of its slot.
const RECEIVE: u64 = u64::MAX;

/// IORING_NOTIF_USAGE_ZC_COPIED (include/uapi/linux/io_uring.h): the kernel had to copy after all.
const NOTIF_USAGE_COPIED: u32 = 1 << 31;
/// IORING_SEND_ZC_REPORT_USAGE (include/uapi/linux/io_uring.h), a flag of the send.
const SEND_ZC_REPORT_USAGE: u16 = 1 << 3;
/// How long a closing ring waits for the kernel to let go of its memory, in steps of [`CLOSE_STEP`].
const CLOSE_STEPS_MAX: u32 = 100;
const CLOSE_STEP: Duration = Duration::from_millis(1);

/// One completion.
#[derive(Debug)]
pub(crate) enum Done {
    /// A datagram, or why the multishot receive has ended (errno). It may end with a datagram too: see
    /// [`Ring::receive_is_armed`].
    Receive(Result<Buffer, i32>),
    /// A send has been done or refused (errno).
    Send(Result<(), i32>),
    /// The kernel no longer reads the memory of a zero-copy send.
    Notification { copied: bool },
}

/// What the kernel may still do with a transmit slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Free,
    /// Queued or being sent; `true` once a send has completed whose notification is to come.
    Busy {
        notification_due: bool,
    },
}

/// The ring, its socket and its memory.
pub(crate) struct Ring {
    /// Declared first: closed before the memory goes.
    uring: IoUring,
    socket: UdpSocket,
    memory: ManuallyDrop<Memory>,
    config: RingConfig,
    task_work: TaskWork,
    started: bool,
    receive_armed: bool,
    slots: Box<[Slot]>,
    free: Vec<u16>,
    sends_incomplete_count: u32,
    sqes_unsubmitted_count: u32,
    syscalls_count: u64,
}

// SAFETY: the raw pointers inside `msghdr` are null, and everything else is owned. The kernel binds a SINGLE_ISSUER ring
// to the thread that enables it (the first that enters), and answers EEXIST to others; nothing here relies on that.
unsafe impl Send for Ring {}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring")
            .field("config", &self.config)
            .field("task_work", &self.task_work)
            .field("started", &self.started)
            .finish_non_exhaustive()
    }
}

impl Ring {
    /// Sets up a ring over `socket`, disabled: the first thread that enters owns it.
    ///
    /// # Errors
    /// ENOSYS, EPERM (`kernel.io_uring_disabled`, seccomp), ENOMEM (RLIMIT_MEMLOCK), EINVAL (an old kernel).
    pub(crate) fn open(socket: UdpSocket, config: RingConfig) -> io::Result<Ring> {
        let buffers_count = usize::from(config.buffers_count);
        let tx_slots_count = usize::from(config.tx_slots_count);
        assert!(
            buffers_count.is_power_of_two() && buffers_count <= 1 << 15 && (1..=4096).contains(&tx_slots_count),
            "{config:?}"
        );
        // Every buffer and every slot can have a completion waiting, a zero-copy slot two, and the receive its end.
        let cq_entries = (buffers_count + 2 * tx_slots_count + 2).next_power_of_two() as u32;
        let (uring, task_work) = build(&config, tx_slots_count as u32 + 1, cq_entries)?;

        let memory = Memory::new(config)?;

        let mut ring = Ring {
            uring,
            socket,
            memory: ManuallyDrop::new(memory),
            config,
            task_work,
            started: false,
            receive_armed: false,
            slots: vec![Slot::Free; tx_slots_count].into_boxed_slice(),
            free: (0..config.tx_slots_count).rev().collect(),
            sends_incomplete_count: 0,
            sqes_unsubmitted_count: 0,
            syscalls_count: 0,
        };
        ring.register()?;
        for index in 0..config.buffers_count {
            ring.give_back(Buffer { index, len_bytes: 0 });
        }
        Ok(ring)
    }

    fn register(&mut self) -> io::Result<()> {
        let submitter = self.uring.submitter();
        submitter.register_files(&[self.socket.as_raw_fd()])?;
        let ring_addr = self.memory.ring_addr();
        // SAFETY: the ring of provided buffers has `buffers_count` entries and is unmapped only after the ring is closed and nothing is
        // in flight (`drop`).
        unsafe { submitter.register_buf_ring_with_flags(ring_addr, self.config.buffers_count, BUFFER_GROUP, 0)? };
        if self.config.zero_copy {
            // SAFETY: as above, for the slots. One registered buffer holds all slots.
            unsafe { submitter.register_buffers(&[self.memory.tx_slots()])? };
        }
        if let Some(microseconds) = self.config.napi_us {
            let mut napi = Napi::new()
                .set_busy_poll_timeout(microseconds)
                .set_prefer_busy_poll(true)
                .set_tracking(NapiTracking::Dynamic);
            submitter.register_napi(&mut napi)?;
        }
        Ok(())
    }

    /// Who runs the kernel's half of a completion.
    pub(crate) fn task_work(&self) -> TaskWork {
        self.task_work
    }

    /// The socket.
    pub(crate) fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// System calls so far.
    pub(crate) fn syscalls_count(&self) -> u64 {
        self.syscalls_count
    }

    /// Sends queued or submitted whose own completion (not the notification) has not been seen.
    pub(crate) fn sends_incomplete_count(&self) -> u32 {
        self.sends_incomplete_count
    }

    /// Something is queued that the kernel does not know of.
    pub(crate) fn has_unsubmitted(&self) -> bool {
        self.sqes_unsubmitted_count > 0
    }

    /// Writes row `index` of the address table, which must never have been written: a send may be reading the others.
    pub(crate) fn set_address(&mut self, index: usize, address: RawAddress) {
        self.memory.set_address(index, address);
    }

    /// Queues a datagram of `len_bytes` to row `to` of the address table (ignored on a connected socket). `false`
    /// when no slot is free or the submission queue is full; `fill` is then not called.
    pub(crate) fn send(&mut self, to: usize, len_bytes: usize, fill: &mut dyn FnMut(&mut [u8])) -> bool {
        assert!(
            len_bytes <= self.config.payload_bytes_max,
            "{len_bytes} bytes do not fit"
        );
        if self.uring.submission().is_full() {
            return false;
        }
        let Some(index) = self.free.pop() else {
            return false;
        };
        assert_eq!(self.slots[usize::from(index)], Slot::Free);
        let start = self.memory.tx_slot(index);
        // SAFETY: the slot is free, so the kernel does not read it and no other slice of it exists; `len_bytes` is
        // within its stride.
        fill(unsafe { std::slice::from_raw_parts_mut(start, len_bytes) });

        let (address, address_bytes) = match self.config.connected {
            true => (std::ptr::null(), 0),
            false => self.memory.address(to),
        };
        // A socket buffer that is full refuses at once, as a NIC ring does, instead of holding the slot.
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        let sqe = match self.config.zero_copy {
            true => opcode::SendZc::new(SOCKET, start, len_bytes as u32)
                .buf_index(Some(0))
                .dest_addr(address)
                .dest_addr_len(address_bytes)
                .flags(flags)
                .zc_flags(SEND_ZC_REPORT_USAGE)
                .build(),
            false => opcode::Send::new(SOCKET, start, len_bytes as u32)
                .dest_addr(address)
                .dest_addr_len(address_bytes)
                .flags(flags)
                .build(),
        };
        self.slots[usize::from(index)] = Slot::Busy {
            notification_due: false,
        };
        self.sends_incomplete_count += 1;
        // SAFETY: the slot is busy from here until its completion (and notification), so its bytes stay; the row of
        // the address table is never written again.
        unsafe { self.push(&sqe.user_data(u64::from(index))) };
        true
    }

    /// The multishot receive is queued or running.
    pub(crate) fn receive_is_armed(&self) -> bool {
        self.receive_armed
    }

    /// Queues the multishot receive unless it is armed. `false`: no room in the submission queue now.
    pub(crate) fn arm_receive(&mut self) -> bool {
        if self.receive_armed {
            return true;
        }
        if self.uring.submission().is_full() {
            return false;
        }
        let sqe = match self.config.connected {
            true => opcode::RecvMulti::new(SOCKET, BUFFER_GROUP).build(),
            false => opcode::RecvMsgMulti::new(SOCKET, self.memory.message(), BUFFER_GROUP).build(),
        };
        self.receive_armed = true;
        // SAFETY: the message header lives in a box of `memory`, which is freed only when nothing is in flight.
        unsafe { self.push(&sqe.user_data(RECEIVE)) };
        true
    }

    /// # Safety
    /// What `sqe` points to must stay until its last completion. The queue must not be full.
    unsafe fn push(&mut self, sqe: &squeue::Entry) {
        // SAFETY: passed on to the caller.
        let pushed = unsafe { self.uring.submission().push(sqe) };
        assert!(pushed.is_ok(), "the submission queue was checked for room");
        self.sqes_unsubmitted_count += 1;
    }

    /// The kernel has completions to finish, which a call of [`Ring::enter`] would do.
    pub(crate) fn has_task_work(&mut self) -> bool {
        let queue = self.uring.submission();
        queue.taskrun() || queue.cq_overflow()
    }

    /// Sleeps until the kernel has something for the ring (true), or `bell` is readable, or `max` has passed (false).
    pub(crate) fn sleep_or(&mut self, bell: BorrowedFd<'_>, max: Duration) -> io::Result<bool> {
        self.syscalls_count += 1;
        // SAFETY: the ring, and with it its descriptor, outlives this borrow.
        let own = unsafe { BorrowedFd::borrow_raw(self.uring.as_raw_fd()) };
        Ok(either::sleep(own, bell, max)?.contains(PollFlags::POLLIN))
    }

    /// Submits what is queued, runs the kernel's part of completions, and waits for `want` completions, at most
    /// `timeout`. `false`: the time passed, or a signal came.
    ///
    /// # Errors
    /// EEXIST: a second thread uses a ring that belongs to the first. Otherwise the kernel's.
    pub(crate) fn enter(&mut self, want: u32, timeout: Duration) -> io::Result<bool> {
        if !self.started {
            self.uring.submitter().register_enable_rings()?;
            self.started = true;
        }
        let thread_polls = self.config.sqpoll_idle_ms.is_some();
        if !thread_polls || want > 0 || self.uring.submission().need_wakeup() {
            self.syscalls_count += 1;
        }
        let timespec = Timespec::from(timeout);
        let submitter = self.uring.submitter();
        let entered = match want {
            0 => submitter.submit(),
            _ => submitter.submit_with_args(want as usize, &SubmitArgs::new().timespec(&timespec)),
        };
        self.sqes_unsubmitted_count = match thread_polls {
            true => 0,
            false => self.uring.submission().len() as u32,
        };
        match entered {
            Ok(_) => Ok(true),
            // EBUSY: completions wait for room in the CQ; the caller reaps next. EAGAIN: out of request memory; the
            // queue keeps what is in it.
            Err(error) => match error.raw_os_error() {
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(false),
                Some(libc::EEXIST) => Err(io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    "the ring belongs to the thread that used it first (IORING_SETUP_SINGLE_ISSUER)",
                )),
                _ => Err(error),
            },
        }
    }

    /// The next completion, if there is one.
    pub(crate) fn next(&mut self) -> Option<Done> {
        let cqe = self.uring.completion().next()?;
        let (result, flags) = (cqe.result(), cqe.flags());
        let more = cqueue::more(flags);
        if cqe.user_data() == RECEIVE {
            self.receive_armed = more;
            let result = match (result, cqueue::buffer_select(flags)) {
                (len_bytes @ 0.., Some(index)) => Ok(Buffer {
                    index,
                    len_bytes: len_bytes as u32,
                }),
                (0.., None) => Ok(Buffer {
                    index: NO_BUFFER,
                    len_bytes: 0,
                }),
                (errno, _) => Err(-errno),
            };
            return Some(Done::Receive(result));
        }
        let slot = cqe.user_data() as usize;
        if cqueue::notif(flags) {
            self.release(slot);
            return Some(Done::Notification {
                copied: result as u32 & NOTIF_USAGE_COPIED != 0,
            });
        }
        self.sends_incomplete_count -= 1;
        match more {
            true => {
                self.slots[slot] = Slot::Busy { notification_due: true };
            }
            false => self.release(slot),
        }
        Some(Done::Send(match result {
            0.. => Ok(()),
            _ => Err(-result),
        }))
    }

    fn release(&mut self, slot: usize) {
        assert_ne!(self.slots[slot], Slot::Free, "slot {slot} completed twice");
        self.slots[slot] = Slot::Free;
        self.free.push(slot as u16);
    }

    /// What `buffer` holds; `None` if the kernel's header does not fit into it.
    pub(crate) fn datagram(&self, buffer: &Buffer) -> Option<Datagram<'_>> {
        self.memory.datagram(buffer)
    }

    /// Lets the kernel fill `buffer` again.
    pub(crate) fn give_back(&mut self, buffer: Buffer) {
        self.memory.provide(buffer);
    }

    fn is_idle(&self) -> bool {
        !self.receive_armed && self.slots.iter().all(|slot| *slot == Slot::Free)
    }

    /// Ends what is in flight, so that the kernel lets go of our memory and of the port number.
    fn close(&mut self) {
        if !self.started {
            // Nothing was ever submitted.
            return;
        }
        // Errors below mean that this thread may not use the ring; then only the completions can tell.
        let _ = self.enter(0, Duration::ZERO);
        let timeout = Timespec::from(CLOSE_STEP * CLOSE_STEPS_MAX);
        let cancelled = self
            .uring
            .submitter()
            .register_sync_cancel(Some(timeout), CancelBuilder::any());
        for _ in 0..CLOSE_STEPS_MAX {
            while self.next().is_some() {}
            if self.is_idle() {
                break;
            }
            if cancelled.is_err() || self.enter(1, CLOSE_STEP).is_err() {
                std::thread::sleep(CLOSE_STEP);
            }
        }
        // Otherwise the socket stays open until the kernel's worker has torn the ring down, and a new socket could not
        // have its port.
        let _ = self.uring.submitter().unregister_files();
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.close();
        if !self.started || self.is_idle() {
            // SAFETY: dropped once, here. Nothing is in flight, so the kernel does not use the memory; the buffer
            // ring's own pages are pinned by the kernel until the ring closes, after this body.
            unsafe { ManuallyDrop::drop(&mut self.memory) };
        }
        // Otherwise the memory leaks, which is better than the kernel writing into somebody else's.
    }
}
