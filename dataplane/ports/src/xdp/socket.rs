//! One AF_XDP socket: four rings over a UMEM, on one queue of one interface.

use std::{
    io,
    ops::Range,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    thread,
    time::Duration,
};

use nix::net::if_::if_nametoindex;

use super::{
    BusyPoll, OpenError, XdpCopy,
    error::{bind_error, socket_error, umem_error},
};
use crate::sys::{
    xsk::{self, MappedRing, Ring},
    xsk_ring::{Consumer, Producer},
    xsk_umem::{self, Frame, Owner, TX_METADATA_BYTES, TxMetadata, Umem},
};

/// The most entries of a ring. The kernel's own bound is the memory that a ring takes.
const RING_ENTRIES_MAX: u32 = 1 << 17;
/// A closed socket's queue is given back by a work item of the kernel (`xp_put_pool`, net/xdp/xsk_buff_pool.c), so for a
/// moment after a close it is busy: for milliseconds, or much longer where the CPUs are. So it is tried for two seconds.
const BUSY_TRIES_COUNT: u32 = 400;
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// What [`Socket::open`] needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// The interface, as `ip link` names it.
    pub interface: String,
    /// Its queue, from 0.
    pub queue: u32,
    /// Entries of the fill ring: a power of two.
    pub fill_entries: u32,
    /// Entries of the completion ring: a power of two. As many as frames can be sent at once, so that it never overflows.
    pub completion_entries: u32,
    /// Entries of the receive ring: a power of two.
    pub rx_entries: u32,
    /// Entries of the transmit ring: a power of two.
    pub tx_entries: u32,
    /// Who moves the bytes. Of a UMEM's sockets the first one's decides.
    pub copy: XdpCopy,
    /// Let packets of several frames come and go (XDP_USE_SG, Linux 6.6). Of a UMEM's sockets the first one's decides.
    pub multi_buffer: bool,
    /// Let the kernel say when it must be kicked (XDP_USE_NEED_WAKEUP). Of a UMEM's sockets the first one's decides.
    pub need_wakeup: bool,
    /// Poll the device from system calls instead of from interrupts.
    pub busy_poll: Option<BusyPoll>,
}

impl SocketOptions {
    /// Queue 0 of `interface`, copy mode, all rings of `entries` entries.
    pub fn new(interface: &str, entries: u32) -> SocketOptions {
        SocketOptions {
            interface: interface.to_owned(),
            queue: 0,
            fill_entries: entries,
            completion_entries: entries,
            rx_entries: entries,
            tx_entries: entries,
            copy: XdpCopy::Copy,
            multi_buffer: false,
            need_wakeup: true,
            busy_poll: None,
        }
    }
}

/// What the socket counted since it was opened: XDP_STATISTICS, `struct xdp_statistics` of include/uapi/linux/if_xdp.h.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XdpCounters {
    /// Frames lost because the fill ring was empty (in copy mode), or because they were longer than a frame of the UMEM
    /// and the socket takes none of several.
    pub rx_dropped_count: u64,
    /// Frames lost because the receive ring was full.
    pub rx_ring_full_count: u64,
    /// How often the kernel wanted a frame from the fill ring and found none. In copy mode each such frame is also in
    /// `rx_dropped_count`; in zero-copy mode the driver waits or drops, and counts that itself (`ethtool -S`).
    pub rx_fill_ring_empty_count: u64,
    /// Entries of the fill ring that named no frame.
    pub rx_invalid_count: u64,
    /// Entries of the transmit ring that named no frame.
    pub tx_invalid_count: u64,
    /// How often the kernel looked at the transmit ring and found it empty; not a loss.
    pub tx_ring_empty_count: u64,
}

/// What a frame to send asks for. Needs a UMEM with [`TxMetadata`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TxRequest {
    /// Sum up the packet and write the complement.
    pub checksum: Option<TxChecksum>,
    /// Say when it left ([`Completed::stamp_tai_ns`]).
    pub stamp: bool,
}

