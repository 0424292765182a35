//! NewReno's window: slow start, congestion avoidance, half after a loss (RFC 5681, with byte counting by RFC 3465).

use crate::{AckSample, Controller, LossSample, Phase};

/// Growth by acked bytes, and half of it after a loss.
#[derive(Clone, Copy, Debug)]
pub struct NewReno {
    window_bytes: u64,
    ssthresh_bytes: u64,
    /// Bytes acknowledged since the window grew last by a segment.
    acked_bytes: u64,
    /// Window and threshold before the last reduction.
    prior: (u64, u64),
    mss_bytes: u64,
    grows_per_ack: bool,
}

impl NewReno {
    /// Begins with `initial_bytes`.
    pub fn new(mss_bytes: u32, initial_bytes: u64) -> NewReno {
        NewReno {
            window_bytes: initial_bytes,
            ssthresh_bytes: u64::MAX,
            acked_bytes: 0,
            prior: (initial_bytes, u64::MAX),
            mss_bytes: mss_bytes.into(),
            grows_per_ack: false,
        }
    }

    /// Growth by acks instead of bytes, if `grows_per_ack`: RFC 5681 §3.1, equations 2 and 3.
    pub fn with_growth_per_ack(self, grows_per_ack: bool) -> NewReno {
        NewReno { grows_per_ack, ..self }
    }

    /// The slow start threshold in bytes.
    pub fn ssthresh_bytes(&self) -> u64 {
        self.ssthresh_bytes
    }

    /// RFC 5681 §3.1, equation 4: half the flight, at least two segments. RFC 5681 counts what is in flight, not the window.
    fn reduce(&mut self, in_flight_bytes: u64) {
        self.prior = (self.window_bytes, self.ssthresh_bytes);
        self.ssthresh_bytes = (in_flight_bytes / 2).max(2 * self.mss_bytes);
    }

    /// The growth itself, for controllers that share it.
    #[inline]
    pub(crate) fn grow(&mut self, ack: &AckSample) {
        let may_grow = ack.is_window_limited && matches!(ack.phase, Phase::Open | Phase::Loss);
        if !may_grow || ack.acked_bytes == 0 {
            return;
        }
        if self.grows_per_ack {
            self.window_bytes += match self.is_slow_start() {
                true => self.mss_bytes,
                false => (self.mss_bytes * self.mss_bytes / self.window_bytes).max(1),
            };
            return;
        }
        let mut acked = ack.acked_bytes;
        if self.is_slow_start() {
            // RFC 3465 with L unbounded, as Linux has it: what was acknowledged, whole, but not past the threshold.
            let step = acked.min(self.ssthresh_bytes - self.window_bytes);
            self.window_bytes += step;
            acked -= step;
        }
        if acked > 0 {
            self.acked_bytes += acked;
            if self.acked_bytes >= self.window_bytes {
                self.acked_bytes -= self.window_bytes;
                self.window_bytes += self.mss_bytes;
            }
        }
    }

    pub(crate) fn set_window(&mut self, window_bytes: u64, ssthresh_bytes: u64) {
        self.prior = (self.window_bytes, self.ssthresh_bytes);
        (self.window_bytes, self.ssthresh_bytes) = (window_bytes, ssthresh_bytes);
    }

    /// What slow start has after a time-out.
    pub(crate) fn collapse(&mut self) {
        self.window_bytes = self.mss_bytes;
        self.acked_bytes = 0;
    }

    pub(crate) fn enlarge_to(&mut self, window_bytes: u64) {
        self.window_bytes = self.window_bytes.max(window_bytes);
    }

    pub(crate) fn end_slow_start(&mut self) {
        self.ssthresh_bytes = self.window_bytes;
    }
}

impl Controller for NewReno {
    #[inline]
    fn on_ack(&mut self, ack: &AckSample) {
        self.grow(ack);
    }

    fn on_congestion(&mut self, loss: &LossSample) {
        self.reduce(loss.in_flight_bytes);
        self.window_bytes = self.ssthresh_bytes;
    }

    fn on_rto(&mut self, loss: &LossSample) {
        if !loss.is_repeated {
            self.reduce(loss.in_flight_bytes);
        }
        self.collapse();
    }

    fn undo(&mut self) {
        self.window_bytes = self.window_bytes.max(self.prior.0);
        self.ssthresh_bytes = self.ssthresh_bytes.max(self.prior.1);
    }

    fn on_idle_restart(&mut self, _now_ns: u64, initial_bytes: u64) {
        self.window_bytes = self.window_bytes.min(initial_bytes);
    }

    #[inline]
    fn window_bytes(&self) -> u64 {
        self.window_bytes
    }

    #[inline]
    fn is_slow_start(&self) -> bool {
        self.window_bytes < self.ssthresh_bytes
    }
}
