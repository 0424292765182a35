//! The log as its records make it: each record is applied in the order of the commits, and what is lost in between is
//! judged by what the next commit says about the log as it found it.

use std::collections::VecDeque;

use dataplane_waist::STATE_BYTES_MAX;

use crate::{
    format::{CommitHeader, Cut, NUMBER_MAX, Origin, RecordHeader, RecordKind},
    witness::{LogShape, Witness},
};

/// Where an entry's payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    /// The file's number.
    pub(crate) file_index: u32,
    /// The first sector of its commit.
    pub(crate) sector: u32,
    /// Where its record begins in the commit's contents, commit header included.
    pub(crate) at_bytes: u32,
    pub(crate) payload_bytes: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) term: u64,
    pub(crate) at: Location,
}

/// Entries that once were there and are not readable: up to `end`, the last in `term`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    pub(crate) end: u64,
    pub(crate) term: u64,
}

/// The snapshot that stands for the log's beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) end: u64,
    pub(crate) last_term: u64,
    /// `None`: the record that says so is lost.
    pub(crate) generation: Option<u64>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Replay {
    pub(crate) state: Option<Vec<u8>>,
    /// How often the state has been set, ever.
    pub(crate) states_count: u32,
    /// The same, as commits behind lost ones tell it.
    states_told: u32,
    pub(crate) snapshot: Option<Standing>,
    /// The slot of the first of `entries`.
    pub(crate) base: u64,
    pub(crate) entries: VecDeque<Entry>,
    pub(crate) damage: Option<Damage>,
    /// What has been overwritten.
    pub(crate) cut: Cut,
    /// The log's end and the term before it as its writer knew them, whatever of it can be read.
    tip: (u64, u64),
    /// The commit whose records are applied.
    lsn: u64,
    /// The term before `base`.
    base_term: u64,
    has_begun: bool,
}

impl Replay {
    pub(crate) fn end(&self) -> u64 {
        self.base + self.entries.len() as u64
    }

    /// The first slot that no snapshot stands for.
    pub(crate) fn begin(&self) -> u64 {
        self.snapshot.map_or(0, |standing| standing.end)
    }

    /// The term of the slot before [`Replay::end`].
    pub(crate) fn end_term(&self) -> u64 {
        self.entries.back().map_or(self.base_term, |entry| entry.term)
    }

    /// What it is, but for its entries.
    pub(crate) fn shape(&self) -> LogShape {
        LogShape {
            snapshot: self.snapshot,
            end: self.end(),
            end_term: self.end_term(),
            cut: self.cut,
            damage: self.damage,
        }
    }

    /// Commit `lsn` comes next, and says what it follows. Its writer knew of no entries behind its end: what is there was given up
    /// when the log was opened, and could not be read then.
    pub(crate) fn begin_commit(&mut self, lsn: u64, header: &CommitHeader) {
        self.lsn = lsn;
        self.tip = (header.end, header.end_term);
        self.cut = header.cut(lsn);
        self.truncate(header.end);
    }

    /// One of the copies out of a commit of which something is lost.
    pub(crate) fn apply_copy(&mut self, header: RecordHeader, payload: &[u8], at: Location) {
        let (tip, cut) = (self.tip, self.cut);
        self.apply(header, payload, at);
        // What else the commit held may have gone further than it says.
        self.tip = self.tip.max(tip);
        self.cut = cut;
    }

    /// A record out of the readable beginning of a commit of which something is lost. The first that does not follow on what was
    /// there before ends the entries: then a later reader, who can read less of the commit, or more, finds no others before that
    /// end than this one. False: it is the one, or stands behind it.
    pub(crate) fn apply_part(&mut self, header: RecordHeader, payload: &[u8], at: Location, is_ended: bool) -> bool {
        let (tip, cut) = (self.tip, self.cut);
        if header.kind == RecordKind::Append && (is_ended || header.slot < tip.0) {
            self.truncate(header.slot);
            self.tip = (header.slot + 1, header.term);
            return false;
        }
        self.apply(header, payload, at);
        let is_cut = self.cut != cut;
        self.cut = cut;
        !(is_ended || is_cut)
    }

