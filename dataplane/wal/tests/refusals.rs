//! What a log refuses, and what it says; and that nothing is lost when the disk says no, at whichever call.
#![forbid(unsafe_code)]

mod support;

use std::{io, sync::Arc, sync::atomic::Ordering};

use dataplane_waist::{Log, Slot, Snapshot, Tail, Term};
use dataplane_wal::{
    Engine, FolderStorage, Wal, WalOptions,
    format::VERSION,
    testing::{Disk, Fault, Faulty},
};
use support::{Step, Workload, contents, open, options};

fn refusal(storage: impl dataplane_wal::Storage + 'static, options: WalOptions) -> String {
    Wal::open(Box::new(storage), options)
        .expect_err("it must be refused")
        .to_string()
}

fn with_a_snapshot() -> Disk {
    let disk = Disk::new(1);
    let mut wal = open(disk.clone()).unwrap();
    for slot in 0..5 {
        wal.append(Slot(slot), Term(1), b"entry").unwrap();
    }
    let snapshot = Snapshot {
        end: Slot(3),
        last_term: Term(1),
        tail: Tail::Keep,
        bytes: Arc::from(&[7; 1000][..]),
    };
    wal.install(&snapshot).unwrap();
    wal.sync().unwrap();
    wal.wait().unwrap();
    disk
}

fn snapshot_name(disk: &Disk) -> String {
    let mut disk = disk.clone();
    let files = dataplane_wal::Storage::list(&mut disk).unwrap();
    files
        .into_iter()
        .find(|(name, _)| name.starts_with("snapshot"))
        .unwrap()
        .0
}

#[test]
fn another_clusters_log_is_refused() {
    let error = refusal(
        with_a_snapshot(),
        WalOptions {
            cluster: 2,
            ..options()
        },
    );
    assert!(error.contains("belongs to cluster 0x1ab and not to 0x2"), "{error}");
}

#[test]
fn a_newer_format_is_refused() {
    let disk = with_a_snapshot();
    disk.tamper("segment-0000", |bytes| {
        bytes[9] = VERSION as u8 + 1;
        let crc = dataplane_wire::checksum::crc32c(&bytes[..508]);
        bytes[508..512].copy_from_slice(&crc.to_be_bytes());
    });
    let error = refusal(disk, options());
    let expected = format!("segment-0000: it has format version {}", VERSION + 1);
    assert!(error.contains(&expected), "{error}");
}

#[test]
fn a_snapshot_that_is_not_whole_is_refused() {
    let disk = with_a_snapshot();
    let name = snapshot_name(&disk);
    let cut = disk.copy();
    cut.tamper(&name, |bytes| bytes.truncate(500));
    let error = refusal(cut, options());
    assert!(
        error.contains(&name) && error.contains("it ends after 436 of 1000 bytes"),
        "{error}"
    );
    for (at, what) in [
        (0, "does not begin"),
        (30, "header does not match"),
        (70, "checksum does not match"),
    ] {
        let flipped = disk.copy();
        flipped.tamper(&name, |bytes| bytes[at] ^= 1);
        let error = refusal(flipped, options());
        assert!(error.contains(&name) && error.contains(what), "{error}");
    }
}

#[test]
fn other_segments_than_expected_are_refused() {
    let bigger = WalOptions {
        segment_bytes: 64 << 10,
        ..options()
    };
    let error = refusal(with_a_snapshot(), bigger);
    assert!(
        error.contains("has 32768 bytes, and segments are to have 65536"),
        "{error}"
    );
    let odd = WalOptions {
        segment_bytes: (32 << 10) + 512,
        ..options()
    };
    assert!(refusal(Disk::new(1), odd).contains("multiple of 4096"));
    let error = refusal(Disk::new(1).align(16 << 10), options());
    assert!(error.contains("aligned to 16384 bytes"), "{error}");
}

#[test]
fn what_makes_no_sense_is_refused_and_the_log_goes_on() {
    let mut wal = open(with_a_snapshot()).unwrap();
    let gap = wal.append(Slot(7), Term(1), b"").unwrap_err();
    assert!(
        gap.to_string().contains("slot 7 would leave a gap: the log ends at 5"),
        "{gap}"
    );
    let past = wal.append(Slot(2), Term(1), b"").unwrap_err();
    assert!(past.to_string().contains("slot 2 is in the past"), "{past}");
    let large = wal
        .append(Slot(5), Term(1), &vec![0; wal.payload_bytes_max() + 1])
        .unwrap_err();
    assert_eq!(large.kind(), io::ErrorKind::InvalidInput);
    assert!(wal.set_state(&[0; 65]).unwrap_err().to_string().contains("65 bytes"));
    let largest = vec![3; wal.payload_bytes_max()];
    wal.append(Slot(5), Term(1), &largest).unwrap();
    wal.sync().unwrap();
    assert_eq!(wal.wait().unwrap().end, Slot(6));
    assert_eq!(contents(&mut wal).unwrap().entries.last().unwrap().2, largest);
}

