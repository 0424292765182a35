//! `logs`: appends that are durable when they return, in other people's logs and ours, by 1 and by 16 threads.
//!
//! Each log runs in a process of its own, the hidden subcommand `write`: they set environment variables, start threads and
//! print. `crash` runs the same processes under a recorder, and reads back what they left by the subcommand `read`.

mod fio;
mod fjall_log;
mod okaywal_log;
mod ours;
mod raft_engine_log;
mod record;
mod walrus_log;

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};

pub use self::record::{RECORD_BYTES, Record};
use crate::{
    quiet,
    scratch::{Folder, Stop},
    stats::{self, Rounds, cell},
};

/// Appends a record and returns when it is on disk.
pub type Append = Box<dyn FnMut(&Record) -> anyhow::Result<()> + Send>;

/// A log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Log {
    /// Ours: direct I/O, written and flushed by one system call
    Dsync,
    /// Ours: io_uring
    Uring,
    /// Ours: io_uring without deferred task work and registered memory
    UringPlain,
    /// Ours: the page cache and fdatasync
    File,
    /// raft-engine, `write(batch, sync = true)`, a region for each thread
    RaftEngine,
    /// okaywal, `commit()`
    Okaywal,
    /// fjall, `insert` and `persist(SyncData)`
    Fjall,
    /// walrus, `FsyncSchedule::SyncEach`, a topic for each thread
    Walrus,
}

impl Log {
    /// As the tables say it, with the version.
    pub fn name(self) -> &'static str {
        match self {
            Log::Dsync => "dataplane-wal, dsync",
            Log::Uring => "dataplane-wal, uring",
            Log::UringPlain => "dataplane-wal, uring-plain",
            Log::File => "dataplane-wal, file",
            Log::RaftEngine => "raft-engine 0.4.2",
            Log::Okaywal => "okaywal 0.3.1",
            Log::Fjall => "fjall 3.1.13",
            Log::Walrus => "walrus-rust 0.2.0",
        }
    }

    /// Its name on the command line.
    pub fn flag(self) -> String {
        self.to_possible_value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }

    /// Opens it and hands out an end for each thread; ours is told how long its segments are to be.
    fn writers(self, dir: &Path, count: usize, segment_bytes: u64) -> anyhow::Result<Vec<Append>> {
        match self {
            Log::Dsync | Log::Uring | Log::UringPlain | Log::File => {
                ours::writers(&self.flag(), dir, count, segment_bytes)
            }
            Log::RaftEngine => raft_engine_log::writers(dir, count),
            Log::Okaywal => okaywal_log::writers(dir, count),
            Log::Fjall => fjall_log::writers(dir, count),
            Log::Walrus => walrus_log::writers(count),
        }
    }

    /// Opens it as after a power loss and says what one thread had appended, in order.
    fn records(self, dir: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
        match self {
            Log::Dsync | Log::Uring | Log::UringPlain | Log::File => ours::records(&self.flag(), dir),
            Log::RaftEngine => raft_engine_log::records(dir),
            Log::Okaywal => okaywal_log::records(dir),
            Log::Fjall => fjall_log::records(dir),
            Log::Walrus => walrus_log::records(),
        }
    }

    /// A process of ours that does `what` with this log in `dir`.
    pub fn command(self, what: &str, dir: &Path) -> anyhow::Result<Command> {
        let mut command = Command::new(env::current_exe().context("looking for this program")?);
        command.args([what, "--log", &self.flag(), "--dir"]).arg(dir);
        // walrus is told by its environment alone where to be, and to be silent.
        command
            .env("WALRUS_DATA_DIR", dir)
            .env("WALRUS_QUIET", "1")
            .stdin(Stdio::null());
        Ok(command)
    }
}

/// What `peers logs` takes.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Which logs
    #[arg(
        long,
        value_enum,
        value_name = "LOG,…",
        value_delimiter = ',',
        default_value = "dsync,uring,file,raft-engine,okaywal,fjall,walrus"
    )]
    logs: Vec<Log>,
    /// Threads that append at once
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,16")]
    writers: Vec<usize>,
    /// Folder for the logs, on a real disk; what is made there is removed
    #[arg(long, value_name = "DIR", default_value = "target/peers")]
    dir: PathBuf,
    /// Rounds; the logs take turns in each
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,
    /// For each log, number of threads and round
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    seconds: f64,
}

/// What the hidden subcommands take.
#[derive(Debug, Args)]
pub struct WriteArgs {
    #[arg(long, value_enum)]
    log: Log,
    #[arg(long)]
    dir: PathBuf,
    #[arg(long, default_value_t = 1)]
    writers: usize,
    /// For so long,
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// or so many records, each acknowledged by a line on stdout.
    #[arg(long)]
    records: Option<u64>,
}

/// What the hidden subcommands take.
#[derive(Debug, Args)]
pub struct ReadArgs {
    #[arg(long, value_enum)]
    log: Log,
    #[arg(long)]
    dir: PathBuf,
}

