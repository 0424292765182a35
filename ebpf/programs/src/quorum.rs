//! What the two programs of the quorum share: the grant, the ring, and headers rewritten in place.
//!
//! The order of things is what makes them safe. Everything that can fail is asked before the first change of the packet or
//! the log; an entry is in the ring before the grant's next slot says so, and that before anything leaves.

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xchg};

use aya_ebpf::{
    macros::map,
    maps::{Array, PerCpuArray},
    programs::XdpContext,
};
use dataplane_wire::{
    checksum::{crc32c_byte, crc32c_word},
    ethernet,
    frame::{self, Kind},
    internet, ipv4, udp,
};
use ebpf_abi::{
    Count as Passed,
    quorum::{Control, Count, ENTRY_BYTES_MAX, Entry, Place, RING_SLOTS, grant},
};

use crate::{LOCAL_IPV4, LOCAL_MAC, LOCAL_PORT, Ours, at, at_mut, be16_of};

/// `BPF_F_MMAPABLE`, include/uapi/linux/bpf.h.
const MMAPABLE: u32 = 1 << 10;

/// See [`ebpf_abi::map::CONTROL`].
#[map]
static CONTROL: Array<Control> = Array::with_max_entries(1, MMAPABLE);
/// See [`ebpf_abi::map::RING`].
#[map]
static RING: Array<Entry> = Array::with_max_entries(RING_SLOTS, MMAPABLE);
/// See [`ebpf_abi::map::QUORUM_COUNTS`].
#[map]
static QUORUM_COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Count::ALL.len() as u32, 0);

// The target has no compare and exchange to the language's eyes, since the first BPF had none; Linux has since 5.12.
const ORDERED: AtomicOrdering = AtomicOrdering::SeqCst;

/// How often a busy grant is asked for again. Its holder needs well below a microsecond for most frames.
const CLAIM_TRIES: usize = 64;

/// Counts one frame.
#[inline(always)]
pub fn count(what: Count) {
    if let Some(count) = QUORUM_COUNTS.get_ptr_mut(what as u32) {
        // SAFETY: the map's value is this CPU's own, and a program is not interrupted by itself.
        unsafe { *count += 1 };
    }
}

/// A frame that goes up, for this reason.
#[inline(always)]
pub fn up(why: Count) -> Passed {
    count(why);
    match why {
        Count::Unfit => Passed::Unfit,
        _ => Passed::OtherKind,
    }
}

/// The right to change [`Control`] and the ring, until it is given back.
pub struct Claim {
    /// As it was found.
    pub word: u64,
    control: *mut Control,
}

impl Claim {
    /// Takes the grant, if there is one and nobody holds it.
    #[inline(always)]
    pub fn take() -> Result<Claim, Count> {
        let control = CONTROL.get_ptr_mut(0).ok_or(Count::Off)?;
        // SAFETY: the map's value is aligned to eight bytes and lives as long as the program; the word is only ever touched
        // as an atomic, here and in user space.
        let word = unsafe { &raw mut (*control).grant };
        // SAFETY: as above.
        let mut found = unsafe { word.read_volatile() };
        for _ in 0..CLAIM_TRIES {
            if grant::generation(found) == 0 {
                return Err(Count::Off);
            }
            let free = found & !grant::BUSY;
            // SAFETY: as above.
            let (now, is_ours) = unsafe { atomic_cxchg::<u64, ORDERED, ORDERED>(word, free, free | grant::BUSY) };
            if is_ours {
                return Ok(Claim { word: free, control });
            }
            found = now;
        }
        Err(Count::Busy)
    }

    /// The slot of the next entry.
    #[inline(always)]
    pub fn next(&self) -> u64 {
        grant::next(self.word)
    }

    /// What the claim is about.
    #[inline(always)]
    pub fn control(&mut self) -> &mut Control {
        // SAFETY: whoever holds the busy bit is alone with it; the word itself is not touched through this.
        unsafe { &mut *self.control }
    }

