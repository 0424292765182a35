//! How a frame that is on its way through a chain crosses the simulator, whose hosts know only who has sent what: with the address
//! in front that it says it comes from, the leader's, and how far it has come.
//!
//! The simulator flips bits. Before our own checksums, addresses have Ethernet's and IPv4's; so here, too, a frame whose address
//! is damaged does not arrive.

use std::net::{Ipv4Addr, SocketAddrV4};

use dataplane_wire::checksum::crc32c;

/// Nothing of ours begins like this.
const MAGIC: [u8; 4] = *b"via:";
const ADDRESS: std::ops::Range<usize> = 4..10;
const CRC: std::ops::Range<usize> = 10..14;

/// `bytes` behind the address of `from`.
pub(super) fn wrap(from: SocketAddrV4, bytes: &[u8]) -> Vec<u8> {
    let mut wrapped = Vec::with_capacity(CRC.end + bytes.len());
    wrapped.extend_from_slice(&MAGIC);
    wrapped.extend_from_slice(&from.ip().octets());
    wrapped.extend_from_slice(&from.port().to_be_bytes());
    wrapped.extend_from_slice(&crc32c(&wrapped).to_be_bytes());
    wrapped.extend_from_slice(bytes);
    wrapped
}

/// What a host gets of a frame that `sender` has sent, and where that says it comes from; nothing if its address is damaged.
pub(super) fn unwrap(sender: SocketAddrV4, bytes: &[u8]) -> Option<(SocketAddrV4, &[u8])> {
    // Any one bit of it may be wrong.
    let differing = |known: u8, byte: &u8| (known ^ byte).count_ones();
    let looks_wrapped =
        bytes.len() >= CRC.end && MAGIC.into_iter().zip(bytes).map(|(a, b)| differing(a, b)).sum::<u32>() <= 1;
    if !looks_wrapped {
        return Some((sender, bytes));
    }
    let crc = u32::from_be_bytes(*bytes[CRC].first_chunk().expect("four bytes"));
    if crc32c(&bytes[..CRC.start]) != crc {
        return None;
    }
    let [a, b, c, d, e, f] = *bytes[ADDRESS].first_chunk().expect("six bytes");
    let from = SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([e, f]));
    Some((from, &bytes[CRC.end..]))
}

#[cfg(test)]
mod tests {
    use dataplane_wire::frame;

    use super::*;

    const LEADER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 4003);
    const SENDER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 2), 4001);

    #[test]
    fn a_frame_says_where_it_comes_from_unless_that_is_damaged() {
        let frame = [&frame::MAGIC[..], &[7; 40]].concat();
        let wrapped = wrap(LEADER, &frame);
        assert_eq!(unwrap(SENDER, &wrapped), Some((LEADER, &frame[..])));
        for bit in 0..CRC.end * 8 {
            let mut damaged = wrapped.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(unwrap(SENDER, &damaged), None, "bit {bit}");
        }
    }

    #[test]
    fn a_frame_without_an_address_is_its_senders() {
        let frame = [&frame::MAGIC[..], &[7; 40]].concat();
        assert_eq!(unwrap(SENDER, &frame), Some((SENDER, &frame[..])));
        for bit in 0..frame.len() * 8 {
            let mut damaged = frame.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(unwrap(SENDER, &damaged), Some((SENDER, &damaged[..])), "bit {bit}");
        }
        assert_eq!(unwrap(SENDER, b"via"), Some((SENDER, &b"via"[..])));
    }
}
