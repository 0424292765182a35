//! CUBIC's window: after a loss it comes back along a cubic of the time since, whatever the round trip (RFC 9438); HyStart++
//! (RFC 9406) leaves slow start before the queue overflows, where it is switched on.

use super::{NewReno, hystart::HyStart};
use crate::{AckSample, Controller, LossSample, Phase};

/// RFC 9438 §5.1: how fast the window grows, in segments per second cubed.
pub const C: f64 = 0.4;
/// RFC 9438 §4.6: what a loss leaves of the window.
pub const BETA: f64 = 0.7;

/// What a CUBIC may be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CubicOptions {
    /// A competitor that comes up gets room faster (RFC 9438 §4.7).
    pub fast_convergence: bool,
    /// Slow start ends when round trips grow (RFC 9406). Linux has HyStart, which is older, instead.
    pub hystart: bool,
}

impl Default for CubicOptions {
    fn default() -> CubicOptions {
        CubicOptions {
            fast_convergence: true,
            hystart: false,
        }
    }
}

/// CUBIC. Slow start is NewReno's.
#[derive(Clone, Copy, Debug)]
pub struct Cubic {
    reno: NewReno,
    mss_bytes: f64,
    /// W_max, in segments; before the last reduction, for undoing it.
    w_max: f64,
    prior_w_max: f64,
    /// The epoch: when congestion avoidance began, the window then, and when the cubic reaches W_max.
    epoch_ns: Option<u64>,
    k_sec: f64,
    /// W_est: what Reno would have; cwnd_prior, with which it grows faster.
    w_est: f64,
    w_prior: f64,
    /// Parts of a byte that the window is owed.
    owed_bytes: f64,
    hystart: Option<HyStart>,
    fast_convergence: bool,
}

impl Cubic {
    /// Begins with `initial_bytes`.
    pub fn new(mss_bytes: u32, initial_bytes: u64, options: CubicOptions) -> Cubic {
        Cubic {
            reno: NewReno::new(mss_bytes, initial_bytes),
            mss_bytes: mss_bytes.into(),
            w_max: 0.0,
            prior_w_max: 0.0,
            epoch_ns: None,
            k_sec: 0.0,
            w_est: 0.0,
            w_prior: 0.0,
            owed_bytes: 0.0,
            hystart: options.hystart.then(HyStart::default),
            fast_convergence: options.fast_convergence,
        }
    }

    fn segments(&self) -> f64 {
        self.reno.window_bytes() as f64 / self.mss_bytes
    }

    /// RFC 9438 §4.2 figure 1: W_cubic(t), in segments.
    fn w_cubic(&self, t_sec: f64) -> f64 {
        C * (t_sec - self.k_sec).powi(3) + self.w_max
    }

    fn begin_epoch(&mut self, now_ns: u64) {
        let window = self.segments();
        self.epoch_ns = Some(now_ns);
        // §4.2: without a loss that it comes back from, the plateau is here.
        self.w_max = self.w_max.max(window);
        self.k_sec = ((self.w_max - window) / C).cbrt();
        self.w_est = window;
        self.owed_bytes = 0.0;
    }

    fn avoid_congestion(&mut self, ack: &AckSample) {
        let began_ns = match self.epoch_ns {
            Some(began_ns) => began_ns,
            None => {
                self.begin_epoch(ack.now_ns);
                ack.now_ns
            }
        };
        let t_sec = ack.now_ns.saturating_sub(began_ns) as f64 / 1e9;
        let rtt_sec = ack.srtt_ns as f64 / 1e9;
        let window = self.segments();
        let acked = ack.acked_bytes as f64 / self.mss_bytes;
        // §4.3: Reno's window beside it, slower below the old one, because it backs off less.
        let alpha = if self.w_est < self.w_prior {
            3.0 * (1.0 - BETA) / (1.0 + BETA)
        } else {
            1.0
        };
        self.w_est += alpha * acked / window;
        let next = if self.w_cubic(t_sec) < self.w_est {
            self.w_est
        } else {
            // §4.4 and §4.5: toward where the cubic is a round trip from now, at most half as much again in one.
            let target = self.w_cubic(t_sec + rtt_sec).clamp(window, 1.5 * window);
            window + (target - window) / window * acked
        };
        self.owed_bytes += (next - window).max(0.0) * self.mss_bytes;
        let whole_bytes = self.owed_bytes.floor();
        self.owed_bytes -= whole_bytes;
        let window_bytes = self.reno.window_bytes() + whole_bytes as u64;
        self.reno.enlarge_to(window_bytes);
    }

    /// §4.6 and §4.7.
    fn reduce(&mut self) {
        let window = self.segments();
        (self.prior_w_max, self.w_prior) = (self.w_max, window);
        let is_shrinking = self.fast_convergence && window < self.w_max;
        self.w_max = if is_shrinking {
            window * (1.0 + BETA) / 2.0
        } else {
            window
        };
        self.epoch_ns = None;
        let left_bytes = (window * BETA).max(2.0) * self.mss_bytes;
        self.reno.set_window(left_bytes as u64, left_bytes as u64);
    }
}

impl Controller for Cubic {
    #[inline]
    fn on_ack(&mut self, ack: &AckSample) {
        if let Some(hystart) = &mut self.hystart
            && self.reno.is_slow_start()
            && self.w_prior == 0.0
        {
            let mut slower = *ack;
            slower.acked_bytes = hystart.on_ack(ack);
            self.reno.grow(&slower);
            if hystart.is_over() {
                self.reno.end_slow_start();
            }
            return;
        }
        let may_grow = ack.is_window_limited && matches!(ack.phase, Phase::Open | Phase::Loss);
        if self.reno.is_slow_start() {
            self.reno.grow(ack);
        } else if may_grow && ack.acked_bytes > 0 {
            self.avoid_congestion(ack);
        } else if !ack.is_window_limited && ack.phase == Phase::Open {
            // §5.8: time in which the application had nothing to send does not count.
            self.epoch_ns = None;
        }
    }

    fn on_congestion(&mut self, _loss: &LossSample) {
        self.reduce();
    }

    /// §4.8: the same reduction, then slow start from one segment.
    fn on_rto(&mut self, loss: &LossSample) {
        if !loss.is_repeated {
            self.reduce();
        }
        self.reno.collapse();
    }

    fn undo(&mut self) {
        self.w_max = self.prior_w_max;
        self.epoch_ns = None;
        self.reno.undo();
    }

    fn on_idle_restart(&mut self, now_ns: u64, initial_bytes: u64) {
        self.epoch_ns = None;
        self.reno.on_idle_restart(now_ns, initial_bytes);
    }

    #[inline]
    fn window_bytes(&self) -> u64 {
        self.reno.window_bytes()
    }

    #[inline]
    fn is_slow_start(&self) -> bool {
        self.reno.is_slow_start()
    }
}
