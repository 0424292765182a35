//! `stamp`: writes when the driver saw a frame (`bpf_ktime_get_ns`, CLOCK_MONOTONIC) into the trailer at its end, mends the
//! three checksums over it, and passes it.
#![no_std]
#![no_main]

use aya_ebpf::{Global, bindings::xdp_action, helpers::generated::bpf_ktime_get_ns, programs::XdpContext};
use dataplane_wire::{checksum::crc32c_half, echo, frame, internet, trace, udp};
use ebpf_abi::Count;
use ebpf_programs::{
    Act, Ours, at, at_mut, be16_of,
    sum::{self, Holds},
};

/// See [`ebpf_abi::setting::STAMP_INDEX`].
#[unsafe(no_mangle)]
static STAMP_INDEX: Global<u32> = Global::new(0);

/// See the module.
struct Stamp<const FRAGS: bool>;

/// The shortest datagram that has room for a trailer.
const UDP_BYTES_MIN: usize = udp::HEADER_BYTES + frame::HEADER_BYTES + echo::PAYLOAD_BYTES_MIN + trace::TRAILER_BYTES;
/// The longest that is looked at. A first buffer is never longer than a page, and the verifier follows an offset only as
/// long as it stays below 64 KiB (MAX_PACKET_OFF, kernel/bpf/verifier.c).
const UDP_BYTES_MAX: usize = 4096;
/// Headers in front of a datagram and the datagram are shorter than this.
const OFFSET_MASK: usize = 0x1fff;

impl<const FRAGS: bool> Act for Stamp<FRAGS> {
    const FRAGS: bool = FRAGS;

    #[inline(always)]
    fn act(ctx: &XdpContext, ours: Ours) -> Result<u32, Count> {
        let index = STAMP_INDEX.load() as usize % trace::STAMPS_COUNT;
        // Before the check of the length: a compiler that knows it takes the sum's own bound for superfluous, and the
        // verifier then sees a loop without one.
        let holds = sum::holds::<FRAGS>(ctx, ours)?;
        if ours.udp_bytes < UDP_BYTES_MIN || ours.udp_bytes > UDP_BYTES_MAX {
            return Err(Count::Unfit);
        }
        let head: &[u8; frame::HEADER_BYTES] = at(ctx, ours.frame_at).ok_or(Count::NotOurs)?;
        let old_payload_crc = u32::from_be_bytes([head[32], head[33], head[34], head[35]]);
        let old_header_crc = u32::from_be_bytes([head[36], head[37], head[38], head[39]]);

        // The stamp's own place: counted from the datagram's end.
        let offset = ours.udp_at + ours.udp_bytes - trace::TRAILER_BYTES + index * trace::STAMP_BYTES;
        let place = ctx.data() + (offset & OFFSET_MASK);
        if place + trace::STAMP_BYTES > ctx.data_end() {
            // It stands in another buffer.
            return Err(Count::Unfit);
        }
        // SAFETY: no argument.
        let stamp = unsafe { bpf_ktime_get_ns() }.to_be_bytes();
        // SAFETY: inside the packet, as just checked.
        let old = unsafe { *(place as *const [u8; trace::STAMP_BYTES]) };
        // SAFETY: as above, and nothing else refers to these bytes.
        unsafe { *(place as *mut [u8; trace::STAMP_BYTES]) = stamp };

        let payload_crc = old_payload_crc ^ trace::payload_crc_delta(index, old, stamp);
        let header_crc = old_header_crc ^ header_crc_delta(old_payload_crc, payload_crc);
        let head: &mut [u8; frame::HEADER_BYTES] = at_mut(ctx, ours.frame_at).ok_or(Count::NotOurs)?;
        let (payload_bytes, header_bytes) = (payload_crc.to_be_bytes(), header_crc.to_be_bytes());
        for byte in 0..4 {
            head[32 + byte] = payload_bytes[byte];
            head[36 + byte] = header_bytes[byte];
        }

        // A device, or the kernel, makes a partial checksum whole later, over what stands there then.
        if holds == Holds::Checksum {
            let udp: &mut [u8; udp::HEADER_BYTES] = at_mut(ctx, ours.udp_at).ok_or(Count::Length)?;
            let mut checksum = be16_of(udp, udp::field::CHECKSUM.start);
            // A datagram of odd length ends in half a word, and the stamp then stands astride of words: its bytes change
            // places in the sum (RFC 1071 §2(B)).
            let is_astride = offset % 2 != ours.udp_at % 2;
            for word in 0..4 {
                let (mut was, mut is) = (be16_of(&old, 2 * word), be16_of(&stamp, 2 * word));
                if is_astride {
                    was = was.swap_bytes();
                    is = is.swap_bytes();
                }
                checksum = internet::updated(checksum, was, is);
            }
            checksum = sum::updated32(checksum, old_payload_crc, payload_crc);
            checksum = sum::not_zero(sum::updated32(checksum, old_header_crc, header_crc));
            let bytes = checksum.to_be_bytes();
            udp[6] = bytes[0];
            udp[7] = bytes[1];
        }
        Ok(xdp_action::XDP_PASS)
    }
}

/// What changes in the header's checksum when the last four bytes before it change, as a CRC is linear.
#[inline(always)]
fn header_crc_delta(old: u32, new: u32) -> u32 {
    crc32c_half(0, (old ^ new).swap_bytes())
}

const _: () = assert!(
    frame::field::PAYLOAD_CRC.start == 32 && frame::field::HEADER_CRC.start == 36 && udp::field::CHECKSUM.start == 6
);

ebpf_programs::programs!(Stamp, stamp, stamp_frags);
