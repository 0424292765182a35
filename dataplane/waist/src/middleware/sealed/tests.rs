//! What is refused: everything but the frame itself, from whom it came, to whom it was sent, in its cluster.

use proptest::prelude::*;

use super::*;
use crate::testing::TestPort;

const CLUSTER: u64 = 0x1122_3344_5566_7788;
/// The largest frame of the port below.
const BELOW_BYTES_MAX: usize = 96;
const SECRET: &[u8] = b"the secret of these tests";

fn options(node: u32, peer_nodes: &[u32]) -> SealedOptions {
    SealedOptions {
        key: ClusterKey::new(SECRET).expect("long enough"),
        cluster: CLUSTER,
        node,
        peer_nodes: peer_nodes.to_vec(),
    }
}

fn sealed_with(options: &SealedOptions) -> Sealed<TestPort> {
    Sealed::new(TestPort::new(BELOW_BYTES_MAX, 8), options).expect("sound options")
}

fn sealed(node: u32, peer_nodes: &[u32]) -> Sealed<TestPort> {
    sealed_with(&options(node, peer_nodes))
}

/// What `port` sends below when it is given `frame`.
fn send(port: &mut Sealed<TestPort>, to: Peer, frame: &[u8]) -> Vec<u8> {
    port.tx(to, frame.len(), &mut |bytes| bytes.copy_from_slice(frame))
        .expect("room");
    port.flush().expect("a test port");
    let [(sent_to, bytes)] = port.port_mut().drain_tx().try_into().expect("one frame");
    assert_eq!(sent_to, to);
    bytes
}

/// What `port` hands up when `bytes` arrive from `from`.
fn receive(port: &mut Sealed<TestPort>, from: Peer, bytes: &[u8]) -> Option<Vec<u8>> {
    assert!(port.port_mut().put_rx(from, bytes));
    let mut received = Vec::new();
    let handed_count = port
        .rx_burst(&mut |frame| {
            assert_eq!(frame.from, from);
            received.push(frame.bytes.to_vec());
        })
        .expect("a test port");
    assert_eq!(handed_count, received.len());
    received.pop()
}

proptest! {
    #[test]
    fn a_frame_arrives_as_it_was_between_replicas_and_with_clients(
        frame in prop::collection::vec(any::<u8>(), 0..=BELOW_BYTES_MAX - TAG_BYTES),
    ) {
        let mut zero = sealed(0, &[1, 2]);
        let mut two = sealed(2, &[0, 1]);
        let mut client = sealed(CLIENT_NODE, &[0, 1, 2]);
        let below = send(&mut zero, Peer(1), &frame);
        prop_assert_eq!(below.len(), frame.len() + TAG_BYTES);
        prop_assert_eq!(receive(&mut two, Peer(0), &below), Some(frame.clone()));
        // Clients are who is behind the table, however many.
        let below = send(&mut client, Peer(2), &frame);
        prop_assert_eq!(receive(&mut two, Peer(7), &below), Some(frame.clone()));
        let below = send(&mut two, Peer(7), &frame);
        prop_assert_eq!(receive(&mut client, Peer(2), &below), Some(frame));
        prop_assert_eq!(two.counts(), SealedCounts::default());
        prop_assert_eq!(two.stats().rx_frames_count, 2);
    }
}

#[test]
fn every_flipped_bit_and_every_cut_is_refused_and_counted() {
    let mut zero = sealed(0, &[1]);
    let mut one = sealed(1, &[0]);
    let below = send(&mut zero, Peer(0), b"a frame of some length");
    let mut expected = SealedCounts::default();
    for bit in 0..below.len() * 8 {
        let mut flipped = below.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(receive(&mut one, Peer(0), &flipped), None, "bit {bit}");
        expected.forged_count += 1;
    }
    for len_bytes in 0..below.len() {
        assert_eq!(
            receive(&mut one, Peer(0), &below[..len_bytes]),
            None,
            "{len_bytes} bytes"
        );
        match len_bytes < TAG_BYTES {
            true => expected.short_count += 1,
            false => expected.forged_count += 1,
        }
    }
    let longer = [&below[..], &[0]].concat();
    assert_eq!(receive(&mut one, Peer(0), &longer), None);
    expected.forged_count += 1;
    assert_eq!(one.counts(), expected);

    assert!(receive(&mut one, Peer(0), &below).is_some(), "as it was");
    assert_eq!(one.counts(), expected);
    let stats = one.stats();
    assert_eq!(stats.rx_frames_count, 1, "those that were handed up");
    assert_eq!(stats.malformed_count, expected.forged_count + expected.short_count);
}

#[test]
fn a_frame_is_for_one_receiver_from_one_sender_in_one_cluster() {
    let mut zero = sealed(0, &[1, 2]);
    let below = send(&mut zero, Peer(0), b"to node 1");
    let other_cluster = SealedOptions {
        cluster: CLUSTER + 1,
        ..options(1, &[0, 2])
    };
    let other_key = SealedOptions {
        key: ClusterKey::new(b"another secret altogether").expect("long enough"),
        ..options(1, &[0, 2])
    };
    for (what, mut port, from) in [
        ("to another replica", sealed(2, &[0, 1]), Peer(0)),
        ("as if another replica had sent it", sealed(1, &[0, 2]), Peer(1)),
        ("back to its sender", sealed(0, &[1, 2]), Peer(0)),
        ("to a client", sealed(CLIENT_NODE, &[0, 1, 2]), Peer(0)),
        (
            "to a client from nobody it knows",
            sealed(CLIENT_NODE, &[0, 1, 2]),
            Peer(3),
        ),
        ("to another cluster", sealed_with(&other_cluster), Peer(0)),
        ("to who has another key", sealed_with(&other_key), Peer(0)),
    ] {
        assert_eq!(receive(&mut port, from, &below), None, "{what}");
        assert_eq!(
            (port.counts().forged_count, port.counts().short_count),
            (1, 0),
            "{what}"
        );
    }
    assert!(receive(&mut sealed(1, &[0, 2]), Peer(0), &below).is_some());
}

