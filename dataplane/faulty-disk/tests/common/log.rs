//! The real log on a faulty disk: a workload whose acknowledgements are noted beside the disk's own stream, and the judgement
//! of what is found afterwards.

use std::{io, path::Path};

use dataplane_faulty_disk::{Cut, FaultyDisk, Side};
use dataplane_waist::{Log, Support};
use dataplane_wal::{Engine, FolderStorage, Wal, WalError, probe};

use crate::support::{Contents, Workload, contents, options};

/// The log's folder in its file system.
pub const LOG_FOLDER: &str = "log";

/// What is known at some moment.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// How many writes and flushes the disk had seen.
    pub events_count: usize,
    /// How many steps had been begun, and how many are known to be durable.
    pub begun_count: usize,
    pub acked_count: usize,
}

/// A workload that ran to its end, or to the first error.
pub struct Run {
    pub moments: Vec<Moment>,
    /// The error and the log that gave it, if it got as far as being opened.
    pub failure: Option<(io::Error, Option<Wal>)>,
}

impl Run {
    pub fn last(&self) -> Moment {
        *self.moments.last().expect("there is a first")
    }

    /// What is known of an image that the power loss after so many events left.
    pub fn at(&self, events_count: usize) -> Moment {
        let known = self.moments.iter().rfind(|moment| moment.events_count <= events_count);
        let known = known.expect("the first moment is before all events");
        let begun = self.moments.iter().find(|moment| moment.events_count >= events_count);
        Moment {
            begun_count: begun.map_or(known.begun_count, |begun| begun.begun_count.max(known.begun_count)),
            ..*known
        }
    }
}

pub fn open(place: &Path, engine: Engine) -> Result<Wal, WalError> {
    Wal::open(
        Box::new(FolderStorage::open(&place.join(LOG_FOLDER), engine)?),
        options(),
    )
}

/// A disk that `engine` works on; otherwise why not is printed.
pub fn disk_for(engine: Engine) -> Option<FaultyDisk> {
    let disk = crate::common::disk()?;
    let mounted = disk.mount(Side::Disk, "").unwrap();
    let support = probe(mounted.path(), engine).unwrap_or_else(|error| panic!("{error}"));
    mounted.unmount().unwrap();
    if let Support::Absent { why } = support {
        println!("skipped: the engine `{}`: {why}", engine.name());
        return None;
    }
    Some(disk)
}

/// Runs the workload on a new log.
pub fn run(disk: &mut FaultyDisk, place: &Path, engine: Engine, workload: &Workload) -> Run {
    let mut run = Run {
        moments: vec![Moment {
            events_count: disk.events_count().unwrap(),
            begun_count: 0,
            acked_count: 0,
        }],
        failure: None,
    };
    let mut wal = match open(place, engine) {
        Ok(wal) => wal,
        Err(error) => {
            run.failure = Some((error.into(), None));
            return run;
        }
    };
    let mut synced: Vec<(u64, usize)> = Vec::new();
    for (index, step) in workload.steps.iter().enumerate() {
        let acked_count = run.last().acked_count;
        run.moments.push(Moment {
            events_count: disk.events_count().unwrap(),
            begun_count: index + 1,
            acked_count,
        });
        let is_last = index + 1 == workload.steps.len();
        let outcome = step.apply(&mut wal).and_then(|()| {
            let lsn_before = synced.last().map_or(0, |&(lsn, _)| lsn);
            let (last_lsn, _) = wal.commit_numbers();
            if matches!(step, crate::support::Step::Sync) && last_lsn > lsn_before {
                synced.push((last_lsn, index + 1));
            }
            if is_last { wal.wait() } else { wal.durable() }
        });
        let (_, durable_lsn) = wal.commit_numbers();
        let acked = synced.iter().rev().find(|&&(lsn, _)| lsn <= durable_lsn);
        run.moments.push(Moment {
            events_count: disk.events_count().unwrap(),
            begun_count: index + 1,
            acked_count: acked.map_or(0, |&(_, steps)| steps),
        });
        if let Err(error) = outcome {
            run.failure = Some((error, Some(wal)));
            return run;
        }
    }
    run
}

/// Whether the log in `place` holds what it held after some step, none before the last that was acknowledged; and still
/// does when it is opened once more.
pub fn judge(place: &Path, engine: Engine, workload: &Workload, moment: Moment) -> Result<(), String> {
    let mut wal = open(place, engine).map_err(|error| format!("{moment:?}: it cannot be opened: {error}"))?;
    let report = wal.report().clone();
    if report.damaged_slots.is_some() {
        return Err(format!("{moment:?}: damage is reported: {report}"));
    }
    let found = contents(&mut wal).map_err(|error| format!("{moment:?}: it cannot be read: {error}"))?;
    let mut possible = moment.acked_count..=moment.begun_count;
    if !possible.any(|steps| workload.after[steps] == found) {
        let elsewhere = workload.after.iter().position(|after| *after == found);
        return Err(format!(
            "{moment:?}: found what stood after step {elsewhere:?}: {}\nacknowledged: {}\nreport: {report}",
            brief(&found),
            brief(&workload.after[moment.acked_count])
        ));
    }
    drop(wal);
    let mut wal = open(place, engine).map_err(|error| format!("{moment:?}: it cannot be opened again: {error}"))?;
    match contents(&mut wal) {
        Ok(again) if again == found => Ok(()),
        Ok(again) => Err(format!("{moment:?}: opened again, it holds {}", brief(&again))),
        Err(error) => Err(format!("{moment:?}: opened again, it cannot be read: {error}")),
    }
}

fn brief(contents: &Contents) -> String {
    let snapshot = contents
        .snapshot
        .as_ref()
        .map(|(end, term, bytes)| (*end, *term, bytes.len()));
    let entries: Vec<_> = contents
        .entries
        .iter()
        .map(|(slot, term, bytes)| (*slot, *term, bytes.len()))
        .collect();
    format!("state {:?} snapshot {snapshot:?} entries {entries:?}", contents.state)
}

/// Cuts the power after `events_count` events, mounts what is left, judges the log in it, and the file system.
pub fn judge_cut(
    disk: &mut FaultyDisk,
    engine: Engine,
    workload: &Workload,
    run: &Run,
    cut: (usize, u64, u8),
) -> Result<Cut, String> {
    let (events_count, seed, keep_percent) = cut;
    let what = |error: &dyn std::fmt::Display| format!("cut {events_count} {seed} {keep_percent}: {error}");
    let cut = disk
        .cut(events_count, seed, keep_percent)
        .map_err(|error| what(&error))?;
    let image = disk.mount(Side::Image, "").map_err(|error| what(&error))?;
    judge(image.path(), engine, workload, run.at(events_count)).map_err(|error| what(&error))?;
    image.unmount().map_err(|error| what(&error))?;
    disk.check_file_system(Side::Image).map_err(|error| what(&error))?;
    Ok(cut)
}
