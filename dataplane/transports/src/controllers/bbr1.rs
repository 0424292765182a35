//! BBR, version 1: the window and the rate come from a model of the path, its bandwidth and its shortest round trip
//! (Cardwell et al., CACM 2017; draft-cardwell-iccrg-bbr-congestion-control-00; Linux's net/ipv4/tcp_bbr.c).
//!
//! As in Linux its window has room for what hosts hold back: three bursts of a millisecond each at the rate at which it paces, and what
//! acks brought beyond that rate of late. On a path whose round trip is shorter than a millisecond that is most of the window.
//!
//! Linux, and neither the paper nor the draft, also takes a path that loses more than a sixth, interval after interval at the same rate, for one
//! with a policer, and sends at that rate for 48 round trips without probing. That is there, and off unless it is asked for
//! ([`Bbr1Options::detects_policers`]).

use super::max_filter::MaxFilter;
use crate::{AckSample, Controller, LossSample, Phase};

/// 2/ln 2: doubles the rate each round trip (`bbr_high_gain`).
const HIGH_GAIN: f64 = 2.885;
const DRAIN_GAIN: f64 = 1.0 / HIGH_GAIN;
/// `bbr_pacing_gain`: probes for a round trip, drains for another, cruises for six. The 1.25 is why 20 % of loss are its wall.
const CYCLE: [f64; 8] = [1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0];
const CWND_GAIN: f64 = 2.0;
/// The filter of the bandwidth, in round trips (`bbr_bw_rtts`: two more than the cycle).
const BW_ROUNDS: u64 = 10;
/// `bbr_min_rtt_win_sec`, `bbr_probe_rtt_mode_ms`, `bbr_cwnd_min_target`.
const MIN_RTT_WINDOW_NS: u64 = 10_000_000_000;
const PROBE_RTT_NS: u64 = 200_000_000;
const WINDOW_MIN_SEGMENTS: u64 = 4;
/// `bbr_full_bw_thresh`, `bbr_full_bw_cnt`: the pipe is full if three round trips brought no quarter more.
const FULL_BW_GROWTH: f64 = 1.25;
const FULL_BW_ROUNDS: u32 = 3;
/// `bbr_pacing_margin_percent`.
const PACING_MARGIN: f64 = 0.99;
/// Before the first sample the rate is that of the initial window in a millisecond (`bbr_init_pacing_rate_from_rtt`).
const FIRST_RTT_NS: u64 = 1_000_000;
/// Bursts that the sending and the receiving host hold back (`bbr_quantization_budget`).
const BURSTS_HELD: u64 = 3;
/// A burst is what leaves in 2^-10 s at the pacing rate (`sk_pacing_shift`, `bbr_tso_segs_goal`), at least so many segments
/// (`bbr_min_tso_segs`; one below that rate, `bbr_min_tso_rate`), and at most what a packet of the kernel's may hold.
const BURST_SHIFT: u32 = 10;
const BURST_SEGMENTS_MIN: u64 = 2;
const BURST_RATE_MIN: f64 = 1_200_000.0 / 8.0;
const BURST_SEGMENTS_MAX: u64 = 0x7f;
/// GSO_LEGACY_MAX_SIZE less MAX_TCP_HEADER (include/linux/netdevice.h, include/net/tcp.h), as 64-bit kernels have them.
const BURST_BYTES_MAX: u64 = 65_536 - 1 - 320;
/// What acks brought in excess of the bandwidth is kept as the most of five to ten round trips (`bbr_extra_acked_win_rtts`), never
/// counts for more than the bandwidth brings in 100 ms (`bbr_extra_acked_max_us`), and is counted anew after so much
/// (`bbr_ack_epoch_acked_reset_thresh`, in segments).
const EXCESS_ROUNDS: u8 = 5;
const EXCESS_NS_MAX: f64 = 100e6;
const EPOCH_SEGMENTS_MAX: u64 = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Startup,
    Drain,
    ProbeBw,
    ProbeRtt,
}

/// A path is thought to have a policer if two intervals of at least so many round trips (`bbr_lt_intvl_min_rtts`), at most four times as
/// many, that begin and end with a loss, each lost so much of what it delivered (`bbr_lt_loss_thresh`), at rates that differ by no more than an
/// eighth (`bbr_lt_bw_ratio`) or so many bytes a second (`bbr_lt_bw_diff`); and that is believed for so many (`bbr_lt_bw_max_rtts`).
const POLICED_ROUNDS_MIN: u8 = 4;
const POLICED_LOSS_MIN: f64 = 50.0 / 256.0;
const POLICED_RATE_RATIO: f64 = 1.0 / 8.0;
const POLICED_RATE_DIFF: f64 = 4_000.0 / 8.0;
const POLICED_ROUNDS: u8 = 48;

