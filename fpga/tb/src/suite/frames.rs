//! Frames of a cluster: node `n` is host `n + 1` of 192.0.2.0/24 (TEST-NET-1, RFC 5737).

use std::net::Ipv4Addr;

use dataplane_wire::{
    datagram::{self, Header},
    ethernet::Mac,
    frame::{self, HEADER_BYTES, Kind},
    internet::Addresses,
    quorum::request::{self, Command, Request},
    udp::Checksum,
};

/// A host's address, port and MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The IPv4 address.
    pub ipv4: Ipv4Addr,
    /// The UDP port.
    pub port: u16,
    /// The MAC address.
    pub mac: Mac,
}

/// The nodes' port.
const PORT: u16 = 4001;
/// Who asks.
pub const CLIENT: Place = at(99);
/// Where a leader's entries go.
pub const GROUP: Place = at(250);

const fn at(host: u8) -> Place {
    Place {
        ipv4: Ipv4Addr::new(192, 0, 2, host),
        port: PORT,
        mac: Mac([2, 0, 0, 0, 0, host]),
    }
}

/// Where a node is.
pub const fn node_at(node: u8) -> Place {
    at(node + 1)
}

/// `payload` in a datagram.
pub fn wrapped(from: Place, to: Place, payload: &[u8]) -> Vec<u8> {
    let header = Header {
        src_mac: from.mac,
        dst_mac: to.mac,
        vlan: None,
        addresses: Addresses::V4 {
            src: from.ipv4,
            dst: to.ipv4,
        },
        src_port: from.port,
        dst_port: to.port,
    };
    let mut bytes = vec![0; header.len_bytes()];
    bytes.extend_from_slice(payload);
    datagram::emit(&header, Checksum::Full, &mut bytes);
    bytes
}

/// One of our frames.
pub fn framed(kind: Kind, [term, slot, sent_ns]: [u64; 3], payload: &[u8]) -> Vec<u8> {
    let mut bytes = [&[0; HEADER_BYTES], payload].concat();
    let header = frame::Header {
        kind,
        term,
        slot,
        sent_ns,
    };
    frame::emit(&header, &mut bytes);
    bytes
}

/// The payload of a request.
pub fn requested(client: u64, sequence: u64, command: Command<'_>) -> Vec<u8> {
    let request = Request {
        client,
        sequence,
        command,
    };
    let mut payload = vec![0; request.len_bytes()];
    request::emit(&request, &mut payload);
    payload
}

/// A put, from the client to the leader.
pub fn put(client: u64, sequence: u64, value: &[u8]) -> Vec<u8> {
    let payload = requested(client, sequence, Command::Put { key: b"key", value });
    let frame = framed(Kind::QuorumRequest, [0, sequence, 5_000 + sequence], &payload);
    wrapped(CLIENT, node_at(0), &frame)
}
