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

use crate::{LOCAL_MAC, LOCAL_PORT, Ours, at, at_mut, be16_of, quorum::change16};

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
        (self.next.port == [0; 2]).then_some(self.nodes)
    }
}

/// Whose append it is, wherever in the chain it comes from, and to the how-manieth follower; 0: by itself.
#[inline(always)]
pub fn origin(from: Place) -> (Place, u64) {
    let port = LOCAL_PORT.load();
    let hop = u16::from_be_bytes(from.port).wrapping_sub(port);
    match hop != 0 && (hop as usize) < NODES_MAX {
        true => (
            Place {
                port: port.to_be_bytes(),
                ..from
            },
            hop as u64,
        ),
        false => (from, 0),
    }
}

/// Says in the frame that it is on its way to the `hop`-th follower. The datagram has no checksum.
#[inline(always)]
pub fn set_hop(ctx: &XdpContext, ours: Ours, hop: u64) -> Option<()> {
    let udp: &mut [u8; udp::HEADER_BYTES] = at_mut(ctx, ours.udp_at)?;
    let port = LOCAL_PORT.load().wrapping_add(hop as u16);
    udp[udp::field::SRC_PORT].copy_from_slice(&port.to_be_bytes());
    Some(())
}

/// Hands the frame on to the next follower.
#[inline(always)]
pub fn hand_on(ctx: &XdpContext, ours: Ours, link: &Link) -> Option<()> {
    set_hop(ctx, ours, link.hop + 1)?;
    let to = &link.next;
    let ip: &mut [u8; ipv4::HEADER_BYTES] = at_mut(ctx, ours.ip_at)?;
    let mut sum = be16_of(ip, ipv4::field::CHECKSUM.start);
    sum = change16(ip, 16, u16::from_be_bytes([to.ipv4[0], to.ipv4[1]]), sum);
    sum = change16(ip, 18, u16::from_be_bytes([to.ipv4[2], to.ipv4[3]]), sum);
    ip[ipv4::field::CHECKSUM].copy_from_slice(&sum.to_be_bytes());
    let macs: &mut [u8; 12] = at_mut(ctx, ethernet::field::DST.start)?;
    macs[0..6].copy_from_slice(&to.mac);
    macs[6..12].copy_from_slice(&LOCAL_MAC.load());
    Some(())
}

/// Makes an append of the chain, which goes up, the leader's own again. Others stay as they are.
#[inline(always)]
pub fn leave(ctx: &XdpContext, ours: Ours) -> Option<()> {
    let head: &[u8; frame::HEADER_BYTES] = at(ctx, ours.frame_at)?;
    if head[frame::field::KIND.start] != Kind::Append as u8 {
        return None;
    }
    let udp: &[u8; udp::HEADER_BYTES] = at(ctx, ours.udp_at)?;
    let hop = be16_of(udp, udp::field::SRC_PORT.start).wrapping_sub(LOCAL_PORT.load());
    let has_checksum = udp[6] != 0 || udp[7] != 0;
    if has_checksum || hop == 0 || hop as usize >= NODES_MAX {
        return None;
    }
    set_hop(ctx, ours, 0)
}
