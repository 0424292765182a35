//! `crash`: power loss at every moment of a workload, and single flipped bits, in other people's logs and ours.
//!
//! A log runs in a process of its own under strace(1) and says of each record when it was told that it is safe. From the
//! stream of its writes and flushes images are made that a power loss could leave ([`image`]), and another process opens
//! the log over each: every acknowledged record must be there, in order, and nothing that nobody wrote.

mod image;
mod trace;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use clap::Args;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use self::trace::Op;
use crate::{
    logs::{Log, RECORD_BYTES},
    scratch::{Folder, Stop},
};

/// How often a log that is being opened is looked at, and how many times: 20 s. Looks are counted and not time, because somebody who
/// measures may stop this process together with its reader (SIGSTOP), and that is no refusal.
const LOOK_EVERY: Duration = Duration::from_millis(1);
const LOOKS_MAX: u32 = 20_000;

/// What `peers crash` takes.
#[derive(Debug, Args)]
pub struct CrashArgs {
    /// Which logs
    #[arg(
        long,
        value_enum,
        value_name = "LOG,…",
        value_delimiter = ',',
        default_value = "dsync,file,raft-engine,okaywal,fjall,walrus"
    )]
    logs: Vec<Log>,
    /// Records that are appended
    #[arg(long, value_name = "N", default_value_t = 40)]
    records: u64,
    /// Random subsets of unflushed sectors at each moment, beside none and all of them
    #[arg(long, value_name = "N", default_value_t = 4)]
    samples: usize,
    /// Bits that are flipped, one in each image
    #[arg(long, value_name = "N", default_value_t = 200)]
    flips: usize,
    /// Folder for logs and images; what is made there is removed
    #[arg(long, value_name = "DIR", default_value = "target/peers")]
    dir: PathBuf,
    /// What subsets and bits are drawn from
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// What became of one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Whole,
    Lost,
    Wrong,
    Refused,
    Panicked,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    images_count: usize,
    lost_count: usize,
    wrong_count: usize,
    refused_count: usize,
    /// Of those: nothing had been acknowledged yet.
    refused_early_count: usize,
    panicked_count: usize,
}

impl Tally {
    fn count(&mut self, outcome: Outcome, acked_count: u64) {
        self.images_count += 1;
        match outcome {
            Outcome::Whole => {}
            Outcome::Lost => self.lost_count += 1,
            Outcome::Wrong => self.wrong_count += 1,
            Outcome::Refused => {
                self.refused_count += 1;
                self.refused_early_count += usize::from(acked_count == 0);
            }
            Outcome::Panicked => self.panicked_count += 1,
        }
    }
}

/// Tries all logs, and prints the tables.
///
/// # Errors
/// strace is not there, a log that cannot be recorded.
pub fn run(args: &CrashArgs, stop: &Stop) -> anyhow::Result<()> {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        bail!("strace is not installed, and it is the recorder: apt-get install strace");
    }
    ensure!(args.records > 0, "--records takes 1 and more");
    let mut rows = Vec::new();
    for &log in &args.logs {
        let recorded = record(args, log).with_context(|| format!("recording {}", log.name()));
        stop.check()?;
        let row = match recorded {
            Err(why) => Err(format!("{why:#}")),
            Ok(ops) => {
                let losses = lose(args, log, &ops, stop)?;
                let flips = flip(args, log, &ops, stop)?;
                eprintln!("  {}: {losses:?}; flips {flips:?}", log.name());
                Ok((losses, flips))
            }
        };
        rows.push((log, row));
    }
    print(args, &rows);
    Ok(())
}

