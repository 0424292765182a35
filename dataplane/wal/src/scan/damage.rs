//! What is not whole: damage that waits for what comes later to be judged, a torn end, and what is behind it.

use super::{Segment, Walker};
use crate::{
    format::{
        COMMIT_HEADER_BYTES, FIRST_SECTOR, RecordKind, Records, SECTOR_BYTES, SECTOR_RECORDS_MAX, Sector, SectorHeader,
    },
    report::{Finding, FindingKind},
};

/// Damage that may or may not be in the middle: what comes later decides.
pub(super) struct Pending {
    /// How many records may be lost if nothing comes.
    pub(super) records_max: u64,
    /// Whether a sector is damaged, and not only missing.
    pub(super) is_damaged: bool,
    pub(super) finding: Finding,
}

impl Walker {
    /// A commit of which sectors are missing or damaged. Says where the next one would begin.
    pub(in crate::scan) fn incomplete(&mut self, segment: &Segment, at: usize, any: SectorHeader) -> usize {
        let count = usize::from(any.count);
        let end = (at + count).min(segment.sectors.len());
        // Where the log went on over it, when it had been given up, it ends.
        let is_over = |sector: &usize| segment.valid(*sector).is_some_and(|header| header.lsn > any.lsn);
        let end = (at..end).find(is_over).unwrap_or(end);
        let belongs = |sector: &usize| {
            segment
                .valid(*sector)
                .is_some_and(|header| header.lsn == any.lsn && usize::from(header.index) == *sector - at)
        };
        let damaged = (at..end).filter(|&sector| segment.sectors[sector] == Sector::Damaged);
        let (damaged_count, first_damaged) = (damaged.clone().count(), damaged.clone().next());
        let missing = (at..end).find(|sector| !belongs(sector)).unwrap_or(at);
        if damaged_count == 0 && any.lsn > self.durable_lsn {
            if belongs(&at) {
                self.known_damage(segment.payload(at));
            }
            self.tear(segment, missing, Some(any.lsn));
            return at;
        }
        if !std::mem::replace(&mut self.has_begun, true) {
            self.walked.last_lsn = any.lsn - 1;
        }
        self.damaged_lsn = any.lsn;
        // What stands before the fault counts, and so do the copies. The rest is lost; the commit's number is not given
        // to `last_lsn`, so that the next one is asked what there was.
        let mut contents = std::mem::take(&mut self.contents);
        let good = segment.contents(at, any.lsn, count, &mut contents);
        if good > 0 {
            self.records(segment, at, any.lsn, &contents, false);
        }
        self.contents = contents;
        if belongs(&(at + count - 1)) {
            if segment.valid(at + count - 1).is_some_and(|header| header.has_copies) {
                self.copies(segment, at + count - 1);
            }
            if good > 0 {
                // Also what it replaced is known.
                self.known_lsn = self.known_lsn.max(any.lsn);
            }
        }
        let slot = self.walked.replay.end();
        self.add_pending(Pending {
            records_max: (count - good) as u64 * SECTOR_RECORDS_MAX,
            is_damaged: damaged_count > 0,
            finding: Finding {
                file: segment.name(),
                at_bytes: (first_damaged.unwrap_or(missing) * SECTOR_BYTES) as u64,
                lsn: Some(any.lsn),
                slot: Some(slot),
                kind: FindingKind::Damaged {
                    sectors_count: damaged_count.max(1) as u32,
                },
            },
        });
        end
    }

    /// What the writer of a torn commit knew to be damaged: its first record says so if there is anything, and the commit may
    /// have overwritten what recovery had concluded it from.
    fn known_damage(&mut self, first_payload: &[u8]) {
        let mut records = Records::new(&first_payload[COMMIT_HEADER_BYTES..]);
        if let Ok(Some((_, header, _))) = records.next()
            && header.kind == RecordKind::Damage
        {
            self.walked.replay.known_damage(header);
        }
    }

