//! Experiments in virtual time as a user runs them: the same seed gives the same rows, and their claims hold; and reads at
//! real replicas, which end with the run.
#![forbid(unsafe_code)]

use std::{collections::BTreeMap, fs};

use serde_json::Value;
use tests::{Scratch, run, stderr, stdout};

/// Rows and verdicts of a run, without what a clock has said.
fn measure(args: &[&str]) -> (Vec<Value>, BTreeMap<String, String>) {
    let scratch = Scratch::new();
    let output = run(&[&["run", "--json", "--out", &scratch.join("run")], args].concat());
    let (mut rows, mut verdicts) = (Vec::new(), BTreeMap::new());
    for line in stdout(&output).lines() {
        let mut record: Value = serde_json::from_str(line).expect("every line of stdout is JSON");
        match record["record"].as_str() {
            Some("row") => {
                record["at_s"].take();
                rows.push(record);
            }
            Some("verdict") => {
                let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                verdicts.insert(word(&record["claim"]), word(&record["outcome"]["is"]));
            }
            _ => {}
        }
    }
    assert!(!rows.is_empty(), "{args:?}: {}", stderr(&output));
    (rows, verdicts)
}

fn assert_simulated(rows: &[Value]) {
    for row in rows {
        assert_eq!(row["mode"]["is"], "simulated");
        assert_eq!(row["backend"], "sim");
        assert!(
            row["facts"]["event_hash"].is_string() && row["facts"]["guarantee"].is_string(),
            "{row}"
        );
        assert!(
            row["metrics"]["invariant_checks"]["value"].as_f64() > Some(0.0),
            "{row}"
        );
    }
}

fn metric(row: &Value, name: &str) -> f64 {
    let value = row["metrics"][name]["value"].as_f64();
    value.unwrap_or_else(|| panic!("no {name} in {row}"))
}

#[test]
fn messages_are_counted_exactly_and_again_the_same() {
    let args = [
        "quorum-messages",
        "--axis",
        "replicas=3,5",
        "--axis",
        "in_flight=1",
        "--axis",
        "loss_percent=0",
    ];
    let (rows, verdicts) = measure(&[&args[..], &["--seed", "7"]].concat());
    assert_simulated(&rows);
    let per_commit: Vec<f64> = rows.iter().map(|row| metric(row, "messages_per_commit")).collect();
    assert_eq!(per_commit, [6.0, 10.0]);
    assert_eq!(verdicts["quorum-messages"], "holds");
    assert_eq!(verdicts["quorum-round-trips"], "holds");
    assert_eq!(verdicts["quorum-messages-batched"], "not_measured");
    let lossy = [
        "quorum-messages",
        "--axis",
        "replicas=3",
        "--axis",
        "in_flight=1",
        "--axis",
        "loss_percent=1",
    ];
    let (first, _) = measure(&[&lossy[..], &["--seed", "7"]].concat());
    let (again, _) = measure(&[&lossy[..], &["--seed", "7"]].concat());
    let (other, _) = measure(&[&lossy[..], &["--seed", "8"]].concat());
    assert_eq!(first, again);
    assert_ne!(first[0]["facts"]["event_hash"], other[0]["facts"]["event_hash"]);
    assert!(metric(&first[0], "messages_per_commit") > 6.0);
    assert!(metric(&first[0], "entries_sent_again") > 0.0);
}

#[test]
fn a_smaller_quorum_has_the_smaller_tail_and_survives_fewer_deaths() {
    let (rows, verdicts) = measure(&[
        "flexible-quorum-tail",
        "--axis",
        "replicas=5",
        "--axis",
        "commit_quorum=2,4",
        "--axis",
        "slow_percent=10",
        "--axis",
        "arrivals=spaced",
        "--seed",
        "3",
    ]);
    assert_simulated(&rows);
    for claim in ["quorum-flexible", "quorum-order-statistics", "quorum-flexible-crashes"] {
        assert_eq!(verdicts[claim], "holds", "{claim}");
    }
    let crashes: Vec<&Value> = rows.iter().filter(|row| row["axis"]["part"] == "crashes").collect();
    assert_eq!(metric(crashes[0], "survives_followers"), 3.0);
    assert_eq!(metric(crashes[0], "survives_with_leader"), 1.0);
    assert_eq!(metric(crashes[0], "acknowledged_and_lost"), 0.0);
}

