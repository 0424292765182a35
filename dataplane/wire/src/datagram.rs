//! Ethernet, IP and UDP around a payload, in one step and in place: what a port that speaks raw Ethernet adds and strips.
//!
//! ```text
//!  +----------+-----------+-----+--------------------
//!  | Ethernet | IPv4 / v6 | UDP | payload (our frame)
//!  +----------+-----------+-----+--------------------
//!  0                            Header::len_bytes()
//! ```

use core::ops::Range;

use crate::{
    Reject,
    ethernet::{self, EtherType, Mac, Vlan},
    internet::{Addresses, PROTOCOL_UDP, Sum},
    ipv4, ipv6,
    udp::{self, Checksum, Verify},
};

/// The longest of the headers that [`emit`] writes: a tag and IPv6.
pub const HEADER_BYTES_MAX: usize = ethernet::TAGGED_HEADER_BYTES + ipv6::HEADER_BYTES + udp::HEADER_BYTES;
/// The headers over IPv4, without a tag.
pub const IPV4_HEADER_BYTES: usize = ethernet::HEADER_BYTES + ipv4::HEADER_BYTES + udp::HEADER_BYTES;
/// The headers over IPv6, without a tag.
pub const IPV6_HEADER_BYTES: usize = ethernet::HEADER_BYTES + ipv6::HEADER_BYTES + udp::HEADER_BYTES;

/// The number of hops that Linux starts with (net.ipv4.ip_default_ttl).
pub const HOPS_LEFT_DEFAULT: u8 = 64;

/// From whom to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The next station.
    pub dst_mac: Mac,
    /// This station.
    pub src_mac: Mac,
    /// The VLAN tag, if the frame carries one. (The kernel hands it to packet sockets beside the frame, not inside.)
    pub vlan: Option<Vlan>,
    /// The hosts.
    pub addresses: Addresses,
    /// The sender's port.
    pub src_port: u16,
    /// The receiver's port.
    pub dst_port: u16,
}

impl Header {
    /// How long the three headers are that [`emit`] writes: the payload starts here.
    pub const fn len_bytes(&self) -> usize {
        let ethernet = match self.vlan {
            Some(_) => ethernet::TAGGED_HEADER_BYTES,
            None => ethernet::HEADER_BYTES,
        };
        match self.addresses {
            Addresses::V4 { .. } => ethernet + ipv4::HEADER_BYTES + udp::HEADER_BYTES,
            Addresses::V6 { .. } => ethernet + ipv6::HEADER_BYTES + udp::HEADER_BYTES,
        }
    }

    /// The way back: what a reply carries.
    pub const fn reversed(self) -> Header {
        Header {
            dst_mac: self.src_mac,
            src_mac: self.dst_mac,
            vlan: self.vlan,
            addresses: self.addresses.reversed(),
            src_port: self.dst_port,
            dst_port: self.src_port,
        }
    }
}

/// A UDP datagram in an Ethernet frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// From whom to whom.
    pub header: Header,
    /// Where the payload stands in the frame.
    pub payload: Range<usize>,
}

/// Parses an Ethernet frame that carries UDP. IPv4 options are skipped; padding behind the packet is left out.
///
/// # Errors
/// What [`ethernet::parse`], [`ipv4::parse`] or [`ipv6::parse`], and [`udp::parse`] say; [`Reject::Kind`] for what is
/// neither IPv4 nor IPv6, and for what is not UDP.
pub fn parse(frame: &[u8], verify: Verify) -> Result<Datagram, Reject> {
    let link = ethernet::parse(frame)?;
    let (addresses, protocol, ip_header_bytes, segment) = match link.header.ether_type {
        EtherType::IPV4 => {
            let packet = ipv4::parse(link.payload)?;
            let addresses = Addresses::V4 {
                src: packet.header.src,
                dst: packet.header.dst,
            };
            let header_bytes = ipv4::HEADER_BYTES + packet.options.len();
            (addresses, packet.header.protocol, header_bytes, packet.payload)
        }
        EtherType::IPV6 => {
            let packet = ipv6::parse(link.payload)?;
            let addresses = Addresses::V6 {
                src: packet.header.src,
                dst: packet.header.dst,
            };
            (addresses, packet.header.protocol, ipv6::HEADER_BYTES, packet.payload)
        }
        _ => return Err(Reject::Kind),
    };
    if protocol != PROTOCOL_UDP {
        return Err(Reject::Kind);
    }
    let segment = udp::parse(segment, &addresses, verify)?;
    let start = link.header.len_bytes() + ip_header_bytes + udp::HEADER_BYTES;
    let header = Header {
        dst_mac: link.header.dst,
        src_mac: link.header.src,
        vlan: link.header.vlan,
        addresses,
        src_port: segment.header.src_port,
        dst_port: segment.header.dst_port,
    };
    Ok(Datagram {
        header,
        payload: start..start + segment.payload.len(),
    })
}

