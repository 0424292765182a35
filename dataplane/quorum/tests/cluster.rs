//! Small clusters in one thread: elections, commits, repair, sessions, reads, snapshots, members.

mod support;

use std::{cell::RefCell, collections::VecDeque, rc::Rc, time::Duration};

use dataplane_quorum::{Mutation, ReadMode, RoleName, Timing, majorities};
use dataplane_waist::{Effects, Input, Peer, Slot, Term};
use dataplane_wire::{
    frame::{self, Kind},
    quorum::{
        members::Members,
        request::Command,
        sender::Sender,
        vote::{self, VoteRequest},
    },
};
use support::{CLIENT, Cluster, config, request_frame};

fn put(value: &[u8]) -> Command<'_> {
    Command::Put { key: b"k", value }
}

#[test]
fn one_leader_is_elected_and_commits() {
    for count in [1, 2, 3, 5, 7] {
        let mut cluster = Cluster::of(count);
        let leader = cluster.elect();
        let client = cluster.open(leader);
        cluster.request(leader, client, 1, put(b"v"));
        cluster.settle();
        assert_eq!(cluster.answers, [(leader, 1, "Done".into())]);
        cluster.run_for(Duration::from_millis(50));
        for member in &cluster.members {
            assert_eq!(member.replica.machine().value, b"v", "{count} replicas");
            assert_eq!(member.replica.counters().impossible_count, 0);
        }
        let leaders = cluster
            .members
            .iter()
            .filter(|member| member.replica.role() == RoleName::Leader);
        assert_eq!(leaders.count(), 1);
    }
}

#[test]
fn a_commit_among_three_takes_six_frames_with_the_clients_two() {
    let mut cluster = Cluster::of(3);
    let leader = cluster.elect();
    let client = cluster.open(leader);
    let before_count = cluster.frames_count;
    for sequence in 1..=50 {
        cluster.request(leader, client, sequence, put(b"v"));
        cluster.settle();
    }
    // Two appends, two acknowledgements, one answer; the request itself is not counted by the cluster.
    assert_eq!(cluster.frames_count - before_count, 5 * 50);
    let follower = &cluster.members[(leader as usize + 1) % 3].replica;
    assert!(
        follower.counters().fast_entries_count >= 50,
        "{:?}",
        follower.counters()
    );
}

#[test]
fn a_follower_that_owed_nothing_is_not_asked_why_it_does_not_answer() {
    let mut cluster = Cluster::of(3);
    let leader = cluster.elect();
    let client = cluster.open(leader);
    for sequence in 1..=3 {
        // Longer than an answer may take, shorter than a heartbeat.
        cluster.run_for(Timing::LOCAL.retransmit * 3);
        let before_count = cluster.frames_count;
        cluster.request(leader, client, sequence, put(b"v"));
        cluster.settle();
        assert_eq!(cluster.frames_count - before_count, 5, "put {sequence}");
    }
}

#[test]
fn a_request_that_comes_twice_is_applied_once() {
    let mut cluster = Cluster::of(3);
    let leader = cluster.elect();
    let client = cluster.open(leader);
    for _ in 0..3 {
        cluster.request(leader, client, 5, put(b"v"));
    }
    cluster.settle();
    cluster.request(leader, client, 5, put(b"v"));
    cluster.settle();
    assert_eq!(
        cluster.answers.len(),
        4,
        "every copy is answered: {:?}",
        cluster.answers
    );
    assert_eq!(cluster.members[leader as usize].replica.machine().puts_count, 1);
}

#[test]
fn a_session_that_is_not_known_is_told_so() {
    let mut cluster = Cluster::of(3);
    let leader = cluster.elect();
    cluster.request(leader, 1 << 40, 1, put(b"v"));
    cluster.settle();
    assert_eq!(cluster.answers, [(leader, 1, "Expired".into())]);
}

