//! A client's request.
//!
//! ```text
//!  0        8          16   17    18      20       22      24
//!  +--------+----------+----+-----+-------+--------+-------+-----+-------+--------
//!  | client | sequence | cmd| key | first | second | count | key | first | second
//!  |        |          |    | len | len   | len    | max   |     |       |
//!  +--------+----------+----+-----+-------+--------+-------+-----+-------+--------
//! ```
//!
//! | command          | key  | first    | second | count max |
//! |------------------|------|----------|--------|-----------|
//! | put, append      | key  | value    | empty  | 0         |
//! | get, delete      | key  | empty    | empty  | 0         |
//! | compare-and-swap | key  | expected | value  | 0         |
//! | range            | from | end      | empty  | 1 or more |
//! | open             | none | empty    | empty  | 0         |
//! | stale get        | key  | empty    | empty  | 0         |
//! | stale range      | from | end      | empty  | 1 or more |
//! | reconfigure      | none | members  | empty  | 0         |
//! | status           | none | empty    | empty  | 0         |
//!
//! A client that has no session yet is client 0, and only it may open one.

use core::ops::Range;

use super::{
    KEY_BYTES_MAX, VALUE_BYTES_MAX, assert_key, assert_value,
    members::{self, Members},
};
use crate::Reject;

/// Where each field stands.
pub mod field {
    use super::Range;
    /// Which client asks.
    pub const CLIENT: Range<usize> = 0..8;
    /// The client's own number for this request.
    pub const SEQUENCE: Range<usize> = 8..16;
    /// One of [`super::code`].
    pub const COMMAND: Range<usize> = 16..17;
    /// Length of the key.
    pub const KEY_LEN: Range<usize> = 17..18;
    /// Length of the first operand.
    pub const FIRST_LEN: Range<usize> = 18..20;
    /// Length of the second operand.
    pub const SECOND_LEN: Range<usize> = 20..22;
    /// The most entries that a range may answer with.
    pub const COUNT_MAX: Range<usize> = 22..24;
}

/// The commands' numbers.
pub mod code {
    /// [`super::Command::Put`].
    pub const PUT: u8 = 1;
    /// [`super::Command::Get`].
    pub const GET: u8 = 2;
    /// [`super::Command::Append`].
    pub const APPEND: u8 = 3;
    /// [`super::Command::CompareAndSwap`].
    pub const COMPARE_AND_SWAP: u8 = 4;
    /// [`super::Command::Delete`].
    pub const DELETE: u8 = 5;
    /// [`super::Command::Range`].
    pub const RANGE: u8 = 6;
    /// [`super::Command::Open`].
    pub const OPEN: u8 = 7;
    /// [`super::Command::StaleGet`].
    pub const STALE_GET: u8 = 8;
    /// [`super::Command::StaleRange`].
    pub const STALE_RANGE: u8 = 9;
    /// [`super::Command::Reconfigure`].
    pub const RECONFIGURE: u8 = 10;
    /// [`super::Command::Status`].
    pub const STATUS: u8 = 11;
    /// No request: what a new leader puts into its log. See [`super::super::entry`].
    pub const NO_OP: u8 = 0x80;
}

/// Length of the fixed part.
pub const HEADER_BYTES: usize = 24;

/// A request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// Which client asks.
    pub client: u64,
    /// The client's own number for this request: a repeated number is a repeated request.
    pub sequence: u64,
    /// What it wants done.
    pub command: Command<'a>,
}

