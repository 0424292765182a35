//! The UDP checksum after a change (RFC 1624), and as a whole where a device was to make it (RFC 768, RFC 8200 §8.1).
//!
//! A sender whose interface makes checksums leaves the pseudo-header's sum in the field (CHECKSUM_PARTIAL,
//! include/linux/skbuff.h). A frame that goes out again by XDP_TX has lost the note that says so, and would arrive broken: so
//! a program that answers such a frame makes the sum itself.

use aya_ebpf::{helpers::generated::bpf_xdp_load_bytes, programs::XdpContext};
use dataplane_wire::{
    internet::{self, updated},
    udp,
};
use ebpf_abi::{
    Count,
    summed::{FRAGS_BYTES_MAX, ONE_BUFFER_BYTES_MAX},
};

use crate::{Ours, at, be16_of};

/// What the checksum field of a datagram holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// Zero over IPv4: the sender made none.
    Nothing,
    /// The sum of the pseudo-header only; what the checksum is to be.
    Partial { whole: u16 },
    /// A checksum.
    Checksum,
}

/// What the field of `ours` holds. One in 65,536 checksums looks like a partial one, so what looks like one is summed up.
#[inline(always)]
pub fn holds<const FRAGS: bool>(ctx: &XdpContext, ours: Ours) -> Result<Holds, Count> {
    let udp: &[u8; udp::HEADER_BYTES] = at(ctx, ours.udp_at).ok_or(Count::Length)?;
    let field = be16_of(udp, udp::field::CHECKSUM.start);
    if field == 0 && !ours.is_ipv6 {
        return Ok(Holds::Nothing);
    }
    if field != fold(pseudo_header(ctx, ours)?) {
        return Ok(Holds::Checksum);
    }
    let whole = whole::<FRAGS>(ctx, ours)?;
    Ok(if whole == field {
        Holds::Checksum
    } else {
        Holds::Partial { whole }
    })
}

/// The checksum of the whole datagram; `FRAGS` as for [`crate::Act`].
#[inline(always)]
fn whole<const FRAGS: bool>(ctx: &XdpContext, ours: Ours) -> Result<u16, Count> {
    let udp: &[u8; udp::HEADER_BYTES] = at(ctx, ours.udp_at).ok_or(Count::Length)?;
    let field = be16_of(udp, udp::field::CHECKSUM.start);
    // A sum of 16-bit words may be taken in words of any width and order (RFC 1071 §2): it is taken of the words as they lie
    // there, and its bytes change places once at the end. The field itself is in it, and is taken out again.
    let native = if FRAGS {
        over_buffers(ctx, ours)?
    } else {
        over_one_buffer(ctx, ours)?
    };
    let native = (native & 0xffff_ffff) + (native >> 32);
    let native = (native & 0xffff_ffff) + (native >> 32);
    let sum = u32::from(fold(native as u32).swap_bytes()) + u32::from(!field);
    Ok(not_zero(!fold(sum + pseudo_header(ctx, ours)?)))
}

/// Where the packet has one buffer: read in place, sixteen bytes a turn.
#[inline(always)]
fn over_one_buffer(ctx: &XdpContext, ours: Ours) -> Result<u64, Count> {
    const CHUNK_BYTES: usize = 16;
    let bytes = ours.udp_bytes;
    if bytes > ONE_BUFFER_BYTES_MAX {
        return Err(Count::Unfit);
    }
    let mut sum = 0;
    let start = ctx.data() + ours.udp_at;
    for chunk in 0..ONE_BUFFER_BYTES_MAX / CHUNK_BYTES {
        if chunk >= bytes / CHUNK_BYTES {
            break;
        }
        let from = start + chunk * CHUNK_BYTES;
        if from + CHUNK_BYTES > ctx.data_end() {
            return Err(Count::Unfit);
        }
        for word in 0..CHUNK_BYTES / 2 {
            sum += word_at(from + 2 * word);
        }
    }
    // From the length and not from where the loop stopped: the verifier then need not follow each stop to the end.
    let mut from = start + (bytes & (2 * ONE_BUFFER_BYTES_MAX - CHUNK_BYTES));
    for size in [8, 4, 2] {
        if bytes & size != 0 {
            if from + size > ctx.data_end() {
                return Err(Count::Unfit);
            }
            for word in 0..size / 2 {
                sum += word_at(from + 2 * word);
            }
            from += size;
        }
    }
    if bytes & 1 != 0 {
        if from + 1 > ctx.data_end() {
            return Err(Count::Unfit);
        }
        // SAFETY: inside the packet, as just checked. The half word is filled up with a zero behind it.
        sum += u64::from(u16::from_ne_bytes([unsafe { *(from as *const u8) }, 0]));
    }
    Ok(sum)
}

