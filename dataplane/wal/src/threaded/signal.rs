//! How one thread says how much it has done, and wakes the other only if that one rests.
//!
//! Both sides write one word and then read the other's, with a sequentially consistent fence in between: either the writer sees
//! that somebody rests, or who is about to rest sees what was done.

#[cfg(not(all(test, loom)))]
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

#[cfg(all(test, loom))]
use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

/// Shared by a thread that writes and one that may rest.
#[derive(Debug)]
pub(super) struct Signal {
    /// How many batches are over, or [`FAILED`].
    over: AtomicU64,
    is_resting: AtomicBool,
}

/// Nothing more will be over.
pub(super) const FAILED: u64 = u64::MAX;

impl Signal {
    pub(super) fn new() -> Signal {
        Signal {
            over: AtomicU64::new(0),
            is_resting: AtomicBool::new(false),
        }
    }

    /// The writer: so many are over. True: the other rests, and is to be woken.
    pub(super) fn finish(&self, over: u64) -> bool {
        self.over.store(over, Ordering::Release);
        fence(Ordering::SeqCst);
        self.is_resting.swap(false, Ordering::AcqRel)
    }

    /// The other: how many are over.
    pub(super) fn over(&self) -> u64 {
        self.over.load(Ordering::Acquire)
    }

    /// The other is about to rest and has seen `seen`. False: there is more by now, and it must not.
    pub(super) fn rest(&self, seen: u64) -> bool {
        // An exchange rather than a store: all changes of this word are then in one order.
        self.is_resting.swap(true, Ordering::AcqRel);
        fence(Ordering::SeqCst);
        self.over() == seen
    }

    /// The other rests no more. True: the writer has woken it, or is about to.
    pub(super) fn awake(&self) -> bool {
        !self.is_resting.swap(false, Ordering::AcqRel)
    }
}

/// Every order of the two threads: `scripts/test loom`.
#[cfg(all(test, loom))]
mod tests {
    use loom::{
        sync::{Arc, Condvar, Mutex},
        thread,
    };

    use super::*;

    /// Stands for the eventfd. Loom fails a model in which a thread waits forever.
    #[derive(Default)]
    struct Bell(Mutex<u64>, Condvar);

    impl Bell {
        fn ring(&self) {
            *self.0.lock().unwrap() += 1;
            self.1.notify_one();
        }
        fn wait(&self) {
            let mut count = self.0.lock().unwrap();
            while *count == 0 {
                count = self.1.wait(count).unwrap();
            }
        }
        fn clear(&self) -> u64 {
            std::mem::take(&mut *self.0.lock().unwrap())
        }
    }

    /// The reader rests until two batches are over. Without either fence, or with the look before the word, loom finds the
    /// order in which it sleeps for ever.
    #[test]
    fn nobody_sleeps_through_what_was_finished() {
        loom::model(|| {
            let shared = Arc::new((Signal::new(), Bell::default()));
            let writer = shared.clone();
            let writer = thread::spawn(move || {
                let (signal, bell) = &*writer;
                for over in 1..=2 {
                    if signal.finish(over) {
                        bell.ring();
                    }
                }
            });
            let (signal, bell) = &*shared;
            let (mut seen, mut owed) = (0, 0);
            while seen < 2 {
                if signal.rest(seen) {
                    bell.wait();
                }
                owed += u64::from(signal.awake());
                owed -= bell.clear();
                seen = signal.over();
            }
            writer.join().unwrap();
            // Nothing rings that was not announced, so that a late ring can be told from a new one.
            assert_eq!(owed, bell.clear());
        });
    }
}
