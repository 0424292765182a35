//! Lesson 9, solved: the schedule that a small quorum does not survive, sizes that intersect, and one request number.
#![forbid(unsafe_code)]

use std::time::Duration;

use dataplane_quorum::{Mutation, majorities};
use dataplane_wire::quorum::members::Members;
use lessons::cluster::{Answer, Cluster};

/// Nodes 0, 1 and 2.
const THREE: u32 = 0b111;

// ---- 1. Acknowledged, and gone --------------------------------------------------------------------------------------

fn schedule(cluster: &mut Cluster) {
    let leader = cluster.leader();
    cluster.put("before", "everybody has this");
    // The leader goes on alone, with the client: whatever it acknowledges now, it alone has.
    let client = cluster.client();
    cluster.cut_off(&[leader, client]);
    cluster.put("greeting", "hello");
    // Long enough for the other two to elect. Healed earlier, the old leader would still lead and send it after all.
    cluster.run_for(Duration::from_secs(1));
    cluster.cut_off(&[leader]);
    cluster.put("after", "somebody else leads");
}

/// Why the assignment's schedule shows nothing: the appends leave together with the answer, and arrive.
#[test]
fn a_leader_that_dies_later_has_told_the_others() {
    let mut cluster = Cluster::new(majorities(THREE), Some(Mutation::SmallCommitQuorum), 1);
    let leader = cluster.leader();
    assert_eq!(cluster.put("greeting", "hello"), Answer::Done);
    cluster.kill(leader);
    cluster.run_for(Duration::from_secs(1));
    assert_ne!(cluster.leader(), leader);
    assert_eq!(cluster.lost(), [""; 0]);
}

/// The lesson's three shells, in virtual time: each of three may be the one that is killed, and comes back.
#[test]
fn one_of_three_is_killed_and_nothing_is_lost() {
    for seed in 0..10 {
        for victim in 0..3 {
            let mut cluster = Cluster::new(majorities(THREE), None, seed);
            for key in ["a", "b", "c"] {
                assert_eq!(cluster.put(key, "before"), Answer::Done);
            }
            cluster.kill(victim);
            for key in ["d", "e", "f"] {
                assert_eq!(cluster.put(key, "while it was away"), Answer::Done);
            }
            cluster.restart(victim);
            // And now it is one of the two that are enough.
            cluster.kill((victim + 1) % 3);
            assert_eq!(cluster.put("g", "after"), Answer::Done);
            assert_eq!(cluster.acknowledged_count(), 7);
            assert_eq!(cluster.lost(), [""; 0], "seed {seed}, node {victim} killed");
        }
    }
}

/// Two of three: no answer, and no loss.
#[test]
fn one_of_three_alone_says_nothing() {
    let mut cluster = Cluster::new(majorities(THREE), None, 1);
    assert_eq!(cluster.put("greeting", "hello"), Answer::Done);
    cluster.kill(0);
    cluster.kill(1);
    assert_eq!(cluster.put("more", "of it"), Answer::Unknown);
    cluster.restart(0);
    cluster.restart(1);
    assert_eq!(cluster.get("greeting"), Answer::Value("hello".to_owned()));
}

#[test]
fn a_small_commit_quorum_loses_and_the_right_one_does_not() {
    let lost = |mutation| {
        let mut cluster = Cluster::new(majorities(THREE), mutation, 1);
        schedule(&mut cluster);
        cluster.lost()
    };
    let right = lost(None);
    assert!(right.is_empty(), "with the right quorum: {right:?}");
    let small = lost(Some(Mutation::SmallCommitQuorum));
    println!("{small:?}");
    assert!(
        !small.is_empty(),
        "with one copy less nothing is lost, so this schedule shows nothing"
    );
}

// ---- 2. How many are enough? ----------------------------------------------------------------------------------------

/// Of so many replicas, how many votes make a leader, and how many copies make a commit.
fn quorums(replicas_count: u32) -> (u32, u32) {
    // More than half. Half rounded up is the same for three and five, and of four it is two: twice two are four, and two
    // pairs need not know each other. A fourth replica lets no more of them die than three do.
    let majority = replicas_count / 2 + 1;
    (majority, majority)
}

#[test]
fn whoever_is_elected_has_seen_what_was_committed() {
    for replicas_count in 1..=8 {
        let (elect, commit) = quorums(replicas_count);
        let of_size = |size: u32| (0..1u32 << replicas_count).filter(move |set| set.count_ones() == size);
        for voters in of_size(elect) {
            for keepers in of_size(commit) {
                assert!(
                    voters & keepers != 0,
                    "of {replicas_count}: {voters:#b} elect a leader, {keepers:#b} have the entry, and nobody is both"
                );
            }
            for others in of_size(elect) {
                assert!(
                    voters & others != 0,
                    "of {replicas_count}: {voters:#b} and {others:#b} elect a leader each"
                );
            }
        }
        let dead = (replicas_count - 1) / 2;
        let alive = replicas_count - dead;
        assert!(
            elect.max(commit) <= alive,
            "of {replicas_count}, {dead} are dead and the rest can do nothing"
        );
    }
}

/// The quorums need not be equal (Flexible Paxos, section 4); they must intersect. The rule of the wire format says just that.
#[test]
fn what_intersects_is_what_the_cluster_takes() {
    for replicas_count in 1..=6u32 {
        let of_size = |size: u8| (0..1u32 << replicas_count).filter(move |set| set.count_ones() == u32::from(size));
        for elect_count in 1..=replicas_count as u8 {
            for commit_count in 1..=replicas_count as u8 {
                let all_meet = of_size(elect_count).all(|voters| {
                    let mut both = of_size(commit_count).chain(of_size(elect_count));
                    both.all(|others| voters & others != 0)
                });
                let members = Members {
                    voters: (1 << replicas_count) - 1,
                    elect_count,
                    commit_count,
                };
                assert_eq!(members.is_sound(), all_meet, "{members:?}");
            }
        }
    }
}

/// Commits by two of five: four must be there to elect.
#[test]
fn a_small_commit_quorum_is_right_beside_a_large_election_quorum() {
    let members = Members {
        voters: 0b1_1111,
        elect_count: 4,
        commit_count: 2,
    };
    let mut cluster = Cluster::new(members, None, 1);
    assert_eq!(cluster.put("greeting", "hello"), Answer::Done);
    let leader = cluster.leader();
    cluster.kill(leader);
    assert_eq!(cluster.get("greeting"), Answer::Value("hello".to_owned()), "four elect");
    let leader = cluster.leader();
    cluster.kill(leader);
    assert_eq!(cluster.get("greeting"), Answer::Unknown, "three do not");
}

// ---- 3. Asked twice, done twice -------------------------------------------------------------------------------------

/// Appends to a value, once, however the network is.
fn append_surely(cluster: &mut Cluster, key: &str, value: &str) {
    // One request with all the patience there is: the client asks again by itself, under the same number, and a replica that
    // knows the number answers without doing it again. A second call is a second request.
    let answer = cluster.append(key, value, Duration::from_secs(30));
    assert_eq!(
        answer,
        Answer::Done,
        "whether it was done is not known, and asking anew might do it twice"
    );
}

#[test]
fn a_lost_answer_is_no_second_append() {
    let mut cluster = Cluster::new(majorities(THREE), None, 1);
    assert_eq!(cluster.put("journal", "begin "), Answer::Done);
    cluster.deafen_client(Duration::from_millis(350));
    append_surely(&mut cluster, "journal", "entry ");
    assert_eq!(cluster.get("journal"), Answer::Value("begin entry ".to_owned()));
}
