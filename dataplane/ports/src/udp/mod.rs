//! Kernel UDP over IPv4 and IPv6: the back end that every other one is compared with, in the variants that people mean
//! when they say "sockets". [`WaitHow`] says how the thread rests, [`Batching`] how many frames one system call moves.
//!
//! What a turn costs in system calls, one frame in and one out:
//!
//! | | Single | Multi | Gso |
//! |---|---|---|---|
//! | Blocking, Untimed, BusyPoll | recv, send: **2** | recvmmsg, sendmmsg: 2 per ≤ 32 frames | recvmmsg, sendmmsg: 2 per ≤ 64 frames |
//! | Poll, Epoll | ppoll, recv, send: 3 | 3 | 3 |
//! | Spin | recv (and one per empty look), send | the same | the same |

mod open;
mod peers;
mod rx;
mod tx;

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use dataplane_waist::{Peer, Port, PortCaps, PortStats, RxFrame, TxError, Wake};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, ppoll},
    sys::{
        epoll::{Epoll, EpollTimeout},
        socket::{Shutdown, shutdown},
        time::TimeSpec,
    },
    time::{ClockId, clock_getres},
};

pub use self::open::{OpenError, probe};
use self::{peers::PeerTable, rx::Rx, tx::Tx};
use crate::{either, sys::inet};

/// The most frames that one recvmmsg(2) or sendmmsg(2) moves.
pub const MULTI_FRAMES_MAX: usize = 32;
/// The most frames of one UDP_SEGMENT train: UDP_MAX_SEGMENTS of include/linux/udp.h before Linux 6.10 (128 since).
pub const GSO_FRAMES_MAX: usize = 64;
/// The most peers, given and learned, that a port knows: the table is searched one by one.
pub const PEERS_COUNT_MAX: usize = 1024;
/// The largest UDP payload over IPv4 (65 535 minus 20 and 8 bytes of headers).
pub const FRAME_BYTES_LIMIT: usize = 65_507;

/// What to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpOptions {
    /// Where to bind; port 0 lets the kernel choose.
    pub local: SocketAddr,
    /// The peers, in the order of their [`Peer`] numbers. All of `local`'s family, or IPv4 under a dual-stack `[::]`.
    pub peers: Vec<SocketAddr>,
    /// How many more may become peers by writing to us, in order of arrival. 0: strangers are counted and dropped.
    pub learn_peers_max: usize,
    /// Where no room is left for another one, the learned peer that was silent for longest makes room, and its number is the
    /// new one's. For a server whose clients come and go; a protocol above it must not take a number for an identity.
    /// `false`: who was learned stays.
    pub forget_peers: bool,
    /// connect(2) to the only peer: the kernel filters what comes, a frame needs no address, and ICMP errors come back.
    pub connect: bool,
    /// How [`Port::wait`] rests.
    pub wait: WaitHow,
    /// With [`WaitHow::Epoll`], and in [`Port::wait_or`]: how long the thread looks for frames, and gives its CPU to whoever wants
    /// it between two looks, before it sleeps. A CPU that is not idle needs no waking, which on a virtual machine takes
    /// longer than the network stack; what it costs is this much CPU time per sleep at most. Zero: it sleeps at once.
    pub look_max: Duration,
    /// Frames per system call.
    pub batch: Batching,
    /// SO_RCVBUF (forced past `net.core.rmem_max` where CAP_NET_ADMIN allows). 0: the kernel's default.
    pub recv_buffer_bytes: usize,
    /// SO_SNDBUF, likewise.
    pub send_buffer_bytes: usize,
    /// The largest frame; a longer one that arrives is counted as malformed.
    pub frame_bytes_max: usize,
}

impl Default for UdpOptions {
    /// A blocking socket on 127.0.0.1 that knows nobody.
    fn default() -> UdpOptions {
        UdpOptions {
            local: SocketAddr::from(([127, 0, 0, 1], 0)),
            peers: Vec::new(),
            learn_peers_max: 0,
            forget_peers: false,
            connect: false,
            wait: WaitHow::Blocking,
            look_max: Duration::ZERO,
            batch: Batching::Single,
            recv_buffer_bytes: 0,
            send_buffer_bytes: 0,
            frame_bytes_max: 9000,
        }
    }
}

