//! The port over the ring: peers, bursts, waiting, counters.

use std::{
    collections::VecDeque,
    io,
    net::{SocketAddr, UdpSocket},
    os::fd::BorrowedFd,
    time::{Duration, Instant},
};

use dataplane_waist::{Peer, Port, PortCaps, PortStats, RxFrame, TxError, Wake};

use super::{
    TaskWork, UringOptions, UringStats, UringWait,
    address::{from_raw, to_raw},
    open,
};
use crate::{
    peer_table::PeerTable,
    sys::{
        inet,
        uring::{Buffer, Done, Ring, RingConfig},
    },
};

/// A UDP socket behind an io_uring.
///
/// `Send`, but of one thread: the first call of `wait`, `rx_burst` or `flush` binds the ring to its thread
/// (IORING_SETUP_SINGLE_ISSUER), and calls from another are `PermissionDenied`. Drop it on that thread, or after that
/// thread has ended; otherwise its memory is leaked, because the kernel may still write to it. The address is free again
/// after the drop; with [`UringWait::SqPoll`] a moment later, when the kernel's thread has ended.
#[derive(Debug)]
pub struct UringPort {
    ring: Ring,
    caps: PortCaps,
    wait: UringWait,
    connected: bool,
    merge_submit: bool,
    local: SocketAddr,
    peers: PeerTable<SocketAddr>,
    /// Received and not yet handed out. Holds at most all buffers and one empty datagram, which has none.
    ready: VecDeque<Buffer>,
    buffers_count: usize,
    /// Queued since the last submission.
    queued_count: usize,
    /// What makes the port unusable, found where it could not be said.
    failed: Option<io::Error>,
    stats: PortStats,
    uring_stats: UringStats,
}

impl UringPort {
    /// Binds a socket and sets up its ring.
    ///
    /// # Errors
    /// `InvalidInput` for options out of bounds; what bind(2), connect(2) or io_uring_setup(2) say. [`super::probe`]
    /// explains the latter.
    pub fn open(options: &UringOptions) -> io::Result<UringPort> {
        open::check(options)?;
        let variant = options.variant;
        let socket = UdpSocket::bind(options.local)?;
        open::set_buffers(&socket, options)?;
        if variant.connect {
            socket.connect(options.peers[0])?;
        }
        let local = socket.local_addr()?;
        let learn_peers_max = if variant.connect { 0 } else { options.learn_peers_max };
        let mut addresses = options.peers.clone();
        for address in &mut addresses {
            // A received address has none, and it does not say who it is.
            if let SocketAddr::V6(v6) = address {
                v6.set_flowinfo(0);
            }
        }
        let peers = PeerTable::new(&addresses, learn_peers_max);

        let config = RingConfig {
            tx_slots_count: options.entries * 2,
            buffers_count: options.buffers,
            payload_bytes_max: options.frame_bytes_max,
            addresses_max: peers.rows_max(),
            connected: variant.connect,
            zero_copy: variant.zero_copy_send,
            sqpoll_idle_ms: match variant.wait {
                UringWait::SqPoll { idle_ms } => Some(idle_ms),
                _ => None,
            },
            napi_us: match variant.wait {
                UringWait::NapiBusyPoll { microseconds } => Some(microseconds),
                _ => None,
            },
        };
        let mut ring = Ring::open(socket, config)?;
        for (index, peer) in peers.rows().iter().enumerate() {
            ring.set_address(index, to_raw(*peer));
        }
        Ok(UringPort {
            ring,
            caps: PortCaps {
                name: variant.name(),
                frame_bytes_max: options.frame_bytes_max,
                batch_frames_max: usize::from(options.entries),
                wake: match variant.wait {
                    UringWait::Spin => Wake::Spins,
                    UringWait::NapiBusyPoll { .. } => Wake::BusyPolls,
                    UringWait::Enter | UringWait::SqPoll { .. } => Wake::Sleeps,
                },
            },
            wait: variant.wait,
            connected: variant.connect,
            merge_submit: variant.submit_with_wait,
            local,
            peers,
            ready: VecDeque::with_capacity(usize::from(options.buffers) + 1),
            buffers_count: usize::from(options.buffers),
            queued_count: 0,
            failed: None,
            stats: PortStats::default(),
            uring_stats: UringStats::default(),
        })
    }

    /// Where the socket is bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Who runs the kernel's half of a completion: the best that this kernel offered.
    pub fn task_work(&self) -> TaskWork {
        self.ring.task_work()
    }

