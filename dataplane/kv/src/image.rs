//! A store's state as bytes: what a snapshot carries.
//!
//! ```text
//!  0       4         8           16                24      32
//!  +-------+---------+-----------+-----------------+-------+---------
//!  | magic | version | bytes max | value bytes max | count | entries …
//!  +-------+---------+-----------+-----------------+-------+---------
//!
//!  an entry, by ascending key:
//!  0         1           3
//!  +---------+-----------+-----+-------
//!  | key len | value len | key | value
//!  +---------+-----------+-----+-------
//! ```
//!
//! Integers are big-endian. A state has one image and an image is of one state, so replicas can be compared by it. The two
//! bounds are in it because they decide what a command does: a replica with other ones would go another way. There is no
//! checksum: who keeps or moves an image protects it.

use std::ops::Range;

use dataplane_wire::{
    Reject,
    quorum::{KEY_BYTES_MAX, reply::Entry},
};

use crate::{ENTRY_OVERHEAD_BYTES, StoreOptions, store::Map};

#[cfg(test)]
mod tests;

/// What an image begins with.
pub const MAGIC: [u8; 4] = *b"DPKV";
/// The version of this layout, and of what a command does to a state.
pub const VERSION: u32 = 1;
/// Length of the fixed part.
pub const IMAGE_HEADER_BYTES: usize = 32;

/// Where each field of the fixed part stands.
mod field {
    use super::Range;
    pub const MAGIC: Range<usize> = 0..4;
    pub const VERSION: Range<usize> = 4..8;
    pub const BYTES_MAX: Range<usize> = 8..16;
    pub const VALUE_BYTES_MAX: Range<usize> = 16..24;
    pub const COUNT: Range<usize> = 24..32;
}

/// Length of what stands before the key of an entry.
const ENTRY_HEADER_BYTES: usize = 3;

// An entry's image is never longer than what the entry counts, so no image is longer than its store's bound and a header.
const _: () = assert!(ENTRY_HEADER_BYTES as u64 <= ENTRY_OVERHEAD_BYTES);

fn header(options: &StoreOptions, entries_count: u64) -> [u8; IMAGE_HEADER_BYTES] {
    let mut header = [0; IMAGE_HEADER_BYTES];
    header[field::MAGIC].copy_from_slice(&MAGIC);
    header[field::VERSION].copy_from_slice(&VERSION.to_be_bytes());
    header[field::BYTES_MAX].copy_from_slice(&options.bytes_max.to_be_bytes());
    header[field::VALUE_BYTES_MAX].copy_from_slice(&(options.value_bytes_max as u64).to_be_bytes());
    header[field::COUNT].copy_from_slice(&entries_count.to_be_bytes());
    header
}

/// Appends the image of `map`, whose entries count `used_bytes`.
pub(crate) fn save(options: &StoreOptions, map: &Map, used_bytes: u64, out: &mut Vec<u8>) {
    let entries_count = map.len() as u64;
    let entries_bytes = used_bytes - entries_count * (ENTRY_OVERHEAD_BYTES - ENTRY_HEADER_BYTES as u64);
    out.reserve(IMAGE_HEADER_BYTES + entries_bytes as usize);
    out.extend_from_slice(&header(options, entries_count));
    for (key, value) in map {
        let [v0, v1] = (value.len() as u16).to_be_bytes();
        out.extend_from_slice(&[key.len() as u8, v0, v1]);
        out.extend_from_slice(key);
        out.extend_from_slice(value);
    }
}

/// The map of an image, and what its entries count. The image is read twice: nothing is taken from the heap for one that
/// is not sound throughout.
///
/// # Errors
/// As [`crate::Store`] says.
pub(crate) fn load(options: &StoreOptions, bytes: &[u8]) -> Result<(Map, u64), Reject> {
    let (head, entries) = bytes.split_first_chunk::<IMAGE_HEADER_BYTES>().ok_or(Reject::Short)?;
    if head[field::MAGIC] != MAGIC {
        return Err(Reject::Magic);
    }
    if head[field::VERSION] != VERSION.to_be_bytes() {
        return Err(Reject::Version);
    }
    let [.., c0, c1, c2, c3, c4, c5, c6, c7] = *head;
    let entries_count = u64::from_be_bytes([c0, c1, c2, c3, c4, c5, c6, c7]);
    if *head != header(options, entries_count) {
        return Err(Reject::Length);
    }
    let used_bytes = check_entries(options, entries, entries_count)?;
    let mut rest = entries;
    let pairs = std::iter::from_fn(|| {
        let ((key, value), behind) = split_entry(rest).ok()?;
        rest = behind;
        Some((key.into(), value.into()))
    });
    Ok((pairs.collect(), used_bytes))
}

/// What the entries count, if they are `entries_count` sound ones, in order, and nothing else.
fn check_entries(options: &StoreOptions, entries: &[u8], entries_count: u64) -> Result<u64, Reject> {
    let mut rest = entries;
    let mut used_bytes = 0;
    let mut last_key: &[u8] = &[];
    // Ends with the bytes, however large the count.
    for _ in 0..entries_count {
        let ((key, value), behind) = split_entry(rest)?;
        used_bytes += StoreOptions::weight_bytes(key, value);
        // No key is empty, so the first is above none.
        if key <= last_key || value.len() > options.value_bytes_max || used_bytes > options.bytes_max {
            return Err(Reject::Length);
        }
        (last_key, rest) = (key, behind);
    }
    match rest {
        [] => Ok(used_bytes),
        _ => Err(Reject::Long),
    }
}

// One byte says every length that a key may have.
const _: () = assert!(KEY_BYTES_MAX == u8::MAX as usize);

/// An entry, and what stands behind it.
fn split_entry(bytes: &[u8]) -> Result<(Entry<'_>, &[u8]), Reject> {
    let ([key_len, v0, v1], rest) = bytes.split_first_chunk::<ENTRY_HEADER_BYTES>().ok_or(Reject::Short)?;
    let (key, rest) = rest.split_at_checked((*key_len).into()).ok_or(Reject::Short)?;
    let value_len = u16::from_be_bytes([*v0, *v1]).into();
    let (value, rest) = rest.split_at_checked(value_len).ok_or(Reject::Short)?;
    Ok(((key, value), rest))
}
