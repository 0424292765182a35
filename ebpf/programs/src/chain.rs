//! Entries that visit the followers one after another, in one frame: for networks that carry no flooded frame.
//!
//! The UDP source port says how far a frame has come: `LOCAL_PORT + n` is on its way to the n-th follower, so `n - 1` have the
//! entry. Whoever knows nothing of chains takes such a frame for a stranger's. The IP source stays the leader's, as with a
//! router, so a frame that goes up becomes the leader's own again by its port alone. The last follower acknowledges for all, in
//! a word that acknowledgements leave free: a set of nodes.

use aya_ebpf::programs::XdpContext;
use dataplane_wire::{
    ethernet,
    frame::{self, Kind},
    ipv4, udp,
};
use ebpf_abi::quorum::{Control, NODES_MAX, Place};

use crate::{LOCAL_MAC, LOCAL_PORT, Ours, bytes_at, quorum::Sum};

/// Where a follower hands an entry on to.
#[derive(Clone, Copy)]
pub struct Link {
    /// The how-manieth follower it is.
    hop: u64,
    next: Place,
    nodes: u64,
}

impl Link {
    /// The follower's own, for a frame that has come as far as to it; nothing for one that comes by itself.
    #[inline(always)]
    pub fn of(control: &Control, hop: u64) -> Option<Link> {
        (hop != 0 && hop == control.chain_hop).then_some(Link {
            hop,
            next: control.chain_next,
            nodes: control.chain_nodes,
        })
    }

    /// Is there nobody behind? Then for these nodes an acknowledgement speaks.
    #[inline(always)]
    pub fn last(&self) -> Option<u64> {
        (port_of(self.next) == 0).then_some(self.nodes)
    }
}

/// Whose append it is, wherever in the chain it comes from, and to the how-manieth follower; 0: by itself.
#[inline(always)]
pub fn origin(from: Place) -> (Place, u64) {
    let port = LOCAL_PORT.load();
    let hop = port_of(from).wrapping_sub(port);
    match hop != 0 && (hop as usize) < NODES_MAX {
        true => (
            Place {
                address: (from.address & 0xffff_ffff) | (u64::from(port.to_be()) << 32),
                ..from
            },
            hop as u64,
        ),
        false => (from, 0),
    }
}

#[inline(always)]
fn port_of(place: Place) -> u16 {
    u16::from_be((place.address >> 32) as u16)
}

/// Says in the frame that it is on its way to the `hop`-th follower. The datagram has no checksum.
#[inline(always)]
pub fn set_hop(ctx: &XdpContext, ours: Ours, hop: u64) -> Option<()> {
    let udp = bytes_at::<{ udp::HEADER_BYTES }>(ctx, ours.udp_at)?;
    let port = LOCAL_PORT.load().wrapping_add(hop as u16);
    udp.set(udp::field::SRC_PORT.start, port.to_be());
    Some(())
}

/// Hands the frame on to the next follower.
#[inline(always)]
pub fn hand_on(ctx: &XdpContext, ours: Ours, link: &Link) -> Option<()> {
    set_hop(ctx, ours, link.hop + 1)?;
    let to = &link.next;
    let ip = bytes_at::<{ ipv4::HEADER_BYTES }>(ctx, ours.ip_at)?;
    let mut sum = Sum::of_header(ip);
    sum.set_address(ip, ipv4::field::DST.start, to.address as u32);
    ip.set(ipv4::field::CHECKSUM.start, sum.end());
    let macs = bytes_at::<{ ethernet::HEADER_BYTES }>(ctx, 0)?;
    macs.set_macs(ethernet::field::DST.start, to.mac, LOCAL_MAC.load());
    Some(())
}

/// Makes an append of the chain, which goes up, the leader's own again. Others stay as they are.
#[inline(always)]
pub fn leave(ctx: &XdpContext, ours: Ours) -> Option<()> {
    let head = bytes_at::<{ frame::HEADER_BYTES }>(ctx, ours.frame_at)?;
    if head.get::<u8>(frame::field::KIND.start) != Kind::Append as u8 {
        return None;
    }
    let udp = bytes_at::<{ udp::HEADER_BYTES }>(ctx, ours.udp_at)?;
    let hop = udp.be16(udp::field::SRC_PORT.start).wrapping_sub(LOCAL_PORT.load());
    let has_checksum = udp.get::<u16>(udp::field::CHECKSUM.start) != 0;
    if has_checksum || hop == 0 || hop as usize >= NODES_MAX {
        return None;
    }
    set_hop(ctx, ours, 0)
}
