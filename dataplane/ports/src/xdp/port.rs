//! The port over a socket: headers, peers, bursts, waiting, counters.
//!
//! Half of the memory's frames go round through the fill and the receive ring, the other half lies in `free` until it is
//! sent. A packet that fits one frame is written and read in place; a longer one is put together, or taken apart, in a
//! buffer beside.

use std::{
    collections::VecDeque,
    fmt, io,
    net::{SocketAddr, UdpSocket},
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

use dataplane_waist::{Peer, Port, PortCaps, PortStats, RxFrame, TxError, Wake};
use dataplane_wire::{
    datagram::{self, Header},
    udp::{self, Checksum},
};
use nix::{
    errno::Errno,
    net::if_::if_nametoindex,
    poll::{PollFd, PollFlags, ppoll},
    sys::{
        socket::{AddressFamily, SockFlag, SockType, socket},
        time::TimeSpec,
    },
};

use super::{
    BusyPoll, Frame, OpenError, Socket, SocketOptions, TxChecksum, TxMetadata, TxRequest, Umem, UmemOptions,
    XdpChecksum, XdpCopy, XdpCounters, XdpOptions, XdpWait,
};
use crate::{
    companion,
    endpoint::{Endpoint, EndpointConfig, Heard, PacketView},
    sys::{packet, xsk_umem::TX_METADATA_BYTES},
};

const RING_FRAMES_MAX: usize = 1 << 16;
/// The most frames of one burst: what the kernel takes in one system call in copy mode (`TX_BATCH_SIZE`, net/xdp/xsk.c).
const BATCH_FRAMES_MAX: usize = 32;
const KICK_ENTRIES_MAX: u32 = 32;
/// The two sizes of a UMEM's frames.
const FRAME_BYTES_SMALL: usize = 2048;
const FRAME_BYTES_LARGE: usize = 4096;
/// What the kernel keeps of each received frame (XDP_PACKET_HEADROOM, include/linux/filter.h).
const RX_HEADROOM_BYTES: usize = 256;
/// With metadata, a packet to send begins at the next cache line after it.
const TX_START_BYTES: usize = 64;
const _: () = assert!(TX_START_BYTES >= TX_METADATA_BYTES && TX_START_BYTES <= RX_HEADROOM_BYTES);

/// When a frame left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxStamp {
    /// Which frame since the port was opened, from 0, in the order of the calls of `tx` that queued one.
    pub number: u64,
    /// Nanoseconds of CLOCK_TAI from the kernel in copy mode, of the device's own clock in zero-copy mode.
    pub tai_ns: u64,
}

/// A UDP endpoint behind an AF_XDP socket. Use it from any one thread at a time.
pub struct XdpPort {
    socket: Socket,
    umem: Umem,
    /// Keeps the kernel from answering for us; never read. `None` if the address is not one of the host's.
    _companion: Option<UdpSocket>,
    caps: PortCaps,
    wait: XdpWait,
    queue: u32,
    endpoint: Endpoint,
    /// Frames to send from.
    free: Vec<Frame>,
    /// Where a packet begins in them, and what of it fits into one.
    tx_start_bytes: usize,
    tx_segment_bytes: usize,
    checksum: XdpChecksum,
    /// A packet to send that needs several frames. Empty if none does.
    long_tx: Box<[u8]>,
    gathered: Gathered,
    /// Frames that are queued and that the kernel has not taken.
    is_kick_due: bool,
    is_gone: bool,
    /// What went wrong in a call that cannot say so.
    fault: Option<io::Error>,
    /// `None`: not asked for.
    stamps: Option<Stamps>,
    stats: PortStats,
}

/// The beginning of a received packet of several frames.
#[derive(Debug)]
struct Gathered {
    /// As long as the longest packet.
    bytes: Box<[u8]>,
    len_bytes: usize,
    is_running: bool,
    is_too_long: bool,
}

#[derive(Debug)]
struct Stamps {
    /// The number of the packet that a frame of the memory was last sent with, by its index.
    numbers: Box<[u64]>,
    /// Not yet asked for. Never longer than the transmit ring: the oldest go.
    kept: VecDeque<TxStamp>,
    kept_max: usize,
}

