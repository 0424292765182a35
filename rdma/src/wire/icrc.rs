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
const BTH_BYTES: usize = super::packet::BTH_BYTES;
const UDP_BYTES: usize = 8;
const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
/// Stands for the InfiniBand header that is not there.
const ABSENT_BYTES: usize = 8;
const HEAD_BYTES_MAX: usize = ABSENT_BYTES + IPV6_BYTES + UDP_BYTES + BTH_BYTES;
/// So much is copied sooner than the CRC taken up again.
const SHORT_BYTES_MAX: usize = 128;

fn crc32(head: &[u8], rest: &[u8]) -> u32 {
    let mut whole = [0; HEAD_BYTES_MAX + SHORT_BYTES_MAX];
    if rest.len() <= SHORT_BYTES_MAX {
        let len = head.len() + rest.len();
        whole[..head.len()].copy_from_slice(head);
        whole[head.len()..len].copy_from_slice(rest);
        return crc32fast::hash(&whole[..len]);
    }
    let mut crc = Hasher::new();
    crc.update(head);
    crc.update(rest);
    crc.finalize()
}

impl Envelope {
    /// The ICRC, as it stands on the wire, of a packet whose bytes from the BTH to its padding are `packet`.
    ///
    /// The masked headers are put together first, and of a short packet the rest behind them, so that the CRC goes over one piece: piece by
    /// piece it costs more than the packet itself.
    ///
    /// # Panics
    /// If `packet` is shorter than a BTH or longer than a UDP datagram can be.
    pub fn icrc(&self, packet: &[u8]) -> [u8; ICRC_BYTES] {
        let udp_bytes =
            u16::try_from(UDP_BYTES + packet.len() + ICRC_BYTES).expect("the packet fits the 16-bit length field");
        let (bth, rest) = packet
            .split_first_chunk::<BTH_BYTES>()
            .expect("a packet begins with a BTH");
        let crc = match self.addresses {
            Addresses::V4 { src, dst } => {
                let mut head = [0xff; ABSENT_BYTES + IPV4_BYTES + UDP_BYTES + BTH_BYTES];
                let (ip, behind) = head[ABSENT_BYTES..].split_at_mut(IPV4_BYTES);
                ip[0] = 0x45;
                // 1: traffic class, masked.
                let total_bytes = udp_bytes.checked_add(IPV4_BYTES as u16).expect("below 64 KiB");
                ip[2..4].copy_from_slice(&total_bytes.to_be_bytes());
                ip[4..6].copy_from_slice(&self.identification.to_be_bytes());
                ip[6] = if self.dont_fragment { 0x40 } else { 0 };
                ip[7] = 0;
                // 8: time to live, masked.
                ip[9] = PROTOCOL_UDP;
                // 10, 11: checksum, masked.
                ip[12..16].copy_from_slice(&src.octets());
                ip[16..].copy_from_slice(&dst.octets());
                self.mask_behind(udp_bytes, bth, behind);
                crc32(&head, rest)
            }
            Addresses::V6 { src, dst } => {
                let mut head = [0xff; ABSENT_BYTES + IPV6_BYTES + UDP_BYTES + BTH_BYTES];
                let (ip, behind) = head[ABSENT_BYTES..].split_at_mut(IPV6_BYTES);
                // Version; traffic class, flow label and, behind length and next header, hop limit masked.
                ip[0] = 0x6f;
                ip[4..6].copy_from_slice(&udp_bytes.to_be_bytes());
                ip[6] = PROTOCOL_UDP;
                ip[8..24].copy_from_slice(&src.octets());
                ip[24..].copy_from_slice(&dst.octets());
                self.mask_behind(udp_bytes, bth, behind);
                crc32(&head, rest)
            }
        };
        crc.to_le_bytes()
    }

    /// UDP's header, its checksum masked, and the BTH, into bytes that are ones.
    fn mask_behind(&self, udp_bytes: u16, bth: &[u8; BTH_BYTES], into: &mut [u8]) {
        let (udp, masked) = into.split_at_mut(UDP_BYTES);
        udp[..2].copy_from_slice(&self.src_port.to_be_bytes());
        udp[2..4].copy_from_slice(&self.dst_port.to_be_bytes());
        udp[4..6].copy_from_slice(&udp_bytes.to_be_bytes());
        masked.copy_from_slice(bth);
        masked[BTH_MASKED] = 0xff;
    }

    /// Whether a UDP payload ends with the ICRC of what is before it.
    pub fn is_intact(&self, datagram: &[u8]) -> bool {
        match datagram.split_last_chunk::<ICRC_BYTES>() {
            Some((packet, icrc)) if packet.len() >= super::packet::BTH_BYTES => self.icrc(packet) == *icrc,
            _ => false,
        }
    }
}
