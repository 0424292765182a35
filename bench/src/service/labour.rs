//! What a worker that is a thread does for a request: it sleeps, burns its CPU, or does real work: checksums of a buffer, gets and
//! ranges of the store that replicas apply their log to, blocks of a file that are read past the page cache.
//!
//! A request says how long it takes, so that loads are comparable with theory's. Real work is cut into steps; what a step takes is
//! found out before the node says that it is ready, alone, and a request of so many nanoseconds is as many steps as take so long
//! then. What they really take under load stands beside what was meant (`service_took`, `service_meant`).

use std::{
    fs::{File, OpenOptions},
    hint::black_box,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, ensure};
use dataplane_kv::{Store, StoreOptions};
use dataplane_service::random::Random;
use dataplane_waist::{Clock, Instant, StateMachine};
use dataplane_wal::Buffer;
use dataplane_wire::{
    checksum::crc32c,
    quorum::{reply::Outcome, request::Command},
};
use nix::fcntl::OFlag;

use super::plan::{NodePlan, WorkerPlan};
use crate::{disk::DiskFolder, experiment::Lab, host::MachineClock};

/// How long a burning worker works between looks at the clock, in turns of its loop: some hundred nanoseconds.
const BURN_TURNS: u32 = 64;

/// Of a buffer whose checksum is computed, in bytes: it fits into the second cache of any server's core, and takes some microseconds.
const CRC_BYTES: usize = 64 << 10;
/// Of the store: as many keys, with values as long, as fit into the last cache of few machines.
const KEYS_COUNT: u64 = 50_000;
const VALUE_BYTES: usize = 100;
/// A step of gets is so many of them, so that a step is some microseconds.
const GETS_PER_STEP: usize = 16;
/// A step of a scan is a range of so many entries.
const ENTRIES_PER_STEP: u16 = 64;
/// What a read of a file reads, in bytes: a page, and a multiple of any disk's sector.
const BLOCK_BYTES: usize = 4096;
/// Of the file: more than a disk's own cache is likely to hold of it.
pub const FILE_BYTES: u64 = 64 << 20;

/// How long finding out what a step takes may last.
const TRIAL_OF_STEPS: Duration = Duration::from_millis(20);
/// At least so many steps are tried.
const STEPS_TRIED_MIN: u32 = 8;

/// What a worker does, with all that it needs for it.
#[derive(Debug)]
pub struct Labour {
    kind: Kind,
    /// What a step takes; of no use where there are none.
    step_ns: f64,
}

enum Kind {
    Sleep,
    Burn,
    Steps(Box<dyn FnMut() -> anyhow::Result<()> + Send>),
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Kind::Sleep => "Sleep",
            Kind::Burn => "Burn",
            Kind::Steps(_) => "Steps",
        })
    }
}

impl Labour {
    /// Of worker number `worker`. Finds out what a step takes.
    ///
    /// # Errors
    /// A file that cannot be read past the page cache, and what a step says.
    pub fn new(plan: &NodePlan, worker: usize) -> anyhow::Result<Labour> {
        let random = Random::new(plan.seed, 100 + worker as u64);
        let kind = match plan.workers {
            WorkerPlan::Timer | WorkerPlan::Sleep => Kind::Sleep,
            WorkerPlan::Burn => Kind::Burn,
            WorkerPlan::Crc => Kind::Steps(Box::new(checksums(random))),
            WorkerPlan::KvGet => Kind::Steps(Box::new(gets(random)?)),
            WorkerPlan::KvScan => Kind::Steps(Box::new(scans(random)?)),
            WorkerPlan::DirectRead => {
                let file = plan.file.as_deref().context("a node that reads was told of no file")?;
                Kind::Steps(Box::new(reads(file, random)?))
            }
        };
        let mut labour = Labour { kind, step_ns: 1.0 };
        if let Kind::Steps(step) = &mut labour.kind {
            labour.step_ns = time_of(step)?;
        }
        Ok(labour)
    }

