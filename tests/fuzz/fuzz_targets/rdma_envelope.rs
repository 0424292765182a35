//! Any bytes as an IPv4 packet from a raw socket and as a whole frame, and its ICRC: what came whole passes, one bit more or less of what is covered does
//! not, and what a router may change changes nothing.
#![no_main]

use dataplane_wire::internet::Addresses;
use libfuzzer_sys::fuzz_target;
use rdma::{
    roce::frame::{unpack, unpack_ipv4},
    wire::{Envelope, ICRC_BYTES, parse},
};

/// The BTH.
const COVERED_BYTES_MIN: usize = 12;
/// The BTH's byte with FECN and BECN.
const CONGESTION_BYTE: usize = 4;

fuzz_target!(|bytes: &[u8]| {
    let Some((&[high, low], packet)) = bytes.split_first_chunk::<2>() else {
        return;
    };
    for (envelope, datagram) in [unpack_ipv4(packet), unpack(packet)].into_iter().flatten() {
        let _ = (envelope.is_intact(datagram), parse(datagram));
        covers(&envelope, datagram, usize::from(u16::from_be_bytes([high, low])));
    }
});

fn covers(envelope: &Envelope, datagram: &[u8], bit: usize) {
    let Some((covered, _)) = datagram.split_last_chunk::<ICRC_BYTES>() else {
        return;
    };
    if covered.len() < COVERED_BYTES_MIN {
        assert!(!envelope.is_intact(datagram));
        return;
    }
    let mut signed = [covered, &envelope.icrc(covered)].concat();
    assert!(envelope.is_intact(&signed));
    let bit = bit % (8 * signed.len());
    signed[bit / 8] ^= 1 << (bit % 8);
    assert_eq!(envelope.is_intact(&signed), bit / 8 == CONGESTION_BYTE, "bit {bit}");
    let renamed = Envelope {
        identification: !envelope.identification,
        ..*envelope
    };
    signed[bit / 8] ^= 1 << (bit % 8);
    let is_covered = matches!(envelope.addresses, Addresses::V4 { .. });
    assert_eq!(
        renamed.is_intact(&signed),
        !is_covered,
        "IPv4's identification is covered"
    );
}
