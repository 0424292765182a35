//! The witness is heard at its place among the commits.

use super::{Walker, segment_name};
use crate::{
    format::{FIRST_SECTOR, SECTOR_BYTES},
    report::{Finding, FindingKind},
    witness::{LogShape, Witness},
};

impl Walker {
    /// What comes next has this number: the witness is heard before, if it stands before.
    pub(in crate::scan) fn reach(&mut self, lsn: u64) {
        if let Some(witness) = self.witness.take_if(|witness| witness.lsn < lsn) {
            self.hear(&witness);
        }
    }

    fn hear(&mut self, witness: &Witness) {
        let last_lsn = self.walked.last_lsn;
        if last_lsn < witness.last_lsn && self.pending.is_none() {
            let (file_index, sector) = self.walked.end.unwrap_or((0, FIRST_SECTOR as u32));
            self.walked.report.findings.push(Finding {
                file: segment_name(file_index),
                at_bytes: u64::from(sector) * SECTOR_BYTES as u64,
                lsn: Some(last_lsn + 1),
                slot: Some(self.walked.replay.end()),
                kind: FindingKind::MissingCommits {
                    next_lsn: witness.last_lsn + 1,
                },
            });
        }
        self.walked.replay.witness(last_lsn.max(self.known_lsn), witness);
        self.walked.last_lsn = last_lsn.max(witness.last_lsn);
        self.known_lsn = witness.lsn;
        self.has_begun = true;
    }

    /// The same at the end, where nothing was written since. If nothing is missing either, but something was when the witness was
    /// written, it has nothing to say any more: whatever was acknowledged is there.
    pub(in crate::scan) fn hear_last(&mut self) {
        let Some(witness) = self.witness.take() else { return };
        let is_whole = self.walked.report.findings.is_empty()
            && self.pending.is_none()
            && self.walked.last_lsn >= witness.last_lsn;
        let shape = LogShape {
            cut: witness.shape.cut,
            ..self.walked.replay.shape()
        };
        if is_whole && shape.snapshot == witness.shape.snapshot {
            self.walked.is_witness_void = shape != witness.shape;
        } else {
            self.hear(&witness);
        }
    }
}
