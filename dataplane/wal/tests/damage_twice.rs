//! More than one thing goes wrong: several damaged commits, a torn end behind damage, damage in what was written behind damage.
//! What is lost is told, however often the log is opened and goes on; what is not lost is kept.
#![forbid(unsafe_code)]

mod support;

use dataplane_waist::{Log, Slot, Term};
use dataplane_wal::{
    format::{FIRST_SECTOR, Place, SECTOR_BYTES, Sector},
    testing::Disk,
};
use support::{CLUSTER, contents, open};

const FIRST_FILE: &str = "segment-0000";

/// Where a commit stands.
#[derive(Clone, Debug)]
struct Commit {
    lsn: u64,
    file_index: u32,
    first_sector: usize,
    sectors_count: usize,
}

/// The commits in a file whose first sector can be read, in the order of their places.
fn commits(disk: &Disk, file_index: u32) -> Vec<Commit> {
    let Some(bytes) = disk.file(&format!("segment-{file_index:04}")) else {
        return Vec::new();
    };
    let (sectors, _) = bytes.as_chunks::<SECTOR_BYTES>();
    let mut commits = Vec::new();
    for (sector, bytes) in sectors.iter().enumerate().skip(FIRST_SECTOR) {
        let place = Place {
            cluster: CLUSTER,
            file_index,
            sector: sector as u32,
        };
        if let Sector::Valid(header) = Sector::parse(bytes, place)
            && header.index == 0
        {
            commits.push(Commit {
                lsn: header.lsn,
                file_index,
                first_sector: sector,
                sectors_count: usize::from(header.count),
            });
        }
    }
    commits
}

/// A flipped bit in a commit's sector.
fn damage(disk: &Disk, commit: &Commit, index: usize) {
    let at_bytes = (commit.first_sector + index) * SECTOR_BYTES;
    let name = format!("segment-{:04}", commit.file_index);
    disk.tamper(&name, |bytes| bytes[at_bytes + 300] ^= 0x10);
}

fn damage_all(disk: &Disk, commit: &Commit) {
    (0..commit.sectors_count).for_each(|index| damage(disk, commit, index));
}

/// The power went when the commit's first `kept_count` sectors were written.
fn tear(disk: &Disk, commit: &Commit, kept_count: usize) {
    let from = (commit.first_sector + kept_count) * SECTOR_BYTES;
    let to = (commit.first_sector + commit.sectors_count) * SECTOR_BYTES;
    disk.tamper(FIRST_FILE, |bytes| bytes[from..to].fill(0));
}

fn append(log: &mut dyn Log, slots: std::ops::Range<u64>, term: u64, byte: u8) {
    for slot in slots {
        log.append(Slot(slot), Term(term), &[byte; 200]).unwrap();
    }
    log.sync().unwrap();
}

/// Ten commits of three entries, two sectors each, and the place of each.
fn ten_commits() -> (Disk, Vec<Commit>) {
    let disk = Disk::new(1);
    let mut wal = open(disk.clone()).unwrap();
    for first in (0..30).step_by(3) {
        append(&mut wal, first..first + 3, 2, first as u8);
    }
    drop(wal);
    // The first commit is the segment's own.
    let commits = commits(&disk, 0).split_off(1);
    assert!(commits.len() == 10 && commits.iter().all(|commit| commit.sectors_count == 2));
    (disk, commits)
}

#[test]
fn what_stands_before_two_damages_and_a_torn_end_stays_when_the_log_goes_on() {
    let (disk, commits) = ten_commits();
    damage(&disk, &commits[5], 1);
    damage(&disk, &commits[8], 0);
    tear(&disk, &commits[9], 1);
    let mut wal = open(disk.clone()).unwrap();
    let mut found = contents(&mut wal).unwrap();
    let (slot, damaged_end, _) = found.damaged.expect("an entry is damaged");
    assert!((15..18).contains(&slot) && damaged_end == 27, "{:?}", found.damaged);
    wal.append(Slot(slot), Term(3), b"after").unwrap();
    wal.sync().unwrap();
    found.entries.push((slot, 3, b"after".to_vec()));
    found.damaged = Some((slot + 1, 27, 2));
    drop(wal);
    for _ in 0..2 {
        let mut wal = open(disk.clone()).unwrap();
        assert_eq!(contents(&mut wal).unwrap(), found, "{}", wal.report());
    }
}

