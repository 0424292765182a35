//! One log for several threads: whoever finds nobody writing takes all that is waiting and writes it ("leader and
//! followers"). While one commit is on its way to the disk, the next one fills.
//!
//! There is no delay to tune: a commit starts as soon as the one before it is durable. The one thing that a leader waits
//! for is the threads that the last commit has just set free: they are about to come back, and if it left without them,
//! the writers would split into two cohorts of half the size that take turns, each waiting for two flushes instead of
//! one. It waits for half a flush at most, and stops doing so for a while when nobody comes.

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use dataplane_waist::{Log, Slot, Term};

use crate::{sys, wal::Wal};

/// How long a follower sleeps before it looks again by itself; it is woken long before.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// For so many commits at most no leader waits, after nobody came.
const UNHELD_MAX: u32 = 256;

/// A handle of a log that several threads append to; clones are the same log.
#[derive(Clone, Debug)]
pub struct SharedWal {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    wal: Mutex<Wal>,
    /// All batches below this one are over.
    over: AtomicU64,
    has_failed: AtomicBool,
    /// How many entries wait in the batch that is being filled.
    waiting: AtomicU32,
    /// Who waits for an even batch sleeps on one, who waits for an odd one on the other: at most two are about.
    words: [AtomicU32; 2],
    payload_bytes_max: usize,
}

#[derive(Debug, Default)]
struct Queue {
    /// The batch that is being filled.
    batch: u64,
    staged: Staged,
    spare: Staged,
    is_led: bool,
    next_slot: u64,
    term: u64,
    /// How many writers there were around the end of the last commit: those in it, and those that waited for its end.
    expected: u32,
    flush: Duration,
    unheld: u32,
    unheld_next: u32,
    failure: Option<(io::ErrorKind, String)>,
    stats: SharedStats,
}

/// Entries one behind the other.
#[derive(Debug, Default)]
struct Staged {
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
}

/// What a shared log has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SharedStats {
    /// Commits.
    pub commits_count: u64,
    /// Entries in them.
    pub entries_count: u64,
    /// Commits for which the leader waited, and got, all writers.
    pub full_count: u64,
    /// Commits for which it waited in vain.
    pub held_in_vain_count: u64,
}

impl SharedWal {
    /// Shares `wal`; entries are appended in `term`.
    pub fn new(wal: Wal, term: Term) -> SharedWal {
        let queue = Queue {
            next_slot: wal.end().0,
            term: term.0,
            ..Queue::default()
        };
        SharedWal {
            shared: Arc::new(Shared {
                queue: Mutex::new(queue),
                payload_bytes_max: wal.payload_bytes_max(),
                wal: Mutex::new(wal),
                over: AtomicU64::new(0),
                has_failed: AtomicBool::new(false),
                waiting: AtomicU32::new(0),
                words: [AtomicU32::new(0), AtomicU32::new(0)],
            }),
        }
    }