    /// The NAPI instance that the last datagram came through; 0 on devices without one (loopback, veth), where busy
    /// polling has nothing to poll and a record must not claim its effect.
    ///
    /// # Errors
    /// What getsockopt(2) says (SO_INCOMING_NAPI_ID, Linux 4.12).
    pub fn napi_id(&self) -> io::Result<u32> {
        let ([napi_id], _) = inet::get_option(self.ring.socket(), libc::SOL_SOCKET, libc::SO_INCOMING_NAPI_ID)?;
        Ok(napi_id)
    }

    /// What the kernel granted as receive and send buffers, in bytes of its own bookkeeping (socket(7): twice the wish).
    ///
    /// # Errors
    /// The kernel's, which would be new.
    pub fn buffer_bytes(&self) -> io::Result<(usize, usize)> {
        let ([recv], _) = inet::get_option(self.ring.socket(), libc::SOL_SOCKET, libc::SO_RCVBUF)?;
        let ([send], _) = inet::get_option(self.ring.socket(), libc::SOL_SOCKET, libc::SO_SNDBUF)?;
        Ok((recv as usize, send as usize))
    }

    /// What only this port counts.
    pub fn uring_stats(&self) -> UringStats {
        self.uring_stats
    }

    /// Takes what has completed: sends free their slots, receptions wait in `ready`.
    fn reap(&mut self) {
        while let Some(done) = self.ring.next() {
            match done {
                Done::Receive(Ok(buffer)) => self.ready.push_back(buffer),
                Done::Receive(Err(errno)) => self.receive_failed(errno),
                Done::Send(Ok(())) => self.uring_stats.sends_completed_count += 1,
                Done::Send(Err(errno)) => {
                    // It was counted when the ring took it.
                    self.stats.tx_frames_count -= 1;
                    self.stats.tx_dropped_count += 1;
                    if !is_loss(errno) {
                        self.failed = Some(io::Error::from_raw_os_error(errno));
                    }
                }
                Done::Notification { copied } => {
                    self.uring_stats.notifications_count += 1;
                    self.uring_stats.zero_copy_copied_count += u64::from(copied);
                }
            }
        }
    }

    fn receive_failed(&mut self, errno: i32) {
        match errno {
            libc::ENOBUFS => self.uring_stats.buffers_exhausted_count += 1,
            // The end of a cancelled receive.
            libc::ECANCELED => {}
            // An ICMP error about a frame that had been counted as sent.
            _ if is_loss(errno) => self.stats.tx_dropped_count += 1,
            _ => self.failed = Some(io::Error::from_raw_os_error(errno)),
        }
    }

    /// Arms the receive again if the kernel has ended it. Says whether that is still to be submitted.
    fn arm(&mut self) -> bool {
        // With all buffers on our side the kernel would end it at once; `rx_burst` gives some back and comes here.
        if self.ring.receive_is_armed() || self.ready.len() >= self.buffers_count {
            return false;
        }
        let armed = self.ring.arm_receive();
        self.uring_stats.receive_armed_count += u64::from(armed);
        true
    }

    fn submit(&mut self) -> io::Result<()> {
        self.ring.enter(0, Duration::ZERO)?;
        self.queued_count = 0;
        self.reap();
        self.check_failed()
    }