/// What of Linux's BBRv1 there is, for finding out what it is that matters. The default is all of it but the search for policers, which is Linux's
/// alone and finds them where there are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bbr1Options {
    /// The window has room for three bursts of a millisecond. Without it for three segments.
    pub holds_bursts: bool,
    /// Segments leave in bursts of a millisecond, as the kernel hands them to its card. Without it one by one.
    pub sends_bursts: bool,
    /// The window has room for what acks brought in excess.
    pub allows_aggregation: bool,
    /// Paths that lose steadily are taken for policed ones.
    pub detects_policers: bool,
}

impl Default for Bbr1Options {
    fn default() -> Bbr1Options {
        Bbr1Options {
            holds_bursts: true,
            sends_bursts: true,
            allows_aggregation: true,
            detects_policers: false,
        }
    }
}

/// What acks brought beyond the bandwidth (`bbr_update_ack_aggregation`).
#[derive(Clone, Copy, Debug, Default)]
struct Excess {
    /// Since when is counted, and what has come since; below [`EPOCH_SEGMENTS_MAX`] segments.
    since_ns: u64,
    acked_bytes: u32,
    /// The most of this window of round trips, and of the one before, in turns.
    most_bytes: [u32; 2],
    index: u8,
    rounds: u8,
}

impl Excess {
    /// `window_bytes` bounds what is allowed for.
    fn update(&mut self, ack: &AckSample, is_round_start: bool, bandwidth: f64, mss_bytes: u64, window_bytes: u64) {
        if is_round_start {
            self.rounds += 1;
            if self.rounds >= EXCESS_ROUNDS {
                (self.rounds, self.index) = (0, 1 - self.index);
                self.most_bytes[usize::from(self.index)] = 0;
            }
        }
        let elapsed_ns = ack.now_ns.saturating_sub(self.since_ns);
        let mut expected_bytes = (bandwidth * elapsed_ns as f64 / 1e9) as u64;
        let acked_bytes = u64::from(self.acked_bytes);
        if acked_bytes <= expected_bytes || acked_bytes + ack.delivered_bytes >= EPOCH_SEGMENTS_MAX * mss_bytes {
            (self.acked_bytes, self.since_ns, expected_bytes) = (0, ack.now_ns, 0);
        }
        self.acked_bytes = saturating(u64::from(self.acked_bytes) + ack.delivered_bytes);
        let excess = u64::from(self.acked_bytes)
            .saturating_sub(expected_bytes)
            .min(window_bytes);
        let most = &mut self.most_bytes[usize::from(self.index)];
        *most = (*most).max(saturating(excess));
    }

    fn bytes(&self, bandwidth: f64) -> u64 {
        let most = self.most_bytes[0].max(self.most_bytes[1]);
        u64::from(most).min((bandwidth * EXCESS_NS_MAX / 1e9) as u64)
    }
}

/// The search for a policer (`bbr_lt_bw_sampling`). Counts wrap: their differences are what matters.
#[derive(Clone, Copy, Debug, Default)]
struct Policer {
    /// Bytes a second that it is thought to let through; 0: of the first interval nothing is known yet.
    rate: f32,
    /// Where the interval began.
    since_us: u32,
    delivered_bytes: u32,
    lost_bytes: u32,
    rounds: u8,
    is_sampling: bool,
    is_found: bool,
}

impl Policer {
    fn begin(&mut self, ack: &AckSample) {
        self.since_us = (ack.now_ns / 1_000) as u32;
        self.delivered_bytes = ack.delivered_total_bytes as u32;
        self.lost_bytes = ack.lost_total_bytes as u32;
        self.rounds = 0;
    }

    fn forget(&mut self, ack: &AckSample) {
        *self = Policer::default();
        self.begin(ack);
    }

