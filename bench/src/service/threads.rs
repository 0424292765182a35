//! A node whose workers are threads: one thread has the port, the others take requests from queues that all share (crossbeam),
//! by the discipline, and sleep, burn or work for as long as a request takes.
//!
//! ```text
//!            port's thread                     workers
//! rx_burst ─▶ parse ─▶ discipline.put ─ unpark ─▶ take ─▶ work ─▶ done
//!       tx ◀── answers ◀───────────── a bell ◀───────────────┘
//! ```
//!
//! Preemption is in user space: a worker works for a quantum at a time, and when that is over and others wait, it puts back what
//! is left. No signal and no timer interrupt is needed; what it costs (two
//! clock reads, a queue's push and pop, and whatever the caches lose) is measured and reported. A request that cannot be cut
//! into slices could not be preempted so.
//!
//! A withdrawal is a note that workers look at before they begin with what they took: a queue that threads share has no middle.

use std::{
    collections::VecDeque,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, Thread},
    time::Duration,
};

use anyhow::Context;
use crossbeam::queue::SegQueue;
use dataplane_service::{
    discipline::{Arrival, Discipline, Taker},
    message::{self, FRAME_BYTES, Message, NODE_DRAWS, Verb},
    queue::SharedQueue,
    random::{Random, mix},
};
use dataplane_waist::{Clock, Instant, Peer, Port, TxError};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::os::fd::AsFd;

use super::{labour::Labour, plan::NodePlan, process::NodesReport};
use crate::host::{self, MachineClock, Scheduler, Seat};

/// A request in the node.
#[derive(Clone, Copy, Debug)]
struct Asked {
    from: Peer,
    message: Message,
    arrived: Instant,
    left_ns: u64,
    /// Its last quantum ended then, if it had one.
    put_back: Option<Instant>,
}

/// How long a worker or the port's thread rests at most before it looks whether it is to stop.
const REST_MAX: Duration = Duration::from_millis(20);

/// So many withdrawals are remembered; one that comes too late finds nothing and is forgotten in the end.
const WITHDRAWALS_MAX: usize = 256;

/// Requests that nobody is to begin with.
#[derive(Debug, Default)]
struct Withdrawn {
    ids: Mutex<VecDeque<u64>>,
    /// How many there are, for those who only want to know that there are none.
    count: AtomicUsize,
    /// How many were in time.
    found_count: AtomicU64,
}

impl Withdrawn {
    fn add(&self, id: u64) {
        let mut ids = self.ids.lock().expect("nobody panics with the lock");
        if ids.len() == WITHDRAWALS_MAX {
            ids.pop_front();
        }
        ids.push_back(id);
        self.count.store(ids.len(), Ordering::Release);
    }

    /// Was this one withdrawn? It is forgotten then.
    fn takes(&self, id: u64) -> bool {
        if self.count.load(Ordering::Acquire) == 0 {
            return false;
        }
        let mut ids = self.ids.lock().expect("nobody panics with the lock");
        let Some(index) = ids.iter().position(|&withdrawn| withdrawn == id) else {
            return false;
        };
        ids.remove(index);
        self.count.store(ids.len(), Ordering::Release);
        self.found_count.fetch_add(1, Ordering::Relaxed);
        true
    }
}

/// What the threads share.
struct Shared {
    discipline: Box<dyn Discipline<Asked> + Send + Sync>,
    answers: SegQueue<(Peer, Message)>,
    /// Rings when there are answers.
    bell: EventFd,
    idle: Box<[AtomicBool]>,
    stop: AtomicBool,
    withdrawn: Withdrawn,
    /// The first thing that went wrong in a worker.
    failure: Mutex<Option<anyhow::Error>>,
    preempted_count: AtomicU64,
    switching_ns: AtomicU64,
    served_count: AtomicU64,
    served_ns: AtomicU64,
    took_ns: AtomicU64,
}

impl Shared {
    /// What is next for a worker, but what was withdrawn before anyone began with it.
    fn take(&self, worker: usize) -> Option<Asked> {
        loop {
            let asked = self.discipline.take(worker)?;
            if asked.put_back.is_some() || !self.withdrawn.takes(asked.message.id()) {
                return Some(asked);
            }
            self.discipline.done(worker);
        }
    }

    fn answer(&self, asked: &Asked, verb: Verb, now: Instant) {
        let node_ns = now.saturating_since(asked.arrived).as_nanos() as u64;
        let message = Message {
            verb,
            node_ns,
            ..asked.message
        };
        self.answers.push((asked.from, message));
        // A bell that rings already rings on.
        let _ = self.bell.write(1);
    }
}

