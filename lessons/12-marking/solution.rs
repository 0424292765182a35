//! Lesson 12, solved: a threshold that keeps the link full, an estimate that learns slowly, and what marks cannot do.
#![forbid(unsafe_code)]

use dataplane_transports::{
    AckSample, Controller,
    controllers::{Dctcp, DctcpOptions},
};
use lessons::packets::{metric, simulate};

// ---- 1. Where to mark -----------------------------------------------------------------------------------------------

/// A full frame and what Ethernet adds to it on the wire.
const FRAME_BITS: f64 = 1_526.0 * 8.0;

/// The threshold K, in packets, for DCTCP on a link of this rate and this round trip.
fn marking_threshold_packets(bits_per_sec: f64, round_trip_s: f64) -> u32 {
    // Windows swing around K, and when they are small the queue must not be empty: K > C × RTT / 7 (SIGCOMM 2010, section 3.4).
    (bits_per_sec * round_trip_s / FRAME_BITS / 7.0).ceil() as u32
}

/// Two endless flows of this controller through one port.
fn long_flows(controller: &str, rate: &str, delay_us: u32, k: u32) -> bench::packet_sim::Outcome {
    simulate(
        &format!(
            r#"
            horizon = "200 ms"
            topology = {{ kind = "star", hosts = 3, rate = "{rate}", delay = "{delay_us} us" }}
            switch.queue = {{ limit = "1000 packets", mark_at = "{k} packets" }}
            tcp = {{ controller = "{controller}", ecn = true, ack_delay = "0 ns", rto_min = "10 ms" }}
            load = [{{ kind = "long", from = 1, to = 0, flows = 2 }}]
            "#
        ),
        1,
    )
}

/// Of a frame on the wire, this part is payload.
const PAYLOAD_RATIO: f64 = 1_448.0 / 1_526.0;

#[test]
fn the_link_is_full_and_the_queue_is_short() {
    // Four cables make a round trip, and the frame and its acknowledgement take a few microseconds more.
    for (rate, bits_per_sec, delay_us, round_trip_s) in [("10 Gbit/s", 1e10, 24, 100e-6), ("1 Gbit/s", 1e9, 240, 1e-3)]
    {
        let k = marking_threshold_packets(bits_per_sec, round_trip_s);
        let outcome = long_flows("dctcp", rate, delay_us, k);
        let share = metric(&outcome, "long_goodput_mbit_per_sec") * 1e6 / (bits_per_sec * PAYLOAD_RATIO);
        let waiting = metric(&outcome, "queue_packets_p99");
        println!(
            "{rate}: K = {k}, {:.2} % of the link, {waiting} packets wait",
            share * 100.0
        );
        assert!(
            share > 0.999,
            "{rate}, K = {k}: {:.2} % of the link are used",
            share * 100.0
        );
        let pipe_packets = bits_per_sec * round_trip_s / FRAME_BITS;
        assert!(
            waiting < pipe_packets / 4.0,
            "{rate}, K = {k}: {waiting} packets wait, and the wire itself holds {pipe_packets:.0}"
        );
    }
}

/// Why it is not the marks alone: TCP that halves at a mark needs K as large as the pipe.
#[test]
fn halving_at_a_mark_wastes_what_dctcp_uses() {
    let share = |controller: &str, k: u32| {
        let outcome = long_flows(controller, "10 Gbit/s", 24, k);
        metric(&outcome, "long_goodput_mbit_per_sec") / (10_000.0 * PAYLOAD_RATIO)
    };
    let (halves, shrinks, deep) = (share("newreno", 12), share("dctcp", 12), share("newreno", 82));
    println!("K = 12: NewReno {halves:.3}, DCTCP {shrinks:.3}; K = 82: NewReno {deep:.3}");
    assert!(halves < 0.9 && shrinks > 0.999 && deep > 0.999);
}

// ---- 2. How fast to believe it --------------------------------------------------------------------------------------

/// The weight of a new window in the estimate.
const GAIN: f64 = 1.0 / 16.0;

/// The estimate of the share of bytes that are marked, after a window of which this share was.
fn next_alpha(alpha: f64, marked_ratio: f64) -> f64 {
    // Mostly what was known: a window that met another one's burst says little of the link.
    (1.0 - GAIN) * alpha + GAIN * marked_ratio
}

#[test]
fn the_estimate_is_the_controllers() {
    const WINDOW_BYTES: u64 = 8 * 1_448;
    /// Of eight segments in each window, so many are marked.
    const MARKED: [u64; 12] = [8, 0, 0, 0, 4, 0, 8, 1, 0, 0, 0, 2];
    let mut dctcp = Dctcp::new(1_448, WINDOW_BYTES, DctcpOptions::default());
    let mut alpha = f64::from(dctcp.alpha());
    let mut window_end = 0;
    for marked_count in MARKED {
        window_end += WINDOW_BYTES;
        // Two acknowledgements: one for what was marked, which ends within the window, and one for the rest.
        for (segments_count, ece, acked_end) in [
            (marked_count, true, window_end - 1),
            (8 - marked_count, false, window_end),
        ] {
            dctcp.on_ack(&AckSample {
                acked_bytes: segments_count * 1_448,
                acked_end,
                sent_end: window_end + WINDOW_BYTES,
                ece,
                ..AckSample::default()
            });
        }
        alpha = next_alpha(alpha, marked_count as f64 / 8.0);
        let real = f64::from(dctcp.alpha());
        println!("{marked_count} of 8 marked: {alpha:.3}, the controller {real:.3}");
        assert!(
            (alpha - real).abs() < 1e-3,
            "{marked_count} of 8 marked: {alpha:.3}, and the controller has {real:.3}"
        );
    }
}

// ---- 3. What marks cannot do ----------------------------------------------------------------------------------------

/// How many servers may answer at once before marks no longer keep a buffer of so many packets from overflowing?
fn servers_max(buffer_packets: u32, threshold_packets: u32) -> u32 {
    // K + N is for windows that can shrink. One of two packets cannot, whatever is marked: two from each server are in flight, and the
    // threshold has no part in it.
    let _ = threshold_packets;
    buffer_packets / 2
}

#[test]
fn windows_of_two_packets_cannot_shrink() {
    const K: u32 = 20;
    let late_percent = |buffer: u32, servers: u32| {
        let outcome = simulate(
            &format!(
                r#"
                horizon = "600 s"
                topology = {{ kind = "star", hosts = 101, rate = "1 Gbit/s", delay = "20 us" }}
                switch.queue = {{ limit = "{buffer} packets", mark_at = "{K} packets" }}
                tcp = {{ controller = "dctcp", rto_min = "10 ms", ack_delay = "1 ms", initial_window = 3 }}
                load = [{{ kind = "incast", servers = {servers}, bytes_total = "1 MB", rounds = 100 }}]
                "#
            ),
            1,
        );
        metric(&outcome, "timeout_queries_percent")
    };
    for buffer in [40, 66, 100] {
        let fit = servers_max(buffer, K);
        let more = fit + fit / 5;
        let (within, beyond) = (late_percent(buffer, fit), late_percent(buffer, more));
        println!("{buffer} packets: {within} % of questions time out with {fit} servers, {beyond} % with {more}");
        assert!(
            within < 20.0,
            "{buffer} packets: with {fit} servers {within} % of questions time out"
        );
        assert!(
            beyond > 50.0,
            "{buffer} packets: with {more} servers only {beyond} % of questions time out"
        );
    }
}
