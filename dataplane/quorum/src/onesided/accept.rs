//! Accept: entries are written into followers' memory, and are committed by a majority of completions.

use dataplane_waist::{Effects, Instant, Slot, StateMachine, WindowError};
use dataplane_wire::{checksum::crc32c, quorum::entry::NO_OP};

use super::{
    config::Mutation,
    flights::{Flight, What},
    layout::{self, COMMIT_END_AT, Entry, MIN_PROPOSAL_AT, ROUND_AT},
    leader::{Link, OwnLog, Progress, Reign},
    replica::{Emitted, Plane, Planes, Replica},
    requests::Waiting,
};
use crate::config::NODES_MAX;

/// A follower that has not applied for so many heartbeats what the ring needs room for is left behind, if a majority is not.
const PATIENCE_HEARTBEATS: u32 = 20;

impl<S: StateMachine> Replica<S> {
    pub(super) fn heard_replication(
        &mut self,
        now: Instant,
        flight: Flight,
        result: Result<(), WindowError>,
        bytes: &[u8],
    ) {
        let Flight { index, epoch, what } = flight;
        if self.others[index].epoch != epoch || self.reign.is_none() {
            return;
        }
        match result {
            Ok(()) => {}
            Err(WindowError::Permission) => {
                // It is another's by now.
                self.counters.refused_writes_count += 1;
                return self.step_down(now);
            }
            Err(_) => return self.lose_link(now, index),
        }
        match what {
            What::Header => {
                let min_proposal = layout::parse_word(&bytes[MIN_PROPOSAL_AT as usize..]);
                self.others[index].link = Link::Known {
                    min_proposal,
                    verify: None,
                };
            }
            What::Promise => self.on_promised(index),
            What::Recheck => self.on_rechecked(now, index, layout::parse_word(bytes)),
            What::Slots { from, count } => self.on_slots(index, (from, count), bytes),
            What::Entry { end } => self.on_progress(index, |progress| {
                // Everything before is there if nothing is missing in between.
                if progress.acked_end + 1 == end {
                    progress.acked_end = end;
                }
            }),
            What::Round(round) => self.on_progress(index, |progress| progress.round_acked = round),
            What::Recovered => self.on_progress(index, |progress| progress.is_voter = true),
            What::Commit | What::Beacon | What::Permission | What::Transfer | What::Snapshot { .. } => {}
        }
    }

    fn on_progress(&mut self, index: usize, change: impl FnOnce(&mut Progress)) {
        if let Link::Confirmed(progress) = &mut self.others[index].link {
            change(progress);
        }
    }

