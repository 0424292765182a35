//! Elections: a candidate's request and a voter's answer.
//!
//! ```text
//!  0               12    13        14     16
//!  +---------+------+-----+---------+------+
//!  | cluster | node | pre | granted | zero |
//!  +---------+------+-----+---------+------+
//! ```
//!
//! A pre-vote asks "would you vote for me?" before the candidate raises its term, so that a node that comes back from a
//! partition does not depose a leader (Raft dissertation, §9.6). A request has no `granted`; the byte is zero.

use core::ops::Range;

use super::{
    message,
    sender::{self, Sender},
};
use crate::{
    Reject,
    frame::{Frame, Header, Kind, array},
};

/// Where each field stands, in both.
pub mod field {
    use super::{Range, sender};
    /// [`super::Sender`].
    pub const SENDER: Range<usize> = 0..sender::BYTES;
    /// 1 for a pre-vote.
    pub const PRE: Range<usize> = 12..13;
    /// 1 for a granted vote; zero in a request.
    pub const GRANTED: Range<usize> = 13..14;
    /// Zero.
    pub const RESERVED: Range<usize> = 14..16;
}

/// Length of the payload, of both.
pub const PAYLOAD_BYTES: usize = 16;

/// "Vote for me."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VoteRequest {
    /// The candidate's term; for a pre-vote, the term that it would stand for.
    pub term: u64,
    /// End of the candidate's log.
    pub log_end: u64,
    /// Term of its last entry; 0 where `log_end` is 0.
    pub last_term: u64,
    /// The candidate.
    pub sender: Sender,
    /// Whether this only asks.
    pub pre: bool,
}

/// A voter's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VoteReply {
    /// The voter's term; for a granted pre-vote, the term that was asked for.
    pub term: u64,
    /// The voter.
    pub sender: Sender,
    /// Whether this answers a pre-vote.
    pub pre: bool,
    /// Whether the candidate has the vote, or would have it.
    pub granted: bool,
}

/// Reads a candidate's request.
///
/// # Errors
/// [`Reject::Kind`] for another kind of frame; [`Reject::Short`] and [`Reject::Long`] for a payload of another length;
/// [`Reject::Length`] for a `pre` above 1, a last term of a log without entries, and a reserved byte that is not zero.
pub fn parse_request(frame: &Frame<'_>) -> Result<VoteRequest, Reject> {
    let (sender, pre, granted) = parse_payload(message::payload_of(frame, Kind::VoteRequest)?)?;
    let request = VoteRequest {
        term: frame.header.term,
        log_end: frame.header.slot,
        last_term: frame.header.sent_ns,
        sender,
        pre,
    };
    message::require(!granted && request.is_sound())?;
    Ok(request)
}

/// Reads a voter's answer.
///
/// # Errors
/// [`Reject::Kind`] for another kind of frame; [`Reject::Short`] and [`Reject::Long`] for a payload of another length;
/// [`Reject::Length`] for a `pre` or `granted` above 1, and a reserved byte or word that is not zero.
pub fn parse_reply(frame: &Frame<'_>) -> Result<VoteReply, Reject> {
    let (sender, pre, granted) = parse_payload(message::payload_of(frame, Kind::VoteReply)?)?;
    message::require(frame.header.slot == 0 && frame.header.sent_ns == 0)?;
    Ok(VoteReply {
        term: frame.header.term,
        sender,
        pre,
        granted,
    })
}

fn parse_payload(payload: &[u8]) -> Result<(Sender, bool, bool), Reject> {
    let head = message::whole::<PAYLOAD_BYTES>(payload)?;
    message::require(array(head, field::RESERVED) == [0; 2])?;
    Ok((
        Sender::parse(&array(head, field::SENDER)),
        message::flag(head[field::PRE.start])?,
        message::flag(head[field::GRANTED.start])?,
    ))
}

fn emit_payload(sender: Sender, pre: bool, granted: bool, payload: &mut [u8]) {
    assert_eq!(payload.len(), PAYLOAD_BYTES, "the payload's length is a vote's");
    payload[field::SENDER].copy_from_slice(&sender.encode());
    payload[field::PRE.start] = pre.into();
    payload[field::GRANTED.start] = granted.into();
    payload[field::RESERVED].fill(0);
}

impl VoteRequest {
    fn is_sound(&self) -> bool {
        self.log_end > 0 || self.last_term == 0
    }

    /// The frame's header.
    pub const fn header(&self) -> Header {
        Header {
            kind: Kind::VoteRequest,
            term: self.term,
            slot: self.log_end,
            sent_ns: self.last_term,
        }
    }

    /// Length of the payload.
    pub const fn payload_bytes(&self) -> usize {
        PAYLOAD_BYTES
    }

    /// Writes the payload, which is [`PAYLOAD_BYTES`] long.
    ///
    /// # Panics
    /// If `payload` has another length, or if there is a last term and no entry.
    pub fn emit_payload(&self, payload: &mut [u8]) {
        assert!(self.is_sound(), "a last term of {} in an empty log", self.last_term);
        emit_payload(self.sender, self.pre, false, payload);
    }

    /// Writes the frame.
    ///
    /// # Panics
    /// If `frame` is not as long as header and payload; as [`VoteRequest::emit_payload`].
    pub fn emit(&self, frame: &mut [u8]) {
        message::emit(&self.header(), frame, |payload| self.emit_payload(payload));
    }
}

impl VoteReply {
    /// The frame's header.
    pub const fn header(&self) -> Header {
        Header {
            kind: Kind::VoteReply,
            term: self.term,
            slot: 0,
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
    /// If `payload` has another length.
    pub fn emit_payload(&self, payload: &mut [u8]) {
        emit_payload(self.sender, self.pre, self.granted, payload);
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
    use crate::{frame, quorum::message::tests::hold_fixed, quorum::sender::tests::senders};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parse_undoes_emit_of_requests(
            term: u64, log_end in prop_oneof![0u64..3, any::<u64>()], last_term: u64, sender in senders(), pre: bool,
        ) {
            let last_term = if log_end == 0 { 0 } else { last_term };
            let request = VoteRequest { term, log_end, last_term, sender, pre };
            let mut bytes = [0xaa; frame::HEADER_BYTES + PAYLOAD_BYTES];
            request.emit(&mut bytes);
            hold_fixed(&bytes, parse_request, VoteRequest::emit);
            prop_assert_eq!(parse_request(&frame::parse(&bytes).expect("a frame")), Ok(request));
        }

        #[test]
        fn parse_undoes_emit_of_replies(term: u64, sender in senders(), pre: bool, granted: bool) {
            let reply = VoteReply { term, sender, pre, granted };
            let mut bytes = [0xaa; frame::HEADER_BYTES + PAYLOAD_BYTES];
            reply.emit(&mut bytes);
            hold_fixed(&bytes, parse_reply, VoteReply::emit);
            prop_assert_eq!(parse_reply(&frame::parse(&bytes).expect("a frame")), Ok(reply));
        }
    }
}
