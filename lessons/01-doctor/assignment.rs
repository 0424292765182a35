//! Lesson 1, your turn. Three small instruments, each with the mistake that their first version usually has.
//! Delete an `#[ignore]`, watch the test fail, mend the function above it, not the test.
#![forbid(unsafe_code)]

use std::time::Duration;

use dataplane_waist::{Clock, MonotonicClock};
use lessons::clock::{Pause, PausingClock};

// ---- 1. Steal -------------------------------------------------------------------------------------------------------

/// The share of all CPU time, 0 to 1, that the hypervisor took between two readings of /proc/stat. `None` if a reading
/// has no such line.
///
/// proc_stat(5): `cpu user nice system idle iowait irq softirq steal guest guest_nice`, in ticks since boot.
fn steal_ratio(before: &str, after: &str) -> Option<f64> {
    let (before, after) = (ticks(before)?, ticks(after)?);
    let passed: Vec<u64> = after.iter().zip(&before).map(|(a, b)| a - b).collect();
    // Something is counted twice here: read what the manual says about guest time.
    let total: u64 = passed.iter().sum();
    let stolen = passed[6];
    Some(stolen as f64 / total.max(1) as f64)
}

fn ticks(stat: &str) -> Option<Vec<u64>> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    line.split_whitespace().map(|word| word.parse().ok()).collect()
}

#[test]
#[ignore = "your turn: delete this line"]
fn a_fifth_was_stolen() {
    // Between the readings: 40 user (30 of them for guests of ours), 40 idle, 20 stolen.
    let before = "cpu  100 0 50 900 10 5 7 50 60 0\ncpu0 100 0 50 900 10 5 7 50 60 0\n";
    let after = "cpu  140 0 50 940 10 5 7 70 90 0\ncpu0 140 0 50 940 10 5 7 70 90 0\n";
    assert_eq!(steal_ratio(before, after), Some(0.2));
}

// ---- 2. The quota ---------------------------------------------------------------------------------------------------

/// How many CPUs' worth of time a process may use, given the `cpu.max` files of its control group and of all groups
/// above it. `None`: as many as there are.
///
/// A file says `QUOTA PERIOD` in microseconds, or `max PERIOD` (Documentation/admin-guide/cgroup-v2.rst).
fn limit_cpus(cpu_max_files: &[&str]) -> Option<f64> {
    let own = cpu_max_files.first()?;
    let quota_us: f64 = own.split_whitespace().next()?.parse().ok()?;
    Some(quota_us / 100_000.0)
}

#[test]
#[ignore = "your turn: delete this line"]
fn the_tightest_group_decides() {
    assert_eq!(limit_cpus(&["max 100000\n"]), None);
    assert_eq!(limit_cpus(&["150000 100000\n"]), Some(1.5));
    // The period is not always 100 ms.
    assert_eq!(limit_cpus(&["50000 25000\n"]), Some(2.0));
    // A container without a limit of its own, in a pod that has one.
    assert_eq!(
        limit_cpus(&["max 100000\n", "50000 25000\n", "400000 100000\n"]),
        Some(2.0)
    );
}

// ---- 3. Hiccups -----------------------------------------------------------------------------------------------------

/// Longer gaps than this are time lost: more than a round trip over loopback takes.
const GAP_COUNTED_NS: u64 = 10_000;

/// What a thread saw that did nothing but read the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hiccups {
    readings_count: u64,
    gap_ns_max: u64,
    /// The sum of the gaps longer than [`GAP_COUNTED_NS`].
    lost_ns: u64,
}

/// Reads the clock for `duration`.
fn probe(clock: &dyn Clock, duration: Duration) -> Hiccups {
    let start = clock.now();
    let mut readings_count = 0;
    let mut last = start;
    while last - start < duration {
        last = clock.now();
        readings_count += 1;
    }
    // The mean gap is a few dozen nanoseconds, so all is well. Is it?
    let gap_ns = (last - start).as_nanos() as u64 / readings_count;
    Hiccups {
        readings_count,
        gap_ns_max: gap_ns,
        lost_ns: if gap_ns > GAP_COUNTED_NS { last.as_ns() } else { 0 },
    }
}

#[test]
#[ignore = "your turn: delete this line"]
fn the_mean_hides_what_the_maximum_shows() {
    let pauses = [
        Pause {
            at_ns: 10_000_000,
            length_ns: 20_000,
        },
        Pause {
            at_ns: 30_000_000,
            length_ns: 4_000_000,
        },
        Pause {
            at_ns: 70_000_000,
            length_ns: 150_000,
        },
    ];
    let clock = PausingClock::new(50, &pauses);
    let seen = probe(&clock, Duration::from_millis(100));
    assert_eq!(seen.gap_ns_max, 4_000_050);
    assert_eq!(seen.lost_ns, 20_050 + 4_000_050 + 150_050);
}

/// Not an assignment: the probe on this machine. Run it with `--nocapture`, before and after you have mended it.
#[test]
fn on_this_machine() {
    let seen = probe(&MonotonicClock::new(), Duration::from_millis(100));
    println!("this machine: {seen:?}");
    assert!(seen.readings_count > 0);
}