/// Two bytes of the packet as they lie there. The caller has checked that they do.
#[inline(always)]
fn word_at(at: usize) -> u64 {
    // SAFETY: inside the packet. A datagram begins at an even address: the kernel aligns IP headers to two bytes at least
    // (NET_IP_ALIGN, include/linux/skbuff.h), and every header in front of it has an even length.
    u64::from(unsafe { *(at as *const u16) })
}

/// Where it may have several: copied out piece by piece.
#[inline(always)]
fn over_buffers(ctx: &XdpContext, ours: Ours) -> Result<u64, Count> {
    const CHUNK_BYTES: usize = 64;
    let bytes = ours.udp_bytes;
    if bytes > FRAGS_BYTES_MAX {
        return Err(Count::Unfit);
    }
    // A datagram has a header, so the last piece is 1 to 64 bytes long. That the last sum says so matters: Linux 6.1's verifier
    // does not conclude from "not 0" that a length is 1 at least, and refuses to copy what may be nothing.
    let before_last = bytes - 1;
    let whole_chunks = before_last / CHUNK_BYTES;
    let last_bytes = before_last % CHUNK_BYTES + 1;
    let mut sum = 0;
    let mut words = [0u16; CHUNK_BYTES / 2];
    for chunk in 0..FRAGS_BYTES_MAX / CHUNK_BYTES {
        if chunk >= whole_chunks {
            break;
        }
        load(ctx, ours.udp_at + chunk * CHUNK_BYTES, &mut words, CHUNK_BYTES)?;
        for word in words {
            sum += u64::from(word);
        }
    }
    words = [0; CHUNK_BYTES / 2];
    load(ctx, ours.udp_at + whole_chunks * CHUNK_BYTES, &mut words, last_bytes)?;
    for word in words {
        sum += u64::from(word);
    }
    Ok(sum)
}

/// Copies `bytes`, which are 1 to the size of `words`, from `offset` of the packet.
#[inline(always)]
fn load<const WORDS: usize>(
    ctx: &XdpContext,
    offset: usize,
    words: &mut [u16; WORDS],
    bytes: usize,
) -> Result<(), Count> {
    // SAFETY: the kernel writes `bytes` bytes, which the callers bound by the array's size, or nothing.
    let said = unsafe { bpf_xdp_load_bytes(ctx.ctx, offset as u32, words.as_mut_ptr().cast(), bytes as u32) };
    if said < 0 { Err(Count::Unfit) } else { Ok(()) }
}

/// As [`updated`], for two words.
#[inline(always)]
pub fn updated32(checksum: u16, old: u32, new: u32) -> u16 {
    let upper = updated(checksum, (old >> 16) as u16, (new >> 16) as u16);
    updated(upper, old as u16, new as u16)
}

/// UDP writes a sum of zero as all ones: zero says that there is none.
#[inline(always)]
pub fn not_zero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

#[inline(always)]
fn pseudo_header(ctx: &XdpContext, ours: Ours) -> Result<u32, Count> {
    let mut sum = u32::from(internet::PROTOCOL_UDP) + ours.udp_bytes as u32;
    if ours.is_ipv6 {
        let addresses: &[u8; 32] = at(ctx, ours.ip_at + 8).ok_or(Count::Length)?;
        for word in 0..16 {
            sum += u32::from(be16_of(addresses, 2 * word));
        }
    } else {
        let addresses: &[u8; 8] = at(ctx, ours.ip_at + 12).ok_or(Count::Length)?;
        for word in 0..4 {
            sum += u32::from(be16_of(addresses, 2 * word));
        }
    }
    Ok(sum)
}

#[inline(always)]
fn fold(mut sum: u32) -> u16 {
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}