/// What the node's workers do, each for itself.
///
/// # Errors
/// As [`Labour::new`].
pub fn labours(plan: &NodePlan) -> anyhow::Result<Vec<Labour>> {
    (0..plan.workers_count)
        .map(|worker| Labour::new(plan, worker))
        .collect()
}

/// Serves until `stop` is set, with a worker for each of `labours`.
///
/// # Errors
/// What the port or a worker said; no bell, no thread.
pub fn serve(
    plan: &NodePlan,
    labours: Vec<Labour>,
    seat: Seat,
    mut port: Box<dyn Port>,
    stop: &AtomicBool,
) -> anyhow::Result<NodesReport> {
    let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
    let shared = Shared {
        discipline: plan.discipline::<Asked, SharedQueue<Asked>>()?,
        answers: SegQueue::new(),
        bell: EventFd::from_value_and_flags(0, flags).context("making a bell for the node's workers")?,
        idle: (0..plan.workers_count).map(|_| AtomicBool::new(false)).collect(),
        stop: AtomicBool::new(false),
        withdrawn: Withdrawn::default(),
        failure: Mutex::default(),
        preempted_count: AtomicU64::new(0),
        switching_ns: AtomicU64::new(0),
        served_count: AtomicU64::new(0),
        served_ns: AtomicU64::new(0),
        took_ns: AtomicU64::new(0),
    };
    let threads: Mutex<Vec<(usize, Thread)>> = Mutex::default();
    let (waiting_count_max, rejected_count) = thread::scope(|scope| {
        for (worker, mut labour) in labours.into_iter().enumerate() {
            let (shared, threads) = (&shared, &threads);
            scope.spawn(move || {
                // A worker that burns must not keep the port's thread from its CPU.
                let scheduler = match plan.workers.wants_cpu() {
                    true => Scheduler::Ordinary,
                    false => Scheduler::RealTime,
                };
                host::settle_as("worker", seat, scheduler);
                threads
                    .lock()
                    .expect("nobody panics with the lock")
                    .push((worker, thread::current()));
                if let Err(error) = work(shared, worker, &mut labour) {
                    *shared.failure.lock().expect("nobody panics with the lock") = Some(error);
                }
            });
        }
        let workers = loop {
            let mut started = threads.lock().expect("nobody panics with the lock");
            if started.len() == plan.workers_count {
                started.sort_by_key(|(worker, _)| *worker);
                break started.iter().map(|(_, thread)| thread.clone()).collect::<Vec<_>>();
            }
            drop(started);
            thread::yield_now();
        };
        let turned = turn(plan, &shared, &workers, &mut *port, stop);
        shared.stop.store(true, Ordering::Release);
        workers.iter().for_each(Thread::unpark);
        turned
    })?;
    if let Some(failure) = shared.failure.into_inner().expect("nobody panics with the lock") {
        return Err(failure.context("a worker of the node"));
    }
    let stats = port.stats();
    let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
    Ok(NodesReport {
        served_count: of(&shared.served_count),
        preempted_count: of(&shared.preempted_count),
        withdrawn_count: of(&shared.withdrawn.found_count),
        waiting_count_max,
        served_ns: of(&shared.served_ns),
        took_ns: of(&shared.took_ns),
        switching_ns: of(&shared.switching_ns),
        dropped_count: stats.rx_dropped_count + stats.tx_dropped_count,
        rejected_count,
    })
}

/// The port's thread: requests in, answers out. The most that waited, and how many frames were none of ours.
fn turn(
    plan: &NodePlan,
    shared: &Shared,
    workers: &[Thread],
    port: &mut dyn Port,
    stop: &AtomicBool,
) -> anyhow::Result<(u64, u64)> {
    let service = plan.service.model()?;
    let mut random = Random::new(plan.seed, 4);
    let (mut waiting_count_max, mut rejected_count) = (0, 0);
    let batch_frames_max = port.caps().batch_frames_max.max(1);
    while !stop.load(Ordering::Relaxed) {
        port.wait_or(REST_MAX, shared.bell.as_fd())
            .context("waiting for requests")?;
        let _ = shared.bell.read();
        let now = MachineClock.now();
        port.rx_burst(&mut |frame| {
            let message = match message::parse(frame.bytes) {
                Ok(message) if matches!(message.verb, Verb::Serve | Verb::ServeAndTell) => message,
                Ok(message) if message.verb == Verb::Withdraw => return shared.withdrawn.add(message.id()),
                _ => {
                    rejected_count += 1;
                    return;
                }
            };
            let left_ns = match message.work_ns {
                NODE_DRAWS => service.draw(&mut random),
                work_ns => work_ns,
            };
            let asked = Asked {
                from: frame.from,
                message,
                arrived: now,
                left_ns,
                put_back: None,
            };
            let arrival = Arrival {
                flow: mix(u64::from(message.flow)),
                dice: random.bits(),
            };
            wake(shared, workers, shared.discipline.put(asked, arrival));
            waiting_count_max = waiting_count_max.max(shared.discipline.waiting_count() as u64);
        })
        .context("receiving requests")?;
        let mut queued_count = 0;
        while let Some((to, message)) = shared.answers.pop() {
            let mut fill = |bytes: &mut [u8]| message::emit(&message, bytes);
            if port.tx(to, FRAME_BYTES, &mut fill) == Err(TxError::Full) {
                port.flush().context("sending answers")?;
                let _ = port.tx(to, FRAME_BYTES, &mut fill);
            }
            queued_count += 1;
            if queued_count % batch_frames_max == 0 {
                port.flush().context("sending answers")?;
            }
        }
        port.flush().context("sending answers")?;
    }
    Ok((waiting_count_max, rejected_count))
}

