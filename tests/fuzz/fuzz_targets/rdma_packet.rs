//! Any bytes as a RoCEv2 packet; what is understood and said again says the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rdma::wire::{HEADERS_BYTES_MAX, ICRC_BYTES, emit, parse};

fuzz_target!(|datagram: &[u8]| {
    let Ok(packet) = parse(datagram) else {
        return;
    };
    let payload = packet.payload;
    let mut again = vec![0; HEADERS_BYTES_MAX + payload.len() + 3 + ICRC_BYTES];
    let end = emit(
        packet.opcode,
        &packet.bth,
        &packet.headers,
        payload.len(),
        &mut again,
        |into| {
            into.copy_from_slice(payload);
        },
    );
    assert_eq!(end + ICRC_BYTES, datagram.len());
    assert_eq!(parse(&again[..end + ICRC_BYTES]), Ok(packet));
});
