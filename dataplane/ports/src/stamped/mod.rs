//! A UDP socket that tells when each datagram passed each station of the kernel: SO_TIMESTAMPING
//! (Documentation/networking/timestamping.rst). It is no [`dataplane_waist::Port`]: a port moves frames as fast as it
//! can, and stamps cost a system call and two socket buffers each.
//!
//! ```text
//!   send ─▶ qdisc ─▶ driver ─────▶ … ─────▶ driver ─▶ network stack ─▶ recv
//!          Scheduled   Sent                          software stamp
//!             └──────────┴─▶ error queue ─▶ tx_stamps()   └─▶ Received
//! ```
//!
//! The receive stamp is the stack's, made when the driver hands the frame over (`net_timestamp_check` in net/core/dev.c),
//! not when it reaches the socket. The first socket of the machine that asks for them only starts a worker that switches them on
//! (`net_enable_timestamp`, there): until that has run, which on a busy machine takes its time, datagrams come without one. The
//! last one that is closed starts it to switch them off, and a socket that is opened while it does so may see a few stamps,
//! then none, and only then all: any datagram may come without one.
//!
//! Transmit stamps come back on the socket's *error queue* and occupy its receive buffer until they are read: a socket that asks
//! for them and never reads them stops receiving. So [`StampedSocket::send`] reads them itself when many may be waiting, and
//! keeps them for [`StampedSocket::tx_stamps`].
//!
//! Software stamps are of CLOCK_REALTIME, hardware stamps of the NIC's clock; [`ClockOffset`] converts the former.

mod clock;
mod hardware;
mod probe;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    io::{self, ErrorKind},
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

pub use self::{
    clock::{ClockOffset, Reading, Stamp, StampClock, Stepped, WallClock, monotonic_ns, realtime_ns},
    hardware::probe_hardware,
    probe::probe,
};
use crate::sys::{
    inet::{self, RawAddr},
    stamps::{Cmsgs, Receiver, read},
};

/// What to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StampedOptions {
    /// Where to bind; port 0 lets the kernel choose.
    pub local: SocketAddr,
    /// connect(2) to this peer; `None` to answer whoever writes.
    pub remote: Option<SocketAddr>,
    /// How [`StampedSocket::recv`] waits.
    pub wait: StampedWait,
    /// Ask for the NIC's stamps too. Where there are none ([`probe_hardware`]), none come.
    pub hardware: bool,
    /// Say with each transmit stamp through which interface the datagram left (IP_PKTINFO, OPT_CMSG). A stamp then brings
    /// the whole datagram back into the receive buffer (no OPT_TSONLY), which needs net.core.tstamp_allow_data = 1, the
    /// default, or CAP_NET_RAW.
    pub interface: bool,
}

/// How a receive waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StampedWait {
    /// In recvmsg(2), at most so long (SO_RCVTIMEO, whose grain is a jiffy: 1 to 10 ms).
    Blocking(Duration),
    /// Not at all.
    Spin,
}

/// Where a datagram was when it was stamped on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TxStation {
    /// It entered the packet scheduler, the queueing discipline (SCM_TSTAMP_SCHED).
    Scheduled,
    /// The driver passed it to its device; of the NIC's own clock: it left the NIC (SCM_TSTAMP_SND).
    Sent,
}

/// A stamp of a datagram that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxStamp {
    /// What [`StampedSocket::send`] returned for it.
    pub key: u64,
    /// Where it was.
    pub station: TxStation,
    /// When.
    pub stamp: Stamp,
    /// The interface's index, if it was asked for.
    pub interface_index: Option<u32>,
}

/// A datagram that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its length, cut to the buffer's.
    pub len_bytes: usize,
    /// It was longer than the buffer.
    pub is_cut: bool,
    /// Who sent it.
    pub from: Option<SocketAddr>,
    /// When the network stack took it from the driver.
    pub software: Option<Stamp>,
    /// When the NIC received it, by its own clock.
    pub hardware: Option<Stamp>,
}

