//! What the XDP programs share: finding one of our frames in a packet, counting, and mending checksums.
//!
//! Whatever is not understood is passed up the stack untouched: that is the answer of every `Err` here, with the reason to
//! count (`ebpf_abi::Count`).
//!
//! How this is written is dictated by the verifier, which follows every path and wants a packet's bounds checked on the
//! very pointer that is read. Offsets are therefore constants of the path that leads to them ([`dispatch`] makes one copy of
//! a program for each length of the headers in front), nothing is called that is not inlined, and every loop has a bound.
#![no_std]
#![feature(core_intrinsics)]
#![expect(internal_features, reason = "compare and exchange: see `quorum`")]

use core::mem::size_of;

use aya_ebpf::{
    Global, helpers::generated::bpf_xdp_get_buff_len, macros::map, maps::PerCpuArray, programs::XdpContext,
};
use dataplane_wire::{
    ethernet::{self, EtherType, TAG_8021AD, TAG_8021Q},
    frame, internet, ipv4, ipv6, udp,
};
use ebpf_abi::Count;

/// See [`ebpf_abi::setting::LOCAL_MAC`].
#[unsafe(no_mangle)]
pub static LOCAL_MAC: Global<[u8; 6]> = Global::new([0; 6]);
/// See [`ebpf_abi::setting::LOCAL_IPV4`].
#[unsafe(no_mangle)]
pub static LOCAL_IPV4: Global<[u8; 4]> = Global::new([0; 4]);
/// See [`ebpf_abi::setting::LOCAL_IPV6`].
#[unsafe(no_mangle)]
pub static LOCAL_IPV6: Global<[u8; 16]> = Global::new([0; 16]);
/// See [`ebpf_abi::setting::LOCAL_PORT`].
#[unsafe(no_mangle)]
pub static LOCAL_PORT: Global<u16> = Global::new(0);
/// See [`ebpf_abi::setting::KINDS`].
#[unsafe(no_mangle)]
pub static KINDS: Global<u32> = Global::new(0);

/// See [`ebpf_abi::setting::GROUP_MAC`].
#[unsafe(no_mangle)]
pub static GROUP_MAC: Global<[u8; 6]> = Global::new([0; 6]);
/// See [`ebpf_abi::setting::GROUP_IPV4`].
#[unsafe(no_mangle)]
pub static GROUP_IPV4: Global<[u8; 4]> = Global::new([0; 4]);

#[map]
static COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Count::ALL.len() as u32, 0);

/// Counts one frame.
#[inline(always)]
pub fn count(what: Count) {
    if let Some(count) = COUNTS.get_ptr_mut(what as u32) {
        // SAFETY: the map's value is this CPU's own, and a program is not interrupted by itself.
        unsafe { *count += 1 };
    }
}

/// One of our frames, found in a packet; offsets from the start of the packet.
#[derive(Clone, Copy)]
pub struct Ours {
    /// Where the IP header begins.
    pub ip_at: usize,
    /// IPv6, not IPv4.
    pub is_ipv6: bool,
    /// Where the UDP header begins.
    pub udp_at: usize,
    /// Where our header begins.
    pub frame_at: usize,
    /// Of the datagram, UDP header included.
    pub udp_bytes: usize,
}

/// What a program does with a frame of ours.
pub trait Act {
    /// The action to return; or why the frame is passed after all, before anything of it was changed.
    fn act(ctx: &XdpContext, ours: Ours) -> Result<u32, Count>;
    /// May a packet have several buffers? The program is then in a section `xdp.frags`.
    const FRAGS: bool;
}

/// Finds a frame of ours and lets `A` act on it.
#[inline(always)]
pub fn dispatch<A: Act>(ctx: &XdpContext) -> Result<u32, Count> {
    const PLAIN: usize = ethernet::HEADER_BYTES;
    const TAGGED: usize = ethernet::TAGGED_HEADER_BYTES;
    const TWICE: usize = 2 * TAGGED - PLAIN;
    let (ether_type, at) = match be16(ctx, ethernet::field::ETHER_TYPE.start).ok_or(Count::NotIp)? {
        TAG_8021Q | TAG_8021AD => match be16(ctx, TAGGED - 2).ok_or(Count::NotIp)? {
            TAG_8021Q | TAG_8021AD => (be16(ctx, TWICE - 2).ok_or(Count::NotIp)?, TWICE),
            inner => (inner, TAGGED),
        },
        plain => (plain, PLAIN),
    };
    const IPV4: u16 = EtherType::IPV4.get();
    const IPV6: u16 = EtherType::IPV6.get();
    match (ether_type, at) {
        (IPV4, PLAIN) => in_ipv4::<A, PLAIN>(ctx),
        (IPV4, TAGGED) => in_ipv4::<A, TAGGED>(ctx),
        (IPV4, TWICE) => in_ipv4::<A, TWICE>(ctx),
        (IPV6, PLAIN) => in_ipv6::<A, PLAIN>(ctx),
        (IPV6, TAGGED) => in_ipv6::<A, TAGGED>(ctx),
        (IPV6, TWICE) => in_ipv6::<A, TWICE>(ctx),
        _ => Err(Count::NotIp),
    }
}