    fn check_failed(&mut self) -> io::Result<()> {
        match self.failed.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Hands out one received buffer, if it is a whole frame of a peer.
    fn deliver(&mut self, buffer: &Buffer, sink: &mut dyn FnMut(RxFrame<'_>)) -> bool {
        let Some(datagram) = self.ring.datagram(buffer) else {
            self.stats.malformed_count += 1;
            return false;
        };
        if datagram.truncated {
            self.stats.malformed_count += 1;
            return false;
        }
        let from = match self.connected {
            true => Some((Peer(0), false)),
            false => from_raw(datagram.name).and_then(|address| self.peers.find_or_learn(address)),
        };
        let Some((from, is_new)) = from else {
            self.stats.strangers_count += 1;
            return false;
        };
        sink(RxFrame {
            from,
            bytes: datagram.payload,
            stamp: None,
        });
        self.stats.rx_frames_count += 1;
        if is_new {
            let address = self.peers.rows()[from.0 as usize];
            self.ring.set_address(from.0 as usize, to_raw(address));
        }
        true
    }
}

impl Port for UringPort {
    fn caps(&self) -> PortCaps {
        self.caps
    }

    fn wait(&mut self, max: Duration) -> io::Result<()> {
        if self.wait == UringWait::Spin {
            return Ok(());
        }
        self.reap();
        self.arm();
        if !self.ready.is_empty() || max.is_zero() {
            return match self.ring.has_unsubmitted() {
                true => self.submit(),
                false => self.check_failed(),
            };
        }
        let since = Instant::now();
        let mut left = max;
        loop {
            // Our own sends complete too, at once; only what comes beyond them is news.
            let want = self.ring.sends_incomplete_count() + 1;
            self.ring.enter(want, left)?;
            self.queued_count = 0;
            self.reap();
            self.check_failed()?;
            if !self.ready.is_empty() {
                return Ok(());
            }
            self.arm();
            left = max.saturating_sub(since.elapsed());
            if left.is_zero() {
                return Ok(());
            }
        }
    }

    fn wait_or(&mut self, max: Duration, bell: BorrowedFd<'_>) -> io::Result<()> {
        if self.wait == UringWait::Spin {
            return Ok(());
        }
        let since = Instant::now();
        loop {
            self.reap();
            if self.arm() || self.ring.has_unsubmitted() || self.ring.has_task_work() {
                self.submit()?;
            }
            self.check_failed()?;
            let left = max.saturating_sub(since.elapsed());
            if !self.ready.is_empty() || left.is_zero() {
                return Ok(());
            }
            // The ring is readable when the kernel has something for it, our own sends' completions included.
            match self.ring.sleep_or(bell, left)? {
                true => {}
                false => return Ok(()),
            }
        }
    }

    fn rx_burst(&mut self, sink: &mut dyn FnMut(RxFrame<'_>)) -> io::Result<usize> {
        self.reap();
        if self.ready.is_empty() && (self.ring.has_task_work() || self.ring.has_unsubmitted()) {
            self.submit()?;
        }
        let mut frames_count = 0;
        // A burst is bounded by what it takes in, strangers and malformed frames included.
        for _ in 0..self.caps.batch_frames_max {
            let Some(buffer) = self.ready.pop_front() else { break };
            frames_count += usize::from(self.deliver(&buffer, sink));
            self.ring.give_back(buffer);
        }
        if self.arm() {
            self.submit()?;
        }
        self.check_failed()?;
        Ok(frames_count)
    }

    fn tx(&mut self, to: Peer, len_bytes: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<(), TxError> {
        if self.peers.get(to).is_none() {
            return Err(TxError::NoPeer);
        }
        if len_bytes > self.caps.frame_bytes_max {
            return Err(TxError::TooLong);
        }
        let mut queued = false;
        if self.queued_count < self.caps.batch_frames_max {
            queued = self.ring.send(to.0 as usize, len_bytes, fill);
            if !queued {
                // Sends may have completed since we looked last.
                self.reap();
                queued = self.ring.send(to.0 as usize, len_bytes, fill);
            }
        }
        if !queued {
            self.stats.tx_dropped_count += 1;
            return Err(TxError::Full);
        }
        self.queued_count += 1;
        self.stats.tx_frames_count += 1;
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let wait_will_submit = self.merge_submit && self.ready.is_empty();
        if self.ring.has_unsubmitted() && !wait_will_submit {
            return self.submit();
        }
        self.check_failed()
    }

    fn stats(&self) -> PortStats {
        PortStats {
            rx_dropped_count: socket_drops_count(self.ring.socket()),
            syscalls_count: self.ring.syscalls_count(),
            ..self.stats
        }
    }
}

/// What the network, or a full buffer on the way to it, says about one frame. The port goes on.
fn is_loss(errno: i32) -> bool {
    matches!(
        errno,
        libc::EAGAIN
            | libc::ENOBUFS
            | libc::ENOMEM
            | libc::ECONNREFUSED
            | libc::ECONNRESET
            | libc::EHOSTUNREACH
            | libc::EHOSTDOWN
            | libc::ENETUNREACH
            | libc::ENETDOWN
            | libc::ENETRESET
            | libc::ENOPROTOOPT
            | libc::EPROTO
            | libc::EMSGSIZE
            | libc::ETIMEDOUT
            // A packet filter's "no", and the administrative ICMP codes.
            | libc::EPERM
            | libc::EACCES
    )
}

/// Datagrams that the socket has dropped since it was made: full receive buffer, bad checksum (SO_MEMINFO, Linux 4.12).
/// A socket that cannot be asked has not told us of a loss.
fn socket_drops_count(socket: &UdpSocket) -> u64 {
    const DROPS: usize = libc::SK_MEMINFO_DROPS as usize;
    match inet::get_option::<{ DROPS + 1 }>(socket, libc::SOL_SOCKET, libc::SO_MEMINFO) {
        Ok((memory_info, _)) => memory_info[DROPS].into(),
        Err(_) => 0,
    }
}
