//! `wal-group-commit`: one log and many threads that each wait for their record to be on disk: what one flush carries, and
//! what that does to the rate.

mod claims;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use dataplane_wal::{Engine, SharedWal};

use crate::{
    claim::Claim,
    disk::{
        DiskFolder, Sampled,
        fio::{self, Fio},
        logs, sampled,
    },
    experiment::{Allowed, Axis, Depth, Experiment, Lab},
    measure::{
        QUANTILES, Watch,
        gates::{self, Limits, Observation},
    },
    record::{Better, Metric, ModeRecord, Row},
};

/// See the module.
#[derive(Debug)]
pub struct WalGroupCommit;

const WRITERS: Axis = Axis {
    name: "writers",
    meaning: "threads that append, each waiting for its record before the next",
    full: &["1", "2", "4", "8", "16", "64"],
    tour: &["1", "16"],
    smallest: "4",
    allowed: Allowed::Number(1.0, 256.0),
};

const LOG: Axis = Axis {
    name: "log",
    meaning: "dsync, file, uring: one log for all, through this engine; fio: a file for each, by fio with fdatasync",
    full: &["dsync", "file", "uring", FIO],
    tour: &["dsync"],
    smallest: "dsync",
    allowed: Allowed::Words,
};

const FIO: &str = "fio";
const RECORD_BYTES: usize = 256;
/// What fio writes: the sector that a record of ours takes when it is alone.
const FIO_BLOCK_BYTES: usize = 512;
/// Each of fio's files.
const FIO_FILE_BYTES: u64 = 4 << 20;
/// The numbers of writers at which fio stands beside, unless they were named.
const FIO_WRITERS: [usize; 2] = [1, 16];
const TRIAL_MIN: Duration = Duration::from_millis(150);
/// A log has room for so long.
const TRIAL_MAX: Duration = Duration::from_millis(500);

/// What one row measures.
#[derive(Clone, Debug)]
struct Rung {
    log: String,
    writers: usize,
    twin: bool,
}

impl Rung {
    fn name(&self) -> &'static str {
        match self.log.as_str() {
            "file" => "wal-file",
            "uring" => "wal-uring",
            FIO => "fio-fdatasync",
            _ => "wal-dsync",
        }
    }
}

impl Experiment for WalGroupCommit {
    fn id(&self) -> &'static str {
        "wal-group-commit"
    }

    fn title(&self) -> &'static str {
        "Group commit"
    }

    fn question(&self) -> &'static str {
        "How many records does one flush carry when many threads wait for it, and does the rate grow with it?"
    }

    fn how(&self) -> &'static str {
        "Threads append records of 256 bytes to one log, each waiting until its own is on disk. Whoever finds nobody writing \
         writes for all that wait (group commit without a delay); how many records each flush carried is counted by the log. \
         fio, where it is installed, runs as many jobs with a file and an fdatasync each. All files were written from \
         end to end beforehand; arms take turns in rounds, in an order drawn from the seed; wal-dsync is measured twice a \
         round. No thread is pinned or has a priority."
    }

    fn axes(&self) -> &'static [Axis] {
        &[WRITERS, LOG]
    }

    fn backends(&self) -> Vec<&'static str> {
        Vec::new()
    }

    fn claims(&self) -> &'static [Claim] {
        claims::CLAIMS
    }

    fn tour_weight(&self) -> f64 {
        0.0
    }

    fn needs_one_machine(&self) -> Option<&'static str> {
        Some("its disk is this machine's")
    }

    fn keeps_files(&self) -> bool {
        true
    }

    fn run(&self, lab: &mut Lab<'_>) -> anyhow::Result<()> {
        let wanted = rungs(lab);
        let jobs_count = wanted
            .iter()
            .filter(|rung| rung.log == FIO)
            .map(|rung| rung.writers)
            .max();
        let needed_bytes = 3 * logs::LOG_BYTES + jobs_count.unwrap_or(0) as u64 * FIO_FILE_BYTES;
        let Some(folder) = lab.disk_folder(needed_bytes)? else {
            return Ok(());
        };
        lab.progress.set_message("writing the files that are measured over");
        let (files, rungs) = prepare(lab, folder, wanted, jobs_count)?;
        let plan = lab.plan(rungs.len(), TRIAL_MIN);
        let trial = plan.trial.min(TRIAL_MAX);
        lab.in_rounds(&rungs, plan.rounds_count, |lab, turn| {
            let rung = turn.arm;
            lab.progress.set_message(format!(
                "{}, {} writers, round {}",
                rung.name(),
                rung.writers,
                turn.round + 1
            ));
            lab.record_until_valid(|lab| measure(lab, &files, rung, turn.round, trial))
        })
    }
}

