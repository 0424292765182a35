//! BBR, version 3 (draft-ietf-ccwg-bbr): the model of version 1 with bounds from losses. A long-term bound of what may be in flight is
//! found by probing until 2 % are lost; short-term bounds react to losses between probes.
//!
//! Names are the draft's, in its order. Left out: the allowance for aggregated acks (extra_acked), and ECN, which the draft has not.

use crate::{AckSample, Controller, LossSample, LostPacket};

/// §2.4, §5.6.1: gains of the rate, and of the window.
const STARTUP_PACING_GAIN: f64 = 2.773;
const DRAIN_PACING_GAIN: f64 = 0.5;
const UP_PACING_GAIN: f64 = 1.25;
const DOWN_PACING_GAIN: f64 = 0.9;
const CWND_GAIN: f64 = 2.0;
const UP_CWND_GAIN: f64 = 2.25;
const PROBE_RTT_CWND_GAIN: f64 = 0.5;
const PACING_MARGIN: f64 = 0.99;
/// §2.5: the loss that a probe may cause; what is left after losses; what is left free for others.
const LOSS_THRESH: f64 = 0.02;
const BETA: f64 = 0.7;
const HEADROOM: f64 = 0.15;
/// §5.3.1.3: lost segments in a round trip that end Startup.
const STARTUP_FULL_LOSS_COUNT: u32 = 6;
/// §2.6: filters of the shortest round trip.
const MIN_RTT_FILTER_NS: u64 = 10_000_000_000;
const PROBE_RTT_INTERVAL_NS: u64 = 5_000_000_000;
const PROBE_RTT_NS: u64 = 200_000_000;
const MIN_PIPE_SEGMENTS: u64 = 4;
/// §5.3.1.2.
const FULL_BW_GROWTH: f64 = 1.25;
const FULL_BW_ROUNDS: u32 = 3;
/// §5.3.3.5: a probe each 2 to 3 s, or after as many round trips as Reno would take, at most 63.
const PROBE_WAIT_NS: u64 = 2_000_000_000;
const PROBE_WAIT_SPREAD_NS: u64 = 1_000_000_000;
const RENO_ROUNDS_MAX: u64 = 63;
/// §5.3.3.6.
const PROBE_UP_ROUNDS_MAX: u32 = 30;
/// §5.6.2: the rate before the first sample is the initial window's in a millisecond.
const FIRST_RTT_NS: u64 = 1_000_000;

const NONE: u64 = u64::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Startup,
    Drain,
    Down,
    Cruise,
    Refill,
    Up,
    ProbeRtt,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AckPhase {
    Init,
    ProbeStarting,
    ProbeFeedback,
    ProbeStopping,
    Refilling,
}

/// BBRv3.
#[derive(Clone, Copy, Debug)]
pub struct Bbr3 {
    mss: u64,
    initial_cwnd: u64,
    cwnd: u64,
    prior_cwnd: u64,
    rate: f64,
    state: State,
    ack_phase: AckPhase,
    /// The largest rates of the probing cycle before this one, and of this one.
    max_bw: [f64; 2],
    bw: f64,
    bw_shortterm: f64,
    bw_latest: f64,
    inflight_longterm: u64,
    inflight_shortterm: u64,
    inflight_latest: u64,
    min_rtt_ns: u64,
    min_rtt_at_ns: u64,
    probe_rtt_min_ns: u64,
    probe_rtt_min_at_ns: u64,
    probe_rtt_done_ns: u64,
    /// C.delivered as of the last ack, and where rounds end in it.
    delivered: u64,
    next_round_delivered: u64,
    loss_round_delivered: u64,
    full_bw: f64,
    full_bw_count: u32,
    loss_events_in_round: u32,
    cycle_at_ns: u64,
    probe_wait_ns: u64,
    rounds_since_probe: u64,
    probe_up_rounds: u32,
    probe_up_acks: u64,
    probe_up_count: u64,
    random: u64,
    round_start: bool,
    loss_round_start: bool,
    loss_in_round: bool,
    full_bw_now: bool,
    full_bw_reached: bool,
    bw_probe_samples: bool,
    probe_rtt_round_done: bool,
    idle_restart: bool,
    after_rto: bool,
}

