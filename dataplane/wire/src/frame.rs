//! The lab's own frame header: what every protocol's messages travel in, whatever carries them.
//!
//! ```text
//!  0      4   5   6     8            16           24           32        36        40
//!  +------+---+---+-----+------------+------------+------------+---------+---------+------------
//!  |magic |ver|knd|p.len| term       | slot       | sent ns    |payld crc| head crc| payload …
//!  +------+---+---+-----+------------+------------+------------+---------+---------+------------
//! ```
//!
//! Big-endian. The payload's checksum is end to end: a relay that rewrites the header (a leader that assigns a slot,
//! an XDP program, an RTL pipeline) recomputes 36 bytes of CRC, never the payload's.

use core::ops::Range;

use crate::{
    Reject,
    checksum::{crc32c, crc32c_const, crc32c_difference_at, crc32c_half, crc32c_word},
};

/// Where each field stands.
pub mod field {
    use super::Range;
    /// [`super::MAGIC`].
    pub const MAGIC: Range<usize> = 0..4;
    /// [`super::VERSION`].
    pub const VERSION: Range<usize> = 4..5;
    /// [`super::Kind`].
    pub const KIND: Range<usize> = 5..6;
    /// Bytes after the header.
    pub const PAYLOAD_LEN: Range<usize> = 6..8;
    /// Leader term (Raft §5.1; a "view" in Viewstamped Replication). 0 where there is no leader.
    pub const TERM: Range<usize> = 8..16;
    /// Log slot, or the request's sequence number where there is no log.
    pub const SLOT: Range<usize> = 16..24;
    /// When the sender meant to send, in nanoseconds of its own clock; echoed unchanged. In replicas' frames it is the
    /// kind's own word: see [`super::Header::sent_ns`].
    pub const SENT_NS: Range<usize> = 24..32;
    /// CRC-32C of the payload.
    pub const PAYLOAD_CRC: Range<usize> = 32..36;
    /// CRC-32C of the 36 bytes before it.
    pub const HEADER_CRC: Range<usize> = 36..40;
}

/// "DPL1".
pub const MAGIC: [u8; 4] = *b"DPL1";
/// The version this build emits and accepts.
pub const VERSION: u8 = 1;
/// Length of the header.
pub const HEADER_BYTES: usize = 40;
/// The largest payload that the 16-bit length can say.
pub const PAYLOAD_BYTES_MAX: usize = u16::MAX as usize;

/// What a frame means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// "Send this back": an echo request.
    EchoRequest = 1,
    /// The payload that came with an echo request.
    EchoReply = 2,
    /// A client asks the leader to replicate a command.
    QuorumRequest = 3,
    /// The leader's answer, once a quorum has the command.
    QuorumReply = 4,
    /// A leader's newest entry, for a follower that has all before it.
    Append = 5,
    /// "I have everything before this slot."
    Ack = 6,
    /// Entries with what a follower needs to find its place: heartbeat, repair, batch.
    Entries = 7,
    /// A follower's full answer: what it has, what it lacks.
    Report = 8,
    /// A candidate asks for a vote.
    VoteRequest = 9,
    /// A voter's answer.
    VoteReply = 10,
    /// A piece of a snapshot, for a follower whose next entry the leader no longer has.
    SnapshotChunk = 11,
    /// How much of a snapshot a follower has.
    SnapshotReport = 12,
}

impl Kind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Kind; 12] = [
        Kind::EchoRequest,
        Kind::EchoReply,
        Kind::QuorumRequest,
        Kind::QuorumReply,
        Kind::Append,
        Kind::Ack,
        Kind::Entries,
        Kind::Report,
        Kind::VoteRequest,
        Kind::VoteReply,
        Kind::SnapshotChunk,
        Kind::SnapshotReport,
    ];

    const fn from_u8(value: u8) -> Option<Kind> {
        match value {
            1 => Some(Kind::EchoRequest),
            2 => Some(Kind::EchoReply),
            3 => Some(Kind::QuorumRequest),
            4 => Some(Kind::QuorumReply),
            5 => Some(Kind::Append),
            6 => Some(Kind::Ack),
            7 => Some(Kind::Entries),
            8 => Some(Kind::Report),
            9 => Some(Kind::VoteRequest),
            10 => Some(Kind::VoteReply),
            11 => Some(Kind::SnapshotChunk),
            12 => Some(Kind::SnapshotReport),
            _ => None,
        }
    }
}

