//! Flipped bits and lost writes: seen, located, told; what is before the damage is kept, nothing is made up.
#![forbid(unsafe_code)]

mod support;

use dataplane_waist::{Log, Slot, Term};
use dataplane_wal::{format::RecordKind, inspect_storage, testing::Disk};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use support::{Contents, Workload, contents, count, open, seed};

/// A log of some KiB in several segments, cleanly closed, and what it holds.
fn a_log(seed: u64) -> (Disk, Contents) {
    let workload = Workload::random(seed, 150, 300);
    let disk = Disk::new(1);
    let mut wal = open(disk.clone()).unwrap();
    for step in &workload.steps {
        step.apply(&mut wal).unwrap();
    }
    wal.sync().unwrap();
    wal.wait().unwrap();
    (disk, workload.after.last().unwrap().clone())
}

/// Whether `found` is a true part of `whole`, and says what is missing.
fn judge(found: &Contents, whole: &Contents) -> Result<(), String> {
    if found.state != whole.state {
        return Err(format!("state {:?} instead of {:?}", found.state, whole.state));
    }
    if found.snapshot != whole.snapshot {
        return Err("another snapshot".into());
    }
    if !whole.entries.starts_with(&found.entries) {
        return Err("entries that never were".into());
    }
    if found.entries.len() < whole.entries.len() {
        let first_missing = whole.entries[found.entries.len()].0;
        let end = whole.entries.last().unwrap().0 + 1;
        match found.damaged {
            Some((slot, damaged_end, _)) if slot == first_missing && damaged_end >= end => {}
            other => return Err(format!("{first_missing} to {end} are missing, and {other:?} is told")),
        }
    }
    Ok(())
}

#[test]
fn every_flipped_bit_is_seen_and_located() {
    let seed = seed();
    let mut rng = Pcg64Mcg::seed_from_u64(seed);
    let (disk, whole) = a_log(seed);
    let names = ["segment-0000", "segment-0001", "segment-0002", "segment-0003"];
    let names = names.into_iter().filter(|name| disk.file(name).is_some());
    // Each sector in use is hit so often, at random; 4096 hits every bit of every sector.
    let bits_per_sector = count("DPLAB_BITS", 24) as usize;
    let (mut flips_count, mut damaged_count) = (0, 0);
    for name in names {
        let bytes = disk.file(name).unwrap();
        let (sectors, _) = bytes.as_chunks::<512>();
        for (sector, content) in sectors.iter().enumerate() {
            let is_used = content.iter().any(|&byte| byte != 0);
            let bits: Vec<usize> = match bits_per_sector {
                4096.. => (0..4096).collect(),
                _ if is_used => (0..bits_per_sector).map(|_| rng.random_range(0..4096)).collect(),
                _ => vec![rng.random_range(0..4096)],
            };
            for bit in bits {
                let image = disk.copy();
                image.tamper(name, |bytes| bytes[sector * 512 + bit / 8] ^= 1 << (bit % 8));
                let what = format!("seed {seed}: {name}, sector {sector}, bit {bit}");
                let mut wal = open(image.clone()).unwrap_or_else(|error| panic!("{what}: {error}"));
                let report = wal.report().clone();
                let at_bytes = sector as u64 * 512;
                let at = report
                    .findings
                    .iter()
                    .map(|finding| (finding.file.as_str(), finding.at_bytes));
                assert_eq!(at.collect::<Vec<_>>(), [(name, at_bytes)], "{what}: {report}");
                let found = contents(&mut wal).unwrap();
                judge(&found, &whole).unwrap_or_else(|error| panic!("{what}: {error}\n{report}"));
                // And when it is opened again, after something has been written behind the damage.
                if rng.random_ratio(1, 4) {
                    wal.sync().unwrap();
                    drop(wal);
                    let again = contents(&mut open(image).unwrap()).unwrap();
                    let brief = |contents: &Contents| (contents.damaged, contents.entries.len());
                    assert_eq!(brief(&again), brief(&found), "{what}, opened again\n{report}");
                    assert_eq!(again, found, "{what}, opened again");
                }
                flips_count += 1;
                damaged_count += usize::from(found.damaged.is_some());
            }
        }
    }
    println!("{flips_count} flipped bits, none silent; {damaged_count} hit entries that count");
    assert!(damaged_count > 0, "the workload leaves entries in the segments");
}

/// Ten commits of three entries each.
fn thirty() -> (Disk, Contents) {
    let disk = Disk::new(1);
    let mut wal = open(disk.clone()).unwrap();
    wal.set_state(b"vote").unwrap();
    for slot in 0..30 {
        wal.append(Slot(slot), Term(2), &[slot as u8; 200]).unwrap();
        if slot % 3 == 2 {
            wal.sync().unwrap();
        }
    }
    let whole = contents(&mut wal).unwrap();
    (disk, whole)
}

/// Where the record with these 200 bytes begins.
fn find(disk: &Disk, byte: u8) -> usize {
    let bytes = disk.file("segment-0000").unwrap();
    bytes.windows(60).position(|window| window == [byte; 60]).unwrap()
}