/// What a stamped socket has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StampedStats {
    /// Datagrams sent.
    pub sent_count: u64,
    /// Datagrams received.
    pub received_count: u64,
    /// Transmit stamps read from the error queue.
    pub tx_stamps_count: u64,
    /// Transmit stamps that nobody took in time.
    pub tx_stamps_dropped_count: u64,
    /// Messages of the error queue that are no stamps of ours.
    pub strange_count: u64,
}

/// SCM_TSTAMP_SND of include/uapi/linux/errqueue.h.
const SCM_TSTAMP_SND: u32 = 0;
/// SCM_TSTAMP_SCHED of include/uapi/linux/errqueue.h.
const SCM_TSTAMP_SCHED: u32 = 1;

/// After so many datagrams [`StampedSocket::send`] reads the error queue itself. A stamp takes about 800 bytes of the
/// receive buffer, which has 212 992 by default (net.core.rmem_default), and each datagram makes two: with none read,
/// receiving ended after 130.
const UNREAD_SENDS_MAX: u32 = 32;
/// The same where a stamp brings its datagram along, which may be a large one.
const UNREAD_SENDS_MAX_WHOLE: u32 = 4;
/// Stamps kept until they are taken; beyond, the oldest are dropped and counted.
const HELD_STAMPS_MAX: usize = 1024;
/// Messages read from the error queue in one go: more than its share of a receive buffer can be.
const READ_STAMPS_MAX: usize = 4096;

/// A UDP socket with time stamps.
pub struct StampedSocket {
    socket: UdpSocket,
    local: SocketAddr,
    wait: StampedWait,
    flags: u32,
    receiver: Receiver,
    /// The key of the next datagram, and that of the kernel's counter at zero.
    next_key: u64,
    base_key: u64,
    unread_sends_count: u32,
    held: VecDeque<TxStamp>,
    stats: StampedStats,
}

impl StampedSocket {
    /// Opens and binds.
    ///
    /// # Errors
    /// What the kernel says, with the step that it said it to.
    pub fn open(options: &StampedOptions) -> io::Result<StampedSocket> {
        let socket = UdpSocket::bind(options.local).map_err(during("binding a stamped socket"))?;
        if let Some(remote) = options.remote {
            socket.connect(remote).map_err(during("connecting a stamped socket"))?;
        }
        if let StampedWait::Blocking(max) = options.wait {
            socket
                .set_read_timeout(Some(max.max(Duration::from_millis(1))))
                .map_err(during("setting SO_RCVTIMEO"))?;
        }
        if options.interface {
            let (level, name) = match options.local {
                SocketAddr::V4(_) => (libc::SOL_IP, libc::IP_PKTINFO),
                SocketAddr::V6(_) => (libc::SOL_IPV6, libc::IPV6_RECVPKTINFO),
            };
            inet::set_option(&socket, level, name, 1).map_err(during("setting IP_PKTINFO"))?;
        }
        let mut flags = libc::SOF_TIMESTAMPING_SOFTWARE
            | libc::SOF_TIMESTAMPING_RX_SOFTWARE
            | libc::SOF_TIMESTAMPING_TX_SOFTWARE
            | libc::SOF_TIMESTAMPING_TX_SCHED
            // Each stamp says which send it is of.
            | libc::SOF_TIMESTAMPING_OPT_ID;
        // Either a stamp alone, or with the datagram and what is known of it; together the former wins.
        flags |= match options.interface {
            true => libc::SOF_TIMESTAMPING_OPT_CMSG,
            false => libc::SOF_TIMESTAMPING_OPT_TSONLY,
        };
        if options.hardware {
            flags |= libc::SOF_TIMESTAMPING_RAW_HARDWARE
                | libc::SOF_TIMESTAMPING_TX_HARDWARE
                | libc::SOF_TIMESTAMPING_RX_HARDWARE
                // Without it the NIC's stamp replaces the driver's.
                | libc::SOF_TIMESTAMPING_OPT_TX_SWHW;
        }
        let mut stamped = StampedSocket {
            local: socket.local_addr().map_err(during("asking the bound address"))?,
            socket,
            wait: options.wait,
            flags,
            receiver: Receiver::new(),
            next_key: 0,
            base_key: 0,
            unread_sends_count: 0,
            held: VecDeque::with_capacity(HELD_STAMPS_MAX),
            stats: StampedStats::default(),
        };
        stamped.restart_keys().map_err(during("setting SO_TIMESTAMPING"))?;
        Ok(stamped)
    }

