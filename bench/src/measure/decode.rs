//! Reads an HdrHistogram (V2, deflated, base64) out of a record that anybody may have written.
//!
//! The hdrhistogram crate has a decoder too, which allocates what the input's length field asks for (up to 4 GB), and
//! negates the smallest integer; records come from files, so this one is bounded. Layout: `V2Deflate` and `V2Serializer`
//! of the HdrHistogram project, the same bytes in Java, C and Rust.

use std::io::Read;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use flate2::read::ZlibDecoder;
use hdrhistogram::Histogram;

use super::recorder::SIGNIFICANT_DIGITS;

/// Longest text that is decoded. Every bucket of a recorder filled with a count of its own is a third of it.
const TEXT_BYTES_MAX: usize = 1 << 20;
/// Most bytes that it may inflate to: 9 for each of the buckets, and the header, with room to spare.
const V2_BYTES_MAX: u64 = 1 << 20;
/// `0x1c849304` with the size of the counters' words, 0x10: the cookie of an encoded and compressed V2 histogram.
const COOKIE_DEFLATED: u32 = 0x1c84_9304 | 0x10;
/// The same for the uncompressed V2 encoding inside.
const COOKIE_PLAIN: u32 = 0x1c84_9303 | 0x10;
/// Length of the V2 header: cookie, payload length, normalizing offset, digits, lowest, highest, ratio.
const HEADER_BYTES: usize = 40;
/// Each bucket of a histogram with three digits holds 2^10 sub-buckets (the first one twice as many).
const SUB_BUCKET_BITS: u32 = 10;

/// Why a distribution's histogram cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Longer than any histogram of ours.
    #[error("the encoded histogram has {length_bytes} bytes; at most {TEXT_BYTES_MAX} are read")]
    TooLong {
        /// Its length.
        length_bytes: usize,
    },
    /// Not base64.
    #[error("the encoded histogram is not base64: {0}")]
    Base64(String),
    /// Not a V2 histogram, or cut.
    #[error("the encoded histogram is damaged: {0}")]
    Damaged(&'static str),
    /// A histogram of other bounds or precision than ours, which cannot be merged.
    #[error("the encoded histogram has other bounds than dplab's: {0}")]
    Foreign(&'static str),
    /// The record's own count is not the histogram's.
    #[error("the record says {said} samples, its histogram holds {found}: one of the two was changed")]
    Count {
        /// In the record.
        said: u64,
        /// In the histogram.
        found: u64,
    },
}

use DecodeError::{Damaged, Foreign};

/// Adds the counts in `text` to the empty `histogram`.
pub(super) fn fill(text: &str, histogram: &mut Histogram<u64>) -> Result<(), DecodeError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(DecodeError::TooLong {
            length_bytes: text.len(),
        });
    }
    let bytes = BASE64
        .decode(text)
        .map_err(|error| DecodeError::Base64(error.to_string()))?;
    let (envelope, deflated) = bytes.split_first_chunk::<8>().ok_or(Damaged("it is cut"))?;
    if u32_at(envelope, 0) != COOKIE_DEFLATED {
        return Err(Damaged("it does not begin as a deflated V2 histogram"));
    }
    if u32_at(envelope, 4) as usize != deflated.len() {
        return Err(Damaged("its length is not the one it states"));
    }
    let mut plain = Vec::new();
    ZlibDecoder::new(deflated)
        .take(V2_BYTES_MAX + 1)
        .read_to_end(&mut plain)
        .map_err(|_| Damaged("it does not inflate"))?;
    if plain.len() as u64 > V2_BYTES_MAX {
        return Err(Damaged("it inflates beyond any histogram's size"));
    }
    let (header, counts) = plain
        .split_first_chunk::<HEADER_BYTES>()
        .ok_or(Damaged("its header is cut"))?;
    if u32_at(header, 0) != COOKIE_PLAIN {
        return Err(Damaged("it does not hold a V2 histogram"));
    }
    if u32_at(header, 4) as usize != counts.len() {
        return Err(Damaged("its counts are cut"));
    }
    if u32_at(header, 8) != 0 || f64::from_bits(u64_at(header, 32)) != 1.0 {
        return Err(Foreign("it is shifted or scaled"));
    }
    if u32_at(header, 12) != u32::from(SIGNIFICANT_DIGITS) {
        return Err(Foreign("its precision is not three digits"));
    }
    if u64_at(header, 16) != histogram.low() || u64_at(header, 24) != histogram.high() {
        return Err(Foreign("its range is another"));
    }
    fill_counts(counts, histogram)
}

/// The counts are ZigZag LEB128 numbers: a positive one is a bucket's count, a negative one a run of empty buckets.
fn fill_counts(mut counts: &[u8], histogram: &mut Histogram<u64>) -> Result<(), DecodeError> {
    let buckets_count = histogram.distinct_values() as u64;
    let mut index: u64 = 0;
    let mut sum: u64 = 0;
    while !counts.is_empty() {
        let (encoded, rest) = varint(counts).ok_or(Damaged("its last count is cut"))?;
        counts = rest;
        let number = ((encoded >> 1) as i64) ^ -((encoded & 1) as i64);
        if number < 0 {
            index = index.saturating_add(number.unsigned_abs());
            continue;
        }
        let count = number as u64;
        if count > 0 {
            if index >= buckets_count {
                return Err(Damaged("it has more buckets than its range"));
            }
            sum = sum.checked_add(count).ok_or(Damaged("its counts overflow"))?;
            histogram
                .record_n(bucket_low_ns(index), count)
                .map_err(|_| Damaged("a value is outside its range"))?;
        }
        index = index.saturating_add(1);
    }
    Ok(())
}