#[inline(always)]
fn in_ipv4<A: Act, const AT: usize>(ctx: &XdpContext) -> Result<u32, Count> {
    use ipv4::{HEADER_BYTES, field};
    /// Version 4.
    const VERSION: u8 = 4;
    /// Five words: no options.
    const PLAIN: u8 = 0x45;
    /// More-fragments and the offset: a fragment has one of them.
    const FRAGMENT_MASK: u16 = 0x3fff;
    let ip: &[u8; HEADER_BYTES] = at(ctx, AT).ok_or(Count::NotIp)?;
    let version_ihl = ip[field::VERSION_IHL.start];
    if version_ihl >> 4 != VERSION {
        return Err(Count::NotIp);
    }
    if version_ihl != PLAIN {
        return Err(Count::IpOptions);
    }
    if ip[field::PROTOCOL.start] != internet::PROTOCOL_UDP {
        return Err(Count::NotUdp);
    }
    if be16_of(ip, field::FRAGMENT.start) & FRAGMENT_MASK != 0 {
        return Err(Count::Fragment);
    }
    let ip_bytes = be16_of(ip, field::TOTAL_LEN.start) as usize;
    let local = LOCAL_IPV4.load();
    // Zeros are no address of ours, whatever a frame says.
    let is_mine = local != [0; 4]
        && ip[field::DST.start] == local[0]
        && ip[field::DST.start + 1] == local[1]
        && ip[field::DST.start + 2] == local[2]
        && ip[field::DST.start + 3] == local[3];
    let group = GROUP_IPV4.load();
    let is_group = group != [0; 4]
        && ip[field::DST.start] == group[0]
        && ip[field::DST.start + 1] == group[1]
        && ip[field::DST.start + 2] == group[2]
        && ip[field::DST.start + 3] == group[3];
    let ours = Ours {
        ip_at: AT,
        is_ipv6: false,
        udp_at: AT + HEADER_BYTES,
        frame_at: AT + HEADER_BYTES + udp::HEADER_BYTES,
        udp_bytes: ip_bytes.wrapping_sub(HEADER_BYTES),
    };
    in_udp::<A>(ctx, ours, is_mine || is_group)
}

#[inline(always)]
fn in_ipv6<A: Act, const AT: usize>(ctx: &XdpContext) -> Result<u32, Count> {
    use ipv6::{HEADER_BYTES, field};
    /// Version 6, in the upper half of the first byte.
    const VERSION: u8 = 6;
    let ip: &[u8; HEADER_BYTES] = at(ctx, AT).ok_or(Count::NotIp)?;
    if ip[field::VERSION_CLASS_LABEL.start] >> 4 != VERSION {
        return Err(Count::NotIp);
    }
    if ip[field::NEXT_HEADER.start] != internet::PROTOCOL_UDP {
        return Err(Count::NotUdp);
    }
    let udp_bytes = be16_of(ip, field::PAYLOAD_LEN.start) as usize;
    let local = LOCAL_IPV6.load();
    let mut difference = 0;
    for index in 0..16 {
        difference |= ip[field::DST.start + index] ^ local[index];
    }
    let ours = Ours {
        ip_at: AT,
        is_ipv6: true,
        udp_at: AT + HEADER_BYTES,
        frame_at: AT + HEADER_BYTES + udp::HEADER_BYTES,
        udp_bytes,
    };
    in_udp::<A>(ctx, ours, local != [0; 16] && difference == 0)
}

#[inline(always)]
fn in_udp<A: Act>(ctx: &XdpContext, ours: Ours, is_my_ip: bool) -> Result<u32, Count> {
    let udp: &[u8; udp::HEADER_BYTES] = at(ctx, ours.udp_at).ok_or(Count::Length)?;
    if be16_of(udp, udp::field::DST_PORT.start) != LOCAL_PORT.load() {
        return Err(Count::OtherPort);
    }
    if !is_my_ip || !is_my_mac(ctx) {
        return Err(Count::Stranger);
    }
    let head: &[u8; frame::HEADER_BYTES] = at(ctx, ours.frame_at).ok_or(Count::NotOurs)?;
    let magic = head[0] == frame::MAGIC[0]
        && head[1] == frame::MAGIC[1]
        && head[2] == frame::MAGIC[2]
        && head[3] == frame::MAGIC[3];
    if !magic || head[frame::field::VERSION.start] != frame::VERSION {
        return Err(Count::NotOurs);
    }
    let kind = head[frame::field::KIND.start];
    if kind >= 32 || KINDS.load() & (1 << kind) == 0 {
        return Err(Count::OtherKind);
    }
    let payload_bytes = be16_of(head, frame::field::PAYLOAD_LEN.start) as usize;
    let announced = udp::HEADER_BYTES + frame::HEADER_BYTES + payload_bytes;
    if be16_of(udp, udp::field::LEN.start) as usize != announced || ours.udp_bytes != announced {
        return Err(Count::Length);
    }
    if ours.udp_at + announced > packet_bytes::<A>(ctx) {
        return Err(Count::Length);
    }
    A::act(ctx, ours)
}

