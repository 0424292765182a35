//! The experiments on commits in the driver as a user runs them: every way makes rows that say what they promise, wrong words are
//! named, an interrupt leaves nothing behind. No figure is judged.
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
use serde_json::Value;
use tests::{Scratch, dplab, programs::can, run, stderr};

/// xdp-quorum where nothing is varied that a test does not name.
const PLAIN: [&str; 21] = [
    "xdp-quorum",
    "--axis",
    "replicas=3",
    "--axis",
    "in_flight=4",
    "--axis",
    "cpus=one",
    "--axis",
    "fabric=bridge",
    "--axis",
    "client=single",
    "--axis",
    "value_bytes=64",
    "--axis",
    "placement=host",
    "--axis",
    "receive=inline",
    "--axis",
    "dpu_slowdown=1",
    "--axis",
    "fan_out=flood",
];

/// Rows of a short run.
fn rows(args: &[&str]) -> Vec<Value> {
    let scratch = Scratch::new();
    let out = scratch.join("run");
    let output = run(&[&["run"], args, &["--budget", "1s", "--seed", "7", "--out", &out]].concat());
    assert!(
        matches!(output.status.code(), Some(0 | 1 | 3)),
        "{args:?}: {:?} {}",
        output.status,
        stderr(&output)
    );
    let records = fs::read_to_string(format!("{out}/records.jsonl")).expect("records");
    let lines = records
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let rows: Vec<Value> = lines.filter(|line| line["record"] == "row").collect();
    assert!(!rows.is_empty(), "{args:?} made no rows: {}", stderr(&output));
    rows
}

fn metric(row: &Value, name: &str) -> f64 {
    row["metrics"][name]["value"].as_f64().unwrap_or(0.0)
}

/// Rows of one way.
fn of<'a>(rows: &'a [Value], way: &str) -> Vec<&'a Value> {
    let found: Vec<&Value> = rows.iter().filter(|row| row["axis"]["way"] == way).collect();
    assert!(!found.is_empty(), "no row of {way}");
    found
}

#[test]
fn each_rung_does_in_the_driver_what_it_says() {
    if !can("rungs") {
        return;
    }
    let ways = "way=user,driver-ack,driver-count,driver,driver-durable,user-durable";
    let rows = rows(&[&PLAIN[..], &["--axis", ways, "--axis", "loss=0"]].concat());
    for row in &rows {
        assert!(metric(row, "answered") > 0.0, "{row}");
        assert_eq!(metric(row, "impossible_frames"), 0.0, "{row}");
        for name in ["leader_wakeups_per_op", "follower_wakeups_per_op", "leader_cpu_per_op"] {
            assert!(row["metrics"][name].is_object(), "no {name}: {row}");
        }
    }
    let guarantee = |way: &str, word: &str| {
        for row in of(&rows, way) {
            let said = row["facts"]["guarantee"].as_str().expect("a guarantee");
            assert!(said.contains(word), "{way}: {said}");
        }
    };
    guarantee("user", "in memory");
    guarantee("driver-ack", "driver ring");
    guarantee("driver-count", "driver ring");
    guarantee("driver", "driver ring");
    guarantee("user-durable", "on disk");
    guarantee("driver-durable", "on disk");
    for row in [of(&rows, "driver-ack"), of(&rows, "driver-count")].concat() {
        assert!(metric(row, "followers_kept_in_driver") > 0.0, "{row}");
        assert_eq!(metric(row, "answered_in_driver"), 0.0, "{row}");
    }
    for row in of(&rows, "driver-ack") {
        assert_eq!(metric(row, "leader_replica_leader_committed_up"), 0.0, "{row}");
    }
    for row in of(&rows, "driver-count") {
        assert!(metric(row, "leader_replica_leader_committed_up") > 0.0, "{row}");
        assert!(metric(row, "leader_replica_leader_counted") > 0.0, "{row}");
    }
    for row in of(&rows, "driver-durable") {
        assert!(metric(row, "leader_replica_leader_waits_for_disk") > 0.0, "{row}");
        assert_eq!(
            metric(row, "followers_kept_in_driver"),
            0.0,
            "nothing is acknowledged from memory: {row}"
        );
    }
}

#[test]
fn a_switch_that_loses_frames_says_how_many() {
    if !can("loss") {
        return;
    }
    let lossy = ["--axis", "way=user,driver", "--axis", "loss=0.02"];
    let rows = rows(&[&PLAIN[..], &lossy].concat());
    for row in &rows {
        assert!(metric(row, "answered") > 0.0, "{row}");
        assert!(metric(row, "frames_lost_at_switch") > 0.0, "{row}");
        assert_eq!(metric(row, "impossible_frames"), 0.0, "{row}");
    }
}

