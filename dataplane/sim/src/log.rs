//! A log over a modelled disk: what was written is in flight until a sync has ended, and a crash takes some of it.
//!
//! ```text
//!   base                │ ops: written, not safe                          │
//!   survives everything │ passed to a sync        │ still in the process  │
//!                       ▲ a sync that ends moves this line to the right
//! ```
//!
//! The log's own file format keeps writes in order, so what survives is a prefix of the writes: at the first write that
//! is missing or torn, recovery cuts. A disk may write later ones before earlier ones ([`DiskOptions::reorders`]); then
//! there is more behind the cut to be thrown away, and the prefix is shorter.

use std::{collections::VecDeque, io};

use dataplane_waist::{Durable, Log, MemoryLog, Recovered, STATE_BYTES_MAX, Slot, Snapshot, Tail, Term};
use dataplane_wire::checksum::crc32c;

use crate::{
    EventHash, Latency, SimTime,
    random::{Purpose, Random},
};

/// What a disk does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DiskOptions {
    /// From the start of a sync to its end. One sync runs at a time; those that wait for it are made into one.
    pub sync: Latency,
    /// Whether writes that no sync covers may reach the medium in another order. It makes no difference to what a
    /// correct log may give back, only to how much a crash takes.
    pub reorders: bool,
}

impl Default for DiskOptions {
    fn default() -> DiskOptions {
        DiskOptions {
            sync: crate::costs::SYNC,
            reorders: true,
        }
    }
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process dies and the kernel lives: what was passed to a sync is in the page cache and survives; what was
    /// only appended may have been in the process's memory, and a seeded prefix of it survives.
    Process,
    /// The machine dies: of everything that no honest sync covered, a seeded prefix survives.
    Power,
}

/// What a log has counted, over all its openings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SimLogStats {
    /// Appends, states and snapshots taken.
    pub writes_count: u64,
    /// Syncs that ended well, or said so.
    pub syncs_count: u64,
    /// Of these, the ones that the disk lied about.
    pub lies_count: u64,
    /// Writes that crashes took.
    pub lost_writes_count: u64,
    /// Of these, the ones that had reached the medium, behind a hole.
    pub cut_writes_count: u64,
}

/// A modelled disk with one log on it. It outlives its host's crashes.
#[derive(Debug)]
pub struct SimLog {
    options: DiskOptions,
    random: Random,
    now: SimTime,
    /// What survives everything.
    base: MemoryLog,
    /// Written since, oldest first; `ops_begin` is the number of the first of them.
    ops: VecDeque<Op>,
    ops_begin: u64,
    /// The number of the first write that no sync was asked to cover.
    unsynced_begin: u64,
    /// Under way, then the one that waits for it.
    syncs: VecDeque<Sync>,
    /// The log as whoever writes it sees it.
    begin: Slot,
    end: Slot,
    states_count: u64,
    durable: Durable,
    condition: Condition,
    damage: Option<Damage>,
    faults: DiskFaults,
    stats: SimLogStats,
    hash: EventHash,
    spare: Vec<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Good,
    /// After a device's error.
    Failed,
    /// After a crash.
    NeedsRecovery,
}

/// What is wrong with the disk at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DiskFaults {
    /// Added to every sync that starts.
    pub slow: SimTime,
    /// A sync ends without having made anything safe.
    pub lies: bool,
    /// Writes that still succeed before one fails.
    pub writes_until_failure: Option<u64>,
    /// Syncs that still succeed before one fails.
    pub syncs_until_failure: Option<u64>,
    /// Picks the entry that the next recovery cannot read.
    pub damage: Option<u64>,
}

#[derive(Debug)]
enum Op {
    Append(Slot, Term, Vec<u8>),
    State(Vec<u8>),
    Install(Snapshot),
}

#[derive(Clone, Copy, Debug)]
struct Sync {
    ends_at: SimTime,
    /// It covers the writes before this number.
    ops_end: u64,
    /// What is durable when it has ended.
    durable: Durable,
    fails: bool,
}

#[derive(Clone, Copy, Debug)]
struct Damage {
    slot: Slot,
    end: Slot,
    last_term: Term,
}

