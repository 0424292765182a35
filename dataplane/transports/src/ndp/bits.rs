//! A set of packet numbers that begins nowhere: bits, allocated when the first is set.

#[derive(Debug, Default)]
pub struct Bits {
    words: Vec<u64>,
    count: u32,
}

impl Bits {
    pub fn contains(&self, index: u32) -> bool {
        self.words
            .get(index as usize / 64)
            .is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    /// True if it was not there.
    pub fn insert(&mut self, index: u32, len: u32) -> bool {
        debug_assert!(index < len);
        if self.words.is_empty() {
            self.words = vec![0; (len as usize).div_ceil(64)];
        }
        let word = &mut self.words[index as usize / 64];
        let bit = 1 << (index % 64);
        let is_new = *word & bit == 0;
        *word |= bit;
        self.count += u32::from(is_new);
        is_new
    }

    pub fn count(&self) -> u32 {
        self.count
    }

    /// Gives its memory back; the count stays.
    pub fn free(&mut self) {
        self.words = Vec::new();
    }

    pub fn heap_bytes(&self) -> usize {
        self.words.capacity() * size_of::<u64>()
    }
}
