//! What an entry of the replicated log is: a client's request, byte for byte, or the no-op that a new leader begins its
//! term with (Raft §8: it may count copies of its own term's entries only, so it needs one).
//!
//! ```text
//!  0        8          16     17                   24
//!  +--------+----------+------+--------------------+
//!  |   0    |    0     | 0x80 |         0          |   the no-op; for a request see `request`
//!  +--------+----------+------+--------------------+
//! ```

use super::{
    KEY_BYTES_MAX, VALUE_BYTES_MAX,
    request::{self, Request, code, field},
};
use crate::Reject;

/// The longest entry: the longest request, which is a compare-and-swap.
pub const ENTRY_BYTES_MAX: usize = request::HEADER_BYTES + KEY_BYTES_MAX + 2 * VALUE_BYTES_MAX;

/// The no-op's bytes: a request's fixed part with no client, no number and no operand.
pub const NO_OP: [u8; request::HEADER_BYTES] = {
    let mut bytes = [0; request::HEADER_BYTES];
    bytes[field::COMMAND.start] = code::NO_OP;
    bytes
};

/// An entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    /// A client's request.
    Request(Request<'a>),
    /// Nothing to do.
    NoOp,
}

/// Parses an entry that fills `bytes` exactly.
///
/// # Errors
/// As [`request::parse`], where it is not [`NO_OP`].
pub fn parse(bytes: &[u8]) -> Result<Entry<'_>, Reject> {
    if bytes == NO_OP {
        return Ok(Entry::NoOp);
    }
    request::parse(bytes).map(Entry::Request)
}

impl Entry<'_> {
    /// How long the entry is that [`emit`] writes.
    pub fn len_bytes(&self) -> usize {
        match self {
            Entry::Request(request) => request.len_bytes(),
            Entry::NoOp => NO_OP.len(),
        }
    }
}

/// Writes `entry`; `bytes` is exactly [`Entry::len_bytes`] long.
///
/// # Panics
/// If `bytes` has another length; for a request as [`request::emit`].
pub fn emit(entry: &Entry<'_>, bytes: &mut [u8]) {
    match entry {
        Entry::Request(request) => request::emit(request, bytes),
        Entry::NoOp => bytes.copy_from_slice(&NO_OP),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{quorum::request::Command, vectors::REQUESTS};

    #[test]
    fn the_no_op_is_an_entry_and_no_request() {
        assert_eq!(parse(&NO_OP), Ok(Entry::NoOp));
        assert_eq!(request::parse(&NO_OP), Err(Reject::Kind));
        let mut bytes = [0xaa; NO_OP.len()];
        emit(&Entry::NoOp, &mut bytes);
        assert_eq!(bytes, NO_OP);
        assert_eq!(Entry::NoOp.len_bytes(), NO_OP.len());
    }

    #[test]
    fn no_other_bytes_are_a_no_op() {
        for bit in 0..NO_OP.len() * 8 {
            let mut bytes = NO_OP;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(parse(&bytes), Ok(Entry::NoOp), "bit {bit} flipped");
        }
        assert_eq!(parse(&[&NO_OP[..], &[0]].concat()), Err(Reject::Long));
        assert_eq!(parse(&NO_OP[1..]), Err(Reject::Short));
    }

    #[test]
    fn every_request_is_an_entry_and_nothing_else_is() {
        for vector in REQUESTS {
            let expect = match vector.bytes {
                bytes if bytes == NO_OP => Ok(Entry::NoOp),
                _ => vector.expect.map(Entry::Request),
            };
            assert_eq!(parse(vector.bytes), expect, "{}", vector.name);
        }
    }

    #[test]
    fn the_longest_request_is_the_longest_entry() {
        let (key, value) = (&[1; KEY_BYTES_MAX][..], &[2; VALUE_BYTES_MAX][..]);
        let command = Command::CompareAndSwap {
            key,
            expected: value,
            value,
        };
        let request = Request {
            client: 1,
            sequence: 2,
            command,
        };
        assert_eq!(Entry::Request(request).len_bytes(), ENTRY_BYTES_MAX);
    }
}
