//! A commit in the driver, live: three namespaces on a bridge, puts that programs answer, a leader that is killed, and nothing
//! that is left behind. No duration is judged.
#![forbid(unsafe_code)]

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use aya::programs::{loaded_links, loaded_programs};
use dataplane_netns::sweep;
use serde_json::Value;
use tests::programs::can;

const ROLE: &str = env!("CARGO_BIN_EXE_xdp_quorum_role");
/// The kernel frees a program in the background, after a grace period, and slowly on a busy machine.
const KERNEL_WAIT_MAX: Duration = Duration::from_secs(60);

/// What a run of the cluster said.
fn ask(how: &str) -> Value {
    let output = Command::new(ROLE).args(["ask", how]).output().expect("it starts");
    let stdout = String::from_utf8(output.stdout).expect("UTF-8");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stdout}{stderr}");
    serde_json::from_str(stdout.trim()).expect("one line of JSON")
}

fn count(report: &Value, name: &str) -> u64 {
    report["programs"][name].as_u64().unwrap_or(0)
}

/// All replicas have one log, and all that was answered is in it.
fn agree(told: &Value) {
    let replicas = told["replicas"].as_array().expect("a list");
    let log = &replicas[0]["report"]["log"];
    for replica in replicas {
        assert_eq!(&replica["report"]["log"], log, "{told}");
        assert_eq!(replica["report"]["impossible_count"], 0, "{told}");
    }
    let answered_count = told["answered_count"].as_u64().expect("a number");
    assert_eq!(log["begin"], 0, "the whole log is there: {told}");
    assert!(log["requests_count"].as_u64() >= Some(answered_count), "{told}");
}

#[test]
fn puts_are_answered_in_the_driver_and_all_logs_are_one() {
    if !can("puts in the driver") {
        return;
    }
    puts_are_answered("");
}

#[test]
fn cards_in_front_of_the_hosts_answer_too_and_hand_on_what_they_do_not() {
    if !can("cards") {
        return;
    }
    puts_are_answered("cards");
}

#[test]
fn entries_in_a_chain_are_kept_by_every_follower() {
    if !can("a chain") {
        return;
    }
    puts_are_answered("chain");
}

#[test]
fn a_chain_that_has_lost_a_follower_goes_on_without_it() {
    if !can("a follower of a chain killed") {
        return;
    }
    let told = ask("chain-follower-kill");
    println!("{told}");
    agree(&told);
    assert!(told["answered_after_count"].as_u64() > Some(0), "{told}");
    assert_eq!(told["replicas"].as_array().map(Vec::len), Some(2), "{told}");
}

/// Elections, sessions and heartbeats go up to the replicas; puts are the programs'.
fn puts_are_answered(how: &str) {
    let told = ask(how);
    println!("{told}");
    agree(&told);
    let replicas = told["replicas"].as_array().expect("a list");
    assert_eq!(replicas.len(), 3);
    for replica in replicas {
        let report = &replica["report"];
        match replica["node"] == told["leader"] {
            true => assert!(count(report, "leader_answered") > 0, "{told}"),
            false => assert!(count(report, "follower_appended") > 0, "{told}"),
        }
    }
}

#[test]
fn a_leader_that_is_killed_takes_nothing_that_was_answered_with_it() {
    if !can("a leader killed") {
        return;
    }
    let told = ask("kill");
    println!("{told}");
    agree(&told);
    assert!(told["answered_after_count"].as_u64() > Some(0), "{told}");
    let replicas = told["replicas"].as_array().expect("a list");
    assert_eq!(replicas.len(), 2);
    let answered: u64 = replicas
        .iter()
        .map(|replica| count(&replica["report"], "leader_answered"))
        .sum();
    assert!(answered > 0, "the new leader's program answers: {told}");
}

#[test]
fn a_chain_whose_leader_is_killed_loses_nothing_and_is_formed_anew() {
    if !can("a leader of a chain killed") {
        return;
    }
    let told = ask("chain-kill");
    println!("{told}");
    agree(&told);
    assert!(told["answered_after_count"].as_u64() > Some(0), "{told}");
    let replicas = told["replicas"].as_array().expect("a list");
    assert_eq!(replicas.len(), 2);
    let total = |name: &str| {
        let counts = replicas.iter().map(|replica| count(&replica["report"], name));
        counts.sum::<u64>()
    };
    assert!(
        total("leader_answered") > 0 && total("follower_appended") > 0,
        "the new leader's programs answer: {told}"
    );
}

