//! Any bytes through Ethernet, IP and UDP at once; what is understood and written again says the same.
#![no_main]

use dataplane_wire::{
    datagram::{self, Datagram},
    ethernet,
    internet::Sum,
    ipv4,
    udp::{Checksum, Verify},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    hold(bytes);
    // A fuzzer seldom guesses a checksum: mend IPv4's, so that it gets to UDP.
    let mut mended = bytes.to_vec();
    if let Ok(link) = ethernet::parse(bytes)
        && let Some(&first) = link.payload.first()
    {
        let start = link.header.len_bytes();
        let header_bytes = (usize::from(first & 0x0f) * 4).max(ipv4::HEADER_BYTES);
        if let Some(header) = mended.get_mut(start..start + header_bytes) {
            header[ipv4::field::CHECKSUM].fill(0);
            let checksum = Sum::ZERO.with(header).checksum();
            header[ipv4::field::CHECKSUM].copy_from_slice(&checksum.to_be_bytes());
            hold(&mended);
        }
    }
});

fn hold(frame: &[u8]) {
    // Without verification too, because a fuzzer seldom guesses a checksum.
    let unverified = datagram::parse(frame, Verify::Nothing);
    if let Ok(verified) = datagram::parse(frame, Verify::Checksum) {
        assert_eq!(unverified.as_ref(), Ok(&verified));
    }
    let Ok(Datagram { header, payload }) = unverified else {
        return;
    };
    // Options, padding, hops and the like are not sent again, so the bytes may differ; their meaning may not.
    let start = header.len_bytes();
    let mut again = vec![0xaa; start];
    again.extend_from_slice(&frame[payload]);
    datagram::emit(&header, Checksum::Full, &mut again);
    let parsed = datagram::parse(&again, Verify::Checksum).expect("what emit writes is understood");
    assert_eq!(parsed.header, header);
    assert_eq!(parsed.payload, start..again.len());
}
