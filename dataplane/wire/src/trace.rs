//! A trailer of stamps at the end of an echo payload: when a request and its reply passed each station of their way.
//!
//! ```text
//!  | frame header | client | filler … | stamp 0 | stamp 1 | … | stamp 7 |     each 8 bytes, big-endian nanoseconds
//! ```
//!
//! It stands at the end, so that a station that writes one stamp can mend the payload's checksum from the difference of
//! eight bytes and the known number of bytes behind them ([`payload_crc_delta`]), however long the payload is.

use core::ops::Range;

use crate::checksum::crc32c_word;

/// Stamps in a trailer.
pub const STAMPS_COUNT: usize = 8;
/// Bytes of one stamp.
pub const STAMP_BYTES: usize = 8;
/// Bytes of the trailer.
pub const TRAILER_BYTES: usize = STAMPS_COUNT * STAMP_BYTES;

/// The stations, in the order of the way. A stamp of 0 was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Station {
    /// The XDP program at the server's interface, for the request.
    ServerDriverRx = 0,
    /// The server's socket took the request in (SO_TIMESTAMPING, software).
    ServerSocketRx = 1,
    /// The server's program has the request.
    ServerAppRx = 2,
    /// The server's program hands the reply to its socket.
    ServerAppTx = 3,
    /// The server's driver has taken the reply *before* this one: its own is known only after it has left.
    ServerDriverTxBefore = 4,
    /// The XDP program at the client's interface, for the reply.
    ClientDriverRx = 5,
    /// Not used.
    Spare6 = 6,
    /// Not used.
    Spare7 = 7,
}

impl Station {
    /// Where its stamp stands in the trailer.
    pub const fn range(self) -> Range<usize> {
        let start = self as usize * STAMP_BYTES;
        start..start + STAMP_BYTES
    }
}

/// The trailer of a payload; `None` if the payload is too short to have one behind the echo payload's own field.
pub fn trailer(payload: &[u8]) -> Option<&[u8; TRAILER_BYTES]> {
    let (head, trailer) = payload.split_last_chunk::<TRAILER_BYTES>()?;
    (head.len() >= crate::echo::PAYLOAD_BYTES_MIN).then_some(trailer)
}

/// The trailer, to be written. Whoever writes mends the payload's checksum.
pub fn trailer_mut(payload: &mut [u8]) -> Option<&mut [u8; TRAILER_BYTES]> {
    let (head, trailer) = payload.split_last_chunk_mut::<TRAILER_BYTES>()?;
    (head.len() >= crate::echo::PAYLOAD_BYTES_MIN).then_some(trailer)
}

/// The stamp of `station`, in nanoseconds of the clock that the stations agreed on.
pub fn stamp(trailer: &[u8; TRAILER_BYTES], station: Station) -> u64 {
    let mut bytes = [0; STAMP_BYTES];
    bytes.copy_from_slice(&trailer[station.range()]);
    u64::from_be_bytes(bytes)
}

/// Writes the stamp of `station`.
pub fn set_stamp(trailer: &mut [u8; TRAILER_BYTES], station: Station, at_ns: u64) {
    trailer[station.range()].copy_from_slice(&at_ns.to_be_bytes());
}

/// What changes in the payload's checksum when one stamp changes: new checksum = old checksum XOR this, for payloads of
/// any length (a CRC is linear, and what stands before the trailer does not change).
pub fn payload_crc_delta(stamp_index: usize, old: [u8; STAMP_BYTES], new: [u8; STAMP_BYTES]) -> u32 {
    // By words, in whose bytes Linux 6.1's verifier sees indices below 256. It does not in the exclusive or of two bytes.
    let mut crc = crc32c_word(0, u64::from_le_bytes(old) ^ u64::from_le_bytes(new));
    for _ in stamp_index % STAMPS_COUNT + 1..STAMPS_COUNT {
        crc = crc32c_word(crc, 0);
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::crc32c;
    use proptest::prelude::*;

    const STATIONS: [Station; STAMPS_COUNT] = [
        Station::ServerDriverRx,
        Station::ServerSocketRx,
        Station::ServerAppRx,
        Station::ServerAppTx,
        Station::ServerDriverTxBefore,
        Station::ClientDriverRx,
        Station::Spare6,
        Station::Spare7,
    ];

    proptest! {
        #[test]
        fn a_stamp_is_read_back_and_the_checksum_can_be_mended(
            mut payload in prop::collection::vec(any::<u8>(), 68..400), index in 0..STAMPS_COUNT, at_ns: u64,
        ) {
            let before = crc32c(&payload);
            let trailer = trailer_mut(&mut payload).expect("it is long enough");
            let station = STATIONS[index];
            let old = trailer[station.range()].try_into().expect("eight bytes");
            set_stamp(trailer, station, at_ns);
            prop_assert_eq!(stamp(trailer, station), at_ns);
            prop_assert_eq!(before ^ payload_crc_delta(index, old, at_ns.to_be_bytes()), crc32c(&payload));
        }

        #[test]
        fn a_short_payload_has_no_trailer(payload in prop::collection::vec(any::<u8>(), 0..68)) {
            prop_assert_eq!(trailer(&payload), None);
        }
    }
}
