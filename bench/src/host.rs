//! Our own processes and threads: put on their CPUs, and what the kernel has counted about them (/proc).

use std::{collections::BTreeMap, fs, sync::OnceLock, time::Duration};

use dataplane_waist::{Clock, Instant};
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::load::thread;

/// Where an end of a trial is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seat {
    /// The CPU to stay on, where CPUs can be chosen.
    pub cpu: Option<usize>,
    /// The end never sleeps.
    pub spins: bool,
    /// The other end has the same CPU.
    pub is_shared: bool,
}

/// Puts the calling thread on its seat; says what really happened, as facts of a row: `client_cpu`, `client_scheduler`.
///
/// An end that sleeps gets SCHED_FIFO where that is allowed, so that being woken is the kernel's work and not the luck
/// of the run queue. One that spins does not: the kernel takes 5 % of each second away from spinning real-time threads
/// (sched_rt_runtime_us), in one piece.
pub fn settle(end: &str, seat: Seat) -> BTreeMap<String, String> {
    settle_as(end, seat, Scheduler::RealTime)
}

/// How the kernel is to choose when a thread of ours runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scheduler {
    /// SCHED_FIFO where that is allowed and does no harm.
    #[default]
    RealTime,
    /// SCHED_FIFO above all others of ours: a replica whose client never sleeps, because a program answers it, would otherwise
    /// never run on a CPU that the two share.
    RealTimeFirst,
    /// SCHED_OTHER, as any program: what a replica without privileges gets.
    Ordinary,
}

/// [`settle`] for a measurement that compares schedulers.
pub fn settle_as(end: &str, seat: Seat, scheduler: Scheduler) -> BTreeMap<String, String> {
    let mut facts = BTreeMap::new();
    if let Some(cpu) = seat.cpu {
        let pinned = thread::pin(cpu);
        facts.insert(
            format!("{end}_cpu"),
            if pinned.done { cpu.to_string() } else { pinned.fact },
        );
    }
    let scheduler = match (scheduler, seat.spins) {
        (Scheduler::Ordinary, _) => "SCHED_OTHER: as asked for".to_owned(),
        (_, true) => "SCHED_OTHER: it spins".to_owned(),
        (Scheduler::RealTimeFirst, false) => thread::fifo_first().fact,
        (Scheduler::RealTime, false) => thread::fifo().fact,
    };
    facts.insert(format!("{end}_scheduler"), scheduler);
    let timers = thread::tighten_timers();
    if !timers.done {
        facts.insert(format!("{end}_timers"), timers.fact);
    }
    facts
}

/// Why no thread of ours gets SCHED_FIFO, if none does. Asked in a thread of its own, whose priority dies with it.
pub fn realtime_refusal() -> Option<String> {
    let asked = std::thread::spawn(thread::fifo).join();
    match asked {
        Ok(setting) if setting.done => None,
        Ok(setting) => Some(setting.fact),
        Err(_) => Some("the thread that asked for SCHED_FIFO panicked".to_owned()),
    }
}

/// Has the kernel send SIGXCPU, which ends it, to this process when a real-time thread of it runs so long without ever
/// blocking (RLIMIT_RTTIME, getrlimit(2)): a replica that spins by mistake must not take the machine with it. Says so
/// if the kernel refuses.
pub fn bound_realtime(longest: Duration) -> Option<String> {
    use nix::sys::resource::{Resource, setrlimit};
    let longest_us = longest.as_micros() as u64;
    setrlimit(Resource::RLIMIT_RTTIME, longest_us, longest_us)
        .err()
        .map(|error| format!("not bounded: {error}"))
}

/// CLOCK_MONOTONIC, from the machine's start and not from a process's: the time line that processes of one machine share.
#[derive(Clone, Copy, Debug)]
pub struct MachineClock;

impl Clock for MachineClock {
    fn now(&self) -> Instant {
        Instant::from_ns(clock_ns(ClockId::CLOCK_MONOTONIC))
    }
}

/// Gives the calling thread a table of open files of its own, as a program with one thread has: in a table that threads
/// share, every system call on a socket counts a reference up and down (fs/file.c, `__fget_light`). Files opened so far
/// stay open in both tables until the process ends, so this is for a process that keeps what it opened.
pub fn own_files() {
    // Refused only where the whole call is; then the thread pays like any thread of a large program.
    let _ = nix::sched::unshare(nix::sched::CloneFlags::CLONE_FILES);
}

/// What a thread, or all threads of a process, have used of their CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunTime {
    /// Time on a CPU.
    pub on_cpu: Duration,
    /// Time in which it could have run and another thread had the CPU.
    pub waited: Duration,
}

