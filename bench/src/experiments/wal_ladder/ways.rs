//! Who writes, and how: our log through each engine, the device without a log, and fio.

use std::{
    collections::BTreeMap, fs::OpenOptions, os::unix::fs::OpenOptionsExt, path::Path, sync::atomic::AtomicBool,
    time::Duration,
};

use anyhow::bail;
use dataplane_wal::{
    Engine, Wal,
    blocks::{Access, BlockRing, Polling, RingOptions},
    format::{COMMIT_HEADER_BYTES, RECORD_HEADER_BYTES, SECTOR_BYTES, SECTOR_PAYLOAD_BYTES},
};
use nix::fcntl::OFlag;

use super::{APPEND, BLOCK_BYTES, READ, WRITE};
use crate::{
    disk::{
        Sampled,
        fio::{self, Fio},
        logs,
        raw::{Durably, Job, Offsets},
        sampled,
    },
    record::{Better, Metric},
};

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    pub(super) name: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Our log.
    Log(Engine),
    /// The device, by system calls.
    Append(Durably),
    /// The device, through a ring: one durable write at a time.
    AppendRing,
    /// Blocks, by system calls, a thread for each under way.
    Blocking,
    /// Blocks through one thread's ring.
    Ring { is_registered: bool, polling: Polling },
    /// fio, with these words.
    Fio(&'static [&'static str]),
}

const fn way(name: &'static str, kind: Kind) -> Way {
    Way { name, kind }
}

const fn ring(is_registered: bool, polling: Polling) -> Kind {
    Kind::Ring { is_registered, polling }
}

pub(super) const WAYS: &[Way] = &[
    way("wal-dsync", Kind::Log(Engine::Dsync)),
    way("wal-file", Kind::Log(Engine::File)),
    way("wal-uring", Kind::Log(Engine::Uring)),
    way("wal-uring-plain", Kind::Log(Engine::UringPlain)),
    way("pwrite-dsync", Kind::Append(Durably::Dsync)),
    way("pwrite-fdatasync", Kind::Append(Durably::Fdatasync)),
    way("uring-dsync", Kind::AppendRing),
    way(
        "fio-dsync",
        Kind::Fio(&["--rw=write", "--ioengine=psync", "--direct=1", "--sync=dsync"]),
    ),
    way(
        "fio-fdatasync",
        Kind::Fio(&["--rw=write", "--ioengine=psync", "--fdatasync=1"]),
    ),
    way("blocking-direct", Kind::Blocking),
    way("uring-direct", ring(true, Polling::Off)),
    way("uring-plain", ring(false, Polling::Off)),
    way("uring-sqpoll", ring(true, Polling::Submissions)),
    way("uring-iopoll", ring(true, Polling::Completions)),
    // fio's fastest settings over such a disk.
    way(
        "fio-uring",
        Kind::Fio(&[
            "--ioengine=io_uring",
            "--direct=1",
            "--norandommap",
            "--fixedbufs",
            "--registerfiles",
            "--nonvectored=1",
        ]),
    ),
];

pub(super) fn by_name(name: &str) -> Option<&'static Way> {
    WAYS.iter().find(|way| way.name == name)
}

impl Way {
    /// Does it do this kind of work?
    pub(super) fn does(&self, work: &str) -> bool {
        let appends = match self.kind {
            Kind::Log(_) | Kind::Append(_) | Kind::AppendRing => true,
            Kind::Blocking | Kind::Ring { .. } => false,
            Kind::Fio(words) => words.contains(&"--rw=write"),
        };
        appends == (work == APPEND)
    }

    pub(super) fn is_fio(&self) -> bool {
        matches!(self.kind, Kind::Fio(_))
    }

    pub(super) fn engine(&self) -> Option<Engine> {
        match self.kind {
            Kind::Log(engine) => Some(engine),
            _ => None,
        }
    }

    /// What it is, if it is not our log.
    pub(super) fn yardstick(&self) -> Option<&'static str> {
        match self.kind {
            Kind::Log(_) => None,
            Kind::Fio(_) => Some("another program over the same file; its histogram has steps of up to 1.6 %"),
            _ => Some("the device itself, without a log"),
        }
    }
}

/// What the log writes for one record of so many bytes, appended alone.
pub(super) fn commit_bytes(record_bytes: usize) -> usize {
    (COMMIT_HEADER_BYTES + RECORD_HEADER_BYTES + record_bytes).div_ceil(SECTOR_PAYLOAD_BYTES) * SECTOR_BYTES
}

/// Is it here?
///
/// # Errors
/// Why not.
pub(super) fn probe(way: &Way, file: &Path) -> Result<(), String> {
    match way.kind {
        Kind::Fio(_) => fio::version().map(drop),
        Kind::Ring { is_registered, polling } => probe_ring(file, is_registered, polling, Access::Read),
        Kind::AppendRing => probe_ring(file, true, Polling::Off, Access::WriteDurable),
        Kind::Append(Durably::Dsync) | Kind::Blocking => open_direct(file).map(drop),
        Kind::Append(Durably::Fdatasync) | Kind::Log(_) => Ok(()),
    }
}

