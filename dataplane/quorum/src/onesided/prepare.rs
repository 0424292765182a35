//! Prepare: what a majority has promised and has is learned before anything is written (Mu, OSDI'20 §4.1, listing 2).

use dataplane_waist::{Instant, StateMachine};
use dataplane_wire::checksum::crc32c;

use super::{
    config::Mutation,
    flights::What,
    layout::{self, MIN_PROPOSAL_AT, RECOVERED_LIFE_AT, WORD_BYTES},
    leader::{Link, OwnLog, Progress, RemoteLog},
    replica::{Plane, Planes, Replica},
};
use crate::config::NODES_MAX;

/// Slots that one read brings at most.
const READ_SLOTS_MAX: u64 = 16;

/// A snapshot is offered again after so many heartbeats.
const OFFER_HEARTBEATS: u32 = 5;

impl<S: StateMachine> Replica<S> {
    fn is_full_peer(&self, index: usize) -> bool {
        self.others[index].beacon.is_some_and(|beacon| beacon.is_full)
    }

    /// Chooses a proposal above all that a majority has promised.
    pub(super) fn choose_proposal(&mut self, planes: &mut Planes<'_>) {
        if self.reign.as_ref().is_none_or(|reign| reign.proposal.is_some()) {
            return;
        }
        let mut word = [0; WORD_BYTES];
        planes.replication.load(MIN_PROPOSAL_AT, &mut word);
        let mut highest = self.proposal_seen.max(layout::parse_word(&word));
        let mut known_count = 1;
        for index in 0..self.others.len() {
            if let Link::Known { min_proposal, .. } = self.others[index].link
                && self.is_full_peer(index)
            {
                known_count += 1;
                highest = highest.max(min_proposal);
            }
        }
        if known_count < self.config.majority_count() {
            return;
        }
        // No two nodes have a number in common.
        let proposal = (highest / NODES_MAX as u64 + 1) * NODES_MAX as u64 + u64::from(self.config.node);
        self.proposal_seen = proposal;
        planes.replication.store(MIN_PROPOSAL_AT, &proposal.to_ne_bytes());
        if let Some(reign) = &mut self.reign {
            reign.proposal = Some(proposal);
        }
    }

    /// Makes a follower promise not to be another leader's.
    pub(super) fn promise(
        &mut self,
        now: Instant,
        index: usize,
        (min_proposal, verify): (u64, Option<u64>),
        planes: &mut Planes<'_>,
    ) {
        let Some(reign) = &self.reign else { return };
        let Some(proposal) = reign.proposal else { return };
        if min_proposal > proposal {
            // Somebody has prepared with it after we have.
            self.proposal_seen = self.proposal_seen.max(min_proposal);
            return self.step_down(now);
        }
        if !self.is_full_peer(index) {
            // Whom it let write before it lost its memory, it does not know. If we still have a majority now, without it, nobody
            // else can have committed anything that we lack.
            if reign.log.is_none_or(|log| self.commit_end <= log.begin) {
                return;
            }
            let (round, acked) = (reign.round, self.confirmed_round());
            match verify {
                None => {
                    let verify = Some(round + 1);
                    self.others[index].link = Link::Known { min_proposal, verify };
                    self.want_round();
                    return;
                }
                Some(verify) if acked < verify => return self.want_round_unless(verify),
                Some(_) => {}
            }
        }
        let to = (Plane::Replication, index);
        if self.post_write(planes, to, MIN_PROPOSAL_AT, &proposal.to_ne_bytes(), What::Promise) {
            self.others[index].link = Link::Promising;
        }
    }