/// The smallest value that bucket `index` stands for. The first 2^11 buckets are one nanosecond wide, each following
/// 2^10 are twice as wide as those before.
fn bucket_low_ns(index: u64) -> u64 {
    match (index >> SUB_BUCKET_BITS).checked_sub(1) {
        None => index,
        Some(doublings) => ((index & ((1 << SUB_BUCKET_BITS) - 1)) + (1 << SUB_BUCKET_BITS)) << doublings,
    }
}

/// One LEB128 number of at most 9 bytes, the ninth taken whole, and what follows it.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().enumerate().take(9) {
        if index == 8 {
            return Some((value | u64::from(byte) << 56, &bytes[9..]));
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[index + 1..]));
        }
    }
    None
}

fn u32_at<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::ZlibEncoder};
    use proptest::prelude::*;

    use super::*;
    use crate::measure::{Recorder, VALUE_NS_MAX};

    fn decode(text: &str) -> Result<Recorder, DecodeError> {
        let mut recorder = Recorder::new();
        fill(text, &mut recorder.histogram).map(|()| recorder)
    }

    /// A well-formed envelope around any header fields and counts.
    fn wrap(cookie: u32, digits: u32, high: u64, stated_bytes: u32, counts: &[u8]) -> String {
        let mut plain = Vec::new();
        plain.extend(cookie.to_be_bytes());
        plain.extend(stated_bytes.to_be_bytes());
        plain.extend(0u32.to_be_bytes());
        plain.extend(digits.to_be_bytes());
        plain.extend(1u64.to_be_bytes());
        plain.extend(high.to_be_bytes());
        plain.extend(1f64.to_be_bytes());
        plain.extend(counts);
        deflate(&plain)
    }

    fn deflate(plain: &[u8]) -> String {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(plain).unwrap();
        let deflated = encoder.finish().unwrap();
        let mut bytes = COOKIE_DEFLATED.to_be_bytes().to_vec();
        bytes.extend((deflated.len() as u32).to_be_bytes());
        bytes.extend(deflated);
        BASE64.encode(bytes)
    }

    fn ours(counts: &[u8]) -> String {
        wrap(COOKIE_PLAIN, 3, VALUE_NS_MAX, counts.len() as u32, counts)
    }

    #[test]
    fn bucket_indexes_are_the_crate_s() {
        let histogram = Recorder::new().histogram;
        let mut value = 0;
        for index in 0..histogram.distinct_values() as u64 {
            assert_eq!(bucket_low_ns(index), value, "bucket {index}");
            value = histogram.next_non_equivalent(value);
        }
    }

    #[test]
    fn what_is_not_our_histogram_is_refused_with_a_reason() {
        assert_eq!(decode(&ours(&[2])).unwrap().samples_count(), 1);
        for (text, said) in [
            (String::new(), "cut"),
            ("not base64!".into(), "not base64"),
            ("A".repeat(TEXT_BYTES_MAX + 4), "at most"),
            (BASE64.encode([0; 64]), "does not begin"),
            (ours(&[2])[..32].into(), "length is not"),
            (deflate(&[0; 20]), "header is cut"),
            (wrap(1, 3, VALUE_NS_MAX, 1, &[2]), "does not hold"),
            (wrap(COOKIE_PLAIN, 2, VALUE_NS_MAX, 1, &[2]), "three digits"),
            (wrap(COOKIE_PLAIN, 3, 1_000, 1, &[2]), "range"),
            (wrap(COOKIE_PLAIN, 3, VALUE_NS_MAX, u32::MAX, &[2]), "counts are cut"),
            (ours(&[0x80]), "last count is cut"),
            // A run of 2⁶³ empty buckets, then a count.
            (
                ours(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]),
                "more buckets",
            ),
            // Three counts whose sum is above 2⁶⁴.
            (
                ours(&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff].repeat(3)),
                "overflow",
            ),
            (deflate(&vec![0; V2_BYTES_MAX as usize + 1]), "inflates beyond"),
        ] {
            let error = decode(&text).expect_err(said).to_string();
            assert!(error.contains(said), "{error:?} should say {said:?}");
        }
    }

    proptest! {
        #[test]
        fn any_recorder_comes_back(values in prop::collection::vec(0..=VALUE_NS_MAX, 0..300)) {
            let mut recorder = Recorder::new();
            values.iter().for_each(|&value| recorder.record(value));
            let back = Recorder::from_distribution(&recorder.distribution(&[0.5])).unwrap();
            prop_assert_eq!(back, recorder);
        }

        #[test]
        fn any_counts_are_answered_without_a_panic(counts in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&ours(&counts));
        }

        #[test]
        fn any_plain_bytes_are_answered_without_a_panic(plain in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(decode(&deflate(&plain)).is_err());
        }

        #[test]
        fn any_text_is_answered_without_a_panic(text in ".{0,200}") {
            prop_assert!(decode(&text).is_err());
        }
    }
}