/// Found by fuzzing: the next commit's number, and the slot behind an entry's, overflowed.
#[test]
fn the_highest_numbers_under_checksums_that_match_are_no_panic() {
    use dataplane_wal::format::{COMMIT_HEADER_BYTES, Place, RecordHeader, RecordKind, SectorHeader, seal_sector};
    let sealed = |lsn: u64, kind: RecordKind, slot: u64, delta_byte: u8| {
        let mut sector = [0; 512];
        sector[16..16 + COMMIT_HEADER_BYTES].fill(delta_byte);
        let record = RecordHeader {
            kind,
            payload_bytes: 0,
            term: u64::MAX,
            slot,
        };
        sector[16 + COMMIT_HEADER_BYTES..][..20].copy_from_slice(&record.emit());
        let header = SectorHeader {
            lsn,
            index: 0,
            count: 1,
            has_copies: false,
        };
        let place = Place {
            cluster: support::CLUSTER,
            file_index: 0,
            sector: 9,
        };
        seal_sector(&mut sector, header, place);
        sector
    };
    let kinds = [
        RecordKind::Append,
        RecordKind::State,
        RecordKind::Install,
        RecordKind::Origin,
        RecordKind::Damage,
        RecordKind::Cut,
    ];
    for kind in kinds {
        for (lsn, slot, delta_byte) in [
            (u64::MAX, 0, 0),
            (1 << 62, 1 << 62, 0xff),
            (2, u64::MAX, 0xff),
            (3, (1 << 62) - 1, 0x3f),
        ] {
            let disk = Disk::new(1);
            drop(open(disk.clone()).unwrap());
            disk.tamper("segment-0000", |bytes| {
                bytes[9 * 512..10 * 512].copy_from_slice(&sealed(lsn, kind, slot, delta_byte));
            });
            let Ok(mut wal) = open(disk) else { continue };
            contents(&mut wal).unwrap();
            let end = wal.end();
            if wal.append(end, Term(1), b"next").is_ok() {
                wal.sync().unwrap();
                wal.wait().unwrap();
            }
        }
    }
    let mut wal = open(Disk::new(1)).unwrap();
    let snapshot = Snapshot {
        end: Slot(u64::MAX),
        last_term: Term(1),
        tail: Tail::Drop,
        bytes: Arc::from(&[][..]),
    };
    let error = wal.install(&snapshot).unwrap_err();
    assert!(error.to_string().contains("no log reaches"), "{error}");
}

#[test]
fn two_openers_are_one_too_many() {
    let folder = std::env::temp_dir().join(format!("dplab-wal-lock-{}", std::process::id()));
    let first = FolderStorage::open(&folder, Engine::File).unwrap();
    let error = FolderStorage::open(&folder, Engine::File).unwrap_err().to_string();
    assert!(error.contains("is open in another process"), "{error}");
    drop(first);
    FolderStorage::open(&folder, Engine::File).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
}

/// Runs until something fails. Says how many steps were acknowledged, and begun, and what failed.
fn run(disk: &Disk, workload: &Workload, fault: Fault) -> (usize, usize, Option<io::Error>) {
    let mut wal = match open(Faulty::new(disk.clone(), Some(fault))) {
        Ok(wal) => wal,
        Err(error) => return (0, 0, Some(error.into())),
    };
    let mut acked = 0;
    for (index, step) in workload.steps.iter().enumerate() {
        let outcome = step.apply(&mut wal).and_then(|()| match step {
            Step::Sync => wal.wait().map(|_| acked = index + 1),
            _ => Ok(()),
        });
        let Err(error) = outcome else { continue };
        // From now on everything is refused, and says what it was.
        let again = [
            wal.append(wal.end(), Term(9), b"").unwrap_err(),
            wal.set_state(b"").unwrap_err(),
            wal.sync().unwrap_err(),
            wal.durable().unwrap_err(),
        ];
        for again in again {
            assert!(again.to_string().contains("never tried again"), "{again}");
            assert_eq!(again.kind(), error.kind());
        }
        return (acked, index + 1, Some(error));
    }
    (acked, workload.steps.len(), None)
}

fn fail_at_every_call(errno: i32, lasts: bool, says: &str) {
    let seed = support::seed();
    let workload = Workload::random(seed, 60, 300);
    let counting = Faulty::new(Disk::new(1), None);
    let calls = counting.calls();
    let mut wal = open(counting).unwrap();
    for step in &workload.steps {
        step.apply(&mut wal).unwrap();
    }
    let calls_count = calls.load(Ordering::Relaxed);
    let mut failures_count = 0;
    for at_call in 0..calls_count {
        let disk = Disk::new(1);
        let (acked, begun, error) = run(&disk, &workload, Fault { at_call, errno, lasts });
        if let Some(error) = error {
            failures_count += 1;
            assert!(error.to_string().contains(says), "call {at_call}: {error}");
        }
        // The disk is mended: what was acknowledged is there.
        let mut wal = open(disk).unwrap_or_else(|error| panic!("seed {seed}, call {at_call}: {error}"));
        let found = contents(&mut wal).unwrap();
        assert!(
            (acked..=begun).any(|steps| workload.after[steps] == found),
            "seed {seed}, call {at_call}: {acked} to {begun} steps, found {found:?}"
        );
        assert_eq!(wal.report().damaged_slots, None);
    }
    println!("{calls_count} calls, {failures_count} of them ended the log");
    // A segment file that is made ahead and cannot be is a failure only when it is needed.
    assert!(
        failures_count * 10 > calls_count * 7,
        "{failures_count} of {calls_count}"
    );
}

#[test]
fn a_failing_disk_at_every_call_loses_nothing() {
    fail_at_every_call(libc::EIO, false, "Input/output error");
}

#[test]
fn a_full_disk_at_every_call_loses_nothing() {
    fail_at_every_call(libc::ENOSPC, false, "free some space");
}

#[test]
fn a_disk_that_becomes_read_only_at_every_call_loses_nothing() {
    fail_at_every_call(libc::EROFS, true, "mounted read-only");
}
