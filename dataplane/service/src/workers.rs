//! A node's workers under a discipline, told what time it is: what becomes of a request from its arrival until it is done. The
//! simulator's stations and leaves and a real node whose workers are timers run this.

use std::collections::VecDeque;

use crate::{
    discipline::{Arrival, Discipline, Taker},
    stalls::Stalls,
};

/// What serving costs beside the service itself, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overhead {
    /// For each request that is taken.
    pub take_ns: u64,
    /// For each preemption.
    pub preempt_ns: u64,
}

/// A job and what is left of it, as it waits.
#[derive(Clone, Copy, Debug)]
pub struct Work<J> {
    job: J,
    /// Names it to whoever withdraws it.
    id: u64,
    left_ns: u64,
    has_begun: bool,
}

/// What happened to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<J> {
    /// A worker has taken it for the first time.
    Began(J),
    /// It is done.
    Done(J),
    /// It was withdrawn before a worker took it.
    Withdrawn(J),
}

/// What workers have counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerCounts {
    /// Jobs that were served.
    pub served_count: u64,
    /// Quanta that were over before their job was, while others waited.
    pub preempted_count: u64,
    /// Jobs that were withdrawn in time.
    pub withdrawn_count: u64,
    /// The most that waited.
    pub waiting_count_max: usize,
    /// Service given, in nanoseconds, overheads not counted.
    pub served_ns: u64,
}

/// The most workers: they are bits of a word.
pub const WORKERS_MAX: usize = 64;

/// So many withdrawals are remembered; one that comes too late finds nothing and is forgotten in the end.
const WITHDRAWALS_MAX: usize = 256;

/// A worker that has nothing to do.
const IDLE: u64 = u64::MAX;

/// See the module.
#[derive(Debug)]
pub struct Workers<J, D> {
    discipline: D,
    quantum_ns: u64,
    overhead: Overhead,
    stalls: Stalls,
    /// When each worker's slice is over.
    ends_ns: Box<[u64]>,
    /// What each works on; what is left of it after the slice.
    running: Box<[Option<Work<J>>]>,
    idle: u64,
    withdrawn: VecDeque<u64>,
    counts: WorkerCounts,
}

impl<J: Copy, D: Discipline<Work<J>>> Workers<J, D> {
    /// Idle ones.
    ///
    /// # Panics
    /// Without workers, or with more than [`WORKERS_MAX`].
    pub fn new(workers_count: usize, discipline: D, overhead: Overhead, stalls: Stalls) -> Workers<J, D> {
        assert!(
            (1..=WORKERS_MAX).contains(&workers_count),
            "a node has 1 to {WORKERS_MAX} workers, not {workers_count}"
        );
        Workers {
            quantum_ns: discipline
                .quantum()
                .map_or(u64::MAX, |quantum| quantum.as_nanos() as u64),
            discipline,
            overhead,
            stalls,
            ends_ns: vec![IDLE; workers_count].into(),
            running: vec![None; workers_count].into(),
            idle: u64::MAX >> (WORKERS_MAX - workers_count),
            withdrawn: VecDeque::new(),
            counts: WorkerCounts::default(),
        }
    }

    /// A job came that takes `work_ns`.
    #[inline]
    pub fn arrive(&mut self, now_ns: u64, job: J, id: u64, work_ns: u64, arrival: Arrival, tell: impl FnMut(Event<J>)) {
        let work = Work {
            job,
            id,
            left_ns: work_ns.max(1),
            has_begun: false,
        };
        let is_idle = |worker: usize| self.idle >> worker & 1 == 1;
        let taker = match self.discipline.put(work, arrival) {
            Taker::Any(worker) if self.idle != 0 && !is_idle(worker) => self.idle.trailing_zeros() as usize,
            Taker::Only(worker) | Taker::Any(worker) => worker,
        };
        match is_idle(taker) {
            true => self.next(taker, now_ns, tell),
            false => {
                let waiting_count = self.discipline.waiting_count();
                self.counts.waiting_count_max = self.counts.waiting_count_max.max(waiting_count);
            }
        }
    }

    /// The worker whose slice is over first, and when.
    #[inline]
    pub fn first_end(&self) -> Option<(usize, u64)> {
        let mut first = (0, self.ends_ns[0]);
        for (worker, &end_ns) in self.ends_ns.iter().enumerate().skip(1) {
            if end_ns < first.1 {
                first = (worker, end_ns);
            }
        }
        (first.1 != IDLE).then_some(first)
    }

