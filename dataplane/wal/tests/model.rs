//! The log on a real file system, through every engine that is here, is compared with the log in memory.
#![forbid(unsafe_code)]

mod support;

use std::sync::Arc;

use dataplane_waist::{Log, MemoryLog, Slot, Snapshot, Tail, Term};
use dataplane_wal::{Engine, FolderStorage, Wal, WalOptions, testing::Disk};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use support::{Workload, contents, open, options, seed};

/// A folder of this test's own.
fn folder(name: &str) -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("dplab-wal-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    folder
}

#[test]
fn every_engine_keeps_what_a_log_in_memory_keeps() {
    let seed = seed();
    for engine in Engine::ALL {
        let folder = folder(engine.name());
        std::fs::create_dir_all(&folder).unwrap();
        match dataplane_wal::probe(&folder, engine) {
            Ok(dataplane_waist::Support::Native) => {}
            other => {
                println!("skipped: {} in {}: {other:?}", engine.name(), folder.display());
                continue;
            }
        }
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let workload = Workload::random(seed, 1500, 400);
        let mut model = MemoryLog::new();
        let mut wal = open(FolderStorage::open(&folder, engine).unwrap()).unwrap();
        for step in &workload.steps {
            step.apply(&mut wal).unwrap();
            step.apply(&mut model).unwrap();
            if rng.random_ratio(1, 30) {
                wal.sync().unwrap();
                model.sync().unwrap();
                assert_eq!(wal.wait().unwrap().end, model.durable().unwrap().end);
                if rng.random_ratio(1, 2) {
                    drop(wal);
                    wal = open(FolderStorage::open(&folder, engine).unwrap()).unwrap();
                }
                assert_eq!(
                    contents(&mut wal).unwrap(),
                    contents(&mut model).unwrap(),
                    "{}",
                    engine.name()
                );
                assert_eq!(wal.report().findings, []);
            }
        }
        println!("{}: {:?}", engine.name(), wal.stats());
        drop(wal);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}

/// The first snapshot of a segment ends in the segment before, the second makes that one worthless: what the first kept
/// of it is then known to nobody, and need not be.
#[test]
fn two_snapshots_in_one_segment_keep_what_follows_both() {
    // One of these fills the first segment, so that the next one begins with a snapshot.
    for first_count in 20..30 {
        two_snapshots(first_count);
    }
}

fn two_snapshots(first_count: u64) {
    let disk = Disk::new(1);
    let (mut wal, mut model) = (open(disk.clone()).unwrap(), MemoryLog::new());
    let mut logs: [&mut dyn Log; 2] = [&mut wal, &mut model];
    for log in &mut logs {
        let mut next = 0;
        let mut append = |log: &mut &mut dyn Log, count: u64| {
            for slot in next..next + count {
                log.append(Slot(slot), Term(1), &[7; 700]).unwrap();
                log.sync().unwrap();
            }
            next += count;
        };
        let install = |log: &mut &mut dyn Log, end: u64| {
            let snapshot = Snapshot {
                end: Slot(end),
                last_term: Term(1),
                tail: Tail::Keep,
                bytes: Arc::from(&b"snapshot"[..]),
            };
            log.install(&snapshot).unwrap();
            log.sync().unwrap();
        };
        append(log, first_count);
        install(log, first_count - 5);
        append(log, 10);
        install(log, first_count + 5);
        append(log, 30);
    }
    assert!(disk.file("segment-0002").is_some(), "it has come to a third segment");
    drop(wal);
    let mut wal = open(disk).unwrap();
    assert_eq!(contents(&mut wal).unwrap(), contents(&mut model).unwrap());
}

#[test]
fn what_is_synced_behind_a_commit_shares_the_next_one() {
    let options = WalOptions {
        under_way_max: 1,
        ..options()
    };
    let mut wal = Wal::open(Box::new(Disk::new(4)), options).unwrap();
    let before_count = wal.commit_numbers().0;
    for slot in 0..20 {
        wal.append(Slot(slot), Term(1), b"entry").unwrap();
        wal.sync().unwrap();
        assert!(wal.is_syncing());
    }
    let mut ends = vec![wal.durable().unwrap().end];
    while wal.is_syncing() {
        ends.extend([wal.durable().unwrap().end]);
        assert!(ends.len() < 100, "it is never over: {ends:?}");
    }
    assert!(ends.is_sorted(), "{ends:?}");
    assert_eq!(ends.last(), Some(&Slot(20)));
    let commits_count = wal.commit_numbers().0 - before_count;
    // The disk says at every fourth look that something is over, and a sync looks up to twice.
    assert!(
        (2..=12).contains(&commits_count),
        "{commits_count} commits of 20 entries"
    );
    // Whoever waits gets everything that was synced.
    wal.append(Slot(20), Term(1), b"entry").unwrap();
    wal.sync().unwrap();
    wal.append(Slot(21), Term(1), b"entry").unwrap();
    wal.sync().unwrap();
    wal.append(Slot(22), Term(1), b"not synced").unwrap();
    assert_eq!(
        wal.wait().unwrap().end,
        Slot(23),
        "a commit has all that was appended before it"
    );
    assert!(!wal.is_syncing());
}

#[test]
fn a_ring_follows_its_log_to_another_thread() {
    let folder = folder("uring-moves");
    std::fs::create_dir_all(&folder).unwrap();
    match dataplane_wal::probe(&folder, Engine::Uring) {
        Ok(dataplane_waist::Support::Native) => {}
        other => return println!("skipped: uring in {}: {other:?}", folder.display()),
    }
    let mut wal = open(FolderStorage::open(&folder, Engine::Uring).unwrap()).unwrap();
    assert!(wal.depth() > 1, "several commits may be under way");
    for round in 0..3 {
        wal = std::thread::spawn(move || {
            for _ in 0..20 {
                let slot = wal.end();
                wal.append(slot, Term(round), &[round as u8; 600]).unwrap();
                wal.sync().unwrap();
            }
            assert_eq!(wal.wait().unwrap().end, wal.end());
            wal
        })
        .join()
        .unwrap();
    }
    // What is under way when the log is dropped is waited for.
    let slot = wal.end();
    wal.append(slot, Term(3), b"the last").unwrap();
    wal.sync().unwrap();
    drop(wal);
    let mut wal = open(FolderStorage::open(&folder, Engine::File).unwrap()).unwrap();
    let found = contents(&mut wal).unwrap();
    assert_eq!((found.entries.len(), found.damaged), (61, None));
    assert_eq!(found.entries[60].2, b"the last");
    std::fs::remove_dir_all(&folder).unwrap();
}
