//! What is lost, late, damaged or comes again is mended by the programs, as far as their rings know of it.

use dataplane_wire::{checksum::crc32c, frame, quorum::ack};
use ebpf_abi::quorum::Count;
use ebpf_host::{TestRun, Verdict, quorum::Kept};

use crate::cluster::{CLIENT, acked, appended, cluster, grant, node_at, put, unwrapped};

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

#[test]
fn a_damaged_copy_of_an_entry_that_is_held_changes_nothing() {
    let Some([leader, one, _]) = cluster("damaged copy") else {
        return;
    };
    let first = leader.run(&put(1, b"first")).data;
    let second = leader.run(&put(2, b"second")).data;
    let payload = frame::parse(unwrapped(&second).1).expect("a frame").payload;
    let is_kept = || {
        let mut kept = Kept::default();
        assert!(one.shared.entry(8, &mut kept));
        assert_eq!((kept.crc, &kept.bytes[..]), (crc32c(payload), payload));
    };
    assert_eq!(acked(&one.run(&second).data), (7, ack::ASKS));
    // A program's datagram has no UDP checksum: of these bits only the payload's own says that they are wrong.
    let begin = second.len() - payload.len();
    for bit in 0..payload.len() * 8 {
        let mut damaged = second.clone();
        damaged[begin + bit / 8] ^= 1 << (bit % 8);
        assert_ne!(
            one.run(&damaged).verdict,
            Verdict::Pass,
            "bit {bit}: the grant is not for nothing"
        );
        is_kept();
    }
    assert_eq!(one.shared.seen().next, 7, "it waits");
    let whole = one.run(&first);
    assert_eq!(acked(&whole.data), (9, 0), "and is acknowledged as it came first");
    is_kept();
}
