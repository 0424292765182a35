//! `failover` and `shard-commit` as a user runs them, as small as they go: what is in their rows, what they refuse, and that
//! an interrupt leaves none of their processes behind. No duration is judged.
#![forbid(unsafe_code)]

use std::{
    fs,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use tests::{Scratch, dplab, run, stderr};

/// The rows of a run's records.
fn rows(out: &str) -> Vec<serde_json::Value> {
    let records = fs::read_to_string(format!("{out}/records.jsonl")).expect("records");
    let lines = records
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("every line is JSON"));
    lines.filter(|line| line["record"] == "row").collect()
}

fn metric(row: &serde_json::Value, name: &str) -> f64 {
    row["metrics"][name]["value"]
        .as_f64()
        .unwrap_or_else(|| panic!("no metric {name} in {row}"))
}

#[test]
fn a_leader_is_stopped_and_killed_and_nothing_acknowledged_is_lost() {
    let scratch = Scratch::new();
    let out = scratch.join("run");
    // A heartbeat that a busy machine keeps, too.
    let args = [
        "run",
        "failover",
        "--axis",
        "heartbeat_us=50000",
        "--axis",
        "scheduler=other",
        "--axis",
        "beside=idle",
        "--axis",
        "log=memory,dsync",
        "--axis",
        "how=stop,kill",
        "--seed",
        "7",
        "--budget",
        "1s",
        "--out",
        &out,
    ];
    let output = run(&args);
    assert!(matches!(output.status.code(), Some(0 | 1 | 3)), "{}", stderr(&output));
    let rows = rows(&out);
    for (log, promise) in [("memory", "in memory"), ("dsync", "on disk")] {
        for how in ["stop", "kill"] {
            let of = |of: &str| {
                let found = rows
                    .iter()
                    .find(|row| row["axis"]["log"] == log && row["axis"]["how"] == how && row["axis"]["of"] == of);
                found.unwrap_or_else(|| panic!("no row of {of}, log {log}, {how}"))
            };
            let recovery = of("recovery");
            let failovers_count = metric(recovery, "failovers");
            // On a machine or a disk that others keep busy a cluster may not come to rest: then it says so.
            assert!(failovers_count + metric(recovery, "unsettled") >= 1.0, "{recovery}");
            assert_eq!(metric(recovery, "acknowledged_lost"), 0.0, "{recovery}");
            if failovers_count > 0.0 {
                let asked_count = metric(recovery, "acknowledged_checked") + metric(recovery, "acknowledged_unchecked");
                assert!(asked_count > 0.0, "{recovery}");
                assert!(metric(recovery, "quiet") > 0.0, "{recovery}");
            }
            let counted = |row: &serde_json::Value| {
                let latency = &row["latency"];
                (latency["samples_count"].as_f64().unwrap_or(0.0)) + latency["lost_count"].as_f64().unwrap_or(0.0)
            };
            for name in ["election", "recovery", "unavailability"] {
                assert_eq!(counted(of(name)), failovers_count, "{name}, log {log}, {how}");
            }
            assert_eq!(
                counted(of("detection")) + metric(recovery, "unclean"),
                failovers_count,
                "log {log}, {how}"
            );
            let guarantee = recovery["facts"]["guarantee"].as_str().expect("a guarantee");
            assert!(guarantee.contains(promise), "{guarantee}");
            assert_eq!(
                recovery["facts"]["node_1_replica_scheduler"],
                "SCHED_OTHER: as asked for"
            );
        }
    }
}

