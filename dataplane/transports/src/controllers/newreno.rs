//! NewReno's window: slow start, congestion avoidance, half after a loss (RFC 5681, with byte counting by RFC 3465).

use crate::{AckSample, Controller, LossSample, Phase};

/// What makes a window grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Growth {
    /// Bytes that are acknowledged: RFC 5681 §3.1 recommends it, RFC 3465.
    #[default]
    Bytes,
    /// Acks: each adds a segment in slow start, and SMSS²/cwnd after it (RFC 5681 §3.1, equations 2 and 3). ns-3.37, `TcpNewReno`.
    Acks,
    /// Segments that are acknowledged, against the whole segments of the window: Linux, whose windows have no others
    /// (`tcp_cong_avoid_ai`), and ns-3.37, `TcpLinuxReno`, where a window may have a fraction that does not count.
    Segments,
}

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
    growth: Growth,
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
            growth: Growth::Bytes,
        }
    }

    /// Growth by something else than bytes.
    pub fn with_growth(self, growth: Growth) -> NewReno {
        NewReno { growth, ..self }
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
        match self.growth {
            Growth::Bytes => self.grow_by_bytes(ack.acked_bytes),
            Growth::Acks => self.grow_by_ack(ack.acked_bytes / self.mss_bytes),
            Growth::Segments => self.grow_by_segments(ack.acked_bytes / self.mss_bytes),
        }
    }

    #[inline]
    fn grow_by_bytes(&mut self, mut acked: u64) {
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

    /// An ack of several segments that leaves slow start adds by both rules (`TcpNewReno::IncreaseWindow`).
    fn grow_by_ack(&mut self, mut segments_count: u64) {
        if self.is_slow_start() && segments_count > 0 {
            self.window_bytes += self.mss_bytes;
            segments_count -= 1;
        }
        if !self.is_slow_start() && segments_count > 0 {
            self.window_bytes += (self.mss_bytes * self.mss_bytes / self.window_bytes).max(1);
        }
    }

    /// What is beyond the threshold in an ack that reaches it does not count (`TcpLinuxReno::IncreaseWindow`).
    fn grow_by_segments(&mut self, segments_count: u64) {
        if self.is_slow_start() {
            let grown = self.window_bytes + segments_count * self.mss_bytes;
            self.window_bytes = grown.min(self.ssthresh_bytes);
            return;
        }
        let whole_bytes = (self.window_bytes / self.mss_bytes).max(1) * self.mss_bytes;
        if self.acked_bytes >= whole_bytes {
            self.acked_bytes = 0;
            self.window_bytes += self.mss_bytes;
        }
        self.acked_bytes += segments_count * self.mss_bytes;
        let steps_count = self.acked_bytes / whole_bytes;
        self.acked_bytes -= steps_count * whole_bytes;
        self.window_bytes += steps_count * self.mss_bytes;
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