/// Which checksum to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxChecksum {
    /// From which byte of the packet to sum: where the UDP header begins.
    pub start_bytes: u16,
    /// Where, from there, the result goes. The sum of the pseudo header must stand there (`udp::Checksum::Partial`).
    pub offset_bytes: u16,
}

/// A received frame, or a part of one.
#[derive(Debug, PartialEq, Eq)]
pub struct Segment {
    /// The memory, ours again.
    pub frame: Frame,
    /// Where in it the bytes are.
    pub bytes: Range<usize>,
    /// The packet goes on in the next segment (XDP_PKT_CONTD).
    pub is_continued: bool,
}

/// A frame that was sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Completed {
    /// The memory, ours again.
    pub frame: Frame,
    /// When it left, if it asked: nanoseconds of CLOCK_TAI from the kernel in copy mode (`xsk_destruct_skb`), of the
    /// device's own clock in zero-copy mode.
    pub stamp_tai_ns: Option<u64>,
}

/// What became of the frames that were queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flushed {
    /// System calls that it took.
    pub kicks_count: u64,
    /// Some are still in the ring: there was no room for them below. The next [`Socket::flush_tx`] tries again.
    pub is_pending: bool,
    /// The interface was removed.
    pub is_gone: bool,
}

/// What the kernel takes in one system call in copy mode (`TX_BATCH_SIZE`, net/xdp/xsk.c).
const KICK_ENTRIES_MAX: u32 = 32;

/// The socket. Receives what an XDP program redirects to it through an XSKMAP ([`Socket::as_fd`] is what goes into the map),
/// and transmits without any program.
#[derive(Debug)]
pub struct Socket {
    // In the order of the kernel's clean-up: first the rings are unmapped, then the socket is closed, then the memory goes,
    // if no other socket has it. The kernel has its own hold on all three, so an early unmapping would not be unsound, but a
    // ring that outlives its socket is memory that nobody frees.
    fill: Producer<MappedRing<u64>>,
    completion: Consumer<MappedRing<u64>>,
    rx: Consumer<MappedRing<libc::xdp_desc>>,
    tx: Producer<MappedRing<libc::xdp_desc>>,
    socket: Arc<OwnedFd>,
    umem: Umem,
    filled: Owner,
    sent: Owner,
    has_metadata: bool,
    is_copy: bool,
}