#[inline(always)]
fn is_my_mac(ctx: &XdpContext) -> bool {
    let Some(to) = at::<[u8; 6]>(ctx, ethernet::field::DST.start) else {
        return false;
    };
    let (local, group) = (LOCAL_MAC.load(), GROUP_MAC.load());
    let (mut difference, mut from_group, mut is_group) = (0, 0, 0);
    for index in 0..6 {
        difference |= to[index] ^ local[index];
        from_group |= to[index] ^ group[index];
        is_group |= group[index];
    }
    difference == 0 || (is_group != 0 && from_group == 0)
}

#[inline(always)]
fn packet_bytes<A: Act>(ctx: &XdpContext) -> usize {
    if A::FRAGS {
        // SAFETY: the context is the kernel's own.
        unsafe { bpf_xdp_get_buff_len(ctx.ctx) as usize }
    } else {
        ctx.data_end() - ctx.data()
    }
}

/// The `T` at `offset`, if the packet's first buffer has all of it.
#[inline(always)]
pub fn at<T>(ctx: &XdpContext, offset: usize) -> Option<&T> {
    let start = ctx.data() + offset;
    if start + size_of::<T>() > ctx.data_end() {
        return None;
    }
    // SAFETY: inside the packet, as just checked; all `T` used here are arrays of bytes. The lifetime is the context's, and
    // the packet lives as long.
    Some(unsafe { &*(start as *const T) })
}

/// As [`at`], to write.
#[inline(always)]
#[expect(
    clippy::mut_from_ref,
    reason = "a packet is memory of the kernel that the context only points to; the context itself is not written"
)]
pub fn at_mut<T>(ctx: &XdpContext, offset: usize) -> Option<&mut T> {
    let start = ctx.data() + offset;
    if start + size_of::<T>() > ctx.data_end() {
        return None;
    }
    // SAFETY: as in `at`; callers hold one such reference at a time.
    Some(unsafe { &mut *(start as *mut T) })
}

#[inline(always)]
fn be16(ctx: &XdpContext, offset: usize) -> Option<u16> {
    at::<[u8; 2]>(ctx, offset).map(|bytes| u16::from_be_bytes(*bytes))
}

/// The 16-bit number at `offset` of `bytes`.
#[inline(always)]
pub fn be16_of<const N: usize>(bytes: &[u8; N], offset: usize) -> u16 {
    u16::from_be_bytes([bytes[offset], bytes[offset + 1]])
}

pub mod chain;
pub mod quorum;
pub mod sum;

/// The two functions of a program that acts on our frames: `$name` for packets of one buffer, `$name_frags` for packets of
/// several. `$act` is generic over the latter.
#[macro_export]
macro_rules! programs {
    ($act:ident, $name:ident, $name_frags:ident) => {
        #[aya_ebpf::macros::xdp]
        pub fn $name(ctx: aya_ebpf::programs::XdpContext) -> u32 {
            $crate::counted($crate::dispatch::<$act<false>>(&ctx))
        }

        #[aya_ebpf::macros::xdp(frags)]
        pub fn $name_frags(ctx: aya_ebpf::programs::XdpContext) -> u32 {
            $crate::counted($crate::dispatch::<$act<true>>(&ctx))
        }

        $crate::licence!();
    };
}

/// What every object carries besides its programs.
#[macro_export]
macro_rules! licence {
    () => {
        #[unsafe(link_section = "license")]
        #[unsafe(no_mangle)]
        static LICENSE: [u8; 4] = *b"GPL\0";

        #[panic_handler]
        fn panic(_: &core::panic::PanicInfo) -> ! {
            // Nothing here panics: the verifier refuses a program that could come here.
            loop {}
        }
    };
}

/// Counts what became of a frame and gives the action for it.
#[inline(always)]
pub fn counted(outcome: Result<u32, Count>) -> u32 {
    match outcome {
        Ok(action) => {
            count(Count::Taken);
            action
        }
        Err(reason) => {
            count(reason);
            aya_ebpf::bindings::xdp_action::XDP_PASS
        }
    }
}
