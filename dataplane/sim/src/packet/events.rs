//! The pending events of links: a calendar of intrusive lists, in front of a heap for the far future.
//!
//! A link has at most two pending events whatever it carries: its transmitter becomes free, its first packet arrives. So
//! an event is the number of its link's end, known beforehand; the list of a bucket runs through one array, and nothing
//! is allocated. Link events lie a few microseconds ahead: they find their bucket by a shift, and the next bucket that
//! holds something by two bit scans.
//!
//! ```text
//!   due (sorted)   buckets of 2^shift ps, a ring of 2048           far (a heap)
//!  ┌───────────┐  ┌────┬────┬────┬────┬─────                 ┌──────────────────
//!  │ 7 ← 3 ← 9 │  │    │ 12 │    │ 5 ─▶ 8 …                  │ beyond the ring
//!  └───────────┘  └────┴────┴────┴────┴─────                 └──────────────────
//!     cursor's bucket and before
//! ```

use std::{cmp::Reverse, collections::BinaryHeap};

const BUCKETS_COUNT: usize = 2048;
const WORDS_COUNT: usize = BUCKETS_COUNT / 64;
const NONE: u32 = u32::MAX;

/// When, and what: 16 bytes. The order is by time, and at the same time by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub at_ps: u64,
    pub id: u32,
}

/// Events with a number below the one given at the beginning; each pending at most once. Order: time, then number.
#[derive(Debug)]
pub(crate) struct EventList {
    /// By event: when it is due, and the next of its bucket.
    links: Vec<Link>,
    /// By bucket, modulo the ring: its first event.
    heads: Vec<u32>,
    /// Which buckets hold something, and which words of that are not zero.
    occupied: [u64; WORDS_COUNT],
    summary: u64,
    /// A bucket is 2^shift picoseconds.
    shift: u32,
    /// The bucket whose events stand in `due`.
    cursor: u64,
    /// Backwards: the last is the next.
    due: Vec<Entry>,
    far: BinaryHeap<Reverse<Entry>>,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    at_ps: u64,
    next: u32,
}

impl EventList {
    /// For events numbered below `ids_count` that usually lie at most `horizon_ps` ahead.
    pub fn new(ids_count: usize, horizon_ps: u64) -> EventList {
        let bucket_ps = (horizon_ps / BUCKETS_COUNT as u64).max(1).next_power_of_two();
        EventList {
            links: vec![Link { at_ps: 0, next: NONE }; ids_count],
            heads: vec![NONE; BUCKETS_COUNT],
            occupied: [0; WORDS_COUNT],
            summary: 0,
            shift: bucket_ps.trailing_zeros(),
            cursor: 0,
            due: Vec::with_capacity(64),
            far: BinaryHeap::new(),
        }
    }

    /// Bytes that a list for so many events takes.
    pub const fn memory_bytes(ids_count: usize) -> usize {
        ids_count * size_of::<Link>() + BUCKETS_COUNT * size_of::<u32>() + size_of::<EventList>()
    }

    /// Plans an event that is not pending.
    #[inline]
    pub fn insert(&mut self, id: u32, at_ps: u64) {
        let bucket = at_ps >> self.shift;
        if bucket <= self.cursor {
            self.insert_due(Entry { at_ps, id });
        } else if bucket - self.cursor < BUCKETS_COUNT as u64 {
            let slot = bucket as usize % BUCKETS_COUNT;
            self.links[id as usize] = Link {
                at_ps,
                next: self.heads[slot],
            };
            self.heads[slot] = id;
            self.occupied[slot / 64] |= 1 << (slot % 64);
            self.summary |= 1 << (slot / 64);
        } else {
            self.far.push(Reverse(Entry { at_ps, id }));
        }
    }

    fn insert_due(&mut self, entry: Entry) {
        let mut index = self.due.len();
        self.due.push(entry);
        while index > 0 && self.due[index - 1] < entry {
            self.due[index] = self.due[index - 1];
            index -= 1;
        }
        self.due[index] = entry;
    }

