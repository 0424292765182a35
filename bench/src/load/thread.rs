//! The thread that measures: where it runs, with which priority, and what it has used.
//!
//! Each setting says what really happened, in words that a record keeps: a measurement that asked to be pinned and was
//! not is another measurement.

use nix::{
    errno::Errno,
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    sys::{
        prctl,
        resource::{UsageWho, getrusage},
    },
    time::{ClockId, clock_gettime},
    unistd::Pid,
};
use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadPriorityValue, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

/// The SCHED_FIFO priority: above every ordinary thread, below the kernel's own threads (50 and 99).
const FIFO_PRIORITY: u8 = 10;

/// What became of a wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Was it granted?
    pub done: bool,
    /// What is so now, or why it is not.
    pub fact: String,
}

impl Setting {
    fn done(fact: String) -> Setting {
        Setting { done: true, fact }
    }

    fn refused(fact: String) -> Setting {
        Setting { done: false, fact }
    }
}

/// The CPUs that the calling thread may run on, in order. Empty if the kernel would not say.
pub fn usable_cpus() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(Pid::from_raw(0)) else {
        return Vec::new();
    };
    (0..CpuSet::count())
        .filter(|&cpu| set.is_set(cpu).unwrap_or(false))
        .collect()
}

/// Pins the calling thread to one CPU.
pub fn pin(cpu: usize) -> Setting {
    let mut set = CpuSet::new();
    let pinned = set.set(cpu).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
    match pinned {
        Ok(()) => Setting::done(format!("pinned to CPU {cpu}")),
        Err(error) => Setting::refused(format!(
            "not pinned to CPU {cpu} ({error}); the usable CPUs are {:?}",
            usable_cpus()
        )),
    }
}

/// Gives the calling thread, which sleeps now and then, SCHED_FIFO where that is allowed. One that never sleeps is a
/// [`super::spinning::Spinning`].
pub fn fifo() -> Setting {
    fifo_at(FIFO_PRIORITY)
}

/// As [`fifo`], above all that have that.
pub fn fifo_first() -> Setting {
    fifo_at(FIFO_PRIORITY + 1)
}

fn fifo_at(priority: u8) -> Setting {
    let priority = ThreadPriorityValue::try_from(priority).expect("10 and 11 are below 100");
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    let set = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Crossplatform(priority), policy);
    match set {
        Ok(()) => Setting::done(format!("SCHED_FIFO {priority}{}", throttling())),
        Err(thread_priority::Error::OS(code)) => Setting::refused(format!(
            "SCHED_OTHER: SCHED_FIFO was refused ({}); it takes root, CAP_SYS_NICE or `ulimit -r {priority}`",
            Errno::from_raw(code)
        )),
        Err(error) => Setting::refused(format!("SCHED_OTHER: SCHED_FIFO was refused ({error:?})")),
    }
}

/// The kernel takes a part of each period away from real-time threads, unless it is told not to.
fn throttling() -> String {
    match std::fs::read_to_string("/proc/sys/kernel/sched_rt_runtime_us") {
        Ok(text) if text.trim() == "-1" => String::new(),
        Ok(text) => format!(
            " (throttled to {} µs of each period; sysctl kernel.sched_rt_runtime_us=-1 lifts that)",
            text.trim()
        ),
        Err(_) => String::new(),
    }
}

/// Lets timers of the calling thread expire within 1 ns of their time instead of the usual 50 µs
/// (PR_SET_TIMERSLACK, prctl(2)).
pub fn tighten_timers() -> Setting {
    match prctl::set_timerslack(1) {
        Ok(()) => Setting::done("timer slack 1 ns".into()),
        Err(error) => Setting::refused(format!("timer slack as inherited, usually 50 µs ({error})")),
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fifo_is_granted_or_says_what_it_takes() {
        // A thread of its own: the priority dies with it.
        let setting = std::thread::spawn(fifo).join().expect("it does not panic");
        match setting.done {
            true => assert!(setting.fact.starts_with("SCHED_FIFO 10"), "{setting:?}"),
            false => assert!(setting.fact.contains("CAP_SYS_NICE"), "{setting:?}"),
        }
    }

    #[test]
    fn a_thread_is_pinned_where_it_may_run_and_nowhere_else() {
        // A thread of its own: the affinity dies with it.
        let checked = std::thread::spawn(|| {
            let cpus = usable_cpus();
            let last = *cpus.last().expect("this thread runs somewhere");
            let pinned = pin(last);
            assert!(pinned.done, "{pinned:?}");
            assert_eq!(usable_cpus(), [last]);
            for absent in [CpuSet::count() - 1, CpuSet::count(), usize::MAX] {
                let refused = pin(absent);
                assert!(!refused.done && refused.fact.contains("usable CPUs"), "{refused:?}");
            }
            assert!(tighten_timers().done);
        });
        checked.join().expect("the checks hold");
    }

    #[test]
    fn usage_grows_with_use() {
        let before = ThreadUsage::now();
        let mut sum = 0u64;
        while ThreadUsage::now().cpu_ns == before.cpu_ns {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(ThreadUsage::now().since(&before).cpu_ns > 0);
    }
}
