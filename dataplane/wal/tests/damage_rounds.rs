//! Rounds of work and damage: the log is opened, written, damaged anywhere, and what is found is what the next round begins with.
//! Sectors stay damaged, or can be read again; whole commits are lost, and those that the power interrupted are torn.
//!
//! Whatever happens, as long as one page of the file of the state can be read each time: what was acknowledged is there, or it is told
//! that it may not be; nothing that was replaced comes back; the state is the newest. `DPLAB_RUNS` says how many logs live through it,
//! `DPLAB_SEED` repeats a run.
#![forbid(unsafe_code)]

mod support;

use std::collections::BTreeMap;

use dataplane_wal::{
    Wal,
    format::{FIRST_SECTOR, Place, SECTOR_BYTES, Sector},
    testing::Disk,
};
use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use rand_pcg::Pcg64Mcg;
use support::{CLUSTER, Contents, Step, Workload, contents, count, open, seed};

const ROUNDS_COUNT: usize = 5;
const STATE: &str = "state";
const PAGE_SECTORS: usize = 8;
/// More than the commit that is torn ever has.
const TORN_SECTORS_MAX: usize = 12;

/// Where a sector is: its file, and its number in it.
type At = (String, usize);

/// What the disk does beside losing sectors.
#[derive(Clone, Copy, Debug)]
struct Habits {
    /// A damaged sector can be read again in the next round, so often in 100.
    comes_back: u32,
    /// Pages of the file of the state that may be damaged in one round: of two.
    pages_max: usize,
}

fn segments(disk: &Disk) -> Vec<(String, Vec<u8>)> {
    let names = (0..64).map(|file_index| format!("segment-{file_index:04}"));
    names
        .filter_map(|name| Some((name.clone(), disk.file(&name)?)))
        .collect()
}

fn sector(disk: &Disk, (file, index): &At) -> Vec<u8> {
    disk.file(file).expect("it is there")[index * SECTOR_BYTES..][..SECTOR_BYTES].to_vec()
}

fn put(disk: &Disk, (file, index): &At, bytes: &[u8]) {
    disk.tamper(file, |all| {
        all[index * SECTOR_BYTES..][..SECTOR_BYTES].copy_from_slice(bytes)
    });
}

/// Sectors that hold something, in groups that were written as one commit, as far as their numbers tell.
fn written(disk: &Disk) -> Vec<Vec<At>> {
    let mut groups: Vec<Vec<At>> = Vec::new();
    for (name, bytes) in segments(disk) {
        let (sectors, _) = bytes.as_chunks::<SECTOR_BYTES>();
        let mut last = [0; 8];
        for (index, sector) in sectors.iter().enumerate().skip(FIRST_SECTOR) {
            let lsn = &sector[4..12];
            if *lsn == [0; 8] {
                continue;
            }
            match groups.last_mut() {
                Some(group) if *lsn == last => group.push((name.clone(), index)),
                _ => groups.push(vec![(name.clone(), index)]),
            }
            last.copy_from_slice(lsn);
        }
    }
    groups
}

/// What is damaged: how it reads, and what stands there in truth.
#[derive(Default)]
struct Rotten(BTreeMap<At, (Vec<u8>, Vec<u8>)>);

impl Rotten {
    fn hit(&mut self, disk: &Disk, at: &At, rng: &mut Pcg64Mcg) {
        if self.0.contains_key(at) {
            return;
        }
        let whole = sector(disk, at);
        let mut damaged = whole.clone();
        match rng.random_ratio(1, 2) {
            true => damaged[rng.random_range(0..SECTOR_BYTES)] ^= 1 << rng.random_range(0..8),
            // As a read error looks.
            false => damaged.fill(0xff),
        }
        put(disk, at, &damaged);
        self.0.insert(at.clone(), (damaged, whole));
    }

    /// What has been written anew is as good as any; some of the rest can be read again.
    fn pass(&mut self, disk: &Disk, comes_back: u32, rng: &mut Pcg64Mcg) {
        self.0.retain(|at, (damaged, whole)| {
            if sector(disk, at) != *damaged {
                return false;
            }
            let stays = !rng.random_ratio(comes_back, 100);
            if !stays {
                put(disk, at, whole);
            }
            stays
        });
    }