    pub(crate) fn apply(&mut self, header: RecordHeader, payload: &[u8], at: Location) {
        match header.kind {
            RecordKind::Append => self.append(header, at),
            // A longer one was never set by anybody.
            RecordKind::State if payload.len() > STATE_BYTES_MAX => {}
            RecordKind::State => {
                self.state = Some(payload.to_vec());
                self.states_count = header.slot as u32;
            }
            RecordKind::Install => {
                let word = |index: usize| {
                    payload
                        .get(index * 8..index * 8 + 8)
                        .and_then(|bytes| bytes.try_into().ok())
                        .map_or(header.slot, u64::from_be_bytes)
                };
                let standing = Standing {
                    end: header.slot,
                    last_term: header.term,
                    generation: Some(word(1)),
                };
                let log_end = word(0).min(NUMBER_MAX);
                if log_end <= standing.end {
                    // The entries behind it may have been dropped.
                    self.cut = self.cut.at(self.lsn, self.begin());
                    self.tip = (log_end, standing.last_term);
                }
                self.install(standing, log_end);
            }
            RecordKind::Origin => self.origin(header, Origin::parse(payload).unwrap_or_default()),
            RecordKind::Damage => self.damage_to(header.slot, header.term),
            // No segment holds one.
            RecordKind::Witness => {}
            // Only copies say this, and copies are read only of a damaged commit.
            RecordKind::Cut => {
                let (once, term) = (self.end(), self.end_term());
                self.truncate(header.slot);
                self.damage_to(once, term);
            }
        }
        self.heal();
        self.has_begun = true;
    }

    fn append(&mut self, header: RecordHeader, at: Location) {
        let (slot, term) = (header.slot, header.term);
        if slot < self.tip.0 {
            self.cut = self.cut.at(self.lsn, slot);
        }
        self.tip = (slot + 1, term);
        if slot > self.end() {
            // Its predecessors are lost, so it is of no use. That it was there must be remembered.
            self.damage_to((slot + 1).min(NUMBER_MAX), term);
            return;
        }
        self.truncate(slot);
        self.entries.push_back(Entry { term, at });
    }

    fn truncate(&mut self, end: u64) {
        if end < self.base {
            self.entries.clear();
            self.base = end.max(self.begin());
        } else {
            self.entries.truncate((end - self.base) as usize);
        }
    }

    fn install(&mut self, standing: Standing, log_end: u64) {
        let Standing { end, last_term, .. } = standing;
        self.snapshot = Some(standing);
        if log_end <= end || end >= self.end() {
            self.entries.clear();
        }
        while self.base < end && self.entries.pop_front().is_some() {
            self.base += 1;
        }
        // Entries between `end` and `base` may stand in files that a later snapshot has made worthless: what follows them
        // counts all the same.
        if self.entries.is_empty() && (log_end <= end || self.base <= end) {
            self.base = end;
            self.base_term = last_term;
        }
    }

    /// What came before is told by the origin alone if nothing was read before it. Otherwise it says nothing new.
    fn origin(&mut self, header: RecordHeader, origin: Origin) {
        if self.has_begun {
            return;
        }
        self.snapshot = (origin.generation > 0).then_some(Standing {
            end: header.slot,
            last_term: header.term,
            generation: Some(origin.generation),
        });
        self.base = origin.end;
        self.base_term = origin.end_term;
        self.tip = (origin.end, origin.end_term);
        self.damage = (origin.damage_end > 0).then_some(Damage {
            end: origin.damage_end,
            term: origin.damage_term,
        });
    }

    /// Without the commit that the record stands in.
    pub(crate) fn known_damage(&mut self, header: RecordHeader) {
        self.damage_to(header.slot, header.term);
        self.heal();
    }

