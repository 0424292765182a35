//! A repair drops what it says and nothing else, remembers what is missing, and may be interrupted at any moment.
#![forbid(unsafe_code)]

mod support;

use dataplane_waist::{Log, Slot, Term};
use dataplane_wal::{
    FindingKind, inspect_storage, repair_storage,
    testing::{Disk, Loss, Tear},
};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use support::{CLUSTER, Contents, Workload, contents, count, open, seed};

fn bytes_of(disk: &Disk) -> Vec<(String, Option<Vec<u8>>)> {
    let files = dataplane_wal::Storage::list(&mut disk.clone()).unwrap();
    files
        .into_iter()
        .map(|(name, _)| (name.clone(), disk.file(&name)))
        .collect()
}

/// Ten commits of three entries each, terms 1 to 10.
fn thirty() -> Disk {
    let disk = Disk::new(1);
    let mut wal = open(disk.clone()).unwrap();
    wal.set_state(b"vote").unwrap();
    for slot in 0..30 {
        wal.append(Slot(slot), Term(1 + slot / 3), &[slot as u8; 200]).unwrap();
        if slot % 3 == 2 {
            wal.sync().unwrap();
        }
    }
    disk
}

fn find(disk: &Disk, byte: u8) -> usize {
    let bytes = disk.file("segment-0000").unwrap();
    bytes.windows(60).position(|window| window == [byte; 60]).unwrap()
}

#[test]
fn a_sound_log_and_a_torn_one_need_none() {
    let disk = thirty();
    let at_bytes = find(&disk, 29) / 512 * 512;
    for torn in [false, true] {
        if torn {
            disk.tamper("segment-0000", |bytes| bytes[at_bytes..at_bytes + 1024].fill(0));
        }
        let before = bytes_of(&disk);
        let repair = repair_storage(Box::new(disk.clone()), true).unwrap();
        assert!(repair.findings.is_empty() && !repair.is_done, "{repair:?}");
        assert_eq!(repair.to_string(), "nothing to repair\n");
        assert_eq!(bytes_of(&disk), before);
    }
}

#[test]
fn it_says_what_it_would_drop_and_then_drops_that() {
    let disk = thirty();
    let at_bytes = find(&disk, 13);
    disk.tamper("segment-0000", |bytes| bytes[at_bytes + 3] ^= 0x40);
    let before = bytes_of(&disk);
    let kept = contents(&mut open(disk.copy()).unwrap()).unwrap();
    let (slot, ..) = kept.damaged.unwrap();

    let would = repair_storage(Box::new(disk.clone()), false).unwrap();
    assert_eq!(bytes_of(&disk), before, "without a yes nothing is touched");
    assert!(!would.is_done);
    assert_eq!(would.files, ["segment-0000"]);
    assert_eq!(would.lost_slots, Some((slot, 30)));
    let damaged = &would.findings[0];
    let expected = (at_bytes + 3) / 512 * 512;
    assert_eq!(
        (damaged.file.as_str(), damaged.at_bytes),
        ("segment-0000", expected as u64)
    );
    // Those of the commits behind the damaged one, which begin with slot 15.
    assert_eq!((would.readable_count, would.readable_terms), (15, Some((6, 10))));
    let text = would.to_string();
    assert!(
        text.contains(&format!(
            "would drop slots {slot} to 29, of which 15 can be read (terms 6 to 10)"
        )),
        "{text}"
    );

    let done = repair_storage(Box::new(disk.clone()), true).unwrap();
    assert!(done.is_done);
    assert_eq!(
        dataplane_wal::Repair {
            is_done: false,
            ..done.clone()
        },
        would,
        "what was told is what was done"
    );
    assert!(
        done.to_string().contains(&format!("dropped slots {slot} to 29")),
        "{done}"
    );
    let inspection = inspect_storage(&mut disk.clone(), CLUSTER).unwrap();
    let report = inspection.outcome.unwrap();
    assert_eq!((report.findings, report.damaged_slots), (vec![], Some((slot, 30))));
    assert_eq!(disk.file("segment-0000"), None);
    // The same log as before, with its vote, and it goes on.
    let mut wal = open(disk.clone()).unwrap();
    assert_eq!(contents(&mut wal).unwrap(), kept);
    for slot in slot..30 {
        wal.append(Slot(slot), Term(11), b"sent by another replica").unwrap();
    }
    wal.sync().unwrap();
    drop(wal);
    let found = contents(&mut open(disk.clone()).unwrap()).unwrap();
    assert_eq!(
        (found.damaged, found.entries.len(), found.state),
        (None, 30, kept.state)
    );
    assert!(repair_storage(Box::new(disk), true).unwrap().findings.is_empty());
}

#[test]
fn a_lost_vote_cannot_be_repaired() {
    let disk = thirty();
    for name in ["segment-0000", "state"] {
        disk.tamper(name, |bytes| {
            let at: Vec<usize> = (0..bytes.len())
                .filter(|&at| bytes[at..].starts_with(b"vote"))
                .collect();
            at.into_iter().for_each(|at| bytes[at] ^= 1);
        });
    }
    let before = bytes_of(&disk);
    let error = repair_storage(Box::new(disk.clone()), true).unwrap_err().to_string();
    assert!(error.contains("may vote twice"), "{error}");
    assert_eq!(bytes_of(&disk), before);
    let error = repair_storage(Box::new(Disk::new(1)), true).unwrap_err().to_string();
    assert!(error.contains("holds no log"), "{error}");
}

