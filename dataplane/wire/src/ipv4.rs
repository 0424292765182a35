//! IPv4 (RFC 791): options are kept apart from the payload, fragments are refused.

use core::{net::Ipv4Addr, ops::Range};

use crate::{Reject, internet::Sum};

/// Where each field stands.
pub mod field {
    use super::Range;
    /// Version in the high four bits, header length in 32-bit words in the low four.
    pub const VERSION_IHL: Range<usize> = 0..1;
    /// Differentiated services and ECN (RFC 2474, RFC 3168).
    pub const TRAFFIC_CLASS: Range<usize> = 1..2;
    /// Header and payload, in bytes.
    pub const TOTAL_LEN: Range<usize> = 2..4;
    /// Names the fragments of one datagram; meaningless in a whole one (RFC 6864).
    pub const IDENTIFICATION: Range<usize> = 4..6;
    /// Three flags (reserved, don't fragment, more fragments) and the offset in units of 8 bytes.
    pub const FRAGMENT: Range<usize> = 6..8;
    /// Time to live.
    pub const HOPS_LEFT: Range<usize> = 8..9;
    /// What the payload is.
    pub const PROTOCOL: Range<usize> = 9..10;
    /// Internet checksum of the header.
    pub const CHECKSUM: Range<usize> = 10..12;
    /// Sender.
    pub const SRC: Range<usize> = 12..16;
    /// Receiver.
    pub const DST: Range<usize> = 16..20;
}

/// Length of a header without options.
pub const HEADER_BYTES: usize = 20;
/// The most options that the 4-bit header length can say.
pub const OPTIONS_BYTES_MAX: usize = 40;

const FLAG_RESERVED: u16 = 0x8000;
const FLAG_DONT_FRAGMENT: u16 = 0x4000;
const MORE_OR_OFFSET: u16 = 0x3fff;

/// The header's fields, without those that `emit` derives (version, lengths, checksum).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Sender.
    pub src: Ipv4Addr,
    /// Receiver.
    pub dst: Ipv4Addr,
    /// What the payload is; [`crate::internet::PROTOCOL_UDP`].
    pub protocol: u8,
    /// How many routers it may still pass ("time to live").
    pub hops_left: u8,
    /// Six bits of differentiated services, two of ECN.
    pub traffic_class: u8,
    /// Names the fragments of one datagram.
    pub identification: u16,
    /// Whether a router must drop it rather than cut it up.
    pub dont_fragment: bool,
}

/// A packet whose header made sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4<'a> {
    /// The header's fields.
    pub header: Header,
    /// The options' bytes, not looked into; a multiple of 4, at most [`OPTIONS_BYTES_MAX`].
    pub options: &'a [u8],
    /// The bytes that the total length counts after the options.
    pub payload: &'a [u8],
}

/// Parses a packet; bytes after its total length are the link's padding and are left out.
///
/// The checksum is verified by summing over it, so that 0xffff counts as 0: routers that follow RFC 1141 send it
/// (RFC 1624 §5).
///
/// # Errors
/// In this order: [`Reject::Short`], [`Reject::Version`], [`Reject::Length`] (header length or total length),
/// [`Reject::HeaderChecksum`], [`Reject::Kind`] (the reserved flag is set), [`Reject::Fragment`].
pub fn parse(packet: &[u8]) -> Result<Ipv4<'_>, Reject> {
    let (head, rest) = packet.split_first_chunk::<HEADER_BYTES>().ok_or(Reject::Short)?;
    if head[0] >> 4 != 4 {
        return Err(Reject::Version);
    }
    let header_bytes = usize::from(head[0] & 0x0f) * 4;
    let total_bytes = usize::from(u16::from_be_bytes([head[2], head[3]]));
    let options_bytes = header_bytes.checked_sub(HEADER_BYTES).ok_or(Reject::Length)?;
    let payload_bytes = total_bytes.checked_sub(header_bytes).ok_or(Reject::Length)?;
    let (options, rest) = rest.split_at_checked(options_bytes).ok_or(Reject::Short)?;
    let payload = rest.get(..payload_bytes).ok_or(Reject::Short)?;
    if !Sum::ZERO.with(head).with(options).is_intact() {
        return Err(Reject::HeaderChecksum);
    }
    let fragment = u16::from_be_bytes([head[6], head[7]]);
    if fragment & FLAG_RESERVED != 0 {
        return Err(Reject::Kind);
    }
    if fragment & MORE_OR_OFFSET != 0 {
        return Err(Reject::Fragment);
    }
    let header = Header {
        src: Ipv4Addr::new(head[12], head[13], head[14], head[15]),
        dst: Ipv4Addr::new(head[16], head[17], head[18], head[19]),
        protocol: head[9],
        hops_left: head[8],
        traffic_class: head[1],
        identification: u16::from_be_bytes([head[4], head[5]]),
        dont_fragment: fragment & FLAG_DONT_FRAGMENT != 0,
    };
    Ok(Ipv4 {
        header,
        options,
        payload,
    })
}

