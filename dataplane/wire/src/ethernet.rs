//! Ethernet II, with at most one 802.1Q tag (IEEE 802.3-2022 §3.2.6, IEEE 802.1Q-2022 §9.6).
//!
//! ```text
//!  0        6        12      14                 0        6        12      14    16      18
//!  +--------+--------+-------+---------         +--------+--------+-------+-----+-------+---------
//!  | to     | from   | type  | payload    or    | to     | from   | 8100  | tci | type  | payload
//!  +--------+--------+-------+---------         +--------+--------+-------+-----+-------+---------
//! ```
//!
//! The payload may end in padding up to the 60 bytes that Ethernet wants; the layer above knows its own length.

use core::ops::Range;

use crate::Reject;

/// Where each field stands.
pub mod field {
    use super::Range;
    /// Receiver.
    pub const DST: Range<usize> = 0..6;
    /// Sender.
    pub const SRC: Range<usize> = 6..12;
    /// [`super::EtherType`], or [`super::TAG_8021Q`].
    pub const ETHER_TYPE: Range<usize> = 12..14;
    /// [`super::Vlan`], in a tagged frame.
    pub const TAGGED_TCI: Range<usize> = 14..16;
    /// [`super::EtherType`], in a tagged frame.
    pub const TAGGED_ETHER_TYPE: Range<usize> = 16..18;
}

/// Length of a header without a tag.
pub const HEADER_BYTES: usize = 14;
/// Length of a header with a tag.
pub const TAGGED_HEADER_BYTES: usize = 18;
/// The tag protocol identifier that announces a VLAN tag (IEEE 802.1Q-2022 table 9-1).
pub const TAG_8021Q: u16 = 0x8100;
/// The tag protocol identifier of a service tag, two of which make "QinQ"; not spoken here.
pub const TAG_8021AD: u16 = 0x88a8;

/// A station's address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Everybody on the link.
    pub const BROADCAST: Mac = Mac([0xff; 6]);
}

impl core::fmt::Display for Mac {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// What the payload is. Never a length (below 0x0600, IEEE 802.3-2022 §3.2.6) and never a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EtherType(u16);

impl EtherType {
    /// Internet Protocol version 4 (RFC 894).
    pub const IPV4: EtherType = EtherType(0x0800);
    /// Address resolution (RFC 826).
    pub const ARP: EtherType = EtherType(0x0806);
    /// Internet Protocol version 6 (RFC 2464).
    pub const IPV6: EtherType = EtherType(0x86dd);

    /// `None` for a length and for a tag.
    pub const fn new(value: u16) -> Option<EtherType> {
        match value {
            0..0x0600 | TAG_8021Q | TAG_8021AD => None,
            _ => Some(EtherType(value)),
        }
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// An 802.1Q tag's control information: 3 bits of priority, 1 bit drop eligible, 12 bits of VLAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Vlan(pub u16);

impl Vlan {
    /// Priority code point, 0 to 7.
    pub const fn priority(self) -> u8 {
        (self.0 >> 13) as u8
    }

    /// Whether a congested switch should drop this frame first.
    pub const fn drop_eligible(self) -> bool {
        self.0 & 0x1000 != 0
    }

    /// The VLAN; 0 says that the tag carries a priority alone.
    pub const fn id(self) -> u16 {
        self.0 & 0x0fff
    }
}

/// The header's fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Receiver.
    pub dst: Mac,
    /// Sender.
    pub src: Mac,
    /// The tag, if there is one.
    pub vlan: Option<Vlan>,
    /// What the payload is.
    pub ether_type: EtherType,
}

impl Header {
    /// How long this header is: the payload starts here.
    pub const fn len_bytes(&self) -> usize {
        match self.vlan {
            Some(_) => TAGGED_HEADER_BYTES,
            None => HEADER_BYTES,
        }
    }
}

/// A frame whose header made sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ethernet<'a> {
    /// The header's fields.
    pub header: Header,
    /// Everything behind the header, padding included.
    pub payload: &'a [u8],
}

/// Parses a frame that starts at the receiver's address and ends before the frame check sequence.
///
/// # Errors
/// [`Reject::Short`]; [`Reject::Kind`] for an 802.3 length, a service tag, or a second tag.
pub fn parse(frame: &[u8]) -> Result<Ethernet<'_>, Reject> {
    let (head, payload) = frame.split_first_chunk::<HEADER_BYTES>().ok_or(Reject::Short)?;
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = *head;
    let (vlan, ether_type, payload) = match u16::from_be_bytes([t0, t1]) {
        TAG_8021Q => {
            let (tag, payload) = payload.split_first_chunk::<4>().ok_or(Reject::Short)?;
            let [c0, c1, t0, t1] = *tag;
            let tci = u16::from_be_bytes([c0, c1]);
            (Some(Vlan(tci)), u16::from_be_bytes([t0, t1]), payload)
        }
        ether_type => (None, ether_type, payload),
    };
    let header = Header {
        dst: Mac([d0, d1, d2, d3, d4, d5]),
        src: Mac([s0, s1, s2, s3, s4, s5]),
        vlan,
        ether_type: EtherType::new(ether_type).ok_or(Reject::Kind)?,
    };
    Ok(Ethernet { header, payload })
}

/// Writes the header in front of a payload that already stands at `frame[header.len_bytes()..]`.
///
/// # Panics
/// If `frame` is shorter than the header.
pub fn emit(header: &Header, frame: &mut [u8]) {
    frame[field::DST].copy_from_slice(&header.dst.0);
    frame[field::SRC].copy_from_slice(&header.src.0);
    let ether_type = header.ether_type.get().to_be_bytes();
    match header.vlan {
        Some(Vlan(tci)) => {
            frame[field::ETHER_TYPE].copy_from_slice(&TAG_8021Q.to_be_bytes());
            frame[field::TAGGED_TCI].copy_from_slice(&tci.to_be_bytes());
            frame[field::TAGGED_ETHER_TYPE].copy_from_slice(&ether_type);
        }
        None => frame[field::ETHER_TYPE].copy_from_slice(&ether_type),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parse_undoes_emit(
            [dst, src]: [[u8; 6]; 2], tci: Option<u16>, ether_type: u16, payload in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let Some(ether_type) = EtherType::new(ether_type) else { return Ok(()) };
            let header = Header { dst: Mac(dst), src: Mac(src), vlan: tci.map(Vlan), ether_type };
            let mut frame = vec![0xaa; header.len_bytes()];
            frame.extend_from_slice(&payload);
            emit(&header, &mut frame);
            prop_assert_eq!(parse(&frame), Ok(Ethernet { header, payload: &payload }));
            for len in 0..header.len_bytes() {
                prop_assert_eq!(parse(&frame[..len]), Err(Reject::Short));
            }
        }

        #[test]
        fn any_bytes_are_an_answer(frame in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = parse(&frame);
        }
    }

    #[test]
    fn a_tag_has_three_parts() {
        let vlan = Vlan(5 << 13 | 1 << 12 | 100);
        assert_eq!((vlan.priority(), vlan.drop_eligible(), vlan.id()), (5, true, 100));
    }

    #[test]
    fn an_address_prints_as_ip_link_prints_it() {
        assert_eq!(Mac([0x02, 0, 0, 0xab, 0xcd, 0x0f]).to_string(), "02:00:00:ab:cd:0f");
    }
}