#[test]
fn requests_that_wait_for_many_are_slow_as_arithmetic_says_and_disciplines_as_erlang_says() {
    let args = [
        "tail-at-scale",
        "--axis",
        "part=sim",
        "--axis",
        "fan_out=1,100",
        "--axis",
        "slow_percent=1",
        "--seed",
        "3",
    ];
    let (rows, verdicts) = measure(&args);
    assert_eq!(verdicts["tail-at-scale"], "holds");
    assert_eq!(verdicts["fork-join-order-statistics"], "holds");
    assert_eq!(verdicts["tail-at-scale-nodes"], "not_measured");
    assert_eq!(measure(&args).0, rows, "the same seed, the same rows");

    let (rows, verdicts) = measure(&[
        "queueing-discipline",
        "--axis",
        "part=sim",
        "--axis",
        "discipline=single-queue,per-worker",
        "--axis",
        "service=exponential",
        "--axis",
        "load_ratio=0.8",
    ]);
    assert!(rows.iter().all(|row| row["facts"]["guarantee"].is_string()));
    assert_eq!(verdicts["queueing-shared-beats-split"], "holds");
    assert_eq!(verdicts["queueing-theory"], "not_measured");
}

#[test]
fn a_hedge_helps_alone_and_not_together_and_a_budget_ends_a_storm() {
    let (rows, verdicts) = measure(&["hedging", "--axis", "part=sim", "--axis", "hedge_after_ms=1,1000"]);
    assert_eq!(verdicts["hedging"], "holds");
    assert_eq!(verdicts["hedging-together"], "holds");
    assert!(rows.iter().all(|row| row["facts"]["guarantee"].is_string()));
    let (rows, verdicts) = measure(&["retry-storm", "--axis", "part=sim", "--axis", "load_ratio=0.7"]);
    assert_eq!(
        (&verdicts["retry-storm"][..], &verdicts["retry-budget"][..]),
        ("holds", "holds")
    );
    let unbounded = rows.iter().find(|row| row["axis"]["policy"] == "unbounded");
    assert!(metric(unbounded.expect("an unbounded row"), "extra_requests_ratio") > 1.0);
}

#[test]
fn real_nodes_answer_whatever_their_workers_are() {
    let (rows, _) = measure(&[
        "queueing-discipline",
        "--axis",
        "part=nodes",
        "--axis",
        "workers=timer,sleep,kv-scan",
        "--axis",
        "discipline=single-queue",
        "--budget",
        "1s",
    ]);
    for workers in ["timer", "sleep", "kv-scan"] {
        let row = rows
            .iter()
            .find(|row| row["axis"]["workers"] == workers)
            .expect("a row of each");
        assert_eq!(row["backend"], "udp-epoll");
        assert!(row["latency"]["samples_count"].as_u64() > Some(0), "{row}");
        // Steps of real work may be faster than they were when it was found out what one takes.
        let is_timed = workers != "kv-scan";
        assert!(
            !is_timed || metric(row, "service_took") >= metric(row, "service_meant"),
            "{row}"
        );
        assert!(is_timed || row["facts"]["work_step"].is_string(), "{row}");
    }
}

#[test]
fn reads_take_their_round_trips_and_say_what_they_promise() {
    let (rows, verdicts) = measure(&[
        "pacelc-else",
        "--axis",
        "place=lan,wan-at-follower",
        "--axis",
        "log=disk",
    ]);
    assert_simulated(&rows);
    assert_eq!(verdicts["pacelc-else"], "holds");
    assert_eq!(verdicts["pacelc-stale"], "holds");
    assert_eq!(verdicts["pacelc-lease-beats-index"], "not_measured");
}

