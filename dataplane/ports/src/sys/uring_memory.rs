//! The memory of a ring that the kernel is told of: receive buffers and the ring that provides them, transmit slots,
//! addresses.
//!
//! Whose a buffer is: the kernel's from [`Memory::provide`] until the completion that names it, which makes a
//! [`Buffer`]; ours while that exists. Whose a slot is: `uring.rs` knows, and asks for it only while it is free.

use std::{
    io,
    sync::atomic::{AtomicU16, Ordering},
};

use io_uring::types::{BufRingEntry, RecvMsgOut};

use super::{mapping::Mapping, uring_setup::RingConfig};

/// Room for the sender's address before a payload. `struct io_uring_recvmsg_out` (include/uapi/linux/io_uring.h) has 16
/// bytes, so that with 48 more the payload begins at a cache line; sockaddr_in6 needs 28.
const NAME_BYTES: usize = 48;
const OUT_HEADER_BYTES: usize = 16;
/// A socket address as the kernel reads it; written once, before its index is ever used.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RawAddress {
    pub(crate) bytes: [u8; 28],
    pub(crate) len_bytes: u32,
}

/// The index of no buffer: a plain receive of an empty datagram takes none (and ends the multishot, which takes it for
/// the end of a stream).
pub(super) const NO_BUFFER: u16 = u16::MAX;

/// A receive buffer that the kernel has filled and does not touch until it is given back.
#[derive(Debug)]
pub(crate) struct Buffer {
    pub(super) index: u16,
    pub(super) len_bytes: u32,
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

/// Everything whose address the kernel knows. Boxed parts do not move when this does.
pub(super) struct Memory {
    config: RingConfig,
    /// `buffers_count` entries of 16 bytes: the ring of provided buffers.
    ring: Mapping,
    rx: Mapping,
    tx: Mapping,
    message: Box<libc::msghdr>,
    addresses: Box<[RawAddress]>,
    /// Where the next provided buffer goes; the kernel's copy follows.
    ring_tail: u16,
}

impl Memory {
    /// All buffers are ours at first: give each to [`Memory::provide`] once the ring is registered.
    ///
    /// # Errors
    /// ENOMEM.
    pub(super) fn new(config: RingConfig) -> io::Result<Memory> {
        let buffers_count = usize::from(config.buffers_count);
        let tx_slots_count = usize::from(config.tx_slots_count);
        // SAFETY: all zeros is a valid msghdr: null pointers and zero lengths.
        let mut message: Box<libc::msghdr> = Box::new(unsafe { std::mem::zeroed() });
        if !config.connected {
            message.msg_namelen = NAME_BYTES as u32;
        }
        Ok(Memory {
            config,
            ring: Mapping::anonymous(buffers_count * size_of::<BufRingEntry>())?,
            rx: Mapping::anonymous(buffers_count * rx_stride_bytes(&config))?,
            tx: Mapping::anonymous(tx_slots_count * tx_stride_bytes(&config))?,
            message,
            addresses: vec![RawAddress::default(); config.addresses_max].into_boxed_slice(),
            ring_tail: 0,
        })
    }

    /// The ring of provided buffers, for the kernel.
    pub(super) fn ring_addr(&self) -> u64 {
        self.ring.as_ptr() as u64
    }

    /// All transmit slots as one piece, for the kernel to register.
    pub(super) fn tx_slots(&self) -> libc::iovec {
        libc::iovec {
            iov_base: self.tx.as_ptr().cast(),
            iov_len: usize::from(self.config.tx_slots_count) * tx_stride_bytes(&self.config),
        }
    }

    /// The header of a multishot recvmsg.
    pub(super) fn message(&self) -> *const libc::msghdr {
        &*self.message
    }

    /// Row `index` of the address table, for the kernel: a socket address and its length.
    pub(super) fn address(&self, index: usize) -> (*const libc::sockaddr, libc::socklen_t) {
        let row = &self.addresses[index];
        (row.bytes.as_ptr().cast(), row.len_bytes)
    }

    /// Writes row `index`, which must never have been written: a send may be reading the others.
    pub(super) fn set_address(&mut self, index: usize, address: RawAddress) {
        let row = &mut self.addresses[index];
        assert_eq!(row.len_bytes, 0, "row {index} of the address table is in use");
        *row = address;
    }

    /// Where transmit slot `index` begins; `payload_bytes_max` bytes are there.
    pub(super) fn tx_slot(&self, index: u16) -> *mut u8 {
        let stride_bytes = tx_stride_bytes(&self.config);
        self.tx.at(usize::from(index) * stride_bytes, stride_bytes)
    }

    /// What `buffer` holds; `None` if the kernel's header does not fit into it.
    pub(super) fn datagram(&self, buffer: &Buffer) -> Option<Datagram<'_>> {
        if buffer.index == NO_BUFFER {
            return Some(Datagram {
                name: &[],
                payload: &[],
                truncated: false,
            });
        }
        let stride_bytes = rx_stride_bytes(&self.config);
        let len_bytes = (buffer.len_bytes as usize).min(rx_buffer_bytes(&self.config));
        let start = self.rx.at(usize::from(buffer.index) * stride_bytes, stride_bytes);
        // SAFETY: a `Buffer` is made by its completion and consumed by `provide`, so the kernel does not write here
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
        let out = RecvMsgOut::parse(bytes, &self.message).ok()?;
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
    pub(super) fn provide(&mut self, buffer: Buffer) {
        if buffer.index == NO_BUFFER {
            return;
        }
        let entries: *mut BufRingEntry = self.ring.as_ptr().cast();
        let mask = self.config.buffers_count - 1;
        let stride_bytes = rx_stride_bytes(&self.config);
        let start = self.rx.at(usize::from(buffer.index) * stride_bytes, stride_bytes);
        // SAFETY: the index is masked, so the entry is inside the ring of `buffers_count` entries. The kernel reads an
        // entry only after the tail has passed it, and there are as many entries as buffers, so this one is not being
        // read. The tail overlays the first entry's reserved field, which the setters leave alone.
        unsafe {
            let entry = &mut *entries.add(usize::from(self.ring_tail & mask));
            entry.set_addr(start as u64);
            entry.set_len(rx_buffer_bytes(&self.config) as u32);
            entry.set_bid(buffer.index);
        }
        self.ring_tail = self.ring_tail.wrapping_add(1);
        // SAFETY: the tail is an aligned u16 in our mapping, shared with the kernel, which reads it with acquire.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(entries).cast_mut()) };
        tail.store(self.ring_tail, Ordering::Release);
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