    /// Works for a slice of `slice_ns` that began at `began`; when it really was over.
    ///
    /// # Errors
    /// What a step says.
    pub fn slice(&mut self, clock: MachineClock, began: Instant, slice_ns: u64) -> anyhow::Result<Instant> {
        match &mut self.kind {
            Kind::Sleep => thread::sleep(Duration::from_nanos(slice_ns)),
            Kind::Burn => return Ok(burn(clock, began, slice_ns)),
            Kind::Steps(step) => {
                let steps_count = (slice_ns as f64 / self.step_ns).round().max(1.0) as u64;
                (0..steps_count).try_for_each(|_| step())?;
            }
        }
        Ok(clock.now())
    }

    /// What a step takes, in nanoseconds, if it works in steps.
    pub fn step_ns(&self) -> Option<f64> {
        matches!(self.kind, Kind::Steps(_)).then_some(self.step_ns)
    }
}

/// The mean: a disk's reads differ, and many of them are what a request is.
fn time_of(step: &mut dyn FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    // What is touched for the first time takes longer.
    (0..STEPS_TRIED_MIN).try_for_each(|_| step())?;
    let begin = std::time::Instant::now();
    let mut steps_count = 0;
    while steps_count < STEPS_TRIED_MIN || begin.elapsed() < TRIAL_OF_STEPS {
        step()?;
        steps_count += 1;
    }
    Ok(begin.elapsed().as_nanos() as f64 / f64::from(steps_count))
}

/// Burns CPU time until so long after `began`; when it really was.
fn burn(clock: MachineClock, began: Instant, ns: u64) -> Instant {
    let end = began + Duration::from_nanos(ns);
    loop {
        let now = clock.now();
        if now >= end {
            return now;
        }
        for _ in 0..BURN_TURNS {
            std::hint::spin_loop();
        }
    }
}

/// A step is the checksum of a whole buffer.
fn checksums(mut random: Random) -> impl FnMut() -> anyhow::Result<()> + Send {
    let buffer: Vec<u8> = (0..CRC_BYTES).map(|_| random.bits() as u8).collect();
    move || {
        black_box(crc32c(black_box(&buffer)));
        Ok(())
    }
}

fn key(index: u64) -> [u8; 8] {
    index.to_be_bytes()
}

/// A store that has all keys, as a replica has it that has applied a put of each.
fn store() -> anyhow::Result<Store> {
    let mut store = Store::new(StoreOptions::default())?;
    let mut is_done = true;
    for index in 0..KEYS_COUNT {
        let (key, value) = (key(index), [index as u8; VALUE_BYTES]);
        let put = Command::Put {
            key: &key,
            value: &value,
        };
        store.apply(&put, &mut |outcome| is_done &= outcome == Outcome::Done);
    }
    ensure!(is_done, "the store did not take its keys");
    Ok(store)
}

fn gets(mut random: Random) -> anyhow::Result<impl FnMut() -> anyhow::Result<()> + Send> {
    let store = store()?;
    Ok(move || {
        for _ in 0..GETS_PER_STEP {
            let key = key(random.below(KEYS_COUNT as usize) as u64);
            let mut is_there = false;
            store.read(&Command::Get { key: &key }, &mut |outcome| {
                is_there = matches!(black_box(outcome), Outcome::Value(_));
            });
            ensure!(is_there, "the store has lost a key");
        }
        Ok(())
    })
}

fn scans(mut random: Random) -> anyhow::Result<impl FnMut() -> anyhow::Result<()> + Send> {
    let store = store()?;
    Ok(move || {
        let from = key(random.below((KEYS_COUNT - u64::from(ENTRIES_PER_STEP)) as usize) as u64);
        let range = Command::Range {
            from: &from,
            end: &[],
            count_max: ENTRIES_PER_STEP,
        };
        let mut is_there = false;
        store.read(&range, &mut |outcome| {
            is_there = matches!(black_box(outcome), Outcome::Entries(_));
        });
        ensure!(is_there, "the store has lost its keys");
        Ok(())
    })
}