    /// One round's damage: single sectors, whole commits, pages.
    fn strike(&mut self, disk: &Disk, pages_max: usize, rng: &mut Pcg64Mcg) {
        let groups = written(disk);
        for _ in 0..rng.random_range(1..4) {
            let group = groups.choose(rng).expect("something has been written");
            match rng.random_ratio(1, 3) {
                true => group.iter().for_each(|at| self.hit(disk, at, rng)),
                false => self.hit(disk, group.choose(rng).expect("no group is empty"), rng),
            }
        }
        // The last commits are what nothing behind them vouches for.
        if rng.random_ratio(1, 3) {
            let count = rng.random_range(1..3).min(groups.len());
            groups[groups.len() - count..]
                .iter()
                .flatten()
                .for_each(|at| self.hit(disk, at, rng));
        }
        if rng.random_ratio(1, 50) {
            let (name, _) = segments(disk).choose(rng).cloned().expect("there is a segment");
            self.hit(disk, &(name, 0), rng);
        }
        let mut pages = [0, PAGE_SECTORS];
        if rng.random_ratio(1, 2) {
            pages.reverse();
        }
        for page in &pages[..rng.random_range(0..=pages_max)] {
            self.hit(disk, &(STATE.to_owned(), *page), rng);
        }
    }
}

fn end_of(contents: &Contents) -> u64 {
    let begin = contents.snapshot.as_ref().map_or(0, |&(end, ..)| end);
    begin + contents.entries.len() as u64
}

/// Work that is acknowledged. It says what the log then holds, and up to where it is known to be damaged.
fn work(wal: &mut Wal, before: &Contents, rng: &mut Pcg64Mcg) -> (Contents, Option<(u64, u64, u64)>) {
    let mut workload = Workload::following(before, rng.random(), 25, 300);
    let whole = workload.after.last().expect("there is one").clone();
    // At least one commit.
    let (end, term) = (end_of(&whole), whole.entries.last().map_or(1, |entry| entry.1));
    let payload = vec![rng.random(); rng.random_range(0..400)];
    let mut last = whole;
    last.entries.push((end, term, payload.clone()));
    workload.steps.push(Step::Append(end, term, payload));
    workload.after.push(last);
    let mut known = before.damaged;
    for (step, after) in workload.steps.iter().zip(&workload.after[1..]) {
        step.apply(wal).unwrap();
        known = known.filter(|&(_, end, _)| end > end_of(after));
    }
    Step::Sync.apply(wal).unwrap();
    wal.wait().unwrap();
    (workload.after.pop().expect("there is one"), known)
}

/// Whether the next commit goes where the last one is: what is torn should not begin a segment, which takes more than one commit.
fn has_room(disk: &Disk) -> bool {
    let last = |(name, bytes): (String, Vec<u8>)| {
        let (sectors, _) = bytes.as_chunks::<SECTOR_BYTES>();
        let place = |sector: usize| Place {
            cluster: CLUSTER,
            file_index: name[name.len() - 4..].parse().expect("its number"),
            sector: sector as u32,
        };
        let valid =
            (FIRST_SECTOR..sectors.len()).filter_map(|index| match Sector::parse(&sectors[index], place(index)) {
                Sector::Valid(header) => Some((header.lsn, index + TORN_SECTORS_MAX < sectors.len())),
                _ => None,
            });
        valid.max()
    };
    let lasts = segments(disk).into_iter().filter_map(last);
    lasts.max().is_some_and(|(_, has_room)| has_room)
}