impl XdpPort {
    /// Makes the memory, opens the socket, binds it and gives the kernel the frames to receive into.
    ///
    /// # Errors
    /// See [`OpenError`]; [`super::probe`] explains the kernel's.
    pub fn open(options: &XdpOptions) -> Result<XdpPort, OpenError> {
        let headers_bytes = match options.local {
            SocketAddr::V4(_) => datagram::IPV4_HEADER_BYTES,
            SocketAddr::V6(_) => datagram::IPV6_HEADER_BYTES,
        };
        let packet_bytes_max = headers_bytes.saturating_add(options.frame_bytes_max);
        let is_long = packet_bytes_max > FRAME_BYTES_LARGE - RX_HEADROOM_BYTES;
        check(options, packet_bytes_max, is_long)?;
        check_mtu(options, headers_bytes)?;

        let frame_bytes = match packet_bytes_max <= FRAME_BYTES_SMALL - RX_HEADROOM_BYTES {
            true => FRAME_BYTES_SMALL,
            false => FRAME_BYTES_LARGE,
        };
        let tx_metadata = match (options.checksum, options.tx_stamps) {
            (XdpChecksum::Kernel, _) => TxMetadata::Kernel,
            (XdpChecksum::Device, _) | (XdpChecksum::Port, true) => TxMetadata::Device,
            (XdpChecksum::Port, false) => TxMetadata::None,
        };
        let (companion, local) =
            companion::open(options.local).map_err(|(asked, error)| OpenError::Failed { asked, error })?;
        let (umem, mut frames) = Umem::new(&UmemOptions {
            frame_bytes,
            frames_count: 2 * options.ring_frames,
            huge_pages: options.huge_pages,
            tx_metadata,
        })?;
        let mut socket = Socket::open(
            &umem,
            &SocketOptions {
                queue: options.queue,
                copy: options.copy,
                multi_buffer: is_long,
                busy_poll: match options.wait {
                    XdpWait::BusyPoll(how) => Some(how),
                    XdpWait::Poll | XdpWait::Spin => None,
                },
                ..SocketOptions::new(&options.interface, options.ring_frames as u32)
            },
        )?;
        for frame in frames.drain(..options.ring_frames) {
            socket.fill(frame).expect("a new fill ring has room for as many");
        }
        socket.publish_fill();

        let tx_start_bytes = match tx_metadata {
            TxMetadata::None => 0,
            TxMetadata::Device | TxMetadata::Kernel => TX_START_BYTES,
        };
        let tx_segment_bytes = frame_bytes - tx_start_bytes;
        let segments_count = packet_bytes_max.div_ceil(tx_segment_bytes);
        Ok(XdpPort {
            socket,
            umem,
            _companion: companion,
            caps: PortCaps {
                name: name(options),
                frame_bytes_max: options.frame_bytes_max,
                batch_frames_max: BATCH_FRAMES_MAX.min(options.ring_frames / segments_count),
                wake: match options.wait {
                    XdpWait::Poll => Wake::Sleeps,
                    XdpWait::BusyPoll(_) => Wake::BusyPolls,
                    XdpWait::Spin => Wake::Spins,
                },
            },
            wait: options.wait,
            queue: options.queue,
            endpoint: Endpoint::new(&EndpointConfig {
                local,
                local_mac: options.local_mac,
                peers: &options.peers,
                learn_peers_max: options.learn_peers_max,
                frame_bytes_max: options.frame_bytes_max,
            }),
            free: frames,
            tx_start_bytes,
            tx_segment_bytes,
            checksum: options.checksum,
            long_tx: vec![0; if is_long { packet_bytes_max } else { 0 }].into_boxed_slice(),
            gathered: Gathered {
                bytes: vec![0; if is_long { packet_bytes_max } else { 0 }].into_boxed_slice(),
                len_bytes: 0,
                is_running: false,
                is_too_long: false,
            },
            is_kick_due: false,
            is_gone: false,
            fault: None,
            stamps: options.tx_stamps.then(|| Stamps {
                numbers: vec![0; 2 * options.ring_frames].into_boxed_slice(),
                kept: VecDeque::with_capacity(options.ring_frames),
                kept_max: options.ring_frames,
            }),
            stats: PortStats::default(),
        })
    }

