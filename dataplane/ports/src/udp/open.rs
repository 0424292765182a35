//! Opening a UDP port, and asking whether a variant exists here.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::AsFd,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use dataplane_waist::{PortCaps, PortStats, ProbeError, Support, Wake};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use super::{
    Batching, EpollSet, FRAME_BYTES_LIMIT, GSO_FRAMES_MAX, MULTI_FRAMES_MAX, PEERS_COUNT_MAX, TrainStats, UdpOptions,
    UdpPort, WaitHow, name,
    peers::{PeerTable, as_family_of},
    rx::Rx,
    tx::Tx,
    wake,
};
use crate::sys::inet::{epoll_wait_one, set_option};

/// Why a UDP port could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("{operation} failed for {address}: {error}; {mend}")]
pub struct OpenError {
    /// What was tried.
    pub operation: &'static str,
    /// For which address.
    pub address: SocketAddr,
    /// What came back.
    pub error: io::Error,
    /// What to try.
    pub mend: &'static str,
}

impl UdpPort {
    /// Binds a socket as `options` say.
    ///
    /// # Errors
    /// Options that contradict each other or break a bound, or the kernel said no: the error says to what.
    pub fn open(options: &UdpOptions) -> Result<UdpPort, OpenError> {
        check(options)?;
        let fail = |operation, mend| {
            let address = options.local;
            move |error| OpenError {
                operation,
                address,
                error,
                mend,
            }
        };
        let socket = UdpSocket::bind(options.local).map_err(fail(
            "bind",
            "choose an address of this host and a port that is free (port 0: any)",
        ))?;
        let buffers = [
            (options.recv_buffer_bytes, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF),
            (options.send_buffer_bytes, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF),
        ];
        for (bytes, forced, clamped) in buffers {
            let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
            if bytes > 0 && set_option(&socket, libc::SOL_SOCKET, forced, bytes).is_err() {
                set_option(&socket, libc::SOL_SOCKET, clamped, bytes)
                    .map_err(fail("setting a socket buffer", "choose another size"))?;
            }
        }
        if let WaitHow::BusyPoll { microseconds } = options.wait {
            set_option(
                &socket,
                libc::SOL_SOCKET,
                libc::SO_BUSY_POLL,
                microseconds as libc::c_int,
            )
            .map_err(fail("setting SO_BUSY_POLL", BUSY_POLL_MEND))?;
        }
        if options.batch == Batching::Gso {
            set_option(&socket, libc::SOL_UDP, libc::UDP_GRO, 1).map_err(fail("setting UDP_GRO", GRO_MEND))?;
        }
        if options.connect {
            let peer = as_family_of(options.local, options.peers[0]);
            socket.connect(peer).map_err(|error| OpenError {
                operation: "connect",
                address: peer,
                error,
                mend: "choose a peer that this host has a route to",
            })?;
        }
        let epoll = match options.wait {
            WaitHow::Epoll => {
                Some(epoll_set(&socket).map_err(fail("making an epoll set", "raise the limit of open files"))?)
            }
            _ => None,
        };
        let local = socket
            .local_addr()
            .map_err(fail("asking the bound address", "try again"))?;
        let connected = options.connect;
        Ok(UdpPort {
            local,
            wait: options.wait,
            look_max: options.look_max,
            epoll,
            recv_timeout: None,
            caps: PortCaps {
                name: name(options.wait, options.batch),
                frame_bytes_max: options.frame_bytes_max,
                batch_frames_max: match options.batch {
                    Batching::Single => 1,
                    Batching::Multi => MULTI_FRAMES_MAX,
                    Batching::Gso => GSO_FRAMES_MAX,
                },
                wake: match options.wait {
                    WaitHow::Epoll if !options.look_max.is_zero() => Wake::BusyPolls,
                    wait => wake(wait),
                },
            },
            stats: PortStats::default(),
            trains: TrainStats::default(),
            peers: PeerTable::new(options),
            rx: Rx::new(options.batch, options.frame_bytes_max, connected),
            tx: Tx::new(options.batch, options.frame_bytes_max),
            closed: Arc::new(AtomicBool::new(false)),
            failed: None,
            socket,
        })
    }
}

