//! The log: one owner, one commit buffer, one place in one segment file.
//!
//! [`Wal::append`] copies into the buffer, [`Wal::sync`] seals it and gives it to the engine, [`Wal::durable`] looks what
//! has become of it. The first failure ends the log: every later call says what failed.

mod rewrite;

use std::{collections::VecDeque, io};

use dataplane_waist::{Durable, Log, Recovered, Slot, Snapshot, Tail, Term};

use crate::{
    buffer::{Buffer, CommitBuilder},
    error::WalError,
    format::{
        COMMIT_SECTORS_MAX, CommitHeader, FIRST_SECTOR, Origin, Place, RECORD_PAYLOAD_BYTES_MAX,
        RecordHeader, RecordKind, SECTOR_BYTES,
    },
    open::{Opened, WalOptions, prepare_segment},
    replay::{Damage, Replay, Standing},
    report::Report,
    scan::{LiveSegment, Segment, segment_name},
    shape::{Shape, check_state},
    snapshot::{self, SnapshotId},
    storage::{Completion, EngineStats, FileId, OpenFor, Storage},
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

    next_lsn: u64,
    last_lsn: u64,
    durable_lsn: u64,
    /// A copy of the log is being written, of which nothing is to be taken for durable yet.
    is_copying: bool,
    /// The last commit that overwrote slots, and the lowest slot that any has since the log was opened.
    cut: (u64, u64),

    file: Option<FileId>,
    at_sector: u32,
    /// Oldest first; the last is being written.
    live: Vec<LiveSegment>,
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
            report,
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
        let is_odd = replay.damage.is_some() || !report.findings.is_empty();
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
            // A damaged sector may have held a number that nobody can read any more.
            next_lsn: walked.max_lsn + if is_odd { LSN_SKIP } else { 1 },
            last_lsn: walked.last_lsn,
            durable_lsn: walked.last_lsn,
            is_copying: false,
            // What was overwritten before is not known any more.
            cut: (walked.whole_lsn, tip.begin()),
            file: None,
            at_sector: 0,
            live: walked.live,
            free,
            freed: Vec::new(),
            files_count,
            options,
        };
        wal.recycle(tip.begin());
        while wal.free.len() < wal.options.spare_count as usize {
            let file_index = wal.make_segment()?;
            wal.free.push(file_index);
        }
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
        if let Some(damage) = wal.damage {
            // It goes with the first commit, so that no later reader takes the shortened log for the whole.
            let header = RecordHeader {
                kind: RecordKind::Damage,
                payload_bytes: 0,
                term: damage.term,
                slot: damage.end,
            };
            wal.builder.push(header, &[]);
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

    /// What the engine has counted.
    pub fn stats(&self) -> EngineStats {
        self.storage.stats()
    }

    /// The slot that is appended next.
    pub fn end(&self) -> Slot {
        Slot(self.tip.end)
    }

    /// The longest payload that [`Log::append`] takes, in bytes.
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
    /// As [`Log::durable`].
    pub fn wait(&mut self) -> io::Result<Durable> {
        self.check()?;
        self.drain()?;
        Ok(self.durable)
    }

    /// The number of the last commit that was given to the engine, and of the last that is known to be durable.
    pub fn commit_numbers(&self) -> (u64, u64) {
        (self.last_lsn, self.durable_lsn)
    }

    /// Whether something is written and not yet known to be durable.
    pub fn is_syncing(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// How many commits may be under way at once.
    pub fn depth(&self) -> usize {
        self.storage.depth()
    }

    /// Looks at the engine, and with `wait` waits for one commit if one is under way.
    ///
    /// # Errors
    /// As [`Log::durable`].
    pub fn poll(&mut self, wait: bool) -> io::Result<Durable> {
        self.check()?;
        self.reap(wait)?;
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

    fn push(&mut self, kind: RecordKind, slot: u64, term: u64, payload: &[u8]) {
        self.recovered = None;
        let header = RecordHeader {
            kind,
            payload_bytes: payload.len() as u32,
            term,
            slot,
        };
        self.builder.push(header, payload);
    }

    /// Gives the buffer away if the next record would make it longer than a commit should be.
    fn make_room(&mut self, payload_bytes: usize) -> Result<(), WalError> {
        let sectors_max = self.options.buffer_bytes / SECTOR_BYTES;
        if !self.builder.is_empty() && self.builder.sectors_with(payload_bytes) > sectors_max {
            self.commit()?;
        }
        Ok(())
    }

    /// Seals the buffer and gives it to the engine.
    fn commit(&mut self) -> Result<(), WalError> {
        if self.builder.is_empty() {
            return Ok(());
        }
        let copies = usize::from(self.draft.has_copies());
        let needed = (self.builder.sectors_count() + copies).next_multiple_of(self.align_sectors() as usize);
        if self.at_sector as usize + needed > self.sectors_max() as usize {
            self.roll()?;
        }
        while self.in_flight.len() >= self.storage.depth() {
            self.reap(true)?;
        }
        let draft = std::mem::take(&mut self.draft);
        let next = CommitBuilder::reuse(
            self.spare
                .pop()
                .unwrap_or_else(|| Buffer::new(self.options.buffer_bytes)),
        );
        let builder = std::mem::replace(&mut self.builder, next);
        let state = std::mem::take(&mut self.state);
        let mut copies: [(RecordHeader, &[u8]); 3] = [(record(RecordKind::Cut, 0, 0, 0), &[]); 3];
        let mut copies_count = 0;
        let mut copy = |header: RecordHeader, payload| {
            copies[copies_count] = (header, payload);
            copies_count += 1;
        };
        if let Some(slot) = draft.overwritten_slot {
            copy(record(RecordKind::Cut, slot, 0, 0), &[]);
        }
        if draft.has_state {
            let states = u64::from(self.tip.states_total);
            copy(record(RecordKind::State, states, 0, state.len()), &state[..]);
        }
        let payload = draft.install.map(|install| install.payload());
        if let (Some(install), Some(payload)) = (draft.install, &payload) {
            copy(
                record(RecordKind::Install, install.id.end, install.last_term, payload.len()),
                payload,
            );
        }
        let copies = &copies[..copies_count];
        let lsn = self.next_lsn;
        let submitted = self.submit(builder, copies, draft.install);
        self.state = state;
        submitted?;
        if let Some(slot) = draft.cut_slot {
            self.cut = (lsn, slot.min(self.cut.1));
        }
        if let Some(live) = self.live.last_mut() {
            live.slot_end = live.slot_end.max(draft.slot_end);
        }
        self.sealed = self.tip;
        self.sealed_damage = self.damage;
        if draft.has_state {
            self.sealed_state.clear();
            self.sealed_state.extend_from_slice(&self.state);
        }
        Ok(())
    }

    fn submit(
        &mut self,
        builder: CommitBuilder,
        copies: &[(RecordHeader, &[u8])],
        install: Option<Install>,
    ) -> Result<(), WalError> {
        let lsn = self.next_lsn;
        let delta = |to: u64| u32::try_from(lsn - to).unwrap_or(u32::MAX);
        let header = CommitHeader {
            prev_delta: delta(self.last_lsn),
            durable_delta: delta(self.durable_lsn),
            states_count: self.sealed.states_total,
            cut_delta: u32::try_from(lsn - self.cut.0).unwrap_or(0),
            cut_slot: self.cut.1,
            begin: self.sealed.begin(),
            end: self.sealed.end,
            end_term: self.sealed.end_term,
        };
        let file_index = self.live.last().expect("a segment is open").file_index;
        let place = Place {
            cluster: self.options.cluster,
            file_index,
            sector: self.at_sector,
        };
        let buffer = builder.seal(lsn, header, place, self.align_sectors() as usize, copies);
        let sectors = (buffer.bytes().len() / SECTOR_BYTES) as u32;
        let at_bytes = u64::from(self.at_sector) * SECTOR_BYTES as u64;
        let file = self.file.expect("a segment is open");
        self.in_flight.push_back(InFlight {
            lsn,
            file_index,
            durable: Durable {
                end: Slot(self.tip.end),
                states_count: self.states_count,
            },
            install,
        });
        self.next_lsn += 1;
        self.last_lsn = lsn;
        self.at_sector += sectors;
        if let Err(error) = self.storage.commit(file, at_bytes, buffer) {
            let doing = format!(
                "writing commit {lsn} to {} at byte {at_bytes}",
                segment_name(file_index)
            );
            return Err(self.fail(doing, error));
        }
        self.reap(false)
    }

    /// Takes what is over; with `wait`, waits for one.
    fn reap(&mut self, mut wait: bool) -> Result<(), WalError> {
        loop {
            let completion = match self.storage.completed(wait && !self.in_flight.is_empty()) {
                Ok(Some(completion)) => completion,
                Ok(None) => return Ok(()),
                Err(error) => return Err(self.fail("asking the engine".into(), error)),
            };
            wait = false;
            self.complete(completion)?;
        }
    }

    fn complete(&mut self, completion: Completion) -> Result<(), WalError> {
        let done = self.in_flight.pop_front().expect("what completes was started");
        self.spare.push(completion.buffer);
        if let Err(error) = completion.result {
            let name = segment_name(done.file_index);
            return Err(self.fail(format!("making commit {} in {name} durable", done.lsn), error));
        }
        if !self.is_copying {
            self.durable_lsn = done.lsn;
        }
        self.durable = done.durable;
        if let Some(install) = done.install {
            if install.tail == Tail::Drop {
                for live in self.live.iter_mut().filter(|live| live.first_lsn <= done.lsn) {
                    if live.file_index != done.file_index {
                        live.slot_end = 0;
                    }
                }
            }
            self.forget_before(install.id)?;
        }
        Ok(())
    }

    /// This snapshot stands durably: older ones, and segments without later entries, are of no use.
    fn forget_before(&mut self, id: SnapshotId) -> Result<(), WalError> {
        let removed = self.storage.list().and_then(|files| {
            for (name, _) in files {
                if SnapshotId::of_name(&name).is_some_and(|other| other.generation < id.generation) {
                    self.storage.remove(&name)?;
                }
            }
            Ok(())
        });
        if let Err(error) = removed {
            return Err(self.fail(format!("removing snapshots older than {}", id.name()), error));
        }
        self.recycle(id.end);
        Ok(())
    }

    /// The oldest segments, if all their entries are before `end`, are of no use.
    fn recycle(&mut self, end: u64) {
        let keep = self.live.iter().take(self.live.len().saturating_sub(1));
        let count = keep.take_while(|live| live.slot_end <= end).count();
        self.freed.extend(self.live.drain(..count).map(|live| live.file_index));
    }

    fn drain(&mut self) -> Result<(), WalError> {
        while !self.in_flight.is_empty() {
            self.reap(true)?;
        }
        Ok(())
    }

    fn make_segment(&mut self) -> Result<u32, WalError> {
        let file_index = self.files_count;
        if let Err(error) = prepare_segment(&mut *self.storage, &self.options, file_index) {
            let (name, segment_bytes) = (segment_name(file_index), self.options.segment_bytes);
            return Err(self.fail(format!("preparing {name} ({segment_bytes} bytes)"), error));
        }
        self.files_count += 1;
        Ok(file_index)
    }

    /// Goes on in the next segment file, which begins with all that a reader must know of those before it.
    fn roll(&mut self) -> Result<(), WalError> {
        self.drain()?;
        let file_index = match self.free.pop() {
            Some(file_index) => file_index,
            None => self.make_segment()?,
        };
        if let Some(file) = self.file.take() {
            self.storage.close(file);
        }
        let name = segment_name(file_index);
        match self.storage.open(&name, OpenFor::Commits) {
            Ok(file) => self.file = Some(file),
            Err(error) => return Err(self.fail(format!("opening {name} for commits"), error)),
        }
        self.at_sector = FIRST_SECTOR as u32;
        self.live.push(LiveSegment {
            file_index,
            first_lsn: self.next_lsn,
            slot_end: 0,
        });
        self.begin_segment()
    }

    fn begin_segment(&mut self) -> Result<(), WalError> {
        let standing = self.sealed.snapshot.unwrap_or(Standing {
            end: 0,
            last_term: 0,
            generation: None,
        });
        let damage = self.sealed_damage.unwrap_or(Damage { end: 0, term: 0 });
        let origin = Origin {
            end: self.sealed.end,
            end_term: self.sealed.end_term,
            live_lsn: self.live[0].first_lsn,
            damage_end: damage.end,
            damage_term: damage.term,
            generation: standing.generation.unwrap_or(0),
        }
        .emit();
        let origin_header = RecordHeader {
            kind: RecordKind::Origin,
            payload_bytes: Origin::BYTES as u32,
            term: standing.last_term,
            slot: standing.end,
        };
        let state = std::mem::take(&mut self.sealed_state);
        let state_header = RecordHeader {
            kind: RecordKind::State,
            payload_bytes: state.len() as u32,
            term: 0,
            slot: u64::from(self.sealed.states_total),
        };
        let records: [(RecordHeader, &[u8]); 2] = [(origin_header, &origin), (state_header, &state)];
        let records = match self.sealed.states_total {
            0 => &records[..1],
            _ => &records[..],
        };
        let mut builder = CommitBuilder::new(2 * SECTOR_BYTES);
        for (header, payload) in records {
            builder.push(*header, payload);
        }
        // What the draft holds is not in this commit.
        let (tip, states_count) = (self.tip, self.states_count);
        let durable = self.durable;
        let submitted = self.submit_origin(builder, records, durable);
        (self.tip, self.states_count) = (tip, states_count);
        self.sealed_state = state;
        submitted?;
        self.free.append(&mut self.freed);
        Ok(())
    }

    /// Waits, too: files that the origin gives up may be written once it stands.
    fn submit_origin(
        &mut self,
        builder: CommitBuilder,
        copies: &[(RecordHeader, &[u8])],
        durable: Durable,
    ) -> Result<(), WalError> {
        self.submit(builder, copies, None)?;
        if let Some(last) = self.in_flight.back_mut() {
            last.durable = durable;
        }
        self.drain()?;
        self.durable = durable;
        // This buffer is too small for what follows.
        self.spare.pop();
        Ok(())
    }
}

/// How far above the highest number that can be read a log goes on if not everything can be: no disk writes so many
/// commits at once.
const LSN_SKIP: u64 = 1 << 16;

impl Log for Wal {
    fn append(&mut self, slot: Slot, term: Term, payload: &[u8]) -> io::Result<()> {
        self.check()?;
        self.shape().check_append(slot, payload)?;
        self.make_room(payload.len())?;
        self.push(RecordKind::Append, slot.0, term.0, payload);
        if slot.0 < self.tip.end {
            self.draft.cut_slot = Some(self.draft.cut_slot.map_or(slot.0, |cut| cut.min(slot.0)));
            let overwritten = self.draft.overwritten_slot;
            self.draft.overwritten_slot = Some(overwritten.map_or(slot.0, |cut| cut.min(slot.0)));
            self.lower_durable(slot);
        }
        self.tip.end = slot.0 + 1;
        self.tip.end_term = term.0;
        self.draft.slot_end = self.draft.slot_end.max(self.tip.end);
        self.heal();
        Ok(())
    }

    fn set_state(&mut self, state: &[u8]) -> io::Result<()> {
        self.check()?;
        check_state(state)?;
        self.make_room(state.len())?;
        self.tip.states_total = self.tip.states_total.wrapping_add(1);
        self.states_count += 1;
        self.push(RecordKind::State, u64::from(self.tip.states_total), 0, state);
        self.state.clear();
        self.state.extend_from_slice(state);
        self.draft.has_state = true;
        Ok(())
    }

    /// Writes the snapshot's file and waits until it is durable; that it stands is durable after the next sync.
    fn install(&mut self, snapshot: &Snapshot) -> io::Result<()> {
        self.check()?;
        self.shape().check_install(snapshot.end)?;
        let begin = self.tip.begin();
        let (end, last_term) = (snapshot.end.0, snapshot.last_term.0);
        let id = SnapshotId {
            end,
            generation: self.next_lsn,
        };
        let written = snapshot::write(&mut *self.storage, self.options.cluster, id, last_term, &snapshot.bytes);
        if let Err(error) = written {
            return Err(self.fail(format!("writing {}", id.name()), error).into());
        }
        self.make_room(16)?;
        let keeps = snapshot.tail == Tail::Keep && end <= self.tip.end;
        let log_end = if keeps { self.tip.end } else { end };
        let tail = match self.draft.install {
            Some(Install { tail: Tail::Drop, .. }) => Tail::Drop,
            _ if keeps => Tail::Keep,
            _ => Tail::Drop,
        };
        let install = Install {
            id,
            last_term,
            tail,
            log_end,
        };
        self.push(RecordKind::Install, end, last_term, &install.payload());
        self.draft.install = Some(install);
        if !keeps {
            self.draft.cut_slot = Some(self.draft.cut_slot.map_or(begin, |cut| cut.min(begin)));
            self.lower_durable(Slot(begin));
        }
        if log_end == end {
            self.tip.end_term = last_term;
        }
        self.tip.end = log_end;
        self.tip.snapshot = Some(Standing {
            end,
            last_term,
            generation: Some(id.generation),
        });
        self.heal();
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.check()?;
        self.commit()?;
        Ok(())
    }

    fn durable(&mut self) -> io::Result<Durable> {
        self.check()?;
        if !self.in_flight.is_empty() {
            self.reap(false)?;
        }
        Ok(self.durable)
    }

    fn recover(&mut self, visit: &mut dyn FnMut(Recovered<'_>)) -> io::Result<Slot> {
        self.check()?;
        let replay = match self.recovered.take() {
            Some(replay) => replay,
            // Something has been written since it was opened: it is read again.
            None => {
                self.commit()?;
                self.drain()?;
                crate::open::read(&mut *self.storage, &self.options)?.replay
            }
        };
        let end = self.visit(&replay, visit);
        self.recovered = Some(replay);
        end
    }
}

impl Wal {
    /// Slots from `slot` on are not durable as they were last appended.
    fn lower_durable(&mut self, slot: Slot) {
        self.durable.end = self.durable.end.min(slot);
        for commit in &mut self.in_flight {
            commit.durable.end = commit.durable.end.min(slot);
        }
    }

    fn heal(&mut self) {
        if self.damage.is_some_and(|damage| damage.end <= self.tip.end) {
            self.damage = None;
        }
    }

    fn visit(&mut self, replay: &Replay, visit: &mut dyn FnMut(Recovered<'_>)) -> io::Result<Slot> {
        if let Some(state) = &replay.state {
            visit(Recovered::State(state));
        }
        if let Some(standing) = replay.snapshot {
            let (_, snapshot) = crate::open::read_snapshot(&mut *self.storage, &self.options, standing)?;
            visit(Recovered::Snapshot {
                end: Slot(standing.end),
                last_term: Term(standing.last_term),
                bytes: &snapshot.bytes,
            });
        }
        let mut segment: Option<Segment> = None;
        let mut payload = Vec::new();
        for (index, entry) in replay.entries.iter().enumerate() {
            let file_index = entry.at.file_index;
            if segment.as_ref().is_none_or(|segment| segment.file_index != file_index) {
                let options = &self.options;
                let file_bytes = options.segment_bytes;
                segment = Some(Segment::read(
                    &mut *self.storage,
                    file_index,
                    file_bytes,
                    options.cluster,
                )?);
            }
            if let Some(segment) = &segment {
                segment.entry_payload(entry.at, &mut payload);
            }
            visit(Recovered::Entry {
                slot: Slot(replay.base + index as u64),
                term: Term(entry.term),
                payload: &payload,
            });
        }
        if let Some(damage) = replay.damage {
            visit(Recovered::Damaged {
                slot: Slot(replay.end()),
                end: Slot(damage.end),
                last_term: Term(damage.term),
            });
        }
        Ok(Slot(replay.end()))
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
