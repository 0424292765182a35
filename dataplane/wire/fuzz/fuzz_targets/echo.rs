//! Any bytes through the echo payload's decoder; what it understands, the encoder writes again.
#![no_main]

use dataplane_wire::echo;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|payload: &[u8]| {
    let Ok(parsed) = echo::parse(payload) else { return };
    let mut again = vec![0xaa; echo::PAYLOAD_BYTES_MIN + parsed.filler.len()];
    echo::emit(&parsed, &mut again);
    assert_eq!(again, payload);
});
