//! RoCEv2's bytes: what an InfiniBand transport packet is inside a UDP datagram to port 4791.
//!
//! ```text
//!  IPv4 or IPv6 │ UDP │ BTH 12 │ RETH 16, AtomicETH 28, AETH 4, ImmDt 4 … │ payload │ pad 0-3 │ ICRC 4
//!                      └─────────────── parse, emit ──────────────────────────────┘
//!  └──────────────────────────────── what the ICRC covers, masked ────────────────┘
//! ```
//!
//! Sections are of the InfiniBand Architecture Specification, volume 1 ("IBA"); RoCEv2 is its annex A17. All fields are
//! big-endian but the ICRC. `parse` is total, `emit` is its inverse.

mod extended;
pub mod icrc;
mod opcode;
mod packet;
mod psn;
pub mod vectors;

pub use extended::{Aeth, AtomicEth, NakCode, Reth, Syndrome};
pub use icrc::Envelope;
pub use opcode::Opcode;
pub use packet::{Bth, HEADERS_BYTES_MAX, Headers, ICRC_BYTES, PKEY_DEFAULT, Packet, emit, parse};
pub use psn::{Psn, QpNumber};

/// UDP's destination port (IBA annex A17.5.1; IANA "roce-v2").
pub const UDP_PORT: u16 = 4791;

/// The lowest conventional source port: 0xC000 to 0xFFFF, so that routers spread flows (IBA annex A17.9.3.1).
pub const SOURCE_PORT_MIN: u16 = 0xc000;
