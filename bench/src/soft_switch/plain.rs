//! What the kernel charges for a switch in user space: the ports of [`super::SoftSwitch`] and nothing between them. Whatever comes by the
//! one leaves by the other, at once.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, bail};
use dataplane_netns::Network;
use nix::unistd::gettid;

use super::{
    ports::Ports,
    turn::{BURST_FRAMES, settle},
};
use crate::host::thread_run_time;

/// A thread that forwards between two ports, until it is stopped or dropped.
#[derive(Debug)]
pub struct PlainLoop {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<PlainReport>>>,
}

/// What it says when it stops.
#[derive(Clone, Debug)]
pub struct PlainReport {
    /// Frames that it passed on.
    pub frames_count: u64,
    /// Time of the turns in which there was something to do.
    pub busy: Duration,
    /// How long it worked.
    pub elapsed: Duration,
    /// As [`super::Report::waited`].
    pub waited: Option<Duration>,
    /// As [`super::Report::settings`].
    pub settings: Vec<String>,
}

impl PlainLoop {
    /// Takes the two ports of `network`'s switch, a bare one, and starts.
    ///
    /// # Errors
    /// As [`super::SoftSwitch::start`].
    pub fn start(network: &Network, cpu: Option<usize>) -> anyhow::Result<PlainLoop> {
        let there = network.switch().context("only a star has a switch")?;
        if there.ports().len() != 2 {
            bail!("a plain loop has two ports, and the network {}", there.ports().len());
        }
        let ports = there.run(|| Ports::open(there.ports()))??;
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("dplab-plain".to_owned())
            .spawn(move || work(ports, &asked, cpu))
            .context("starting the loop's thread")?;
        Ok(PlainLoop {
            stop,
            thread: Some(thread),
        })
    }

    /// Stops it.
    ///
    /// # Errors
    /// What made it stop before.
    pub fn stop(mut self) -> anyhow::Result<PlainReport> {
        let ended = self.join().context("a loop is stopped once")?;
        let report = ended.map_err(|_| anyhow!("the loop's thread panicked"))?;
        report.context("the loop stopped by itself")
    }

    fn join(&mut self) -> Option<thread::Result<io::Result<PlainReport>>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join)
    }
}

impl Drop for PlainLoop {
    fn drop(&mut self) {
        let _ = self.join();
    }
}

fn work(Ports { mut ports, mut frames }: Ports, stop: &AtomicBool, cpu: Option<usize>) -> io::Result<PlainReport> {
    let start = Instant::now();
    let now_ns = || start.elapsed().as_nanos() as u64;
    let (mut spinning, settings) = settle(cpu, now_ns());
    let run_time = || thread_run_time(gettid().as_raw());
    let run_time_before = run_time();
    let (mut frames_count, mut busy_ns, mut last_look_ns, mut has_worked) = (0, 0, now_ns(), false);
    while !stop.load(Ordering::Relaxed) {
        let look_ns = now_ns();
        if has_worked {
            busy_ns += look_ns - last_look_ns;
        }
        (last_look_ns, has_worked) = (look_ns, false);
        if let Some(spinning) = &mut spinning {
            spinning.turn(look_ns);
        }
        for (from, to) in [(0, 1), (1, 0)] {
            let mut received_count = 0;
            while received_count < BURST_FRAMES
                && let Some(held) = ports[from].receive()?
            {
                ports[to].send(held);
                received_count += 1;
            }
            if received_count > 0 {
                has_worked = true;
                frames_count += received_count as u64;
                ports[from].release(&mut frames.free)?;
            }
        }
        for port in &mut ports {
            if port.has_due() {
                has_worked = true;
                port.flush()?;
            }
            port.recycle(&mut frames.free)?;
        }
    }
    Ok(PlainReport {
        frames_count,
        busy: Duration::from_nanos(busy_ns),
        elapsed: start.elapsed(),
        waited: run_time()
            .zip(run_time_before)
            .map(|(after, before)| after.since(before).waited),
        settings,
    })
}
