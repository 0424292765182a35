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
    os::fd::AsRawFd,
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use io_uring::{
    IoUring, cqueue, opcode, squeue,
    types::{BufRingEntry, CancelBuilder, Fixed, Napi, NapiTracking, RecvMsgOut, SubmitArgs, Timespec},
};

use super::mapping::Mapping;

/// The only registered file, and the only group of provided buffers.
const SOCKET: Fixed = Fixed(0);
const BUFFER_GROUP: u16 = 0;
/// `user_data` of the multishot receive; a send carries the index of its slot.
const RECEIVE: u64 = u64::MAX;

/// Room for the sender's address before a payload. `struct io_uring_recvmsg_out` (include/uapi/linux/io_uring.h) has 16
/// bytes, so that with 48 more the payload begins at a cache line; sockaddr_in6 needs 28.
const NAME_BYTES: usize = 48;
const OUT_HEADER_BYTES: usize = 16;
/// IORING_NOTIF_USAGE_ZC_COPIED (include/uapi/linux/io_uring.h): the kernel had to copy after all.
const NOTIF_USAGE_COPIED: u32 = 1 << 31;
/// IORING_SEND_ZC_REPORT_USAGE (include/uapi/linux/io_uring.h), a flag of the send.
const SEND_ZC_REPORT_USAGE: u16 = 1 << 3;
/// How long a closing ring waits for the kernel to let go of its memory, in steps of [`CLOSE_STEP`].
const CLOSE_STEPS_MAX: u32 = 100;
const CLOSE_STEP: Duration = Duration::from_millis(1);

/// Who runs the kernel's half of a completion, in order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskWork {
    /// The submitting thread, when it enters to wait (IORING_SETUP_SINGLE_ISSUER | DEFER_TASKRUN, Linux 6.1).
    Deferred,
    /// The submitting thread, at its next system call (IORING_SETUP_COOP_TASKRUN, Linux 5.19).
    Cooperative,
    /// The submitting thread, interrupted for it (before Linux 5.19).
    Interrupting,
    /// The kernel's own thread (IORING_SETUP_SQPOLL).
    SubmissionThread,
}

/// What a ring is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RingConfig {
    /// Sends that may be queued or in flight; at most 4096.
    pub(crate) tx_slots_count: u16,
    /// Receive buffers; a power of two, at most 32768.
    pub(crate) buffers_count: u16,
    /// The longest payload that is received or sent whole.
    pub(crate) payload_bytes_max: usize,
    /// Rows in the table of addresses.
    pub(crate) addresses_max: usize,
    /// The socket is connected: no addresses in or out.
    pub(crate) connected: bool,
    /// SEND_ZC from registered memory.
    pub(crate) zero_copy: bool,
    /// A kernel thread that polls the submission queue, and sleeps after so many idle milliseconds.
    pub(crate) sqpoll_idle_ms: Option<u32>,
    /// Busy polling of the device's queue while waiting.
    pub(crate) napi_us: Option<u32>,
}

/// A socket address as the kernel reads it; written once, before its index is ever used.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RawAddress {
    pub(crate) bytes: [u8; 28],
    pub(crate) len_bytes: u32,
}

/// The index of no buffer: a plain receive of an empty datagram takes none (and ends the multishot, which takes it for
/// the end of a stream).
const NO_BUFFER: u16 = u16::MAX;

/// A receive buffer that the kernel has filled and does not touch until it is given back.
#[derive(Debug)]
pub(crate) struct Buffer {
    index: u16,
    len_bytes: u32,
}

/// What a receive buffer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Datagram<'a> {
    /// The sender's socket address; empty on a connected socket.
    pub(crate) name: &'a [u8],
    /// The payload, as far as it fitted.
    pub(crate) payload: &'a [u8],
    /// It did not fit.
    pub(crate) truncated: bool,
}

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

