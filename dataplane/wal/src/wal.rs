//! The log: one owner, one commit buffer, one place in one segment file.
//!
//! [`Wal::append`] copies into the buffer, [`Wal::sync`] seals it and gives it to the engine, [`Wal::durable`] looks what
//! has become of it. The first failure ends the log: every later call says what failed.

mod commit;
mod log;
mod rewrite;
mod segments;

use std::{collections::VecDeque, io};

use dataplane_waist::{Durable, STATE_BYTES_MAX, Slot, Tail};

use crate::{
    buffer::{Buffer, CommitBuilder},
    error::WalError,
    format::{COMMIT_SECTORS_MAX, Cut, FIRST_SECTOR, RECORD_PAYLOAD_BYTES_MAX, RecordHeader, RecordKind, SECTOR_BYTES},
    open::{Opened, WalOptions},
    replay::{Damage, Replay, Standing},
    report::{FindingKind, Report},
    scan::{LiveSegment, segment_name},
    shape::Shape,
    snapshot::SnapshotId,
    state::Page,
    storage::{EngineStats, FileId, OpenFor, Storage},
    witness::{LogShape, Witness},
};

/// A write-ahead log in a folder.
pub struct Wal {
    storage: Box<dyn Storage>,
    options: WalOptions,
    report: Report,
    poison: Option<Poison>,
    /// What opening found, until something is written.
    recovered: Option<Replay>,

    /// As appended.
    tip: Tip,
    /// As of the last commit that was given to the engine.
    sealed: Tip,
    state: Vec<u8>,
    sealed_state: Vec<u8>,
    damage: Option<Damage>,
    sealed_damage: Option<Damage>,
    /// How many states have been set since the log was opened.
    states_count: u64,
    durable: Durable,

    builder: CommitBuilder,
    /// What the commit under construction does beyond its records.
    draft: Draft,
    spare: Vec<Buffer>,
    in_flight: VecDeque<InFlight>,
    /// The buffer was synced and is still here, because enough commits are under way.
    is_late: bool,

    next_lsn: u64,
    last_lsn: u64,
    durable_lsn: u64,
    /// A copy of the log is being written, of which nothing is to be taken for durable yet.
    is_copying: bool,
    /// What has been overwritten, up to the last commit that was given to the engine.
    cut: Cut,
    /// What will have been, behind the next: see [`Opened::cut_next`].
    cut_next: Option<Cut>,

    state_file: FileId,
    file: Option<FileId>,
    at_sector: u32,
    /// Oldest first; the last is being written.
    live: Vec<LiveSegment>,
    /// A file that is being made, to be the next.
    making: Option<u32>,
    /// Files that hold nothing of value, as the newest origin says.
    free: Vec<u32>,
    /// Files that hold nothing of value; the next origin will say so, and then they may be written.
    freed: Vec<u32>,
    files_count: u32,
}

/// The log's shape at some point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tip {
    snapshot: Option<Standing>,
    end: u64,
    end_term: u64,
    /// How many states have been set, ever.
    states_total: u32,
}

