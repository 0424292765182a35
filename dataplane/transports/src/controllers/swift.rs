//! Swift: the window follows the delay toward a target, below one segment too (Kumar et al., SIGCOMM'20, algorithm 1 and §3.5).
//!
//! The paper has a window for the fabric and one for the end host. A flow here sees one round trip, which is the fabric's: hosts
//! take no time but what their owner adds to the path.

use std::time::Duration;

use crate::{AckSample, Controller, LossSample, tcp::timer::saturating_ns};

/// What a Swift may be told. The paper gives no list of production values; these are of its figures and of §4.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SwiftOptions {
    /// The target of a flow with a large window on a path without hops (§4.1: 25 µs and more saturate).
    pub base_target: Duration,
    /// What a hop adds (topology scaling, §3.5).
    pub hop_target: Duration,
    /// Switches between the hosts.
    pub hops_count: u32,
    /// The most that flow scaling adds, between these windows in segments (§3.5).
    pub flow_scaling_range: Duration,
    /// Where it adds all of that.
    pub flow_scaling_window_min: f64,
    /// Where it adds nothing.
    pub flow_scaling_window_max: f64,
    /// Segments per round trip; below a window of one segment, segments per ack (algorithm 1), so where thousands of flows share a link
    /// it has to be small. The paper does not say what is used.
    pub additive_increase: f64,
    /// How hard the excess is answered.
    pub beta: f64,
    /// The most that one reduction takes (max_mdf).
    pub decrease_max: f64,
    /// Bounds of the window, in segments.
    pub window_min: f64,
    /// See `window_min`.
    pub window_max: f64,
    /// Time-outs in a row until the window is the least (RETX_RESET_THRESHOLD).
    pub reset_after_timeouts: u32,
}

impl Default for SwiftOptions {
    fn default() -> SwiftOptions {
        SwiftOptions {
            base_target: Duration::from_micros(25),
            hop_target: Duration::from_micros(1),
            hops_count: 1,
            flow_scaling_range: Duration::from_micros(75),
            flow_scaling_window_min: 0.1,
            flow_scaling_window_max: 100.0,
            additive_increase: 1.0,
            beta: 0.8,
            decrease_max: 0.5,
            window_min: 0.001,
            window_max: 10_000.0,
            reset_after_timeouts: 5,
        }
    }
}

/// Swift.
#[derive(Clone, Copy, Debug)]
pub struct Swift {
    mss_bytes: f64,
    /// In segments.
    window: f64,
    /// The newest round trip: smoothed, it would remember a queue that is gone for as many pauses as it has samples.
    rtt_ns: u64,
    decreased_at_ns: Option<u64>,
    timeouts_count: u32,
    /// The target without flow scaling, and flow scaling's alpha and beta.
    target_ns: f64,
    scaling: (f64, f64),
    scaling_max_ns: f64,
    increase: f64,
    beta: f64,
    decrease_max: f64,
    bounds: (f64, f64),
    reset_after_timeouts: u32,
}

impl Swift {
    /// Begins with `initial_bytes`.
    pub fn new(mss_bytes: u32, initial_bytes: u64, options: SwiftOptions) -> Swift {
        let scaling_max_ns = saturating_ns(options.flow_scaling_range) as f64;
        let (least, most) = (
            options.flow_scaling_window_min.sqrt(),
            options.flow_scaling_window_max.sqrt(),
        );
        // §3.5: alpha = fs_range / (1/√fs_min − 1/√fs_max), beta = −alpha/√fs_max.
        let alpha = scaling_max_ns / (1.0 / least - 1.0 / most);
        let base_ns =
            saturating_ns(options.base_target) + u64::from(options.hops_count) * saturating_ns(options.hop_target);
        Swift {
            mss_bytes: mss_bytes.into(),
            window: (initial_bytes as f64 / f64::from(mss_bytes)).clamp(options.window_min, options.window_max),
            rtt_ns: 0,
            decreased_at_ns: None,
            timeouts_count: 0,
            target_ns: base_ns as f64,
            scaling: (alpha, -alpha / most),
            scaling_max_ns,
            increase: options.additive_increase,
            beta: options.beta,
            decrease_max: options.decrease_max,
            bounds: (options.window_min, options.window_max),
            reset_after_timeouts: options.reset_after_timeouts,
        }
    }

    /// The delay that it steers toward with its window of now, in nanoseconds.
    pub fn target_ns(&self) -> f64 {
        let (alpha, beta) = self.scaling;
        self.target_ns + (alpha / self.window.sqrt() + beta).clamp(0.0, self.scaling_max_ns)
    }

    /// The window in segments: below 1 it is a fraction.
    pub fn window_segments(&self) -> f64 {
        self.window
    }

    fn may_decrease(&self, now_ns: u64) -> bool {
        self.decreased_at_ns
            .is_none_or(|at_ns| now_ns.saturating_sub(at_ns) >= self.rtt_ns)
    }

    fn decrease(&mut self, now_ns: u64, factor: f64) {
        if self.may_decrease(now_ns) {
            self.window = (self.window * factor).max(self.bounds.0);
            self.decreased_at_ns = Some(now_ns);
        }
    }
}

impl Controller for Swift {
    fn on_ack(&mut self, ack: &AckSample) {
        let Some(delay_ns) = ack.rtt_ns else {
            return;
        };
        self.rtt_ns = delay_ns;
        self.timeouts_count = 0;
        let delay = delay_ns as f64;
        let target = self.target_ns();
        if delay < target {
            if ack.is_window_limited {
                let acked = ack.delivered_bytes as f64 / self.mss_bytes;
                let share = if self.window >= 1.0 { self.window } else { 1.0 };
                self.window = (self.window + self.increase / share * acked).min(self.bounds.1);
            }
        } else {
            let factor = (1.0 - self.beta * (delay - target) / delay).max(1.0 - self.decrease_max);
            self.decrease(ack.now_ns, factor);
        }
    }

    fn on_congestion(&mut self, loss: &LossSample) {
        self.timeouts_count = 0;
        self.decrease(loss.now_ns, 1.0 - self.decrease_max);
    }

    fn on_rto(&mut self, loss: &LossSample) {
        self.timeouts_count += 1;
        if self.timeouts_count >= self.reset_after_timeouts {
            self.window = self.bounds.0;
        } else {
            self.decrease(loss.now_ns, 1.0 - self.decrease_max);
        }
    }

    /// Swift hears the delay, not marks.
    fn on_ecn(&mut self, _loss: &LossSample) {}

    #[inline]
    fn window_bytes(&self) -> u64 {
        (self.window * self.mss_bytes) as u64
    }

    /// Below one segment: a segment each RTT/cwnd. Above, acks are clock enough.
    #[inline]
    fn pacing_bytes_per_sec(&self) -> Option<u64> {
        let is_fraction = self.window < 1.0 && self.rtt_ns > 0;
        is_fraction.then(|| (self.window * self.mss_bytes / self.rtt_ns as f64 * 1e9) as u64)
    }

    fn is_slow_start(&self) -> bool {
        false
    }

    fn rules_recovery(&self) -> bool {
        true
    }
}