fn open_direct(file: &Path) -> Result<std::fs::File, String> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(OFlag::O_DIRECT.bits());
    options
        .open(file)
        .map_err(|error| format!("this file system has no direct I/O ({error})"))
}

/// One block says it.
fn probe_ring(file: &Path, is_registered: bool, polling: Polling, access: Access) -> Result<(), String> {
    let options = RingOptions {
        block_bytes: BLOCK_BYTES,
        depth: 1,
        is_registered,
        polling,
    };
    let once = |file| {
        let mut ring = BlockRing::new(file, options)?;
        ring.start(0, access, 0)?;
        ring.wait()
    };
    once(open_direct(file)?).map(drop).map_err(|error| match polling {
        Polling::Completions => format!("the device has no queue to poll ({error}); NVMe has, with nvme.poll_queues"),
        _ => format!(
            "the kernel does not do this ({error}); `kernel.io_uring_disabled`, a seccomp filter or `ulimit -l` may forbid it"
        ),
    })
}

/// What came of a measurement.
pub(super) struct Measured {
    pub(super) sampled: Sampled,
    pub(super) facts: BTreeMap<String, String>,
    pub(super) metrics: BTreeMap<String, Metric>,
}

impl From<Sampled> for Measured {
    fn from(sampled: Sampled) -> Measured {
        Measured {
            sampled,
            facts: BTreeMap::new(),
            metrics: BTreeMap::new(),
        }
    }
}

/// Appends to our log.
pub(super) fn log(
    log: &mut Wal,
    record_bytes: usize,
    duration: Duration,
    stop: &AtomicBool,
) -> anyhow::Result<Measured> {
    logs::empty(log)?;
    let payload = vec![0x5a; record_bytes];
    let before = log.stats();
    let sampled = sampled::closed(duration, stop, || Ok(logs::append_durable(log, &payload)?))?;
    let after = log.stats();
    let count = |value: u64| Metric {
        value: value as f64,
        unit: "count".to_owned(),
        better: Better::Lower,
    };
    let metrics = BTreeMap::from([
        (
            "short_writes".to_owned(),
            count(after.short_writes_count - before.short_writes_count),
        ),
        ("punt_workers".to_owned(), count(after.punt_workers_count)),
    ]);
    Ok(Measured {
        metrics,
        ..Measured::from(sampled)
    })
}

/// Writes and reads without a log.
pub(super) fn device(way: &Way, job: &Job<'_>, work: &str, in_flight: usize, seed: u64) -> anyhow::Result<Measured> {
    let access = match work {
        READ => Access::Read,
        WRITE => Access::Write,
        _ => Access::WriteDurable,
    };
    let options = |is_registered, polling| RingOptions {
        block_bytes: job.block_bytes,
        depth: in_flight,
        is_registered,
        polling,
    };
    match way.kind {
        Kind::Log(_) => bail!("{} is a log", way.name),
        Kind::Append(durably) => Ok(job.append(durably)?.into()),
        Kind::AppendRing => Ok(job
            .ring(access, options(true, Polling::Off), Offsets::in_order())?
            .into()),
        Kind::Blocking => Ok(job.blocking(access, in_flight, seed)?.into()),
        Kind::Ring { is_registered, polling } => Ok(job
            .ring(access, options(is_registered, polling), Offsets::random(seed))?
            .into()),
        Kind::Fio(words) => {
            let depth = format!("--iodepth={in_flight}");
            let (seed, direction) = (format!("--randseed={seed}"), format!("--rw=rand{work}"));
            let mut all = words.to_vec();
            if work != APPEND {
                all.extend([depth.as_str(), &seed, &direction]);
            }
            let answer = Fio {
                place: job.file,
                file_bytes: job.file_bytes,
                jobs_count: 1,
                block_bytes: job.block_bytes,
                duration: job.duration,
                words: &all,
            }
            .run()?;
            let mut measured = Measured::from(answer.sampled);
            measured.facts.insert("command".to_owned(), answer.command);
            Ok(measured)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::wal_ladder::WAY;

    #[test]
    fn every_way_of_the_axis_is_one_and_does_one_kind_of_work() {
        for name in WAY.full {
            let way = by_name(name).expect("the axis names it");
            assert_ne!(way.does(APPEND), way.does(READ), "{name}");
            assert_eq!(way.does(READ), way.does(WRITE), "{name}");
        }
        assert_eq!(WAY.full.len(), WAYS.len());
    }

    #[test]
    fn a_commit_is_as_long_as_the_format_says() {
        assert_eq!([64, 256, 4096].map(commit_bytes), [512, 512, 4608]);
    }
}
