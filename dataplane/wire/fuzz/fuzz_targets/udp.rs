//! Any bytes through the UDP decoder, over both families; what it understands, the encoder writes again.
#![no_main]

use std::net::{Ipv4Addr, Ipv6Addr};

use dataplane_wire::{
    internet::{Addresses, PROTOCOL_UDP},
    udp::{self, Verify},
};
use libfuzzer_sys::fuzz_target;

const PAIRS: [Addresses; 2] = [
    Addresses::V4 {
        src: Ipv4Addr::new(192, 0, 2, 1),
        dst: Ipv4Addr::new(192, 0, 2, 2),
    },
    Addresses::V6 {
        src: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
        dst: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2),
    },
];

fuzz_target!(|bytes: &[u8]| {
    for addresses in PAIRS {
        hold(bytes, &addresses);
        // A fuzzer seldom guesses a checksum: mend it, so that it gets behind that check.
        let mut mended = bytes.to_vec();
        if let (Some(field), Ok(len_bytes)) = (mended.get_mut(udp::field::CHECKSUM), u32::try_from(bytes.len())) {
            field.fill(0);
            let sum = addresses.pseudo_header(PROTOCOL_UDP, len_bytes).with(&mended);
            let checksum = match sum.checksum() {
                0 => 0xffff,
                checksum => checksum,
            };
            mended[udp::field::CHECKSUM].copy_from_slice(&checksum.to_be_bytes());
            hold(&mended, &addresses);
        }
    }
});

fn hold(datagram: &[u8], addresses: &Addresses) {
    let unverified = udp::parse(datagram, addresses, Verify::Nothing);
    let Ok(parsed) = udp::parse(datagram, addresses, Verify::Checksum) else {
        return;
    };
    assert_eq!(unverified, Ok(parsed));
    let mut again = vec![0xaa; udp::HEADER_BYTES];
    again.extend_from_slice(parsed.payload);
    udp::emit(&parsed.header, addresses, parsed.checksum, &mut again);
    assert_eq!(again, datagram);
}
