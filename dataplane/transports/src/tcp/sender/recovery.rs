//! What losses mean: fast recovery (RFC 6675, RFC 6582), its window (RFC 6937), time-outs that were spurious (RFC 5682, RFC 3522,
//! RFC 3708), and congestion marks.

use super::{NEVER, Sender, ack::Seen, rack::DUP_THRESHOLD};
use crate::{
    Controller, EcnMode, LossSample, Phase, Unproven,
    tcp::{
        scoreboard::{EVER_RESENT, LOST, RESENT, SACKED},
        segment::Segment,
    },
};

/// Proportional rate reduction, RFC 6937 §3.
#[derive(Clone, Copy, Debug, Default)]
pub struct Prr {
    /// Delivered and sent since the reduction began.
    pub delivered_bytes: u64,
    pub out_bytes: u64,
    /// RecoverFS.
    pub flight_bytes: u64,
    pub window_bytes: u64,
}

/// Where the detection of spurious time-outs stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frto {
    Off,
    /// A time-out was; acks are watched.
    Watching,
    /// The first ack after it advanced: for now only new data leaves (RFC 5682 §2.1 step 2b).
    NewDataOnly,
}

impl<C: Controller> Sender<C> {
    /// Moves between phases; answers what PRR may count as delivered.
    pub(super) fn turn_phase(&mut self, segment: &Segment, seen: &Seen, loss: &LossSample) -> u64 {
        let is_whole = self.board.to_resend_bytes() == 0 && self.kept_guesses_count().unwrap_or(0) == 0;
        if self.phase == Phase::Open && is_whole && !seen.is_dupack && !seen.is_dsack {
            // The straight line.
            self.dupacks_count = 0;
            return seen.delivered_bytes;
        }
        if self.frto == Frto::NewDataOnly {
            self.frto = Frto::Watching;
        }
        let credit_bytes = self.count_dupack(seen, loss);
        self.try_undo(segment, seen);
        if self.ways().recovers_on_dupacks {
            self.count_sacking_ack(seen);
        }
        match self.phase {
            Phase::Cwr if self.ways().marks_end_recovery => {}
            Phase::Open | Phase::Cwr => {
                if self.phase == Phase::Cwr && self.is_cwr_over() {
                    self.phase = Phase::Open;
                }
                let is_seen = match self.ways().recovers_on_dupacks {
                    true => self.is_loss_seen_by_dupack(seen, loss),
                    false => self.is_loss_seen(loss.now_ns),
                };
                if is_seen {
                    self.enter_recovery(loss);
                }
            }
            Phase::Recovery => self.go_on_recovering(seen, loss),
            Phase::Loss => self.go_on_after_timeout(seen, loss),
        }
        credit_bytes
    }

    /// Without SACK a duplicate ack stands for a segment that arrived, somewhere; an ack that advances eats them up again
    /// (Linux: `tcp_add_reno_sack`, `tcp_remove_reno_sacks`).
    fn count_dupack(&mut self, seen: &Seen, loss: &LossSample) -> u64 {
        if self.config.sack {
            return seen.delivered_bytes;
        }
        if self.ways().keeps_guesses {
            return self.count_guess(seen, loss);
        }
        let mss = u64::from(self.config.mss_bytes);
        if seen.is_dupack {
            let most = u32::try_from(self.board.len()).unwrap_or(u32::MAX).saturating_sub(1);
            self.dupacks_count = (self.dupacks_count + 1).min(most.max(DUP_THRESHOLD));
            return mss;
        }
        if seen.acked_count == 0 {
            return 0;
        }
        let credited = self.dupacks_count;
        self.dupacks_count = match self.phase {
            Phase::Recovery => self.dupacks_count.saturating_sub(seen.acked_count - 1),
            _ => 0,
        };
        mss * u64::from(seen.acked_count.saturating_sub(credited).max(1))
    }

    /// Something waits to be sent again, or three duplicate acks say that the first segment should.
    fn is_loss_seen(&mut self, now_ns: u64) -> bool {
        if self.board.to_resend_bytes() > 0 && !self.ways().keeps_guesses {
            return true;
        }
        let is_third = !self.config.sack && self.dupacks_count >= DUP_THRESHOLD;
        if !is_third || self.una < self.fast_retransmit_from {
            return false;
        }
        self.mark_front_lost(now_ns);
        true
    }

    pub(super) fn mark_front_lost(&mut self, now_ns: u64) {
        if self
            .board
            .front()
            .is_some_and(|front| !front.is(RESENT) || self.ways().keeps_guesses)
        {
            self.mark_lost(now_ns, 0);
        }
    }

