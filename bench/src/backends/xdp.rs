//! Where XDP programs and ports meet: who attaches which program for which end, and for how long.

use std::{net::IpAddr, os::fd::AsFd};

use anyhow::Context;
use dataplane_ports::xdp::{PacketPeer, XdpCopy, XdpOptions, XdpPort, XdpWait};
use dataplane_wire::{ethernet::Mac, frame::Kind};
use ebpf_host::{Attachment, Loaded, Mode, Program, Settings, kinds};

use super::{Opened, Wiring};
use crate::place::Endpoint;

/// All kinds of frames: an end takes whatever of ours comes to its port.
const EVERY_KIND: u32 = kinds(&Kind::ALL);

/// Opens an AF_XDP port, attaches the program that feeds it, and tells the program of it.
///
/// # Errors
/// What the kernel said, with what to try.
pub(super) fn open(wiring: &Wiring, learn_peers_max: usize, how: (XdpWait, Mode, XdpCopy)) -> anyhow::Result<Opened> {
    let (port, program) = open_port(wiring, learn_peers_max, how, TxStamps::Off)?;
    Ok(Opened {
        addr: Some(port.local_addr()),
        port: Box::new(port),
        closer: None,
        keeps: Some(program),
    })
}

/// Are completions stamped (Linux 6.8)?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxStamps {
    /// Yes.
    On,
    /// No.
    Off,
}

/// The port itself and the program that feeds it, which must be kept as long.
///
/// # Errors
/// What the kernel said, with what to try.
pub fn open_port(
    wiring: &Wiring,
    learn_peers_max: usize,
    (wait, mode, copy): (XdpWait, Mode, XdpCopy),
    tx_stamps: TxStamps,
) -> anyhow::Result<(XdpPort, Attachment)> {
    let peers = wiring.peers().map(|peer| PacketPeer {
        addr: peer.addr,
        mac: Mac(peer.mac),
    });
    let buffers_per_frame = (wiring.frame_bytes_max + HEADERS_BYTES_MAX).div_ceil(BUFFER_BYTES);
    let ring_frames = (wiring.room.frames_count * buffers_per_frame).next_power_of_two();
    let (local, local_mac) = (wiring.local.addr, Mac(wiring.local.mac));
    let options = XdpOptions {
        peers: peers.collect(),
        learn_peers_max,
        frame_bytes_max: wiring.frame_bytes_max,
        ring_frames: ring_frames.clamp(RING_FRAMES_MIN, RING_FRAMES_MAX),
        copy,
        tx_stamps: tx_stamps == TxStamps::On,
        ..XdpOptions::new(&wiring.local.interface, local, local_mac, wait)
    };
    let port = XdpPort::open(&options)?;
    let mut program = attach(Program::Steer, &wiring.local, mode)?;
    program
        .set_socket(port.queue(), port.as_fd())
        .context("telling the program which socket gets our frames")?;
    Ok((port, program))
}

/// What of a frame fits one buffer of an AF_XDP port, and the headers in front of it at their longest.
const BUFFER_BYTES: usize = 3_840;
const HEADERS_BYTES_MAX: usize = dataplane_wire::datagram::HEADER_BYTES_MAX;
/// A batch is at most 32 frames; a ring has room for two.
const RING_FRAMES_MIN: usize = 64;
/// The kernel's memory for rings cannot be swapped: [`XdpOptions::ring_frames`] has this bound.
const RING_FRAMES_MAX: usize = 1 << 16;

/// Attaches `program` to the interface of the end `local`, for frames to that end.
///
/// # Errors
/// What the kernel said, with what to try.
pub fn attach(program: Program, local: &Endpoint, mode: Mode) -> anyhow::Result<Attachment> {
    let settings = settings(local);
    let interface = &local.interface;
    let context = || format!("{} on {interface}, {mode}", program.name());
    let loaded = Loaded::load_at_mtu(program, &settings, local.mtu_bytes).with_context(context)?;
    loaded.attach(interface, mode).with_context(context)
}

/// What a program at this end's interface is told: take all frames of ours to this end.
pub fn settings(local: &Endpoint) -> Settings {
    let (local_ipv4, local_ipv6) = match local.addr.ip() {
        IpAddr::V4(ip) => (Some(ip), None),
        IpAddr::V6(ip) => (None, Some(ip)),
    };
    Settings {
        local_mac: Mac(local.mac),
        local_ipv4,
        local_ipv6,
        local_port: local.addr.port(),
        kinds: EVERY_KIND,
        ..Settings::default()
    }
}