impl RunTime {
    /// What was used since `earlier`.
    pub fn since(self, earlier: RunTime) -> RunTime {
        RunTime {
            on_cpu: self.on_cpu.saturating_sub(earlier.on_cpu),
            waited: self.waited.saturating_sub(earlier.waited),
        }
    }
}

/// A process so far: all its threads, io_uring's SQPOLL threads included.
///
/// `None` when it is gone, or the kernel keeps no such count (CONFIG_SCHED_INFO).
pub fn process_run_time(pid: u32) -> Option<RunTime> {
    let mut total = RunTime::default();
    for entry in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let thread = schedstat(&format!("{}/schedstat", entry.ok()?.path().display()))?;
        total.on_cpu += thread.on_cpu;
        total.waited += thread.waited;
    }
    Some(total)
}

/// How often all threads of a process have gone to sleep so far, of their own accord: each was woken as often, less one.
///
/// `None` when it is gone.
pub fn process_sleeps_count(pid: u32) -> Option<u64> {
    let mut total = 0;
    for entry in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let status = fs::read_to_string(entry.ok()?.path().join("status")).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        total += line.trim().parse::<u64>().ok()?;
    }
    Some(total)
}

/// One of our own threads so far.
pub fn thread_run_time(tid: i32) -> Option<RunTime> {
    schedstat(&format!("/proc/self/task/{tid}/schedstat"))
}

/// CPU time of the calling thread so far, in nanoseconds.
pub fn thread_cpu_ns() -> u64 {
    clock_ns(ClockId::CLOCK_THREAD_CPUTIME_ID)
}

/// CPU time of all threads of this process so far, in nanoseconds; those that io_uring runs for it are among them.
pub fn process_cpu_ns() -> u64 {
    clock_ns(ClockId::CLOCK_PROCESS_CPUTIME_ID)
}

/// 0 where the kernel would not say, which no Linux does.
fn clock_ns(clock: ClockId) -> u64 {
    clock_gettime(clock).map_or(0, |time| Duration::from(time).as_nanos() as u64)
}

/// CPU time so far of the kernel threads that io_uring runs for this process (SQPOLL; their names begin with "iou-").
pub fn io_uring_threads_cpu_time() -> Duration {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else {
        return Duration::ZERO;
    };
    tasks
        .flatten()
        .filter(|task| fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.starts_with("iou-")))
        .filter_map(|task| schedstat(&task.path().join("schedstat").display().to_string()))
        .map(|thread| thread.on_cpu)
        .sum()
}

/// CPU time so far of the kernel's softirq threads, of all CPUs: network work that no thread was there to be charged for.
/// `None` where they cannot be seen (another PID namespace).
pub fn softirq_threads_cpu_time() -> Option<Duration> {
    /// They live as long as their CPU; a number is looked up once.
    static PIDS: OnceLock<Vec<u32>> = OnceLock::new();
    let pids = PIDS.get_or_init(|| {
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        processes
            .filter_map(|process| process.file_name().to_str()?.parse().ok())
            .filter(|pid: &u32| {
                fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("ksoftirqd/"))
            })
            .collect()
    });
    threads_cpu_time(pids)
}

/// CPU time so far of these threads, of whatever process, together; `None` if there are none or they cannot be seen.
pub fn threads_cpu_time(pids: &[u32]) -> Option<Duration> {
    let times: Option<Vec<Duration>> = pids
        .iter()
        .map(|pid| schedstat(&format!("/proc/{pid}/schedstat")).map(|time| time.on_cpu))
        .collect();
    times.filter(|times| !times.is_empty()).map(|times| times.iter().sum())
}

/// Puts a thread that is not ours, a kernel thread above all, on a CPU; where that is not allowed it stays where it is.
pub fn pin_other(pid: u32, cpu: Option<usize>) {
    let mut set = nix::sched::CpuSet::new();
    if let Some(cpu) = cpu
        && set.set(cpu).is_ok()
    {
        let _ = nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(pid as i32), &set);
    }
}

/// The first two fields of a schedstat file, in nanoseconds (Documentation/scheduler/sched-stats.rst).
fn schedstat(path: &str) -> Option<RunTime> {
    let text = fs::read_to_string(path).ok()?;
    let mut fields = text
        .split_whitespace()
        .map(|field| field.parse().map(Duration::from_nanos));
    Some(RunTime {
        on_cpu: fields.next()?.ok()?,
        waited: fields.next()?.ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_time_grows() {
        let before = process_run_time(std::process::id()).expect("a live process");
        let mut sum = 0u64;
        while process_run_time(std::process::id())
            .expect("a live process")
            .since(before)
            .on_cpu
            .is_zero()
        {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(process_run_time(u32::MAX).is_none());
    }
}
