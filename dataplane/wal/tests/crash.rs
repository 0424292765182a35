//! Power loss at every moment of a workload, with everything in every order and in pieces that a disk may leave.
//!
//! After each, the log must hold what it held after some step, and no earlier step than the last that was acknowledged.
//! `DPLAB_IMAGES` says how many images there are to be at least, `DPLAB_SEED` repeats a run.
#![forbid(unsafe_code)]

mod support;

use dataplane_waist::Log;
use dataplane_wal::testing::{Disk, Loss, Tear};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use support::{Contents, Step, Workload, contents, count, open, seed};

/// Up to so many pieces in doubt, every subset of them is tried; beyond it, a sample.
const EXHAUSTIVE_PIECES_MAX: usize = 5;
const SAMPLES: usize = 12;
/// About so many images are made of a workload that follows a first power loss.
const SECOND_IMAGES: usize = 60;

/// What is known at some moment.
#[derive(Clone, Copy, Debug)]
struct Moment {
    /// How many events the disk had seen.
    events_count: usize,
    /// How many steps had been begun, and how many are known to be durable.
    begun_count: usize,
    acked_count: usize,
}

/// Runs the workload; says for each change of what is known when it was.
fn run(disk: &Disk, workload: &Workload) -> Vec<Moment> {
    let mut moments = vec![Moment {
        events_count: disk.events_count(),
        begun_count: 0,
        acked_count: 0,
    }];
    let mut wal = open(disk.clone()).expect("the disk can be opened");
    let mut synced: Vec<(u64, usize)> = Vec::new();
    for (index, step) in workload.steps.iter().enumerate() {
        let acked_count = moments.last().expect("there is a first").acked_count;
        moments.push(Moment {
            events_count: disk.events_count(),
            begun_count: index + 1,
            acked_count,
        });
        step.apply(&mut wal).expect("the disk is well");
        let lsn_before = synced.last().map_or(0, |&(lsn, _)| lsn);
        let (last_lsn, _) = wal.commit_numbers();
        if matches!(step, Step::Sync) && last_lsn > lsn_before {
            synced.push((last_lsn, index + 1));
        }
        wal.durable().expect("the disk is well");
        let (_, durable_lsn) = wal.commit_numbers();
        let acked = synced.iter().rev().find(|&&(lsn, _)| lsn <= durable_lsn);
        moments.push(Moment {
            events_count: disk.events_count(),
            begun_count: index + 1,
            acked_count: acked.map_or(0, |&(_, steps)| steps),
        });
    }
    moments
}

fn check(image: &Disk, workload: &Workload, moment: Moment, what: &dyn Fn() -> String) -> Contents {
    let mut wal = match open(image.clone()) {
        Ok(wal) => wal,
        Err(error) => panic!("{}: {error}", what()),
    };
    let report = wal.report().clone();
    assert_eq!(report.damaged_slots, None, "{}: {report}", what());
    let found = contents(&mut wal).expect("it has just been read");
    let possible = moment.acked_count..=moment.begun_count;
    if !possible.clone().any(|steps| workload.after[steps] == found) {
        let brief = |contents: &Contents| {
            let entries: Vec<_> = contents
                .entries
                .iter()
                .map(|(slot, term, bytes)| (*slot, *term, bytes.len()))
                .collect();
            let snapshot = contents
                .snapshot
                .as_ref()
                .map(|(end, term, bytes)| (*end, *term, bytes.len()));
            format!("state {:?} snapshot {snapshot:?} entries {entries:?}", contents.state)
        };
        let acked = brief(&workload.after[moment.acked_count]);
        let elsewhere = workload.after.iter().position(|after| *after == found);
        panic!(
            "{}: {moment:?}\nfound (as after step {elsewhere:?}): {}\nacknowledged: {acked}\nreport: {report}",
            what(),
            brief(&found)
        );
    }
    // What was found is promised from now on: it must be there when it is opened again, and can be appended to.
    drop(wal);
    let mut wal = open(image.clone()).unwrap_or_else(|error| panic!("{}, opened again: {error}", what()));
    assert_eq!(
        contents(&mut wal).expect("it is there"),
        found,
        "{}, opened again",
        what()
    );
    found
}