    /// Gives the grant back; the next entry's slot is `next`.
    #[inline(always)]
    pub fn give_back(self, next: u64) {
        let word = (self.word & !grant::NEXT_MASK) | (next & grant::NEXT_MASK);
        // SAFETY: as in `take`. An exchange and not a store: only the former orders what was written before it
        // (Documentation/bpf/standardization/instruction-set.rst, "Atomic operations"; no fetch, no order).
        unsafe { atomic_xchg::<u64, ORDERED>(&raw mut (*self.control).grant, word) };
    }

    /// Gives it back as it was, and says why nothing came of it.
    #[inline(always)]
    pub fn unused<T>(self, why: Count) -> Result<T, Passed> {
        let next = self.next();
        self.give_back(next);
        Err(up(why))
    }
}

/// The place of `slot` in the ring.
#[inline(always)]
pub fn entry_of(slot: u64) -> Option<*mut Entry> {
    RING.get_ptr_mut((slot as u32) & (RING_SLOTS - 1))
}

/// Length of the payload of `ours`, if a program may take it.
#[inline(always)]
pub fn payload_bytes(ours: Ours) -> Result<usize, Passed> {
    let bytes = ours.udp_bytes.wrapping_sub(udp::HEADER_BYTES + frame::HEADER_BYTES);
    match bytes <= ENTRY_BYTES_MAX && !ours.is_ipv6 {
        true => Ok(bytes),
        // Over IPv6 a UDP checksum must be made (RFC 8200 §8.1), and a frame rewritten in place has no time for it.
        false => Err(up(Count::Unfit)),
    }
}

/// Copies the payload of `len_bytes` to `entry`; says its CRC-32C, or nothing if it is not all there.
///
/// The length counts on from the front, as in [`crate::sum`], so that the verifier need not follow each stop to the end.
#[inline(always)]
pub fn copy_payload(ctx: &XdpContext, ours: Ours, len_bytes: usize, entry: *mut Entry) -> Option<u32> {
    const WORD_BYTES: usize = 8;
    // SAFETY: a pointer into the map's value; every write below is inside the array.
    let to = unsafe { &raw mut (*entry).bytes } as *mut u8;
    let from = ctx.data() + ours.frame_at + frame::HEADER_BYTES;
    let mut state = !0u32;
    for index in 0..ENTRY_BYTES_MAX / WORD_BYTES {
        if index >= len_bytes / WORD_BYTES {
            break;
        }
        let at = from + index * WORD_BYTES;
        if at + WORD_BYTES > ctx.data_end() {
            return None;
        }
        // SAFETY: inside the packet, as just checked. The kernel lets a program read words at any address where the machine
        // does (CONFIG_HAVE_EFFICIENT_UNALIGNED_ACCESS), and refuses the program elsewhere.
        let word = unsafe { *(at as *const u64) };
        // SAFETY: `index` is below the array's length in words, and the array begins at a multiple of eight.
        unsafe { *(to.add(index * WORD_BYTES) as *mut u64) = word };
        state = crc32c_word(state, u64::from_le(word));
    }
    let whole_bytes = len_bytes & (ENTRY_BYTES_MAX.next_power_of_two() - WORD_BYTES);
    for index in 0..WORD_BYTES - 1 {
        if index >= len_bytes % WORD_BYTES {
            break;
        }
        let at = from + whole_bytes + index;
        if at + 1 > ctx.data_end() {
            return None;
        }
        // SAFETY: inside the packet, as just checked.
        let byte = unsafe { *(at as *const u8) };
        // SAFETY: the array has room for a word behind the longest payload.
        unsafe { *to.add(whole_bytes + index) = byte };
        state = crc32c_byte(state, byte);
    }
    Some(!state)
}

/// Our header's fields.
#[derive(Clone, Copy)]
pub struct Head {
    /// As `dataplane_wire::frame::Header`.
    pub kind: u8,
    /// As above.
    pub term: u64,
    /// As above.
    pub slot: u64,
    /// As above.
    pub sent_ns: u64,
    /// CRC-32C of the payload.
    pub payload_crc: u32,
}

/// The 64-bit number at `offset`, as it lies there, if the packet's first buffer has all of it.
#[inline(always)]
fn word_at(ctx: &XdpContext, offset: usize) -> Option<u64> {
    let at = ctx.data() + offset;
    if at + 8 > ctx.data_end() {
        return None;
    }
    // SAFETY: inside the packet, as just checked; see `copy_payload` for the alignment.
    Some(unsafe { *(at as *const u64) })
}