/// The header's fields, without those that `emit` derives (magic, version, length, checksums).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the frame means.
    pub kind: Kind,
    /// Leader term; 0 where there is no leader.
    pub term: u64,
    /// Log slot or sequence number.
    pub slot: u64,
    /// Intended send time, nanoseconds of the sender's clock. In the frames that replicas exchange ([`Kind::Append`] to
    /// [`Kind::SnapshotReport`]) it is the kind's own word, and no time: nobody measures them from outside.
    ///
    /// | kind            | term                      | slot                   | sent ns             |
    /// |-----------------|---------------------------|------------------------|---------------------|
    /// | append          | the leader's              | the entry's            | commit end          |
    /// | ack             | of the log that it equals | end of what is safe    | the follower's echo |
    /// | entries         | the leader's              | the first entry's      | commit end          |
    /// | report          | the follower's            | end of what is durable | 0                   |
    /// | vote request    | the candidate's           | its log's end          | its last entry's term |
    /// | vote reply      | the voter's               | 0                      | 0                   |
    /// | snapshot chunk  | the leader's              | the snapshot's end     | its last entry's term |
    /// | snapshot report | the follower's            | the snapshot's end     | 0                   |
    pub sent_ns: u64,
}

/// A frame that passed every check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The header's fields.
    pub header: Header,
    /// The bytes after the header.
    pub payload: &'a [u8],
    /// CRC-32C of `payload`, verified; hand it to [`emit_with_crc`] when the payload goes on unchanged.
    pub payload_crc: u32,
}

/// Checksums of headers that come one after another and differ in little: the next slot, another payload. A CRC is linear, so
/// that the checksum of a header is that of another one, changed by a function of where the two differ; what is the same
/// costs nothing. It is the exact checksum, whatever came before: for those who have no instruction for it.
///
/// All zeros is one that has seen nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeaderChain {
    /// The last header but its checksums, as it lies in memory.
    words: [u64; 4],
    payload_crc: u32,
    /// Its checksum, less that of a header of zeros.
    difference: u32,
}

/// CRC-32C of a header that is zeros.
const CRC_OF_ZEROS: u32 = crc32c_const(&[0; field::HEADER_CRC.start]);

impl HeaderChain {
    /// The checksum of the header whose first 32 bytes are `words`, as they lie in memory, and whose payload's is `payload_crc`.
    #[inline(always)]
    pub fn crc(&mut self, words: [u64; 4], payload_crc: u32) -> u32 {
        let changes = [
            u64::from_le(words[0] ^ self.words[0]) | u64::from_le(words[1] ^ self.words[1]),
            u64::from_le(words[2] ^ self.words[2]),
            u64::from_le(words[3] ^ self.words[3]),
        ];
        // The last byte of the slot, and the lower half of what is behind it, stand in the upper parts of these numbers.
        let is_next = changes[0] == 0 && changes[1] << 8 == 0 && changes[2] << 32 == 0;
        let difference = if is_next {
            let [a, b, c, d] = ((changes[2] >> 32) as u32).to_le_bytes();
            let [e, f, g, h] = (payload_crc ^ self.payload_crc).to_be_bytes();
            self.difference
                ^ crc32c_difference_at::<12>((changes[1] >> 56) as u8)
                ^ crc32c_difference_at::<7>(a)
                ^ crc32c_difference_at::<6>(b)
                ^ crc32c_difference_at::<5>(c)
                ^ crc32c_difference_at::<4>(d)
                ^ crc32c_difference_at::<3>(e)
                ^ crc32c_difference_at::<2>(f)
                ^ crc32c_difference_at::<1>(g)
                ^ crc32c_difference_at::<0>(h)
        } else {
            let mut state = 0;
            for word in words {
                state = crc32c_word(state, u64::from_le(word));
            }
            crc32c_half(state, payload_crc.swap_bytes())
        };
        *self = HeaderChain {
            words,
            payload_crc,
            difference,
        };
        difference ^ CRC_OF_ZEROS
    }
}

