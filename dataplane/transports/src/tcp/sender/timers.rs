//! What a sender waits for. One timer runs at a time, as in Linux (`icsk_pending`), and pacing beside it.

use dataplane_waist::Instant;

use super::{NEVER, Sender, recovery::Frto};
use crate::{
    Controller, Phase,
    tcp::{
        scoreboard::{LOST, RESENT, SACKED},
        segment::Segment,
    },
};

/// RFC 8985 §7.2: the probe time-out before the first round trip is known.
const PROBE_WITHOUT_RTT_NS: u64 = 1_000_000_000;
/// Linux adds this to the probe time-out where a host's timers know only ticks (`TCP_TIMEOUT_MIN_US`).
const PROBE_SLACK_NS: u64 = 2_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    None,
    /// Retransmission time-out, RFC 6298.
    Rto,
    /// Tail loss probe, RFC 8985 §7.
    Probe,
    /// RACK's reordering window ends.
    Reorder,
    /// The receiver's window is closed, and nothing is in flight.
    Persist,
}

impl<C: Controller> Sender<C> {
    /// When it wants [`Sender::on_wake`]. There is one whenever something is outstanding.
    #[inline]
    pub fn wake_at(&self) -> Option<Instant> {
        let paced_ns = if self.is_paced_out { self.send_at_ns } else { NEVER };
        let at_ns = self.timer_at_ns.min(paced_ns);
        (at_ns != NEVER).then(|| Instant::from_ns(at_ns))
    }

    /// Time has passed: does what is due.
    pub fn on_wake(&mut self, now: Instant) {
        let now_ns = now.as_ns();
        if now_ns < self.timer_at_ns {
            return;
        }
        match self.timer {
            Timer::None => {}
            Timer::Rto => self.on_timeout(now_ns),
            Timer::Probe => {
                self.probe_due = true;
                self.set_rto(now_ns);
            }
            Timer::Reorder => self.on_reorder_timer(now_ns),
            Timer::Persist => {
                self.window_probe_due = true;
                self.rtt.back_off();
                self.stop_timer();
            }
        }
    }

    /// Starts the timer that suits what is in flight.
    pub(super) fn start_timer(&mut self, now_ns: u64) {
        if self.board.is_empty() && !self.ways().waits_below_segment {
            self.stop_timer();
            return;
        }
        if !self.may_probe() {
            self.set_rto(now_ns);
            return;
        }
        // RFC 8985 §7.2.
        let probe_ns = match self.rtt.srtt_ns() {
            0 => PROBE_WITHOUT_RTT_NS,
            srtt_ns => {
                let delayed_ack_ns = if self.board.len() == 1 {
                    self.config.ack_delay_max_ns
                } else {
                    0
                };
                let slack_ns = if self.tick.is_exact() { 0 } else { PROBE_SLACK_NS };
                2 * srtt_ns + delayed_ack_ns.max(slack_ns)
            }
        };
        self.set_timer(Timer::Probe, now_ns, probe_ns.min(self.rtt.rto_ns()));
    }

    /// One probe at a time, and only while nothing is amiss.
    pub(super) fn may_probe(&self) -> bool {
        self.config.tlp
            && self.probe_end == 0
            && matches!(self.phase, Phase::Open | Phase::Cwr)
            && self.board.sacked_bytes() == 0
    }

    pub(super) fn set_rto(&mut self, now_ns: u64) {
        let mut rto_ns = self.rtt.rto_ns();
        if self.config.rto_randomised {
            // (RTO + rand(0.5) × RTO) × 2^backoff, Vasudevan et al., SIGCOMM'09 §5.
            rto_ns = rto_ns.saturating_add(((u128::from(self.draw()) * u128::from(rto_ns / 2)) >> 64) as u64);
        }
        self.set_timer(Timer::Rto, now_ns, rto_ns);
    }

    pub(super) fn set_reorder_timer(&mut self, now_ns: u64, at_ns: u64) {
        self.set_timer(Timer::Reorder, now_ns, at_ns - now_ns);
    }

    /// RFC 9293 §3.8.6.1: the first probe of a closed window after an RTO, then backed off.
    pub(super) fn set_persist(&mut self, now_ns: u64) {
        self.set_timer(Timer::Persist, now_ns, self.rtt.rto_ns());
    }