impl SimLog {
    /// An empty log on a disk of its own. `seed` and `number` name its stream of randomness.
    pub fn new(options: DiskOptions, seed: u64, number: u32) -> SimLog {
        SimLog {
            options,
            random: Random::new(seed, Purpose::Disk, number, 0),
            now: SimTime::ZERO,
            base: MemoryLog::new(),
            ops: VecDeque::new(),
            ops_begin: 0,
            unsynced_begin: 0,
            syncs: VecDeque::with_capacity(2),
            begin: Slot(0),
            end: Slot(0),
            states_count: 0,
            durable: Durable::default(),
            condition: Condition::Good,
            damage: None,
            faults: DiskFaults::default(),
            stats: SimLogStats::default(),
            hash: EventHash::EMPTY,
            spare: Vec::new(),
        }
    }

    /// Lets the disk's time come to `now`; never back.
    pub fn advance(&mut self, now: SimTime) {
        self.now = self.now.max(now);
    }

    /// When [`Log::durable`] will have something new to say, if a sync is under way.
    pub fn next_at(&self) -> Option<SimTime> {
        self.syncs.front().map(|sync| sync.ends_at)
    }

    /// Whoever wrote the log dies. From here on the log answers to [`Log::recover`] alone, which opens it again.
    pub fn crash(&mut self, crash: Crash) {
        // A sync that had ended is not lost only because nobody had asked; one that failed has poisoned the log.
        let _ = self.settle();
        let is_dirty_kept = crash == Crash::Process && self.condition != Condition::Failed;
        let kept_min = match is_dirty_kept {
            true => self.unsynced_begin.saturating_sub(self.ops_begin) as usize,
            // After a failed sync the kernel has marked its pages clean: nothing of them is sure to be written any
            // more (PostgreSQL's "fsyncgate", 2018; Rebello et al., ATC'20).
            false => 0,
        };
        let survivors_count = kept_min + self.draw_survivors(self.ops.len() - kept_min);
        self.stats.lost_writes_count += (self.ops.len() - survivors_count) as u64;
        for op in self.ops.drain(survivors_count..) {
            recycle(&mut self.spare, op);
        }
        self.syncs.clear();
        self.faults.writes_until_failure = None;
        self.faults.syncs_until_failure = None;
        self.condition = Condition::NeedsRecovery;
    }

    /// The counters so far.
    pub fn stats(&self) -> SimLogStats {
        self.stats
    }

    pub(crate) fn faults_mut(&mut self) -> &mut DiskFaults {
        &mut self.faults
    }

    /// A hash over everything that was written.
    pub(crate) fn hash(&self) -> u64 {
        self.hash.value()
    }

    /// How many of `dirty_count` writes survive, counted from the oldest.
    fn draw_survivors(&mut self, dirty_count: usize) -> usize {
        if !self.options.reorders {
            return self.random.up_to(dirty_count as u64) as usize;
        }
        // Any subset may have reached the medium; recovery cuts at the first that did not. How full the subset is, is
        // drawn first: with even chances a long prefix would never survive.
        let reached_ratio = self.random.up_to(1000) as f64 / 1000.0;
        let mut prefix_count = None;
        for index in 0..dirty_count {
            let reached = self.random.chance(reached_ratio);
            match prefix_count {
                None if !reached => prefix_count = Some(index),
                Some(_) if reached => self.stats.cut_writes_count += 1,
                _ => (),
            }
        }
        prefix_count.unwrap_or(dirty_count)
    }

    /// Ends the syncs whose time has come.
    fn settle(&mut self) -> io::Result<()> {
        while let Some(sync) = self.syncs.front().copied()
            && sync.ends_at <= self.now
        {
            self.syncs.pop_front();
            if sync.fails {
                self.syncs.clear();
                self.condition = Condition::Failed;
                return Err(io::Error::other(
                    "EIO: the sync failed, and what it covered may be lost",
                ));
            }
            self.stats.syncs_count += 1;
            self.durable = sync.durable;
            if self.faults.lies {
                self.stats.lies_count += 1;
            } else {
                self.make_safe(sync.ops_end);
            }
        }
        Ok(())
    }

