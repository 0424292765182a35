//! Lesson 9, your turn. The replicas are the real ones; network, disks and time are the simulator's, so the same schedule
//! ends in the same way every time. Delete an `#[ignore]`, watch the test fail, mend the function above it.
#![forbid(unsafe_code)]

use std::time::Duration;

use dataplane_quorum::{Mutation, majorities};
use lessons::cluster::{Answer, Cluster};

/// Nodes 0, 1 and 2.
const THREE: u32 = 0b111;

// ---- 1. Acknowledged, and gone --------------------------------------------------------------------------------------

/// What happens to three replicas, of which a leader believes that it needs one copy less than it does. Show that a write
/// is lost that was acknowledged. (`cluster.cut_off(&[…])` cuts some off from the others, the client being
/// `cluster.client()`; `heal`, `kill`, `restart`, `run_for`.)
fn schedule(cluster: &mut Cluster) {
    let leader = cluster.leader();
    cluster.put("greeting", "hello");
    // The one that acknowledged it dies. The others elect, and …
    cluster.kill(leader);
    cluster.run_for(Duration::from_secs(1));
}

#[test]
#[ignore = "your turn: delete this line"]
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
    // Half of them, rounded up: two of three, three of five.
    let half = replicas_count.div_ceil(2);
    (half, half)
}

#[test]
#[ignore = "your turn: delete this line"]
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

// ---- 3. Asked twice, done twice -------------------------------------------------------------------------------------

/// Appends to a value, once, however the network is.
fn append_surely(cluster: &mut Cluster, key: &str, value: &str) {
    // Each call asks for so long, again and again under one request number, and then gives up.
    let within = Duration::from_millis(100);
    while cluster.append(key, value, within) != Answer::Done {}
}

#[test]
#[ignore = "your turn: delete this line"]
fn a_lost_answer_is_no_second_append() {
    let mut cluster = Cluster::new(majorities(THREE), None, 1);
    assert_eq!(cluster.put("journal", "begin "), Answer::Done);
    cluster.deafen_client(Duration::from_millis(350));
    append_surely(&mut cluster, "journal", "entry ");
    assert_eq!(cluster.get("journal"), Answer::Value("begin entry ".to_owned()));
}