/// Runs the log under the recorder.
fn record(args: &CrashArgs, log: Log) -> anyhow::Result<Vec<Op>> {
    let folder = Folder::new(&args.dir, "record")?;
    let data = folder.path().join("data");
    fs::create_dir(&data).with_context(|| format!("making {}", data.display()))?;
    let output = folder.path().join("strace");
    let inner = log.command("write", &data)?;
    let mut command = Command::new("strace");
    command
        .args([
            "-f",
            "-y",
            "--strings-in-hex=all",
            "-s",
            "16777216",
            "-e",
            &format!("trace={}", trace::CALLS),
            "-o",
        ])
        .arg(&output)
        .arg("--")
        .arg(inner.get_program())
        .args(inner.get_args())
        .args(["--records", &args.records.to_string()])
        .envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .stdin(Stdio::null());
    let ended = command.output().context("starting strace")?;
    let errors = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.success(), "the writer ended ({}): {errors}", ended.status);
    let text = fs::read_to_string(&output).context("reading strace's output")?;
    let ops = trace::parse(&text, &data)?;
    let acked = ops.iter().filter(|op| matches!(op, Op::Acknowledged(_))).count() as u64;
    ensure!(
        acked == args.records,
        "the recorder saw {acked} of {} acknowledgements",
        args.records
    );
    // What is not in the stream was written in a way that strace does not see.
    let mut all = image::Folder::default();
    ops.iter().enumerate().for_each(|(index, op)| all.apply(index, op));
    let read = open(args, log, &all.lose(|| true, || true), args.records, args.records)?;
    ensure!(
        read == Outcome::Whole,
        "the log made again from the whole stream says {read:?}: it writes in a way that the recorder does not see"
    );
    Ok(ops)
}

/// Every prefix of the stream, with none, all and some of what was not flushed.
fn lose(args: &CrashArgs, log: Log, ops: &[Op], stop: &Stop) -> anyhow::Result<Tally> {
    let mut rng = Pcg64Mcg::seed_from_u64(args.seed);
    let mut folder = image::Folder::default();
    let mut tally = Tally::default();
    let mut acked_count = 0;
    for (index, op) in ops.iter().enumerate() {
        folder.apply(index, op);
        if let Op::Acknowledged(record) = op {
            acked_count = record + 1;
        }
        let subsets = match folder.pending_count() {
            0 => 1,
            _ => 2 + args.samples,
        };
        for subset in 0..subsets {
            stop.check()?;
            let ratio = match subset {
                0 => 0.0,
                1 => 1.0,
                _ => rng.random_range(0.0..1.0),
            };
            let mut dice = Pcg64Mcg::seed_from_u64(rng.random());
            let grows = rng.random_bool(0.5);
            let image = folder.lose(|| dice.random_bool(ratio), || grows);
            // One record may be on its way.
            let outcome = open(args, log, &image, acked_count, acked_count + 1)?;
            if outcome != Outcome::Whole && acked_count > 0 {
                eprintln!(
                    "  {}, operation {index}, subset {subset}, {acked_count} acknowledged: {outcome:?}",
                    log.name()
                );
            }
            tally.count(outcome, acked_count);
        }
    }
    Ok(tally)
}

/// Single bits of the log as it is in the end.
fn flip(args: &CrashArgs, log: Log, ops: &[Op], stop: &Stop) -> anyhow::Result<Tally> {
    let mut rng = Pcg64Mcg::seed_from_u64(args.seed);
    let mut folder = image::Folder::default();
    for (index, op) in ops.iter().enumerate() {
        folder.apply(index, op);
        // A log that is closed in order may tidy up, and one that loses power does not.
        if matches!(op, Op::Acknowledged(record) if record + 1 == args.records) {
            break;
        }
    }
    let whole = folder.lose(|| true, || true);
    let mut tally = Tally::default();
    while tally.images_count < args.flips {
        stop.check()?;
        let mut image = whole.clone();
        if image.flip(rng.random_range(0..whole.written_bytes()), rng.random_range(0..8)) {
            tally.count(open(args, log, &image, args.records, args.records)?, args.records);
        }
    }
    Ok(tally)
}

/// Opens the log over an image, in a process of its own.
fn open(
    args: &CrashArgs,
    log: Log,
    image: &image::Folder,
    acked_count: u64,
    begun_count: u64,
) -> anyhow::Result<Outcome> {
    let folder = Folder::new(&args.dir, "image")?;
    image.make(folder.path())?;
    let said = folder.path().with_extension("said");
    let outcome = read(log, folder.path(), &said).map(|said| match said {
        Said::Refused => Outcome::Refused,
        Said::Panicked => Outcome::Panicked,
        Said::Records(records) => judge(&records, acked_count, begun_count),
    });
    fs::remove_file(&said).with_context(|| format!("removing {}", said.display()))?;
    outcome
}

enum Said {
    Refused,
    Panicked,
    /// `None`: one that nobody wrote.
    Records(Vec<Option<u64>>),
}