    /// Answers whether what was believed has been believed long enough.
    fn update(&mut self, ack: &AckSample, is_round_start: bool, is_probing_bandwidth: bool) -> bool {
        if self.is_found {
            self.rounds += u8::from(is_round_start && is_probing_bandwidth);
            let is_over = self.rounds >= POLICED_ROUNDS;
            if is_over {
                self.forget(ack);
            }
            return is_over;
        }
        if !self.is_sampling {
            if ack.lost_bytes == 0 {
                return false;
            }
            self.begin(ack);
            self.is_sampling = true;
        }
        if ack.rate.is_app_limited {
            self.forget(ack);
            return false;
        }
        self.rounds += u8::from(is_round_start);
        if self.rounds > 4 * POLICED_ROUNDS_MIN {
            self.forget(ack);
            return false;
        }
        if self.rounds < POLICED_ROUNDS_MIN || ack.lost_bytes == 0 {
            return false;
        }
        let lost = f64::from((ack.lost_total_bytes as u32).wrapping_sub(self.lost_bytes));
        let delivered = f64::from((ack.delivered_total_bytes as u32).wrapping_sub(self.delivered_bytes));
        let elapsed_us = ((ack.now_ns / 1_000) as u32).wrapping_sub(self.since_us);
        if delivered == 0.0 || lost < POLICED_LOSS_MIN * delivered || elapsed_us < 1_000 {
            return false;
        }
        let (rate, before) = (delivered / f64::from(elapsed_us) * 1e6, f64::from(self.rate));
        let difference = (rate - before).abs();
        if before > 0.0 && (difference <= POLICED_RATE_RATIO * before || difference <= POLICED_RATE_DIFF) {
            self.rate = ((rate + before) / 2.0) as f32;
            self.is_found = true;
            self.rounds = 0;
            return false;
        }
        self.rate = rate as f32;
        self.begin(ack);
        false
    }
}

fn saturating(bytes: u64) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// BBRv1.
#[derive(Clone, Copy, Debug)]
pub struct Bbr1 {
    options: Bbr1Options,
    excess: Excess,
    policer: Policer,
    mss_bytes: u64,
    window_bytes: u64,
    prior_window_bytes: u64,
    rate: f64,
    pacing_gain: f64,
    cwnd_gain: f64,
    bandwidth: MaxFilter,
    /// `u64::MAX` before the first sample; and when it was measured.
    min_rtt_ns: u64,
    min_rtt_at_ns: u64,
    /// Round trips, counted in delivered data.
    round: u64,
    round_end_bytes: u64,
    full_bw: f64,
    full_bw_rounds: u32,
    cycle_at_ns: u64,
    cycle_index: usize,
    probe_rtt_ends_ns: Option<u64>,
    probe_rtt_round_end_bytes: u64,
    mode: Mode,
    is_full: bool,
    phase: Phase,
    /// In the first round trip of a recovery only what arrives is replaced.
    conserves_until_round: u64,
    is_idle_restart: bool,
}

