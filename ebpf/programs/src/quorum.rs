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
    checksum::{crc32c_byte, crc32c_half, crc32c_word},
    ethernet,
    frame::{self, HeaderChain, Kind},
    ipv4, udp,
};
use ebpf_abi::{
    Count as Passed,
    quorum::{Control, Count, ENTRY_BYTES_MAX, Entry, Place, RING_SLOTS, grant},
};

use crate::{LOCAL_IPV4, LOCAL_MAC, LOCAL_PORT, Ours, bytes_at};

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

/// The last header of each sort that this CPU has checked or written.
#[map]
static CHAINS: PerCpuArray<Chains> = PerCpuArray::with_max_entries(1, 0);

/// Headers of one sort follow each other in small steps: see [`HeaderChain`].
#[repr(C)]
pub struct Chains {
    /// Those of [`Kind::Ack`] that come.
    acks: HeaderChain,
    /// All others that come.
    others: HeaderChain,
    /// What goes to the followers, or to the leader.
    appends_or_acks: HeaderChain,
    /// What goes to clients.
    answers: HeaderChain,
}

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

/// `bytes`, if they fit an entry. The compiler knows that they do, and would leave out the comparison from which the verifier
/// learns it.
#[inline(always)]
fn bounded(bytes: usize) -> Option<usize> {
    // SAFETY: a local variable.
    let bytes = unsafe { core::ptr::read_volatile(&raw const bytes) };
    (bytes <= ENTRY_BYTES_MAX).then_some(bytes)
}

/// No entry's.
const NO_SLOT: u64 = u64::MAX;

/// Copies the payload of `len_bytes` to `entry`, which is no slot's from then on; says its CRC-32C, or nothing if it is not all there.
///
/// The length counts on from the front, as in [`crate::sum`], so that the verifier need not follow each stop to the end.
#[inline(always)]
pub fn copy_payload(ctx: &XdpContext, ours: Ours, len_bytes: usize, entry: *mut Entry) -> Option<u32> {
    const WORD_BYTES: usize = 8;
    // SAFETY: a pointer into the map's value; every write below is inside the array.
    let to = unsafe { &raw mut (*entry).bytes } as *mut u8;
    // What is sent again is found by its slot, and these bytes may turn out to be damaged.
    // SAFETY: as above.
    unsafe { (*entry).slot = NO_SLOT };
    let from_at = ours.frame_at + frame::HEADER_BYTES;
    let len_bytes = bounded(len_bytes)?;
    let mut state = !0u32;
    for index in 0..ENTRY_BYTES_MAX / WORD_BYTES {
        if index >= len_bytes / WORD_BYTES {
            break;
        }
        let word: u64 = bytes_at::<WORD_BYTES>(ctx, from_at + index * WORD_BYTES)?.get(0);
        // SAFETY: `index` is below the array's length in words, and the array begins at a multiple of eight.
        unsafe { *(to.add(index * WORD_BYTES) as *mut u64) = word };
        state = crc32c_word(state, u64::from_le(word));
    }
    // Bounded again: where the length was kept on the stack meanwhile, Linux 6.1's verifier knows no more than the mask.
    let done_bytes = bounded(len_bytes & (ENTRY_BYTES_MAX.next_power_of_two() - WORD_BYTES))?;
    if len_bytes & 4 != 0 {
        let half: u32 = bytes_at::<4>(ctx, from_at + done_bytes)?.get(0);
        // SAFETY: the array has room for a word behind the longest payload, and a half word lies at a multiple of four.
        unsafe { *(to.add(done_bytes) as *mut u32) = half };
        state = crc32c_half(state, u32::from_le(half));
    }
    // A mask and not a sum: the verifier keeps the bound of what it masks.
    let done_bytes = bounded(len_bytes & (ENTRY_BYTES_MAX.next_power_of_two() - 4))?;
    for index in 0..3 {
        if index >= len_bytes % 4 {
            break;
        }
        let byte: u8 = bytes_at::<1>(ctx, from_at + done_bytes + index)?.get(0);
        // SAFETY: as above.
        unsafe { *to.add(done_bytes + index) = byte };
        state = crc32c_byte(state, byte);
    }
    Some(!state)
}

