//! Stops processes of nodes in their tracks and lets them go on (SIGSTOP, SIGCONT), or disturbs them by other means, at times that
//! a seed has drawn: each by its own seed, or all by one.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::Context;
use dataplane_service::stalls::Stalls;
use dataplane_waist::Clock;

use super::{
    cpu_limit::{self, Controller, CpuLimit},
    plan::PausePlan,
};
use crate::{
    experiment::Lab,
    hogs::{self, Wants},
    host::MachineClock,
    place::End,
    server::Server,
};

/// How processes are stopped or disturbed.
#[derive(Clone, Debug)]
pub struct StopPlan {
    /// How often and how long.
    pub pattern: PausePlan,
    /// By what.
    pub means: Means,
}

/// What is done to nodes.
#[derive(Clone, Debug)]
pub enum Means {
    /// SIGSTOP.
    Stop,
    /// Their CPU time is limited to a hundredth of a CPU: each process by itself.
    CpuLimit(Controller),
    /// A process in the other namespace wants the CPU that they have, all the time: all of them together.
    Neighbour,
    /// A process writes over this file, and has it synced, again and again: all of them together.
    Writer(PathBuf),
}

impl Means {
    /// Can one node be disturbed and not the others?
    pub fn are_each_nodes_own(&self) -> bool {
        matches!(self, Means::Stop | Means::CpuLimit(_))
    }

    /// Does a real-time thread not feel it?
    pub fn need_ordinary_nodes(&self) -> bool {
        !matches!(self, Means::Stop)
    }

    /// In a few words.
    pub fn told(&self) -> String {
        match self {
            Means::Stop => "SIGSTOP".to_owned(),
            Means::CpuLimit(_) => format!(
                "CPU time limited to {} of {} ms (control group)",
                cpu_limit::QUOTA.as_millis(),
                cpu_limit::PERIOD.as_millis()
            ),
            Means::Neighbour => "a process in the other namespace that wants the nodes' CPU".to_owned(),
            Means::Writer(_) => "a process that writes and syncs a file".to_owned(),
        }
    }
}

/// What does it: made before the measurement, gone after it.
#[derive(Debug)]
pub enum Brakes {
    /// Signals to the nodes' own processes.
    Signals,
    /// A group for each.
    Limits(Vec<CpuLimit>),
    /// A process, stopped until it is to disturb.
    Hog(Server),
}

impl Brakes {
    /// Made ready, and off.
    ///
    /// # Errors
    /// A group or a process that cannot be made.
    pub fn new(lab: &Lab<'_>, means: &Means, servers: &[Server], nodes_cpu: Option<usize>) -> anyhow::Result<Brakes> {
        let hog = |wants| -> anyhow::Result<Brakes> {
            let hog = lab.place.inside(End::Client, || hogs::start(wants))??;
            hog.pause(true)?;
            Ok(Brakes::Hog(hog))
        };
        match means {
            Means::Stop => Ok(Brakes::Signals),
            Means::CpuLimit(controller) => {
                let limits = servers
                    .iter()
                    .map(|server| controller.take(server.pid().context("a node is no process of this machine")?));
                Ok(Brakes::Limits(limits.collect::<anyhow::Result<_>>()?))
            }
            Means::Neighbour => hog(Wants::Cpu(nodes_cpu)),
            Means::Writer(file) => hog(Wants::Disk(file.clone())),
        }
    }

    /// How many can be on or off by themselves.
    fn count(&self, servers: &[Server]) -> usize {
        match self {
            Brakes::Signals | Brakes::Limits(_) => servers.len(),
            Brakes::Hog(_) => 1,
        }
    }

    fn set(&self, servers: &[Server], index: usize, is_on: bool) -> anyhow::Result<()> {
        match self {
            Brakes::Signals => servers[index].pause(is_on),
            Brakes::Limits(limits) => limits[index].set(is_on),
            Brakes::Hog(hog) => hog.pause(!is_on),
        }
    }

    /// Ends what was made.
    ///
    /// # Errors
    /// A hog that never ran, although it was let go.
    pub fn finish(self, was_let_go: bool) -> anyhow::Result<()> {
        match self {
            Brakes::Signals | Brakes::Limits(_) => Ok(()),
            Brakes::Hog(hog) => {
                hog.pause(false)?;
                match was_let_go {
                    true => hogs::finish(hog),
                    false => Ok(()),
                }
            }
        }
    }
}

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stopped {
    /// Stalls, of all brakes.
    pub stalls_count: u64,
    /// How long they were on, all together, in nanoseconds.
    pub stopped_ns: u64,
    /// How many there are: one for each process, or one for all.
    pub brakes_count: usize,
}

/// Stops and lets go until `done`; times count from the moment in `start_ns` (0: not yet) of [`MachineClock`]. In the end all
/// go on.
pub fn run(
    servers: &[Server],
    brakes: &Brakes,
    pattern: &PausePlan,
    start_ns: &AtomicU64,
    done: &AtomicBool,
) -> Stopped {
    let _ = nix::sys::prctl::set_timerslack(1);
    let count = brakes.count(servers);
    let mut stopped = Stopped {
        brakes_count: count,
        ..Stopped::default()
    };
    while start_ns.load(Ordering::Acquire) == 0 {
        if done.load(Ordering::Acquire) {
            return stopped;
        }
        thread::sleep(Duration::from_micros(200));
    }
    let start_ns = start_ns.load(Ordering::Acquire);
    let mut of: Vec<Stalls> = (0..count as u32).map(|index| pattern.stalls(index)).collect();
    // When it was stopped, for each that is.
    let mut since: Vec<Option<u64>> = vec![None; count];
    while !done.load(Ordering::Acquire) {
        let at = |index: usize| {
            let (stop_ns, go_ns) = of[index].next();
            if since[index].is_some() { go_ns } else { stop_ns }
        };
        let Some(index) = (0..count).min_by_key(|&index| at(index)) else {
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
                let _ = brakes.set(servers, index, true);
                since[index] = Some(MachineClock.now().as_ns());
                stopped.stalls_count += 1;
            }
            Some(since_ns) => {
                stopped.stopped_ns += MachineClock.now().as_ns() - since_ns;
                let _ = brakes.set(servers, index, false);
                of[index].advance();
            }
        }
    }
    for (index, _) in since.iter().enumerate().filter(|(_, since)| since.is_some()) {
        let _ = brakes.set(servers, index, false);
    }
    stopped
}
