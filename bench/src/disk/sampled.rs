//! One operation after the other, or several side by side, for a time: what each took, and what all of it cost.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use crate::{host, measure::Recorder};

/// Operations before anything counts: the first ones find cold caches and idle CPUs.
pub const WARM_UP: Duration = Duration::from_millis(20);

/// What was measured.
#[derive(Clone, Debug)]
pub struct Sampled {
    /// From the call to its end.
    pub latency: Recorder,
    /// Operations in `elapsed`.
    pub count: u64,
    /// How long.
    pub elapsed: Duration,
    /// CPU time of the threads that called, and of those that io_uring made for them. What kernel threads did for everybody
    /// (interrupts, work queues) is not in it.
    pub cpu: Duration,
}

/// CPU time of the calling thread from a moment on, io_uring's threads included.
#[derive(Clone, Copy, Debug)]
pub struct CpuMeter {
    thread_ns: u64,
    uring: Duration,
}

impl CpuMeter {
    /// From now on.
    pub fn begin() -> CpuMeter {
        CpuMeter {
            uring: host::io_uring_threads_cpu_time(),
            thread_ns: host::thread_cpu_ns(),
        }
    }

    /// Since then.
    pub fn end(self) -> Duration {
        let thread = Duration::from_nanos(host::thread_cpu_ns().saturating_sub(self.thread_ns));
        thread + host::io_uring_threads_cpu_time().saturating_sub(self.uring)
    }
}

/// A duration as a histogram takes it.
pub fn as_ns(duration: Duration) -> u64 {
    duration.as_nanos().min(u128::from(u64::MAX)) as u64
}

/// Calls `one` again and again: each call begins when the one before has ended (a closed loop).
///
/// # Errors
/// The first of `one`.
pub fn closed(
    duration: Duration,
    stop: &AtomicBool,
    mut one: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Sampled> {
    let has_time = |since: Instant, max: Duration| since.elapsed() < max && !stop.load(Ordering::Relaxed);
    let warm = Instant::now();
    while has_time(warm, WARM_UP.min(duration)) {
        one()?;
    }
    let mut latency = Recorder::new();
    let cpu = CpuMeter::begin();
    let begin = Instant::now();
    let mut last = begin;
    loop {
        one()?;
        let now = Instant::now();
        latency.record(as_ns(now - last));
        last = now;
        if now - begin >= duration || stop.load(Ordering::Relaxed) {
            break;
        }
    }
    Ok(Sampled {
        count: latency.total_count(),
        latency,
        elapsed: last - begin,
        cpu: cpu.end(),
    })
}

/// Puts together what threads have measured at the same time.
pub fn together(parts: Vec<Sampled>) -> Option<Sampled> {
    parts.into_iter().reduce(|mut all, part| {
        all.latency.merge(&part.latency);
        all.count += part.count;
        all.elapsed = all.elapsed.max(part.elapsed);
        all.cpu += part.cpu;
        all
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_called_is_counted_after_warming_up() {
        let mut calls_count = 0;
        let one = || {
            calls_count += 1;
            std::thread::sleep(Duration::from_millis(1));
            Ok(())
        };
        let sampled = closed(Duration::from_millis(30), &AtomicBool::new(false), one).expect("nothing fails");
        assert!(
            sampled.count >= 1 && sampled.count < calls_count,
            "{} of {calls_count}",
            sampled.count
        );
        assert!(sampled.elapsed >= Duration::from_millis(30));
        assert_eq!(sampled.latency.total_count(), sampled.count);
    }

    #[test]
    fn a_stop_ends_it_and_an_error_too() {
        let stopped = closed(Duration::from_secs(3600), &AtomicBool::new(true), || Ok(())).expect("one call");
        assert_eq!(stopped.count, 1);
        let failed = closed(Duration::from_secs(3600), &AtomicBool::new(false), || {
            anyhow::bail!("full")
        });
        assert_eq!(failed.expect_err("it fails").to_string(), "full");
    }

    #[test]
    fn threads_add_up_and_their_time_does_not() {
        let part = |count, ms| {
            let mut latency = Recorder::new();
            (0..count).for_each(|_| latency.record(1000));
            Sampled {
                latency,
                count,
                elapsed: Duration::from_millis(ms),
                cpu: Duration::from_millis(1),
            }
        };
        let all = together(vec![part(3, 10), part(4, 12)]).expect("two parts");
        assert_eq!((all.count, all.latency.total_count()), (7, 7));
        assert_eq!((all.elapsed.as_millis(), all.cpu.as_millis()), (12, 2));
        assert!(together(Vec::new()).is_none());
    }
}
