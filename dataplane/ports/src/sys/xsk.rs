//! An AF_XDP socket's system calls, and its rings where the kernel put them (Documentation/networking/af_xdp.rst).
//!
//! ```text
//!   one ring: │ producer │ … │ consumer │ … │ flags │ … │ entry │ entry │ …       at offsets that the kernel tells
//! ```

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU32, Ordering},
};

use super::{
    inet::checked,
    mapping::Mapping,
    packet::{get_option, set_option},
    xsk_ring::RingMemory,
};

/// The four rings, each with what setsockopt(2) and mmap(2) know it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ring {
    Fill,
    Completion,
    Rx,
    Tx,
}

impl Ring {
    fn option(self) -> libc::c_int {
        match self {
            Ring::Fill => libc::XDP_UMEM_FILL_RING,
            Ring::Completion => libc::XDP_UMEM_COMPLETION_RING,
            Ring::Rx => libc::XDP_RX_RING,
            Ring::Tx => libc::XDP_TX_RING,
        }
    }

    fn page_offset_bytes(self) -> libc::off_t {
        match self {
            Ring::Fill => libc::XDP_UMEM_PGOFF_FILL_RING as libc::off_t,
            Ring::Completion => libc::XDP_UMEM_PGOFF_COMPLETION_RING as libc::off_t,
            Ring::Rx => libc::XDP_PGOFF_RX_RING,
            Ring::Tx => libc::XDP_PGOFF_TX_RING,
        }
    }
}

/// A new socket.
///
/// # Errors
/// EPERM without CAP_NET_RAW in the network namespace's user namespace; EAFNOSUPPORT without CONFIG_XDP_SOCKETS.
pub(crate) fn socket() -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    let fd = checked(fd as isize)?;
    // SAFETY: a new descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// XDP_UMEM_REG. Whoever owns the memory keeps it mapped as long as the socket is open.
///
/// # Errors
/// ENOBUFS above RLIMIT_MEMLOCK without CAP_IPC_LOCK; EINVAL for metadata before Linux 6.8.
pub(crate) fn register_umem(socket: &OwnedFd, registration: &libc::xdp_umem_reg) -> io::Result<()> {
    set_option(socket, libc::SOL_XDP, libc::XDP_UMEM_REG, registration)
}

/// Makes a ring; `entries_count` is a power of two.
pub(crate) fn make_ring(socket: &OwnedFd, ring: Ring, entries_count: u32) -> io::Result<()> {
    set_option(socket, libc::SOL_XDP, ring.option(), &entries_count)
}

/// Where the parts of each ring lie in its mapping.
///
/// # Errors
/// ENOSYS: a kernel before 5.4, whose rings have no flags.
pub(crate) fn ring_offsets(socket: &OwnedFd) -> io::Result<libc::xdp_mmap_offsets> {
    // SAFETY: integers, for which zero is valid.
    let mut offsets: libc::xdp_mmap_offsets = unsafe { std::mem::zeroed() };
    let len_bytes = get_option(socket, libc::SOL_XDP, libc::XDP_MMAP_OFFSETS, &mut offsets)?;
    match len_bytes == size_of_val(&offsets) {
        true => Ok(offsets),
        false => Err(io::Error::from_raw_os_error(libc::ENOSYS)),
    }
}

/// bind(2) to a queue of an interface.
pub(crate) fn bind(
    socket: &OwnedFd,
    flags: u16,
    interface_index: u32,
    queue: u32,
    shared_with: Option<&OwnedFd>,
) -> io::Result<()> {
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: flags,
        sxdp_ifindex: interface_index,
        sxdp_queue_id: queue,
        sxdp_shared_umem_fd: shared_with.map_or(0, |first| first.as_raw_fd() as u32),
    };
    // SAFETY: the kernel reads the address, which outlives the call.
    let bound = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of_val(&address) as libc::socklen_t,
        )
    };
    checked(bound as isize).map(drop)
}

/// SO_PREFER_BUSY_POLL, SO_BUSY_POLL and SO_BUSY_POLL_BUDGET (socket(7); include/uapi/asm-generic/socket.h).
///
/// # Errors
/// The step; EPERM without CAP_NET_ADMIN.
pub(crate) fn set_busy_poll(socket: &OwnedFd, microseconds: u32, budget: u32) -> Result<(), (&'static str, io::Error)> {
    let set = |name, value: u32| set_option(socket, libc::SOL_SOCKET, name, &value);
    set(libc::SO_PREFER_BUSY_POLL, 1).map_err(|error| ("setting SO_PREFER_BUSY_POLL (Linux 5.11)", error))?;
    set(libc::SO_BUSY_POLL, microseconds).map_err(|error| ("setting SO_BUSY_POLL", error))?;
    set(libc::SO_BUSY_POLL_BUDGET, budget).map_err(|error| ("setting SO_BUSY_POLL_BUDGET", error))
}

/// Makes the kernel look at the transmit ring: at up to 32 entries in copy mode (`TX_BATCH_SIZE`, net/xdp/xsk.c).
///
/// # Errors
/// EAGAIN: some are left. EBUSY, ENOBUFS: no room now. ENETDOWN: the interface is down. ENXIO: it is gone.
pub(crate) fn kick_tx(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no buffer and no address are passed; the frames come from the ring.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            std::ptr::null(),
            0,
            libc::MSG_DONTWAIT,
            std::ptr::null(),
            0,
        )
    };
    checked(sent).map(drop)
}