#[test]
fn a_lost_entry_is_sent_again_and_those_behind_it_are_not() {
    let mut cluster = Cluster::of(3);
    let leader = cluster.elect();
    let client = cluster.open(leader);
    let mut appends_count = 0;
    let victim = (leader + 1) % 3;
    cluster.loses = Box::new(move |_, to, bytes| {
        let is_append = frame::parse(bytes).is_ok_and(|frame| frame.header.kind == Kind::Append);
        appends_count += u64::from(is_append && to == victim);
        is_append && to == victim && appends_count == 3
    });
    for sequence in 1..=10 {
        cluster.request(leader, client, sequence, put(&[sequence as u8]));
    }
    cluster.settle();
    let leader_counters = *cluster.members[leader as usize].replica.counters();
    assert_eq!(leader_counters.resent_count, 1, "{leader_counters:?}");
    cluster.run_for(Duration::from_millis(30));
    let follower = &cluster.members[victim as usize].replica;
    assert_eq!(follower.machine().value, [10]);
    assert_eq!(follower.counters().held_count, 7);
}

/// A leader that has been asked for more than one frame holds, and its frames to each follower.
fn asked_at_once() -> (Cluster, u32, [Vec<Vec<u8>>; 3]) {
    let mut cluster = Cluster::of(3);
    let leader = cluster.elect();
    let client = cluster.open(leader);
    // The fast path is open, as it is in a cluster at work.
    cluster.request(leader, client, 1, put(b"v"));
    cluster.settle();
    let value = [7; 300];
    let requests: Vec<_> = (2..=13)
        .map(|sequence| request_frame(client, sequence, put(&value)))
        .collect();
    let inputs = requests.iter().map(|bytes| Input::Frame { from: CLIENT, bytes });
    cluster.burst(leader, inputs);
    let mut frames = [const { Vec::new() }; 3];
    for (_, to, bytes) in cluster.wires.drain(..) {
        frames[to as usize].push(bytes);
    }
    (cluster, leader, frames)
}

#[test]
fn a_batch_of_several_frames_is_acknowledged_once() {
    let (mut cluster, leader, frames) = asked_at_once();
    let before_count = cluster.frames_count;
    for (node, frames) in (0u32..).zip(&frames).filter(|&(node, _)| node != leader) {
        assert!(frames.len() > 1, "{} frames", frames.len());
        let from = Peer(leader);
        cluster.burst(node, frames.iter().map(|bytes| Input::Frame { from, bytes }));
    }
    assert_eq!(cluster.frames_count - before_count, 2, "an acknowledgement of each");
    cluster.settle();
    let answers_count = cluster.answers.len() as u64;
    assert_eq!(answers_count, 13);
    assert_eq!(cluster.frames_count - before_count, 2 + 12, "and the answers");
    let counters = *cluster.members[leader as usize].replica.counters();
    assert_eq!(counters.resent_count, 0, "{counters:?}");
}

#[test]
fn of_a_batch_of_several_frames_what_is_lost_is_sent_again_and_nothing_else() {
    for lost in ["the first", "the last"] {
        let (mut cluster, leader, frames) = asked_at_once();
        for (node, frames) in (0u32..).zip(&frames).filter(|&(node, _)| node != leader) {
            let rest = match lost {
                "the first" => &frames[1..],
                _ => &frames[..frames.len() - 1],
            };
            let from = Peer(leader);
            cluster.burst(node, rest.iter().map(|bytes| Input::Frame { from, bytes }));
        }
        cluster.settle();
        assert_eq!(cluster.answers.len(), 13, "{lost}");
        let counters = *cluster.members[leader as usize].replica.counters();
        // Four entries at most have room in a frame, and two followers lack one.
        assert!((2..=8).contains(&counters.resent_count), "{lost}: {counters:?}");
    }
}

