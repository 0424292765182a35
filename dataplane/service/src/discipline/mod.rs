//! Queueing disciplines: where a request waits, and who takes it. One file each, to be read side by side. The simulator and
//! real nodes run the same code; only what is behind [`crate::queue::Queue`] differs.
//!
//! ```text
//!  single queue        per worker           stealing             shortest of two       + quantum
//!       │                 │                     │                     │
//!     ┌─┴─┐            hash(flow)           hash(flow)            two by chance        a job that is not done after
//!     │   │            ┌──┴──┐              ┌──┴──┐               ┌──┴──┐              the quantum goes behind all
//!     └─┬─┘           ┌┴┐   ┌┴┐            ┌┴┐   ┌┴┐             ┌┴┐   ┌┴┐             that wait
//!    ┌──┴──┐          └┬┘   └┬┘            └┬┘ ╲╱└┬┘             └┬┘   └┬┘
//!    w     w           w     w              w  ╱╲ w               w     w
//! ```

mod per_worker;
mod quantum;
mod shortest_of_two;
mod single_queue;
mod stealing;

use std::time::Duration;

pub use per_worker::PerWorker;
pub use quantum::Quantum;
pub use shortest_of_two::ShortestOfTwo;
pub use single_queue::SingleQueue;
pub use stealing::Stealing;

/// What is known of a request when it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// A hash of who asks (a NIC's RSS hash of the flow).
    pub flow: u64,
    /// Random bits, for a discipline that throws dice: it has no randomness of its own.
    pub dice: u64,
}

/// Who may take a job that was just put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taker {
    /// This worker and no other.
    Only(usize),
    /// Any worker; this one, if it is idle.
    Any(usize),
}

/// Where requests wait, and who takes them. Jobs are the driver's own.
pub trait Discipline<J> {
    /// A request came. Says which worker is to be woken.
    fn put(&self, job: J, arrival: Arrival) -> Taker;
    /// What this worker, which has nothing to do, is to do next.
    fn take(&self, worker: usize) -> Option<J>;
    /// This worker is done with what it took.
    fn done(&self, _worker: usize) {}
    /// How long a worker works on one job before it looks whether others wait; `None` for until it is done.
    fn quantum(&self) -> Option<Duration> {
        None
    }
    /// This worker's quantum is over and its job is not done.
    fn put_back(&self, worker: usize, job: J) -> Taker;
    /// How many wait, of all workers.
    fn waiting_count(&self) -> usize;
}

impl<J, D: Discipline<J> + ?Sized> Discipline<J> for Box<D> {
    fn put(&self, job: J, arrival: Arrival) -> Taker {
        (**self).put(job, arrival)
    }
    fn take(&self, worker: usize) -> Option<J> {
        (**self).take(worker)
    }
    fn done(&self, worker: usize) {
        (**self).done(worker);
    }
    fn quantum(&self) -> Option<Duration> {
        (**self).quantum()
    }
    fn put_back(&self, worker: usize, job: J) -> Taker {
        (**self).put_back(worker, job)
    }
    fn waiting_count(&self) -> usize {
        (**self).waiting_count()
    }
}

/// A discipline by name, for command lines and configurations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`SingleQueue`].
    SingleQueue,
    /// [`PerWorker`].
    PerWorker,
    /// [`Stealing`].
    Stealing,
    /// [`ShortestOfTwo`].
    ShortestOfTwo,
    /// [`SingleQueue`] with a [`Quantum`].
    Preemptive,
}

