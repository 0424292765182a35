//! UDP (RFC 768), with the checksum over the pseudo header of IPv4 or IPv6.

use core::ops::Range;

use crate::{
    Reject,
    internet::{Addresses, PROTOCOL_UDP, Sum},
};

/// Where each field stands.
pub mod field {
    use super::Range;
    /// Sender's port.
    pub const SRC_PORT: Range<usize> = 0..2;
    /// Receiver's port.
    pub const DST_PORT: Range<usize> = 2..4;
    /// Header and payload, in bytes.
    pub const LEN: Range<usize> = 4..6;
    /// Internet checksum of pseudo header, header and payload; 0 for none.
    pub const CHECKSUM: Range<usize> = 6..8;
}

/// Length of the header.
pub const HEADER_BYTES: usize = 8;

/// The header's fields, without those that `emit` derives (length, checksum).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Sender's port; 0 where no reply is wanted.
    pub src_port: u16,
    /// Receiver's port.
    pub dst_port: u16,
}

/// A datagram whose header made sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Udp<'a> {
    /// The header's fields.
    pub header: Header,
    /// Whether the sender gave a checksum: `Full` or `None`.
    pub checksum: Checksum,
    /// The bytes after the header.
    pub payload: &'a [u8],
}

/// Whether a datagram carries a checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// It does.
    Full,
    /// The field is 0: none. IPv6 does not allow it (RFC 8200 §8.1).
    None,
    /// The field has the sum of the pseudo header, for a device or a kernel that is asked to add the rest (Linux:
    /// CHECKSUM_PARTIAL, include/linux/skbuff.h). `parse` cannot tell it from a wrong one and never says it.
    Partial,
}

/// Whether `parse` sums the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// Yes: what comes from a wire.
    Checksum,
    /// No: the bytes never left this host, or the device has checked them. A veth pair delivers the pseudo header's sum
    /// in the field and leaves the rest to a device that never comes; packet sockets say so with
    /// `TP_STATUS_CSUMNOTREADY` (packet(7)).
    Nothing,
}

/// Parses a datagram that fills the payload of its IP packet.
///
/// # Errors
/// In this order: [`Reject::Short`], [`Reject::Length`] (below the header), [`Reject::Long`] (bytes that the length does
/// not count), [`Reject::ChecksumMissing`] (IPv6), [`Reject::PayloadChecksum`].
pub fn parse<'a>(datagram: &'a [u8], addresses: &Addresses, verify: Verify) -> Result<Udp<'a>, Reject> {
    let (head, payload) = datagram.split_first_chunk::<HEADER_BYTES>().ok_or(Reject::Short)?;
    let [s0, s1, d0, d1, l0, l1, c0, c1] = *head;
    let len_bytes = u16::from_be_bytes([l0, l1]);
    let payload_bytes = usize::from(len_bytes).checked_sub(HEADER_BYTES).ok_or(Reject::Length)?;
    if payload.len() < payload_bytes {
        return Err(Reject::Short);
    }
    if payload.len() > payload_bytes {
        return Err(Reject::Long);
    }
    let checksum = match ([c0, c1], addresses) {
        ([0, 0], Addresses::V4 { .. }) => Checksum::None,
        ([0, 0], Addresses::V6 { .. }) => return Err(Reject::ChecksumMissing),
        _ => Checksum::Full,
    };
    if verify == Verify::Checksum && checksum == Checksum::Full {
        let sum = addresses.pseudo_header(PROTOCOL_UDP, len_bytes.into()).with(datagram);
        if !sum.is_intact() {
            return Err(Reject::PayloadChecksum);
        }
    }
    let header = Header {
        src_port: u16::from_be_bytes([s0, s1]),
        dst_port: u16::from_be_bytes([d0, d1]),
    };
    Ok(Udp {
        header,
        checksum,
        payload,
    })
}

/// Writes the header in front of a payload that already stands at `datagram[HEADER_BYTES..]`.
///
/// # Panics
/// If `datagram` is shorter than the header, longer than the 16-bit length can say, or to be sent over IPv6 without a
/// checksum.
pub fn emit(header: &Header, addresses: &Addresses, checksum: Checksum, datagram: &mut [u8]) {
    let len_bytes = u16::try_from(datagram.len()).expect("the datagram fits the 16-bit length field");
    datagram[field::SRC_PORT].copy_from_slice(&header.src_port.to_be_bytes());
    datagram[field::DST_PORT].copy_from_slice(&header.dst_port.to_be_bytes());
    datagram[field::LEN].copy_from_slice(&len_bytes.to_be_bytes());
    datagram[field::CHECKSUM].fill(0);
    match checksum {
        Checksum::None => assert!(
            matches!(addresses, Addresses::V4 { .. }),
            "UDP over IPv6 needs a checksum (RFC 8200 §8.1)"
        ),
        Checksum::Partial => {
            let sum = addresses.pseudo_header(PROTOCOL_UDP, len_bytes.into()).fold();
            datagram[field::CHECKSUM].copy_from_slice(&sum.to_be_bytes());
        }
        Checksum::Full => {
            let sum = addresses.pseudo_header(PROTOCOL_UDP, len_bytes.into()).with(datagram);
            datagram[field::CHECKSUM].copy_from_slice(&checksum_field(sum));
        }
    }
}

