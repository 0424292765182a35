//! How a log's thread says what is over, and wakes who rests.

use loom::{
    sync::{Arc, Condvar, Mutex},
    thread,
};

use crate::signal::Signal;

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

/// The reader rests until two batches are over. With a relaxed exchange, or with the look before the word, loom finds the
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
