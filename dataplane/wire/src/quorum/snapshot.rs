//! A snapshot in pieces, for a follower whose next entry the leader's log no longer has, and the follower's answer.
//!
//! ```text
//!  a chunk:
//!  0               12     16        24            32       40             44     48
//!  +---------+------+------+---------+-------------+--------+--------------+------+-------
//!  | cluster | node | zero | members | total bytes | offset | snapshot crc | zero | bytes …
//!  +---------+------+------+---------+-------------+--------+--------------+------+-------
//!
//!  a report:
//!  0               12     16               24
//!  +---------+------+------+----------------+
//!  | cluster | node | zero | received bytes |
//!  +---------+------+------+----------------+
//! ```
//!
//! A chunk's header has the leader's term, the snapshot's end and the term of the last entry in it; a report's has the
//! follower's term and the snapshot's end. Every chunk says all about its snapshot, so that any of them may be the first.

use core::ops::Range;

use super::{
    members::{self, Members},
    message,
    sender::{self, Sender},
};
use crate::{
    Reject,
    frame::{Frame, Header, Kind, PAYLOAD_BYTES_MAX, array},
};

/// Where each field of a chunk stands.
pub mod chunk_field {
    use super::{Range, sender};
    /// [`super::Sender`].
    pub const SENDER: Range<usize> = 0..sender::BYTES;
    /// Zero.
    pub const RESERVED: Range<usize> = 12..16;
    /// [`super::Members`].
    pub const MEMBERS: Range<usize> = 16..24;
    /// Length of the whole snapshot.
    pub const TOTAL_BYTES: Range<usize> = 24..32;
    /// Where this piece stands in it.
    pub const OFFSET_BYTES: Range<usize> = 32..40;
    /// CRC-32C of the whole snapshot.
    pub const SNAPSHOT_CRC: Range<usize> = 40..44;
    /// Zero.
    pub const RESERVED_BEHIND: Range<usize> = 44..48;
}

/// Where each field of a report stands.
pub mod report_field {
    use super::{Range, sender};
    /// [`super::Sender`].
    pub const SENDER: Range<usize> = 0..sender::BYTES;
    /// Zero.
    pub const RESERVED: Range<usize> = 12..16;
    /// How much of the snapshot is there, from its start.
    pub const RECEIVED_BYTES: Range<usize> = 16..24;
}

/// Length of a chunk's fixed part.
pub const CHUNK_HEADER_BYTES: usize = 48;
/// The longest piece that one frame can have.
pub const CHUNK_BYTES_MAX: usize = PAYLOAD_BYTES_MAX - CHUNK_HEADER_BYTES;
/// Length of a report's payload.
pub const REPORT_BYTES: usize = 24;

const _: () = assert!(chunk_field::MEMBERS.end - chunk_field::MEMBERS.start == members::BYTES);

/// A piece of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotChunk<'a> {
    /// The leader's term.
    pub term: u64,
    /// The snapshot stands for all entries before this slot.
    pub end: u64,
    /// Term of the last of them; 0 where `end` is 0.
    pub last_term: u64,
    /// The leader.
    pub sender: Sender,
    /// The members at `end`; sound.
    pub members: Members,
    /// Length of the whole snapshot.
    pub total_bytes: u64,
    /// Where `bytes` stands in it.
    pub offset_bytes: u64,
    /// CRC-32C of the whole snapshot.
    pub snapshot_crc: u32,
    /// The piece; at most [`CHUNK_BYTES_MAX`], and not beyond the snapshot's end.
    pub bytes: &'a [u8],
}

/// How much of a snapshot a follower has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotReport {
    /// The follower's term.
    pub term: u64,
    /// Which snapshot: its end.
    pub end: u64,
    /// The follower.
    pub sender: Sender,
    /// How much of it is there, from its start: where the leader goes on.
    pub received_bytes: u64,
}