impl Tip {
    fn begin(&self) -> u64 {
        self.snapshot.map_or(0, |standing| standing.end)
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Draft {
    /// The lowest slot that is overwritten, or dropped for a snapshot.
    cut_slot: Option<u64>,
    /// The lowest that is overwritten.
    overwritten_slot: Option<u64>,
    has_state: bool,
    slot_end: u64,
    install: Option<Install>,
}

impl Draft {
    /// It does more than append.
    fn has_copies(&self) -> bool {
        self.overwritten_slot.is_some() || self.has_state || self.install.is_some()
    }
}

#[derive(Clone, Copy, Debug)]
struct Install {
    id: SnapshotId,
    last_term: u64,
    tail: Tail,
    /// The log's end after it.
    log_end: u64,
}

impl Install {
    fn payload(&self) -> [u8; 16] {
        let mut payload = [0; 16];
        payload[..8].copy_from_slice(&self.log_end.to_be_bytes());
        payload[8..].copy_from_slice(&self.id.generation.to_be_bytes());
        payload
    }
}

fn record(kind: RecordKind, slot: u64, term: u64, payload_bytes: usize) -> RecordHeader {
    RecordHeader {
        kind,
        payload_bytes: payload_bytes as u32,
        term,
        slot,
    }
}

struct InFlight {
    lsn: u64,
    file_index: u32,
    durable: Durable,
    install: Option<Install>,
    note: Option<Note>,
}

/// What the file of the state is to hold once the commit is durable.
#[derive(Clone, Copy, Debug)]
struct Note {
    witness: Witness,
    states_total: u32,
    state: [u8; STATE_BYTES_MAX],
    state_bytes: usize,
}

impl Note {
    fn new(witness: Witness, states_total: u32, state: &[u8]) -> Note {
        let mut bytes = [0; STATE_BYTES_MAX];
        bytes[..state.len()].copy_from_slice(state);
        Note {
            witness,
            states_total,
            state: bytes,
            state_bytes: state.len(),
        }
    }

    fn page(&self) -> Page<'_> {
        Page {
            states_count: self.states_total,
            state: (self.states_total > 0).then_some(&self.state[..self.state_bytes]),
            witness: &self.witness,
        }
    }
}

struct Poison {
    doing: String,
    error: String,
    kind: io::ErrorKind,
}

impl Wal {
    /// Opens the log that `storage` holds, or begins one.
    ///
    /// # Errors
    /// See [`WalError`].
    pub fn open(mut storage: Box<dyn Storage>, options: WalOptions) -> Result<Wal, WalError> {
        let opened = crate::open::open(&mut *storage, &options)?;
        let Opened {
            walked,
            state_file,
            report,
            next_lsn,
            cut,
            cut_next,
            free,
            files_count,
        } = opened;
        let replay = walked.replay;
        let tip = Tip {
            snapshot: replay.snapshot,
            end: replay.end(),
            end_term: replay.end_term(),
            states_total: replay.states_count,
        };
        let state = replay.state.clone().unwrap_or_default();
        let mut wal = Wal {
            builder: CommitBuilder::new(options.buffer_bytes),
            storage,
            report,
            poison: None,
            tip,
            sealed: tip,
            sealed_state: state.clone(),
            state,
            damage: replay.damage,
            sealed_damage: replay.damage,
            states_count: 0,
            durable: Durable {
                end: Slot(tip.end),
                states_count: 0,
            },
            recovered: Some(replay),
            draft: Draft::default(),
            spare: Vec::new(),
            in_flight: VecDeque::new(),
            is_late: false,
            next_lsn,
            last_lsn: walked.last_lsn,
            durable_lsn: walked.last_lsn,
            is_copying: false,
            cut,
            cut_next: Some(cut_next),
            state_file,
            file: None,
            at_sector: 0,
            live: walked.live,
            making: None,
            free,
            freed: Vec::new(),
            files_count,
            options,
        };
        wal.recycle(tip.begin());
        match walked.end {
            Some((file_index, sector)) if wal.live.last().is_some_and(|live| live.file_index == file_index) => {
                let name = segment_name(file_index);
                let file = wal.storage.open(&name, OpenFor::Commits);
                wal.file = Some(file.map_err(WalError::io(format!("opening {name} for commits")))?);
                wal.at_sector = sector.next_multiple_of(wal.align_sectors());
            }
            _ => {
                wal.roll()?;
                wal.drain()?;
            }
        }
        while wal.free.len() < wal.options.spare_count as usize {
            let file_index = wal.make_segment()?;
            wal.free.push(file_index);
        }
        wal.push_damage();
        if wal
            .report
            .findings
            .iter()
            .any(|finding| finding.kind == FindingKind::StateAhead)
        {
            // The log is to hold it, too.
            let header = record(RecordKind::State, u64::from(tip.states_total), 0, wal.state.len());
            wal.builder.push(header, &wal.state);
            wal.draft.has_state = true;
        }
        Ok(wal)
    }

    /// What opening found.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// The engine's name, for records.
    pub fn engine(&self) -> &'static str {
        self.storage.engine()
    }

