//! The log as [`Log`]: what it takes, and how it is read again.

use std::io;

use dataplane_waist::{Durable, Log, News, Recovered, Slot, Snapshot, Tail, Term};

use super::{Install, Wal};
use crate::{
    format::RecordKind,
    replay::{Replay, Standing},
    scan::Segment,
    shape::check_state,
    snapshot::{self, SnapshotId},
};

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

    /// Behind as many commits as may be under way it is left for the call of [`Log::durable`] that finds one of them over.
    fn sync(&mut self) -> io::Result<()> {
        self.check()?;
        if self.is_busy() {
            self.reap(false)?;
        }
        self.is_late = true;
        self.catch_up()?;
        Ok(())
    }

    fn durable(&mut self) -> io::Result<Durable> {
        self.check()?;
        if !self.in_flight.is_empty() {
            self.reap(false)?;
        }
        self.catch_up()?;
        Ok(self.durable)
    }

    fn news(&mut self) -> News<'_> {
        match self.storage.bell() {
            Some(bell) if !self.in_flight.is_empty() => News::Rings(bell),
            _ => News::Unannounced,
        }
    }

    fn recover(&mut self, visit: &mut dyn FnMut(Recovered<'_>)) -> io::Result<Slot> {
        self.check()?;
        let replay = match self.recovered.take() {
            Some(replay) => replay,
            // Something has been written since it was opened: it is read again.
            None => {
                self.commit()?;
                self.drain()?;
                crate::open::read(&mut *self.storage, &self.options)?.walked.replay
            }
        };
        let end = self.visit(&replay, visit);
        self.recovered = Some(replay);
        end
    }
}

impl Wal {
    /// Slots from `slot` on are not durable as they were last appended.
    pub(super) fn lower_durable(&mut self, slot: Slot) {
        self.durable.end = self.durable.end.min(slot);
        for commit in &mut self.in_flight {
            commit.durable.end = commit.durable.end.min(slot);
        }
    }

    pub(super) fn heal(&mut self) {
        if self.damage.is_some_and(|damage| damage.end <= self.tip.end) {
            self.damage = None;
        }
    }

    pub(super) fn visit(&mut self, replay: &Replay, visit: &mut dyn FnMut(Recovered<'_>)) -> io::Result<Slot> {
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
