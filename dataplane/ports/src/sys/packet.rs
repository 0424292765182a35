//! A packet socket with its two rings in shared memory (packet(7), Documentation/networking/packet_mmap.rst), version 2.
//!
//! ```text
//!   0 ┌ receive frames: frames_count × frame_bytes ┐ transmit frames: as many ┐
//!     └────────────────────────────────────────────┴──────────────────────────┘
//!   one frame: │ tpacket2_hdr │ … │ Ethernet … │
//! ```
//!
//! The first word of a frame says whose it is. The other side's bytes are read only after an acquire load of that word,
//! and given away by a release store; between the two the frame is ours alone, so it is lent as a slice.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    sync::atomic::{AtomicU32, Ordering},
};

use super::{inet::checked, mapping::Mapping};
use crate::endpoint::PacketView;

/// Where a received packet's network header begins at least: TPACKET_ALIGN(TPACKET2_HDRLEN + 16), net/packet/af_packet.c
/// `tpacket_rcv`.
pub(crate) const RX_NETWORK_OFFSET_BYTES: usize = 80;
const _: () = assert!((libc::TPACKET2_HDRLEN + 16).next_multiple_of(16) == RX_NETWORK_OFFSET_BYTES);
/// Where the kernel looks for a frame to send: after the header, without room for an address (`tpacket_snd`).
const TX_OFFSET_BYTES: usize = size_of::<libc::tpacket2_hdr>().next_multiple_of(libc::TPACKET_ALIGNMENT);
const PAGE_BYTES: usize = 4096;

/// What a packet socket is bound to and how large its rings are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PacketConfig<'a> {
    pub(crate) interface_index: u32,
    /// The EtherType it receives and sends.
    pub(crate) ether_type: u16,
    /// Room for one frame and its header: a power of two, at least 2048.
    pub(crate) frame_bytes: usize,
    /// Frames in each ring: a power of two.
    pub(crate) frames_count: usize,
    /// What it receives; runs in the kernel before a frame takes room in the ring.
    pub(crate) filter: &'a [libc::sock_filter],
}

/// The socket and its rings.
#[derive(Debug)]
pub(crate) struct PacketRings {
    socket: OwnedFd,
    memory: Mapping,
    frame_bytes: usize,
    frames_count: usize,
    rx_next: usize,
    tx_next: usize,
}

/// The steps of [`PacketRings::open`], for a message that names the one that failed.
pub(crate) type Step = &'static str;

impl PacketRings {
    /// Opens and binds.
    ///
    /// # Errors
    /// EPERM without CAP_NET_RAW in the network namespace's user namespace; what the kernel says otherwise, with the
    /// step that it said it to.
    pub(crate) fn open(config: &PacketConfig<'_>) -> Result<PacketRings, (Step, io::Error)> {
        let (frame_bytes, frames_count) = (config.frame_bytes, config.frames_count);
        let ring_bytes = frame_bytes * frames_count;
        assert!(
            frame_bytes.is_power_of_two() && frame_bytes >= 2048 && frames_count.is_power_of_two() && frames_count >= 2,
            "{config:?}"
        );
        let socket = packet_socket().map_err(|error| ("opening a packet socket", error))?;

        let version = libc::tpacket_versions::TPACKET_V2 as libc::c_int;
        set_option(&socket, libc::SOL_PACKET, libc::PACKET_VERSION, &version)
            .map_err(|error| ("choosing ring version 2", error))?;
        // Before the rings: the kernel refuses it after. A frame that it finds malformed is dropped, not a stop.
        set_option(&socket, libc::SOL_PACKET, libc::PACKET_LOSS, &1_i32)
            .map_err(|error| ("setting PACKET_LOSS", error))?;
        set_option(&socket, libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, &1_i32)
            .map_err(|error| ("setting PACKET_QDISC_BYPASS", error))?;
        set_option(&socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &1_i32)
            .map_err(|error| ("setting PACKET_IGNORE_OUTGOING (Linux 4.20)", error))?;
        attach_filter(socket.as_fd(), config.filter).map_err(|error| ("attaching the filter", error))?;

        // Powers of two above: blocks have no gaps, so frame i of a ring lies at i × frame_bytes.
        let block_bytes = frame_bytes.max(PAGE_BYTES);
        let request = libc::tpacket_req {
            tp_block_size: block_bytes as u32,
            tp_block_nr: (ring_bytes / block_bytes) as u32,
            tp_frame_size: frame_bytes as u32,
            tp_frame_nr: frames_count as u32,
        };
        set_option(&socket, libc::SOL_PACKET, libc::PACKET_RX_RING, &request)
            .map_err(|error| ("making the receive ring", error))?;
        set_option(&socket, libc::SOL_PACKET, libc::PACKET_TX_RING, &request)
            .map_err(|error| ("making the transmit ring", error))?;
        let memory = Mapping::shared(socket.as_fd(), 2 * ring_bytes).map_err(|error| ("mapping the rings", error))?;
        bind(&socket, config).map_err(|error| ("binding to the interface", error))?;
        Ok(PacketRings {
            socket,
            memory,
            frame_bytes,
            frames_count,
            rx_next: 0,
            tx_next: 0,
        })
    }

