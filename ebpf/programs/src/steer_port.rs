//! `steer_port`: hands whole UDP datagrams to our port to the AF_XDP socket that is bound to their receive queue, whatever is in
//! them, and passes everything else: a protocol in user space that is not the lab's (RoCEv2), beside the stack's own traffic.
#![no_std]
#![no_main]

use aya_ebpf::{bindings::xdp_action, macros::map, maps::XskMap, programs::XdpContext};
use ebpf_abi::Count;
use ebpf_programs::{Act, Ours};

#[map]
static SOCKETS: XskMap = XskMap::with_max_entries(ebpf_abi::map::SOCKETS_MAX, 0);

struct SteerPort<const FRAGS: bool>;

impl<const FRAGS: bool> Act for SteerPort<FRAGS> {
    const FRAGS: bool = FRAGS;
    const ANY_PAYLOAD: bool = true;

    #[inline(always)]
    fn act(ctx: &XdpContext, _ours: Ours) -> Result<u32, Count> {
        // The second argument is what the helper answers where there is no socket (Linux 5.3).
        SOCKETS
            .redirect(ctx.rx_queue_index(), xdp_action::XDP_PASS as u64)
            .map_err(|_| Count::NoSocket)
    }
}

ebpf_programs::programs!(SteerPort, steer_port, steer_port_frags);