/// From its log on disk, which its programs wait for: a replica that kept it in memory has forgotten what it promised.
#[test]
fn a_leader_that_is_killed_and_started_again_has_the_others_log() {
    if !can("a leader started again") {
        return;
    }
    let told = ask("restart");
    println!("{told}");
    agree(&told);
    assert!(told["answered_after_count"].as_u64() > Some(0), "{told}");
    assert!(told["answered_again_count"].as_u64() > Some(0), "{told}");
    let replicas = told["replicas"].as_array().expect("a list");
    assert_eq!(replicas.len(), 3);
    let waited = |replica: &Value| count(&replica["report"], "follower_waits_for_disk");
    assert!(replicas.iter().map(waited).sum::<u64>() > 0, "{told}");
}

#[test]
fn programs_that_are_replaced_under_load_lose_nothing() {
    if !can("programs replaced under load") {
        return;
    }
    for how in ["reload", "chain-reload"] {
        let told = ask(how);
        println!("{how}: {told}");
        agree(&told);
        let replicas = told["replicas"].as_array().expect("a list");
        assert_eq!(replicas.len(), 3);
        let (leaders, followers): (Vec<_>, Vec<_>) =
            replicas.iter().partition(|replica| replica["node"] == told["leader"]);
        let total = |replicas: &[&Value], name| {
            replicas
                .iter()
                .map(|replica| count(&replica["report"], name))
                .sum::<u64>()
        };
        for replica in replicas {
            assert!(count(&replica["report"], "reloads") > 0, "{how}: {told}");
        }
        assert!(total(&leaders, "leader_answered") > 0, "{how}: {told}");
        // One of two is a majority beside the leader. The other one may never get in step: its replica takes frames in as slowly as they come, and
        // its program, which the next frame finds one entry behind, has nothing to append (NOTEBOOK.md, "Why is a follower's program never in step again on a busy machine?").
        assert!(total(&followers, "follower_appended") > 0, "{how}: {told}");
    }
}

#[test]
fn parts_in_the_driver_and_the_rest_in_user_space_make_one_log() {
    if !can("parts in the driver") {
        return;
    }
    for how in ["offloads", "broadcast", "offloads-kill"] {
        let told = ask(how);
        println!("{how}: {told}");
        agree(&told);
        let replicas = told["replicas"].as_array().expect("a list");
        for replica in replicas {
            assert_eq!(count(&replica["report"], "leader_answered"), 0, "{how}: {told}");
        }
        let total = |name: &str| {
            replicas
                .iter()
                .map(|replica| count(&replica["report"], name))
                .sum::<u64>()
        };
        let is_counted = how != "broadcast";
        assert_eq!(total("follower_appended") > 0, is_counted, "{how}: {told}");
        assert_eq!(total("leader_committed_up") > 0, is_counted, "{how}: {told}");
    }
}

/// Programs of the quorum that the kernel has, by number.
fn programs() -> Vec<u32> {
    let ours = |name: &str| name.starts_with("quorum_leader") || name.starts_with("quorum_followe");
    loaded_programs()
        .filter_map(Result::ok)
        .filter(|info| info.name_as_str().is_some_and(ours))
        .map(|info| info.id())
        .collect()
}

#[test]
fn a_cluster_that_is_killed_leaves_nothing_behind() {
    if !can("a cluster killed") {
        return;
    }
    let before = programs();
    let mut child = Command::new(ROLE)
        .arg("hold")
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    stdout.read_line(&mut line).expect("a pipe");
    assert_eq!(line, "ready\n");
    let of_it: Vec<u32> = programs().into_iter().filter(|id| !before.contains(id)).collect();
    assert!(of_it.len() >= 6, "two for each of three replicas: {of_it:?}");
    child.kill().expect("it runs");
    child.wait().expect("it is gone");
    let deadline = Instant::now() + KERNEL_WAIT_MAX;
    loop {
        let programs = programs();
        let held = loaded_links()
            .filter_map(Result::ok)
            .filter(|link| of_it.contains(&link.program_id()))
            .count();
        if held == 0 && !of_it.iter().any(|id| programs.contains(id)) {
            break;
        }
        assert!(Instant::now() < deadline, "{of_it:?} are still there, {held} links");
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = sweep();
}