/// Parses one frame that fills `bytes` exactly.
///
/// # Errors
/// The first reason found, in the order magic, version, kind, length, header checksum, payload checksum.
pub fn parse(bytes: &[u8]) -> Result<Frame<'_>, Reject> {
    let Some((head, payload)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Err(Reject::Short);
    };
    if head[field::MAGIC] != MAGIC {
        return Err(Reject::Magic);
    }
    if head[field::VERSION.start] != VERSION {
        return Err(Reject::Version);
    }
    let kind = Kind::from_u8(head[field::KIND.start]).ok_or(Reject::Kind)?;
    let payload_len = u16::from_be_bytes(array(head, field::PAYLOAD_LEN)) as usize;
    if payload.len() < payload_len {
        return Err(Reject::Short);
    }
    if payload.len() > payload_len {
        return Err(Reject::Long);
    }
    if crc32c(&head[..field::HEADER_CRC.start]) != u32::from_be_bytes(array(head, field::HEADER_CRC)) {
        return Err(Reject::HeaderChecksum);
    }
    let payload_crc = u32::from_be_bytes(array(head, field::PAYLOAD_CRC));
    if crc32c(payload) != payload_crc {
        return Err(Reject::PayloadChecksum);
    }
    let header = Header {
        kind,
        term: u64::from_be_bytes(array(head, field::TERM)),
        slot: u64::from_be_bytes(array(head, field::SLOT)),
        sent_ns: u64::from_be_bytes(array(head, field::SENT_NS)),
    };
    Ok(Frame {
        header,
        payload,
        payload_crc,
    })
}

/// Writes the header in front of a payload that already stands at `frame[HEADER_BYTES..]`.
///
/// # Panics
/// If `frame` is shorter than the header, or its payload longer than [`PAYLOAD_BYTES_MAX`].
pub fn emit(header: &Header, frame: &mut [u8]) {
    let payload_crc = crc32c(&frame[HEADER_BYTES..]);
    emit_with_crc(header, payload_crc, frame);
}

/// [`emit`] for a payload whose checksum is already known.
///
/// # Panics
/// As [`emit`].
pub fn emit_with_crc(header: &Header, payload_crc: u32, frame: &mut [u8]) {
    let payload_len = frame.len() - HEADER_BYTES;
    let payload_len = u16::try_from(payload_len).expect("the payload fits the 16-bit length field");
    frame[field::MAGIC].copy_from_slice(&MAGIC);
    frame[field::VERSION.start] = VERSION;
    frame[field::KIND.start] = header.kind as u8;
    frame[field::PAYLOAD_LEN].copy_from_slice(&payload_len.to_be_bytes());
    frame[field::TERM].copy_from_slice(&header.term.to_be_bytes());
    frame[field::SLOT].copy_from_slice(&header.slot.to_be_bytes());
    frame[field::SENT_NS].copy_from_slice(&header.sent_ns.to_be_bytes());
    frame[field::PAYLOAD_CRC].copy_from_slice(&payload_crc.to_be_bytes());
    let header_crc = crc32c(&frame[..field::HEADER_CRC.start]);
    frame[field::HEADER_CRC].copy_from_slice(&header_crc.to_be_bytes());
}

/// What changes in the header's checksum when its kind alone changes: new checksum = old checksum XOR this. A CRC is
/// linear, so the difference depends on the difference of the bytes and not on what stands around it; a program in the
/// kernel can turn a request into a reply without reading the other 35 bytes.
pub const fn kind_crc_delta(from: Kind, to: Kind) -> u32 {
    let mut old = [0; field::HEADER_CRC.start];
    let mut new = old;
    old[field::KIND.start] = from as u8;
    new[field::KIND.start] = to as u8;
    crc32c_const(&old) ^ crc32c_const(&new)
}

