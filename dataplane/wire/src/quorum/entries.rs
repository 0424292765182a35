//! The general path from leader to follower: a heartbeat where there are no entries, else a repair or a batch.
//!
//! ```text
//!  0               12      14     16          24           32      40
//!  +---------+------+-------+------+-----------+------------+-------+---------
//!  | cluster | node | count | zero | prev term | leader end | round | entries …
//!  +---------+------+-------+------+-----------+------------+-------+---------
//!
//!  an entry:
//!  0      8     10
//!  +------+-----+-------
//!  | term | len | bytes
//!  +------+-----+-------
//! ```
//!
//! The header has the leader's term, the slot of the first entry, and the commit end. `prev term` is the term of the
//! entry before the first: a follower that has this very entry has all before it, too (Raft §5.3).

use core::ops::Range;

use super::{
    entry::ENTRY_BYTES_MAX,
    message,
    sender::{self, Sender},
};
use crate::{
    Reject,
    frame::{Frame, Header, Kind, PAYLOAD_BYTES_MAX, array},
};

/// Where each field stands.
pub mod field {
    use super::{Range, sender};
    /// [`super::Sender`].
    pub const SENDER: Range<usize> = 0..sender::BYTES;
    /// How many entries.
    pub const COUNT: Range<usize> = 12..14;
    /// Zero.
    pub const RESERVED: Range<usize> = 14..16;
    /// Term of the entry before the first.
    pub const PREV_TERM: Range<usize> = 16..24;
    /// End of the leader's log.
    pub const LEADER_END: Range<usize> = 24..32;
    /// Which of the leader's rounds of asking this belongs to.
    pub const ROUND: Range<usize> = 32..40;
}

/// Where the fields of an entry stand, from its start.
pub mod entry_field {
    use super::Range;
    /// The term in which it was appended.
    pub const TERM: Range<usize> = 0..8;
    /// Its length.
    pub const LEN: Range<usize> = 8..10;
}

/// Length of the fixed part.
pub const HEADER_BYTES: usize = 40;
/// Length of what stands before an entry's bytes.
pub const ENTRY_HEADER_BYTES: usize = 10;
/// The longest list that one frame can have.
pub const LIST_BYTES_MAX: usize = PAYLOAD_BYTES_MAX - HEADER_BYTES;

/// Entries of a leader's log, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entries<'a> {
    /// The leader's term.
    pub term: u64,
    /// The slot of the first entry; where there is none, the slot that it would have. That of the last is at most
    /// `u64::MAX - 1`.
    pub slot: u64,
    /// Everything before this slot is committed.
    pub commit_end: u64,
    /// The leader.
    pub sender: Sender,
    /// The term of the entry at `slot - 1`; 0 where `slot` is 0.
    pub prev_term: u64,
    /// End of the leader's log.
    pub leader_end: u64,
    /// Which of the leader's rounds of asking this belongs to; the report names it.
    pub round: u64,
    /// The entries.
    pub list: List<'a>,
}

/// Entries with their terms, in their encoding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct List<'a> {
    pub(crate) count: u16,
    pub(crate) encoded: &'a [u8],
}

impl<'a> List<'a> {
    /// How many.
    pub const fn count(&self) -> usize {
        self.count as usize
    }

    /// Terms and bytes, in order.
    pub fn iter(&self) -> impl Iterator<Item = Entry<'a>> + use<'a> {
        let mut rest = self.encoded;
        // Every `List` was checked when it was made, so the iterator ends at the end of the bytes.
        core::iter::from_fn(move || {
            let (entry, behind) = split_entry(rest).ok()?;
            rest = behind;
            Some(entry)
        })
    }
}

/// Fills a buffer with entries.
#[derive(Debug)]
pub struct EntriesWriter<'a> {
    buffer: &'a mut [u8],
    used_bytes: usize,
    count: u16,
}

/// The buffer has no room for this entry; send what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntriesFull;

