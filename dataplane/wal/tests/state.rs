//! The state (term and vote): whatever two sectors go bad, wherever, it is found or the log is refused; an older one is never
//! taken for it.
#![forbid(unsafe_code)]

mod support;

use dataplane_waist::{Log, Slot, Term};
use dataplane_wal::{
    FindingKind, Storage, WalError,
    format::{FIRST_SECTOR, Place, RecordHeader, RecordKind, SECTOR_BYTES, SectorHeader, VERSION, seal_sector},
    testing::{Disk, Loss, Tear},
};
use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use rand_pcg::Pcg64Mcg;
use support::{CLUSTER, Workload, contents, count, open, seed};

const SEGMENT: &str = "segment-0000";
const STATE: &str = "state";
/// The file's pages.
const PAGES: [usize; 2] = [0, 4096];

/// Two votes, the newer one in the log's last commit of all.
fn two_votes() -> Disk {
    let disk = Disk::new(1);
    let mut wal = open(disk.clone()).unwrap();
    wal.append(Slot(0), Term(1), b"entry").unwrap();
    wal.set_state(b"the first vote").unwrap();
    wal.sync().unwrap();
    wal.set_state(b"the second vote").unwrap();
    wal.sync().unwrap();
    wal.wait().unwrap();
    disk
}

/// Where these bytes stand.
fn places(disk: &Disk, name: &str, what: &[u8]) -> Vec<usize> {
    let bytes = disk.file(name).unwrap();
    (0..bytes.len()).filter(|&at| bytes[at..].starts_with(what)).collect()
}

fn flip(disk: &Disk, name: &str, places: &[usize]) {
    disk.tamper(name, |bytes| places.iter().for_each(|&at| bytes[at] ^= 1));
}

fn state(disk: &Disk) -> Option<Vec<u8>> {
    contents(&mut open(disk.clone()).unwrap()).unwrap().state
}

fn kinds(disk: &Disk) -> Vec<FindingKind> {
    let wal = open(disk.clone()).unwrap();
    wal.report()
        .findings
        .iter()
        .map(|finding| finding.kind.clone())
        .collect()
}

#[test]
fn both_copies_in_the_last_commit_are_damaged_and_the_vote_is_known() {
    let disk = two_votes();
    let in_log = places(&disk, SEGMENT, b"the second vote");
    assert_eq!(in_log.len(), 2, "a state has a copy");
    flip(&disk, SEGMENT, &in_log);
    let mut wal = open(disk.clone()).unwrap();
    let report = wal.report().to_string();
    assert!(report.contains("the state stands here alone"), "{report}");
    assert_eq!(
        contents(&mut wal).unwrap().state.as_deref(),
        Some(&b"the second vote"[..])
    );
    // The log goes on, and holds it once more.
    let end = wal.end();
    wal.append(end, Term(2), b"after").unwrap();
    wal.sync().unwrap();
    drop(wal);
    assert!(!kinds(&disk).contains(&FindingKind::StateAhead));
    disk.tamper(STATE, |bytes| bytes.fill(0xff));
    assert_eq!(state(&disk).as_deref(), Some(&b"the second vote"[..]));
}

#[test]
fn a_commit_that_the_device_lost_with_its_vote_is_missed() {
    let disk = two_votes();
    let first = places(&disk, SEGMENT, b"the second vote")[0] / SECTOR_BYTES * SECTOR_BYTES;
    disk.tamper(SEGMENT, |bytes| bytes[first..].fill(0));
    assert_eq!(state(&disk).as_deref(), Some(&b"the second vote"[..]));
    assert_eq!(
        kinds(&disk),
        [FindingKind::MissingCommits { next_lsn: 4 }, FindingKind::StateAhead]
    );
}

#[test]
fn a_vote_that_may_be_lost_is_refused_and_stays_refused() {
    let disk = two_votes();
    flip(&disk, SEGMENT, &places(&disk, SEGMENT, b"the second vote"));
    flip(&disk, STATE, &places(&disk, STATE, b"the second vote"));
    for _ in 0..2 {
        let error = open(disk.clone()).unwrap_err();
        assert!(matches!(error, WalError::StateLost { .. }), "{error}");
        let error = error.to_string();
        assert!(error.contains("may vote twice") && error.contains("`state`"), "{error}");
    }
    // The same without any log: nothing tells what the file held.
    let mut disk = two_votes();
    disk.remove(SEGMENT).unwrap();
    assert_eq!(state(&disk.copy()).as_deref(), Some(&b"the second vote"[..]));
    disk.tamper(STATE, |bytes| bytes.fill(0xff));
    assert!(matches!(open(disk), Err(WalError::StateLost { .. })));
}

