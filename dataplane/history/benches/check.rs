//! What it costs to judge a history: five clients, 60 operations each, three keys.
#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "criterion's macro makes functions")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::hint::black_box;

use common::{Shape, flip, real_run, record};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dataplane_history::{History, Limits, Verdict};

/// Histories per measured step: so many that no single one decides.
const BATCH: u64 = 200;

fn check(c: &mut Criterion) {
    let shape = Shape {
        clients: 5,
        ops_per_client: 60,
        keys: 3,
        values: 0,
        lost_ratio: 0.0,
        refused_ratio: 0.02,
        stale_ratio: 0.0,
    };
    let real = |shape| {
        (0..BATCH)
            .map(|seed| record(&real_run(seed, shape)))
            .collect::<Vec<History>>()
    };
    let lossy = Shape {
        lost_ratio: 0.05,
        ..shape
    };
    let few_values = Shape { values: 3, ..lossy };
    let stale = Shape {
        stale_ratio: 0.2,
        ..lossy
    };
    let flipped = (0..BATCH)
        .filter_map(|seed| flip(seed, &real_run(seed, lossy)))
        .map(|run| record(&run))
        .collect::<Vec<History>>();
    let mut group = c.benchmark_group("history_check");
    group.sample_size(10);
    for (name, histories) in [
        ("answered", real(shape)),
        ("lost_5_percent", real(lossy)),
        ("lost_5_percent_of_3_values", real(few_values)),
        ("lost_5_percent_one_answer_changed", flipped),
    ] {
        count(name, &histories, |history| history.check(&Limits::default()));
        group.throughput(Throughput::Elements(histories.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                histories
                    .iter()
                    .filter(|h| black_box(h.check(&Limits::default())).is_linearizable())
                    .count()
            })
        });
    }
    let histories = real(stale);
    count("stale_20_percent", &histories, |history| {
        history.check_stale(&Limits::default())
    });
    group.throughput(Throughput::Elements(histories.len() as u64));
    group.bench_function("stale_20_percent", |b| {
        b.iter(|| {
            histories
                .iter()
                .filter(|h| black_box(h.check_stale(&Limits::default())).is_linearizable())
                .count()
        })
    });
    group.finish();
}

/// Prints how the verdicts fall, so that a fast "unknown" is not taken for a fast check.
fn count(name: &str, histories: &[History], check: impl Fn(&History) -> Verdict) {
    let mut counts = [0u32; 3];
    for history in histories {
        counts[match check(history) {
            Verdict::Linearizable => 0,
            Verdict::Violation(_) => 1,
            Verdict::Unknown { .. } => 2,
        }] += 1;
    }
    let [linearizable, violation, unknown] = counts;
    println!("{name}: {linearizable} linearizable, {violation} violations, {unknown} unknown");
}

criterion_group!(benches, check);
criterion_main!(benches);