/// How the thread rests until a frame comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitHow {
    /// In recv(2) itself, which brings the frame along. Bounded by SO_RCVTIMEO, which is late by up to two jiffies (of 1 to 10
    /// ms), so waits that are too short for that (under 20 ms, where the kernel ticks fast under 12) go through ppoll(2) first.
    Blocking,
    /// As Blocking, without the timeout: waits of 10 ms and more end only with a frame, a signal, or [`UdpCloser::close`],
    /// which whoever bounds the run must call. This is how sockperf and most servers block. Arming and disarming the
    /// timer that SO_RCVTIMEO needs costs 0.2 us per sleep (4 % of a round trip over loopback: 10.3 against 10.8 us), so
    /// a comparison with such a program must use the same.
    Untimed,
    /// In ppoll(2), then a non-blocking receive.
    Poll,
    /// In epoll_pwait2(2), or epoll_wait(2) with its millisecond grain where the kernel is older than 5.11.
    Epoll,
    /// Not at all: every look is a non-blocking receive.
    Spin,
    /// As Blocking, with SO_BUSY_POLL: the call polls the device queue for a while before it sleeps. This does nothing
    /// for a socket whose frames come from a device without NAPI (lo, veth without GRO): see [`UdpPort::napi_id`].
    BusyPoll {
        /// How long to poll before sleeping. Above what `net.core.busy_read` gives, it needs CAP_NET_ADMIN.
        microseconds: u32,
    },
}

/// How many frames one system call moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batching {
    /// One: recvfrom(2), sendto(2). A frame leaves at [`Port::tx`].
    Single,
    /// Up to [`MULTI_FRAMES_MAX`]: recvmmsg(2), sendmmsg(2).
    Multi,
    /// As Multi, and frames of one length to one peer that follow each other go as a train: one datagram that is cut late
    /// (UDP_SEGMENT) and received as one (UDP_GRO). A shorter frame ends its train; a longer one, or one for another
    /// peer, begins the next. All wait for [`Port::flush`] and leave with one sendmmsg(2).
    Gso,
}

/// What became of the trains of [`Batching::Gso`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrainStats {
    /// Frames sent in trains of at least two.
    pub tx_train_frames_count: u64,
    /// Trains that the kernel refused (the frame is above the path's MTU, or the device computes no checksums), and that
    /// were sent frame by frame. Later trains of frames as long or longer are not tried.
    pub tx_refused_count: u64,
    /// Frames received in trains of at least two.
    pub rx_train_frames_count: u64,
}

/// A bound UDP socket as a port.
#[derive(Debug)]
pub struct UdpPort {
    socket: UdpSocket,
    local: SocketAddr,
    wait: WaitHow,
    look_max: Duration,
    /// `None` unless [`WaitHow::Epoll`].
    epoll: Option<EpollSet>,
    /// What SO_RCVTIMEO is set to; set again only when the wait changes.
    recv_timeout: Option<Duration>,
    caps: PortCaps,
    stats: PortStats,
    trains: TrainStats,
    peers: PeerTable,
    rx: Rx,
    tx: Tx,
    /// Set by a [`UdpCloser`]: what the socket then gives are not frames.
    closed: Arc<AtomicBool>,
    /// An error found by `tx`, which cannot say it; `flush` does.
    failed: Option<io::Error>,
}

/// Ends a port's waits from another thread: the bound of [`WaitHow::Untimed`].
#[derive(Debug)]
pub struct UdpCloser {
    socket: UdpSocket,
    closed: Arc<AtomicBool>,
}

impl UdpCloser {
    /// Wakes the port's thread, and lets every later wait return at once. The port receives nothing more; it can still
    /// send. Closing again does nothing.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        // A receive that sleeps returns with no bytes. For an unconnected socket the answer is ENOTCONN, and it wakes
        // sleepers all the same (inet_shutdown of net/ipv4/af_inet.c, "Hack to wake up other listeners").
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Read);
    }
}

