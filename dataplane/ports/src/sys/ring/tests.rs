//! The index protocol against a model, against time (two threads), and against a peer that scribbles.

use std::{collections::VecDeque, thread};

use nix::{
    sys::memfd::{MFdFlags, memfd_create},
    unistd::ftruncate,
};
use proptest::prelude::*;

use super::*;
use crate::sys::region::Geometry;

fn private(slots_count: usize, frame_bytes_max: usize) -> Arc<Region> {
    Arc::new(Region::private(
        Geometry::new(slots_count, frame_bytes_max).expect("valid"),
    ))
}

fn shared(slots_count: usize, frame_bytes_max: usize) -> Arc<Region> {
    let geometry = Geometry::new(slots_count, frame_bytes_max).expect("valid");
    let file = memfd_create(c"test", MFdFlags::MFD_CLOEXEC).expect("memfd");
    ftruncate(&file, Region::file_bytes(geometry) as i64).expect("room");
    Arc::new(Region::shared_create(file, geometry).expect("region"))
}

fn ends(region: &Arc<Region>) -> (RingEnd, RingEnd) {
    let end = |way| RingEnd::new(Arc::clone(region), way).expect("indices of a new region");
    (end(Way::AToB), end(Way::BToA))
}

fn frame(number: u64, len_bytes: usize) -> Vec<u8> {
    (0..len_bytes as u64)
        .map(|i| (number.wrapping_mul(31) + i) as u8)
        .collect()
}

#[derive(Clone, Debug)]
enum Step {
    Push { len_bytes: usize },
    Publish,
    Pull { frames_max: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..=70usize).prop_map(|len_bytes| Step::Push { len_bytes }),
        2 => Just(Step::Publish),
        2 => (1..=8usize).prop_map(|frames_max| Step::Pull { frames_max }),
    ]
}

proptest! {
    /// The ring is a queue of at most `slots` frames whose tail shows up at `publish`.
    #[test]
    fn a_ring_is_a_bounded_queue(
        steps in prop::collection::vec(step(), 1..200),
        slots_log2 in 0..4u32,
        in_shared_memory: bool,
    ) {
        let slots_count = 1 << slots_log2;
        let region = if in_shared_memory { shared(slots_count, 70) } else { private(slots_count, 70) };
        let (mut producer, mut consumer) = ends(&region);
        let (mut unpublished, mut published) = (VecDeque::new(), VecDeque::new());
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Push { len_bytes } => {
                    let bytes = frame(number as u64, len_bytes);
                    let pushed = producer.push(len_bytes, &mut |slot| slot.copy_from_slice(&bytes));
                    let room = unpublished.len() + published.len() < slots_count;
                    prop_assert_eq!(pushed, if room { Ok(()) } else { Err(PushError::Full) });
                    if room {
                        unpublished.push_back(bytes);
                    }
                    prop_assert_eq!(producer.unpublished_count(), unpublished.len());
                }
                Step::Publish => {
                    producer.publish();
                    published.append(&mut unpublished);
                }
                Step::Pull { frames_max } => {
                    let mut heard = Vec::new();
                    let pulled = consumer.pull(frames_max, |bytes| heard.push(bytes.to_vec())).expect("good indices");
                    let count = frames_max.min(published.len());
                    prop_assert_eq!(pulled, Pulled { frames_count: count, malformed_count: 0 });
                    prop_assert_eq!(heard, published.drain(..count).collect::<Vec<_>>());
                }
            }
        }
    }
}

/// Two threads, a small ring, every byte checked: a slot handed over too early shows as a garbled frame.
fn stress(region: &Arc<Region>) {
    const FRAMES_COUNT: u64 = 100_000;
    const LOOKS_MAX: u64 = 100_000_000;
    let (mut producer, mut consumer) = ends(region);
    let length = |number: u64| (number * 13 % 200) as usize;
    let sender = thread::spawn(move || {
        let mut looks_count = 0;
        for number in 0..FRAMES_COUNT {
            let len_bytes = length(number);
            let mut fill = |slot: &mut [u8]| {
                for (i, byte) in slot.iter_mut().enumerate() {
                    *byte = (number.wrapping_mul(31) + i as u64) as u8;
                }
            };
            while let Err(error) = producer.push(len_bytes, &mut fill) {
                assert_eq!(error, PushError::Full);
                producer.publish();
                looks_count += 1;
                assert!(looks_count < LOOKS_MAX, "the ring stays full at frame {number}");
                thread::yield_now();
            }
            if number % 7 == 0 {
                producer.publish();
            }
        }
        producer.publish();
    });
    let (mut number, mut looks_count) = (0, 0);
    while number < FRAMES_COUNT {
        let pulled = consumer
            .pull(5, |bytes| {
                assert_eq!(bytes.len(), length(number), "frame {number}");
                for (i, byte) in bytes.iter().enumerate() {
                    assert_eq!(
                        *byte,
                        (number.wrapping_mul(31) + i as u64) as u8,
                        "byte {i} of frame {number}"
                    );
                }
                number += 1;
            })
            .expect("good indices");
        assert_eq!(pulled.malformed_count, 0);
        if pulled.frames_count == 0 {
            looks_count += 1;
            assert!(looks_count < LOOKS_MAX, "frame {number} never comes");
            thread::yield_now();
        }
    }
    sender.join().expect("the sender's own checks");
    assert_eq!(
        consumer.pull(5, |_| panic!("one frame too many")),
        Ok(Pulled::default())
    );
}