impl Kind {
    /// All, in the order of the pictures.
    pub const ALL: [Kind; 5] = [
        Kind::SingleQueue,
        Kind::PerWorker,
        Kind::Stealing,
        Kind::ShortestOfTwo,
        Kind::Preemptive,
    ];

    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::SingleQueue => "single-queue",
            Kind::PerWorker => "per-worker",
            Kind::Stealing => "stealing",
            Kind::ShortestOfTwo => "shortest-of-two",
            Kind::Preemptive => "preemptive",
        }
    }

    /// The one of that name.
    pub fn by_name(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::queue::{LocalQueue, SharedQueue};

    const WORKERS_COUNT: usize = 3;

    fn all() -> Vec<Box<dyn Discipline<u64>>> {
        type Local = LocalQueue<u64>;
        vec![
            Box::new(SingleQueue::<Local>::new()),
            Box::new(PerWorker::<Local>::new(WORKERS_COUNT)),
            Box::new(Stealing::<Local>::new(WORKERS_COUNT)),
            Box::new(ShortestOfTwo::<Local>::new(WORKERS_COUNT)),
            Box::new(Quantum::new(SingleQueue::<Local>::new(), Duration::from_micros(5))),
        ]
    }

    proptest! {
        /// Whatever happens, a job that was put is taken once, by one who may, and none is left behind.
        #[test]
        fn every_job_is_taken_once(steps in prop::collection::vec((any::<u64>(), any::<u64>(), 0usize..4, 0..WORKERS_COUNT), 0..200)) {
            for discipline in all() {
                let mut put_count = 0;
                let mut taken = Vec::new();
                for &(flow, dice, what, worker) in &steps {
                    match what {
                        0 | 1 => {
                            let (Taker::Only(who) | Taker::Any(who)) = discipline.put(put_count, Arrival { flow, dice });
                            prop_assert!(who < WORKERS_COUNT);
                            put_count += 1;
                        }
                        2 => if let Some(job) = discipline.take(worker) {
                            taken.push(job);
                            discipline.done(worker);
                        },
                        _ => if let Some(job) = discipline.take(worker) {
                            discipline.put_back(worker, job);
                        },
                    }
                    prop_assert_eq!(discipline.waiting_count() as u64, put_count - taken.len() as u64);
                }
                for worker in 0..WORKERS_COUNT {
                    while let Some(job) = discipline.take(worker) {
                        taken.push(job);
                        discipline.done(worker);
                    }
                }
                taken.sort_unstable();
                prop_assert_eq!(taken, (0..put_count).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn who_waits_where() {
        let arrival = |flow| Arrival { flow, dice: 0 };
        let single = SingleQueue::<LocalQueue<u64>>::new();
        assert!(matches!(single.put(1, arrival(9)), Taker::Any(_)));
        assert_eq!(single.take(2), Some(1));

        let per_worker = PerWorker::<LocalQueue<u64>>::new(WORKERS_COUNT);
        let Taker::Only(own) = per_worker.put(1, arrival(9)) else {
            panic!("one worker's own")
        };
        assert_eq!(
            per_worker.put(2, arrival(9)),
            Taker::Only(own),
            "a flow stays where it is"
        );
        assert_eq!(per_worker.take((own + 1) % WORKERS_COUNT), None, "others do not help");
        assert_eq!(per_worker.take(own), Some(1));

        let stealing = Stealing::<LocalQueue<u64>>::new(WORKERS_COUNT);
        let Taker::Any(own) = stealing.put(1, arrival(9)) else {
            panic!("all may")
        };
        assert_eq!(stealing.take((own + 2) % WORKERS_COUNT), Some(1), "others help");
    }

    #[test]
    fn the_shorter_of_two_gets_it_and_one_that_is_served_counts() {
        let discipline = ShortestOfTwo::<LocalQueue<u64>>::new(2);
        let Taker::Only(first) = discipline.put(1, Arrival { flow: 0, dice: 0 }) else {
            panic!("one worker's own")
        };
        assert_eq!(discipline.take(first), Some(1));
        // Both queues are empty; the first worker is busy.
        for dice in 0..20 {
            let discipline_says = discipline.put(
                2,
                Arrival {
                    flow: 0,
                    dice: crate::random::mix(dice),
                },
            );
            assert_eq!(discipline_says, Taker::Only(1 - first));
            assert_eq!(discipline.take(1 - first), Some(2));
            discipline.done(1 - first);
        }
    }

    #[test]
    fn threads_share_a_queue_and_lose_nothing() {
        const JOBS_COUNT: u64 = 20_000;
        let discipline = Stealing::<SharedQueue<u64>>::new(2);
        let sums: Vec<u64> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..2)
                .map(|worker| {
                    let discipline = &discipline;
                    scope.spawn(move || {
                        let mut sum = 0;
                        // The job after the last says that it is over, once for each worker.
                        loop {
                            match discipline.take(worker) {
                                Some(job) if job > JOBS_COUNT => return sum,
                                Some(job) => sum += job,
                                None => std::thread::yield_now(),
                            }
                        }
                    })
                })
                .collect();
            for job in 1..=JOBS_COUNT {
                discipline.put(job, Arrival { flow: job, dice: job });
            }
            for _ in 0..2 {
                discipline.put(JOBS_COUNT + 1, Arrival { flow: 0, dice: 0 });
            }
            workers
                .into_iter()
                .map(|worker| worker.join().expect("no panic"))
                .collect()
        });
        // A worker may leave before the other has taken the last jobs, and then these are still there.
        let left: u64 = std::iter::from_fn(|| discipline.take(0))
            .filter(|job| *job <= JOBS_COUNT)
            .sum();
        assert_eq!(sums.iter().sum::<u64>() + left, JOBS_COUNT * (JOBS_COUNT + 1) / 2);
    }
}
