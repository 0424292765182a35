//! Opening a port: what is checked before the kernel is asked, how large the memory's frames are, who gets which.

use std::{net::SocketAddr, os::fd::AsFd};

use dataplane_waist::{PortCaps, PortStats, Wake};
use dataplane_wire::datagram;
use nix::{
    net::if_::if_nametoindex,
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

use super::{
    OpenError, Socket, SocketOptions, TxMetadata, Umem, UmemOptions, XdpChecksum, XdpCopy, XdpOptions, XdpPort,
    XdpWait, gathered::Gathered, stamps::Stamps,
};
use crate::{
    companion,
    endpoint::{Endpoint, EndpointConfig},
    sys::{packet, xsk_umem::TX_METADATA_BYTES},
};

const RING_FRAMES_MAX: usize = 1 << 16;
/// The most frames of one burst: what the kernel takes in one system call in copy mode (`TX_BATCH_SIZE`, net/xdp/xsk.c).
const BATCH_FRAMES_MAX: usize = 32;
/// The two sizes of a UMEM's frames.
const FRAME_BYTES_SMALL: usize = 2048;
const FRAME_BYTES_LARGE: usize = 4096;
/// What the kernel keeps of each received frame (XDP_PACKET_HEADROOM, include/linux/filter.h).
const RX_HEADROOM_BYTES: usize = 256;
/// With metadata, a packet to send begins at the next cache line after it.
const TX_START_BYTES: usize = 64;
const _: () = assert!(TX_START_BYTES >= TX_METADATA_BYTES && TX_START_BYTES <= RX_HEADROOM_BYTES);

impl XdpPort {
    /// Makes the memory, opens the socket, binds it and gives the kernel the frames to receive into.
    ///
    /// # Errors
    /// See [`OpenError`]; [`super::probe`] explains the kernel's.
    pub fn open(options: &XdpOptions) -> Result<XdpPort, OpenError> {
        let headers_bytes = match options.local {
            SocketAddr::V4(_) => datagram::IPV4_HEADER_BYTES,
            SocketAddr::V6(_) => datagram::IPV6_HEADER_BYTES,
        };
        let packet_bytes_max = headers_bytes.saturating_add(options.frame_bytes_max);
        let is_long = packet_bytes_max > FRAME_BYTES_LARGE - RX_HEADROOM_BYTES;
        check(options, packet_bytes_max, is_long)?;
        check_mtu(options, headers_bytes)?;

        let frame_bytes = match packet_bytes_max <= FRAME_BYTES_SMALL - RX_HEADROOM_BYTES {
            true => FRAME_BYTES_SMALL,
            false => FRAME_BYTES_LARGE,
        };
        let tx_metadata = match (options.checksum, options.tx_stamps) {
            (XdpChecksum::Kernel, _) => TxMetadata::Kernel,
            (XdpChecksum::Device, _) | (XdpChecksum::Port, true) => TxMetadata::Device,
            (XdpChecksum::Port, false) => TxMetadata::None,
        };
        let (companion, local) =
            companion::open(options.local).map_err(|(asked, error)| OpenError::Failed { asked, error })?;
        let (umem, mut frames) = Umem::new(&UmemOptions {
            frame_bytes,
            frames_count: 2 * options.ring_frames,
            huge_pages: options.huge_pages,
            tx_metadata,
        })?;
        let rings = options.ring_frames as u32;
        let mut socket = Socket::open(
            &umem,
            &SocketOptions {
                queue: options.queue,
                // The kernel shows a received frame before it gives back the place that the frame had in the fill ring
                // (`xsk_flush`, net/xdp/xsk.c), and a device a completion before the place in the transmit ring. With
                // places for twice as many frames as go round there is always one for a frame that has come back.
                fill_entries: 2 * rings,
                tx_entries: 2 * rings,
                copy: options.copy,
                multi_buffer: is_long,
                busy_poll: match options.wait {
                    XdpWait::BusyPoll(how) => Some(how),
                    XdpWait::Poll | XdpWait::Spin => None,
                },
                ..SocketOptions::new(&options.interface, rings)
            },
        )?;
        for frame in frames.drain(..options.ring_frames) {
            socket.fill(frame).expect("a new fill ring has room for as many");
        }
        socket.publish_fill();

        let tx_start_bytes = match tx_metadata {
            TxMetadata::None => 0,
            TxMetadata::Device | TxMetadata::Kernel => TX_START_BYTES,
        };
        let tx_segment_bytes = frame_bytes - tx_start_bytes;
        let segments_count = packet_bytes_max.div_ceil(tx_segment_bytes);
        Ok(XdpPort {
            socket,
            umem,
            _companion: companion,
            caps: PortCaps {
                name: name(options),
                frame_bytes_max: options.frame_bytes_max,
                batch_frames_max: BATCH_FRAMES_MAX.min(options.ring_frames / segments_count),
                wake: match options.wait {
                    XdpWait::Poll => Wake::Sleeps,
                    XdpWait::BusyPoll(_) => Wake::BusyPolls,
                    XdpWait::Spin => Wake::Spins,
                },
            },
            wait: options.wait,
            queue: options.queue,
            endpoint: Endpoint::new(&EndpointConfig {
                local,
                local_mac: options.local_mac,
                peers: &options.peers,
                learn_peers_max: options.learn_peers_max,
                frame_bytes_max: options.frame_bytes_max,
            }),
            free: frames,
            tx_start_bytes,
            tx_segment_bytes,
            checksum: options.checksum,
            prepared: None,
            long_tx: vec![0; if is_long { packet_bytes_max } else { 0 }].into_boxed_slice(),
            gathered: Gathered::new(if is_long { packet_bytes_max } else { 0 }),
            is_kick_due: false,
            is_gone: false,
            fault: None,
            stamps: options
                .tx_stamps
                .then(|| Stamps::new(2 * options.ring_frames, options.ring_frames)),
            stats: PortStats::default(),
        })
    }
}

fn name(options: &XdpOptions) -> &'static str {
    match (options.copy, options.wait) {
        (XdpCopy::Copy, XdpWait::Poll) => "af-xdp",
        (XdpCopy::Copy, XdpWait::BusyPoll(_)) => "af-xdp-busy-poll",
        (XdpCopy::Copy, XdpWait::Spin) => "af-xdp-spin",
        (XdpCopy::ZeroCopy, XdpWait::Poll) => "af-xdp-zc",
        (XdpCopy::ZeroCopy, XdpWait::BusyPoll(_)) => "af-xdp-zc-busy-poll",
        (XdpCopy::ZeroCopy, XdpWait::Spin) => "af-xdp-zc-spin",
    }
}