    /// The address that the port answers to.
    pub fn local_addr(&self) -> SocketAddr {
        self.endpoint.local()
    }

    /// The queue that it receives from: its place in an XSKMAP.
    pub fn queue(&self) -> u32 {
        self.queue
    }

    /// What the kernel has counted, reason by reason.
    ///
    /// # Errors
    /// What getsockopt(2) says.
    pub fn counters(&self) -> io::Result<XdpCounters> {
        self.socket.counters()
    }

    /// Hands out the time stamps of sent frames that have come since the last call; none unless
    /// [`XdpOptions::tx_stamps`] asked for them. The oldest are forgotten when there are more than the ring has entries.
    pub fn take_tx_stamps(&mut self, sink: &mut dyn FnMut(TxStamp)) {
        if let Some(stamps) = &mut self.stamps {
            stamps.kept.drain(..).for_each(sink);
        }
    }

    /// Takes back what was sent.
    fn reap(&mut self) -> io::Result<()> {
        while let Some(completed) = self.socket.complete()? {
            if let (Some(stamps), Some(tai_ns)) = (&mut self.stamps, completed.stamp_tai_ns) {
                if stamps.kept.len() == stamps.kept_max {
                    stamps.kept.pop_front();
                }
                let number = stamps.numbers[completed.frame.index()];
                stamps.kept.push_back(TxStamp { number, tai_ns });
            }
            self.free.push(completed.frame);
        }
        self.socket.release_completions();
        Ok(())
    }

    /// Queues a packet that fits one frame.
    fn queue_short(&mut self, header: &Header, packet_bytes: usize, fill: &mut dyn FnMut(&mut [u8])) -> io::Result<()> {
        let mut frame = self.free.pop().expect("tx looked");
        let range = self.tx_start_bytes..self.tx_start_bytes + packet_bytes;
        let packet = &mut self.umem.bytes_mut(&mut frame)[range.clone()];
        fill(&mut packet[header.len_bytes()..]);
        datagram::emit(header, emitted(self.checksum), packet);
        let request = self.request(header, &frame, self.checksum);
        self.socket.tx(frame, range, false, request).map_err(|_lost| no_room())
    }

    /// Queues a packet that needs several frames.
    fn queue_long(&mut self, header: &Header, packet_bytes: usize, fill: &mut dyn FnMut(&mut [u8])) -> io::Result<()> {
        let checksum = match self.checksum {
            // It would sum the first frame alone, before the others are put behind it (`xsk_build_skb`, net/xdp/xsk.c).
            XdpChecksum::Kernel => XdpChecksum::Port,
            others => others,
        };
        let packet = &mut self.long_tx[..packet_bytes];
        fill(&mut packet[header.len_bytes()..]);
        datagram::emit(header, emitted(checksum), packet);
        let (mut at_bytes, mut request) = (0, None);
        while at_bytes < packet_bytes {
            let mut frame = self.free.pop().expect("tx looked");
            let len_bytes = self.tx_segment_bytes.min(packet_bytes - at_bytes);
            let range = self.tx_start_bytes..self.tx_start_bytes + len_bytes;
            let end_bytes = at_bytes + len_bytes;
            self.umem.bytes_mut(&mut frame)[range.clone()].copy_from_slice(&self.long_tx[at_bytes..end_bytes]);
            // What is asked for stands in front of the first frame and is about all of them.
            let asked = match request {
                None => *request.insert(self.request(header, &frame, checksum)),
                Some(_) => TxRequest::default(),
            };
            self.socket
                .tx(frame, range, end_bytes < packet_bytes, asked)
                .map_err(|_lost| no_room())?;
            at_bytes = end_bytes;
        }
        Ok(())
    }

    /// What to ask for a packet whose first frame is `frame`.
    fn request(&mut self, header: &Header, frame: &Frame, checksum: XdpChecksum) -> TxRequest {
        let checksum = match checksum {
            XdpChecksum::Port => None,
            XdpChecksum::Kernel | XdpChecksum::Device => Some(TxChecksum {
                start_bytes: (header.len_bytes() - udp::HEADER_BYTES) as u16,
                offset_bytes: udp::field::CHECKSUM.start as u16,
            }),
        };
        if let Some(stamps) = &mut self.stamps {
            stamps.numbers[frame.index()] = self.stats.tx_frames_count;
        }
        TxRequest {
            checksum,
            stamp: self.stamps.is_some(),
        }
    }