#[test]
fn the_last_entry_lost_everywhere_is_sent_again_by_the_timer() {
    let mut cluster = Cluster::of(3);
    let leader = cluster.elect();
    let client = cluster.open(leader);
    let mut lost_count = 0;
    cluster.loses = Box::new(move |_, _, bytes| {
        let is_append = frame::parse(bytes).is_ok_and(|frame| frame.header.kind == Kind::Append);
        lost_count += u64::from(is_append);
        is_append && lost_count <= 2
    });
    cluster.request(leader, client, 1, put(b"v"));
    cluster.settle();
    assert_eq!(cluster.answers, []);
    cluster.run_for(Duration::from_millis(4));
    assert_eq!(cluster.answers, [(leader, 1, "Done".into())]);
}

#[test]
fn a_new_leader_has_everything_that_was_answered_and_the_old_one_joins_it() {
    let mut cluster = Cluster::of(3);
    let old = cluster.elect();
    let client = cluster.open(old);
    for sequence in 1..=5 {
        cluster.request(old, client, sequence, put(&[sequence as u8]));
    }
    cluster.settle();
    cluster.members[old as usize].is_up = false;
    let new = cluster.elect();
    assert_ne!(new, old);
    assert_eq!(cluster.members[new as usize].replica.machine().value, [5]);
    // The request that was answered is known to the new leader as well.
    cluster.answers.clear();
    cluster.request(new, client, 5, put(&[5]));
    cluster.settle();
    assert_eq!(cluster.answers, [(new, 5, "Done".into())]);
    cluster.restart(old, config(old, 3, ReadMode::Index));
    cluster.request(new, client, 6, put(&[6]));
    cluster.run_for(Duration::from_millis(100));
    assert_eq!(cluster.members[old as usize].replica.machine().value, [6]);
    assert_eq!(cluster.members[old as usize].replica.machine().puts_count, 6);
}

#[test]
fn an_entry_that_was_never_committed_gives_way() {
    let mut cluster = Cluster::of(3);
    let old = cluster.elect();
    let client = cluster.open(old);
    // Nothing that the leader says arrives from here on, and it does not know.
    cluster.loses = Box::new(move |from, _, _| from == old);
    for sequence in 1..=3 {
        cluster.request(old, client, sequence, put(b"lost"));
    }
    cluster.settle();
    cluster.run_for(Duration::from_millis(400));
    let new = cluster.leader().expect("the other two elect");
    assert_ne!(new, old);
    cluster.loses = Box::new(|_, _, _| false);
    cluster.request(new, client, 9, put(b"kept"));
    cluster.run_for(Duration::from_millis(100));
    let replica = &cluster.members[old as usize].replica;
    assert_eq!(replica.machine().value, b"kept");
    assert!(replica.counters().truncated_count >= 3, "{:?}", replica.counters());
    assert!(
        cluster.answers.iter().all(|(_, sequence, _)| *sequence == 9),
        "{:?}",
        cluster.answers
    );
}

#[test]
fn a_replica_that_was_cut_off_does_not_depose_the_leader() {
    let mut cluster = Cluster::of(3);
    let leader = cluster.elect();
    let term = cluster.members[leader as usize].replica.term();
    let away = (leader + 1) % 3;
    cluster.loses = Box::new(move |from, to, _| from == away || to == away);
    cluster.run_for(Duration::from_secs(3));
    cluster.loses = Box::new(|_, _, _| false);
    cluster.run_for(Duration::from_secs(1));
    assert_eq!(cluster.leader(), Some(leader));
    assert_eq!(cluster.members[away as usize].replica.term(), term);
}

#[test]
fn a_leader_that_hears_from_no_quorum_steps_down() {
    let mut cluster = Cluster::of(3);
    let leader = cluster.elect();
    for other in 0..3 {
        cluster.members[other as usize].is_up = other == leader;
    }
    cluster.run_for(Duration::from_millis(700));
    assert_ne!(cluster.members[leader as usize].replica.role(), RoleName::Leader);
}