    /// The socket, to wait on.
    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The longest frame that can be sent.
    pub(crate) fn tx_bytes_max(&self) -> usize {
        self.frame_bytes - TX_OFFSET_BYTES
    }

    /// A frame is there.
    pub(crate) fn has_received(&self) -> bool {
        self.status(self.rx_next).load(Ordering::Acquire) & libc::TP_STATUS_USER != 0
    }

    /// Lends the next received frame to `look`, then gives its place back; `None` if there is none.
    pub(crate) fn receive<R>(&mut self, look: impl FnOnce(PacketView<'_>) -> R) -> Option<R> {
        let status = self.status(self.rx_next).load(Ordering::Acquire);
        if status & libc::TP_STATUS_USER == 0 {
            return None;
        }
        let frame = self.frame(self.rx_next);
        // SAFETY: the status word says that the frame is ours until the store below; it begins with a header, and
        // `frame` is aligned for it (frames are 2048-byte aligned in a page-aligned mapping).
        let header = unsafe { &*frame.cast::<libc::tpacket2_hdr>() };
        let start_bytes = usize::from(header.tp_mac).min(self.frame_bytes);
        let len_bytes = (header.tp_snaplen as usize).min(self.frame_bytes - start_bytes);
        let view = PacketView {
            // SAFETY: clamped to the frame, which is ours as above; `look` cannot keep the slice.
            bytes: unsafe { std::slice::from_raw_parts(frame.add(start_bytes), len_bytes) },
            is_cut: len_bytes < header.tp_len as usize,
            is_tagged: status & libc::TP_STATUS_VLAN_VALID != 0,
            skip_checksum: status & (libc::TP_STATUS_CSUMNOTREADY | libc::TP_STATUS_CSUM_VALID) != 0,
        };
        let said = look(view);
        self.status(self.rx_next)
            .store(libc::TP_STATUS_KERNEL, Ordering::Release);
        self.rx_next = (self.rx_next + 1) % self.frames_count;
        Some(said)
    }

    /// Lets `fill` write a frame of `len_bytes` into the next free place and marks it to be sent by [`PacketRings::kick`].
    /// `false`, without a call of `fill`: the ring is full.
    ///
    /// # Panics
    /// If `len_bytes` is above [`PacketRings::tx_bytes_max`].
    pub(crate) fn send(&mut self, len_bytes: usize, fill: impl FnOnce(&mut [u8])) -> bool {
        assert!(len_bytes <= self.tx_bytes_max(), "{len_bytes} bytes do not fit");
        let index = self.frames_count + self.tx_next;
        let status = self.status(index).load(Ordering::Acquire);
        if status & (libc::TP_STATUS_SEND_REQUEST | libc::TP_STATUS_SENDING) != 0 {
            return false;
        }
        let frame = self.frame(index);
        // SAFETY: the status word says that the frame is ours until the store below; the length is within it.
        fill(unsafe { std::slice::from_raw_parts_mut(frame.add(TX_OFFSET_BYTES), len_bytes) });
        // SAFETY: as above; aligned as in `receive`.
        unsafe { (&raw mut (*frame.cast::<libc::tpacket2_hdr>()).tp_len).write(len_bytes as u32) };
        self.status(index)
            .store(libc::TP_STATUS_SEND_REQUEST, Ordering::Release);
        self.tx_next = (self.tx_next + 1) % self.frames_count;
        true
    }

    /// Makes the kernel send what is marked. What it has no room for stays marked, for the next kick; that it took some is a
    /// success, so ask [`PacketRings::has_marked`].
    ///
    /// # Errors
    /// EAGAIN, ENOBUFS, ENETDOWN: some is left. ENXIO: the interface is gone.
    pub(crate) fn kick(&self) -> io::Result<()> {
        // SAFETY: no buffer and no address are passed; the frames come from the ring.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                std::ptr::null(),
                0,
                libc::MSG_DONTWAIT,
                std::ptr::null(),
                0,
            )
        };
        checked(sent).map(drop)
    }

    /// A frame waits for the next kick. The kernel takes them in order, so the one that was marked last tells.
    ///
    /// [`PacketRings::kick`] does not: where the socket's send buffer is full of frames that the receiver has not taken yet,
    /// it says EAGAIN only if it sent nothing at all (`tpacket_snd`, net/packet/af_packet.c).
    pub(crate) fn has_marked(&self) -> bool {
        let last = self.tx_next.checked_sub(1).unwrap_or(self.frames_count - 1);
        self.status(self.frames_count + last).load(Ordering::Acquire) & libc::TP_STATUS_SEND_REQUEST != 0
    }

    /// Frames that found the receive ring full since the last call (PACKET_STATISTICS resets itself).
    ///
    /// # Errors
    /// What getsockopt(2) says.
    pub(crate) fn take_drops_count(&self) -> io::Result<u64> {
        let mut stats = libc::tpacket_stats {
            tp_packets: 0,
            tp_drops: 0,
        };
        get_option(&self.socket, libc::SOL_PACKET, libc::PACKET_STATISTICS, &mut stats)?;
        Ok(stats.tp_drops.into())
    }

    /// The error that waits on the socket, cleared (SO_ERROR): ENETDOWN when the interface went down.
    pub(crate) fn take_error(&self) -> Option<i32> {
        let mut errno = 0_i32;
        match get_option(&self.socket, libc::SOL_SOCKET, libc::SO_ERROR, &mut errno) {
            Ok(_) if errno != 0 => Some(errno),
            _ => None,
        }
    }

    /// Receive frames first, transmit frames after them.
    fn frame(&self, index: usize) -> *mut u8 {
        self.memory.at(index * self.frame_bytes, self.frame_bytes)
    }

    fn status(&self, index: usize) -> &AtomicU32 {
        // SAFETY: every frame begins with `tp_status`, an aligned u32 of our mapping that both sides access atomically;
        // it lives as long as `self`.
        unsafe { AtomicU32::from_ptr(self.frame(index).cast()) }
    }
}

