//! The port over a socket: headers, peers, bursts, waiting, counters.
//!
//! Half of the memory's frames go round through the fill and the receive ring, the other half lies in `free` until it is
//! sent. A packet that fits one frame is written and read in place; a longer one is put together, or taken apart, in a
//! buffer beside.

use std::{
    fmt, io,
    net::{SocketAddr, UdpSocket},
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

use dataplane_waist::{Peer, Port, PortCaps, PortStats, RxFrame, TxError};
use dataplane_wire::{
    datagram::{self, Header, Prepared},
    udp::{self, Checksum},
};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, ppoll},
    sys::time::TimeSpec,
};

use super::{
    BusyPoll, Frame, Socket, TxChecksum, TxRequest, TxStamp, Umem, XdpChecksum, XdpCounters, XdpWait,
    gathered::Gathered, socket::sort_kick, stamps::Stamps,
};
use crate::{
    either,
    endpoint::{Endpoint, Heard, PacketView},
};

/// A UDP endpoint behind an AF_XDP socket. Use it from any one thread at a time.
pub struct XdpPort {
    pub(super) socket: Socket,
    pub(super) umem: Umem,
    /// Keeps the kernel from answering for us; never read. `None` if the address is not one of the host's.
    pub(super) _companion: Option<UdpSocket>,
    pub(super) caps: PortCaps,
    pub(super) wait: XdpWait,
    pub(super) queue: u32,
    pub(super) endpoint: Endpoint,
    /// Frames to send from.
    pub(super) free: Vec<Frame>,
    /// Where a packet begins in them, and what of it fits into one.
    pub(super) tx_start_bytes: usize,
    pub(super) tx_segment_bytes: usize,
    pub(super) checksum: XdpChecksum,
    /// The headers of the last packet that fit one frame: the next often has the same.
    pub(super) prepared: Option<Prepared>,
    /// A packet to send that needs several frames. Empty if none does.
    pub(super) long_tx: Box<[u8]>,
    pub(super) gathered: Gathered,
    /// Frames that are queued and that the kernel has not taken.
    pub(super) is_kick_due: bool,
    pub(super) is_gone: bool,
    /// What went wrong in a call that cannot say so.
    pub(super) fault: Option<io::Error>,
    /// `None`: not asked for.
    pub(super) stamps: Option<Stamps>,
    pub(super) stats: PortStats,
}

impl XdpPort {
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
    /// [`super::XdpOptions::tx_stamps`] asked for them. The oldest are forgotten when there are more than the ring has entries.
    pub fn take_tx_stamps(&mut self, sink: &mut dyn FnMut(TxStamp)) {
        if let Some(stamps) = &mut self.stamps {
            stamps.take(sink);
        }
    }

    /// Takes back what was sent.
    fn reap(&mut self) -> io::Result<()> {
        while let Some(completed) = self.socket.complete()? {
            if let (Some(stamps), Some(tai_ns)) = (&mut self.stamps, completed.stamp_tai_ns) {
                stamps.came(completed.frame.index(), tai_ns);
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
        let checksum = emitted(self.checksum);
        match &self.prepared {
            Some(prepared) if prepared.is_for(header, checksum, packet_bytes) => prepared.emit(packet),
            _ => self.prepared = Some(Prepared::emit_first(header, checksum, packet)),
        }
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
            stamps.sent(frame.index(), self.stats.tx_frames_count);
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
            Ok(_) => self.check_interface(),
            Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Nothing came, or something is wrong: time to ask whether the interface is still there.
    fn check_interface(&mut self) -> io::Result<()> {
        if !self.socket.has_received() {
            self.is_gone |= self.socket.take_is_gone();
        }
        if self.is_gone { Err(gone()) } else { Ok(()) }
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

    /// Does not poll the device before it sleeps: whoever waits for a disk has the time.
    fn wait_or(&mut self, max: Duration, bell: BorrowedFd<'_>) -> io::Result<()> {
        if self.is_gone {
            return Err(gone());
        }
        if max.is_zero() || self.socket.has_received() || self.wait == XdpWait::Spin {
            return Ok(());
        }
        self.stats.syscalls_count += 1;
        either::sleep(self.socket.as_fd(), bell, max)?;
        self.check_interface()
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
            if is_last && gathered.is_empty() {
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
        // Also when nothing came: a driver that found the fill ring empty sleeps until it is told of the frames in it. In
        // copy mode there is no such driver.
        if self.socket.needs_rx_kick() {
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
        let flushed = self.socket.flush_tx()?;
        self.stats.syscalls_count += flushed.kicks_count;
        self.is_gone |= flushed.is_gone;
        if self.is_gone {
            return Err(gone());
        }
        // What the kernel or the device has no room for now stays in the ring for the next flush; a ring that never
        // empties refuses new frames, and those are counted.
        self.is_kick_due = flushed.is_pending;
        self.reap()
    }

    fn stats(&self) -> PortStats {
        // A socket that cannot be asked has not told us of a loss.
        let counters = self.socket.counters().unwrap_or_default();
        PortStats {
            rx_dropped_count: counters.rx_dropped_count + counters.rx_ring_full_count,
            rx_no_buffer_count: counters.rx_dropped_count,
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

/// What the port writes into the checksum field.
fn emitted(checksum: XdpChecksum) -> Checksum {
    match checksum {
        XdpChecksum::Port => Checksum::Full,
        XdpChecksum::Kernel | XdpChecksum::Device => Checksum::Partial,
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
