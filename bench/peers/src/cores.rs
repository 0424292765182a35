//! `cores`: what a commit among three costs in one thread without a network or a disk, in raft-rs, openraft and ours.
//!
//! One proposal at a time. A commit is over when the leader has applied it and nothing is under way any more: what the
//! followers hear afterwards is part of it.

mod openraft_core;
mod ours;
mod raft_rs;

use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;

use crate::{
    quiet,
    scratch::Stop,
    stats::{self, Rounds, cell},
};

/// Bytes of a command: a key of three, a value of ten.
const COMMAND: (&[u8; 3], &[u8; 10]) = (b"key", b"0123456789");
/// Commits between two looks at the clock, as in the project's own bench: a client's frames stay in the cache.
const BURST_COUNT: u64 = 256;

/// What `peers cores` takes.
#[derive(Debug, Args)]
pub struct CoresArgs {
    /// Rounds; the cores take turns in each
    #[arg(long, value_name = "N", default_value_t = 7)]
    rounds: usize,
    /// For each core and round
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    seconds: f64,
}

/// Three replicas that commit.
trait Core {
    /// As the table says it.
    fn name(&self) -> &'static str;
    /// Commits `count` commands one after the other, and says how long that took.
    fn commit(&mut self, count: u64) -> anyhow::Result<Duration>;
}

/// Measures, and prints the table.
///
/// # Errors
/// A core that does not elect or commit.
pub fn run(args: &CoresArgs, stop: &Stop) -> anyhow::Result<()> {
    if args.rounds == 0 || !(0.01..=60.0).contains(&args.seconds) {
        bail!("--rounds takes 1 and more, --seconds 0.01 to 60");
    }
    let mut rounds = [const { Rounds(Vec::new()) }; 3];
    let mut names = [""; 3];
    let mut disturbed_count = 0;
    for round in 0..args.rounds {
        for offset in 0..3 {
            disturbed_count += usize::from(!quiet::wait(stop)?);
            let index = (round + offset) % 3;
            // Logs in memory grow: each round begins with a new one.
            let mut core: Box<dyn Core> = match index {
                0 => Box::new(ours::Ours::new()),
                1 => Box::new(raft_rs::RaftRs::new()?),
                _ => Box::new(openraft_core::Openraft::new()?),
            };
            names[index] = core.name();
            core.commit(BURST_COUNT)?;
            let (mut elapsed, mut commits_count) = (Duration::ZERO, 0);
            let begin = Instant::now();
            while begin.elapsed().as_secs_f64() < args.seconds {
                elapsed += core.commit(BURST_COUNT)?;
                commits_count += BURST_COUNT;
            }
            let us = elapsed.as_secs_f64() * 1e6 / commits_count as f64;
            eprintln!("  {}, round {}: {us:.3} us per commit", names[index], round + 1);
            rounds[index].0.push(us);
        }
    }
    println!(
        "Three replicas in one thread, one command of {} bytes at a time; {} rounds of {} s; intervals cover the median with \
         {:.1} %\n",
        COMMAND.0.len() + COMMAND.1.len(),
        args.rounds,
        args.seconds,
        stats::coverage_percent(args.rounds),
    );
    println!("| core | µs per commit | it ÷ ours |");
    println!("|---|--:|--:|");
    for (name, theirs) in names.iter().zip(&rounds) {
        println!("| {name} | {} | {} |", cell(theirs), cell(&theirs.over(&rounds[0])));
    }
    if disturbed_count > 0 {
        println!("\n{disturbed_count} trials were disturbed by other processes.");
    }
    Ok(())
}
