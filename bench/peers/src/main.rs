//! Other people's programs and crates beside ours, measured in turns on this machine. README.md has the commands,
//! docs/src/quorum/peers.md of the project what they said and what it means.
#![forbid(unsafe_code)]

mod cores;
mod crash;
mod etcd;
mod logs;
mod quiet;
mod scratch;
mod stats;

use clap::Parser;

use scratch::Stop;

/// Measure raft-rs, openraft, raft-engine, okaywal, fjall, walrus and etcd beside dataplane-lab's own
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
enum Cli {
    /// What a commit costs in memory: raft-rs and openraft
    Cores(cores::CoresArgs),
    /// Durable appends: raft-engine, okaywal, fjall, walrus, and fio
    Logs(logs::LogsArgs),
    /// Puts into three members of etcd, and into three `dplab serve`
    Etcd(etcd::EtcdArgs),
    /// Power loss and flipped bits: what raft-engine, okaywal, fjall and walrus lose
    Crash(crash::CrashArgs),
    #[command(hide = true)]
    Write(logs::WriteArgs),
    #[command(hide = true)]
    Read(logs::ReadArgs),
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    // These two are somebody's children, and end as anybody does.
    match &cli {
        Cli::Write(args) => return logs::write(args),
        Cli::Read(args) => return logs::read(args),
        _ => {}
    }
    let stop = Stop::listen()?;
    match cli {
        Cli::Cores(args) => cores::run(&args, &stop),
        Cli::Logs(args) => logs::run(&args, &stop),
        Cli::Crash(args) => crash::run(&args, &stop),
        Cli::Etcd(args) => etcd::run(&args, &stop),
        Cli::Write(_) | Cli::Read(_) => Ok(()),
    }
}
