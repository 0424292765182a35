//! `pass`: passes everything. A veth sends nothing back by XDP_TX, and redirects nothing, to a peer without a program.
#![no_std]
#![no_main]

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};

#[xdp]
pub fn pass(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

#[xdp(frags)]
pub fn pass_frags(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

ebpf_programs::licence!();