    /// This worker's slice is over, which was to be at `end_ns`.
    ///
    /// # Panics
    /// If it does nothing.
    #[inline]
    pub fn end(&mut self, worker: usize, end_ns: u64, mut tell: impl FnMut(Event<J>)) {
        let mut work = self.running[worker].expect("a worker whose slice is over works on something");
        if work.left_ns == 0 {
            self.discipline.done(worker);
            self.counts.served_count += 1;
            tell(Event::Done(work.job));
            self.next(worker, end_ns, tell);
        } else if self.discipline.waiting_count() == 0 {
            // Nobody waits, so nothing is changed.
            self.slice(worker, &mut work, end_ns, 0);
        } else {
            self.counts.preempted_count += 1;
            self.discipline.put_back(worker, work);
            self.next(worker, end_ns + self.overhead.preempt_ns, tell);
        }
    }

    /// Withdraws a job: if no worker has taken it when its turn comes, none will.
    pub fn withdraw(&mut self, id: u64) {
        if self.withdrawn.len() == WITHDRAWALS_MAX {
            self.withdrawn.pop_front();
        }
        self.withdrawn.push_back(id);
    }

    /// What was counted so far.
    pub fn counts(&self) -> WorkerCounts {
        self.counts
    }

    /// Jobs that wait or are served.
    pub fn jobs_count(&self) -> usize {
        let busy_count = self.ends_ns.len() - self.idle.count_ones() as usize;
        self.discipline.waiting_count() + busy_count
    }

    /// The worker takes what is next.
    #[inline]
    fn next(&mut self, worker: usize, now_ns: u64, mut tell: impl FnMut(Event<J>)) {
        loop {
            let Some(mut work) = self.discipline.take(worker) else {
                self.ends_ns[worker] = IDLE;
                self.running[worker] = None;
                self.idle |= 1 << worker;
                return;
            };
            if !self.withdrawn.is_empty()
                && !work.has_begun
                && let Some(index) = self.withdrawn.iter().position(|id| *id == work.id)
            {
                self.withdrawn.remove(index);
                self.discipline.done(worker);
                self.counts.withdrawn_count += 1;
                tell(Event::Withdrawn(work.job));
                continue;
            }
            if !work.has_begun {
                work.has_begun = true;
                tell(Event::Began(work.job));
            }
            self.idle &= !(1 << worker);
            self.slice(worker, &mut work, now_ns, self.overhead.take_ns);
            return;
        }
    }

    #[inline]
    fn slice(&mut self, worker: usize, work: &mut Work<J>, now_ns: u64, before_ns: u64) {
        let slice_ns = work.left_ns.min(self.quantum_ns);
        work.left_ns -= slice_ns;
        self.counts.served_ns += slice_ns;
        self.ends_ns[worker] = self.stalls.end_of(now_ns, before_ns + slice_ns);
        self.running[worker] = Some(*work);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{discipline::SingleQueue, queue::LocalQueue};

    const ARRIVAL: Arrival = Arrival { flow: 0, dice: 0 };

    fn one() -> Workers<char, SingleQueue<LocalQueue<Work<char>>>> {
        Workers::new(1, SingleQueue::new(), Overhead::default(), Stalls::never())
    }

    #[test]
    fn what_is_withdrawn_in_time_is_never_served() {
        let mut workers = one();
        let mut events = Vec::new();
        for (id, job) in (0..).zip(['a', 'b', 'c']) {
            workers.arrive(0, job, id, 10, ARRIVAL, |event| events.push(event));
        }
        assert_eq!(workers.jobs_count(), 3);
        // The first is being served: too late for it.
        workers.withdraw(0);
        workers.withdraw(1);
        while let Some((worker, end_ns)) = workers.first_end() {
            workers.end(worker, end_ns, |event| events.push(event));
        }
        use Event::{Began, Done, Withdrawn};
        assert_eq!(events, [Began('a'), Done('a'), Withdrawn('b'), Began('c'), Done('c')]);
        assert_eq!(workers.counts().withdrawn_count, 1);
        assert_eq!(workers.counts().served_ns, 20);
    }

    #[test]
    fn withdrawals_that_find_nothing_are_forgotten() {
        let mut workers = one();
        (0..1_000).for_each(|id| workers.withdraw(id));
        assert_eq!(workers.withdrawn.len(), WITHDRAWALS_MAX);
    }
}
