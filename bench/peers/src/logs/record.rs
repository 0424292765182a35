//! What is appended: a number and bytes that follow from it, so that a record that comes back can be told from any other.

/// Bytes of each record.
pub const RECORD_BYTES: usize = 256;

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub index: u64,
    pub bytes: [u8; RECORD_BYTES],
}

impl Record {
    /// The `index`th.
    pub fn new(index: u64) -> Record {
        let mut bytes = [0; RECORD_BYTES];
        bytes[..8].copy_from_slice(&index.to_be_bytes());
        // xorshift64*: no two records look alike, and no byte repeats where it could hide.
        let mut state = index.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        for byte in &mut bytes[8..] {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            *byte = (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8;
        }
        Record { index, bytes }
    }

    /// Which record these bytes are, if they are one.
    pub fn index_of(bytes: &[u8]) -> Option<u64> {
        let index = u64::from_be_bytes(bytes.get(..8)?.try_into().ok()?);
        (Record::new(index).bytes[..] == *bytes).then_some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_known_by_all_its_bytes() {
        let record = Record::new(7);
        assert_eq!(Record::index_of(&record.bytes), Some(7));
        for bit in 0..RECORD_BYTES * 8 {
            let mut bytes = record.bytes;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Record::index_of(&bytes), None, "bit {bit}");
        }
        assert_eq!(Record::index_of(&record.bytes[1..]), None);
        assert_eq!(Record::index_of(b""), None);
    }
}
