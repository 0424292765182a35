//! Any bytes as the snapshot file that a log names: it is refused, or what comes out stands there under checksums that
//! match.
#![no_main]

use dataplane_waist::{Log, Slot, Snapshot, Tail, Term};
use dataplane_wal::{Storage, Wal, testing::Disk};
use dataplane_wire::checksum::crc32c;
use libfuzzer_sys::fuzz_target;
use tests_fuzz::segments::{open, options, put};

// As src/snapshot.rs has it.
const HEADER_BYTES: usize = 64;
const BYTES_CRC: std::ops::Range<usize> = 56..60;
const HEADER_CRC: std::ops::Range<usize> = 60..64;

fuzz_target!(|bytes: &[u8]| {
    let mut disk = Disk::new(1);
    let mut wal = Wal::open(Box::new(disk.clone()), options()).expect("an empty disk");
    wal.append(Slot(0), Term(1), b"entry").expect("the first slot");
    let snapshot = Snapshot {
        end: Slot(1),
        last_term: Term(1),
        tail: Tail::Keep,
        bytes: (&b"a snapshot"[..]).into(),
    };
    wal.install(&snapshot).expect("it is the log's own");
    wal.sync().and_then(|()| wal.wait()).expect("memory takes it");
    drop(wal);
    let files = disk.list().expect("memory can be read");
    let (name, _) = files
        .iter()
        .find(|(name, _)| name.starts_with("snapshot-"))
        .expect("it was installed");
    // The first byte says whether the checksums are mended: a fuzzer does not guess them.
    let Some((&first, bytes)) = bytes.split_first() else {
        return;
    };
    let mut bytes = bytes.to_vec();
    if first & 1 == 1 && bytes.len() >= HEADER_BYTES {
        let len: [u8; 8] = bytes[40..48].try_into().expect("eight bytes");
        let len = usize::try_from(u64::from_be_bytes(len)).unwrap_or(usize::MAX);
        let end = len.saturating_add(HEADER_BYTES).min(bytes.len());
        let crc = crc32c(&bytes[HEADER_BYTES..end]).to_be_bytes();
        bytes[BYTES_CRC].copy_from_slice(&crc);
        let crc = crc32c(&bytes[..HEADER_CRC.start]).to_be_bytes();
        bytes[HEADER_CRC].copy_from_slice(&crc);
    }
    put(&mut disk, name, &bytes);
    if let Ok((_, found)) = open(&disk) {
        let (end, _, found) = found.snapshot.expect("it stands in the log");
        assert_eq!(end, 1);
        assert!(bytes[HEADER_BYTES..].starts_with(&found));
        assert_eq!(crc32c(&found).to_be_bytes(), bytes[BYTES_CRC]);
    }
});
