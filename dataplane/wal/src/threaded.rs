//! A log whose disk does not stop its owner: a thread of its own writes, the owner goes on and is told.
//!
//! ```text
//!  owner                                                    the log's thread
//!  append, set_state, install ─▶ a batch
//!  sync ─── hands the batch over ───▶ ▢▢▢ ───────────────▶  all that waits: written, flushed once
//!  durable ◀────────────────────────────── how many batches are over, and a bell if the owner rests
//! ```
//!
//! There is no delay to tune: a flush takes everything that came while the one before it was on its way to the disk (greedy
//! group commit). The queue has a bound. Behind a full one the owner's next batch fills, and once that is full, too, the owner
//! waits for the disk, as it would without the thread; such waits are counted.
//!
//! An owner that says so ([`ThreadedWal::with_own_hand`]) writes what is short by itself as long as the disk was quick.

mod batch;
mod hand;
mod signal;
mod writer;

use std::{
    io,
    os::fd::AsFd,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use dataplane_waist::{Durable, Log, News, Recovered, Slot, Snapshot, Tail, Term};

pub use self::hand::OwnHand;
use self::{
    batch::Batch,
    hand::Hand,
    signal::FAILED,
    writer::{Failure, Writer, ended},
};
use crate::{
    report::Report,
    shape::{Shape, check_state},
    wal::Wal,
};

/// What a batch may hold, in bytes, before it must be handed over: as much as the longest commit of
/// [`crate::WalOptions::new`]. A single entry may be longer.
const BATCH_BYTES: usize = 256 << 10;
/// How long the owner waits for room in the queue before it looks again by itself; it is woken long before.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A [`Wal`] behind a thread of its own, which starts with the first write and has the CPUs and the scheduling of whoever
/// wrote first. One owner.
///
/// Dropping it writes what was synced, and ends the thread.
#[derive(Debug)]
pub struct ThreadedWal {
    /// Here while there is no thread.
    wal: Option<Wal>,
    writer: Option<Writer>,
    engine: &'static str,
    report: Report,
    shape: Shape,
    states_count: u64,
    durable: Durable,
    /// What is being filled.
    draft: Batch,
    /// The draft was synced and is still here, because the queue was full.
    is_late: bool,
    failure: Option<Failure>,
    hand: Hand,
    /// The owner has written by itself and was not told since how far the log is safe.
    has_news: bool,
    stats: ThreadedStats,
}

/// What a threaded log has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadedStats {
    /// Flushes.
    pub flushes_count: u64,
    /// Entries, states and snapshots in them.
    pub writes_count: u64,
    /// How often the owner had to wait for the disk because the queue was full: back-pressure.
    pub stalls_count: u64,
    /// Flushes among them that the owner made by itself.
    pub own_flushes_count: u64,
}

impl ThreadedWal {
    /// Puts a thread before `wal`, which writes everything.
    ///
    /// # Errors
    /// As [`Log::durable`].
    pub fn new(wal: Wal) -> io::Result<ThreadedWal> {
        ThreadedWal::open(wal, None)
    }

    /// Puts a thread before `wal`; the owner writes by itself what `hand` says. The first slow flush stops the owner for as long
    /// as it takes, and those behind it do not.
    ///
    /// An engine that does not block has nothing to gain from that, and its ring would go from thread to thread: there the thread
    /// writes everything.
    ///
    /// # Errors
    /// As [`Log::durable`].
    pub fn with_own_hand(wal: Wal, hand: OwnHand) -> io::Result<ThreadedWal> {
        let blocks = wal.depth() == 1;
        ThreadedWal::open(wal, blocks.then_some(hand))
    }

    fn open(mut wal: Wal, hand: Option<OwnHand>) -> io::Result<ThreadedWal> {
        Ok(ThreadedWal {
            durable: wal.wait()?,
            states_count: wal.durable()?.states_count,
            engine: wal.engine(),
            report: wal.report().clone(),
            shape: wal.shape(),
            wal: Some(wal),
            writer: None,
            draft: Batch::default(),
            is_late: false,
            failure: None,
            hand: Hand::new(hand),
            has_news: false,
            stats: ThreadedStats::default(),
        })
    }