#[test]
fn a_peers_frames_from_another_address_are_refused_and_told_from_forged_ones() {
    let mut zero = sealed(0, &[1, 2]);
    let below = send(&mut zero, Peer(0), b"to node 1");
    let mut forged = below.clone();
    forged[0] ^= 1;
    let mut one = sealed(1, &[0, 2]);
    // A peer's address is not looked at more closely, and what is merely forged is nobody's.
    assert_eq!(receive(&mut one, Peer(1), &below), None);
    assert_eq!(receive(&mut one, Peer(2), &forged), None);
    assert_eq!(one.misplaced(), None);

    let mut one = sealed(1, &[2, 0]);
    // Behind the two peers' are the addresses that are nobody's.
    assert_eq!(receive(&mut one, Peer(2), &below), None);
    let from = |peer| Misplaced {
        node: 0,
        address: Some(TestPort::addr_of(peer)),
    };
    assert_eq!(one.misplaced(), Some(from(Peer(2))));
    assert_eq!(
        one.counts(),
        SealedCounts {
            misplaced_count: 1,
            ..SealedCounts::default()
        }
    );
    // A flood hides it for fifteen frames, and no longer.
    for number in 0..LOOK_CLOSER_EVERY - 1 {
        assert_eq!(receive(&mut one, Peer(3 + number as u32), &forged), None);
    }
    assert_eq!(receive(&mut one, Peer(9), &below), None);
    assert_eq!(one.misplaced(), Some(from(Peer(9))));
    let expected = SealedCounts {
        short_count: 0,
        forged_count: LOOK_CLOSER_EVERY - 1,
        misplaced_count: 2,
    };
    assert_eq!(one.counts(), expected);
    let stats = one.stats();
    assert_eq!(
        (stats.rx_frames_count, stats.malformed_count),
        (0, expected.forged_count)
    );
    assert_eq!(stats.strangers_count, 2);
    assert!(receive(&mut one, Peer(1), &below).is_some(), "from its own address");
    assert_eq!(one.misplaced(), Some(from(Peer(9))), "the last that was");
}

#[test]
fn a_frame_that_cannot_be_sealed_is_refused_before_it_is_filled() {
    let mut client = sealed(CLIENT_NODE, &[0]);
    let frame_bytes_max = client.caps().frame_bytes_max;
    assert_eq!(frame_bytes_max, BELOW_BYTES_MAX - TAG_BYTES);
    let mut not_filled = |_: &mut [u8]| panic!("not filled");
    for len_bytes in [frame_bytes_max + 1, usize::MAX] {
        assert_eq!(client.tx(Peer(0), len_bytes, &mut not_filled), Err(TxError::TooLong));
    }
    assert_eq!(client.tx(Peer(1), 1, &mut not_filled), Err(TxError::NoPeer));
    assert_eq!(
        send(&mut client, Peer(0), &[7; BELOW_BYTES_MAX - TAG_BYTES]).len(),
        BELOW_BYTES_MAX
    );
}

#[test]
fn options_that_would_reflect_or_carry_nothing_are_refused() {
    let refusal = |frame_bytes_max, options: &SealedOptions| {
        let result = Sealed::new(TestPort::new(frame_bytes_max, 1), options);
        result.err().map(|error| error.to_string()).unwrap_or_default()
    };
    let own = refusal(64, &options(1, &[0, 1]));
    assert!(own.contains("peer 1 has the number of this node, 1"), "{own}");
    let own = refusal(64, &options(CLIENT_NODE, &[0, CLIENT_NODE]));
    assert!(own.contains("peer 1"), "{own}");
    let small = refusal(TAG_BYTES, &options(0, &[1]));
    assert!(small.contains("16 bytes"), "{small}");
    assert_eq!(refusal(TAG_BYTES + 1, &options(0, &[1])), "");
}

#[test]
fn a_warm_port_takes_no_memory() {
    let mut zero = sealed(0, &[1]);
    let mut one = sealed(1, &[0]);
    let mut round_trips = |count: u32| {
        for _ in 0..count {
            zero.tx(Peer(0), 64, &mut |bytes| bytes.fill(7)).expect("room");
            zero.flush().expect("a test port");
            let one_below = one.port_mut();
            assert!(
                zero.port_mut()
                    .take_tx(|_, bytes| assert!(one_below.put_rx(Peer(0), bytes)))
            );
            // A forged one, too.
            assert!(one_below.put_rx(Peer(0), &[7; 80]));
            assert_eq!(one.rx_burst(&mut |_| ()).expect("a test port"), 1);
        }
    };
    round_trips(10);
    let counted = allocation_counter::measure(|| round_trips(1000));
    assert_eq!(counted.count_total, 0, "{counted:?}");
    assert_eq!(one.counts().forged_count, 1010);
}
