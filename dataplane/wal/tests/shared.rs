//! Several threads on one log: each is told its slot, and every entry is there afterwards.
#![forbid(unsafe_code)]

mod support;

use std::{collections::BTreeMap, thread};

use dataplane_waist::Term;
use dataplane_wal::{
    SharedWal,
    testing::{Disk, Fault, Faulty},
};
use support::{contents, open};

#[test]
fn every_entry_is_where_its_writer_was_told() {
    let disk = Disk::new(1);
    let shared = SharedWal::new(open(disk.clone()).unwrap(), Term(3));
    let writers: Vec<_> = (0..8u8)
        .map(|writer| {
            let shared = shared.clone();
            thread::spawn(move || {
                (0..100u8)
                    .map(|number| {
                        (
                            shared.append_durable(&[writer, number]).unwrap().0,
                            vec![writer, number],
                        )
                    })
                    .collect::<Vec<_>>()
            })
        })
        .collect();
    let told: BTreeMap<u64, Vec<u8>> = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
    assert_eq!(told.len(), 800);
    let stats = shared.stats();
    assert_eq!(stats.entries_count, 800);
    assert!(stats.commits_count <= 800);
    drop(shared);
    let found = contents(&mut open(disk).unwrap()).unwrap();
    let found: BTreeMap<u64, Vec<u8>> = found
        .entries
        .into_iter()
        .map(|(slot, _, payload)| (slot, payload))
        .collect();
    assert_eq!(found, told);
}

#[test]
fn a_failure_reaches_every_writer() {
    let fault = Fault {
        at_call: 60,
        errno: libc::EIO,
        lasts: false,
    };
    let shared = SharedWal::new(open(Faulty::new(Disk::new(1), Some(fault))).unwrap(), Term(1));
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let shared = shared.clone();
            thread::spawn(move || (0..1000).find_map(|_| shared.append_durable(b"entry").err()))
        })
        .collect();
    for writer in writers {
        let error = writer
            .join()
            .unwrap()
            .expect("the disk fails before a thousand entries");
        assert!(error.to_string().contains("never tried again"), "{error}");
    }
}
