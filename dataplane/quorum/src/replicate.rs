//! What a leader sends to each follower: new entries, what is missing, a snapshot, or a question.

use std::time::Duration;

use dataplane_waist::{Effects, Instant, Peer, Slot, StateMachine, Term};
use dataplane_wire::{
    frame,
    quorum::{
        append::Append,
        entries::{self, Entries, EntriesWriter, List},
        report::{Report, Status},
    },
};

use crate::{
    replica::{Replica, Role},
    transfer::Outgoing,
};

/// How far a follower is.
#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) node: u32,
    pub(crate) peer: Peer,
    pub(crate) mode: Mode,
    /// Sent up to here; while it is probed, where it is asked about.
    pub(crate) sent_end: Slot,
    /// The round under way when it last acknowledged more than before: what it answers to a later one is newer.
    pub(crate) acked_in_round: u64,
    /// When it last said anything in this term.
    pub(crate) heard_at: Option<Instant>,
    /// When it last got on, or was asked why it does not.
    pub(crate) moved_at: Instant,
    /// How long to wait before asking again: doubles up to the heartbeat.
    pub(crate) patience: Duration,
    /// The beginning of the gap that was mended last, and when.
    pub(crate) repaired: Option<(Slot, Instant)>,
}

/// What a follower needs.
#[derive(Debug)]
pub(crate) enum Mode {
    /// We look for the last entry that it shares with us.
    Probing,
    /// It takes what we append.
    Streaming,
    /// It lacks what a snapshot stands for.
    Transferring(Outgoing),
}

impl Progress {
    /// Whether it takes what we append.
    pub(crate) fn is_streaming(&self) -> bool {
        matches!(self.mode, Mode::Streaming)
    }
}

/// The entry that was last sent alone in one pass over the followers, and which of the turn's sends it is: nothing in its frame is the
/// follower's own, so the next follower gets the same. No longer than the pass: neither term nor commit end change in it, and nothing
/// is taken out of the sends.
#[derive(Debug, Default)]
pub(crate) struct SharedFrame(Option<(Slot, usize)>);

impl Mode {
    /// Whether a snapshot is on its way that holds what is in `next`. One that has arrived and is not there was lost again.
    fn brings(&self, next: Slot) -> bool {
        matches!(self, Mode::Transferring(outgoing) if outgoing.end() > next && !outgoing.has_arrived())
    }
}

/// How much of a gap is mended at once, in bytes: a follower that lacks more says so again when it has this.
const REPAIR_BYTES_MAX: usize = 64 << 10;

impl<S: StateMachine> Replica<S> {
    pub(crate) fn send_heartbeat(&mut self, index: usize, out: &mut Effects) {
        let Role::Leader(leader) = &self.role else { return };
        let progress = &leader.followers[index];
        let slot = progress.sent_end.clamp(self.window.begin(), self.window.end());
        let (peer, round) = (progress.peer, leader.rounds.current());
        self.send_entries(peer, slot, List::default(), round, slot, out);
    }

    fn send_entries(
        &self,
        to: Peer,
        slot: Slot,
        list: List<'_>,
        round: u64,
        leader_end: Slot,
        out: &mut Effects,
    ) -> bool {
        let prev_term = self
            .window
            .term_before(slot)
            .expect("nobody sends from before the window");
        let entries = Entries {
            term: self.state.term.0,
            slot: slot.0,
            commit_end: self.commit_end.0,
            sender: self.sender(),
            prev_term: prev_term.0,
            leader_end: leader_end.0,
            round,
            list,
        };
        let len_bytes = frame::HEADER_BYTES + entries.payload_bytes();
        out.send(to, len_bytes, |bytes| entries.emit(bytes)).is_ok()
    }