#[test]
fn programs_on_the_card_itself_are_refused_where_the_driver_takes_none() {
    if !can("placement=offload") {
        return;
    }
    let asked = |placement: &str| {
        let scratch = Scratch::new();
        let out = scratch.join("run");
        let plain = ["--axis", "way=driver", "--axis", "replicas=3", "--axis", "in_flight=1"];
        let output = run(&[
            &["run", "xdp-quorum", "--placement", placement, "--axis", "fabric=bridge"],
            &plain[..],
            &[
                "--axis",
                "value_bytes=64",
                "--axis",
                "loss=0",
                "--axis",
                "cpus=one",
                "--axis",
                "client=single",
            ],
            &[
                "--axis",
                "receive=inline",
                "--axis",
                "dpu_slowdown=1",
                "--axis",
                "fan_out=flood",
            ],
            &["--budget", "1s", "--seed", "7", "--out", &out],
        ]
        .concat());
        assert!(matches!(output.status.code(), Some(0 | 1 | 3)), "{}", stderr(&output));
        let records = fs::read_to_string(format!("{out}/records.jsonl")).expect("records");
        let text = stderr(&output);
        assert!(
            text.contains("placement=offload is left out") && text.contains("translates no programs"),
            "{text}"
        );
        (records.matches("\"record\":\"row\"").count(), text)
    };
    // Replicas are on veth pairs, wherever this runs.
    let (rows_count, text) = asked("offload");
    assert_eq!(rows_count, 0, "{text}");
    assert!(text.contains("nothing is measured"), "{text}");
    let (rows_count, text) = asked("host,offload");
    assert!(rows_count > 0, "the host's are measured all the same: {text}");
}

#[test]
fn offloads_and_followers_have_rows_of_their_own() {
    if !can("electrode, quorum-fanout") {
        return;
    }
    let electrode = rows(&["electrode", "--axis", "replicas=3", "--axis", "in_flight=1"]);
    let one = |way: &str| of(&electrode, way)[0];
    assert!(metric(one("attached"), "answered") > 0.0);
    assert_eq!(metric(one("attached"), "followers_kept_in_driver"), 0.0);
    assert!(metric(one("broadcast"), "answered") > 0.0);
    assert!(metric(one("fast-ack"), "followers_kept_in_driver") > 0.0);
    assert!(metric(one("wait-on-quorum"), "leader_replica_leader_committed_up") > 0.0);
    assert_eq!(metric(one("wait-on-quorum"), "followers_kept_in_driver"), 0.0);
    assert!(metric(one("all-three"), "followers_kept_in_driver") > 0.0);
    // What is sent once arrives at every follower.
    assert_eq!(
        metric(one("broadcast"), "entries_sent_again"),
        0.0,
        "{}",
        one("broadcast")
    );
    assert_eq!(
        metric(one("all-three"), "entries_sent_again"),
        0.0,
        "{}",
        one("all-three")
    );
    for row in &electrode {
        assert_eq!(row["experiment"], "electrode");
    }
    let fanout = rows(&[
        "quorum-fanout",
        "--axis",
        "way=driver",
        "--axis",
        "replicas=3,5",
        "--axis",
        "fan_out=flood,chain",
    ]);
    for row in &fanout {
        assert_eq!(row["experiment"], "quorum-fanout");
        assert!(metric(row, "answered") > 0.0, "{row}");
    }
}

#[test]
fn wrong_words_are_named() {
    for (args, near) in [
        (["xdp-quorum", "--axis", "way=drivr-ack"], "driver-ack"),
        (["xdp-quorum", "--axis", "loss=0.5"], "0.2"),
        (["xdp-quorum", "--axis", "value_bytes=1400"], "1355"),
        (["electrode", "--axis", "way=fast-akc"], "fast-ack"),
        (["quorum-fanout", "--axis", "replica=3"], "replicas"),
    ] {
        let output = run(&[&["run"], &args[..]].concat());
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).contains(near), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn an_interrupt_keeps_the_rows_and_leaves_no_namespace() {
    if !can("an interrupt") {
        return;
    }
    let scratch = Scratch::new();
    let out = scratch.join("run");
    let mut child = Command::new(dplab())
        .args([
            "run",
            "xdp-quorum",
            "--axis",
            "loss=0,0.01",
            "--axis",
            "way=user,driver,driver-durable",
        ])
        .args(["--budget", "60s", "--out", &out])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("dplab starts");
    let file = format!("{out}/records.jsonl");
    let deadline = Instant::now() + Duration::from_secs(60);
    let rows = || {
        fs::read_to_string(&file)
            .unwrap_or_default()
            .matches("\"record\":\"row\"")
            .count()
    };
    while rows() < 2 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    let pid = child.id();
    signal::kill(Pid::from_raw(pid as i32), Signal::SIGINT).expect("it runs");
    let status = child.wait().expect("it ends");
    assert!(status.code().is_some(), "it ended by itself: {status}");
    assert!(rows() >= 2);
    let records = fs::read_to_string(&file).expect("records");
    let end: Value = serde_json::from_str(records.lines().last().expect("lines")).expect("JSON");
    assert_eq!((&end["record"], &end["interrupted"]), (&"end".into(), &true.into()));
    let prefix = format!("dplab-{pid}-");
    let names = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let left: Vec<_> = names
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(
        !std::path::Path::new(&out).join("logs").exists(),
        "its logs are removed"
    );
}