impl<'a> EntriesWriter<'a> {
    /// Entries go to the start of `buffer`, of which no more is used than [`LIST_BYTES_MAX`].
    pub fn new(buffer: &'a mut [u8]) -> EntriesWriter<'a> {
        let len_bytes = buffer.len().min(LIST_BYTES_MAX);
        EntriesWriter {
            buffer: &mut buffer[..len_bytes],
            used_bytes: 0,
            count: 0,
        }
    }

    /// Adds the entry of the next slot.
    ///
    /// # Errors
    /// [`EntriesFull`]; the buffer is as before.
    ///
    /// # Panics
    /// If the entry is longer than [`ENTRY_BYTES_MAX`].
    pub fn push(&mut self, term: u64, bytes: &[u8]) -> Result<(), EntriesFull> {
        assert!(
            bytes.len() <= ENTRY_BYTES_MAX,
            "an entry of {} bytes; at most {ENTRY_BYTES_MAX} are allowed",
            bytes.len()
        );
        let len_bytes = ENTRY_HEADER_BYTES + bytes.len();
        let count = self.count.checked_add(1).ok_or(EntriesFull)?;
        let entry = self.buffer[self.used_bytes..].get_mut(..len_bytes).ok_or(EntriesFull)?;
        entry[entry_field::TERM].copy_from_slice(&term.to_be_bytes());
        entry[entry_field::LEN].copy_from_slice(&(bytes.len() as u16).to_be_bytes());
        entry[ENTRY_HEADER_BYTES..].copy_from_slice(bytes);
        self.used_bytes += len_bytes;
        self.count = count;
        Ok(())
    }

    /// The entries.
    pub fn finish(self) -> List<'a> {
        List {
            count: self.count,
            encoded: &self.buffer[..self.used_bytes],
        }
    }
}

/// Reads entries.
///
/// # Errors
/// [`Reject::Kind`] for another kind of frame; [`Reject::Short`] below the fixed part; [`Reject::Length`] for entries
/// that do not fill the rest or are above their bound, for slots beyond the last number, for a `prev_term` before
/// slot 0, and for a reserved byte that is not zero.
pub fn parse<'a>(frame: &Frame<'a>) -> Result<Entries<'a>, Reject> {
    let payload = message::payload_of(frame, Kind::Entries)?;
    let (head, encoded) = payload.split_first_chunk::<HEADER_BYTES>().ok_or(Reject::Short)?;
    message::require(array(head, field::RESERVED) == [0; 2])?;
    let count = u16::from_be_bytes(array(head, field::COUNT));
    let mut rest = encoded;
    for _ in 0..count {
        (_, rest) = split_entry(rest)?;
    }
    message::require(rest.is_empty())?;
    let entries = Entries {
        term: frame.header.term,
        slot: frame.header.slot,
        commit_end: frame.header.sent_ns,
        sender: Sender::parse(&array(head, field::SENDER)),
        prev_term: u64::from_be_bytes(array(head, field::PREV_TERM)),
        leader_end: u64::from_be_bytes(array(head, field::LEADER_END)),
        round: u64::from_be_bytes(array(head, field::ROUND)),
        list: List { count, encoded },
    };
    message::require(entries.is_sound())?;
    Ok(entries)
}

/// A term with an entry's bytes.
pub type Entry<'a> = (u64, &'a [u8]);

/// An entry, and what stands behind it.
fn split_entry(bytes: &[u8]) -> Result<(Entry<'_>, &[u8]), Reject> {
    let (head, rest) = bytes.split_first_chunk::<ENTRY_HEADER_BYTES>().ok_or(Reject::Length)?;
    let len_bytes = usize::from(u16::from_be_bytes(array(head, entry_field::LEN)));
    message::require(len_bytes <= ENTRY_BYTES_MAX)?;
    let (entry, rest) = rest.split_at_checked(len_bytes).ok_or(Reject::Length)?;
    Ok(((u64::from_be_bytes(array(head, entry_field::TERM)), entry), rest))
}