    /// The same with what the kernel gave it to work with, for records.
    pub fn way(&self) -> &'static str {
        self.storage.way()
    }

    /// The calling thread, which wrote, is about to end.
    pub(crate) fn leave(&mut self) {
        self.storage.leave();
    }

    /// What the engine has counted.
    pub fn stats(&self) -> EngineStats {
        self.storage.stats()
    }

    /// The slot that is appended next.
    pub fn end(&self) -> Slot {
        Slot(self.tip.end)
    }

    /// The longest payload that [`Log::append`](dataplane_waist::Log::append) takes, in bytes.
    pub fn payload_bytes_max(&self) -> usize {
        let sectors = (self.sectors_max() as usize - 2 * FIRST_SECTOR - 2 * self.align_sectors() as usize)
            .min(COMMIT_SECTORS_MAX - 2 * self.align_sectors() as usize);
        RECORD_PAYLOAD_BYTES_MAX.min(sectors * crate::format::SECTOR_PAYLOAD_BYTES - 200)
    }

    /// What its refusals depend on.
    pub(crate) fn shape(&self) -> Shape {
        Shape {
            begin: self.tip.begin(),
            end: self.tip.end,
            payload_bytes_max: self.payload_bytes_max(),
        }
    }

    /// Waits until all that was synced is durable.
    ///
    /// # Errors
    /// As [`Log::durable`](dataplane_waist::Log::durable).
    pub fn wait(&mut self) -> io::Result<Durable> {
        self.check()?;
        if self.is_late {
            self.commit()?;
        }
        self.drain()?;
        Ok(self.durable)
    }

    /// The number of the last commit that was given to the engine, and of the last that is known to be durable.
    pub fn commit_numbers(&self) -> (u64, u64) {
        (self.last_lsn, self.durable_lsn)
    }

    /// Whether something is synced and not yet known to be durable.
    pub fn is_syncing(&self) -> bool {
        self.is_late || !self.in_flight.is_empty()
    }

    /// How many commits may be under way at once.
    pub fn depth(&self) -> usize {
        self.storage.depth()
    }

    /// Looks at the engine, and with `wait` waits for one commit if one is under way.
    ///
    /// # Errors
    /// As [`Log::durable`](dataplane_waist::Log::durable).
    pub fn poll(&mut self, wait: bool) -> io::Result<Durable> {
        self.check()?;
        self.reap(wait)?;
        self.catch_up()?;
        Ok(self.durable)
    }

    fn align_sectors(&self) -> u32 {
        (self.storage.align_bytes() / SECTOR_BYTES) as u32
    }

    fn sectors_max(&self) -> u32 {
        (self.options.segment_bytes / SECTOR_BYTES as u64) as u32
    }

    fn check(&self) -> Result<(), WalError> {
        match &self.poison {
            None => Ok(()),
            Some(poison) => Err(WalError::Poisoned {
                doing: poison.doing.clone(),
                error: poison.error.clone(),
                kind: poison.kind,
                durable_lsn: self.durable_lsn,
            }),
        }
    }

    fn fail(&mut self, doing: String, error: io::Error) -> WalError {
        if self.poison.is_none() {
            self.poison = Some(Poison {
                doing,
                kind: error.kind(),
                error: error.to_string(),
            });
        }
        self.check().expect_err("it has just been poisoned")
    }

    /// How the log stands behind commit `lsn`, which made it this.
    fn witness(&self, lsn: u64, tip: &Tip, damage: Option<Damage>) -> Witness {
        Witness {
            lsn,
            last_lsn: lsn,
            live_lsn: self.live.first().map_or(lsn, |live| live.first_lsn),
            file_index: self.live.last().map_or(0, |live| live.file_index),
            shape: LogShape {
                snapshot: tip.snapshot,
                end: tip.end,
                end_term: tip.end_term,
                cut: self.cut,
                damage,
            },
        }
    }

    fn push(&mut self, kind: RecordKind, slot: u64, term: u64, payload: &[u8]) {
        self.recovered = None;
        if self.builder.is_empty() {
            self.push_damage();
        }
        let header = RecordHeader {
            kind,
            payload_bytes: payload.len() as u32,
            term,
            slot,
        };
        self.builder.push(header, payload);
    }

    /// What is known to be damaged is the first record of every commit, so that no later reader takes the shortened log for
    /// the whole, whichever commits it misses.
    fn push_damage(&mut self) {
        if let Some(damage) = self.damage {
            self.builder
                .push(record(RecordKind::Damage, damage.end, damage.term, 0), &[]);
        }
    }
}

impl std::fmt::Debug for Wal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wal")
            .field("place", &self.storage.place())
            .field("engine", &self.storage.engine())
            .field("tip", &self.tip)
            .field("durable_lsn", &self.durable_lsn)
            .finish_non_exhaustive()
    }
}