/// What a client wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// Set the key to the value.
    Put {
        /// 1 to [`KEY_BYTES_MAX`] bytes, as every key.
        key: &'a [u8],
        /// At most [`VALUE_BYTES_MAX`] bytes, as every value.
        value: &'a [u8],
    },
    /// Read the key's value.
    Get {
        /// The key.
        key: &'a [u8],
    },
    /// Put the bytes behind the key's value; a missing key counts as empty.
    Append {
        /// The key.
        key: &'a [u8],
        /// The bytes to add.
        value: &'a [u8],
    },
    /// Set the key to `value` if it now is `expected`. A missing key matches nothing.
    CompareAndSwap {
        /// The key.
        key: &'a [u8],
        /// What must be there.
        expected: &'a [u8],
        /// What will be there.
        value: &'a [u8],
    },
    /// Remove the key.
    Delete {
        /// The key.
        key: &'a [u8],
    },
    /// Read the keys of `from..end` in order, at most `count_max` of them.
    Range {
        /// The first key, inclusive.
        from: &'a [u8],
        /// The last key, exclusive; empty for "to the last key there is".
        end: &'a [u8],
        /// At least 1.
        count_max: u16,
    },
    /// Open a session. The client is 0, and the sequence a number that no other client will think of, so that the
    /// answer finds the one that asked.
    Open,
    /// As [`Command::Get`], but any replica may answer, from what it has applied so far.
    StaleGet {
        /// The key.
        key: &'a [u8],
    },
    /// As [`Command::Range`], but any replica may answer, from what it has applied so far.
    StaleRange {
        /// The first key, inclusive.
        from: &'a [u8],
        /// The last key, exclusive; empty for "to the last key there is".
        end: &'a [u8],
        /// At least 1.
        count_max: u16,
    },
    /// Make these the members.
    Reconfigure {
        /// Sound, as [`Members::is_sound`] says.
        members: Members,
    },
    /// Say who you are and how far you are. Every replica answers for itself, with [`super::status::Status`] as a value.
    Status,
}

/// As a command stands on the wire: code, key, first and second operand, count.
type Parts<'p> = (u8, &'p [u8], &'p [u8], &'p [u8], u16);

impl<'a> Command<'a> {
    /// Whether it changes nothing.
    pub const fn reads_only(&self) -> bool {
        matches!(self, Command::Get { .. } | Command::Range { .. } | Command::Status) || self.is_stale()
    }

    /// Whether any replica may answer it, from what it has applied so far.
    pub const fn is_stale(&self) -> bool {
        matches!(self, Command::StaleGet { .. } | Command::StaleRange { .. })
    }

    const fn has_key(&self) -> bool {
        !matches!(self, Command::Open | Command::Reconfigure { .. } | Command::Status)
    }

    /// End and largest count of a command that reads a range.
    const fn range(&self) -> Option<(&'a [u8], u16)> {
        match *self {
            Command::Range { end, count_max, .. } | Command::StaleRange { end, count_max, .. } => {
                Some((end, count_max))
            }
            _ => None,
        }
    }

    /// Members are encoded into `members_bytes`, which the parts then point at.
    fn parts<'p>(&self, members_bytes: &'p mut [u8; members::BYTES]) -> Parts<'p>
    where
        'a: 'p,
    {
        match *self {
            Command::Put { key, value } => (code::PUT, key, value, &[], 0),
            Command::Get { key } => (code::GET, key, &[], &[], 0),
            Command::Append { key, value } => (code::APPEND, key, value, &[], 0),
            Command::CompareAndSwap { key, expected, value } => (code::COMPARE_AND_SWAP, key, expected, value, 0),
            Command::Delete { key } => (code::DELETE, key, &[], &[], 0),
            Command::Range { from, end, count_max } => (code::RANGE, from, end, &[], count_max),
            Command::Open => (code::OPEN, &[], &[], &[], 0),
            Command::StaleGet { key } => (code::STALE_GET, key, &[], &[], 0),
            Command::StaleRange { from, end, count_max } => (code::STALE_RANGE, from, end, &[], count_max),
            Command::Reconfigure { members } => {
                *members_bytes = members.encode();
                (code::RECONFIGURE, &[], members_bytes, &[], 0)
            }
            Command::Status => (code::STATUS, &[], &[], &[], 0),
        }
    }
}

impl Request<'_> {
    /// How long the payload is that [`emit`] writes.
    pub fn len_bytes(&self) -> usize {
        let mut members_bytes = [0; members::BYTES];
        let (_, key, first, second, _) = self.command.parts(&mut members_bytes);
        HEADER_BYTES + key.len() + first.len() + second.len()
    }
}

