//! The programs `quorum_leader` and `quorum_follower`, shown the frames of the conformance suite that models and RTL are shown
//! (`fpga_tb::suite`), one by one and without an interface: verdict, bytes, log and commit must be what user space says.
//!
//! What of it a pipeline and a program do differently is stated in `suite::Plane`; what an answer is here, in [`holds`]. Not
//! shown: frames of which the MAC says that they are bad (a network card keeps them), and those shorter than an Ethernet header.
#![forbid(unsafe_code)]

use std::net::SocketAddrV4;

use dataplane_wire::frame::{HEADER_BYTES, Kind};
use ebpf_host::{
    FRAME_BYTES_MIN, Loaded, Program, Settings, Verdict, kinds,
    quorum::{Grant, Kept, NODES_MAX, RING_SLOTS, Session, Shared},
};
use fpga_tb::suite::{Answer, GROUP, Oracle, Plane, Sent, Setup, goldens, history, node_at, setup};
use tests::programs::can;

const SEEDS: std::ops::RangeInclusive<u64> = 1..=16;
const FRAMES_COUNT: usize = 1_000;
/// Bytes of Ethernet, IPv4 and UDP.
const OUTER_BYTES: usize = 42;
const SESSIONS_COUNT: u32 = 1024;

/// A program that was told what a host would write into a pipeline's registers.
struct Member {
    loaded: Loaded,
    shared: Shared,
}

fn member(setup: &Setup, leads: bool) -> Member {
    let local = node_at(setup.own);
    let place = |node: u8| {
        let at = node_at(node);
        (SocketAddrV4::new(at.ipv4, at.port), at.mac)
    };
    let settings = Settings {
        local_mac: local.mac,
        local_ipv4: Some(local.ipv4),
        local_port: local.port,
        kinds: kinds(&[Kind::QuorumRequest, Kind::Append, Kind::Ack]),
        group: (!leads).then_some((GROUP.mac, GROUP.ipv4)),
        session_count: SESSIONS_COUNT,
        ..Settings::default()
    };
    let program = if leads {
        Program::QuorumLeader
    } else {
        Program::QuorumFollower
    };
    let mut loaded = Loaded::load(program, &settings).expect("programs load here, as was asked before");
    let mut shared = loaded.share().expect("it has just been loaded");
    if leads {
        let mut sessions = [Session::default(); SESSIONS_COUNT as usize];
        for &(id, sequence) in &setup.sessions {
            sessions[(id % u64::from(SESSIONS_COUNT)) as usize] = Session::new(id, sequence);
        }
        shared.set_sessions(&sessions);
    }
    let mut places = [None; NODES_MAX];
    for (node, to) in places.iter_mut().enumerate().take(setup.places.len()) {
        *to = Some(place(node as u8));
    }
    let mut acked_end = [0; NODES_MAX];
    acked_end[..setup.acked_ends.len()].copy_from_slice(&setup.acked_ends);
    shared.grant(&Grant {
        next: setup.next,
        term: setup.term,
        append_end: setup.append_end,
        entry_bytes_max: setup.entry_bytes_max.into(),
        node: setup.own.into(),
        leader: setup.leader.into(),
        commit_end: setup.commit_end,
        waits_for_disk: false,
        term_begin: setup.term_begin,
        in_flight_slots: setup.in_flight.into(),
        voters: setup.voters as u32,
        commit_count: setup.commit_count.into(),
        acked_end,
        places,
        group: Some((SocketAddrV4::new(GROUP.ipv4, GROUP.port), GROUP.mac)),
        hold_slots: 0,
        session_window: 0,
    });
    Member { loaded, shared }
}

/// What came of some frames.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    sent: u64,
    to_host: u64,
    readdressed: u64,
    kept: u64,
    committed: u64,
    dropped: u64,
}

impl Tally {
    fn add(&mut self, other: Tally) {
        self.sent += other.sent;
        self.to_host += other.to_host;
        self.readdressed += other.readdressed;
        self.kept += other.kept;
        self.committed += other.committed;
        self.dropped += other.dropped;
    }
}