    /// Sends a follower what it was not sent yet, as far as the pipeline's bound allows: one entry by the fast path,
    /// several in batches.
    pub(crate) fn pump(&mut self, now: Instant, index: usize, shared: &mut SharedFrame, out: &mut Effects) {
        loop {
            let Role::Leader(leader) = &mut self.role else { return };
            let progress = &leader.followers[index];
            if !matches!(progress.mode, Mode::Streaming) {
                return;
            }
            let slot = progress.sent_end;
            if slot < self.window.begin() {
                return self.transfer(index, out);
            }
            let acked_end = leader.fast.acked_end[progress.node as usize];
            let bound = Slot(acked_end.0.max(self.window.begin().0) + self.config.limits.pipeline_slots);
            let end = self.window.end().min(bound);
            if slot >= end {
                return;
            }
            let peer = progress.peer;
            // Behind what it shares with us, a follower may have entries of older leaders, and then the fast path is closed
            // to it. Once it has acknowledged an entry of our term, it has none: whatever is behind that is ours.
            let has_only_ours = acked_end > leader.fast.term_begin;
            let is_single = self.sends_singly || end.0 - slot.0 == 1;
            let sent_end = match is_single && has_only_ours {
                true => self.send_one(peer, slot, shared, out),
                false => self.send_batch(peer, slot, end, end, out),
            };
            let Role::Leader(leader) = &mut self.role else { return };
            let progress = &mut leader.followers[index];
            if sent_end == slot {
                // The turn's list is full: the next turn goes on.
                self.is_urgent = true;
                return;
            }
            progress.sent_end = sent_end;
            if acked_end >= slot {
                // It owed us nothing before: its time to answer begins now, not when it last did.
                progress.moved_at = now;
            }
        }
    }

    /// Sends one entry; says up to where was sent.
    fn send_one(&mut self, to: Peer, slot: Slot, shared: &mut SharedFrame, out: &mut Effects) -> Slot {
        let view = self.window.get(slot).expect("inside the window");
        if view.term != self.state.term {
            return self.send_batch(to, slot, Slot(slot.0 + 1), Slot(slot.0 + 1), out);
        }
        let sent = match shared.0 {
            Some((sent, index)) if sent == slot => out.send_again(to, index),
            _ => {
                let append = Append {
                    term: self.state.term.0,
                    slot: slot.0,
                    commit_end: self.commit_end.0,
                    entry: view.bytes,
                    entry_crc: view.crc,
                };
                let len_bytes = frame::HEADER_BYTES + append.payload_bytes();
                let index = out.sends_count();
                let sent = out.send(to, len_bytes, |bytes| append.emit(bytes));
                shared.0 = sent.is_ok().then_some((slot, index));
                sent
            }
        };
        match sent {
            Ok(()) => Slot(slot.0 + 1),
            Err(_) => slot,
        }
    }

    /// Sends as many entries of `slot..end` as one frame takes; says up to where.
    fn send_batch(&mut self, to: Peer, slot: Slot, end: Slot, leader_end: Slot, out: &mut Effects) -> Slot {
        let mut scratch = std::mem::take(&mut self.scratch);
        let room_bytes = scratch.len() - frame::HEADER_BYTES - entries::HEADER_BYTES;
        let mut writer = EntriesWriter::new(&mut scratch[..room_bytes]);
        let mut at = slot;
        while at < end {
            let view = self.window.get(at).expect("inside the window");
            if writer.push(view.term.0, view.bytes).is_err() {
                break;
            }
            at.0 += 1;
        }
        let sent = self.send_entries(to, slot, writer.finish(), 0, leader_end.max(at), out);
        self.scratch = scratch;
        if sent { at } else { slot }
    }

    /// Asks a follower that does not get on why: it answers with what it has.
    pub(crate) fn nudge(&mut self, now: Instant, index: usize, out: &mut Effects) {
        let heartbeat = self.config.timing.heartbeat;
        let Role::Leader(leader) = &mut self.role else { return };
        let progress = &mut leader.followers[index];
        let is_transferring = matches!(progress.mode, Mode::Transferring(_));
        let acked_end = leader.fast.acked_end[progress.node as usize];
        if (acked_end >= progress.sent_end && !is_transferring) || now < progress.moved_at + progress.patience {
            return;
        }
        progress.moved_at = now;
        progress.patience = (progress.patience * 2).min(heartbeat);
        match is_transferring {
            true => self.resend_chunks(index, out),
            false => self.send_heartbeat(index, out),
        }
    }

    pub(crate) fn on_report(&mut self, now: Instant, node: u32, report: &Report, out: &mut Effects) {
        if !self.admit(node, report.sender) {
            return;
        }
        let term = Term(report.term);
        if term > self.state.term {
            return self.become_follower(now, term, None, out);
        }
        let window_end = self.window.end();
        let Role::Leader(leader) = &mut self.role else { return };
        if term < self.state.term {
            return;
        }
        if Slot(report.durable_end) > window_end {
            self.counters.impossible_count += 1;
            return;
        }
        let Some(progress) = leader.follower(node) else { return };
        progress.heard_at = Some(now);
        leader.rounds.heard(node, report.round);
        match report.status {
            Status::Matches => self.on_match(now, node, report, out),
            Status::Mismatch | Status::NeedsSnapshot => self.on_mismatch(now, node, report, out),
        }
        self.count_round(now, out);
    }