    /// One more damage at what may be the end: all that is lost there adds up.
    fn add_pending(&mut self, mut pending: Pending) {
        if let Some(earlier) = self.pending.take() {
            pending.records_max += earlier.records_max;
            pending.is_damaged |= earlier.is_damaged;
            self.walked.report.findings.push(earlier.finding);
        }
        self.pending = Some(pending);
    }

    pub(in crate::scan) fn note_damage(&mut self, segment: &Segment, at: usize, damaged: usize, lsn: Option<u64>) {
        if damaged == 0 {
            return;
        }
        let slot = Some(self.walked.replay.end());
        self.add_pending(Pending {
            records_max: damaged as u64 * SECTOR_RECORDS_MAX,
            is_damaged: true,
            finding: Finding {
                file: segment.name(),
                at_bytes: (at * SECTOR_BYTES) as u64,
                lsn,
                slot,
                kind: FindingKind::Damaged {
                    sectors_count: damaged as u32,
                },
            },
        });
    }

    pub(in crate::scan) fn settle(&mut self, records_max: Option<u64>) {
        if let Some(pending) = self.pending.take() {
            self.walked.report.findings.push(pending.finding);
            if let Some(records_max) = records_max {
                self.walked.replay.lost_end(records_max);
            }
        }
    }

    pub(in crate::scan) fn tear(&mut self, segment: &Segment, at: usize, lsn: Option<u64>) {
        self.is_torn = true;
        self.walked.report.findings.push(Finding {
            file: segment.name(),
            at_bytes: (at * SECTOR_BYTES) as u64,
            lsn,
            slot: Some(self.walked.replay.end()),
            kind: FindingKind::TornEnd,
        });
    }

    /// Damaged sectors that hold nothing that counts: told, because the disk is not well.
    pub(in crate::scan) fn note_unused(&mut self, segment: &Segment, from: usize) {
        for sector in (0..FIRST_SECTOR).chain(from..segment.sectors.len()) {
            if segment.sectors[sector] == Sector::Damaged {
                self.walked.is_end_in_doubt = true;
                self.walked.report.findings.push(Finding {
                    file: segment.name(),
                    at_bytes: (sector * SECTOR_BYTES) as u64,
                    lsn: None,
                    slot: None,
                    kind: FindingKind::DamagedUnused,
                });
            }
        }
    }

    /// Sectors that hold what was cut off. Nobody was told that it was kept; but if it stays there, a reader that misses what is
    /// written instead may take it for what follows.
    pub(in crate::scan) fn note_dead(&mut self, segment: &Segment, from: usize) {
        let last_lsn = self.walked.last_lsn;
        let is_dead = |sector: &Sector| match sector {
            Sector::Zero => false,
            Sector::Valid(header) => header.lsn > last_lsn,
            // Behind what was cut off, it was not acknowledged either.
            Sector::Damaged => true,
        };
        let behind = segment.sectors.get(from..).unwrap_or_default();
        if self.is_torn
            && let Some(last) = behind.iter().rposition(is_dead)
        {
            self.walked.dead.push((segment.file_index, from..from + last + 1));
        }
    }

    pub(in crate::scan) fn finish(&mut self) {
        self.hear_last();
        if let Some(pending) = &self.pending {
            self.walked.is_end_in_doubt |= pending.is_damaged;
            let records_max = pending.records_max;
            // Who goes on names the damaged commit, so that what is readable in it still counts.
            self.walked.last_lsn = self.damaged_lsn.max(self.walked.last_lsn);
            self.settle(Some(records_max));
        }
        self.walked.replay.finish();
        self.walked.report.segments_count = self.walked.live.len();
    }
}

/// How many sectors in a row are damaged from `at` on.
pub(super) fn damaged_run(segment: &Segment, at: usize) -> usize {
    let rest = segment.sectors.get(at..).unwrap_or_default();
    rest.iter().take_while(|&&sector| sector == Sector::Damaged).count()
}
