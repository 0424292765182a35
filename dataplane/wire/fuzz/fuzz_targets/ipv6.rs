//! Any bytes through the IPv6 decoder; what it understands, the encoder writes again.
#![no_main]

use dataplane_wire::ipv6;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|packet: &[u8]| {
    let Ok(parsed) = ipv6::parse(packet) else { return };
    let mut again = vec![0xaa; ipv6::HEADER_BYTES];
    again.extend_from_slice(parsed.payload);
    ipv6::emit(&parsed.header, &mut again);
    assert_eq!(again, packet[..again.len()]);
});
