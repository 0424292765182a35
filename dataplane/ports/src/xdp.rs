//! AF_XDP: frames straight between the driver and our memory, with Ethernet, IP and UDP headers of our own.
//!
//! ```text
//!   XdpPort   a UDP endpoint: headers, peers, waiting, counters            (port.rs)
//!   Socket    four rings on one queue of one interface                     (socket.rs, sys/xsk_ring.rs, sys/xsk.rs)
//!   Umem      the frames' memory, and who owns each of them: `Frame`       (sys/xsk_umem.rs)
//! ```
//!
//! Sending needs no BPF. Receiving needs an XDP program on the interface that redirects our frames into an XSKMAP, with the
//! socket in the map at its queue; this crate knows no BPF, so whoever attaches the program puts the port there, by its
//! `as_fd()` and [`XdpPort::queue`]. Frames that are not redirected go up the kernel's stack as ever.
//!
//! So that nobody else gets our address in the meantime, and the kernel does not answer for it with "port unreachable",
//! the port also holds an ordinary UDP socket, which keeps nothing. ARP and neighbour discovery stay with the kernel.

mod error;
mod gathered;
mod open;
mod port;
mod probe;
mod socket;
mod stamps;

use std::net::SocketAddr;

pub use crate::{
    endpoint::PacketPeer,
    sys::xsk_umem::{Frame, TxMetadata, Umem, UmemOptions},
};
pub use dataplane_wire::ethernet::Mac;
pub use error::OpenError;
pub use port::XdpPort;
pub use probe::probe;
pub use socket::{Completed, Flushed, Segment, Socket, SocketOptions, TxChecksum, TxRequest, XdpCounters};
pub use stamps::TxStamp;

/// How the thread waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum XdpWait {
    /// Sleep in ppoll(2).
    Poll,
    /// Poll the device in system calls for a while, then sleep.
    BusyPoll(BusyPoll),
    /// Look at the ring's index: no system call while nothing comes.
    Spin,
}

/// SO_PREFER_BUSY_POLL with its two parameters (Documentation/networking/napi.rst). Needs CAP_NET_ADMIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BusyPoll {
    /// How long before the thread sleeps (SO_BUSY_POLL).
    pub microseconds: u32,
    /// Frames that the driver may take in per poll (SO_BUSY_POLL_BUDGET).
    pub budget: u32,
}

/// Who moves the bytes between the device and the UMEM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum XdpCopy {
    /// The kernel copies each frame (XDP_COPY): every driver can.
    Copy,
    /// The device reads and writes the frames where they are (XDP_ZEROCOPY): few drivers can.
    ZeroCopy,
}

/// Who makes the UDP checksum of what is sent. What is received is always verified by the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum XdpChecksum {
    /// The port.
    Port,
    /// The kernel, in copy mode, because each frame's TX metadata asks it to (Linux 6.8). It cannot for a packet of several
    /// frames of memory, of which it sums the first alone; there the port does it.
    Kernel,
    /// The device, because each frame's TX metadata asks it to (Linux 6.8).
    Device,
}

/// What [`XdpPort::open`] needs to know.
#[derive(Clone, Debug)]
pub struct XdpOptions {
    /// The interface, as `ip link` names it.
    pub interface: String,
    /// Which of its queues, from 0. Frames are received only from this one.
    pub queue: u32,
    /// The UDP address to be. It may be one of the host's (then port 0 lets the kernel choose) or one that nobody has.
    pub local: SocketAddr,
    /// The interface's own MAC.
    pub local_mac: Mac,
    /// `Peer(i)` is `peers[i]`. All of `local`'s family.
    pub peers: Vec<PacketPeer>,
    /// How many further senders become peers by writing to us. With 0, strangers are counted and dropped.
    pub learn_peers_max: usize,
    /// How the thread waits.
    pub wait: XdpWait,
    /// The largest frame: with its IP and UDP headers it must not be above the interface's MTU.
    pub frame_bytes_max: usize,
    /// Frames of memory for each way, and what the rings are sized by: a power of two, 4 to 65 536. A frame above 3840
    /// bytes with its headers takes several.
    pub ring_frames: usize,
    /// Who moves the bytes.
    pub copy: XdpCopy,
    /// Frames longer than 3840 bytes with their headers (XDP_USE_SG, Linux 6.6). Asked of the kernel only if
    /// `frame_bytes_max` needs it.
    pub multi_buffer: bool,
    /// The frames' memory in huge pages, which must have been reserved.
    pub huge_pages: bool,
    /// Who makes the checksum.
    pub checksum: XdpChecksum,
    /// Ask for a time stamp of each frame that is sent ([`XdpPort::take_tx_stamps`]; Linux 6.8).
    pub tx_stamps: bool,
}

impl XdpOptions {
    /// A server on queue 0 of `interface`: knows nobody, learns up to 64 peers, classic frames, copy mode.
    pub fn new(interface: &str, local: SocketAddr, local_mac: Mac, wait: XdpWait) -> XdpOptions {
        XdpOptions {
            interface: interface.to_owned(),
            queue: 0,
            local,
            local_mac,
            peers: Vec::new(),
            learn_peers_max: 64,
            wait,
            frame_bytes_max: 1452,
            ring_frames: 256,
            copy: XdpCopy::Copy,
            multi_buffer: true,
            huge_pages: false,
            checksum: XdpChecksum::Port,
            tx_stamps: false,
        }
    }
}