impl Bbr3 {
    /// Begins with `initial_bytes`; of `seed` the times of the probes are drawn.
    pub fn new(mss_bytes: u32, initial_bytes: u64, seed: u64) -> Bbr3 {
        Bbr3 {
            mss: mss_bytes.into(),
            initial_cwnd: initial_bytes,
            cwnd: initial_bytes,
            prior_cwnd: 0,
            rate: STARTUP_PACING_GAIN * initial_bytes as f64 / FIRST_RTT_NS as f64 * 1e9,
            state: State::Startup,
            ack_phase: AckPhase::Init,
            max_bw: [0.0; 2],
            bw: 0.0,
            bw_shortterm: f64::INFINITY,
            bw_latest: 0.0,
            inflight_longterm: NONE,
            inflight_shortterm: NONE,
            inflight_latest: 0,
            min_rtt_ns: NONE,
            min_rtt_at_ns: 0,
            probe_rtt_min_ns: NONE,
            probe_rtt_min_at_ns: 0,
            probe_rtt_done_ns: NONE,
            delivered: 0,
            next_round_delivered: 0,
            loss_round_delivered: 0,
            full_bw: 0.0,
            full_bw_count: 0,
            loss_events_in_round: 0,
            cycle_at_ns: 0,
            probe_wait_ns: 0,
            rounds_since_probe: 0,
            probe_up_rounds: 0,
            probe_up_acks: 0,
            probe_up_count: NONE,
            random: seed,
            round_start: false,
            loss_round_start: false,
            loss_in_round: false,
            full_bw_now: false,
            full_bw_reached: false,
            bw_probe_samples: false,
            probe_rtt_round_done: false,
            idle_restart: false,
            after_rto: false,
        }
    }

    /// What may be in flight by the long-term model, in bytes; `u64::MAX` while no loss has bounded it.
    pub fn inflight_longterm_bytes(&self) -> u64 {
        self.inflight_longterm
    }

    fn max_bw(&self) -> f64 {
        self.max_bw[0].max(self.max_bw[1])
    }

    fn least_cwnd(&self) -> u64 {
        MIN_PIPE_SEGMENTS * self.mss
    }

    fn is_probing_bw_cycle(&self) -> bool {
        matches!(self.state, State::Down | State::Cruise | State::Refill | State::Up)
    }

    /// §5.6.4.2.
    fn bdp_multiple(&self, bw: f64, gain: f64) -> u64 {
        if self.min_rtt_ns == NONE {
            return self.initial_cwnd;
        }
        (gain * bw * self.min_rtt_ns as f64 / 1e9) as u64
    }

    fn quantized(&self, inflight: u64) -> u64 {
        let up = if self.state == State::Up { 2 * self.mss } else { 0 };
        inflight.max(self.least_cwnd()) + up
    }

    fn inflight(&self, gain: f64) -> u64 {
        self.quantized(self.bdp_multiple(self.max_bw(), gain))
    }

    fn target_inflight(&self) -> u64 {
        self.bdp_multiple(self.bw, 1.0).min(self.cwnd)
    }

    /// §5.3.3.6.
    fn inflight_with_headroom(&self) -> u64 {
        if self.inflight_longterm == NONE {
            return NONE;
        }
        let headroom = ((HEADROOM * self.inflight_longterm as f64) as u64).max(self.mss);
        self.inflight_longterm.saturating_sub(headroom).max(self.least_cwnd())
    }

    fn gains(&self) -> (f64, f64) {
        match self.state {
            State::Startup => (STARTUP_PACING_GAIN, CWND_GAIN),
            State::Drain => (DRAIN_PACING_GAIN, CWND_GAIN),
            State::Down => (DOWN_PACING_GAIN, CWND_GAIN),
            State::Cruise | State::Refill => (1.0, CWND_GAIN),
            State::Up => (UP_PACING_GAIN, UP_CWND_GAIN),
            State::ProbeRtt => (1.0, PROBE_RTT_CWND_GAIN),
        }
    }

