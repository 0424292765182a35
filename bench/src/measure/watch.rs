//! What the machine did between two moments: time that the hypervisor took away, and what the clocks did to each other.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use super::gates::Observation;

/// Reads what the machine did between two moments.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    /// Stolen and all ticks; `None` where /proc/stat cannot be read.
    ticks: Option<(u64, u64)>,
    clocks: Option<Clocks>,
}

/// Four clocks, read as close to each other as it goes.
#[derive(Clone, Copy, Debug)]
struct Clocks {
    monotonic_ns: i64,
    wall_ahead_ns: i64,
    boot_ahead_ns: i64,
    raw_ahead_ns: i64,
}

impl Watch {
    /// From now on.
    pub fn begin() -> Watch {
        Watch {
            ticks: read_ticks(),
            clocks: Clocks::read(),
        }
    }

    /// What was seen since. What could not be read is not in it.
    pub fn end(self) -> Vec<Observation> {
        let now = Watch::begin();
        let mut observations = Vec::new();
        if let (Some(before), Some(after)) = (self.ticks, now.ticks) {
            observations.push(Observation::Steal {
                stolen_ticks: after.0.saturating_sub(before.0),
                total_ticks: after.1.saturating_sub(before.1),
            });
        }
        if let (Some(before), Some(after)) = (self.clocks, now.clocks) {
            observations.push(Observation::Clocks {
                wall_step_ns: after.wall_ahead_ns - before.wall_ahead_ns,
                suspended_ns: after.boot_ahead_ns - before.boot_ahead_ns,
                slew_ns: before.raw_ahead_ns - after.raw_ahead_ns,
                elapsed: Duration::from_nanos((after.monotonic_ns - before.monotonic_ns).max(0) as u64),
            });
        }
        observations
    }
}

impl Clocks {
    /// The best of several readings: the one that was interrupted least.
    fn read() -> Option<Clocks> {
        let ns = |clock| {
            let time = clock_gettime(clock).ok()?;
            Some(time.tv_sec() * 1_000_000_000 + time.tv_nsec())
        };
        let once = || {
            let before_ns = ns(ClockId::CLOCK_MONOTONIC)?;
            let (wall_ns, boot_ns) = (ns(ClockId::CLOCK_REALTIME)?, ns(ClockId::CLOCK_BOOTTIME)?);
            let raw_ns = ns(ClockId::CLOCK_MONOTONIC_RAW)?;
            let after_ns = ns(ClockId::CLOCK_MONOTONIC)?;
            let monotonic_ns = before_ns + (after_ns - before_ns) / 2;
            let clocks = Clocks {
                monotonic_ns,
                wall_ahead_ns: wall_ns - monotonic_ns,
                boot_ahead_ns: boot_ns - monotonic_ns,
                raw_ahead_ns: raw_ns - monotonic_ns,
            };
            Some((after_ns - before_ns, clocks))
        };
        (0..5)
            .filter_map(|_| once())
            .min_by_key(|(took_ns, _)| *took_ns)
            .map(|(_, clocks)| clocks)
    }
}

fn read_ticks() -> Option<(u64, u64)> {
    parse_ticks(&std::fs::read_to_string("/proc/stat").ok()?)
}

/// Stolen and all ticks of all CPUs, out of /proc/stat: the line `cpu`, user nice system idle iowait irq softirq steal
/// (proc_stat(5)); the guest columns after it are contained in user and nice.
fn parse_ticks(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().find(|line| line.starts_with("cpu "))?;
    let columns: Option<Vec<u64>> = line
        .split_ascii_whitespace()
        .skip(1)
        .take(8)
        .map(|c| c.parse().ok())
        .collect();
    let columns = columns.filter(|columns| columns.len() == 8)?;
    Some((
        columns[7],
        columns.iter().fold(0, |sum: u64, ticks| sum.saturating_add(*ticks)),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_read_from_the_kernel_s_line() {
        let stat = "cpu  100 1 50 800 3 0 6 40 7 0\ncpu0 50 0 25 400 1 0 3 20 0 0\n";
        assert_eq!(parse_ticks(stat), Some((40, 1_000)));
        for damaged in ["", "cpu  1 2 3\n", "cpu  a b c d e f g h\n", "cpu0 1 2 3 4 5 6 7 8\n"] {
            assert_eq!(parse_ticks(damaged), None, "{damaged:?}");
        }
    }

    #[test]
    fn a_watch_of_this_machine_reads_its_clocks() {
        let seen = Watch::begin().end();
        assert!(
            seen.iter().any(|seen| matches!(seen, Observation::Clocks { .. })),
            "{seen:?}"
        );
    }
}
