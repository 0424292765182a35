//! A RoCEv2 packet in a whole Ethernet frame: for wires that make their own headers, and read them.

use std::net::IpAddr;

use dataplane_wire::{
    Reject,
    datagram::{self, Header, Prepared},
    ethernet::{self, EtherType, Mac},
    internet::{Addresses, PROTOCOL_UDP},
    ipv4, ipv6,
    udp::{self, Checksum, Verify},
};

use crate::wire::{Envelope, ICRC_BYTES, UDP_PORT};

/// The most that a frame has beside the packet: its headers, without a tag, and the ICRC.
pub const FRAME_AROUND_BYTES_MAX: usize = datagram::IPV6_HEADER_BYTES + ICRC_BYTES;

/// A sender and a receiver of one family; `None` where they are of two.
pub fn addresses(src: IpAddr, dst: IpAddr) -> Option<Addresses> {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => Some(Addresses::V4 { src, dst }),
        (IpAddr::V6(src), IpAddr::V6(dst)) => Some(Addresses::V6 { src, dst }),
        _ => None,
    }
}

/// Where a queue pair's packets go, and what all of them have in front.
#[derive(Clone, Debug)]
pub struct FramePath {
    header: Header,
    envelope: Envelope,
    /// The headers of the last length: the next packet often has the same.
    prepared: Option<Prepared>,
}

impl FramePath {
    /// From one host to the other; each with the MAC address of its own or of the router to it.
    pub fn new(addresses: Addresses, [src_mac, dst_mac]: [Mac; 2], src_port: u16) -> FramePath {
        FramePath {
            header: Header {
                dst_mac,
                src_mac,
                vlan: None,
                addresses,
                src_port,
                dst_port: UDP_PORT,
            },
            // As `datagram::emit` writes them.
            envelope: Envelope {
                addresses,
                identification: 0,
                dont_fragment: true,
                src_port,
                dst_port: UDP_PORT,
            },
            prepared: None,
        }
    }

    /// How long a frame is with a packet of so many bytes, without its ICRC.
    pub fn frame_bytes(&self, packet_bytes: usize) -> usize {
        self.header.len_bytes() + packet_bytes + ICRC_BYTES
    }

    /// The UDP source port.
    pub fn source_port(&self) -> u16 {
        self.header.src_port
    }

    /// Writes the frame of `packet`, which has no ICRC yet. Over IPv4 UDP's checksum is left out: the ICRC says more.
    ///
    /// # Panics
    /// If `frame` is not [`FramePath::frame_bytes`] long, or as [`Envelope::icrc`].
    pub fn emit(&mut self, packet: &[u8], frame: &mut [u8]) {
        assert_eq!(
            frame.len(),
            self.frame_bytes(packet.len()),
            "a frame as long as its packet"
        );
        let (body, icrc) = frame[self.header.len_bytes()..].split_at_mut(packet.len());
        body.copy_from_slice(packet);
        icrc.copy_from_slice(&self.envelope.icrc(packet));
        let checksum = match self.header.addresses {
            Addresses::V4 { .. } => Checksum::None,
            Addresses::V6 { .. } => Checksum::Full,
        };
        match &self.prepared {
            Some(prepared) if prepared.is_for(&self.header, checksum, frame.len()) => prepared.emit(frame),
            _ => self.prepared = Some(Prepared::emit_first(&self.header, checksum, frame)),
        }
    }
}

/// A frame's RoCEv2 packet, ICRC included, and what it came in. Whether the ICRC is right, [`Envelope::is_intact`] says; UDP's
/// checksum, which may be left to a card, or left out, says less.
///
/// # Errors
/// What [`ethernet::parse`], [`ipv4::parse`] or [`ipv6::parse`], and [`udp::parse`] say; [`Reject::Kind`] for what is neither
/// IPv4 nor IPv6, for what is not UDP, and for a tagged frame; [`Reject::Length`] for IPv4 with options, which the ICRC's masked
/// header cannot have.
pub fn unpack(frame: &[u8]) -> Result<(Envelope, &[u8]), Reject> {
    let link = ethernet::parse(frame)?;
    match link.header.ether_type {
        _ if link.header.vlan.is_some() => Err(Reject::Kind),
        EtherType::IPV4 => unpack_ipv4(link.payload),
        EtherType::IPV6 => {
            let ip = ipv6::parse(link.payload)?;
            let addresses = Addresses::V6 {
                src: ip.header.src,
                dst: ip.header.dst,
            };
            unpack_udp(ip.header.protocol, addresses, (0, true), ip.payload)
        }
        _ => Err(Reject::Kind),
    }
}

