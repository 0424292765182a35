//! Stops processes of nodes in their tracks and lets them go on (SIGSTOP, SIGCONT), at times that a seed has drawn: each by its
//! own seed, or all by one.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use dataplane_service::stalls::Stalls;
use dataplane_waist::Clock;

use super::plan::PausePlan;
use crate::{host::MachineClock, server::Server};

/// How processes are stopped.
#[derive(Clone, Copy, Debug)]
pub struct StopPlan {
    /// How often and how long.
    pub pattern: PausePlan,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stopped {
    /// Stalls, of all processes.
    pub stalls_count: u64,
    /// How long they were stopped, all together, in nanoseconds.
    pub stopped_ns: u64,
}

/// Stops and lets go until `done`; times count from the moment in `start_ns` (0: not yet) of [`MachineClock`]. In the end all
/// go on.
pub fn run(servers: &[Server], plan: &StopPlan, start_ns: &AtomicU64, done: &AtomicBool) -> Stopped {
    let _ = nix::sys::prctl::set_timerslack(1);
    let mut stopped = Stopped::default();
    while start_ns.load(Ordering::Acquire) == 0 {
        if done.load(Ordering::Acquire) {
            return stopped;
        }
        thread::sleep(Duration::from_micros(200));
    }
    let start_ns = start_ns.load(Ordering::Acquire);
    let mut of: Vec<Stalls> = (0..servers.len() as u32)
        .map(|index| plan.pattern.stalls(index))
        .collect();
    // When it was stopped, for each that is.
    let mut since: Vec<Option<u64>> = vec![None; servers.len()];
    while !done.load(Ordering::Acquire) {
        let at = |index: usize| {
            let (stop_ns, go_ns) = of[index].next();
            if since[index].is_some() { go_ns } else { stop_ns }
        };
        let Some(index) = (0..servers.len()).min_by_key(|&index| at(index)) else {
            break;
        };
        let due_ns = start_ns + at(index);
        let now_ns = MachineClock.now().as_ns();
        if due_ns > now_ns {
            thread::sleep(Duration::from_nanos(due_ns - now_ns).min(Duration::from_millis(10)));
            continue;
        }
        match since[index].take() {
            None => {
                // One that is gone is noticed by whoever waits for it.
                let _ = servers[index].pause(true);
                since[index] = Some(MachineClock.now().as_ns());
                stopped.stalls_count += 1;
            }
            Some(since_ns) => {
                stopped.stopped_ns += MachineClock.now().as_ns() - since_ns;
                let _ = servers[index].pause(false);
                of[index].advance();
            }
        }
    }
    for (server, since) in servers.iter().zip(since) {
        if since.is_some() {
            let _ = server.pause(false);
        }
    }
    stopped
}
