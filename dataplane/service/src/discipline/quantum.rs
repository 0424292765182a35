//! Any discipline, with preemption: a job that is not done after the quantum goes behind all that wait (Shinjuku, NSDI'19: 5
//! µs). A short request waits for a quantum of a long one, not for its end. As the quantum shrinks this nears processor
//! sharing; what a change costs, it costs each time.

use std::time::Duration;

use super::{Arrival, Discipline, Taker};

/// See the module.
#[derive(Debug)]
pub struct Quantum<D> {
    inner: D,
    quantum: Duration,
}

impl<D> Quantum<D> {
    /// `inner`, with this quantum.
    ///
    /// # Panics
    /// A quantum of nothing, in which nobody gets anywhere.
    pub fn new(inner: D, quantum: Duration) -> Quantum<D> {
        assert!(!quantum.is_zero(), "in a quantum of 0 nothing is ever done");
        Quantum { inner, quantum }
    }
}

impl<J, D: Discipline<J>> Discipline<J> for Quantum<D> {
    fn put(&self, job: J, arrival: Arrival) -> Taker {
        self.inner.put(job, arrival)
    }

    fn take(&self, worker: usize) -> Option<J> {
        self.inner.take(worker)
    }

    fn done(&self, worker: usize) {
        self.inner.done(worker);
    }

    fn quantum(&self) -> Option<Duration> {
        Some(self.quantum)
    }

    fn put_back(&self, worker: usize, job: J) -> Taker {
        self.inner.put_back(worker, job)
    }

    fn waiting_count(&self) -> usize {
        self.inner.waiting_count()
    }
}
