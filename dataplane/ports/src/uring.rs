//! Kernel UDP through io_uring: submissions and completions in shared memory instead of one system call per datagram.
//!
//! Reception is one multishot request that the kernel serves from a ring of provided buffers; a send is one SQE from a
//! slot of fixed memory, optionally zero-copy. What differs between the variants is who does the kernel's work and how
//! the thread waits ([`UringWait`]).
//!
//! What to expect on a host without a fast NIC: a sleeping ring costs what `recvmmsg` costs, because the wake-up costs
//! more than everything else; a spinning ring is a little slower than a bare spin on a socket. On loopback and veth
//! zero-copy copies after all ([`UringStats::zero_copy_copied_count`] says so), and NAPI busy polling has no queue to
//! poll ([`UringPort::napi_id`] is 0 there).
//!
//! A thread that uses a ring may find its other system calls interrupted (EINTR) when a completion comes: retry them, as
//! after a signal.

mod address;
mod open;
mod port;
mod probe;

use std::net::SocketAddr;

pub use crate::sys::uring::TaskWork;
pub use port::UringPort;
pub use probe::probe;

/// How the thread waits, and who does the kernel's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UringWait {
    /// Sleep in io_uring_enter until a completion or the time-out.
    Enter,
    /// Never sleep: look at the completion queue, and enter only when the kernel has flagged that work is to be
    /// finished (IORING_SQ_TASKRUN), so that an empty look costs two loads and no system call.
    Spin,
    /// A kernel thread polls the submission queue and sleeps after `idle_ms` without work. It burns a CPU beside the
    /// caller's; on two CPUs that is rarely worth it.
    SqPoll {
        /// Milliseconds.
        idle_ms: u32,
    },
    /// As [`UringWait::Enter`], but poll the device's queue for so long before sleeping (IORING_REGISTER_NAPI). The
    /// registration succeeds on any kernel since 6.9; it has an effect only where the socket's frames come from a NAPI
    /// instance, which loopback and veth do not have.
    NapiBusyPoll {
        /// Microseconds.
        microseconds: u32,
    },
}

/// Which io_uring is meant: what `probe` asks for and `open` builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UringVariant {
    /// How the thread waits.
    pub wait: UringWait,
    /// Connect the socket to its one peer: the kernel finds the route once and reports ICMP errors, and everybody
    /// else's datagrams are dropped before they reach the port.
    pub connect: bool,
    /// Send with SEND_ZC from registered memory. Each send has two completions, and its slot is free after the second.
    pub zero_copy_send: bool,
    /// Leave what `flush` should submit to the `wait` that follows: one system call per turn instead of two. Sound only
    /// for a caller that calls `wait` or `rx_burst` right after `flush`, as `Node::run` does; until then the frames
    /// stay here. For [`UringWait::Enter`] and [`UringWait::NapiBusyPoll`] only.
    pub submit_with_wait: bool,
}

impl UringVariant {
    /// The variant that waits so and has everything else switched off.
    pub const fn new(wait: UringWait) -> UringVariant {
        UringVariant {
            wait,
            connect: false,
            zero_copy_send: false,
            submit_with_wait: false,
        }
    }

    /// Its name in `dplab probe`. Connected or not is not part of it.
    pub const fn name(&self) -> &'static str {
        match (self.wait, self.zero_copy_send, self.submit_with_wait) {
            (UringWait::Enter, false, false) => "uring",
            (UringWait::Enter, false, true) => "uring-merged",
            (UringWait::Enter, true, false) => "uring-zc",
            (UringWait::Enter, true, true) => "uring-zc-merged",
            (UringWait::Spin, false, _) => "uring-spin",
            (UringWait::Spin, true, _) => "uring-zc-spin",
            (UringWait::SqPoll { .. }, false, _) => "uring-sqpoll",
            (UringWait::SqPoll { .. }, true, _) => "uring-zc-sqpoll",
            (UringWait::NapiBusyPoll { .. }, false, false) => "uring-napi",
            (UringWait::NapiBusyPoll { .. }, false, true) => "uring-napi-merged",
            (UringWait::NapiBusyPoll { .. }, true, false) => "uring-zc-napi",
            (UringWait::NapiBusyPoll { .. }, true, true) => "uring-zc-napi-merged",
        }
    }
}

/// What [`UringPort::open`] needs to know.
#[derive(Clone, Debug)]
pub struct UringOptions {
    /// Where to bind; port 0 lets the kernel choose ([`UringPort::local_addr`] says what).
    pub local: SocketAddr,
    /// `Peer(i)` is `peers[i]`. All of `local`'s family. Exactly one with [`UringVariant::connect`].
    pub peers: Vec<SocketAddr>,
    /// How many further senders become peers by writing to us. With 0, strangers are counted and dropped.
    pub learn_peers_max: usize,
    /// Which io_uring.
    pub variant: UringVariant,
    /// SO_RCVBUF (forced past `net.core.rmem_max` where CAP_NET_ADMIN allows). 0: the kernel's default.
    pub recv_buffer_bytes: usize,
    /// SO_SNDBUF, likewise.
    pub send_buffer_bytes: usize,
    /// The largest frame, 1 to 65 507.
    pub frame_bytes_max: usize,
    /// The most frames of one burst, and the most queued before `flush`; 1 to 2048. Twice as many slots exist, for sends
    /// whose completion is still to come.
    pub entries: u16,
    /// Receive buffers; a power of two up to 32 768, at least `entries`.
    pub buffers: u16,
}

impl UringOptions {
    /// A server's options: bound to `local`, knows nobody, learns up to 64 peers, frames of up to 9000 bytes.
    pub fn new(local: SocketAddr, variant: UringVariant) -> UringOptions {
        UringOptions {
            local,
            peers: Vec::new(),
            learn_peers_max: 64,
            variant,
            recv_buffer_bytes: 0,
            send_buffer_bytes: 0,
            frame_bytes_max: 9000,
            entries: 32,
            buffers: 128,
        }
    }
}

/// What only this port counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UringStats {
    /// Times the multishot receive was armed: once at the start, and again whenever the kernel ended it.
    pub receive_armed_count: u64,
    /// Times it ended because all buffers were with us (ENOBUFS). The datagram then still waits in the socket; what the
    /// socket had to drop is in `PortStats::rx_dropped_count`.
    pub buffers_exhausted_count: u64,
    /// Sends whose completion said that the kernel has taken the frame. Behind `PortStats::tx_frames_count` by what is in
    /// flight.
    pub sends_completed_count: u64,
    /// Zero-copy notifications: as many as completed zero-copy sends, once all is quiet.
    pub notifications_count: u64,
    /// Those that say that the kernel copied the bytes after all.
    pub zero_copy_copied_count: u64,
}