#[derive(Debug)]
struct EpollSet {
    epoll: Epoll,
    /// The kernel has epoll_pwait2.
    nanoseconds: bool,
}

/// See [`WaitHow::Untimed`].
const UNTIMED_WAIT_MIN: Duration = Duration::from_millis(10);
/// What SO_RCVTIMEO is ever set to, longest first. Longer waits are cut to these: `wait` may return early, and a timeout that
/// seldom changes is seldom set.
const BLOCKING_TIMEOUTS: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(10)];

/// The longest timeout of a blocking receive that ends within `max`, with a kernel that ticks every `jiffy`; `None` if none
/// does, and another way to sleep must be found.
///
/// The kernel rounds it up to whole jiffies (net/core/sock.c, `sock_set_timeout`), and its timer may end one later because
/// the first one has begun already (kernel/time/timer.c, `calc_index`): with 250 jiffies a second, 10 ms become 12 to 16.
fn blocking_timeout(max: Duration, jiffy: Duration) -> Option<Duration> {
    let ends_by = |timeout: Duration| jiffy * (timeout.as_nanos().div_ceil(jiffy.as_nanos().max(1)) as u32 + 1);
    BLOCKING_TIMEOUTS.into_iter().find(|&timeout| ends_by(timeout) <= max)
}

/// How often the kernel ticks: the grain of its coarse clocks (CONFIG_HZ; sysconf(3) says 100 whatever that is).
fn jiffy() -> Duration {
    static JIFFY: OnceLock<Duration> = OnceLock::new();
    // The longest that Linux knows where it does not say: waits are then shorter, not late.
    const LONGEST: Duration = Duration::from_millis(10);
    *JIFFY.get_or_init(|| clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).map_or(LONGEST, Duration::from))
}

impl UdpPort {
    /// The address that the socket is bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// SO_INCOMING_NAPI_ID (socket(7)): the device queue of the last frame. 0: no frame yet, or a device without NAPI, in
    /// which case busy polling had nothing to poll, and a record must say so.
    ///
    /// # Errors
    /// The kernel was built without CONFIG_NET_RX_BUSY_POLL.
    pub fn napi_id(&self) -> io::Result<u32> {
        let ([id], _) = inet::get_option(&self.socket, libc::SOL_SOCKET, libc::SO_INCOMING_NAPI_ID)?;
        Ok(id)
    }

    /// What the kernel granted as receive and send buffers, in bytes of its own bookkeeping (socket(7): twice the wish).
    ///
    /// # Errors
    /// The kernel's, which would be new.
    pub fn buffer_bytes(&self) -> io::Result<(usize, usize)> {
        let ([recv], _) = inet::get_option(&self.socket, libc::SOL_SOCKET, libc::SO_RCVBUF)?;
        let ([send], _) = inet::get_option(&self.socket, libc::SOL_SOCKET, libc::SO_SNDBUF)?;
        Ok((recv as usize, send as usize))
    }