/// The torn commit has said that the damaged one before it overwrote slots. What the log then went on with is damaged too.
#[test]
fn entries_that_were_given_up_do_not_come_back() {
    let (disk, _) = ten_commits();
    let mut wal = open(disk.clone()).unwrap();
    append(&mut wal, 20..23, 3, 100);
    append(&mut wal, 23..26, 3, 101);
    drop(wal);
    let all = commits(&disk, 0);
    let [.., overwriting, last] = &all[..] else {
        panic!("twelve commits")
    };
    damage_all(&disk, overwriting);
    tear(&disk, last, 1);
    let mut wal = open(disk.clone()).unwrap();
    let found = contents(&mut wal).unwrap();
    let end = found.entries.len() as u64;
    // The witness of the overwriting commit tells the end that was acknowledged, and the torn one was not.
    assert!(end <= 20 && found.damaged == Some((end, 23, 3)), "{:?}", found.damaged);
    append(&mut wal, end..25, 4, 102);
    append(&mut wal, 25..28, 4, 103);
    drop(wal);
    let is_new = |commit: &&Commit| commit.lsn > last.lsn;
    let new: Vec<Commit> = commits(&disk, 0).iter().filter(is_new).cloned().collect();
    damage_all(&disk, &new[0]);
    let mut wal = open(disk).unwrap();
    let again = contents(&mut wal).unwrap();
    let stale = again.entries.iter().filter(|entry| entry.0 >= end && entry.1 != 4);
    assert_eq!(stale.count(), 0, "{}", wal.report());
    assert_eq!(again.damaged.map(|(_, end, _)| end), Some(28), "{}", wal.report());
}

#[test]
fn damage_is_told_when_the_power_goes_in_the_first_commit_behind_it() {
    for torn_first in [false, true] {
        let (disk, commits_before) = ten_commits();
        damage(&disk, &commits_before[8], 0);
        match torn_first {
            false => damage(&disk, &commits_before[9], 0),
            true => tear(&disk, &commits_before[9], 1),
        }
        let mut wal = open(disk.clone()).unwrap();
        let found = contents(&mut wal).unwrap();
        let slot = found.entries.len() as u64;
        let damaged = found.damaged.expect("an entry is damaged");
        append(&mut wal, slot..slot + 5, 3, 99);
        drop(wal);
        let last_lsn = commits_before[9].lsn;
        let torn = commits(&disk, 0).into_iter().find(|commit| commit.lsn > last_lsn);
        let torn = torn.expect("it has been written");
        assert!(torn.sectors_count > 1);
        tear(&disk, &torn, 1);
        let mut wal = open(disk).unwrap();
        let again = contents(&mut wal).unwrap();
        assert_eq!(again.entries, found.entries, "{}", wal.report());
        assert_eq!(again.damaged, Some(damaged), "{}", wal.report());
    }
}

#[test]
fn damage_is_told_when_the_first_commit_behind_it_is_damaged_too() {
    let (disk, commits_before) = ten_commits();
    damage(&disk, &commits_before[4], 0);
    let mut wal = open(disk.clone()).unwrap();
    let found = contents(&mut wal).unwrap();
    let slot = wal.end().0;
    append(&mut wal, slot..slot + 3, 3, 98);
    append(&mut wal, slot + 3..slot + 6, 3, 99);
    drop(wal);
    let first = commits(&disk, 0)
        .into_iter()
        .find(|commit| commit.lsn > commits_before[9].lsn);
    damage_all(&disk, &first.expect("it has been written"));
    let mut wal = open(disk).unwrap();
    let again = contents(&mut wal).unwrap();
    assert!(found.entries.starts_with(&again.entries), "{}", wal.report());
    let told = again.damaged.map(|(slot, end, _)| (slot, end));
    assert_eq!(told, Some((again.entries.len() as u64, 30)), "{}", wal.report());
}

#[test]
fn all_of_several_damaged_commits_at_the_end_are_told() {
    let disk = Disk::new(1);
    let mut wal = open(disk.clone()).unwrap();
    append(&mut wal, 0..2, 1, 1);
    append(&mut wal, 2..5, 1, 2);
    for slot in 5..100 {
        wal.append(Slot(slot), Term(1), b"").unwrap();
    }
    wal.sync().unwrap();
    drop(wal);
    let all = commits(&disk, 0);
    damage(&disk, &all[2], 0);
    damage(&disk, &all[3], 0);
    let mut wal = open(disk.clone()).unwrap();
    let found = contents(&mut wal).unwrap();
    assert_eq!(found.entries.len(), 2);
    assert!(found.damaged.is_some_and(|(_, end, _)| end >= 100), "{}", wal.report());
    let findings = wal.report().findings.iter();
    let places: Vec<usize> = findings
        .map(|finding| finding.at_bytes as usize / SECTOR_BYTES)
        .collect();
    assert_eq!(places, [all[2].first_sector, all[3].first_sector], "{}", wal.report());
}
