//! DCTCP's window: reduced in proportion to the share of bytes that were marked (RFC 8257).

use super::{Growth, NewReno};
use crate::{AckSample, Controller, LossSample, Phase};

/// What a DCTCP may be told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DctcpOptions {
    /// The weight of a new window in the estimate: 1/16 in the paper (SIGCOMM'10 §3.4) and in RFC 8257 §4.2.
    pub gain: f32,
    /// The estimate before the first window. RFC 8257 §4.2 and Linux: 1, so that a first mark halves; the paper's begins at 0.
    pub alpha_initial: f32,
    /// The least window after a mark, in segments. RFC 8257 §3.3 has one; Linux two; ns-3.37 none.
    pub window_min_segments: u32,
    /// A loss reduces as a mark does, by alpha / 2: ns-3.37 (`TcpDctcp::GetSsThresh`). RFC 8257 §3.5: as in any TCP, by half.
    pub losses_are_marks: bool,
    /// The first window under observation ends with the first flight: ns-3.37 (`TcpDctcp::PktsAcked`). RFC 8257 §3.3 and Linux: with the
    /// first ack, so that the estimate has decayed once more.
    pub first_window_is_whole: bool,
    /// What was acknowledged is counted by acks where losses are: a duplicate ack stands for a segment, and so does a partial one, however much
    /// it covers: ns-3.37 (`TcpSocketBase::ProcessAck`, `PktsAcked`). RFC 8257 §3.3: bytes that are newly acknowledged.
    pub counts_acks: bool,
    /// What makes the window grow beside marks.
    pub growth: Growth,
}

impl Default for DctcpOptions {
    fn default() -> DctcpOptions {
        DctcpOptions {
            gain: 1.0 / 16.0,
            alpha_initial: 1.0,
            window_min_segments: 2,
            losses_are_marks: false,
            first_window_is_whole: false,
            counts_acks: false,
            growth: Growth::Bytes,
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
            reno: NewReno::new(mss_bytes, initial_bytes).with_growth(options.growth),
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

    /// RFC 8257 §3.3 step 9: cwnd × (1 - alpha / 2).
    fn left_by_mark(&self) -> u64 {
        let least = u64::from(self.mss_bytes) * u64::from(self.options.window_min_segments);
        let window = self.reno.window_bytes();
        let left = window - (window as f64 * f64::from(self.alpha) / 2.0) as u64;
        left.max(least)
    }
}

impl Controller for Dctcp {
    #[inline]
    fn on_ack(&mut self, ack: &AckSample) {
        // RFC 8257 §3.3, steps 1 to 7.
        let acked_bytes = match self.options.counts_acks && (ack.acked_bytes == 0 || ack.phase == Phase::Recovery) {
            true => self.mss_bytes.into(),
            false => ack.acked_bytes,
        };
        self.acked_bytes += acked_bytes;
        if ack.ece {
            self.marked_bytes += acked_bytes;
        }
        if self.window_end == 0 && self.options.first_window_is_whole {
            self.window_end = ack.sent_end;
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

    fn on_ecn(&mut self, _loss: &LossSample) {
        let left = self.left_by_mark();
        self.reno.set_window(left, left);
    }

    /// RFC 8257 §3.5: a loss counts as in any TCP.
    fn on_congestion(&mut self, loss: &LossSample) {
        match self.options.losses_are_marks {
            true => self.on_ecn(loss),
            false => self.reno.on_congestion(loss),
        }
    }

    fn on_rto(&mut self, loss: &LossSample) {
        if self.options.losses_are_marks && !loss.is_repeated {
            let left = self.left_by_mark();
            self.reno.set_window(left, left);
            self.reno.collapse();
        } else {
            self.reno.on_rto(loss);
        }
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