#[test]
fn shards_commit_beside_their_floor() {
    let scratch = Scratch::new();
    let out = scratch.join("run");
    let args = [
        "run",
        "shard-commit",
        "--axis",
        "shards=2",
        "--axis",
        "shard_rate_per_s=50",
        "--seed",
        "7",
        "--budget",
        "1s",
        "--out",
        &out,
    ];
    let output = run(&args);
    if stderr(&output).contains("tmpfs") {
        println!("not run: the folder for tests is in memory, and this measures a disk");
        return;
    }
    assert!(matches!(output.status.code(), Some(0 | 1 | 3)), "{}", stderr(&output));
    let rows = rows(&out);
    for (backend, of) in [
        ("udp-blocking", "commit"),
        ("o_dsync", "disk"),
        ("udp-blocking", "ping-pong"),
    ] {
        let row = rows
            .iter()
            .find(|row| row["backend"] == backend && row["axis"]["of"] == of)
            .unwrap_or_else(|| panic!("no row of {of}"));
        assert!(row["latency"]["samples_count"].as_u64().unwrap_or(0) > 0, "{row}");
        match of {
            "commit" => {
                assert_eq!(metric(row, "silent_shards"), 0.0, "{row}");
                let guarantee = row["facts"]["guarantee"].as_str().expect("a guarantee");
                assert!(guarantee.contains("2 of 3 replicas have it on disk"), "{guarantee}");
            }
            _ => assert!(row["facts"]["yardstick"].is_string(), "{row}"),
        }
    }
}

#[test]
fn wrong_values_are_refused_with_the_bounds() {
    for (args, near) in [
        (["run", "failover", "--axis", "heartbeat_us=1"], "100"),
        (["run", "failover", "--axis", "how=ask"], "stop"),
        (["run", "failover", "--axis", "scheduler=rr"], "fifo"),
        (["run", "shard-commit", "--axis", "shards=0"], "64"),
        (["run", "shard-commit", "--axis", "shard=4"], "shards"),
    ] {
        let output = run(&args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).contains(near), "{args:?} says {}", stderr(&output));
    }
}

/// Ctrl-C while replicas run, one of them perhaps stopped, and hogs beside them; and SIGKILL, which nothing can handle.
#[test]
fn an_end_half_way_leaves_no_process_behind() {
    for how in [Signal::SIGINT, Signal::SIGKILL] {
        let scratch = Scratch::new();
        let out = scratch.join("run");
        let args = [
            "run",
            "failover",
            "--axis",
            "heartbeat_us=20000",
            "--axis",
            "beside=hogs",
        ];
        let mut child = Command::new(dplab())
            .args([&args[..], &["--budget", "60s", "--out", &out]].concat())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("dplab starts");
        let parent = Pid::from_raw(child.id() as i32);
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut children = Vec::new();
        while Instant::now() < deadline {
            children = children_of(parent.as_raw());
            let all: Vec<&str> = children.iter().map(|(_, subcommand)| subcommand.as_str()).collect();
            if all.contains(&"serve-hog") && all.iter().filter(|name| **name == "serve-replica").count() == 3 {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(children.len() > 3, "no cluster beside hogs was seen: {children:?}");
        signal::kill(parent, how).expect("it runs");
        child.wait().expect("it ends");
        let deadline = Instant::now() + Duration::from_secs(30);
        let left = || -> Vec<&(i32, String)> {
            let is_ours = |child: &&(i32, String)| subcommand_of(child.0).as_deref() == Some(child.1.as_str());
            children.iter().filter(is_ours).collect()
        };
        while !left().is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(left().is_empty(), "{how} left {:?}", left());
        if how == Signal::SIGINT {
            let records = fs::read_to_string(format!("{out}/records.jsonl")).expect("records");
            let end: serde_json::Value =
                serde_json::from_str(records.lines().last().expect("lines")).expect("every line is JSON");
            assert_eq!(end["interrupted"], true, "{end}");
        }
    }
}

/// Children of a process: number, and the word after the program's name.
fn children_of(parent: i32) -> Vec<(i32, String)> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|process| process.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            // Fields of proc_pid_stat(5) after the name, which is in parentheses: state, parent.
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let after_name = stat.rsplit(')').next().unwrap_or_default();
            after_name.split_whitespace().nth(1) == Some(parent.to_string().as_str())
        })
        .filter_map(|pid| Some((pid, subcommand_of(pid)?)))
        .collect()
}

/// A process that is there and no zombie has a command line.
fn subcommand_of(pid: i32) -> Option<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let word = line.split(|byte| *byte == 0).nth(1)?;
    (!word.is_empty()).then(|| String::from_utf8_lossy(word).into_owned())
}