#[test]
fn reads_are_answered_by_asking_or_by_lease_and_stale_ones_by_anybody() {
    for reads in [ReadMode::Index, ReadMode::Lease] {
        let mut cluster = Cluster::new((0..3).map(|node| config(node, 3, reads)));
        let leader = cluster.elect();
        let client = cluster.open(leader);
        cluster.request(leader, client, 1, put(b"v"));
        cluster.settle();
        cluster.run_for(Duration::from_millis(50));
        cluster.answers.clear();
        cluster.request(leader, client, 2, Command::Get { key: b"k" });
        cluster.run_for(Duration::from_millis(1));
        assert_eq!(cluster.answers, [(leader, 2, "Value([118])".into())]);
        let counters = cluster.members[leader as usize].replica.counters();
        let by_mode = (counters.index_reads_count, counters.lease_reads_count);
        assert_eq!(by_mode, if reads == ReadMode::Index { (1, 0) } else { (0, 1) });
        let follower = (leader + 1) % 3;
        cluster.answers.clear();
        cluster.request(follower, client, 3, Command::Get { key: b"k" });
        cluster.request(follower, client, 4, Command::StaleGet { key: b"k" });
        let not_leader = format!("NotLeader {{ leader: Some({leader}) }}");
        assert_eq!(
            cluster.answers,
            [(follower, 3, not_leader), (follower, 4, "Value([118])".into())]
        );
    }
}

#[test]
fn a_leader_that_was_replaced_answers_no_read() {
    for reads in [ReadMode::Index, ReadMode::Lease] {
        let mut cluster = Cluster::new((0..3).map(|node| config(node, 3, reads)));
        let old = cluster.elect();
        let client = cluster.open(old);
        cluster.loses = Box::new(move |from, to, _| from == old || to == old);
        // Until a new leader writes, the old one may read by its lease; afterwards never.
        while cluster.leader().is_none_or(|leader| leader == old) {
            cluster.run_for(Duration::from_millis(5));
        }
        let new = cluster.leader().expect("there is one");
        cluster.request(new, client, 1, put(b"new"));
        cluster.run_for(Duration::from_millis(10));
        cluster.answers.clear();
        cluster.request(old, client, 2, Command::Get { key: b"k" });
        cluster.run_for(Duration::from_millis(50));
        assert!(
            cluster
                .answers
                .iter()
                .all(|(_, _, outcome)| outcome.starts_with("NotLeader")),
            "{reads:?}: {:?}",
            cluster.answers
        );
    }
}

#[test]
fn a_follower_that_was_away_for_long_gets_a_snapshot() {
    let mut cluster = Cluster::of(3);
    let leader = cluster.elect();
    let client = cluster.open(leader);
    let away = (leader + 1) % 3;
    cluster.members[away as usize].is_up = false;
    for sequence in 1..=500 {
        cluster.request(leader, client, sequence, put(&[sequence as u8; 100]));
        cluster.settle();
    }
    assert!(cluster.members[leader as usize].replica.counters().snapshots_count >= 4);
    cluster.restart(away, config(away, 3, ReadMode::Index));
    cluster.run_for(Duration::from_millis(200));
    let replica = &cluster.members[away as usize].replica;
    assert_eq!(replica.counters().snapshots_installed_count, 1);
    assert_eq!(replica.machine(), cluster.members[leader as usize].replica.machine());
    // And goes on from its own log.
    cluster.restart(away, config(away, 3, ReadMode::Index));
    cluster.request(leader, client, 501, put(b"after"));
    cluster.run_for(Duration::from_millis(200));
    let replica = &cluster.members[away as usize].replica;
    assert_eq!(replica.counters().snapshots_installed_count, 0);
    assert_eq!(replica.machine().value, b"after");
    assert_eq!(replica.machine().puts_count, 501);
}

