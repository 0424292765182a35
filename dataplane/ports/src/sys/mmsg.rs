//! Many frames per system call: message headers that point into buffers of their own, built once.
//!
//! ```text
//! headers[i] ──▶ names[i]      who
//!            ──▶ iovecs[i] ──▶ buffer[i × slot_bytes ..]
//!            ──▶ controls[i]   the GSO or GRO segment size
//! ```

use std::{io, mem, net::UdpSocket, os::fd::AsRawFd, ptr::NonNull, slice};

use libc::{c_int, c_uint};

use super::inet::{RawAddr, checked};

/// Room for one control message of up to four bytes, aligned as `cmsghdr` wants it (cmsg(3)).
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL_BYTES]);

/// CMSG_SPACE(4): a 16-byte header and four bytes, padded to 8.
const CONTROL_BYTES: usize = 24;

/// Heap memory that header structs point into. Unlike a `Box` it is never reborrowed as a whole, so those pointers stay
/// good when the owner moves or looks at another element.
struct Pinned<T: Copy>(NonNull<[T]>);

impl<T: Copy> Pinned<T> {
    fn new(value: T, count: usize) -> Pinned<T> {
        let leaked = Box::leak(vec![value; count].into_boxed_slice());
        Pinned(NonNull::from(leaked))
    }

    /// # Panics
    /// If `i` is out of bounds.
    fn at(&self, i: usize) -> *mut T {
        assert!(i < self.0.len(), "{i} of {}", self.0.len());
        // SAFETY: in bounds of the allocation.
        unsafe { self.0.cast::<T>().as_ptr().add(i) }
    }

    fn get(&self, i: usize) -> &T {
        // SAFETY: in bounds, initialised, and nobody writes while the owner is borrowed: the kernel writes only inside
        // calls that take the owner by `&mut`.
        unsafe { &*self.at(i) }
    }

    fn get_mut(&mut self, i: usize) -> &mut T {
        // SAFETY: as above, with the owner borrowed exclusively.
        unsafe { &mut *self.at(i) }
    }
}

impl<T: Copy> Drop for Pinned<T> {
    fn drop(&mut self) {
        // SAFETY: leaked from a box in `new`, dropped once; the headers that point here go with the same owner.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// The headers and what they point to.
struct Messages {
    headers: Pinned<libc::mmsghdr>,
    iovecs: Pinned<libc::iovec>,
    names: Pinned<RawAddr>,
    controls: Pinned<Control>,
    buffer: Pinned<u8>,
    slot_bytes: usize,
    count_max: usize,
}

// SAFETY: the pointers inside point only into memory that Messages itself owns, wherever it moves.
unsafe impl Send for Messages {}

impl Messages {
    fn new(count_max: usize, slot_bytes: usize) -> Messages {
        // SAFETY: a zeroed mmsghdr is valid: null pointers and zero lengths.
        let zero: libc::mmsghdr = unsafe { mem::zeroed() };
        let no_iovec = libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        };
        let mut messages = Messages {
            headers: Pinned::new(zero, count_max),
            iovecs: Pinned::new(no_iovec, count_max),
            names: Pinned::new(RawAddr::unspecified(), count_max),
            controls: Pinned::new(Control([0; CONTROL_BYTES]), count_max),
            buffer: Pinned::new(0, count_max * slot_bytes),
            slot_bytes,
            count_max,
        };
        for i in 0..count_max {
            *messages.iovecs.get_mut(i) = libc::iovec {
                iov_base: messages.buffer.at(i * slot_bytes).cast(),
                iov_len: slot_bytes,
            };
            let name = messages.names.at(i);
            let iovec = messages.iovecs.at(i);
            let header = &mut messages.headers.get_mut(i).msg_hdr;
            header.msg_name = name.cast();
            header.msg_iov = iovec;
            header.msg_iovlen = 1;
        }
        messages
    }

    fn bytes(&self, i: usize, len_bytes: usize) -> &[u8] {
        assert!(len_bytes <= self.slot_bytes, "{len_bytes} above {}", self.slot_bytes);
        // SAFETY: slot `i` is in bounds (`at` checks its begin, the assertion its length) and initialised; nobody writes
        // while `self` is borrowed.
        unsafe { slice::from_raw_parts(self.buffer.at(i * self.slot_bytes), len_bytes) }
    }

    fn bytes_mut(&mut self, i: usize, from_bytes: usize, len_bytes: usize) -> &mut [u8] {
        assert!(
            from_bytes + len_bytes <= self.slot_bytes,
            "{from_bytes} + {len_bytes} above {}",
            self.slot_bytes
        );
        // SAFETY: as in `bytes`, with `self` borrowed exclusively.
        unsafe { slice::from_raw_parts_mut(self.buffer.at(i * self.slot_bytes).add(from_bytes), len_bytes) }
    }
}

/// Receives up to `count_max` datagrams per call (recvmmsg(2)).
pub(crate) struct RxBatch {
    messages: Messages,
    received_count: usize,
    /// Receive the GRO segment size with each datagram.
    segments: bool,
}

/// One received datagram.
pub(crate) struct Datagram<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) from: &'a RawAddr,
    /// The datagram was longer than its slot, and was cut.
    pub(crate) truncated: bool,
    /// Several frames of this size, the last possibly shorter (UDP_GRO); `None`: it is one frame.
    pub(crate) segment_bytes: Option<usize>,
}

