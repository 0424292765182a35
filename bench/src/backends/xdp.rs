//! Where XDP programs and ports meet: who attaches which program for which end, and for how long.

use std::net::IpAddr;

use anyhow::Context;
use dataplane_wire::{ethernet::Mac, frame::Kind};
use ebpf_host::{Attachment, Loaded, Mode, Program, Settings, kinds};

use super::Wiring;

/// All kinds of frames: an end takes whatever of ours comes to its port.
const EVERY_KIND: u32 = kinds(&[
    Kind::EchoRequest,
    Kind::EchoReply,
    Kind::QuorumRequest,
    Kind::QuorumReply,
]);

/// Attaches `program` to the interface of this end, for frames to this end.
///
/// # Errors
/// What the kernel said, with what to try.
pub fn attach(program: Program, wiring: &Wiring, mode: Mode) -> anyhow::Result<Attachment> {
    let (local_ipv4, local_ipv6) = match wiring.local.addr.ip() {
        IpAddr::V4(ip) => (Some(ip), None),
        IpAddr::V6(ip) => (None, Some(ip)),
    };
    let settings = Settings {
        local_mac: Mac(wiring.local.mac),
        local_ipv4,
        local_ipv6,
        local_port: wiring.local.addr.port(),
        kinds: EVERY_KIND,
        stamp_index: 0,
        frags: wiring.local.mtu_bytes > MTU_BYTES_OF_ONE_BUFFER,
    };
    let interface = &wiring.local.interface;
    let context = || format!("{} on {interface}, {mode}", program.name());
    let loaded = Loaded::load(program, &settings).with_context(context)?;
    loaded.attach(interface, mode).with_context(context)
}

/// Up to this MTU every driver gives a program its frames in one buffer: a page less the headroom and the tail that XDP wants
/// (XDP_PACKET_HEADROOM 256, struct skb_shared_info 320), rounded down to be safe for headers and tags.
const MTU_BYTES_OF_ONE_BUFFER: u32 = 3_400;
