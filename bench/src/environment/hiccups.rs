//! How still the machine is: gaps in a spinning thread's time, and how late a sleeping one wakes.
//!
//! The ideas are Gil Tene's jHiccup (a thread that does nothing but look at the clock sees every stall that the measured
//! program would have seen) and Erik Rigtorp's `hiccups` (do it on each CPU, pinned).

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use nix::{
    sched::{CpuSet, sched_setaffinity},
    sys::time::TimeSpec,
    time::{ClockId, ClockNanosleepFlags, clock_gettime, clock_nanosleep},
    unistd::Pid,
};

use super::parse::emit_cpu_list;

/// A gap longer than this is counted: most of a UDP round trip between two processes. Ours.
pub const GAP_COUNTED_NS: u64 = 10_000;
/// Longest gap that is told apart; longer ones count as this long in the quantiles.
const GAP_NS_MAX: u64 = 10_000_000_000;
/// Longest that one CPU is tried, whatever was asked.
const SPIN_MAX: Duration = Duration::from_secs(10);

/// Sleeps that [`super::capture`] takes: 100 of them put the 99th percentile at the largest but one.
pub const SLEEPS_COUNT: u32 = 100;
/// Length of each of those sleeps.
pub const SLEEP: Duration = Duration::from_micros(500);
/// Sleeps in one probe at most.
const SLEEPS_COUNT_MAX: u32 = 10_000;
/// Longest single sleep.
const SLEEP_MAX: Duration = Duration::from_millis(10);

/// What a thread that only read the clock saw on one CPU.
#[derive(Clone, Debug, PartialEq)]
pub struct Hiccups {
    /// The CPU it was pinned to.
    pub cpu: usize,
    /// How long it looked.
    pub elapsed: Duration,
    /// Median distance of two readings: the cost of a reading.
    pub gap_ns_p50: u64,
    /// 99.9th percentile of the distances.
    pub gap_ns_p999: u64,
    /// The longest distance.
    pub gap_ns_max: u64,
    /// Distances above [`GAP_COUNTED_NS`].
    pub gaps_count: u64,
    /// Share of the time that lies in those, 0 to 1.
    pub lost_ratio: f64,
}

/// How much later than asked a sleeping thread ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SleepLateness {
    /// Sleeps taken.
    pub sleeps_count: u32,
    /// Median.
    pub late_ns_p50: u64,
    /// 99th percentile.
    pub late_ns_p99: u64,
    /// The latest.
    pub late_ns_max: u64,
}

/// Spins `each` (at most 10 s) on every CPU of `cpus`, one after the other, in a thread pinned there. A CPU that this
/// process may not use is left out.
pub fn on_cpus(cpus: &[usize], each: Duration) -> Vec<Hiccups> {
    cpus.iter().filter_map(|&cpu| on_cpu(cpu, each)).collect()
}

/// [`on_cpus`] for one CPU; `None` when no thread could be pinned there.
pub fn on_cpu(cpu: usize, duration: Duration) -> Option<Hiccups> {
    let spin = move || {
        let mut only = CpuSet::new();
        only.set(cpu).ok()?;
        sched_setaffinity(Pid::from_raw(0), &only).ok()?;
        spin(cpu, duration.min(SPIN_MAX))
    };
    let thread = thread::Builder::new().name("hiccups".into()).spawn(spin).ok()?;
    thread.join().ok().flatten()
}

fn spin(cpu: usize, duration: Duration) -> Option<Hiccups> {
    let mut gaps = Histogram::<u64>::new_with_bounds(1, GAP_NS_MAX, 2).ok()?;
    let (mut gaps_count, mut lost_ns) = (0u64, 0u64);
    // The first reading pays for page faults and cold caches, which a measurement pays before it begins.
    let _ = Instant::now();
    let start = Instant::now();
    let mut last = start;
    let elapsed = loop {
        let now = Instant::now();
        let gap_ns = now.duration_since(last).as_nanos() as u64;
        gaps.saturating_record(gap_ns);
        // Recording costs a few nanoseconds of the next gap; reading again would double what there is to see.
        last = now;
        if gap_ns > GAP_COUNTED_NS {
            gaps_count += 1;
            lost_ns += gap_ns;
        }
        let elapsed = now.duration_since(start);
        if elapsed >= duration {
            break elapsed;
        }
    };
    Some(Hiccups {
        cpu,
        elapsed,
        gap_ns_p50: gaps.value_at_quantile(0.5),
        gap_ns_p999: gaps.value_at_quantile(0.999),
        gap_ns_max: gaps.max(),
        gaps_count,
        lost_ratio: lost_ns as f64 / (elapsed.as_nanos() as f64).max(1.0),
    })
}