    /// Its promise is ours: what does it have?
    pub(super) fn on_promised(&mut self, index: usize) {
        let (applied_end, applied_proposal) = (self.applied_end, self.applied_proposal);
        let other = &mut self.others[index];
        let Some(beacon) = other.beacon else { return };
        let from = applied_end.min(beacon.applied_end);
        // Both are committed: where they are equally far, they are the same.
        let before = match from == applied_end {
            true => applied_proposal,
            false => beacon.applied_proposal,
        };
        other.log = RemoteLog {
            from,
            entries: Vec::new(),
            before,
        };
        other.link = match from < beacon.log_begin {
            // What is in the slots there was never committed, or is not what was.
            true => Link::Rechecking { is_under_way: false },
            false => Link::Reading {
                next: from,
                is_under_way: false,
            },
        };
    }

    pub(super) fn read_slots(&mut self, index: usize, next: u64, planes: &mut Planes<'_>) {
        let layout = self.config.layout;
        let fit_count = (self.config.limits.request_bytes_max / layout.slot_bytes()) as u64;
        let until_wrap = layout.slots_count - next % layout.slots_count;
        let count = fit_count.min(READ_SLOTS_MAX).min(until_wrap);
        let len = count as usize * layout.slot_bytes();
        let what = What::Slots { from: next, count };
        if self.post_read(planes, (Plane::Replication, index), layout.slot_at(next), len, what) {
            self.others[index].link = Link::Reading {
                next,
                is_under_way: true,
            };
        }
    }

    /// Slots of its log have come.
    pub(super) fn on_slots(&mut self, index: usize, (from, count): (u64, u64), bytes: &[u8]) {
        let (layout, checks) = (self.config.layout, !self.config.makes(Mutation::CanaryUnchecked));
        let other = &mut self.others[index];
        for (slot, bytes) in (from..from + count).zip(bytes.chunks_exact(layout.slot_bytes())) {
            let entry = layout::parse_slot(slot, bytes, checks);
            let last = other.log.last_proposal();
            let Some(entry) = entry.filter(|entry| self.config.is_behind(entry, last)) else {
                other.link = Link::Rechecking { is_under_way: false };
                return;
            };
            let len = layout::written_bytes(entry.payload.len());
            other.log.entries.push((entry.proposal, bytes[..len].to_vec()));
        }
        other.link = match other.log.entries.len() as u64 >= layout.slots_count {
            true => Link::Rechecking { is_under_way: false },
            false => Link::Reading {
                next: from + count,
                is_under_way: false,
            },
        };
    }

    /// What is promised there, now that its log was read. Reading asks for no permission: if another leader has prepared there
    /// meanwhile, or its memory was lost, what we have read may be of after that.
    pub(super) fn on_rechecked(&mut self, now: Instant, index: usize, promised: u64) {
        let proposal = self.reign.as_ref().and_then(|reign| reign.proposal);
        if Some(promised) == proposal || self.config.makes(Mutation::RecheckSkipped) {
            self.others[index].link = Link::Read;
            return;
        }
        self.counters.recheck_failed_count += 1;
        if proposal.is_some_and(|proposal| promised > proposal) {
            self.proposal_seen = self.proposal_seen.max(promised);
            return self.step_down(now);
        }
        self.lose_link(now, index);
    }