/// Everything whose address the kernel knows. Boxed parts do not move when this does.
struct Memory {
    /// `buffers_count` entries of 16 bytes: the ring of provided buffers.
    ring: Mapping,
    rx: Mapping,
    tx: Mapping,
    message: Box<libc::msghdr>,
    addresses: Box<[RawAddress]>,
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
    buffer_tail: u16,
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

        let mut memory = Memory {
            ring: Mapping::anonymous(buffers_count * size_of::<BufRingEntry>())?,
            rx: Mapping::anonymous(buffers_count * rx_stride_bytes(&config))?,
            tx: Mapping::anonymous(tx_slots_count * tx_stride_bytes(&config))?,
            // SAFETY: all zeros is a valid msghdr: null pointers and zero lengths.
            message: Box::new(unsafe { std::mem::zeroed() }),
            addresses: vec![RawAddress::default(); config.addresses_max].into_boxed_slice(),
        };
        if !config.connected {
            memory.message.msg_namelen = NAME_BYTES as u32;
        }

        let mut ring = Ring {
            uring,
            socket,
            memory: ManuallyDrop::new(memory),
            config,
            task_work,
            started: false,
            receive_armed: false,
            buffer_tail: 0,
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
        let ring_addr = self.memory.ring.as_ptr() as u64;
        // SAFETY: `memory.ring` has `buffers_count` entries and is unmapped only after the ring is closed and nothing is
        // in flight (`drop`).
        unsafe { submitter.register_buf_ring_with_flags(ring_addr, self.config.buffers_count, BUFFER_GROUP, 0)? };
        if self.config.zero_copy {
            let all_slots = libc::iovec {
                iov_base: self.memory.tx.as_ptr().cast(),
                iov_len: usize::from(self.config.tx_slots_count) * tx_stride_bytes(&self.config),
            };
            // SAFETY: as above, for `memory.tx`. One registered buffer holds all slots.
            unsafe { submitter.register_buffers(&[all_slots])? };
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
        let row = &mut self.memory.addresses[index];
        assert_eq!(row.len_bytes, 0, "row {index} of the address table is in use");
        *row = address;
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
        let stride_bytes = tx_stride_bytes(&self.config);
        let start = self.memory.tx.at(usize::from(index) * stride_bytes, stride_bytes);
        // SAFETY: the slot is free, so the kernel does not read it and no other slice of it exists; `len_bytes` is
        // within its stride.
        fill(unsafe { std::slice::from_raw_parts_mut(start, len_bytes) });

        let (address, address_bytes) = match self.config.connected {
            true => (std::ptr::null(), 0),
            false => {
                let row = &self.memory.addresses[to];
                (row.bytes.as_ptr().cast::<libc::sockaddr>(), row.len_bytes)
            }
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
            false => opcode::RecvMsgMulti::new(SOCKET, &*self.memory.message, BUFFER_GROUP).build(),
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
        if buffer.index == NO_BUFFER {
            return Some(Datagram {
                name: &[],
                payload: &[],
                truncated: false,
            });
        }
        let stride_bytes = rx_stride_bytes(&self.config);
        let len_bytes = (buffer.len_bytes as usize).min(rx_buffer_bytes(&self.config));
        let start = self
            .memory
            .rx
            .at(usize::from(buffer.index) * stride_bytes, stride_bytes);
        // SAFETY: a `Buffer` is made by its completion and consumed by `give_back`, so the kernel does not write here
        // while it exists; `len_bytes` is within the stride.
        let bytes = unsafe { std::slice::from_raw_parts(start, len_bytes) };
        if self.config.connected {
            // A plain receive does not say that it cut; the buffer has one byte more than the longest payload.
            let truncated = bytes.len() > self.config.payload_bytes_max;
            return Some(Datagram {
                name: &[],
                payload: bytes,
                truncated,
            });
        }
        let out = RecvMsgOut::parse(bytes, &self.memory.message).ok()?;
        let truncated = out.is_payload_truncated() || out.incoming_payload_len() as usize > out.payload_data().len();
        // The parsed parts borrow `bytes`, whose lifetime is that of `self`: return slices of it.
        let name_start = OUT_HEADER_BYTES;
        let name_len_bytes = out.name_data().len();
        let payload_start = OUT_HEADER_BYTES + NAME_BYTES;
        let payload_len_bytes = out.payload_data().len();
        Some(Datagram {
            name: &bytes[name_start..name_start + name_len_bytes],
            payload: &bytes[payload_start..payload_start + payload_len_bytes],
            truncated: truncated || payload_len_bytes > self.config.payload_bytes_max,
        })
    }

    /// Lets the kernel fill `buffer` again.
    pub(crate) fn give_back(&mut self, buffer: Buffer) {
        if buffer.index == NO_BUFFER {
            return;
        }
        let entries: *mut BufRingEntry = self.memory.ring.as_ptr().cast();
        let mask = self.config.buffers_count - 1;
        let stride_bytes = rx_stride_bytes(&self.config);
        let start = self
            .memory
            .rx
            .at(usize::from(buffer.index) * stride_bytes, stride_bytes);
        // SAFETY: the index is masked, so the entry is inside the ring of `buffers_count` entries. The kernel reads an
        // entry only after the tail has passed it, and there are as many entries as buffers, so this one is not being
        // read. The tail overlays the first entry's reserved field, which the setters leave alone.
        unsafe {
            let entry = &mut *entries.add(usize::from(self.buffer_tail & mask));
            entry.set_addr(start as u64);
            entry.set_len(rx_buffer_bytes(&self.config) as u32);
            entry.set_bid(buffer.index);
        }
        self.buffer_tail = self.buffer_tail.wrapping_add(1);
        // SAFETY: the tail is an aligned u16 in our mapping, shared with the kernel, which reads it with acquire.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(entries).cast_mut()) };
        tail.store(self.buffer_tail, Ordering::Release);
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

/// Bytes of a receive buffer that the kernel may fill: one more than the longest payload, so that a cut shows.
fn rx_buffer_bytes(config: &RingConfig) -> usize {
    let header_bytes = match config.connected {
        true => 0,
        false => OUT_HEADER_BYTES + NAME_BYTES,
    };
    header_bytes + config.payload_bytes_max + 1
}

/// Buffers begin at cache lines.
fn rx_stride_bytes(config: &RingConfig) -> usize {
    rx_buffer_bytes(config).next_multiple_of(64)
}

fn tx_stride_bytes(config: &RingConfig) -> usize {
    config.payload_bytes_max.next_multiple_of(64).max(64)
}

/// The best ring that this kernel takes. Older kernels refuse newer flags with EINVAL.
fn build(config: &RingConfig, sq_entries: u32, cq_entries: u32) -> io::Result<(IoUring, TaskWork)> {
    let mut builder = IoUring::builder();
    builder.setup_cqsize(cq_entries).setup_submit_all().setup_r_disabled();
    if let Some(idle_ms) = config.sqpoll_idle_ms {
        let uring = builder.setup_sqpoll(idle_ms).build(sq_entries)?;
        return Ok((uring, TaskWork::SubmissionThread));
    }
    let mut deferred = builder.clone();
    deferred
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag();
    let mut without_array = deferred.clone();
    without_array.setup_no_sqarray();
    let mut cooperative = builder.clone();
    cooperative.setup_coop_taskrun().setup_taskrun_flag();

    let ladder = [
        (without_array, TaskWork::Deferred),
        (deferred, TaskWork::Deferred),
        (cooperative, TaskWork::Cooperative),
        (builder, TaskWork::Interrupting),
    ];
    let mut refused = None;
    for (builder, task_work) in ladder {
        match builder.build(sq_entries) {
            Ok(uring) => return Ok((uring, task_work)),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => refused = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(refused.expect("the ladder is not empty"))
}
