//! `wal-ladder`: every way to make a record durable, beside the same device without a log and beside fio; and blocks that are
//! read and written with as many under way.

mod claims;
mod ways;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context;
use dataplane_wal::Wal;

use self::ways::{WAYS, Way};
use crate::{
    claim::Claim,
    disk::{DiskFolder, Hogs, fio, logs, raw},
    experiment::{Allowed, Axis, Depth, Experiment, Lab},
    measure::{
        QUANTILES, Watch,
        gates::{self, Limits, Observation},
    },
    record::{Better, Metric, ModeRecord, Row},
};

/// See the module.
#[derive(Debug)]
pub struct WalLadder;

const WORK: Axis = Axis {
    name: "work",
    meaning: "append: records, each durable before the next; read, write: blocks anywhere in a file, O_DIRECT, not made durable",
    full: &[APPEND, READ, WRITE],
    tour: &[APPEND],
    smallest: APPEND,
    allowed: Allowed::Words,
};

const RECORD_BYTES: Axis = Axis {
    name: "record_bytes",
    meaning: "bytes of a record; the device without a log is given as many as the log writes for it. Blocks that are read \
              and written have 4096",
    full: &["64", MAIN_BYTES, "4096"],
    tour: &[MAIN_BYTES],
    smallest: MAIN_BYTES,
    allowed: Allowed::Number(1.0, 1_048_576.0),
};

const IN_FLIGHT: Axis = Axis {
    name: "in_flight",
    meaning: "blocks under way at once, when they are read or written; a record is appended alone",
    full: &["1", "32"],
    tour: &["1"],
    smallest: "1",
    allowed: Allowed::Number(1.0, 1024.0),
};

const BESIDE: Axis = Axis {
    name: "beside",
    meaning: "idle: nothing; hogs: a thread on each CPU that never rests",
    full: &[IDLE, HOGS],
    tour: &[IDLE],
    smallest: IDLE,
    allowed: Allowed::Words,
};

const WAY: Axis = Axis {
    name: "way",
    meaning: "who writes, and how (the tables' back end)",
    full: &[
        "wal-dsync",
        "wal-file",
        "wal-uring",
        "wal-uring-plain",
        "pwrite-dsync",
        "pwrite-fdatasync",
        "uring-dsync",
        "fio-dsync",
        "fio-fdatasync",
        "blocking-direct",
        "uring-direct",
        "uring-plain",
        "uring-sqpoll",
        "uring-iopoll",
        "fio-uring",
    ],
    tour: &["wal-dsync", "wal-uring", "pwrite-dsync", "uring-dsync"],
    smallest: "wal-dsync",
    allowed: Allowed::Words,
};

const APPEND: &str = "append";
const READ: &str = "read";
const WRITE: &str = "write";
const IDLE: &str = "idle";
const HOGS: &str = "hogs";
/// The record size at which everything is measured; the others are measured where they say something new.
const MAIN_BYTES: &str = "256";
/// The arm that is measured twice a round.
const TWIN: &str = "wal-dsync";
/// Bytes of a block that is read or written: a page, and what most devices have as their physical sector.
const BLOCK_BYTES: usize = 4096;
/// The file whose blocks are read and written anywhere: larger than a device's own cache, as far as that can be had.
const BLOCKS_BYTES: u64 = 256 << 20;
/// The file that is appended to without a log; from its end it goes on at its beginning.
const APPENDS_BYTES: u64 = 16 << 20;
const TRIAL_MIN: Duration = Duration::from_millis(100);
/// A log has room for so long.
const TRIAL_MAX: Duration = Duration::from_millis(500);

/// What one row measures.
#[derive(Clone, Debug)]
struct Rung {
    way: &'static Way,
    work: String,
    record_bytes: usize,
    in_flight: usize,
    beside: String,
    twin: bool,
}

/// All that lies on the disk.
struct Files {
    folder: DiskFolder,
    logs: BTreeMap<&'static str, Wal>,
    appends: PathBuf,
    /// Only where blocks are asked for.
    blocks: Option<PathBuf>,
    /// Bytes that the log writes for a record of so many.
    commit_bytes: BTreeMap<usize, usize>,
    /// What does not exist here, and why.
    absent: BTreeMap<&'static str, String>,
}