impl Bbr1 {
    /// Begins with `initial_bytes`; `seed` says where in the cycle it begins to probe, so that flows do not do so together.
    pub fn new(mss_bytes: u32, initial_bytes: u64, seed: u64, options: Bbr1Options) -> Bbr1 {
        Bbr1 {
            options,
            excess: Excess::default(),
            policer: Policer::default(),
            mss_bytes: mss_bytes.into(),
            window_bytes: initial_bytes,
            prior_window_bytes: 0,
            rate: HIGH_GAIN * initial_bytes as f64 / FIRST_RTT_NS as f64 * 1e9,
            pacing_gain: HIGH_GAIN,
            cwnd_gain: HIGH_GAIN,
            bandwidth: MaxFilter::default(),
            min_rtt_ns: u64::MAX,
            min_rtt_at_ns: 0,
            round: 0,
            round_end_bytes: 0,
            full_bw: 0.0,
            full_bw_rounds: 0,
            cycle_at_ns: 0,
            // Any but the draining phase (`bbr_reset_probe_bw_mode`).
            cycle_index: (2 + seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) as usize % 7) % CYCLE.len(),
            probe_rtt_ends_ns: None,
            probe_rtt_round_end_bytes: 0,
            mode: Mode::Startup,
            is_full: false,
            phase: Phase::Open,
            conserves_until_round: 0,
            is_idle_restart: false,
        }
    }

    /// The model's bandwidth, in bytes per second: a policer's, where one is thought to be (`bbr_bw`).
    pub fn bandwidth_bytes_per_sec(&self) -> f64 {
        match self.policer.is_found {
            true => self.policer.rate.into(),
            false => self.bandwidth.get(),
        }
    }

    fn bdp_bytes(&self, gain: f64) -> u64 {
        if self.min_rtt_ns == u64::MAX {
            return self.window_bytes;
        }
        (gain * self.bandwidth_bytes_per_sec() * self.min_rtt_ns as f64 / 1e9) as u64
    }

    /// `bbr_tso_segs_goal`.
    fn burst_segments(&self) -> u64 {
        let least = if self.rate < BURST_RATE_MIN {
            1
        } else {
            BURST_SEGMENTS_MIN
        };
        let bytes = (self.rate as u64 >> BURST_SHIFT).min(BURST_BYTES_MAX);
        (bytes / self.mss_bytes).max(least).min(BURST_SEGMENTS_MAX)
    }

    /// What the window may come to: the path's, what acks bring in excess, and what hosts hold back (`bbr_set_cwnd`,
    /// `bbr_quantization_budget`).
    fn target_bytes(&self) -> u64 {
        let mut target = self.bdp_bytes(self.cwnd_gain);
        if self.is_full && self.options.allows_aggregation {
            target += self.excess.bytes(self.bandwidth_bytes_per_sec());
        }
        let held_segments = match self.options.holds_bursts {
            true => BURSTS_HELD * self.burst_segments(),
            false => BURSTS_HELD,
        };
        target + held_segments * self.mss_bytes
    }

    fn least_window(&self) -> u64 {
        WINDOW_MIN_SEGMENTS * self.mss_bytes
    }

    fn enter(&mut self, mode: Mode) {
        self.mode = mode;
        (self.pacing_gain, self.cwnd_gain) = match mode {
            Mode::Startup => (HIGH_GAIN, HIGH_GAIN),
            Mode::Drain => (DRAIN_GAIN, HIGH_GAIN),
            Mode::ProbeBw if self.policer.is_found => (1.0, CWND_GAIN),
            Mode::ProbeBw => (CYCLE[self.cycle_index], CWND_GAIN),
            Mode::ProbeRtt => (1.0, 1.0),
        };
    }

    fn update_bandwidth(&mut self, ack: &AckSample) -> bool {
        let is_round_start = ack.rate.prior_delivered_bytes >= self.round_end_bytes && ack.delivered_bytes > 0;
        if is_round_start {
            self.round_end_bytes = ack.delivered_total_bytes;
            self.round += 1;
        }
        if let Some(bytes_per_sec) = ack.rate.bytes_per_sec() {
            let bytes_per_sec = bytes_per_sec as f64;
            // `bbr_update_min_rtt`: "Ignore low rate samples during this mode."
            let is_limited = ack.rate.is_app_limited || self.mode == Mode::ProbeRtt;
            if !is_limited || bytes_per_sec >= self.bandwidth.get() {
                self.bandwidth.update(self.round, BW_ROUNDS, bytes_per_sec);
            }
        }
        is_round_start
    }

    /// `bbr_check_full_bw_reached`.
    fn check_full(&mut self, ack: &AckSample) {
        if self.is_full || ack.rate.is_app_limited {
            return;
        }
        if self.bandwidth.get() >= self.full_bw * FULL_BW_GROWTH {
            self.full_bw = self.bandwidth.get();
            self.full_bw_rounds = 0;
            return;
        }
        self.full_bw_rounds += 1;
        self.is_full = self.full_bw_rounds >= FULL_BW_ROUNDS;
    }

    /// `bbr_is_next_cycle_phase`.
    fn advance_cycle(&mut self, ack: &AckSample) {
        let is_full_length = ack.now_ns.saturating_sub(self.cycle_at_ns) > self.min_rtt_ns;
        let is_next = match CYCLE[self.cycle_index] {
            gain if gain > 1.0 => {
                is_full_length && (ack.lost_bytes > 0 || ack.prior_in_flight_bytes >= self.bdp_bytes(gain))
            }
            gain if gain < 1.0 => is_full_length || ack.prior_in_flight_bytes <= self.bdp_bytes(1.0),
            _ => is_full_length,
        };
        if is_next {
            self.cycle_index = (self.cycle_index + 1) % CYCLE.len();
            self.cycle_at_ns = ack.now_ns;
            self.enter(Mode::ProbeBw);
        }
    }

    /// `bbr_update_min_rtt`.
    fn update_min_rtt(&mut self, ack: &AckSample, is_round_start: bool) {
        let is_expired = ack.now_ns > self.min_rtt_at_ns + MIN_RTT_WINDOW_NS;
        if let Some(rtt_ns) = ack.rtt_ns
            && (rtt_ns <= self.min_rtt_ns || is_expired)
        {
            (self.min_rtt_ns, self.min_rtt_at_ns) = (rtt_ns, ack.now_ns);
        }
        if is_expired && !self.is_idle_restart && self.mode != Mode::ProbeRtt {
            self.enter(Mode::ProbeRtt);
            self.prior_window_bytes = self.prior_window_bytes.max(self.window_bytes);
            self.probe_rtt_ends_ns = None;
        }
        if self.mode == Mode::ProbeRtt {
            match self.probe_rtt_ends_ns {
                None if ack.in_flight_bytes <= self.least_window() => {
                    self.probe_rtt_ends_ns = Some(ack.now_ns + PROBE_RTT_NS);
                    self.probe_rtt_round_end_bytes = ack.delivered_total_bytes;
                }
                Some(ends_ns) => {
                    let is_round_over =
                        is_round_start && ack.rate.prior_delivered_bytes >= self.probe_rtt_round_end_bytes;
                    if is_round_over {
                        self.probe_rtt_round_end_bytes = 0;
                    }
                    if ack.now_ns > ends_ns && self.probe_rtt_round_end_bytes == 0 {
                        self.min_rtt_at_ns = ack.now_ns;
                        self.restore_window();
                        self.enter(if self.is_full { Mode::ProbeBw } else { Mode::Startup });
                    }
                }
                None => {}
            }
        }
        if ack.delivered_bytes > 0 {
            self.is_idle_restart = false;
        }
    }

    /// What was saved stays saved: a recovery that ends while the shortest round trip is probed restores it in vain, and the end of the
    /// probe needs it again (`bbr_set_cwnd_to_recover_or_restore`, `bbr_check_probe_rtt_done`).
    fn restore_window(&mut self) {
        self.window_bytes = self.window_bytes.max(self.prior_window_bytes);
    }

    /// `bbr_set_cwnd`.
    fn set_window(&mut self, ack: &AckSample) {
        if ack.delivered_bytes == 0 {
            // Nothing has left the path: only the caps hold.
            self.cap_window();
            return;
        }
        let phase = ack.phase;
        let was_recovering = matches!(self.phase, Phase::Recovery | Phase::Loss);
        if ack.lost_bytes > 0 {
            self.window_bytes = self.window_bytes.saturating_sub(ack.lost_bytes).max(self.mss_bytes);
        }
        if phase == Phase::Recovery && self.phase != Phase::Recovery {
            // Packet conservation, for a round trip (`bbr_set_cwnd_to_recover_or_restore`).
            self.conserves_until_round = self.round + 1;
            self.round_end_bytes = ack.delivered_total_bytes;
            self.window_bytes = ack.in_flight_bytes + ack.delivered_bytes.max(self.mss_bytes);
        } else if was_recovering && matches!(phase, Phase::Open | Phase::Cwr) {
            self.conserves_until_round = 0;
            self.restore_window();
        }
        self.phase = phase;
        if self.round < self.conserves_until_round && phase == Phase::Recovery {
            self.window_bytes = self.window_bytes.max(ack.in_flight_bytes + ack.delivered_bytes);
        } else {
            let target = self.target_bytes();
            if self.is_full {
                self.window_bytes = (self.window_bytes + ack.delivered_bytes).min(target);
            } else if self.window_bytes < target || ack.delivered_total_bytes < 10 * self.mss_bytes {
                self.window_bytes += ack.delivered_bytes;
            }
            self.window_bytes = self.window_bytes.max(self.least_window());
        }
        self.cap_window();
    }

    fn cap_window(&mut self) {
        if self.mode == Mode::ProbeRtt {
            self.window_bytes = self.window_bytes.min(self.least_window());
        }
    }
}