impl Socket {
    /// Opens a socket over `umem`: the first one registers it, further ones share it, each with rings of its own, on
    /// whichever interfaces and queues.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(umem: &Umem, options: &SocketOptions) -> Result<Socket, OpenError> {
        check(options)?;
        let interface_index = if_nametoindex(options.interface.as_str()).map_err(|errno| OpenError::NoInterface {
            interface: options.interface.clone(),
            error: errno.into(),
        })?;
        let mut tries_count = 1;
        loop {
            match Socket::try_open(umem, options, interface_index) {
                Err(OpenError::QueueBusy { .. }) if tries_count < BUSY_TRIES_COUNT => {
                    tries_count += 1;
                    thread::sleep(BUSY_PAUSE);
                }
                said => return said,
            }
        }
    }

    fn try_open(umem: &Umem, options: &SocketOptions, interface_index: u32) -> Result<Socket, OpenError> {
        let opened = umem.register(|first| {
            let fd = Arc::new(xsk::socket().map_err(|error| socket_error("opening an AF_XDP socket", error))?);
            if first.is_none() {
                xsk::register_umem(&fd, &umem.registration()).map_err(|error| umem_error(umem, error))?;
            }
            let failed = |asked| move |error| OpenError::Failed { asked, error };
            for (ring, entries_count) in [
                (Ring::Fill, options.fill_entries),
                (Ring::Completion, options.completion_entries),
                (Ring::Rx, options.rx_entries),
                (Ring::Tx, options.tx_entries),
            ] {
                xsk::make_ring(&fd, ring, entries_count).map_err(failed("making a ring"))?;
            }
            let offsets = xsk::ring_offsets(&fd).map_err(|error| OpenError::NotSupported {
                asked: "telling where the rings are",
                error,
                needs: "it needs Linux 5.4 or newer",
            })?;
            let mapping_failed = failed("mapping a ring");
            let fill = MappedRing::fill(&fd, &offsets, options.fill_entries).map_err(mapping_failed)?;
            let completion =
                MappedRing::completion(&fd, &offsets, options.completion_entries).map_err(mapping_failed)?;
            let rx = MappedRing::rx(&fd, &offsets, options.rx_entries).map_err(mapping_failed)?;
            let tx = MappedRing::tx(&fd, &offsets, options.tx_entries).map_err(mapping_failed)?;
            if let Some(BusyPoll { microseconds, budget }) = options.busy_poll {
                xsk::set_busy_poll(&fd, microseconds, budget).map_err(|(asked, error)| socket_error(asked, error))?;
            }
            // The kernel refuses flags beside XDP_SHARED_UMEM: the first socket's hold.
            let flags = match &first {
                Some(_) => libc::XDP_SHARED_UMEM,
                None => bind_flags(options),
            };
            xsk::bind(&fd, flags, interface_index, options.queue, first.as_deref())
                .map_err(|error| bind_error(options, first.is_some(), error))?;
            let id = umem
                .new_socket_id()
                .ok_or_else(|| OpenError::Options("a UMEM has had 16383 sockets; make a new one".to_owned()))?;
            let corrupt = |error: crate::sys::xsk_ring::IndexCorrupt| OpenError::Failed {
                asked: "reading a new ring",
                error: error.into(),
            };
            let socket = Socket {
                fill: Producer::new(fill).map_err(corrupt)?,
                completion: Consumer::new(completion).map_err(corrupt)?,
                rx: Consumer::new(rx).map_err(corrupt)?,
                tx: Producer::new(tx).map_err(corrupt)?,
                socket: Arc::clone(&fd),
                umem: umem.clone(),
                filled: Owner::fill(id),
                sent: Owner::tx(id),
                has_metadata: umem.options().tx_metadata != TxMetadata::None,
                is_copy: options.copy == XdpCopy::Copy,
            };
            Ok((fd, socket))
        });
        opened.map_err(|error| error.unwrap_or(OpenError::FirstClosed))
    }

    /// The memory.
    pub fn umem(&self) -> &Umem {
        &self.umem
    }

    /// Lets the kernel receive into `frame`, once [`Socket::publish_fill`] has told it.
    ///
    /// # Errors
    /// The fill ring is full: the frame back.
    ///
    /// # Panics
    /// If it is another UMEM's.
    #[inline]
    pub fn fill(&mut self, frame: Frame) -> Result<(), Frame> {
        match self.fill.push(self.umem.start_bytes(&frame) as u64) {
            Ok(true) => {
                self.umem.give(frame, self.filled);
                Ok(())
            }
            Ok(false) | Err(_) => Err(frame),
        }
    }

    /// Tells the kernel of all frames given to [`Socket::fill`].
    #[inline]
    pub fn publish_fill(&mut self) {
        self.fill.publish();
    }

    /// The next received segment; its place in the ring is given back by [`Socket::release_rx`].
    ///
    /// # Errors
    /// The kernel's side of the rings is corrupt.
    #[inline]
    pub fn receive(&mut self) -> io::Result<Option<Segment>> {
        let Some(descriptor) = self.rx.pop()? else {
            return Ok(None);
        };
        let (frame, start) = self.umem.take_back(descriptor.addr, descriptor.len, self.filled)?;
        Ok(Some(Segment {
            frame,
            bytes: start..start + descriptor.len as usize,
            is_continued: descriptor.options & libc::XDP_PKT_CONTD != 0,
        }))
    }

    /// Gives the places of all received segments back.
    #[inline]
    pub fn release_rx(&mut self) {
        self.rx.release();
    }

    /// Something was received.
    #[inline]
    pub fn has_received(&self) -> bool {
        self.rx.has_some()
    }

    /// Queues the given bytes of `frame` to be sent, once [`Socket::publish_tx`] and [`Socket::kick`] have told the kernel.
    /// `is_continued`: the packet goes on in the next frame that is queued.
    ///
    /// # Errors
    /// The transmit ring is full: the frame back.
    ///
    /// # Panics
    /// If the bytes are not the frame's, if it is another UMEM's, if something is requested of a UMEM without metadata, or if
    /// with metadata there are fewer than 24 bytes in front.
    #[inline]
    pub fn tx(
        &mut self,
        mut frame: Frame,
        bytes: Range<usize>,
        is_continued: bool,
        request: TxRequest,
    ) -> Result<(), Frame> {
        assert!(
            bytes.start <= bytes.end && bytes.end <= self.umem.options().frame_bytes,
            "{bytes:?} of a frame of {} bytes",
            self.umem.options().frame_bytes
        );
        let mut options = if is_continued { libc::XDP_PKT_CONTD } else { 0 };
        if self.has_metadata {
            let room = metadata_room(&self.umem, &mut frame, bytes.start);
            let mut flags = 0;
            if request.checksum.is_some() {
                flags |= libc::XDP_TXMD_FLAGS_CHECKSUM;
            }
            if request.stamp {
                flags |= libc::XDP_TXMD_FLAGS_TIMESTAMP;
            }
            if flags != 0 {
                options |= libc::XDP_TX_METADATA;
            }
            let checksum = request.checksum.map(|what| (what.start_bytes, what.offset_bytes));
            xsk_umem::write_metadata(room, flags, checksum);
        } else {
            assert_eq!(request, TxRequest::default(), "asked of a UMEM without metadata");
        }
        let descriptor = libc::xdp_desc {
            addr: (self.umem.start_bytes(&frame) + bytes.start) as u64,
            len: bytes.len() as u32,
            options,
        };
        match self.tx.push(descriptor) {
            Ok(true) => {
                self.umem.give(frame, self.sent);
                Ok(())
            }
            Ok(false) | Err(_) => Err(frame),
        }
    }

    /// Tells the kernel of all frames given to [`Socket::tx`].
    #[inline]
    pub fn publish_tx(&mut self) {
        self.tx.publish();
    }

    /// Published entries that the kernel has not looked at.
    ///
    /// # Errors
    /// The kernel's side of the ring is corrupt.
    #[inline]
    pub fn tx_pending_count(&mut self) -> io::Result<u32> {
        Ok(self.tx.pending_count()?)
    }

    /// Whether the kernel must be kicked to send: always in copy mode, where sending is the system call's work.
    #[inline]
    pub fn needs_kick(&self) -> bool {
        self.is_copy || self.tx.memory().needs_wakeup()
    }

    /// Whether the driver waits for a system call to look at the fill ring.
    #[inline]
    pub fn needs_rx_kick(&self) -> bool {
        self.fill.memory().needs_wakeup()
    }

    /// Publishes all frames given to [`Socket::tx`] and kicks the kernel, where it must be, until it has looked at all.
    ///
    /// # Errors
    /// What is no matter of room, nor of a link that is down and may come up again.
    pub fn flush_tx(&mut self) -> io::Result<Flushed> {
        self.publish_tx();
        let (mut kicks_count, mut is_gone) = (0, false);
        for _ in 0..self.tx_pending_count()?.div_ceil(KICK_ENTRIES_MAX) {
            if !self.needs_kick() {
                break;
            }
            kicks_count += 1;
            let Err(error) = self.kick() else { continue };
            // Some are left behind the 32 that it took: that is what the next round is for.
            if error.raw_os_error() == Some(libc::EAGAIN) {
                continue;
            }
            is_gone = sort_kick(error)?;
            break;
        }
        Ok(Flushed {
            kicks_count,
            is_pending: self.tx_pending_count()? > 0,
            is_gone,
        })
    }

    /// One sendto(2): lets the kernel take up to 32 entries of the transmit ring in copy mode.
    ///
    /// # Errors
    /// EAGAIN: some are left. EBUSY, ENOBUFS: no room now. ENETDOWN: the interface is down. ENXIO: it is gone.
    #[inline]
    pub fn kick(&self) -> io::Result<()> {
        xsk::kick_tx(self.socket.as_fd())
    }

    /// One recvfrom(2): lets the kernel poll the device once.
    ///
    /// # Errors
    /// As [`Socket::kick`].
    #[inline]
    pub fn kick_rx(&self) -> io::Result<()> {
        xsk::kick_rx(self.socket.as_fd())
    }

    /// The next frame that was sent; its place in the ring is given back by [`Socket::release_completions`].
    ///
    /// # Errors
    /// The kernel's side of the rings is corrupt.
    #[inline]
    pub fn complete(&mut self) -> io::Result<Option<Completed>> {
        let Some(address) = self.completion.pop()? else {
            return Ok(None);
        };
        let (mut frame, start) = self.umem.take_back(address, 0, self.sent)?;
        let stamp_tai_ns = match self.has_metadata && start >= TX_METADATA_BYTES {
            true => xsk_umem::read_stamp(metadata_room(&self.umem, &mut frame, start)),
            false => None,
        };
        Ok(Some(Completed { frame, stamp_tai_ns }))
    }

    /// Gives the places of all completed frames back.
    #[inline]
    pub fn release_completions(&mut self) {
        self.completion.release();
    }

    /// What the kernel has counted.
    ///
    /// # Errors
    /// What getsockopt(2) says.
    pub fn counters(&self) -> io::Result<XdpCounters> {
        let said = xsk::statistics(&self.socket)?;
        Ok(XdpCounters {
            rx_dropped_count: said.rx_dropped,
            rx_ring_full_count: said.rx_ring_full,
            rx_fill_ring_empty_count: said.rx_fill_ring_empty_descs,
            rx_invalid_count: said.rx_invalid_descs,
            tx_invalid_count: said.tx_invalid_descs,
            tx_ring_empty_count: said.tx_ring_empty_descs,
        })
    }

    /// The interface was removed. Says so once.
    pub(crate) fn take_is_gone(&self) -> bool {
        xsk::take_error(&self.socket) == Some(libc::ENETDOWN)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// True: the interface is gone. What passes by itself is no error: no room, a link that is down and may come up again.
pub(super) fn sort_kick(error: io::Error) -> io::Result<bool> {
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EBUSY | libc::ENOBUFS | libc::ENOMEM | libc::ENETDOWN | libc::EINTR) => Ok(false),
        Some(libc::ENXIO | libc::ENODEV) => Ok(true),
        _ => Err(error),
    }
}

