//! Losses found by time: RACK, RFC 8985 §6.

use super::{NEVER, Sender};
use crate::{
    Controller, Phase,
    tcp::{
        scoreboard::{EVER_RESENT, LOST, RESENT, Record, SACKED},
        segment::Segment,
    },
};

/// RFC 8985 §6.2 step 4 and RFC 5681 §3.2: segments that arrived above, before a hole is called a loss.
pub const DUP_THRESHOLD: u32 = 3;
/// RFC 8985 §6.2 step 4: recoveries until a widened window narrows again.
const REO_WINDOW_PERSIST: u8 = 16;

#[derive(Clone, Copy, Debug, Default)]
pub struct Rack {
    /// The segment that was sent last among those delivered: when, and its end.
    sent_ns: u64,
    end: u64,
    /// Its round trip.
    rtt_ns: u64,
    /// The highest end delivered: what arrives below it for the first time was reordered.
    highest_end: u64,
    /// The end of the round in which a duplicate was reported; 0: none.
    dsack_round_end: u64,
    reo_window_multiplier: u8,
    reo_window_persist: u8,
    pub reordering_seen: bool,
}

impl Rack {
    /// Steps 1 to 3: a segment was delivered.
    #[inline]
    pub fn on_delivered(&mut self, record: &Record, now_ns: u64, min_rtt_ns: u64) {
        let (is_resent, end) = (record.is(EVER_RESENT), record.end());
        if end > self.highest_end {
            self.highest_end = end;
        } else if !is_resent {
            self.reordering_seen = true;
        }
        let rtt_ns = now_ns.saturating_sub(record.sent_ns);
        if is_resent && rtt_ns < min_rtt_ns {
            // The ack is of the first copy.
            return;
        }
        if sent_after(record.sent_ns, end, self.sent_ns, self.end) {
            (self.sent_ns, self.end, self.rtt_ns) = (record.sent_ns, end, rtt_ns);
        }
    }

    /// A duplicate was reported: the window was too narrow. Once a round trip.
    pub fn on_dsack(&mut self, una: u64, nxt: u64) {
        if self.dsack_round_end == 0 || una >= self.dsack_round_end {
            self.dsack_round_end = nxt;
            self.reo_window_multiplier = self.reo_window_multiplier.saturating_add(1);
            self.reo_window_persist = REO_WINDOW_PERSIST;
        }
    }

    pub fn on_recovered(&mut self) {
        self.reo_window_persist = self.reo_window_persist.saturating_sub(1);
        if self.reo_window_persist == 0 {
            self.reo_window_multiplier = 0;
        }
    }
}

/// RFC 8985 §6.2: of two segments sent at once, the one behind was sent later.
fn sent_after(a_ns: u64, a_end: u64, b_ns: u64, b_end: u64) -> bool {
    (a_ns, a_end) > (b_ns, b_end)
}

impl<C: Controller> Sender<C> {
    /// Step 4: how much later than the newest an older segment may arrive.
    fn reo_window_ns(&self) -> u64 {
        let is_recovering = matches!(self.phase, Phase::Recovery | Phase::Loss);
        if !self.rack.reordering_seen && (is_recovering || self.board.sacked_count() >= DUP_THRESHOLD) {
            return 0;
        }
        let multiplier = u64::from(self.rack.reo_window_multiplier) + 1;
        (self.rtt.min_ns() / 4)
            .saturating_mul(multiplier)
            .min(self.rtt.srtt_ns())
    }

    /// Step 5: marks what is lost; answers when the next could be, `NEVER` if nothing waits for that.
    pub(super) fn mark_lost_by_time(&mut self, now_ns: u64) -> u64 {
        let is_quiet = self.board.sacked_bytes() == 0 && self.board.resent_bytes() == 0 && self.phase == Phase::Open;
        if is_quiet || self.rack.sent_ns == 0 && self.rack.end == 0 {
            return NEVER;
        }
        let Rack {
            sent_ns, end, rtt_ns, ..
        } = self.rack;
        let wait_ns = rtt_ns.saturating_add(self.reo_window_ns());
        let mut next_ns = NEVER;
        for index in 0..self.board.len() {
            let record = self.board.get(index);
            if !sent_after(sent_ns, end, record.sent_ns, record.end()) {
                if record.start >= self.board.sacked_end() && !record.is(RESENT) {
                    break;
                }
                continue;
            }
            if record.is(SACKED) || record.flags & (LOST | RESENT) == LOST {
                continue;
            }
            let lost_at_ns = record.sent_ns.saturating_add(wait_ns);
            if lost_at_ns <= now_ns {
                self.mark_lost(now_ns, index);
            } else if next_ns == NEVER || lost_at_ns > next_ns {
                // The last of them: one wake for all, as in Linux (`tcp_rack_detect_loss`).
                next_ns = lost_at_ns;
            }
        }
        next_ns
    }

    /// RFC 6675's IsLost: three segments above it have arrived. For flows without RACK.
    pub(super) fn mark_lost_by_count(&mut self, now_ns: u64) {
        if self.board.sacked_count() < DUP_THRESHOLD {
            return;
        }
        let mut index = self.board.index_of(self.board.sacked_end() - 1);
        let mut above_count = 0;
        loop {
            above_count += u32::from(self.board.get(index).is(SACKED));
            if above_count == DUP_THRESHOLD {
                break;
            }
            // There are at least three, so it ends before the front.
            index -= 1;
        }
        let lost_end = self.board.get(index).start;
        let from = self.board.index_of(self.marked_end);
        for lost in from..index {
            let flags = self.board.get(lost).flags;
            if flags & (SACKED | LOST) == 0 {
                self.mark_lost(now_ns, lost);
                // What was sent again before it was known to be lost is not sent a third time (RFC 6675 §4, rule 1.a).
                self.board.set_flags(lost, flags | LOST);
            }
        }
        self.marked_end = self.marked_end.max(lost_end);
    }

    /// The wake for what RACK cannot call lost yet.
    pub(super) fn note_duplicate(&mut self, segment: &Segment) {
        self.rack.on_dsack(segment.ack.max(self.una), self.nxt);
    }
}