#[test]
fn reads_at_real_replicas_leave_no_process_behind() {
    let (rows, _) = measure(&[
        "pacelc-else",
        "--axis",
        "place=loopback",
        "--axis",
        "log=memory",
        "--axis",
        "read=lease",
        "--budget",
        "2s",
    ]);
    for row in &rows {
        assert_eq!(row["mode"]["is"], "native");
        assert!(
            row["facts"]["guarantee"]
                .as_str()
                .is_some_and(|text| text.contains("clock")),
            "{row}"
        );
        assert!(metric(row, "answered") > 0.0, "{row}");
    }
    // Whoever else measures on this machine has another folder.
    let folder = std::env::temp_dir().join(format!("dplab-test-{}-", std::process::id()));
    let folder = folder.to_str().expect("UTF-8");
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let left = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let left = left.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    let left: Vec<String> = left
        .filter(|line| line.contains(" serve ") && line.contains(folder))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn the_record_says_that_nothing_was_sent() {
    let scratch = Scratch::new();
    let args = ["quorum-messages", "--axis", "replicas=3", "--axis", "loss_percent=0"];
    let output = run(&[&["run", "--json", "--out", &scratch.join("run")], &args[..]].concat());
    let header = stdout(&output).lines().next().map(str::to_owned);
    let header: Value = serde_json::from_str(&header.expect("a header")).expect("JSON");
    let place = header["place"].as_str().expect("a place");
    assert!(
        place.contains("virtual time") && !place.contains("namespaces"),
        "{place}"
    );
}

/// The verdicts of a run, and its rows again the same.
fn counted(args: &[&str]) -> (Vec<Value>, BTreeMap<String, String>) {
    let args = [args, &["--seed", "7"]].concat();
    let (rows, verdicts) = measure(&args);
    assert_eq!(rows, measure(&args).0, "{args:?}");
    for row in &rows {
        assert_eq!(row["mode"]["is"], "simulated");
        let is_formula = row["axis"]["part"] == "tpu";
        assert_eq!(row["backend"], if is_formula { "formula" } else { "cycle-model" });
    }
    (rows, verdicts)
}

#[test]
fn pipelines_take_the_same_cycles_every_time() {
    let narrow = ["--axis", "beat_bits=64", "--seed", "7", "--axis"];
    let pipeline = ["fpga-consensus", "--axis", "way=pipeline"];
    let (rows, verdicts) = measure(&[&pipeline[..], &narrow, &["replicas=3,5"]].concat());
    for claim in ["fpga-consensus", "fpga-commit-cycles", "fpga-acks-in-line"] {
        assert_eq!(verdicts[claim], "holds", "{claim}");
    }
    for claim in ["fpga-tail-beside-software", "fpga-beside-rdma"] {
        assert_eq!(verdicts[claim], "not_measured", "{claim}");
    }
    for row in &rows {
        assert_eq!(metric(row, "ack_to_commit_cycles"), 13.0);
        assert!(row["facts"]["guarantee"].is_string() && row["facts"]["caveat"].is_string());
    }
    let line_rate = ["fpga-line-rate", "--axis", "stall_percent=0,50"];
    let (_, verdicts) = measure(&[&line_rate[..], &narrow, &["replicas=3"]].concat());
    for claim in ["fpga-line-rate", "fpga-back-pressure"] {
        assert_eq!(verdicts[claim], "holds", "{claim}");
    }
    let (_, verdicts) = counted(&["fpga-filter", "--axis", "way=pipeline"]);
    for claim in ["fpga-filter-rate", "fpga-filter-link"] {
        assert_eq!(verdicts[claim], "holds", "{claim}");
    }
    let (rows, verdicts) = counted(&["systolic-utilisation", "--axis", "part=array,tpu", "--axis", "side=8"]);
    for claim in ["systolic-cycles", "systolic-utilisation", "tpu-memory-bound"] {
        assert_eq!(verdicts[claim], "holds", "{claim}");
    }
    assert_eq!(rows.iter().filter(|row| row["axis"]["part"] == "tpu").count(), 6);
}