/// Parses a request that fills `payload` exactly.
///
/// # Errors
/// In this order: [`Reject::Short`], [`Reject::Long`], [`Reject::Length`] (a value outside its bounds), [`Reject::Kind`]
/// (an unknown command), [`Reject::Length`] (a key, an operand, a count or a client that the command has no use for, the
/// lack of one, or members that are not sound).
pub fn parse(payload: &[u8]) -> Result<Request<'_>, Reject> {
    let (head, rest) = payload.split_first_chunk::<HEADER_BYTES>().ok_or(Reject::Short)?;
    let [c0, c1, c2, c3, c4, c5, c6, c7, head @ ..] = *head;
    let [s0, s1, s2, s3, s4, s5, s6, s7, head @ ..] = head;
    let [code, key_len, f0, f1, n0, n1, m0, m1] = head;
    let key_len = usize::from(key_len);
    let first_len = usize::from(u16::from_be_bytes([f0, f1]));
    let second_len = usize::from(u16::from_be_bytes([n0, n1]));
    let count_max = u16::from_be_bytes([m0, m1]);

    let (key, rest) = rest.split_at_checked(key_len).ok_or(Reject::Short)?;
    let (first, rest) = rest.split_at_checked(first_len).ok_or(Reject::Short)?;
    let (second, rest) = rest.split_at_checked(second_len).ok_or(Reject::Short)?;
    if !rest.is_empty() {
        return Err(Reject::Long);
    }
    if first.len() > VALUE_BYTES_MAX || second.len() > VALUE_BYTES_MAX {
        return Err(Reject::Length);
    }

    let client = u64::from_be_bytes([c0, c1, c2, c3, c4, c5, c6, c7]);
    let command = match code {
        code::PUT => Command::Put { key, value: first },
        code::GET => Command::Get { key },
        code::APPEND => Command::Append { key, value: first },
        code::COMPARE_AND_SWAP => Command::CompareAndSwap {
            key,
            expected: first,
            value: second,
        },
        code::DELETE => Command::Delete { key },
        code::RANGE => Command::Range {
            from: key,
            end: first,
            count_max,
        },
        code::OPEN => Command::Open,
        code::STALE_GET => Command::StaleGet { key },
        code::STALE_RANGE => Command::StaleRange {
            from: key,
            end: first,
            count_max,
        },
        code::RECONFIGURE => Command::Reconfigure {
            members: Members::parse(first.as_array().ok_or(Reject::Length)?)?,
        },
        code::STATUS => Command::Status,
        _ => return Err(Reject::Kind),
    };
    let key_fits = !(command.has_key() && key.is_empty());
    let range_fits = command
        .range()
        .is_none_or(|(end, count_max)| end.len() <= KEY_BYTES_MAX && count_max > 0);
    let client_fits = command != Command::Open || client == 0;
    // What the command did not take must be empty: one request has one encoding. What it took is what came, so the
    // lengths tell; comparing the bytes with themselves was a third of the time that a commit takes.
    let mut members_bytes = [0; members::BYTES];
    let (_, took_key, took_first, took_second, took_count) = command.parts(&mut members_bytes);
    let takes_all = (took_key.len(), took_first.len(), took_second.len(), took_count)
        == (key.len(), first.len(), second.len(), count_max);
    if !(key_fits && range_fits && client_fits && takes_all) {
        return Err(Reject::Length);
    }
    Ok(Request {
        client,
        sequence: u64::from_be_bytes([s0, s1, s2, s3, s4, s5, s6, s7]),
        command,
    })
}

