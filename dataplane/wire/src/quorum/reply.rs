//! The answer to a client's request.
//!
//! ```text
//!  0        8          16      17     18      20
//!  +--------+----------+-------+------+-------+------
//!  | client | sequence |outcome| more | count | body …
//!  +--------+----------+-------+------+-------+------
//!
//!  an entry of a range:
//!  0         1           3
//!  +---------+-----------+-----+-------
//!  | key len | value len | key | value
//!  +---------+-----------+-----+-------
//! ```
//!
//! | outcome    | answers                         | more   | count   | body                            |
//! |------------|---------------------------------|--------|---------|---------------------------------|
//! | done       | put, append, cas, delete        | 0      | 0       | empty                           |
//! | value      | get                             | 0      | 0       | the value                       |
//! | absent     | get, cas, delete                | 0      | 0       | empty                           |
//! | mismatch   | cas                             | 0      | 0       | the value that is there instead |
//! | entries    | range                           | 0 or 1 | entries | the entries                     |
//! | not leader | anything                        | 0      | 0       | empty, or the leader's node, u32 |
//! | busy       | anything                        | 0      | 0       | empty                           |
//! | opened     | open                            | 0      | 0       | the new client's number, u64    |
//! | expired    | anything                        | 0      | 0       | empty                           |
//! | refused    | anything                        | 0      | 0       | one of [`refusal`]              |

pub mod refusal;

use core::ops::Range;

use super::{KEY_BYTES_MAX, VALUE_BYTES_MAX, assert_key, assert_value};
use crate::Reject;

/// Where each field stands.
pub mod field {
    use super::Range;
    /// Whom this answers.
    pub const CLIENT: Range<usize> = 0..8;
    /// Which of that client's requests this answers.
    pub const SEQUENCE: Range<usize> = 8..16;
    /// One of [`super::code`].
    pub const OUTCOME: Range<usize> = 16..17;
    /// 1 if a range goes on behind its last entry here.
    pub const MORE: Range<usize> = 17..18;
    /// How many entries of a range are in the body.
    pub const COUNT: Range<usize> = 18..20;
}

/// Where the fields of an entry stand, from its start.
pub mod entry_field {
    use super::Range;
    /// Length of the key.
    pub const KEY_LEN: Range<usize> = 0..1;
    /// Length of the value.
    pub const VALUE_LEN: Range<usize> = 1..3;
}

/// The outcomes' numbers.
pub mod code {
    /// [`super::Outcome::Done`].
    pub const DONE: u8 = 1;
    /// [`super::Outcome::Value`].
    pub const VALUE: u8 = 2;
    /// [`super::Outcome::Absent`].
    pub const ABSENT: u8 = 3;
    /// [`super::Outcome::Mismatch`].
    pub const MISMATCH: u8 = 4;
    /// [`super::Outcome::Entries`].
    pub const ENTRIES: u8 = 5;
    /// [`super::Outcome::NotLeader`].
    pub const NOT_LEADER: u8 = 6;
    /// [`super::Outcome::Busy`].
    pub const BUSY: u8 = 7;
    /// [`super::Outcome::Opened`].
    pub const OPENED: u8 = 8;
    /// [`super::Outcome::Expired`].
    pub const EXPIRED: u8 = 9;
    /// [`super::Outcome::Refused`].
    pub const REFUSED: u8 = 10;
}

/// Length of the fixed part.
pub const HEADER_BYTES: usize = 20;
/// Length of what stands before the key of an entry.
pub const ENTRY_HEADER_BYTES: usize = 3;