impl Controller for Bbr1 {
    fn on_ack(&mut self, ack: &AckSample) {
        let is_round_start = self.update_bandwidth(ack);
        if self.options.detects_policers {
            let was_found = self.policer.is_found;
            let is_over = self.policer.update(ack, is_round_start, self.mode == Mode::ProbeBw);
            if is_over {
                // Any but the draining phase, as at the beginning.
                self.cycle_at_ns = ack.now_ns;
                self.cycle_index = (self.round as usize * 5 + 2) % CYCLE.len();
                self.enter(Mode::ProbeBw);
            } else if self.policer.is_found && !was_found {
                self.pacing_gain = 1.0;
            }
        }
        if ack.delivered_bytes > 0 && ack.rate.interval_ns > 0 {
            let (bandwidth, window_bytes) = (self.bandwidth_bytes_per_sec(), self.window_bytes);
            self.excess
                .update(ack, is_round_start, bandwidth, self.mss_bytes, window_bytes);
        }
        if self.mode == Mode::ProbeBw {
            self.advance_cycle(ack);
        }
        if is_round_start {
            self.check_full(ack);
        }
        if self.mode == Mode::Startup && self.is_full {
            self.enter(Mode::Drain);
        }
        if self.mode == Mode::Drain && ack.in_flight_bytes <= self.bdp_bytes(1.0) {
            self.cycle_at_ns = ack.now_ns;
            self.enter(Mode::ProbeBw);
        }
        self.update_min_rtt(ack, is_round_start);
        let rate = self.pacing_gain * self.bandwidth_bytes_per_sec() * PACING_MARGIN;
        if self.bandwidth.get() > 0.0 && (self.is_full || rate > self.rate) {
            self.rate = rate;
        }
        self.set_window(ack);
    }

