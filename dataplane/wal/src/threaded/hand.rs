//! When a log's owner writes by itself, and when it has the log's thread do it.
//!
//! A hand-over is two wake-ups: the thread's for the batch, the owner's for its end. For a few entries on a disk that has been
//! quick they take as long as a part of the flush, and the owner would only have waited for it. Behind a long batch more are on
//! their way, and whoever waits for the disk does not gather them; and a disk that was slow once must not stop its owner again.

use std::time::Duration;

/// When the owner of a [`ThreadedWal`](super::ThreadedWal) writes by itself: only while its thread has nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnHand {
    /// The longest batch that it writes by itself, in bytes of payloads.
    pub batch_bytes_max: usize,
    /// A flush that took longer was a slow one.
    pub flush_max: Duration,
    /// How many batches go to the thread after a slow flush.
    pub batches_after_slow: u32,
    /// How many go there after a batch that was too long.
    pub batches_after_long: u32,
}

/// What is to be expected of the next batch, by those before.
#[derive(Debug)]
pub(super) struct Hand {
    options: Option<OwnHand>,
    /// Batches that the thread gets in any case.
    owed_count: u32,
}

impl Hand {
    pub(super) fn new(options: Option<OwnHand>) -> Hand {
        Hand { options, owed_count: 0 }
    }

    /// Whether the owner may write the next batch, which is `batch_bytes` long, by itself.
    pub(super) fn takes(&mut self, batch_bytes: usize) -> bool {
        let Some(options) = self.options else { return false };
        if batch_bytes > options.batch_bytes_max {
            self.owed_count = self.owed_count.max(options.batches_after_long);
            return false;
        }
        match self.owed_count {
            0 => true,
            _ => {
                self.owed_count -= 1;
                false
            }
        }
    }

    /// A flush took so long, whoever waited for it.
    pub(super) fn took(&mut self, flush: Duration) {
        if let Some(options) = self.options.filter(|options| flush > options.flush_max) {
            self.owed_count = self.owed_count.max(options.batches_after_slow);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: OwnHand = OwnHand {
        batch_bytes_max: 100,
        flush_max: Duration::from_millis(1),
        batches_after_slow: 3,
        batches_after_long: 1,
    };

    #[test]
    fn without_options_the_thread_gets_everything() {
        assert!(!Hand::new(None).takes(0));
    }

    #[test]
    fn the_thread_gets_what_is_long_and_what_comes_after_it() {
        let mut hand = Hand::new(Some(OPTIONS));
        assert!(hand.takes(100));
        assert!(!hand.takes(101));
        assert!(!hand.takes(1), "more is on its way");
        assert!(hand.takes(1));
    }

    #[test]
    fn the_thread_gets_some_after_a_slow_flush_and_all_while_it_is_slow() {
        let mut hand = Hand::new(Some(OPTIONS));
        hand.took(OPTIONS.flush_max);
        assert!(hand.takes(1), "that was quick enough");
        hand.took(Duration::from_secs(1));
        assert_eq!([(); 4].map(|()| hand.takes(1)), [false, false, false, true]);
        for _ in 0..10 {
            hand.took(Duration::from_secs(1));
            assert!(!hand.takes(1));
        }
    }
}
