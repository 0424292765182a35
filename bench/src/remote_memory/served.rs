//! One thread asks, another one serves the memory, each on its CPU, neither ever resting: what two ends of a connection in software
//! are measured by.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use dataplane_waist::Wake;
use rdma::Provider;

use super::pair::{Counting, Side};
use crate::{
    experiment::Lab,
    host::{self, RunTime, Seat},
    measure::gates::{Limits, Observation},
    trial::Cpus,
};

/// What both threads came to.
pub struct Served<T> {
    /// What the one that asks brings back.
    pub asked: T,
    /// How long it asked.
    pub elapsed: Duration,
    /// CPU time of the asking thread meanwhile, where the kernel counts it.
    pub client_used: Option<RunTime>,
    /// CPU time of the serving thread until it was let go.
    pub server_used: Option<RunTime>,
    /// Where they ran.
    pub facts: BTreeMap<String, String>,
    /// Whether they had their CPUs.
    pub contention: Vec<Observation>,
}

/// What is asked of a row that two threads make which never rest.
pub fn limits() -> Limits {
    Limits::for_wake(Wake::Spins)
}

/// Lets the other thread go when this one ends, however it ends.
struct EndsWith<'a>(&'a AtomicBool);

impl Drop for EndsWith<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Serves `far` on one thread while `ask` uses `near` on another. Receives that messages consume, of `receive_bytes`, are posted
/// again.
///
/// # Errors
/// What `ask` says, or a device that failed.
pub fn serve_while<P: Counting + Send, T: Send>(
    lab: &Lab<'_>,
    near: &mut Side<P>,
    far: &mut Side<P>,
    receive_bytes: u32,
    ask: impl FnOnce(&mut Side<P>) -> anyhow::Result<T> + Send,
) -> anyhow::Result<Served<T>> {
    let [asks_on, serves_on] = Cpus::Two.of(lab.place.cpus());
    let is_shared = asks_on == serves_on;
    let seat = |cpu| Seat {
        cpu,
        spins: true,
        is_shared,
    };
    let is_over = AtomicBool::new(false);
    let is_serving = AtomicBool::new(false);
    let (asked, served) = thread::scope(|scope| -> anyhow::Result<_> {
        let (is_over, is_serving) = (&is_over, &is_serving);
        let serves = thread::Builder::new()
            .name("dplab-serves".to_owned())
            .spawn_scoped(scope, move || -> anyhow::Result<_> {
                let _ends = EndsWith(is_serving);
                let facts = host::settle("server", seat(serves_on));
                let tid = nix::unistd::gettid().as_raw();
                let before = host::thread_run_time(tid);
                serve(far, receive_bytes, is_serving, is_over)?;
                Ok((facts, used_since(tid, before)))
            })
            .context("starting the thread that serves")?;
        let asks = thread::Builder::new()
            .name("dplab-asks".to_owned())
            .spawn_scoped(scope, move || -> anyhow::Result<_> {
                let _ends = EndsWith(is_over);
                let facts = host::settle("client", seat(asks_on));
                while !is_serving.load(Ordering::Acquire) {
                    thread::yield_now();
                }
                let tid = nix::unistd::gettid().as_raw();
                let before = host::thread_run_time(tid);
                let begun = Instant::now();
                let asked = ask(near)?;
                Ok((asked, begun.elapsed(), facts, used_since(tid, before)))
            })
            .context("starting the thread that asks");
        let asked = match asks {
            Ok(asks) => asks.join().unwrap_or_else(|_| bail!("the thread that asks panicked")),
            Err(error) => {
                is_over.store(true, Ordering::Release);
                Err(error)
            }
        };
        let served = serves
            .join()
            .unwrap_or_else(|_| bail!("the thread that serves panicked"));
        Ok((asked?, served?))
    })?;
    let ((asked, elapsed, client_facts, client_used), (server_facts, server_used)) = (asked, served);
    let contention = [("client", client_used), ("server", server_used)]
        .into_iter()
        .filter(|_| !is_shared)
        .filter_map(|(end, used)| {
            Some(Observation::Contention {
                end,
                waited: used?.waited,
                elapsed,
            })
        });
    Ok(Served {
        asked,
        elapsed,
        client_used,
        server_used,
        facts: client_facts.into_iter().chain(server_facts).collect(),
        contention: contention.collect(),
    })
}

fn used_since(tid: i32, before: Option<RunTime>) -> Option<RunTime> {
    Some(host::thread_run_time(tid)?.since(before?))
}

/// Receives that are posted on each queue pair.
const RECEIVES_COUNT: usize = 64;

fn serve<P: Provider>(
    far: &mut Side<P>,
    receive_bytes: u32,
    is_serving: &AtomicBool,
    is_over: &AtomicBool,
) -> anyhow::Result<()> {
    for index in 0..far.qps.len() {
        for _ in 0..RECEIVES_COUNT {
            far.post_receive(index, receive_bytes)?;
        }
    }
    is_serving.store(true, Ordering::Release);
    let mut consumed = Vec::with_capacity(RECEIVES_COUNT);
    while !is_over.load(Ordering::Relaxed) {
        far.provider.progress()?;
        far.provider
            .poll_cq(RECEIVES_COUNT, &mut |completion| consumed.push(completion));
        for completion in consumed.drain(..) {
            completion.result?;
            let index = far.qps.iter().position(|qp| qp.number() == completion.qp);
            far.post_receive(index.context("a completion of a queue pair of ours")?, receive_bytes)?;
        }
    }
    Ok(())
}
