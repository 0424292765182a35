//! A leader assigns slots, sends entries, counts acknowledgements, and answers clients once a quorum has their request.

use std::time::Duration;

use dataplane_waist::{Effects, Instant, Peer, Slot, StateMachine, Term};
use dataplane_wire::{
    frame,
    quorum::{
        ack::Ack,
        append::Append,
        entries::{self, Entries, EntriesWriter, List},
        entry,
        report::{Report, Status},
    },
};

use crate::{
    config::{Mutation, NODES_MAX, ReadMode},
    fast::FastLeader,
    reads::Reads,
    replica::{Replica, Role},
    rounds::Rounds,
    transfer::Outgoing,
};

/// What a leader knows besides what every replica knows.
#[derive(Debug)]
pub(crate) struct Leader {
    pub(crate) fast: FastLeader,
    /// One for each other node, member or not; those that do not vote are not sent to.
    pub(crate) followers: Vec<Progress>,
    /// By slot modulo its length: who waits for the answer.
    waiting: Box<[Option<Waiting>]>,
    pub(crate) rounds: Rounds,
    pub(crate) reads: Reads,
    heartbeat_at: Instant,
    pub(crate) wake_at: Instant,
    /// Where a change of members was appended, until it is committed.
    pub(crate) change: Option<Slot>,
}

/// A client that waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    pub(crate) slot: Slot,
    pub(crate) peer: Peer,
    /// The request's own word, which the answer brings back.
    pub(crate) sent_ns: u64,
}

/// How far a follower is.
#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) node: u32,
    pub(crate) peer: Peer,
    pub(crate) mode: Mode,
    /// Sent up to here; while it is probed, where it is asked about.
    pub(crate) sent_end: Slot,
    /// When it last said anything in this term.
    heard_at: Option<Instant>,
    /// When it last got on, or was asked why it does not.
    pub(crate) moved_at: Instant,
    /// How long to wait before asking again: doubles up to the heartbeat.
    pub(crate) patience: Duration,
    /// The beginning of the gap that was mended last, and when.
    repaired: Option<(Slot, Instant)>,
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

impl Mode {
    /// Whether a snapshot is on its way that holds what is in `next`. One that has arrived and is not there was lost again.
    fn brings(&self, next: Slot) -> bool {
        matches!(self, Mode::Transferring(outgoing) if outgoing.end() > next && !outgoing.has_arrived())
    }
}

/// How much of a gap is mended at once, in bytes: a follower that lacks more says so again when it has this.
const REPAIR_BYTES_MAX: usize = 64 << 10;

impl Leader {
    /// Who waits for `slot`; nobody does afterwards.
    pub(crate) fn take_waiting(&mut self, slot: Slot) -> Option<Waiting> {
        let index = (slot.0 % self.waiting.len() as u64) as usize;
        self.waiting[index].take_if(|waiting| waiting.slot == slot)
    }

    pub(crate) fn wait_for(&mut self, waiting: Waiting) {
        let index = (waiting.slot.0 % self.waiting.len() as u64) as usize;
        self.waiting[index] = Some(waiting);
    }

    pub(crate) fn follower(&mut self, node: u32) -> Option<&mut Progress> {
        self.followers.iter_mut().find(|progress| progress.node == node)
    }
}

impl<S: StateMachine> Replica<S> {
    /// Becomes the leader of the current term.
    pub(crate) fn lead(&mut self, now: Instant, out: &mut Effects) {
        self.counters.led_count += 1;
        let term_begin = self.window.end();
        let followers = self.nodes.iter().map(|(node, peer)| Progress {
            node,
            peer,
            mode: Mode::Probing,
            sent_end: term_begin,
            heard_at: None,
            moved_at: now,
            patience: self.config.timing.retransmit,
            repaired: None,
        });
        let waiting_count = self.config.limits.in_flight_slots as usize * 2;
        self.role = Role::Leader(Box::new(Leader {
            fast: FastLeader {
                voters: 0,
                commit_count: 0,
                acked_end: [Slot(0); NODES_MAX],
                term_begin,
                commit_end: self.commit_end,
            },
            followers: followers.collect(),
            waiting: vec![None; waiting_count].into_boxed_slice(),
            rounds: Rounds::new(now),
            reads: Reads::new(self.config.limits.reads_max),
            heartbeat_at: now,
            wake_at: now,
            change: self
                .memberships
                .last()
                .map(|&(from, _)| from)
                .filter(|&from| from > self.commit_end),
        }));
        self.count_by_members();
        // An entry of our own term, without which nothing older can be committed (Raft §5.4.2), nor anything read.
        if !self.append_own(&entry::NO_OP, out) {
            // No room: another one must lead until a snapshot has made some.
            return self.become_follower(now, self.state.term, None, out);
        }
        self.leader_tick(now, out);
    }