    /// The address that the socket is bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// What was counted so far.
    pub fn stats(&self) -> StampedStats {
        self.stats
    }

    /// Sends to the connected peer; returns the key that the datagram's stamps will have.
    ///
    /// # Errors
    /// The kernel's; ENOBUFS and EAGAIN mean that it was not sent and may be tried again.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<u64> {
        self.send_by(|socket| inet::send(socket, bytes, 0))
    }

    /// Sends to `to`; as [`StampedSocket::send`].
    ///
    /// # Errors
    /// As [`StampedSocket::send`].
    pub fn send_to(&mut self, bytes: &[u8], to: SocketAddr) -> io::Result<u64> {
        let to = RawAddr::new(to);
        self.send_by(|socket| inet::send_to(socket, bytes, 0, &to))
    }

    fn send_by(&mut self, send: impl Fn(&UdpSocket) -> io::Result<()>) -> io::Result<u64> {
        let unread_max = match self.flags & libc::SOF_TIMESTAMPING_OPT_TSONLY {
            0 => UNREAD_SENDS_MAX_WHOLE,
            _ => UNREAD_SENDS_MAX,
        };
        if self.unread_sends_count >= unread_max {
            self.collect()?;
        }
        let mut sent = send(&self.socket);
        if sent
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
        {
            // That was the answer to an earlier datagram, and this one has not been tried.
            self.restart_keys()?;
            sent = send(&self.socket);
        }
        if let Err(error) = sent {
            // Kernels before 6.13 count a datagram that they then fail to send.
            self.restart_keys()?;
            return Err(error);
        }
        self.unread_sends_count += 1;
        self.stats.sent_count += 1;
        self.next_key += 1;
        Ok(self.next_key - 1)
    }

    /// Receives one datagram into `into`, waiting as the options say; `None` if none came.
    ///
    /// # Errors
    /// The kernel's. That an earlier datagram was refused by its receiver is none.
    pub fn recv(&mut self, into: &mut [u8]) -> io::Result<Option<Received>> {
        let flags = match self.wait {
            StampedWait::Blocking(_) => 0,
            StampedWait::Spin => libc::MSG_DONTWAIT,
        };
        let message = match self.receiver.receive(&self.socket, into, flags) {
            Ok(message) => message,
            Err(error) if is_nothing(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let [software, hardware] = stamps_of(message.control);
        self.stats.received_count += 1;
        Ok(Some(Received {
            len_bytes: message.len_bytes.min(into.len()),
            is_cut: message.is_cut,
            from: message.from.key().map(|key| key.address()),
            software,
            hardware,
        }))
    }

    /// Hands over every transmit stamp that has come since the last call, oldest first; says how many.
    ///
    /// # Errors
    /// The kernel's, which would be new: an empty queue is none.
    pub fn tx_stamps(&mut self, sink: &mut dyn FnMut(TxStamp)) -> io::Result<usize> {
        self.collect()?;
        let count = self.held.len();
        self.held.drain(..).for_each(sink);
        Ok(count)
    }

    /// Reads the error queue empty.
    fn collect(&mut self) -> io::Result<()> {
        self.unread_sends_count = 0;
        for _ in 0..READ_STAMPS_MAX {
            let message = match self
                .receiver
                .receive(&self.socket, &mut [], libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT)
            {
                Ok(message) => message,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // A signal, or an ICMP error that was pending: not what was asked for.
                Err(error) if is_nothing(&error) => continue,
                Err(error) => return Err(error),
            };
            let keys = Keys {
                next: self.next_key,
                base: self.base_key,
            };
            let Some(parsed) = tx_stamps_of(message.control, keys) else {
                self.stats.strange_count += 1;
                continue;
            };
            for stamp in parsed.into_iter().flatten() {
                if self.held.len() == HELD_STAMPS_MAX {
                    self.held.pop_front();
                    self.stats.tx_stamps_dropped_count += 1;
                }
                self.held.push_back(stamp);
                self.stats.tx_stamps_count += 1;
            }
        }
        Ok(())
    }

    /// Sets the kernel's counter of datagrams to zero again: it starts where OPT_ID is turned on.
    fn restart_keys(&mut self) -> io::Result<()> {
        self.collect()?;
        let without = self.flags & !libc::SOF_TIMESTAMPING_OPT_ID;
        for flags in [without, self.flags] {
            inet::set_option(
                &self.socket,
                libc::SOL_SOCKET,
                libc::SO_TIMESTAMPING,
                flags as libc::c_int,
            )?;
        }
        self.base_key = self.next_key;
        Ok(())
    }
}

/// Which keys a stamp may have: those of datagrams sent since the kernel's counter was zero.
#[derive(Clone, Copy, Debug)]
struct Keys {
    next: u64,
    base: u64,
}

impl Keys {
    /// The key that a kernel's 32-bit counter stands for: the youngest that it can be.
    fn of(self, counter: u32) -> Option<u64> {
        let sent_count = self.next - self.base;
        // 1 for the last datagram; the counter wraps, and so does this.
        let behind = (sent_count as u32).wrapping_sub(counter);
        let behind = if behind == 0 { 1 << 32 } else { u64::from(behind) };
        (behind <= sent_count).then(|| self.next - behind)
    }
}

/// The software and the hardware stamp in a datagram's control messages.
fn stamps_of(control: &[u8]) -> [Option<Stamp>; 2] {
    Cmsgs::new(control)
        .find(|cmsg| cmsg.level == libc::SOL_SOCKET && cmsg.kind == libc::SCM_TIMESTAMPING)
        .map_or([None, None], |cmsg| timestamps(cmsg.data))
}

/// `struct scm_timestamping`: three timespecs, of which the second has not been used since Linux 3.17.
fn timestamps(data: &[u8]) -> [Option<Stamp>; 2] {
    const TIMESPEC_BYTES: usize = size_of::<libc::timespec>();
    let at = |index: usize, clock| {
        let time: libc::timespec = read(data.get(index * TIMESPEC_BYTES..)?)?;
        let (seconds, nanoseconds) = (u64::try_from(time.tv_sec).ok()?, u64::try_from(time.tv_nsec).ok()?);
        let at_ns = seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)?;
        // All zeros: not made.
        (at_ns > 0).then_some(Stamp { at_ns, clock })
    };
    [at(0, StampClock::Realtime), at(2, StampClock::Hardware)]
}

