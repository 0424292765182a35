//! A 4-ary heap of events. Four children are one cache line of 64 bytes, and half as many levels as in a binary heap.
//!
//! [`super::events::EventList`] keeps its far future in it; the bench holds the two against each other.

/// When, and what: 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub at_ps: u64,
    pub id: u32,
}

impl Entry {
    /// The order: by time, and at the same time by number.
    pub fn key(self) -> u128 {
        u128::from(self.at_ps) << 32 | u128::from(self.id)
    }
}

const CHILDREN: usize = 4;

#[derive(Debug, Default)]
pub(crate) struct Heap {
    entries: Vec<Entry>,
}

impl Heap {
    pub fn peek(&self) -> Option<Entry> {
        self.entries.first().copied()
    }

    pub fn push(&mut self, entry: Entry) {
        let mut hole = self.entries.len();
        self.entries.push(entry);
        while hole > 0 {
            let parent = (hole - 1) / CHILDREN;
            if self.entries[parent].key() <= entry.key() {
                break;
            }
            self.entries[hole] = self.entries[parent];
            hole = parent;
        }
        self.entries[hole] = entry;
    }

    pub fn pop(&mut self) -> Option<Entry> {
        let last = self.entries.pop()?;
        let Some(&first) = self.entries.first() else {
            return Some(last);
        };
        let mut hole = 0;
        loop {
            let begin = hole * CHILDREN + 1;
            let end = (begin + CHILDREN).min(self.entries.len());
            let Some(children) = self.entries.get(begin..end) else {
                break;
            };
            let mut least = last;
            let mut at = hole;
            for (index, &child) in children.iter().enumerate() {
                if child.key() < least.key() {
                    least = child;
                    at = begin + index;
                }
            }
            if at == hole {
                break;
            }
            self.entries[hole] = least;
            hole = at;
        }
        self.entries[hole] = last;
        Some(first)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Pushed and popped in any order, it hands out what a sorted list would.
        #[test]
        fn the_heap_agrees_with_a_sorted_list(steps in prop::collection::vec(prop::option::of(0u64..50), 0..300)) {
            let (mut heap, mut sorted) = (Heap::default(), Vec::new());
            for (id, step) in steps.into_iter().enumerate() {
                match step {
                    Some(at_ps) => {
                        let entry = Entry { at_ps, id: id as u32 };
                        heap.push(entry);
                        sorted.push(entry);
                        sorted.sort_by_key(|entry| std::cmp::Reverse(entry.key()));
                    }
                    None => prop_assert_eq!(heap.pop(), sorted.pop()),
                }
                prop_assert_eq!(heap.peek(), sorted.last().copied());
            }
        }
    }
}