    fn start_round(&mut self) {
        self.next_round_delivered = self.delivered;
    }

    fn reset_full_bw(&mut self, bw: f64) {
        (self.full_bw, self.full_bw_count, self.full_bw_now) = (bw, 0, false);
    }

    fn reset_short_term_model(&mut self) {
        (self.bw_shortterm, self.inflight_shortterm) = (f64::INFINITY, NONE);
    }

    /// SplitMix64.
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// §5.5.10.3 and §5.5.1: the signals of this round trip.
    fn update_signals(&mut self, ack: &AckSample, bw: f64) {
        self.delivered = ack.delivered_total_bytes;
        self.loss_round_start = false;
        if ack.delivered_bytes == 0 {
            self.round_start = false;
            return;
        }
        self.bw_latest = self.bw_latest.max(bw);
        self.inflight_latest = self.inflight_latest.max(ack.rate.delivered_bytes);
        if ack.rate.prior_delivered_bytes >= self.loss_round_delivered {
            self.loss_round_delivered = self.delivered;
            self.loss_round_start = true;
        }
        self.round_start = ack.rate.prior_delivered_bytes >= self.next_round_delivered;
        if self.round_start {
            self.start_round();
            self.rounds_since_probe += 1;
        }
        if bw > 0.0 && (bw >= self.max_bw() || !ack.rate.is_app_limited) {
            self.max_bw[1] = self.max_bw[1].max(bw);
        }
        if self.loss_round_start {
            let is_probing = matches!(self.state, State::Startup | State::Refill | State::Up);
            if self.loss_in_round && !is_probing {
                self.lower_bounds();
            }
            self.check_startup_high_loss(ack);
            self.loss_in_round = false;
            self.loss_events_in_round = 0;
        }
    }

    /// BBRInitLowerBounds, BBRLossLowerBounds.
    fn lower_bounds(&mut self) {
        if self.bw_shortterm == f64::INFINITY {
            self.bw_shortterm = self.max_bw();
        }
        if self.inflight_shortterm == NONE {
            self.inflight_shortterm = self.cwnd;
        }
        self.bw_shortterm = self.bw_latest.max(BETA * self.bw_shortterm);
        self.inflight_shortterm = self.inflight_latest.max((BETA * self.inflight_shortterm as f64) as u64);
    }

    /// §5.3.1.2.
    fn check_full_bw(&mut self, ack: &AckSample, bw: f64) {
        if self.full_bw_now || !self.round_start || ack.rate.is_app_limited {
            return;
        }
        if bw >= self.full_bw * FULL_BW_GROWTH {
            self.reset_full_bw(bw);
            return;
        }
        self.full_bw_count += 1;
        self.full_bw_now = self.full_bw_count >= FULL_BW_ROUNDS;
        self.full_bw_reached |= self.full_bw_now;
    }

    /// §5.3.1.3.
    fn check_startup_high_loss(&mut self, ack: &AckSample) {
        let is_high = self.loss_events_in_round >= STARTUP_FULL_LOSS_COUNT && is_inflight_too_high(&ack.rate.into());
        if self.state == State::Startup && !self.full_bw_reached && is_high {
            self.full_bw_reached = true;
            self.inflight_longterm = self.bdp_multiple(self.max_bw(), 1.0).max(self.inflight_latest);
        }
    }

    fn start_down(&mut self, now_ns: u64) {
        (self.loss_in_round, self.bw_latest, self.inflight_latest) = (false, 0.0, 0);
        self.probe_up_count = NONE;
        self.rounds_since_probe = self.draw() & 1;
        self.probe_wait_ns = PROBE_WAIT_NS + self.draw() % PROBE_WAIT_SPREAD_NS;
        self.cycle_at_ns = now_ns;
        self.ack_phase = AckPhase::ProbeStopping;
        self.start_round();
        self.state = State::Down;
    }

    fn start_refill(&mut self) {
        self.reset_short_term_model();
        (self.probe_up_rounds, self.probe_up_acks) = (0, 0);
        self.ack_phase = AckPhase::Refilling;
        self.start_round();
        self.state = State::Refill;
    }