/// Reads a piece of a snapshot.
///
/// # Errors
/// [`Reject::Kind`] for another kind of frame; [`Reject::Short`] below the fixed part; [`Reject::Length`] for a piece
/// beyond the snapshot's end, members that are not sound, a last term of no entries, and a reserved byte that is not zero.
pub fn parse_chunk<'a>(frame: &Frame<'a>) -> Result<SnapshotChunk<'a>, Reject> {
    use chunk_field as field;
    let payload = message::payload_of(frame, Kind::SnapshotChunk)?;
    let (head, bytes) = payload.split_first_chunk::<CHUNK_HEADER_BYTES>().ok_or(Reject::Short)?;
    message::require(array(head, field::RESERVED) == [0; 4] && array(head, field::RESERVED_BEHIND) == [0; 4])?;
    let chunk = SnapshotChunk {
        term: frame.header.term,
        end: frame.header.slot,
        last_term: frame.header.sent_ns,
        sender: Sender::parse(&array(head, field::SENDER)),
        members: Members::parse(&array(head, field::MEMBERS))?,
        total_bytes: u64::from_be_bytes(array(head, field::TOTAL_BYTES)),
        offset_bytes: u64::from_be_bytes(array(head, field::OFFSET_BYTES)),
        snapshot_crc: u32::from_be_bytes(array(head, field::SNAPSHOT_CRC)),
        bytes,
    };
    message::require(chunk.is_sound())?;
    Ok(chunk)
}

/// Reads a follower's answer.
///
/// # Errors
/// [`Reject::Kind`] for another kind of frame; [`Reject::Short`] and [`Reject::Long`] for a payload of another length;
/// [`Reject::Length`] for a reserved byte or word that is not zero.
pub fn parse_report(frame: &Frame<'_>) -> Result<SnapshotReport, Reject> {
    use report_field as field;
    let head = message::whole::<REPORT_BYTES>(message::payload_of(frame, Kind::SnapshotReport)?)?;
    message::require(array(head, field::RESERVED) == [0; 4] && frame.header.sent_ns == 0)?;
    Ok(SnapshotReport {
        term: frame.header.term,
        end: frame.header.slot,
        sender: Sender::parse(&array(head, field::SENDER)),
        received_bytes: u64::from_be_bytes(array(head, field::RECEIVED_BYTES)),
    })
}

impl SnapshotChunk<'_> {
    fn is_sound(&self) -> bool {
        let fits = self
            .offset_bytes
            .checked_add(self.bytes.len() as u64)
            .is_some_and(|end| end <= self.total_bytes);
        fits && self.members.is_sound() && (self.end > 0 || self.last_term == 0)
    }

    /// The frame's header.
    pub const fn header(&self) -> Header {
        Header {
            kind: Kind::SnapshotChunk,
            term: self.term,
            slot: self.end,
            sent_ns: self.last_term,
        }
    }

    /// Length of the payload.
    pub const fn payload_bytes(&self) -> usize {
        CHUNK_HEADER_BYTES + self.bytes.len()
    }

    /// Writes the payload, which is [`SnapshotChunk::payload_bytes`] long.
    ///
    /// # Panics
    /// If `payload` has another length, if the piece is beyond the snapshot's end, if the members are not sound, or if
    /// there is a last term of no entries.
    pub fn emit_payload(&self, payload: &mut [u8]) {
        use chunk_field as field;
        assert!(
            self.is_sound(),
            "{} bytes at {} of {}, up to slot {} with last term {}, of {:?}",
            self.bytes.len(),
            self.offset_bytes,
            self.total_bytes,
            self.end,
            self.last_term,
            self.members
        );
        let (head, bytes) = payload.split_at_mut(CHUNK_HEADER_BYTES);
        head[field::SENDER].copy_from_slice(&self.sender.encode());
        head[field::RESERVED].fill(0);
        head[field::MEMBERS].copy_from_slice(&self.members.encode());
        head[field::TOTAL_BYTES].copy_from_slice(&self.total_bytes.to_be_bytes());
        head[field::OFFSET_BYTES].copy_from_slice(&self.offset_bytes.to_be_bytes());
        head[field::SNAPSHOT_CRC].copy_from_slice(&self.snapshot_crc.to_be_bytes());
        head[field::RESERVED_BEHIND].fill(0);
        bytes.copy_from_slice(self.bytes);
    }

    /// Writes the frame.
    ///
    /// # Panics
    /// If `frame` is not as long as header and payload; as [`SnapshotChunk::emit_payload`].
    pub fn emit(&self, frame: &mut [u8]) {
        message::emit(&self.header(), frame, |payload| self.emit_payload(payload));
    }
}

