//! The ring logic on one thread: every order of calls, at every point of the indices' wrap, against a queue.

use std::{cell::Cell, collections::VecDeque, rc::Rc};

use proptest::prelude::*;

use super::*;

struct Memory {
    producer: AtomicU32,
    consumer: AtomicU32,
    places: Vec<Cell<u64>>,
}

impl RingMemory for Rc<Memory> {
    type Entry = u64;
    type Index = AtomicU32;
    fn entries_count(&self) -> u32 {
        self.places.len() as u32
    }
    fn producer(&self) -> &AtomicU32 {
        &self.producer
    }
    fn consumer(&self) -> &AtomicU32 {
        &self.consumer
    }
    fn read(&self, place: u32) -> u64 {
        self.places[place as usize].get()
    }
    fn write(&self, place: u32, entry: u64) {
        self.places[place as usize].set(entry);
    }
}

fn ring(entries_count: u32, start: u32) -> Rc<Memory> {
    Rc::new(Memory {
        producer: start.into(),
        consumer: start.into(),
        places: (0..entries_count).map(|_| Cell::new(u64::MAX)).collect(),
    })
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Push,
    Publish,
    Pop,
    Release,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => Just(Step::Push),
        1 => Just(Step::Publish),
        4 => Just(Step::Pop),
        1 => Just(Step::Release),
    ];
    prop::collection::vec(step, 0..300)
}

proptest! {
    #[test]
    fn behaves_like_a_bounded_queue(log2 in 0u32..5, before_wrap in 0u32..40, steps in steps()) {
        let entries_count = 1 << log2;
        let memory = ring(entries_count, 0u32.wrapping_sub(before_wrap));
        let mut producer = Producer::new(memory.clone()).expect("a new ring");
        let mut consumer = Consumer::new(memory).expect("a new ring");
        // Written but not given away; given away; taken, with the place not yet given back.
        let (mut written, mut given, mut held_count, mut next) = (VecDeque::new(), VecDeque::new(), 0, 0u64);
        for step in steps {
            match step {
                Step::Push => {
                    let has_room = written.len() + given.len() + held_count < entries_count as usize;
                    prop_assert_eq!(producer.push(next), Ok(has_room));
                    if has_room {
                        written.push_back(next);
                        next += 1;
                    }
                }
                Step::Publish => {
                    producer.publish();
                    given.append(&mut written);
                    prop_assert_eq!(producer.pending_count(), Ok((given.len() + held_count) as u32));
                }
                Step::Pop => {
                    prop_assert_eq!(consumer.has_some(), !given.is_empty());
                    let expected = given.pop_front();
                    prop_assert_eq!(consumer.pop(), Ok(expected));
                    held_count += usize::from(expected.is_some());
                }
                Step::Release => {
                    consumer.release();
                    held_count = 0;
                }
            }
        }
    }

    #[test]
    fn an_index_that_cannot_be_is_an_error(log2 in 0u32..5, start: u32, written_count in 0u32..32, seen: u32) {
        let entries_count = 1 << log2;
        let memory = ring(entries_count, start);
        let mut producer = Producer::new(memory.clone()).expect("a new ring");
        for entry in 0..written_count {
            let _ = producer.push(entry.into());
        }
        producer.publish();
        let published_count = written_count.min(entries_count);

        memory.consumer.store(seen, Ordering::Relaxed);
        let is_possible = start.wrapping_add(published_count).wrapping_sub(seen) <= entries_count;
        prop_assert_eq!(producer.pending_count().is_ok(), is_possible);
        memory.consumer.store(start, Ordering::Relaxed);

        let mut consumer = Consumer::new(memory.clone()).expect("a used ring");
        while consumer.pop().expect("as published").is_some() {}
        memory.producer.store(seen, Ordering::Relaxed);
        let ahead_count = seen.wrapping_sub(start);
        let is_possible = (published_count..=entries_count).contains(&ahead_count);
        prop_assert_eq!(consumer.pop().is_ok(), is_possible);
    }
}