fn rungs(lab: &Lab<'_>) -> Vec<Rung> {
    let are_chosen = lab.choice.axes.contains_key(WRITERS.name);
    let mut rungs = Vec::new();
    for log in lab.values(&LOG) {
        for writers in lab.numbers(&WRITERS).into_iter().map(|number| number as usize) {
            if log == FIO && !are_chosen && !FIO_WRITERS.contains(&writers) {
                continue;
            }
            let rung = Rung {
                log: log.clone(),
                writers,
                twin: false,
            };
            if rung.name() == "wal-dsync" && lab.choice.depth != Depth::Smallest {
                rungs.push(Rung {
                    twin: true,
                    ..rung.clone()
                });
            }
            rungs.push(rung);
        }
    }
    rungs
}

/// All that lies on the disk.
struct Files {
    folder: DiskFolder,
    logs: BTreeMap<String, SharedWal>,
    /// The folder of fio's files, and its version.
    fio: Option<(PathBuf, String)>,
    /// What does not exist here, and why, as facts of a row.
    absent: BTreeMap<String, String>,
}

/// Makes the files, and leaves out what does not exist here.
fn prepare(
    lab: &Lab<'_>,
    folder: DiskFolder,
    mut rungs: Vec<Rung>,
    jobs_count: Option<usize>,
) -> anyhow::Result<(Files, Vec<Rung>)> {
    let mut files = Files {
        logs: BTreeMap::new(),
        fio: None,
        absent: BTreeMap::new(),
        folder,
    };
    let leave_out = |rungs: &mut Vec<Rung>, log: &str, why: &str| {
        lab.say(&format!("log={log} is left out: {why}"));
        rungs.retain(|rung| rung.log != log);
        (format!("without_{log}"), why.to_owned())
    };
    for engine in Engine::ALL {
        if !rungs.iter().any(|rung| rung.log == engine.name()) {
            continue;
        }
        match logs::open(files.folder.path(), engine)? {
            Ok(wal) => {
                files
                    .logs
                    .insert(engine.name().to_owned(), SharedWal::new(wal, logs::TERM));
            }
            Err(why) => files.absent.extend([leave_out(&mut rungs, engine.name(), &why)]),
        }
    }
    if let Some(jobs_count) = jobs_count {
        match fio::version() {
            Ok(version) => {
                std::fs::create_dir(files.folder.path().join(FIO)).context("making a folder for fio's files")?;
                for job in 0..jobs_count {
                    files.folder.written_file(&format!("{FIO}/fio-{job}"), FIO_FILE_BYTES)?;
                }
                files.fio = Some((files.folder.path().join(FIO), version));
            }
            Err(why) => files.absent.extend([leave_out(&mut rungs, FIO, &why)]),
        }
    }
    Ok((files, rungs))
}