/// Sleeps `sleeps_count` times (at most 10 000) for `sleep` (at most 10 ms) until an absolute time of CLOCK_MONOTONIC and
/// looks how late it was. `None` when the clock could not be asked or no sleep was wanted.
pub fn sleep_lateness(sleeps_count: u32, sleep: Duration) -> Option<SleepLateness> {
    let sleeps_count = sleeps_count.min(SLEEPS_COUNT_MAX);
    let sleep = TimeSpec::from_duration(sleep.min(SLEEP_MAX));
    let mut late_ns = Vec::with_capacity(sleeps_count as usize);
    for _ in 0..sleeps_count {
        let until = clock_gettime(ClockId::CLOCK_MONOTONIC).ok()? + sleep;
        // A signal cuts a sleep short; that one says nothing about lateness.
        if clock_nanosleep(ClockId::CLOCK_MONOTONIC, ClockNanosleepFlags::TIMER_ABSTIME, &until).is_err() {
            continue;
        }
        let woke = clock_gettime(ClockId::CLOCK_MONOTONIC).ok()?;
        late_ns.push(Duration::from(woke).saturating_sub(Duration::from(until)).as_nanos() as u64);
    }
    late_ns.sort_unstable();
    let nth = |q: f64| late_ns.get((late_ns.len() as f64 * q) as usize).copied();
    Some(SleepLateness {
        sleeps_count: late_ns.len() as u32,
        late_ns_p50: nth(0.5)?,
        late_ns_p99: nth(0.99)?,
        late_ns_max: *late_ns.last()?,
    })
}

/// Writes both probes as facts: of the CPUs, the worst value of each kind. The names end with the unit.
pub fn record(seen: &[Hiccups], sleep: Option<SleepLateness>, facts: &mut BTreeMap<String, String>) {
    let mut put = |name: &str, value: String| facts.insert(name.to_owned(), value);
    if !seen.is_empty() {
        let cpus: Vec<usize> = seen.iter().map(|one| one.cpu).collect();
        let worst = |of: fn(&Hiccups) -> u64| seen.iter().map(of).max().unwrap_or(0).to_string();
        let lost = seen.iter().map(|one| one.lost_ratio).fold(0.0, f64::max);
        put("hiccups_cpus", emit_cpu_list(&cpus));
        put("hiccups_gap_ns_p50", worst(|one| one.gap_ns_p50));
        put("hiccups_gap_ns_p999", worst(|one| one.gap_ns_p999));
        put("hiccups_gap_ns_max", worst(|one| one.gap_ns_max));
        put("hiccups_gaps_over_10us_count", worst(|one| one.gaps_count));
        put("hiccups_lost_ratio", format!("{lost:.6}"));
    }
    if let Some(sleep) = sleep {
        put("sleep_late_ns_p50", sleep.late_ns_p50.to_string());
        put("sleep_late_ns_p99", sleep.late_ns_p99.to_string());
        put("sleep_late_ns_max", sleep.late_ns_max.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quantiles_are_ordered_and_the_share_is_a_share() {
        let cpus = super::super::parse::cpu_list("0-1023").expect("a list");
        let seen = on_cpus(&cpus, Duration::from_millis(2));
        assert!(!seen.is_empty(), "this process may run somewhere");
        assert!(seen.len() < cpus.len(), "CPUs that are not there are left out");
        for one in &seen {
            assert!(one.gap_ns_p50 <= one.gap_ns_p999 && one.gap_ns_p50 > 0, "{one:?}");
            assert!((0.0..=1.0).contains(&one.lost_ratio), "{one:?}");
            assert!(one.elapsed >= Duration::from_millis(2), "{one:?}");
            assert_eq!(one.gaps_count == 0, one.lost_ratio == 0.0, "{one:?}");
        }
    }

    #[test]
    fn sleeps_are_never_early() {
        let late = sleep_lateness(20, Duration::from_micros(100)).expect("the clock answers");
        assert!(
            late.late_ns_p50 <= late.late_ns_p99 && late.late_ns_p99 <= late.late_ns_max,
            "{late:?}"
        );
        assert_eq!(sleep_lateness(0, Duration::ZERO), None);
    }

    #[test]
    fn the_worst_cpu_is_recorded() {
        let one = |cpu, gap_ns_max, lost_ratio| Hiccups {
            cpu,
            elapsed: Duration::from_millis(200),
            gap_ns_p50: 30,
            gap_ns_p999: 60,
            gap_ns_max,
            gaps_count: 1,
            lost_ratio,
        };
        let mut facts = BTreeMap::new();
        record(&[one(0, 20_000, 0.5), one(1, 90_000, 0.25)], None, &mut facts);
        assert_eq!(facts["hiccups_gap_ns_max"], "90000");
        assert_eq!(facts["hiccups_lost_ratio"], "0.500000");
        assert_eq!(facts["hiccups_cpus"], "0-1");
        assert!(!facts.contains_key("sleep_late_ns_p50"), "not measured is absent");
        let mut nothing = BTreeMap::new();
        record(&[], None, &mut nothing);
        assert!(nothing.is_empty());
    }
}
