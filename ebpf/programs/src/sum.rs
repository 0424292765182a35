//! The UDP checksum after a change (RFC 1624), and as a whole where a device was to make it (RFC 768, RFC 8200 §8.1).
//!
//! A sender whose interface makes checksums leaves the pseudo-header's sum in the field (CHECKSUM_PARTIAL,
//! include/linux/skbuff.h). A frame that goes out again by XDP_TX has lost the note that says so, and would arrive broken: so
//! a program that answers such a frame makes the sum itself.

use aya_ebpf::programs::XdpContext;
use dataplane_wire::{internet, udp};
use ebpf_abi::Count;

use crate::{Ours, at, be16_of};

/// The longest datagram that [`whole`] sums up: the loop's bound, which the verifier walks.
pub const SUMMED_BYTES_MAX: usize = 2048;

/// What the checksum field of a datagram holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// Zero over IPv4: the sender made none.
    Nothing,
    /// The sum of the pseudo-header only.
    Partial,
    /// A checksum.
    Checksum,
}

/// What the field of `ours` holds. One in 65,536 whole checksums looks like a partial one: it is then made anew, to the same
/// value if it was right.
#[inline(always)]
pub fn holds(ctx: &XdpContext, ours: Ours) -> Result<Holds, Count> {
    let udp: &[u8; udp::HEADER_BYTES] = at(ctx, ours.udp_at).ok_or(Count::Length)?;
    let field = be16_of(udp, udp::field::CHECKSUM.start);
    if field == 0 && !ours.is_ipv6 {
        return Ok(Holds::Nothing);
    }
    if field == fold(pseudo_header(ctx, ours)?) {
        return Ok(Holds::Partial);
    }
    Ok(Holds::Checksum)
}

/// The checksum of the whole datagram.
#[inline(always)]
pub fn whole(ctx: &XdpContext, ours: Ours) -> Result<u16, Count> {
    let bytes = ours.udp_bytes;
    if bytes > SUMMED_BYTES_MAX {
        return Err(Count::Unfit);
    }
    let udp: &[u8; udp::HEADER_BYTES] = at(ctx, ours.udp_at).ok_or(Count::Length)?;
    let field = be16_of(udp, udp::field::CHECKSUM.start);
    // Without the field itself. A sum of 16-bit words may be taken in words of any width and order (RFC 1071 §2), so the
    // loop takes sixteen bytes a turn, as they come, and the bytes change places once at the end.
    let mut native: u64 = 0;
    let start = ctx.data() + ours.udp_at;
    for chunk in 0..SUMMED_BYTES_MAX / CHUNK_BYTES {
        if chunk >= bytes / CHUNK_BYTES {
            break;
        }
        let from = start + chunk * CHUNK_BYTES;
        if from + CHUNK_BYTES > ctx.data_end() {
            // The rest stands in another buffer.
            return Err(Count::Unfit);
        }
        for word in 0..CHUNK_BYTES / 2 {
            native += word_at(from + 2 * word);
        }
    }
    // From the length and not from where the loop stopped: the verifier then need not follow each stop to the end.
    let mut from = start + (bytes & (2 * SUMMED_BYTES_MAX - CHUNK_BYTES));
    for size in [8, 4, 2] {
        if bytes & size != 0 {
            if from + size > ctx.data_end() {
                return Err(Count::Unfit);
            }
            for word in 0..size / 2 {
                native += word_at(from + 2 * word);
            }
            from += size;
        }
    }
    if bytes & 1 != 0 {
        if from + 1 > ctx.data_end() {
            return Err(Count::Unfit);
        }
        // SAFETY: inside the packet, as just checked. The half word is filled up with a zero behind it.
        native += u64::from(u16::from_ne_bytes([unsafe { *(from as *const u8) }, 0]));
    }
    native = (native & 0xffff_ffff) + (native >> 32);
    native = (native & 0xffff_ffff) + (native >> 32);
    let sum = u32::from(fold(native as u32).swap_bytes()) + u32::from(!field);
    Ok(not_zero(!fold(sum + pseudo_header(ctx, ours)?)))
}

/// Two bytes of the packet as they lie there. The caller has checked that they do.
#[inline(always)]
fn word_at(at: usize) -> u64 {
    // SAFETY: inside the packet. A datagram begins at an even address: the kernel aligns IP headers to two bytes at least
    // (NET_IP_ALIGN, include/linux/skbuff.h), and every header in front of it has an even length.
    u64::from(unsafe { *(at as *const u16) })
}

/// What a turn of [`whole`] takes.
const CHUNK_BYTES: usize = 16;

/// The checksum after one 16-bit word of what it covers has changed.
#[inline(always)]
pub fn updated(checksum: u16, old: u16, new: u16) -> u16 {
    // RFC 1624 §3, equation 3: HC' = ~(~HC + ~m + m').
    !fold(u32::from(!checksum) + u32::from(!old) + u32::from(new))
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