    /// What ends this port's waits from another thread. Outlives the port without harm.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn closer(&self) -> io::Result<UdpCloser> {
        Ok(UdpCloser {
            socket: self.socket.try_clone()?,
            closed: Arc::clone(&self.closed),
        })
    }

    /// Whether [`Batching::Gso`] really made trains.
    pub fn train_stats(&self) -> TrainStats {
        self.trains
    }

    fn sleep_in_recv(&mut self, max: Duration) -> io::Result<()> {
        if self.wait == WaitHow::Untimed && max >= UNTIMED_WAIT_MIN {
            return self.fetch(0);
        }
        let Some(timeout) = blocking_timeout(max, jiffy()) else {
            if self.sleep_in_poll(max)? {
                self.fetch(libc::MSG_DONTWAIT)?;
            }
            return Ok(());
        };
        if self.recv_timeout != Some(timeout) {
            self.socket.set_read_timeout(Some(timeout))?;
            self.recv_timeout = Some(timeout);
            self.stats.syscalls_count += 1;
        }
        self.fetch(0)
    }

    /// True if the socket is ready.
    fn sleep_in_poll(&mut self, max: Duration) -> io::Result<bool> {
        self.stats.syscalls_count += 1;
        let mut set = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        ready(ppoll(&mut set, Some(TimeSpec::from_duration(max)), None).map(|ready| ready > 0))
    }

    fn sleep_in_epoll(&mut self, max: Duration) -> io::Result<bool> {
        let set = self.epoll.as_ref().expect("made by open for this way of waiting");
        self.stats.syscalls_count += 1;
        if set.nanoseconds {
            let answer = inet::epoll_wait_one(set.epoll.0.as_fd(), max);
            return ready(answer.map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO))));
        }
        // Rounded down: `wait` may return early, not late.
        let timeout = EpollTimeout::try_from(max.as_millis().min(1000) as i32).expect("at most a second");
        let mut events = [nix::sys::epoll::EpollEvent::empty()];
        ready(set.epoll.wait(&mut events, timeout).map(|ready| ready > 0))
    }

    /// Looks for frames for a while, and whether `bell` is readable. True: there is something, and no need to sleep.
    fn look(&mut self, max: Duration, bell: Option<BorrowedFd<'_>>) -> io::Result<bool> {
        let max = max.min(self.look_max);
        if max.is_zero() {
            return Ok(false);
        }
        let begin = Instant::now();
        loop {
            self.fetch(libc::MSG_DONTWAIT)?;
            if self.rx.holds_frames() || self.closed.load(Ordering::Acquire) {
                return Ok(true);
            }
            if let Some(bell) = bell {
                self.stats.syscalls_count += 1;
                let mut set = [PollFd::new(bell, PollFlags::POLLIN)];
                let now = Some(TimeSpec::from_duration(Duration::ZERO));
                if ready(ppoll(&mut set, now, None).map(|ready| ready > 0))? {
                    return Ok(true);
                }
            }
            if begin.elapsed() >= max {
                return Ok(false);
            }
            thread::yield_now();
        }
    }

    #[inline]
    fn fetch(&mut self, flags: libc::c_int) -> io::Result<()> {
        self.rx.fetch(&self.socket, flags, &mut self.stats)?;
        if self.closed.load(Ordering::Acquire) {
            self.rx.clear();
        }
        Ok(())
    }
}

/// A signal ends a wait early, as `wait` may.
fn ready(answer: nix::Result<bool>) -> io::Result<bool> {
    match answer {
        Err(Errno::EINTR) => Ok(false),
        answer => Ok(answer?),
    }
}

impl Port for UdpPort {
    fn caps(&self) -> PortCaps {
        self.caps
    }

    fn wait(&mut self, max: Duration) -> io::Result<()> {
        if max.is_zero() || self.rx.holds_frames() {
            return Ok(());
        }
        match self.wait {
            WaitHow::Spin => Ok(()),
            WaitHow::Blocking | WaitHow::Untimed | WaitHow::BusyPoll { .. } => self.sleep_in_recv(max),
            WaitHow::Poll => self.sleep_in_poll(max).map(drop),
            WaitHow::Epoll => match self.look(max, None)? {
                true => Ok(()),
                false => self.sleep_in_epoll(max).map(drop),
            },
        }
    }

    fn wait_or(&mut self, max: Duration, bell: BorrowedFd<'_>) -> io::Result<()> {
        if max.is_zero() || self.rx.holds_frames() || self.wait == WaitHow::Spin {
            return Ok(());
        }
        if self.look(max, Some(bell))? {
            return Ok(());
        }
        self.stats.syscalls_count += 1;
        either::sleep(self.socket.as_fd(), bell, max).map(drop)
    }

