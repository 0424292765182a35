//! Every frame is accounted for, run after run: `packet-rate` over every back end that exists here, with other sizes and
//! another order each time. `DPLAB_ACCOUNT_RUNS` says how many runs; four without it.
#![forbid(unsafe_code)]

use std::{collections::BTreeSet, fs};

use serde_json::Value;
use tests::{Scratch, run, stderr};

/// One of each group of back ends.
const RUNS_COUNT: u64 = 4;

/// The sizes take turns: one small, one that fills a packet of 1500 bytes, one that fills one of 9000.
const FRAME_BYTES: [&str; 3] = ["frame_bytes=64", "frame_bytes=1472", "frame_bytes=8972"];
/// Where programs can be attached, every run has an echo among its sinks, whose account has two ways, and a program whose
/// frames a thread of the kernel takes in: there a sender runs ahead of its receiver, and what it sent last is on its way
/// for long.
const SINKS: [&str; 3] = [
    "sink=same,xdp-drop-threaded,xdp-echo",
    "sink=udp-mmsg,xdp-drop-threaded,xdp-echo-generic",
    "sink=same,xdp-drop,xdp-drop-generic,xdp-drop-same-cpu,xdp-echo",
];

/// A run takes a few back ends, so that it is short; the next takes others. udp-spin exists everywhere.
const BACKENDS: [&str; 4] = [
    "udp-spin,udp-blocking,udp-mmsg,udp-gso",
    "udp-spin,uring,uring-spin,uring-zc,uring-sqpoll",
    "udp-spin,af-packet,af-packet-spin,loopback,shm",
    "udp-spin,af-xdp,af-xdp-spin,af-xdp-generic",
];

#[test]
fn every_frame_is_accounted_for_in_every_run() {
    let runs_count = match std::env::var("DPLAB_ACCOUNT_RUNS") {
        Ok(text) => text.parse().expect("DPLAB_ACCOUNT_RUNS is a number of runs"),
        Err(_) => RUNS_COUNT,
    };
    let (mut rows_count, mut frames_count, mut lost_count) = (0, 0, 0);
    let (mut echo_rows_count, mut thread_rows_count) = (0, 0);
    let mut backends = BTreeSet::new();
    for seed in 0..runs_count {
        let scratch = Scratch::new();
        let out = scratch.join("run");
        let seed_text = seed.to_string();
        let output = run(&[
            "run",
            "packet-rate",
            "--budget",
            "1s",
            "--seed",
            &seed_text,
            "--axis",
            FRAME_BYTES[((seed + seed / 12) % 3) as usize],
            "--axis",
            SINKS[((seed % 4 + seed / 4 + 2) % 3) as usize],
            "--backend",
            BACKENDS[(seed % 4) as usize],
            "--out",
            &out,
        ]);
        // 1: a claim about speed may fail; 3: a busy machine may make rows INVALID. The account has to close all the same.
        assert!(
            matches!(output.status.code(), Some(0 | 1 | 3)),
            "seed {seed}: {}",
            stderr(&output)
        );
        let records = fs::read_to_string(format!("{out}/records.jsonl")).expect("records");
        let lines: Vec<Value> = records
            .lines()
            .map(|line| serde_json::from_str(line).expect("every line is JSON"))
            .collect();
        let rows: Vec<&Value> = lines.iter().filter(|line| line["record"] == "row").collect();
        assert!(rows.len() >= 6, "seed {seed}: {} rows", rows.len());
        for row in rows {
            let metrics = row["metrics"].as_object().expect("metrics");
            let count = |name: &str| metrics[name]["value"].as_f64().expect("a number") as i64;
            // Added up again, by what the record says and not by its own sum.
            let lost_by = |is_meant: fn(&str) -> bool| -> i64 {
                let names = metrics.keys().filter(|name| is_meant(name) && *name != "lost_ratio");
                names.map(|name| count(name)).sum()
            };
            let lost = lost_by(|name| name.starts_with("lost_"));
            assert_eq!(count("sent"), count("received") + lost, "seed {seed}: {row:#}");
            let sink = row["axis"]["sink"].as_str().expect("a word");
            thread_rows_count += u64::from(["xdp-drop-threaded", "xdp-drop-same-cpu"].contains(&sink));
            let is_echo = sink.starts_with("xdp-echo");
            assert_eq!(is_echo, metrics.contains_key("reflected"), "seed {seed}: {row:#}");
            if is_echo {
                // Each way by itself, too.
                let lost_back = lost_by(|name| name.starts_with("lost_reply_"));
                assert_eq!(
                    count("reflected"),
                    count("received") + lost_back,
                    "seed {seed}: {row:#}"
                );
                assert!(count("received") > 0, "seed {seed}: {row:#}");
                echo_rows_count += 1;
            }
            assert_eq!(count("duplicates"), 0, "seed {seed}: {row:#}");
            assert!(count("sent") > 0, "seed {seed}: {row:#}");
            rows_count += 1;
            frames_count += count("sent");
            lost_count += lost;
            backends.insert(row["backend"].as_str().expect("a name").to_owned());
        }
        let verdict = lines
            .iter()
            .find(|line| line["record"] == "verdict" && line["claim"] == "every-frame-accounted")
            .expect("the claim is judged");
        assert_eq!(verdict["outcome"]["is"], "holds", "seed {seed}: {verdict:#}");
    }
    println!(
        "{runs_count} runs, {rows_count} rows over {}, {echo_rows_count} of them there and back, {thread_rows_count} taken in by \
         a thread of the kernel: {frames_count} frames sent, {lost_count} of them lost where a counter saw it, 0 unexplained",
        backends.into_iter().collect::<Vec<_>>().join(", ")
    );
}