#[test]
fn pages_that_are_damaged_are_told_and_written_anew() {
    for damaged in [&PAGES[..1], &PAGES[1..], &PAGES[..]] {
        for byte in [0, 0xff] {
            let disk = two_votes();
            let whole = disk.file(STATE).unwrap();
            for &page in damaged {
                disk.tamper(STATE, |bytes| bytes[page..page + 4096].fill(byte));
            }
            assert_eq!(kinds(&disk), vec![FindingKind::StateCopy; damaged.len()]);
            assert_eq!(kinds(&disk), [], "it has been mended");
            for page in PAGES {
                let vote = page + 16 + 20;
                let vote = vote..vote + "the second vote".len();
                assert_eq!(disk.file(STATE).unwrap()[vote.clone()], whole[vote]);
            }
        }
    }
    let mut disk = two_votes();
    disk.remove(STATE).unwrap();
    assert_eq!(kinds(&disk), [FindingKind::StateCopy, FindingKind::StateCopy]);
    assert_eq!(state(&disk).as_deref(), Some(&b"the second vote"[..]));
}

/// The power goes at every moment of two votes, and takes along the whole page that is being written, as a device may that
/// writes a sector by writing a page.
#[test]
fn a_page_that_a_power_loss_destroys_is_not_the_only_one() {
    let disk = two_votes();
    for events_count in 0..=disk.events_count() {
        let loss = Loss {
            events_count,
            tear: Tear::Sectors,
        };
        let image = disk.image(loss, &mut |_| true);
        let before = image.file(STATE).map(|_| state(&image.copy()));
        for page in PAGES {
            let Some(before) = &before else { continue };
            let image = image.copy();
            image.tamper(STATE, |bytes| bytes[page..page + 4096].fill(0xee));
            assert_eq!(&state(&image), before, "event {events_count}, page {page}");
        }
    }
}

/// The segment as a build of this version left it.
fn set_version(disk: &Disk, version: u8) {
    disk.tamper(SEGMENT, |bytes| {
        bytes[9] = version;
        let crc = dataplane_wire::checksum::crc32c(&bytes[..508]);
        bytes[508..512].copy_from_slice(&crc.to_be_bytes());
    });
}

/// As a build of version 1 left it: without a file of the state.
fn make_version_1(disk: &mut Disk) {
    disk.remove(STATE).unwrap();
    set_version(disk, 1);
}

/// As a build of version 2 left it: no witness in the file of the state.
fn make_version_2(disk: &Disk) {
    set_version(disk, 2);
    disk.tamper(STATE, |bytes| {
        for (page, bytes) in bytes.chunks_mut(4096).enumerate() {
            let sector = bytes.first_chunk_mut::<SECTOR_BYTES>().unwrap();
            let vote = b"the second vote";
            let record = RecordHeader {
                kind: RecordKind::State,
                payload_bytes: vote.len() as u32,
                term: 0,
                slot: 2,
            };
            sector.fill(0);
            sector[16..36].copy_from_slice(&record.emit());
            sector[36..36 + vote.len()].copy_from_slice(vote);
            let header = SectorHeader {
                lsn: 3,
                index: 0,
                count: 1,
                has_copies: true,
            };
            let place = Place {
                cluster: CLUSTER,
                file_index: u32::MAX,
                sector: 8 * page as u32,
            };
            seal_sector(sector, header, place);
        }
    });
}

