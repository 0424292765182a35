//! A queue for each worker; a request looks at two of them by chance and joins the shorter (the power of two choices:
//! Mitzenmacher 1996; Vvedenskaya, Dobrushin and Karpelevich 1996). A request that is being served counts, too.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Arrival, Discipline, Taker};
use crate::queue::Queue;

/// See the module.
#[derive(Debug)]
pub struct ShortestOfTwo<Q> {
    queues: Box<[Q]>,
    /// Requests of each worker that are not done.
    loads: Box<[AtomicUsize]>,
}

impl<Q: Default> ShortestOfTwo<Q> {
    /// Empty ones.
    ///
    /// # Panics
    /// Without a worker.
    pub fn new(workers_count: usize) -> ShortestOfTwo<Q> {
        assert!(workers_count > 0, "a node without workers serves nobody");
        ShortestOfTwo {
            queues: (0..workers_count).map(|_| Q::default()).collect(),
            loads: (0..workers_count).map(|_| AtomicUsize::new(0)).collect(),
        }
    }
}

impl<J, Q: Queue<J>> Discipline<J> for ShortestOfTwo<Q> {
    fn put(&self, job: J, arrival: Arrival) -> Taker {
        let count = self.queues.len() as u64;
        let first = ((arrival.dice & 0xffff_ffff) % count) as usize;
        // Another one, if there is another.
        let second = match count {
            1 => 0,
            _ => (first + 1 + ((arrival.dice >> 32) % (count - 1)) as usize) % count as usize,
        };
        // Two threads that look at the same moment may choose the same: that is what the policy is like in life.
        let load = |worker: usize| self.loads[worker].load(Ordering::Relaxed);
        let worker = if load(second) < load(first) { second } else { first };
        self.loads[worker].fetch_add(1, Ordering::Relaxed);
        self.queues[worker].push(job);
        Taker::Only(worker)
    }

    fn take(&self, worker: usize) -> Option<J> {
        self.queues[worker].pop()
    }

    fn done(&self, worker: usize) {
        self.loads[worker].fetch_sub(1, Ordering::Relaxed);
    }

    fn put_back(&self, worker: usize, job: J) -> Taker {
        self.queues[worker].push(job);
        Taker::Only(worker)
    }

    fn waiting_count(&self) -> usize {
        self.queues.iter().map(Queue::len).sum()
    }
}
