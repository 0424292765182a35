//! A port moves whole frames and promises nothing about their arrival.

use std::{io, net::SocketAddr, os::fd::BorrowedFd, time::Duration};

use crate::{Instant, Peer};

/// One way of moving frames: a socket, a ring, a simulated NIC.
///
/// Frames are the lab's own (`dataplane_wire::frame`), without what carries them: a port that speaks raw Ethernet adds
/// and strips Ethernet, IP and UDP itself. All calls are bounded in time and in frames, and allocate nothing after the
/// first few turns.
pub trait Port: Send {
    /// What this port is and can carry. Constant after `open`.
    fn caps(&self) -> PortCaps;

    /// Lets the calling thread rest until a frame may be there, at most `max`. A spinning port returns at once; a
    /// sleeping one ([`Wake::Sleeps`]) may return early, never later than `max` plus the scheduler's own delay.
    ///
    /// # Errors
    /// What the kernel said; the port is then unusable.
    fn wait(&mut self, max: Duration) -> io::Result<()>;

    /// As [`Port::wait`], and ends as well when `bell` becomes readable: a log has something to say
    /// ([`crate::News::Rings`]). Nothing is read from it.
    ///
    /// A port that sleeps and does not know how to wait for both looks again after [`LOOK_AGAIN`].
    ///
    /// # Errors
    /// As [`Port::wait`].
    fn wait_or(&mut self, max: Duration, _bell: BorrowedFd<'_>) -> io::Result<()> {
        self.wait(max.min(LOOK_AGAIN))
    }

    /// Hands up to `caps().batch_frames_max` received frames to `sink`, without waiting; says how many.
    ///
    /// Frames of strangers are counted in [`PortStats::strangers_count`] and dropped.
    ///
    /// # Errors
    /// As [`Port::wait`]. Errors that the network reports about an earlier frame (ICMP port unreachable) are not errors
    /// of the port: they are counted as loss.
    fn rx_burst(&mut self, sink: &mut dyn FnMut(RxFrame<'_>)) -> io::Result<usize>;

    /// Queues one frame of `len_bytes` to `to`; `fill` writes all of it, in place. Sent at the latest by `flush`.
    ///
    /// # Errors
    /// `fill` was then not called. [`TxError::Full`] is ordinary: give the frame up, or flush and try again; the port
    /// counts every refusal for want of room ([`PortStats::tx_dropped_count`]). It never comes to a caller that flushes
    /// after every `caps().batch_frames_max` frames, unless the other side does not keep up.
    fn tx(&mut self, to: Peer, len_bytes: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<(), TxError>;

    /// Sends what is queued. A frame that the kernel has no room for is dropped and counted
    /// ([`PortStats::tx_dropped_count`]), as a full NIC ring would.
    ///
    /// # Errors
    /// As [`Port::wait`].
    fn flush(&mut self) -> io::Result<()>;

    /// Counters since `open`.
    fn stats(&self) -> PortStats;

    /// Where a peer's frames come from and go to, for people to read; `None` if the port has no such peer, or does not say.
    /// A port that learns peers may give a silent one's number to another.
    fn peer_addr(&self, _peer: Peer) -> Option<SocketAddr> {
        None
    }

    /// Whose frame came last from an address that is not its, where the port can tell who made a frame.
    fn misplaced(&self) -> Option<Misplaced> {
        None
    }
}

/// How long whoever waits for two things rests where only one of them wakes it: well below the 100 µs or so that a flash
/// device takes to flush its cache.
pub const LOOK_AGAIN: Duration = Duration::from_micros(20);

/// What a port is and can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortCaps {
    /// The back end's name, as `dplab probe` lists it.
    pub name: &'static str,
    /// The largest frame (header and payload of `dataplane_wire::frame`, nothing outside it).
    pub frame_bytes_max: usize,
    /// The most frames one `rx_burst` delivers, and the most `tx` queues before `flush`.
    pub batch_frames_max: usize,
    /// What [`Port::wait`] does.
    pub wake: Wake,
}

/// How a port waits. The wake-up costs more than the network stack on most hosts, so every record names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// The thread sleeps in the kernel until a frame comes.
    Sleeps,
    /// The thread never sleeps: `wait` returns at once.
    Spins,
    /// The thread looks for a while before it sleeps: by itself, or in a system call that polls the device (SO_BUSY_POLL).
    BusyPolls,
}

/// A received frame, lent for the time of the call.
#[derive(Clone, Copy, Debug)]
pub struct RxFrame<'a> {
    /// Who sent it.
    pub from: Peer,
    /// The frame; unchecked bytes of the network.
    pub bytes: &'a [u8],
    /// When the kernel or the device took it in, where the port knows, on the port's own clock.
    pub stamp: Option<Instant>,
}

/// A frame that one node made and that came from another's address, or from nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misplaced {
    /// Who made it.
    pub node: u32,
    /// Where it came from, if the port says so ([`Port::peer_addr`]).
    pub address: Option<SocketAddr>,
}

/// Why a frame was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TxError {
    /// No room until `flush`, or until the peer has drained its ring.
    #[error("the transmit queue is full")]
    Full,
    /// `len_bytes` is above `caps().frame_bytes_max`.
    #[error("the frame is longer than the port can carry")]
    TooLong,
    /// No such peer.
    #[error("the peer is not in this port's table")]
    NoPeer,
}

/// A port's counters since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Frames handed to a sink.
    pub rx_frames_count: u64,
    /// Frames given to the kernel, the device or the ring.
    pub tx_frames_count: u64,
    /// Frames that could not be sent: no room, or the network said no. A frame tried twice can be counted twice.
    pub tx_dropped_count: u64,
    /// Frames that the receive side lost before us and told us of (ring overflow, SO_RXQ_OVFL, tp_drops).
    pub rx_dropped_count: u64,
    /// Of `rx_dropped_count`, those for which the receive side had been given no buffer, or none long enough (an AF_XDP socket's
    /// fill ring), where the port tells them from the others.
    pub rx_no_buffer_count: u64,
    /// Frames of senders that are not peers.
    pub strangers_count: u64,
    /// Frames that were cut, or that the encapsulation's own checks refused.
    pub malformed_count: u64,
    /// System calls made on the data path, where the port counts them.
    pub syscalls_count: u64,
}

impl<P: Port + ?Sized> Port for Box<P> {
    fn caps(&self) -> PortCaps {
        (**self).caps()
    }
    fn wait(&mut self, max: Duration) -> io::Result<()> {
        (**self).wait(max)
    }
    fn wait_or(&mut self, max: Duration, bell: BorrowedFd<'_>) -> io::Result<()> {
        (**self).wait_or(max, bell)
    }
    fn rx_burst(&mut self, sink: &mut dyn FnMut(RxFrame<'_>)) -> io::Result<usize> {
        (**self).rx_burst(sink)
    }
    fn tx(&mut self, to: Peer, len_bytes: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<(), TxError> {
        (**self).tx(to, len_bytes, fill)
    }
    fn flush(&mut self) -> io::Result<()> {
        (**self).flush()
    }
    fn stats(&self) -> PortStats {
        (**self).stats()
    }
    fn peer_addr(&self, peer: Peer) -> Option<SocketAddr> {
        (**self).peer_addr(peer)
    }
    fn misplaced(&self) -> Option<Misplaced> {
        (**self).misplaced()
    }
}
