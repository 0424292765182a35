//! Reads the segment files of a log and finds what is in them: which commits stand, where the end is torn, what is
//! damaged. It writes nothing.
//!
//! The commits form a chain, each naming the one before it. Where the end was torn and the log went on, two commits name
//! the same one; the higher number is the one that counts, and what hung on the other is a leftover.
//!
//! Each commit also says which was the last that was durable when it was written. So a commit that is missing has been acknowledged if, and only if, some commit says so: then it is
//! lost; otherwise the log's end is torn there, and nobody was ever told about what follows.
//!
//! The witness in the file of the state is a commit that cannot be missed, and stands behind all commits up to its number.
//!
//! What the first sector of a torn commit says is believed all the same: its checksum vouches for it, and it may be all that
//! tells what a damaged commit before it held. But a later reader does not find it, because what was torn is wiped before the
//! log goes on. So what has been concluded from it becomes a witness first.

mod damage;
mod hear;
mod segment;

use std::{collections::HashMap, io, ops::Range};

use damage::{Pending, damaged_run};
pub(crate) use segment::{Segment, segment_index, segment_name};

use crate::{
    format::{
        COMMIT_HEADER_BYTES, CommitHeader, FIRST_SECTOR, RecordKind, Records, SECTOR_BYTES, Sector, SectorHeader,
    },
    replay::{Location, Replay},
    report::{Finding, FindingKind, Report},
    storage::Storage,
    witness::Witness,
};

