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

// Addresses are numbers here, of the bytes as they lie in a packet: a program compares a word in one instruction, and bytes in
// as many.

/// See [`ebpf_abi::setting::LOCAL_MAC`].
#[unsafe(no_mangle)]
pub static LOCAL_MAC: Global<u64> = Global::new(0);
/// See [`ebpf_abi::setting::LOCAL_IPV4`].
#[unsafe(no_mangle)]
pub static LOCAL_IPV4: Global<u32> = Global::new(0);
/// See [`ebpf_abi::setting::LOCAL_IPV6`].
#[unsafe(no_mangle)]
pub static LOCAL_IPV6: Global<[u64; 2]> = Global::new([0; 2]);
/// See [`ebpf_abi::setting::LOCAL_PORT`].
#[unsafe(no_mangle)]
pub static LOCAL_PORT: Global<u16> = Global::new(0);
/// See [`ebpf_abi::setting::KINDS`].
#[unsafe(no_mangle)]
pub static KINDS: Global<u32> = Global::new(0);

/// See [`ebpf_abi::setting::GROUP_MAC`].
#[unsafe(no_mangle)]
pub static GROUP_MAC: Global<u64> = Global::new(0);
/// See [`ebpf_abi::setting::GROUP_IPV4`].
#[unsafe(no_mangle)]
pub static GROUP_IPV4: Global<u32> = Global::new(0);

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
    /// Is any datagram to our port one of ours? Otherwise its payload must begin with our header.
    const ANY_PAYLOAD: bool = false;
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
    let ip = bytes_at::<HEADER_BYTES>(ctx, AT).ok_or(Count::NotIp)?;
    let version_ihl: u8 = ip.get(field::VERSION_IHL.start);
    if version_ihl >> 4 != VERSION {
        return Err(Count::NotIp);
    }
    if version_ihl != PLAIN {
        return Err(Count::IpOptions);
    }
    if ip.get::<u8>(field::PROTOCOL.start) != internet::PROTOCOL_UDP {
        return Err(Count::NotUdp);
    }
    if ip.be16(field::FRAGMENT.start) & FRAGMENT_MASK != 0 {
        return Err(Count::Fragment);
    }
    let ip_bytes = ip.be16(field::TOTAL_LEN.start) as usize;
    let to: u32 = ip.get(field::DST.start);
    // Zeros are no address of ours, whatever a frame says.
    let is_my_ip = to != 0 && (to == LOCAL_IPV4.load() || to == GROUP_IPV4.load());
    let ours = Ours {
        ip_at: AT,
        is_ipv6: false,
        udp_at: AT + HEADER_BYTES,
        frame_at: AT + HEADER_BYTES + udp::HEADER_BYTES,
        udp_bytes: ip_bytes.wrapping_sub(HEADER_BYTES),
    };
    in_udp::<A>(ctx, ours, is_my_ip)
}

#[inline(always)]
fn in_ipv6<A: Act, const AT: usize>(ctx: &XdpContext) -> Result<u32, Count> {
    use ipv6::{HEADER_BYTES, field};
    /// Version 6, in the upper half of the first byte.
    const VERSION: u8 = 6;
    let ip = bytes_at::<HEADER_BYTES>(ctx, AT).ok_or(Count::NotIp)?;
    if ip.get::<u8>(field::VERSION_CLASS_LABEL.start) >> 4 != VERSION {
        return Err(Count::NotIp);
    }
    if ip.get::<u8>(field::NEXT_HEADER.start) != internet::PROTOCOL_UDP {
        return Err(Count::NotUdp);
    }
    let udp_bytes = ip.be16(field::PAYLOAD_LEN.start) as usize;
    let to: [u64; 2] = [ip.get(field::DST.start), ip.get(field::DST.start + 8)];
    let ours = Ours {
        ip_at: AT,
        is_ipv6: true,
        udp_at: AT + HEADER_BYTES,
        frame_at: AT + HEADER_BYTES + udp::HEADER_BYTES,
        udp_bytes,
    };
    in_udp::<A>(ctx, ours, to[0] | to[1] != 0 && to == LOCAL_IPV6.load())
}

