//! The witness in the file of the state: what it tells of a log whose end is lost, when it has nothing to say any more, and what no
//! witness on the same disk can tell.
#![forbid(unsafe_code)]

mod support;

use std::{ops::Range, sync::Arc};

use dataplane_waist::{Log, Slot, Snapshot, Tail, Term};
use dataplane_wal::{FindingKind, testing::Disk};
use support::{Contents, contents, open};

const SEGMENT: &str = "segment-0000";
const STATE: &str = "state";

/// An entry of this length takes a commit of one sector.
fn append(log: &mut dyn Log, slots: Range<u64>, term: u64) {
    for slot in slots {
        log.append(Slot(slot), Term(term), &[slot as u8; 100]).unwrap();
    }
    log.sync().unwrap();
}

fn snapshot(end: u64) -> Snapshot {
    Snapshot {
        end: Slot(end),
        last_term: Term(4),
        tail: Tail::Drop,
        bytes: Arc::from(&[7; 300][..]),
    }
}

/// What `work` changes in the segment.
fn changed(disk: &Disk, work: impl FnOnce()) -> Range<usize> {
    let before = disk.file(SEGMENT).unwrap();
    work();
    let after = disk.file(SEGMENT).unwrap();
    let differs = |&at: &usize| before[at] != after[at];
    let first = (0..after.len()).find(differs).expect("something was written");
    let last = (0..after.len()).rfind(differs).expect("something was written");
    first / 512 * 512..(last + 1).next_multiple_of(512)
}

fn rot(disk: &Disk, range: Range<usize>) {
    disk.tamper(SEGMENT, |bytes| bytes[range].fill(0xff));
}

fn found(disk: &Disk) -> (Contents, String) {
    let mut wal = open(disk.clone()).unwrap();
    (contents(&mut wal).unwrap(), wal.report().to_string())
}

fn terms(contents: &Contents) -> Vec<u64> {
    contents.entries.iter().map(|entry| entry.1).collect()
}

#[test]
fn a_lost_commit_that_overwrote_leaves_nothing_of_what_it_replaced() {
    let disk = Disk::new(1);
    let mut wal = open(disk.clone()).unwrap();
    append(&mut wal, 0..6, 1);
    let last = changed(&disk, || append(&mut wal, 3..4, 2));
    assert!(last.len() > 512, "the lowest slot stands in a copy as well");
    drop(wal);
    rot(&disk, last);
    let (contents, report) = found(&disk);
    assert_eq!(terms(&contents), [1; 3], "{report}");
    // Nothing tells that the sectors were of that commit and not of later ones.
    assert!(
        contents
            .damaged
            .is_some_and(|(slot, end, term)| (slot, term) == (3, 2) && end >= 4),
        "{report}"
    );
}

#[test]
fn a_snapshot_stands_though_nothing_in_the_log_tells_of_it() {
    let disk = Disk::new(1);
    let mut wal = open(disk.clone()).unwrap();
    append(&mut wal, 0..3, 1);
    let last = changed(&disk, || {
        wal.install(&snapshot(1000)).unwrap();
        wal.sync().unwrap();
        wal.wait().unwrap();
    });
    drop(wal);
    rot(&disk, last);
    let (contents, report) = found(&disk);
    assert_eq!(contents.snapshot.map(|(end, ..)| end), Some(1000), "{report}");
    assert_eq!(contents.entries, [], "{report}");
}

#[test]
fn what_was_given_up_is_there_again_if_nothing_was_written_since() {
    let disk = Disk::new(1);
    let mut wal = open(disk.clone()).unwrap();
    append(&mut wal, 0..3, 1);
    let last = changed(&disk, || append(&mut wal, 3..6, 1));
    drop(wal);
    let whole = disk.file(SEGMENT).unwrap();
    rot(&disk, last.clone());
    // Each opening says the same, however often.
    for _ in 0..3 {
        let (contents, report) = found(&disk);
        assert_eq!(
            (terms(&contents).len(), contents.damaged.map(|told| told.0)),
            (3, Some(3)),
            "{report}"
        );
    }
    // A cable was loose.
    disk.tamper(SEGMENT, |bytes| bytes.copy_from_slice(&whole));
    for _ in 0..2 {
        let (contents, report) = found(&disk);
        assert_eq!((terms(&contents), contents.damaged), (vec![1; 6], None), "{report}");
    }
    let mut wal = open(disk.clone()).unwrap();
    append(&mut wal, 6..8, 1);
    drop(wal);
    let (contents, report) = found(&disk);
    assert_eq!((terms(&contents), contents.damaged), (vec![1; 8], None), "{report}");
}

