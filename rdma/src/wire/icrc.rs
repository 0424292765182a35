//! The invariant CRC: what proves that a packet came as it was sent, whatever routers changed on the way (IBA annex
//! A17.3.3 over §7.8.1).
//!
//! It is Ethernet's CRC-32 over the packet from its IP header on, with all ones in every field that a router may change,
//! behind 8 bytes of ones that stand for the InfiniBand header that is not there. It is the only field in little-endian.

use crc32fast::Hasher;
use dataplane_wire::internet::{Addresses, PROTOCOL_UDP};

use super::ICRC_BYTES;

/// What of the headers below the BTH the ICRC covers.
///
/// The sender must know all of it beforehand: an IPv4 identification that the kernel chooses later makes a wrong ICRC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Sender and receiver.
    pub addresses: Addresses,
    /// IPv4's identification; IPv6 has none.
    pub identification: u16,
    /// IPv4's flag.
    pub dont_fragment: bool,
    /// UDP's source port.
    pub src_port: u16,
    /// UDP's destination port, [`super::UDP_PORT`].
    pub dst_port: u16,
}

/// The BTH's byte with FECN and BECN, which routers set.
const BTH_MASKED: usize = 4;
const UDP_BYTES: usize = 8;
const IPV4_BYTES: usize = 20;

impl Envelope {
    /// The ICRC, as it stands on the wire, of a packet whose bytes from the BTH to its padding are `packet`.
    ///
    /// # Panics
    /// If `packet` is shorter than a BTH or longer than a UDP datagram can be.
    pub fn icrc(&self, packet: &[u8]) -> [u8; ICRC_BYTES] {
        let udp_bytes =
            u16::try_from(UDP_BYTES + packet.len() + ICRC_BYTES).expect("the packet fits the 16-bit length field");
        let mut crc = Hasher::new();
        crc.update(&[0xff; 8]);
        let [len_high, len_low] = udp_bytes.to_be_bytes();
        match self.addresses {
            Addresses::V4 { src, dst } => {
                let mut header = [0xff; IPV4_BYTES];
                header[0] = 0x45;
                // 1: traffic class, masked.
                let total_bytes = udp_bytes.checked_add(IPV4_BYTES as u16).expect("below 64 KiB");
                header[2..4].copy_from_slice(&total_bytes.to_be_bytes());
                header[4..6].copy_from_slice(&self.identification.to_be_bytes());
                header[6] = if self.dont_fragment { 0x40 } else { 0 };
                header[7] = 0;
                // 8: time to live, masked.
                header[9] = PROTOCOL_UDP;
                // 10, 11: checksum, masked.
                header[12..16].copy_from_slice(&src.octets());
                header[16..].copy_from_slice(&dst.octets());
                crc.update(&header);
            }
            Addresses::V6 { src, dst } => {
                // Version; traffic class and flow label masked; length, next header, hop limit masked.
                crc.update(&[0x6f, 0xff, 0xff, 0xff, len_high, len_low, PROTOCOL_UDP, 0xff]);
                crc.update(&src.octets());
                crc.update(&dst.octets());
            }
        }
        let [src_high, src_low] = self.src_port.to_be_bytes();
        let [dst_high, dst_low] = self.dst_port.to_be_bytes();
        crc.update(&[src_high, src_low, dst_high, dst_low, len_high, len_low, 0xff, 0xff]);
        crc.update(&packet[..BTH_MASKED]);
        crc.update(&[0xff]);
        crc.update(&packet[BTH_MASKED + 1..]);
        crc.finalize().to_le_bytes()
    }

    /// Whether a UDP payload ends with the ICRC of what is before it.
    pub fn is_intact(&self, datagram: &[u8]) -> bool {
        match datagram.split_last_chunk::<ICRC_BYTES>() {
            Some((packet, icrc)) if packet.len() >= super::packet::BTH_BYTES => self.icrc(packet) == *icrc,
            _ => false,
        }
    }
}
