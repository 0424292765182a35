//! What travels between the halves of a flow: a segment's header, without its payload's bytes. 64 bytes, copied freely.

/// SACK blocks in one segment: what fits beside timestamps into 40 bytes of options (RFC 2018 §3).
pub const SACK_BLOCKS_MAX: usize = 3;

/// IPv4 without options, and TCP without options (RFC 791 §3.1, RFC 9293 §3.1).
const HEADERS_BYTES: u32 = 20 + 20;
/// The timestamps option, padded (RFC 7323 §3.2, appendix A).
const TIMESTAMPS_BYTES: u32 = 12;
/// The SACK option without its blocks, padded, and a block (RFC 2018 §3).
const SACK_BYTES: u32 = 4;
const SACK_BLOCK_BYTES: u32 = 8;

/// Bytes `start..end` that arrived out of order, or twice if they lie below the ack (D-SACK, RFC 2883).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SackBlock {
    /// The first byte.
    pub start: u64,
    /// The first byte after it.
    pub end: u64,
}

/// A block as it is kept: from the ack on, so that it takes 8 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PackedBlock {
    start_from_ack: i32,
    len_bytes: u32,
}

/// A segment: data if `len_bytes` is not zero, otherwise an ack. Sequence numbers count bytes from 0 in 64 bits and do not wrap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// The first byte of the payload.
    pub seq: u64,
    /// The first byte that the receiver waits for.
    pub ack: u64,
    /// Payload.
    pub len_bytes: u32,
    /// What the receiver takes from `ack` on.
    pub window_bytes: u32,
    /// When it was sent, in [`crate::SenderOptions::timestamp_unit`]s.
    pub ts_val: u32,
    /// The timestamp that it answers.
    pub ts_ecr: u32,
    /// Written by [`Segment::push_sack`], read by [`Segment::sack_blocks`].
    pub sack: [PackedBlock; SACK_BLOCKS_MAX],
    /// How many of them there are.
    pub sack_count: u8,
    /// The timestamps are there.
    pub timestamps: bool,
    /// ECN-capable: what carries it may mark it instead of dropping it.
    pub ect: bool,
    /// The receiver saw a mark.
    pub ece: bool,
    /// The sender has reduced its window.
    pub cwr: bool,
    /// It was sent before. For traces: a real header does not say so, and the receiver does not look.
    pub is_retransmission: bool,
}

const _: () = assert!(size_of::<Segment>() <= 64, "a segment fits into a cache line");

impl Segment {
    /// Adds a SACK block. False if there is no room, or if it lies further than 2 GiB from `ack`, which must be set before.
    pub fn push_sack(&mut self, block: SackBlock) -> bool {
        let from_ack = block.start.wrapping_sub(self.ack) as i64;
        let len = block.end.saturating_sub(block.start);
        let (Ok(start_from_ack), Ok(len_bytes)) = (i32::try_from(from_ack), u32::try_from(len)) else {
            return false;
        };
        let Some(slot) = self.sack.get_mut(usize::from(self.sack_count)) else {
            return false;
        };
        *slot = PackedBlock {
            start_from_ack,
            len_bytes,
        };
        self.sack_count += 1;
        true
    }

    /// The SACK blocks, the newest first; empty ones and ones beyond 64 bits are nonsense that whoever reads must refuse.
    pub fn sack_blocks(&self) -> impl Iterator<Item = SackBlock> + '_ {
        self.sack.iter().take(self.sack_count.into()).map(|packed| {
            let start = self.ack.wrapping_add_signed(packed.start_from_ack.into());
            SackBlock {
                start,
                end: start.wrapping_add(packed.len_bytes.into()),
            }
        })
    }

    /// It has SACK blocks.
    #[inline]
    pub fn has_sack(&self) -> bool {
        self.sack_count > 0
    }

    /// The IPv4 packet's length: headers, options, payload. An Ethernet frame has 14 bytes more.
    #[inline]
    pub fn ip_bytes(&self) -> u32 {
        let timestamps = if self.timestamps { TIMESTAMPS_BYTES } else { 0 };
        let sack = match self.sack_count {
            0 => 0,
            count => SACK_BYTES + SACK_BLOCK_BYTES * u32::from(count),
        };
        HEADERS_BYTES + timestamps + sack + self.len_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sack_blocks_come_back_and_a_fourth_is_refused() {
        let mut segment = Segment {
            ack: 10_000_000_000,
            ..Segment::default()
        };
        let blocks = [
            (10_000_001_000, 10_000_002_000),
            (9_999_000_000, 9_999_001_000),
            (10_000_005_000, 10_000_006_000),
        ];
        for (start, end) in blocks {
            assert!(segment.push_sack(SackBlock { start, end }));
        }
        assert!(!segment.push_sack(SackBlock {
            start: 10_000_007_000,
            end: 10_000_008_000
        }));
        let back: Vec<_> = segment.sack_blocks().map(|block| (block.start, block.end)).collect();
        assert_eq!(back, blocks);
        // 40 of headers, 4 + 3 × 8 of SACK.
        assert_eq!(segment.ip_bytes(), 68);
    }

    #[test]
    fn a_block_too_far_away_is_refused() {
        let mut segment = Segment::default();
        assert!(!segment.push_sack(SackBlock {
            start: 1 << 40,
            end: (1 << 40) + 1
        }));
        assert!(!segment.has_sack());
    }
}
