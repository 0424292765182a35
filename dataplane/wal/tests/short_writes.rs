//! Writes that the kernel cuts short, by a limit on the length of files (RLIMIT_FSIZE, setrlimit(2)): it writes up to the limit,
//! says how much that was, and refuses the rest. One test, because the limit is the whole process's.
#![forbid(unsafe_code)]

mod support;

use std::{io, path::Path};

use dataplane_waist::{Log, Slot, Support, Term};
use dataplane_wal::{Engine, FolderStorage, Wal, WalError, probe};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use support::{contents, options};

/// Entries before the one that is cut.
const BEFORE_COUNT: u64 = 3;
/// As long as eight sectors, and the entry's header makes it nine or ten.
const CUT_PAYLOAD: [u8; 4096] = [7; 4096];

fn open(folder: &Path, engine: Engine) -> Result<Wal, WalError> {
    Wal::open(Box::new(FolderStorage::open(folder, engine)?), options())
}

/// Runs `act` under a limit on the length of files.
fn limited<T>(file_bytes_max: u64, act: impl FnOnce() -> T) -> T {
    let (soft, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    setrlimit(Resource::RLIMIT_FSIZE, file_bytes_max, hard).unwrap();
    let outcome = act();
    setrlimit(Resource::RLIMIT_FSIZE, soft, hard).unwrap();
    outcome
}

fn append(wal: &mut Wal, payload: &[u8]) -> io::Result<Slot> {
    let end = wal.end();
    wal.append(end, Term(1), payload)?;
    wal.sync()?;
    Ok(wal.wait()?.end)
}

/// How the entry fared: whether it was written, and how many writes were cut short.
fn cut_at(folder: &Path, engine: Engine, file_bytes_max: u64) -> (bool, u64) {
    let _ = std::fs::remove_dir_all(folder);
    let mut wal = open(folder, engine).unwrap();
    for slot in 0..BEFORE_COUNT {
        assert_eq!(append(&mut wal, b"before").unwrap(), Slot(slot + 1));
    }
    let outcome = limited(file_bytes_max, || append(&mut wal, &CUT_PAYLOAD));
    let short_count = wal.stats().short_writes_count;
    let context = format!("{} cut at {file_bytes_max}: {outcome:?}", engine.name());
    if let Err(error) = &outcome {
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge, "{context}");
        assert!(error.to_string().contains("ulimit -f"), "{context}");
        // There is room again, and it stays closed.
        let again = append(&mut wal, b"again").expect_err("it is closed");
        assert!(again.to_string().contains("never tried again"), "{context}: {again}");
    }
    drop(wal);

    let mut wal = open(folder, engine).unwrap_or_else(|error| panic!("{context}: {error}"));
    assert_eq!(wal.report().damaged_slots, None, "{context}");
    let entries = contents(&mut wal).unwrap().entries;
    let (before, after) = entries.split_at(BEFORE_COUNT as usize);
    assert!(before.iter().all(|(_, _, payload)| payload == b"before"), "{context}");
    // Refused, it may be there all the same: what was written of it was the whole of it.
    match after {
        [] => assert!(outcome.is_err(), "{context}: it was acknowledged, and is gone"),
        [(_, _, payload)] => assert_eq!(payload, &CUT_PAYLOAD, "{context}"),
        more => panic!("{context}: {} entries", more.len()),
    }
    let end = wal.end();
    assert_eq!(append(&mut wal, b"next").unwrap(), Slot(end.0 + 1), "{context}");
    (outcome.is_ok(), short_count)
}

#[test]
fn a_write_that_is_cut_short_at_any_sector_is_continued_or_ends_the_log() {
    // Without somebody who handles it, SIGXFSZ ends the process (setrlimit(2)).
    let flag = std::sync::Arc::default();
    signal_hook::flag::register(signal_hook::consts::SIGXFSZ, flag).unwrap();
    let folder = std::env::temp_dir().join(format!("dplab-wal-short-{}", std::process::id()));
    for engine in Engine::ALL {
        std::fs::create_dir_all(&folder).unwrap();
        if let Support::Absent { why } = probe(&folder, engine).unwrap() {
            println!("skipped: the engine `{}`: {why}", engine.name());
            continue;
        }
        let (mut refused_count, mut short_count) = (0, 0);
        for sectors_count in 1..options().segment_bytes / 512 {
            let (is_written, shorts) = cut_at(&folder, engine, sectors_count * 512);
            refused_count += u32::from(!is_written);
            short_count += shorts;
        }
        println!(
            "{}: {refused_count} commits refused, {short_count} writes cut short",
            engine.name()
        );
        // The entry has nine sectors at least, so there are eight places where it is cut and not just refused.
        assert!(short_count >= 8, "{}: {short_count}", engine.name());
    }
    let _ = std::fs::remove_dir_all(&folder);
}
