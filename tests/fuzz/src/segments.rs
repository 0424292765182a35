//! Segment files from a fuzzer's bytes, and a second reader of the format, which knows nothing of how recovery reads.

use std::collections::BTreeSet;

use dataplane_waist::{Log, Recovered, Slot, Snapshot, Tail, Term};
use dataplane_wal::{
    OpenFor, Storage, Wal, WalError, WalOptions,
    format::{
        COMMIT_HEADER_BYTES, FIRST_SECTOR, FileHeader, Place, RecordKind, Records, SECTOR_BYTES, SECTOR_HEADER_BYTES,
        Sector, SectorHeader, seal_sector,
    },
    testing::Disk,
};

pub const CLUSTER: u64 = 0x1ab;
const SEGMENT_BYTES: usize = 32 << 10;
/// As many files as a first byte of 0xff says.
const FILES_MAX: usize = 4;
/// With this bit in the first byte, checksums are mended, because a fuzzer does not guess them: what is read then is what
/// a writer gone mad could have left, and not only a disk.
pub const MENDED: u8 = 0x80;
/// But not in a sector whose first byte, which is of its checksum, has this bit.
const AS_IT_IS: u8 = 1;

pub fn options() -> WalOptions {
    WalOptions {
        segment_bytes: SEGMENT_BYTES as u64,
        buffer_bytes: 8 << 10,
        ..WalOptions::new(CLUSTER)
    }
}

fn place(file_index: u32, sector: usize) -> Place {
    Place {
        cluster: CLUSTER,
        file_index,
        sector: sector as u32,
    }
}

/// The sector with a checksum that matches what stands in it.
fn mend(sector: &mut [u8; SECTOR_BYTES], place: Place) {
    let [_, _, _, _, l0, l1, l2, l3, l4, l5, l6, l7, i0, i1, c0, c1, ..] = *sector;
    let index = u16::from_be_bytes([i0, i1]);
    let header = SectorHeader {
        lsn: u64::from_be_bytes([l0, l1, l2, l3, l4, l5, l6, l7]),
        index: index & 0x7fff,
        count: u16::from_be_bytes([c0, c1]),
        has_copies: index & 0x8000 != 0,
    };
    seal_sector(sector, header, place);
}

/// The files: the first byte says how many; then come their sectors, in turn as many for each.
pub fn files(bytes: &[u8]) -> Vec<Vec<u8>> {
    let Some((&first, rest)) = bytes.split_first() else {
        return Vec::new();
    };
    let files_count = 1 + usize::from(first) % FILES_MAX;
    let sectors: Vec<&[u8]> = rest.chunks(SECTOR_BYTES).collect();
    let each = sectors.len().div_ceil(files_count).max(1);
    let room = SEGMENT_BYTES / SECTOR_BYTES - FIRST_SECTOR;
    let of_file = |file_index: usize| {
        let mut file = vec![0; SEGMENT_BYTES];
        let header = FileHeader {
            cluster: CLUSTER,
            file_index: file_index as u32,
            file_bytes: SEGMENT_BYTES as u64,
        };
        header.emit(file.first_chunk_mut().expect("a file is longer"));
        let (chunks, _) = file.as_chunks_mut::<SECTOR_BYTES>();
        let mine = sectors.chunks(each).nth(file_index).unwrap_or_default();
        for (offset, &bytes) in mine.iter().take(room).enumerate() {
            let sector = &mut chunks[FIRST_SECTOR + offset];
            sector[..bytes.len()].copy_from_slice(bytes);
            if first & MENDED != 0 && sector[0] & AS_IT_IS == 0 && sector.iter().any(|&byte| byte != 0) {
                mend(sector, place(file_index as u32, FIRST_SECTOR + offset));
            }
        }
        file
    };
    (0..files_count).map(of_file).collect()
}

/// With this bit in the first byte, there is no file of the state, as in a log of format version 1; with the other one,
/// neither of its pages can be read. Otherwise it says that no state was ever set, so that the log's own counts.
const WITHOUT_STATE_FILE: u8 = 0x40;
const DAMAGED_STATE_FILE: u8 = 0x20;

/// A disk that holds them.
pub fn disk(files: &[Vec<u8>], first: u8) -> Disk {
    let mut disk = Disk::new(1);
    if first & WITHOUT_STATE_FILE == 0 {
        Wal::open(Box::new(disk.clone()), options()).expect("an empty disk");
    }
    if first & (WITHOUT_STATE_FILE | DAMAGED_STATE_FILE) == DAMAGED_STATE_FILE {
        disk.tamper("state", |bytes| bytes.fill(0xff));
    }
    for (file_index, bytes) in files.iter().enumerate() {
        put(&mut disk, &format!("segment-{file_index:04}"), bytes);
    }
    disk.copy()
}

