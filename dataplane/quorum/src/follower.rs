//! A follower takes what its leader sends: by the fast path where the next entry of the same term comes, by the general
//! path for everything else. What it answers is in [`says`].

mod says;

use dataplane_waist::{Effects, Instant, Slot, StateMachine, Term};
use dataplane_wire::quorum::{append::Append, entries::Entries, report::Status};

use self::says::ReportDue;
use crate::{
    config::Mutation,
    fast::FastFollower,
    replica::{Replica, Role},
    transfer::Incoming,
};

/// What a follower knows besides what every replica knows.
#[derive(Debug)]
pub(crate) struct Follower {
    /// Whom it follows.
    pub(crate) leader: Option<u32>,
    pub(crate) fast: FastFollower,
    /// Our log is known to equal that leader's up to here; behind it may stand an older leader's entries.
    pub(crate) matched_end: Slot,
    /// When to stand for election. Set at the first input.
    pub(crate) deadline: Option<Instant>,
    /// What the leader was told is safe.
    acked_end: Slot,
    /// An answer to the general path that waits for the end of the burst, and for the state to be durable.
    report_due: Option<ReportDue>,
    /// The gap that was reported last, and when.
    gap_reported: Option<(Slot, Instant)>,
    /// A snapshot on its way.
    pub(crate) incoming: Option<Incoming>,
}

impl Follower {
    /// Of nobody, in `term`. What is committed is the same everywhere.
    pub(crate) fn new(term: Term, commit_end: Slot) -> Follower {
        Follower {
            leader: None,
            fast: FastFollower {
                term,
                next: Slot(0),
                synced: false,
            },
            matched_end: commit_end,
            deadline: None,
            acked_end: Slot(0),
            report_due: None,
            gap_reported: None,
            incoming: None,
        }
    }
}

impl<S: StateMachine> Replica<S> {
    /// The fast path.
    pub(crate) fn on_append(&mut self, now: Instant, node: u32, append: &Append<'_>, out: &mut Effects) {
        let (term, slot) = (Term(append.term), Slot(append.slot));
        let Role::Follower(follower) = &self.role else {
            self.counters.impossible_count +=
                u64::from(term == self.state.term && matches!(self.role, Role::Leader(_)));
            return;
        };
        // An entry of a leader whose log was not compared with ours says nothing about what stands before it: the
        // heartbeat that comes soon does.
        if follower.leader != Some(node) || term != self.state.term || !follower.fast.synced {
            return;
        }
        self.heard = Some(now);
        if follower.fast.takes(term, slot) {
            if self.take(term, append.entry, append.entry_crc, out) {
                self.counters.fast_entries_count += 1;
                self.take_held(out);
                self.learn_commit(Slot(append.commit_end), out);
            }
            return;
        }
        let next = follower.fast.next;
        if slot < next {
            // It came twice, or our acknowledgement was lost.
            return self.acknowledge(true, out);
        }
        self.held.put(next, slot, term, append.entry, append.entry_crc);
        self.counters.held_count += 1;
        self.learn_commit(Slot(append.commit_end), out);
        self.report_gap(now, Slot(slot.0 + 1), out);
    }

    /// The general path: heartbeats, repairs, batches.
    pub(crate) fn on_entries(&mut self, now: Instant, node: u32, entries: &Entries<'_>, out: &mut Effects) {
        if !self.admit(node, entries.sender) {
            return;
        }
        let term = Term(entries.term);
        if term < self.state.term {
            // A leader of the past learns from our term that it is one.
            return self.send_report(
                node,
                ReportDue {
                    status: Status::Mismatch,
                    round: 0,
                    next: self.window.end(),
                    leader_end: Slot(0),
                    took: false,
                },
                out,
            );
        }
        let follows = matches!(&self.role, Role::Follower(follower) if follower.leader == Some(node));
        if term > self.state.term || !follows {
            if term == self.state.term && self.leader().is_some_and(|leader| leader != node) {
                self.counters.impossible_count += 1;
                return;
            }
            self.become_follower(now, term, Some(node), out);
        }
        self.heard = Some(now);
        let deadline = self.draw_deadline(now);
        let matches = self.compare(entries, out);
        let Role::Follower(follower) = &mut self.role else {
            unreachable!("it has just become one");
        };
        follower.deadline = Some(deadline);
        let (status, next, took) = match matches {
            Ok(took) => (Status::Matches, Slot(0), took),
            Err(next) => (Status::Mismatch, next, false),
        };
        let due = ReportDue {
            status,
            round: entries.round,
            next,
            leader_end: Slot(entries.leader_end),
            took,
        };
        follower.report_due = Some(follower.report_due.map_or(due, |earlier| due.after(earlier)));
        follower.gap_reported = None;
        // What seems to be missing may be in the next frame of this burst: the tick at its end answers.
        self.is_urgent = true;
        if matches.is_ok() {
            self.learn_commit(Slot(entries.commit_end), out);
        }
    }

