//! Memory that peers write while the owner reads: words of 8 bytes, each read and written whole.
//!
//! Nothing is ever lent as a slice. A copy is made word by word with atomic operations, so a race with a peer gives old words
//! and new ones (a torn message), never undefined behaviour. Bytes at the ends of a range are merged into their word.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::sys::mapping::SharedWords;

/// Bytes of a word: what is never torn.
pub const WORD_BYTES: usize = 8;

/// A piece of memory, shared between who registered it and who may reach it.
#[derive(Debug)]
pub struct Memory {
    words: Words,
    len_bytes: usize,
}

#[derive(Debug)]
enum Words {
    Own(Box<[AtomicU64]>),
    Shared(SharedWords),
}

impl Memory {
    /// Zeroes.
    pub fn new(len_bytes: usize) -> Arc<Memory> {
        let words = (0..len_bytes.div_ceil(WORD_BYTES)).map(|_| AtomicU64::new(0));
        Arc::new(Memory {
            words: Words::Own(words.collect()),
            len_bytes,
        })
    }

    /// All of a mapping.
    pub(crate) fn shared(words: SharedWords) -> Memory {
        Memory {
            len_bytes: words.words().len() * WORD_BYTES,
            words: Words::Shared(words),
        }
    }

    fn words(&self) -> &[AtomicU64] {
        match &self.words {
            Words::Own(words) => words,
            Words::Shared(words) => words.words(),
        }
    }

    /// Where its first byte is, for a device that is told to reach it.
    pub(crate) fn begin(&self) -> *const AtomicU64 {
        self.words().as_ptr()
    }

    /// One word, in this machine's order.
    ///
    /// # Panics
    /// As [`Memory::compare_swap`].
    pub(crate) fn load_word(&self, at: usize) -> u64 {
        self.word(at).load(Ordering::Acquire)
    }

    /// One word; whoever sees it sees what was written before.
    ///
    /// # Panics
    /// As [`Memory::compare_swap`].
    pub(crate) fn store_word(&self, at: usize, value: u64) {
        self.word(at).store(value, Ordering::Release);
    }

    /// How long it is.
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    fn check(&self, at: usize, len: usize) {
        let end = at.checked_add(len);
        assert!(
            end.is_some_and(|end| end <= self.len_bytes),
            "{len} bytes at {at} are not inside memory of {} bytes",
            self.len_bytes
        );
    }

    /// Copies `bytes` in, words in rising order.
    ///
    /// # Panics
    /// If the range is not inside.
    pub fn write(&self, at: usize, bytes: &[u8]) {
        self.check(at, bytes.len());
        let words = self.words();
        let (mut word, inside) = (at / WORD_BYTES, at % WORD_BYTES);
        let head_bytes = if inside == 0 {
            0
        } else {
            bytes.len().min(WORD_BYTES - inside)
        };
        let (head, rest) = bytes.split_at(head_bytes);
        if !head.is_empty() {
            self.merge(word, inside, head);
            word += 1;
        }
        let (whole, tail) = rest.as_chunks::<WORD_BYTES>();
        for (slot, chunk) in words[word.min(words.len())..].iter().zip(whole) {
            // Whoever sees the last word of a message sees the words before it.
            slot.store(u64::from_ne_bytes(*chunk), Ordering::Release);
        }
        if !tail.is_empty() {
            self.merge(word + whole.len(), 0, tail);
        }
    }

    /// Replaces some bytes of a word and leaves the others, whoever writes them meanwhile.
    fn merge(&self, word: usize, at: usize, bytes: &[u8]) {
        let update = |old: u64| {
            let mut word = old.to_ne_bytes();
            word[at..at + bytes.len()].copy_from_slice(bytes);
            Some(u64::from_ne_bytes(word))
        };
        let _ = self.words()[word].fetch_update(Ordering::AcqRel, Ordering::Acquire, update);
    }

    /// Copies bytes out, words in rising order.
    ///
    /// # Panics
    /// If the range is not inside.
    pub fn read(&self, at: usize, into: &mut [u8]) {
        self.check(at, into.len());
        let load = |word: usize| self.words()[word].load(Ordering::Acquire).to_ne_bytes();
        let words = self.words();
        let (mut word, inside) = (at / WORD_BYTES, at % WORD_BYTES);
        let head_bytes = if inside == 0 {
            0
        } else {
            into.len().min(WORD_BYTES - inside)
        };
        let (head, rest) = into.split_at_mut(head_bytes);
        if !head.is_empty() {
            head.copy_from_slice(&load(word)[inside..inside + head_bytes]);
            word += 1;
        }
        let (whole, tail) = rest.as_chunks_mut::<WORD_BYTES>();
        for (slot, chunk) in words[word.min(words.len())..].iter().zip(whole.iter_mut()) {
            *chunk = slot.load(Ordering::Acquire).to_ne_bytes();
        }
        if !tail.is_empty() {
            let tail_bytes = tail.len();
            tail.copy_from_slice(&load(word + whole.len())[..tail_bytes]);
        }
    }

    /// Puts `swap` where `compare` stands; says what stood there.
    ///
    /// # Panics
    /// If `at` is no multiple of 8, or not inside.
    pub fn compare_swap(&self, at: usize, compare: u64, swap: u64) -> u64 {
        let word = self.word(at);
        match word.compare_exchange(compare, swap, Ordering::AcqRel, Ordering::Acquire) {
            Ok(original) | Err(original) => original,
        }
    }

    /// Adds, modulo 2⁶⁴; says what stood there.
    ///
    /// # Panics
    /// As [`Memory::compare_swap`].
    pub fn fetch_add(&self, at: usize, add: u64) -> u64 {
        self.word(at).fetch_add(add, Ordering::AcqRel)
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        self.check(at, WORD_BYTES);
        assert!(at.is_multiple_of(WORD_BYTES), "{at} is not the beginning of a word");
        &self.words()[at / WORD_BYTES]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_behaves_as_a_slice(
            len in 0usize..80, writes in prop::collection::vec((any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 0..40)), 0..8),
        ) {
            let memory = Memory::new(len);
            let mut model = vec![0; len];
            for (at, bytes) in writes {
                let at = at.index(len + 1);
                let bytes = &bytes[..bytes.len().min(len - at)];
                memory.write(at, bytes);
                model[at..at + bytes.len()].copy_from_slice(bytes);
            }
            for at in 0..=len {
                for end in at..=len {
                    let mut read = vec![0xaa; end - at];
                    memory.read(at, &mut read);
                    prop_assert_eq!(&read, &model[at..end]);
                }
            }
        }
    }

    #[test]
    fn atomics_tell_what_stood_there() {
        let memory = Memory::new(24);
        assert_eq!(memory.fetch_add(8, 5), 0);
        assert_eq!(memory.fetch_add(8, u64::MAX), 5);
        assert_eq!(memory.compare_swap(8, 9, 1), 4);
        assert_eq!(memory.compare_swap(8, 4, 7), 4);
        let mut word = [0; 8];
        memory.read(8, &mut word);
        assert_eq!(u64::from_ne_bytes(word), 7);
    }

    #[test]
    #[should_panic(expected = "not inside")]
    fn a_range_outside_is_refused() {
        Memory::new(24).write(20, &[0; 5]);
    }
}