/// A reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    /// Whom this answers.
    pub client: u64,
    /// Which of that client's requests this answers.
    pub sequence: u64,
    /// What came of it.
    pub outcome: Outcome<'a>,
}

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// It is done, and a quorum has it.
    Done,
    /// The value that was asked for.
    Value(&'a [u8]),
    /// There is no such key.
    Absent,
    /// The key has this other value; nothing was changed.
    Mismatch(&'a [u8]),
    /// Entries of a range.
    Entries(Entries<'a>),
    /// This node does not lead; nothing was done.
    NotLeader {
        /// Who does, as far as this node knows.
        leader: Option<u32>,
    },
    /// No room for the request; nothing was done, try again later.
    Busy,
    /// There is a session now.
    Opened {
        /// Its number: the client of all requests in it.
        client: u64,
    },
    /// The session is not known, or not any more, or the number is older than the session remembers: nothing was done.
    Expired,
    /// The request is understood and will not be done.
    Refused {
        /// Why: one of [`refusal`], or a reason that this build does not know.
        reason: u8,
    },
}

/// Keys with their values, in their encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entries<'a> {
    pub(crate) count: u16,
    pub(crate) more: bool,
    pub(crate) encoded: &'a [u8],
}

impl<'a> Entries<'a> {
    /// How many.
    pub fn count(&self) -> usize {
        self.count.into()
    }

    /// Whether the range goes on behind the last of them: ask again from there.
    pub fn more(&self) -> bool {
        self.more
    }

    /// Keys and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = Entry<'a>> + use<'a> {
        let mut rest = self.encoded;
        // Every `Entries` was checked when it was made, so the iterator ends at the end of the bytes.
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

/// The buffer has no room for this entry; say `more`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntriesFull;

impl<'a> EntriesWriter<'a> {
    /// Entries go to the start of `buffer`.
    pub fn new(buffer: &'a mut [u8]) -> EntriesWriter<'a> {
        EntriesWriter {
            buffer,
            used_bytes: 0,
            count: 0,
        }
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// [`EntriesFull`]; the buffer is as before.
    ///
    /// # Panics
    /// If key or value are outside their bounds.
    pub fn push(&mut self, key: &[u8], value: &[u8]) -> Result<(), EntriesFull> {
        assert_key(key);
        assert_value(value);
        let len_bytes = ENTRY_HEADER_BYTES + key.len() + value.len();
        let count = self.count.checked_add(1).ok_or(EntriesFull)?;
        let entry = self.buffer[self.used_bytes..].get_mut(..len_bytes).ok_or(EntriesFull)?;
        entry[entry_field::KEY_LEN.start] = key.len() as u8;
        entry[entry_field::VALUE_LEN].copy_from_slice(&(value.len() as u16).to_be_bytes());
        let (to_key, to_value) = entry[ENTRY_HEADER_BYTES..].split_at_mut(key.len());
        to_key.copy_from_slice(key);
        to_value.copy_from_slice(value);
        self.used_bytes += len_bytes;
        self.count = count;
        Ok(())
    }

    /// The entries; `more` if the range goes on behind them.
    pub fn finish(self, more: bool) -> Entries<'a> {
        Entries {
            count: self.count,
            more,
            encoded: &self.buffer[..self.used_bytes],
        }
    }
}

impl Reply<'_> {
    /// How long the payload is that [`emit`] writes.
    pub fn len_bytes(&self) -> usize {
        HEADER_BYTES
            + match self.outcome {
                Outcome::Value(value) | Outcome::Mismatch(value) => value.len(),
                Outcome::Entries(entries) => entries.encoded.len(),
                Outcome::NotLeader { leader: Some(_) } => size_of::<u32>(),
                Outcome::Opened { .. } => size_of::<u64>(),
                Outcome::Refused { .. } => size_of::<u8>(),
                Outcome::Done
                | Outcome::Absent
                | Outcome::NotLeader { leader: None }
                | Outcome::Busy
                | Outcome::Expired => 0,
            }
    }
}

/// Parses a reply that fills `payload` exactly.
///
/// # Errors
/// [`Reject::Short`] below the fixed part; [`Reject::Kind`] for an unknown outcome; [`Reject::Length`] for a body, a
/// count or a `more` that the outcome has no use for, and for entries that do not fill the body.
pub fn parse(payload: &[u8]) -> Result<Reply<'_>, Reject> {
    let (head, body) = payload.split_first_chunk::<HEADER_BYTES>().ok_or(Reject::Short)?;
    let [c0, c1, c2, c3, c4, c5, c6, c7, head @ ..] = *head;
    let [s0, s1, s2, s3, s4, s5, s6, s7, head @ ..] = head;
    let [code, more, n0, n1] = head;
    let count = u16::from_be_bytes([n0, n1]);
    let outcome = match code {
        code::DONE => Outcome::Done,
        code::VALUE => Outcome::Value(body),
        code::ABSENT => Outcome::Absent,
        code::MISMATCH => Outcome::Mismatch(body),
        code::ENTRIES => Outcome::Entries(parse_entries(body, count, more)?),
        code::NOT_LEADER => Outcome::NotLeader {
            leader: body.as_array::<4>().map(|leader| u32::from_be_bytes(*leader)),
        },
        code::BUSY => Outcome::Busy,
        code::OPENED => Outcome::Opened {
            client: u64::from_be_bytes(*body.as_array().ok_or(Reject::Length)?),
        },
        code::EXPIRED => Outcome::Expired,
        code::REFUSED => Outcome::Refused {
            reason: *body.first().ok_or(Reject::Length)?,
        },
        _ => return Err(Reject::Kind),
    };
    let reply = Reply {
        client: u64::from_be_bytes([c0, c1, c2, c3, c4, c5, c6, c7]),
        sequence: u64::from_be_bytes([s0, s1, s2, s3, s4, s5, s6, s7]),
        outcome,
    };
    // What the outcome did not take must be empty: one reply has one encoding.
    if payload.len() != reply.len_bytes() {
        return Err(Reject::Length);
    }
    match outcome {
        Outcome::Entries(_) => {}
        _ if count != 0 || more != 0 => return Err(Reject::Length),
        Outcome::Value(value) | Outcome::Mismatch(value) if value.len() > VALUE_BYTES_MAX => {
            return Err(Reject::Length);
        }
        _ => {}
    }
    Ok(reply)
}

fn parse_entries(encoded: &[u8], count: u16, more: u8) -> Result<Entries<'_>, Reject> {
    let mut rest = encoded;
    for _ in 0..count {
        (_, rest) = split_entry(rest)?;
    }
    match (rest, more) {
        ([], 0 | 1) => Ok(Entries {
            count,
            more: more == 1,
            encoded,
        }),
        _ => Err(Reject::Length),
    }
}

