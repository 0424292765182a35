//! What a client asks of a replicated store, and what it is told: the payloads of `Kind::QuorumRequest` and
//! `Kind::QuorumReply`.
//!
//! A client numbers its requests; a reply names the number, and a request that comes twice is the same request
//! (Raft §8). Keys and values are bounded byte strings, so the largest request and the largest reply fit one frame.

pub mod reply;
pub mod request;

use crate::frame::PAYLOAD_BYTES_MAX;

/// The longest key. The shortest has one byte.
pub const KEY_BYTES_MAX: usize = u8::MAX as usize;
/// The longest value; the shortest is empty.
pub const VALUE_BYTES_MAX: usize = 16_384;

// The longest request is a compare-and-swap: a key and two values.
const _: () = assert!(request::HEADER_BYTES + KEY_BYTES_MAX + 2 * VALUE_BYTES_MAX <= PAYLOAD_BYTES_MAX);
// A reply must be able to hold at least one entry of a range, whatever its size, or the range could never go on.
const _: () =
    assert!(reply::HEADER_BYTES + reply::ENTRY_HEADER_BYTES + KEY_BYTES_MAX + VALUE_BYTES_MAX <= PAYLOAD_BYTES_MAX);

/// Panics with the length when a key has none or too many bytes: a caller's mistake, never a peer's.
fn assert_key(key: &[u8]) {
    assert!(
        (1..=KEY_BYTES_MAX).contains(&key.len()),
        "a key of {} bytes; 1 to {KEY_BYTES_MAX} are allowed",
        key.len()
    );
}

/// As [`assert_key`], for values.
fn assert_value(value: &[u8]) {
    assert!(
        value.len() <= VALUE_BYTES_MAX,
        "a value of {} bytes; at most {VALUE_BYTES_MAX} are allowed",
        value.len()
    );
}
