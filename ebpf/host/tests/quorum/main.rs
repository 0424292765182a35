//! The programs of the quorum, run on single packets: a put goes once around, and what must not be taken is passed up.
#![forbid(unsafe_code)]

mod support;

use std::net::{Ipv4Addr, SocketAddrV4};

use dataplane_wire::{
    checksum::crc32c,
    datagram::{self, Header},
    ethernet::Mac,
    frame::{self, Kind},
    internet::Addresses,
    quorum::{
        ack, append,
        reply::{self, Outcome},
        request::{self, Command, Request},
    },
    udp::{Checksum, Verify},
};
use ebpf_host::{
    Loaded, Program, Settings, TestRun, Verdict, kinds,
    quorum::{Chain, Grant, HELD_SLOTS_MAX, Kept, Shared},
};
use support::load;

use ebpf_abi::quorum::{Count, NODES_MAX, RING_SLOTS, Session};

const PORT: u16 = 4001;
const CLIENT: (SocketAddrV4, Mac) = at(9);
const GROUP: (SocketAddrV4, Mac) = (
    SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 250), PORT),
    Mac([2, 0, 0, 0, 0, 0xfa]),
);
const SESSION: u64 = 1024 + 5;

const fn at(host: u8) -> (SocketAddrV4, Mac) {
    (
        SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, host), PORT),
        Mac([2, 0, 0, 0, 0, host]),
    )
}

/// Node 0 leads; nodes 1 and 2 follow.
fn node_at(node: u32) -> (SocketAddrV4, Mac) {
    at(node as u8 + 1)
}

