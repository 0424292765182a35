//! A put goes once around, and what is none of the normal case goes up.

use dataplane_wire::{
    checksum::crc32c,
    frame::{self, Kind},
    quorum::{
        ack, append,
        reply::{self, Outcome},
        request::Command,
    },
};
use ebpf_abi::quorum::{Count, RING_SLOTS};
use ebpf_host::{
    Verdict,
    quorum::{Grant, Kept},
};

use crate::cluster::{CLIENT, GROUP, SESSION, asking, at, cluster, framed, grant, node_at, put, unwrapped, wrapped};

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