impl Experiment for WalLadder {
    fn id(&self) -> &'static str {
        "wal-ladder"
    }

    fn title(&self) -> &'static str {
        "The ladder of durable writes"
    }

    fn question(&self) -> &'static str {
        "What does a durable record cost through each way to the disk, beside the disk's own floor, and when does io_uring pay?"
    }

    fn how(&self) -> &'static str {
        "One thread appends a record, waits until it is on disk, and appends the next; the same thread writes as many bytes \
         into a file without any log, by pwrite(2) and through io_uring; fio, where it is installed, does so in a process of its \
         own. Then blocks of 4096 bytes are read and written anywhere in a file, one or 32 at a time. All files were \
         written from end to end beforehand. Arms take turns in rounds, in an order drawn from the seed; wal-dsync is \
         measured twice a round. No thread is pinned or has a priority. CPU time is that of the threads that called and of \
         those that io_uring made for them. Unless axes are named, CPU hogs and fio stand beside records of 256 bytes alone."
    }

    fn axes(&self) -> &'static [Axis] {
        &[WORK, RECORD_BYTES, IN_FLIGHT, BESIDE, WAY]
    }

    fn backends(&self) -> Vec<&'static str> {
        Vec::new()
    }

    fn claims(&self) -> &'static [Claim] {
        claims::CLAIMS
    }

    fn tour_weight(&self) -> f64 {
        0.6
    }

    fn needs_one_machine(&self) -> Option<&'static str> {
        Some("its disk is this machine's")
    }

    fn keeps_files(&self) -> bool {
        true
    }

    fn run(&self, lab: &mut Lab<'_>) -> anyhow::Result<()> {
        let wanted = rungs(lab);
        anyhow::ensure!(
            !wanted.is_empty(),
            "no way that was chosen does the work that was chosen: wal-…, pwrite-… and uring-dsync append, blocking-direct and \
             the other uring-… read and write; choose others with --axis way=… or --axis work=…"
        );
        let has_blocks = wanted.iter().any(|rung| rung.work != APPEND);
        let needed_bytes = 3 * logs::LOG_BYTES + APPENDS_BYTES + if has_blocks { BLOCKS_BYTES } else { 0 };
        let Some(folder) = lab.disk_folder(needed_bytes)? else {
            return Ok(());
        };
        lab.progress.set_message("writing the files that are measured over");
        let (mut files, rungs) = prepare(lab, folder, wanted, has_blocks)?;
        let has_fio = rungs.iter().any(|rung| rung.way.is_fio());
        let fio = if has_fio { fio::version().ok() } else { None };
        let plan = lab.plan(rungs.len(), TRIAL_MIN);
        let trial = plan.trial.min(TRIAL_MAX);
        lab.in_rounds(&rungs, plan.rounds_count, |lab, turn| {
            let rung = turn.arm;
            lab.progress.set_message(format!(
                "{}, {} of {} bytes, {}, round {}",
                rung.way.name,
                rung.work,
                rung.record_bytes,
                rung.beside,
                turn.round + 1
            ));
            lab.record_until_valid(|lab| measure(lab, &mut files, rung, turn.round, trial, fio.as_deref()))
        })
    }
}

fn rungs(lab: &Lab<'_>) -> Vec<Rung> {
    let is_chosen = |axis: &Axis| lab.choice.axes.contains_key(axis.name);
    let ways: Vec<&'static Way> = lab.values(&WAY).iter().filter_map(|name| ways::by_name(name)).collect();
    let mut rungs = Vec::new();
    for work in lab.values(&WORK) {
        let is_append = work == APPEND;
        let sizes = if is_append {
            lab.values(&RECORD_BYTES)
        } else {
            vec![BLOCK_BYTES.to_string()]
        };
        let in_flights = if is_append { vec![1.0] } else { lab.numbers(&IN_FLIGHT) };
        for way in ways.iter().filter(|way| way.does(&work)) {
            for beside in lab.values(&BESIDE) {
                if !is_append && beside != IDLE && !is_chosen(&BESIDE) {
                    continue;
                }
                for size in &sizes {
                    let is_main = !is_append || size == MAIN_BYTES || is_chosen(&RECORD_BYTES);
                    if !is_main && (way.is_fio() || beside != IDLE) {
                        continue;
                    }
                    for in_flight in &in_flights {
                        let rung = Rung {
                            way,
                            work: work.clone(),
                            record_bytes: size.parse().unwrap_or(BLOCK_BYTES),
                            in_flight: *in_flight as usize,
                            beside: beside.clone(),
                            twin: false,
                        };
                        if way.name == TWIN && size == MAIN_BYTES && lab.choice.depth != Depth::Smallest {
                            rungs.push(Rung {
                                twin: true,
                                ..rung.clone()
                            });
                        }
                        rungs.push(rung);
                    }
                }
            }
        }
    }
    rungs
}