    /// A loss changes the window only for the time of the recovery: see `set_window`.
    fn on_congestion(&mut self, _loss: &LossSample) {
        self.prior_window_bytes = match (self.phase, self.mode) {
            (Phase::Open | Phase::Cwr, mode) if mode != Mode::ProbeRtt => self.window_bytes,
            _ => self.prior_window_bytes.max(self.window_bytes),
        };
    }

    fn on_rto(&mut self, loss: &LossSample) {
        self.on_congestion(loss);
        self.phase = Phase::Loss;
        self.full_bw = 0.0;
        self.window_bytes = self.mss_bytes;
    }

    /// BBRv1 does not hear marks.
    fn on_ecn(&mut self, _loss: &LossSample) {}

    fn undo(&mut self) {
        self.full_bw = 0.0;
        self.full_bw_rounds = 0;
        self.restore_window();
    }

    /// Idling is no reason to forget the path; it goes on at the model's rate.
    fn on_idle_restart(&mut self, _now_ns: u64, _initial_bytes: u64) {
        self.is_idle_restart = true;
        if self.mode == Mode::ProbeBw {
            self.rate = self.bandwidth_bytes_per_sec() * PACING_MARGIN;
        }
    }

    #[inline]
    fn window_bytes(&self) -> u64 {
        self.window_bytes
    }

    #[inline]
    fn pacing_bytes_per_sec(&self) -> Option<u64> {
        Some(self.rate as u64)
    }

    #[inline]
    fn burst_bytes(&self) -> u64 {
        match self.options.sends_bursts {
            true => self.burst_segments() * self.mss_bytes,
            false => 0,
        }
    }

    fn is_slow_start(&self) -> bool {
        self.mode == Mode::Startup
    }

