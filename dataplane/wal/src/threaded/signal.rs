//! How one thread says how much it has done, and wakes the other only if that one rests.
//!
//! Both sides write one word and then read the other's, so all four accesses are sequentially consistent: either the writer
//! sees that somebody rests, or who is about to rest sees what was done.

#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

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
        self.over.store(over, SeqCst);
        self.is_resting.swap(false, SeqCst)
    }

    /// The other: how many are over.
    pub(super) fn over(&self) -> u64 {
        self.over.load(SeqCst)
    }

    /// The other is about to rest and has seen `seen`. False: there is more by now, and it must not.
    pub(super) fn rest(&self, seen: u64) -> bool {
        self.is_resting.store(true, SeqCst);
        self.over() == seen
    }

    /// The other rests no more. True: the writer has woken it, or is about to.
    pub(super) fn awake(&self) -> bool {
        !self.is_resting.swap(false, SeqCst)
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

    /// The reader rests until two batches are over; `rest` says whether it may.
    fn model(rest: fn(&Signal, u64) -> bool) {
        loom::model(move || {
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
                if rest(signal, seen) {
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

    #[test]
    fn nobody_sleeps_through_what_was_finished() {
        model(Signal::rest);
    }

    #[test]
    #[should_panic]
    fn looking_before_saying_so_would_sleep_through_it() {
        model(|signal, seen| {
            let is_all = signal.over() == seen;
            signal.is_resting.store(true, SeqCst);
            is_all
        });
    }
}