const BUSY_POLL_MEND: &str = "grant CAP_NET_ADMIN, or set the default for all sockets: sysctl net.core.busy_read=50";
const GRO_MEND: &str = "use Batching::Multi; UDP_GRO came with Linux 5.0";

fn check(options: &UdpOptions) -> Result<(), OpenError> {
    let refuse = |address, why: String, mend| {
        Err(OpenError {
            operation: "checking the options",
            address,
            error: io::Error::new(io::ErrorKind::InvalidInput, why),
            mend,
        })
    };
    let known_max = options.peers.len().saturating_add(options.learn_peers_max);
    if known_max > PEERS_COUNT_MAX {
        let why = format!("{known_max} peers; at most {PEERS_COUNT_MAX} are possible");
        return refuse(options.local, why, "use several ports");
    }
    if options.frame_bytes_max == 0 || options.frame_bytes_max > FRAME_BYTES_LIMIT {
        let why = format!(
            "frame_bytes_max is {}; it must be 1 to {FRAME_BYTES_LIMIT}",
            options.frame_bytes_max
        );
        return refuse(options.local, why, "choose a size within the bounds");
    }
    if options.connect && (options.peers.len() != 1 || options.learn_peers_max != 0) {
        let why = format!(
            "connect with {} peers and {} to learn",
            options.peers.len(),
            options.learn_peers_max
        );
        return refuse(options.local, why, "a connected socket has exactly one peer");
    }
    for peer in &options.peers {
        if peer.port() == 0 {
            return refuse(
                *peer,
                "a peer with port 0".into(),
                "name the port that the peer is bound to",
            );
        }
        if options.local.is_ipv4() && peer.is_ipv6() {
            let why = "an IPv6 peer of an IPv4 socket".into();
            return refuse(*peer, why, "bind to an IPv6 address");
        }
    }
    Ok(())
}

fn epoll_set(socket: &UdpSocket) -> io::Result<EpollSet> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
    // Nothing is there yet, so this only asks whether the call exists (ENOSYS before 5.11; EPERM under old seccomp).
    let nanoseconds = epoll_wait_one(epoll.0.as_fd(), Duration::ZERO).is_ok();
    Ok(EpollSet { epoll, nanoseconds })
}

/// Asks the kernel for everything that this variant uses, on a socket that is dropped again.
///
/// # Errors
/// The kernel knows the feature and did not let us have it (EPERM), or sockets as a whole were refused.
pub fn probe(wait: WaitHow, batch: Batching) -> Result<Support, ProbeError> {
    let options = UdpOptions {
        // Exists in every network namespace, also where lo is down.
        local: SocketAddr::from((IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0)),
        wait,
        batch,
        ..UdpOptions::default()
    };
    let absent_or_error = |asked: &str, error: io::Error, mend: &str| match error.raw_os_error() {
        Some(libc::ENOPROTOOPT | libc::ENOSYS) => Ok(Support::Absent {
            why: format!("the kernel does not know it: {asked} answers \"{error}\"; {mend}"),
        }),
        _ => Err(ProbeError {
            asked: asked.into(),
            error,
            mend: mend.into(),
        }),
    };
    let port = match UdpPort::open(&options) {
        Ok(port) => port,
        Err(e) => return absent_or_error(e.operation, e.error, e.mend),
    };
    if batch == Batching::Gso
        // A default segment size of 0 is none: asks for the option without its effect.
        && let Err(e) = set_option(&port.socket, libc::SOL_UDP, libc::UDP_SEGMENT, 0)
    {
        let mend = "use Batching::Multi; UDP_SEGMENT came with Linux 4.18";
        return absent_or_error("setting UDP_SEGMENT", e, mend);
    }
    match &port.epoll {
        Some(set) if !set.nanoseconds => Ok(Support::Emulated {
            by: "epoll_wait(2), which waits in whole milliseconds (epoll_pwait2 came with Linux 5.11)".into(),
        }),
        _ => Ok(Support::Native),
    }
}