    /// Sleeps until the socket has something, at most `max`.
    fn sleep(&mut self, max: Duration) -> io::Result<()> {
        self.stats.syscalls_count += 1;
        let mut polled = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        match ppoll(&mut polled, Some(TimeSpec::from_duration(max)), None) {
            // Nothing came, or something is wrong: time to ask whether the interface is still there.
            Ok(_) if !self.socket.has_received() => {
                self.is_gone |= self.socket.take_is_gone();
                if self.is_gone { Err(gone()) } else { Ok(()) }
            }
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl Port for XdpPort {
    fn caps(&self) -> PortCaps {
        self.caps
    }

    fn wait(&mut self, max: Duration) -> io::Result<()> {
        if self.is_gone {
            return Err(gone());
        }
        if max.is_zero() || self.socket.has_received() {
            return Ok(());
        }
        match self.wait {
            XdpWait::Spin => Ok(()),
            XdpWait::Poll => self.sleep(max),
            XdpWait::BusyPoll(BusyPoll { microseconds, .. }) => {
                let busy = Duration::from_micros(microseconds.into()).min(max);
                let begin = Instant::now();
                while begin.elapsed() < busy {
                    self.stats.syscalls_count += 1;
                    match self.socket.kick_rx() {
                        Ok(()) => {}
                        Err(error) => self.is_gone |= sort_kick(error)?,
                    }
                    if self.socket.has_received() {
                        return Ok(());
                    }
                }
                match max.saturating_sub(begin.elapsed()) {
                    Duration::ZERO => Ok(()),
                    rest => self.sleep(rest),
                }
            }
        }
    }

    fn rx_burst(&mut self, sink: &mut dyn FnMut(RxFrame<'_>)) -> io::Result<usize> {
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        let XdpPort {
            socket,
            umem,
            endpoint,
            gathered,
            stats,
            ..
        } = self;
        let mut hear = |bytes: &[u8]| {
            let view = PacketView {
                bytes,
                is_cut: false,
                is_tagged: false,
                skip_checksum: false,
            };
            match endpoint.hear(view) {
                Heard::Frame(from, payload) => {
                    stats.rx_frames_count += 1;
                    sink(RxFrame {
                        from,
                        bytes: &bytes[payload],
                        stamp: None,
                    });
                    return 1;
                }
                Heard::Stranger => stats.strangers_count += 1,
                Heard::Malformed => stats.malformed_count += 1,
            }
            0
        };
        let (mut frames_count, mut cut_count, mut packets_count) = (0, 0, 0);
        // A burst is bounded by what it takes in, strangers and malformed packets included.
        while packets_count < self.caps.batch_frames_max {
            let Some(segment) = socket.receive()? else { break };
            let bytes = &umem.bytes(&segment.frame)[segment.bytes.clone()];
            let is_last = !segment.is_continued;
            if is_last && !gathered.is_running {
                frames_count += hear(bytes);
            } else {
                gathered.add(bytes);
                if is_last {
                    match gathered.take() {
                        Some(packet) => frames_count += hear(packet),
                        None => cut_count += 1,
                    }
                }
            }
            packets_count += usize::from(is_last);
            // There are no more frames for this than the ring has entries.
            socket.fill(segment.frame).map_err(|_lost| no_room())?;
        }
        self.stats.malformed_count += cut_count;
        self.socket.release_rx();
        self.socket.publish_fill();
        if packets_count > 0 && self.socket.needs_rx_kick() {
            self.stats.syscalls_count += 1;
            if let Err(error) = self.socket.kick_rx() {
                self.is_gone |= sort_kick(error)?;
            }
        }
        Ok(frames_count)
    }

    fn tx(&mut self, to: Peer, len_bytes: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<(), TxError> {
        let Some(header) = self.endpoint.header_to(to) else {
            return Err(TxError::NoPeer);
        };
        if len_bytes > self.caps.frame_bytes_max {
            return Err(TxError::TooLong);
        }
        let packet_bytes = header.len_bytes() + len_bytes;
        let frames_count = packet_bytes.div_ceil(self.tx_segment_bytes);
        if self.free.len() < frames_count
            && let Err(error) = self.reap()
        {
            self.fault.get_or_insert(error);
        }
        if self.free.len() < frames_count {
            self.stats.tx_dropped_count += 1;
            return Err(TxError::Full);
        }
        let queued = match frames_count {
            1 => self.queue_short(&header, packet_bytes, fill),
            _ => self.queue_long(&header, packet_bytes, fill),
        };
        if let Err(error) = queued {
            self.fault.get_or_insert(error);
        }
        self.is_kick_due = true;
        self.stats.tx_frames_count += 1;
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        if self.is_gone {
            return Err(gone());
        }
        if !self.is_kick_due {
            return Ok(());
        }
        self.socket.publish_tx();
        let kicks_max = self.socket.tx_pending_count()?.div_ceil(KICK_ENTRIES_MAX);
        for _ in 0..kicks_max {
            if !self.socket.needs_kick() {
                break;
            }
            self.stats.syscalls_count += 1;
            let Err(error) = self.socket.kick() else { continue };
            // Some are left behind the 32 that it took: that is what the next round is for.
            if error.raw_os_error() == Some(libc::EAGAIN) {
                continue;
            }
            self.is_gone |= sort_kick(error)?;
            break;
        }
        if self.is_gone {
            return Err(gone());
        }
        // What the kernel or the device has no room for now stays in the ring for the next flush; a ring that never
        // empties refuses new frames, and those are counted.
        self.is_kick_due = self.socket.tx_pending_count()? > 0;
        self.reap()
    }

    fn stats(&self) -> PortStats {
        // A socket that cannot be asked has not told us of a loss.
        let counters = self.socket.counters().unwrap_or_default();
        PortStats {
            rx_dropped_count: counters.rx_dropped_count + counters.rx_ring_full_count,
            tx_dropped_count: self.stats.tx_dropped_count + counters.tx_invalid_count,
            ..self.stats
        }
    }
}

impl fmt::Debug for XdpPort {
    /// Without the frames: there are thousands.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("XdpPort")
            .field("local", &self.local_addr())
            .field("queue", &self.queue)
            .field("caps", &self.caps)
            .field("socket", &self.socket)
            .field("free_frames_count", &self.free.len())
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

impl AsFd for XdpPort {
    /// The socket: what goes into an XSKMAP, at [`XdpPort::queue`].
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Gathered {
    fn add(&mut self, bytes: &[u8]) {
        self.is_running = true;
        let end_bytes = self.len_bytes + bytes.len();
        match self.bytes.get_mut(self.len_bytes..end_bytes) {
            Some(place) => {
                place.copy_from_slice(bytes);
                self.len_bytes = end_bytes;
            }
            None => self.is_too_long = true,
        }
    }

    /// The whole packet; `None` if it was too long. The next one begins.
    fn take(&mut self) -> Option<&[u8]> {
        let is_whole = !self.is_too_long;
        let len_bytes = std::mem::take(&mut self.len_bytes);
        self.is_running = false;
        self.is_too_long = false;
        is_whole.then_some(&self.bytes[..len_bytes])
    }
}

/// What the port writes into the checksum field.
fn emitted(checksum: XdpChecksum) -> Checksum {
    match checksum {
        XdpChecksum::Port => Checksum::Full,
        XdpChecksum::Kernel | XdpChecksum::Device => Checksum::Partial,
    }
}

/// True: the interface is gone. What passes by itself is no error: no room, a link that is down and may come up again.
fn sort_kick(error: io::Error) -> io::Result<bool> {
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EBUSY | libc::ENOBUFS | libc::ENOMEM | libc::ENETDOWN | libc::EINTR) => Ok(false),
        Some(libc::ENXIO | libc::ENODEV) => Ok(true),
        _ => Err(error),
    }
}

fn gone() -> io::Error {
    io::Error::new(
        io::ErrorKind::NotConnected,
        "the interface of this AF_XDP port is gone; open a new port when it is back",
    )
}

fn no_room() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "a ring of this AF_XDP port is full although its frames were all given back: the kernel's side is corrupt; close the \
         port and open a new one",
    )
}

fn name(options: &XdpOptions) -> &'static str {
    match (options.copy, options.wait) {
        (XdpCopy::Copy, XdpWait::Poll) => "af-xdp",
        (XdpCopy::Copy, XdpWait::BusyPoll(_)) => "af-xdp-busy-poll",
        (XdpCopy::Copy, XdpWait::Spin) => "af-xdp-spin",
        (XdpCopy::ZeroCopy, XdpWait::Poll) => "af-xdp-zc",
        (XdpCopy::ZeroCopy, XdpWait::BusyPoll(_)) => "af-xdp-zc-busy-poll",
        (XdpCopy::ZeroCopy, XdpWait::Spin) => "af-xdp-zc-spin",
    }
}

fn check(options: &XdpOptions, packet_bytes_max: usize, is_long: bool) -> Result<(), OpenError> {
    let refuse = |why: String| Err(OpenError::Options(why));
    let local = options.local;
    if let Some(peer) = options.peers.iter().find(|peer| peer.addr.is_ipv4() != local.is_ipv4()) {
        return refuse(format!("peer {} is not of the family of {local}", peer.addr));
    }
    if local.ip().is_unspecified() || local.ip().is_multicast() {
        return refuse(format!("{local} is not an address that frames can come from"));
    }
    // The longest UDP payload; the MTU is checked when the interface is known.
    if !(1..=65_507).contains(&options.frame_bytes_max) {
        return refuse(format!(
            "frame_bytes_max is {}; it must be 1 to 65507",
            options.frame_bytes_max
        ));
    }
    if !options.ring_frames.is_power_of_two() || !(4..=RING_FRAMES_MAX).contains(&options.ring_frames) {
        return refuse(format!(
            "ring_frames is {}; it must be a power of two, 4 to {RING_FRAMES_MAX}",
            options.ring_frames
        ));
    }
    if is_long && !options.multi_buffer {
        return refuse(format!(
            "packets of {packet_bytes_max} bytes do not fit a frame of {FRAME_BYTES_LARGE}, of which the kernel keeps \
             {RX_HEADROOM_BYTES}: allow several per packet (multi_buffer, Linux 6.6), or a frame_bytes_max of {} at most",
            options.frame_bytes_max - (packet_bytes_max + RX_HEADROOM_BYTES - FRAME_BYTES_LARGE)
        ));
    }
    let segments_count = packet_bytes_max.div_ceil(FRAME_BYTES_LARGE - RX_HEADROOM_BYTES);
    if options.ring_frames < segments_count {
        return refuse(format!(
            "ring_frames is {}; a packet of {packet_bytes_max} bytes alone takes {segments_count}",
            options.ring_frames
        ));
    }
    if options.checksum == XdpChecksum::Kernel && options.copy == XdpCopy::ZeroCopy {
        return refuse(
            "in zero-copy mode the kernel sees no frame and can make no checksum: let the device".to_owned(),
        );
    }
    Ok(())
}

fn check_mtu(options: &XdpOptions, headers_bytes: usize) -> Result<(), OpenError> {
    let no_interface = |error| OpenError::NoInterface {
        interface: options.interface.clone(),
        error,
    };
    if_nametoindex(options.interface.as_str()).map_err(|errno| no_interface(errno.into()))?;
    // Of any family but AF_XDP, whose sockets do not take this question.
    let asking = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).map_err(|errno| {
        OpenError::Failed {
            asked: "opening a socket to ask for the MTU",
            error: errno.into(),
        }
    })?;
    let mtu_bytes = packet::interface_mtu_bytes(asking.as_fd(), &options.interface).map_err(no_interface)?;
    let packet_bytes = headers_bytes - dataplane_wire::ethernet::HEADER_BYTES + options.frame_bytes_max;
    if packet_bytes > mtu_bytes {
        return Err(OpenError::Options(format!(
            "frames of {} bytes make IP packets of {packet_bytes}, above the MTU of {}, which is {mtu_bytes}; try `ip link set \
             {} mtu {packet_bytes}`",
            options.frame_bytes_max, options.interface, options.interface
        )));
    }
    Ok(())
}
