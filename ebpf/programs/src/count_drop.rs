//! `count_drop`: drops our frames and counts them. What is left of the price of a packet when nothing is made of it.
#![no_std]
#![no_main]

use aya_ebpf::{bindings::xdp_action, programs::XdpContext};
use ebpf_abi::Count;
use ebpf_programs::{Act, Ours};

struct CountDrop<const FRAGS: bool>;

impl<const FRAGS: bool> Act for CountDrop<FRAGS> {
    const FRAGS: bool = FRAGS;

    #[inline(always)]
    fn act(_ctx: &XdpContext, _ours: Ours) -> Result<u32, Count> {
        Ok(xdp_action::XDP_DROP)
    }
}

ebpf_programs::programs!(CountDrop, count_drop, count_drop_frags);