    fn damage_to(&mut self, end: u64, term: u64) {
        if self.damage.is_none_or(|damage| damage.end < end) {
            self.damage = Some(Damage { end, term });
        }
    }

    /// A log as long as it once was is whole again: whoever appended the entries had them from others.
    fn heal(&mut self) {
        if self.damage.is_some_and(|damage| damage.end <= self.end()) {
            self.damage = None;
        }
    }

    /// Commits above `known_lsn` are lost; `next`, with number `next_lsn`, is the first behind them that is not.
    pub(crate) fn lost(&mut self, known_lsn: u64, next_lsn: u64, next: &CommitHeader) {
        let was_cut = next.cut(next_lsn).lsn > known_lsn;
        let is_whole = !was_cut && next.end == self.end() && next.begin == self.begin();
        if !is_whole {
            let once = self.end();
            let term = self.end_term();
            if next.begin > self.begin() {
                // The snapshot's file is whole, or recovery ends there; the last term is read from it.
                let standing = Standing {
                    end: next.begin,
                    last_term: 0,
                    generation: None,
                };
                self.install(standing, next.end);
            }
            let mut from = self.end().min(next.end);
            if was_cut {
                from = from.min(next.cut_slot);
            }
            let from = from.max(self.begin());
            if from < once || from < next.end {
                self.truncate(from);
                self.damage_to(once, term);
                self.damage_to(next.end, next.end_term);
            }
            self.heal();
        }
        self.has_begun = true;
        self.states_told = self.states_told.max(next.states_count);
    }

    /// Whether states have been set that can be read nowhere, as later commits tell.
    pub(crate) fn is_state_lost(&self) -> bool {
        self.states_told > self.states_count
    }

    /// All that can be read up to `witness` has been read, where commits above `known_lsn` are lost, and what could not be read
    /// when a log was opened may be readable now. Of what was read, that stays which the log held then.
    pub(crate) fn witness(&mut self, known_lsn: u64, witness: &Witness) {
        let shape = &witness.shape;
        if shape.cut.lsn > known_lsn {
            self.truncate(shape.cut.slot);
        }
        if self.snapshot != shape.snapshot {
            match shape.snapshot {
                Some(standing) if standing.end >= self.begin() => self.install(standing, shape.end),
                // One that was given up: what stands behind it is of no use.
                other => self.snapshot = other,
            }
        }
        self.truncate(shape.end);
        self.damage = shape.damage;
        if self.end() < shape.end {
            self.damage_to(shape.end, shape.end_term);
        }
        self.cut = shape.cut;
        self.tip = (shape.end, shape.end_term);
        self.has_begun = true;
    }

    /// The end is damaged: of up to `records_max` records nothing is known, but that they were appended.
    pub(crate) fn lost_end(&mut self, records_max: u64) {
        let (end, term) = self.tip.max((self.end(), self.end_term()));
        self.damage_to((end + records_max).min(NUMBER_MAX), term);
        self.has_begun = true;
    }

    /// A snapshot whose record is lost stands. If it is not just another one of the same slots, nobody knows whether the
    /// entries behind it are of its history.
    pub(crate) fn adopt(&mut self, end: u64, generation: u64) {
        let (once, term) = (self.end(), self.end_term());
        let is_same = end == self.begin() && self.damage.is_none();
        let standing = Standing {
            end,
            last_term: 0,
            generation: Some(generation),
        };
        self.install(standing, if is_same { once } else { end });
        self.damage_to(once, term);
        self.heal();
    }

    /// Everything has been read. Entries between the snapshot and the first that was found are lost.
    pub(crate) fn finish(&mut self) {
        let (begin, end) = (self.begin(), self.end());
        if begin < self.base {
            let term = self.end_term();
            self.entries.clear();
            self.base = begin;
            self.damage_to(end, term);
        } else if begin > self.base {
            while self.base < begin && self.entries.pop_front().is_some() {
                self.base += 1;
            }
            self.base = begin;
        }
        self.heal();
    }
}
