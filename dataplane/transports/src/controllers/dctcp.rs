//! DCTCP's window: reduced in proportion to the share of bytes that were marked (RFC 8257).

use super::NewReno;
use crate::{AckSample, Controller, LossSample};

/// What a DCTCP may be told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DctcpOptions {
    /// The weight of a new window in the estimate: 1/16 in the paper (SIGCOMM'10 §3.4) and in RFC 8257 §4.2.
    pub gain: f32,
    /// The estimate before the first window. RFC 8257 §4.2 and Linux: 1, so that a first mark halves; the paper's begins at 0.
    pub alpha_initial: f32,
    /// The least window after a mark, in segments. RFC 8257 §3.3 has one; Linux two.
    pub window_min_segments: u32,
}

impl Default for DctcpOptions {
    fn default() -> DctcpOptions {
        DctcpOptions {
            gain: 1.0 / 16.0,
            alpha_initial: 1.0,
            window_min_segments: 2,
        }
    }
}

/// NewReno's growth and its answer to losses; marks reduce by alpha/2.
#[derive(Clone, Copy, Debug)]
pub struct Dctcp {
    reno: NewReno,
    /// Of the window of data under observation: where it ends, what was acknowledged of it, and with marks.
    window_end: u64,
    acked_bytes: u64,
    marked_bytes: u64,
    mss_bytes: u32,
    alpha: f32,
    options: DctcpOptions,
}

impl Dctcp {
    /// Begins with `initial_bytes`.
    pub fn new(mss_bytes: u32, initial_bytes: u64, options: DctcpOptions) -> Dctcp {
        Dctcp {
            reno: NewReno::new(mss_bytes, initial_bytes),
            window_end: 0,
            acked_bytes: 0,
            marked_bytes: 0,
            mss_bytes,
            alpha: options.alpha_initial,
            options,
        }
    }

    /// The estimate of the share of bytes that are marked, 0 to 1.
    pub fn alpha(&self) -> f32 {
        self.alpha
    }
}

impl Controller for Dctcp {
    #[inline]
    fn on_ack(&mut self, ack: &AckSample) {
        // RFC 8257 §3.3, steps 1 to 7.
        self.acked_bytes += ack.acked_bytes;
        if ack.ece {
            self.marked_bytes += ack.acked_bytes;
        }
        if ack.acked_end >= self.window_end {
            if self.acked_bytes > 0 {
                let marked = self.marked_bytes as f32 / self.acked_bytes as f32;
                self.alpha += self.options.gain * (marked - self.alpha);
            }
            self.window_end = ack.sent_end;
            self.acked_bytes = 0;
            self.marked_bytes = 0;
        }
        self.reno.grow(ack);
    }

    /// RFC 8257 §3.3 step 9: cwnd × (1 - alpha / 2).
    fn on_ecn(&mut self, _loss: &LossSample) {
        let least = u64::from(self.mss_bytes) * u64::from(self.options.window_min_segments.max(1));
        let window = self.reno.window_bytes();
        let left = window - (window as f64 * f64::from(self.alpha) / 2.0) as u64;
        self.reno.set_window(left.max(least), left.max(least));
    }

    /// RFC 8257 §3.4: a loss counts as in any TCP.
    fn on_congestion(&mut self, loss: &LossSample) {
        self.reno.on_congestion(loss);
    }

    fn on_rto(&mut self, loss: &LossSample) {
        self.reno.on_rto(loss);
    }

    fn undo(&mut self) {
        self.reno.undo();
    }

    fn on_idle_restart(&mut self, now_ns: u64, initial_bytes: u64) {
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