/// Makes the files, and leaves out the ways that do not exist here.
fn prepare(
    lab: &Lab<'_>,
    folder: DiskFolder,
    wanted: Vec<Rung>,
    has_blocks: bool,
) -> anyhow::Result<(Files, Vec<Rung>)> {
    let mut files = Files {
        appends: folder.written_file("appends", APPENDS_BYTES)?,
        blocks: match has_blocks {
            true => Some(folder.written_file("blocks", BLOCKS_BYTES)?),
            false => None,
        },
        logs: BTreeMap::new(),
        commit_bytes: BTreeMap::new(),
        absent: BTreeMap::new(),
        folder,
    };
    for rung in wanted.iter().filter(|rung| rung.work == APPEND) {
        let record_bytes = rung.record_bytes;
        files
            .commit_bytes
            .entry(record_bytes)
            .or_insert(ways::commit_bytes(record_bytes));
    }
    for way in WAYS
        .iter()
        .filter(|way| wanted.iter().any(|rung| rung.way.name == way.name))
    {
        let here = match way.engine() {
            Some(engine) => logs::open(files.folder.path(), engine)?.map(|log| {
                files.logs.insert(way.name, log);
            }),
            None => ways::probe(way, &files.appends),
        };
        if let Err(why) = here {
            lab.say(&format!("{} is left out: {why}", way.name));
            files.absent.insert(way.name, why);
        }
    }
    let mut rungs = wanted;
    rungs.retain(|rung| !files.absent.contains_key(rung.way.name));
    Ok((files, rungs))
}

fn measure(
    lab: &Lab<'_>,
    files: &mut Files,
    rung: &Rung,
    round: u32,
    duration: Duration,
    fio: Option<&str>,
) -> anyhow::Result<Row> {
    let at_s = lab.run_started.elapsed().as_secs_f64();
    let started = Instant::now();
    let is_append = rung.work == APPEND;
    let (file, file_bytes) = match (&files.blocks, is_append) {
        (Some(blocks), false) => (blocks.as_path(), BLOCKS_BYTES),
        _ => (files.appends.as_path(), APPENDS_BYTES),
    };
    let block_bytes = match is_append {
        true => files.commit_bytes[&rung.record_bytes],
        false => BLOCK_BYTES,
    };
    let job = raw::Job {
        file,
        file_bytes,
        block_bytes,
        duration,
        stop: lab.stop,
    };
    let mut facts: BTreeMap<String, String> = files.folder.facts().into_iter().collect();
    let hogs = (rung.beside == HOGS).then(Hogs::start);
    let watch = Watch::begin();
    let seed = lab.choice.seed.wrapping_add(u64::from(round));
    let measured = match files.logs.get_mut(rung.way.name) {
        Some(log) => ways::log(log, rung.record_bytes, duration, lab.stop),
        None => ways::device(rung.way, &job, &rung.work, rung.in_flight, seed),
    };
    let mut seen = watch.end();
    if let Some(hogs) = &hogs {
        facts.insert("hogs".to_owned(), hogs.count().to_string());
    }
    drop(hogs);
    let measured = measured.with_context(|| format!("{} ({})", rung.way.name, rung.work))?;
    facts.extend(measured.facts);
    facts.extend(
        files
            .absent
            .iter()
            .map(|(name, why)| (format!("without_{name}"), why.clone())),
    );
    facts.insert("loop".to_owned(), "closed: a latency counts from its call".to_owned());
    facts.insert("guarantee".to_owned(), guarantee(is_append));
    if rung.way.is_fio() {
        facts.insert("version".to_owned(), fio.unwrap_or("unknown").to_owned());
    }
    if let Some(yardstick) = rung.way.yardstick() {
        facts.insert("yardstick".to_owned(), yardstick.to_owned());
    }
    let sampled = measured.sampled;
    if sampled.latency.total_count() > 0 {
        seen.push(Observation::Samples {
            q: 0.5,
            total_count: sampled.latency.total_count(),
        });
    }
    let mut metrics = measured.metrics;
    let mut put = |name: &str, value: f64, unit: &str, better: Better| {
        let unit = unit.to_owned();
        metrics.insert(name.to_owned(), Metric { value, unit, better });
    };
    put("operations", sampled.count as f64, "count", Better::Neither);
    put("block_bytes", block_bytes as f64, "bytes", Better::Neither);
    if sampled.count > 0 {
        let per_s = sampled.count as f64 / sampled.elapsed.as_secs_f64();
        put(THROUGHPUT, per_s, "1/s", Better::Higher);
        put(
            CPU_PER_OP,
            sampled.cpu.as_nanos() as f64 / sampled.count as f64,
            "ns",
            Better::Lower,
        );
    }
    Ok(Row {
        experiment: "wal-ladder".to_owned(),
        backend: rung.way.name.to_owned(),
        mode: ModeRecord::Native,
        axis: BTreeMap::from([
            (WORK.name.to_owned(), rung.work.clone()),
            (RECORD_BYTES.name.to_owned(), rung.record_bytes.to_string()),
            (IN_FLIGHT.name.to_owned(), rung.in_flight.to_string()),
            (BESIDE.name.to_owned(), rung.beside.clone()),
        ]),
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

/// Operations a second.
const THROUGHPUT: &str = "throughput";
/// CPU time of an operation.
const CPU_PER_OP: &str = "cpu_per_op";

fn guarantee(is_append: bool) -> String {
    match is_append {
        true => "what was appended is on disk before the call returns: it survives the loss of power, if the disk tells the truth",
        false => "none: a write may stay in a cache of the device",
    }
    .to_owned()
}
