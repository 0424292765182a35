//! What a switch reads and writes of a frame: addresses, congestion marks, and where the payload begins.
//!
//! It looks no further than it must and verifies nothing: a damaged packet is its receiver's to refuse.

use dataplane_queue::Ecn;
use dataplane_wire::{
    ethernet::{self, Mac},
    internet::{PROTOCOL_UDP, updated},
};

/// IPv4 (RFC 791) and IPv6 (RFC 8200) as EtherTypes.
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// TCP's number in the same fields (RFC 9293).
const PROTOCOL_TCP: u8 = 6;
/// Of the two bits of ECN (RFC 3168, section 5).
const ECN_MASK: u8 = 0b11;
const CE: u8 = 0b11;

/// A frame as a switch sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// To whom.
    pub dst: Mac,
    /// From whom.
    pub src: Mac,
    /// The tag's priority, 0 without one (IEEE 802.1Q).
    pub priority: u8,
    /// What the IP header says of congestion; not capable where there is none.
    pub ecn: Ecn,
    /// The same for all frames of a flow: of addresses, protocol and ports, as far as they are there.
    pub flow_hash: u32,
    /// Headers up to UDP's end where the payload can be cut off; 0 where it cannot.
    pub trimmed_bytes: u32,
}

/// Which IP header there is, and from which byte on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Internet {
    V4(usize),
    V6(usize),
}

impl Headers {
    /// `None`: shorter than an Ethernet header.
    pub fn read(frame: &[u8]) -> Option<Headers> {
        let head = frame.first_chunk::<{ ethernet::HEADER_BYTES }>()?;
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, ..] = *head;
        let mut headers = Headers {
            dst: Mac([d0, d1, d2, d3, d4, d5]),
            src: Mac([s0, s1, s2, s3, s4, s5]),
            priority: 0,
            ecn: Ecn::NotCapable,
            flow_hash: 0,
            trimmed_bytes: 0,
        };
        if let Some(tag) = tag_of(frame) {
            headers.priority = tag >> 5;
        }
        match internet_of(frame) {
            Some(Internet::V4(at)) => headers.read_ipv4(&frame[at..], at),
            Some(Internet::V6(at)) => headers.read_ipv6(&frame[at..], at),
            None => headers.flow_hash = hash(&head[..12]),
        }
        Some(headers)
    }

    fn read_ipv4(&mut self, packet: &[u8], at: usize) {
        self.ecn = ecn_of(packet[1]);
        let header_bytes = usize::from(packet[0] & 0xf) * 4;
        // Of a later fragment the ports are not there, so none of the packet's fragments counts them.
        let is_fragment = u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff != 0;
        let protocol = packet[9];
        let behind = packet
            .get(header_bytes..)
            .filter(|_| header_bytes >= 20 && !is_fragment);
        self.read_ports(&packet[12..20], protocol, behind, at + header_bytes);
    }

    fn read_ipv6(&mut self, packet: &[u8], at: usize) {
        self.ecn = ecn_of(packet[1] >> 4);
        self.read_ports(&packet[8..40], packet[6], packet.get(40..), at + 40);
    }

    fn read_ports(&mut self, addresses: &[u8], protocol: u8, behind: Option<&[u8]>, at: usize) {
        let ports = match (protocol, behind) {
            (PROTOCOL_TCP | PROTOCOL_UDP, Some([a, b, c, d, ..])) => [*a, *b, *c, *d],
            _ => [0; 4],
        };
        self.flow_hash = hash(addresses) ^ mix(u32::from_be_bytes(ports) ^ u32::from(protocol));
        if protocol == PROTOCOL_UDP && behind.is_some_and(|behind| behind.len() > 8) {
            self.trimmed_bytes = (at + 8) as u32;
        }
    }
}

