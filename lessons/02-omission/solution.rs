//! Lesson 2, solved: the same stalled server through a closed loop, an open loop, a closed loop repaired afterwards, and
//! a buffer that is too small.
#![forbid(unsafe_code)]

use hdrhistogram::Histogram;
use lessons::stall::{MS, RTT_NS, SECOND, STOPPED_NS, StalledServer, US, quantile_ns, rank};

const DURATION_NS: u64 = 10 * SECOND;

// ---- 1. From closed to open -----------------------------------------------------------------------------------------

/// Open loop: the schedule is fixed beforehand, and latency counts from the scheduled moment.
fn latencies_ns(server: &mut StalledServer, interval_ns: u64) -> Vec<u64> {
    let mut latencies_ns: Vec<u64> = (0..DURATION_NS / interval_ns)
        .map(|index| index * interval_ns)
        .map(|intended_ns| server.ask(intended_ns).expect("room for everybody") - intended_ns)
        .collect();
    latencies_ns.sort_unstable();
    latencies_ns
}

/// What it was: the server decides when it is asked. `interval_ns` of 1 is ping-pong.
fn closed_latencies_ns(server: &mut StalledServer, interval_ns: u64) -> Vec<u64> {
    let mut latencies_ns = Vec::new();
    let mut sent_ns = 0;
    while sent_ns < DURATION_NS {
        let replied_ns = server.ask(sent_ns).expect("room for everybody");
        latencies_ns.push(replied_ns - sent_ns);
        sent_ns = replied_ns.next_multiple_of(interval_ns);
    }
    latencies_ns.sort_unstable();
    latencies_ns
}

#[test]
fn an_open_loop_sees_a_fifth_of_the_time() {
    // The rate does not matter, as long as the server does not set it.
    for interval_ns in [MS, 100 * US] {
        let seen = latencies_ns(&mut StalledServer::new(usize::MAX), interval_ns);
        assert_eq!(quantile_ns(&seen, 0.50), RTT_NS);
        assert_eq!(quantile_ns(&seen, 0.90), RTT_NS + 100 * MS);
        assert_eq!(quantile_ns(&seen, 0.99), RTT_NS + 190 * MS);
    }
}

#[test]
fn a_closed_loop_prints_the_bare_round_trip() {
    let paced = closed_latencies_ns(&mut StalledServer::new(usize::MAX), MS);
    let ping_pong = closed_latencies_ns(&mut StalledServer::new(usize::MAX), 1);
    for (name, seen) in [("paced", &paced), ("ping-pong", &ping_pong)] {
        assert_eq!(quantile_ns(seen, 0.90), RTT_NS, "{name}");
        assert_eq!(quantile_ns(seen, 0.99), RTT_NS, "{name}");
        assert_eq!(
            quantile_ns(seen, 1.0),
            RTT_NS + STOPPED_NS,
            "{name}: only the maximum knows"
        );
        assert_eq!(
            seen.iter().filter(|&&ns| ns > RTT_NS).count(),
            10,
            "{name}: one a stall"
        );
    }
    // The faster it asks while all is well, the better it hides: sixteen thousand good samples for each bad one.
    assert_eq!(ping_pong.len(), 160_001);
    assert_eq!(quantile_ns(&ping_pong, 0.9999), RTT_NS);
}

// ---- 2. Repaired afterwards -----------------------------------------------------------------------------------------

fn corrected_ns(seen_ns: &[u64], interval_ns: u64) -> Vec<u64> {
    let mut corrected_ns = Vec::new();
    for &ns in seen_ns {
        corrected_ns.push(ns);
        let mut missing_ns = ns;
        while missing_ns >= 2 * interval_ns {
            missing_ns -= interval_ns;
            corrected_ns.push(missing_ns);
        }
    }
    corrected_ns.sort_unstable();
    corrected_ns
}

#[test]
fn ten_samples_stand_for_two_thousand() {
    let seen: Vec<u64> = [vec![RTT_NS; 7990], vec![STOPPED_NS + RTT_NS; 10]].concat();
    assert_eq!(quantile_ns(&seen, 0.99), RTT_NS);
    let corrected = corrected_ns(&seen, MS);
    assert_eq!(corrected.len(), 7990 + 2000);
    assert_eq!(quantile_ns(&corrected, 0.90), RTT_NS + 101 * MS);
    assert_eq!(quantile_ns(&corrected, 0.99), RTT_NS + 191 * MS);
}

