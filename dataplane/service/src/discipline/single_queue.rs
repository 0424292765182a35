//! One queue, all workers: who comes first is served first, by whoever is free first (c-FCFS). No worker is idle while
//! somebody waits, which is all that its advantage is.

use super::{Arrival, Discipline, Taker};
use crate::queue::Queue;

/// See the module.
#[derive(Debug, Default)]
pub struct SingleQueue<Q> {
    queue: Q,
}

impl<Q: Default> SingleQueue<Q> {
    /// An empty one.
    pub fn new() -> SingleQueue<Q> {
        SingleQueue { queue: Q::default() }
    }
}

impl<J, Q: Queue<J>> Discipline<J> for SingleQueue<Q> {
    fn put(&self, job: J, _arrival: Arrival) -> Taker {
        self.queue.push(job);
        Taker::Any(0)
    }

    fn take(&self, _worker: usize) -> Option<J> {
        self.queue.pop()
    }

    fn put_back(&self, worker: usize, job: J) -> Taker {
        self.queue.push(job);
        Taker::Any(worker)
    }

    fn waiting_count(&self) -> usize {
        self.queue.len()
    }
}
