//! The controllers that follow a model of the path: BBR against its wall and its queue, Swift against its target.
#![forbid(unsafe_code)]

mod support;

use std::time::Duration;

use dataplane_transports::{
    AnyController, Controller, ControllerKind, ReceiverOptions, SenderOptions,
    controllers::{Swift, SwiftOptions},
};
use support::{Fate, MS, Path, PathOptions, SEC, US};

const MSS: u64 = 1448;

fn exact() -> SenderOptions {
    SenderOptions {
        timer_tick: Duration::ZERO,
        ..SenderOptions::linux_2026()
    }
}

/// A bulk flow over 10 Mbit/s and 40 ms whose segments are lost at random: its share of the link after `warm_sec`.
fn utilisation(kind: ControllerKind, loss: f64, queue_bytes_max: u64, warm_sec: u64) -> f64 {
    let options = exact();
    let mut path = Path::new(PathOptions {
        bits_per_sec: 10_000_000,
        rtt_ns: 40 * MS,
        queue_bytes_max,
        mark_above_bytes: 0,
    });
    path.fate = Box::new(move |_, number, _| {
        // SplitMix64 of the number: losses independent of each other, and the same for every controller.
        let mut z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        if (z >> 11) as f64 / (1_u64 << 53) as f64 <= loss {
            Fate::Drop
        } else {
            Fate::Pass
        }
    });
    let flow = path.add(&options, &ReceiverOptions::default(), kind.build(&options));
    path.write(flow, u64::MAX / 2);
    path.run_until(warm_sec * SEC);
    let before = path.flows[flow].receiver.received_bytes();
    path.run_until((warm_sec + 60) * SEC);
    (path.flows[flow].receiver.received_bytes() - before) as f64 * 8.0 / 60.0 / 1e7
}

/// CACM'17 figure 8 and the authors' own bound: a probe at 1.25 times the bandwidth still measures it while 1.25 (1 - p) ≥ 1, so
/// the wall stands at p = 20 %; before it the link carries (1 - p), and CUBIC almost nothing from 1 % on.
#[test]
fn bbr1_stands_random_loss_up_to_its_wall() {
    let queue = 10 * 50_000;
    for (loss, least, most) in [
        (0.001, 0.9, 1.01),
        (0.01, 0.9, 1.0),
        (0.05, 0.85, 0.96),
        (0.3, 0.0, 0.2),
    ] {
        let share = utilisation(ControllerKind::Bbr1, loss, queue, 20);
        assert!((least..most).contains(&share), "{loss}: {share:.3} of the link");
    }
    let cubic = utilisation(ControllerKind::Cubic, 0.02, queue, 20);
    assert!(cubic < 0.35, "{cubic}");
}

/// draft-ietf-ccwg-bbr §2.5: version 3 tolerates the 2 % of loss that a probe may cause, and not much more.
#[test]
fn bbr3_stands_random_loss_below_its_threshold() {
    let queue = 10 * 50_000;
    for (loss, least) in [(0.001, 0.85), (0.01, 0.7)] {
        let share = utilisation(ControllerKind::Bbr3, loss, queue, 20);
        assert!((least..1.01).contains(&share), "{loss}: {share:.3} of the link");
    }
    let (low, high) = (0.01, 0.1);
    let [low, high] = [low, high].map(|loss| utilisation(ControllerKind::Bbr3, loss, queue, 20));
    assert!(high < 0.6 * low, "{high:.3} at 10 % and {low:.3} at 1 %");
}

/// CACM'17: BBR holds the queue below a bandwidth-delay product, where loss-based control fills it.
#[test]
fn bbr_leaves_the_queue_of_a_deep_buffer_empty_and_cubic_fills_it() {
    let mean_queue_bytes = |kind: ControllerKind| {
        let options = exact();
        let mut path = Path::<AnyController>::new(PathOptions {
            bits_per_sec: 10_000_000,
            rtt_ns: 40 * MS,
            queue_bytes_max: 1_000_000,
            mark_above_bytes: 0,
        });
        path.add(&options, &ReceiverOptions::default(), kind.build(&options));
        path.write(0, u64::MAX / 2);
        path.run_until(10 * SEC);
        let mut sum = 0;
        for _ in 0..2_000 {
            path.run_until(path.now_ns + 10 * MS);
            sum += path.queue_bytes();
        }
        sum / 2_000
    };
    let bdp_bytes = 50_000;
    for &kind in ControllerKind::ALL {
        let mean = mean_queue_bytes(kind);
        match kind.name() {
            "bbr1" | "bbr3" => assert!(mean < bdp_bytes / 2, "{kind}: {mean} bytes"),
            "cubic" => assert!(mean > 10 * bdp_bytes, "{kind}: {mean} bytes"),
            _ => {}
        }
    }
}

