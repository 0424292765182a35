//! `hub`: the switch of hosts whose programs answer in the driver (XDP_TX): what comes as an XDP frame goes on as one. A frame to
//! a host is redirected to the port behind which that host is, one to the group is copied to all its ports but the one by which
//! it came. Everything else is passed up, where a switch without a bridge drops it.
#![no_std]
#![no_main]

use aya_ebpf::{
    bindings::{BPF_F_BROADCAST, BPF_F_EXCLUDE_INGRESS},
    macros::{map, xdp},
    maps::DevMap,
    programs::XdpContext,
};
use dataplane_wire::ethernet;
use ebpf_abi::{
    Count,
    map::{GROUP_PORTS_MAX, PORTS_MAX},
};
use ebpf_programs::{GROUP_MAC, bytes_at, counted};

/// See [`ebpf_abi::map::PORTS`].
#[map]
static PORTS: DevMap = DevMap::with_max_entries(PORTS_MAX, 0);
/// See [`ebpf_abi::map::GROUP_PORTS`].
#[map]
static GROUP_PORTS: DevMap = DevMap::with_max_entries(GROUP_PORTS_MAX, 0);

/// To many hosts: the lowest bit of the first byte (IEEE 802.3 §3.2.3).
const MULTICAST: u8 = 1;

#[inline(always)]
fn forward(ctx: &XdpContext) -> Result<u32, Count> {
    let header = bytes_at::<{ ethernet::HEADER_BYTES }>(ctx, 0).ok_or(Count::NotIp)?;
    let to = header.mac(ethernet::field::DST.start);
    let group = GROUP_MAC.load();
    let redirected = if group != 0 && to == group {
        GROUP_PORTS.redirect(0, u64::from(BPF_F_BROADCAST | BPF_F_EXCLUDE_INGRESS))
    } else if header.get::<u8>(0) & MULTICAST == 0 {
        // Who is not meant drops it, as after a bridge's flood.
        PORTS.redirect(u32::from(header.get::<u8>(5)), 0)
    } else {
        return Err(Count::Stranger);
    };
    redirected.map_err(|_| Count::Stranger)
}

#[xdp]
pub fn hub(ctx: XdpContext) -> u32 {
    counted(forward(&ctx))
}

#[xdp(frags)]
pub fn hub_frags(ctx: XdpContext) -> u32 {
    counted(forward(&ctx))
}

ebpf_programs::licence!();
