//! `echo`: turns our echo requests into replies and sends them back out of the interface they came in by (XDP_TX).
//!
//! The reply is the request with its addresses and ports exchanged and its kind changed. Exchanging leaves the sums of IP
//! and UDP as they are; the kind changes our header's checksum by a constant and the UDP checksum by three words.
#![no_std]
#![no_main]

use aya_ebpf::{bindings::xdp_action, programs::XdpContext};
use dataplane_wire::{
    ethernet, frame,
    frame::{Kind, kind_crc_delta},
    internet, udp,
};
use ebpf_abi::Count;
use ebpf_programs::{
    Act, Ours, at, at_mut, be16_of,
    sum::{self, Holds},
};

/// See the module.
struct Echo<const FRAGS: bool>;

const KIND_CRC_DELTA: u32 = kind_crc_delta(Kind::EchoRequest, Kind::EchoReply);

impl<const FRAGS: bool> Act for Echo<FRAGS> {
    const FRAGS: bool = FRAGS;

    #[inline(always)]
    fn act(ctx: &XdpContext, ours: Ours) -> Result<u32, Count> {
        let head: &[u8; frame::HEADER_BYTES] = at(ctx, ours.frame_at).ok_or(Count::NotOurs)?;
        if head[frame::field::KIND.start] != Kind::EchoRequest as u8 {
            return Err(Count::OtherKind);
        }
        // The one thing that can fail comes before the first change.
        let holds = sum::holds::<FRAGS>(ctx, ours)?;
        let old_crc = crc_of(ctx, ours)?;
        let new_crc = old_crc ^ KIND_CRC_DELTA;

        let head: &mut [u8; frame::HEADER_BYTES] = at_mut(ctx, ours.frame_at).ok_or(Count::NotOurs)?;
        head[frame::field::KIND.start] = Kind::EchoReply as u8;
        let crc = new_crc.to_be_bytes();
        head[36] = crc[0];
        head[37] = crc[1];
        head[38] = crc[2];
        head[39] = crc[3];

        let udp: &mut [u8; udp::HEADER_BYTES] = at_mut(ctx, ours.udp_at).ok_or(Count::Length)?;
        let before = match holds {
            Holds::Nothing => 0,
            Holds::Partial { whole } => whole,
            Holds::Checksum => be16_of(udp, udp::field::CHECKSUM.start),
        };
        if holds != Holds::Nothing {
            let version = (frame::VERSION as u16) << 8;
            let (request, reply) = (version | Kind::EchoRequest as u16, version | Kind::EchoReply as u16);
            let after = sum::updated32(internet::updated(before, request, reply), old_crc, new_crc);
            let checksum = sum::not_zero(after).to_be_bytes();
            udp[6] = checksum[0];
            udp[7] = checksum[1];
        }
        exchange::<2>(udp, udp::field::SRC_PORT.start, udp::field::DST_PORT.start);

        if ours.is_ipv6 {
            let addresses: &mut [u8; 32] = at_mut(ctx, ours.ip_at + 8).ok_or(Count::Length)?;
            exchange::<16>(addresses, 0, 16);
        } else {
            let addresses: &mut [u8; 8] = at_mut(ctx, ours.ip_at + 12).ok_or(Count::Length)?;
            exchange::<4>(addresses, 0, 4);
        }
        let macs: &mut [u8; 12] = at_mut(ctx, ethernet::field::DST.start).ok_or(Count::Length)?;
        exchange::<6>(macs, 0, 6);
        Ok(xdp_action::XDP_TX)
    }
}

#[inline(always)]
fn crc_of(ctx: &XdpContext, ours: Ours) -> Result<u32, Count> {
    let head: &[u8; frame::HEADER_BYTES] = at(ctx, ours.frame_at).ok_or(Count::NotOurs)?;
    Ok(u32::from_be_bytes([head[36], head[37], head[38], head[39]]))
}

/// Exchanges the `LEN` bytes at `one` with those at `other`.
#[inline(always)]
fn exchange<const LEN: usize>(bytes: &mut [u8], one: usize, other: usize) {
    for index in 0..LEN {
        bytes.swap(one + index, other + index);
    }
}

const _: () = assert!(frame::field::HEADER_CRC.start == 36 && udp::field::CHECKSUM.start == 6);

ebpf_programs::programs!(Echo, echo, echo_frags);