/// One more commit, which the power interrupts: some of its sectors are as before, and nobody was told of it. Says what the log would
/// hold with the first of its entries, the first two, and so on.
fn tear(disk: &Disk, wal: &mut Wal, whole: &Contents, rng: &mut Pcg64Mcg) -> Vec<Contents> {
    let mut model = whole.to_log();
    let mut after = Vec::new();
    let (files, state) = (segments(disk), disk.file(STATE));
    let begin = whole.snapshot.as_ref().map_or(0, |&(end, ..)| end);
    let first = rng.random_range(begin.max(end_of(whole).saturating_sub(3))..=end_of(whole));
    for slot in first..first + rng.random_range(1..4) {
        let step = Step::Append(slot, 1 << 20, vec![rng.random(); rng.random_range(0..700)]);
        step.apply(wal).unwrap();
        step.apply(&mut model).unwrap();
        after.push(contents(&mut model).unwrap());
    }
    Step::Sync.apply(wal).unwrap();
    wal.wait().unwrap();
    let mut torn = Vec::new();
    for (name, bytes) in segments(disk) {
        let Some((_, old)) = files.iter().find(|(other, _)| *other == name) else {
            let is_empty = bytes[FIRST_SECTOR * SECTOR_BYTES..].iter().all(|&byte| byte == 0);
            assert!(is_empty, "made ahead, and nothing more");
            continue;
        };
        for index in FIRST_SECTOR..bytes.len() / SECTOR_BYTES {
            let range = index * SECTOR_BYTES..(index + 1) * SECTOR_BYTES;
            if bytes[range.clone()] != old[range.clone()] {
                torn.push(((name.clone(), index), old[range].to_vec()));
            }
        }
    }
    let files = torn.iter().map(|((name, _), _)| name);
    if files.clone().min() != files.max() {
        // It has begun a segment after all, in steps that a power loss keeps in order: none of them was taken.
        torn.iter().for_each(|(at, old)| put(disk, at, old));
    }
    let missing = rng.random_range(0..torn.len().max(1));
    for (index, (at, old)) in torn.iter().enumerate() {
        if index == missing || rng.random_ratio(1, 2) {
            put(disk, at, old);
        }
    }
    if let Some(state) = state {
        disk.tamper(STATE, |bytes| *bytes = state);
    }
    after
}

fn rounds(seed: u64, habits: Habits) {
    let (mut opened_count, mut losses_count, mut refused_count) = (0, 0, 0);
    'runs: for run in 0..count("DPLAB_RUNS", 100) {
        // Each run by itself, so that it can be repeated alone: its seed, and DPLAB_RUNS=1.
        let seed = seed.wrapping_add(run);
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let disk = Disk::new(1);
        let mut rotten = Rotten::default();
        let mut before = Contents::default();
        let mut wal = open(disk.clone()).unwrap();
        for round in 0..ROUNDS_COUNT {
            let what = format!("DPLAB_SEED={seed}, {habits:?}, round {round}");
            let (whole, known) = work(&mut wal, &before, &mut rng);
            let torn = match rng.random_ratio(1, 3) && has_room(&disk) {
                true => tear(&disk, &mut wal, &whole, &mut rng),
                false => Vec::new(),
            };
            drop(wal);
            rotten.pass(&disk, habits.comes_back, &mut rng);
            rotten.strike(&disk, habits.pages_max, &mut rng);
            wal = match open(disk.clone()) {
                Ok(wal) => wal,
                Err(error) => {
                    assert!(habits.pages_max > 1, "{what}: {error}");
                    refused_count += 1;
                    continue 'runs;
                }
            };
            opened_count += 1;
            let found = contents(&mut wal).unwrap();
            let told = || format!("{what}: {:?}\n{}", found.damaged, wal.report());
            assert_eq!(found.state, whole.state, "{}", told());
            assert_eq!(found.snapshot, whole.snapshot, "{}", told());
            // Of a commit that nobody was told of, the beginning may be there.
            let is_torn_there = torn.iter().any(|after| after.entries == found.entries);
            assert!(is_torn_there || whole.entries.starts_with(&found.entries), "{}", told());
            let known = known.filter(|&(_, end, _)| !is_torn_there || end > end_of(&found));
            let known_end = known.map_or(0, |(_, end, _)| end);
            let missing_end = match !is_torn_there && found.entries.len() < whole.entries.len() {
                true => end_of(&whole).max(known_end),
                false => known_end,
            };
            let told_end = found.damaged.map_or(0, |(_, end, _)| end);
            assert!(told_end >= missing_end, "{missing_end} {}", told());
            losses_count += u64::from(missing_end > 0);
            before = found;
        }
    }
    println!("{opened_count} times opened, {losses_count} with losses, {refused_count} refused");
    assert!(losses_count > 0 || count("DPLAB_RUNS", 100) < 100);
}

#[test]
fn nothing_is_silently_lost_where_damage_stays() {
    let habits = Habits {
        comes_back: 0,
        pages_max: 1,
    };
    rounds(seed(), habits);
}

#[test]
fn nor_where_sectors_come_back() {
    let habits = Habits {
        comes_back: 40,
        pages_max: 1,
    };
    rounds(seed(), habits);
}

#[test]
fn nor_where_both_pages_of_the_state_may_be_lost() {
    let habits = Habits {
        comes_back: 40,
        pages_max: 2,
    };
    rounds(seed(), habits);
}
