//! A log behind a thread of its own: what it says is durable survives a power loss at that moment, it goes on while the disk
//! does not, and its errors reach the owner.
#![forbid(unsafe_code)]

mod support;

use std::{
    fs::File,
    io::{self, Read},
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use dataplane_waist::{Log, News, Slot, Term};
use dataplane_wal::{
    OwnHand, Storage, ThreadedWal, Wal,
    testing::{Disk, Fault, Faulty, Loss, Tear},
};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use support::{Contents, Step, Workload, contents, count, open, seed};

/// The end of every wait for something that must come.
const PATIENCE: Duration = Duration::from_secs(20);

fn threaded(storage: impl Storage + 'static) -> ThreadedWal {
    ThreadedWal::new(open(storage).expect("it can be opened")).expect("nothing is under way")
}

/// Both hands: every batch up to this many bytes is the owner's, however slow the disk was a moment ago.
fn by_own_hand(storage: impl Storage + 'static, batch_bytes_max: usize) -> ThreadedWal {
    let hand = OwnHand {
        batch_bytes_max,
        flush_max: Duration::from_secs(3600),
        batches_after_slow: 0,
        batches_after_long: 1,
    };
    let wal = open(storage).expect("it can be opened");
    ThreadedWal::with_own_hand(wal, hand).expect("nothing is under way")
}

fn append(log: &mut ThreadedWal, payload: &[u8]) {
    let slot = log.end();
    log.append(slot, Term(1), payload).expect("the disk is well");
    log.sync().expect("the disk is well");
}

/// Runs `what` while no commit gets through to the disk: it waits for the disk's lock.
fn while_held<T>(disk: &Disk, what: impl FnOnce(&mpsc::Sender<()>) -> T) -> T {
    let files = disk.clone().list().expect("memory can be listed");
    let name = files
        .into_iter()
        .map(|(name, _)| name)
        .next()
        .expect("the log has a file");
    let (hold, held) = mpsc::channel();
    let (release, released) = mpsc::channel();
    thread::scope(move |scope| {
        // Here, so that a test that fails lets the disk go.
        let release = release;
        scope.spawn(move || {
            disk.tamper(&name, |_| {
                hold.send(()).expect("somebody waits for it");
                let _ = released.recv();
            });
        });
        held.recv().expect("the disk can be held");
        let answer = what(&release);
        let _ = release.send(());
        answer
    })
}

#[test]
fn what_is_durable_survives_a_power_loss_at_that_moment() {
    what_is_durable_survives(threaded);
}

/// The workload's steps are shorter and longer than that, so that both write in turns.
#[test]
fn what_is_durable_survives_a_power_loss_whoever_wrote_it() {
    what_is_durable_survives(|disk| by_own_hand(disk, 100));
}

fn what_is_durable_survives(threaded: impl Fn(Disk) -> ThreadedWal) {
    let mut rng = Pcg64Mcg::seed_from_u64(seed());
    let mut early_count = 0;
    for _ in 0..count("DPLAB_RUNS", 20) {
        let workload = Workload::random(rng.random(), 60, 300);
        let disk = Disk::new(1 + rng.random_range(0..2));
        let mut log = threaded(disk.clone());
        let mut states = vec![None];
        for (index, step) in workload.steps.iter().enumerate() {
            step.apply(&mut log).expect("the disk is well");
            if let Step::State(state) = step {
                states.push(Some(state.clone()));
            }
            if rng.random_ratio(1, 3) {
                thread::yield_now();
            }
            let durable = log.durable().expect("the disk is well");
            early_count += usize::from(durable.end > Slot(0));
            let loss = Loss {
                events_count: disk.events_count(),
                tear: Tear::Sectors,
            };
            let ratio = rng.random_range(0.0..=1.0);
            let image = disk.image(loss, &mut |_| rng.random_bool(ratio));
            let found = contents(&mut open(image).expect("it can be opened")).expect("it can be read");
            let must = &workload.after[index + 1];
            check(&found, must, durable.end.0);
            let last_states = &states[durable.states_count as usize..];
            assert!(last_states.contains(&found.state), "a durable state is lost: {found:?}");
        }
        log.sync().expect("the disk is well");
        let durable = log.wait().expect("the disk is well");
        assert_eq!(durable.states_count, states.len() as u64 - 1);
        assert_eq!(durable.end, log.end(), "everything was synced");
        let stats = log.stats();
        assert!(stats.own_flushes_count <= stats.flushes_count, "{stats:?}");
        drop(log);
        let found = contents(&mut open(disk.copy()).expect("it can be opened")).expect("it can be read");
        assert_eq!(&found, workload.after.last().expect("there are steps"));
    }
    assert!(early_count > 0, "nothing was ever durable before the end");
}

/// Every slot below `durable_end` is as it was last appended, or behind a snapshot.
fn check(found: &Contents, must: &Contents, durable_end: u64) {
    let begin = found.snapshot.as_ref().map_or(0, |&(end, ..)| end);
    let end = begin + found.entries.len() as u64;
    assert!(
        end >= durable_end,
        "slots up to {durable_end} are durable, and {end} are there"
    );
    let must_begin = must.snapshot.as_ref().map_or(0, |&(end, ..)| end);
    for entry in must
        .entries
        .iter()
        .filter(|&&(slot, ..)| slot < durable_end && slot >= begin)
    {
        assert!(entry.0 >= must_begin);
        assert!(
            found.entries.contains(entry),
            "slot {} is not as it was acknowledged",
            entry.0
        );
    }
}

#[test]
fn the_owner_goes_on_while_the_disk_does_not_and_one_flush_takes_what_came() {
    let disk = Disk::new(1);
    let mut log = threaded(disk.clone());
    while_held(&disk, |_| {
        for number in 0..300u64 {
            append(&mut log, &number.to_be_bytes());
            assert_eq!(
                log.durable().expect("nothing failed").end,
                Slot(0),
                "the disk has taken nothing"
            );
        }
    });
    assert_eq!(log.wait().expect("the disk is well").end, Slot(300));
    let stats = log.stats();
    assert_eq!((stats.writes_count, stats.stalls_count), (300, 0));
    // One that began before all others, then what the queue holds, then the rest.
    assert!(stats.flushes_count <= 5, "{stats:?}");
}

#[test]
fn a_full_queue_makes_the_owner_wait_and_loses_nothing() {
    let begin = Instant::now();
    loop {
        let disk = Disk::new(1);
        let mut log = threaded(disk.clone());
        let (progress, is_done) = (AtomicU64::new(0), AtomicBool::new(false));
        while_held(&disk, |release| {
            thread::scope(|scope| {
                let release = release.clone();
                let (progress, is_done) = (&progress, &is_done);
                scope.spawn(move || {
                    // Until the owner stands still.
                    let mut last = u64::MAX;
                    while progress.load(Ordering::Relaxed) != last && !is_done.load(Ordering::Relaxed) {
                        last = progress.load(Ordering::Relaxed);
                        thread::sleep(Duration::from_millis(100));
                    }
                    let _ = release.send(());
                });
                for number in 0..600u64 {
                    append(&mut log, &[number as u8; 4000]);
                    progress.store(number, Ordering::Relaxed);
                }
                is_done.store(true, Ordering::Relaxed);
            });
        });
        assert_eq!(log.wait().expect("the disk is well").end, Slot(600));
        let stalls_count = log.stats().stalls_count;
        drop(log);
        let found = contents(&mut open(disk).expect("it can be opened")).expect("it can be read");
        let payloads: Vec<u8> = found.entries.iter().map(|(.., payload)| payload[0]).collect();
        let sent: Vec<u8> = (0..600u64).map(|number| number as u8).collect();
        assert_eq!(payloads, sent);
        if stalls_count > 0 {
            return;
        }
        // The owner had no CPU for a while and was taken for one that waits.
        assert!(begin.elapsed() < PATIENCE, "600 long entries never filled the queue");
    }
}

#[test]
fn whoever_rests_is_woken_when_there_is_news() {
    let disk = Disk::new(1);
    let mut log = threaded(disk.clone());
    let mut bell = while_held(&disk, |_| {
        append(&mut log, b"entry");
        let News::Rings(bell) = log.news() else {
            panic!("nothing can be over yet")
        };
        let mut bell = File::from(bell.try_clone_to_owned().expect("a descriptor is free"));
        let early = bell
            .read(&mut [0; 8])
            .expect_err("the bell rang before anything was over");
        assert_eq!(early.kind(), io::ErrorKind::WouldBlock);
        bell
    });
    let begin = Instant::now();
    while bell.read(&mut [0; 8]).is_err() {
        assert!(begin.elapsed() < PATIENCE, "the bell never rang");
        thread::yield_now();
    }
    assert_eq!(log.durable().expect("the disk is well").end, Slot(1));

    // News that came before anybody rested is told at once.
    append(&mut log, b"entry");
    let begin = Instant::now();
    while !matches!(log.news(), News::Come) {
        assert!(begin.elapsed() < PATIENCE, "there is never news");
        thread::yield_now();
    }
    assert_eq!(log.durable().expect("the disk is well").end, Slot(2));
}

#[test]
fn what_is_short_is_durable_at_once_and_what_is_long_is_the_threads() {
    let disk = Disk::new(1);
    let mut log = by_own_hand(disk.clone(), 100);
    for number in 1..=50 {
        append(&mut log, &[1; 100]);
        // Told at once, to whoever is about to rest, too, and once.
        assert!(matches!(log.news(), News::Come));
        assert_eq!(log.durable().expect("the disk is well").end, Slot(number));
        assert!(matches!(log.news(), News::Unannounced), "there is no thread yet");
    }
    assert_eq!(log.stats().own_flushes_count, 50);
    // The first is long and the second comes behind it.
    while_held(&disk, |_| {
        append(&mut log, &[2; 101]);
        append(&mut log, &[3; 1]);
        assert_eq!(log.durable().expect("the disk is well").end, Slot(50));
    });
    log.wait().expect("the disk is well");
    append(&mut log, &[4; 1]);
    assert_eq!(log.durable().expect("the disk is well").end, Slot(53));
    let stats = log.stats();
    assert_eq!((stats.own_flushes_count, stats.writes_count), (51, 53), "{stats:?}");
    drop(log);
    let found = contents(&mut open(disk).expect("it can be opened")).expect("it can be read");
    assert_eq!(found.entries.len(), 53);
}

#[test]
fn a_disk_that_was_slow_once_does_not_stop_its_owner_again() {
    const SLOW: Duration = Duration::from_millis(200);
    let disk = Disk::new(1);
    let wal = open(disk.clone()).expect("it can be opened");
    let hand = OwnHand {
        batch_bytes_max: 100,
        flush_max: SLOW / 2,
        batches_after_slow: 20,
        batches_after_long: 0,
    };
    let mut log = ThreadedWal::with_own_hand(wal, hand).expect("nothing is under way");
    append(&mut log, b"quick");
    while_held(&disk, |release| {
        thread::scope(|scope| {
            let release = release.clone();
            scope.spawn(move || {
                thread::sleep(SLOW);
                let _ = release.send(());
            });
            append(&mut log, b"slow");
        });
    });
    assert_eq!(
        log.durable().expect("the disk is well").end,
        Slot(2),
        "the owner waited"
    );
    while_held(&disk, |_| {
        for _ in 0..20 {
            append(&mut log, b"behind it");
            assert_eq!(log.durable().expect("the disk is well").end, Slot(2));
        }
    });
    assert_eq!(log.wait().expect("the disk is well").end, Slot(22));
    assert_eq!(log.stats().own_flushes_count, 2);
}

#[test]
fn a_failure_reaches_the_owner_and_stays() {
    a_failure_stays(threaded);
}

#[test]
fn a_failure_of_the_owners_own_hand_stays() {
    a_failure_stays(|disk| by_own_hand(disk, 100));
}

fn a_failure_stays(threaded: impl Fn(Faulty<Disk>) -> ThreadedWal) {
    let fault = Fault {
        at_call: 40,
        errno: libc::EIO,
        lasts: false,
    };
    let disk = Disk::new(1);
    let mut log = threaded(Faulty::new(disk.clone(), Some(fault)));
    let mut acknowledged = Slot(0);
    let failed = (0..1000u64).find_map(|number| {
        let slot = log.end();
        let outcome = log
            .append(slot, Term(1), &number.to_be_bytes())
            .and_then(|()| log.sync())
            .and_then(|()| log.wait());
        match outcome {
            Ok(durable) => {
                acknowledged = durable.end;
                None
            }
            Err(error) => Some(error),
        }
    });
    let error = failed.expect("the disk fails before a thousand entries");
    assert!(error.to_string().contains("never tried again"), "{error}");
    let end = log.end();
    for error in [
        log.append(end, Term(1), b"more").expect_err("it is closed"),
        log.set_state(b"more").expect_err("it is closed"),
        log.sync().expect_err("it is closed"),
        log.durable().expect_err("it is closed"),
        log.recover(&mut |_| panic!("it is closed")).expect_err("it is closed"),
    ] {
        assert!(error.to_string().contains("never tried again"), "{error}");
    }
    drop(log);
    let found = contents(&mut open(disk).expect("it can be opened")).expect("it can be read");
    assert!(found.entries.len() as u64 >= acknowledged.0);
}

#[test]
fn what_the_log_would_refuse_is_refused_at_once_and_harms_nothing() {
    let mut log = threaded(Disk::new(1));
    append(&mut log, b"entry");
    let gap = log.append(Slot(2), Term(1), b"gap").expect_err("slot 1 is missing");
    let long = log
        .append(Slot(1), Term(1), &vec![0; 64 << 10])
        .expect_err("longer than a segment");
    let state = log.set_state(&[0; 65]).expect_err("64 is the most");
    for error in [gap, long, state] {
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
    }
    append(&mut log, b"entry");
    assert_eq!(log.wait().expect("nothing failed").end, Slot(2));
}

#[test]
fn it_is_read_again_and_goes_on() {
    let disk = Disk::new(1);
    let mut log = threaded(disk.clone());
    for round in 1..4u64 {
        append(&mut log, b"entry");
        // Not synced: reading makes it durable, as it does without a thread.
        let slot = log.end();
        log.append(slot, Term(1), b"and one").expect("the disk is well");
        let found = contents(&mut log).expect("the disk is well");
        assert_eq!(found.entries.len() as u64, 2 * round);
        assert_eq!(log.durable().expect("the disk is well").end, Slot(2 * round));
    }
    let wal: Wal = log.into_wal().expect("the disk is well");
    assert_eq!(wal.end(), Slot(6));
}

#[test]
fn dropping_it_writes_what_was_synced() {
    let disk = Disk::new(1);
    let mut log = threaded(disk.clone());
    for _ in 0..100 {
        append(&mut log, b"entry");
    }
    drop(log);
    let loss = Loss {
        events_count: disk.events_count(),
        tear: Tear::Sectors,
    };
    let image = disk.image(loss, &mut |_| false);
    let found = contents(&mut open(image).expect("it can be opened")).expect("it can be read");
    assert_eq!(found.entries.len(), 100);
}

#[test]
fn a_warm_log_takes_no_memory_of_its_owner() {
    let mut log = threaded(Disk::new(1));
    let mut write = |times: u32| {
        for _ in 0..times {
            append(&mut log, &[7; 300]);
            log.wait().expect("the disk is well");
        }
    };
    write(100);
    let counted = allocation_counter::measure(|| write(200));
    assert_eq!(counted.count_total, 0, "{counted:?}");
}