    /// Appends an entry and returns its slot once it is durable.
    ///
    /// # Errors
    /// `InvalidInput` for an entry that is too long; otherwise the log's. After a device error every call fails.
    pub fn append_durable(&self, payload: &[u8]) -> io::Result<Slot> {
        let shared = &*self.shared;
        if payload.len() > shared.payload_bytes_max {
            let (len, max) = (payload.len(), shared.payload_bytes_max);
            let message = format!("an entry of {len} bytes: with segments of this size at most {max} fit");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let mut queue = shared.lock();
        queue.check()?;
        let (slot, batch) = (Slot(queue.next_slot), queue.batch);
        queue.next_slot += 1;
        queue.staged.bytes.extend_from_slice(payload);
        let end = queue.staged.bytes.len();
        queue.staged.ends.push(end);
        shared.waiting.store(queue.staged.ends.len() as u32, Ordering::Release);
        loop {
            if !queue.is_led && queue.batch == batch {
                queue.is_led = true;
                return shared.lead(queue).map(|()| slot);
            }
            let word = &shared.words[(batch & 1) as usize];
            let seen = word.load(Ordering::Acquire);
            drop(queue);
            if !shared.is_over(batch) {
                sys::futex_wait(word, seen, LOOK_AGAIN);
            }
            if shared.is_over(batch) && !shared.has_failed.load(Ordering::Acquire) {
                return Ok(slot);
            }
            queue = shared.lock();
            if shared.is_over(batch) {
                return queue.check().map(|()| slot);
            }
        }
    }

    /// The counters so far.
    pub fn stats(&self) -> SharedStats {
        self.shared.lock().stats
    }

    /// Runs `what` on the log itself, between two commits: to set a state, to install a snapshot, to look at it.
    /// What it appends is not known here: it must not append.
    pub fn with<T>(&self, what: impl FnOnce(&mut Wal) -> T) -> T {
        what(&mut self.shared.wal.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }
}

impl Queue {
    fn check(&self) -> io::Result<()> {
        match &self.failure {
            None => Ok(()),
            Some((kind, message)) => Err(io::Error::new(*kind, message.clone())),
        }
    }
}

impl Shared {
    /// A thread that panics between two lines of this file leaves nothing half done.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn is_over(&self, batch: u64) -> bool {
        self.over.load(Ordering::Acquire) > batch
    }

    /// Lets the others come, unless that has been in vain lately.
    fn hold<'a>(&'a self, mut queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        let expected = queue.expected;
        if queue.staged.ends.len() as u32 >= expected {
            return queue;
        }
        if queue.unheld > 0 {
            queue.unheld -= 1;
            return queue;
        }
        let hold_max = queue.flush / 2;
        drop(queue);
        let begin = Instant::now();
        let mut is_full = false;
        while !is_full && begin.elapsed() < hold_max {
            thread::yield_now();
            is_full = self.waiting.load(Ordering::Acquire) >= expected;
        }
        let mut queue = self.lock();
        if is_full {
            queue.stats.full_count += 1;
            queue.unheld_next = 0;
        } else {
            queue.stats.held_in_vain_count += 1;
            queue.unheld_next = (2 * queue.unheld_next + 1).min(UNHELD_MAX);
            queue.unheld = queue.unheld_next;
        }
        queue
    }

    fn lead(&self, queue: MutexGuard<'_, Queue>) -> io::Result<()> {
        let mut queue = self.hold(queue);
        let batch = queue.batch;
        let spare = std::mem::take(&mut queue.spare);
        let mut staged = std::mem::replace(&mut queue.staged, spare);
        let first_slot = queue.next_slot - staged.ends.len() as u64;
        let term = queue.term;
        queue.batch += 1;
        self.waiting.store(0, Ordering::Release);
        drop(queue);

        let begin = Instant::now();
        let outcome = self.write(&staged, first_slot, term);
        let flush = begin.elapsed();

        let mut queue = self.lock();
        let count = staged.ends.len();
        if let Err(error) = &outcome {
            queue.failure = Some((error.kind(), error.to_string()));
            self.has_failed.store(true, Ordering::Release);
        }
        queue.stats.commits_count += 1;
        queue.stats.entries_count += count as u64;
        staged.bytes.clear();
        staged.ends.clear();
        queue.spare = staged;
        queue.is_led = false;
        queue.flush = flush;
        let waiting = queue.staged.ends.len();
        queue.expected = (count + waiting) as u32;
        self.over.store(batch + 1, Ordering::Release);
        let [done, next] = [batch & 1, (batch + 1) & 1].map(|parity| &self.words[parity as usize]);
        done.fetch_add(1, Ordering::Release);
        if waiting > 0 {
            next.fetch_add(1, Ordering::Release);
        }
        drop(queue);
        if count > 1 {
            sys::futex_wake(done, i32::MAX);
        }
        if waiting > 0 {
            // One of them leads.
            sys::futex_wake(next, 1);
        }
        outcome
    }

    fn write(&self, staged: &Staged, first_slot: u64, term: u64) -> io::Result<()> {
        let mut wal = self.wal.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut begin = 0;
        for (index, &end) in staged.ends.iter().enumerate() {
            wal.append(Slot(first_slot + index as u64), Term(term), &staged.bytes[begin..end])?;
            begin = end;
        }
        wal.sync()?;
        wal.wait()?;
        Ok(())
    }
}