#[test]
fn damage_is_remembered_until_the_log_is_as_long_again() {
    let (disk, whole) = thirty();
    let at_bytes = find(&disk, 13);
    disk.tamper("segment-0000", |bytes| bytes[at_bytes + 3] ^= 0x40);
    let mut wal = open(disk.clone()).unwrap();
    let found = contents(&mut wal).unwrap();
    let (slot, end, last_term) = found.damaged.expect("an entry is damaged");
    assert_eq!((end, last_term), (30, 2));
    assert!((12..=13).contains(&slot), "{slot}");
    assert_eq!(found.entries, whole.entries[..slot as usize]);
    assert!(
        wal.report().to_string().contains("must come from the other replicas"),
        "{}",
        wal.report()
    );
    // A state, and some of the entries: the rest is still known to be missing.
    wal.set_state(b"vote 2").unwrap();
    wal.sync().unwrap();
    drop(wal);
    let mut wal = open(disk.clone()).unwrap();
    assert_eq!(contents(&mut wal).unwrap().damaged, Some((slot, 30, 2)));
    for slot in slot..20 {
        wal.append(Slot(slot), Term(2), &[slot as u8; 200]).unwrap();
    }
    wal.sync().unwrap();
    drop(wal);
    let mut wal = open(disk.clone()).unwrap();
    let found = contents(&mut wal).unwrap();
    assert_eq!(found.damaged, Some((20, 30, 2)));
    assert_eq!(found.state.as_deref(), Some(&b"vote 2"[..]));
    for slot in 20..30 {
        wal.append(Slot(slot), Term(2), &[slot as u8; 200]).unwrap();
    }
    wal.sync().unwrap();
    drop(wal);
    let mut wal = open(disk).unwrap();
    let found = contents(&mut wal).unwrap();
    assert_eq!((found.damaged, found.entries), (None, whole.entries));
}

#[test]
fn a_write_that_the_device_lost_is_damage_and_no_torn_end() {
    let (disk, _) = thirty();
    let at_bytes = find(&disk, 13) / 512 * 512;
    disk.tamper("segment-0000", |bytes| bytes[at_bytes - 512..at_bytes + 1024].fill(0));
    let mut wal = open(disk).unwrap();
    let found = contents(&mut wal).unwrap();
    assert_eq!(found.damaged.map(|(_, end, _)| end), Some(30), "{}", wal.report());
    assert!(!wal.report().is_torn());
}

#[test]
fn a_commit_that_was_not_finished_is_a_torn_end() {
    let (disk, whole) = thirty();
    let at_bytes = find(&disk, 29) / 512 * 512;
    disk.tamper("segment-0000", |bytes| bytes[at_bytes..at_bytes + 1024].fill(0));
    let mut wal = open(disk).unwrap();
    let found = contents(&mut wal).unwrap();
    assert_eq!(found.damaged, None);
    assert_eq!(found.entries, whole.entries[..27]);
    assert!(wal.report().is_torn(), "{}", wal.report());
}

#[test]
fn a_lost_state_is_no_state_to_go_on_with() {
    let disk = Disk::new(1);
    let mut wal = open(disk.clone()).unwrap();
    wal.set_state(b"the vote").unwrap();
    wal.sync().unwrap();
    wal.append(Slot(0), Term(1), b"entry").unwrap();
    wal.sync().unwrap();
    drop(wal);
    let state_places: Vec<usize> = {
        let bytes = disk.file("segment-0000").unwrap();
        (0..bytes.len() - 8)
            .filter(|&at| bytes[at..].starts_with(b"the vote"))
            .collect()
    };
    assert_eq!(state_places.len(), 2, "a state has a copy");
    disk.tamper("segment-0000", |bytes| bytes[state_places[0]] ^= 1);
    let mut wal = open(disk.clone()).unwrap();
    assert_eq!(contents(&mut wal).unwrap().state.as_deref(), Some(&b"the vote"[..]));
    drop(wal);
    disk.tamper("segment-0000", |bytes| bytes[state_places[1]] ^= 1);
    // The file of the state still has it; without that, the commits behind tell that it is lost.
    let mut wal = open(disk.copy()).unwrap();
    assert_eq!(contents(&mut wal).unwrap().state.as_deref(), Some(&b"the vote"[..]));
    disk.tamper("state", |bytes| bytes.fill(0));
    let error = open(disk).unwrap_err().to_string();
    assert!(error.contains("may vote twice"), "{error}");
}

#[test]
fn an_inspection_lists_every_record_and_names_the_damage() {
    let (disk, whole) = thirty();
    let inspection = inspect_storage(&mut disk.clone(), support::CLUSTER).unwrap();
    let entries = inspection
        .items
        .iter()
        .filter(|item| item.kind == Some(RecordKind::Append));
    let slots: Vec<u64> = entries.map(|item| item.slot).collect();
    assert_eq!(slots, whole.entries.iter().map(|&(slot, ..)| slot).collect::<Vec<_>>());
    let at_bytes = find(&disk, 13);
    disk.tamper("segment-0000", |bytes| bytes[at_bytes + 3] ^= 0x40);
    let inspection = inspect_storage(&mut disk.clone(), support::CLUSTER).unwrap();
    let text = inspection.to_string();
    assert!(text.contains("not whole") && text.contains("is damaged"), "{text}");
    assert!(text.contains("must come from the other replicas"), "{text}");
}