    /// The follower's log equals ours up to `next_slot`; it may lack something behind.
    fn on_match(&mut self, now: Instant, node: u32, report: &Report, out: &mut Effects) {
        let next = Slot(report.next_slot);
        let (window_begin, window_end) = (self.window.begin(), self.window.end());
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(index) = leader.index_of(node) else { return };
        let progress = &mut leader.followers[index];
        if !matches!(progress.mode, Mode::Streaming) {
            if next < window_begin {
                // A snapshot that is on its way is not begun again, or a long one would never arrive.
                if !progress.mode.brings(next) {
                    self.transfer(index, out);
                }
                return;
            }
            progress.mode = Mode::Streaming;
            progress.sent_end = next.min(window_end);
            progress.moved_at = now;
        }
        self.acked(now, node, Slot(report.durable_end), out);
        self.repair(now, index, next, Slot(report.missing_end), out);
        self.is_urgent = true;
    }

    /// Sends the entry again that a follower's program lacks, by itself: a program takes no batch.
    pub(crate) fn send_asked(&mut self, now: Instant, node: u32, slot: Slot, out: &mut Effects) {
        let retransmit = self.config.timing.retransmit;
        let window_begin = self.window.begin();
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.follower(node) else { return };
        let was_sent = progress.is_streaming() && (window_begin..progress.sent_end).contains(&slot);
        let was_asked = |(mended, at): (Slot, Instant)| mended == slot && now < at + retransmit / 2;
        if !was_sent || progress.repaired.is_some_and(was_asked) {
            return;
        }
        progress.repaired = Some((slot, now));
        let peer = progress.peer;
        let resent_end = self.send_one(peer, slot, &mut SharedFrame::default(), out);
        self.counters.resent_count += resent_end.0 - slot.0;
    }

    /// Sends again what a follower lacks, and only that.
    fn repair(&mut self, now: Instant, index: usize, from: Slot, to: Slot, out: &mut Effects) {
        let retransmit = self.config.timing.retransmit;
        let Role::Leader(leader) = &mut self.role else { return };
        let progress = &mut leader.followers[index];
        let to = to.min(progress.sent_end);
        if from >= to {
            return;
        }
        if from < self.window.begin() {
            return self.transfer(index, out);
        }
        if progress
            .repaired
            .is_some_and(|(slot, at)| slot == from && now < at + retransmit / 2)
        {
            return;
        }
        progress.repaired = Some((from, now));
        let (peer, sent_end) = (progress.peer, progress.sent_end);
        let frames_max = REPAIR_BYTES_MAX / self.scratch.len() + 1;
        let mut at = from;
        for _ in 0..frames_max {
            let resent_end = self.send_batch(peer, at, to, sent_end, out);
            if resent_end == at {
                break;
            }
            self.counters.resent_count += resent_end.0 - at.0;
            at = resent_end;
            if at >= to {
                break;
            }
        }
    }

    /// The follower does not have the entry before the one it was asked about, or has another one there.
    fn on_mismatch(&mut self, now: Instant, node: u32, report: &Report, out: &mut Effects) {
        let next = Slot(report.next_slot);
        let window_begin = self.window.begin();
        let Role::Leader(leader) = &mut self.role else { return };
        let acked_end = leader.fast.acked_end[node as usize];
        let Some(index) = leader.index_of(node) else { return };
        let progress = &mut leader.followers[index];
        // What is acknowledged is shared, so this is an old answer that newer ones have overtaken; or it answers what was
        // asked after the acknowledgement had come, and the follower cannot read any more what it once acknowledged. Other
        // rounds may have begun since: an answer can take longer than a heartbeat.
        if next < acked_end && report.round <= progress.acked_in_round {
            return;
        }
        // It waits for the snapshot. One that has it, and has begun again since, says so by its log's end.
        if progress.mode.brings(next) && next < window_begin {
            return;
        }
        // It was asked about a slot in our window, wherever its own log ends.
        if matches!(progress.mode, Mode::Probing) && next >= progress.sent_end.max(window_begin) {
            return;
        }
        progress.mode = Mode::Probing;
        progress.sent_end = next;
        progress.moved_at = now;
        match next < window_begin {
            true => self.transfer(index, out),
            false => self.send_heartbeat(index, out),
        }
    }
}
