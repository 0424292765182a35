//! HyStart++, RFC 9406: leaves slow start when round trips grow, by way of a slower start that takes it back if they shrink again.

use crate::AckSample;

/// RFC 9406 §4.3.
const MIN_RTT_THRESH_NS: u64 = 4_000_000;
const MAX_RTT_THRESH_NS: u64 = 16_000_000;
const MIN_RTT_DIVISOR: u64 = 8;
const N_RTT_SAMPLE: u32 = 8;
const CSS_GROWTH_DIVISOR: u64 = 4;
const CSS_ROUNDS: u32 = 5;

/// One flow's first slow start.
#[derive(Clone, Copy, Debug, Default)]
pub struct HyStart {
    round_end: u64,
    /// Shortest round trips of this round and of the one before; 0: none.
    rtt_ns: u64,
    prior_rtt_ns: u64,
    samples_count: u32,
    /// In conservative slow start: the round trip it began for, and how many rounds it has lasted.
    baseline_ns: Option<u64>,
    css_rounds_count: u32,
}

impl HyStart {
    /// Answers how many of the acknowledged bytes count.
    pub fn on_ack(&mut self, ack: &AckSample) -> u64 {
        if ack.acked_end >= self.round_end {
            self.round_end = ack.sent_end;
            (self.prior_rtt_ns, self.rtt_ns, self.samples_count) = (self.rtt_ns, 0, 0);
            self.css_rounds_count += u32::from(self.baseline_ns.is_some());
        }
        if let Some(rtt_ns) = ack.rtt_ns {
            self.rtt_ns = if self.rtt_ns == 0 {
                rtt_ns
            } else {
                self.rtt_ns.min(rtt_ns)
            };
            self.samples_count += 1;
        }
        let is_known = self.samples_count >= N_RTT_SAMPLE && self.prior_rtt_ns > 0;
        match self.baseline_ns {
            None => {
                let thresh_ns = (self.prior_rtt_ns / MIN_RTT_DIVISOR).clamp(MIN_RTT_THRESH_NS, MAX_RTT_THRESH_NS);
                if is_known && self.rtt_ns >= self.prior_rtt_ns + thresh_ns {
                    self.baseline_ns = Some(self.rtt_ns);
                    self.css_rounds_count = 0;
                }
                ack.acked_bytes
            }
            Some(baseline_ns) => {
                if is_known && self.rtt_ns < baseline_ns {
                    self.baseline_ns = None;
                }
                ack.acked_bytes / CSS_GROWTH_DIVISOR
            }
        }
    }

    /// The slower start has lasted long enough.
    pub fn is_over(&self) -> bool {
        self.baseline_ns.is_some() && self.css_rounds_count >= CSS_ROUNDS
    }
}
