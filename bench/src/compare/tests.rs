//! Two runs that are alike, two that are not, and everything that makes them hard to compare.

use super::*;
use crate::{
    measure::Recorder,
    record::{Metric, Validity},
    report::{Style, sample},
};

/// A run of one back end with the given medians, one a round, and twins of the same.
fn run(medians_ns: &[u64]) -> Run {
    let shared = sample::shared();
    let mut run = Run::new(shared.header.clone());
    for (round, &ns) in medians_ns.iter().enumerate() {
        for twin in [false, true] {
            let mut recorder = Recorder::new();
            // The same shape around each median; the twin is half a percent slower.
            for step in 0..1000 {
                recorder.record(ns * (900 + step / 5 + if twin { 5 } else { 0 }) / 1000);
            }
            let mut row = shared.rows[0].clone();
            row.round = round as u32;
            row.twin = twin;
            row.series.clear();
            row.latency = Some(recorder.distribution(&[0.5, 0.99, 0.999]));
            row.metrics = BTreeMap::from([(
                "replies_per_sec".into(),
                Metric {
                    value: 1e9 / ns as f64,
                    unit: "1/s".into(),
                    better: Better::Higher,
                },
            )]);
            run.rows.push(row);
        }
    }
    run.end = shared.end.clone();
    run
}

const BEFORE: [u64; 8] = [10_000, 10_200, 9_900, 10_100, 10_050, 9_950, 10_150, 10_020];

fn slower(percent: u64) -> Vec<u64> {
    BEFORE.iter().map(|ns| ns * (100 + percent) / 100).collect()
}

fn change(comparison: &Comparison, quantity: &str) -> Change {
    comparison
        .pairs
        .iter()
        .find(|pair| pair.quantity == quantity)
        .expect(quantity)
        .change
}

#[test]
fn equal_runs_show_no_evidence_of_change() {
    let comparison = compare(&run(&BEFORE), &run(&BEFORE));
    assert_eq!(comparison.warnings, Vec::<String>::new());
    assert_eq!(comparison.count(Change::NoEvidence), comparison.pairs.len());
    assert_eq!(
        comparison.pairs.len(),
        3,
        "p50, p99 and the metric; p99.9 takes more than 1000 samples"
    );
}

#[test]
fn a_slow_down_is_worse_and_its_reverse_is_better() {
    let (before, after) = (run(&BEFORE), run(&slower(8)));
    let there = compare(&before, &after);
    let back = compare(&after, &before);
    for quantity in ["p50", "p99", "replies_per_sec"] {
        assert_eq!(change(&there, quantity), Change::Worse, "{quantity}");
        assert_eq!(change(&back, quantity), Change::Better, "{quantity}");
    }
    let p50 = &there.pairs[0];
    assert!((p50.ratio.unwrap() - 1.08).abs() < 0.01, "{p50:?}");
    assert!(p50.low.unwrap() > 1.0 && p50.p_value < 0.01, "{p50:?}");
    assert!((p50.noise_floor.unwrap() - 0.005).abs() < 0.002, "{p50:?}");
}

#[test]
fn a_difference_inside_the_noise_floor_is_none() {
    let (mut before, after) = (run(&BEFORE), run(&slower(8)));
    // In A, the twins were 20 % apart: then 8 % is nothing.
    for row in before.rows.iter_mut().filter(|row| row.twin) {
        for quantile in &mut row.latency.as_mut().unwrap().quantiles {
            if let QuantileValue::Ns(ns) = &mut quantile.value {
                *ns = *ns * 120 / 100;
            }
        }
    }
    assert_eq!(change(&compare(&before, &after), "p50"), Change::NoEvidence);
}

#[test]
fn three_rounds_cannot_tell() {
    let comparison = compare(&run(&BEFORE[..3]), &run(&slower(50)));
    assert_eq!(comparison.count(Change::TooFewRounds), comparison.pairs.len());
    assert!(markdown(&comparison).contains("at least 4 rounds"));
}

#[test]
fn lost_quantiles_are_larger_than_any_time() {
    let (before, mut after) = (run(&BEFORE), run(&BEFORE));
    for row in &mut after.rows {
        for quantile in &mut row.latency.as_mut().unwrap().quantiles {
            if quantile.q == 0.99 {
                quantile.value = QuantileValue::Lost;
            }
        }
    }
    let comparison = compare(&before, &after);
    let p99 = comparison.pairs.iter().find(|pair| pair.quantity == "p99").unwrap();
    assert_eq!((p99.b, p99.ratio, p99.change), (None, None, Change::Worse));
    assert_eq!(change(&comparison, "p50"), Change::NoEvidence);
    assert!(markdown(&comparison).contains("| lost |"));
}

#[test]
fn everything_that_differs_besides_the_code_is_a_warning() {
    let (before, mut after) = (run(&BEFORE), run(&BEFORE));
    after.header.seed += 1;
    after.header.build_profile = "debug".into();
    after.header.place = "loopback".into();
    after.header.environment.facts.insert("kernel".into(), "9.9".into());
    after
        .header
        .environment
        .facts
        .insert("governor".into(), "powersave".into());
    after.end = None;
    for row in &mut after.rows {
        row.mode = ModeRecord::Simulated;
    }
    after.rows[2].validity = Validity::Invalid {
        reasons: vec!["late".into()],
    };
    let warnings = compare(&before, &after).warnings.join("\n");
    for wanted in [
        "the seed differs: 42 in A, 43 in B",
        "the build profile differs",
        "the place differs",
        "kernel differs: 6.18.0-fixture in A, 9.9 in B",
        "governor differs: unknown in A",
        "B did not come to its end",
        "is native in A and simulated in B",
        "B has 1 INVALID rows",
    ] {
        assert!(warnings.contains(wanted), "{wanted:?} is not in\n{warnings}");
    }
}

#[test]
fn what_only_one_measured_is_listed() {
    let (before, mut after) = (run(&BEFORE), run(&BEFORE));
    for row in &mut after.rows {
        row.backend = "uring".into();
    }
    let comparison = compare(&before, &after);
    assert_eq!(comparison.only_in_a, ["rtt-ladder, udp-blocking, frame_bytes 64"]);
    assert_eq!(comparison.only_in_b, ["rtt-ladder, uring, frame_bytes 64"]);
    assert!(markdown(&comparison).contains("nothing in common"));
    let empty = Run::new(before.header.clone());
    assert!(
        compare(&empty, &empty)
            .warnings
            .iter()
            .any(|warning| warning.contains("zero rows"))
    );
}

#[test]
fn the_comparison_as_text() {
    let comparison = compare(&run(&BEFORE), &run(&slower(8)));
    let style = Style {
        width_chars: 100,
        colour: false,
    };
    insta::assert_snapshot!(format!(
        "{}\n----\n{}",
        terminal(&comparison, style),
        markdown(&comparison)
    ));
    let json = serde_json::to_value(&comparison).unwrap();
    assert_eq!(json["pairs"][0]["change"], "worse");
}
