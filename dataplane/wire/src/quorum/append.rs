//! The fast path: one entry, for followers that have all before it.
//!
//! ```text
//!  0      4   5   6     8            16           24           32        36        40
//!  +------+---+---+-----+------------+------------+------------+---------+---------+-------
//!  |magic |ver| 5 |p.len| term       | slot       | commit end |payld crc| head crc| entry …
//!  +------+---+---+-----+------------+------------+------------+---------+---------+-------
//! ```
//!
//! The payload is the client's request as it came, so that a request becomes an entry by rewriting the header alone, and
//! the client's checksum goes with it to every log. That is also why the payload has no [`super::sender::Sender`].

use super::{entry::ENTRY_BYTES_MAX, message};
use crate::{
    Reject,
    frame::{self, Frame, HEADER_BYTES, Header, Kind},
};

/// One entry, from the leader of `term`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Append<'a> {
    /// The leader's term, and the entry's.
    pub term: u64,
    /// The entry's slot.
    pub slot: u64,
    /// Everything before this slot is committed.
    pub commit_end: u64,
    /// The entry, at most [`ENTRY_BYTES_MAX`] bytes; [`super::entry::parse`] says what it is.
    pub entry: &'a [u8],
    /// CRC-32C of `entry`.
    pub entry_crc: u32,
}

/// Reads an append.
///
/// # Errors
/// [`Reject::Kind`] for another kind of frame; [`Reject::Length`] for an entry above its bound.
pub fn parse<'a>(frame: &Frame<'a>) -> Result<Append<'a>, Reject> {
    let entry = message::payload_of(frame, Kind::Append)?;
    message::require(entry.len() <= ENTRY_BYTES_MAX)?;
    Ok(Append {
        term: frame.header.term,
        slot: frame.header.slot,
        commit_end: frame.header.sent_ns,
        entry,
        entry_crc: frame.payload_crc,
    })
}

impl Append<'_> {
    /// The frame's header.
    pub const fn header(&self) -> Header {
        Header {
            kind: Kind::Append,
            term: self.term,
            slot: self.slot,
            sent_ns: self.commit_end,
        }
    }

    /// Length of the payload.
    pub const fn payload_bytes(&self) -> usize {
        self.entry.len()
    }

    /// Writes the payload, which is [`Append::payload_bytes`] long.
    ///
    /// # Panics
    /// If `payload` has another length, or the entry is above its bound.
    pub fn emit_payload(&self, payload: &mut [u8]) {
        assert!(
            self.entry.len() <= ENTRY_BYTES_MAX,
            "an entry of {} bytes; at most {ENTRY_BYTES_MAX} are allowed",
            self.entry.len()
        );
        payload.copy_from_slice(self.entry);
    }

    /// Writes the frame, with the entry's checksum as it is.
    ///
    /// # Panics
    /// If `frame` is not as long as header and payload, or the entry is above its bound.
    pub fn emit(&self, frame: &mut [u8]) {
        self.emit_payload(&mut frame[HEADER_BYTES..]);
        frame::emit_with_crc(&self.header(), self.entry_crc, frame);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::crc32c;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parse_undoes_emit(words: [u64; 3], entry in prop::collection::vec(any::<u8>(), 0..400)) {
            let [term, slot, commit_end] = words;
            let append = Append { term, slot, commit_end, entry: &entry, entry_crc: crc32c(&entry) };
            let mut bytes = vec![0xaa; HEADER_BYTES + append.payload_bytes()];
            append.emit(&mut bytes);
            let frame = frame::parse(&bytes).expect("emit makes a frame");
            prop_assert_eq!(frame.header, append.header());
            prop_assert_eq!(parse(&frame), Ok(append));
        }

        /// What a leader does, in user space or in the kernel.
        #[test]
        fn a_request_becomes_an_append_by_its_header_alone(words: [u64; 3], entry in prop::collection::vec(any::<u8>(), 0..400)) {
            let [term, slot, commit_end] = words;
            let mut bytes = [&[0; HEADER_BYTES], &entry[..]].concat();
            frame::emit(&Header { kind: Kind::QuorumRequest, term: 0, slot: 7, sent_ns: 9 }, &mut bytes);
            let crc = frame::parse(&bytes).expect("emit makes a frame").payload_crc;
            let header = Header { kind: Kind::Append, term, slot, sent_ns: commit_end };
            frame::emit_with_crc(&header, crc, &mut bytes);
            let append = Append { term, slot, commit_end, entry: &entry, entry_crc: crc };
            prop_assert_eq!(parse(&frame::parse(&bytes).expect("still a frame")), Ok(append));
        }
    }

    #[test]
    fn an_entry_above_the_bound_is_refused() {
        let header = Header {
            kind: Kind::Append,
            term: 1,
            slot: 0,
            sent_ns: 0,
        };
        for (len, expect) in [(ENTRY_BYTES_MAX, None), (ENTRY_BYTES_MAX + 1, Some(Reject::Length))] {
            let payload = &vec![1; len];
            let payload_crc = 0;
            let frame = Frame {
                header,
                payload,
                payload_crc,
            };
            assert_eq!(parse(&frame).err(), expect);
        }
    }
}