/// Copies an entry's payload to the packet, which is as long as the entry; says no if it is not.
#[inline(always)]
pub fn put_payload(ctx: &XdpContext, ours: Ours, len_bytes: usize, entry: *const Entry) -> Option<()> {
    const WORD_BYTES: usize = 8;
    // SAFETY: a pointer into the map's value; every read below is inside the array, as in `copy_payload`.
    let from = unsafe { &raw const (*entry).bytes } as *const u8;
    let to_at = ours.frame_at + frame::HEADER_BYTES;
    // SAFETY: a local variable; see `copy_payload`.
    let len_bytes = unsafe { core::ptr::read_volatile(&raw const len_bytes) };
    if len_bytes > ENTRY_BYTES_MAX {
        return None;
    }
    for index in 0..ENTRY_BYTES_MAX / WORD_BYTES {
        if index >= len_bytes / WORD_BYTES {
            break;
        }
        // SAFETY: as above.
        let word: u64 = unsafe { *(from.add(index * WORD_BYTES) as *const u64) };
        bytes_at::<WORD_BYTES>(ctx, to_at + index * WORD_BYTES)?.set(0, word);
    }
    let done_bytes = len_bytes & (ENTRY_BYTES_MAX.next_power_of_two() - WORD_BYTES);
    if len_bytes & 4 != 0 {
        // SAFETY: as above.
        let half: u32 = unsafe { *(from.add(done_bytes) as *const u32) };
        bytes_at::<4>(ctx, to_at + done_bytes)?.set(0, half);
    }
    let done_bytes = len_bytes & (ENTRY_BYTES_MAX.next_power_of_two() - 4);
    for index in 0..3 {
        if index >= len_bytes % 4 {
            break;
        }
        // SAFETY: as above.
        let byte: u8 = unsafe { *from.add(done_bytes + index) };
        bytes_at::<1>(ctx, to_at + done_bytes + index)?.set(0, byte);
    }
    Some(())
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

/// What this CPU has seen of headers. It is alone with it: a program is not interrupted by itself.
#[inline(always)]
fn chains() -> Option<&'static mut Chains> {
    // SAFETY: the map's value is this CPU's own, lives as long as the program, and is borrowed by one caller at a time.
    CHAINS.get_ptr_mut(0).map(|chains| unsafe { &mut *chains })
}

