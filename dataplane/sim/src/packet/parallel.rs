//! Several groups, by one thread or by several: conservative synchronisation in windows (Chandy and Misra, CACM 24(4),
//! 1981; the windows are Lubachevsky's bounded lag, CACM 32(1), 1989).
//!
//! A packet takes at least the lookahead from one group to another. So if nothing anywhere is due before T, no group can
//! hear anything before T + lookahead, and all may run up to there without a word. Then they exchange packets and look
//! for the next T. What a group does in a window depends on nothing that happens at the same time elsewhere, so the
//! number of threads changes nothing.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};

use dataplane_queue::SimTime;

use super::{
    core::{Group, Message},
    edge::Edge,
    sim::Outcome,
};

/// How many events pass between two looks at the flag that stops a run.
const EVENTS_PER_LOOK: u64 = 1 << 16;

pub(crate) fn run<E: Edge + Send>(
    groups: &mut [Group<E>],
    lookahead: SimTime,
    threads_count: usize,
    end: SimTime,
    stop: &AtomicBool,
) -> Outcome
where
    E::Header: Send,
{
    if let [group] = groups {
        return run_one(group, end, stop);
    }
    let groups_count = groups.len();
    let per_thread = groups_count.div_ceil(threads_count.clamp(1, groups_count));
    let shares: Vec<&mut [Group<E>]> = groups.chunks_mut(per_thread).collect();
    let shared = Shared::new(groups_count, shares.len() as u32, lookahead, end);
    std::thread::scope(|scope| {
        let mut shares = (0..).step_by(per_thread).zip(shares);
        let first = shares.next();
        for (number, share) in shares {
            let shared = &shared;
            scope.spawn(move || shared.work(share, number, None));
        }
        match first {
            Some((number, share)) => shared.work(share, number, Some(stop)),
            None => Outcome::Idle,
        }
    })
}

fn run_one<E: Edge>(group: &mut Group<E>, end: SimTime, stop: &AtomicBool) -> Outcome {
    while !group.run(end, EVENTS_PER_LOOK) {
        if stop.load(Ordering::Relaxed) {
            return Outcome::Interrupted;
        }
    }
    match group.core.next_at() {
        SimTime::FOREVER => Outcome::Idle,
        _ => Outcome::Time,
    }
}

/// What the threads share.
struct Shared<H> {
    lookahead: SimTime,
    end: SimTime,
    groups_count: usize,
    /// By destination, then by source: never wanted by two at once.
    mail: Vec<Mutex<Vec<Message<H>>>>,
    /// When something is next due anywhere: of this round, and of the next one.
    next_ps: [AtomicU64; 2],
    is_stopped: AtomicBool,
    barrier: Barrier,
}

impl<H: Copy> Shared<H> {
    fn new(groups_count: usize, threads_count: u32, lookahead: SimTime, end: SimTime) -> Shared<H> {
        Shared {
            lookahead,
            end,
            groups_count,
            mail: (0..groups_count * groups_count).map(|_| Mutex::default()).collect(),
            next_ps: [AtomicU64::new(u64::MAX), AtomicU64::new(u64::MAX)],
            is_stopped: AtomicBool::new(false),
            barrier: Barrier::new(threads_count),
        }
    }

    /// What each thread does. The first of them is given the flag.
    fn work<E: Edge<Header = H>>(&self, groups: &mut [Group<E>], first: usize, stop: Option<&AtomicBool>) -> Outcome {
        // A thread that panics must not leave the others waiting.
        let _guard = Guard(&self.barrier);
        for round in 0usize.. {
            let mut next = SimTime::FOREVER;
            for (number, group) in (first..).zip(&mut *groups) {
                self.receive(number, group);
                next = next.min(group.core.next_at());
            }
            self.next_ps[round % 2].fetch_min(next.as_ps(), Ordering::Relaxed);
            if stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
                self.is_stopped.store(true, Ordering::Relaxed);
            }
            self.barrier.wait();
            let begin = SimTime::from_ps(self.next_ps[round % 2].load(Ordering::Relaxed));
            if begin == SimTime::FOREVER {
                return Outcome::Idle;
            }
            if begin >= self.end {
                return Outcome::Time;
            }
            if self.is_stopped.load(Ordering::Relaxed) {
                return Outcome::Interrupted;
            }
            // Nobody reads the other round's before the next barrier, and nobody writes it before that one either.
            if stop.is_some() {
                self.next_ps[(round + 1) % 2].store(u64::MAX, Ordering::Relaxed);
            }
            let window_end = (begin + self.lookahead).min(self.end);
            for (number, group) in (first..).zip(&mut *groups) {
                group.run(window_end, u64::MAX);
                self.post(number, group);
            }
            self.barrier.wait();
        }
        unreachable!("2^64 rounds")
    }

    fn receive<E: Edge<Header = H>>(&self, number: usize, group: &mut Group<E>) {
        let begin = number * self.groups_count;
        for mail in &self.mail[begin..begin + self.groups_count] {
            let mut mail = mail.lock().expect("no thread panics with mail in its hands");
            mail.iter().for_each(|message| group.core.take_in(message));
            mail.clear();
        }
    }

    fn post<E: Edge<Header = H>>(&self, number: usize, group: &mut Group<E>) {
        for (to, outbox) in group.core.outboxes.iter_mut().enumerate() {
            if !outbox.is_empty() {
                let mail = &self.mail[to * self.groups_count + number];
                // What lies there was taken and left empty: the two change places, and nothing is allocated.
                std::mem::swap(
                    outbox,
                    &mut mail.lock().expect("no thread panics with mail in its hands"),
                );
            }
        }
    }
}

/// Threads wait here until all have come. They spin for a moment, then give way: windows are short, and a machine may
/// have fewer processors than threads.
struct Barrier {
    threads_count: u32,
    waiting_count: AtomicU32,
    round: AtomicU32,
    is_broken: AtomicBool,
}

const SPINS_COUNT: u32 = 2_000;

impl Barrier {
    fn new(threads_count: u32) -> Barrier {
        Barrier {
            threads_count,
            waiting_count: AtomicU32::new(0),
            round: AtomicU32::new(0),
            is_broken: AtomicBool::new(false),
        }
    }

    fn wait(&self) {
        if self.threads_count == 1 {
            return;
        }
        let round = self.round.load(Ordering::Acquire);
        // What each did before is visible to all afterwards: every arrival releases, and the last one acquires them all.
        if self.waiting_count.fetch_add(1, Ordering::AcqRel) + 1 == self.threads_count {
            self.waiting_count.store(0, Ordering::Relaxed);
            self.round.store(round.wrapping_add(1), Ordering::Release);
            return;
        }
        let mut spins_count = 0;
        while self.round.load(Ordering::Acquire) == round {
            assert!(
                !self.is_broken.load(Ordering::Relaxed),
                "another thread of the simulation panicked"
            );
            if spins_count < SPINS_COUNT {
                spins_count += 1;
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
    }
}

struct Guard<'a>(&'a Barrier);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.is_broken.store(true, Ordering::Relaxed);
        }
    }
}
