//! A follower's full answer to entries: what it has, and what it lacks.
//!
//! ```text
//!  0               12       13     16      24          32            40
//!  +---------+------+--------+------+-------+-----------+-------------+
//!  | cluster | node | status | zero | round | next slot | missing end |
//!  +---------+------+--------+------+-------+-----------+-------------+
//! ```
//!
//! The header has the follower's term and, as slot, the end of what is durable. A follower may hold entries behind a gap:
//!
//! ```text
//!  slots   0 ········ next slot      missing end
//!          | in order | not here yet | held |
//! ```

use core::ops::Range;

use super::{
    message,
    sender::{self, Sender},
};
use crate::{
    Reject,
    frame::{Frame, Header, Kind, array},
};

/// Where each field stands.
pub mod field {
    use super::{Range, sender};
    /// [`super::Sender`].
    pub const SENDER: Range<usize> = 0..sender::BYTES;
    /// [`super::Status`].
    pub const STATUS: Range<usize> = 12..13;
    /// Zero.
    pub const RESERVED: Range<usize> = 13..16;
    /// The round of the entries that this answers.
    pub const ROUND: Range<usize> = 16..24;
    /// The first slot that the follower does not have in order.
    pub const NEXT_SLOT: Range<usize> = 24..32;
    /// The first slot behind the gap that it already holds.
    pub const MISSING_END: Range<usize> = 32..40;
}

/// Length of the payload.
pub const PAYLOAD_BYTES: usize = 40;

/// Whether a follower's log is the leader's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Status {
    /// It equals the leader's before `next_slot`.
    Matches = 0,
    /// The entry before those that came is not the follower's.
    Mismatch = 1,
    /// The follower cannot go on from its log.
    NeedsSnapshot = 2,
}

impl Status {
    const fn from_u8(value: u8) -> Option<Status> {
        match value {
            0 => Some(Status::Matches),
            1 => Some(Status::Mismatch),
            2 => Some(Status::NeedsSnapshot),
            _ => None,
        }
    }
}

/// What a follower has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The follower's term.
    pub term: u64,
    /// Everything before this slot would survive the follower's crash.
    pub durable_end: u64,
    /// The follower.
    pub sender: Sender,
    /// Whether its log is the leader's.
    pub status: Status,
    /// The round of the entries that this answers.
    pub round: u64,
    /// The first slot that it does not have in order; for a mismatch, where the leader may try next.
    pub next_slot: u64,
    /// The first slot behind the gap that it already holds; `next_slot` where there is no gap. Never less.
    pub missing_end: u64,
}

/// Reads a report.
///
/// # Errors
/// [`Reject::Kind`] for another kind of frame or an unknown status; [`Reject::Short`] and [`Reject::Long`] for a payload
/// of another length; [`Reject::Length`] for a gap that ends before it begins, and for a reserved byte or word that is
/// not zero.
pub fn parse(frame: &Frame<'_>) -> Result<Report, Reject> {
    let head = message::whole::<PAYLOAD_BYTES>(message::payload_of(frame, Kind::Report)?)?;
    let status = Status::from_u8(head[field::STATUS.start]).ok_or(Reject::Kind)?;
    message::require(array(head, field::RESERVED) == [0; 3] && frame.header.sent_ns == 0)?;
    let report = Report {
        term: frame.header.term,
        durable_end: frame.header.slot,
        sender: Sender::parse(&array(head, field::SENDER)),
        status,
        round: u64::from_be_bytes(array(head, field::ROUND)),
        next_slot: u64::from_be_bytes(array(head, field::NEXT_SLOT)),
        missing_end: u64::from_be_bytes(array(head, field::MISSING_END)),
    };
    message::require(report.next_slot <= report.missing_end)?;
    Ok(report)
}

impl Report {
    /// The frame's header.
    pub const fn header(&self) -> Header {
        Header {
            kind: Kind::Report,
            term: self.term,
            slot: self.durable_end,
            sent_ns: 0,
        }
    }

    /// Length of the payload.
    pub const fn payload_bytes(&self) -> usize {
        PAYLOAD_BYTES
    }

    /// Writes the payload, which is [`PAYLOAD_BYTES`] long.
    ///
    /// # Panics
    /// If `payload` has another length, or the gap ends before it begins.
    pub fn emit_payload(&self, payload: &mut [u8]) {
        assert!(
            self.next_slot <= self.missing_end,
            "a gap from slot {} to {}",
            self.next_slot,
            self.missing_end
        );
        assert_eq!(payload.len(), PAYLOAD_BYTES, "the payload's length is a report's");
        payload[field::SENDER].copy_from_slice(&self.sender.encode());
        payload[field::STATUS.start] = self.status as u8;
        payload[field::RESERVED].fill(0);
        payload[field::ROUND].copy_from_slice(&self.round.to_be_bytes());
        payload[field::NEXT_SLOT].copy_from_slice(&self.next_slot.to_be_bytes());
        payload[field::MISSING_END].copy_from_slice(&self.missing_end.to_be_bytes());
    }

    /// Writes the frame.
    ///
    /// # Panics
    /// If `frame` is not as long as header and payload; as [`Report::emit_payload`].
    pub fn emit(&self, frame: &mut [u8]) {
        message::emit(&self.header(), frame, |payload| self.emit_payload(payload));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{frame, quorum::message::tests::hold_fixed, quorum::sender::tests::senders};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parse_undoes_emit(words: [u64; 5], sender in senders(), status in 0u8..3) {
            let [term, durable_end, round, a, b] = words;
            let status = Status::from_u8(status).expect("0 to 2 are statuses");
            let (next_slot, missing_end) = (a.min(b), a.max(b));
            let report = Report { term, durable_end, sender, status, round, next_slot, missing_end };
            let mut bytes = [0xaa; frame::HEADER_BYTES + PAYLOAD_BYTES];
            report.emit(&mut bytes);
            hold_fixed(&bytes, parse, Report::emit);
            let frame = frame::parse(&bytes).expect("emit makes a frame");
            prop_assert_eq!(parse(&frame), Ok(report));
            prop_assert_eq!(report.payload_bytes(), frame.payload.len());
        }
    }
}
