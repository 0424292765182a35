//! The port over the rings: headers, peers, bursts, waiting, counters.

use std::{
    cell::Cell,
    io,
    net::{SocketAddr, UdpSocket},
    os::fd::BorrowedFd,
    time::Duration,
};

use dataplane_waist::{Peer, Port, PortCaps, PortStats, RxFrame, TxError, Wake};
use dataplane_wire::{datagram, udp::Checksum};
use nix::{
    errno::Errno,
    net::if_::if_nametoindex,
    poll::{PollFd, PollFlags, ppoll},
    sys::time::TimeSpec,
};

use super::{PacketOptions, PacketWait, filter};
use crate::{
    companion, either,
    endpoint::{Endpoint, EndpointConfig, Heard},
    sys::packet::{self, PacketConfig, PacketRings, RX_NETWORK_OFFSET_BYTES},
};

const RING_FRAMES_MAX: usize = 1 << 16;
/// One ring is at most this large, as long as the kernel's memory for it cannot be swapped.
const RING_BYTES_MAX: usize = 1 << 28;
/// The most frames of one burst.
const BATCH_FRAMES_MAX: usize = 64;

/// Why a port could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The options contradict each other or the interface.
    #[error("{0}")]
    Options(String),
    /// No such interface in this network namespace.
    #[error("there is no interface {interface} in this network namespace ({error}); `ip link` lists them")]
    NoInterface {
        /// The name that was given.
        interface: String,
        /// What the kernel said.
        #[source]
        error: io::Error,
    },
    /// The kernel said no.
    #[error("{asked} failed: {error}")]
    Failed {
        /// What was tried.
        asked: &'static str,
        /// What came back.
        #[source]
        error: io::Error,
    },
}

/// A UDP endpoint behind a packet socket. Use it from any one thread at a time.
#[derive(Debug)]
pub struct PacketPort {
    rings: PacketRings,
    /// Keeps the kernel from answering for us; never read. `None` if the address is not one of the host's.
    _companion: Option<UdpSocket>,
    caps: PortCaps,
    spins: bool,
    endpoint: Endpoint,
    /// Frames that are marked to be sent and may still be.
    is_kick_due: bool,
    stats: PortStats,
    /// PACKET_STATISTICS forgets when read, so `stats(&self)` must remember.
    rx_dropped_count: Cell<u64>,
}

impl PacketPort {
    /// Opens the sockets, makes the rings and binds them.
    ///
    /// # Errors
    /// See [`OpenError`]; [`super::probe`] explains the kernel's.
    pub fn open(options: &PacketOptions) -> Result<PacketPort, OpenError> {
        let headers_bytes = match options.local {
            SocketAddr::V4(_) => datagram::IPV4_HEADER_BYTES,
            SocketAddr::V6(_) => datagram::IPV6_HEADER_BYTES,
        };
        check(options)?;
        let no_interface = |error| OpenError::NoInterface {
            interface: options.interface.clone(),
            error,
        };
        let interface_index = if_nametoindex(options.interface.as_str()).map_err(|errno| no_interface(errno.into()))?;

        let (companion, local) =
            companion::open(options.local).map_err(|(asked, error)| OpenError::Failed { asked, error })?;
        // The ring must hold the longest frame and one byte more, so that a longer one shows as such.
        let place_bytes = RX_NETWORK_OFFSET_BYTES + headers_bytes + options.frame_bytes_max + 1;
        let config = PacketConfig {
            interface_index,
            ether_type: match local {
                SocketAddr::V4(_) => libc::ETH_P_IP as u16,
                SocketAddr::V6(_) => libc::ETH_P_IPV6 as u16,
            },
            frame_bytes: place_bytes.next_power_of_two().max(2048),
            frames_count: options.ring_frames,
            filter: &filter::only_to(local),
        };
        if config.frame_bytes * config.frames_count > RING_BYTES_MAX {
            return Err(OpenError::Options(format!(
                "{} frames of {} bytes are a ring of more than {RING_BYTES_MAX} bytes",
                config.frames_count, config.frame_bytes
            )));
        }
        let rings = PacketRings::open(&config).map_err(|(asked, error)| OpenError::Failed { asked, error })?;
        let mtu_bytes = packet::interface_mtu_bytes(rings.socket(), &options.interface).map_err(no_interface)?;
        let packet_bytes = headers_bytes - dataplane_wire::ethernet::HEADER_BYTES + options.frame_bytes_max;
        if packet_bytes > mtu_bytes {
            return Err(OpenError::Options(format!(
                "frames of {} bytes make IP packets of {packet_bytes}, above the MTU of {}, which is {mtu_bytes}; try `ip link set {} mtu {packet_bytes}`",
                options.frame_bytes_max, options.interface, options.interface
            )));
        }

        Ok(PacketPort {
            rings,
            _companion: companion,
            caps: PortCaps {
                name: match options.wait {
                    PacketWait::Poll => "af-packet",
                    PacketWait::Spin => "af-packet-spin",
                },
                frame_bytes_max: options.frame_bytes_max,
                batch_frames_max: BATCH_FRAMES_MAX.min(options.ring_frames),
                wake: match options.wait {
                    PacketWait::Poll => Wake::Sleeps,
                    PacketWait::Spin => Wake::Spins,
                },
            },
            spins: options.wait == PacketWait::Spin,
            endpoint: Endpoint::new(&EndpointConfig {
                local,
                local_mac: options.local_mac,
                peers: &options.peers,
                learn_peers_max: options.learn_peers_max,
                frame_bytes_max: options.frame_bytes_max,
            }),
            is_kick_due: false,
            stats: PortStats::default(),
            rx_dropped_count: Cell::new(0),
        })
    }

