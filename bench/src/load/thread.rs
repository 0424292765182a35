//! The thread that measures: where it runs, with which priority, and what it has used.

use nix::{
    sys::resource::{UsageWho, getrusage},
    time::{ClockId, clock_gettime},
};

/// What a thread has used so far. Zero where the kernel would not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadUsage {
    /// CPU time, in nanoseconds.
    pub cpu_ns: u64,
    /// How often it gave up its CPU.
    pub voluntary_switches_count: u64,
    /// How often it was taken off its CPU.
    pub involuntary_switches_count: u64,
}

impl ThreadUsage {
    /// The calling thread's, so far.
    pub fn now() -> ThreadUsage {
        let cpu = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID);
        let usage = getrusage(UsageWho::RUSAGE_THREAD);
        let switches = usage.map_or((0, 0), |usage| {
            (usage.voluntary_context_switches(), usage.involuntary_context_switches())
        });
        ThreadUsage {
            cpu_ns: cpu.map_or(0, |cpu| std::time::Duration::from(cpu).as_nanos() as u64),
            voluntary_switches_count: switches.0.max(0) as u64,
            involuntary_switches_count: switches.1.max(0) as u64,
        }
    }

    /// What was used since `before`.
    pub fn since(&self, before: &ThreadUsage) -> ThreadUsage {
        ThreadUsage {
            cpu_ns: self.cpu_ns.saturating_sub(before.cpu_ns),
            voluntary_switches_count: self
                .voluntary_switches_count
                .saturating_sub(before.voluntary_switches_count),
            involuntary_switches_count: self
                .involuntary_switches_count
                .saturating_sub(before.involuntary_switches_count),
        }
    }
}