    pub(super) fn enter_recovery(&mut self, loss: &LossSample) {
        self.stats.recoveries_count += 1;
        if self.phase != Phase::Cwr {
            let mut loss = *loss;
            if self.ways().halves_pipe {
                // Without SACK ns-3 counts the lost one, too.
                let front_bytes = if self.config.sack {
                    0
                } else {
                    u64::from(self.config.mss_bytes)
                };
                loss.in_flight_bytes = self.in_flight_bytes() + front_bytes;
            }
            self.controller.on_congestion(&loss);
            self.begin_prr(&loss);
        }
        self.phase = Phase::Recovery;
        self.fast_retransmit_due = !self.controller.rules_recovery();
        self.recovery_end = self.nxt;
        self.fast_retransmit_from = self.fast_retransmit_after();
        self.undo_from = self.una;
        self.undo_resent_count = 0;
        self.begin_resending();
        self.unproven_from = self.una;
        self.is_partly_acked = false;
        self.probe_end = 0;
        self.probe_due = false;
    }

    fn go_on_recovering(&mut self, seen: &Seen, loss: &LossSample) {
        if self.una >= self.recovery_end {
            self.leave_recovery();
            return;
        }
        if seen.acked_bytes == 0 {
            return;
        }
        if !self.config.sack {
            // A partial ack: the next hole is right behind it (RFC 6582 §3.2 step 3).
            self.mark_front_lost(loss.now_ns);
        }
        if self.ways().partial_ack_sends && !self.is_front_resent_whole() {
            self.fast_retransmit_due = true;
        }
    }

    /// RFC 6675 §4, NextSeg's rules 3 and 4: what may be sent again although it is not known to be lost, and whether that is the
    /// rescue of rule 4.
    pub(super) fn next_unproven(&mut self) -> Option<(usize, bool)> {
        if self.phase != Phase::Recovery || self.config.unproven == Unproven::Nothing {
            return None;
        }
        let end = match self.config.unproven {
            Unproven::Everything => self.nxt,
            _ => self.board.sacked_end(),
        };
        let from = self.board.index_of(self.unproven_from.max(self.una));
        for index in from..self.board.len() {
            let record = self.board.get(index);
            if record.start >= end {
                break;
            }
            if !record.is(SACKED | LOST | RESENT) {
                self.unproven_from = record.start;
                return Some((index, false));
            }
        }
        self.unproven_from = self.unproven_from.max(end);
        let is_rescued = self.rescued_end > 0 && self.una <= self.rescued_end;
        if self.config.unproven != Unproven::Rfc6675 || is_rescued {
            return None;
        }
        let last_unsacked = (0..self.board.len()).rfind(|&index| !self.board.get(index).is(SACKED));
        last_unsacked.map(|index| (index, true))
    }

    /// A series of retransmissions begins, unless some of the last one are still to be answered: their answers are older than the first
    /// retransmission of this one, and no original has been late for that (Linux: `tcp_any_retrans_done`).
    pub(super) fn begin_resending(&mut self) {
        let is_answered =
            self.board.resent_bytes() == 0 && !self.board.front().is_some_and(|front| front.is(EVER_RESENT));
        if is_answered {
            self.resend_began_ns = 0;
        }
    }

    fn leave_recovery(&mut self) {
        self.phase = Phase::Open;
        self.dupacks_count = 0;
        self.fast_retransmit_due = false;
        self.marked_end = 0;
        self.frto = Frto::Off;
        self.rack.on_recovered();
        self.controller.on_recovered();
    }

    /// RFC 5682 §3.1 (with SACK) and §2.1 (without), as Linux has them (`tcp_process_loss`).
    fn go_on_after_timeout(&mut self, seen: &Seen, loss: &LossSample) {
        let is_over = self.una >= self.recovery_end;
        if self.frto != Frto::Off {
            if seen.is_original_delivered {
                // Step 3b: something that was not sent again has arrived.
                self.undo();
                return;
            }
            if self.nxt > self.recovery_end {
                if seen.is_dupack {
                    // Step 3a: the loss was real.
                    self.frto = Frto::Off;
                }
            } else if seen.acked_bytes > 0 && !is_over {
                self.recovery_end = self.nxt;
                self.frto = Frto::NewDataOnly;
                return;
            }
        }
        if is_over {
            self.leave_recovery();
            if self.is_loss_seen(loss.now_ns) {
                self.enter_recovery(loss);
            }
        }
    }