    /// Takes over the best log of a majority.
    pub(super) fn settle(&mut self, now: Instant, planes: &mut Planes<'_>) {
        let Some(reign) = self.reign.as_ref().filter(|reign| !reign.is_settled()) else {
            return;
        };
        if reign.proposal.is_none() {
            return;
        }
        let is_read = |index: &usize| self.others[*index].link == Link::Read && self.is_full_peer(*index);
        let read: Vec<usize> = (0..self.others.len()).filter(is_read).collect();
        if read.len() + 1 < self.config.majority_count() {
            return;
        }
        let lacks = |&&index: &&usize| {
            let other = &self.others[index];
            other.beacon.is_some_and(|beacon| other.log.end() < beacon.applied_end)
        };
        if let Some(&index) = read.iter().find(lacks) {
            // It has used the slots again that we have not applied.
            self.ask_for_snapshot(now, index, planes);
            self.failures_count = 0;
            return self.step_down(now);
        }
        let (own_end, own_last, _) = self.walk(planes);
        let rank = |index: usize| (self.others[index].log.last_proposal(), self.others[index].log.end());
        let best = read.iter().copied().max_by_key(|&index| rank(index));
        let best =
            best.filter(|&index| rank(index) > (own_last, own_end) && !self.config.makes(Mutation::PrepareSkipped));
        let (mut end, mut last) = (own_end, own_last);
        if let Some(index) = best {
            (last, end) = rank(index);
            let log = std::mem::take(&mut self.others[index].log);
            for slot in self.applied_end..end {
                let (proposal, bytes) = &log.entries[(slot - log.from) as usize];
                if self.proposal_in(slot, planes) != Some(*proposal) {
                    planes.replication.store(self.config.layout.slot_at(slot), bytes);
                    self.counters.adopted_count += 1;
                }
            }
            self.others[index].log = log;
            let (_, _, said) = self.walk(planes);
            self.commit_end = self.commit_end.max(said);
        }
        if let Some(reign) = &mut self.reign {
            reign.log = Some(OwnLog { begin: end, end, last });
        }
        let mut took_over = Vec::new();
        for slot in self.applied_end..end {
            if let Some(entry) = self.entry_in(slot, planes) {
                took_over.push((slot, entry.proposal, crc32c(entry.payload)));
            }
        }
        self.took_over = Some(took_over);
        self.counters.led_count += 1;
    }

    /// Compares its log with ours, and writes on from where they differ.
    pub(super) fn confirm(&mut self, now: Instant, index: usize, planes: &mut Planes<'_>) {
        let Some(own) = self.reign.as_ref().and_then(|reign| reign.log) else {
            return;
        };
        let log = std::mem::take(&mut self.others[index].log);
        let mut next = log.from;
        let mut is_kept = true;
        while next < own.end {
            let ours = self.proposal_in(next, planes);
            is_kept = ours.is_some();
            let theirs = log
                .entries
                .get((next - log.from) as usize)
                .map(|(proposal, _)| *proposal);
            if ours.is_none() || ours != theirs {
                break;
            }
            next += 1;
        }
        if !is_kept {
            self.others[index].link = Link::Behind { offer_at: now };
            return;
        }
        if next < log.end() {
            self.counters.repaired_count += 1;
        }
        let is_full = self.is_full_peer(index);
        self.others[index].link = Link::Confirmed(Progress {
            next,
            acked_end: next,
            round_acked: 0,
            is_voter: is_full,
            target: own.end,
            is_told: is_full,
        });
    }

    /// Tells who lost its memory that it has everything again.
    pub(super) fn finish_recovery(&mut self, index: usize, progress: Progress, planes: &mut Planes<'_>) {
        if progress.is_told || progress.acked_end < progress.target {
            return;
        }
        let life = self.others[index].life.to_ne_bytes();
        let to = (Plane::Replication, index);
        if self.post_write(planes, to, RECOVERED_LIFE_AT, &life, What::Recovered) {
            let is_told = true;
            self.others[index].link = Link::Confirmed(Progress { is_told, ..progress });
        }
    }

    /// It needs a snapshot, or has fetched it.
    pub(super) fn help(&mut self, now: Instant, index: usize, offer_at: Instant, planes: &mut Planes<'_>) {
        let Some(own) = self.reign.as_ref().and_then(|reign| reign.log) else {
            return;
        };
        let applied_end = self.others[index].beacon.map_or(0, |beacon| beacon.applied_end);
        if applied_end >= own.end || self.proposal_in(applied_end, planes).is_some() {
            self.others[index].epoch += 1;
            self.others[index].link = Link::Idle {
                retry_at: now,
                again: true,
            };
            return;
        }
        if now >= offer_at {
            self.offer(now, index, planes);
            let offer_at = now + self.config.timing.heartbeat * OFFER_HEARTBEATS;
            self.others[index].link = Link::Behind { offer_at };
        }
    }
}