impl<'a> Entries<'a> {
    /// Slots, terms and bytes, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64, &'a [u8])> + use<'a> {
        let slot = self.slot;
        (0..)
            .zip(self.list.iter())
            .map(move |(index, (term, bytes))| (slot + index, term, bytes))
    }

    /// The slot behind the last entry.
    pub fn end(&self) -> u64 {
        self.slot + u64::from(self.list.count)
    }

    fn is_sound(&self) -> bool {
        self.slot.checked_add(self.list.count.into()).is_some() && (self.slot > 0 || self.prev_term == 0)
    }

    /// The frame's header.
    pub const fn header(&self) -> Header {
        Header {
            kind: Kind::Entries,
            term: self.term,
            slot: self.slot,
            sent_ns: self.commit_end,
        }
    }

    /// Length of the payload.
    pub const fn payload_bytes(&self) -> usize {
        HEADER_BYTES + self.list.encoded.len()
    }

    /// Writes the payload, which is [`Entries::payload_bytes`] long.
    ///
    /// # Panics
    /// If `payload` has another length, if a slot is beyond the last number, or if there is a `prev_term` before slot 0.
    pub fn emit_payload(&self, payload: &mut [u8]) {
        assert!(
            self.is_sound(),
            "{} entries from slot {}, behind one of term {}",
            self.list.count,
            self.slot,
            self.prev_term
        );
        let (head, list) = payload.split_at_mut(HEADER_BYTES);
        head[field::SENDER].copy_from_slice(&self.sender.encode());
        head[field::COUNT].copy_from_slice(&self.list.count.to_be_bytes());
        head[field::RESERVED].fill(0);
        head[field::PREV_TERM].copy_from_slice(&self.prev_term.to_be_bytes());
        head[field::LEADER_END].copy_from_slice(&self.leader_end.to_be_bytes());
        head[field::ROUND].copy_from_slice(&self.round.to_be_bytes());
        list.copy_from_slice(self.list.encoded);
    }

    /// Writes the frame.
    ///
    /// # Panics
    /// If `frame` is not as long as header and payload; as [`Entries::emit_payload`].
    pub fn emit(&self, frame: &mut [u8]) {
        message::emit(&self.header(), frame, |payload| self.emit_payload(payload));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{frame, quorum::sender::tests::senders};
    use proptest::prelude::*;

    fn emitted(entries: &Entries<'_>) -> Vec<u8> {
        let mut bytes = vec![0xaa; frame::HEADER_BYTES + entries.payload_bytes()];
        entries.emit(&mut bytes);
        bytes
    }

    proptest! {
        #[test]
        fn parse_undoes_emit(
            words: [u64; 6], slot in prop_oneof![Just(0), any::<u64>()], sender in senders(),
            written in prop::collection::vec((any::<u64>(), prop::collection::vec(any::<u8>(), 0..100)), 0..9),
        ) {
            let mut buffer = [0; 1024];
            let mut writer = EntriesWriter::new(&mut buffer);
            for (term, bytes) in &written {
                prop_assert_eq!(writer.push(*term, bytes), Ok(()));
            }
            let [term, commit_end, prev_term, leader_end, round, _] = words;
            let slot = slot.min(u64::MAX - written.len() as u64);
            let prev_term = if slot == 0 { 0 } else { prev_term };
            let list = writer.finish();
            let entries = Entries { term, slot, commit_end, sender, prev_term, leader_end, round, list };
            let bytes = emitted(&entries);
            let frame = frame::parse(&bytes).expect("emit makes a frame");
            prop_assert_eq!(frame.header, entries.header());
            prop_assert_eq!(parse(&frame), Ok(entries));
            prop_assert_eq!(entries.list.count(), written.len());
            prop_assert_eq!(entries.end(), slot + written.len() as u64);
            let read: Vec<_> = entries.iter().map(|(slot, term, bytes)| (slot, (term, bytes.to_vec()))).collect();
            prop_assert_eq!(read, (slot..).zip(written).collect::<Vec<_>>());
            for cut in 0..frame.payload.len() {
                let payload = &frame.payload[..cut];
                let reject = if cut < HEADER_BYTES { Reject::Short } else { Reject::Length };
                prop_assert_eq!(parse(&Frame { payload, ..frame }), Err(reject));
            }
        }

        #[test]
        fn what_parses_is_what_emit_writes(
            slot in prop_oneof![Just(0), Just(u64::MAX - 1), Just(u64::MAX)], count in 0u8..3, reserved in 0u8..2,
            prev_term in 0u8..2, lens in prop::collection::vec(0u8..3, 0..3), surplus in 0usize..2,
        ) {
            let mut payload = vec![0; HEADER_BYTES];
            payload[field::COUNT].copy_from_slice(&[0, count]);
            payload[field::RESERVED.start] = reserved;
            payload[field::PREV_TERM].fill(prev_term);
            for len in lens {
                payload.extend([7; 8]);
                payload.extend([0, len]);
                payload.extend(vec![9; len.into()]);
            }
            payload.extend(vec![0; surplus]);
            let mut bytes = [&[0; frame::HEADER_BYTES], &payload[..]].concat();
            frame::emit(&Header { kind: Kind::Entries, term: 1, slot, sent_ns: 2 }, &mut bytes);
            if let Ok(entries) = parse(&frame::parse(&bytes).expect("a frame")) {
                prop_assert_eq!(entries.iter().count(), entries.list.count());
                prop_assert_eq!(emitted(&entries), bytes);
            }
        }
    }

    #[test]
    fn a_full_writer_refuses_and_keeps_what_it_has() {
        let mut buffer = [0; 24];
        let mut writer = EntriesWriter::new(&mut buffer);
        assert_eq!(writer.push(7, b"1234"), Ok(()));
        assert_eq!(writer.push(8, b"1"), Err(EntriesFull));
        assert_eq!(writer.push(8, b""), Ok(()));
        let list = writer.finish();
        assert!(list.iter().eq([(7, &b"1234"[..]), (8, &b""[..])]));
    }

    #[test]
    fn an_entry_above_the_bound_is_refused() {
        let header = Header {
            kind: Kind::Entries,
            term: 1,
            slot: 2,
            sent_ns: 0,
        };
        for (len, expect) in [(ENTRY_BYTES_MAX, None), (ENTRY_BYTES_MAX + 1, Some(Reject::Length))] {
            let mut payload = vec![0; HEADER_BYTES + ENTRY_HEADER_BYTES + len];
            payload[field::COUNT].copy_from_slice(&[0, 1]);
            payload[HEADER_BYTES..][entry_field::LEN].copy_from_slice(&(len as u16).to_be_bytes());
            let frame = Frame {
                header,
                payload: &payload,
                payload_crc: 0,
            };
            assert_eq!(parse(&frame).err(), expect);
        }
    }

    #[test]
    fn the_longest_list_fits_a_frame() {
        let mut buffer = vec![0; 2 * LIST_BYTES_MAX];
        let mut writer = EntriesWriter::new(&mut buffer);
        assert_eq!(writer.push(1, &[1; ENTRY_BYTES_MAX]), Ok(()));
        let rest = LIST_BYTES_MAX - ENTRY_BYTES_MAX - 2 * ENTRY_HEADER_BYTES;
        assert_eq!(writer.push(1, &vec![2; rest + 1]), Err(EntriesFull));
        assert_eq!(writer.push(1, &vec![2; rest]), Ok(()));
        let entries = Entries {
            term: 1,
            slot: 0,
            commit_end: 0,
            sender: Sender { cluster: 1, node: 2 },
            prev_term: 0,
            leader_end: 2,
            round: 3,
            list: writer.finish(),
        };
        let bytes = emitted(&entries);
        let frame = frame::parse(&bytes).expect("emit makes a frame");
        assert_eq!(parse(&frame), Ok(entries));
    }
}