fn settings(node: u32) -> Settings {
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

fn grant(node: u32, next: u64) -> Grant {
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
struct Member {
    node: u32,
    loaded: Loaded,
    shared: Shared,
}

impl Member {
    fn new(test: &str, node: u32) -> Option<Member> {
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

    fn run(&self, bytes: &[u8]) -> TestRun {
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
    fn passes(&self, bytes: &[u8], why: Count) {
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

fn cluster(test: &str) -> Option<[Member; 3]> {
    let mut members = [Member::new(test, 0)?, Member::new(test, 1)?, Member::new(test, 2)?];
    for (node, member) in members.iter_mut().enumerate() {
        member.shared.grant(&grant(node as u32, 7));
    }
    Some(members)
}

fn wrapped(from: (SocketAddrV4, Mac), to: (SocketAddrV4, Mac), payload: &[u8]) -> Vec<u8> {
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

fn framed(header: &frame::Header, payload: &[u8]) -> Vec<u8> {
    let mut bytes = [&[0; frame::HEADER_BYTES], payload].concat();
    frame::emit(header, &mut bytes);
    bytes
}

fn asking(sequence: u64, command: Command<'_>) -> Vec<u8> {
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

fn put(sequence: u64, value: &[u8]) -> Vec<u8> {
    asking(sequence, Command::Put { key: b"key", value })
}

/// Our frame in `bytes`, whose every checksum holds, and from where to where.
#[track_caller]
fn unwrapped(bytes: &[u8]) -> (Header, &[u8]) {
    let datagram = datagram::parse(bytes, Verify::Checksum).expect("a sound datagram");
    (datagram.header, &bytes[datagram.payload])
}

#[test]
fn a_put_goes_once_around() {
    let Some([leader, one, two]) = cluster("once around") else {
        return;
    };
    for (sequence, value_bytes) in [(1u64, 0usize), (2, 1), (3, 64), (4, 333), (5, 1400 - 3)] {
        let slot = 6 + sequence;
        let value = vec![sequence as u8; value_bytes];
        let asked = put(sequence, &value);
        let sent = leader.run(&asked);
        assert_eq!(sent.verdict, Verdict::Tx);
        let (header, bytes) = unwrapped(&sent.data);
        assert_eq!((header.dst_mac, header.src_mac), (GROUP.1, node_at(0).1));
        let parsed = frame::parse(bytes).expect("a frame");
        let entry = append::parse(&parsed).expect("an append");
        let payload = frame::parse(unwrapped(&asked).1).expect("a frame").payload;
        assert_eq!((entry.term, entry.slot, entry.entry), (3, slot, payload));
        assert_eq!((entry.commit_end, entry.entry_crc), (slot, crc32c(payload)));

        for (node, follower) in [(1, &one), (2, &two)] {
            let acked = follower.run(&sent.data);
            assert_eq!(acked.verdict, Verdict::Tx);
            let (header, bytes) = unwrapped(&acked.data);
            assert_eq!((header.dst_mac, header.src_mac), (node_at(0).1, node_at(node).1));
            let ack = ack::parse(&frame::parse(bytes).expect("a frame")).expect("an ack");
            assert_eq!((ack.term, ack.end), (3, slot + 1));
            let mut kept = Kept::default();
            assert!(follower.shared.entry(slot, &mut kept));
            assert_eq!((kept.term, kept.crc, &kept.bytes[..]), (3, crc32c(payload), payload));

            let answer = leader.run(&acked.data);
            if node == 2 {
                assert_eq!(answer.verdict, Verdict::Drop, "one quorum, one answer");
                continue;
            }
            assert_eq!(answer.verdict, Verdict::Tx);
            let (header, bytes) = unwrapped(&answer.data);
            assert_eq!((header.dst_mac, header.dst_port), (CLIENT.1, CLIENT.0.port()));
            let parsed = frame::parse(bytes).expect("a frame");
            assert_eq!((parsed.header.kind, parsed.header.slot), (Kind::QuorumReply, sequence));
            assert_eq!(parsed.header.sent_ns, 5_000 + sequence);
            let reply = reply::parse(parsed.payload).expect("a reply");
            assert_eq!(
                (reply.client, reply.sequence, reply.outcome),
                (SESSION, sequence, Outcome::Done)
            );
            let mut kept = Kept::default();
            assert!(leader.shared.entry(slot, &mut kept));
            assert!(kept.answered);
            assert_eq!((kept.from, &kept.bytes[..]), (Some(CLIENT.0), payload));
        }
        let seen = leader.shared.seen();
        assert_eq!((seen.next, seen.commit_end), (slot + 1, slot + 1));
    }
}

#[test]
fn what_a_follower_may_not_take_goes_up() {
    let Some([leader, mut one, two]) = cluster("follower") else {
        return;
    };
    let first = leader.run(&put(1, b"first")).data;
    let second = leader.run(&put(2, b"second")).data;
    one.shared.grant(&Grant {
        hold_slots: 0,
        ..grant(1, 7)
    });
    one.passes(&second, Count::Gap);
    assert_eq!(one.run(&first).verdict, Verdict::Tx);
    // Again: acknowledged up to where we are, and kept once.
    let again = one.run(&first);
    let ack = ack::parse(&frame::parse(unwrapped(&again.data).1).expect("a frame")).expect("an ack");
    assert_eq!((again.verdict, ack.end, one.shared.seen().next), (Verdict::Tx, 8, 8));

    let mut damaged = second.clone();
    *damaged.last_mut().expect("not empty") ^= 1;
    one.passes(&damaged, Count::Checksum);
    let mut damaged = second.clone();
    damaged[14 + 20 + 8 + 20] ^= 1;
    one.passes(&damaged, Count::Checksum);

    let (_, bytes) = unwrapped(&second);
    let of_another = wrapped(node_at(2), GROUP, bytes);
    one.passes(&of_another, Count::Stranger);

    assert_eq!(one.shared.revoke(), Some(8));
    one.passes(&second, Count::Off);
    assert_eq!(one.shared.revoke(), None);
    let mut later = grant(1, 8);
    later.term = 4;
    one.shared.grant(&later);
    one.passes(&second, Count::OtherTerm);
    drop(two);
}

#[test]
fn a_ring_that_is_not_drained_is_full() {
    let Some([mut leader, mut one, _]) = cluster("full") else {
        return;
    };
    let mut given = grant(0, 7);
    given.in_flight_slots = 1 << 20;
    leader.shared.grant(&given);
    let mut sequence = 0;
    for _ in 0..RING_SLOTS {
        sequence += 1;
        let sent = leader.run(&put(sequence, b"v"));
        assert_eq!(sent.verdict, Verdict::Tx);
        assert_eq!(one.run(&sent.data).verdict, Verdict::Tx);
    }
    leader.passes(&put(sequence + 1, b"v"), Count::Full);
    leader.shared.drained(8);
    let sent = leader.run(&put(sequence + 1, b"v"));
    assert_eq!(sent.verdict, Verdict::Tx);
    one.passes(&sent.data, Count::Full);
    one.shared.drained(8);
    assert_eq!(one.run(&sent.data).verdict, Verdict::Tx);
    let mut kept = Kept::default();
    assert!(!one.shared.entry(7, &mut kept), "its place was used again");
    assert!(one.shared.entry(8, &mut kept));
}

#[test]
fn what_a_leader_may_not_take_goes_up() {
    let Some([mut leader, one, two]) = cluster("leader") else {
        return;
    };
    leader.passes(&asking(1, Command::Get { key: b"key" }), Count::OtherCommand);
    let delete = asking(1, Command::Delete { key: b"key" });
    leader.passes(&delete, Count::OtherCommand);
    let sent = leader.run(&put(5, b"v"));
    assert_eq!(sent.verdict, Verdict::Tx);
    // Of another length it is no repetition, and what is older than the window is the replica's.
    leader.passes(&put(5, b"longer"), Count::OtherSession);
    let narrow = Grant {
        session_window: 1,
        ..grant(0, 7)
    };
    leader.shared.grant(&narrow);
    let sent = leader.run(&put(5 + 1, b"v"));
    assert_eq!(sent.verdict, Verdict::Tx);
    leader.passes(&put(5, b"v"), Count::OtherSession);
    let acked = one.run(&sent.data);
    let (_, ack) = unwrapped(&acked.data);
    leader.passes(&wrapped(at(7), node_at(0), ack), Count::Stranger);
    let of = |term, slot| {
        let header = frame::Header {
            kind: Kind::Ack,
            term,
            slot,
            sent_ns: 0,
        };
        wrapped(node_at(1), node_at(0), &framed(&header, &[]))
    };
    leader.passes(&of(2, 8), Count::OtherTerm);
    leader.passes(&of(3, 9), Count::Impossible);
    assert_eq!(leader.run(&of(3, 7)).verdict, Verdict::Drop, "nothing new");

    // Two at once need two answers, which one frame cannot carry.
    let other = leader.run(&put(7, b"v"));
    assert_eq!(two.run(&sent.data).verdict, Verdict::Tx);
    let both = two.run(&other.data);
    leader.passes(&both.data, Count::CommittedUp);
    assert_eq!(leader.shared.seen().commit_end, 9);
    let mut kept = Kept::default();
    assert!(leader.shared.entry(7, &mut kept) && !kept.answered);

    let mut few = grant(0, 9);
    few.in_flight_slots = 1;
    leader.shared.grant(&few);
    assert_eq!(leader.run(&put(8, b"v")).verdict, Verdict::Tx);
    leader.passes(&put(9, b"v"), Count::Full);
    leader.shared.revoke();
    leader.passes(&put(9, b"v"), Count::Off);
    leader.passes(&acked.data, Count::Off);
}

/// What `ran` has sent, as an append: its slot and its payload.
#[track_caller]
fn appended(ran: &TestRun) -> (u64, Vec<u8>) {
    assert_eq!(ran.verdict, Verdict::Tx);
    let parsed = frame::parse(unwrapped(&ran.data).1).expect("a frame");
    assert_eq!(parsed.header.kind, Kind::Append);
    (parsed.header.slot, parsed.payload.to_vec())
}

#[test]
fn what_comes_too_early_is_held_and_what_is_missing_is_sent_again_out_of_the_ring() {
    let Some([mut leader, mut one, mut two]) = cluster("held") else {
        return;
    };
    // Lengths that end in each part of a word; the later ones are the longer ones, and the first is sent again in the place of
    // an acknowledgement that is shorter.
    let values: Vec<Vec<u8>> = (0..6u8).map(|index| vec![index; 20 + 3 * usize::from(index)]).collect();
    let asked: Vec<Vec<u8>> = (1..)
        .zip(&values)
        .map(|(sequence, value)| put(sequence, value))
        .collect();
    let payload_of = |index: usize| {
        frame::parse(unwrapped(&asked[index]).1)
            .expect("a frame")
            .payload
            .to_vec()
    };
    let sent: Vec<TestRun> = asked.iter().map(|bytes| leader.run(bytes)).collect();
    // The first is lost. Of those behind it the first, the second and the fourth ask for it.
    let asks: Vec<TestRun> = sent[1..5].iter().map(|sent| one.run(&sent.data)).collect();
    let verdicts: Vec<Verdict> = asks.iter().map(|ran| ran.verdict).collect();
    assert_eq!(verdicts, [Verdict::Tx, Verdict::Tx, Verdict::Drop, Verdict::Tx]);
    assert_eq!(acked(&asks[0].data), (7, ack::ASKS));
    assert_eq!(
        one.shared.seen().next,
        7,
        "nothing is acknowledged that has a gap before it"
    );
    let again = leader.run(&asks[0].data);
    assert_eq!(appended(&again), (7, payload_of(0)));
    assert_eq!(
        unwrapped(&again.data).0.dst_mac,
        node_at(1).1,
        "to who asked, and nobody else"
    );
    let whole = one.run(&again.data);
    assert_eq!(acked(&whole.data), (12, 0), "with it come all that waited");
    for (slot, index) in (7..12).zip(0..) {
        let mut kept = Kept::default();
        assert!(one.shared.entry(slot, &mut kept));
        assert_eq!((kept.crc, kept.bytes), (crc32c(&payload_of(index)), payload_of(index)));
    }
    // Five at once need five answers, which one frame cannot carry.
    leader.passes(&whole.data, Count::CommittedUp);
    assert_eq!(leader.shared.seen().commit_end, 12);

    // Two gaps: what mends the first asks for the second.
    assert_eq!(acked(&two.run(&sent[0].data).data), (8, 0));
    assert_eq!(acked(&two.run(&sent[2].data).data), (8, ack::ASKS));
    let asks = two.run(&sent[4].data);
    assert_eq!(acked(&asks.data), (8, ack::ASKS));
    let second = leader.run(&asks.data);
    assert_eq!(appended(&second), (8, payload_of(1)));
    let asks = two.run(&second.data);
    assert_eq!(acked(&asks.data), (10, ack::ASKS));
    let fourth = leader.run(&asks.data);
    assert_eq!(appended(&fourth), (10, payload_of(3)));
    assert_eq!(acked(&two.run(&fourth.data).data), (12, 0));

    // What was held is forgotten with the grant.
    let last = leader.run(&put(7, b"v"));
    assert_eq!(acked(&one.run(&last.data).data), (12, ack::ASKS));
    one.shared.grant(&grant(1, 12));
    assert_eq!(acked(&one.run(&sent[5].data).data), (13, 0));

    // What the leader's replica appended itself is not in the ring, and its own to send again.
    leader.shared.grant(&grant(0, 40));
    leader.shared.appended(41);
    two.shared.grant(&grant(2, 40));
    let early = leader.run(&put(8, b"v"));
    leader.passes(&two.run(&early.data).data, Count::Gap);
}

#[test]
fn a_request_that_comes_again_is_sent_or_answered_again_and_a_late_one_gets_a_slot() {
    let Some([leader, one, _]) = cluster("again") else {
        return;
    };
    // The append was lost: the request itself becomes it again, out of the ring.
    let first = leader.run(&put(3, b"first"));
    let again = leader.run(&put(3, b"first"));
    assert_eq!((appended(&again), &again.data), (appended(&first), &first.data));
    // What is in the ring counts, and not what a client says now.
    assert_eq!(leader.run(&put(3, b"other")).data, first.data);
    let answer = leader.run(&one.run(&again.data).data);
    assert_eq!(answer.verdict, Verdict::Tx);
    // The answer was lost.
    let answered_again = leader.run(&put(3, b"first"));
    assert_eq!(answered_again.verdict, Verdict::Tx);
    let (header, bytes) = unwrapped(&answered_again.data);
    assert_eq!((header.dst_mac, header.dst_port), (CLIENT.1, CLIENT.0.port()));
    assert_eq!(bytes, unwrapped(&answer.data).1);
    assert_eq!(answered_again.data.len(), answer.data.len(), "the rest was cut off");

    // One that was lost before it came to the leader, and is late.
    let late = leader.run(&put(1, b"late"));
    assert_eq!(appended(&late).0, 8);
    assert_eq!(leader.run(&put(1, b"late")).data, late.data);
    // While that is under way, only the replica knows where the other one is.
    leader.passes(&put(3, b"first"), Count::OtherSession);
    // Of what was there before the grant it knows more, too.
    leader.passes(&put(0, b"older"), Count::OtherSession);
    // Far ahead the window begins anew.
    assert_eq!(appended(&leader.run(&put(1000, b"v"))).0, 9);
    leader.passes(&put(959, b"v"), Count::OtherSession);
    assert_eq!(appended(&leader.run(&put(960, b"v"))).0, 10);
    assert_eq!(appended(&leader.run(&put(1024, b"v"))).0, 11);
    assert_eq!(appended(&leader.run(&put(961, b"v"))).0, 12);
    leader.passes(&put(1000, b"v"), Count::OtherSession);
}

/// A cluster whose entries go from the leader to node 1, to node 2, and back.
fn chained(test: &str) -> Option<[Member; 3]> {
    let mut members = [Member::new(test, 0)?, Member::new(test, 1)?, Member::new(test, 2)?];
    let links = [(1, None, 0), (1, Some(node_at(2)), 0b010), (2, None, 0b110)];
    for ((node, member), (hop, next, nodes)) in members.iter_mut().enumerate().zip(links) {
        member.shared.set_chain(Some(Chain { hop, next, nodes }));
        member.shared.grant(&Grant {
            group: Some(node_at(1)),
            ..grant(node as u32, 7)
        });
    }
    Some(members)
}

/// The acknowledgement in `bytes`: what is before it is safe; for whom else it speaks.
#[track_caller]
fn acked(bytes: &[u8]) -> (u64, u64) {
    let ack = ack::parse(&frame::parse(unwrapped(bytes).1).expect("a frame")).expect("an ack");
    (ack.end, ack.echo)
}

#[test]
fn a_chain_is_one_frame_that_every_follower_has_kept() {
    let Some([leader, one, two]) = chained("chain") else {
        return;
    };
    for sequence in 1..=3u64 {
        let slot = 6 + sequence;
        let asked = put(sequence, b"value");
        let payload = frame::parse(unwrapped(&asked).1).expect("a frame").payload;
        let sent = leader.run(&asked);
        let (header, to_one) = unwrapped(&sent.data);
        assert_eq!(
            (sent.verdict, header.dst_mac, header.src_port),
            (Verdict::Tx, node_at(1).1, PORT + 1)
        );

        let handed = one.run(&sent.data);
        let (header, to_two) = unwrapped(&handed.data);
        assert_eq!((handed.verdict, header.src_port), (Verdict::Tx, PORT + 2));
        assert_eq!((header.src_mac, header.dst_mac), (node_at(1).1, node_at(2).1));
        let addresses = Addresses::V4 {
            src: *node_at(0).0.ip(),
            dst: *node_at(2).0.ip(),
        };
        assert_eq!((header.addresses, to_two), (addresses, to_one), "as a router hands on");

        let back = two.run(&handed.data);
        assert_eq!((back.verdict, acked(&back.data)), (Verdict::Tx, (slot + 1, 0b110)));
        for follower in [&one, &two] {
            let mut kept = Kept::default();
            assert!(follower.shared.entry(slot, &mut kept));
            assert_eq!((kept.term, &kept.bytes[..]), (3, payload));
        }
        let answer = leader.run(&back.data);
        let reply = frame::parse(unwrapped(&answer.data).1).expect("a frame").header;
        assert_eq!(
            (answer.verdict, reply.kind, reply.slot),
            (Verdict::Tx, Kind::QuorumReply, sequence)
        );
        let seen = leader.shared.seen();
        assert_eq!((seen.commit_end, &seen.acked_end[..3]), (slot + 1, &[slot + 1; 3][..]));
        assert!(
            seen.acked_count[1] > 0 && seen.acked_count[1] == seen.acked_count[2],
            "both were heard of"
        );

        // The same again, late: handed on, for somebody behind may lack it, and acknowledged for what it is about.
        assert_eq!(one.run(&sent.data).data, handed.data);
        assert_eq!(acked(&two.run(&handed.data).data), (slot + 1, 0b110));
        assert_eq!(leader.run(&back.data).verdict, Verdict::Drop, "one answer");
    }
}

#[test]
fn who_is_left_out_of_a_chain_is_not_acknowledged_for() {
    let Some([mut leader, mut one, two]) = chained("left out of a chain") else {
        return;
    };
    let sent = leader.run(&put(1, b"value")).data;
    let (_, entry) = unwrapped(&sent);
    // The leader's replica sends it again by itself; or it comes to the wrong follower.
    let by_itself = wrapped(node_at(0), node_at(2), entry);
    assert_eq!(acked(&two.run(&by_itself).data), (8, 0));
    let from_one = (node_at(0).0, node_at(1).1);
    let mut too_early = wrapped(from_one, node_at(2), entry);
    too_early[14 + 20..][..2].copy_from_slice(&(PORT + 1).to_be_bytes());
    let lonely = two.run(&too_early).data;
    assert_eq!(acked(&lonely), (8, 0));
    assert_eq!(leader.run(&lonely).verdict, Verdict::Tx, "two of three have it");
    assert_eq!(leader.shared.seen().acked_end[..3], [8, 7, 8]);

    // A gap that is too wide to be held: up it goes, and is the leader's own again.
    let second = leader.run(&put(2, b"value")).data;
    one.shared.grant(&Grant {
        hold_slots: 0,
        ..grant(1, 7)
    });
    let passed = one.run(&second);
    let (header, up) = unwrapped(&passed.data);
    assert_eq!((passed.verdict, header.src_port), (Verdict::Pass, PORT));
    assert_eq!((header.dst_mac, up), (node_at(1).1, unwrapped(&second).1));
    assert_eq!(one.shared.count(Count::Gap).expect("it counts"), 1);

    // Without a chain, nobody speaks for others.
    leader.shared.set_chain(None);
    leader.shared.grant(&grant(0, 9));
    let ack = frame::Header {
        kind: Kind::Ack,
        term: 3,
        slot: 9,
        sent_ns: 0b110,
    };
    leader.shared.grant(&Grant {
        acked_end: [7; NODES_MAX],
        ..grant(0, 9)
    });
    leader.run(&wrapped(node_at(2), node_at(0), &framed(&ack, &[])));
    assert_eq!(leader.shared.seen().acked_end[..3], [7, 7, 9]);
}