/// [`unpack`] for an IPv4 packet without a frame around it.
pub fn unpack_ipv4(packet: &[u8]) -> Result<(Envelope, &[u8]), Reject> {
    let ip = ipv4::parse(packet)?;
    if !ip.options.is_empty() {
        return Err(Reject::Length);
    }
    let addresses = Addresses::V4 {
        src: ip.header.src,
        dst: ip.header.dst,
    };
    let flags = (ip.header.identification, ip.header.dont_fragment);
    unpack_udp(ip.header.protocol, addresses, flags, ip.payload)
}

fn unpack_udp(
    protocol: u8,
    addresses: Addresses,
    (identification, dont_fragment): (u16, bool),
    segment: &[u8],
) -> Result<(Envelope, &[u8]), Reject> {
    if protocol != PROTOCOL_UDP {
        return Err(Reject::Kind);
    }
    let udp = udp::parse(segment, &addresses, Verify::Nothing)?;
    let envelope = Envelope {
        addresses,
        identification,
        dont_fragment,
        src_port: udp.header.src_port,
        dst_port: udp.header.dst_port,
    };
    Ok((envelope, udp.payload))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;
    use crate::wire::{Bth, Headers, Opcode, Psn, QpNumber, emit, parse};

    const MACS: [Mac; 2] = [Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2])];
    const FAMILIES: [Addresses; 2] = [
        Addresses::V4 {
            src: Ipv4Addr::new(10, 0, 0, 1),
            dst: Ipv4Addr::new(10, 0, 0, 2),
        },
        Addresses::V6 {
            src: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1),
            dst: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2),
        },
    ];

    fn packet(payload_bytes: usize) -> Vec<u8> {
        let mut packet = vec![0; 2048];
        let bth = Bth::new(QpNumber::new(17), Psn::new(5));
        let fill = |payload: &mut [u8]| payload.fill(0x5a);
        let len = emit(Opcode::SendOnly, &bth, &Headers::None, payload_bytes, &mut packet, fill);
        packet.truncate(len);
        packet
    }

    #[test]
    fn what_is_packed_is_unpacked_intact() {
        for addresses in FAMILIES {
            let mut path = FramePath::new(addresses, MACS, 0xc123);
            // The second of a length has the headers of the first.
            for payload_bytes in [0, 1, 64, 64, 1024] {
                let packet = packet(payload_bytes);
                let mut frame = vec![0; path.frame_bytes(packet.len())];
                path.emit(&packet, &mut frame);
                let (envelope, datagram) = unpack(&frame).expect("our own frame");
                assert!(envelope.is_intact(datagram), "{addresses:?}, {payload_bytes} bytes");
                assert_eq!(&datagram[..packet.len()], packet);
                assert_eq!(parse(datagram).expect("our own packet").payload.len(), payload_bytes);
                assert_eq!((envelope.src_port, envelope.dst_port), (0xc123, UDP_PORT));
                // What routers change is not covered, what they leave is.
                let ip = &mut frame[ethernet::HEADER_BYTES..];
                match addresses {
                    Addresses::V4 { .. } => {
                        let mut header = ipv4::parse(ip).expect("IPv4").header;
                        header.hops_left -= 1;
                        ipv4::emit(&header, &[], ip);
                    }
                    Addresses::V6 { .. } => ip[ipv6::field::HOPS_LEFT.start] -= 1,
                }
                let (envelope, datagram) = unpack(&frame).expect("one hop on");
                assert!(envelope.is_intact(datagram));
                let last = frame.len() - ICRC_BYTES - 1;
                frame[last] ^= 1;
                let (envelope, datagram) = unpack(&frame).expect("still a packet");
                assert!(!envelope.is_intact(datagram));
            }
        }
    }

    #[test]
    fn a_tag_another_protocol_and_options_are_refused() {
        let mut path = FramePath::new(FAMILIES[0], MACS, 0xc000);
        let packet = packet(8);
        let mut frame = vec![0; path.frame_bytes(packet.len())];
        path.emit(&packet, &mut frame);
        let mut arp = frame.clone();
        arp[12..14].copy_from_slice(&0x0806u16.to_be_bytes());
        assert_eq!(unpack(&arp).map(|_| ()), Err(Reject::Kind));
        let mut tagged = frame.clone();
        tagged.splice(12..12, [0x81, 0, 0, 7]);
        assert_eq!(unpack(&tagged).map(|_| ()), Err(Reject::Kind));
        assert_eq!(unpack(&frame[..13]).map(|_| ()), Err(Reject::Short));
    }
}