/// Reads and checks our header.
#[inline(always)]
pub fn head(ctx: &XdpContext, ours: Ours) -> Result<Head, Passed> {
    let bytes = bytes_at::<{ frame::HEADER_BYTES }>(ctx, ours.frame_at).ok_or(Passed::NotOurs)?;
    let words: [u64; 4] = [bytes.get(0), bytes.get(8), bytes.get(16), bytes.get(24)];
    let payload_crc = u32::from_be(bytes.get(frame::field::PAYLOAD_CRC.start));
    let kind = (u64::from_be(words[0]) >> 16) as u8;
    let chains = chains().ok_or(Passed::NotOurs)?;
    let chain = match kind == Kind::Ack as u8 {
        true => &mut chains.acks,
        false => &mut chains.others,
    };
    if chain.crc(words, payload_crc) != u32::from_be(bytes.get(frame::field::HEADER_CRC.start)) {
        return Err(up(Count::Checksum));
    }
    Ok(Head {
        kind,
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
    let chains = chains()?;
    let chain = match head.kind == Kind::QuorumReply as u8 {
        true => &mut chains.answers,
        false => &mut chains.appends_or_acks,
    };
    let crc = chain.crc(words, head.payload_crc);
    let bytes = bytes_at::<{ frame::HEADER_BYTES }>(ctx, ours.frame_at)?;
    for (index, word) in words.into_iter().enumerate() {
        bytes.set(8 * index, word);
    }
    bytes.set(frame::field::PAYLOAD_CRC.start, head.payload_crc.to_be());
    bytes.set(frame::field::HEADER_CRC.start, crc.to_be());
    Some(())
}

/// Where the frame came from.
#[inline(always)]
pub fn source(ctx: &XdpContext, ours: Ours) -> Result<Place, Passed> {
    let ip = bytes_at::<{ ipv4::HEADER_BYTES }>(ctx, ours.ip_at).ok_or(Passed::NotIp)?;
    let udp = bytes_at::<{ udp::HEADER_BYTES }>(ctx, ours.udp_at).ok_or(Passed::Length)?;
    let macs = bytes_at::<{ ethernet::HEADER_BYTES }>(ctx, 0).ok_or(Passed::NotIp)?;
    let (ipv4, port): (u32, u16) = (ip.get(ipv4::field::SRC.start), udp.get(udp::field::SRC_PORT.start));
    Ok(Place {
        address: u64::from(ipv4) | (u64::from(port) << 32),
        mac: macs.mac(ethernet::field::SRC.start),
    })
}

/// Writes the headers in front of ours: from us to `to`, with a UDP payload of `frame_bytes`.
///
/// The UDP checksum becomes zero, "none" (RFC 768): the frame's own checksums cover more, and better.
#[inline(always)]
pub fn address(ctx: &XdpContext, ours: Ours, to: &Place, frame_bytes: usize) -> Option<()> {
    let udp_bytes = (udp::HEADER_BYTES + frame_bytes) as u16;
    let udp = bytes_at::<{ udp::HEADER_BYTES }>(ctx, ours.udp_at)?;
    udp.set(udp::field::SRC_PORT.start, LOCAL_PORT.load().to_be());
    udp.set(udp::field::DST_PORT.start, (to.address >> 32) as u16);
    udp.set(udp::field::LEN.start, udp_bytes.to_be());
    udp.set(udp::field::CHECKSUM.start, 0u16);

    let ip = bytes_at::<{ ipv4::HEADER_BYTES }>(ctx, ours.ip_at)?;
    let ip_bytes = ((ipv4::HEADER_BYTES as u16) + udp_bytes).to_be();
    let mut sum = Sum::of_header(ip);
    sum.changes(ip.get::<u16>(ipv4::field::TOTAL_LEN.start).into(), ip_bytes.into());
    ip.set(ipv4::field::TOTAL_LEN.start, ip_bytes);
    sum.set_address(ip, ipv4::field::SRC.start, LOCAL_IPV4.load());
    sum.set_address(ip, ipv4::field::DST.start, to.address as u32);
    ip.set(ipv4::field::CHECKSUM.start, sum.end());

    let macs = bytes_at::<{ ethernet::HEADER_BYTES }>(ctx, 0)?;
    macs.set_macs(ethernet::field::DST.start, to.mac, LOCAL_MAC.load());
    Some(())
}

/// Addresses a frame that was sent to our group to us alone, and mends the checksums over the address: a leader's program sends
/// datagrams without one, its replica's socket with.
#[inline(always)]
pub fn readdress(ctx: &XdpContext, ours: Ours) -> Option<()> {
    if ours.is_ipv6 {
        return None;
    }
    let ip = bytes_at::<{ ipv4::HEADER_BYTES }>(ctx, ours.ip_at)?;
    let (was, is): (u32, u32) = (ip.get(ipv4::field::DST.start), LOCAL_IPV4.load());
    let udp = bytes_at::<{ udp::HEADER_BYTES }>(ctx, ours.udp_at)?;
    let checksum: u16 = udp.get(udp::field::CHECKSUM.start);
    if checksum != 0 {
        let mut sum = Sum::of(checksum);
        sum.changes(was, is);
        // Zero would mean "none" (RFC 768).
        let checksum = match sum.end() {
            0 => 0xffff,
            other => other,
        };
        udp.set(udp::field::CHECKSUM.start, checksum);
    }
    let mut sum = Sum::of_header(ip);
    sum.set_address(ip, ipv4::field::DST.start, is);
    ip.set(ipv4::field::CHECKSUM.start, sum.end());
    let macs = bytes_at::<{ ethernet::HEADER_BYTES }>(ctx, 0)?;
    macs.set_macs(
        ethernet::field::DST.start,
        LOCAL_MAC.load(),
        macs.mac(ethernet::field::SRC.start),
    );
    Some(())
}

/// An internet checksum while what it covers changes (RFC 1624), of words as they lie in memory: a sum of one's complements
/// may be taken in any byte order and width, and be folded at the end (RFC 1071 §2).
pub(crate) struct Sum(u64);

impl Sum {
    #[inline(always)]
    fn of(checksum: u16) -> Sum {
        Sum(u64::from(!checksum))
    }

    /// Of an IPv4 header.
    #[inline(always)]
    pub(crate) fn of_header(ip: crate::Bytes<{ ipv4::HEADER_BYTES }>) -> Sum {
        Sum::of(ip.get(ipv4::field::CHECKSUM.start))
    }

    #[inline(always)]
    fn changes(&mut self, was: u32, is: u32) {
        self.0 += u64::from(!was) + u64::from(is);
    }

    #[inline(always)]
    pub(crate) fn set_address(&mut self, ip: crate::Bytes<{ ipv4::HEADER_BYTES }>, offset: usize, is: u32) {
        self.changes(ip.get(offset), is);
        ip.set(offset, is);
    }

    /// The checksum, as it lies in memory.
    #[inline(always)]
    pub(crate) fn end(self) -> u16 {
        let mut sum = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        for _ in 0..3 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }
}

const _: () = assert!(Kind::Append as u8 == 5 && frame::field::HEADER_CRC.start == 36);