#[test]
fn two_threads_agree_over_private_memory() {
    stress(&private(8, 200));
}

#[test]
fn two_threads_agree_over_shared_memory() {
    stress(&shared(8, 200));
}

#[test]
fn a_length_above_the_slot_is_skipped_and_counted() {
    let region = shared(4, 64);
    let (mut producer, mut consumer) = ends(&region);
    for number in 0..3 {
        producer.push(8, &mut |slot| slot.fill(number)).expect("room");
    }
    producer.publish();
    Slot(region.slot(Way::AToB, 1)).len().store(u32::MAX, Ordering::Relaxed);
    let mut heard = Vec::new();
    let pulled = consumer.pull(8, |bytes| heard.push(bytes[0])).expect("good indices");
    assert_eq!(heard, [0, 2]);
    assert_eq!(
        pulled,
        Pulled {
            frames_count: 2,
            malformed_count: 1
        }
    );
}

#[test]
fn an_index_that_cannot_be_is_an_error_that_names_it() {
    let region = shared(4, 64);
    let (mut producer, mut consumer) = ends(&region);
    for nonsense in [5, u64::MAX] {
        region.direction(Way::AToB).published.store(nonsense, Ordering::Relaxed);
        let corrupt = consumer
            .pull(8, |_| panic!("no frame was sent"))
            .expect_err("a ring ahead");
        assert!(corrupt.to_string().contains("published"), "{corrupt}");
    }
    for number in 0..4 {
        producer.push(1, &mut |slot| slot.fill(number)).expect("room");
    }
    region.direction(Way::AToB).released.store(5, Ordering::Relaxed);
    let Err(PushError::Corrupt(corrupt)) = producer.push(1, &mut |_| panic!("no room")) else {
        panic!("more was released than given");
    };
    assert!(corrupt.to_string().contains("released"), "{corrupt}");
}

#[test]
fn an_end_over_scribbled_indices_is_refused() {
    for (published, released) in [(1 << 63, 1 << 63), (5, 0), (0, 1), (u64::MAX, 0)] {
        let region = shared(4, 64);
        region
            .direction(Way::AToB)
            .published
            .store(published, Ordering::Relaxed);
        region.direction(Way::AToB).released.store(released, Ordering::Relaxed);
        RingEnd::new(Arc::clone(&region), Way::AToB).expect_err("as the producer");
        RingEnd::new(region, Way::BToA).expect_err("as the consumer");
    }
}

#[test]
fn a_side_that_comes_back_goes_on_where_it_stopped() {
    let region = shared(4, 64);
    let (mut producer, consumer) = ends(&region);
    for number in 0..3 {
        producer.push(1, &mut |slot| slot.fill(number)).expect("room");
        producer.publish();
    }
    drop(consumer);
    let mut consumer = RingEnd::new(Arc::clone(&region), Way::BToA).expect("again");
    let mut heard = Vec::new();
    consumer.pull(2, |bytes| heard.push(bytes[0])).expect("good indices");
    drop(consumer);
    producer.push(1, &mut |slot| slot.fill(9)).expect("room");
    drop(producer);
    let mut consumer = RingEnd::new(Arc::clone(&region), Way::BToA).expect("again");
    let mut producer = RingEnd::new(region, Way::AToB).expect("again");
    producer.push(1, &mut |slot| slot.fill(3)).expect("room");
    producer.publish();
    consumer.pull(4, |bytes| heard.push(bytes[0])).expect("good indices");
    assert_eq!(heard, [0, 1, 2, 3], "the unpublished 9 is lost, nothing else");
}
