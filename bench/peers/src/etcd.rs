//! `etcd`: three members of etcd and three `dplab serve`, asked for the same puts over loopback, in turns.
//!
//! Both keep their logs on the same real disk and flush before they acknowledge; both are asked at their leader, each by
//! the client that its project recommends to whoever writes Rust. Nobody is pinned to a CPU.

mod ours;
mod theirs;

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Args;
use hdrhistogram::Histogram;

use crate::{
    quiet,
    scratch::{Folder, Stop},
    stats::{self, Rounds, cell, us},
};

/// Members of each cluster.
const MEMBERS: usize = 3;
/// What a put sets: etcd's own benchmark tool takes keys of 8 bytes, too.
const KEYS_COUNT: u64 = 1000;
/// How long a cluster gets to elect its first leader.
const ELECTION_MAX: Duration = Duration::from_secs(20);
/// What is not counted at the beginning of a measurement.
const WARM_UP: Duration = Duration::from_millis(300);

/// What `peers etcd` takes.
#[derive(Debug, Args)]
pub struct EtcdArgs {
    /// etcd's server
    #[arg(long, value_name = "PROGRAM", default_value = "etcd")]
    etcd: PathBuf,
    /// Ours
    #[arg(long, value_name = "PROGRAM", default_value = "target/release/dplab")]
    dplab: PathBuf,
    /// Folder for logs and data, on a real disk; what is made there is removed
    #[arg(long, value_name = "DIR", default_value = "target/peers")]
    dir: PathBuf,
    /// How our log reaches the disk
    #[arg(long, value_name = "ENGINE", default_value = "dsync")]
    wal: String,
    /// Puts under way at once
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,16,256")]
    in_flight: Vec<usize>,
    /// HTTP/2 connections of etcd's client, over which its puts are spread
    #[arg(long, value_name = "N", default_value_t = 4)]
    connections: usize,
    /// Bytes of each value
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    value_bytes: usize,
    /// Rounds; both clusters are started anew in each
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,
    /// For each number in flight and round
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    seconds: f64,
}

/// What a client is asked to do.
#[derive(Clone, Copy, Debug)]
struct Load {
    in_flight: usize,
    value_bytes: usize,
    connections: usize,
    duration: Duration,
}

/// What it saw.
#[derive(Debug)]
struct Seen {
    /// From asking to the answer, in nanoseconds.
    latency: Histogram<u64>,
    elapsed: Duration,
}

impl Seen {
    fn new() -> anyhow::Result<Seen> {
        Ok(Seen {
            latency: Histogram::new(3).context("making a histogram")?,
            elapsed: Duration::ZERO,
        })
    }
}