    fn rules_recovery(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u64 = 1_448;

    fn ack(phase: Phase, now_ns: u64) -> AckSample {
        AckSample {
            now_ns,
            delivered_bytes: MSS,
            delivered_total_bytes: 1 << 30,
            rtt_ns: Some(100_000_000),
            phase,
            ..AckSample::default()
        }
    }

    /// `bbr_save_cwnd`, `bbr_check_probe_rtt_done`: what was saved lives longer than a recovery that ends during the probe.
    #[test]
    fn a_window_saved_before_the_probe_of_the_round_trip_is_back_after_it() {
        let mut bbr = Bbr1::new(MSS as u32, 10 * MSS, 1, Bbr1Options::default());
        (bbr.is_full, bbr.min_rtt_ns) = (true, 100_000_000);
        bbr.bandwidth.update(0, BW_ROUNDS, 1_000.0 * MSS as f64 * 10.0);
        bbr.enter(Mode::ProbeBw);
        bbr.window_bytes = 800 * MSS;
        bbr.on_congestion(&LossSample::default());
        bbr.set_window(&ack(Phase::Recovery, 1));
        bbr.enter(Mode::ProbeRtt);
        bbr.prior_window_bytes = bbr.prior_window_bytes.max(bbr.window_bytes);
        bbr.set_window(&ack(Phase::Recovery, 2));
        bbr.set_window(&ack(Phase::Open, 3));
        assert_eq!(
            bbr.window_bytes(),
            4 * MSS,
            "four segments while the round trip is probed"
        );
        bbr.probe_rtt_ends_ns = Some(4);
        bbr.probe_rtt_round_end_bytes = 0;
        bbr.update_min_rtt(&ack(Phase::Open, 5), false);
        assert_eq!((bbr.mode, bbr.window_bytes()), (Mode::ProbeBw, 800 * MSS));
    }

    /// `bbr_tso_segs_goal`, `bbr_quantization_budget`: at 100 Mbit/s a burst is of eight segments, and on a path of 400 µs there is room for
    /// three of them beside twice what the path holds.
    #[test]
    fn on_a_short_path_bursts_are_most_of_the_window() {
        let window_segments = |holds_bursts: bool| {
            let options = Bbr1Options {
                holds_bursts,
                ..Bbr1Options::default()
            };
            let mut bbr = Bbr1::new(MSS as u32, 10 * MSS, 1, options);
            (bbr.is_full, bbr.min_rtt_ns, bbr.rate) = (true, 400_000, 12_500_000.0);
            bbr.bandwidth.update(0, BW_ROUNDS, 12_500_000.0);
            bbr.enter(Mode::ProbeBw);
            assert_eq!(bbr.burst_segments(), 8);
            assert_eq!(bbr.burst_bytes(), 8 * MSS);
            (bbr.target_bytes() - bbr.bdp_bytes(CWND_GAIN)) / MSS
        };
        assert_eq!((window_segments(true), window_segments(false)), (24, 3));
        let mut slow = Bbr1::new(MSS as u32, 10 * MSS, 1, Bbr1Options::default());
        slow.rate = 200_000.0;
        assert_eq!(slow.burst_segments(), 2);
        slow.rate = 100_000.0;
        assert_eq!(slow.burst_segments(), 1);
    }

    /// `bbr_lt_bw_sampling`: two intervals of four round trips that lose a quarter of what they deliver, at the same rate; believed for 48 round
    /// trips, and not at all if the loss is a tenth.
    #[test]
    fn a_path_that_loses_steadily_is_policed_for_a_while() {
        let found_at = |lost_segments: u64| {
            let (mut policer, mut ack) = (Policer::default(), AckSample::default());
            let mut found = None;
            let mut over = None;
            for round in 1..=80_u64 {
                ack.now_ns += 100_000_000;
                ack.delivered_bytes = 100 * MSS;
                ack.delivered_total_bytes += 100 * MSS;
                ack.lost_bytes = lost_segments * MSS;
                ack.lost_total_bytes += ack.lost_bytes;
                let is_over = policer.update(&ack, true, true);
                if policer.is_found && found.is_none() {
                    found = Some(round);
                    assert!((policer.rate - 1_000.0 * MSS as f32).abs() < MSS as f32, "{policer:?}");
                }
                if is_over && over.is_none() {
                    over = Some(round);
                }
            }
            (found, over)
        };
        let (found, over) = found_at(25);
        assert!(found.is_some_and(|round| (8..=12).contains(&round)), "{found:?}");
        assert_eq!(over, found.map(|round| round + u64::from(POLICED_ROUNDS)));
        assert_eq!(found_at(10), (None, None));
    }

    /// `bbr_update_ack_aggregation`: acks that come together bring more than the bandwidth had time for; ten round trips later it is forgotten.
    #[test]
    fn acks_in_a_bunch_make_room_for_a_while() {
        let mut excess = Excess::default();
        let ack = |now_ns: u64, segments: u64| AckSample {
            now_ns,
            delivered_bytes: segments * MSS,
            ..AckSample::default()
        };
        // A segment each millisecond is the bandwidth.
        let bandwidth = MSS as f64 * 1_000.0;
        excess.update(&ack(10_000_000, 1), true, bandwidth, MSS, 100 * MSS);
        excess.update(&ack(10_000_000, 7), false, bandwidth, MSS, 100 * MSS);
        assert_eq!(excess.bytes(bandwidth), 8 * MSS);
        for round in 0..10_u64 {
            excess.update(&ack((30 + round) * 1_000_000, 1), true, bandwidth, MSS, 100 * MSS);
        }
        assert!(excess.bytes(bandwidth) <= 2 * MSS, "{} bytes", excess.bytes(bandwidth));
        excess.update(&ack(60_000_000, 50), false, bandwidth, MSS, 4 * MSS);
        assert_eq!(excess.bytes(bandwidth), 4 * MSS, "no more than the window");
    }
}
