//! Receive work of hosts and cards in kernel threads of their own (threaded NAPI). Over veth it is otherwise done in a softirq
//! of whoever sends, and charged to that: only with threads can be said what of a commit a host's CPU does, and what a card's.

use std::time::Duration;

use anyhow::Context;
use dataplane_netns::{NapiThreads, NetError};

use super::Ground;
use crate::{bandwidth::Bandwidth, host};

/// CPU time of receive work, so far or in between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiveCpu {
    /// Of the replicas' hosts, all together. Where a host has the program, its part is in here.
    pub hosts: Duration,
    /// Of their cards, all together.
    pub cards: Duration,
}

impl ReceiveCpu {
    /// What was used since `earlier`.
    pub fn since(self, earlier: ReceiveCpu) -> ReceiveCpu {
        ReceiveCpu {
            hosts: self.hosts.saturating_sub(earlier.hosts),
            cards: self.cards.saturating_sub(earlier.cards),
        }
    }
}

/// Threads for what the replicas' hosts and cards receive, as ordinary threads (SCHED_OTHER); gone when this is dropped.
#[derive(Debug)]
pub struct ReceiveThreads {
    /// By node.
    hosts: Vec<NapiThreads>,
    /// By node, both sides of each.
    cards: Vec<NapiThreads>,
    /// By node, where cards are slowed. Goes after the threads that are in it.
    _slowed: Vec<Bandwidth>,
}

impl ReceiveThreads {
    /// Starts them for the first `replicas_count` replicas: those of node `n` on `cpus_of(n)`, the host's CPU and its card's. Each
    /// card gets one `slowdown`th of a CPU.
    ///
    /// # Errors
    /// No threaded NAPI (before Linux 5.12), no control groups for a slowdown, threads that cannot be seen from here.
    pub fn start(
        ground: &Ground,
        replicas_count: usize,
        cpus_of: impl Fn(usize) -> (Option<usize>, Option<usize>),
        slowdown: u32,
    ) -> anyhow::Result<ReceiveThreads> {
        let mut started = ReceiveThreads {
            hosts: Vec::new(),
            cards: Vec::new(),
            _slowed: Vec::new(),
        };
        for (node, endpoint) in ground.replicas(replicas_count)?.iter().enumerate() {
            let threads = ground.inside_replica(node, || NapiThreads::start_with_gro(&endpoint.interface))?;
            started.hosts.push(pinned(threads, cpus_of(node).0)?);
        }
        for card in ground.cards().iter().filter(|card| card.host() <= replicas_count) {
            let slowed = (slowdown > 1).then(|| Bandwidth::of(slowdown)).transpose()?;
            for interface in [card.inner(), card.outer()] {
                let threads = card.run(|| NapiThreads::start_with_gro(interface))?;
                let threads = pinned(threads, cpus_of(card.host() - 1).1)?;
                if let Some(slowed) = &slowed {
                    threads.pids().iter().try_for_each(|&pid| slowed.add(pid))?;
                }
                started.cards.push(threads);
            }
            started._slowed.extend(slowed);
        }
        Ok(started)
    }

    /// CPU time so far.
    ///
    /// # Errors
    /// The kernel does not say (CONFIG_SCHED_INFO).
    pub fn cpu(&self) -> anyhow::Result<ReceiveCpu> {
        let of = |threads: &[NapiThreads]| {
            let pids: Vec<u32> = threads.iter().flat_map(NapiThreads::pids).copied().collect();
            match pids.is_empty() {
                true => Some(Duration::ZERO),
                false => host::threads_cpu_time(&pids),
            }
        };
        let (hosts, cards) = of(&self.hosts)
            .zip(of(&self.cards))
            .context("reading the run time of NAPI threads")?;
        Ok(ReceiveCpu { hosts, cards })
    }
}

/// The threads, on that CPU.
fn pinned(threads: Result<NapiThreads, NetError>, cpu: Option<usize>) -> anyhow::Result<NapiThreads> {
    let threads = threads.context("giving receive work threads of its own")?;
    anyhow::ensure!(
        !threads.pids().is_empty(),
        "receive work has threads that are not seen from here: kernel threads are in the machine's first PID namespace"
    );
    threads.pids().iter().for_each(|&pid| host::pin_other(pid, cpu));
    Ok(threads)
}
