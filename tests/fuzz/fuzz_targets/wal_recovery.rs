//! Any bytes as the segment files of a log: opening it answers, without a panic, and no entry comes out that does not stand
//! there under checksums that match. A log that a disk has damaged goes on.
#![no_main]

use dataplane_waist::{Log, Term};
use libfuzzer_sys::fuzz_target;
use tests_fuzz::segments::{Contents, MENDED, disk, entries_under_checksums, files, open};

fuzz_target!(|bytes: &[u8]| {
    let files = files(bytes);
    let disk = disk(&files, bytes.first().copied().unwrap_or_default());
    let Ok((mut wal, found)) = open(&disk) else { return };
    let written = entries_under_checksums(&files);
    for entry in &found.entries {
        assert!(
            written.contains(entry),
            "slot {} was made up: {}",
            entry.0,
            wal.report()
        );
    }
    let slots: Vec<u64> = found.entries.iter().map(|entry| entry.0).collect();
    assert!(slots.windows(2).all(|pair| pair[0] + 1 == pair[1]), "a gap: {slots:?}");
    // After whatever a disk did, it goes on, and has what it took when it is opened again. What a mad writer numbers its
    // commits with may leave no room for that.
    if bytes.first().is_none_or(|first| first & MENDED != 0) {
        return;
    }
    let end = wal.end();
    if wal.append(end, Term(u64::MAX), b"after").is_err() {
        return;
    }
    wal.sync().and_then(|()| wal.wait()).expect("memory does not fail");
    let before = format!("{}", wal.report());
    drop(wal);
    let (wal, again) = open(&disk).unwrap_or_else(|error| panic!("opened once, then not: {error}\n{before}"));
    let report = wal.report();
    assert_eq!(again.state, found.state, "{before}\n{report}");
    let mut expected = found.entries.clone();
    expected.push((end.0, u64::MAX, b"after".to_vec()));
    assert_eq!(again.entries, expected, "{before}\n{report}");
    // No damage is forgotten. There may be more of it: rotten sectors that lay behind the old end now lie behind the new one.
    let told_end = |contents: &Contents| contents.damaged.map_or(0, |(_, damaged_end, _)| damaged_end);
    let is_healed = told_end(&found) <= wal.end().0;
    assert!(is_healed || told_end(&again) >= told_end(&found), "{before}\n{report}");
});
