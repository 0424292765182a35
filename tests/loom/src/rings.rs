//! The rings that AF_XDP shares with the kernel.

use std::sync::atomic::Ordering;

use loom::{
    cell::UnsafeCell,
    sync::{Arc, atomic::AtomicU32 as LoomU32},
    thread,
};

use crate::xsk_ring::{Consumer, Index, Producer, RingMemory};

impl Index for LoomU32 {
    fn load(&self, ordering: Ordering) -> u32 {
        LoomU32::load(self, ordering)
    }
    fn store(&self, value: u32, ordering: Ordering) {
        LoomU32::store(self, value, ordering);
    }
}

/// An index whose owner forgot what acquire and release are for.
struct RelaxedU32(LoomU32);

impl Index for RelaxedU32 {
    fn load(&self, _: Ordering) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
    fn store(&self, value: u32, _: Ordering) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// Loom fails a model in which two threads touch a place at the same time, one of them to write.
struct Memory<I> {
    producer: I,
    consumer: I,
    places: Vec<UnsafeCell<u64>>,
}

impl<I: Index> RingMemory for Arc<Memory<I>> {
    type Entry = u64;
    type Index = I;
    fn entries_count(&self) -> u32 {
        self.places.len() as u32
    }
    fn producer(&self) -> &I {
        &self.producer
    }
    fn consumer(&self) -> &I {
        &self.consumer
    }
    fn read(&self, place: u32) -> u64 {
        // SAFETY: the pointer is that of a live cell; that nobody writes now is what loom is here to find out.
        self.places[place as usize].with(|entry| unsafe { *entry })
    }
    fn write(&self, place: u32, entry: u64) {
        // SAFETY: as above.
        self.places[place as usize].with_mut(|place| unsafe { *place = entry });
    }
}

fn memory<I>(entries_count: u32, start: u32, index: impl Fn(u32) -> I) -> Arc<Memory<I>> {
    Arc::new(Memory {
        producer: index(start),
        consumer: index(start),
        places: (0..entries_count).map(|_| UnsafeCell::new(u64::MAX)).collect(),
    })
}

/// Sends the numbers 0 to `sent_count` through a ring, in batches, and takes them out on another thread: each comes once,
/// in order, whole.
fn numbers_cross<I: Index + Send + Sync + 'static>(memory: Arc<Memory<I>>, sent_count: u64, batch_count: u64) {
    let mut producer = Producer::new(memory.clone()).expect("a new ring");
    let mut consumer = Consumer::new(memory).expect("a new ring");
    let sender = thread::spawn(move || {
        for number in 0..sent_count {
            while !producer.push(number).expect("an honest consumer") {
                producer.publish();
                thread::yield_now();
            }
            if (number + 1) % batch_count == 0 {
                producer.publish();
            }
        }
        producer.publish();
    });
    let mut expected = 0;
    while expected < sent_count {
        while let Some(number) = consumer.pop().expect("an honest producer") {
            assert_eq!(number, expected);
            expected += 1;
        }
        consumer.release();
        thread::yield_now();
    }
    sender.join().expect("the sender has said why");
    assert_eq!(consumer.pop(), Ok(None));
}

#[test]
fn entries_come_once_and_in_order() {
    loom::model(|| numbers_cross(memory(4, 0, LoomU32::new), 3, 1));
}

#[test]
fn a_batch_comes_whole() {
    loom::model(|| numbers_cross(memory(4, 0, LoomU32::new), 4, 2));
}

#[test]
fn a_full_ring_is_not_overwritten() {
    loom::model(|| numbers_cross(memory(1, 0, LoomU32::new), 3, 1));
    loom::model(|| numbers_cross(memory(2, 0, LoomU32::new), 4, 2));
}

#[test]
fn indices_wrap() {
    loom::model(|| numbers_cross(memory(2, u32::MAX, LoomU32::new), 3, 1));
}

/// Shows that the tests above can fail.
#[test]
#[should_panic(expected = "Causality violation")]
fn without_acquire_and_release_a_race_is_found() {
    loom::model(|| numbers_cross(memory(2, 0, |start| RelaxedU32(LoomU32::new(start))), 3, 1));
}