#[test]
fn the_correction_is_hdrhistograms() {
    let seen = closed_latencies_ns(&mut StalledServer::new(usize::MAX), MS);
    let mut histogram = Histogram::<u64>::new_with_bounds(1, 10 * SECOND, 3).expect("three digits are possible");
    for ns in &seen {
        histogram.record_correct(*ns, MS).expect("below ten seconds");
    }
    let corrected = corrected_ns(&seen, MS);
    assert_eq!(histogram.len(), corrected.len() as u64);
    for q in [0.5, 0.9, 0.99] {
        let ours_ns = quantile_ns(&corrected, q);
        assert!(histogram.equivalent(histogram.value_at_quantile(q), ours_ns), "{q}");
    }
}

#[test]
fn a_correction_is_a_guess_about_requests_that_were_never_sent() {
    let open = latencies_ns(&mut StalledServer::new(usize::MAX), MS);
    let seen = closed_latencies_ns(&mut StalledServer::new(usize::MAX), MS);
    let corrected = corrected_ns(&seen, MS);
    for q in [0.9, 0.99] {
        assert!(
            quantile_ns(&corrected, q).abs_diff(quantile_ns(&open, q)) <= MS,
            "close, if the interval is right"
        );
    }
    let wrong = corrected_ns(&seen, 50 * MS);
    assert_eq!(quantile_ns(&wrong, 0.99), RTT_NS, "useless, if it is not");

    // A closed loop never has more than one request waiting, so its correction cannot know of a full buffer: at this
    // rate the truth is that p90 was never answered.
    let mut small = StalledServer::new(128);
    let seen = closed_latencies_ns(&mut small, 100 * US);
    let corrected = corrected_ns(&seen, 100 * US);
    assert!(quantile_ns(&corrected, 0.9) < 110 * MS);
    assert_eq!(quantile(&outcomes(128), 0.9), Quantile::Lost);
}

// ---- 3. What was lost -----------------------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quantile {
    Ns(u64),
    Lost,
}

/// A lost request took longer than any that was answered: its rank is among the last.
fn quantile(outcomes: &[Option<u64>], q: f64) -> Quantile {
    let mut replied_ns: Vec<u64> = outcomes.iter().flatten().copied().collect();
    replied_ns.sort_unstable();
    match replied_ns.get(rank(outcomes.len(), q) - 1) {
        Some(&ns) => Quantile::Ns(ns),
        None => Quantile::Lost,
    }
}

/// Ten thousand requests a second, open loop.
fn outcomes(room_frames_count: usize) -> Vec<Option<u64>> {
    let mut server = StalledServer::new(room_frames_count);
    (0..DURATION_NS / (100 * US))
        .map(|index| index * 100 * US)
        .map(|sent_ns| server.ask(sent_ns).map(|replied_ns| replied_ns - sent_ns))
        .collect()
}

#[test]
fn a_lost_request_took_forever() {
    let outcomes = outcomes(128);
    let lost_count = outcomes.iter().filter(|outcome| outcome.is_none()).count();
    // Of the 2000 requests of each stall 128 found room.
    assert_eq!(lost_count, 10 * (2000 - 128));
    assert_eq!(quantile(&outcomes, 0.50), Quantile::Ns(RTT_NS));
    assert_eq!(quantile(&outcomes, 0.80), Quantile::Ns(RTT_NS));
    assert_eq!(quantile(&outcomes, 0.90), Quantile::Lost);
    assert_eq!(quantile(&outcomes, 0.99), Quantile::Lost);
}

#[test]
fn leaving_the_lost_out_flatters() {
    let outcomes = outcomes(128);
    let mut replied_ns: Vec<u64> = outcomes.iter().flatten().copied().collect();
    replied_ns.sort_unstable();
    // 18.7 % of all requests have no answer, and the p98 of the rest is the bare round trip.
    assert_eq!(quantile_ns(&replied_ns, 0.90), RTT_NS);
    assert_eq!(quantile_ns(&replied_ns, 0.98), RTT_NS);
    // With room for all of them, nothing has to be left out.
    let outcomes = self::outcomes(2000);
    assert_eq!(quantile(&outcomes, 0.90), Quantile::Ns(RTT_NS + 100 * MS));
}