    /// Makes our log equal to the leader's as far as `entries` say, and says whether it took any of them; or says where the
    /// leader may try next.
    fn compare(&mut self, entries: &Entries<'_>, out: &mut Effects) -> Result<bool, Slot> {
        let slot = Slot(entries.slot);
        let (begin, end) = (self.window.begin(), self.window.end());
        if slot > end {
            let Role::Follower(follower) = &self.role else {
                return Err(end);
            };
            if !follower.fast.synced {
                return Err(end);
            }
            // The log was compared; what is between is missing, and what is here can wait for it.
            for (slot, term, bytes) in entries.iter() {
                let crc = dataplane_wire::checksum::crc32c(bytes);
                self.held.put(end, Slot(slot), Term(term), bytes, crc);
                self.counters.held_count += 1;
            }
            return Ok(false);
        }
        // What a snapshot stands for was committed, so it is the same everywhere.
        if slot >= begin
            && self.window.term_before(slot) != Some(Term(entries.prev_term))
            && !self.makes(Mutation::NoMatching)
        {
            return Err(self.conflict_begin(slot));
        }
        let mut matched_end = slot.max(begin);
        let mut took = false;
        for (slot, term, bytes) in entries.iter() {
            let (slot, term) = (Slot(slot), Term(term));
            if slot < begin {
                continue;
            }
            if self.window.term_at(slot) != Some(term) {
                if slot < self.window.end() && !self.cut(slot) {
                    return Err(self.window.end());
                }
                if !self.take(term, bytes, dataplane_wire::checksum::crc32c(bytes), out) {
                    break;
                }
                took = true;
                self.counters.general_entries_count += 1;
            }
            matched_end = Slot(slot.0 + 1);
        }
        let window_end = self.window.end();
        let Role::Follower(follower) = &mut self.role else {
            return Ok(took);
        };
        follower.matched_end = follower.matched_end.max(matched_end);
        follower.fast.next = window_end;
        follower.fast.synced = follower.matched_end == window_end;
        if follower.fast.synced {
            self.take_held(out);
        }
        Ok(took)
    }

    /// The first slot of the term that stands, wrongly, before `slot`: one question per term instead of one per entry
    /// (Raft §5.3). Nothing committed is in question.
    fn conflict_begin(&self, slot: Slot) -> Slot {
        let mut at = Slot(slot.0.saturating_sub(1));
        let wrong = self.window.term_at(at);
        while at > self.commit_end.max(self.window.begin()) && self.window.term_before(at) == wrong {
            at.0 -= 1;
        }
        at.max(self.commit_end)
    }

    /// Forgets an older leader's entries from `slot` on; says no if they were committed, which cannot be.
    fn cut(&mut self, slot: Slot) -> bool {
        if slot < self.commit_end {
            self.counters.impossible_count += 1;
            return false;
        }
        self.counters.truncated_count += self.window.end().0 - slot.0;
        self.window.truncate(slot);
        self.durable_end = self.durable_end.min(slot);
        self.memberships.retain(|&(from, _)| from <= slot);
        true
    }

    /// Adds an entry to the log; says whether there was room.
    pub(crate) fn take(&mut self, term: Term, bytes: &[u8], crc: u32, out: &mut Effects) -> bool {
        let slot = self.window.end();
        if self.window.push_with_crc(term, bytes, crc).is_err() {
            return false;
        }
        if out.append(slot, term, bytes).is_err() {
            self.window.truncate(slot);
            return false;
        }
        self.learn_membership(slot, bytes);
        let end = self.window.end();
        if let Role::Follower(follower) = &mut self.role {
            follower.fast.next = end;
            if follower.fast.synced {
                follower.matched_end = end;
            }
        }
        if self.makes(Mutation::AckBeforeDurable) {
            self.durable_end = end;
            self.acknowledge(false, out);
        }
        true
    }

    /// Takes what was held for the slots that have become the next ones.
    pub(crate) fn take_held(&mut self, out: &mut Effects) {
        loop {
            let slot = self.window.end();
            let Some(entry) = self.held.take(slot) else { return };
            let took = self.take(entry.term, &entry.bytes, entry.crc, out);
            self.held.give_back(slot, entry);
            if !took {
                return;
            }
            self.counters.general_entries_count += 1;
        }
    }

    /// Commits what the leader says is committed and we are known to share.
    pub(crate) fn learn_commit(&mut self, end: Slot, out: &mut Effects) {
        let Role::Follower(follower) = &self.role else { return };
        let end = end.min(follower.matched_end);
        if end > self.commit_end {
            self.commit_end = end;
            self.apply(out);
        }
    }

    pub(crate) fn follower_durable(&mut self, out: &mut Effects) {
        self.flush_report(out);
        self.acknowledge(false, out);
        self.redeem_promise(out);
    }

    /// Our log is as good again as the one that was damaged: nothing is owed any more.
    fn redeem_promise(&mut self, out: &mut Effects) {
        if self.state.promise != Default::default() && !self.is_damaged() && self.durable_end == self.window.end() {
            self.state.promise = Default::default();
            self.persist_state(out);
        }
    }

    pub(crate) fn follower_tick(&mut self, now: Instant, out: &mut Effects) {
        self.flush_report(out);
        let Role::Follower(follower) = &mut self.role else {
            return;
        };
        if follower.deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        // The deadline moves with every heartbeat, but not with every entry, which would cost a random number each.
        if let Some(heard) = self.heard
            && now < heard + self.config.timing.election_min
        {
            follower.deadline = Some(heard + self.config.timing.election_min);
            return;
        }
        self.stand(now, out);
    }
}
