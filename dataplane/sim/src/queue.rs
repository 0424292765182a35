//! What is to happen, in order of time; what is due at the same time, in the order in which it was planned.

use std::{cmp::Ordering, collections::BinaryHeap};

use crate::SimTime;

/// A queue of events. A binary heap now; a ladder queue or a timing wheel may take its place behind these four calls,
/// because the order is fixed by (time, number of insertion) and not by the heap.
#[derive(Debug)]
pub(crate) struct EventQueue<T> {
    heap: BinaryHeap<Entry<T>>,
    pushed_count: u64,
}

#[derive(Debug)]
struct Entry<T> {
    at: SimTime,
    number: u64,
    event: T,
}

impl<T> EventQueue<T> {
    pub fn new() -> EventQueue<T> {
        EventQueue {
            heap: BinaryHeap::new(),
            pushed_count: 0,
        }
    }

    pub fn push(&mut self, at: SimTime, event: T) {
        let number = self.pushed_count;
        self.pushed_count += 1;
        self.heap.push(Entry { at, number, event });
    }

    /// When the next event is due; [`SimTime::FOREVER`] if there is none.
    pub fn next_at(&self) -> SimTime {
        self.heap.peek().map_or(SimTime::FOREVER, |entry| entry.at)
    }

    /// The next event, if it is due at `until` or earlier.
    pub fn pop_until(&mut self, until: SimTime) -> Option<(SimTime, T)> {
        if self.heap.peek()?.at > until {
            return None;
        }
        self.heap.pop().map(|entry| (entry.at, entry.event))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Entry<T>) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Entry<T>) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    /// Backwards: the standard heap hands out the greatest.
    fn cmp(&self, other: &Entry<T>) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The heap agrees with a stable sort.
        #[test]
        fn events_come_by_time_and_then_by_insertion(times in prop::collection::vec(0u64..5, 0..40)) {
            let mut queue = EventQueue::new();
            for (index, &ps) in times.iter().enumerate() {
                queue.push(SimTime::from_ps(ps), index);
            }
            let mut expected: Vec<(u64, usize)> = times.into_iter().enumerate().map(|(index, ps)| (ps, index)).collect();
            expected.sort();
            let popped = std::iter::from_fn(|| queue.pop_until(SimTime::FOREVER));
            let popped: Vec<(u64, usize)> = popped.map(|(at, index)| (at.as_ps(), index)).collect();
            prop_assert_eq!(popped, expected);
        }
    }

    #[test]
    fn what_is_due_later_stays() {
        let mut queue = EventQueue::new();
        queue.push(SimTime::from_ns(2), ());
        assert_eq!(queue.pop_until(SimTime::from_ns(1)), None);
        assert_eq!(queue.pop_until(SimTime::from_ns(2)), Some((SimTime::from_ns(2), ())));
    }
}