#[test]
fn what_was_given_up_stays_given_up_once_something_was_written() {
    for is_last_lost in [false, true] {
        let disk = Disk::new(1);
        let mut wal = open(disk.clone()).unwrap();
        append(&mut wal, 0..3, 1);
        let old = changed(&disk, || append(&mut wal, 3..6, 1));
        drop(wal);
        let whole = disk.file(SEGMENT).unwrap();
        rot(&disk, old.clone());
        let mut wal = open(disk.clone()).unwrap();
        let new = changed(&disk, || append(&mut wal, 3..4, 9));
        drop(wal);
        disk.tamper(SEGMENT, |bytes| bytes[old.clone()].copy_from_slice(&whole[old.clone()]));
        if is_last_lost {
            rot(&disk, new);
        }
        let (contents, report) = found(&disk);
        let expected = if is_last_lost { vec![1; 3] } else { vec![1, 1, 1, 9] };
        assert_eq!(terms(&contents), expected, "{report}");
        let (slot, end, _) = contents.damaged.expect("it is not forgotten");
        assert!(slot == expected.len() as u64 && end >= 6, "{report}");
    }
}

#[test]
fn what_was_cut_off_is_wiped() {
    let disk = Disk::new(1);
    let mut wal = open(disk.clone()).unwrap();
    append(&mut wal, 0..3, 1);
    let torn = changed(&disk, || append(&mut wal, 3..18, 1));
    assert!(torn.len() > 2 * 512);
    drop(wal);
    disk.tamper(SEGMENT, |bytes| bytes[torn.start + 512..torn.start + 1024].fill(0));
    let (contents, report) = found(&disk);
    assert_eq!((terms(&contents).len(), contents.damaged), (3, None), "{report}");
    let bytes = disk.file(SEGMENT).unwrap();
    assert!(bytes[torn].iter().all(|&byte| byte == 0), "{report}");
}

/// Two disks, the same up to a moment; then one of them takes more.
fn two_moments(more: impl FnOnce(&mut dyn Log)) -> (Disk, Disk) {
    let disk = Disk::new(1);
    let mut wal = open(disk.clone()).unwrap();
    wal.set_state(b"a vote").unwrap();
    append(&mut wal, 0..3, 1);
    wal.wait().unwrap();
    let earlier = disk.copy();
    more(&mut wal);
    wal.wait().unwrap();
    drop(wal);
    (earlier, disk)
}

/// The disk returns the file as it was at an earlier moment.
fn turn_back(disk: &Disk, earlier: &Disk, name: &str) {
    let bytes = earlier.file(name).unwrap();
    disk.tamper(name, |now| *now = bytes);
}

/// The limit. A reader is a function of what the disk returns. A disk that returns what it held at an earlier moment, all of it,
/// returns what a healthy one held then: the reader must open that one, and so it opens this one. Only somebody on another machine
/// can know better.
#[test]
fn a_disk_that_returns_all_of_an_earlier_moment_cannot_be_told_from_one_of_then() {
    let (earlier, disk) = two_moments(|log| {
        log.set_state(b"another vote").unwrap();
        append(log, 3..6, 1);
    });
    turn_back(&disk, &earlier, SEGMENT);
    turn_back(&disk, &earlier, STATE);
    let (now, report) = found(&disk);
    assert_eq!(now, found(&earlier).0, "{report}");
    assert_eq!(
        (now.state.as_deref(), now.damaged),
        (Some(&b"a vote"[..]), None),
        "{report}"
    );
    assert_eq!(open(disk).unwrap().report().findings, []);
}

/// The same limit, where it is nearest: the last writes, of entries alone, are lost. The file of the state has not changed since,
/// so that all of the disk is as it was.
#[test]
fn nor_can_one_that_has_lost_the_last_entries() {
    let (earlier, disk) = two_moments(|log| append(log, 3..6, 1));
    assert_eq!(disk.file(STATE), earlier.file(STATE));
    turn_back(&disk, &earlier, SEGMENT);
    let (now, report) = found(&disk);
    assert_eq!((terms(&now).len(), now.damaged), (3, None), "{report}");
}

/// One file of them is not enough, once a commit did more than append.
#[test]
fn one_that_returns_an_earlier_segment_alone_is_seen() {
    let (earlier, disk) = two_moments(|log| {
        append(log, 3..6, 1);
        append(log, 4..5, 2);
        append(log, 5..6, 2);
    });
    turn_back(&disk, &earlier, SEGMENT);
    let kinds: Vec<FindingKind> = open(disk.clone())
        .unwrap()
        .report()
        .findings
        .iter()
        .map(|finding| finding.kind.clone())
        .collect();
    assert!(matches!(kinds[..], [FindingKind::MissingCommits { .. }]), "{kinds:?}");
    let (now, report) = found(&disk);
    // Up to the last commit that did; the entry behind it is the limit again.
    assert_eq!((terms(&now), now.damaged), (vec![1; 3], Some((3, 5, 2))), "{report}");
}

#[test]
fn one_that_returns_an_earlier_file_of_the_state_alone_does_no_harm() {
    let (earlier, disk) = two_moments(|log| {
        log.set_state(b"another vote").unwrap();
        append(log, 2..6, 2);
    });
    let (whole, _) = found(&disk.copy());
    turn_back(&disk, &earlier, STATE);
    let (now, report) = found(&disk);
    assert_eq!(now, whole, "{report}");
    assert_eq!(now.state.as_deref(), Some(&b"another vote"[..]));
}
