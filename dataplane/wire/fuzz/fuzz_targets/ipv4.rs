//! Any bytes through the IPv4 decoder; what it understands, the encoder writes again.
#![no_main]

use dataplane_wire::{internet::Sum, ipv4};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    hold(bytes);
    // A fuzzer seldom guesses a checksum: mend it, so that it gets behind that check.
    let mut mended = bytes.to_vec();
    let header_bytes = mended.first().map_or(0, |first| usize::from(first & 0x0f) * 4);
    if let Some(header) = mended.get_mut(..header_bytes.max(ipv4::HEADER_BYTES)) {
        header[ipv4::field::CHECKSUM].fill(0);
        let checksum = Sum::ZERO.with(header).checksum();
        header[ipv4::field::CHECKSUM].copy_from_slice(&checksum.to_be_bytes());
        hold(&mended);
    }
});

fn hold(packet: &[u8]) {
    let Ok(parsed) = ipv4::parse(packet) else { return };
    let mut again = vec![0xaa; ipv4::HEADER_BYTES + parsed.options.len()];
    again.extend_from_slice(parsed.payload);
    ipv4::emit(&parsed.header, parsed.options, &mut again);
    // The other zero (RFC 1624 §5) is understood, but not sent.
    let mut packet = packet[..again.len()].to_vec();
    if packet[ipv4::field::CHECKSUM] == [0xff, 0xff] {
        packet[ipv4::field::CHECKSUM].fill(0);
    }
    assert_eq!(again, packet);
}