/// A flipped bit in a random log in several segments.
fn damaged(seed: u64, depth: usize, rng: &mut Pcg64Mcg) -> (Disk, Contents) {
    let workload = Workload::random(seed, 150, 300);
    let disk = Disk::new(depth);
    let mut wal = open(disk.clone()).unwrap();
    for step in &workload.steps {
        step.apply(&mut wal).unwrap();
    }
    wal.sync().unwrap();
    wal.wait().unwrap();
    drop(wal);
    let names = dataplane_wal::Storage::list(&mut disk.clone()).unwrap();
    let names: Vec<String> = names
        .into_iter()
        .map(|(name, _)| name)
        .filter(|name| name.starts_with("segment"))
        .collect();
    for _ in 0..rng.random_range(1..=2) {
        let name = &names[rng.random_range(0..names.len())];
        disk.tamper(name, |bytes| {
            let used = bytes.iter().rposition(|&byte| byte != 0).unwrap_or(0);
            bytes[rng.random_range(0..=used)] ^= 1 << rng.random_range(0..8);
        });
    }
    (disk, workload.after.last().unwrap().clone())
}

/// The same as before, or more of what was written: once the damaged files do not count, what is behind them may.
fn holds(found: &Contents, kept: &Contents, whole: &Contents) -> bool {
    let is_more = found.entries.len() > kept.entries.len()
        && found.entries.starts_with(&kept.entries)
        && whole.entries.starts_with(&found.entries);
    let is_told = found.damaged.is_some() || found.entries.len() == whole.entries.len();
    found == kept || is_more && is_told && (&found.state, &found.snapshot) == (&kept.state, &kept.snapshot)
}

#[test]
fn a_power_loss_in_the_middle_of_it_loses_nothing_more() {
    let seed = seed();
    let mut rng = Pcg64Mcg::seed_from_u64(seed);
    let logs_count = count("DPLAB_LOGS", 8);
    let (mut images_count, mut repaired_count) = (0, 0);
    for index in 0..logs_count {
        let depth = if index % 2 == 0 { 1 } else { 4 };
        let (disk, whole) = damaged(rng.random(), depth, &mut rng);
        let disk = disk.copy();
        // Both flips may hit the two copies of a state.
        let Ok(mut wal) = open(disk.copy()) else { continue };
        let kept = contents(&mut wal).unwrap();
        let Ok(done) = repair_storage(Box::new(disk.clone()), true) else {
            panic!("seed {seed}, log {index}: it can be opened and not repaired");
        };
        if !done.is_done {
            continue;
        }
        repaired_count += 1;
        let after = inspect_storage(&mut disk.clone(), CLUSTER).unwrap().outcome.unwrap();
        assert_eq!(after.findings, [], "seed {seed}, log {index}: {done}");
        let events_count_all = disk.events_count();
        for events_count in (0..=events_count_all)
            .step_by((events_count_all / 40).max(1))
            .chain([events_count_all])
        {
            for tear in [Tear::Sectors, Tear::Pages] {
                for _ in 0..3 {
                    let keep_ratio = rng.random_range(0.0..=1.0);
                    let image = disk.image(Loss { events_count, tear }, &mut |_| rng.random_bool(keep_ratio));
                    let what =
                        format!("seed {seed}, log {index}, {events_count} of {events_count_all} events, {tear:?}");
                    let mut wal = open(image.clone()).unwrap_or_else(|error| panic!("{what}: {error}\n{done}"));
                    let report = wal.report().to_string();
                    let found = contents(&mut wal).unwrap();
                    assert!(
                        holds(&found, &kept, &whole),
                        "{what}: {:?} {} instead of {:?} {}\n{report}\n{done}",
                        found.damaged,
                        found.entries.len(),
                        kept.damaged,
                        kept.entries.len()
                    );
                    drop(wal);
                    repair_storage(Box::new(image.clone()), true).unwrap();
                    let report = inspect_storage(&mut image.clone(), CLUSTER).unwrap().outcome.unwrap();
                    assert!(
                        !report
                            .findings
                            .iter()
                            .any(|finding| finding.kind != FindingKind::TornEnd),
                        "{what}: {report}"
                    );
                    let found = contents(&mut open(image).unwrap()).unwrap();
                    assert!(holds(&found, &kept, &whole), "{what}, repaired again");
                    images_count += 1;
                }
            }
        }
    }
    println!("{images_count} power losses in {repaired_count} repairs");
    assert!(repaired_count * 2 > logs_count, "{repaired_count} of {logs_count}");
}

#[test]
fn a_damaged_copy_of_the_vote_is_written_anew() {
    let disk = thirty();
    disk.tamper("state", |bytes| bytes[20] ^= 1);
    let would = repair_storage(Box::new(disk.clone()), false).unwrap();
    let text = would.to_string();
    assert!(
        text.contains("would write the state's file anew") && text.contains("state at byte 0"),
        "{text}"
    );
    let done = repair_storage(Box::new(disk.clone()), true).unwrap();
    assert!(done.is_done && done.files.is_empty() && done.lost_slots.is_none());
    assert!(repair_storage(Box::new(disk), true).unwrap().findings.is_empty());
}
