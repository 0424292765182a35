//! What the CPUs did since boot, as `/proc/stat` counts it, and how much of it the hypervisor took.

use super::sysfs::Sysfs;

/// The line `cpu` of `/proc/stat` (man 5 proc_stat): time of all CPUs since boot, in clock ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTimes {
    /// User mode, guests and lowered priority included.
    pub user_ticks: u64,
    /// Kernel mode, without interrupts.
    pub system_ticks: u64,
    /// Nothing to do, waiting for I/O included.
    pub idle_ticks: u64,
    /// Hard and soft interrupts.
    pub interrupt_ticks: u64,
    /// This machine wanted to run and the hypervisor ran something else.
    pub steal_ticks: u64,
}

impl CpuTimes {
    /// Reads `/proc/stat`. `None` where the kernel does not say.
    pub fn read() -> Option<CpuTimes> {
        CpuTimes::parse(&Sysfs::new("/").text("/proc/stat")?)
    }

    /// Parses the text of `/proc/stat`. `None` for a kernel that does not count steal: it must not pass as "none stolen".
    pub fn parse(stat: &str) -> Option<CpuTimes> {
        let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let mut ticks = [0u64; 8];
        let mut words = line.split_ascii_whitespace();
        for tick in &mut ticks {
            *tick = words.next()?.parse().ok()?;
        }
        let [user, nice, system, idle, iowait, irq, softirq, steal] = ticks;
        Some(CpuTimes {
            user_ticks: user.saturating_add(nice),
            system_ticks: system,
            idle_ticks: idle.saturating_add(iowait),
            interrupt_ticks: irq.saturating_add(softirq),
            steal_ticks: steal,
        })
    }

    /// What happened after `earlier`. A counter that went back (iowait may) counts as nothing.
    pub fn since(&self, earlier: &CpuTimes) -> CpuTimes {
        CpuTimes {
            user_ticks: self.user_ticks.saturating_sub(earlier.user_ticks),
            system_ticks: self.system_ticks.saturating_sub(earlier.system_ticks),
            idle_ticks: self.idle_ticks.saturating_sub(earlier.idle_ticks),
            interrupt_ticks: self.interrupt_ticks.saturating_sub(earlier.interrupt_ticks),
            steal_ticks: self.steal_ticks.saturating_sub(earlier.steal_ticks),
        }
    }

    /// All of it, idle and steal included.
    pub fn total_ticks(&self) -> u64 {
        [
            self.user_ticks,
            self.system_ticks,
            self.idle_ticks,
            self.interrupt_ticks,
            self.steal_ticks,
        ]
        .into_iter()
        .fold(0, u64::saturating_add)
    }
}

/// Share of the CPU time between two readings that the hypervisor took away, 0 to 1; 0 when no tick passed.
///
/// A tick is usually 10 ms (`getconf CLK_TCK`), so an interval below a second shows steal only coarsely.
pub fn steal_ratio(before: &CpuTimes, after: &CpuTimes) -> f64 {
    let passed = after.since(before);
    match passed.total_ticks() {
        0 => 0.0,
        total => passed.steal_ticks as f64 / total as f64,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VIRTUAL: &str = "cpu  48848 7 8431 174686 448 3 96 48 0 0\ncpu0 22485 0 3856 89725 136 0 15 27 0 0\n";

    #[test]
    fn a_real_line() {
        let times = CpuTimes::parse(VIRTUAL).expect("ten columns");
        assert_eq!(times.user_ticks, 48855);
        assert_eq!(times.idle_ticks, 175134);
        assert_eq!(times.steal_ticks, 48);
        assert_eq!(times.total_ticks(), 48848 + 7 + 8431 + 174686 + 448 + 3 + 96 + 48);
    }

    #[test]
    fn steal_is_a_share_of_what_passed() {
        let before = CpuTimes::parse("cpu 100 0 0 900 0 0 0 50").expect("eight columns");
        let after = CpuTimes::parse("cpu 140 0 0 940 0 0 0 70").expect("eight columns");
        assert_eq!(steal_ratio(&before, &after), 0.2);
        assert_eq!(steal_ratio(&after, &after), 0.0);
        assert_eq!(
            steal_ratio(&after, &before),
            0.0,
            "a counter that went back is no steal"
        );
    }

    #[test]
    fn a_kernel_that_does_not_count_steal_is_not_a_kernel_without_steal() {
        for text in ["", "cpu", "cpu  1 2 3 4", "cpu0 1 2 3 4 5 6 7 8", "cpu 1 2 3 4 5 6 7 x"] {
            assert_eq!(CpuTimes::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn this_kernel_answers() {
        let before = CpuTimes::read().expect("linux since 2.6.11 counts steal");
        let after = CpuTimes::read().expect("linux since 2.6.11 counts steal");
        assert!((0.0..=1.0).contains(&steal_ratio(&before, &after)));
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in ".{0,200}", numbers in prop::collection::vec(any::<u64>(), 0..12)) {
            let _ = CpuTimes::parse(&text);
            let line = numbers.iter().fold("cpu ".to_owned(), |line, n| format!("{line} {n}"));
            if let Some(times) = CpuTimes::parse(&line) {
                prop_assert!((0.0..=1.0).contains(&steal_ratio(&CpuTimes::default(), &times)));
            }
        }
    }
}
