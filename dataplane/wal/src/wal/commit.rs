//! One commit: sealed, given to the engine, and what becomes of it.

use dataplane_waist::{Durable, Slot, Tail};

use super::{InFlight, Install, Note, Wal, record};
use crate::{
    buffer::{Buffer, CommitBuilder},
    error::WalError,
    format::{CommitHeader, Place, RecordHeader, RecordKind, SECTOR_BYTES},
    scan::segment_name,
    state::{self, STATE_NAME},
    storage::Completion,
};

impl Wal {
    /// Gives the buffer away if the next record would make it longer than a commit should be.
    pub(super) fn make_room(&mut self, payload_bytes: usize) -> Result<(), WalError> {
        let sectors_max = self.options.buffer_bytes / SECTOR_BYTES;
        if !self.builder.is_empty() && self.builder.sectors_with(payload_bytes) > sectors_max {
            self.commit()?;
        }
        Ok(())
    }

    /// Seals the buffer and gives it to the engine.
    pub(super) fn commit(&mut self) -> Result<(), WalError> {
        self.is_late = false;
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
        let header = self.commit_header();
        let lsn = self.next_lsn;
        if let Some(slot) = draft.cut_slot {
            self.cut = self.cut.at(lsn, slot);
        }
        let note = (draft.has_copies() && !self.is_copying).then(|| {
            let state = if draft.has_state { &state } else { &self.sealed_state };
            Note::new(self.witness(lsn, &self.tip, self.damage), self.tip.states_total, state)
        });
        let submitted = self.submit(builder, header, copies, draft.install, note);
        self.state = state;
        submitted?;
        if let Some(live) = self.live.last_mut() {
            live.slot_end = live.slot_end.max(draft.slot_end);
        }
        self.sealed = self.tip;
        self.sealed_damage = self.damage;
        if draft.has_state {
            self.sealed_state.clear();
            self.sealed_state.extend_from_slice(&self.state);
        }
        self.make_ahead();
        Ok(())
    }

    /// Whether as many commits are under way as may be.
    pub(super) fn is_busy(&self) -> bool {
        self.in_flight.len() >= self.storage.depth().min(self.options.under_way_max)
    }

    /// Commits what was synced while too many were under way, if they no longer are.
    pub(super) fn catch_up(&mut self) -> Result<(), WalError> {
        match self.is_late && !self.is_busy() {
            true => self.commit(),
            false => Ok(()),
        }
    }

    /// What the next commit says about the log before it.
    pub(super) fn commit_header(&mut self) -> CommitHeader {
        let delta = |to: u64| u32::try_from(self.next_lsn - to).unwrap_or(u32::MAX);
        let header = CommitHeader {
            prev_delta: delta(self.last_lsn),
            durable_delta: delta(self.durable_lsn),
            states_count: self.sealed.states_total,
            cut_delta: if self.cut.lsn > 0 { delta(self.cut.lsn) } else { 0 },
            cut_slot: self.cut.slot,
            begin: self.sealed.begin(),
            end: self.sealed.end,
            end_term: self.sealed.end_term,
        };
        self.cut = self.cut_next.take().unwrap_or(self.cut);
        header
    }

    pub(super) fn submit(
        &mut self,
        builder: CommitBuilder,
        header: CommitHeader,
        copies: &[(RecordHeader, &[u8])],
        install: Option<Install>,
        note: Option<Note>,
    ) -> Result<(), WalError> {
        let lsn = self.next_lsn;
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
            note,
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
    pub(super) fn reap(&mut self, mut wait: bool) -> Result<(), WalError> {
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

    pub(super) fn complete(&mut self, completion: Completion) -> Result<(), WalError> {
        let done = self.in_flight.pop_front().expect("what completes was started");
        self.spare.push(completion.buffer);
        if let Err(error) = completion.result {
            let name = segment_name(done.file_index);
            return Err(self.fail(format!("making commit {} in {name} durable", done.lsn), error));
        }
        if let Some(note) = &done.note {
            let cluster = self.options.cluster;
            let written = state::write(&mut *self.storage, self.state_file, cluster, note.page());
            if let Err(error) = written {
                return Err(self.fail(format!("writing {STATE_NAME}"), error));
            }
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

    pub(super) fn drain(&mut self) -> Result<(), WalError> {
        while !self.in_flight.is_empty() {
            self.reap(true)?;
        }
        Ok(())
    }
}
