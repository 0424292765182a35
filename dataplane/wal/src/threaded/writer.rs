//! The log's own thread, and what it shares with the log's owner.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam::queue::ArrayQueue;
use dataplane_waist::{Durable, Log};

use super::{
    batch::Batch,
    signal::{FAILED, Signal},
};
use crate::{sys::Bell, wal::Wal};

/// Batches on their way to the thread. A node makes one a turn, and a turn takes a tenth of a flush or less.
const QUEUE_BATCHES: usize = 64;
/// The thread, as its owner sees it.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) thread: JoinHandle<()>,
    /// How far the log is safe after each batch that is under way, oldest first.
    pub(super) handed: VecDeque<Durable>,
    /// How many batches are known to be over.
    pub(super) over_count: u64,
    is_resting: bool,
    /// Rings of the bell that will come, or have come, and were not taken back.
    rings_count: u64,
}

#[derive(Debug)]
pub(super) struct Shared {
    /// Whose it is for the time of a batch. Nobody ever waits for it: the thread takes it when something is handed over, the owner
    /// only when all that was handed over is over.
    pub(super) wal: Mutex<Option<Wal>>,
    pub(super) full: ArrayQueue<Batch>,
    pub(super) empty: ArrayQueue<Batch>,
    pub(super) signal: Signal,
    pub(super) bell: Bell,
    pub(super) is_ending: AtomicBool,
    failure: Mutex<Option<Failure>>,
    pub(super) flushes_count: AtomicU64,
    pub(super) writes_count: AtomicU64,
    /// How long the thread's last flush took, until the owner has asked; 0 for none.
    flush_ns: AtomicU64,
}

/// An error that is told more than once.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    kind: io::ErrorKind,
    message: String,
}

impl Failure {
    pub(super) fn of(error: &io::Error) -> Failure {
        Failure {
            kind: error.kind(),
            message: error.to_string(),
        }
    }
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> io::Error {
        io::Error::new(failure.kind, failure.message)
    }
}

pub(super) fn ended() -> Failure {
    Failure {
        kind: io::ErrorKind::BrokenPipe,
        message: "the log's thread has ended, and nothing that it had not yet written may be taken for written"
            .to_owned(),
    }
}

impl Writer {
    pub(super) fn start(wal: Wal) -> io::Result<Writer> {
        let shared = Arc::new(Shared {
            wal: Mutex::new(Some(wal)),
            full: ArrayQueue::new(QUEUE_BATCHES),
            empty: ArrayQueue::new(QUEUE_BATCHES),
            signal: Signal::new(),
            bell: Bell::new()?,
            is_ending: AtomicBool::new(false),
            failure: Mutex::new(None),
            flushes_count: AtomicU64::new(0),
            writes_count: AtomicU64::new(0),
            flush_ns: AtomicU64::new(0),
        });
        let of_thread = shared.clone();
        let thread = thread::Builder::new()
            .name("dplab-wal".to_owned())
            .spawn(move || of_thread.run())?;
        Ok(Writer {
            shared,
            thread,
            handed: VecDeque::with_capacity(QUEUE_BATCHES),
            over_count: 0,
            is_resting: false,
            rings_count: 0,
        })
    }

    /// False: something has been done by now.
    pub(super) fn may_rest(&mut self) -> bool {
        self.is_resting = true;
        self.shared.signal.rest(self.over_count)
    }

    /// Rests no more, and takes back what the bell has rung. A ring that is announced and has not come yet is taken back the
    /// next time; until then the bell wakes somebody for nothing once.
    pub(super) fn awake(&mut self) {
        if std::mem::take(&mut self.is_resting) && self.shared.signal.awake() {
            self.rings_count += 1;
        }
        if self.rings_count > 0 {
            self.rings_count -= self.shared.bell.clear();
        }
    }
}

impl Shared {
    /// A thread that panics between two lines of this file leaves nothing half done.
    pub(super) fn lock(&self) -> MutexGuard<'_, Option<Failure>> {
        self.failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// How long the thread's last flush took, if there was one since the last call.
    pub(super) fn last_flush(&self) -> Option<Duration> {
        match self.flush_ns.swap(0, Ordering::Relaxed) {
            0 => None,
            flush_ns => Some(Duration::from_nanos(flush_ns)),
        }
    }

    /// The thread.
    fn run(&self) {
        let mut ending = Ending {
            shared: self,
            is_orderly: false,
        };
        match self.write_all() {
            Ok(()) => ending.is_orderly = true,
            Err(error) => *self.lock() = Some(Failure::of(&error)),
        }
        if let Ok(Some(wal)) = self.wal.lock().as_deref_mut() {
            wal.leave();
        }
    }

    fn write_all(&self) -> io::Result<()> {
        let mut over_count = 0;
        loop {
            if !self.full.is_empty() {
                over_count += self.write_waiting()?;
                if self.signal.finish(over_count) {
                    self.bell.ring();
                }
            } else if !self.is_ending.load(Ordering::Acquire) {
                // A batch that came since has left a token behind.
                thread::park();
            } else if self.full.is_empty() {
                return Ok(());
            }
        }
    }

    /// Writes all that waits and flushes it once. Says how many batches it was.
    fn write_waiting(&self) -> io::Result<u64> {
        let mut lent = self.wal.lock().map_err(|_| ended())?;
        let wal = lent.as_mut().ok_or_else(ended)?;
        let (mut batches_count, mut writes_count) = (0, 0);
        while batches_count < QUEUE_BATCHES as u64
            && let Some(mut batch) = self.full.pop()
        {
            batches_count += 1;
            writes_count += batch.write_to(wal)?;
            // There are never more batches than this has room for, but for the owner's own.
            let _ = self.empty.push(batch);
        }
        let begin = Instant::now();
        wal.sync()?;
        wal.wait()?;
        let flush_ns = begin.elapsed().as_nanos() as u64;
        self.flush_ns.fetch_max(flush_ns.max(1), Ordering::Relaxed);
        self.flushes_count.fetch_add(1, Ordering::Relaxed);
        self.writes_count.fetch_add(writes_count as u64, Ordering::Relaxed);
        Ok(batches_count)
    }
}

/// Tells the owner that the thread has ended, also when it panics.
struct Ending<'a> {
    shared: &'a Shared,
    is_orderly: bool,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if !self.is_orderly && self.shared.signal.finish(FAILED) {
            self.shared.bell.ring();
        }
    }
}