    /// Takes over who votes and how many it takes.
    pub(crate) fn count_by_members(&mut self) {
        let members = self.members();
        let fewer = u32::from(self.makes(Mutation::SmallCommitQuorum));
        let commits_old_terms = self.makes(Mutation::CommitsOldTerms);
        if let Role::Leader(leader) = &mut self.role {
            leader.fast.voters = members.voters;
            leader.fast.commit_count = u32::from(members.commit_count) - fewer;
            if commits_old_terms {
                leader.fast.term_begin = Slot(0);
            }
        }
    }

    /// Appends an entry at the next slot; says whether there was room.
    pub(crate) fn append_own(&mut self, bytes: &[u8], out: &mut Effects) -> bool {
        let crc = dataplane_wire::checksum::crc32c(bytes);
        self.append_with_crc(bytes, crc, out)
    }

    pub(crate) fn append_with_crc(&mut self, bytes: &[u8], crc: u32, out: &mut Effects) -> bool {
        let (slot, term) = (self.window.end(), self.state.term);
        if self.window.push_with_crc(term, bytes, crc).is_err() {
            return false;
        }
        if out.append(slot, term, bytes).is_err() {
            self.window.truncate(slot);
            return false;
        }
        self.learn_membership(slot, bytes);
        self.is_urgent = true;
        true
    }

    /// The end of a burst, or a timer.
    pub(crate) fn leader_tick(&mut self, now: Instant, out: &mut Effects) {
        let heartbeat = self.config.timing.heartbeat;
        self.serve_reads(now, out);
        let Role::Leader(leader) = &mut self.role else { return };
        let has_lease = self.config.reads == ReadMode::Lease && now < leader.rounds.lease_until();
        let wants_round = leader.reads.wants_round(&leader.rounds) && !has_lease;
        if now >= leader.heartbeat_at || wants_round {
            if !self.is_heard(now) {
                return self.become_follower(now, self.state.term, None, out);
            }
            let Role::Leader(leader) = &mut self.role else { return };
            leader.heartbeat_at = now + heartbeat;
            leader.rounds.begin(now);
            self.for_each_follower(|replica, index| replica.send_heartbeat(index, out));
            // Alone, a leader hears from everybody at once.
            self.count_round(now, out);
        }
        self.for_each_follower(|replica, index| {
            replica.pump(index, out);
            replica.nudge(now, index, out);
        });
        self.serve_reads(now, out);
        self.set_alarm();
    }

    /// Calls `act` with the index of every follower that votes.
    fn for_each_follower(&mut self, mut act: impl FnMut(&mut Replica<S>, usize)) {
        let members = self.members();
        let Role::Leader(leader) = &self.role else { return };
        for index in 0..leader.followers.len() {
            let Role::Leader(leader) = &self.role else { return };
            if members.contains(leader.followers[index].node) {
                act(self, index);
            }
        }
    }

    fn set_alarm(&mut self) {
        let members = self.members();
        let Role::Leader(leader) = &mut self.role else { return };
        leader.wake_at = leader.heartbeat_at;
        for progress in &leader.followers {
            let acked_end = leader.fast.acked_end[progress.node as usize];
            let is_behind = acked_end < progress.sent_end || matches!(progress.mode, Mode::Transferring(_));
            if is_behind && members.contains(progress.node) {
                leader.wake_at = leader.wake_at.min(progress.moved_at + progress.patience);
            }
        }
    }

    /// Whether a quorum was heard from lately (check-quorum, thesis §6.2).
    fn is_heard(&self, now: Instant) -> bool {
        let members = self.members();
        let Role::Leader(leader) = &self.role else { return false };
        let mut heard_count = u32::from(members.contains(self.config.node));
        for progress in leader
            .followers
            .iter()
            .filter(|progress| members.contains(progress.node))
        {
            // Who has not spoken yet is given the time since we began.
            let heard_at = progress.heard_at.unwrap_or(leader.rounds.began_at());
            heard_count += u32::from(now < heard_at + self.config.timing.election_max);
        }
        heard_count >= u32::from(members.commit_count)
    }