    /// When the next event is due; the end of time if there is none.
    #[inline]
    pub fn next_at_ps(&mut self) -> u64 {
        if self.due.is_empty() {
            self.advance();
        }
        self.due.last().map_or(u64::MAX, |entry| entry.at_ps)
    }

    /// Takes the next event. Call [`EventList::next_at_ps`] before.
    #[inline]
    pub fn pop(&mut self) -> Option<Entry> {
        self.due.pop()
    }

    /// Moves the cursor to the next bucket that holds something.
    fn advance(&mut self) {
        let near = self.next_occupied();
        let far = self
            .far
            .peek()
            .map_or(u64::MAX, |Reverse(entry)| entry.at_ps >> self.shift);
        let bucket = near.min(far);
        if bucket == u64::MAX {
            return;
        }
        self.cursor = bucket;
        if near == bucket {
            let slot = bucket as usize % BUCKETS_COUNT;
            let mut id = std::mem::replace(&mut self.heads[slot], NONE);
            self.occupied[slot / 64] &= !(1 << (slot % 64));
            if self.occupied[slot / 64] == 0 {
                self.summary &= !(1 << (slot / 64));
            }
            while id != NONE {
                let link = self.links[id as usize];
                self.due.push(Entry { at_ps: link.at_ps, id });
                id = link.next;
            }
        }
        while let Some(&Reverse(entry)) = self.far.peek()
            && entry.at_ps >> self.shift == bucket
        {
            self.due.push(entry);
            self.far.pop();
        }
        if self.due.len() > 1 {
            self.due.sort_unstable_by_key(|&entry| Reverse(entry));
        }
    }

    /// The first bucket after the cursor that holds something.
    fn next_occupied(&self) -> u64 {
        if self.summary == 0 {
            return u64::MAX;
        }
        let begin = (self.cursor as usize + 1) % BUCKETS_COUNT;
        let (word, bit) = (begin / 64, begin % 64);
        let rest = self.occupied[word] >> bit;
        let slot = if rest != 0 {
            begin + rest.trailing_zeros() as usize
        } else {
            // Words after this one first; then from the ring's beginning, this word's low bits last of all.
            let after = self.summary & u64::MAX.checked_shl(word as u32 + 1).unwrap_or(0);
            let words = if after != 0 { after } else { self.summary };
            let word = words.trailing_zeros() as usize;
            word * 64 + self.occupied[word].trailing_zeros() as usize
        };
        let ahead = (slot + BUCKETS_COUNT - begin) % BUCKETS_COUNT;
        self.cursor + 1 + ahead as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A step of a hold: pop one, put it back so much later; or plan another.
    fn delay_ps() -> impl Strategy<Value = u64> {
        prop_oneof![0..4u64, 0..5_000u64, 0..3_000_000u64, 0..400_000_000u64]
    }

    proptest! {
        /// Whatever the distances, the list agrees with the heap.
        #[test]
        fn the_list_agrees_with_the_heap(delays in prop::collection::vec((delay_ps(), any::<bool>()), 1..500)) {
            let mut list = EventList::new(delays.len(), 1_000_000);
            let mut heap = BinaryHeap::new();
            let mut now_ps = 0;
            for (id, (delay_ps, pops)) in delays.into_iter().enumerate() {
                let entry = Entry { at_ps: now_ps + delay_ps, id: id as u32 };
                list.insert(entry.id, entry.at_ps);
                heap.push(Reverse(entry));
                if pops {
                    now_ps = list.next_at_ps();
                    prop_assert_eq!(list.pop().map(Reverse), heap.pop());
                }
            }
            while let Some(Reverse(entry)) = heap.pop() {
                prop_assert_eq!(list.next_at_ps(), entry.at_ps);
                prop_assert_eq!(list.pop(), Some(entry));
            }
            prop_assert_eq!(list.next_at_ps(), u64::MAX);
        }
    }
}