fn measure(lab: &Lab<'_>, files: &Files, rung: &Rung, round: u32, duration: Duration) -> anyhow::Result<Row> {
    let at_s = lab.run_started.elapsed().as_secs_f64();
    let started = Instant::now();
    let mut facts: BTreeMap<String, String> = files.folder.facts().into_iter().collect();
    let mut metrics = BTreeMap::new();
    let mut put = |name: &str, value: f64, unit: &str, better: Better| {
        let unit = unit.to_owned();
        metrics.insert(name.to_owned(), Metric { value, unit, better });
    };
    let watch = Watch::begin();
    let sampled = match (files.logs.get(&rung.log), &files.fio) {
        (Some(log), _) => {
            log.with(logs::empty).context("emptying the log")?;
            let before = log.stats();
            let sampled = append_together(lab, log, rung.writers, duration)
                .with_context(|| format!("{} writers over {}", rung.writers, rung.name()))?;
            let after = log.stats();
            let (commits, entries) = (
                after.commits_count - before.commits_count,
                after.entries_count - before.entries_count,
            );
            if commits > 0 {
                put(
                    RECORDS_PER_FLUSH,
                    entries as f64 / commits as f64,
                    "count",
                    Better::Higher,
                );
            }
            put(
                "held_in_vain",
                (after.held_in_vain_count - before.held_in_vain_count) as f64,
                "count",
                Better::Lower,
            );
            sampled
        }
        (None, Some((place, version))) => {
            facts.insert("version".to_owned(), version.clone());
            facts.insert(
                "yardstick".to_owned(),
                "another program, with a file for each of its jobs".to_owned(),
            );
            let answer = Fio {
                place: &match rung.writers {
                    1 => place.join("fio-0"),
                    _ => place.clone(),
                },
                file_bytes: FIO_FILE_BYTES,
                jobs_count: rung.writers,
                block_bytes: FIO_BLOCK_BYTES,
                duration,
                words: &["--rw=write", "--ioengine=psync", "--fdatasync=1"],
            }
            .run()?;
            facts.insert("command".to_owned(), answer.command);
            answer.sampled
        }
        (None, None) => anyhow::bail!("log={} was left out", rung.log),
    };
    let mut seen = watch.end();
    facts.extend(files.absent.clone());
    facts.insert("loop".to_owned(), "closed: a latency counts from its call".to_owned());
    facts.insert(
        "guarantee".to_owned(),
        "each record is on disk before its own append returns".to_owned(),
    );
    put("operations", sampled.count as f64, "count", Better::Neither);
    if sampled.latency.total_count() > 0 {
        seen.push(Observation::Samples {
            q: 0.5,
            total_count: sampled.latency.total_count(),
        });
    }
    if sampled.count > 0 {
        let per_s = sampled.count as f64 / sampled.elapsed.as_secs_f64();
        put(THROUGHPUT, per_s, "1/s", Better::Higher);
        let cpu_ns = sampled.cpu.as_nanos() as f64 / sampled.count as f64;
        put("cpu_per_op", cpu_ns, "ns", Better::Lower);
    }
    Ok(Row {
        experiment: "wal-group-commit".to_owned(),
        backend: rung.name().to_owned(),
        mode: ModeRecord::Native,
        axis: BTreeMap::from([(WRITERS.name.to_owned(), rung.writers.to_string())]),
        round,
        twin: rung.twin,
        seed: lab.choice.seed,
        at_s,
        elapsed_s: started.elapsed().as_secs_f64(),
        latency: (sampled.latency.total_count() > 0).then(|| sampled.latency.distribution(&QUANTILES)),
        service: None,
        schedule_lag: None,
        metrics,
        series: Vec::new(),
        facts,
        validity: gates::judge(&seen, &Limits::default()),
    })
}

/// Records a second, of all threads together.
const THROUGHPUT: &str = "throughput";
/// How many records a flush carried.
const RECORDS_PER_FLUSH: &str = "records_per_flush";

fn append_together(lab: &Lab<'_>, log: &SharedWal, writers: usize, duration: Duration) -> anyhow::Result<Sampled> {
    let one = || {
        let payload = [0x5a; RECORD_BYTES];
        sampled::closed(duration, lab.stop, || {
            log.append_durable(&payload)?;
            Ok(())
        })
    };
    let parts: anyhow::Result<Vec<Sampled>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..writers).map(|_| scope.spawn(one)).collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined
            .map(|part| part.unwrap_or_else(|_| anyhow::bail!("a writer panicked")))
            .collect()
    });
    sampled::together(parts?).context("no thread has appended")
}