fn swift_path(options: SwiftOptions, flows_count: usize) -> Path<Swift> {
    // 50 Gbit/s, 20 µs without a queue, segments of 4 KB: the paper's testbed, more or less.
    let sender = SenderOptions {
        mss_bytes: 4_096,
        initial_window_segments: 1,
        rto_min: Duration::from_millis(10),
        ..exact()
    };
    let receiver = ReceiverOptions {
        mss_bytes: 4_096,
        ..ReceiverOptions::default()
    };
    let mut path = Path::new(PathOptions {
        bits_per_sec: 50_000_000_000,
        rtt_ns: 20 * US,
        queue_bytes_max: 8 << 20,
        mark_above_bytes: 0,
    });
    for _ in 0..flows_count {
        let flow = path.add(&sender, &receiver, Swift::new(4_096, 4_096, options));
        path.write(flow, u64::MAX / 2);
    }
    path
}

#[test]
fn swift_holds_the_delay_at_its_target() {
    let mut path = swift_path(SwiftOptions::default(), 4);
    path.run_until(20 * MS);
    let mut delays_ns = Vec::new();
    for _ in 0..400 {
        path.run_until(path.now_ns + 25 * US);
        delays_ns.push(path.queue_bytes() * 8 / 50 + 20 * US);
    }
    let mean_ns = delays_ns.iter().sum::<u64>() as f64 / delays_ns.len() as f64;
    let target_ns = path.flows[0].sender.controller().target_ns();
    assert!((0.7..1.15).contains(&(mean_ns / target_ns)), "{mean_ns} of {target_ns}");
    assert_eq!(path.dropped_count, 0);
}

/// SIGCOMM'20 table 3 in small: three thousand flows are more than a segment each for the path; with fractions of one nothing is lost and
/// the link stays full.
#[test]
fn swift_shares_a_path_that_has_no_segment_for_every_flow() {
    let run = |window_min| {
        let options = SwiftOptions {
            window_min,
            ..SwiftOptions::default()
        };
        let mut path = swift_path(options, 3_000);
        path.run_until(80 * MS);
        let received = |path: &Path<Swift>| {
            path.flows
                .iter()
                .map(|flow| flow.receiver.received_bytes())
                .sum::<u64>()
        };
        let (before, dropped_before) = (received(&path), path.dropped_count);
        path.run_until(100 * MS);
        let share = (received(&path) - before) as f64 * 8.0 / 0.020 / 50e9;
        let windows = path.flows.iter().map(|flow| flow.sender.controller().window_segments());
        (
            share,
            path.dropped_count - dropped_before,
            windows.sum::<f64>() / 3_000.0,
        )
    };
    let (share, dropped_count, window) = run(0.001);
    assert!(share > 0.9, "{share} of the link");
    assert!(window < 1.0, "{window} segments");
    assert_eq!(dropped_count, 0);
}

/// §3.5: the target rises as the window falls, by the reciprocal of its root, between the bounds.
#[test]
fn swifts_target_scales_with_the_window() {
    let target_us = |window: f64| {
        let options = SwiftOptions {
            window_min: window,
            window_max: window,
            ..SwiftOptions::default()
        };
        Swift::new(MSS as u32, MSS, options).target_ns() / 1e3
    };
    // Base 25 and one hop of 1; nothing more at 100 segments, 75 more at a tenth and below.
    assert!((target_us(100.0) - 26.0).abs() < 1e-6);
    assert!((target_us(1_000.0) - 26.0).abs() < 1e-6);
    assert!((target_us(0.1) - 101.0).abs() < 1e-6);
    assert!((target_us(0.01) - 101.0).abs() < 1e-6);
    // At 1: 75 × (1 − 0.1) / (√10 − 0.1).
    assert!((target_us(1.0) - 26.0 - 75.0 * 0.9 / (10_f64.sqrt() - 0.1)).abs() < 1e-6);
}

#[test]
fn a_fractional_window_is_sent_as_a_pause() {
    let options = SwiftOptions {
        window_max: 0.25,
        ..SwiftOptions::default()
    };
    let mut path = swift_path(options, 1);
    path.run_until(5 * MS);
    assert_eq!(path.flows[0].sender.controller().window_bytes(), 1_024);
    let sent_ns: Vec<_> = path.trace.iter().map(|&(at, ..)| at).collect();
    let gaps_ns: Vec<_> = sent_ns[10..].windows(2).map(|pair| pair[1] - pair[0]).collect();
    let srtt_ns = path.flows[0].sender.srtt_ns();
    assert!(
        gaps_ns.iter().all(|gap| gap.abs_diff(4 * srtt_ns) < srtt_ns / 10),
        "{srtt_ns}: {gaps_ns:?}"
    );
}
