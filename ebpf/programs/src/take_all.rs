//! `take_all`: the port of a switch that works in user space: every frame, whosever it is, goes to the AF_XDP socket of its
//! receive queue. Without a socket it is passed up, where a switch without a bridge drops it.
#![no_std]
#![no_main]

use aya_ebpf::{
    bindings::xdp_action,
    macros::{map, xdp},
    maps::XskMap,
    programs::XdpContext,
};
use ebpf_abi::Count;
use ebpf_programs::counted;

#[map]
static SOCKETS: XskMap = XskMap::with_max_entries(ebpf_abi::map::SOCKETS_MAX, 0);

#[inline(always)]
fn take(ctx: &XdpContext) -> Result<u32, Count> {
    // The second argument is what the helper answers where there is no socket (Linux 5.3).
    SOCKETS
        .redirect(ctx.rx_queue_index(), xdp_action::XDP_PASS as u64)
        .map_err(|_| Count::NoSocket)
}

#[xdp]
pub fn take_all(ctx: XdpContext) -> u32 {
    counted(take(&ctx))
}

#[xdp(frags)]
pub fn take_all_frags(ctx: XdpContext) -> u32 {
    counted(take(&ctx))
}

ebpf_programs::licence!();
