//! UDP without the kernel's UDP: a packet socket with memory-mapped rings on one interface, and Ethernet, IP and UDP
//! headers of our own.
//!
//! Ring version 2, not 3: version 3 hands whole blocks over, when they are full or when a timer of at least a millisecond
//! retires them, which is good for capturing and adds that millisecond to a request that comes alone. Frames to send
//! pass by the queueing discipline (PACKET_QDISC_BYPASS); on a shaped interface they are not shaped.
//!
//! The kernel's own stack sees every frame too. So that it does not answer with "port unreachable", the port also holds
//! an ordinary UDP socket with the same address, whose filter drops everything. ARP and neighbour discovery stay with the
//! kernel; peers' MAC addresses are given, or learned from their frames.

mod filter;
mod port;
mod probe;

use std::net::SocketAddr;

pub use crate::endpoint::PacketPeer;
pub use dataplane_wire::ethernet::Mac;
pub use port::{OpenError, PacketPort};
pub use probe::probe;

/// How the thread waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PacketWait {
    /// Sleep in ppoll(2).
    Poll,
    /// Look at the ring's next status word: no system call while nothing comes.
    Spin,
}

/// What [`PacketPort::open`] needs to know.
#[derive(Clone, Debug)]
pub struct PacketOptions {
    /// The interface, as `ip link` names it.
    pub interface: String,
    /// The UDP address to be. It may be one of the host's (then port 0 lets the kernel choose) or one that nobody has.
    pub local: SocketAddr,
    /// The interface's own MAC. All zeros on `lo`.
    pub local_mac: Mac,
    /// `Peer(i)` is `peers[i]`. All of `local`'s family.
    pub peers: Vec<PacketPeer>,
    /// How many further senders become peers by writing to us. With 0, strangers are counted and dropped.
    pub learn_peers_max: usize,
    /// How the thread waits.
    pub wait: PacketWait,
    /// The largest frame: with its IP and UDP headers it must not be above the interface's MTU.
    pub frame_bytes_max: usize,
    /// Frames in each of the two rings: a power of two, 4 to 65 536. Each takes the next power of two above the longest
    /// packet: 2 KiB for a classic MTU, 16 KiB for a jumbo one.
    pub ring_frames: usize,
}

impl PacketOptions {
    /// A server on `interface`: knows nobody, learns up to 64 peers, classic frames.
    pub fn new(interface: &str, local: SocketAddr, local_mac: Mac, wait: PacketWait) -> PacketOptions {
        PacketOptions {
            interface: interface.to_owned(),
            local,
            local_mac,
            peers: Vec::new(),
            learn_peers_max: 64,
            wait,
            frame_bytes_max: 1452,
            ring_frames: 256,
        }
    }
}