    /// What poll's answer means for the port.
    fn check_link(&self, seen: PollFlags) -> io::Result<()> {
        let has_error = seen.contains(PollFlags::POLLERR);
        match has_error.then(|| self.rings.take_error()).flatten() {
            // A link that is down may come up again.
            None | Some(libc::ENETDOWN) => Ok(()),
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// The address that the port answers to.
    pub fn local_addr(&self) -> SocketAddr {
        self.endpoint.local()
    }
}

impl Port for PacketPort {
    fn caps(&self) -> PortCaps {
        self.caps
    }

    fn wait(&mut self, max: Duration) -> io::Result<()> {
        if self.spins || max.is_zero() || self.rings.has_received() {
            return Ok(());
        }
        self.stats.syscalls_count += 1;
        let mut polled = [PollFd::new(self.rings.socket(), PollFlags::POLLIN)];
        match ppoll(&mut polled, Some(TimeSpec::from_duration(max)), None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        self.check_link(polled[0].revents().unwrap_or(PollFlags::empty()))
    }

    fn wait_or(&mut self, max: Duration, bell: BorrowedFd<'_>) -> io::Result<()> {
        if self.spins || max.is_zero() || self.rings.has_received() {
            return Ok(());
        }
        self.stats.syscalls_count += 1;
        let seen = either::sleep(self.rings.socket(), bell, max)?;
        self.check_link(seen)
    }

    fn rx_burst(&mut self, sink: &mut dyn FnMut(RxFrame<'_>)) -> io::Result<usize> {
        let PacketPort {
            rings, endpoint, stats, ..
        } = self;
        let mut frames_count = 0;
        // A burst is bounded by what it takes in, strangers and malformed frames included.
        for _ in 0..self.caps.batch_frames_max {
            let taken = rings.receive(|view| match endpoint.hear(view) {
                Heard::Frame(from, payload) => {
                    sink(RxFrame {
                        from,
                        bytes: &view.bytes[payload],
                        stamp: None,
                    });
                    frames_count += 1;
                }
                Heard::Stranger => stats.strangers_count += 1,
                Heard::Malformed => stats.malformed_count += 1,
            });
            if taken.is_none() {
                break;
            }
        }
        stats.rx_frames_count += frames_count as u64;
        Ok(frames_count)
    }

    fn tx(&mut self, to: Peer, len_bytes: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<(), TxError> {
        let Some(header) = self.endpoint.header_to(to) else {
            return Err(TxError::NoPeer);
        };
        if len_bytes > self.caps.frame_bytes_max {
            return Err(TxError::TooLong);
        }
        let start = header.len_bytes();
        let queued = self.rings.send(start + len_bytes, |frame| {
            fill(&mut frame[start..]);
            datagram::emit(&header, Checksum::Full, frame);
        });
        if !queued {
            self.stats.tx_dropped_count += 1;
            return Err(TxError::Full);
        }
        self.is_kick_due = true;
        self.stats.tx_frames_count += 1;
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.is_kick_due {
            return Ok(());
        }
        self.stats.syscalls_count += 1;
        match self.rings.kick() {
            Ok(()) => {
                self.is_kick_due = self.rings.has_marked();
                Ok(())
            }
            // What the kernel or the device has no room for now stays in the ring for the next flush; a ring that never
            // empties refuses new frames, and those are counted.
            Err(error) => match error.raw_os_error() {
                Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM | libc::ENETDOWN | libc::EINTR) => Ok(()),
                Some(libc::ENXIO | libc::ENODEV) => Err(io::Error::new(
                    io::ErrorKind::NotConnected,
                    "the interface of this packet port is gone",
                )),
                _ => Err(error),
            },
        }
    }

    fn stats(&self) -> PortStats {
        // A socket that cannot be asked has not told us of a loss.
        let newly_dropped_count = self.rings.take_drops_count().unwrap_or(0);
        self.rx_dropped_count
            .set(self.rx_dropped_count.get() + newly_dropped_count);
        PortStats {
            rx_dropped_count: self.rx_dropped_count.get(),
            ..self.stats
        }
    }
}

fn check(options: &PacketOptions) -> Result<(), OpenError> {
    let refuse = |why: String| Err(OpenError::Options(why));
    let local = options.local;
    if let Some(peer) = options.peers.iter().find(|peer| peer.addr.is_ipv4() != local.is_ipv4()) {
        return refuse(format!("peer {} is not of the family of {local}", peer.addr));
    }
    if local.ip().is_unspecified() || local.ip().is_multicast() {
        return refuse(format!("{local} is not an address that frames can come from"));
    }
    // The longest UDP payload; the MTU is checked when the interface is known.
    if !(1..=65_507).contains(&options.frame_bytes_max) {
        return refuse(format!(
            "frame_bytes_max is {}; it must be 1 to 65507",
            options.frame_bytes_max
        ));
    }
    if !options.ring_frames.is_power_of_two() || !(4..=RING_FRAMES_MAX).contains(&options.ring_frames) {
        return refuse(format!(
            "ring_frames is {}; it must be a power of two, 4 to {RING_FRAMES_MAX}",
            options.ring_frames
        ));
    }
    Ok(())
}