impl RxBatch {
    /// Room for `count_max` datagrams of `slot_bytes`; with `segments` the GRO segment size is asked for.
    pub(crate) fn new(count_max: usize, slot_bytes: usize, segments: bool) -> RxBatch {
        let mut batch = RxBatch {
            messages: Messages::new(count_max, slot_bytes),
            received_count: 0,
            segments,
        };
        for i in 0..count_max {
            batch.reset(i);
        }
        batch
    }

    /// One call. What was received before is forgotten. With MSG_WAITFORONE in `flags` it waits for the first only.
    pub(crate) fn recv(&mut self, socket: &UdpSocket, flags: c_int) -> io::Result<usize> {
        // The kernel overwrites these lengths in the headers it used.
        for i in 0..self.received_count {
            self.reset(i);
        }
        self.received_count = 0;
        // SAFETY: `count_max` headers, each of which points into memory that `self.messages` owns, with its true
        // lengths; all of it outlives the call, and `&mut self` keeps everybody else out.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.messages.headers.at(0),
                self.messages.count_max as c_uint,
                flags as _,
                std::ptr::null_mut(),
            )
        };
        self.received_count = checked(received as isize)?;
        Ok(self.received_count)
    }

    /// Datagram `i` of the last call.
    ///
    /// # Panics
    /// If there were not so many.
    pub(crate) fn datagram(&self, i: usize) -> Datagram<'_> {
        assert!(i < self.received_count, "{i} of {}", self.received_count);
        let header = self.messages.headers.get(i);
        let truncated = header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
        Datagram {
            bytes: self.messages.bytes(i, header.msg_len as usize),
            from: self.messages.names.get(i),
            truncated,
            segment_bytes: if self.segments { self.segment_bytes(i) } else { None },
        }
    }

    fn reset(&mut self, i: usize) {
        let control = self.messages.controls.at(i);
        let segments = self.segments;
        let header = &mut self.messages.headers.get_mut(i).msg_hdr;
        header.msg_namelen = size_of::<RawAddr>() as _;
        if segments {
            header.msg_control = control.cast();
            header.msg_controllen = CONTROL_BYTES as _;
        }
    }

    fn segment_bytes(&self, i: usize) -> Option<usize> {
        let header = &self.messages.headers.get(i).msg_hdr;
        // SAFETY: msg_control and msg_controllen describe controls[i], which the kernel filled; CMSG_FIRSTHDR returns
        // null or a header wholly inside it, and CMSG_DATA of a UDP_GRO message of full length is an int (udp(7)).
        unsafe {
            let control = libc::CMSG_FIRSTHDR(header);
            if control.is_null()
                || (*control).cmsg_level != libc::SOL_UDP
                || (*control).cmsg_type != libc::UDP_GRO
                || (*control).cmsg_len < libc::CMSG_LEN(size_of::<c_int>() as c_uint) as _
            {
                return None;
            }
            let bytes = libc::CMSG_DATA(control).cast::<c_int>().read_unaligned();
            usize::try_from(bytes).ok().filter(|bytes| *bytes > 0)
        }
    }
}

impl std::fmt::Debug for RxBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RxBatch({} of {})", self.received_count, self.messages.count_max)
    }
}

/// Sends up to `count_max` datagrams per call (sendmmsg(2)).
pub(crate) struct TxBatch {
    messages: Messages,
    queued_count: usize,
}

impl TxBatch {
    /// Room for `count_max` datagrams of `slot_bytes`.
    pub(crate) fn new(count_max: usize, slot_bytes: usize) -> TxBatch {
        TxBatch {
            messages: Messages::new(count_max, slot_bytes),
            queued_count: 0,
        }
    }

    pub(crate) fn queued_count(&self) -> usize {
        self.queued_count
    }

    pub(crate) fn is_full(&self) -> bool {
        self.queued_count == self.messages.count_max
    }

    /// Queues one datagram; to the connected peer if `to` is `None`.
    ///
    /// # Panics
    /// If the batch is full or `len_bytes` above a slot.
    pub(crate) fn queue(&mut self, to: Option<&RawAddr>, len_bytes: usize, fill: &mut dyn FnMut(&mut [u8])) {
        let i = self.queued_count;
        fill(self.messages.bytes_mut(i, 0, len_bytes));
        self.messages.iovecs.get_mut(i).iov_len = len_bytes;
        let namelen = match to {
            Some(to) => {
                *self.messages.names.get_mut(i) = *to;
                to.len_bytes()
            }
            None => 0,
        };
        self.messages.headers.get_mut(i).msg_hdr.msg_namelen = namelen;
        self.queued_count += 1;
    }