/// Makes a file.
pub fn put(disk: &mut Disk, name: &str, bytes: &[u8]) {
    let file = disk.open(name, OpenFor::Create).expect("memory takes it");
    disk.write_at(file, 0, bytes).expect("memory takes it");
    disk.close(file);
}

/// An entry: slot, term, payload.
pub type Entry = (u64, u64, Vec<u8>);

/// Every entry that stands in the files under checksums that match, whether or not it counts.
pub fn entries_under_checksums(files: &[Vec<u8>]) -> BTreeSet<Entry> {
    let mut entries = BTreeSet::new();
    for (file_index, file) in files.iter().enumerate() {
        let (chunks, _) = file.as_chunks::<SECTOR_BYTES>();
        let judged: Vec<Sector> = chunks
            .iter()
            .enumerate()
            .map(|(sector, bytes)| Sector::parse(bytes, place(file_index as u32, sector)))
            .collect();
        for first in FIRST_SECTOR..chunks.len() {
            let Sector::Valid(head) = judged[first] else { continue };
            if head.index != 0 {
                continue;
            }
            let mut contents = Vec::new();
            for (index, sector) in (first..chunks.len()).take(usize::from(head.count)).enumerate() {
                match judged[sector] {
                    Sector::Valid(header) if header.lsn == head.lsn && usize::from(header.index) == index => {
                        if !header.has_copies {
                            contents.extend_from_slice(&chunks[sector][SECTOR_HEADER_BYTES..]);
                        }
                    }
                    _ => break,
                }
            }
            let mut records = Records::new(contents.get(COMMIT_HEADER_BYTES..).unwrap_or_default());
            while let Ok(Some((_, header, payload))) = records.next() {
                if header.kind == RecordKind::Append {
                    entries.insert((header.slot, header.term, payload.to_vec()));
                }
            }
        }
    }
    entries
}

/// What a log holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Contents {
    pub state: Option<Vec<u8>>,
    pub snapshot: Option<(u64, u64, Vec<u8>)>,
    pub entries: Vec<Entry>,
    pub damaged: Option<(u64, u64, u64)>,
}

/// Opens the log and reads it.
///
/// # Errors
/// It is refused.
pub fn open(disk: &Disk) -> Result<(Wal, Contents), WalError> {
    let mut wal = Wal::open(Box::new(disk.clone()), options())?;
    let contents = contents(&mut wal);
    Ok((wal, contents))
}

/// Reads what a log has recovered.
pub fn contents(wal: &mut Wal) -> Contents {
    let mut contents = Contents::default();
    let read = wal.recover(&mut |recovered| match recovered {
        Recovered::State(state) => contents.state = Some(state.to_vec()),
        Recovered::Snapshot { end, last_term, bytes } => {
            contents.snapshot = Some((end.0, last_term.0, bytes.to_vec()));
        }
        Recovered::Entry { slot, term, payload } => contents.entries.push((slot.0, term.0, payload.to_vec())),
        Recovered::Damaged { slot, end, last_term } => contents.damaged = Some((slot.0, end.0, last_term.0)),
    });
    read.expect("what could be opened can be read: memory does not fail");
    contents
}

/// A log of some commits, of the kinds that `steps` names a byte each; as the fuzzer's bytes.
pub fn seed(steps: &[u8]) -> Vec<u8> {
    let disk = Disk::new(1);
    let mut wal = Wal::open(Box::new(disk.clone()), options()).expect("an empty disk");
    for (number, step) in steps.iter().enumerate() {
        let number = number as u8;
        let done = match step {
            b'a' => wal.append(wal.end(), Term(1), &[number; 90]),
            b'A' => wal.append(wal.end(), Term(2), &[number; 1500]),
            b'o' => wal.append(Slot(wal.end().0.saturating_sub(2)), Term(3), &[number; 40]),
            b'v' => wal.set_state(&[number; 32]),
            b'i' | b'd' => wal.install(&Snapshot {
                end: wal.end(),
                last_term: Term(3),
                tail: if *step == b'i' { Tail::Keep } else { Tail::Drop },
                bytes: [number; 100][..].into(),
            }),
            _ => wal.sync(),
        };
        done.expect("it makes sense");
    }
    wal.sync().and_then(|()| wal.wait()).expect("memory takes it");
    let files: Vec<Vec<u8>> = (0..FILES_MAX)
        .map_while(|index| disk.file(&format!("segment-{index:04}")))
        .collect();
    let mut bytes = vec![files.len() as u8 - 1];
    let used = |file: &Vec<u8>| {
        file.iter()
            .rposition(|&byte| byte != 0)
            .map_or(0, |last| last / SECTOR_BYTES + 1)
    };
    let sectors = files.iter().map(used).max().unwrap_or(0).max(FIRST_SECTOR);
    for file in &files {
        let (chunks, _) = file[FIRST_SECTOR * SECTOR_BYTES..sectors * SECTOR_BYTES].as_chunks::<SECTOR_BYTES>();
        bytes.extend(chunks.iter().flatten());
    }
    bytes
}
