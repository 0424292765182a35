//! What a queue pair is made with.

use std::time::Duration;

use crate::wire::Psn;

/// The payload of every packet of a message but the last. Both ends must agree: it is not on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum PathMtu {
    /// 256 bytes.
    B256 = 1,
    /// 512 bytes.
    B512,
    /// 1024 bytes: what fits Ethernet's 1500.
    B1024,
    /// 2048 bytes.
    B2048,
    /// 4096 bytes: what fits a jumbo frame.
    B4096,
}

impl PathMtu {
    /// All of them, rising. The numbers are those of verbs' `ibv_mtu`.
    pub const ALL: [PathMtu; 5] = [
        PathMtu::B256,
        PathMtu::B512,
        PathMtu::B1024,
        PathMtu::B2048,
        PathMtu::B4096,
    ];

    /// In bytes.
    pub const fn bytes(self) -> usize {
        128 << self as u8
    }

    /// The one with this number in verbs' `ibv_mtu`.
    pub fn from_number(number: u8) -> Option<PathMtu> {
        PathMtu::ALL.into_iter().find(|mtu| *mtu as u8 == number)
    }
}

/// The longest message: 2³¹ bytes (IBA §9.7.2), and here no more packets than half of the PSNs that can be told apart,
/// so that what is under way never spans more.
pub const MESSAGE_PACKETS_MAX: u64 = 1 << 22;

/// The most that fits a READ request's or a message's length (IBA §9.7.2).
pub const MESSAGE_BYTES_MAX: u64 = 1 << 31;

/// Never stop: the value 7 of verbs' `rnr_retry` (IBA §9.7.5.2.8).
pub const RNR_RETRY_FOREVER: u8 = 7;

/// How a queue pair behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QpOptions {
    /// Agreed with the peer.
    pub path_mtu: PathMtu,
    /// Send requests that are not finished, or finished and not polled.
    pub send_requests_max: usize,
    /// Receives that are not filled, or filled and not polled.
    pub receive_requests_max: usize,
    /// The longest [`crate::Data::Inline`].
    pub inline_bytes_max: usize,
    /// Reads and atomics that this end may have under way; at most the peer's `responder_reads_max`.
    pub initiator_reads_max: usize,
    /// Reads and atomics of the peer that this end can repeat the answer of.
    pub responder_reads_max: usize,
    /// After so long without progress everything that is not acknowledged is sent again.
    pub timeout: Duration,
    /// So often in a row; then the peer is gone.
    pub retries_max: u8,
    /// How often in a row the peer may say that it has no receive posted; 7: for ever.
    pub rnr_retries_max: u8,
    /// How long a peer is to wait when this end has no receive posted: a code of IBA §9.7.5.2.8, 0 to 31
    /// ([`rnr_delay`]).
    pub rnr_timer: u8,
    /// Packets that may be under way.
    pub window_packets: u64,
    /// Where this end's sequence begins; `None` draws it at random, which a stranger must then guess.
    pub start_psn: Option<Psn>,
}

impl Default for QpOptions {
    fn default() -> QpOptions {
        QpOptions {
            path_mtu: PathMtu::B1024,
            send_requests_max: 64,
            receive_requests_max: 64,
            // What NICs usually take into the request itself.
            inline_bytes_max: 256,
            initiator_reads_max: 16,
            responder_reads_max: 16,
            // 4.096 µs · 2¹⁴, the local ACK timeout that perftest uses (its qp_timeout; IBA §9.7.6.1.3).
            timeout: Duration::from_nanos(4_096 << 14),
            retries_max: 7,
            rnr_retries_max: RNR_RETRY_FOREVER,
            // 0.64 ms.
            rnr_timer: 12,
            window_packets: 128,
            start_psn: None,
        }
    }
}

/// How long an RNR timer code says to wait (IBA §9.7.5.2.8, table "RNR NAK timer field encoding").
pub fn rnr_delay(code: u8) -> Duration {
    /// In units of 10 µs.
    const DELAYS: [u64; 32] = [
        65_536, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1_024, 1_536, 2_048, 3_072,
        4_096, 6_144, 8_192, 12_288, 16_384, 24_576, 32_768, 49_152,
    ];
    Duration::from_micros(10 * DELAYS[usize::from(code & 31)])
}

/// How many packets a message of this length has: an empty one has one.
pub(crate) fn packets_count(len_bytes: u64, mtu: PathMtu) -> u64 {
    len_bytes.div_ceil(mtu.bytes() as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_those_of_the_table() {
        assert_eq!(rnr_delay(0), Duration::from_micros(655_360));
        assert_eq!(rnr_delay(1), Duration::from_micros(10));
        assert_eq!(rnr_delay(12), Duration::from_micros(640));
        assert_eq!(rnr_delay(31), Duration::from_micros(491_520));
    }

    #[test]
    fn an_mtu_s_number_leads_back() {
        for (mtu, bytes) in PathMtu::ALL.into_iter().zip([256, 512, 1024, 2048, 4096]) {
            assert_eq!(mtu.bytes(), bytes);
            assert_eq!(PathMtu::from_number(mtu as u8), Some(mtu));
        }
        assert_eq!(PathMtu::from_number(0), None);
        assert_eq!(packets_count(0, PathMtu::B256), 1);
        assert_eq!(packets_count(256, PathMtu::B256), 1);
        assert_eq!(packets_count(257, PathMtu::B256), 2);
    }
}