/// Wakes a worker that may take what was put, if one is idle.
fn wake(shared: &Shared, workers: &[Thread], taker: Taker) {
    let wakes = |worker: usize| {
        let was_idle = shared.idle[worker].swap(false, Ordering::AcqRel);
        if was_idle {
            workers[worker].unpark();
        }
        was_idle
    };
    match taker {
        Taker::Only(worker) => {
            wakes(worker);
        }
        Taker::Any(first) => {
            let _ = wakes(first) || (0..workers.len()).any(wakes);
        }
    }
}

fn work(shared: &Shared, worker: usize, labour: &mut Labour) -> anyhow::Result<()> {
    let clock = MachineClock;
    let quantum_ns = shared
        .discipline
        .quantum()
        .map_or(u64::MAX, |quantum| quantum.as_nanos() as u64);
    while !shared.stop.load(Ordering::Acquire) {
        let Some(asked) = shared.take(worker) else {
            // Idle first, then look again: whoever puts something after this look sees the flag.
            shared.idle[worker].store(true, Ordering::SeqCst);
            match shared.take(worker) {
                Some(asked) => {
                    shared.idle[worker].store(false, Ordering::SeqCst);
                    serve_one(shared, worker, labour, asked, quantum_ns, clock)?;
                }
                None => thread::park_timeout(REST_MAX),
            }
            continue;
        };
        serve_one(shared, worker, labour, asked, quantum_ns, clock)?;
    }
    Ok(())
}

fn serve_one(
    shared: &Shared,
    worker: usize,
    labour: &mut Labour,
    mut asked: Asked,
    quantum_ns: u64,
    clock: MachineClock,
) -> anyhow::Result<()> {
    let mut began = clock.now();
    match asked.put_back {
        // What another waited for is no cost of switching: only what passes between two slices of one worker is.
        Some(_) => {}
        None if asked.message.verb == Verb::ServeAndTell => shared.answer(&asked, Verb::Began, began),
        None => {}
    }
    loop {
        let slice_ns = asked.left_ns.min(quantum_ns);
        let ended = labour.slice(clock, began, slice_ns)?;
        shared.served_ns.fetch_add(slice_ns, Ordering::Relaxed);
        shared
            .took_ns
            .fetch_add(ended.saturating_since(began).as_nanos() as u64, Ordering::Relaxed);
        asked.left_ns -= slice_ns;
        if asked.left_ns == 0 {
            shared.discipline.done(worker);
            shared.served_count.fetch_add(1, Ordering::Relaxed);
            shared.answer(&asked, Verb::Done, ended);
            return Ok(());
        }
        if shared.discipline.waiting_count() > 0 {
            shared.preempted_count.fetch_add(1, Ordering::Relaxed);
            asked.put_back = Some(ended);
            shared.discipline.put_back(worker, asked);
            let Some(next) = shared.take(worker) else {
                return Ok(());
            };
            let switched = clock.now();
            shared
                .switching_ns
                .fetch_add(switched.saturating_since(ended).as_nanos() as u64, Ordering::Relaxed);
            asked = next;
            if asked.put_back.is_none() && asked.message.verb == Verb::ServeAndTell {
                shared.answer(&asked, Verb::Began, switched);
            }
            began = switched;
        } else {
            began = ended;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_withdrawal_is_found_once_and_forgotten_if_it_came_too_late() {
        let withdrawn = Withdrawn::default();
        assert!(!withdrawn.takes(7));
        withdrawn.add(7);
        assert!(!withdrawn.takes(8) && withdrawn.takes(7) && !withdrawn.takes(7));
        (0..1_000).for_each(|id| withdrawn.add(id));
        assert!(!withdrawn.takes(0) && withdrawn.takes(999));
        assert_eq!(withdrawn.found_count.into_inner(), 2);
    }
}