    fn start_up(&mut self, now_ns: u64, bw: f64) {
        self.ack_phase = AckPhase::ProbeStarting;
        self.start_round();
        self.reset_full_bw(bw);
        self.cycle_at_ns = now_ns;
        self.state = State::Up;
        self.raise_slope();
    }

    fn raise_slope(&mut self) {
        let growth = self.mss << self.probe_up_rounds;
        self.probe_up_rounds = (self.probe_up_rounds + 1).min(PROBE_UP_ROUNDS_MAX);
        self.probe_up_count = (self.cwnd / growth).max(1);
    }

    /// §5.3.3.6.
    fn update_cycle(&mut self, ack: &AckSample, bw: f64) {
        if !self.full_bw_reached {
            return;
        }
        self.adapt_long_term(ack);
        match self.state {
            State::Down | State::Cruise if self.is_time_to_probe(ack.now_ns) => self.start_refill(),
            State::Down => {
                let is_drained = ack.in_flight_bytes <= self.inflight_with_headroom().min(self.inflight(1.0));
                if is_drained {
                    self.state = State::Cruise;
                }
            }
            State::Refill if self.round_start => {
                self.bw_probe_samples = true;
                self.start_up(ack.now_ns, bw);
            }
            State::Up => {
                if ack.is_window_limited && self.cwnd >= self.inflight_longterm {
                    // The bound and not the path holds it back: that is no sign of a full pipe.
                    self.reset_full_bw(bw);
                } else if self.full_bw_now {
                    self.start_down(ack.now_ns);
                }
            }
            _ => {}
        }
    }

    fn is_time_to_probe(&self, now_ns: u64) -> bool {
        let reno_rounds = (self.target_inflight() / self.mss).min(RENO_ROUNDS_MAX);
        now_ns > self.cycle_at_ns + self.probe_wait_ns || self.rounds_since_probe >= reno_rounds
    }

    fn adapt_long_term(&mut self, ack: &AckSample) {
        if self.ack_phase == AckPhase::ProbeStarting && self.round_start {
            self.ack_phase = AckPhase::ProbeFeedback;
        }
        if self.ack_phase == AckPhase::ProbeStopping && self.round_start {
            self.bw_probe_samples = false;
            self.ack_phase = AckPhase::Init;
            if self.is_probing_bw_cycle() && !ack.rate.is_app_limited {
                // BBRAdvanceMaxBwFilter.
                self.max_bw = [self.max_bw[1], 0.0];
            }
        }
        let probed = Probed::from(ack.rate);
        if is_inflight_too_high(&probed) {
            if self.bw_probe_samples {
                self.handle_inflight_too_high(ack.now_ns, &probed);
            }
            return;
        }
        if self.inflight_longterm == NONE || ack.delivered_bytes == 0 {
            return;
        }
        self.inflight_longterm = self.inflight_longterm.max(probed.tx_in_flight_bytes);
        if self.state == State::Up {
            self.probe_upward(ack);
        }
    }

    fn probe_upward(&mut self, ack: &AckSample) {
        if !ack.is_window_limited || self.cwnd < self.inflight_longterm {
            return;
        }
        self.probe_up_acks += ack.delivered_bytes;
        let delta = self.probe_up_acks / self.probe_up_count;
        self.probe_up_acks -= delta * self.probe_up_count;
        self.inflight_longterm += delta;
        if self.round_start {
            self.raise_slope();
        }
    }

    /// §5.5.10.2.
    fn handle_inflight_too_high(&mut self, now_ns: u64, probed: &Probed) {
        self.bw_probe_samples = false;
        if !probed.is_app_limited {
            let least = (self.target_inflight() as f64 * BETA) as u64;
            self.inflight_longterm = probed.tx_in_flight_bytes.max(least);
        }
        if self.state == State::Up {
            self.start_down(now_ns);
        }
    }

