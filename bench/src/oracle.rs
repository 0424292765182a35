//! What a perfect observer would have seen: the reply times of a server that stands still now and then, computed from
//! the schedule, the moments at which it really was stopped, and the time that a request takes it. It knows nothing of the
//! load generator's clocks or histograms, so it can judge them.

use crate::record::QuantileValue;

/// One period in which the server did nothing, nanoseconds from the load's start.
pub type StallNs = (u64, u64);

/// The reply times in nanoseconds, sorted, of requests that come at `intended_ns` (ascending) to one server that needs
/// `service_ns` each, serves in order, loses nothing, and stands still during `stalls_ns` (ascending).
///
/// Lindley's recursion (Proc. Cambridge Phil. Soc. 48, 1952) with interruptions of the server.
pub fn reply_times_ns(intended_ns: &[u64], stalls_ns: &[StallNs], service_ns: u64) -> Vec<u64> {
    let mut stalls = stalls_ns.iter().copied().peekable();
    let mut free_ns = 0;
    let mut replies: Vec<u64> = intended_ns
        .iter()
        .map(|&intended_ns| {
            let mut done_ns = intended_ns.max(free_ns) + service_ns;
            while let Some((stop_ns, go_ns)) = stalls.peek().copied() {
                if done_ns <= stop_ns {
                    break;
                }
                // Work that a stall cut in two is finished after it; work that had not begun begins after it.
                let begun_ns = done_ns - service_ns;
                if begun_ns < go_ns {
                    done_ns = go_ns + service_ns.min(done_ns - stop_ns.max(begun_ns));
                }
                stalls.next();
            }
            free_ns = done_ns;
            done_ns - intended_ns
        })
        .collect();
    replies.sort_unstable();
    replies
}

/// The quantile of sorted reply times, of which `lost_count` more were never answered.
pub fn quantile(sorted_ns: &[u64], lost_count: u64, q: f64) -> QuantileValue {
    let total_count = sorted_ns.len() as u64 + lost_count;
    if total_count == 0 {
        return QuantileValue::Unsupported;
    }
    let rank = ((q * total_count as f64).ceil() as u64).clamp(1, total_count);
    sorted_ns
        .get(rank as usize - 1)
        .map_or(QuantileValue::Lost, |ns| QuantileValue::Ns(*ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// P(delay > x) = 0.2 − x per second: p90 = 100 ms, p99 = 190 ms.
    #[test]
    fn a_fifth_of_each_second_stopped() {
        let intended: Vec<u64> = (0..10_000).map(|index| index * MS + MS / 2).collect();
        let stalls: Vec<StallNs> = (1..=10)
            .map(|second| (second * 1000 * MS - 200 * MS, second * 1000 * MS))
            .collect();
        let replies = reply_times_ns(&intended, &stalls, 0);
        assert_eq!(quantile(&replies, 0, 0.5), QuantileValue::Ns(0));
        assert_eq!(quantile(&replies, 0, 0.9), QuantileValue::Ns(100 * MS - MS / 2));
        assert_eq!(quantile(&replies, 0, 0.99), QuantileValue::Ns(190 * MS - MS / 2));
        assert_eq!(*replies.last().expect("replies"), 200 * MS - MS / 2);
    }

    #[test]
    fn a_backlog_drains_in_order() {
        // Three requests during the stall 10..20, 2 each afterwards.
        assert_eq!(reply_times_ns(&[11, 12, 13], &[(10, 20)], 2), vec![11, 12, 13]);
        // One that had done 1 of its 2 when it was stopped.
        assert_eq!(reply_times_ns(&[9], &[(10, 20)], 2), vec![12]);
        // One that is done just in time, one that comes just after.
        assert_eq!(reply_times_ns(&[8, 20], &[(10, 20)], 2), vec![2, 2]);
    }

    #[test]
    fn the_lost_are_above_every_time() {
        assert_eq!(quantile(&[1, 2, 3, 4], 1, 0.8), QuantileValue::Ns(4));
        assert_eq!(quantile(&[1, 2, 3, 4], 1, 0.81), QuantileValue::Lost);
        assert_eq!(quantile(&[], 0, 0.5), QuantileValue::Unsupported);
    }
}