/// A step is a block anywhere in the file.
fn reads(path: &Path, mut random: Random) -> anyhow::Result<impl FnMut() -> anyhow::Result<()> + Send + use<>> {
    let file = open_direct(path)?;
    let len_bytes = file.metadata().context("asking how long the file is")?.len();
    let blocks_count = len_bytes / BLOCK_BYTES as u64;
    ensure!(blocks_count > 0, "{} is shorter than a block", path.display());
    let mut block = Buffer::zeroed(BLOCK_BYTES);
    Ok(move || {
        let at_bytes = random.below(blocks_count as usize) as u64 * BLOCK_BYTES as u64;
        file.read_exact_at(block.bytes_mut(), at_bytes)
            .context("reading a block")
    })
}

fn open_direct(path: &Path) -> anyhow::Result<File> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .custom_flags(OFlag::O_DIRECT.bits())
        .open(path)
        .with_context(|| format!("opening {} past the page cache (O_DIRECT)", path.display()))
}

/// A file of [`FILE_BYTES`] to read, and the folder that it goes with, which has room for `folder_bytes`. Nothing, and says why,
/// where files cannot be read past the page cache: a file system without O_DIRECT (tmpfs before Linux 6.5), no disk, no room.
///
/// # Errors
/// The user named a folder, and it will not do; the disk's.
pub fn file_to_read(lab: &Lab<'_>, folder_bytes: u64) -> anyhow::Result<Option<(DiskFolder, PathBuf)>> {
    let Some(folder) = lab.disk_folder(folder_bytes)? else {
        return Ok(None);
    };
    let path = folder.written_file("blocks", FILE_BYTES)?;
    let mut block = Buffer::zeroed(BLOCK_BYTES);
    let is_read =
        open_direct(&path).and_then(|file| file.read_exact_at(block.bytes_mut(), 0).context("reading a block"));
    match is_read {
        Ok(()) => Ok(Some((folder, path))),
        Err(error) => {
            lab.say(&format!(
                "nodes that read a disk are left out: {error:#}; name a folder on a disk with --dir"
            ));
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::plan::ServicePlan;

    fn plan(workers: WorkerPlan, file: Option<&Path>) -> NodePlan {
        NodePlan {
            workers_count: 1,
            workers,
            discipline: "single-queue".to_owned(),
            quantum: Duration::ZERO,
            service: ServicePlan::Deterministic { ns: 1 },
            pauses: None,
            file: file.map(Path::to_owned),
            seed: 1,
        }
    }

    #[test]
    fn real_work_is_done_in_steps_and_takes_time() {
        for workers in [WorkerPlan::Crc, WorkerPlan::KvGet, WorkerPlan::KvScan] {
            let mut labour = Labour::new(&plan(workers, None), 0).expect("it needs nothing from outside");
            let step_ns = labour.step_ns().expect("it works in steps");
            assert!(step_ns > 0.0, "{workers:?}");
            let began = MachineClock.now();
            let ended = labour.slice(MachineClock, began, 1).expect("nothing can go wrong");
            assert!(ended > began, "even the shortest request is a step");
        }
        let sleeps = Labour::new(&plan(WorkerPlan::Sleep, None), 0).expect("it needs nothing");
        assert_eq!(sleeps.step_ns(), None);
    }

    #[test]
    fn a_reader_says_what_it_lacks() {
        let error = Labour::new(&plan(WorkerPlan::DirectRead, None), 0).expect_err("no file");
        assert!(error.to_string().contains("no file"), "{error}");
        let absent = Path::new("/nowhere/at/all");
        let error = Labour::new(&plan(WorkerPlan::DirectRead, Some(absent)), 0).expect_err("no such file");
        assert!(format!("{error:#}").contains("/nowhere/at/all"), "{error:#}");
    }
}