/// One frame: sent is XDP_TX, to the host is XDP_PASS, neither is XDP_DROP.
fn holds(member: &Member, setup: &Setup, bytes: &[u8], answer: &Answer, what: &str) -> Tally {
    let mut tally = Tally::default();
    let before = member.shared.seen();
    let run = member.loaded.test_run(bytes).expect("a frame of ordinary length");
    let verdict = match (&answer.tx, answer.slow) {
        (Some(_), false) => Verdict::Tx,
        (None, true) => Verdict::Pass,
        (None, false) => Verdict::Drop,
        (Some(_), true) => panic!("{what}: no frame has two ends"),
    };
    assert_eq!(run.verdict, verdict, "{what}: {answer:02x?}\n{bytes:02x?}");
    match (&answer.tx, answer.slow) {
        (Some(sent), _) => {
            // Bytes behind the datagram are nobody's, but as many as before.
            let behind_bytes = bytes.len() - OUTER_BYTES - HEADER_BYTES - payload_bytes(bytes);
            assert_eq!(run.data.len(), sent.len() + behind_bytes, "{what}");
            assert!(
                run.data[..sent.len()] == sent[..],
                "{what}: sent is\n{:02x?}\nand not\n{sent:02x?}",
                run.data
            );
            tally.sent += 1;
        }
        (None, true) => {
            tally.to_host += 1;
            if run.data != bytes {
                assert!(
                    run.data == readdressed(setup, bytes),
                    "{what}: the host is given\n{:02x?}\nof\n{bytes:02x?}",
                    run.data
                );
                tally.readdressed += 1;
            }
        }
        (None, false) => tally.dropped += 1,
    }
    let seen = member.shared.seen();
    match answer.log {
        Some(slot) => {
            let mut kept = Kept::default();
            assert!(
                seen.next == slot + 1 && member.shared.entry(slot, &mut kept),
                "{what}: {seen:?}"
            );
            let entry = &bytes[OUTER_BYTES + HEADER_BYTES..][..payload_bytes(bytes)];
            assert_eq!((kept.term, &kept.bytes[..]), (setup.term, entry), "{what}");
            tally.kept += 1;
        }
        None => assert_eq!(seen.next, before.next, "{what}"),
    }
    if let Some(end) = answer.commit {
        assert_eq!(seen.commit_end, end, "{what}");
        tally.committed += 1;
    }
    tally
}

/// What our header says.
fn payload_bytes(bytes: &[u8]) -> usize {
    u16::from_be_bytes([bytes[OUTER_BYTES + 6], bytes[OUTER_BYTES + 7]]).into()
}

/// What went to the group, addressed to this host alone: nobody but the program takes a group's frames. Checksums are as right or as wrong
/// as they were.
fn readdressed(setup: &Setup, bytes: &[u8]) -> Vec<u8> {
    let local = node_at(setup.own);
    let mut to_us = bytes.to_vec();
    to_us[..6].copy_from_slice(&local.mac.0);
    to_us[30..34].copy_from_slice(&local.ipv4.octets());
    let carry = |checksum: [u8; 2]| {
        let words = |octets: [u8; 4]| {
            let [a, b, c, d] = octets.map(u32::from);
            (a << 8 | b) + (c << 8 | d)
        };
        // RFC 1624, equation 3.
        let was = words(*bytes[30..].first_chunk().expect("an IPv4 header"));
        let sum = u32::from(!u16::from_be_bytes(checksum)) + 2 * 0xffff - was + words(local.ipv4.octets());
        !((sum - 1) % 0xffff + 1) as u16
    };
    let ip = carry([bytes[24], bytes[25]]);
    to_us[24..26].copy_from_slice(&ip.to_be_bytes());
    if bytes[40..42] != [0, 0] {
        let udp = match carry([bytes[40], bytes[41]]) {
            0 => 0xffff,
            udp => udp,
        };
        to_us[40..42].copy_from_slice(&udp.to_be_bytes());
    }
    to_us
}

fn is_shown(bytes: &[u8], is_bad: bool) -> bool {
    bytes.len() >= FRAME_BYTES_MIN && !is_bad
}

fn histories_hold(test: &str, leads: bool) {
    if !can(test) {
        return;
    }
    let mut tally = Tally::default();
    for seed in SEEDS {
        let setup = setup([3, 5, 7][seed as usize % 3], u8::from(!leads));
        let member = member(&setup, leads);
        let sent = history(Plane::Xdp, &setup, leads, RING_SLOTS.ilog2(), seed, FRAMES_COUNT);
        for (index, Sent { bytes, is_bad, answer }) in sent.iter().enumerate() {
            if is_shown(bytes, *is_bad) {
                let what = format!("seed {seed}, frame {index}");
                tally.add(holds(&member, &setup, bytes, answer, &what));
            }
        }
    }
    println!("{test}: {tally:?}");
    let Tally {
        sent,
        to_host,
        readdressed,
        kept,
        committed,
        dropped,
    } = tally;
    assert!(sent > 0 && to_host > 0 && kept > 0, "{tally:?}");
    assert_eq!((committed > 0, dropped > 0, readdressed > 0), (leads, leads, !leads));
}

#[test]
fn a_leaders_program_does_what_user_space_says() {
    histories_hold("a_leaders_program_does_what_user_space_says", true);
}

#[test]
fn a_followers_program_does_what_user_space_says() {
    histories_hold("a_followers_program_does_what_user_space_says", false);
}

#[test]
fn golden_frames_are_what_user_space_says() {
    if !can("golden_frames_are_what_user_space_says") {
        return;
    }
    for leads in [true, false] {
        let setup = setup(3, u8::from(!leads));
        let member = member(&setup, leads);
        let mut oracle = Oracle::new(Plane::Xdp, &setup, leads, RING_SLOTS.ilog2());
        let (from, to) = (node_at(u8::from(leads)), node_at(setup.own));
        for (index, bytes) in goldens(from, to).iter().enumerate() {
            if is_shown(bytes, false) {
                let answer = oracle.answer(bytes, false);
                holds(&member, &setup, bytes, &answer, &format!("golden frame {index}"));
            }
        }
    }
}