/// What the walk found.
#[derive(Debug, Default)]
pub(crate) struct Walked {
    pub(crate) replay: Replay,
    /// The last commit that stands, also behind damage.
    pub(crate) last_lsn: u64,
    /// The highest number anywhere.
    pub(crate) max_lsn: u64,
    /// The file that holds the log's end, and the sector where the next commit goes.
    pub(crate) end: Option<(u32, u32)>,
    /// Files that hold commits that count, oldest first: index, first commit, and the end of the highest slot in it.
    pub(crate) live: Vec<LiveSegment>,
    /// Where commits that were cut off stand, or did: file and sectors.
    pub(crate) dead: Vec<(u32, Range<usize>)>,
    pub(crate) report: Report,
    /// Nothing is missing, and nothing was written since the witness concluded that something was: what it gave up is there again.
    pub(crate) is_witness_void: bool,
    /// Damaged sectors of which no later commit says what they held.
    pub(crate) is_end_in_doubt: bool,
    /// The highest format version of any file.
    pub(crate) version_max: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LiveSegment {
    pub(crate) file_index: u32,
    pub(crate) first_lsn: u64,
    pub(crate) slot_end: u64,
}

/// Files of the folder: number and length. Reads them all, those that count twice.
pub(crate) fn walk(
    storage: &mut dyn Storage,
    files: &[(u32, u64)],
    cluster: u64,
    witness: Option<Witness>,
) -> io::Result<Walked> {
    let mut walked = Walked::default();
    let mut durable_lsn = witness.map_or(0, |witness| witness.last_lsn);
    let mut live_lsn = 0;
    let mut successors = HashMap::new();
    let mut order = Vec::new();
    let mut newest_lsn = 0;
    for &(file_index, file_bytes) in files {
        let segment = Segment::read(storage, file_index, file_bytes, cluster)?;
        if let Err(fault) = segment.header {
            walked.report.findings.push(Finding {
                file: segment.name(),
                at_bytes: 0,
                lsn: None,
                slot: None,
                kind: FindingKind::FileHeader(fault),
            });
        }
        walked.max_lsn = walked.max_lsn.max(segment.max_lsn());
        walked.version_max = walked.version_max.max(segment.version().unwrap_or(0));
        durable_lsn = durable_lsn.max(segment.durable_lsn());
        for (prev_lsn, lsn) in segment.links() {
            let next = successors.entry(prev_lsn).or_insert(lsn);
            *next = lsn.max(*next);
        }
        let first_lsn = segment.first_lsn();
        if let (Some(first_lsn), Some(live)) = (first_lsn, segment.live_lsn())
            && first_lsn > newest_lsn
        {
            (newest_lsn, live_lsn) = (first_lsn, live);
        }
        let has_damage = segment.sectors.contains(&Sector::Damaged);
        order.push((first_lsn.unwrap_or(0), file_index, file_bytes, has_damage));
    }
    live_lsn = live_lsn.max(witness.map_or(0, |witness| witness.live_lsn));
    // What counts may all have been written after it, once the log was written anew.
    let witness = witness.filter(|witness| witness.lsn >= live_lsn);
    for (first_lsn, file_index, ..) in &mut order {
        // The log's end is there, even if nothing of it can be read.
        if *first_lsn < live_lsn && witness.is_some_and(|witness| witness.file_index == *file_index) {
            *first_lsn = u64::MAX;
        }
    }
    order.sort_unstable();
    let mut walker = Walker {
        walked,
        witness,
        durable_lsn,
        live_lsn,
        known_lsn: 0,
        successors,
        has_begun: false,
        pending: None,
        is_torn: false,
        damaged_lsn: 0,
        contents: Vec::new(),
    };
    let nothing_valid = order.iter().all(|&(first_lsn, ..)| first_lsn == 0);
    for (first_lsn, file_index, file_bytes, has_damage) in order {
        let counts = first_lsn > 0 && first_lsn >= live_lsn || nothing_valid && has_damage;
        if !counts && !has_damage {
            continue;
        }
        let segment = Segment::read(storage, file_index, file_bytes, cluster)?;
        let end = match counts && !walker.is_torn {
            true => walker.segment(&segment),
            false => FIRST_SECTOR,
        };
        walker.note_unused(&segment, end);
        walker.note_dead(&segment, end);
    }
    walker.finish();
    Ok(walker.walked)
}

struct Walker {
    walked: Walked,
    /// Until it has been heard.
    witness: Option<Witness>,
    durable_lsn: u64,
    live_lsn: u64,
    /// How the log stood behind this number is known.
    known_lsn: u64,
    /// What follows each commit.
    successors: HashMap<u64, u64>,
    has_begun: bool,
    pending: Option<Pending>,
    is_torn: bool,
    /// The last damaged commit whose number is known.
    damaged_lsn: u64,
    contents: Vec<u8>,
}

impl Walker {
    /// Walks over one file's commits. Says where they end.
    fn segment(&mut self, segment: &Segment) -> usize {
        let sectors_count = segment.sectors.len();
        let mut at = FIRST_SECTOR;
        let mut is_live = false;
        while at < sectors_count {
            let here = segment
                .valid(at)
                .filter(|header| header.index == 0 && self.is_newer(header));
            let Some(first) = here else {
                // Something that counts may stand behind what does not.
                let Some((next, header)) = self.next_newer(segment, at) else {
                    let damaged = damaged_run(segment, at);
                    if damaged > 0 {
                        self.note_damage(segment, at, damaged, None);
                        at += damaged;
                        if self.walked.end.is_none_or(|end| end.0 == segment.file_index) || is_live || !self.has_begun {
                            self.walked.end = Some((segment.file_index, at as u32));
                        }
                    }
                    break;
                };
                let start = next.saturating_sub(usize::from(header.index)).max(at);
                if start > at {
                    let damaged = damaged_run(segment, at);
                    self.note_damage(segment, at, damaged, None);
                    at = start;
                }
                if header.index > 0 {
                    self.reach(header.lsn);
                    self.enter(segment, header.lsn, &mut is_live);
                    at = self.incomplete(segment, start, header);
                    if self.is_torn {
                        self.walked.live.retain(|live| live.first_lsn <= self.walked.last_lsn);
                        break;
                    }
                    self.walked.end = Some((segment.file_index, at as u32));
                }
                continue;
            };
            self.reach(first.lsn);
            if !self.may_follow(segment, at, first) {
                break;
            }
            self.enter(segment, first.lsn, &mut is_live);
            let count = usize::from(first.count);
            let mut contents = std::mem::take(&mut self.contents);
            let good = segment.contents(at, first.lsn, count, &mut contents);
            if good == count {
                self.records(segment, at, first.lsn, &contents, true);
                self.contents = contents;
                self.walked.last_lsn = first.lsn;
                self.walked.report.commits_count += 1;
                at += count;
                self.walked.end = Some((segment.file_index, at as u32));
                continue;
            }
            self.contents = contents;
            at = self.incomplete(segment, at, first);
            if self.is_torn {
                // Nothing stands in this file if not even its first commit does.
                self.walked.live.retain(|live| live.first_lsn <= self.walked.last_lsn);
                break;
            }
            self.walked.end = Some((segment.file_index, at as u32));
        }
        at
    }

