//! Golden vectors: UDP payloads with their ICRC. The first three are bytes whose algorithm the kernel's rdma_rxe accepted,
//! computed with zlib; the IPv6 one was computed by the same algorithm with Python's zlib from the text of the annex.

use std::net::{Ipv4Addr, Ipv6Addr};

use dataplane_wire::internet::Addresses;

use super::{Aeth, Bth, Envelope, Headers, Opcode, Packet, Psn, QpNumber, Reth, Syndrome, UDP_PORT};

/// A datagram and what it says.
#[derive(Clone, Copy, Debug)]
pub struct Vector {
    /// What is special about it.
    pub name: &'static str,
    /// What it travels in.
    pub envelope: Envelope,
    /// The UDP payload.
    pub datagram: &'static [u8],
    /// What `parse` must say.
    pub packet: Packet<'static>,
}

const V4: Envelope = Envelope {
    addresses: Addresses::V4 {
        src: Ipv4Addr::new(192, 168, 77, 2),
        dst: Ipv4Addr::new(192, 168, 77, 1),
    },
    identification: 0,
    dont_fragment: true,
    src_port: UDP_PORT,
    dst_port: UDP_PORT,
};

const V6: Envelope = Envelope {
    addresses: Addresses::V6 {
        src: Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 2),
        dst: Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 1),
    },
    identification: 0,
    dont_fragment: true,
    src_port: 0xc123,
    dst_port: UDP_PORT,
};

const fn acked(qp: u32, psn: u32) -> Bth {
    let mut bth = Bth::new(QpNumber::new(qp), Psn::new(psn));
    bth.ack_requested = true;
    bth
}

/// All of them.
pub const VECTORS: &[Vector] = &[
    Vector {
        name: "a write of one packet, with a word",
        envelope: V4,
        datagram: &[
            0x0b, 0x40, 0xff, 0xff, 0x00, 0x00, 0x00, 0x11, 0x80, 0x65, 0x43, 0x21, 0x00, 0x00, 0x70, 0x00, 0x00, 0x00,
            0x10, 0x00, 0x12, 0x34, 0x56, 0x78, 0x00, 0x00, 0x00, 0x08, 0xab, 0xc0, 0x00, 0x01, 0x00, 0x01, 0x02, 0x03,
            0x04, 0x05, 0x06, 0x07, 0xf6, 0xe4, 0x94, 0xf0,
        ],
        packet: Packet {
            opcode: Opcode::WriteOnlyImm,
            bth: acked(0x11, 0x65_4321),
            headers: Headers::RethImm(
                Reth {
                    address: 0x7000_0000_1000,
                    rkey: 0x1234_5678,
                    len_bytes: 8,
                },
                0xabc0_0001,
            ),
            payload: &[0, 1, 2, 3, 4, 5, 6, 7],
        },
    },
    Vector {
        name: "a send with padding",
        envelope: V4,
        datagram: &[
            0x04, 0x70, 0xff, 0xff, 0x00, 0x00, 0x00, 0x11, 0x80, 0x65, 0x43, 0x22, 0x68, 0x65, 0x6c, 0x6c, 0x6f, 0x00,
            0x00, 0x00, 0xfb, 0x62, 0xb3, 0xb6,
        ],
        packet: Packet {
            opcode: Opcode::SendOnly,
            bth: acked(0x11, 0x65_4322),
            headers: Headers::None,
            payload: b"hello",
        },
    },
    Vector {
        name: "an acknowledgement",
        envelope: V4,
        datagram: &[
            0x11, 0x40, 0xff, 0xff, 0x00, 0x00, 0x00, 0x77, 0x00, 0x65, 0x43, 0x21, 0x1f, 0x00, 0x00, 0x07, 0x22, 0x5e,
            0xfc, 0x71,
        ],
        packet: Packet {
            opcode: Opcode::Acknowledge,
            bth: Bth::new(QpNumber::new(0x77), Psn::new(0x65_4321)),
            headers: Headers::Aeth(Aeth {
                syndrome: Syndrome::Ack {
                    credits: Syndrome::NO_CREDITS,
                },
                msn: 7,
            }),
            payload: &[],
        },
    },
    Vector {
        name: "a send over IPv6",
        envelope: V6,
        datagram: V6_SEND,
        packet: Packet {
            opcode: Opcode::SendOnly,
            bth: acked(0x11, 0x65_4322),
            headers: Headers::None,
            payload: b"hello",
        },
    },
];

/// As the second, with another envelope.
const V6_SEND: &[u8] = &[
    0x04, 0x70, 0xff, 0xff, 0x00, 0x00, 0x00, 0x11, 0x80, 0x65, 0x43, 0x22, 0x68, 0x65, 0x6c, 0x6c, 0x6f, 0x00, 0x00,
    0x00, 0xf4, 0x10, 0x80, 0x63,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{ICRC_BYTES, emit, parse};

    #[test]
    fn vectors_are_understood_intact_and_said_again_alike() {
        for vector in VECTORS {
            let name = vector.name;
            assert_eq!(parse(vector.datagram), Ok(vector.packet), "{name}");
            assert!(vector.envelope.is_intact(vector.datagram), "{name}");
            let mut bytes = [0; 128];
            let Packet {
                opcode,
                bth,
                headers,
                payload,
            } = vector.packet;
            let end = emit(opcode, &bth, &headers, payload.len(), &mut bytes, |into| {
                into.copy_from_slice(payload);
            });
            let icrc = vector.envelope.icrc(&bytes[..end]);
            bytes[end..end + ICRC_BYTES].copy_from_slice(&icrc);
            assert_eq!(&bytes[..end + ICRC_BYTES], vector.datagram, "{name}");
        }
    }

    /// Every bit counts but those that routers change.
    #[test]
    fn every_flipped_bit_is_seen_but_those_of_congestion() {
        for vector in VECTORS {
            let mut datagram = vector.datagram.to_vec();
            for bit in 0..datagram.len() * 8 {
                datagram[bit / 8] ^= 1 << (bit % 8);
                let is_masked = bit / 8 == 4;
                assert_eq!(
                    vector.envelope.is_intact(&datagram),
                    is_masked,
                    "{}, bit {bit}",
                    vector.name
                );
                datagram[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }

    #[test]
    fn the_envelope_counts_too() {
        let Vector { envelope, datagram, .. } = VECTORS[0];
        for other in [
            Envelope {
                identification: 1,
                ..envelope
            },
            Envelope {
                dont_fragment: false,
                ..envelope
            },
            Envelope {
                src_port: 0xc000,
                ..envelope
            },
            Envelope {
                addresses: envelope.addresses.reversed(),
                ..envelope
            },
        ] {
            assert!(!other.is_intact(datagram), "{other:?}");
        }
        for len in 0..16 {
            assert!(!envelope.is_intact(&datagram[..len]));
        }
    }
}
