//! CRC-32C (Castagnoli), as in iSCSI: RFC 3720 §12.1 and appendix B.4 (test vectors).

#[cfg(all(feature = "std", target_arch = "x86_64"))]
mod sse42;

/// CRC-32C of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    #[cfg(all(feature = "std", target_arch = "x86_64"))]
    {
        sse42::of_short(bytes).unwrap_or_else(|| ::crc32c::crc32c(bytes))
    }
    #[cfg(all(feature = "std", not(target_arch = "x86_64")))]
    {
        ::crc32c::crc32c(bytes)
    }
    #[cfg(not(feature = "std"))]
    {
        crc32c_table(bytes)
    }
}

/// The same value from tables, eight bytes at a time: what a target without the instruction computes.
pub fn crc32c_table(bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut crc = !0u32;
    for word in words {
        crc = crc32c_word(crc, u64::from_le_bytes(*word));
    }
    for &byte in rest {
        crc = crc32c_byte(crc, byte);
    }
    !crc
}

/// Carries the state of a CRC-32C over eight bytes, read as a little-endian number. A state begins as all ones, and its
/// complement is the checksum: for those who see the bytes a word at a time.
///
/// A CRC is linear: the checksums of two messages of one length differ by what this makes, from a state of zero, of how the
/// messages differ.
#[inline(always)]
pub fn crc32c_word(state: u32, word: u64) -> u32 {
    let [a, b, c, d, e, f, g, h] = (word ^ state as u64).to_le_bytes();
    // TABLES[n] moves a byte past the n bytes behind it, so the eight are looked up side by side, not one after
    // the other ("slicing-by-8", Kounavis and Berry, ISCC 2005).
    TABLES[7][a as usize]
        ^ TABLES[6][b as usize]
        ^ TABLES[5][c as usize]
        ^ TABLES[4][d as usize]
        ^ TABLES[3][e as usize]
        ^ TABLES[2][f as usize]
        ^ TABLES[1][g as usize]
        ^ TABLES[0][h as usize]
}

/// As [`crc32c_word`], over four bytes.
#[inline(always)]
pub fn crc32c_half(state: u32, half: u32) -> u32 {
    let [a, b, c, d] = (half ^ state).to_le_bytes();
    TABLES[3][a as usize] ^ TABLES[2][b as usize] ^ TABLES[1][c as usize] ^ TABLES[0][d as usize]
}

/// How a difference of `byte` with `BEHIND` equal bytes behind it changes a message's CRC-32C; at most [`BEHIND_BYTES_MAX`].
#[inline(always)]
pub fn crc32c_difference_at<const BEHIND: usize>(byte: u8) -> u32 {
    TABLES[BEHIND][byte as usize]
}

/// As [`crc32c_word`], over one byte.
#[inline(always)]
pub fn crc32c_byte(state: u32, byte: u8) -> u32 {
    (state >> 8) ^ TABLES[0][((state ^ byte as u32) & 0xff) as usize]
}

/// The same value at compile time, a byte at a time.
pub const fn crc32c_const(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    let mut index = 0;
    while index < bytes.len() {
        crc = (crc >> 8) ^ BYTE_TABLE[((crc ^ bytes[index] as u32) & 0xff) as usize];
        index += 1;
    }
    !crc
}

/// Reversed Castagnoli polynomial, RFC 3720 §12.1 (0x11EDC6F41 without its top bit, bit-reversed).
const POLYNOMIAL: u32 = 0x82F6_3B78;

/// What each byte adds.
const BYTE_TABLE: [u32; 256] = {
    let mut table = [0u32; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = index as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ POLYNOMIAL
            } else {
                crc >> 1
            };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
};

/// See [`crc32c_difference_at`]: from the last byte of a slot to the end of a frame's header.
pub const BEHIND_BYTES_MAX: usize = 12;

static TABLES: [[u32; 256]; BEHIND_BYTES_MAX + 1] = {
    let mut tables = [[0u32; 256]; BEHIND_BYTES_MAX + 1];
    tables[0] = BYTE_TABLE;
    let mut behind = 1;
    while behind <= BEHIND_BYTES_MAX {
        let mut index = 0;
        while index < 256 {
            let crc = tables[behind - 1][index];
            tables[behind][index] = (crc >> 8) ^ tables[0][(crc & 0xff) as usize];
            index += 1;
        }
        behind += 1;
    }
    tables
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 3720 appendix B.4.
    #[test]
    fn rfc3720_vectors() {
        let rising: [u8; 32] = core::array::from_fn(|index| index as u8);
        let falling: [u8; 32] = core::array::from_fn(|index| 31 - index as u8);
        for crc in [crc32c, crc32c_table, crc32c_const] {
            assert_eq!(crc(&[0; 32]), 0x8a91_36aa);
            assert_eq!(crc(&[0xff; 32]), 0x62a8_ab43);
            assert_eq!(crc(&rising), 0x46dd_794e);
            assert_eq!(crc(&falling), 0x113f_db5c);
            assert_eq!(crc(b"123456789"), 0xe306_9283);
            assert_eq!(crc(b""), 0);
        }
    }

    proptest! {
        #[test]
        fn a_difference_of_bytes_is_a_difference_of_checksums(
            mut bytes in prop::collection::vec(any::<u8>(), 1..100), mask in prop::collection::vec(any::<u8>(), 100),
        ) {
            let before = crc32c(&bytes);
            for (byte, bits) in bytes.iter_mut().zip(&mask) {
                *byte ^= bits;
            }
            let difference = mask[..bytes.len()].iter().fold(0, |state, &byte| crc32c_byte(state, byte));
            prop_assert_eq!(before ^ crc32c(&bytes), difference);
        }

        #[test]
        fn a_half_word_is_four_bytes(state in any::<u32>(), bytes in any::<[u8; 4]>()) {
            let one_by_one = bytes.iter().fold(state, |state, &byte| crc32c_byte(state, byte));
            prop_assert_eq!(crc32c_half(state, u32::from_le_bytes(bytes)), one_by_one);
        }

        /// The instruction and the tables must agree, or an XDP program would refuse what user space sends.
        #[test]
        fn tables_are_the_instruction(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(crc32c_table(&bytes), crc32c(&bytes));
        }
    }
}
