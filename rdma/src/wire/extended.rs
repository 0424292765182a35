//! The headers behind the BTH: where memory is, what is to be done to it, how it went.

use dataplane_wire::Reject;

/// RDMA extended transport header (IBA §9.3.1): which memory of the responder's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reth {
    /// Where it begins, in the responder's own addresses.
    pub address: u64,
    /// The key that opens it.
    pub rkey: u32,
    /// The whole message's length in bytes, also in the first of several packets.
    pub len_bytes: u32,
}

impl Reth {
    /// Its length on the wire.
    pub const BYTES: usize = 16;

    pub(super) fn parse(bytes: &[u8; Reth::BYTES]) -> Reth {
        let value = u128::from_be_bytes(*bytes);
        Reth {
            address: (value >> 64) as u64,
            rkey: (value >> 32) as u32,
            len_bytes: value as u32,
        }
    }

    pub(super) fn emit(&self) -> [u8; Reth::BYTES] {
        let value = u128::from(self.address) << 64 | u128::from(self.rkey) << 32 | u128::from(self.len_bytes);
        value.to_be_bytes()
    }
}

/// Atomic extended transport header (IBA §9.3.3). Both operands travel big-endian; in memory they have the host's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtomicEth {
    /// Which 8 bytes, in the responder's own addresses; a multiple of 8.
    pub address: u64,
    /// The key that opens them.
    pub rkey: u32,
    /// What to swap in, or to add.
    pub swap_or_add: u64,
    /// What must stand there, for a compare and swap.
    pub compare: u64,
}

impl AtomicEth {
    /// Its length on the wire.
    pub const BYTES: usize = 28;

    pub(super) fn parse(bytes: &[u8; AtomicEth::BYTES]) -> AtomicEth {
        let u64_at = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().expect("8 of 28 bytes"));
        AtomicEth {
            address: u64_at(0),
            rkey: u32::from_be_bytes(bytes[8..12].try_into().expect("4 of 28 bytes")),
            swap_or_add: u64_at(12),
            compare: u64_at(20),
        }
    }

    pub(super) fn emit(&self) -> [u8; AtomicEth::BYTES] {
        let mut bytes = [0; AtomicEth::BYTES];
        bytes[..8].copy_from_slice(&self.address.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.rkey.to_be_bytes());
        bytes[12..20].copy_from_slice(&self.swap_or_add.to_be_bytes());
        bytes[20..].copy_from_slice(&self.compare.to_be_bytes());
        bytes
    }
}

/// ACK extended transport header (IBA §9.3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aeth {
    /// How it went.
    pub syndrome: Syndrome,
    /// How many messages the responder has completed, modulo 2²⁴.
    pub msn: u32,
}

impl Aeth {
    /// Its length on the wire.
    pub const BYTES: usize = 4;

    pub(super) fn parse(bytes: &[u8; Aeth::BYTES]) -> Result<Aeth, Reject> {
        let word = u32::from_be_bytes(*bytes);
        Ok(Aeth {
            syndrome: Syndrome::parse((word >> 24) as u8)?,
            msn: word & 0xff_ffff,
        })
    }

    pub(super) fn emit(&self) -> [u8; Aeth::BYTES] {
        let word = u32::from(self.syndrome.emit()) << 24 | self.msn & 0xff_ffff;
        word.to_be_bytes()
    }
}

/// What a responder says (IBA §9.7.5.2.3, table "AETH syndrome").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syndrome {
    /// Done, up to and including this packet's number.
    Ack {
        /// How many receives are posted, coded; [`Syndrome::NO_CREDITS`] where that is not told.
        credits: u8,
    },
    /// No receive is posted: try again after a while.
    ReceiverNotReady {
        /// The while, coded; 0 to 31.
        timer: u8,
    },
    /// Not done.
    Nak(NakCode),
}

impl Syndrome {
    /// An acknowledgement that says nothing about receives (IBA §9.7.7.2: "invalid" credit count).
    pub const NO_CREDITS: u8 = 0x1f;

    const ACK: u8 = 0b000;
    const RNR: u8 = 0b001;
    const NAK: u8 = 0b011;

    fn parse(byte: u8) -> Result<Syndrome, Reject> {
        let low = byte & 0x1f;
        match byte >> 5 {
            Syndrome::ACK => Ok(Syndrome::Ack { credits: low }),
            Syndrome::RNR => Ok(Syndrome::ReceiverNotReady { timer: low }),
            Syndrome::NAK => NakCode::from_number(low).map(Syndrome::Nak).ok_or(Reject::Kind),
            _ => Err(Reject::Kind),
        }
    }

    fn emit(self) -> u8 {
        match self {
            Syndrome::Ack { credits } => Syndrome::ACK << 5 | credits & 0x1f,
            Syndrome::ReceiverNotReady { timer } => Syndrome::RNR << 5 | timer & 0x1f,
            Syndrome::Nak(code) => Syndrome::NAK << 5 | code as u8,
        }
    }
}

/// Why not (IBA §9.7.5.2.4, table "NAK codes").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum NakCode {
    /// A packet is missing before this one: go back to the number in the BTH.
    PsnSequence = 0,
    /// An operation that makes no sense here.
    InvalidRequest = 1,
    /// The key does not open that memory to this operation.
    RemoteAccess = 2,
    /// The responder cannot go on, for a reason of its own.
    RemoteOperational = 3,
}

impl NakCode {
    fn from_number(number: u8) -> Option<NakCode> {
        [
            NakCode::PsnSequence,
            NakCode::InvalidRequest,
            NakCode::RemoteAccess,
            NakCode::RemoteOperational,
        ]
        .into_iter()
        .find(|code| *code as u8 == number)
    }
}
