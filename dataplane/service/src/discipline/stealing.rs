//! A queue for each worker, by a hash of the flow; a worker whose own is empty takes from the others' (ZygOS, SOSP'17). Like a
//! single queue no worker is idle while somebody waits; unlike it, who is served next is not who came first.

use super::{Arrival, Discipline, Taker};
use crate::queue::Queue;

/// See the module.
#[derive(Debug)]
pub struct Stealing<Q> {
    queues: Box<[Q]>,
}

impl<Q: Default> Stealing<Q> {
    /// Empty ones.
    ///
    /// # Panics
    /// Without a worker.
    pub fn new(workers_count: usize) -> Stealing<Q> {
        assert!(workers_count > 0, "a node without workers serves nobody");
        Stealing {
            queues: (0..workers_count).map(|_| Q::default()).collect(),
        }
    }
}

impl<J, Q: Queue<J>> Discipline<J> for Stealing<Q> {
    fn put(&self, job: J, arrival: Arrival) -> Taker {
        let worker = (arrival.flow % self.queues.len() as u64) as usize;
        self.queues[worker].push(job);
        Taker::Any(worker)
    }

    fn take(&self, worker: usize) -> Option<J> {
        // Its own first, then its neighbours', in a ring.
        let (before, from) = self.queues.split_at(worker);
        from.iter().chain(before).find_map(Queue::pop)
    }

    fn put_back(&self, worker: usize, job: J) -> Taker {
        self.queues[worker].push(job);
        Taker::Any(worker)
    }

    fn waiting_count(&self) -> usize {
        self.queues.iter().map(Queue::len).sum()
    }
}