#[test]
fn a_log_of_an_older_version_is_opened_and_becomes_one_of_this() {
    let older: [fn(&mut Disk); 2] = [make_version_1, |disk| make_version_2(disk)];
    for make_older in older {
        let mut disk = two_votes();
        make_older(&mut disk);
        assert_eq!(kinds(&disk), []);
        assert_eq!(u16::from(disk.file(SEGMENT).unwrap()[9]), VERSION);
        // From now on the file tells what the log has lost.
        let lost = places(&disk, SEGMENT, b"the second vote")[0] / SECTOR_BYTES * SECTOR_BYTES;
        disk.tamper(SEGMENT, |bytes| bytes[lost..].fill(0));
        assert_eq!(state(&disk.copy()).as_deref(), Some(&b"the second vote"[..]));
        assert!(kinds(&disk).contains(&FindingKind::MissingCommits { next_lsn: 4 }));
    }
    // The file of version 2 tells the vote, and that of version 1 is not there.
    let mut disk = two_votes();
    make_version_2(&disk);
    flip(&disk, SEGMENT, &places(&disk, SEGMENT, b"the second vote"));
    assert_eq!(state(&disk).as_deref(), Some(&b"the second vote"[..]));
    make_version_1(&mut disk);
    flip(&disk, SEGMENT, &places(&disk, SEGMENT, b"the second vote"));
    assert!(matches!(open(disk), Err(WalError::StateLost { .. })));
}

/// Whatever two sectors, of whatever files.
#[test]
fn any_two_damaged_sectors_leave_the_vote_or_a_refusal() {
    let seed = seed();
    let mut rng = Pcg64Mcg::seed_from_u64(seed);
    let (mut refused_count, mut ahead_count, mut opened_count) = (0, 0, 0);
    for run in 0..count("DPLAB_RUNS", 60) {
        let disk = Disk::new(1);
        let mut wal = open(disk.clone()).unwrap();
        let workload = Workload::random(rng.random(), 30, 300);
        workload.steps.iter().for_each(|step| step.apply(&mut wal).unwrap());
        // In a commit of its own, so that no end of a sector goes through it.
        wal.sync().unwrap();
        wal.set_state(b"the last vote").unwrap();
        wal.sync().unwrap();
        wal.wait().unwrap();
        drop(wal);
        let names = disk.clone().list().unwrap().into_iter().map(|(name, _)| name);
        let mut used = Vec::new();
        for name in names.filter(|name| name.starts_with("segment") || name == STATE) {
            let bytes = disk.file(&name).unwrap();
            let sectors = bytes.chunks(SECTOR_BYTES).enumerate();
            let first = if name == STATE { 0 } else { FIRST_SECTOR };
            let is_used = |sector: &(usize, &[u8])| sector.0 >= first && sector.1.iter().any(|&byte| byte != 0);
            used.extend(sectors.filter(is_used).map(|(sector, _)| (name.clone(), sector)));
        }
        let voting = |(name, sector): &&(String, usize)| {
            let bytes = disk.file(name).unwrap();
            let sector = &bytes[sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES];
            sector.windows(13).any(|bytes| bytes == b"the last vote")
        };
        let voting: Vec<_> = used.iter().filter(voting).cloned().collect();
        assert_eq!(voting.len(), 4, "two in the log, two in the file");
        for pair in 0..40 {
            let from = if pair % 2 == 0 { &voting } else { &used };
            let image = disk.copy();
            for (name, sector) in from.sample(&mut rng, 2) {
                image.tamper(name, |bytes| bytes[sector * SECTOR_BYTES + 40] ^= 0x10);
            }
            let what = format!("seed {seed}, run {run}, pair {pair}");
            match open(image.clone()) {
                Ok(mut wal) => {
                    let findings = &wal.report().findings;
                    let is_ahead = findings.iter().any(|finding| finding.kind == FindingKind::StateAhead);
                    ahead_count += usize::from(is_ahead);
                    opened_count += 1;
                    let found = contents(&mut wal).unwrap().state;
                    assert_eq!(
                        found.as_deref(),
                        Some(&b"the last vote"[..]),
                        "{what}\n{}",
                        wal.report()
                    );
                    drop(wal);
                    assert_eq!(state(&image), found, "{what}, opened again");
                }
                Err(WalError::StateLost { .. }) => refused_count += 1,
                Err(error) => panic!("{what}: {error}"),
            }
        }
    }
    println!("{opened_count} opened, {ahead_count} by the file alone, {refused_count} refused");
    assert!(ahead_count > 0);
}