/// Four words and the payload's checksum, as they lie in a packet: a header without its own checksum.
#[inline(always)]
fn head_crc(words: [u64; 4], payload_crc: u32) -> u32 {
    let mut state = !0;
    for word in words {
        state = crc32c_word(state, u64::from_le(word));
    }
    for byte in payload_crc.to_be_bytes() {
        state = crc32c_byte(state, byte);
    }
    !state
}

/// Reads and checks our header.
#[inline(always)]
pub fn head(ctx: &XdpContext, ours: Ours) -> Result<Head, Passed> {
    let word = |index: usize| word_at(ctx, ours.frame_at + 8 * index).ok_or(Passed::NotOurs);
    let words = [word(0)?, word(1)?, word(2)?, word(3)?];
    let crcs = u64::from_be(word(4)?);
    let (payload_crc, crc) = ((crcs >> 32) as u32, crcs as u32);
    if head_crc(words, payload_crc) != crc {
        return Err(up(Count::Checksum));
    }
    Ok(Head {
        kind: (u64::from_be(words[0]) >> 16) as u8,
        term: u64::from_be(words[1]),
        slot: u64::from_be(words[2]),
        sent_ns: u64::from_be(words[3]),
        payload_crc,
    })
}

/// Writes our header.
#[inline(always)]
pub fn write_head(ctx: &XdpContext, ours: Ours, head: Head, payload_bytes: usize) -> Option<()> {
    const FIXED: u64 = ((u32::from_be_bytes(frame::MAGIC) as u64) << 32) | ((frame::VERSION as u64) << 24);
    let first = FIXED | (u64::from(head.kind) << 16) | (payload_bytes as u64 & 0xffff);
    let words = [
        first.to_be(),
        head.term.to_be(),
        head.slot.to_be(),
        head.sent_ns.to_be(),
    ];
    let crcs = (u64::from(head.payload_crc) << 32) | u64::from(head_crc(words, head.payload_crc));
    let at = ctx.data() + ours.frame_at;
    if at + frame::HEADER_BYTES > ctx.data_end() {
        return None;
    }
    for (index, word) in [words[0], words[1], words[2], words[3], crcs.to_be()]
        .into_iter()
        .enumerate()
    {
        // SAFETY: inside the packet, as just checked; no reference into it is held.
        unsafe { *((at + 8 * index) as *mut u64) = word };
    }
    Some(())
}

/// The eight bytes as a number.
#[inline(always)]
pub fn be64(bytes: &[u8]) -> u64 {
    u64::from_be_bytes([
        bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7],
    ])
}

/// Where the frame came from.
#[inline(always)]
pub fn source(ctx: &XdpContext, ours: Ours) -> Result<Place, Passed> {
    let ip: &[u8; ipv4::HEADER_BYTES] = at(ctx, ours.ip_at).ok_or(Passed::NotIp)?;
    let udp: &[u8; udp::HEADER_BYTES] = at(ctx, ours.udp_at).ok_or(Passed::Length)?;
    let macs: &[u8; 12] = at(ctx, ethernet::field::DST.start).ok_or(Passed::NotIp)?;
    Ok(Place {
        ipv4: [ip[12], ip[13], ip[14], ip[15]],
        port: [udp[0], udp[1]],
        mac: [macs[6], macs[7], macs[8], macs[9], macs[10], macs[11]],
        padding: [0; 4],
    })
}

/// Whether two places are the same address and port: MAC addresses change with the way.
#[inline(always)]
pub fn is_same(one: &Place, other: &Place) -> bool {
    let mut difference = (one.port[0] ^ other.port[0]) | (one.port[1] ^ other.port[1]);
    for index in 0..4 {
        difference |= one.ipv4[index] ^ other.ipv4[index];
    }
    difference == 0
}

