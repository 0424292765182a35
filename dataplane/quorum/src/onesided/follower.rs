//! A follower polls its memory: what is whole and committed is applied.

use dataplane_waist::Term;
use dataplane_waist::{Effects, Slot, StateMachine};
use dataplane_wire::{
    checksum::crc32c,
    quorum::{
        entry::{self, Entry},
        reply::Outcome,
        request::{Command, Request},
    },
};

use super::{
    config::Mutation,
    layout::{self, COMMIT_END_AT, RECOVERED_LIFE_AT, WORD_BYTES},
    replica::{Planes, Replica},
};
use crate::{answer, sessions::Known};

impl<S: StateMachine> Replica<S> {
    /// Looks what a leader has written.
    pub(super) fn follow(&mut self, planes: &mut Planes<'_>, out: &mut Effects) {
        let mut word = [0; WORD_BYTES];
        if !self.is_full {
            planes.replication.load(RECOVERED_LIFE_AT, &mut word);
            if layout::parse_word(&word) == u64::from(self.config.life) {
                self.is_full = true;
                self.counters.recovered_count += 1;
            }
        }
        if self.leads().is_some() {
            return;
        }
        // What is committed is read first, and the entries again after it: whoever wrote the one wrote the others before.
        planes.replication.load(COMMIT_END_AT, &mut word);
        let (end, _, said) = self.walk(planes);
        let commit_end = said.max(layout::parse_word(&word));
        self.commit_end = self.commit_end.max(commit_end.min(end));
        self.apply_to(self.commit_end, planes, out);
    }

    /// Copies a slot of our own log; says whether the entry there is whole and of this slot.
    pub(super) fn load_slot(&mut self, slot: u64, planes: &mut Planes<'_>) -> bool {
        if self.emitted.is_some_and(|emitted| emitted.slot == slot) {
            return true;
        }
        self.emitted = None;
        let layout = self.config.layout;
        let mut header = [0; layout::SLOT_HEADER_BYTES];
        planes.replication.load(layout.slot_at(slot), &mut header);
        let announced = layout::announced_bytes(slot, &header);
        let Some(len_bytes) = announced.filter(|&len_bytes| len_bytes <= layout.slot_bytes()) else {
            return false;
        };
        // All of it again: who writes meanwhile is found out by what stands in one copy.
        self.slot_buffer.resize(len_bytes, 0);
        planes.replication.load(layout.slot_at(slot), &mut self.slot_buffer);
        let is_there = layout::parse_slot(slot, &self.slot_buffer, false).is_some();
        let is_whole = layout::parse_slot(slot, &self.slot_buffer, true).is_some();
        self.counters.torn_count += u64::from(is_there && !is_whole);
        is_whole || (is_there && self.config.makes(Mutation::CanaryUnchecked))
    }

    /// The proposal of the entry in one of our slots, if it is whole and of our log.
    pub(super) fn proposal_in(&mut self, slot: u64, planes: &mut Planes<'_>) -> Option<u64> {
        self.entry_in(slot, planes).map(|entry| entry.proposal)
    }

    /// The entry in one of our slots, if it is whole and of our log.
    pub(super) fn entry_in(&mut self, slot: u64, planes: &mut Planes<'_>) -> Option<layout::Entry<'_>> {
        let is_whole = slot >= self.log_begin && self.load_slot(slot, planes);
        is_whole.then(|| layout::parse_slot(slot, &self.slot_buffer, false))?
    }

    /// Where our log ends, the last proposal in it, and what its entries say is committed.
    pub(super) fn walk(&mut self, planes: &mut Planes<'_>) -> (u64, u64, u64) {
        let (mut slot, mut last, mut commit_end) = (self.applied_end, self.applied_proposal, 0);
        while slot < self.applied_end + self.config.layout.slots_count && self.load_slot(slot, planes) {
            let Some(entry) = layout::parse_slot(slot, &self.slot_buffer, false) else {
                break;
            };
            if !self.config.is_behind(&entry, last) {
                break;
            }
            (last, commit_end) = (entry.proposal, commit_end.max(entry.commit_end));
            slot += 1;
        }
        (slot, last, commit_end)
    }

    /// Applies everything before `end` that is whole.
    pub(super) fn apply_to(&mut self, end: u64, planes: &mut Planes<'_>, out: &mut Effects) {
        while self.applied_end < end {
            let slot = self.applied_end;
            let is_whole = self.load_slot(slot, planes);
            let crc = self.emitted.and_then(|emitted| emitted.crc);
            let bytes = std::mem::take(&mut self.slot_buffer);
            let entry = is_whole.then(|| layout::parse_slot(slot, &bytes, false)).flatten();
            let entry = entry.filter(|entry| self.config.is_behind(entry, self.applied_proposal));
            if let Some(entry) = entry {
                let crc = crc.unwrap_or_else(|| crc32c(entry.payload));
                self.applied.push((slot, entry.proposal, crc));
                self.apply_one(slot, entry.payload, out);
                self.applied_end += 1;
                self.applied_proposal = entry.proposal;
                self.counters.applied_count += 1;
            }
            let is_over = entry.is_none();
            self.slot_buffer = bytes;
            if is_over {
                return;
            }
        }
    }

    fn apply_one(&mut self, slot: u64, bytes: &[u8], out: &mut Effects) {
        let waiting = match self.waiting.front() {
            Some(waiting) if waiting.slot == slot => self.waiting.pop_front(),
            _ => None,
        };
        // What does not parse was refused when it came; it parses on no replica.
        let Ok(Entry::Request(request)) = entry::parse(bytes) else {
            return;
        };
        let term = Term(self.proposal_seen);
        let mut tell = |request: &Request<'_>, outcome: Outcome<'_>| {
            if let Some(waiting) = &waiting {
                answer::send(out, waiting.peer, term, waiting.sent_ns, request, outcome);
            }
        };
        if let Command::Open = request.command {
            let client = self.sessions.open(Slot(slot));
            return tell(&request, Outcome::Opened { client });
        }
        match self.sessions.look_up(request.client, request.sequence) {
            Known::Answered(outcome) => return tell(&request, outcome),
            Known::Expired => return tell(&request, Outcome::Expired),
            Known::New => {}
        }
        let sessions = &mut self.sessions;
        self.machine.apply(&request.command, &mut |outcome| {
            sessions.remember(request.client, request.sequence, Slot(slot), outcome);
            tell(&request, outcome);
        });
    }
}
