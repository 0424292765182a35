//! Any bytes through the Ethernet decoder; what it understands, the encoder writes again.
#![no_main]

use dataplane_wire::ethernet;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|frame: &[u8]| {
    let Ok(parsed) = ethernet::parse(frame) else { return };
    let mut again = vec![0xaa; parsed.header.len_bytes()];
    again.extend_from_slice(parsed.payload);
    ethernet::emit(&parsed.header, &mut again);
    assert_eq!(again, frame);
});