/// A key with its value.
pub type Entry<'a> = (&'a [u8], &'a [u8]);

/// An entry, and what stands behind it.
fn split_entry(bytes: &[u8]) -> Result<(Entry<'_>, &[u8]), Reject> {
    let ([key_len, v0, v1], rest) = bytes.split_first_chunk().ok_or(Reject::Length)?;
    let value_len = usize::from(u16::from_be_bytes([*v0, *v1]));
    let (key, rest) = rest.split_at_checked((*key_len).into()).ok_or(Reject::Length)?;
    let (value, rest) = rest.split_at_checked(value_len).ok_or(Reject::Length)?;
    if !(1..=KEY_BYTES_MAX).contains(&key.len()) || value.len() > VALUE_BYTES_MAX {
        return Err(Reject::Length);
    }
    Ok(((key, value), rest))
}

/// Writes `reply`; the payload is exactly [`Reply::len_bytes`] long.
///
/// # Panics
/// If `payload` has another length, or if a value is longer than [`VALUE_BYTES_MAX`].
pub fn emit(reply: &Reply<'_>, payload: &mut [u8]) {
    assert_eq!(payload.len(), reply.len_bytes(), "the payload's length is the reply's");
    let (leader_bytes, client_bytes, reason_bytes);
    let (code, more, count, body): (u8, bool, u16, &[u8]) = match reply.outcome {
        Outcome::Done => (code::DONE, false, 0, &[]),
        Outcome::Value(value) => {
            assert_value(value);
            (code::VALUE, false, 0, value)
        }
        Outcome::Absent => (code::ABSENT, false, 0, &[]),
        Outcome::Mismatch(value) => {
            assert_value(value);
            (code::MISMATCH, false, 0, value)
        }
        Outcome::Entries(entries) => (code::ENTRIES, entries.more, entries.count, entries.encoded),
        Outcome::NotLeader { leader: None } => (code::NOT_LEADER, false, 0, &[]),
        Outcome::NotLeader { leader: Some(leader) } => {
            leader_bytes = leader.to_be_bytes();
            (code::NOT_LEADER, false, 0, &leader_bytes)
        }
        Outcome::Busy => (code::BUSY, false, 0, &[]),
        Outcome::Opened { client } => {
            client_bytes = client.to_be_bytes();
            (code::OPENED, false, 0, &client_bytes)
        }
        Outcome::Expired => (code::EXPIRED, false, 0, &[]),
        Outcome::Refused { reason } => {
            reason_bytes = [reason];
            (code::REFUSED, false, 0, &reason_bytes)
        }
    };
    payload[field::CLIENT].copy_from_slice(&reply.client.to_be_bytes());
    payload[field::SEQUENCE].copy_from_slice(&reply.sequence.to_be_bytes());
    payload[field::OUTCOME.start] = code;
    payload[field::MORE.start] = more.into();
    payload[field::COUNT].copy_from_slice(&count.to_be_bytes());
    payload[HEADER_BYTES..].copy_from_slice(body);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(len: impl Into<prop::collection::SizeRange>) -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), len)
    }

    proptest! {
        #[test]
        fn parse_undoes_emit(
            client: u64, sequence: u64, code in 0..10, value in bytes(0..400), leader: Option<u32>, more: bool, opened: u64,
            reason: u8,
            entries in prop::collection::vec((bytes(1..=255), bytes(0..100)), 0..9),
        ) {
            let mut buffer = [0; 4096];
            let mut writer = EntriesWriter::new(&mut buffer);
            for (key, value) in &entries {
                prop_assert_eq!(writer.push(key, value), Ok(()));
            }
            let outcome = match code {
                0 => Outcome::Done,
                1 => Outcome::Value(&value),
                2 => Outcome::Absent,
                3 => Outcome::Mismatch(&value),
                4 => Outcome::Entries(writer.finish(more)),
                5 => Outcome::NotLeader { leader },
                6 => Outcome::Busy,
                7 => Outcome::Opened { client: opened },
                8 => Outcome::Expired,
                _ => Outcome::Refused { reason },
            };
            let reply = Reply { client, sequence, outcome };
            let mut payload = vec![0xaa; reply.len_bytes()];
            emit(&reply, &mut payload);
            prop_assert_eq!(parse(&payload), Ok(reply));
            if let Outcome::Entries(read) = outcome {
                prop_assert_eq!(read.count(), entries.len());
                prop_assert_eq!(read.more(), more);
                let read: Vec<_> = read.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
                prop_assert_eq!(read, entries);
            }
        }

        #[test]
        fn what_parses_is_what_emit_writes(head in [0u8..12, 0u8..3, 0u8..2, 0u8..4], body in prop::collection::vec(0u8..4, 0..20)) {
            let mut payload = vec![7; 16];
            payload.extend(head);
            payload.extend(body);
            if let Ok(reply) = parse(&payload) {
                let mut again = vec![0xaa; reply.len_bytes()];
                emit(&reply, &mut again);
                prop_assert_eq!(again, payload);
            }
        }
    }

    #[test]
    fn a_full_writer_refuses_and_keeps_what_it_has() {
        let mut buffer = [0; 10];
        let mut writer = EntriesWriter::new(&mut buffer);
        assert_eq!(writer.push(b"key", b"1234"), Ok(()));
        assert_eq!(writer.push(b"k", b""), Err(EntriesFull));
        let entries = writer.finish(true);
        assert!(entries.iter().eq([(&b"key"[..], &b"1234"[..])]));
        assert!(entries.more());
    }
}