#[test]
fn a_voter_is_added_and_the_leader_removes_itself() {
    let with_three = |node| {
        let mut config = config(node, 4, ReadMode::Index);
        config.members = majorities(0b0111);
        config
    };
    let mut cluster = Cluster::new((0..4).map(with_three));
    let leader = cluster.elect();
    assert_ne!(leader, 3, "who does not vote does not stand");
    let client = cluster.open(leader);
    cluster.request(leader, client, 1, put(b"v"));
    cluster.settle();
    cluster.answers.clear();
    let change = |members: Members| Command::Reconfigure { members };
    cluster.request(leader, client, 2, change(majorities(0b1111)));
    cluster.run_for(Duration::from_millis(100));
    assert_eq!(cluster.answers, [(leader, 2, "Done".into())]);
    assert_eq!(cluster.members[3].replica.machine().value, b"v");
    cluster.answers.clear();
    cluster.request(leader, client, 3, change(majorities(0b0001)));
    assert_eq!(cluster.answers, [(leader, 3, "Refused { reason: 3 }".into())]);
    cluster.answers.clear();
    cluster.request(leader, client, 4, change(majorities(0b1111 & !(1 << leader))));
    cluster.run_for(Duration::from_millis(100));
    assert_eq!(cluster.answers, [(leader, 4, "Done".into())]);
    let new = cluster.elect();
    assert_ne!(new, leader);
    let members = cluster.members[new as usize].replica.members();
    assert!(!members.contains(leader) && members.count() == 3);
}

#[test]
fn more_than_fits_is_refused_with_busy_and_nothing_is_lost() {
    let mut cluster = Cluster::of(3);
    let leader = cluster.elect();
    let client = cluster.open(leader);
    cluster.loses = Box::new(|_, _, _| true);
    for sequence in 1..=70 {
        cluster.request(leader, client, sequence, put(b"v"));
    }
    let busy_count = cluster
        .answers
        .iter()
        .filter(|(_, _, outcome)| outcome == "Busy")
        .count();
    assert_eq!(busy_count, 70 - 64);
    cluster.loses = Box::new(|_, _, _| false);
    cluster.run_for(Duration::from_millis(100));
    assert_eq!(cluster.members[leader as usize].replica.machine().puts_count, 64);
}

#[test]
fn frames_of_another_cluster_or_a_wrong_address_change_nothing() {
    let mut cluster = Cluster::new((0..3).map(|node| {
        let mut config = config(node, 3, ReadMode::Index);
        config.cluster = 7 + u64::from(node == 2);
        config
    }));
    let leader = cluster.elect();
    assert_ne!(leader, 2);
    cluster.run_for(Duration::from_secs(1));
    let stranger = &cluster.members[2].replica;
    assert_eq!(stranger.term(), Term(0));
    assert_eq!(stranger.window().end(), Slot(0));
    assert!(stranger.counters().wrong_cluster_count > 0);
}

/// A second replica with node 2's number, at an address that nobody was told: it asks for votes.
#[test]
fn frames_of_a_node_from_an_address_that_is_not_its_are_counted_and_change_nothing() {
    let mut cluster = Cluster::of(3);
    let leader = cluster.elect();
    let elsewhere = Peer(40);
    let request = |cluster: u64, node: u32| {
        let request = VoteRequest {
            term: 99,
            log_end: 99,
            last_term: 98,
            sender: Sender { cluster, node },
            pre: false,
        };
        let mut bytes = vec![0; frame::HEADER_BYTES + vote::PAYLOAD_BYTES];
        request.emit(&mut bytes);
        bytes
    };
    let term = cluster.members[leader as usize].replica.term();
    let cluster_number = config(0, 3, ReadMode::Index).cluster;
    for (from_cluster, node, is_counted) in [
        (cluster_number, 2, true),
        (cluster_number, leader, true),
        (cluster_number, 77, false),
        (cluster_number + 1, 2, false),
    ] {
        let before_count = cluster.members[leader as usize].replica.counters().wrong_address_count;
        let frame = Input::Frame {
            from: elsewhere,
            bytes: &request(from_cluster, node),
        };
        cluster.input(leader, frame);
        let replica = &cluster.members[leader as usize].replica;
        let counted = replica.counters().wrong_address_count - before_count;
        assert_eq!(counted, u64::from(is_counted), "{from_cluster} {node}");
        if is_counted {
            assert_eq!(replica.misplaced(), Some((node, elsewhere)));
        }
        assert_eq!((replica.term(), replica.leader()), (term, Some(leader)));
    }
}