    fn send_heartbeat(&mut self, index: usize, out: &mut Effects) {
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
    fn pump(&mut self, index: usize, out: &mut Effects) {
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
            let sent_end = match end.0 - slot.0 {
                1 if has_only_ours => self.send_one(peer, slot, out),
                _ => self.send_batch(peer, slot, end, end, out),
            };
            let Role::Leader(leader) = &mut self.role else { return };
            let progress = &mut leader.followers[index];
            if sent_end == slot {
                // The turn's list is full: the next turn goes on.
                self.is_urgent = true;
                return;
            }
            progress.sent_end = sent_end;
        }
    }

    /// Sends one entry; says up to where was sent.
    fn send_one(&mut self, to: Peer, slot: Slot, out: &mut Effects) -> Slot {
        let view = self.window.get(slot).expect("inside the window");
        if view.term != self.state.term {
            return self.send_batch(to, slot, Slot(slot.0 + 1), Slot(slot.0 + 1), out);
        }
        let append = Append {
            term: self.state.term.0,
            slot: slot.0,
            commit_end: self.commit_end.0,
            entry: view.bytes,
            entry_crc: view.crc,
        };
        let len_bytes = frame::HEADER_BYTES + append.payload_bytes();
        match out.send(to, len_bytes, |bytes| append.emit(bytes)) {
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
    fn nudge(&mut self, now: Instant, index: usize, out: &mut Effects) {
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

    pub(crate) fn on_ack(&mut self, now: Instant, node: u32, ack: &Ack, out: &mut Effects) {
        let (term, end) = (self.state.term, self.window.end());
        let Role::Leader(leader) = &mut self.role else { return };
        if Term(ack.term) != term {
            return;
        }
        if Slot(ack.end) > end {
            self.counters.impossible_count += 1;
            return;
        }
        let Some(progress) = leader.follower(node) else { return };
        progress.heard_at = Some(now);
        self.acked(now, node, Slot(ack.end), out);
    }

    /// A follower has everything before `end`.
    pub(crate) fn acked(&mut self, now: Instant, node: u32, end: Slot, out: &mut Effects) {
        let retransmit = self.config.timing.retransmit;
        let window_end = self.window.end();
        let Role::Leader(leader) = &mut self.role else { return };
        if end > leader.fast.acked_end[node as usize]
            && let Some(progress) = leader.follower(node)
        {
            progress.moved_at = now;
            progress.patience = retransmit;
            progress.sent_end = progress.sent_end.max(end);
            // There is room in its pipeline again.
            self.is_urgent |= progress.sent_end < window_end;
        }
        let Role::Leader(leader) = &mut self.role else { return };
        if let Some(commit_end) = leader.fast.acked(node, end) {
            self.commit(now, commit_end, out);
        }
    }

    pub(crate) fn leader_durable(&mut self, now: Instant, out: &mut Effects) {
        let (node, end) = (self.config.node, self.durable_end);
        self.acked(now, node, end, out);
        // Followers that have everything were sent it in this turn: from now on they are expected to answer.
        self.set_alarm();
    }

    pub(crate) fn commit(&mut self, now: Instant, end: Slot, out: &mut Effects) {
        self.commit_end = end;
        self.apply(out);
        let Role::Leader(leader) = &mut self.role else { return };
        if leader.change.is_some_and(|slot| slot <= end) {
            leader.change = None;
            if !self.members().contains(self.config.node) {
                // We led until our own removal was committed (thesis §4.2.2).
                self.become_follower(now, self.state.term, None, out);
            }
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
        let Some(index) = leader.followers.iter().position(|progress| progress.node == node) else {
            return;
        };
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
        let Some(index) = leader.followers.iter().position(|progress| progress.node == node) else {
            return;
        };
        let progress = &mut leader.followers[index];
        // It waits for the snapshot. One that has it, and has begun again since, says so by its log's end.
        if progress.mode.brings(next) && next < window_begin {
            return;
        }
        // What is acknowledged is shared, so this is an old answer that newer ones have overtaken; or the answer to what we
        // asked last, and the follower cannot read any more what it once acknowledged.
        if next < acked_end && report.round != leader.rounds.current() {
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

    /// A quorum may have answered a round: leases grow, reads are answered.
    pub(crate) fn count_round(&mut self, now: Instant, out: &mut Effects) {
        let members = self.members();
        let (node, timing) = (self.config.node, self.config.timing);
        let Role::Leader(leader) = &mut self.role else { return };
        let promise = timing.election_min.mul_f64(1.0 - timing.drift_ratio);
        leader.rounds.count(node, members, promise);
        self.serve_reads(now, out);
    }
}
