//! IPv6 (RFC 8200): the fixed header. Packets with extension headers are refused, so that everything behind the header
//! is the transport's.

use core::{net::Ipv6Addr, ops::Range};

use crate::Reject;

/// Where each field stands.
pub mod field {
    use super::Range;
    /// 4 bits of version, 8 of traffic class, 20 of flow label.
    pub const VERSION_CLASS_LABEL: Range<usize> = 0..4;
    /// Bytes after the header.
    pub const PAYLOAD_LEN: Range<usize> = 4..6;
    /// What the payload is.
    pub const NEXT_HEADER: Range<usize> = 6..7;
    /// Hop limit.
    pub const HOPS_LEFT: Range<usize> = 7..8;
    /// Sender.
    pub const SRC: Range<usize> = 8..24;
    /// Receiver.
    pub const DST: Range<usize> = 24..40;
}

/// Length of the header.
pub const HEADER_BYTES: usize = 40;
/// The largest flow label: 20 bits.
pub const FLOW_LABEL_MAX: u32 = 0xf_ffff;

/// The next-header number of a fragment (RFC 8200 §4.5).
const FRAGMENT: u8 = 44;
/// The other extension headers: hop-by-hop, routing, ESP, AH, destination options, mobility, HIP, shim6, and the two
/// for experiments (IANA, "IPv6 Extension Header Types").
const EXTENSIONS: [u8; 10] = [0, 43, 50, 51, 60, 135, 139, 140, 253, 254];

/// The header's fields, without those that `emit` derives (version, length).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Sender.
    pub src: Ipv6Addr,
    /// Receiver.
    pub dst: Ipv6Addr,
    /// What the payload is; [`crate::internet::PROTOCOL_UDP`]. Not an extension header.
    pub protocol: u8,
    /// How many routers it may still pass.
    pub hops_left: u8,
    /// Six bits of differentiated services, two of ECN.
    pub traffic_class: u8,
    /// At most [`FLOW_LABEL_MAX`].
    pub flow_label: u32,
}

/// A packet whose header made sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6<'a> {
    /// The header's fields.
    pub header: Header,
    /// The bytes that the payload length counts.
    pub payload: &'a [u8],
}

/// Parses a packet; bytes after its payload length are the link's padding and are left out.
///
/// # Errors
/// In this order: [`Reject::Short`], [`Reject::Version`], [`Reject::Fragment`], [`Reject::Kind`] (another extension
/// header, a jumbogram's among them).
pub fn parse(packet: &[u8]) -> Result<Ipv6<'_>, Reject> {
    let (head, rest) = packet.split_first_chunk::<HEADER_BYTES>().ok_or(Reject::Short)?;
    let first = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
    if first >> 28 != 6 {
        return Err(Reject::Version);
    }
    let payload_bytes = usize::from(u16::from_be_bytes([head[4], head[5]]));
    let payload = rest.get(..payload_bytes).ok_or(Reject::Short)?;
    let protocol = head[6];
    if protocol == FRAGMENT {
        return Err(Reject::Fragment);
    }
    if EXTENSIONS.contains(&protocol) {
        return Err(Reject::Kind);
    }
    let header = Header {
        src: address(head, field::SRC),
        dst: address(head, field::DST),
        protocol,
        hops_left: head[7],
        traffic_class: (first >> 20) as u8,
        flow_label: first & FLOW_LABEL_MAX,
    };
    Ok(Ipv6 { header, payload })
}

/// Writes the header in front of a payload that already stands at `packet[HEADER_BYTES..]`.
///
/// # Panics
/// If `packet` is shorter than the header, its payload longer than the 16-bit length can say, the flow label above
/// [`FLOW_LABEL_MAX`], or the protocol an extension header's.
pub fn emit(header: &Header, packet: &mut [u8]) {
    assert!(
        header.flow_label <= FLOW_LABEL_MAX,
        "the flow label {:#x} has more than 20 bits",
        header.flow_label
    );
    assert!(
        header.protocol != FRAGMENT && !EXTENSIONS.contains(&header.protocol),
        "protocol {} is an extension header",
        header.protocol
    );
    let payload_len = packet.len() - HEADER_BYTES;
    let payload_len = u16::try_from(payload_len).expect("the payload fits the 16-bit length field");
    let first = 6 << 28 | u32::from(header.traffic_class) << 20 | header.flow_label;
    packet[field::VERSION_CLASS_LABEL].copy_from_slice(&first.to_be_bytes());
    packet[field::PAYLOAD_LEN].copy_from_slice(&payload_len.to_be_bytes());
    packet[field::NEXT_HEADER.start] = header.protocol;
    packet[field::HOPS_LEFT.start] = header.hops_left;
    packet[field::SRC].copy_from_slice(&header.src.octets());
    packet[field::DST].copy_from_slice(&header.dst.octets());
}

fn address(head: &[u8; HEADER_BYTES], at: Range<usize>) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&head[at]);
    Ipv6Addr::from(octets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parse_undoes_emit(
            [src, dst]: [u128; 2], [protocol, hops_left, traffic_class]: [u8; 3], flow_label in 0..=FLOW_LABEL_MAX,
            payload in prop::collection::vec(any::<u8>(), 0..100), padding in 0usize..50,
        ) {
            let header = Header { src: src.into(), dst: dst.into(), protocol, hops_left, traffic_class, flow_label };
            prop_assume!(protocol != FRAGMENT && !EXTENSIONS.contains(&protocol));
            let mut packet = vec![0xaa; HEADER_BYTES];
            packet.extend_from_slice(&payload);
            emit(&header, &mut packet);
            for len in 0..packet.len() {
                prop_assert_eq!(parse(&packet[..len]), Err(Reject::Short));
            }
            packet.resize(packet.len() + padding, 0);
            prop_assert_eq!(parse(&packet), Ok(Ipv6 { header, payload: &payload }));
        }

        #[test]
        fn any_bytes_are_an_answer(packet in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse(&packet);
        }
    }

    #[test]
    fn every_extension_header_is_refused() {
        let mut packet = [0; HEADER_BYTES];
        packet[0] = 0x60;
        for protocol in EXTENSIONS {
            packet[field::NEXT_HEADER.start] = protocol;
            assert_eq!(parse(&packet), Err(Reject::Kind), "next header {protocol}");
        }
        packet[field::NEXT_HEADER.start] = FRAGMENT;
        assert_eq!(parse(&packet), Err(Reject::Fragment));
    }
}