fn read(log: Log, dir: &Path, said: &Path) -> anyhow::Result<Said> {
    let file = fs::File::create(said).with_context(|| format!("making {}", said.display()))?;
    let mut child = log
        .command("read", dir)?
        .stdout(file)
        .stderr(Stdio::null())
        .spawn()
        .context("starting a reader")?;
    let mut looks_count = 0;
    let status = loop {
        if let Some(status) = child.try_wait().context("waiting for a reader")? {
            break status;
        }
        looks_count += 1;
        if looks_count > LOOKS_MAX {
            let _ = child.kill();
            let _ = child.wait();
            // Nobody can use a log that does not open.
            return Ok(Said::Refused);
        }
        thread::sleep(LOOK_EVERY);
    };
    let text = fs::read_to_string(said).context("reading what a reader said")?;
    match status.code() {
        // walrus prints lines of its own among ours.
        Some(0) => {
            let lines = text.lines().filter_map(|line| match line {
                "?" => Some(None),
                line => line.parse().ok().map(Some),
            });
            Ok(Said::Records(lines.collect()))
        }
        Some(1) => Ok(Said::Refused),
        _ => Ok(Said::Panicked),
    }
}

/// The records 0, 1, … as far as acknowledged, and no further than begun.
fn judge(records: &[Option<u64>], acked_count: u64, begun_count: u64) -> Outcome {
    let is_known = |record: &Option<u64>| record.is_some_and(|index| index < begun_count);
    let is_in_order = records.windows(2).all(|pair| pair[0] < pair[1]);
    if !records.iter().all(is_known) || !is_in_order {
        return Outcome::Wrong;
    }
    match (0..acked_count).all(|index| records.get(index as usize) == Some(&Some(index))) {
        true => Outcome::Whole,
        false => Outcome::Lost,
    }
}

type Row = (Log, Result<(Tally, Tally), String>);

fn print(args: &CrashArgs, rows: &[Row]) {
    println!(
        "{} records of {RECORD_BYTES} bytes by one thread; at each operation none, all and {} random subsets of the unflushed \
         {}-byte sectors; {} single bits; seed {}\n",
        args.records,
        args.samples,
        image::SECTOR_BYTES,
        args.flips,
        args.seed,
    );
    println!(
        "| power loss | images | acknowledged record lost | wrong record | refused to open (before the first acknowledgement) | panicked |"
    );
    println!("|---|--:|--:|--:|--:|--:|");
    for (log, row) in rows {
        match row {
            Ok((tally, _)) => println!(
                "| {} | {} | {} | {} | {} ({}) | {} |",
                log.name(),
                tally.images_count,
                tally.lost_count,
                tally.wrong_count,
                tally.refused_count,
                tally.refused_early_count,
                tally.panicked_count
            ),
            Err(why) => println!("| {} | not measured, because {why} | | | | |", log.name()),
        }
    }
    println!(
        "\n| one flipped bit | images | refused to open | panicked | harmless | acknowledged record lost, and nothing said | wrong record |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|");
    for (log, row) in rows {
        if let Ok((_, tally)) = row {
            let told = tally.refused_count + tally.panicked_count;
            println!(
                "| {} | {} | {} | {} | {} | {} | {} |",
                log.name(),
                tally.images_count,
                tally.refused_count,
                tally.panicked_count,
                tally.images_count - told - tally.lost_count - tally.wrong_count,
                tally.lost_count,
                tally.wrong_count
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_and_what_is_wrong_are_told_apart() {
        let of = |records: &[u64]| records.iter().copied().map(Some).collect::<Vec<_>>();
        assert_eq!(judge(&of(&[0, 1, 2]), 3, 3), Outcome::Whole);
        assert_eq!(judge(&of(&[0, 1, 2]), 2, 3), Outcome::Whole);
        assert_eq!(judge(&of(&[0, 1]), 3, 3), Outcome::Lost);
        assert_eq!(judge(&of(&[0, 2]), 2, 3), Outcome::Lost);
        assert_eq!(judge(&of(&[1, 0]), 2, 2), Outcome::Wrong);
        assert_eq!(judge(&of(&[0, 1, 2]), 1, 2), Outcome::Wrong);
        assert_eq!(judge(&[Some(0), None], 1, 2), Outcome::Wrong);
        assert_eq!(judge(&[], 0, 1), Outcome::Whole);
    }
}