    /// The engine's name, for records.
    pub fn engine(&self) -> &'static str {
        self.engine
    }

    /// What opening the log found.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// The slot that is appended next.
    pub fn end(&self) -> Slot {
        Slot(self.shape.end)
    }

    /// The counters so far.
    pub fn stats(&self) -> ThreadedStats {
        let mut stats = self.stats;
        if let Some(writer) = &self.writer {
            stats.flushes_count += writer.shared.flushes_count.load(Ordering::Relaxed);
            stats.writes_count += writer.shared.writes_count.load(Ordering::Relaxed);
        }
        stats
    }

    /// Waits until all that was synced is durable.
    ///
    /// # Errors
    /// As [`Log::durable`].
    pub fn wait(&mut self) -> io::Result<Durable> {
        loop {
            // What did not fit into the queue is handed over on the way. That is no stall: who waits here wants to.
            let durable = self.durable()?;
            match &self.writer {
                Some(writer) if self.is_late || !writer.handed.is_empty() => self.rest(),
                _ => return Ok(durable),
            }
        }
    }

    /// Ends the thread, once it has written what was synced, and gives the log back.
    ///
    /// # Errors
    /// As [`Log::durable`].
    pub fn into_wal(mut self) -> io::Result<Wal> {
        self.stop()?;
        self.wal.take().ok_or_else(|| ended().into())
    }

    fn check(&self) -> io::Result<()> {
        match &self.failure {
            None => Ok(()),
            Some(failure) => Err(failure.clone().into()),
        }
    }

    /// The thread, started if there is none.
    fn writer(&mut self) -> io::Result<&mut Writer> {
        if let Some(wal) = self.wal.take() {
            self.writer = Some(Writer::start(wal)?);
        }
        self.writer.as_mut().ok_or_else(|| ended().into())
    }

    /// Writes the draft on the owner's thread, if that is for the owner to do: the log's thread has nothing to do, and it is short
    /// and quick. False: it is not, and nothing was done.
    fn write_here(&mut self) -> io::Result<bool> {
        let is_idle = !self.is_late && self.writer.as_ref().is_none_or(|writer| writer.handed.is_empty());
        if let Some(flush) = self.writer.as_ref().and_then(|writer| writer.shared.last_flush()) {
            self.hand.took(flush);
        }
        if self.draft.is_empty() || !self.hand.takes(self.draft.bytes_count()) || !is_idle {
            return Ok(false);
        }
        // The thread holds the log as long as it writes a batch, and has let go of it before it says that the batch is over.
        let mut lent = match &self.writer {
            Some(writer) => match writer.shared.wal.try_lock() {
                Ok(lent) => Some(lent),
                Err(_) => return Ok(false),
            },
            None => None,
        };
        let wal = match &mut lent {
            Some(lent) => lent.as_mut(),
            None => self.wal.as_mut(),
        };
        let Some(wal) = wal else { return Ok(false) };
        let begin = Instant::now();
        match self.draft.write_durably_to(wal) {
            Ok(writes_count) => self.stats.writes_count += writes_count as u64,
            Err(error) => {
                self.failure = Some(Failure::of(&error));
                return Err(error);
            }
        }
        self.hand.took(begin.elapsed());
        self.stats.flushes_count += 1;
        self.stats.own_flushes_count += 1;
        self.durable = Durable {
            end: Slot(self.shape.end),
            states_count: self.states_count,
        };
        self.has_news = true;
        Ok(true)
    }

    /// Gives the draft to the thread. False: the queue is full.
    fn hand_over(&mut self) -> io::Result<bool> {
        if self.draft.is_empty() {
            self.is_late = false;
            return Ok(true);
        }
        let after = Durable {
            end: Slot(self.shape.end),
            states_count: self.states_count,
        };
        let draft = std::mem::take(&mut self.draft);
        let writer = self.writer()?;
        match writer.shared.full.push(draft) {
            Ok(()) => {
                writer.handed.push_back(after);
                writer.thread.thread().unpark();
                self.draft = writer.shared.empty.pop().unwrap_or_default();
                self.is_late = false;
                Ok(true)
            }
            Err(draft) => {
                self.draft = draft;
                Ok(false)
            }
        }
    }

    /// As [`ThreadedWal::hand_over`]; behind a full queue it waits for the disk.
    fn hand_over_or_wait(&mut self) -> io::Result<()> {
        if self.hand_over()? {
            return Ok(());
        }
        self.stats.stalls_count += 1;
        while !self.hand_over()? {
            self.rest();
            self.look()?;
        }
        Ok(())
    }

    /// Makes sure that a batch does not become longer than it should.
    fn make_room(&mut self, payload_bytes: usize) -> io::Result<()> {
        if !self.draft.is_empty() && self.draft.bytes_count() + payload_bytes > BATCH_BYTES {
            self.hand_over_or_wait()?;
        }
        Ok(())
    }

    /// Rests until the thread has done something.
    fn rest(&mut self) {
        if let Some(writer) = &mut self.writer
            && writer.may_rest()
        {
            writer.shared.bell.wait(LOOK_AGAIN);
        }
    }

    /// Takes in what the thread has done.
    fn look(&mut self) -> io::Result<()> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        writer.awake();
        let over_count = writer.shared.signal.over();
        if over_count == FAILED {
            self.failure = writer.shared.lock().clone().or_else(|| Some(ended()));
            return self.check();
        }
        while writer.over_count < over_count {
            writer.over_count += 1;
            self.durable = writer.handed.pop_front().expect("what is over was handed over");
        }
        Ok(())
    }

    /// Slots from `slot` on are not durable as they were last appended.
    fn lower_durable(&mut self, slot: Slot) {
        self.durable.end = self.durable.end.min(slot);
        for durable in self.writer.iter_mut().flat_map(|writer| &mut writer.handed) {
            durable.end = durable.end.min(slot);
        }
    }

    fn stop(&mut self) -> io::Result<()> {
        let late = if self.is_late { self.hand_over_or_wait() } else { Ok(()) };
        let Some(writer) = self.writer.take() else { return late };
        let Writer {
            shared,
            thread,
            mut handed,
            ..
        } = writer;
        shared.is_ending.store(true, Ordering::Release);
        thread.thread().unpark();
        // A thread that panicked holding the log has not given it back: the lock is poisoned.
        let _ = thread.join();
        self.wal = shared.wal.lock().ok().and_then(|mut wal| wal.take());
        self.stats.flushes_count += shared.flushes_count.load(Ordering::Relaxed);
        self.stats.writes_count += shared.writes_count.load(Ordering::Relaxed);
        if shared.signal.over() == FAILED {
            self.failure = shared.lock().clone().or_else(|| Some(ended()));
        } else if let Some(last) = handed.pop_back() {
            self.durable = last;
        }
        self.check()?;
        late
    }
}