/// Writes the headers in front of ours: from us to `to`, with a UDP payload of `frame_bytes`.
///
/// The UDP checksum becomes zero, "none" (RFC 768): the frame's own checksums cover more, and better.
#[inline(always)]
pub fn address(ctx: &XdpContext, ours: Ours, to: &Place, frame_bytes: usize) -> Option<()> {
    let udp_bytes = (udp::HEADER_BYTES + frame_bytes) as u16;
    let udp: &mut [u8; udp::HEADER_BYTES] = at_mut(ctx, ours.udp_at)?;
    udp[0..2].copy_from_slice(&LOCAL_PORT.load().to_be_bytes());
    udp[2..4].copy_from_slice(&to.port);
    udp[4..6].copy_from_slice(&udp_bytes.to_be_bytes());
    udp[6] = 0;
    udp[7] = 0;

    let ip: &mut [u8; ipv4::HEADER_BYTES] = at_mut(ctx, ours.ip_at)?;
    let mut sum = be16_of(ip, ipv4::field::CHECKSUM.start);
    let local = LOCAL_IPV4.load();
    let ip_bytes = (ipv4::HEADER_BYTES as u16) + udp_bytes;
    sum = change16(ip, ipv4::field::TOTAL_LEN.start, ip_bytes, sum);
    sum = change16(ip, 12, u16::from_be_bytes([local[0], local[1]]), sum);
    sum = change16(ip, 14, u16::from_be_bytes([local[2], local[3]]), sum);
    sum = change16(ip, 16, u16::from_be_bytes([to.ipv4[0], to.ipv4[1]]), sum);
    sum = change16(ip, 18, u16::from_be_bytes([to.ipv4[2], to.ipv4[3]]), sum);
    ip[ipv4::field::CHECKSUM].copy_from_slice(&sum.to_be_bytes());

    let macs: &mut [u8; 12] = at_mut(ctx, ethernet::field::DST.start)?;
    let local = LOCAL_MAC.load();
    macs[0..6].copy_from_slice(&to.mac);
    macs[6..12].copy_from_slice(&local);
    Some(())
}

/// Addresses a frame that was sent to our group to us alone, and mends the checksums over the address: a leader's program sends
/// datagrams without one, its replica's socket with.
#[inline(always)]
pub fn readdress(ctx: &XdpContext, ours: Ours) -> Option<()> {
    if ours.is_ipv6 {
        return None;
    }
    let ip: &[u8; ipv4::HEADER_BYTES] = at(ctx, ours.ip_at)?;
    let (high, low) = (be16_of(ip, 16), be16_of(ip, 18));
    let local = LOCAL_IPV4.load();
    let udp: &mut [u8; udp::HEADER_BYTES] = at_mut(ctx, ours.udp_at)?;
    let mut sum = be16_of(udp, udp::field::CHECKSUM.start);
    if sum != 0 {
        sum = internet::updated(sum, high, u16::from_be_bytes([local[0], local[1]]));
        sum = internet::updated(sum, low, u16::from_be_bytes([local[2], local[3]]));
        // Zero would mean "none" (RFC 768).
        sum = if sum == 0 { 0xffff } else { sum };
        udp[udp::field::CHECKSUM].copy_from_slice(&sum.to_be_bytes());
    }
    let ip: &mut [u8; ipv4::HEADER_BYTES] = at_mut(ctx, ours.ip_at)?;
    let mut sum = be16_of(ip, ipv4::field::CHECKSUM.start);
    sum = change16(ip, 16, u16::from_be_bytes([local[0], local[1]]), sum);
    sum = change16(ip, 18, u16::from_be_bytes([local[2], local[3]]), sum);
    ip[ipv4::field::CHECKSUM].copy_from_slice(&sum.to_be_bytes());
    let to: &mut [u8; 6] = at_mut(ctx, ethernet::field::DST.start)?;
    *to = LOCAL_MAC.load();
    Some(())
}

/// Sets the word at `offset`; says the checksum over it afterwards.
#[inline(always)]
pub fn change16(ip: &mut [u8; ipv4::HEADER_BYTES], offset: usize, to: u16, checksum: u16) -> u16 {
    let was = be16_of(ip, offset);
    ip[offset..offset + 2].copy_from_slice(&to.to_be_bytes());
    internet::updated(checksum, was, to)
}

const _: () = assert!(Kind::Append as u8 == 5 && frame::field::HEADER_CRC.start == 36);