/// Writes the three headers in front of a payload that already stands at `frame[header.len_bytes()..]`.
///
/// The frame is not padded to Ethernet's 60 bytes; drivers do that. `Checksum::None` leaves UDP's out (IPv4 only).
///
/// # Panics
/// If `frame` is shorter than the headers, its payload longer than IP's 16-bit length can say, or without a checksum
/// over IPv6.
pub fn emit(header: &Header, checksum: Checksum, frame: &mut [u8]) {
    let (ether_type, ip_header_bytes) = match header.addresses {
        Addresses::V4 { .. } => (EtherType::IPV4, ipv4::HEADER_BYTES),
        Addresses::V6 { .. } => (EtherType::IPV6, ipv6::HEADER_BYTES),
    };
    let link = ethernet::Header {
        dst: header.dst_mac,
        src: header.src_mac,
        vlan: header.vlan,
        ether_type,
    };
    ethernet::emit(&link, frame);

    let packet = &mut frame[link.len_bytes()..];
    let ports = udp::Header {
        src_port: header.src_port,
        dst_port: header.dst_port,
    };
    udp::emit(&ports, &header.addresses, checksum, &mut packet[ip_header_bytes..]);
    match header.addresses {
        Addresses::V4 { src, dst } => {
            let header = ipv4::Header {
                src,
                dst,
                protocol: PROTOCOL_UDP,
                hops_left: HOPS_LEFT_DEFAULT,
                traffic_class: 0,
                identification: 0,
                dont_fragment: true,
            };
            ipv4::emit(&header, &[], packet);
        }
        Addresses::V6 { src, dst } => {
            let header = ipv6::Header {
                src,
                dst,
                protocol: PROTOCOL_UDP,
                hops_left: HOPS_LEFT_DEFAULT,
                traffic_class: 0,
                flow_label: 0,
            };
            ipv6::emit(&header, packet);
        }
    }
}

/// The headers of frames of one length from one sender to one receiver. All that differs between them is the checksum of the
/// payload: who sends many of them writes the rest once and copies it.
#[derive(Clone, Debug)]
pub struct Prepared {
    header: Header,
    checksum: Checksum,
    frame_bytes: usize,
    bytes: [u8; HEADER_BYTES_MAX],
    /// Of the pseudo header and the UDP header.
    sum: Sum,
}

impl Prepared {
    /// Writes the headers of a first frame, as [`emit`] does, and keeps them.
    ///
    /// # Panics
    /// As [`emit`].
    pub fn emit_first(header: &Header, checksum: Checksum, frame: &mut [u8]) -> Prepared {
        emit(header, checksum, frame);
        let len_bytes = header.len_bytes();
        let mut bytes = [0; HEADER_BYTES_MAX];
        bytes[..len_bytes].copy_from_slice(&frame[..len_bytes]);
        let udp_start = len_bytes - udp::HEADER_BYTES;
        let mut ports = [0; udp::HEADER_BYTES];
        ports.copy_from_slice(&bytes[udp_start..len_bytes]);
        ports[udp::field::CHECKSUM].fill(0);
        let datagram_bytes = (frame.len() - udp_start) as u32;
        Prepared {
            header: *header,
            checksum,
            frame_bytes: frame.len(),
            bytes,
            sum: header
                .addresses
                .pseudo_header(PROTOCOL_UDP, datagram_bytes)
                .with(&ports),
        }
    }

    /// Are these the headers of such a frame?
    pub fn is_for(&self, header: &Header, checksum: Checksum, frame_bytes: usize) -> bool {
        self.frame_bytes == frame_bytes && self.checksum == checksum && self.header == *header
    }

