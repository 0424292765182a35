//! Processes that want a CPU each, all the time: neighbours that a measurement asks for, and ends. Ordinary priority, no
//! privileges; they die with their parent, however that ends.

use std::sync::atomic::Ordering;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::{
    host::{self, Scheduler, Seat},
    server::{self, Server},
};

/// The hidden subcommand.
pub const SUBCOMMAND: &str = "serve-hog";

#[derive(Debug, Serialize, Deserialize)]
struct HogConfig {
    parent_pid: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct HogReport {
    /// How often it went round: it has done something.
    rounds_count: u64,
}

/// Running hogs. Dropping them ends them.
#[derive(Debug)]
pub struct Hogs {
    hogs: Vec<Server>,
}

impl Hogs {
    /// Starts as many as there are CPUs that this process may use. Call it from a thread that outlives them.
    ///
    /// # Errors
    /// One could not be started.
    pub fn start(cpus_count: usize) -> anyhow::Result<Hogs> {
        let config = HogConfig {
            parent_pid: std::process::id(),
        };
        let hogs = (0..cpus_count).map(|_| Server::spawn_as(SUBCOMMAND, &config).context("starting a CPU hog"));
        Ok(Hogs {
            hogs: hogs.collect::<anyhow::Result<_>>()?,
        })
    }

    /// Ends them; says how many there were.
    ///
    /// # Errors
    /// One had died before, or did nothing.
    pub fn finish(self) -> anyhow::Result<usize> {
        let count = self.hogs.len();
        for hog in self.hogs {
            let report: HogReport = hog.finish_as()?;
            anyhow::ensure!(
                report.rounds_count > 0,
                "a CPU hog never ran: the machine was not as the row says"
            );
        }
        Ok(count)
    }
}

/// The hog's process: everything behind [`SUBCOMMAND`].
///
/// # Errors
/// A configuration that cannot be read; the parent is gone.
pub fn main(config: &str) -> anyhow::Result<()> {
    let config: HogConfig = serde_json::from_str(config).context("reading the hog's configuration")?;
    server::die_with(config.parent_pid)?;
    let anywhere = Seat {
        cpu: None,
        spins: true,
        is_shared: true,
    };
    server::say_ready(None, host::settle_as("hog", anywhere, Scheduler::Ordinary))?;
    let stop = server::stop_at_eof(|_| {}, || {});
    let mut rounds_count = 0u64;
    while !stop.load(Ordering::Relaxed) {
        rounds_count = std::hint::black_box(rounds_count + 1);
    }
    server::say(&HogReport { rounds_count })
}
