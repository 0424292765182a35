//! Any words at any place of memory that a peer shares: packets are taken or are none, and a ring that is garbled says so.
#![no_main]

use std::{fs::OpenOptions, os::unix::fs::FileExt};

use libfuzzer_sys::fuzz_target;
use rdma::{
    PACKET_BYTES_MAX, Wire,
    shm::{ShmLink, ShmWire, Side},
};

/// Where side A's ring has its indices and slots: rdma/src/shm.rs, `LINE_BYTES`.
const PRODUCED: u64 = 128;
const CONSUMED: u64 = 256;
const SLOTS: u64 = 384;

fuzz_target!(|bytes: &[u8]| {
    let Ok(link) = ShmLink::create() else {
        return;
    };
    let path = link.path_for(std::process::id());
    let file = OpenOptions::new().write(true).open(path).expect("a memfd of ours");
    let mut wire = ShmWire::new(2);
    wire.attach(1, &link, Side::B);
    let mut rest = bytes;
    while let Some((&[what, len], behind)) = rest.split_first_chunk::<2>() {
        let (words, behind) = behind.split_at(behind.len().min(len.into()));
        let slot_bytes = 8 + PACKET_BYTES_MAX.next_multiple_of(8) as u64;
        let at = match what {
            0..64 => PRODUCED,
            64..96 => CONSUMED,
            place => SLOTS + u64::from(place - 96) * slot_bytes,
        };
        file.write_all_at(words, at).expect("inside the link");
        let received = wire.receive(64, &mut |_, packet| assert!(packet.payload.len() <= PACKET_BYTES_MAX));
        if let Ok(count) = received {
            assert!(count <= 64);
        }
        rest = behind;
    }
});
