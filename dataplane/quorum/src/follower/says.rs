//! What a follower tells its leader: it acknowledges what is durable and reports what is missing.

use dataplane_waist::{Effects, Instant, Slot, StateMachine};
use dataplane_wire::{
    frame,
    quorum::{
        ack::Ack,
        report::{self, Report, Status},
    },
};

use crate::{
    config::Mutation,
    replica::{Replica, Role},
};

/// An answer to the general path that is yet to be given.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReportDue {
    pub(super) status: Status,
    pub(super) round: u64,
    /// For a mismatch: where the leader may try next.
    pub(super) next: Slot,
    pub(super) leader_end: Slot,
    /// Entries were taken, which are acknowledged once they are durable.
    pub(super) took: bool,
}

impl ReportDue {
    /// This answer, to a frame of the same leader that came later, in place of `earlier`.
    pub(super) fn after(self, earlier: ReportDue) -> ReportDue {
        ReportDue {
            round: self.round.max(earlier.round),
            leader_end: self.leader_end.max(earlier.leader_end),
            took: self.took || earlier.took,
            ..self
        }
    }
}

impl<S: StateMachine> Replica<S> {
    /// Tells the leader how far we are safe, if that is news (or if it seems not to know).
    pub(super) fn acknowledge(&mut self, again: bool, out: &mut Effects) {
        if !self.state_is_durable() && !self.makes(Mutation::AckBeforeDurable) {
            return;
        }
        let Role::Follower(follower) = &mut self.role else {
            return;
        };
        let end = self.durable_end.min(follower.matched_end);
        let Some(peer) = follower.leader.and_then(|leader| self.nodes.peer(leader)) else {
            return;
        };
        if end > follower.acked_end || again {
            let ack = Ack {
                term: self.state.term.0,
                end: end.0,
                echo: 0,
            };
            if out.send(peer, frame::HEADER_BYTES, |bytes| ack.emit(bytes)).is_ok() {
                follower.acked_end = end;
            }
        }
    }

    /// Asks for what is missing, once per gap and retransmission time.
    pub(super) fn report_gap(&mut self, now: Instant, leader_end: Slot, out: &mut Effects) {
        let next = self.window.end();
        let retransmit = self.config.timing.retransmit;
        let Role::Follower(follower) = &mut self.role else {
            return;
        };
        if let Some((slot, at)) = follower.gap_reported
            && slot == next
            && now < at + retransmit
        {
            return;
        }
        follower.gap_reported = Some((next, now));
        let Some(leader) = follower.leader else { return };
        let due = ReportDue {
            status: Status::Matches,
            round: 0,
            next,
            leader_end,
            took: false,
        };
        self.send_report(leader, due, out);
    }

    /// Answers what came by the general path. Entries that leave no gap need no answer of their own: the acknowledgement that comes
    /// once they are durable says as much.
    pub(super) fn flush_report(&mut self, out: &mut Effects) {
        if !self.state_is_durable() {
            return;
        }
        let Role::Follower(follower) = &mut self.role else {
            return;
        };
        let (Some(due), Some(leader)) = (follower.report_due.take(), follower.leader) else {
            return;
        };
        let is_whole = due.status == Status::Matches && follower.matched_end >= due.leader_end;
        if !(is_whole && due.took && due.round == 0) {
            self.send_report(leader, due, out);
        }
    }

    pub(super) fn send_report(&mut self, to: u32, due: ReportDue, out: &mut Effects) {
        let end = self.window.end();
        let (durable_end, next, missing_end) = match (&mut self.role, due.status) {
            (Role::Follower(follower), Status::Matches) => {
                let durable_end = self.durable_end.min(follower.matched_end);
                follower.acked_end = follower.acked_end.max(durable_end);
                let next = follower.matched_end;
                let missing_end = match self.held.first(end) {
                    Some(first) if next == end => first,
                    _ => due.leader_end,
                };
                (durable_end, next, missing_end.max(next))
            }
            _ => (Slot(0), due.next, due.next),
        };
        self.counters.gaps_count += u64::from(missing_end > next);
        let report = Report {
            term: self.state.term.0,
            durable_end: durable_end.0,
            sender: self.sender(),
            status: due.status,
            round: due.round,
            next_slot: next.0,
            missing_end: missing_end.0,
        };
        if let Some(peer) = self.nodes.peer(to) {
            let len_bytes = frame::HEADER_BYTES + report::PAYLOAD_BYTES;
            // Lost for want of room is lost: the leader asks again.
            let _ = out.send(peer, len_bytes, |bytes| report.emit(bytes));
        }
    }
}
