//! Power loss under the real log on a real file system: whatever a disk may leave, every acknowledged record is there; and
//! with a disk that lies, this very test sees the loss.
//!
//! `DPLAB_IMAGES` says how many images there are to be, `DPLAB_SEED` repeats a run.
#![forbid(unsafe_code)]

mod common;
#[path = "../../wal/tests/support/mod.rs"]
mod support;

#[path = "common/log.rs"]
mod log;

use dataplane_faulty_disk::{Command, FaultyDisk, Side};
use dataplane_wal::Engine;
use log::{Run, disk_for, judge_cut, run};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use support::{Workload, count, seed};

/// About so many images are made of one workload.
const IMAGES_PER_WORKLOAD: u64 = 18;
const STEPS_COUNT: usize = 50;
const PAYLOAD_BYTES_MAX: usize = 300;

/// Runs a workload on a fresh file system and leaves it unmounted: images are made from the stream alone.
fn recorded(disk: &mut FaultyDisk, engine: Engine, workload: &Workload, lies: bool) -> Run {
    disk.tell(Command::Restore).unwrap();
    let mounted = disk.mount(Side::Disk, "").unwrap();
    if lies {
        disk.tell(Command::IgnoreFlushes).unwrap();
    }
    let run = run(disk, mounted.path(), engine, workload);
    assert!(
        run.failure.is_none(),
        "the disk refuses nothing: {:?}",
        run.failure.map(|(error, _)| error)
    );
    mounted.unmount().unwrap();
    disk.heal().unwrap();
    run
}

/// A third of the images: the engines are judged side by side.
fn lose_power(engine: Engine) {
    let Some(mut disk) = disk_for(engine) else { return };
    let images_wanted = count("DPLAB_IMAGES", 105).div_ceil(Engine::ALL.len() as u64);
    let mut rng = Pcg64Mcg::seed_from_u64(seed());
    let (mut images_count, mut workloads_count, mut torn_count) = (0, 0, 0);
    while images_count < images_wanted {
        let workload_seed = rng.random();
        let workload = Workload::random(workload_seed, STEPS_COUNT, PAYLOAD_BYTES_MAX);
        let run = recorded(&mut disk, engine, &workload, false);
        workloads_count += 1;
        for _ in 0..IMAGES_PER_WORKLOAD.min(images_wanted - images_count) {
            let events_count = rng.random_range(run.moments[0].events_count..=run.last().events_count);
            let keep_percent = [0, 100, rng.random_range(1..100)][rng.random_range(0..3)];
            let cut = (events_count, rng.random(), keep_percent);
            match judge_cut(&mut disk, engine, &workload, &run, cut) {
                Ok(cut) => torn_count += u64::from(cut.kept_count < cut.doubtful_count),
                Err(error) => panic!("workload {workload_seed}, engine {}: {error}", engine.name()),
            }
            images_count += 1;
        }
    }
    println!(
        "{}: {images_count} images of {workloads_count} workloads, {torn_count} of them without all that had been \
         written; no acknowledged record lost",
        engine.name()
    );
    assert!(
        torn_count > images_count / 20,
        "power was lost where nothing was in doubt: that shows nothing"
    );
}

#[test]
fn no_power_loss_loses_what_was_acknowledged_by_file() {
    lose_power(Engine::File);
}

#[test]
fn nor_by_dsync() {
    lose_power(Engine::Dsync);
}

#[test]
fn nor_by_uring() {
    lose_power(Engine::Uring);
}

/// The tests above would be worth nothing if they could not see a loss.
#[test]
fn a_disk_that_ignores_flushes_is_seen_to_lose_records() {
    let workload = Workload::random(1, STEPS_COUNT, PAYLOAD_BYTES_MAX);
    for engine in Engine::ALL {
        let Some(mut disk) = disk_for(engine) else { continue };
        let run = recorded(&mut disk, engine, &workload, true);
        let end = run.last();
        assert!(end.acked_count > 0, "{end:?}");
        let lost = judge_cut(&mut disk, engine, &workload, &run, (end.events_count, 1, 0));
        let error = lost.expect_err("nothing was ever flushed, and the log is whole");
        println!("{}: {}", engine.name(), error.lines().next().unwrap_or_default());
        // If all of it happened to reach the medium, nothing is missing: it is the lie that loses, not the harness.
        let kept = judge_cut(&mut disk, engine, &workload, &run, (end.events_count, 1, 100));
        assert!(kept.is_ok(), "{}: {kept:?}", engine.name());
    }
}
