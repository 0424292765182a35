//! Frames of a small cluster, as they are on the wire: node `n` is host `n + 1` of 192.0.2.0/24 (TEST-NET-1, RFC 5737).

use std::net::Ipv4Addr;

use dataplane_wire::{
    datagram::{self, Header},
    ethernet::Mac,
    frame::{self, HEADER_BYTES, Kind},
    internet::Addresses,
    quorum::request::{self, Command, Request},
    udp::Checksum,
};

use crate::node::Setup;

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
/// The leader's term.
pub const TERM: u64 = 3;
/// The first slot that the fast path gives.
pub const FIRST: u64 = 7;
/// The client's session.
pub const SESSION: u64 = 1024 + 5;
/// The longest entry, bytes: short of what a frame can carry, so that some entries are too long.
const ENTRY_BYTES_MAX: u16 = 300;

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

/// One of our frames, without its datagram.
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

/// A put of [`SESSION`], from the client to the leader.
pub fn put(sequence: u64, value: &[u8]) -> Vec<u8> {
    let request = Request {
        client: SESSION,
        sequence,
        command: Command::Put { key: b"key", value },
    };
    let mut payload = vec![0; request.len_bytes()];
    request::emit(&request, &mut payload);
    let frame = framed(Kind::QuorumRequest, [0, sequence, 5_000 + sequence], &payload);
    wrapped(CLIENT, node_at(0), &frame)
}

/// A follower's word that it has everything before `end`.
pub fn ack(from: u8, end: u64) -> Vec<u8> {
    wrapped(node_at(from), node_at(0), &framed(Kind::Ack, [TERM, end, 0], &[]))
}

/// What the host of `node` configures in a cluster that node 0 leads.
pub fn setup(nodes_count: u8, node: u8) -> Setup {
    let mac = |mac: Mac| mac.0.iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
    let place = |place: Place| (u32::from(place.ipv4), place.port);
    let local = node_at(node);
    Setup {
        local: (mac(local.mac), local.ipv4.into(), local.port),
        group: (mac(GROUP.mac), GROUP.ipv4.into(), GROUP.port),
        term: TERM,
        next: FIRST,
        commit_end: FIRST,
        term_begin: 1,
        in_flight: 64,
        drained_end: FIRST,
        append_end: u64::MAX,
        entry_bytes_max: ENTRY_BYTES_MAX,
        voters: (1 << nodes_count) - 1,
        commit_count: nodes_count / 2 + 1,
        own: node,
        leader: 0,
        places: (0..nodes_count).map(|node| place(node_at(node))).collect(),
        acked_ends: vec![FIRST; nodes_count.into()],
        sessions: vec![(SESSION, 0)],
    }
}