#[test]
fn a_snapshot_that_a_turn_has_no_room_for_is_taken_in_a_later_one() {
    let mut cluster = Cluster::of(3);
    let leader = cluster.elect();
    let client = cluster.open(leader);
    let away = (leader + 1) % 3;
    cluster.members[away as usize].is_up = false;
    for sequence in 1..=300 {
        cluster.request(leader, client, sequence, put(&[sequence as u8; 100]));
        cluster.settle();
    }
    cluster.restart(away, config(away, 3, ReadMode::Index));
    let before_end = cluster.members[away as usize].replica.window().end();
    // The chunks wait at the network's other end until the test delivers them, to a turn that is full.
    let chunks = Rc::new(RefCell::new(Vec::new()));
    let kept = chunks.clone();
    cluster.loses = Box::new(move |_, to, bytes| {
        let is_chunk = frame::parse(bytes).is_ok_and(|frame| frame.header.kind == Kind::SnapshotChunk);
        if is_chunk && to == away {
            kept.borrow_mut().push(bytes.to_vec());
        }
        is_chunk
    });
    cluster.run_for(Timing::LOCAL.heartbeat * 2);
    let full = Effects::with_capacity(0, 0);
    let roomy = std::mem::replace(&mut cluster.members[away as usize].effects, full);
    assert!(!chunks.borrow().is_empty(), "the leader sends a snapshot");
    for bytes in chunks.take() {
        let from = Peer(leader);
        cluster.input(away, Input::Frame { from, bytes: &bytes });
    }
    let replica = &cluster.members[away as usize].replica;
    assert_eq!(replica.counters().snapshots_installed_count, 0);
    assert_eq!((replica.window().end(), replica.applied_end()), (before_end, Slot(0)));
    assert_eq!(replica.machine().puts_count, 0);
    cluster.members[away as usize].effects = roomy;
    cluster.loses = Box::new(|_, _, _| false);
    cluster.request(leader, client, 301, put(b"after"));
    cluster.run_for(Duration::from_millis(200));
    let replica = &cluster.members[away as usize].replica;
    assert_eq!(replica.counters().snapshots_installed_count, 1);
    assert_eq!(replica.machine().puts_count, 301);
    // Its log has followed.
    cluster.restart(away, config(away, 3, ReadMode::Index));
    cluster.run_for(Duration::from_millis(200));
    let replica = &cluster.members[away as usize].replica;
    assert_eq!(replica.counters().snapshots_installed_count, 0);
    assert_eq!(replica.machine(), cluster.members[leader as usize].replica.machine());
}

#[test]
fn a_voter_is_added_by_a_leader_that_has_forgotten_its_first_slots() {
    // The leader was elected with an empty log, so it would ask a new member about slot 0, which it has no more.
    let with_three = |node| {
        let mut config = config(node, 4, ReadMode::Index);
        config.members = majorities(0b0111);
        config
    };
    let mut cluster = Cluster::new((0..4).map(with_three));
    let leader = cluster.elect();
    let client = cluster.open(leader);
    for sequence in 1..=150 {
        cluster.request(leader, client, sequence, put(b"v"));
        cluster.settle();
    }
    assert!(cluster.members[leader as usize].replica.window().begin() > Slot(0));
    let members = majorities(0b1111);
    cluster.request(leader, client, 151, Command::Reconfigure { members });
    cluster.run_for(Duration::from_millis(200));
    let new = &cluster.members[3].replica;
    assert_eq!(new.machine().puts_count, 150, "{:?}", new.counters());
    assert_eq!(new.counters().snapshots_installed_count, 1);
}

