//! A whole packet: the base transport header (IBA §9.2), the headers that its opcode asks for, the payload.

use std::ops::Range;

use dataplane_wire::Reject;

use super::{Aeth, AtomicEth, Opcode, Psn, QpNumber, Reth};

/// Where each field of the BTH stands.
mod field {
    use super::Range;
    pub const OPCODE: usize = 0;
    /// Solicited event 1 bit, migration state 1, pad count 2, transport version 4.
    pub const FLAGS: usize = 1;
    pub const PKEY: Range<usize> = 2..4;
    /// FECN 1 bit, BECN 1, reserved 6.
    pub const CONGESTION: usize = 4;
    pub const DEST_QP: Range<usize> = 5..8;
    /// Acknowledge request 1 bit, reserved 7.
    pub const ACK_REQUEST: usize = 8;
    pub const PSN: Range<usize> = 9..12;
}

/// Length of the BTH.
pub(super) const BTH_BYTES: usize = 12;
/// Length of the ICRC.
pub const ICRC_BYTES: usize = 4;
/// The most that stands before a payload, padding included.
pub const HEADERS_BYTES_MAX: usize = BTH_BYTES + AtomicEth::BYTES;
/// The partition that everybody is a member of (IBA §10.9.1.2, "default partition key").
pub const PKEY_DEFAULT: u16 = 0xffff;

const SOLICITED: u8 = 0x80;
/// Path migration is not used: the state "migrated" (IBA §17.2.8), which rdma_rxe sends too.
const MIGRATED: u8 = 0x40;
const PAD_SHIFT: u32 = 4;
const VERSION_MASK: u8 = 0x0f;
const FECN: u8 = 0x80;
const BECN: u8 = 0x40;
const ACK_REQUEST: u8 = 0x80;

/// The BTH's fields, without those that `emit` derives (opcode, pad count, version).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bth {
    /// Whose queue pair.
    pub dest_qp: QpNumber,
    /// Its place in the sequence.
    pub psn: Psn,
    /// Whether the requester wants to hear.
    pub ack_requested: bool,
    /// Whether the receiver's process wants to be woken.
    pub solicited: bool,
    /// The partition.
    pub pkey: u16,
    /// A switch on the way was congested.
    pub fecn: bool,
    /// The receiver was told of congestion.
    pub becn: bool,
}

impl Bth {
    /// Of the default partition, without flags.
    pub const fn new(dest_qp: QpNumber, psn: Psn) -> Bth {
        Bth {
            dest_qp,
            psn,
            ack_requested: false,
            solicited: false,
            pkey: PKEY_DEFAULT,
            fecn: false,
            becn: false,
        }
    }
}

/// What stands between BTH and payload; which one, the opcode says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Headers {
    /// Nothing.
    None,
    /// A word for the completion, in the sender's order.
    Imm(u32),
    /// Which memory.
    Reth(Reth),
    /// Which memory, and a word for the completion.
    RethImm(Reth, u32),
    /// What to do to 8 bytes.
    Atomic(AtomicEth),
    /// How it went.
    Aeth(Aeth),
    /// How it went, and what stood there before.
    AtomicAck(Aeth, u64),
    /// Which key to invalidate (IETH).
    Invalidate(u32),
}

/// A packet that made sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// What it is.
    pub opcode: Opcode,
    /// For whom, and which in the sequence.
    pub bth: Bth,
    /// What the opcode asks for.
    pub headers: Headers,
    /// The bytes behind, without padding.
    pub payload: &'a [u8],
}

/// Parses the UDP payload of a datagram, ICRC included; whether that is right, [`super::Envelope::is_intact`] says.
///
/// # Errors
/// In this order: [`Reject::Short`], [`Reject::Version`], [`Reject::Kind`] (an opcode or a syndrome that is not known),
/// [`Reject::Length`] (more padding than bytes, no multiple of 4, padding or payload where the opcode has none).
pub fn parse(datagram: &[u8]) -> Result<Packet<'_>, Reject> {
    let (packet, _icrc) = datagram.split_last_chunk::<ICRC_BYTES>().ok_or(Reject::Short)?;
    let (head, rest) = packet.split_first_chunk::<BTH_BYTES>().ok_or(Reject::Short)?;
    let flags = head[field::FLAGS];
    if flags & VERSION_MASK != 0 {
        return Err(Reject::Version);
    }
    let opcode = Opcode::from_number(head[field::OPCODE]).ok_or(Reject::Kind)?;
    let (between, padded) = rest.split_at_checked(opcode.headers_bytes()).ok_or(Reject::Short)?;
    let headers = parse_headers(opcode, between)?;
    let pad_bytes = usize::from(flags >> PAD_SHIFT & 3);
    let payload_bytes = padded.len().checked_sub(pad_bytes).ok_or(Reject::Length)?;
    if !padded.len().is_multiple_of(4) || !padded.is_empty() && !opcode.may_have_payload() {
        return Err(Reject::Length);
    }
    let word = |range: Range<usize>| head[range].iter().fold(0, |word, byte| word << 8 | u32::from(*byte));
    Ok(Packet {
        opcode,
        bth: Bth {
            dest_qp: QpNumber::new(word(field::DEST_QP)),
            psn: Psn::new(word(field::PSN)),
            ack_requested: head[field::ACK_REQUEST] & ACK_REQUEST != 0,
            solicited: flags & SOLICITED != 0,
            pkey: word(field::PKEY) as u16,
            fecn: head[field::CONGESTION] & FECN != 0,
            becn: head[field::CONGESTION] & BECN != 0,
        },
        headers,
        payload: &padded[..payload_bytes],
    })
}

