//! The threads beside the leader's: one that stands for the NICs, and one for each follower's process.

use std::{
    sync::{
        Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use nix::unistd::gettid;
use rdma::{Provider, card::Card};

use super::{Cluster, Node};
use crate::host::thread_cpu_ns;

/// What the threads beside the leader's do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Service {
    /// The cards serve; the followers' processes stand still.
    Still = 0,
    /// The cards serve, and the followers' processes poll.
    Polling = 1,
    /// The yardstick's cards alone serve.
    Yardstick = 2,
    /// The first node's process has stopped, its cards have not, and the others' processes poll. Answers to clients are kept.
    Takeover = 3,
    /// Everybody goes home.
    Over = 4,
}

/// What is told to the threads, and what they say.
#[derive(Debug)]
pub struct Cards {
    service: Mutex<Service>,
    /// The same, for who looks at it all the time.
    now: AtomicU8,
    changed: Condvar,
    /// CPU time of the cards' thread so far.
    cards_cpu_ns: AtomicU64,
    followers: Vec<Follower>,
}

#[derive(Debug, Default)]
struct Follower {
    /// Its thread's number; 0 before it runs.
    tid: AtomicI32,
    is_still: AtomicBool,
}

/// Between two looks of a follower that polls.
const LOOK_EVERY: Duration = Duration::from_micros(200);

/// So many looks at what a commit or a write passes through come before one at the background's cards: a NIC hears of a packet whatever
/// queue it is for, and does not look for one where hardly ever one is.
const LOOKS_AT_ONCE: u64 = 32;
/// Between two readings of the thread's CPU time, which is a system call.
const ROUNDS_PER_CPU_READING: u64 = 64;

/// A thread that sleeps is charged nothing for so long.
const SETTLES_IN: Duration = Duration::from_millis(1);

pub(super) fn locked<P>(node: &Mutex<Node<P>>) -> MutexGuard<'_, Node<P>> {
    node.lock().expect("whoever held the node did not panic")
}

impl Cards {
    /// For so many followers, which poll.
    pub fn new(followers_count: usize) -> Cards {
        Cards {
            service: Mutex::new(Service::Polling),
            now: AtomicU8::new(Service::Polling as u8),
            changed: Condvar::new(),
            cards_cpu_ns: AtomicU64::new(0),
            followers: (0..followers_count).map(|_| Follower::default()).collect(),
        }
    }

    fn service(&self) -> MutexGuard<'_, Service> {
        self.service.lock().expect("whoever held it did not panic")
    }

    /// Tells the threads; returns when the followers' processes sleep, if they are to stand still.
    pub fn set(&self, service: Service) {
        *self.service() = service;
        self.now.store(service as u8, Ordering::Release);
        self.changed.notify_all();
        if matches!(service, Service::Still | Service::Yardstick) {
            while !self.followers.iter().all(|it| it.is_still.load(Ordering::Acquire)) {
                thread::yield_now();
            }
            // From saying that it is about to sleep to sleeping.
            let mut before_ns = self.followers_cpu_ns();
            loop {
                thread::sleep(SETTLES_IN);
                let now_ns = self.followers_cpu_ns();
                if std::mem::replace(&mut before_ns, now_ns) == now_ns {
                    return;
                }
            }
        }
    }

    /// CPU time of the cards' thread so far, in nanoseconds.
    pub fn cards_cpu_ns(&self) -> u64 {
        self.cards_cpu_ns.load(Ordering::Acquire)
    }

    /// What the kernel has charged to the followers' threads so far, in nanoseconds, to all of them. Exact for those that sleep; of one
    /// that runs, what it has run since its last switch is not in it.
    pub fn followers_cpu_ns(&self) -> u64 {
        let charged = |follower: &Follower| {
            let tid = follower.tid.load(Ordering::Acquire);
            // The first number is the time on a CPU (Documentation/scheduler/sched-stats.rst).
            let text = std::fs::read_to_string(format!("/proc/self/task/{tid}/schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        };
        self.followers.iter().filter_map(charged).sum()
    }

    /// The cards' thread.
    pub fn serve<P: Provider>(&self, cluster: &Cluster<P>) {
        let begun_ns = thread_cpu_ns();
        let mut rounds_count = 0u64;
        loop {
            let cards = &cluster.cards;
            let (often, seldom) = match self.now.load(Ordering::Acquire) {
                over if over == Service::Over as u8 => return,
                yardstick if yardstick == Service::Yardstick as u8 => (&cards.yardstick, [].as_slice()),
                _ => (&cards.replication, cards.background.as_slice()),
            };
            look(seldom, 1);
            look(often, LOOKS_AT_ONCE);
            rounds_count += 1;
            if rounds_count.is_multiple_of(ROUNDS_PER_CPU_READING) {
                self.cards_cpu_ns.store(thread_cpu_ns() - begun_ns, Ordering::Release);
            }
        }
    }

    /// The process of follower `index` (node `index + 1`).
    pub fn follow<P: Provider + Send>(&self, cluster: &Cluster<P>, index: usize) {
        let follower = &self.followers[index];
        follower.tid.store(gettid().as_raw(), Ordering::Release);
        loop {
            let mut service = self.service();
            while matches!(*service, Service::Still | Service::Yardstick) {
                follower.is_still.store(true, Ordering::Release);
                service = self.changed.wait(service).expect("whoever held it did not panic");
            }
            follower.is_still.store(false, Ordering::Release);
            let told = *service;
            drop(service);
            if told == Service::Over {
                return;
            }
            let mut node = locked(&cluster.nodes[index + 1]);
            node.turn(cluster.now());
            if told != Service::Takeover {
                node.out.clear();
            }
            drop(node);
            thread::sleep(LOOK_EVERY);
        }
    }
}

/// Each card looks so many times, in turn.
fn look<P: Provider>(cards: &[Card<P>], looks_count: u64) {
    let mut running: Vec<_> = cards.iter().map(Card::run).collect();
    for _ in 0..looks_count {
        running.iter_mut().for_each(|card| card.look());
    }
}
