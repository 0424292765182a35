//! One frame that visits the followers one after another.

use dataplane_wire::{
    frame::{self, Kind},
    internet::Addresses,
};
use ebpf_abi::quorum::{Count, NODES_MAX};
use ebpf_host::{
    Verdict,
    quorum::{Chain, Grant, Kept},
};

use crate::cluster::{Member, PORT, acked, framed, grant, node_at, put, unwrapped, wrapped};

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
