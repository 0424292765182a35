//! The real log on a disk that says no: an error at every I/O of a workload, a full file system, a full device, one that the
//! kernel has made read-only. The log stops at once and for good, and what was acknowledged is there when it is opened anew.
//!
//! `DPLAB_IO_STRIDE` says that only every so many I/Os fails once (default 1: each), `DPLAB_SEED` repeats a run.
#![forbid(unsafe_code)]

mod common;
#[path = "../../wal/tests/support/mod.rs"]
mod support;

#[path = "common/log.rs"]
mod log;

use std::io;

use dataplane_faulty_disk::{Command, Fault, FaultyDisk, IoKind, Mounted, Side};
use dataplane_waist::{Log, Slot, Term};
use dataplane_wal::{Engine, Wal};
use log::{Run, disk_for, judge, judge_cut, open, run};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use support::{Workload, count, seed};

const STEPS_COUNT: usize = 16;
const PAYLOAD_BYTES_MAX: usize = 300;
/// No run has more I/Os; a loop over them must end.
const IOS_MAX: u64 = 10_000;

fn fresh(disk: &mut FaultyDisk, options: &str) -> Mounted {
    disk.tell(Command::Restore).unwrap();
    disk.mount(Side::Disk, options).unwrap()
}

/// Whatever is asked of it from now on, the log says what failed first.
fn is_poisoned(wal: &mut Wal) -> bool {
    let end = wal.end();
    let refusals = [
        wal.append(end, Term(99), b"late").err(),
        wal.sync().err(),
        wal.wait().err(),
        wal.set_state(b"late").err(),
    ];
    let says_so = |error: &io::Error| error.to_string().contains("the log is closed");
    refusals.iter().all(|refusal| refusal.as_ref().is_some_and(says_so))
}

/// After a failure: the log is closed; what a power loss right now would leave is judged, and what a clean end leaves.
fn judge_after_failure(
    disk: &mut FaultyDisk,
    mounted: Mounted,
    engine: Engine,
    workload: &Workload,
    mut run: Run,
    (seed, keep_percent): (u64, u8),
) -> Result<(), String> {
    if let Some((error, Some(wal))) = &mut run.failure {
        assert!(is_poisoned(wal), "the log goes on after: {error}");
    }
    let last = run.last();
    judge_cut(disk, engine, workload, &run, (last.events_count, seed, keep_percent))?;
    disk.heal().unwrap();
    // Closes the log's files.
    drop(run);
    mounted.unmount().unwrap();
    let mounted = disk.mount(Side::Disk, "").unwrap();
    judge(mounted.path(), engine, workload, last).map_err(|error| format!("after a clean end: {error}"))?;
    mounted.unmount().unwrap();
    Ok(())
}

/// `errno` at each I/O in turn: that one alone, or all from there on.
fn refuse_each(engine: Engine, errno: i32) {
    let Some(mut disk) = disk_for(engine) else { return };
    let mut rng = Pcg64Mcg::seed_from_u64(seed());
    let stride = count("DPLAB_IO_STRIDE", 1) as usize;
    let workload = Workload::random(rng.random(), STEPS_COUNT, PAYLOAD_BYTES_MAX);
    let (mut runs_count, mut stopped_count) = (0, 0);
    for at_index in (0..IOS_MAX).step_by(stride) {
        let mounted = fresh(&mut disk, "");
        let fault = Fault {
            kind: None,
            at_index,
            errno,
            lasts: rng.random_ratio(1, 3),
        };
        disk.fail(fault).unwrap();
        let run = run(&mut disk, mounted.path(), engine, &workload);
        let (_, failed_count) = disk.fault_counts().unwrap();
        let stopped = run.failure.is_some();
        let cut = (rng.random(), rng.random_range(0..=100));
        judge_after_failure(&mut disk, mounted, engine, &workload, run, cut)
            .unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        if failed_count == 0 {
            assert!(!stopped, "the log stopped where the disk had refused nothing");
            println!(
                "{}: {runs_count} I/Os refused, the log stopped at {stopped_count} of them",
                engine.name()
            );
            // Not each is noticed: a read ahead, or the write of what a journal has already.
            assert!(stopped_count > runs_count / 2, "most refusals were not noticed");
            return;
        }
        runs_count += 1;
        stopped_count += u32::from(stopped);
    }
    panic!("the workload does not end");
}

#[test]
fn an_error_at_any_io_loses_nothing_by_file() {
    refuse_each(Engine::File, libc::EIO);
}

#[test]
fn nor_by_dsync() {
    refuse_each(Engine::Dsync, libc::EIO);
}

#[test]
fn nor_by_uring() {
    refuse_each(Engine::Uring, libc::EIO);
}

#[test]
fn a_device_without_room_at_any_io_loses_nothing_by_dsync() {
    refuse_each(Engine::Dsync, libc::ENOSPC);
}

/// Appends and syncs until it is refused, at most `entries_max` times. The last entry that is durable, and the refusal.
fn append_until_refused(wal: &mut Wal, entries_max: u64) -> (Slot, Option<io::Error>) {
    let mut durable_end = wal.durable().unwrap().end;
    for _ in 0..entries_max {
        let end = wal.end();
        let appended = wal
            .append(end, Term(1), &[7; 400])
            .and_then(|()| wal.sync())
            .and_then(|()| wal.wait());
        match appended {
            Ok(durable) => durable_end = durable.end,
            Err(error) => return (durable_end, Some(error)),
        }
    }
    (durable_end, None)
}