impl Log for ThreadedWal {
    /// Refuses at once what the log would refuse by its shape; a device's error is told by whatever call comes after it.
    fn append(&mut self, slot: Slot, term: Term, payload: &[u8]) -> io::Result<()> {
        self.check()?;
        self.shape.check_append(slot, payload)?;
        self.make_room(payload.len())?;
        self.draft.append(slot, term, payload);
        if slot.0 < self.shape.end {
            self.lower_durable(slot);
        }
        self.shape.end = slot.0 + 1;
        Ok(())
    }

    fn set_state(&mut self, state: &[u8]) -> io::Result<()> {
        self.check()?;
        check_state(state)?;
        self.make_room(state.len())?;
        self.draft.set_state(state);
        self.states_count += 1;
        Ok(())
    }

    fn install(&mut self, snapshot: &Snapshot) -> io::Result<()> {
        self.check()?;
        self.shape.check_install(snapshot.end)?;
        self.draft.install(snapshot);
        let keeps = snapshot.tail == Tail::Keep && snapshot.end.0 <= self.shape.end;
        if !keeps {
            self.lower_durable(Slot(self.shape.begin));
            self.shape.end = snapshot.end.0;
        }
        self.shape.begin = snapshot.end.0;
        Ok(())
    }

    /// Writes everything, or hands it to the thread, or leaves it for the next call if the queue is full.
    fn sync(&mut self) -> io::Result<()> {
        self.check()?;
        if !self.write_here()? {
            self.is_late = !self.hand_over()?;
        }
        Ok(())
    }

    fn durable(&mut self) -> io::Result<Durable> {
        self.check()?;
        self.look()?;
        self.has_news = false;
        if self.is_late {
            self.hand_over()?;
        }
        Ok(self.durable)
    }

    /// Ends the thread; the next write starts another.
    fn recover(&mut self, visit: &mut dyn FnMut(Recovered<'_>)) -> io::Result<Slot> {
        if !self.draft.is_empty() {
            self.hand_over_or_wait()?;
        }
        self.stop()?;
        match &mut self.wal {
            Some(wal) => wal.recover(visit),
            None => Err(ended().into()),
        }
    }

    fn news(&mut self) -> News<'_> {
        if self.has_news {
            return News::Come;
        }
        match &mut self.writer {
            // Nothing is under way that could be told.
            None => News::Unannounced,
            Some(writer) => match writer.may_rest() {
                true => News::Rings(writer.shared.bell.as_fd()),
                false => News::Come,
            },
        }
    }
}

impl Drop for ThreadedWal {
    fn drop(&mut self) {
        // Whoever wants to know has asked `durable`.
        let _ = self.stop();
    }
}