    fn confirmed(&self) -> impl Iterator<Item = (usize, Progress)> + '_ {
        self.others
            .iter()
            .enumerate()
            .filter_map(|(index, other)| match other.link {
                Link::Confirmed(progress) => Some((index, progress)),
                _ => None,
            })
    }

    /// How many followers get what we write, those that do not count yet among them.
    pub fn followers_count(&self) -> usize {
        self.confirmed().count()
    }

    /// Whether we lead, and every follower that gets our entries has acknowledged all of them.
    pub fn is_at_rest(&self) -> bool {
        let log = self.reign.as_ref().and_then(|reign| reign.log);
        log.is_some_and(|log| self.confirmed().all(|(_, progress)| progress.acked_end == log.end))
    }

    /// Whether everything is written, and on its way, to whoever gets our entries.
    pub(super) fn has_sent_all(&self) -> bool {
        let log = self.reign.as_ref().and_then(|reign| reign.log);
        log.is_some_and(|log| self.writes.is_empty() && self.confirmed().all(|(_, progress)| progress.next == log.end))
    }

    /// So many slots can be written before followers have to apply more: 0 for who does not lead.
    pub fn room_slots(&self, now: Instant) -> u64 {
        let log = self.reign.as_ref().and_then(|reign| reign.log);
        let room = |log: OwnLog| (self.min_head(now) + self.config.layout.slots_count).saturating_sub(log.end + 1);
        log.map_or(0, room)
    }

    /// Everything before this slot may be written over: who reads the log has applied it.
    fn min_head(&self, now: Instant) -> u64 {
        let mut head = self.applied_end;
        if self.config.makes(Mutation::RecycledEarly) {
            return head;
        }
        for (index, progress) in self.confirmed() {
            head = head.min(self.applied_by(index)).min(progress.acked_end);
        }
        for other in &self.others {
            if let Some((end, _)) = other.pin.filter(|&(_, until)| now < until) {
                head = head.min(end);
            }
        }
        head
    }

    /// How far the follower that we are linked to has applied, as was read last.
    fn applied_by(&self, index: usize) -> u64 {
        let other = &self.others[index];
        let beacon = other.beacon.filter(|beacon| beacon.life == other.life);
        beacon.map_or(0, |beacon| beacon.applied_end)
    }

    /// Gives slots to what waits for one.
    pub(super) fn propose(&mut self, now: Instant, planes: &mut Planes<'_>) {
        let mut head = None;
        loop {
            let Some(reign) = &mut self.reign else { return };
            let (Some(proposal), Some(own)) = (reign.proposal, &mut reign.log) else {
                return;
            };
            let (slot, is_first) = (own.end, own.end == own.begin);
            if !is_first && (self.writes.is_empty() || slot - self.commit_end >= self.config.limits.in_flight_slots) {
                reign.full_since = None;
                return;
            }
            // The last slot that was applied stays, so that whoever reads the log knows its proposal.
            let head = *head.get_or_insert_with(|| self.min_head(now));
            if slot + 1 >= head + self.config.layout.slots_count {
                return self.wait_for_room(now, planes);
            }
            let Some(reign) = &mut self.reign else { return };
            let Some(own) = &mut reign.log else { return };
            let before = std::mem::replace(&mut own.last, proposal);
            own.end += 1;
            reign.full_since = None;
            let queued = match is_first {
                true => None,
                false => self.writes.pop_front(),
            };
            let entry = Entry {
                proposal,
                before,
                commit_end: self.commit_end,
                payload: queued.as_ref().map_or(&NO_OP[..], |queued| &queued.payload),
            };
            layout::emit_slot(slot, &entry, &mut self.slot_buffer);
            self.emitted = Some(Emitted {
                slot,
                crc: None,
                is_kept: false,
            });
            // The last entry goes to its followers first, if all they lack is in the buffer: what is written to our own memory before would
            // have to get there before.
            let is_last = self.writes.is_empty() && self.confirmed().all(|(_, progress)| progress.next == slot);
            if !is_last {
                self.keep_entry(planes);
            }
            if let Some(queued) = queued {
                self.spare_payload = queued.payload;
                self.counters.appended_count += 1;
                self.waiting.push_back(Waiting {
                    slot,
                    peer: queued.peer,
                    sent_ns: queued.sent_ns,
                });
            }
        }
    }

    /// The ring is full: look how far the followers are, and leave the slowest behind if it stays so.
    fn wait_for_room(&mut self, now: Instant, planes: &mut Planes<'_>) {
        self.counters.ring_full_count += 1;
        self.chores_at = Instant::ZERO;
        let confirmed: Vec<(usize, Progress)> = self.confirmed().collect();
        for &(index, _) in &confirmed {
            self.read_beacon(index, planes);
        }
        let Some(reign) = &mut self.reign else { return };
        let since = *reign.full_since.get_or_insert(now);
        if now < since + self.config.timing.heartbeat * PATIENCE_HEARTBEATS {
            return;
        }
        reign.full_since = None;
        let slowest = confirmed.iter().min_by_key(|&&(index, _)| self.applied_by(index));
        let Some(&(slowest, progress)) = slowest else { return };
        let voters_count = confirmed.iter().filter(|(_, progress)| progress.is_voter).count();
        let left_count = voters_count - usize::from(progress.is_voter) + 1;
        if left_count >= self.config.majority_count() && self.applied_by(slowest) < self.applied_end {
            self.counters.dropped_slow_count += 1;
            self.others[slowest].epoch += 1;
            self.others[slowest].link = Link::Behind { offer_at: now };
        }
    }

    /// Writes to every follower what it lacks.
    pub(super) fn send_entries(&mut self, planes: &mut Planes<'_>) {
        let Some(own) = self.reign.as_ref().and_then(|reign| reign.log) else {
            return;
        };
        let layout = self.config.layout;
        for index in 0..self.others.len() {
            while let Link::Confirmed(progress) = self.others[index].link {
                let slot = progress.next;
                let has_room =
                    slot < self.applied_by(index) + layout.slots_count || self.config.makes(Mutation::RecycledEarly);
                let is_busy = slot - progress.acked_end >= self.config.limits.in_flight_slots;
                if slot == own.end || is_busy || !has_room || !self.load_slot(slot, planes) {
                    break;
                }
                let bytes = std::mem::take(&mut self.slot_buffer);
                let len = layout::parse_slot(slot, &bytes, false).map_or(0, |entry| entry.payload.len());
                let (to, at) = ((Plane::Replication, index), layout.slot_at(slot));
                let what = What::Entry { end: slot + 1 };
                let posted = self.post_write(planes, to, at, &bytes[..layout::written_bytes(len)], what);
                self.slot_buffer = bytes;
                if !posted {
                    break;
                }
                self.counters.written_count += 1;
                let next = slot + 1;
                self.others[index].link = Link::Confirmed(Progress { next, ..progress });
            }
        }
    }

    /// Writes the entry that was made last into our own memory, before our own vote for it counts.
    pub(super) fn keep_entry(&mut self, planes: &mut Planes<'_>) {
        if let Some(Emitted { slot, is_kept, .. }) = &mut self.emitted
            && !std::mem::replace(is_kept, true)
        {
            let at = self.config.layout.slot_at(*slot);
            planes.replication.store(at, &self.slot_buffer);
        }
    }

    /// What applying the entry takes that was written last, while it is on its way.
    pub(super) fn sum_up(&mut self) {
        if let Some(Emitted {
            slot, crc: crc @ None, ..
        }) = &mut self.emitted
        {
            *crc = layout::parse_slot(*slot, &self.slot_buffer, false).map(|entry| crc32c(entry.payload));
        }
    }

    pub(super) fn want_round(&mut self) {
        if let Some(reign) = &mut self.reign {
            reign.wants_round = true;
        }
    }

    /// A round is wanted that has not begun.
    pub(super) fn want_round_unless(&mut self, round: u64) {
        if self.reign.as_ref().is_some_and(|reign| reign.round < round) {
            self.want_round();
        }
    }

    /// The newest round that a majority has taken.
    pub(super) fn confirmed_round(&self) -> u64 {
        let Some(reign) = &self.reign else { return 0 };
        let acked = self.confirmed().filter(|(_, progress)| progress.is_voter);
        self.by_majority(acked.map(|(_, progress)| progress.round_acked), reign.round)
            .unwrap_or(0)
    }

    /// What a majority has reached, `ours` counted.
    fn by_majority(&self, theirs: impl Iterator<Item = u64>, ours: u64) -> Option<u64> {
        let mut all = [0; NODES_MAX];
        let mut len = 0;
        for (place, reached) in all.iter_mut().zip(theirs.chain([ours])) {
            *place = reached;
            len += 1;
        }
        all[..len].sort_unstable_by(|a, b| b.cmp(a));
        let count = self.config.majority_count() - usize::from(self.config.makes(Mutation::MinorityCommit));
        all[..len].get(count - 1).copied()
    }

    /// Whether somebody waits for a round, or is to be told something.
    pub(super) fn has_round_to_begin(&self) -> bool {
        let is_waited_for = |reign: &Reign| reign.wants_round || reign.must_tell;
        !self.reads.is_empty() || self.reign.as_ref().is_some_and(is_waited_for)
    }

    /// Writes a new round, one at a time: what comes meanwhile shares the next.
    pub(super) fn begin_round(&mut self, planes: &mut Planes<'_>) {
        let Some(reign) = &self.reign else { return };
        let waits = reign.wants_round || self.reads.back().is_some_and(|read| read.round > reign.round);
        if !waits && !reign.must_tell {
            return;
        }
        let confirmed = self.confirmed_round();
        let Some(reign) = &mut self.reign else { return };
        // A link that was lost takes its answer with it: a round that has none by the next heartbeat begins again, as another.
        let begins = match reign.round > confirmed {
            true => reign.must_tell,
            false => waits,
        };
        if !begins {
            return;
        }
        reign.wants_round = false;
        reign.round += 1;
        let round = reign.round;
        let confirmed: Vec<(usize, Progress)> = self.confirmed().collect();
        for (index, _) in confirmed {
            let to = (Plane::Replication, index);
            self.post_write(planes, to, ROUND_AT, &round.to_ne_bytes(), What::Round(round));
        }
    }

    /// Lets every follower know what is committed, and finds out whether it still lets us write.
    pub(super) fn tell(&mut self, planes: &mut Planes<'_>) {
        let Some(reign) = self.reign.as_mut().filter(|reign| reign.must_tell) else {
            return;
        };
        reign.must_tell = false;
        let confirmed: Vec<(usize, Progress)> = self.confirmed().collect();
        for (index, progress) in confirmed {
            // It believes this of whatever stands in its slots: only of what it is known to have. What is posted may be lost with
            // a connection, and this be the first thing that passes over the next one.
            let has_end = match self.config.makes(Mutation::CommitAhead) {
                true => progress.next,
                false => progress.acked_end,
            };
            let end = self.commit_end.min(has_end);
            let to = (Plane::Replication, index);
            self.post_write(planes, to, COMMIT_END_AT, &end.to_ne_bytes(), What::Commit);
        }
    }

    /// Commits what a majority has, and applies it.
    pub(super) fn commit(&mut self, planes: &mut Planes<'_>, out: &mut Effects) {
        let Some(own) = self.reign.as_ref().and_then(|reign| reign.log) else {
            return;
        };
        let acked = self.confirmed().filter(|(_, progress)| progress.is_voter);
        let end = self.by_majority(acked.map(|(_, progress)| progress.acked_end), own.end);
        // Older entries are committed with the first of our own.
        if let Some(end) = end.filter(|&end| end > self.commit_end && end > own.begin) {
            self.commit_end = end;
            self.machine.note_committed(Slot(end));
            self.failures_count = 0;
        }
        self.apply_to(self.commit_end, planes, out);
    }
}