/// What stands in the checksum field for the sum of the pseudo header and the datagram with a field of 0. A sum that comes
/// out as 0 is sent as its other form, because 0 means "none" (RFC 768).
pub(crate) fn checksum_field(sum: Sum) -> [u8; 2] {
    match sum.checksum() {
        0 => [0xff, 0xff],
        checksum => checksum.to_be_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn addresses() -> impl Strategy<Value = Addresses> {
        any::<(bool, [u128; 2])>().prop_map(|(v4, [src, dst])| match v4 {
            true => Addresses::V4 {
                src: (src as u32).into(),
                dst: (dst as u32).into(),
            },
            false => Addresses::V6 {
                src: src.into(),
                dst: dst.into(),
            },
        })
    }

    proptest! {
        #[test]
        fn parse_undoes_emit(
            addresses in addresses(), [src_port, dst_port]: [u16; 2], full: bool, payload in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let checksum = match addresses {
                Addresses::V4 { .. } if !full => Checksum::None,
                _ => Checksum::Full,
            };
            let header = Header { src_port, dst_port };
            let mut datagram = vec![0xaa; HEADER_BYTES];
            datagram.extend_from_slice(&payload);
            emit(&header, &addresses, checksum, &mut datagram);
            let expected = Ok(Udp { header, checksum, payload: &payload });
            prop_assert_eq!(parse(&datagram, &addresses, Verify::Checksum), expected);
            prop_assert_eq!(parse(&datagram, &addresses, Verify::Nothing), expected);
            for len in 0..datagram.len() {
                prop_assert_eq!(parse(&datagram[..len], &addresses, Verify::Checksum), Err(Reject::Short));
            }
            datagram.push(0);
            prop_assert_eq!(parse(&datagram, &addresses, Verify::Checksum), Err(Reject::Long));
        }

        /// What a device does: sums the datagram as it stands and writes the complement over the field.
        #[test]
        fn a_device_completes_a_partial_checksum(
            addresses in addresses(), [src_port, dst_port]: [u16; 2], payload in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let header = Header { src_port, dst_port };
            let mut datagram = vec![0xaa; HEADER_BYTES];
            datagram.extend_from_slice(&payload);
            emit(&header, &addresses, Checksum::Partial, &mut datagram);
            let completed = match Sum::ZERO.with(&datagram).checksum() {
                0 => 0xffff,
                checksum => checksum,
            };
            datagram[field::CHECKSUM].copy_from_slice(&completed.to_be_bytes());
            let expected = Ok(Udp { header, checksum: Checksum::Full, payload: &payload });
            prop_assert_eq!(parse(&datagram, &addresses, Verify::Checksum), expected);
        }

        #[test]
        fn any_bytes_are_an_answer(addresses in addresses(), datagram in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = parse(&datagram, &addresses, Verify::Checksum);
        }

        /// The address is not in the datagram; the checksum still covers it.
        #[test]
        fn a_datagram_for_another_address_is_seen(addresses in addresses(), bit in 0usize..32) {
            let mut datagram = [7; HEADER_BYTES + 5];
            emit(&Header { src_port: 1, dst_port: 2 }, &addresses, Checksum::Full, &mut datagram);
            let other = match addresses {
                Addresses::V4 { src, dst } => Addresses::V4 { src, dst: (dst.to_bits() ^ 1 << bit).into() },
                Addresses::V6 { src, dst } => Addresses::V6 { src, dst: (dst.to_bits() ^ 1 << bit).into() },
            };
            prop_assert_eq!(parse(&datagram, &other, Verify::Checksum), Err(Reject::PayloadChecksum));
        }
    }

    #[test]
    #[should_panic(expected = "RFC 8200")]
    fn emit_refuses_ipv6_without_a_checksum() {
        let addresses = Addresses::V6 {
            src: 1.into(),
            dst: 2.into(),
        };
        let header = Header {
            src_port: 1,
            dst_port: 2,
        };
        emit(&header, &addresses, Checksum::None, &mut [0; HEADER_BYTES]);
    }
}