    /// One call for datagrams `from..queued`; says how many went.
    pub(crate) fn send(&mut self, socket: &UdpSocket, from: usize, flags: c_int) -> io::Result<usize> {
        let first = self.messages.headers.at(from);
        // SAFETY: the headers `from..queued_count` exist (`at` checks the first, `queue` the last) and point into memory
        // that `self.messages` owns; the kernel writes only their msg_len.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                first,
                (self.queued_count - from) as c_uint,
                flags as _,
            )
        };
        checked(sent as isize)
    }

    pub(crate) fn clear(&mut self) {
        self.queued_count = 0;
    }
}

impl std::fmt::Debug for TxBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TxBatch({} of {})", self.queued_count, self.messages.count_max)
    }
}

/// Sends up to `count_max` trains per call (sendmmsg(2)): each is frames to one peer as a single datagram that the kernel or
/// the device cuts (UDP_SEGMENT, udp(7), since Linux 4.18).
pub(crate) struct TxTrains {
    messages: Messages,
}

impl TxTrains {
    /// Room for `count_max` trains of `train_bytes_max`. Memory that no train was ever long enough to reach is not touched.
    pub(crate) fn new(count_max: usize, train_bytes_max: usize) -> TxTrains {
        TxTrains {
            messages: Messages::new(count_max, train_bytes_max),
        }
    }

    /// Writes a frame of train `i`, `at_bytes` behind its begin.
    ///
    /// # Panics
    /// If there is no such train, or no room in it.
    pub(crate) fn push(&mut self, i: usize, at_bytes: usize, len_bytes: usize, fill: &mut dyn FnMut(&mut [u8])) {
        fill(self.messages.bytes_mut(i, at_bytes, len_bytes));
    }

    /// The first `len_bytes` of train `i`.
    pub(crate) fn bytes(&self, i: usize, len_bytes: usize) -> &[u8] {
        self.messages.bytes(i, len_bytes)
    }

    /// Train `i` has `len_bytes`, and is to be cut every `segment_bytes`; not at all if `None`. It goes to the connected peer if
    /// `to` is `None`.
    ///
    /// # Panics
    /// If there is no such train, or it cannot be as long.
    pub(crate) fn address(&mut self, i: usize, to: Option<&RawAddr>, len_bytes: usize, segment_bytes: Option<u16>) {
        assert!(len_bytes <= self.messages.slot_bytes, "{len_bytes}");
        self.messages.iovecs.get_mut(i).iov_len = len_bytes;
        if let Some(to) = to {
            *self.messages.names.get_mut(i) = *to;
        }
        let control = self.messages.controls.at(i);
        let header = &mut self.messages.headers.get_mut(i).msg_hdr;
        header.msg_namelen = to.map_or(0, RawAddr::len_bytes);
        let Some(segment_bytes) = segment_bytes else {
            header.msg_control = std::ptr::null_mut();
            header.msg_controllen = 0;
            return;
        };
        header.msg_control = control.cast();
        header.msg_controllen = CONTROL_BYTES as _;
        // SAFETY: controls[i] has room for one header and two bytes (CMSG_SPACE(2) is 24 too), so CMSG_FIRSTHDR is not null
        // and CMSG_DATA inside it.
        unsafe {
            let control = libc::CMSG_FIRSTHDR(header);
            (*control).cmsg_level = libc::SOL_UDP;
            (*control).cmsg_type = libc::UDP_SEGMENT;
            (*control).cmsg_len = libc::CMSG_LEN(size_of::<u16>() as c_uint) as _;
            libc::CMSG_DATA(control).cast::<u16>().write_unaligned(segment_bytes);
        }
    }

    /// One call for trains `from..end`, all of which were addressed; says how many went.
    ///
    /// # Panics
    /// If there are not so many.
    pub(crate) fn send(&mut self, socket: &UdpSocket, from: usize, end: usize, flags: c_int) -> io::Result<usize> {
        assert!(from < end && end <= self.messages.count_max, "{from}..{end}");
        let first = self.messages.headers.at(from);
        // SAFETY: the headers `from..end` exist (just asserted) and point into memory that `self.messages` owns, with lengths
        // that `address` has checked; the kernel writes only their msg_len.
        let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), first, (end - from) as c_uint, flags as _) };
        checked(sent as isize)
    }
}

impl std::fmt::Debug for TxTrains {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "TxTrains({} of {} bytes)",
            self.messages.count_max, self.messages.slot_bytes
        )
    }
}
