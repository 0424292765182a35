//! Three nodes, each with its program and what that shares with its replica; and the frames between them.

use std::net::{Ipv4Addr, SocketAddrV4};

use dataplane_wire::{
    datagram::{self, Header},
    ethernet::Mac,
    frame::{self, Kind},
    internet::Addresses,
    quorum::{
        ack,
        request::{self, Command, Request},
    },
    udp::{Checksum, Verify},
};
use ebpf_abi::quorum::{Count, NODES_MAX, Session};
use ebpf_host::{
    Loaded, Program, Settings, TestRun, Verdict, kinds,
    quorum::{Grant, HELD_SLOTS_MAX, Shared},
};

use crate::support::load;

pub(super) const PORT: u16 = 4001;
pub(super) const CLIENT: (SocketAddrV4, Mac) = at(9);
pub(super) const GROUP: (SocketAddrV4, Mac) = (
    SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 250), PORT),
    Mac([2, 0, 0, 0, 0, 0xfa]),
);
pub(super) const SESSION: u64 = 1024 + 5;

pub(super) const fn at(host: u8) -> (SocketAddrV4, Mac) {
    (
        SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, host), PORT),
        Mac([2, 0, 0, 0, 0, host]),
    )
}

/// Node 0 leads; nodes 1 and 2 follow.
pub(super) fn node_at(node: u32) -> (SocketAddrV4, Mac) {
    at(node as u8 + 1)
}

pub(super) fn settings(node: u32) -> Settings {
    let (address, mac) = node_at(node);
    Settings {
        local_mac: mac,
        local_ipv4: Some(*address.ip()),
        local_port: PORT,
        kinds: kinds(&[Kind::QuorumRequest, Kind::Append, Kind::Ack]),
        group: Some((GROUP.1, *GROUP.0.ip())),
        session_count: 1024,
        ..Settings::default()
    }
}

pub(super) fn grant(node: u32, next: u64) -> Grant {
    let mut places = [None; NODES_MAX];
    for (node, place) in places.iter_mut().enumerate().take(3) {
        *place = Some(node_at(node as u32));
    }
    Grant {
        next,
        term: 3,
        append_end: u64::MAX,
        entry_bytes_max: 1424,
        node,
        leader: 0,
        commit_end: next,
        waits_for_disk: false,
        term_begin: 1,
        in_flight_slots: 64,
        voters: 0b111,
        commit_count: 2,
        acked_end: [next; NODES_MAX],
        places,
        group: Some(GROUP),
        hold_slots: HELD_SLOTS_MAX,
        session_window: 1024,
    }
}

/// A program and what it shares.
pub(super) struct Member {
    node: u32,
    loaded: Loaded,
    pub(super) shared: Shared,
}

impl Member {
    pub(super) fn new(test: &str, node: u32) -> Option<Member> {
        let program = match node {
            0 => Program::QuorumLeader,
            _ => Program::QuorumFollower,
        };
        let mut loaded = load(test, program, &settings(node))?;
        let mut shared = loaded.share().expect("it has just been loaded");
        if node == 0 {
            let mut sessions = [Session::default(); 6];
            sessions[5] = Session::new(SESSION, 0);
            shared.set_sessions(&sessions);
        }
        Some(Member { node, loaded, shared })
    }

    pub(super) fn run(&self, bytes: &[u8]) -> TestRun {
        self.loaded.test_run(bytes).expect("a frame of ordinary length")
    }

    /// What went to a group that only the program knows, addressed to this host alone.
    fn readdressed(&self, bytes: &[u8]) -> Vec<u8> {
        let (address, mac) = node_at(self.node);
        if bytes[40..42] != [0, 0] {
            // As its sender would have made it for us: its checksum is that of the other address.
            let ip = Ipv4Addr::new(bytes[26], bytes[27], bytes[28], bytes[29]);
            let from = SocketAddrV4::new(ip, u16::from_be_bytes([bytes[34], bytes[35]]));
            let from_mac = Mac(*bytes[6..].first_chunk().expect("an Ethernet header"));
            return wrapped((from, from_mac), (address, mac), &bytes[42..]);
        }
        let mut to_us = bytes.to_vec();
        to_us[..6].copy_from_slice(&mac.0);
        to_us[30..34].copy_from_slice(&address.ip().octets());
        to_us[24..26].fill(0);
        let words = to_us[14..34].as_chunks::<2>().0.iter();
        let sum: u32 = words.map(|word| u32::from(u16::from_be_bytes(*word))).sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        let folded = (folded & 0xffff) + (folded >> 16);
        to_us[24..26].copy_from_slice(&(!(folded as u16)).to_be_bytes());
        to_us
    }

