//! What a program has done, taken into the replica.

use dataplane_waist::{Effects, Instant, Slot, StateMachine, SurePuts};
use dataplane_wire::quorum::{entry, request};

use super::contract::{Seen, Taken};
use crate::{
    config::NODES_MAX,
    leader::Waiting,
    replica::{Replica, Role},
};

impl<S: StateMachine> Replica<S> {
    /// Takes an entry of the program's into the log; says whether there was room.
    pub(super) fn take_over(&mut self, slot: Slot, taken: &Taken<'_>, out: &mut Effects) -> bool {
        if !matches!(self.role, Role::Leader(_)) {
            let took = self.take(self.state.term, taken.bytes, taken.crc, out);
            self.counters.fast_entries_count += u64::from(took);
            return took;
        }
        if !self.append_with_crc(taken.bytes, taken.crc, out) {
            return false;
        }
        self.counters.appended_count += 1;
        let end = self.window.end();
        let Role::Leader(leader) = &mut self.role else {
            return true;
        };
        if !taken.answered
            && let Ok(entry::Entry::Request(request)) = entry::parse(taken.bytes)
            && let Some(peer) = self.askers.find(self.sessions.place_of(request.client), request.client)
        {
            let sent_ns = taken.sent_ns;
            leader.wait_for(Waiting { slot, peer, sent_ns });
        }
        // The program has sent it to everybody; who did not get it says so, or is asked.
        for progress in &mut leader.followers {
            if progress.is_streaming() && progress.sent_end == slot {
                progress.sent_end = end;
            }
        }
        true
    }

    /// Behind as many entries of any length as the log has room for.
    pub(super) fn append_end(&self) -> Slot {
        Slot(self.window.end().0 + self.window.room_slots(self.entry_bytes_max()))
    }

    /// Everything before this slot, if it is a put, is answered as done once it is applied.
    pub(super) fn sure_end(&self) -> Slot {
        Slot(self.applied_end.0.saturating_add(self.sure_puts().count))
    }

    /// Of an entry of this length, even the shortest key leaves the state machine no value that is too long.
    pub(super) fn sure_entry_bytes_max(&self) -> usize {
        request::HEADER_BYTES + 1 + self.sure_puts().value_bytes_max
    }

    /// Of the longest that the log takes.
    fn sure_puts(&self) -> SurePuts {
        self.machine.sure_puts(self.entry_bytes_max() - request::HEADER_BYTES)
    }

    /// A program has heard from `node` since it was last asked.
    pub(super) fn heard_from(&mut self, node: u32, now: Instant) {
        match &mut self.role {
            Role::Leader(leader) => {
                if let Some(progress) = leader.follower(node) {
                    progress.heard_at = Some(now);
                }
            }
            Role::Follower(follower) if follower.leader == Some(node) => self.heard = Some(now),
            _ => {}
        }
    }

    /// Takes over what a program has counted, as far as this log goes.
    pub(super) fn hear_of(&mut self, now: Instant, seen: &Seen, committed: Slot, out: &mut Effects) {
        let end = self.window.end();
        match &mut self.role {
            Role::Follower(_) => self.learn_commit(committed, out),
            Role::Candidate(_) => {}
            Role::Leader(leader) => {
                leader.fast.commit_end = leader.fast.commit_end.max(committed);
                if committed > self.commit_end {
                    self.commit(now, committed, out);
                }
                for node in 0..NODES_MAX as u32 {
                    if node != self.config.node {
                        self.acked(now, node, seen.acked_end[node as usize].min(end), out);
                    }
                }
            }
        }
    }

    /// Whether a tick at `now` could make this replica something else than it is.
    pub(super) fn may_change_role(&self, now: Instant) -> bool {
        match &self.role {
            Role::Follower(follower) => {
                let is_late = |deadline| now >= deadline;
                follower.deadline.is_none_or(is_late)
                    && self
                        .heard
                        .is_none_or(|heard| now >= heard + self.config.timing.election_min)
            }
            Role::Candidate(_) => true,
            Role::Leader(_) => !self.is_heard(now),
        }
    }
}