    /// Was the last reduction for nothing? Every retransmission came as a duplicate (RFC 3708), or the ack answers a segment
    /// from before the first of them (RFC 3522).
    fn try_undo(&mut self, segment: &Segment, seen: &Seen) {
        if self.undo_from == NEVER || self.resend_began_ns == 0 {
            return;
        }
        let is_all_duplicate = seen.is_dsack && self.undo_resent_count <= 0;
        let is_answer_to_original = seen.acked_bytes > 0
            && matches!(self.phase, Phase::Recovery | Phase::Loss)
            && segment.timestamps
            && segment.ts_ecr != 0
            && segment.ts_ecr < self.timestamp(self.resend_began_ns);
        if is_all_duplicate || is_answer_to_original {
            self.undo();
        }
    }

    fn undo(&mut self) {
        self.stats.undone_count += 1;
        self.undo_from = NEVER;
        self.rtt.undo_back_off();
        // What RACK called lost was late (Linux: `tcp_try_undo_partial`).
        self.rack.reordering_seen |= self.phase == Phase::Recovery;
        for index in 0..self.board.len() {
            let flags = self.board.get(index).flags;
            self.board.set_flags(index, flags & !LOST);
        }
        self.leave_recovery();
        self.controller.undo();
    }

    /// RFC 8985 §7.4: did the probe repair a loss? Then the window pays for it, as for any other.
    pub(super) fn take_probe_ack(&mut self, segment: &Segment, seen: &Seen, loss: &LossSample) {
        if self.probe_end == 0 || segment.ack < self.probe_end {
            return;
        }
        if !self.probe_is_resend || seen.is_dsack {
            self.probe_end = 0;
        } else if segment.ack > self.probe_end {
            // The copy was never reported as a duplicate: the original was lost.
            self.probe_end = 0;
            if self.phase == Phase::Open {
                self.controller.on_congestion(loss);
                self.controller.on_recovered();
            }
        } else if seen.acked_bytes == 0 && !seen.is_newly_sacked {
            // A bare duplicate ack: both arrived.
            self.probe_end = 0;
        }
    }

    /// RFC 3168 §6.1.2, RFC 8257 §3.3: one reduction per window of data.
    #[inline]
    pub(super) fn take_ecn(&mut self, segment: &Segment, loss: &LossSample) {
        if !segment.ece || self.config.ecn == EcnMode::Off || self.phase != Phase::Open {
            return;
        }
        self.enter_cwr(loss);
    }

    pub(super) fn enter_cwr(&mut self, loss: &LossSample) {
        self.stats.ecn_reductions_count += 1;
        self.controller.on_ecn(loss);
        self.begin_prr(loss);
        self.phase = Phase::Cwr;
        self.recovery_end = self.nxt;
        self.undo_from = NEVER;
        self.cwr_due = true;
    }

    fn is_cwr_over(&self) -> bool {
        match self.config.ecn {
            // CWR leaves with the first byte of the new window, so the echo ends behind it.
            EcnMode::Classic => self.una > self.recovery_end || self.board.is_empty(),
            EcnMode::Dctcp | EcnMode::Off => self.una >= self.recovery_end,
        }
    }

    pub(super) fn reduces_in_steps(&self) -> bool {
        self.config.prr && !self.controller.rules_recovery()
    }

    fn begin_prr(&mut self, loss: &LossSample) {
        let window_bytes = self.in_flight_bytes();
        self.prr = Prr {
            flight_bytes: loss.sent_end - loss.acked_end,
            window_bytes,
            ..Prr::default()
        };
    }

    /// RFC 6937 §3, with the slow start bound only while the ack advances and nothing new is lost, as Linux has it
    /// (`tcp_cwnd_reduction`).
    #[inline]
    pub(super) fn update_prr(&mut self, delivered_bytes: u64, is_advancing: bool, is_losing: bool) {
        if !matches!(self.phase, Phase::Recovery | Phase::Cwr) || !self.reduces_in_steps() {
            return;
        }
        let mss = u64::from(self.config.mss_bytes);
        let target = self.controller.window_bytes();
        let pipe = self.in_flight_bytes();
        self.prr.delivered_bytes += delivered_bytes;
        let Prr {
            delivered_bytes: delivered,
            out_bytes: out,
            flight_bytes: flight,
            ..
        } = self.prr;
        let mut may_send = if pipe > target {
            let share = u128::from(delivered) * u128::from(target);
            (share.div_ceil(u128::from(flight.max(1))) as u64).saturating_sub(out)
        } else {
            let bound = delivered.saturating_sub(out).max(delivered_bytes);
            let slow_start = if is_advancing && !is_losing { mss } else { 0 };
            (target - pipe).min(bound + slow_start)
        };
        if out == 0 {
            // The fast retransmission itself.
            may_send = may_send.max(mss);
        }
        self.prr.window_bytes = pipe + may_send;
    }
}