    /// §5.3.4.
    fn update_min_rtt(&mut self, ack: &AckSample) {
        let is_probe_due = ack.now_ns > self.probe_rtt_min_at_ns + PROBE_RTT_INTERVAL_NS;
        if let Some(rtt_ns) = ack.rtt_ns
            && (rtt_ns < self.probe_rtt_min_ns || is_probe_due)
        {
            (self.probe_rtt_min_ns, self.probe_rtt_min_at_ns) = (rtt_ns, ack.now_ns);
        }
        let is_expired = ack.now_ns > self.min_rtt_at_ns + MIN_RTT_FILTER_NS;
        if self.probe_rtt_min_ns < self.min_rtt_ns || is_expired {
            (self.min_rtt_ns, self.min_rtt_at_ns) = (self.probe_rtt_min_ns, self.probe_rtt_min_at_ns);
        }
        if self.state != State::ProbeRtt && is_probe_due && !self.idle_restart {
            self.save_cwnd();
            self.state = State::ProbeRtt;
            self.probe_rtt_done_ns = NONE;
            self.ack_phase = AckPhase::ProbeStopping;
            self.start_round();
        }
        if self.state == State::ProbeRtt {
            self.handle_probe_rtt(ack);
        }
        self.idle_restart &= ack.delivered_bytes == 0;
    }

    fn handle_probe_rtt(&mut self, ack: &AckSample) {
        if self.probe_rtt_done_ns == NONE {
            if ack.in_flight_bytes <= self.probe_rtt_cwnd() {
                self.probe_rtt_done_ns = ack.now_ns + PROBE_RTT_NS;
                self.probe_rtt_round_done = false;
                self.start_round();
            }
            return;
        }
        self.probe_rtt_round_done |= self.round_start;
        if self.probe_rtt_round_done && ack.now_ns > self.probe_rtt_done_ns {
            self.probe_rtt_min_at_ns = ack.now_ns;
            self.cwnd = self.cwnd.max(self.prior_cwnd);
            self.reset_short_term_model();
            if self.full_bw_reached {
                self.start_down(ack.now_ns);
                self.state = State::Cruise;
            } else {
                self.state = State::Startup;
            }
        }
    }

    fn probe_rtt_cwnd(&self) -> u64 {
        self.bdp_multiple(self.bw, PROBE_RTT_CWND_GAIN).max(self.least_cwnd())
    }

    fn save_cwnd(&mut self) {
        let is_reduced = self.loss_in_round || self.state == State::ProbeRtt || self.after_rto;
        self.prior_cwnd = if is_reduced {
            self.prior_cwnd.max(self.cwnd)
        } else {
            self.cwnd
        };
    }

    /// §5.6.4.
    fn set_cwnd(&mut self, ack: &AckSample) {
        let max_inflight = self.quantized(self.bdp_multiple(self.max_bw(), self.gains().1));
        if self.full_bw_reached {
            self.cwnd = (self.cwnd + ack.delivered_bytes).min(max_inflight);
        } else if self.cwnd < max_inflight || self.delivered < self.initial_cwnd {
            self.cwnd += ack.delivered_bytes;
        }
        self.cwnd = self.cwnd.max(self.least_cwnd());
        if self.state == State::ProbeRtt {
            self.cwnd = self.cwnd.min(self.probe_rtt_cwnd());
        }
        // BBRBoundCwndForModel.
        let bound = match self.state {
            State::Down | State::Refill | State::Up => self.inflight_longterm,
            State::ProbeRtt | State::Cruise => self.inflight_with_headroom(),
            State::Startup | State::Drain => NONE,
        };
        self.cwnd = self.cwnd.min(bound.min(self.inflight_shortterm).max(self.least_cwnd()));
    }
}

/// What a probe put in flight, and what of it was lost.
#[derive(Clone, Copy, Debug)]
struct Probed {
    tx_in_flight_bytes: u64,
    lost_bytes: u64,
    is_app_limited: bool,
}

impl From<crate::RateSample> for Probed {
    fn from(rate: crate::RateSample) -> Probed {
        let crate::RateSample {
            tx_in_flight_bytes,
            lost_bytes,
            is_app_limited,
            ..
        } = rate;
        Probed {
            tx_in_flight_bytes,
            lost_bytes,
            is_app_limited,
        }
    }
}

