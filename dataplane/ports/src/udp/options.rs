//! What a UDP port can be asked to be.

use std::net::SocketAddr;

use dataplane_waist::Wake;

/// What to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpOptions {
    /// Where to bind; port 0 lets the kernel choose.
    pub local: SocketAddr,
    /// The peers, in the order of their [`dataplane_waist::Peer`] numbers. All of `local`'s family, or IPv4 under a dual-stack `[::]`.
    pub peers: Vec<SocketAddr>,
    /// How many more may become peers by writing to us, in order of arrival. 0: strangers are counted and dropped.
    pub learn_peers_max: usize,
    /// connect(2) to the only peer: the kernel filters what comes, a frame needs no address, and ICMP errors come back.
    pub connect: bool,
    /// How [`dataplane_waist::Port::wait`] rests.
    pub wait: WaitHow,
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
            connect: false,
            wait: WaitHow::Blocking,
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
    /// In recv(2) itself, which brings the frame along. Bounded by SO_RCVTIMEO, whose grain is a jiffy (1 to 10 ms), so
    /// waits under 10 ms go through ppoll(2) first.
    Blocking,
    /// As Blocking, without the timeout: waits of 10 ms and more end only with a frame, a signal, or [`super::UdpCloser::close`],
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
    /// for a socket whose frames come from a device without NAPI (lo, veth without GRO): see [`super::UdpPort::napi_id`].
    BusyPoll {
        /// How long to poll before sleeping. Above what `net.core.busy_read` gives, it needs CAP_NET_ADMIN.
        microseconds: u32,
    },
}

/// How many frames one system call moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batching {
    /// One: recvfrom(2), sendto(2). A frame leaves at [`dataplane_waist::Port::tx`].
    Single,
    /// Up to [`super::MULTI_FRAMES_MAX`]: recvmmsg(2), sendmmsg(2).
    Multi,
    /// A train of equally long frames to one peer as one datagram that is cut late (UDP_SEGMENT) and received as one
    /// (UDP_GRO). A frame of another length or for another peer starts a new train.
    Gso,
}

/// What the port's capabilities say of this way of waiting.
pub(super) fn wake(wait: WaitHow) -> Wake {
    match wait {
        WaitHow::Blocking | WaitHow::Untimed | WaitHow::Poll | WaitHow::Epoll => Wake::Sleeps,
        WaitHow::Spin => Wake::Spins,
        WaitHow::BusyPoll { .. } => Wake::BusyPolls,
    }
}

/// The port's name, as `dplab probe` lists it.
pub(super) fn name(wait: WaitHow, batch: Batching) -> &'static str {
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
