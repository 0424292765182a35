//! What a command costs in a store of 1, 1,000 and 100,000 keys, in an order that no cache knows, and what saving and
//! loading the largest costs.
#![forbid(unsafe_code)]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use dataplane_kv::{Store, StoreOptions};
use dataplane_waist::StateMachine;
use dataplane_wire::quorum::{reply::Outcome, request::Command};

const VALUE_BYTES: usize = 64;
const SIZES_COUNT: [u64; 3] = [1, 1_000, 100_000];

/// As many keys have: a common beginning and a number.
fn key_of(index: u64) -> [u8; 16] {
    let mut key = *b"user/0000/......";
    key[10..].copy_from_slice(&index.to_be_bytes()[2..]);
    key
}

fn filled(entries_count: u64) -> Store {
    let mut store = Store::new(StoreOptions::default()).expect("sound");
    for index in 0..entries_count {
        let (key, value) = (&key_of(index), &[7; VALUE_BYTES]);
        done(&mut store, &Command::Put { key, value });
    }
    store
}

fn done(store: &mut Store, command: &Command<'_>) {
    store.apply(command, &mut |outcome| assert_eq!(outcome, Outcome::Done));
}

/// A key of the store, another each time.
struct Keys {
    state: u64,
    entries_count: u64,
}

impl Keys {
    fn next(&mut self) -> [u8; 16] {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        key_of((self.state >> 33) % self.entries_count)
    }
}

fn commands(c: &mut Criterion) {
    let mut group = c.benchmark_group("store");
    for entries_count in SIZES_COUNT {
        let mut store = filled(entries_count);
        let mut keys = Keys {
            state: 1,
            entries_count,
        };
        let value = [9; VALUE_BYTES];
        group.bench_function(BenchmarkId::new("put", entries_count), |b| {
            b.iter(|| {
                let key = &keys.next();
                done(
                    &mut store,
                    &Command::Put {
                        key,
                        value: black_box(&value),
                    },
                );
            });
        });
        group.bench_function(BenchmarkId::new("get", entries_count), |b| {
            b.iter(|| {
                let key = &keys.next();
                store.read(&Command::Get { key }, &mut |outcome| {
                    assert!(matches!(black_box(outcome), Outcome::Value(_)));
                });
            });
        });
        group.bench_function(BenchmarkId::new("delete-put", entries_count), |b| {
            b.iter(|| {
                let key = &keys.next();
                done(&mut store, &Command::Delete { key });
                done(
                    &mut store,
                    &Command::Put {
                        key,
                        value: black_box(&value),
                    },
                );
            });
        });
        group.bench_function(BenchmarkId::new("range-of-100", entries_count), |b| {
            b.iter(|| {
                let (from, end, count_max) = (&keys.next(), &[], 100);
                store.read(&Command::Range { from, end, count_max }, &mut |outcome| {
                    assert!(matches!(black_box(outcome), Outcome::Entries(_)));
                });
            });
        });
    }
    group.finish();
}

fn image(c: &mut Criterion) {
    let mut store = filled(100_000);
    let mut image = Vec::new();
    store.save(&mut image);
    let mut group = c.benchmark_group("image");
    group.throughput(Throughput::Bytes(image.len() as u64)).sample_size(20);
    group.bench_function("save", |b| {
        b.iter(|| {
            image.clear();
            store.save(&mut image);
        });
    });
    group.bench_function("load", |b| b.iter(|| store.load(black_box(&image)).expect("sound")));
    group.finish();
}

criterion_group!(benches, commands, image);
criterion_main!(benches);