impl SnapshotReport {
    /// The frame's header.
    pub const fn header(&self) -> Header {
        Header {
            kind: Kind::SnapshotReport,
            term: self.term,
            slot: self.end,
            sent_ns: 0,
        }
    }

    /// Length of the payload.
    pub const fn payload_bytes(&self) -> usize {
        REPORT_BYTES
    }

    /// Writes the payload, which is [`REPORT_BYTES`] long.
    ///
    /// # Panics
    /// If `payload` has another length.
    pub fn emit_payload(&self, payload: &mut [u8]) {
        use report_field as field;
        assert_eq!(payload.len(), REPORT_BYTES, "the payload's length is a report's");
        payload[field::SENDER].copy_from_slice(&self.sender.encode());
        payload[field::RESERVED].fill(0);
        payload[field::RECEIVED_BYTES].copy_from_slice(&self.received_bytes.to_be_bytes());
    }

    /// Writes the frame.
    ///
    /// # Panics
    /// If `frame` is not as long as header and payload.
    pub fn emit(&self, frame: &mut [u8]) {
        message::emit(&self.header(), frame, |payload| self.emit_payload(payload));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        frame,
        quorum::{members::tests::sound_members, message::tests::hold_fixed, sender::tests::senders},
    };
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parse_undoes_emit_of_chunks(
            words: [u64; 5], sender in senders(), members in sound_members(), snapshot_crc: u32,
            piece in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let [term, end, last_term, a, b] = words;
            let last_term = if end == 0 { 0 } else { last_term };
            let offset_bytes = a.min(b).min(u64::MAX - 100);
            let total_bytes = a.max(b).max(offset_bytes + piece.len() as u64);
            let chunk = SnapshotChunk {
                term, end, last_term, sender, members, total_bytes, offset_bytes, snapshot_crc, bytes: &piece,
            };
            let mut bytes = vec![0xaa; frame::HEADER_BYTES + chunk.payload_bytes()];
            chunk.emit(&mut bytes);
            let frame = frame::parse(&bytes).expect("emit makes a frame");
            prop_assert_eq!(frame.header, chunk.header());
            prop_assert_eq!(parse_chunk(&frame), Ok(chunk));
            for bit in 0..CHUNK_HEADER_BYTES * 8 {
                let mut payload = frame.payload.to_vec();
                payload[bit / 8] ^= 1 << (bit % 8);
                if let Ok(other) = parse_chunk(&Frame { payload: &payload, ..frame }) {
                    let mut again = vec![0xaa; payload.len()];
                    other.emit_payload(&mut again);
                    prop_assert_eq!(again, payload);
                }
            }
            for cut in 0..CHUNK_HEADER_BYTES {
                prop_assert_eq!(parse_chunk(&Frame { payload: &frame.payload[..cut], ..frame }), Err(Reject::Short));
            }
        }

        #[test]
        fn parse_undoes_emit_of_reports(term: u64, end: u64, sender in senders(), received_bytes: u64) {
            let report = SnapshotReport { term, end, sender, received_bytes };
            let mut bytes = [0xaa; frame::HEADER_BYTES + REPORT_BYTES];
            report.emit(&mut bytes);
            hold_fixed(&bytes, parse_report, SnapshotReport::emit);
            prop_assert_eq!(parse_report(&frame::parse(&bytes).expect("a frame")), Ok(report));
        }
    }
}
