//! `steer`: hands our frames to the AF_XDP socket that is bound to their receive queue, and passes everything else.
#![no_std]
#![no_main]

use aya_ebpf::{bindings::xdp_action, macros::map, maps::XskMap, programs::XdpContext};
use ebpf_abi::Count;
use ebpf_programs::{Act, Ours};

#[map]
static SOCKETS: XskMap = XskMap::with_max_entries(ebpf_abi::map::SOCKETS_MAX, 0);

struct Steer<const FRAGS: bool>;

impl<const FRAGS: bool> Act for Steer<FRAGS> {
    const FRAGS: bool = FRAGS;

    #[inline(always)]
    fn act(ctx: &XdpContext, _ours: Ours) -> Result<u32, Count> {
        // The second argument is what the helper answers where there is no socket (Linux 5.3).
        SOCKETS
            .redirect(ctx.rx_queue_index(), xdp_action::XDP_PASS as u64)
            .map_err(|_| Count::NoSocket)
    }
}

ebpf_programs::programs!(Steer, steer, steer_frags);
