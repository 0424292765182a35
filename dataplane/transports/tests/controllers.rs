//! Each loss-based controller against its oracle: the square root of the loss rate, the cubic, the marked share.
#![forbid(unsafe_code)]

mod support;

use dataplane_transports::{
    Controller, ControllerKind, EcnMode, ReceiverOptions, SenderOptions,
    controllers::{CUBIC_BETA, CUBIC_C, Cubic, CubicOptions, Dctcp, DctcpOptions, NewReno},
};
use support::{Fate, MS, Path, PathOptions, SEC};

const MSS: u64 = 1448;

/// Mathis, Semke, Mahdavi, Ott, CCR'97: B = MSS/RTT × C/√p, with C = √(3/2) where losses are periodic and every segment is
/// acknowledged. The model has neither slow start nor recovery, so the losses are 1 in 1/p segments sent for the first time.
#[test]
fn newreno_follows_the_square_root_of_the_loss_rate() {
    for (one_in, sack) in [(200_u64, true), (1_000, true), (5_000, true), (1_000, false)] {
        let options = SenderOptions {
            sack,
            ..SenderOptions::default()
        };
        let receiver = ReceiverOptions {
            sack,
            ..ReceiverOptions::default()
        };
        let mut path = Path::new(PathOptions {
            bits_per_sec: 10_000_000_000,
            rtt_ns: 20 * MS,
            ..PathOptions::default()
        });
        let flow = path.add(
            &options,
            &receiver,
            NewReno::new(options.mss_bytes, options.initial_window_bytes()),
        );
        let mut new_count = 0;
        path.fate = Box::new(move |_, _, segment| {
            new_count += u64::from(!segment.is_retransmission);
            if !segment.is_retransmission && new_count % one_in == 0 {
                Fate::Drop
            } else {
                Fate::Pass
            }
        });
        path.write(flow, u64::MAX / 2);
        // The slow start's end is not the model's.
        path.run_until(20 * SEC);
        let before = path.flows[flow].receiver.received_bytes();
        path.run_until(80 * SEC);
        let bytes_per_sec = (path.flows[flow].receiver.received_bytes() - before) as f64 / 60.0;
        let mathis = MSS as f64 / 0.020 * (1.5 * one_in as f64).sqrt();
        let ratio = bytes_per_sec / mathis;
        assert!(
            (0.9..1.1).contains(&ratio),
            "1 in {one_in}, sack {sack}: {ratio:.3} of {mathis:.0} B/s"
        );
        assert_eq!(path.flows[flow].sender.stats().timeouts_count, 0);
    }
}

/// RFC 9438 §4.2: after one loss the window is W(t) = C (t - K)³ + W_max, with K = ∛(W_max (1 - β) / C).
#[test]
fn cubic_follows_its_curve() {
    let options = SenderOptions {
        initial_window_segments: 1_000,
        ..SenderOptions::default()
    };
    let controller = Cubic::new(
        options.mss_bytes,
        options.initial_window_bytes(),
        CubicOptions::default(),
    );
    // A round trip so long that Reno's line lies below the cubic.
    let mut path = Path::new(PathOptions {
        bits_per_sec: 100_000_000_000,
        rtt_ns: 100 * MS,
        ..PathOptions::default()
    });
    path.fate = Box::new(|_, number, _| if number == 0 { Fate::Drop } else { Fate::Pass });
    let flow = path.add(&options, &ReceiverOptions::default(), controller);
    path.write(flow, u64::MAX / 2);
    while path.flows[flow].sender.stats().recoveries_count == 0 {
        path.run_until(path.now_ns + MS);
    }
    let left = path.flows[flow].sender.window_bytes() as f64 / MSS as f64;
    let w_max = left / CUBIC_BETA;
    while path.flows[flow].sender.phase() != dataplane_transports::Phase::Open {
        path.run_until(path.now_ns + MS / 10);
    }
    let began_ns = path.now_ns;
    let k_sec = ((w_max - left) / CUBIC_C).cbrt();
    assert!((8.5..9.5).contains(&k_sec), "{k_sec}");
    for at_ms in (1_000..15_000).step_by(500) {
        path.run_until(began_ns + at_ms * MS);
        let window = path.flows[flow].sender.controller().window_bytes() as f64 / MSS as f64;
        let expected = CUBIC_C * (at_ms as f64 / 1e3 - k_sec).powi(3) + w_max;
        assert!(
            (window / expected - 1.0).abs() < 0.01,
            "{at_ms} ms: {window:.1} segments, W(t) {expected:.1}"
        );
    }
}

