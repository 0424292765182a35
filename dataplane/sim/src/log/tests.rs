//! What crashes take and what they leave, as a table, and what was said to be durable against what was found.

use proptest::prelude::*;

use super::*;

/// A disk whose syncs take exactly 10 ns.
fn options() -> DiskOptions {
    DiskOptions {
        sync: Latency::fixed(SimTime::from_ns(10)),
        reorders: true,
    }
}

fn log(seed: u64) -> SimLog {
    SimLog::new(options(), seed, 0)
}

fn at(log: &mut SimLog, ns: u64) -> Durable {
    log.advance(SimTime::from_ns(ns));
    log.durable().expect("no error in this test")
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Contents {
    state: Option<Vec<u8>>,
    snapshot: Option<(u64, Vec<u8>)>,
    entries: Vec<(u64, Vec<u8>)>,
    damaged: Option<(u64, u64)>,
}

fn recovered(log: &mut SimLog) -> Contents {
    let mut contents = Contents::default();
    let end = log.recover(&mut |recovered| match recovered {
        Recovered::State(state) => contents.state = Some(state.to_vec()),
        Recovered::Snapshot { end, bytes, .. } => contents.snapshot = Some((end.0, bytes.to_vec())),
        Recovered::Entry { slot, payload, .. } => contents.entries.push((slot.0, payload.to_vec())),
        Recovered::Damaged { slot, end, .. } => contents.damaged = Some((slot.0, end.0)),
    });
    let begin = contents.snapshot.as_ref().map_or(0, |(end, _)| *end);
    for (index, (slot, _)) in contents.entries.iter().enumerate() {
        assert_eq!(*slot, begin + index as u64, "slots come in order, without a gap");
    }
    assert_eq!(
        end.expect("a disk that can be read").0,
        begin + contents.entries.len() as u64
    );
    contents
}

fn append(log: &mut SimLog, slot: u64) {
    log.append(Slot(slot), Term(1), &slot.to_be_bytes())
        .expect("the log's end");
}

/// How many entries survive, over many seeds: the least and the most.
fn survivors(crash: Crash, prepare: impl Fn(&mut SimLog)) -> (usize, usize) {
    let counts = (0..200).map(|seed| {
        let mut log = log(seed);
        prepare(&mut log);
        log.crash(crash);
        recovered(&mut log).entries.len()
    });
    counts.fold((usize::MAX, 0), |(min, max), count| (min.min(count), max.max(count)))
}

#[test]
fn what_a_crash_leaves() {
    // Four entries; two of them synced; the sync has ended at 10 ns.
    let two_synced = |log: &mut SimLog| {
        append(log, 0);
        append(log, 1);
        log.sync().expect("a good disk");
        append(log, 2);
        append(log, 3);
    };
    let then = |ns: u64| {
        move |log: &mut SimLog| {
            two_synced(log);
            log.advance(SimTime::from_ns(ns));
        }
    };
    let lying = |log: &mut SimLog| {
        log.faults_mut().lies = true;
        two_synced(log);
        assert_eq!(at(log, 10).end, Slot(2), "so it says");
    };
    let failed_sync = |log: &mut SimLog| {
        log.faults_mut().syncs_until_failure = Some(0);
        two_synced(log);
        log.advance(SimTime::from_ns(10));
        log.durable().expect_err("the sync fails");
    };
    let all_synced = |log: &mut SimLog| {
        two_synced(log);
        log.sync().expect("a good disk");
        at(log, 20);
    };
    // (what was done, how it crashed, the fewest and the most entries that survive)
    let table = [
        ("sync under way", Crash::Power, survivors(Crash::Power, then(9)), (0, 4)),
        (
            "sync under way",
            Crash::Process,
            survivors(Crash::Process, then(9)),
            (2, 4),
        ),
        ("sync ended", Crash::Power, survivors(Crash::Power, then(10)), (2, 4)),
        (
            "sync ended",
            Crash::Process,
            survivors(Crash::Process, then(10)),
            (2, 4),
        ),
        ("sync was a lie", Crash::Power, survivors(Crash::Power, lying), (0, 4)),
        (
            "sync was a lie",
            Crash::Process,
            survivors(Crash::Process, lying),
            (2, 4),
        ),
        (
            "sync failed",
            Crash::Process,
            survivors(Crash::Process, failed_sync),
            (0, 4),
        ),
        ("all synced", Crash::Power, survivors(Crash::Power, all_synced), (4, 4)),
    ];
    for (what, crash, found, expected) in table {
        assert_eq!(found, expected, "{what}, then {crash:?}");
    }
}

#[test]
fn a_sync_covers_what_was_written_before_it_and_those_that_wait_become_one() {
    let mut log = log(0);
    append(&mut log, 0);
    log.sync().expect("good");
    assert_eq!(log.next_at(), Some(SimTime::from_ns(10)));
    append(&mut log, 1);
    log.sync().expect("good");
    append(&mut log, 2);
    log.set_state(b"vote").expect("good");
    log.sync().expect("good");
    append(&mut log, 3);
    let durable = |end, states_count| Durable {
        end: Slot(end),
        states_count,
    };
    assert_eq!(at(&mut log, 9), durable(0, 0));
    assert_eq!(at(&mut log, 10), durable(1, 0));
    assert_eq!(at(&mut log, 19), durable(1, 0));
    assert_eq!(at(&mut log, 20), durable(3, 1), "the second and third sync are one");
    assert_eq!(log.next_at(), None);
    assert_eq!(at(&mut log, 1000), durable(3, 1), "nobody asked for the last");
}

#[test]
fn an_overwritten_slot_is_not_durable_until_its_own_sync() {
    let mut log = log(0);
    (0..3).for_each(|slot| append(&mut log, slot));
    log.sync().expect("good");
    log.append(Slot(1), Term(2), b"new").expect("an earlier slot");
    log.sync().expect("good");
    assert_eq!(at(&mut log, 10).end, Slot(1), "slot 1 as it was then is not slot 1");
    assert_eq!(at(&mut log, 20).end, Slot(2));
    log.crash(Crash::Power);
    let entries = recovered(&mut log).entries;
    assert_eq!(entries, [(0, 0u64.to_be_bytes().to_vec()), (1, b"new".to_vec())]);
}

#[test]
fn after_an_error_the_log_refuses_and_after_a_crash_it_wants_to_be_recovered() {
    let mut log = log(0);
    log.faults_mut().writes_until_failure = Some(1);
    append(&mut log, 0);
    log.append(Slot(1), Term(1), b"").expect_err("the second write fails");
    log.append(Slot(1), Term(1), b"")
        .expect_err("and so does all that follows");
    log.sync().expect_err("and so does all that follows");
    log.durable().expect_err("and so does all that follows");
    log.recover(&mut |_| ()).expect_err("and so does all that follows");
    log.crash(Crash::Process);
    let error = log.append(Slot(0), Term(1), b"").expect_err("not recovered");
    assert!(error.to_string().contains("call recover first"), "{error}");
    let end = recovered(&mut log).entries.len() as u64;
    append(&mut log, end);
}

#[test]
fn damage_is_told_until_it_has_been_replaced() {
    let mut log = log(0);
    log.set_state(b"term 1").expect("good");
    (0..5).for_each(|slot| append(&mut log, slot));
    log.sync().expect("good");
    at(&mut log, 10);
    log.crash(Crash::Power);
    log.faults_mut().damage = Some(7);
    let damaged = recovered(&mut log);
    // 7 modulo 5 entries.
    assert_eq!((damaged.entries.len(), damaged.damaged), (2, Some((2, 5))));
    assert_eq!(damaged.state.as_deref(), Some(&b"term 1"[..]));
    log.crash(Crash::Power);
    assert_eq!(recovered(&mut log), damaged, "it is still so");
    append(&mut log, 2);
    log.sync().expect("good");
    at(&mut log, 20);
    log.crash(Crash::Power);
    let mended = recovered(&mut log);
    assert_eq!((mended.entries.len(), mended.damaged), (3, None));
}

#[test]
fn a_reordering_disk_leaves_holes_that_recovery_cuts() {
    let mut cut_count = 0;
    for seed in 0..100 {
        let mut log = log(seed);
        (0..20).for_each(|slot| append(&mut log, slot));
        log.crash(Crash::Power);
        let kept_count = recovered(&mut log).entries.len() as u64;
        let stats = log.stats();
        assert_eq!(kept_count + stats.lost_writes_count, 20);
        cut_count += stats.cut_writes_count;
    }
    assert!(cut_count > 0);
}

/// One thing done to a log.
#[derive(Clone, Debug)]
enum Step {
    /// Back from the end by so many slots.
    Append(u64),
    State,
    /// From the begin on by so many slots, possibly beyond the end.
    Install(u64, bool),
    Sync,
    Wait(u64),
    Crash(Crash),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => prop_oneof![4 => Just(0u64), 1 => 0u64..4].prop_map(Step::Append),
        2 => Just(Step::State),
        1 => (0u64..6, any::<bool>()).prop_map(|(ahead, keeps)| Step::Install(ahead, keeps)),
        4 => Just(Step::Sync),
        4 => (0u64..15).prop_map(Step::Wait),
        1 => any::<bool>().prop_map(|power| Step::Crash(if power { Crash::Power } else { Crash::Process })),
    ];
    prop::collection::vec(step, 0..60)
}

