//! The cost of recording one sample. The bar is 25 ns.
#![forbid(unsafe_code)]

use std::hint::black_box;

use bench::measure::{QUANTILES, Recorder};
use criterion::{Criterion, criterion_group, criterion_main};

fn histogram(c: &mut Criterion) {
    let mut group = c.benchmark_group("histogram");
    let mut recorder = Recorder::new();
    let mut value_ns: u64 = 1;
    group.bench_function("record", |b| {
        b.iter(|| {
            // From 1 ns to 16 ms, in an order that no predictor knows.
            value_ns = value_ns.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            recorder.record(black_box(value_ns >> 40));
        });
    });
    group.bench_function("distribution", |b| {
        b.iter(|| black_box(recorder.distribution(&QUANTILES)))
    });
    group.finish();
}

criterion_group!(benches, histogram);
criterion_main!(benches);
