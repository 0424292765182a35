//! What a client asks of a replicated store and what it is told: the payloads of `Kind::QuorumRequest` and
//! `Kind::QuorumReply`. And what the replicas say to each other: the frames of `Kind::Append` to `Kind::SnapshotReport`.
//!
//! A client numbers its requests; a reply names the number, and a request that comes twice is the same request
//! (Raft §8). Keys and values are bounded byte strings, so the largest request and the largest reply fit one frame.
//!
//! ```text
//!  client ── request ──► leader ── append ───────────────► follower     the fast path: one entry, nothing missing
//!         ◄── reply ────        ◄──────────────── ack ────
//!                               ── entries ──────────────►              heartbeat, repair, batch
//!                               ◄───────────── report ────
//!                               ── snapshot chunk ───────►              what the log no longer has
//!                               ◄──── snapshot report ────
//!
//!                     candidate ── vote request ─────────► voter
//!                               ◄───────── vote reply ────
//! ```
//!
//! A message of the replicas is made from a checked frame and gives its own header, because it is spread over both: what
//! a program in the kernel reads or writes stands in the header, at the same place for every kind.

pub mod ack;
pub mod append;
pub mod entries;
pub mod entry;
pub mod members;
mod message;
pub mod reply;
pub mod report;
pub mod request;
pub mod sender;
pub mod snapshot;
pub mod status;
pub mod vote;

use crate::frame::PAYLOAD_BYTES_MAX;

/// The longest key. The shortest has one byte.
pub const KEY_BYTES_MAX: usize = u8::MAX as usize;
/// The longest value; the shortest is empty.
pub const VALUE_BYTES_MAX: usize = 16_384;

// The longest request is the longest entry, and goes alone or behind what every message with entries begins with.
const _: () =
    assert!(entries::HEADER_BYTES + entries::ENTRY_HEADER_BYTES + entry::ENTRY_BYTES_MAX <= PAYLOAD_BYTES_MAX);
// The length of an entry is said in 16 bits.
const _: () = assert!(entry::ENTRY_BYTES_MAX <= u16::MAX as usize);
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