fn is_inflight_too_high(probed: &Probed) -> bool {
    probed.lost_bytes as f64 > LOSS_THRESH * probed.tx_in_flight_bytes as f64
}

impl Controller for Bbr3 {
    fn on_ack(&mut self, ack: &AckSample) {
        let bw = ack.rate.bytes_per_sec().unwrap_or(0) as f64;
        self.update_signals(ack, bw);
        self.check_full_bw(ack, bw);
        if self.state == State::Startup && self.full_bw_reached {
            self.state = State::Drain;
        }
        if self.state == State::Drain && ack.in_flight_bytes <= self.inflight(1.0) {
            self.start_down(ack.now_ns);
        }
        self.update_cycle(ack, bw);
        self.update_min_rtt(ack);
        if self.loss_round_start {
            (self.bw_latest, self.inflight_latest) = (bw, ack.rate.delivered_bytes);
        }
        self.bw = self.max_bw().min(self.bw_shortterm);
        let rate = self.gains().0 * self.bw * PACING_MARGIN;
        if rate > 0.0 && (self.full_bw_reached || rate > self.rate) {
            self.rate = rate;
        }
        self.set_cwnd(ack);
    }

    /// §5.5.10.2: BBRHandleLostPacket.
    fn on_packet_lost(&mut self, packet: &LostPacket) {
        if !self.loss_in_round {
            self.loss_round_delivered = self.delivered;
        }
        self.loss_in_round = true;
        self.loss_events_in_round += 1;
        if !self.bw_probe_samples {
            return;
        }
        let LostPacket {
            bytes,
            tx_in_flight_bytes,
            lost_since_bytes: lost_bytes,
            is_app_limited,
            ..
        } = *packet;
        let probed = Probed {
            tx_in_flight_bytes,
            lost_bytes,
            is_app_limited,
        };
        if is_inflight_too_high(&probed) {
            // BBRInflightAtLoss: where within this segment the losses passed the threshold.
            let prior = tx_in_flight_bytes.saturating_sub(bytes) as f64;
            let lost_prior = lost_bytes.saturating_sub(bytes) as f64;
            let prefix = (LOSS_THRESH * prior - lost_prior) / (1.0 - LOSS_THRESH);
            let at_loss = Probed {
                tx_in_flight_bytes: (prior + prefix).max(0.0) as u64,
                ..probed
            };
            self.handle_inflight_too_high(packet.now_ns, &at_loss);
        }
    }

    fn on_congestion(&mut self, _loss: &LossSample) {
        self.save_cwnd();
    }

    fn on_rto(&mut self, _loss: &LossSample) {
        self.save_cwnd();
        self.after_rto = true;
        self.cwnd = self.mss;
    }

    /// The draft's BBR does not hear marks.
    fn on_ecn(&mut self, _loss: &LossSample) {}

    fn on_recovered(&mut self) {
        self.cwnd = self.cwnd.max(self.prior_cwnd);
        self.after_rto = false;
    }

    /// §5.5.11: BBRHandleSpuriousLossDetection.
    fn undo(&mut self) {
        self.loss_in_round = false;
        self.reset_full_bw(0.0);
        self.reset_short_term_model();
        self.cwnd = self.cwnd.max(self.prior_cwnd);
    }

    /// §5.4.1.
    fn on_idle_restart(&mut self, now_ns: u64, _initial_bytes: u64) {
        self.idle_restart = true;
        if self.is_probing_bw_cycle() {
            self.rate = self.bw * PACING_MARGIN;
        } else if self.state == State::ProbeRtt && now_ns > self.probe_rtt_done_ns {
            self.probe_rtt_min_at_ns = now_ns;
        }
    }

    #[inline]
    fn window_bytes(&self) -> u64 {
        self.cwnd
    }

    #[inline]
    fn pacing_bytes_per_sec(&self) -> Option<u64> {
        Some(self.rate as u64)
    }

    fn is_slow_start(&self) -> bool {
        self.state == State::Startup
    }

    fn rules_recovery(&self) -> bool {
        true
    }
}