#[test]
fn a_follower_that_cannot_read_what_it_acknowledged_gets_it_again_from_the_same_leader() {
    let mut cluster = Cluster::of(3);
    let leader = cluster.elect();
    let client = cluster.open(leader);
    for sequence in 1..=20 {
        cluster.request(leader, client, sequence, put(b"v"));
        cluster.settle();
    }
    let follower = (leader + 1) % 3;
    cluster.damage(follower, Slot(5), config(follower, 3, ReadMode::Index));
    assert!(cluster.members[follower as usize].replica.is_damaged());
    cluster.run_for(Duration::from_millis(100));
    assert_eq!(cluster.leader(), Some(leader));
    let repaired = &cluster.members[follower as usize].replica;
    assert!(!repaired.is_damaged());
    assert_eq!(repaired.machine().puts_count, 20);
}

#[test]
fn a_change_of_members_that_is_asked_for_twice_is_not_refused_and_made() {
    let mut cluster = Cluster::of(4);
    let leader = cluster.elect();
    let client = cluster.open(leader);
    let change = |away: u32| Command::Reconfigure {
        members: majorities(0b1111 ^ 1 << away),
    };
    let (first, second) = ((leader + 1) % 4, (leader + 2) % 4);
    cluster.loses = Box::new(move |_, to, _| to == leader);
    cluster.request(leader, client, 1, change(first));
    cluster.settle();
    // No answer came, so the client asks again, under the same number.
    cluster.request(leader, client, 1, change(first));
    assert_eq!(cluster.answers, [(leader, 1, "Busy".into())]);
    cluster.loses = Box::new(|_, _, _| false);
    cluster.run_for(Duration::from_millis(50));
    assert_eq!(cluster.answers.pop(), Some((leader, 1, "Done".into())));
    // A late copy of it, when the members have become others, which one step would not lead back from.
    let back = Command::Reconfigure {
        members: majorities(0b1111),
    };
    for (sequence, command) in [(2, back), (3, change(second))] {
        cluster.request(leader, client, sequence, command);
        cluster.run_for(Duration::from_millis(50));
        assert_eq!(cluster.answers.pop(), Some((leader, sequence, "Done".into())));
    }
    cluster.request(leader, client, 1, change(first));
    assert_eq!(cluster.answers.pop(), Some((leader, 1, "Done".into())));
    let members = cluster.members[leader as usize].replica.members();
    assert_eq!(members, majorities(0b1111 ^ 1 << second));
}

/// The leader has begun other rounds by the time it hears what the follower says of the last one but two.
#[test]
fn a_follower_that_answers_later_than_the_next_heartbeat_is_repaired_too() {
    let mut cluster = Cluster::of(3);
    let leader = cluster.elect();
    let client = cluster.open(leader);
    for sequence in 1..=20 {
        cluster.request(leader, client, sequence, put(b"v"));
        cluster.settle();
    }
    let follower = (leader + 1) % 3;
    let late = Rc::new(RefCell::new(Vec::new()));
    let caught = Rc::clone(&late);
    cluster.loses = Box::new(move |from, to, bytes| {
        let is_late = (from, to) == (follower, leader);
        if is_late {
            caught.borrow_mut().push(bytes.to_vec());
        }
        is_late
    });
    cluster.damage(follower, Slot(5), config(follower, 3, ReadMode::Index));
    let mut under_way = VecDeque::new();
    for _ in 0..30 {
        // A heartbeat is 20 ms: what was said within one arrives behind the third.
        cluster.run_for(Duration::from_millis(20));
        under_way.push_back(late.take());
        if under_way.len() > 2 {
            for bytes in under_way.pop_front().expect("there are three") {
                let from = Peer(follower);
                cluster.input(leader, Input::Frame { from, bytes: &bytes });
            }
        }
    }
    assert_eq!(cluster.leader(), Some(leader));
    let repaired = &cluster.members[follower as usize].replica;
    assert!(!repaired.is_damaged());
    assert_eq!(repaired.machine().puts_count, 20);
}