/// What a log gave back that it had said it keeps, or a description of what it lost. The model is a list of all
/// versions that the log ever had since it was opened; what is found must be one of them, and not older than what was
/// told.
fn check(steps: &[Step], seed: u64, lies: bool) -> Result<(), String> {
    let mut log = log(seed);
    log.faults_mut().lies = lies;
    let mut now_ns = 0;
    let mut versions = vec![Contents::default()];
    // The oldest version that may be found.
    let mut told_version = 0;
    // For each sync: when it ends at the latest, and what it covers. Counted here, not by the log.
    let mut states_of_version = vec![0u64];
    for (index, step) in steps.iter().enumerate() {
        let mut next = versions.last().expect("one at least").clone();
        let mut states_count = *states_of_version.last().expect("one at least");
        let begin = next.snapshot.as_ref().map_or(0, |(end, _)| *end);
        let end = begin + next.entries.len() as u64;
        let tag = index.to_be_bytes().to_vec();
        let fails = |error: io::Error| format!("step {index}: {error}");
        match *step {
            Step::Append(back) => {
                let slot = end.saturating_sub(back).max(begin);
                log.append(Slot(slot), Term(1), &tag).map_err(fails)?;
                next.entries.truncate((slot - begin) as usize);
                next.entries.push((slot, tag));
            }
            Step::State => {
                log.set_state(&tag).map_err(fails)?;
                next.state = Some(tag);
                states_count += 1;
            }
            Step::Install(ahead, keeps) => {
                let at = begin + ahead;
                let snapshot = Snapshot {
                    end: Slot(at),
                    last_term: Term(1),
                    tail: if keeps { Tail::Keep } else { Tail::Drop },
                    bytes: tag.clone().into(),
                };
                log.install(&snapshot).map_err(fails)?;
                next.entries.retain(|(slot, _)| keeps && at <= end && *slot >= at);
                next.snapshot = Some((at, tag));
            }
            Step::Sync => log.sync().map_err(fails)?,
            Step::Wait(ns) => now_ns += ns,
            Step::Crash(crash) => {
                log.crash(crash);
                let found = recovered(&mut log);
                let matching = versions.iter().rposition(|version| *version == found);
                match matching {
                    Some(version) if version >= told_version => (),
                    Some(version) => return Err(format!("step {index}: version {version}, told {told_version}")),
                    None => return Err(format!("step {index}: {found:?} never was")),
                }
                versions = vec![found];
                states_of_version = vec![0];
                told_version = 0;
                continue;
            }
        }
        if !matches!(step, Step::Sync | Step::Wait(_)) {
            versions.push(next);
            states_of_version.push(states_count);
        }
        let durable = at(&mut log, now_ns);
        // The first version with so many states, and with every slot before `end` as it is now, may be found at worst.
        let last = versions.last().expect("one at least").clone();
        let is_enough = |version: &Contents, states_count: u64| {
            let before_end = |contents: &Contents| {
                let entries = contents.entries.iter().filter(|(slot, _)| *slot < durable.end.0);
                entries.cloned().collect::<Vec<_>>()
            };
            let covered = version.snapshot.as_ref().map_or(0, |(end, _)| *end);
            let stands = |(slot, payload): &(u64, Vec<u8>)| {
                *slot < covered || before_end(version).contains(&(*slot, payload.clone()))
            };
            let covers = covered + version.entries.len() as u64 >= durable.end.0;
            states_count >= durable.states_count && covers && before_end(&last).iter().all(stands)
        };
        let told = (0..versions.len()).find(|&index| is_enough(&versions[index], states_of_version[index]));
        let Some(told) = told else {
            return Err(format!("step {index}: {durable:?} was told of {last:?}"));
        };
        told_version = told_version.max(told);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    /// What was told to be durable is there after any crash, and what is found is a version that was.
    #[test]
    fn what_was_told_is_kept(steps in steps(), seed in any::<u64>()) {
        prop_assert_eq!(check(&steps, seed, false), Ok(()));
    }
}

#[test]
fn the_same_check_catches_a_disk_that_lies() {
    let steps = [
        Step::Append(0),
        Step::Append(0),
        Step::Sync,
        Step::Wait(10),
        Step::Crash(Crash::Power),
    ];
    assert!((0..50).any(|seed| check(&steps, seed, true).is_err()));
    assert!((0..50).all(|seed| check(&steps, seed, false).is_ok()));
}

/// A snapshot in place of a log that was another one: what was safe of that says nothing of the new one.
#[test]
fn a_log_that_a_snapshot_replaces_is_safe_from_its_own_sync_on() {
    let snapshot = |tail, end| Snapshot {
        end: Slot(end),
        last_term: Term(2),
        tail,
        bytes: b"state".as_slice().into(),
    };
    let two_appended = |synced_until_ns| {
        let mut log = log(1);
        append(&mut log, 0);
        append(&mut log, 1);
        log.sync().expect("a good disk");
        log.advance(SimTime::from_ns(synced_until_ns));
        log
    };
    // (the sync of two entries had ended, what is installed, what is durable of it when that sync has, and at the end)
    let table = [
        (true, snapshot(Tail::Drop, 2), 0, 2),
        (false, snapshot(Tail::Drop, 2), 0, 2),
        (true, snapshot(Tail::Drop, 1), 0, 1),
        (false, snapshot(Tail::Keep, 5), 0, 5),
        (true, snapshot(Tail::Keep, 1), 2, 2),
        (false, snapshot(Tail::Keep, 1), 2, 2),
    ];
    for (has_ended, installed, first_end, last_end) in table {
        let mut log = two_appended(if has_ended { 10 } else { 9 });
        if has_ended {
            assert_eq!(at(&mut log, 10).end, Slot(2));
        }
        log.install(&installed).expect("a good disk");
        log.sync().expect("a good disk");
        assert_eq!(at(&mut log, 10).end, Slot(first_end), "{has_ended} {installed:?}");
        assert_eq!(at(&mut log, 40).end, Slot(last_end), "{has_ended} {installed:?}");
    }
}
