//! Lesson 2, your turn. A recorder that lets its server set the pace, a histogram to be repaired afterwards, and a
//! percentile that forgets what was lost. Delete an `#[ignore]`, watch the test fail, mend the function above it.
#![forbid(unsafe_code)]

use lessons::stall::{MS, RTT_NS, SECOND, STOPPED_NS, StalledServer, US, quantile_ns};

/// How long all runs are: ten stalls.
const DURATION_NS: u64 = 10 * SECOND;

// ---- 1. From closed to open -----------------------------------------------------------------------------------------

/// Asks once every `interval_ns`; how long each reply took, sorted. The server has room for everybody.
fn latencies_ns(server: &mut StalledServer, interval_ns: u64) -> Vec<u64> {
    let mut latencies_ns = Vec::new();
    let mut sent_ns = 0;
    while sent_ns < DURATION_NS {
        let replied_ns = server.ask(sent_ns).expect("room for everybody");
        latencies_ns.push(replied_ns - sent_ns);
        // The next request leaves at the next tick after the reply. Who decides how many requests meet a stall?
        sent_ns = replied_ns.next_multiple_of(interval_ns);
    }
    latencies_ns.sort_unstable();
    latencies_ns
}

#[test]
#[ignore = "your turn: delete this line"]
fn a_fifth_of_the_time_is_seen() {
    let seen = latencies_ns(&mut StalledServer::new(usize::MAX), MS);
    assert_eq!(quantile_ns(&seen, 0.50), RTT_NS);
    assert_eq!(quantile_ns(&seen, 0.90), RTT_NS + 100 * MS);
    assert_eq!(quantile_ns(&seen, 0.99), RTT_NS + 190 * MS);
}

// ---- 2. Repaired afterwards -----------------------------------------------------------------------------------------

/// Adds to what a closed loop saw what it would have seen, had it kept asking every `interval_ns` while it waited: for
/// each latency above the interval also latency − interval, latency − 2 × interval, … down to the interval.
/// (HdrHistogram's `record_correct` does this.) The result is sorted.
fn corrected_ns(seen_ns: &[u64], interval_ns: u64) -> Vec<u64> {
    let _ = interval_ns;
    let mut corrected_ns = seen_ns.to_vec();
    corrected_ns.sort_unstable();
    corrected_ns
}

#[test]
#[ignore = "your turn: delete this line"]
fn ten_samples_stand_for_two_thousand() {
    // What a closed loop with a tick of 1 ms sees in ten seconds: one long reply per stall.
    let seen: Vec<u64> = [vec![RTT_NS; 7990], vec![STOPPED_NS + RTT_NS; 10]].concat();
    assert_eq!(quantile_ns(&seen, 0.99), RTT_NS);
    let corrected = corrected_ns(&seen, MS);
    assert_eq!(corrected.len(), 7990 + 2000);
    assert_eq!(quantile_ns(&corrected, 0.90), RTT_NS + 101 * MS);
    assert_eq!(quantile_ns(&corrected, 0.99), RTT_NS + 191 * MS);
}

// ---- 3. What was lost -----------------------------------------------------------------------------------------------

/// A percentile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quantile {
    /// So many nanoseconds.
    Ns(u64),
    /// It falls among requests that were never answered.
    #[expect(dead_code, reason = "your turn: say it, and delete this line")]
    Lost,
}

/// The quantile of all requests; `None` is one that was never answered.
fn quantile(outcomes: &[Option<u64>], q: f64) -> Quantile {
    let mut replied_ns: Vec<u64> = outcomes.iter().flatten().copied().collect();
    replied_ns.sort_unstable();
    Quantile::Ns(quantile_ns(&replied_ns, q))
}

#[test]
#[ignore = "your turn: delete this line"]
fn a_lost_request_took_forever() {
    // Ten thousand requests a second to a server whose buffer holds 128 of the 2000 that a stall piles up.
    let mut server = StalledServer::new(128);
    let outcomes: Vec<Option<u64>> = (0..DURATION_NS / (100 * US))
        .map(|index| index * 100 * US)
        .map(|sent_ns| server.ask(sent_ns).map(|replied_ns| replied_ns - sent_ns))
        .collect();
    assert_eq!(quantile(&outcomes, 0.50), Quantile::Ns(RTT_NS));
    assert_eq!(quantile(&outcomes, 0.80), Quantile::Ns(RTT_NS));
    // Nearly a fifth of the requests has no answer: neither of these may be a number.
    assert_eq!(format!("{:?}", quantile(&outcomes, 0.90)), "Lost");
    assert_eq!(format!("{:?}", quantile(&outcomes, 0.99)), "Lost");
}