/// Writes "congestion experienced" into the IP header, and mends its checksum. No, if there is no IP
/// header whose sender would react.
pub fn mark(frame: &mut [u8]) -> bool {
    match internet_of(frame) {
        Some(Internet::V4(at)) => {
            let packet = &mut frame[at..];
            if ecn_of(packet[1]) != Ecn::Capable {
                return false;
            }
            let old = u16::from_be_bytes([packet[0], packet[1]]);
            packet[1] |= CE;
            let new = u16::from_be_bytes([packet[0], packet[1]]);
            let checksum = updated(u16::from_be_bytes([packet[10], packet[11]]), old, new);
            packet[10..12].copy_from_slice(&checksum.to_be_bytes());
            true
        }
        Some(Internet::V6(at)) => {
            let packet = &mut frame[at..];
            let is_capable = ecn_of(packet[1] >> 4) == Ecn::Capable;
            if is_capable {
                packet[1] |= CE << 4;
            }
            is_capable
        }
        None => false,
    }
}

/// Cuts a UDP datagram's payload off: lengths are mended, and the checksum is left out where that is allowed. How long the
/// frame is then; `None`, if there is nothing to be cut, or it is no UDP over IPv4: IPv6 does not do without a checksum
/// (RFC 8200, section 8.1), and TCP would have to be told what was lost.
pub fn trim(frame: &mut [u8]) -> Option<usize> {
    let headers = Headers::read(frame)?;
    let Some(Internet::V4(at)) = internet_of(frame) else {
        return None;
    };
    let end = headers.trimmed_bytes as usize;
    if end == 0 {
        return None;
    }
    let packet = &mut frame[at..end];
    let old = u16::from_be_bytes([packet[2], packet[3]]);
    let new = packet.len() as u16;
    packet[2..4].copy_from_slice(&new.to_be_bytes());
    let checksum = updated(u16::from_be_bytes([packet[10], packet[11]]), old, new);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    let udp = &mut frame[end - 8..end];
    udp[4..6].copy_from_slice(&8_u16.to_be_bytes());
    udp[6..8].fill(0);
    Some(end)
}

/// The first byte of an 802.1Q tag.
fn tag_of(frame: &[u8]) -> Option<u8> {
    let is_tagged = frame.get(12..14)? == ethernet::TAG_8021Q.to_be_bytes();
    frame.get(14).copied().filter(|_| is_tagged)
}

/// An IP header that is whole, behind at most one tag.
fn internet_of(frame: &[u8]) -> Option<Internet> {
    let at = match tag_of(frame) {
        Some(_) => ethernet::TAGGED_HEADER_BYTES,
        None => ethernet::HEADER_BYTES,
    };
    let ether_type = u16::from_be_bytes(*frame.get(at - 2..)?.first_chunk()?);
    let packet = frame.get(at..)?;
    match (ether_type, packet.first()? >> 4) {
        (IPV4, 4) if packet.len() >= 20 => Some(Internet::V4(at)),
        (IPV6, 6) if packet.len() >= 40 => Some(Internet::V6(at)),
        _ => None,
    }
}

fn ecn_of(traffic_class: u8) -> Ecn {
    match traffic_class & ECN_MASK {
        0 => Ecn::NotCapable,
        CE => Ecn::Experienced,
        _ => Ecn::Capable,
    }
}

/// Of addresses, whose lengths are multiples of four, a word at a time.
fn hash(bytes: &[u8]) -> u32 {
    let (words, _) = bytes.as_chunks::<4>();
    words.iter().fold(0, |hash, word| mix(hash ^ u32::from_be_bytes(*word)))
}

/// Spreads a number's bits over all 32: the finaliser of MurmurHash3.
fn mix(number: u32) -> u32 {
    let a = (number ^ (number >> 16)).wrapping_mul(0x85eb_ca6b);
    let b = (a ^ (a >> 13)).wrapping_mul(0xc2b2_ae35);
    b ^ (b >> 16)
}

#[cfg(test)]
mod tests;
