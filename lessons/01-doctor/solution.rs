//! Lesson 1, solved: three instruments of the doctor, on readings that are known and on this machine.
#![forbid(unsafe_code)]

use std::{fs, path::Path, time::Duration};

use dataplane_waist::{Clock, MonotonicClock};
use lessons::clock::{Pause, PausingClock};

// ---- 1. Steal -------------------------------------------------------------------------------------------------------

/// `user nice system idle iowait irq softirq steal`. What follows, guest and guest_nice, is already in user and nice:
/// account_guest_time in kernel/sched/cputime.c adds it to both.
const COLUMNS: usize = 8;
const STEAL: usize = 7;

fn steal_ratio(before: &str, after: &str) -> Option<f64> {
    let (before, after) = (ticks(before)?, ticks(after)?);
    // iowait may go back (proc_stat(5) says so): that is no time.
    let passed: Vec<u64> = after.iter().zip(&before).map(|(a, b)| a.saturating_sub(*b)).collect();
    let total: u64 = passed.iter().sum();
    Some(passed[STEAL] as f64 / total.max(1) as f64)
}

fn ticks(stat: &str) -> Option<Vec<u64>> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let words = line.split_whitespace().take(COLUMNS);
    let ticks: Vec<u64> = words.map(|word| word.parse().ok()).collect::<Option<_>>()?;
    (ticks.len() == COLUMNS).then_some(ticks)
}

#[test]
fn a_fifth_was_stolen() {
    let before = "cpu  100 0 50 900 10 5 7 50 60 0\ncpu0 100 0 50 900 10 5 7 50 60 0\n";
    let after = "cpu  140 0 50 940 10 5 7 70 90 0\ncpu0 140 0 50 940 10 5 7 70 90 0\n";
    assert_eq!(steal_ratio(before, after), Some(0.2));
    assert_eq!(steal_ratio(after, after), Some(0.0));
    assert_eq!(steal_ratio("", after), None);
    assert_eq!(steal_ratio("cpu  1 2 3 4\n", after), None, "not counted is not zero");
}

#[test]
fn steal_of_this_machine() {
    let before = fs::read_to_string("/proc/stat").expect("Linux has /proc/stat");
    std::thread::sleep(Duration::from_millis(50));
    let after = fs::read_to_string("/proc/stat").expect("Linux has /proc/stat");
    let ratio = steal_ratio(&before, &after).expect("Linux counts steal since 2.6.11");
    println!("stolen in 50 ms: {:.1} %", ratio * 100.0);
    assert!((0.0..=1.0).contains(&ratio), "{ratio}");
}

// ---- 2. The quota ---------------------------------------------------------------------------------------------------

fn limit_cpus(cpu_max_files: &[&str]) -> Option<f64> {
    let limits = cpu_max_files.iter().filter_map(|file| {
        let (quota, period_us) = file.trim().split_once(' ')?;
        // "max" is no number, and no limit.
        Some(quota.parse::<f64>().ok()? / period_us.parse::<f64>().ok()?)
    });
    limits.min_by(f64::total_cmp)
}

#[test]
fn the_tightest_group_decides() {
    assert_eq!(limit_cpus(&["max 100000\n"]), None);
    assert_eq!(limit_cpus(&["150000 100000\n"]), Some(1.5));
    assert_eq!(limit_cpus(&["50000 25000\n"]), Some(2.0));
    assert_eq!(
        limit_cpus(&["max 100000\n", "50000 25000\n", "400000 100000\n"]),
        Some(2.0)
    );
    assert_eq!(limit_cpus(&[]), None);
}

#[test]
fn quota_of_this_process() {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let Some(own) = groups.lines().find_map(|line| line.strip_prefix("0::/")) else {
        return println!("skipped: this process is in no version 2 control group");
    };
    // From its own group up to the root, which has no cpu.max.
    let folders = Path::new(own).ancestors();
    let files: Vec<String> = folders
        .filter_map(|folder| fs::read_to_string(Path::new("/sys/fs/cgroup").join(folder).join("cpu.max")).ok())
        .collect();
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let limit = limit_cpus(&files);
    println!("{} groups with a cpu.max; limit: {limit:?} CPUs", files.len());
    assert!(limit.is_none_or(|cpus| cpus > 0.0));
}

// ---- 3. Hiccups -----------------------------------------------------------------------------------------------------

const GAP_COUNTED_NS: u64 = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hiccups {
    readings_count: u64,
    gap_ns_max: u64,
    lost_ns: u64,
}

fn probe(clock: &dyn Clock, duration: Duration) -> Hiccups {
    let mut seen = Hiccups {
        readings_count: 0,
        gap_ns_max: 0,
        lost_ns: 0,
    };
    let start = clock.now();
    let mut last = start;
    while last - start < duration {
        let now = clock.now();
        let gap_ns = (now - last).as_nanos() as u64;
        seen.readings_count += 1;
        seen.gap_ns_max = seen.gap_ns_max.max(gap_ns);
        if gap_ns > GAP_COUNTED_NS {
            seen.lost_ns += gap_ns;
        }
        last = now;
    }
    seen
}

#[test]
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
    let duration = Duration::from_millis(100);
    let seen = probe(&clock, duration);
    assert_eq!(seen.gap_ns_max, 4_000_050);
    assert_eq!(seen.lost_ns, 20_050 + 4_000_050 + 150_050);
    // Four milliseconds without a pulse, and the mean gap has moved by two nanoseconds.
    let gap_ns_mean = duration.as_nanos() as u64 / seen.readings_count;
    assert_eq!(gap_ns_mean, 52);
}

/// Two runs that are the same in everything that a program controls. Print them (`--nocapture`): the difference between
/// them is what any comparison on this machine has to exceed.
#[test]
fn two_identical_runs() {
    let clock = MonotonicClock::new();
    let duration = Duration::from_millis(100);
    let runs = [probe(&clock, duration), probe(&clock, duration)];
    for run in &runs {
        let elapsed_ns_min = duration.as_nanos() as u64;
        println!("{run:?}, mean gap {} ns", elapsed_ns_min / run.readings_count);
        assert!(run.gap_ns_max >= elapsed_ns_min / run.readings_count, "{run:?}");
        assert_eq!(run.lost_ns > 0, run.gap_ns_max > GAP_COUNTED_NS, "{run:?}");
    }
    println!("the same again? {}", runs[0] == runs[1]);
}
