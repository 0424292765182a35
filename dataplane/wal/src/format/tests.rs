//! The layouts: what is written is read, and what was not written is not.

use proptest::prelude::*;

use super::{
    file::{FILE_CRC, FILE_VERSION, file_crc},
    *,
};

const PLACE: Place = Place {
    cluster: 7,
    file_index: 3,
    sector: 9,
};

fn sealed() -> [u8; SECTOR_BYTES] {
    let mut sector = [0x5a; SECTOR_BYTES];
    let header = SectorHeader {
        lsn: 41,
        index: 1,
        count: 3,
        has_copies: true,
    };
    seal_sector(&mut sector, header, PLACE);
    sector
}

#[test]
fn a_sector_is_valid_in_its_place_alone() {
    let sector = sealed();
    let Sector::Valid(header) = Sector::parse(&sector, PLACE) else {
        panic!("it was just written");
    };
    assert_eq!((header.lsn, header.index, header.count), (41, 1, 3));
    assert!(header.has_copies);
    let elsewhere = [
        Place { cluster: 8, ..PLACE },
        Place { file_index: 4, ..PLACE },
        Place { sector: 10, ..PLACE },
    ];
    for place in elsewhere {
        assert_eq!(Sector::parse(&sector, place), Sector::Damaged, "{place:?}");
    }
    assert_eq!(Sector::parse(&[0; SECTOR_BYTES], PLACE), Sector::Zero);
}

#[test]
fn every_flipped_bit_of_a_sector_is_seen() {
    let sector = sealed();
    for bit in 0..SECTOR_BYTES * 8 {
        let mut flipped = sector;
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(Sector::parse(&flipped, PLACE), Sector::Damaged, "bit {bit}");
    }
}

#[test]
fn every_flipped_bit_of_a_file_header_is_seen() {
    let header = FileHeader {
        cluster: 1,
        file_index: 2,
        file_bytes: 1 << 20,
    };
    let mut sector = [0; SECTOR_BYTES];
    header.emit(&mut sector);
    assert_eq!(FileHeader::parse(&sector), Ok(header));
    for bit in 0..SECTOR_BYTES * 8 {
        let mut flipped = sector;
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(FileHeader::parse(&flipped).is_err(), "bit {bit}");
    }
}

#[test]
fn a_newer_version_is_named() {
    let mut sector = [0; SECTOR_BYTES];
    FileHeader {
        cluster: 1,
        file_index: 2,
        file_bytes: 1 << 20,
    }
    .emit(&mut sector);
    sector[FILE_VERSION].copy_from_slice(&(VERSION + 1).to_be_bytes());
    let crc = file_crc(&sector);
    sector[FILE_CRC].copy_from_slice(&crc.to_be_bytes());
    let fault = FileHeader::parse(&sector).unwrap_err();
    assert_eq!(fault, HeaderFault::Version(VERSION + 1));
    assert!(
        fault.to_string().contains(&format!("format version {}", VERSION + 1)),
        "{fault}"
    );
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let mut records = Records::new(&bytes);
        while let Ok(Some((at_bytes, header, payload))) = records.next() {
            prop_assert!(at_bytes + RECORD_HEADER_BYTES + payload.len() <= bytes.len());
            prop_assert_eq!(header.payload_bytes as usize, payload.len());
        }
    }

    #[test]
    fn records_come_back(payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..8)) {
        let mut contents = Vec::new();
        for (index, payload) in payloads.iter().enumerate() {
            let header = RecordHeader {
                kind: RecordKind::Append,
                payload_bytes: payload.len() as u32,
                term: 5,
                slot: index as u64,
            };
            contents.extend_from_slice(&header.emit());
            contents.extend_from_slice(payload);
        }
        contents.resize(contents.len() + 37, 0);
        let mut records = Records::new(&contents);
        for (index, payload) in payloads.iter().enumerate() {
            let (_, header, read) = records.next().unwrap().unwrap();
            prop_assert_eq!(header.slot, index as u64);
            prop_assert_eq!(read, &payload[..]);
        }
        prop_assert_eq!(records.next(), Ok(None));
    }
}

#[test]
fn numbers_that_no_log_reaches_are_not_believed() {
    let header = |lsn| SectorHeader {
        lsn,
        index: 0,
        count: 1,
        has_copies: false,
    };
    for (lsn, is_valid) in [
        (0, false),
        (1, true),
        (NUMBER_MAX, true),
        (NUMBER_MAX + 1, false),
        (u64::MAX, false),
    ] {
        let mut sector = [1; SECTOR_BYTES];
        seal_sector(&mut sector, header(lsn), PLACE);
        let is_found = matches!(Sector::parse(&sector, PLACE), Sector::Valid(_));
        assert_eq!(is_found, is_valid, "commit {lsn}");
    }
    let record = |slot| RecordHeader {
        kind: RecordKind::Append,
        payload_bytes: 0,
        term: 1,
        slot,
    };
    assert!(RecordHeader::parse(&record(NUMBER_MAX).emit()).is_ok());
    let beyond = RecordHeader::parse(&record(NUMBER_MAX + 1).emit());
    assert_eq!(beyond, Err(RecordFault::Slot(NUMBER_MAX + 1)));
    let commit = CommitHeader {
        end: u64::MAX,
        begin: u64::MAX,
        cut_slot: u64::MAX,
        ..CommitHeader::default()
    };
    let mut bytes = [0; COMMIT_HEADER_BYTES];
    commit.emit(&mut bytes);
    let read = CommitHeader::parse(&bytes);
    assert_eq!(
        (read.end, read.begin, read.cut_slot),
        (NUMBER_MAX, NUMBER_MAX, NUMBER_MAX)
    );
}
