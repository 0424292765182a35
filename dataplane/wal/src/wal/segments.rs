//! The segment files: which is written, which holds nothing of value any more, and what the first commit of one says.

use std::io;

use dataplane_waist::Durable;

use super::{Note, Wal};
use crate::{
    buffer::CommitBuilder,
    error::WalError,
    format::{Cut, FIRST_SECTOR, FileHeader, Origin, RecordHeader, RecordKind, SECTOR_BYTES},
    replay::{Damage, Standing},
    scan::{LiveSegment, segment_name},
    snapshot::SnapshotId,
    storage::OpenFor,
};

impl Wal {
    /// This snapshot stands durably: older ones, and segments without later entries, are of no use.
    pub(super) fn forget_before(&mut self, id: SnapshotId) -> Result<(), WalError> {
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
    pub(super) fn recycle(&mut self, end: u64) {
        let keep = self.live.iter().take(self.live.len().saturating_sub(1));
        let count = keep.take_while(|live| live.slot_end <= end).count();
        self.freed.extend(self.live.drain(..count).map(|live| live.file_index));
    }

    /// Waits for the segment file that is being made; if there is none, makes one.
    pub(super) fn make_segment(&mut self) -> Result<u32, WalError> {
        let file_index = match self.making.take() {
            Some(file_index) => file_index,
            None => match self.begin_making() {
                Ok(file_index) => file_index,
                Err(error) => return Err(self.not_made(self.files_count, error)),
            },
        };
        match self.storage.made(true) {
            Some(Ok(())) => Ok(file_index),
            Some(Err(error)) => Err(self.not_made(file_index, error)),
            None => Err(self.not_made(file_index, io::ErrorKind::NotFound.into())),
        }
    }

    /// Has the next segment file made beside everything else, once the one that is written is half full and no other is there.
    pub(super) fn make_ahead(&mut self) {
        let is_soon = 2 * self.at_sector >= self.sectors_max();
        if is_soon && self.free.is_empty() && self.making.is_none() {
            // What cannot be begun now is begun when it is needed, and fails then if it must.
            self.making = self.begin_making().ok();
        }
    }

    fn begin_making(&mut self) -> io::Result<u32> {
        let file_index = self.files_count;
        let mut head = [0; SECTOR_BYTES];
        FileHeader {
            cluster: self.options.cluster,
            file_index,
            file_bytes: self.options.segment_bytes,
        }
        .emit(&mut head);
        let name = segment_name(file_index);
        self.storage.make(&name, &head, self.options.segment_bytes)?;
        self.files_count += 1;
        Ok(file_index)
    }

    fn not_made(&mut self, file_index: u32, error: io::Error) -> WalError {
        let (name, segment_bytes) = (segment_name(file_index), self.options.segment_bytes);
        self.fail(format!("preparing {name} ({segment_bytes} bytes)"), error)
    }

    /// Goes on in the next segment file, which begins with all that a reader must know of those before it.
    pub(super) fn roll(&mut self) -> Result<(), WalError> {
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
        let live_lsn = self.live.first().map_or(self.next_lsn, |live| live.first_lsn);
        if self.cut_next.unwrap_or(self.cut).lsn < live_lsn {
            // Every reader knows the log as it stood behind that.
            self.cut = Cut::default();
            self.cut_next = None;
        }
        self.live.push(LiveSegment {
            file_index,
            first_lsn: self.next_lsn,
            slot_end: 0,
        });
        self.begin_segment()
    }

    pub(super) fn begin_segment(&mut self) -> Result<(), WalError> {
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
        let submitted = self.submit_origin(builder, records, &state, durable);
        (self.tip, self.states_count) = (tip, states_count);
        self.sealed_state = state;
        submitted?;
        self.free.append(&mut self.freed);
        Ok(())
    }

    /// Waits, too: files that the origin gives up may be written once it stands.
    pub(super) fn submit_origin(
        &mut self,
        builder: CommitBuilder,
        copies: &[(RecordHeader, &[u8])],
        state: &[u8],
        durable: Durable,
    ) -> Result<(), WalError> {
        let header = self.commit_header();
        let note = (!self.is_copying).then(|| {
            let witness = self.witness(self.next_lsn, &self.sealed, self.sealed_damage);
            Note::new(witness, self.sealed.states_total, state)
        });
        self.submit(builder, header, copies, None, note)?;
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