#[inline(always)]
fn in_udp<A: Act>(ctx: &XdpContext, ours: Ours, is_my_ip: bool) -> Result<u32, Count> {
    let udp = bytes_at::<{ udp::HEADER_BYTES }>(ctx, ours.udp_at).ok_or(Count::Length)?;
    if udp.be16(udp::field::DST_PORT.start) != LOCAL_PORT.load() {
        return Err(Count::OtherPort);
    }
    if !is_my_ip || !is_my_mac(ctx) {
        return Err(Count::Stranger);
    }
    let udp_bytes = udp.be16(udp::field::LEN.start) as usize;
    if A::ANY_PAYLOAD {
        let is_whole = udp_bytes == ours.udp_bytes
            && udp_bytes >= udp::HEADER_BYTES
            && ours.udp_at + udp_bytes <= packet_bytes::<A>(ctx);
        return match is_whole {
            true => A::act(ctx, ours),
            false => Err(Count::Length),
        };
    }
    let head = bytes_at::<{ frame::HEADER_BYTES }>(ctx, ours.frame_at).ok_or(Count::NotOurs)?;
    let magic: u32 = head.get(frame::field::MAGIC.start);
    if magic != u32::from_ne_bytes(frame::MAGIC) || head.get::<u8>(frame::field::VERSION.start) != frame::VERSION {
        return Err(Count::NotOurs);
    }
    let kind: u8 = head.get(frame::field::KIND.start);
    if kind >= 32 || KINDS.load() & (1 << kind) == 0 {
        return Err(Count::OtherKind);
    }
    let payload_bytes = head.be16(frame::field::PAYLOAD_LEN.start) as usize;
    let announced = udp::HEADER_BYTES + frame::HEADER_BYTES + payload_bytes;
    if udp_bytes != announced || ours.udp_bytes != announced {
        return Err(Count::Length);
    }
    if ours.udp_at + announced > packet_bytes::<A>(ctx) {
        return Err(Count::Length);
    }
    A::act(ctx, ours)
}

#[inline(always)]
fn is_my_mac(ctx: &XdpContext) -> bool {
    let Some(macs) = bytes_at::<{ ethernet::HEADER_BYTES }>(ctx, 0) else {
        return false;
    };
    let to = macs.mac(ethernet::field::DST.start);
    let group = GROUP_MAC.load();
    to == LOCAL_MAC.load() || (group != 0 && to == group)
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

/// `LEN` bytes of a packet.
#[derive(Clone, Copy)]
pub struct Bytes<const LEN: usize> {
    at: usize,
}

/// Numbers of any bytes.
pub trait Number: Copy {}
impl Number for u8 {}
impl Number for u16 {}
impl Number for u32 {}
impl Number for u64 {}

/// The `LEN` bytes at `offset`, if the packet's first buffer has all of them. Not to be used after the packet was cut or
/// lengthened: the verifier refuses that.
#[inline(always)]
pub fn bytes_at<const LEN: usize>(ctx: &XdpContext, offset: usize) -> Option<Bytes<LEN>> {
    let at = ctx.data() + offset;
    if at + LEN > ctx.data_end() {
        return None;
    }
    Some(Bytes { at })
}

// Where numbers are put together from parts below, as in all of this for the one target that is built.
const _: () = assert!(cfg!(target_endian = "little"));

impl<const LEN: usize> Bytes<LEN> {
    /// The number that the bytes from `offset` on are, as they lie there. Offsets are constants.
    #[inline(always)]
    pub fn get<T: Number>(self, offset: usize) -> T {
        if offset + size_of::<T>() > LEN {
            out_of_bounds();
        }
        // SAFETY: inside the packet, as `bytes_at` has checked. The kernel lets a program read words at any address where the
        // machine does (CONFIG_HAVE_EFFICIENT_UNALIGNED_ACCESS), and refuses the program elsewhere.
        unsafe { *((self.at + offset) as *const T) }
    }

    /// Writes the bytes from `offset` on.
    #[inline(always)]
    pub fn set<T: Number>(self, offset: usize, value: T) {
        if offset + size_of::<T>() > LEN {
            out_of_bounds();
        }
        // SAFETY: as in `get`; no reference into the packet is held.
        unsafe { *((self.at + offset) as *mut T) = value };
    }

    /// The big-endian number at `offset`.
    #[inline(always)]
    pub fn be16(self, offset: usize) -> u16 {
        u16::from_be(self.get(offset))
    }

    /// The MAC address at `offset`, as settings have it: behind it two zeros.
    #[inline(always)]
    pub fn mac(self, offset: usize) -> u64 {
        u64::from(self.get::<u32>(offset)) | (u64::from(self.get::<u16>(offset + 4)) << 32)
    }

    /// Writes two MAC addresses, one behind the other.
    #[inline(always)]
    pub fn set_macs(self, offset: usize, first: u64, second: u64) {
        self.set(offset, first | (second << 48));
        self.set(offset + 8, (second >> 16) as u32);
    }
}

/// Offsets are constants, so that nothing is left of this: the verifier refuses what never ends.
#[cold]
fn out_of_bounds() -> ! {
    #[expect(clippy::empty_loop, reason = "a program has nobody to tell")]
    loop {}
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