    fn make_safe(&mut self, ops_end: u64) {
        while self.ops_begin < ops_end
            && let Some(op) = self.ops.pop_front()
        {
            self.ops_begin += 1;
            if !matches!(op, Op::State(_)) {
                // What was damaged has been replaced.
                self.damage = None;
            }
            apply(&mut self.base, &op);
            recycle(&mut self.spare, op);
        }
    }

    /// Whether the log takes a write now.
    fn check_write(&mut self) -> io::Result<()> {
        self.check_condition()?;
        if counts_down(&mut self.faults.writes_until_failure) {
            self.condition = Condition::Failed;
            return Err(io::Error::other("EIO: the write failed"));
        }
        self.stats.writes_count += 1;
        Ok(())
    }

    fn check_condition(&self) -> io::Result<()> {
        match self.condition {
            Condition::Good => Ok(()),
            Condition::Failed => Err(io::Error::other("an earlier error of the device has ended this log")),
            Condition::NeedsRecovery => Err(invalid("the log was not recovered after a crash: call recover first")),
        }
    }

    /// What was durable from `slot` on is so no longer.
    fn lower_durable(&mut self, slot: Slot) {
        self.durable.end = self.durable.end.min(slot);
        for sync in &mut self.syncs {
            sync.durable.end = sync.durable.end.min(slot);
        }
    }

    fn keep(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut kept = self.spare.pop().unwrap_or_default();
        kept.clear();
        kept.extend_from_slice(bytes);
        kept
    }

    fn ops_end(&self) -> u64 {
        self.ops_begin + self.ops.len() as u64
    }

    /// Picks an entry of what is in `base` and forgets it with all behind it.
    fn damage_entry(&mut self, pick: u64) {
        let mut entries: Option<(Slot, Slot, Term)> = None;
        let _ = self.base.recover(&mut |recovered| {
            if let Recovered::Entry { slot, term, .. } = recovered {
                let begin = entries.map_or(slot, |(begin, ..)| begin);
                entries = Some((begin, Slot(slot.0 + 1), term));
            }
        });
        let Some((begin, end, last_term)) = entries else {
            return;
        };
        let slot = Slot(begin.0 + pick % (end.0 - begin.0));
        let mut readable = MemoryLog::new();
        let _ = self.base.recover(&mut |recovered| match recovered {
            Recovered::State(state) => apply(&mut readable, &Op::State(state.into())),
            Recovered::Snapshot { end, last_term, bytes } => {
                let (tail, bytes) = (Tail::Keep, bytes.into());
                let snapshot = Snapshot {
                    end,
                    last_term,
                    tail,
                    bytes,
                };
                apply(&mut readable, &Op::Install(snapshot));
            }
            Recovered::Entry {
                slot: at,
                term,
                payload,
            } if at < slot => {
                apply(&mut readable, &Op::Append(at, term, payload.into()));
            }
            _ => (),
        });
        self.base = readable;
        // What an older damage took was once durable, too.
        let older = self.damage.unwrap_or(Damage { slot, end, last_term });
        self.damage = Some(match older.end > end {
            true => Damage { slot, ..older },
            false => Damage { slot, end, last_term },
        });
    }
}

impl Log for SimLog {
    fn append(&mut self, slot: Slot, term: Term, payload: &[u8]) -> io::Result<()> {
        self.check_condition()?;
        let (begin, end) = (self.begin.0, self.end.0);
        if slot.0 > end {
            return Err(invalid(format!(
                "slot {} would leave a gap: the log ends at {end}",
                slot.0
            )));
        }
        if slot.0 < begin {
            return Err(invalid(format!(
                "slot {} is in the past: a snapshot stands for all before {begin}",
                slot.0
            )));
        }
        self.check_write()?;
        self.hash.add(slot.0);
        self.hash.add(term.0);
        self.hash.add(u64::from(crc32c(payload)));
        self.lower_durable(slot);
        self.end = Slot(slot.0 + 1);
        let payload = self.keep(payload);
        self.ops.push_back(Op::Append(slot, term, payload));
        Ok(())
    }

    fn set_state(&mut self, state: &[u8]) -> io::Result<()> {
        self.check_condition()?;
        if state.len() > STATE_BYTES_MAX {
            return Err(invalid(format!(
                "a state of {} bytes; at most {STATE_BYTES_MAX} are allowed",
                state.len()
            )));
        }
        self.check_write()?;
        self.hash.add(u64::from(crc32c(state)));
        self.states_count += 1;
        let state = self.keep(state);
        self.ops.push_back(Op::State(state));
        Ok(())
    }