/// The bytes of `head` at `at`, which is `N` long.
pub(crate) fn array<const N: usize, const LEN: usize>(head: &[u8; LEN], at: Range<usize>) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&head[at]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kinds() -> impl Strategy<Value = Kind> {
        prop::sample::select(&Kind::ALL[..])
    }

    fn headers() -> impl Strategy<Value = Header> {
        (kinds(), any::<[u64; 3]>()).prop_map(|(kind, [term, slot, sent_ns])| Header {
            kind,
            term,
            slot,
            sent_ns,
        })
    }

    proptest! {
        /// Steps as small as those from one entry to the next, and any others.
        #[test]
        fn a_chain_of_headers_says_what_each_alone_says(
            first in any::<[u64; 4]>(),
            steps in prop::collection::vec((0usize..4, prop_oneof![0u64..300, any::<u64>()], any::<u32>()), 1..20),
        ) {
            let mut chain = HeaderChain::default();
            let mut numbers = first;
            for (index, step, payload_crc) in steps {
                numbers[index] = numbers[index].wrapping_add(step);
                let mut bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
                bytes.extend_from_slice(&payload_crc.to_be_bytes());
                prop_assert_eq!(chain.crc(numbers.map(u64::to_be), payload_crc), crc32c(&bytes));
            }
        }
    }

    fn emitted(header: &Header, payload: &[u8]) -> Vec<u8> {
        let mut frame = [&[0xaa; HEADER_BYTES], payload].concat();
        emit(header, &mut frame);
        frame
    }

    proptest! {
        #[test]
        fn parse_undoes_emit(header in headers(), payload in prop::collection::vec(any::<u8>(), 0..2000)) {
            let bytes = emitted(&header, &payload);
            let frame = parse(&bytes);
            prop_assert_eq!(frame, Ok(Frame { header, payload: &payload, payload_crc: crc32c(&payload) }));
        }

        #[test]
        fn any_bytes_are_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse(&bytes);
        }

        /// Bytes that get past the first checks.
        #[test]
        fn any_bytes_behind_the_magic_are_an_answer(mut bytes in prop::collection::vec(any::<u8>(), 40..100)) {
            bytes[field::MAGIC].copy_from_slice(&MAGIC);
            bytes[field::VERSION.start] = VERSION;
            bytes[field::KIND.start] = 1;
            let payload_len = (bytes.len() - HEADER_BYTES) as u16;
            bytes[field::PAYLOAD_LEN].copy_from_slice(&payload_len.to_be_bytes());
            let _ = parse(&bytes);
        }

        #[test]
        fn every_flipped_bit_is_seen(header in headers(), payload in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut bytes = emitted(&header, &payload);
            for bit in 0..bytes.len() * 8 {
                bytes[bit / 8] ^= 1 << (bit % 8);
                prop_assert!(parse(&bytes).is_err(), "bit {} flipped, and the frame still parses", bit);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }

        #[test]
        fn every_cut_is_seen(header in headers(), payload in prop::collection::vec(any::<u8>(), 0..40)) {
            let bytes = emitted(&header, &payload);
            for len in 0..bytes.len() {
                prop_assert_eq!(parse(&bytes[..len]), Err(Reject::Short));
            }
        }

        #[test]
        fn a_kind_can_be_changed_by_its_difference(header in headers(), to in kinds()) {
            let mut bytes = emitted(&header, b"payload");
            let crc = u32::from_be_bytes(bytes[field::HEADER_CRC].try_into().expect("four bytes"));
            bytes[field::KIND.start] = to as u8;
            let crc = crc ^ kind_crc_delta(header.kind, to);
            bytes[field::HEADER_CRC].copy_from_slice(&crc.to_be_bytes());
            prop_assert_eq!(bytes, emitted(&Header { kind: to, ..header }, b"payload"));
        }

        #[test]
        fn a_known_checksum_gives_the_same_frame(header in headers(), payload in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = [&[0xaa; HEADER_BYTES], &payload[..]].concat();
            emit_with_crc(&header, crc32c(&payload), &mut bytes);
            prop_assert_eq!(bytes, emitted(&header, &payload));
        }
    }

    #[test]
    fn all_kinds_are_all_that_parse() {
        let known: Vec<Kind> = (0..=u8::MAX).filter_map(Kind::from_u8).collect();
        assert_eq!(known, Kind::ALL);
        for kind in Kind::ALL {
            assert_eq!(Kind::from_u8(kind as u8), Some(kind));
        }
    }

    #[test]
    fn the_largest_payload_comes_through() {
        let header = Header {
            kind: Kind::EchoRequest,
            term: 0,
            slot: 1,
            sent_ns: 2,
        };
        let payload = vec![0x5a; PAYLOAD_BYTES_MAX];
        let bytes = emitted(&header, &payload);
        assert_eq!(parse(&bytes).map(|frame| frame.payload), Ok(&payload[..]));
    }

    #[test]
    #[should_panic(expected = "16-bit length")]
    fn emit_refuses_a_payload_that_its_length_cannot_say() {
        let header = Header {
            kind: Kind::EchoRequest,
            term: 0,
            slot: 0,
            sent_ns: 0,
        };
        emitted(&header, &vec![0; PAYLOAD_BYTES_MAX + 1]);
    }
}
