//! Many one-sided histories, on several threads.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    super::{
        finding::Finding,
        runner::{Failure, Until, catching},
    },
    plan::{Options, Plan},
    world::{self, Outcome, Paths},
};

/// What many histories came to.
#[derive(Debug, Default)]
pub struct Report {
    /// Those that failed, by seed.
    pub failures: Vec<Failure>,
    /// The sum of all histories' event hashes.
    pub hash: u64,
    /// Which paths were taken.
    pub paths: Paths,
    /// How long it took.
    pub elapsed: Duration,
}

/// Runs one history. A panic of a replica is a finding.
pub fn run_plan(plan: &Plan) -> Outcome {
    catching(|| world::run(plan)).unwrap_or_else(|finding: Finding| Outcome {
        finding: Some(finding),
        paths: Paths {
            histories_count: 1,
            ..Paths::default()
        },
        ..Outcome::default()
    })
}

/// Runs the histories of `first_seed` and so on, on `threads_count` threads, until `until` or until `failures_max` have failed.
pub fn run_seeds(
    first_seed: u64,
    until: Until,
    options: &Options,
    threads_count: usize,
    failures_max: usize,
) -> Report {
    let begun = Instant::now();
    let next = AtomicU64::new(0);
    let report = Mutex::new(Report::default());
    let lock = || report.lock().expect("nobody panics with the report in hand");
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let is_over = match until {
                Until::Histories(count) => index >= count,
                Until::Elapsed(time) => begun.elapsed() >= time,
            };
            if is_over || lock().failures.len() >= failures_max {
                return;
            }
            let seed = first_seed.wrapping_add(index);
            let outcome = run_plan(&Plan::draw(seed, options));
            let mut report = lock();
            report.hash = report.hash.wrapping_add(outcome.hash);
            report.paths.add(&outcome.paths);
            report
                .failures
                .extend(outcome.finding.map(|finding| Failure { seed, finding }));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads_count {
            scope.spawn(work);
        }
    });
    let mut report = report.into_inner().expect("nobody panics with the report in hand");
    report.failures.sort_by_key(|failure| failure.seed);
    report.elapsed = begun.elapsed();
    report
}