    pub(super) fn stop_timer(&mut self) {
        self.timer = Timer::None;
        self.timer_at_ns = NEVER;
    }

    #[inline]
    fn set_timer(&mut self, timer: Timer, now_ns: u64, after_ns: u64) {
        self.timer = timer;
        // The last nanosecond is "never".
        self.timer_at_ns = self.tick.round_up(now_ns.saturating_add(after_ns)).min(NEVER - 1);
    }

    fn draw(&mut self) -> u64 {
        // SplitMix64 (Steele, Lea, Flood, OOPSLA'14).
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// RFC 6298 §5.4 to 5.6, RFC 5681 §3.1, RFC 6675 §5.1.
    fn on_timeout(&mut self, now_ns: u64) {
        let is_new = matches!(self.phase, Phase::Open | Phase::Cwr);
        let is_repeated = self.rtt.backoff() > 0 && self.phase == Phase::Loss;
        let keeps_threshold = is_repeated && !self.ways().repeated_timeouts_reduce;
        if self.board.front().is_some_and(|front| front.is(SACKED)) {
            // What it said had arrived it has thrown away, or it would acknowledge it.
            self.board.forget_sacks();
            self.seen_sacks = Default::default();
        }
        let loss = crate::LossSample {
            is_repeated: keeps_threshold,
            ..self.loss_sample(now_ns)
        };
        self.stats.timeouts_count += 1;
        for index in 0..self.board.len() {
            let record = *self.board.get(index);
            // RFC 8985 §6.3: with RACK what was sent just now is not lost yet.
            let is_recent = self.config.rack && index > 0 && self.was_sent_recently(record.sent_ns, now_ns);
            if !record.is(SACKED) && !is_recent {
                self.mark_lost(now_ns, index);
            } else if record.is(SACKED) && record.is(RESENT) {
                self.board.set_flags(index, record.flags & !RESENT);
            }
        }
        self.controller.on_rto(&loss);
        self.rtt.back_off();
        if is_new || self.undo_from == NEVER {
            self.undo_from = self.una;
            self.undo_resent_count = 0;
            self.begin_resending();
        }
        self.frto = if self.config.frto && (is_new || is_repeated) {
            Frto::Watching
        } else {
            Frto::Off
        };
        self.phase = Phase::Loss;
        self.recovery_end = self.nxt;
        self.fast_retransmit_from = self.fast_retransmit_after();
        self.marked_end = self.nxt;
        self.dupacks_count = 0;
        self.forget_guesses();
        self.probe_end = 0;
        self.probe_due = false;
        // The retransmission does not wait for pacing: an RTO was wait enough.
        self.send_at_ns = self.send_at_ns.min(now_ns);
        self.set_rto(now_ns);
    }

    fn was_sent_recently(&self, sent_ns: u64, now_ns: u64) -> bool {
        let srtt_ns = self.rtt.srtt_ns();
        srtt_ns > 0 && sent_ns.saturating_add(srtt_ns) > now_ns
    }

    fn on_reorder_timer(&mut self, now_ns: u64) {
        let loss = self.loss_sample(now_ns);
        let next_ns = self.mark_lost_by_time(now_ns);
        if self.board.to_resend_bytes() > 0 && matches!(self.phase, Phase::Open | Phase::Cwr) {
            self.enter_recovery(&loss);
            self.update_prr(0, false, true);
        }
        if next_ns == NEVER {
            self.set_rto(now_ns);
        } else {
            self.set_reorder_timer(now_ns, next_ns);
        }
    }

    /// RFC 8985 §7.3: a new segment if there is one, otherwise the last again. Either makes the receiver say what is missing.
    pub(super) fn transmit_probe(&mut self, now_ns: u64) -> Option<Segment> {
        let last = self.board.len().checked_sub(1)?;
        self.stats.probes_count += 1;
        let new_bytes = self.new_data_bytes();
        self.probe_is_resend = new_bytes.is_none();
        let segment = match new_bytes {
            Some(len_bytes) => self.transmit_new(now_ns, len_bytes),
            None => {
                let flags = self.board.get(last).flags;
                debug_assert!(
                    flags & SACKED == 0 && flags & (LOST | RESENT) != LOST,
                    "a probe leaves only while nothing waits to be sent again"
                );
                self.transmit_again(now_ns, last)
            }
        };
        self.probe_end = self.nxt;
        self.set_rto(now_ns);
        Some(segment)
    }
}
