//! A commit among three replicas in one thread, without a network: what the protocol itself costs.

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dataplane_wire::quorum::request::Command;

mod cluster;

use cluster::Cluster;

/// Requests that wait when the stopwatch starts.
const REQUESTS_READY: u64 = 256;

fn commit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("commit");
    for count in [3, 5, 7] {
        let mut cluster = Cluster::new(count);
        let put = Command::Put {
            key: b"key",
            value: b"0123456789",
        };
        let mut sequence = 0;
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("one_in_flight/{count}"), |bencher| {
            bencher.iter_custom(|commits_count| {
                let mut elapsed = Duration::ZERO;
                let mut left_count = commits_count;
                while left_count > 0 {
                    // The client's frames are the client's cost: built before the clock runs.
                    let burst_count = left_count.min(REQUESTS_READY);
                    let frames: Vec<_> = (0..burst_count)
                        .map(|index| cluster.request(sequence + 1 + index, put))
                        .collect();
                    sequence += burst_count;
                    left_count -= burst_count;
                    let before_count = cluster.answers_count;
                    let start = Instant::now();
                    for frame in &frames {
                        cluster.ask(frame);
                    }
                    elapsed += start.elapsed();
                    assert_eq!(
                        cluster.answers_count,
                        before_count + burst_count,
                        "every request is answered"
                    );
                }
                elapsed
            });
        });
    }
    group.finish();
}

criterion_group!(benches, commit);
criterion_main!(benches);