/// Appends, in a process of its own.
///
/// # Errors
/// The log's.
pub fn write(args: &WriteArgs) -> anyhow::Result<()> {
    let segment_bytes = match args.records {
        Some(_) => ours::SEGMENT_BYTES_SHORT,
        None => ours::SEGMENT_BYTES_LONG,
    };
    let mut appends = args.log.writers(&args.dir, args.writers, segment_bytes)?;
    if let Some(count) = args.records {
        let append = appends.first_mut().context("--writers takes 1 and more")?;
        for index in 0..count {
            append(&Record::new(index))?;
            println!("acknowledged {index}");
        }
        return Ok(());
    }
    let stop = AtomicBool::new(false);
    let begin = Instant::now();
    let latencies: Vec<anyhow::Result<Vec<u64>>> = thread::scope(|scope| {
        let threads: Vec<_> = appends
            .into_iter()
            .map(|mut append| {
                let stop = &stop;
                scope.spawn(move || {
                    let mut latencies_ns = Vec::with_capacity(1 << 17);
                    while !stop.load(Ordering::Relaxed) {
                        let record = Record::new(latencies_ns.len() as u64);
                        let begin = Instant::now();
                        append(&record)?;
                        latencies_ns.push(begin.elapsed().as_nanos() as u64);
                    }
                    Ok(latencies_ns)
                })
            })
            .collect();
        thread::sleep(Duration::from_secs_f64(args.seconds));
        stop.store(true, Ordering::Relaxed);
        let joined = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| bail!("a writer panicked")));
        joined.collect()
    });
    let elapsed = begin.elapsed();
    let mut all = Vec::new();
    for latencies_ns in latencies {
        all.extend(latencies_ns?);
    }
    ensure!(!all.is_empty(), "nothing was appended");
    all.sort_unstable();
    let quantile = |quantile: f64| all[((all.len() - 1) as f64 * quantile) as usize] as f64 / 1000.0;
    println!(
        "{} {} {}",
        all.len() as f64 / elapsed.as_secs_f64(),
        quantile(0.5),
        quantile(0.99)
    );
    Ok(())
}

/// Reads back, in a process of its own: one line for each record, `?` for one that nobody wrote.
///
/// # Errors
/// The log refuses to open.
pub fn read(args: &ReadArgs) -> anyhow::Result<()> {
    let mut text = String::new();
    for bytes in args.log.records(&args.dir)? {
        match Record::index_of(&bytes) {
            Some(index) => text += &format!("{index}\n"),
            None => text += "?\n",
        }
    }
    // All or nothing: whoever reads it must not take half of it for the whole.
    print!("{text}end\n");
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arm {
    Log(Log),
    Fio,
}

/// Measures, and prints the tables.
///
/// # Errors
/// A log that fails.
pub fn run(args: &LogsArgs, stop: &Stop) -> anyhow::Result<()> {
    if args.rounds == 0 || !(0.05..=60.0).contains(&args.seconds) {
        bail!("--rounds takes 1 and more, --seconds 0.05 to 60");
    }
    if args.writers.iter().any(|&count| count == 0 || count > 1000) {
        bail!("--writers takes 1 to 1000");
    }
    let mut arms: Vec<Arm> = args.logs.iter().map(|&log| Arm::Log(log)).collect();
    match fio::version() {
        Some(_) => arms.push(Arm::Fio),
        None => eprintln!("fio is not installed (Debian's package fio): the disk's own speed is not measured"),
    }
    println!(
        "Records of {RECORD_BYTES} bytes; {} rounds of {} s; intervals cover the median with {:.1} %; {}",
        args.rounds,
        args.seconds,
        stats::coverage_percent(args.rounds),
        fio::version().unwrap_or_default(),
    );
    for &writers in &args.writers {
        let mut seen = vec![[const { Rounds(Vec::new()) }; 3]; arms.len()];
        let mut disturbed_count = 0;
        for round in 0..args.rounds {
            for offset in 0..arms.len() {
                disturbed_count += usize::from(!quiet::wait(stop)?);
                let index = (round + offset) % arms.len();
                let figures = match arms[index] {
                    Arm::Log(log) => measure(args, log, writers).with_context(|| log.name())?,
                    Arm::Fio => {
                        let folder = Folder::new(&args.dir, "fio")?;
                        fio::measure(folder.path(), writers, args.seconds)?
                    }
                };
                eprintln!(
                    "  {:?}, {writers} writers, round {}: {figures:.0?}",
                    arms[index],
                    round + 1
                );
                for (rounds, figure) in seen[index].iter_mut().zip(figures) {
                    rounds.0.push(figure);
                }
            }
        }
        print(&arms, writers, &seen, disturbed_count);
    }
    Ok(())
}

/// Appends per second, p50 and p99 in microseconds.
fn measure(args: &LogsArgs, log: Log, writers: usize) -> anyhow::Result<[f64; 3]> {
    let folder = Folder::new(&args.dir, "log")?;
    let output = log
        .command("write", folder.path())?
        .args([
            "--writers",
            &writers.to_string(),
            "--seconds",
            &args.seconds.to_string(),
        ])
        .output()
        .context("starting a writer")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "the writer ended ({}): {errors}",
        output.status
    );
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().unwrap_or_default();
    let figures: Vec<f64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
    figures
        .try_into()
        .map_err(|_| anyhow::anyhow!("the writer said {line:?} in place of three figures"))
}

fn print(arms: &[Arm], writers: usize, seen: &[[Rounds; 3]], disturbed_count: usize) {
    println!(
        "\n| {writers} threads | appends per second | p50, µs | p99, µs | {} ÷ it |",
        name(arms[0])
    );
    println!("|---|--:|--:|--:|--:|");
    for (&arm, figures) in arms.iter().zip(seen) {
        let ratio = seen[0][0].over(&figures[0]);
        println!(
            "| {} | {} | {} | {} | {} |",
            name(arm),
            cell(&figures[0]),
            cell(&figures[1]),
            cell(&figures[2]),
            cell(&ratio),
        );
    }
    if disturbed_count > 0 {
        println!("\n{disturbed_count} trials were disturbed by other processes.");
    }
}

fn name(arm: Arm) -> &'static str {
    match arm {
        Arm::Log(log) => log.name(),
        Arm::Fio => "fio psync, 4 KiB, fdatasync, a file for each",
    }
}
