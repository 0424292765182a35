//! The log's own thread, and what it shares with the log's owner.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
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
    pub(super) thread: JoinHandle<Wal>,
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
    pub(super) full: ArrayQueue<Batch>,
    pub(super) empty: ArrayQueue<Batch>,
    pub(super) signal: Signal,
    pub(super) bell: Bell,
    pub(super) is_ending: AtomicBool,
    failure: Mutex<Option<Failure>>,
    pub(super) flushes_count: AtomicU64,
    pub(super) writes_count: AtomicU64,
}

/// An error that is told more than once.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    kind: io::ErrorKind,
    message: String,
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
            full: ArrayQueue::new(QUEUE_BATCHES),
            empty: ArrayQueue::new(QUEUE_BATCHES),
            signal: Signal::new(),
            bell: Bell::new()?,
            is_ending: AtomicBool::new(false),
            failure: Mutex::new(None),
            flushes_count: AtomicU64::new(0),
            writes_count: AtomicU64::new(0),
        });
        let of_thread = shared.clone();
        let thread = thread::Builder::new()
            .name("dplab-wal".to_owned())
            .spawn(move || of_thread.run(wal))?;
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

    /// The thread.
    fn run(&self, mut wal: Wal) -> Wal {
        let mut ending = Ending {
            shared: self,
            is_orderly: false,
        };
        if let Err(error) = self.write_all(&mut wal) {
            *self.lock() = Some(Failure {
                kind: error.kind(),
                message: error.to_string(),
            });
        } else {
            ending.is_orderly = true;
        }
        wal.leave();
        wal
    }

    fn write_all(&self, wal: &mut Wal) -> io::Result<()> {
        let mut over_count = 0;
        loop {
            let mut writes_count = 0;
            let mut batches_count = 0;
            while batches_count < QUEUE_BATCHES as u64
                && let Some(mut batch) = self.full.pop()
            {
                batches_count += 1;
                writes_count += batch.write_to(wal)?;
                // There are never more batches than this has room for, but for the owner's own.
                let _ = self.empty.push(batch);
            }
            if batches_count > 0 {
                wal.sync()?;
                wal.wait()?;
                over_count += batches_count;
                self.flushes_count.fetch_add(1, Ordering::Relaxed);
                self.writes_count.fetch_add(writes_count as u64, Ordering::Relaxed);
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
