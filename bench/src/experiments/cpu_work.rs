//! Work that this CPU does by itself, as a yardstick beside cycle models: on one CPU, over and over for a while.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::Context;
use dataplane_waist::Wake;

use super::cycles::metric;
use crate::{
    experiment::Lab,
    host::{self, Seat},
    measure::{
        Watch,
        gates::{self, Limits, Observation},
    },
    record::{Better, Metric, ModeRecord, Row},
    table::{Arm, Table},
};

/// The name of the rows.
pub const BACKEND: &str = "cpu";

/// Before anything is counted: caches, pages and the CPU's clock.
const WARM_UP: Duration = Duration::from_millis(5);

/// A row about `work`, repeated for `duration`: what it says of one time, in its unit, and how often a second it was done.
///
/// # Errors
/// No thread could be started.
pub fn measure(
    lab: &Lab<'_>,
    (experiment, axis, round): (&str, BTreeMap<String, String>, u32),
    duration: Duration,
    (rate, amount, unit): (&str, f64, &str),
    mut work: impl FnMut() + Send,
) -> anyhow::Result<Row> {
    let at_s = lab.run_started.elapsed().as_secs_f64();
    let cpu = lab.place.cpus().first().copied();
    let seat = Seat {
        cpu,
        spins: true,
        is_shared: false,
    };
    let watch = Watch::begin();
    // In a thread of its own, which takes its place with it when it ends.
    let (facts, repeats, elapsed, used) = std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let facts = host::settle("client", seat);
            let warm = Instant::now();
            while warm.elapsed() < WARM_UP {
                work();
            }
            let tid = nix::unistd::gettid().as_raw();
            let before = host::thread_run_time(tid);
            let begun = Instant::now();
            let mut repeats = 0_u64;
            while begun.elapsed() < duration {
                work();
                repeats += 1;
            }
            let elapsed = begun.elapsed();
            let used = host::thread_run_time(tid)
                .zip(before)
                .map(|(after, before)| after.since(before));
            (facts, repeats, elapsed, used)
        });
        worker.join().ok().context("the thread that works panicked")
    })?;
    let mut seen = watch.end();
    seen.extend(used.map(|used| Observation::Contention {
        end: "client",
        waited: used.waited,
        elapsed,
    }));
    let metrics = [
        (
            rate,
            amount * repeats as f64 / elapsed.as_secs_f64(),
            unit,
            Better::Higher,
        ),
        ("repeats", repeats as f64, "count", Better::Neither),
    ];
    let metrics = metrics.map(|(name, value, unit, better)| {
        let unit = unit.to_owned();
        (name.to_owned(), Metric { value, unit, better })
    });
    let mut facts = facts;
    facts.insert("yardstick".to_owned(), "this CPU, one core, no network".to_owned());
    Ok(Row {
        experiment: experiment.to_owned(),
        backend: BACKEND.to_owned(),
        mode: ModeRecord::Native,
        axis,
        round,
        twin: false,
        seed: lab.choice.seed,
        at_s,
        elapsed_s: elapsed.as_secs_f64(),
        latency: None,
        service: None,
        schedule_lag: None,
        metrics: metrics.into(),
        series: Vec::new(),
        facts,
        validity: gates::judge(&seen, &Limits::for_wake(Wake::Spins)),
    })
}

/// The median of a metric over an arm's valid rounds.
pub fn median(table: &Table, axis: &[(&str, &str)], name: &str) -> Option<f64> {
    let mut values: Vec<f64> = table
        .arm(Arm::of(BACKEND, axis))
        .into_iter()
        .filter_map(|row| metric(row, name))
        .collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len().checked_sub(1)? / 2).copied()
}