/// RFC 9438 §4.3: where Reno would be faster, CUBIC is as fast: on a short path, with few losses.
#[test]
fn cubic_is_no_slower_than_reno_on_a_short_path() {
    let run = |kind: ControllerKind| {
        let options = SenderOptions::default();
        let mut path = Path::new(PathOptions {
            bits_per_sec: 10_000_000_000,
            rtt_ns: 2 * MS,
            ..PathOptions::default()
        });
        path.fate = Box::new(|_, number, _| {
            if number % 2_000 == 1_999 {
                Fate::Drop
            } else {
                Fate::Pass
            }
        });
        let flow = path.add(&options, &ReceiverOptions::default(), kind.build(&options));
        path.write(flow, u64::MAX / 2);
        path.run_until(10 * SEC);
        path.flows[flow].receiver.received_bytes() as f64
    };
    let ratio = run(ControllerKind::Cubic) / run(ControllerKind::NewReno);
    assert!((0.9..1.5).contains(&ratio), "{ratio}");
}

/// RFC 9406: with HyStart++ slow start ends before the queue is full, and without it by a burst of losses.
#[test]
fn hystart_leaves_slow_start_before_the_queue_overflows() {
    let losses = |hystart| {
        let options = SenderOptions::default();
        let cubic = CubicOptions {
            hystart,
            ..CubicOptions::default()
        };
        let controller = Cubic::new(options.mss_bytes, options.initial_window_bytes(), cubic);
        let bdp_bytes = 100_000_000 / 8 / 20;
        let mut path = Path::new(PathOptions {
            rtt_ns: 50 * MS,
            queue_bytes_max: 8 * bdp_bytes,
            ..PathOptions::default()
        });
        let flow = path.add(&options, &ReceiverOptions::default(), controller);
        path.write(flow, 20_000_000);
        path.run_to_the_end(20 * SEC).expect("it ends");
        path.dropped_count
    };
    let (with, without) = (losses(true), losses(false));
    assert!(
        with <= 20 && without > 100,
        "{with} dropped with HyStart++, {without} without"
    );
}

fn dctcp_path(k_bytes: u64, flows_count: usize, rtt_ns: u64) -> Path<Dctcp> {
    let options = SenderOptions {
        ecn: EcnMode::Dctcp,
        ..SenderOptions::default()
    };
    let receiver = ReceiverOptions {
        ecn: EcnMode::Dctcp,
        ..ReceiverOptions::default()
    };
    let mut path = Path::new(PathOptions {
        bits_per_sec: 1_000_000_000,
        rtt_ns,
        queue_bytes_max: 1 << 30,
        mark_above_bytes: k_bytes,
    });
    for _ in 0..flows_count {
        let controller = Dctcp::new(
            options.mss_bytes,
            options.initial_window_bytes(),
            DctcpOptions::default(),
        );
        let flow = path.add(&options, &receiver, controller);
        path.write(flow, u64::MAX / 2);
    }
    path
}

fn goodput_ratio(path: &mut Path<Dctcp>) -> f64 {
    path.run_until(SEC / 4);
    let sum = |path: &Path<Dctcp>| {
        path.flows
            .iter()
            .map(|flow| flow.receiver.received_bytes())
            .sum::<u64>()
    };
    let before = sum(path);
    path.run_until(5 * SEC / 4);
    (sum(path) - before) as f64 * 8.0 / 1e9
}

/// SIGCOMM'10 §3.4: K > C × RTT / 7 keeps the link busy; far below it is not.
#[test]
fn dctcp_needs_a_threshold_of_a_seventh_of_the_path() {
    let rtt_ns = 400_000;
    let bdp_bytes = 1_000_000_000 / 8 * rtt_ns / SEC;
    let full = goodput_ratio(&mut dctcp_path(bdp_bytes / 7 + MSS, 2, rtt_ns));
    assert!(full > 0.98, "{full}");
    let starved = goodput_ratio(&mut dctcp_path(1, 1, rtt_ns));
    assert!(starved < 0.95, "{starved}");
}

/// SIGCOMM'10 §3.3: the queue never exceeds K + N segments by more than what growth adds in a round trip.
#[test]
fn dctcp_keeps_the_queue_at_k_plus_n() {
    let (k, n) = (20, 4);
    let mut path = dctcp_path(k * MSS, n, 100_000);
    path.run_until(SEC / 4);
    path.queue_bytes_highest = 0;
    path.run_until(SEC);
    let highest = path.queue_bytes_highest / MSS;
    assert!((k..=k + 2 * n as u64 + 1).contains(&highest), "{highest} segments");
}

/// RFC 8257 §3.3: alpha is the marked share, smoothed; SIGCOMM'10 §3.3: for one flow it settles near √(2/W*).
#[test]
fn alpha_settles_where_the_analysis_says() {
    let rtt_ns = 800_000;
    let k = 40;
    let mut path = dctcp_path(k * MSS, 1, rtt_ns);
    path.run_until(SEC / 2);
    let mut sum = 0.0;
    for _ in 0..1_000 {
        path.run_until(path.now_ns + MS);
        sum += f64::from(path.flows[0].sender.controller().alpha());
    }
    let bdp_segments = 1e9 / 8.0 * (rtt_ns as f64 / 1e9) / MSS as f64;
    let expected = (2.0 / (bdp_segments + k as f64)).sqrt();
    let ratio = sum / 1_000.0 / expected;
    assert!((0.6..1.4).contains(&ratio), "alpha {} of {expected}", sum / 1_000.0);
}
