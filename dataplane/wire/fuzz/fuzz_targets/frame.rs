//! Any bytes through our own frame's decoder; what it understands, the encoder writes again.
#![no_main]

use dataplane_wire::{
    checksum::crc32c,
    frame::{self, HEADER_BYTES, field},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    hold(bytes);
    // A fuzzer does not guess two checksums: mend them, so that it gets behind those checks.
    let mut mended = bytes.to_vec();
    if let Some((head, payload)) = mended.split_at_mut_checked(HEADER_BYTES) {
        head[field::MAGIC].copy_from_slice(&frame::MAGIC);
        head[field::PAYLOAD_CRC].copy_from_slice(&crc32c(payload).to_be_bytes());
        let header_crc = crc32c(&head[..field::HEADER_CRC.start]);
        head[field::HEADER_CRC].copy_from_slice(&header_crc.to_be_bytes());
        hold(&mended);
    }
});

fn hold(bytes: &[u8]) {
    let Ok(parsed) = frame::parse(bytes) else { return };
    let mut again = vec![0xaa; HEADER_BYTES];
    again.extend_from_slice(parsed.payload);
    frame::emit(&parsed.header, &mut again);
    assert_eq!(again, bytes);
}
