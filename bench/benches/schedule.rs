//! What it costs to fix the send times of a million requests before a run.
#![forbid(unsafe_code)]

use std::{hint::black_box, time::Duration};

use bench::load::Schedule;
use criterion::{Criterion, criterion_group, criterion_main};

fn schedule(c: &mut Criterion) {
    let mut group = c.benchmark_group("schedule");
    group.sample_size(20);
    let second = Duration::from_secs(1);
    group.bench_function("poisson_1m", |b| {
        b.iter(|| Schedule::poisson(1e6, second, black_box(1)))
    });
    group.bench_function("uniform_1m", |b| b.iter(|| Schedule::uniform(1e6, black_box(second))));
    group.finish();
}

criterion_group!(benches, schedule);
criterion_main!(benches);