/// The transmit stamps in a message of the error queue; `None` if it is something else.
fn tx_stamps_of(control: &[u8], keys: Keys) -> Option<[Option<TxStamp>; 2]> {
    let mut error: Option<libc::sock_extended_err> = None;
    let mut interface_index = None;
    for cmsg in Cmsgs::new(control) {
        match (cmsg.level, cmsg.kind) {
            (libc::SOL_IP, libc::IP_RECVERR) | (libc::SOL_IPV6, libc::IPV6_RECVERR) => error = read(cmsg.data),
            (libc::SOL_IP, libc::IP_PKTINFO) => {
                interface_index = read(cmsg.data).map(|info: libc::in_pktinfo| info.ipi_ifindex as u32);
            }
            (libc::SOL_IPV6, libc::IPV6_PKTINFO) => {
                interface_index = read(cmsg.data).map(|info: libc::in6_pktinfo| info.ipi6_ifindex);
            }
            _ => {}
        }
    }
    let error = error.filter(|error| error.ee_origin == libc::SO_EE_ORIGIN_TIMESTAMPING)?;
    let station = match error.ee_info {
        SCM_TSTAMP_SND => TxStation::Sent,
        SCM_TSTAMP_SCHED => TxStation::Scheduled,
        _ => return None,
    };
    let key = keys.of(error.ee_data)?;
    let stamps = stamps_of(control);
    stamps.iter().any(Option::is_some).then(|| {
        stamps.map(|stamp| {
            stamp.map(|stamp| TxStamp {
                key,
                station,
                stamp,
                interface_index,
            })
        })
    })
}

/// Nothing came: a time-out, a signal, or an ICMP error about an earlier datagram.
fn is_nothing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted | ErrorKind::ConnectionRefused
    )
}

fn during(doing: &'static str) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{doing}: {error}"))
}