fn key(index: u64) -> String {
    format!("key{:05}", index % KEYS_COUNT)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum System {
    Ours,
    Etcd,
}

/// What all rounds said about one system with so many in flight.
struct Arm {
    system: System,
    in_flight: usize,
    throughput: Rounds,
    p50_us: Rounds,
    latency: Histogram<u64>,
}

/// Measures, and prints the table.
///
/// # Errors
/// A program that is not there, a cluster that does not elect, a put that is refused.
pub fn run(args: &EtcdArgs, stop: &Stop) -> anyhow::Result<()> {
    let version = theirs::version(&args.etcd)?;
    let dplab = args.dplab.canonicalize().with_context(|| {
        format!(
            "{}: build it by `cargo build --release`, or name it with --dplab",
            args.dplab.display()
        )
    })?;
    if args
        .in_flight
        .iter()
        .any(|&count| count == 0 || count > ours::IN_FLIGHT_MAX)
        || args.connections == 0
    {
        bail!(
            "--in-flight takes 1 to {}, --connections 1 and more",
            ours::IN_FLIGHT_MAX
        );
    }
    if !(0.1..=600.0).contains(&args.seconds) || args.rounds == 0 {
        bail!("--seconds takes 0.1 to 600, --rounds 1 and more");
    }
    let mut arms = Vec::new();
    for &in_flight in &args.in_flight {
        for system in [System::Ours, System::Etcd] {
            arms.push(Arm {
                system,
                in_flight,
                throughput: Rounds::default(),
                p50_us: Rounds::default(),
                latency: Histogram::new(3).context("making a histogram")?,
            });
        }
    }
    let mut disturbed_count = 0;
    for round in 0..args.rounds {
        let order = match round % 2 {
            0 => [System::Ours, System::Etcd],
            _ => [System::Etcd, System::Ours],
        };
        for system in order {
            disturbed_count += usize::from(!quiet::wait(stop)?);
            measure(args, &dplab, system, &mut arms, stop)
                .with_context(|| format!("{system:?}, round {}", round + 1))?;
        }
    }
    print(args, &version, &dplab, &arms)?;
    if disturbed_count > 0 {
        println!("\n{disturbed_count} trials were disturbed by other processes.");
    }
    Ok(())
}

/// One cluster, from its start to its end, with all numbers in flight.
fn measure(args: &EtcdArgs, dplab: &Path, system: System, arms: &mut [Arm], stop: &Stop) -> anyhow::Result<()> {
    let folder = Folder::new(&args.dir, "etcd")?;
    let mut ask: Box<dyn FnMut(Load) -> anyhow::Result<Seen>> = match system {
        System::Ours => {
            let mut cluster = ours::Cluster::start(dplab, &args.wal, folder.path())?;
            Box::new(move |load| cluster.ask(load, stop))
        }
        System::Etcd => {
            let mut cluster = theirs::Cluster::start(&args.etcd, folder.path(), stop)?;
            Box::new(move |load| cluster.ask(load, stop))
        }
    };
    for arm in arms.iter_mut().filter(|arm| arm.system == system) {
        let load = Load {
            in_flight: arm.in_flight,
            value_bytes: args.value_bytes,
            connections: args.connections.min(arm.in_flight),
            duration: WARM_UP,
        };
        ask(load)?;
        let seen = ask(Load {
            duration: Duration::from_secs_f64(args.seconds),
            ..load
        })?;
        stop.check()?;
        let per_second = seen.latency.len() as f64 / seen.elapsed.as_secs_f64();
        let p50_ns = seen.latency.value_at_quantile(0.5);
        eprintln!(
            "  {system:?}, {} in flight: {per_second:.0} puts/s, p50 {} us, p99 {} us",
            arm.in_flight,
            us(p50_ns),
            us(seen.latency.value_at_quantile(0.99)),
        );
        arm.throughput.0.push(per_second);
        arm.p50_us.0.push(p50_ns as f64 / 1000.0);
        arm.latency.add(&seen.latency).context("merging histograms")?;
    }
    Ok(())
}

fn print(args: &EtcdArgs, version: &str, dplab: &Path, arms: &[Arm]) -> anyhow::Result<()> {
    let ours = Command::new(dplab)
        .arg("--version")
        .output()
        .context("asking dplab for its version")?;
    println!(
        "{}, `serve --wal {}`, beside {version}; {MEMBERS} members each, all on this machine; values of {} bytes, keys of 8; \
         {} connections to etcd at most; {} rounds of {} s; intervals cover the median with {:.1} %\n",
        String::from_utf8_lossy(&ours.stdout).trim(),
        args.wal,
        args.value_bytes,
        args.connections,
        args.rounds,
        args.seconds,
        stats::coverage_percent(args.rounds),
    );
    println!(
        "| in flight | system | puts per second | p50, µs | p99, µs | p99.9, µs | ours ÷ etcd: puts per second | p50 |"
    );
    println!("|--:|---|--:|--:|--:|--:|--:|--:|");
    for pair in arms.chunks(2) {
        for arm in pair {
            let ratios = match arm.system {
                System::Ours => [
                    &pair[0].throughput.over(&pair[1].throughput),
                    &pair[0].p50_us.over(&pair[1].p50_us),
                ]
                .map(cell),
                System::Etcd => ["", ""].map(String::from),
            };
            let quantile = |quantile: f64| us(arm.latency.value_at_quantile(quantile));
            println!(
                "| {} | {} | {} | {} | {} | {} | {} | {} |",
                arm.in_flight,
                match arm.system {
                    System::Ours => "dplab serve",
                    System::Etcd => "etcd",
                },
                cell(&arm.throughput),
                cell(&arm.p50_us),
                quantile(0.99),
                quantile(0.999),
                ratios[0],
                ratios[1],
            );
        }
    }
    Ok(())
}
