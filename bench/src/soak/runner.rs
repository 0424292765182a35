//! Many histories, on several threads; the first failures are kept.

use std::{
    cell::RefCell,
    panic::{self, AssertUnwindSafe},
    sync::{
        Mutex, Once,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    coverage::Coverage,
    finding::{Finding, FindingKind},
    plan::{Options, Plan},
    world::{self, Outcome},
};

/// How far a soak goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// As many histories.
    Histories(u64),
    /// As long, of the wall's clock.
    Elapsed(Duration),
}

/// A history that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Its seed.
    pub seed: u64,
    /// What did not hold.
    pub finding: Finding,
}

/// What many histories came to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// How many were run.
    pub histories_count: u64,
    /// Those that failed, by seed.
    pub failures: Vec<Failure>,
    /// The sum of all histories' event hashes: the same for the same seeds, whatever the threads, until what happens changes.
    pub hash: u64,
    /// Which paths were taken.
    pub coverage: Coverage,
    /// How long it took.
    pub elapsed: Duration,
}

/// Runs the histories of `first_seed`, `first_seed + 1` and so on, on `threads_count` threads, until `until` or until
/// `failures_max` have failed.
pub fn run_seeds(
    first_seed: u64,
    until: Until,
    options: &Options,
    threads_count: usize,
    failures_max: usize,
) -> Report {
    let begun = Instant::now();
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let report = Mutex::new(Report::default());
    let work = || {
        let mut coverage = Coverage::default();
        let (mut histories_count, mut hash) = (0, 0u64);
        while !stop.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let is_over = match until {
                Until::Histories(count) => index >= count,
                Until::Elapsed(time) => begun.elapsed() >= time,
            };
            if is_over {
                break;
            }
            let seed = first_seed.wrapping_add(index);
            let outcome = run_plan(&Plan::draw(seed, options));
            histories_count += 1;
            hash = hash.wrapping_add(outcome.hash);
            coverage.add(&outcome.coverage);
            if let Some(finding) = outcome.finding {
                let mut report = report.lock().expect("nobody panics with the report in hand");
                report.failures.push(Failure { seed, finding });
                if report.failures.len() >= failures_max {
                    stop.store(true, Ordering::Relaxed);
                }
            }
        }
        let mut report = report.lock().expect("nobody panics with the report in hand");
        report.histories_count += histories_count;
        report.hash = report.hash.wrapping_add(hash);
        report.coverage.add(&coverage);
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

thread_local! {
    /// Within a history: the last panic's text, instead of a report on stderr.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
    static IN_HISTORY: RefCell<bool> = const { RefCell::new(false) };
}

/// Runs one history. A panic of a replica is a finding.
pub fn run_plan(plan: &Plan) -> Outcome {
    catching(|| world::run(plan)).unwrap_or_else(|finding| Outcome {
        finding: Some(finding),
        struck: Vec::new(),
        hash: 0,
        coverage: Coverage::default(),
    })
}

/// What `run` gives, or its panic.
///
/// # Errors
/// The panic's text.
pub(super) fn catching<T>(run: impl FnOnce() -> T) -> Result<T, Finding> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if IN_HISTORY.with_borrow(|is| *is) {
                PANIC.set(Some(info.to_string()));
            } else {
                before(info);
            }
        }));
    });
    IN_HISTORY.set(true);
    let ran = panic::catch_unwind(AssertUnwindSafe(run));
    IN_HISTORY.set(false);
    ran.map_err(|_| Finding {
        kind: FindingKind::Panic,
        text: PANIC.take().unwrap_or_default(),
    })
}
