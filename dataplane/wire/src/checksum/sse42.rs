//! CRC-32C of what fits into a frame, by the processor's own instruction (SSE 4.2, `CRC32`).
//!
//! The crate `crc32c` reads aligned words: up to seven bytes before and behind them go one by one, three cycles each, which
//! frames of 40 to 80 bytes feel. Here words stand wherever the frame begins. Long messages are the crate's, which folds
//! three streams into one.
#![allow(unsafe_code)]

use core::arch::x86_64::{_mm_crc32_u8, _mm_crc32_u32, _mm_crc32_u64};

/// Above this the crate's three streams win over one.
const SHORT_BYTES_MAX: usize = 512;

/// CRC-32C of `bytes`; `None` if they are long or the processor has no such instruction.
#[inline]
pub(super) fn of_short(bytes: &[u8]) -> Option<u32> {
    if bytes.len() > SHORT_BYTES_MAX || !std::arch::is_x86_feature_detected!("sse4.2") {
        return None;
    }
    // SAFETY: the processor has just been asked for the one feature that the function needs.
    Some(unsafe { by_instruction(bytes) })
}

#[target_feature(enable = "sse4.2")]
fn by_instruction(bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut state = u64::from(!0u32);
    for word in words {
        state = _mm_crc32_u64(state, u64::from_le_bytes(*word));
    }
    let (halves, rest) = rest.as_chunks::<4>();
    let mut state = state as u32;
    for half in halves {
        state = _mm_crc32_u32(state, u32::from_le_bytes(*half));
    }
    for &byte in rest {
        state = _mm_crc32_u8(state, byte);
    }
    !state
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::crc32c_table;

    #[test]
    fn every_length_and_every_alignment_is_what_the_tables_say() {
        if !std::arch::is_x86_feature_detected!("sse4.2") {
            println!("not run: this processor has no SSE 4.2");
            return;
        }
        let bytes: Vec<u8> = (0..SHORT_BYTES_MAX + 16)
            .map(|index| (index * 131 + index / 7) as u8)
            .collect();
        for begin in 0..8 {
            for len in 0..=SHORT_BYTES_MAX {
                let part = &bytes[begin..begin + len];
                assert_eq!(of_short(part), Some(crc32c_table(part)), "{len} bytes from {begin}");
            }
        }
        assert_eq!(of_short(&bytes), None);
    }
}