    fn rx_burst(&mut self, sink: &mut dyn FnMut(RxFrame<'_>)) -> io::Result<usize> {
        if !self.rx.holds_frames() {
            self.fetch(libc::MSG_DONTWAIT)?;
        }
        let frames_count = self
            .rx
            .deliver(&self.caps, &mut self.peers, &mut self.stats, &mut self.trains, sink);
        self.stats.rx_frames_count += frames_count as u64;
        Ok(frames_count)
    }

    fn tx(&mut self, to: Peer, len_bytes: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<(), TxError> {
        if !self.peers.contains(to) {
            return Err(TxError::NoPeer);
        }
        if len_bytes > self.caps.frame_bytes_max {
            return Err(TxError::TooLong);
        }
        let mut way = tx::Way {
            socket: &self.socket,
            peers: &self.peers,
            stats: &mut self.stats,
            trains: &mut self.trains,
        };
        if let Err(error) = self.tx.queue(&mut way, to, len_bytes, fill) {
            self.failed = Some(error);
            self.stats.tx_dropped_count += 1;
            return Err(TxError::Full);
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        self.tx.flush(&mut tx::Way {
            socket: &self.socket,
            peers: &self.peers,
            stats: &mut self.stats,
            trains: &mut self.trains,
        })
    }

    fn stats(&self) -> PortStats {
        // SK_MEMINFO_DROPS (include/uapi/linux/sock_diag.h): frames that found the receive buffer full. Asked here, it
        // costs the data path nothing, unlike SO_RXQ_OVFL, which adds a control message to every frame.
        const SK_MEMINFO_DROPS: usize = 8;
        let mut stats = self.stats;
        if let Ok((meminfo, count)) = inet::get_option::<9>(&self.socket, libc::SOL_SOCKET, libc::SO_MEMINFO)
            && count > SK_MEMINFO_DROPS
        {
            stats.rx_dropped_count = meminfo[SK_MEMINFO_DROPS].into();
        }
        stats
    }

    fn peer_addr(&self, peer: Peer) -> Option<SocketAddr> {
        self.peers.address(peer)
    }
}

fn wake(wait: WaitHow) -> Wake {
    match wait {
        WaitHow::Blocking | WaitHow::Untimed | WaitHow::Poll | WaitHow::Epoll => Wake::Sleeps,
        WaitHow::Spin => Wake::Spins,
        WaitHow::BusyPoll { .. } => Wake::BusyPolls,
    }
}

fn name(wait: WaitHow, batch: Batching) -> &'static str {
    match (wait, batch) {
        (WaitHow::Blocking, Batching::Single) => "udp-blocking",
        (WaitHow::Blocking, Batching::Multi) => "udp-blocking-mmsg",
        (WaitHow::Blocking, Batching::Gso) => "udp-blocking-gso",
        (WaitHow::Untimed, Batching::Single) => "udp-untimed",
        (WaitHow::Untimed, Batching::Multi) => "udp-untimed-mmsg",
        (WaitHow::Untimed, Batching::Gso) => "udp-untimed-gso",
        (WaitHow::Poll, Batching::Single) => "udp-poll",
        (WaitHow::Poll, Batching::Multi) => "udp-poll-mmsg",
        (WaitHow::Poll, Batching::Gso) => "udp-poll-gso",
        (WaitHow::Epoll, Batching::Single) => "udp-epoll",
        (WaitHow::Epoll, Batching::Multi) => "udp-epoll-mmsg",
        (WaitHow::Epoll, Batching::Gso) => "udp-epoll-gso",
        (WaitHow::Spin, Batching::Single) => "udp-spin",
        (WaitHow::Spin, Batching::Multi) => "udp-spin-mmsg",
        (WaitHow::Spin, Batching::Gso) => "udp-spin-gso",
        (WaitHow::BusyPoll { .. }, Batching::Single) => "udp-busypoll",
        (WaitHow::BusyPoll { .. }, Batching::Multi) => "udp-busypoll-mmsg",
        (WaitHow::BusyPoll { .. }, Batching::Gso) => "udp-busypoll-gso",
    }
}

#[cfg(test)]
mod tests;
