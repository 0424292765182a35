//! Writes the whole log once more, into files of its own, so that the old ones are of no use.
//!
//! The copy becomes the log at one moment: when the origin stands that says "nothing before the copy counts". Until then
//! it hangs on a commit that never was, and says of none of its commits that they are durable, so that a reader takes it
//! for a torn end and for nothing else. So a power loss leaves the old log or the new one, never less.

use dataplane_waist::{Log, Slot, Term};

use super::{Draft, Wal};
use crate::{
    buffer::CommitBuilder,
    error::WalError,
    format::Cut,
    open::read,
    replay::Replay,
    scan::{Segment, segment_index, segment_name},
};

impl Wal {
    /// Copies what the log holds, and removes the files among `damaged` (names), which then hold nothing that counts.
    pub(crate) fn rewrite(&mut self, damaged: &[String]) -> Result<(), WalError> {
        let is_damaged = |file_index: &u32| damaged.contains(&segment_name(*file_index));
        // Opening may have found that nothing in them counts any more.
        self.free.retain(|file_index| !is_damaged(file_index));
        self.freed.retain(|file_index| !is_damaged(file_index));
        // Damage at the end is settled by the next commit: without one, the copy would be taken for what follows it.
        self.commit()?;
        self.drain()?;
        let replay = read(&mut *self.storage, &self.options)?.walked.replay;
        let old_count = self.live.len();
        self.begin_copy(&replay);
        self.roll()?;
        self.copy_entries(&replay)?;
        self.commit()?;
        self.drain()?;

        self.is_copying = false;
        self.durable_lsn = self.last_lsn;
        let old = self.live.drain(..old_count).map(|live| live.file_index);
        self.freed.extend(old.filter(|file_index| !is_damaged(file_index)));
        self.roll()?;
        self.recovered = None;

        for name in damaged {
            let is_live =
                segment_index(name).is_none_or(|file_index| self.live.iter().any(|live| live.file_index == file_index));
            assert!(!is_live, "{name} is not of the copy");
            if let Err(error) = self.storage.remove(name) {
                return Err(self.fail(format!("removing {name}, which holds nothing any more"), error));
            }
        }
        let synced = self.storage.sync_folder();
        synced.map_err(|error| self.fail("making it durable that the damaged files are gone".into(), error))
    }

    /// As after opening a log with nothing but `replay`'s state, snapshot and known damage.
    fn begin_copy(&mut self, replay: &Replay) {
        self.is_copying = true;
        // The number between is never written: what names it hangs on nothing.
        self.next_lsn += 1;
        self.last_lsn = self.next_lsn - 1;
        self.builder = CommitBuilder::new(self.options.buffer_bytes);
        self.draft = Draft::default();
        self.damage = replay.damage;
        self.tip.end = replay.begin();
        self.tip.end_term = replay.snapshot.map_or(0, |standing| standing.last_term);
        self.sealed = self.tip;
        self.sealed_damage = self.damage;
        self.cut = Cut::default();
        self.cut_next = None;
        self.durable.end = Slot(replay.begin());
    }

    fn copy_entries(&mut self, replay: &Replay) -> Result<(), WalError> {
        let mut segment: Option<Segment> = None;
        let mut payload = Vec::new();
        for (index, entry) in replay.entries.iter().enumerate() {
            let file_index = entry.at.file_index;
            if segment.as_ref().is_none_or(|segment| segment.file_index != file_index) {
                let read = Segment::read(
                    &mut *self.storage,
                    file_index,
                    self.options.segment_bytes,
                    self.options.cluster,
                );
                segment = Some(read.map_err(WalError::io(format!("reading {}", segment_name(file_index))))?);
            }
            if let Some(segment) = &segment {
                segment.entry_payload(entry.at, &mut payload);
            }
            let slot = Slot(replay.base + index as u64);
            let appended = self.append(slot, Term(entry.term), &payload);
            appended.map_err(WalError::io(format!("copying entry {}", slot.0)))?;
        }
        Ok(())
    }
}
