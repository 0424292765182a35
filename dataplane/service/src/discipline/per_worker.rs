//! A queue for each worker, chosen by a hash of the flow, as a NIC's RSS does it (d-FCFS). Nothing is shared, so nothing is
//! waited for but the one queue; and one worker may be idle beside another's long queue.

use super::{Arrival, Discipline, Taker};
use crate::queue::Queue;

/// See the module.
#[derive(Debug)]
pub struct PerWorker<Q> {
    queues: Box<[Q]>,
}

impl<Q: Default> PerWorker<Q> {
    /// Empty ones.
    ///
    /// # Panics
    /// Without a worker.
    pub fn new(workers_count: usize) -> PerWorker<Q> {
        assert!(workers_count > 0, "a node without workers serves nobody");
        PerWorker {
            queues: (0..workers_count).map(|_| Q::default()).collect(),
        }
    }
}

impl<J, Q: Queue<J>> Discipline<J> for PerWorker<Q> {
    fn put(&self, job: J, arrival: Arrival) -> Taker {
        let worker = (arrival.flow % self.queues.len() as u64) as usize;
        self.queues[worker].push(job);
        Taker::Only(worker)
    }

    fn take(&self, worker: usize) -> Option<J> {
        self.queues[worker].pop()
    }

    fn put_back(&self, worker: usize, job: J) -> Taker {
        self.queues[worker].push(job);
        Taker::Only(worker)
    }

    fn waiting_count(&self) -> usize {
        self.queues.iter().map(Queue::len).sum()
    }
}