fn parse_headers(opcode: Opcode, bytes: &[u8]) -> Result<Headers, Reject> {
    // Never fails: `bytes` has the length that the opcode says.
    fn part<const N: usize>(bytes: &[u8], at: usize) -> Result<&[u8; N], Reject> {
        bytes.get(at..).and_then(|rest| rest.first_chunk()).ok_or(Reject::Short)
    }
    let word = |at| part::<4>(bytes, at).map(|word| u32::from_be_bytes(*word));
    Ok(match opcode {
        Opcode::SendFirst
        | Opcode::SendMiddle
        | Opcode::SendLast
        | Opcode::SendOnly
        | Opcode::WriteMiddle
        | Opcode::WriteLast
        | Opcode::ReadResponseMiddle => Headers::None,
        Opcode::SendLastImm | Opcode::SendOnlyImm | Opcode::WriteLastImm => Headers::Imm(word(0)?),
        Opcode::SendLastInvalidate | Opcode::SendOnlyInvalidate => Headers::Invalidate(word(0)?),
        Opcode::WriteFirst | Opcode::WriteOnly | Opcode::ReadRequest => Headers::Reth(Reth::parse(part(bytes, 0)?)),
        Opcode::WriteOnlyImm => Headers::RethImm(Reth::parse(part(bytes, 0)?), word(Reth::BYTES)?),
        Opcode::ReadResponseFirst | Opcode::ReadResponseLast | Opcode::ReadResponseOnly | Opcode::Acknowledge => {
            Headers::Aeth(Aeth::parse(part(bytes, 0)?)?)
        }
        Opcode::AtomicAcknowledge => Headers::AtomicAck(
            Aeth::parse(part(bytes, 0)?)?,
            u64::from_be_bytes(*part(bytes, Aeth::BYTES)?),
        ),
        Opcode::CompareSwap | Opcode::FetchAdd => Headers::Atomic(AtomicEth::parse(part(bytes, 0)?)),
    })
}

/// Writes a packet, without its ICRC, into `into`; says how many bytes it has. `fill` writes the payload in place.
///
/// # Panics
/// If `headers` are not those of `opcode`, if there is a payload where the opcode has none, or if `into` is too short.
pub fn emit(
    opcode: Opcode,
    bth: &Bth,
    headers: &Headers,
    payload_bytes: usize,
    into: &mut [u8],
    fill: impl FnOnce(&mut [u8]),
) -> usize {
    assert!(
        payload_bytes == 0 || opcode.may_have_payload(),
        "{opcode:?} carries no payload, {payload_bytes} bytes were given"
    );
    let pad_bytes = payload_bytes.wrapping_neg() & 3;
    let flag = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
    into[field::OPCODE] = opcode as u8;
    into[field::FLAGS] = flag(bth.solicited, SOLICITED) | MIGRATED | (pad_bytes as u8) << PAD_SHIFT;
    into[field::PKEY].copy_from_slice(&bth.pkey.to_be_bytes());
    into[field::CONGESTION] = flag(bth.fecn, FECN) | flag(bth.becn, BECN);
    into[field::DEST_QP].copy_from_slice(&bth.dest_qp.get().to_be_bytes()[1..]);
    into[field::ACK_REQUEST] = flag(bth.ack_requested, ACK_REQUEST);
    into[field::PSN].copy_from_slice(&bth.psn.get().to_be_bytes()[1..]);
    let mut end = BTH_BYTES;
    let mut put = |bytes: &[u8]| {
        into[end..end + bytes.len()].copy_from_slice(bytes);
        end += bytes.len();
    };
    match headers {
        Headers::None => {}
        Headers::Imm(word) | Headers::Invalidate(word) => put(&word.to_be_bytes()),
        Headers::Reth(reth) => put(&reth.emit()),
        Headers::RethImm(reth, word) => {
            put(&reth.emit());
            put(&word.to_be_bytes());
        }
        Headers::Atomic(atomic) => put(&atomic.emit()),
        Headers::Aeth(aeth) => put(&aeth.emit()),
        Headers::AtomicAck(aeth, original) => {
            put(&aeth.emit());
            put(&original.to_be_bytes());
        }
    }
    assert!(
        end == BTH_BYTES + opcode.headers_bytes(),
        "{headers:?} are not the headers of {opcode:?}"
    );
    fill(&mut into[end..end + payload_bytes]);
    end += payload_bytes;
    into[end..end + pad_bytes].fill(0);
    end + pad_bytes
}

#[cfg(test)]
mod tests;
