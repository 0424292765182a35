//! Any words at any place of memory that a peer shares: packets are taken or are none.
#![no_main]

use std::{fs::OpenOptions, os::unix::fs::FileExt};

use libfuzzer_sys::fuzz_target;
use rdma::{
    PACKET_BYTES_MAX, Wire,
    shm::{ShmLink, ShmWire, Side},
};

/// Where side A's ring has its places: rdma/src/shm.rs, `LINE_BYTES`.
const CONSUMED: u64 = 128;
const HEADS: u64 = 256;
const HEAD_BYTES: u64 = 256;

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
        let at = match what {
            0..64 => CONSUMED,
            place => HEADS + u64::from(place - 64) * HEAD_BYTES,
        };
        file.write_all_at(words, at).expect("inside the link");
        if at == CONSUMED {
            // Whoever takes packets out believes its own index only when it begins.
            wire = ShmWire::new(2);
            wire.attach(1, &link, Side::B);
        }
        let received = wire.receive(64, &mut |_, packet| assert!(packet.payload.len() <= PACKET_BYTES_MAX));
        assert!(received.expect("memory does not fail") <= 64);
        rest = behind;
    }
});
