//! A server in virtual time for lesson 2. It stands still for a known part of each second, so the true percentiles can
//! be computed on paper and a recorder can be caught lying.
//!
//! ```text
//! second   0                      0.8      1.0                      1.8      2.0
//! server   ├─ answers at once ────┤ stopped ├─ answers at once ──────┤ stopped ├─ …
//! ```
//!
//! Requests that come while it is stopped wait in its receive buffer and are answered the moment it goes on. A request
//! that arrives uniformly within the second waits longer than x with probability 0.2 − x/1 s (for x below 0.2 s): the
//! 90th percentile is 100 ms, the 99th 190 ms, and the median is the bare round trip.

/// Nanoseconds in a microsecond.
pub const US: u64 = 1_000;
/// Nanoseconds in a millisecond.
pub const MS: u64 = 1_000_000;
/// Nanoseconds in a second.
pub const SECOND: u64 = 1_000_000_000;

/// The server stops once in so long.
pub const PERIOD_NS: u64 = SECOND;
/// It is stopped for the last so long of each period.
pub const STOPPED_NS: u64 = 200 * MS;
/// What a request and its reply take when nothing is in their way.
pub const RTT_NS: u64 = 50 * US;

/// A server that stands still for the last [`STOPPED_NS`] of each [`PERIOD_NS`].
#[derive(Debug)]
pub struct StalledServer {
    room_frames_count: usize,
    waiting_frames_count: usize,
    /// When those that wait will be answered.
    goes_on_ns: u64,
    last_sent_ns: u64,
}

impl StalledServer {
    /// A server whose receive buffer holds as many requests as `room_frames_count`; more are dropped, as the kernel does.
    pub fn new(room_frames_count: usize) -> StalledServer {
        StalledServer {
            room_frames_count,
            waiting_frames_count: 0,
            goes_on_ns: 0,
            last_sent_ns: 0,
        }
    }

    /// When the reply to a request sent at `sent_ns` is back; `None`: never, it was dropped.
    ///
    /// # Panics
    /// If `sent_ns` is before the request asked about last: time does not run backwards.
    pub fn ask(&mut self, sent_ns: u64) -> Option<u64> {
        assert!(
            sent_ns >= self.last_sent_ns,
            "sent at {sent_ns} ns, after one sent at {} ns",
            self.last_sent_ns
        );
        self.last_sent_ns = sent_ns;
        let period_begin_ns = sent_ns - sent_ns % PERIOD_NS;
        if sent_ns < period_begin_ns + PERIOD_NS - STOPPED_NS {
            return Some(sent_ns + RTT_NS);
        }
        let goes_on_ns = period_begin_ns + PERIOD_NS;
        if self.goes_on_ns != goes_on_ns {
            (self.goes_on_ns, self.waiting_frames_count) = (goes_on_ns, 0);
        }
        if self.waiting_frames_count == self.room_frames_count {
            return None;
        }
        self.waiting_frames_count += 1;
        Some(goes_on_ns + RTT_NS)
    }
}

/// The smallest value that at least the share `q` (0 to 1) of all values does not exceed: the nearest-rank definition,
/// which never invents a value between two that were seen.
///
/// # Panics
/// If there are no values, or they are not sorted.
pub fn quantile_ns(sorted_ns: &[u64], q: f64) -> u64 {
    assert!(sorted_ns.is_sorted(), "sort first");
    sorted_ns[rank(sorted_ns.len(), q) - 1]
}

/// The rank, from 1, of the value that [`quantile_ns`] answers with among `values_count`.
pub fn rank(values_count: usize, q: f64) -> usize {
    ((q * values_count as f64).ceil() as usize).clamp(1, values_count.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_truth_on_paper() {
        let mut server = StalledServer::new(usize::MAX);
        let mut waits_ns: Vec<u64> = (0..10_000)
            .map(|index| index * MS)
            .map(|sent_ns| server.ask(sent_ns).expect("room for all") - sent_ns - RTT_NS)
            .collect();
        waits_ns.sort_unstable();
        assert_eq!(quantile_ns(&waits_ns, 0.5), 0);
        assert_eq!(quantile_ns(&waits_ns, 0.8), 0);
        assert_eq!(quantile_ns(&waits_ns, 0.9), 100 * MS);
        assert_eq!(quantile_ns(&waits_ns, 0.99), 190 * MS);
        assert_eq!(quantile_ns(&waits_ns, 1.0), 200 * MS);
    }

    #[test]
    fn a_full_buffer_drops_until_the_server_goes_on() {
        let mut server = StalledServer::new(2);
        assert_eq!(server.ask(800 * MS), Some(SECOND + RTT_NS));
        assert_eq!(server.ask(900 * MS), Some(SECOND + RTT_NS));
        assert_eq!(server.ask(999 * MS), None);
        assert_eq!(server.ask(SECOND), Some(SECOND + RTT_NS));
        assert_eq!(
            server.ask(1800 * MS),
            Some(2 * SECOND + RTT_NS),
            "the buffer is empty again"
        );
    }
}