fn check(options: &XdpOptions, packet_bytes_max: usize, is_long: bool) -> Result<(), OpenError> {
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
    if is_long && !options.multi_buffer {
        return refuse(format!(
            "packets of {packet_bytes_max} bytes do not fit a frame of {FRAME_BYTES_LARGE}, of which the kernel keeps \
             {RX_HEADROOM_BYTES}: allow several per packet (multi_buffer, Linux 6.6), or a frame_bytes_max of {} at most",
            options.frame_bytes_max - (packet_bytes_max + RX_HEADROOM_BYTES - FRAME_BYTES_LARGE)
        ));
    }
    let segments_count = packet_bytes_max.div_ceil(FRAME_BYTES_LARGE - RX_HEADROOM_BYTES);
    if options.ring_frames < segments_count {
        return refuse(format!(
            "ring_frames is {}; a packet of {packet_bytes_max} bytes alone takes {segments_count}",
            options.ring_frames
        ));
    }
    if options.checksum == XdpChecksum::Kernel && options.copy == XdpCopy::ZeroCopy {
        return refuse(
            "in zero-copy mode the kernel sees no frame and can make no checksum: let the device".to_owned(),
        );
    }
    Ok(())
}

fn check_mtu(options: &XdpOptions, headers_bytes: usize) -> Result<(), OpenError> {
    let no_interface = |error| OpenError::NoInterface {
        interface: options.interface.clone(),
        error,
    };
    if_nametoindex(options.interface.as_str()).map_err(|errno| no_interface(errno.into()))?;
    // Of any family but AF_XDP, whose sockets do not take this question.
    let asking = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).map_err(|errno| {
        OpenError::Failed {
            asked: "opening a socket to ask for the MTU",
            error: errno.into(),
        }
    })?;
    let mtu_bytes = packet::interface_mtu_bytes(asking.as_fd(), &options.interface).map_err(no_interface)?;
    let packet_bytes = headers_bytes - dataplane_wire::ethernet::HEADER_BYTES + options.frame_bytes_max;
    if packet_bytes > mtu_bytes {
        return Err(OpenError::Options(format!(
            "frames of {} bytes make IP packets of {packet_bytes}, above the MTU of {}, which is {mtu_bytes}; try `ip link set \
             {} mtu {packet_bytes}`",
            options.frame_bytes_max, options.interface, options.interface
        )));
    }
    Ok(())
}