/// Writes `request`; the payload is exactly [`Request::len_bytes`] long.
///
/// # Panics
/// If `payload` has another length, or if a key, a value, a count, a client or members are outside the bounds that
/// [`Command`] states.
pub fn emit(request: &Request<'_>, payload: &mut [u8]) {
    let mut members_bytes = [0; members::BYTES];
    let (code, key, first, second, count_max) = request.command.parts(&mut members_bytes);
    if request.command.has_key() {
        assert_key(key);
    }
    assert_value(first);
    assert_value(second);
    if let Some((end, count_max)) = request.command.range() {
        assert!(end.len() <= KEY_BYTES_MAX, "a range's end of {} bytes", end.len());
        assert!(count_max > 0, "a range of at most 0 entries");
    }
    match request.command {
        Command::Open => assert_eq!(request.client, 0, "only client 0 opens a session"),
        Command::Reconfigure { members } => assert!(members.is_sound(), "{members:?} are not sound"),
        _ => {}
    }
    assert_eq!(
        payload.len(),
        request.len_bytes(),
        "the payload's length is the request's"
    );

    let (head, rest) = payload.split_at_mut(HEADER_BYTES);
    head[field::CLIENT].copy_from_slice(&request.client.to_be_bytes());
    head[field::SEQUENCE].copy_from_slice(&request.sequence.to_be_bytes());
    head[field::COMMAND.start] = code;
    head[field::KEY_LEN.start] = key.len() as u8;
    head[field::FIRST_LEN].copy_from_slice(&(first.len() as u16).to_be_bytes());
    head[field::SECOND_LEN].copy_from_slice(&(second.len() as u16).to_be_bytes());
    head[field::COUNT_MAX].copy_from_slice(&count_max.to_be_bytes());
    let (to_key, rest) = rest.split_at_mut(key.len());
    let (to_first, to_second) = rest.split_at_mut(first.len());
    to_key.copy_from_slice(key);
    to_first.copy_from_slice(first);
    to_second.copy_from_slice(second);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quorum::members::tests::sound_members;
    use proptest::prelude::*;

    fn bytes(len: impl Into<prop::collection::SizeRange>) -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), len)
    }

    proptest! {
        #[test]
        fn parse_undoes_emit(
            client: u64, sequence: u64, code in 0..11, key in bytes(1..=255), end in bytes(0..=255),
            value in bytes(0..400), expected in bytes(0..400), count_max in 1u16.., members in sound_members(),
        ) {
            let (key, end, value, expected) = (&key[..], &end[..], &value[..], &expected[..]);
    let command = match code {
                0 => Command::Put { key, value },
                1 => Command::Get { key },
                2 => Command::Append { key, value },
                3 => Command::CompareAndSwap { key, expected, value },
                4 => Command::Delete { key },
                5 => Command::Range { from: key, end, count_max },
                6 => Command::Open,
                7 => Command::StaleGet { key },
                8 => Command::StaleRange { from: key, end, count_max },
                9 => Command::Status,
                _ => Command::Reconfigure { members },
            };
            let client = if command == Command::Open { 0 } else { client };
            let request = Request { client, sequence, command };
            let mut payload = vec![0xaa; request.len_bytes()];
            emit(&request, &mut payload);
            prop_assert_eq!(parse(&payload), Ok(request));
            for cut in 0..payload.len() {
                prop_assert_eq!(parse(&payload[..cut]), Err(Reject::Short));
            }
            payload.push(0);
            prop_assert_eq!(parse(&payload), Err(Reject::Long));
        }

        #[test]
        fn what_parses_is_what_emit_writes(
            client in 0u8..2, code in 0u8..13, key_len in 0u8..4, first_len in prop_oneof![0u8..4, Just(8)],
            second_len in 0u8..4, count in 0u8..2, fill in 0u8..4,
        ) {
            let rest = usize::from(key_len) + usize::from(first_len) + usize::from(second_len);
            let mut payload = vec![fill; HEADER_BYTES + rest];
            payload[..8].fill(client);
            payload[16..24].copy_from_slice(&[code, key_len, 0, first_len, 0, second_len, 0, count]);
            if let Ok(request) = parse(&payload) {
                let mut again = vec![0xaa; request.len_bytes()];
                emit(&request, &mut again);
                prop_assert_eq!(again, payload);
            }
        }
    }

    #[test]
    fn a_value_above_the_bound_is_refused() {
        let too_long = VALUE_BYTES_MAX + 1;
        let mut payload = vec![1; HEADER_BYTES + 1 + too_long];
        payload[16..24].fill(0);
        payload[field::COMMAND.start] = code::PUT;
        payload[field::KEY_LEN.start] = 1;
        payload[field::FIRST_LEN].copy_from_slice(&(too_long as u16).to_be_bytes());
        assert_eq!(parse(&payload), Err(Reject::Length));
    }

    #[test]
    fn who_reads_and_who_may_be_late() {
        let (key, from, end, count_max) = (&b"k"[..], &b"k"[..], &b""[..], 1);
        for (command, reads_only, is_stale) in [
            (Command::Get { key }, true, false),
            (Command::Range { from, end, count_max }, true, false),
            (Command::StaleGet { key }, true, true),
            (Command::StaleRange { from, end, count_max }, true, true),
            (Command::Delete { key }, false, false),
            (Command::Open, false, false),
            (Command::Status, true, false),
        ] {
            assert_eq!(
                (command.reads_only(), command.is_stale()),
                (reads_only, is_stale),
                "{command:?}"
            );
        }
    }

    #[test]
    #[should_panic(expected = "a key of 0 bytes")]
    fn emit_refuses_an_empty_key() {
        let request = Request {
            client: 0,
            sequence: 0,
            command: Command::Get { key: &[] },
        };
        emit(&request, &mut [0; HEADER_BYTES]);
    }
}
