//! Round-trip times and the retransmission time-out they give: RFC 6298, with Karn's rule kept by the caller.

use super::timer::saturating_ns;
use crate::{RtoFloor, SenderOptions};

/// Twice as long each time, at most 2^20 times: RTOmax bounds it long before.
const BACKOFF_MAX: u8 = 20;

/// Estimates of one path.
#[derive(Clone, Copy, Debug)]
pub struct Rtt {
    /// 0 before the first sample.
    srtt_ns: u64,
    rttvar_ns: u64,
    /// `u64::MAX` before the first sample.
    min_ns: u64,
    /// Without back-off.
    rto_ns: u64,
    rto_min_ns: u64,
    rto_max_ns: u64,
    floor: RtoFloor,
    backoff: u8,
}

impl Rtt {
    pub fn new(options: &SenderOptions) -> Rtt {
        let rto_max_ns = saturating_ns(options.rto_max);
        Rtt {
            srtt_ns: 0,
            rttvar_ns: 0,
            min_ns: u64::MAX,
            rto_ns: saturating_ns(options.rto_initial).min(rto_max_ns),
            rto_min_ns: saturating_ns(options.rto_min),
            rto_max_ns,
            floor: options.rto_floor,
            backoff: 0,
        }
    }

    /// A round trip that is known to be of one transmission (Karn). Ends the back-off (RFC 6298 §5, note on 5.7).
    #[inline]
    pub fn on_sample(&mut self, rtt_ns: u64) {
        let rtt_ns = rtt_ns.max(1);
        if self.srtt_ns == 0 {
            // §2.2
            self.srtt_ns = rtt_ns;
            self.rttvar_ns = rtt_ns / 2;
        } else {
            // §2.3: beta 1/4, alpha 1/8, the variance first.
            self.rttvar_ns = self.rttvar_ns - self.rttvar_ns / 4 + self.srtt_ns.abs_diff(rtt_ns) / 4;
            self.srtt_ns = self.srtt_ns - self.srtt_ns / 8 + rtt_ns / 8;
        }
        let spread_ns = self.rttvar_ns.saturating_mul(4);
        let rto_ns = match self.floor {
            RtoFloor::Total => self.srtt_ns.saturating_add(spread_ns).max(self.rto_min_ns),
            RtoFloor::Variance => self.srtt_ns.saturating_add(spread_ns.max(self.rto_min_ns)),
        };
        self.rto_ns = rto_ns.min(self.rto_max_ns);
        self.backoff = 0;
    }

    /// The shortest round trip: also of segments whose time is not good enough for the RTO.
    #[inline]
    pub fn on_min(&mut self, rtt_ns: u64) {
        self.min_ns = self.min_ns.min(rtt_ns);
    }

    pub fn back_off(&mut self) {
        self.backoff = (self.backoff + 1).min(BACKOFF_MAX);
    }

    /// The time-out, backed off.
    #[inline]
    pub fn rto_ns(&self) -> u64 {
        self.rto_ns.saturating_mul(1 << self.backoff).min(self.rto_max_ns)
    }

    #[inline]
    pub fn srtt_ns(&self) -> u64 {
        self.srtt_ns
    }

    #[inline]
    pub fn min_ns(&self) -> u64 {
        self.min_ns
    }

    #[inline]
    pub fn backoff(&self) -> u8 {
        self.backoff
    }

    /// The time-out was spurious: what it backed off is taken back.
    pub fn undo_back_off(&mut self) {
        self.backoff = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn the_rto_follows_rfc_6298() {
        let options = SenderOptions {
            rto_min: Duration::from_millis(1),
            ..SenderOptions::default()
        };
        let mut rtt = Rtt::new(&options);
        assert_eq!(rtt.rto_ns(), 1_000 * MS);
        rtt.on_sample(100 * MS);
        // SRTT 100, RTTVAR 50.
        assert_eq!(rtt.rto_ns(), 300 * MS);
        rtt.on_sample(180 * MS);
        // RTTVAR 0.75 × 50 + 0.25 × 80 = 57.5, SRTT 110.
        assert_eq!(rtt.srtt_ns(), 110 * MS);
        assert_eq!(rtt.rto_ns(), 340 * MS);
    }

    #[test]
    fn it_doubles_to_its_bound_and_a_sample_ends_that() {
        let mut rtt = Rtt::new(&SenderOptions::default());
        rtt.on_sample(MS);
        let mut seen_s = Vec::new();
        for _ in 0..8 {
            seen_s.push(rtt.rto_ns() / (1_000 * MS));
            rtt.back_off();
        }
        assert_eq!(seen_s, [1, 2, 4, 8, 16, 32, 60, 60]);
        rtt.on_sample(MS);
        assert_eq!(rtt.rto_ns(), 1_000 * MS);
    }

    #[test]
    fn linux_bounds_the_variance_and_not_the_sum() {
        let mut rtt = Rtt::new(&SenderOptions::linux_2026());
        for _ in 0..100 {
            rtt.on_sample(50 * MS);
        }
        assert_eq!(rtt.rto_ns(), 250 * MS);
    }
}