    fn install(&mut self, snapshot: &Snapshot) -> io::Result<()> {
        self.check_condition()?;
        if snapshot.end < self.begin {
            return Err(invalid(format!(
                "a snapshot up to {}: one up to {} stands already",
                snapshot.end.0, self.begin.0
            )));
        }
        self.check_write()?;
        self.hash.add(snapshot.end.0);
        self.hash.add(u64::from(crc32c(&snapshot.bytes)));
        if snapshot.tail == Tail::Drop || snapshot.end > self.end {
            self.lower_durable(self.begin);
            self.end = snapshot.end;
        }
        self.begin = snapshot.end;
        self.ops.push_back(Op::Install(snapshot.clone()));
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.check_condition()?;
        self.settle()?;
        let fails = counts_down(&mut self.faults.syncs_until_failure);
        let takes = self.options.sync.draw(&mut self.random) + self.faults.slow;
        self.unsynced_begin = self.ops_end();
        let durable = Durable {
            end: self.end,
            states_count: self.states_count,
        };
        let starts_at = match self.syncs.len() {
            0 => self.now,
            1 => self.syncs[0].ends_at,
            _ => {
                // The second has not begun; it can as well cover this, too.
                let waiting = &mut self.syncs[1];
                waiting.ops_end = self.unsynced_begin;
                waiting.durable = durable;
                waiting.fails |= fails;
                return Ok(());
            }
        };
        self.syncs.push_back(Sync {
            ends_at: starts_at + takes,
            ops_end: self.unsynced_begin,
            durable,
            fails,
        });
        Ok(())
    }

    fn durable(&mut self) -> io::Result<Durable> {
        self.check_condition()?;
        self.settle()?;
        Ok(self.durable)
    }

    /// As the trait says; what it visits it has made safe before it returns, unless the disk lies.
    fn recover(&mut self, visit: &mut dyn FnMut(Recovered<'_>)) -> io::Result<Slot> {
        if self.condition == Condition::Failed {
            self.check_condition()?;
        }
        let damage_pick = self.faults.damage.take();
        if !self.faults.lies || damage_pick.is_some() {
            self.make_safe(self.ops_end());
        }
        if let Some(pick) = damage_pick {
            self.damage_entry(pick);
        }
        let mut seen = None;
        let image = match self.ops.is_empty() {
            true => &mut self.base,
            false => {
                let mut image = self.base.clone();
                self.ops.iter().for_each(|op| apply(&mut image, op));
                seen.insert(image)
            }
        };
        let mut begin = Slot(0);
        let end = image.recover(&mut |recovered| {
            if let Recovered::Snapshot { end, .. } = recovered {
                begin = end;
            }
            visit(recovered);
        })?;
        if let Some(Damage { slot, end, last_term }) = self.damage {
            visit(Recovered::Damaged { slot, end, last_term });
        }
        (self.begin, self.end) = (begin, end);
        self.states_count = 0;
        self.durable = Durable { end, states_count: 0 };
        self.unsynced_begin = self.ops_end();
        self.condition = Condition::Good;
        Ok(end)
    }
}

fn apply(log: &mut MemoryLog, op: &Op) {
    let result = match op {
        Op::Append(slot, term, payload) => log.append(*slot, *term, payload),
        Op::State(state) => log.set_state(state),
        Op::Install(snapshot) => log.install(snapshot),
    };
    // Each was checked when it was written, and a prefix of valid writes is valid.
    result.expect("a write that was accepted can be made again");
}

fn recycle(spare: &mut Vec<Vec<u8>>, op: Op) {
    if let Op::Append(_, _, bytes) | Op::State(bytes) = op {
        spare.push(bytes);
    }
}

/// Whether it is this one that fails.
fn counts_down(until_failure: &mut Option<u64>) -> bool {
    let left = until_failure.take();
    *until_failure = left.and_then(|left| left.checked_sub(1));
    left == Some(0)
}

fn invalid(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message.into())
}

#[cfg(test)]
mod tests;