    /// The file holds something that counts.
    fn enter(&mut self, segment: &Segment, lsn: u64, is_live: &mut bool) {
        if std::mem::replace(is_live, true) {
            return;
        }
        let has_origin = segment.valid(FIRST_SECTOR).is_some_and(|header| header.index == 0);
        let first_lsn = match self.walked.live.is_empty() {
            _ if has_origin => segment.first_lsn().unwrap_or(lsn),
            // An origin that cannot be read may be there again the next time: the file is then still to count.
            true if self.live_lsn > 0 => self.live_lsn,
            true => segment.first_lsn().unwrap_or(lsn),
            false => self.walked.last_lsn + 1,
        };
        self.walked.live.push(LiveSegment {
            file_index: segment.file_index,
            first_lsn,
            slot_end: 0,
        });
    }

    /// Whether it is of a commit that may follow the last, and not a leftover.
    fn is_newer(&self, header: &SectorHeader) -> bool {
        let last_lsn = self.walked.last_lsn;
        header.lsn > last_lsn
            && (!self.has_begun || self.successors.get(&last_lsn).is_none_or(|&next| next <= header.lsn))
    }

    /// The next sector from `at` on that belongs to such a commit.
    fn next_newer(&self, segment: &Segment, at: usize) -> Option<(usize, SectorHeader)> {
        (at..segment.sectors.len()).find_map(|sector| {
            let header = segment.valid(sector).filter(|header| self.is_newer(header))?;
            Some((sector, header))
        })
    }

    /// Judges what lies between the last commit and this one. False: the end is torn before it.
    fn may_follow(&mut self, segment: &Segment, at: usize, first: SectorHeader) -> bool {
        let header = segment.commit_header(at);
        let prev_lsn = header.prev_lsn(first.lsn);
        let last_lsn = self.walked.last_lsn;
        if !self.has_begun {
            self.has_begun = true;
            if first.lsn <= self.live_lsn || self.live_lsn == 0 && self.pending.is_none() {
                self.walked.last_lsn = prev_lsn;
                return true;
            }
        } else if prev_lsn <= last_lsn {
            // The commit before it is there. What is pending was nobody's, or has been spoken of since.
            self.settle(None);
            return true;
        }
        // Some commit is missing in between.
        if prev_lsn > self.durable_lsn && !self.pending.as_ref().is_some_and(|pending| pending.is_damaged) {
            self.tear(segment, at, Some(first.lsn));
            return false;
        }
        self.walked
            .replay
            .lost(last_lsn.max(self.known_lsn), first.lsn, &header);
        if self.pending.is_none() {
            self.pending = Some(Pending {
                records_max: 0,
                is_damaged: false,
                finding: Finding {
                    file: segment.name(),
                    at_bytes: (at * SECTOR_BYTES) as u64,
                    lsn: Some(last_lsn + 1),
                    slot: None,
                    kind: FindingKind::MissingCommits { next_lsn: first.lsn },
                },
            });
        }
        self.settle(None);
        self.walked.last_lsn = prev_lsn;
        true
    }

    fn records(&mut self, segment: &Segment, first: usize, lsn: u64, contents: &[u8], is_whole: bool) {
        let Some((head, rest)) = contents.split_first_chunk::<COMMIT_HEADER_BYTES>() else {
            return;
        };
        self.walked.replay.begin_commit(lsn, &CommitHeader::parse(head));
        // What the commit itself does may be lost in part.
        self.known_lsn = self.known_lsn.max(lsn - 1);
        let mut is_ended = false;
        let mut records = Records::new(rest);
        // A record that runs on behind what is readable ends it, and is lost with the rest.
        while let Ok(Some((at_bytes, header, payload))) = records.next() {
            let at = Location {
                file_index: segment.file_index,
                sector: first as u32,
                at_bytes: (COMMIT_HEADER_BYTES + at_bytes) as u32,
                payload_bytes: header.payload_bytes,
            };
            match is_whole {
                true => self.walked.replay.apply(header, payload, at),
                false => is_ended |= !self.walked.replay.apply_part(header, payload, at, is_ended),
            }
            self.walked.report.records_count += 1;
            if header.kind == RecordKind::Append
                && let Some(live) = self.walked.live.last_mut()
            {
                live.slot_end = live.slot_end.max(header.slot + 1);
            }
        }
    }

    fn copies(&mut self, segment: &Segment, sector: usize) {
        let mut records = Records::new(segment.payload(sector));
        let at = Location {
            file_index: segment.file_index,
            sector: sector as u32,
            at_bytes: 0,
            payload_bytes: 0,
        };
        while let Ok(Some((_, header, payload))) = records.next() {
            self.walked.replay.apply_copy(header, payload, at);
        }
    }
}
