//! Frames for lesson 5: one that is ours, and those of others that must come through.

use std::net::Ipv4Addr;

use dataplane_wire::{
    datagram::{self, Header},
    ethernet::{self, Mac, Vlan},
    internet::Addresses,
    ipv4,
    udp::{self, Checksum},
};

/// The address that the lesson's programs guard.
pub const OUR_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// The port whose frames they drop.
pub const OUR_PORT: u16 = 4001;

/// Where the fields of an untagged frame stand whose IPv4 header has no options, from the frame's beginning.
pub mod at {
    use super::{ethernet, ipv4, udp};

    /// Two bytes.
    pub const ETHER_TYPE: i16 = ethernet::field::ETHER_TYPE.start as i16;
    /// One byte: version and header length, 0x45 without options.
    pub const VERSION_IHL: i16 = IP + ipv4::field::VERSION_IHL.start as i16;
    /// Two bytes: flags and offset; of a fragment some of the lower 14 bits are set.
    pub const FRAGMENT: i16 = IP + ipv4::field::FRAGMENT.start as i16;
    /// One byte, 17 for UDP.
    pub const PROTOCOL: i16 = IP + ipv4::field::PROTOCOL.start as i16;
    /// Four bytes.
    pub const DST_ADDRESS: i16 = IP + ipv4::field::DST.start as i16;
    /// Two bytes.
    pub const DST_PORT: i16 = UDP + udp::field::DST_PORT.start as i16;
    /// One beyond the last byte of the headers.
    pub const PAYLOAD: i16 = UDP + udp::HEADER_BYTES as i16;

    const IP: i16 = ethernet::HEADER_BYTES as i16;
    const UDP: i16 = IP + ipv4::HEADER_BYTES as i16;
}

const PAYLOAD_BYTES: usize = 64;

fn datagram(header: &Header) -> Vec<u8> {
    let mut frame = vec![0; header.len_bytes() + PAYLOAD_BYTES];
    datagram::emit(header, Checksum::Full, &mut frame);
    frame
}

/// From whom to whom our frames go.
fn header() -> Header {
    Header {
        dst_mac: Mac([2, 0, 0, 0, 0, 2]),
        src_mac: Mac([2, 0, 0, 0, 0, 1]),
        vlan: None,
        addresses: Addresses::V4 {
            src: Ipv4Addr::new(192, 0, 2, 1),
            dst: OUR_ADDRESS,
        },
        src_port: 40_000,
        dst_port: OUR_PORT,
    }
}

/// A UDP datagram to [`OUR_ADDRESS`] and [`OUR_PORT`].
pub fn ours() -> Vec<u8> {
    datagram(&header())
}

/// The same behind a VLAN tag, which moves everything after the MAC addresses by four bytes.
pub fn ours_tagged() -> Vec<u8> {
    datagram(&Header {
        vlan: Some(Vlan(7)),
        ..header()
    })
}

/// Frames of others, by name. Each looks like ours where a careless program looks.
pub fn of_others() -> Vec<(&'static str, Vec<u8>)> {
    let mut changed = Vec::new();
    let mut change = |name, at: i16, bytes: &[u8]| {
        let mut frame = ours();
        frame[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
        changed.push((name, frame));
    };
    // (Their checksums are left as they are: no program of the lesson looks at them.)
    change(
        "somebody's SSH session: TCP to a port of our number",
        at::PROTOCOL,
        &[6],
    );
    change(
        "ARP, with our port's number where the port would be",
        at::ETHER_TYPE,
        &[0x08, 0x06],
    );
    change(
        "IPv4 with options: what looks like the port is not",
        at::VERSION_IHL,
        &[0x46],
    );
    change(
        "the second fragment of a datagram: payload looks like the port",
        at::FRAGMENT,
        &[0x00, 0xb9],
    );
    change("another host's, flooded by a switch", at::DST_ADDRESS, &[192, 0, 2, 3]);
    change("UDP to another port", at::DST_PORT, &53_u16.to_be_bytes());
    changed
}

/// Every beginning of our frame that the kernel runs a program on, from the bare Ethernet header on; none has the whole of
/// the headers.
pub fn ours_cut() -> Vec<Vec<u8>> {
    let frame = ours();
    (ebpf_host::FRAME_BYTES_MIN..at::PAYLOAD as usize)
        .map(|len_bytes| frame[..len_bytes].to_vec())
        .collect()
}