/// Makes the kernel poll the device once, and the driver look at the fill ring.
///
/// # Errors
/// As [`kick_tx`].
pub(crate) fn kick_rx(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no buffer and no address are passed; the frames go to the ring.
    let received = unsafe {
        libc::recvfrom(
            socket.as_raw_fd(),
            std::ptr::null_mut(),
            0,
            libc::MSG_DONTWAIT,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        )
    };
    checked(received).map(drop)
}

/// XDP_STATISTICS. A kernel before 5.9 writes the first three only.
pub(crate) fn statistics(socket: &OwnedFd) -> io::Result<libc::xdp_statistics> {
    // SAFETY: integers, for which zero is valid.
    let mut statistics: libc::xdp_statistics = unsafe { std::mem::zeroed() };
    get_option(socket, libc::SOL_XDP, libc::XDP_STATISTICS, &mut statistics)?;
    Ok(statistics)
}

/// The error that waits on the socket, cleared (SO_ERROR): ENETDOWN when the interface was removed.
pub(crate) fn take_error(socket: &OwnedFd) -> Option<i32> {
    let mut errno = 0_i32;
    match get_option(socket, libc::SOL_SOCKET, libc::SO_ERROR, &mut errno) {
        Ok(_) if errno != 0 => Some(errno),
        _ => None,
    }
}

/// A ring as the kernel shares it. `T` is what its entries are: `u64` addresses or descriptors.
#[derive(Debug)]
pub(crate) struct MappedRing<T> {
    /// The pointers below lead into it.
    _mapping: Mapping,
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    entries_count: u32,
    _entry: PhantomData<T>,
}

// SAFETY: plain memory without thread affinity; it goes where its one owner goes.
unsafe impl<T: Send> Send for MappedRing<T> {}

impl MappedRing<u64> {
    pub(crate) fn fill(socket: &OwnedFd, offsets: &libc::xdp_mmap_offsets, entries_count: u32) -> io::Result<Self> {
        MappedRing::map(socket, Ring::Fill, &offsets.fr, entries_count)
    }
    pub(crate) fn completion(
        socket: &OwnedFd,
        offsets: &libc::xdp_mmap_offsets,
        entries_count: u32,
    ) -> io::Result<Self> {
        MappedRing::map(socket, Ring::Completion, &offsets.cr, entries_count)
    }
}

impl MappedRing<libc::xdp_desc> {
    pub(crate) fn rx(socket: &OwnedFd, offsets: &libc::xdp_mmap_offsets, entries_count: u32) -> io::Result<Self> {
        MappedRing::map(socket, Ring::Rx, &offsets.rx, entries_count)
    }
    pub(crate) fn tx(socket: &OwnedFd, offsets: &libc::xdp_mmap_offsets, entries_count: u32) -> io::Result<Self> {
        MappedRing::map(socket, Ring::Tx, &offsets.tx, entries_count)
    }
}

impl<T> MappedRing<T> {
    /// Private: `T` is right for `ring` in the constructors above and nowhere else.
    fn map(
        socket: &OwnedFd,
        ring: Ring,
        offsets: &libc::xdp_ring_offset,
        entries_count: u32,
    ) -> io::Result<MappedRing<T>> {
        assert!(entries_count.is_power_of_two(), "{entries_count} entries of {ring:?}");
        let entries_bytes = entries_count as usize * size_of::<T>();
        let len_bytes = offsets.desc as usize + entries_bytes;
        let mapping = Mapping::shared_at(socket.as_fd(), ring.page_offset_bytes(), len_bytes)?;
        let at = |offset_bytes: u64, part_bytes: usize, align_bytes: usize| {
            assert_eq!(offset_bytes as usize % align_bytes, 0, "{ring:?}: {offsets:?}");
            // In bounds, or it panics.
            NonNull::new(mapping.at(offset_bytes as usize, part_bytes)).expect("inside a mapping")
        };
        Ok(MappedRing {
            producer: at(offsets.producer, 4, 4).cast(),
            consumer: at(offsets.consumer, 4, 4).cast(),
            flags: at(offsets.flags, 4, 4).cast(),
            entries: at(offsets.desc, entries_bytes, align_of::<T>()).cast(),
            entries_count,
            _mapping: mapping,
            _entry: PhantomData,
        })
    }

    /// The kernel sleeps until it is kicked (XDP_USE_NEED_WAKEUP).
    #[inline]
    pub(crate) fn needs_wakeup(&self) -> bool {
        // SAFETY: an aligned u32 of our mapping, accessed atomically by both sides.
        let flags = unsafe { self.flags.as_ref() };
        flags.load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }
}

impl<T: Copy> RingMemory for MappedRing<T> {
    type Entry = T;
    type Index = AtomicU32;

    #[inline]
    fn entries_count(&self) -> u32 {
        self.entries_count
    }

    #[inline]
    fn producer(&self) -> &AtomicU32 {
        // SAFETY: as in `needs_wakeup`; it lives as long as the mapping, which `self` has.
        unsafe { self.producer.as_ref() }
    }

    #[inline]
    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as in `producer`.
        unsafe { self.consumer.as_ref() }
    }

    #[inline]
    fn read(&self, place: u32) -> T {
        debug_assert!(place < self.entries_count);
        let place = place & (self.entries_count - 1);
        // SAFETY: masked, so inside the entries; both entry types are integers, any bytes of which are valid. Volatile,
        // because the other side writes this memory, if at another time: the ring's indices see to that.
        unsafe { self.entries.add(place as usize).read_volatile() }
    }

    #[inline]
    fn write(&self, place: u32, entry: T) {
        debug_assert!(place < self.entries_count);
        let place = place & (self.entries_count - 1);
        // SAFETY: as in `read`.
        unsafe { self.entries.add(place as usize).write_volatile(entry) }
    }
}