/// Loses power all through a workload, and after some of the losses all through another one. Says how often.
fn crash(what: &str, disk: &Disk, workload: &Workload, rng: &mut Pcg64Mcg, images_max: usize) -> usize {
    let first_event = disk.events_count();
    let moments = run(disk, workload);
    let mut images_count = 0;
    let events_count_all = disk.events_count() - first_event;
    // Every prefix of the events if there is room for it, otherwise every few.
    let stride = (events_count_all * (SAMPLES + 2) * 2 / images_max).max(1);
    let offset = rng.random_range(0..stride);
    for events_count in (first_event + offset..=disk.events_count()).step_by(stride) {
        // What was known before this event, and what had been begun when it came.
        let known = moments.iter().rfind(|moment| moment.events_count <= events_count);
        let known = known.expect("the first moment is before all events");
        let begun = moments
            .iter()
            .find(|moment| moment.events_count >= events_count)
            .unwrap_or(known);
        let moment = Moment {
            begun_count: begun.begun_count.max(known.begun_count),
            ..*known
        };
        for tear in [Tear::Sectors, Tear::Pages] {
            let loss = Loss { events_count, tear };
            for subset in subsets(disk.doubtful_count(loss), rng) {
                let image = disk.image(loss, &mut |piece| subset[piece]);
                let what = || format!("{what}, {loss:?}, kept {subset:?}");
                let found = check(&image, workload, moment, &what);
                images_count += 1;
                // The checks have opened the image, and may have written.
                if images_max > SECOND_IMAGES && rng.random_ratio(1, 40) {
                    let second = Workload::following(&found, rng.random(), 20, 300);
                    images_count += crash(&format!("{}; then", what()), &image, &second, rng, SECOND_IMAGES);
                }
            }
        }
    }
    images_count
}

/// Which of so many pieces in doubt reach the medium.
fn subsets(pieces_count: usize, rng: &mut Pcg64Mcg) -> Vec<Vec<bool>> {
    if pieces_count <= EXHAUSTIVE_PIECES_MAX {
        let all = 0..1u32 << pieces_count;
        return all
            .map(|bits| (0..pieces_count).map(|piece| bits >> piece & 1 == 1).collect())
            .collect();
    }
    let mut subsets = vec![vec![false; pieces_count], vec![true; pieces_count]];
    for _ in 0..SAMPLES {
        let kept = rng.random_range(0.0..1.0);
        subsets.push((0..pieces_count).map(|_| rng.random_bool(kept)).collect());
    }
    subsets
}

fn crash_many(depth: usize, align_bytes: usize) {
    let images_wanted = count("DPLAB_IMAGES", 1000) as usize;
    let mut rng = Pcg64Mcg::seed_from_u64(seed());
    let mut images_count = 0;
    let mut workloads_count = 0;
    while images_count < images_wanted {
        let seed = rng.random();
        let what = format!("workload {seed}, depth {depth}, align {align_bytes}");
        let disk = Disk::new(depth).align(align_bytes);
        images_count += crash(
            &what,
            &disk,
            &Workload::random(seed, 60, 300),
            &mut rng,
            images_wanted.max(400),
        );
        workloads_count += 1;
    }
    println!(
        "{images_count} images of {workloads_count} workloads; every subset of up to {EXHAUSTIVE_PIECES_MAX} pieces in \
         doubt, {SAMPLES} sampled beyond"
    );
}

#[test]
fn no_power_loss_loses_what_was_acknowledged() {
    crash_many(1, 512);
}

#[test]
fn nor_with_several_commits_under_way() {
    crash_many(4, 512);
}

#[test]
fn nor_on_a_device_of_pages() {
    crash_many(4, 4096);
}