#[test]
fn one_entry_that_was_never_committed_gives_way_to_the_one_entry_of_an_idle_leader() {
    let mut cluster = Cluster::of(3);
    let old = cluster.elect();
    let client = cluster.open(old);
    cluster.loses = Box::new(move |from, _, _| from == old);
    cluster.request(old, client, 1, put(b"lost"));
    cluster.settle();
    cluster.run_for(Duration::from_millis(400));
    let new = cluster.leader().expect("the other two elect");
    cluster.loses = Box::new(|_, _, _| false);
    cluster.run_for(Duration::from_millis(200));
    let ends = [old, new].map(|node| cluster.members[node as usize].replica.commit_end());
    assert_eq!(ends[0], ends[1]);
}

/// What node 2 answers when node `candidate` asks for its vote in term 5.
fn asks_for_a_vote(cluster: &mut Cluster, candidate: u32) -> Option<bool> {
    let request = VoteRequest {
        term: 5,
        log_end: 0,
        last_term: 0,
        sender: Sender {
            cluster: 7,
            node: candidate,
        },
        pre: false,
    };
    let mut bytes = vec![0; frame::HEADER_BYTES + vote::PAYLOAD_BYTES];
    request.emit(&mut bytes);
    cluster.wires.clear();
    let input = Input::Frame {
        from: Peer(candidate),
        bytes: &bytes,
    };
    cluster.input(2, input);
    let answer = cluster.wires.iter().find_map(|(_, to, bytes)| {
        let reply = vote::parse_reply(&frame::parse(bytes).ok()?).ok()?;
        (*to == candidate && !reply.pre).then_some(reply.granted)
    });
    cluster.wires.clear();
    answer
}

#[test]
fn a_vote_survives_the_process_and_one_that_does_not_is_seen() {
    for (mutation, second) in [(None, false), (Some(Mutation::ForgottenVote), true)] {
        let configured = || {
            let mut config = config(2, 3, ReadMode::Index);
            config.mutation = mutation;
            config
        };
        let mut cluster = Cluster::new([
            config(0, 3, ReadMode::Index),
            config(1, 3, ReadMode::Index),
            configured(),
        ]);
        for node in 0..2 {
            cluster.members[node].is_up = false;
        }
        // Whoever has just begun elects nobody, because of what it may have promised before; nor does it stand yet.
        cluster.input(2, Input::Tick);
        assert_eq!(asks_for_a_vote(&mut cluster, 0), None);
        cluster.now = cluster.now + Duration::from_millis(150);
        assert_eq!(asks_for_a_vote(&mut cluster, 0), Some(true));
        assert_eq!(asks_for_a_vote(&mut cluster, 1), Some(false), "one vote a term");
        assert_eq!(asks_for_a_vote(&mut cluster, 0), Some(true), "the same one again");
        cluster.restart(2, configured());
        cluster.input(2, Input::Tick);
        cluster.now = cluster.now + Duration::from_millis(150);
        // A second vote in one term elects a second leader with the other candidate's own.
        assert_eq!(asks_for_a_vote(&mut cluster, 1), Some(second), "{mutation:?}");
    }
}

#[test]
fn a_removed_leader_whose_removal_is_not_committed_can_be_elected_again() {
    let mut cluster = Cluster::of(3);
    let leader = cluster.elect();
    let client = cluster.open(leader);
    // All three votes are needed, so the others cannot do without it.
    let all = Members {
        voters: 0b111,
        elect_count: 3,
        commit_count: 3,
    };
    cluster.request(leader, client, 1, Command::Reconfigure { members: all });
    cluster.run_for(Duration::from_millis(100));
    let without = majorities(0b111 & !(1 << leader));
    cluster.answers.clear();
    cluster.loses = Box::new(|_, _, _| true);
    cluster.request(leader, client, 2, Command::Reconfigure { members: without });
    cluster.restart(leader, config(leader, 3, ReadMode::Index));
    cluster.run_for(Duration::from_millis(10));
    cluster.loses = Box::new(|_, _, _| false);
    cluster.run_for(Duration::from_secs(5));
    let new = cluster.leader().expect("somebody leads");
    assert!(
        !cluster.members[new as usize].replica.members().contains(leader),
        "the removal goes on"
    );
}