/// A packet socket that receives nothing until it is bound (protocol 0).
fn packet_socket() -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    let fd = checked(fd as isize)?;
    // SAFETY: a new descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn bind(socket: &OwnedFd, config: &PacketConfig<'_>) -> io::Result<()> {
    // SAFETY: all zeros is a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = config.ether_type.to_be();
    address.sll_ifindex = config.interface_index as i32;
    // SAFETY: the kernel reads the sockaddr_ll, which outlives the call.
    let bound = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as u32,
        )
    };
    checked(bound as isize).map(drop)
}

/// SO_ATTACH_FILTER (socket(7)).
///
/// # Errors
/// EINVAL: the kernel's checker refuses the program.
pub(crate) fn attach_filter(socket: BorrowedFd<'_>, program: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?,
        // The kernel only reads it.
        filter: program.as_ptr().cast_mut(),
    };
    set_option(&socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

/// The interface's MTU (SIOCGIFMTU, netdevice(7)): the longest IP packet, Ethernet header not counted.
///
/// # Errors
/// ENODEV: no such interface in this network namespace.
pub(crate) fn interface_mtu_bytes(socket: BorrowedFd<'_>, interface: &str) -> io::Result<usize> {
    // SAFETY: all zeros is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let name_bytes_max = request.ifr_name.len() - 1;
    if interface.len() > name_bytes_max {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    // SAFETY: the kernel reads the name, which is terminated, and writes the union; both are in `request`.
    let said = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFMTU as _, &raw mut request) };
    checked(said as isize)?;
    // SAFETY: SIOCGIFMTU has written this member.
    Ok(unsafe { request.ifr_ifru.ifru_mtu } as usize)
}

/// `value` must be what the option takes: a C struct or int without padding that matters.
pub(super) fn set_option<T>(socket: &impl AsFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: the kernel reads at most `size_of::<T>()` bytes of `value`, and of `sock_fprog` the program it points to,
    // which the caller holds.
    let said = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    checked(said as isize).map(drop)
}

/// `value` must be made of integers only; says how many bytes of it the kernel wrote.
pub(super) fn get_option<T>(
    socket: &OwnedFd,
    level: libc::c_int,
    name: libc::c_int,
    value: &mut T,
) -> io::Result<usize> {
    let mut len_bytes = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len_bytes` bytes; the callers' types are integers only.
    let said = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_mut(value).cast(),
            &mut len_bytes,
        )
    };
    checked(said as isize).map(|_| len_bytes as usize)
}
