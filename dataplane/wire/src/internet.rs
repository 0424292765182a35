//! What IPv4, IPv6 and UDP share: the Internet checksum (RFC 1071, updated as in RFC 1624), a pair of addresses, and
//! the numbers of the protocols above.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// UDP's number in IPv4's protocol field and IPv6's next-header field (RFC 768).
pub const PROTOCOL_UDP: u8 = 17;

/// Source and destination, of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Addresses {
    /// IPv4.
    V4 {
        /// Sender.
        src: Ipv4Addr,
        /// Receiver.
        dst: Ipv4Addr,
    },
    /// IPv6.
    V6 {
        /// Sender.
        src: Ipv6Addr,
        /// Receiver.
        dst: Ipv6Addr,
    },
}

impl Addresses {
    /// The sender.
    pub const fn src(&self) -> IpAddr {
        match self {
            Addresses::V4 { src, .. } => IpAddr::V4(*src),
            Addresses::V6 { src, .. } => IpAddr::V6(*src),
        }
    }

    /// The receiver.
    pub const fn dst(&self) -> IpAddr {
        match self {
            Addresses::V4 { dst, .. } => IpAddr::V4(*dst),
            Addresses::V6 { dst, .. } => IpAddr::V6(*dst),
        }
    }

    /// The same pair, the other way round: what a reply carries.
    pub const fn reversed(self) -> Addresses {
        match self {
            Addresses::V4 { src, dst } => Addresses::V4 { src: dst, dst: src },
            Addresses::V6 { src, dst } => Addresses::V6 { src: dst, dst: src },
        }
    }

    /// The sum that a transport's checksum starts from: the pseudo header of RFC 768 (IPv4) or RFC 8200 §8.1 (IPv6).
    ///
    /// `len_bytes` counts the transport header and its payload.
    pub fn pseudo_header(&self, protocol: u8, len_bytes: u32) -> Sum {
        let sum = match self {
            Addresses::V4 { src, dst } => Sum::ZERO.with(&src.octets()).with(&dst.octets()),
            Addresses::V6 { src, dst } => Sum::ZERO.with(&src.octets()).with(&dst.octets()),
        };
        sum.with(&[0, protocol]).with(&len_bytes.to_be_bytes())
    }
}

/// A running one's-complement sum of 16-bit big-endian words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// The empty sum.
    pub const ZERO: Sum = Sum(0);

    /// This sum and `bytes`. An odd last byte counts as the high half of a word (RFC 1071 §1), so only the last part of a
    /// message may have an odd length.
    pub fn with(self, bytes: &[u8]) -> Sum {
        // 32-bit words instead of 16-bit ones: both weigh the same modulo 2^16 - 1 (RFC 1071 §2, "parallel summation").
        // Two lanes, because one add per cycle would wait for the add before it. 2^64 / 2^32 words do not overflow.
        let (mut even, mut odd) = (self.0, 0u64);
        let (pairs, rest) = bytes.as_chunks::<8>();
        for pair in pairs {
            let pair = u64::from_be_bytes(*pair);
            even += pair & 0xffff_ffff;
            odd += pair >> 32;
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        let last = u64::from_be_bytes(last);
        Sum(Sum::fold_to_32(even) + Sum::fold_to_32(odd) + (last & 0xffff_ffff) + (last >> 32))
    }

    /// The sum as a 16-bit word.
    pub const fn fold(self) -> u16 {
        let sum = Sum::fold_to_32(self.0);
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        ((sum & 0xffff) + (sum >> 16)) as u16
    }

    /// The complement, as it stands in a checksum field.
    pub const fn checksum(self) -> u16 {
        !self.fold()
    }

    /// Whether a sum over a message with its checksum in place says "intact".
    pub const fn is_intact(self) -> bool {
        self.fold() == 0xffff
    }

    /// At most 2^33, so that a few of them are added without overflow.
    const fn fold_to_32(sum: u64) -> u64 {
        (sum & 0xffff_ffff) + (sum >> 32)
    }
}

/// The checksum after one 16-bit word under it changed, without summing the rest again: RFC 1624 §3, equation 3.
/// (Equation 2, RFC 1141's, gives 0xffff where a sum from scratch gives 0.)
pub const fn updated(checksum: u16, old: u16, new: u16) -> u16 {
    Sum(!checksum as u64 + !old as u64 + new as u64).checksum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071 §1, word by word, as one would write it from the text.
    fn plain(bytes: &[u8]) -> u16 {
        let mut sum = 0u16;
        for word in bytes.chunks(2) {
            let word = u16::from_be_bytes([word[0], *word.get(1).unwrap_or(&0)]);
            let (added, carry) = sum.overflowing_add(word);
            sum = added + carry as u16;
        }
        sum
    }

    #[test]
    fn rfc1071_section_3_example() {
        let sum = Sum::ZERO.with(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.fold(), 0xddf2);
        assert_eq!(sum.checksum(), 0x220d);
    }

    #[test]
    fn rfc1624_section_4_example() {
        assert_eq!(updated(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    proptest! {
        #[test]
        fn sums_as_the_text_says(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(Sum::ZERO.with(&bytes).fold(), plain(&bytes));
        }

        #[test]
        fn parts_of_even_length_sum_to_the_whole(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0usize..100) {
            let (head, tail) = bytes.split_at((2 * at).min(bytes.len() & !1));
            prop_assert_eq!(Sum::ZERO.with(head).with(tail).fold(), plain(&bytes));
        }

        #[test]
        fn update_is_a_sum_from_scratch(mut words in prop::collection::vec(any::<u16>(), 1..20), new: u16, at: prop::sample::Index) {
            let sum = |words: &[u16]| {
                words.iter().fold(Sum::ZERO, |sum, word| sum.with(&word.to_be_bytes()))
            };
            // A header is never all zero; RFC 1624 assumes as much.
            words.push(0x4500);
            let at = at.index(words.len() - 1);
            let (old, before) = (words[at], sum(&words).checksum());
            words[at] = new;
            prop_assert_eq!(updated(before, old, new), sum(&words).checksum());
        }
    }

    #[test]
    fn long_runs_of_ones_do_not_overflow() {
        assert_eq!(Sum::ZERO.with(&[0xff; 65_536]).fold(), 0xffff);
    }
}