/// Writes the header and `options` in front of a payload that already stands behind them and ends `packet`.
///
/// # Panics
/// If `options` is no multiple of 4 or longer than [`OPTIONS_BYTES_MAX`], if `packet` is shorter than the header, or
/// longer than the 16-bit length can say.
pub fn emit(header: &Header, options: &[u8], packet: &mut [u8]) {
    assert!(
        options.len().is_multiple_of(4) && options.len() <= OPTIONS_BYTES_MAX,
        "{} bytes of options: not a multiple of 4, or above {OPTIONS_BYTES_MAX}",
        options.len()
    );
    let header_bytes = HEADER_BYTES + options.len();
    let total_len = u16::try_from(packet.len()).expect("the packet fits the 16-bit length field");
    let fragment = if header.dont_fragment { FLAG_DONT_FRAGMENT } else { 0 };

    let head = &mut packet[..header_bytes];
    head[field::VERSION_IHL.start] = 4 << 4 | (header_bytes / 4) as u8;
    head[field::TRAFFIC_CLASS.start] = header.traffic_class;
    head[field::TOTAL_LEN].copy_from_slice(&total_len.to_be_bytes());
    head[field::IDENTIFICATION].copy_from_slice(&header.identification.to_be_bytes());
    head[field::FRAGMENT].copy_from_slice(&fragment.to_be_bytes());
    head[field::HOPS_LEFT.start] = header.hops_left;
    head[field::PROTOCOL.start] = header.protocol;
    head[field::CHECKSUM].fill(0);
    head[field::SRC].copy_from_slice(&header.src.octets());
    head[field::DST].copy_from_slice(&header.dst.octets());
    head[HEADER_BYTES..].copy_from_slice(options);
    let checksum = Sum::ZERO.with(head).checksum();
    head[field::CHECKSUM].copy_from_slice(&checksum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers() -> impl Strategy<Value = Header> {
        any::<([u32; 2], [u8; 3], u16, bool)>().prop_map(
            |([src, dst], [protocol, hops_left, traffic_class], identification, dont_fragment)| Header {
                src: src.into(),
                dst: dst.into(),
                protocol,
                hops_left,
                traffic_class,
                identification,
                dont_fragment,
            },
        )
    }

    proptest! {
        #[test]
        fn parse_undoes_emit(
            header in headers(), options in prop::collection::vec(any::<[u8; 4]>(), 0..=10),
            payload in prop::collection::vec(any::<u8>(), 0..100), padding in 0usize..50,
        ) {
            let options = options.as_flattened();
            let mut packet = vec![0xaa; HEADER_BYTES + options.len()];
            packet.extend_from_slice(&payload);
            emit(&header, options, &mut packet);
            for len in 0..packet.len() {
                prop_assert_eq!(parse(&packet[..len]), Err(Reject::Short));
            }
            packet.resize(packet.len() + padding, 0);
            prop_assert_eq!(parse(&packet), Ok(Ipv4 { header, options, payload: &payload }));
        }

        #[test]
        fn any_bytes_are_an_answer(packet in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse(&packet);
        }

        /// One flipped bit always changes a one's-complement sum.
        #[test]
        fn every_flipped_bit_of_the_header_is_seen(header in headers()) {
            let mut packet = [0; HEADER_BYTES + 64];
            emit(&header, &[], &mut packet);
            for bit in 0..HEADER_BYTES * 8 {
                packet[bit / 8] ^= 1 << (bit % 8);
                prop_assert!(parse(&packet).is_err(), "bit {} flipped, and the packet still parses", bit);
                packet[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }

    #[test]
    #[should_panic(expected = "not a multiple of 4")]
    fn emit_refuses_options_that_the_header_length_cannot_say() {
        let header = Header {
            src: Ipv4Addr::LOCALHOST,
            dst: Ipv4Addr::LOCALHOST,
            protocol: 17,
            hops_left: 1,
            traffic_class: 0,
            identification: 0,
            dont_fragment: true,
        };
        emit(&header, &[0; 3], &mut [0; 23]);
    }
}
