//! A leader assigns slots, counts acknowledgements, and answers clients once a quorum has their request. What it sends to
//! whom stands in `replicate`.

use dataplane_waist::{Effects, Instant, Peer, Slot, StateMachine, Term};
use dataplane_wire::quorum::{ack::Ack, entry};

use crate::{
    config::{Mutation, NODES_MAX, ReadMode},
    fast::FastLeader,
    reads::Reads,
    remainder::remainder,
    replica::{Replica, Role},
    replicate::{Mode, Progress, SharedFrame},
    rounds::Rounds,
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

impl Leader {
    /// Who waits for `slot`; nobody does afterwards.
    pub(crate) fn take_waiting(&mut self, slot: Slot) -> Option<Waiting> {
        let index = remainder(slot.0, self.waiting.len() as u64) as usize;
        self.waiting[index].take_if(|waiting| waiting.slot == slot)
    }

    /// Whether somebody waits for `slot`.
    pub(crate) fn is_waited_for(&self, slot: Slot) -> bool {
        let index = remainder(slot.0, self.waiting.len() as u64) as usize;
        self.waiting[index].is_some_and(|waiting| waiting.slot == slot)
    }

    pub(crate) fn wait_for(&mut self, waiting: Waiting) {
        let index = remainder(waiting.slot.0, self.waiting.len() as u64) as usize;
        self.waiting[index] = Some(waiting);
    }

    pub(crate) fn follower(&mut self, node: u32) -> Option<&mut Progress> {
        self.followers.iter_mut().find(|progress| progress.node == node)
    }

    /// Where `node` stands among the followers.
    pub(crate) fn index_of(&self, node: u32) -> Option<usize> {
        self.followers.iter().position(|progress| progress.node == node)
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
            acked_in_round: 0,
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
        let mut shared = SharedFrame::default();
        self.for_each_follower(|replica, index| {
            replica.pump(now, index, &mut shared, out);
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
    pub(crate) fn is_heard(&self, now: Instant) -> bool {
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
        if ack.asks() {
            self.send_asked(now, node, Slot(ack.end), out);
        }
    }

    /// A follower has everything before `end`.
    pub(crate) fn acked(&mut self, now: Instant, node: u32, end: Slot, out: &mut Effects) {
        let retransmit = self.config.timing.retransmit;
        let window_end = self.window.end();
        let Role::Leader(leader) = &mut self.role else { return };
        let round = leader.rounds.current();
        if end > leader.fast.acked_end[node as usize]
            && let Some(progress) = leader.follower(node)
        {
            progress.acked_in_round = round;
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
        self.machine.note_committed(end);
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