    /// Writes the headers into a further frame, whose payload stands already in its place.
    ///
    /// # Panics
    /// If `frame` has another length than the first.
    pub fn emit(&self, frame: &mut [u8]) {
        assert_eq!(frame.len(), self.frame_bytes, "the headers say how long the frame is");
        let (head, payload) = frame.split_at_mut(self.header.len_bytes());
        match (head.first_chunk_mut::<IPV4_HEADER_BYTES>(), self.bytes.first_chunk()) {
            // A copy of a length that the compiler knows.
            (Some(to), Some(from)) if self.header.len_bytes() == IPV4_HEADER_BYTES => *to = *from,
            _ => head.copy_from_slice(&self.bytes[..self.header.len_bytes()]),
        }
        if self.checksum == Checksum::Full {
            let udp_start = head.len() - udp::HEADER_BYTES;
            let field = udp::checksum_field(self.sum.with(payload));
            head[udp_start..][udp::field::CHECKSUM].copy_from_slice(&field);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers() -> impl Strategy<Value = Header> {
        let addresses = prop_oneof![
            (any::<u32>(), any::<u32>()).prop_map(|(src, dst)| Addresses::V4 {
                src: src.into(),
                dst: dst.into()
            }),
            (any::<u128>(), any::<u128>()).prop_map(|(src, dst)| Addresses::V6 {
                src: src.into(),
                dst: dst.into()
            }),
        ];
        let vlan = any::<Option<u16>>().prop_map(|tci| tci.map(Vlan));
        (any::<[u8; 6]>(), any::<[u8; 6]>(), vlan, addresses, any::<[u16; 2]>()).prop_map(
            |(dst_mac, src_mac, vlan, addresses, [src_port, dst_port])| Header {
                dst_mac: Mac(dst_mac),
                src_mac: Mac(src_mac),
                vlan,
                addresses,
                src_port,
                dst_port,
            },
        )
    }

    proptest! {
        #[test]
        fn parse_undoes_emit(header in headers(), payload in prop::collection::vec(any::<u8>(), 0..300), padding in 0usize..50) {
            let start = header.len_bytes();
            let mut frame = vec![0xaa; start];
            frame.extend_from_slice(&payload);
            emit(&header, Checksum::Full, &mut frame);
            frame.resize(frame.len() + padding, 0);
            let parsed = parse(&frame, Verify::Checksum);
            prop_assert_eq!(parsed, Ok(Datagram { header, payload: start..start + payload.len() }));
        }

        #[test]
        fn prepared_headers_are_those_of_emit(
            header in headers(), payloads in prop::collection::vec(any::<[u8; 31]>(), 2..5), is_full: bool, len in 0usize..=31,
        ) {
            let checksum = if is_full { Checksum::Full } else { Checksum::Partial };
            let mut prepared: Option<Prepared> = None;
            for payload in payloads {
                let mut frame = vec![0xaa; header.len_bytes()];
                frame.extend_from_slice(&payload[..len]);
                let mut again = frame.clone();
                emit(&header, checksum, &mut frame);
                match &prepared {
                    Some(prepared) => {
                        prop_assert!(prepared.is_for(&header, checksum, again.len()));
                        prop_assert!(!prepared.is_for(&header.reversed(), checksum, again.len()) || header == header.reversed());
                        prop_assert!(!prepared.is_for(&header, checksum, again.len() + 1));
                        prepared.emit(&mut again);
                    }
                    None => prepared = Some(Prepared::emit_first(&header, checksum, &mut again)),
                }
                prop_assert_eq!(&frame, &again);
            }
        }

        #[test]
        fn any_bytes_are_an_answer(frame in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&frame, Verify::Checksum);
            let _ = parse(&frame, Verify::Nothing);
        }

        #[test]
        fn a_flipped_bit_behind_the_ethernet_header_never_changes_the_payload_unseen(
            header in headers(), payload in prop::collection::vec(any::<u8>(), 1..100), bit: prop::sample::Index,
        ) {
            let start = header.len_bytes();
            let mut frame = vec![0; start];
            frame.extend_from_slice(&payload);
            emit(&header, Checksum::Full, &mut frame);
            let bit = start * 8 + bit.index(payload.len() * 8);
            frame[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(parse(&frame, Verify::Checksum), Err(Reject::PayloadChecksum));
            prop_assert!(parse(&frame, Verify::Nothing).is_ok());
        }
    }
}
