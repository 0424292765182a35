//! A 4-ary heap of events, for the comparison: four children are one cache line, and half as many levels as in a binary heap.

use crate::events::Entry;

const CHILDREN: usize = 4;

#[derive(Debug, Default)]
pub struct Heap {
    entries: Vec<Entry>,
}

impl Heap {
    pub fn push(&mut self, entry: Entry) {
        self.entries.push(entry);
        self.rise(self.entries.len() - 1, entry);
    }

    /// The hole that the first leaves goes down to a leaf along the least children, and the last entry rises from there: it
    /// nearly always belongs far down.
    pub fn pop(&mut self) -> Option<Entry> {
        let last = self.entries.pop()?;
        let Some(&first) = self.entries.first() else {
            return Some(last);
        };
        let mut hole = 0;
        loop {
            let begin = hole * CHILDREN + 1;
            let end = (begin + CHILDREN).min(self.entries.len());
            let least = match self.entries.get(begin..end) {
                Some([a, b, c, d]) => {
                    // Two pairs, then the winners: no branch to be guessed.
                    let (left, right) = (usize::from(b < a), 2 + usize::from(d < c));
                    let (of_left, of_right) = (if b < a { b } else { a }, if d < c { d } else { c });
                    begin + if of_right < of_left { right } else { left }
                }
                Some(some) if !some.is_empty() => {
                    let least = (begin..end).min_by_key(|&index| self.entries[index]);
                    least.unwrap_or(begin)
                }
                _ => break,
            };
            self.entries[hole] = self.entries[least];
            hole = least;
        }
        self.rise(hole, last);
        Some(first)
    }

    fn rise(&mut self, mut hole: usize, entry: Entry) {
        while hole > 0 {
            let parent = (hole - 1) / CHILDREN;
            if self.entries[parent] <= entry {
                break;
            }
            self.entries[hole] = self.entries[parent];
            hole = parent;
        }
        self.entries[hole] = entry;
    }
}