/// The log opened anew holds at least what was acknowledged, and goes on.
fn goes_on(place: &std::path::Path, engine: Engine, durable_end: Slot) {
    let mut wal = open(place, engine).unwrap();
    assert!(wal.end() >= durable_end, "{:?} of {durable_end:?}", wal.end());
    assert_eq!(wal.report().damaged_slots, None);
    let (_, refusal) = append_until_refused(&mut wal, 3);
    assert!(refusal.is_none(), "{refusal:?}");
}

/// A second fdatasync would say that all is well (tests/kernel.rs), so there must be none.
#[test]
fn what_was_refused_is_not_tried_again() {
    for engine in Engine::ALL {
        let Some(mut disk) = disk_for(engine) else { continue };
        for kind in [IoKind::Write, IoKind::Flush] {
            let mounted = fresh(&mut disk, "");
            let mut wal = open(mounted.path(), engine).unwrap();
            let (before, _) = append_until_refused(&mut wal, 5);
            disk.fail(Fault {
                kind: Some(kind),
                at_index: 0,
                errno: libc::EIO,
                lasts: false,
            })
            .unwrap();
            let (durable_end, refusal) = append_until_refused(&mut wal, 5);
            assert_eq!(disk.fault_counts().unwrap().1, 1, "{kind:?} by {}", engine.name());
            assert!(
                refusal.is_some() && is_poisoned(&mut wal),
                "{kind:?} by {}",
                engine.name()
            );
            assert_eq!(durable_end, before, "{kind:?} by {}", engine.name());
            drop(wal);
            mounted.unmount().unwrap();
            let mounted = disk.mount(Side::Disk, "").unwrap();
            goes_on(mounted.path(), engine, durable_end);
            mounted.unmount().unwrap();
        }
    }
}

#[test]
fn a_full_file_system_stops_the_log_and_space_lets_it_go_on() {
    for engine in Engine::ALL {
        let Some(mut disk) = disk_for(engine) else { continue };
        let mounted = fresh(&mut disk, "");
        let mut wal = open(mounted.path(), engine).unwrap();
        let (before, refusal) = append_until_refused(&mut wal, 5);
        assert_eq!((before, refusal.is_none()), (Slot(5), true));
        let filler = mounted.path().join("filler");
        fill(&filler);
        let (durable_end, refusal) = append_until_refused(&mut wal, 1000);
        let error = refusal.expect("there is no room for a second segment");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error}");
        assert!(error.to_string().contains("free some space"), "{error}");
        assert!(
            durable_end > before,
            "what room there was has been used: {durable_end:?}"
        );
        assert!(is_poisoned(&mut wal));
        drop(wal);
        std::fs::remove_file(filler).unwrap();
        goes_on(mounted.path(), engine, durable_end);
    }
}

/// Takes all the room there is.
fn fill(filler: &std::path::Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(filler).unwrap();
    let mut piece = vec![1; 1 << 20];
    while piece.len() >= 512 {
        match file.write_all(&piece).and_then(|()| file.sync_all()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::StorageFull => piece.truncate(piece.len() / 2),
            Err(error) => panic!("{error}"),
        }
    }
}

/// A thin-provisioned volume runs out beneath a file system that believes it has room.
#[test]
fn a_device_without_room_stops_the_log() {
    for engine in Engine::ALL {
        let Some(mut disk) = disk_for(engine) else { continue };
        let mounted = fresh(&mut disk, "");
        let mut wal = open(mounted.path(), engine).unwrap();
        let (before, _) = append_until_refused(&mut wal, 5);
        disk.fail(Fault {
            kind: Some(IoKind::Write),
            at_index: 3,
            errno: libc::ENOSPC,
            lasts: true,
        })
        .unwrap();
        let (durable_end, refusal) = append_until_refused(&mut wal, 1000);
        let error = refusal.expect("the device is full");
        println!("{}: {error}", engine.name());
        assert!(durable_end > before, "three writes had room");
        assert!(is_poisoned(&mut wal));
        drop(wal);
        disk.heal().unwrap();
        mounted.unmount().unwrap();
        let mounted = disk.mount(Side::Disk, "").unwrap();
        goes_on(mounted.path(), engine, durable_end);
    }
}

#[test]
fn a_file_system_that_became_read_only_stops_the_log_and_says_so() {
    for engine in Engine::ALL {
        let Some(mut disk) = disk_for(engine) else { continue };
        let mounted = fresh(&mut disk, "errors=remount-ro");
        let mut wal = open(mounted.path(), engine).unwrap();
        let (before, _) = append_until_refused(&mut wal, 5);
        let trigger = format!("/sys/fs/ext4/{}/trigger_fs_error", mounted.device_name());
        if let Err(error) = std::fs::write(&trigger, "a test") {
            println!("skipped: {trigger} cannot be written ({error})");
            return;
        }
        let (durable_end, refusal) = append_until_refused(&mut wal, 1000);
        let error = refusal.expect("the file system is read-only");
        assert_eq!(error.kind(), io::ErrorKind::ReadOnlyFilesystem, "{error}");
        assert!(error.to_string().contains("mounted read-only"), "{error}");
        assert_eq!(durable_end, before);
        assert!(is_poisoned(&mut wal));
        drop(wal);
        let error = open(mounted.path(), engine).expect_err("still read-only").to_string();
        assert!(error.contains("mounted read-only"), "{error}");
        mounted.unmount().unwrap();
        let mounted = disk.mount(Side::Disk, "").unwrap();
        goes_on(mounted.path(), engine, durable_end);
    }
}