    /// Runs a frame that must go up as it came, for this reason.
    #[track_caller]
    pub(super) fn passes(&self, bytes: &[u8], why: Count) {
        let before = self.shared.count(why).expect("it counts");
        let run = self.run(bytes);
        let expected = match bytes[..6] == GROUP.1.0 {
            true => self.readdressed(bytes),
            false => bytes.to_vec(),
        };
        assert_eq!((run.verdict, &run.data[..]), (Verdict::Pass, &expected[..]), "{why:?}");
        assert_eq!(self.shared.count(why).expect("it counts"), before + 1, "{why:?}");
    }
}

pub(super) fn cluster(test: &str) -> Option<[Member; 3]> {
    let mut members = [Member::new(test, 0)?, Member::new(test, 1)?, Member::new(test, 2)?];
    for (node, member) in members.iter_mut().enumerate() {
        member.shared.grant(&grant(node as u32, 7));
    }
    Some(members)
}

pub(super) fn wrapped(from: (SocketAddrV4, Mac), to: (SocketAddrV4, Mac), payload: &[u8]) -> Vec<u8> {
    let header = Header {
        src_mac: from.1,
        dst_mac: to.1,
        vlan: None,
        addresses: Addresses::V4 {
            src: *from.0.ip(),
            dst: *to.0.ip(),
        },
        src_port: from.0.port(),
        dst_port: to.0.port(),
    };
    let mut bytes = vec![0; header.len_bytes()];
    bytes.extend_from_slice(payload);
    datagram::emit(&header, Checksum::Full, &mut bytes);
    bytes
}

pub(super) fn framed(header: &frame::Header, payload: &[u8]) -> Vec<u8> {
    let mut bytes = [&[0; frame::HEADER_BYTES], payload].concat();
    frame::emit(header, &mut bytes);
    bytes
}

pub(super) fn asking(sequence: u64, command: Command<'_>) -> Vec<u8> {
    let request = Request {
        client: SESSION,
        sequence,
        command,
    };
    let mut payload = vec![0; request.len_bytes()];
    request::emit(&request, &mut payload);
    let header = frame::Header {
        kind: Kind::QuorumRequest,
        term: 0,
        slot: sequence,
        sent_ns: 5_000 + sequence,
    };
    wrapped(CLIENT, node_at(0), &framed(&header, &payload))
}

pub(super) fn put(sequence: u64, value: &[u8]) -> Vec<u8> {
    asking(sequence, Command::Put { key: b"key", value })
}

/// Our frame in `bytes`, whose every checksum holds, and from where to where.
#[track_caller]
pub(super) fn unwrapped(bytes: &[u8]) -> (Header, &[u8]) {
    let datagram = datagram::parse(bytes, Verify::Checksum).expect("a sound datagram");
    (datagram.header, &bytes[datagram.payload])
}

/// What `ran` has sent, as an append: its slot and its payload.
#[track_caller]
pub(super) fn appended(ran: &TestRun) -> (u64, Vec<u8>) {
    assert_eq!(ran.verdict, Verdict::Tx);
    let parsed = frame::parse(unwrapped(&ran.data).1).expect("a frame");
    assert_eq!(parsed.header.kind, Kind::Append);
    (parsed.header.slot, parsed.payload.to_vec())
}

/// The acknowledgement in `bytes`: what is before it is safe; for whom else it speaks.
#[track_caller]
pub(super) fn acked(bytes: &[u8]) -> (u64, u64) {
    let ack = ack::parse(&frame::parse(unwrapped(bytes).1).expect("a frame")).expect("an ack");
    (ack.end, ack.echo)
}