/// The bytes in front of those that are sent.
fn metadata_room<'a>(umem: &'a Umem, frame: &'a mut Frame, start: usize) -> &'a mut [u8; TX_METADATA_BYTES] {
    let (before, _) = umem.bytes_mut(frame).split_at_mut(start);
    before.last_chunk_mut().expect("24 bytes in front of what is sent")
}

fn bind_flags(options: &SocketOptions) -> u16 {
    let mut flags = match options.copy {
        XdpCopy::Copy => libc::XDP_COPY,
        XdpCopy::ZeroCopy => libc::XDP_ZEROCOPY,
    };
    if options.need_wakeup {
        flags |= libc::XDP_USE_NEED_WAKEUP;
    }
    if options.multi_buffer {
        flags |= libc::XDP_USE_SG;
    }
    flags
}

fn check(options: &SocketOptions) -> Result<(), OpenError> {
    for (name, entries_count) in [
        ("fill_entries", options.fill_entries),
        ("completion_entries", options.completion_entries),
        ("rx_entries", options.rx_entries),
        ("tx_entries", options.tx_entries),
    ] {
        if !entries_count.is_power_of_two() || entries_count > RING_ENTRIES_MAX {
            return Err(OpenError::Options(format!(
                "{name} is {entries_count}; the kernel takes powers of two, and we up to {RING_ENTRIES_MAX}"
            )));
        }
    }
    Ok(())
}
