//! Every frame is accounted for, run after run: `packet-rate` over every back end that exists here, with other sinks, other
//! sizes and another order each time. `DPLAB_ACCOUNT_RUNS` says how many runs; one of each group of back ends without it.
#![forbid(unsafe_code)]

use std::{
    collections::BTreeSet,
    fs,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use serde_json::Value;
use tests::{Scratch, run, stderr};

/// The sizes take turns: one small, one that fills a packet of 1500 bytes, one that fills one of 9000.
const FRAME_BYTES: [&str; 3] = ["frame_bytes=64", "frame_bytes=1472", "frame_bytes=8972"];

/// A run takes a few sinks and a few back ends, so that it is short; the next takes others. Every run has a sink that exists
/// everywhere. The account of an echo has two ways. Where a thread of the kernel takes frames in, a sender runs ahead of its
/// receiver, and what it sent last is under way for long.
const SINKS: [&str; 5] = [
    "sink=udp-mmsg,xdp-echo-generic",
    "sink=same,xdp-drop,xdp-drop-threaded",
    "sink=same,xdp-drop-threaded,xdp-echo",
    "sink=udp-mmsg,xdp-drop-same-cpu,xdp-echo",
    "sink=same,xdp-drop-generic,xdp-echo-generic",
];

/// udp-spin exists everywhere.
const BACKENDS: [&str; 6] = [
    "udp-spin,udp-mmsg,udp-gso",
    "udp-spin,uring,uring-spin",
    "udp-spin,af-packet,af-packet-spin",
    "udp-spin,af-xdp,af-xdp-spin",
    "udp-spin,udp-blocking,uring-zc,uring-sqpoll",
    "udp-spin,af-xdp-generic,loopback,shm",
];

/// Runs at a time. A run waits most of its time, for frames that may still come; and ends that wait for their CPU are what
/// an account has to bear.
const AT_A_TIME: usize = 6;

/// From so many runs on, every sender has met every sink that takes its frames in: the groups of both in turn.
const RUNS_TO_MEET_COUNT: u64 = (SINKS.len() * BACKENDS.len()) as u64;

/// What was seen in some runs.
#[derive(Default)]
struct Tally {
    rows_count: u64,
    echo_rows_count: u64,
    thread_rows_count: u64,
    frames_count: i64,
    lost_count: i64,
    /// A sender and a sink.
    pairs: BTreeSet<(String, String)>,
}

impl Tally {
    fn add(&mut self, other: Tally) {
        self.rows_count += other.rows_count;
        self.echo_rows_count += other.echo_rows_count;
        self.thread_rows_count += other.thread_rows_count;
        self.frames_count += other.frames_count;
        self.lost_count += other.lost_count;
        self.pairs.extend(other.pairs);
    }
}

#[test]
fn every_frame_is_accounted_for_in_every_run() {
    let runs_count = match std::env::var("DPLAB_ACCOUNT_RUNS") {
        Ok(text) => text.parse().expect("DPLAB_ACCOUNT_RUNS is a number of runs"),
        Err(_) => BACKENDS.len() as u64,
    };
    let next_seed = AtomicU64::new(0);
    let one_after_the_other = || {
        let mut tally = Tally::default();
        loop {
            let seed = next_seed.fetch_add(1, Ordering::Relaxed);
            if seed >= runs_count {
                return tally;
            }
            tally.add(account_of(seed));
        }
    };
    let mut tally = Tally::default();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_A_TIME).map(|_| scope.spawn(one_after_the_other)).collect();
        for worker in workers {
            match worker.join() {
                Ok(seen) => tally.add(seen),
                Err(panic) => {
                    // Nobody begins another one.
                    next_seed.store(runs_count, Ordering::Relaxed);
                    std::panic::resume_unwind(panic);
                }
            }
        }
    });
    let backends: BTreeSet<&str> = tally.pairs.iter().map(|(backend, _)| backend.as_str()).collect();
    let sinks: BTreeSet<&str> = tally.pairs.iter().map(|(_, sink)| sink.as_str()).collect();
    if runs_count >= RUNS_TO_MEET_COUNT {
        for &backend in &backends {
            for &sink in &sinks {
                if (backend, sink) == ("udp-gso", "same") {
                    // Left out over loopback, where a train arrives whole and counts as one frame if it is dropped.
                    continue;
                }
                let met = tally.pairs.contains(&(backend.to_owned(), sink.to_owned()));
                assert_eq!(met, speak(backend, sink), "{backend} into {sink}");
            }
        }
    }
    println!(
        "{runs_count} runs, {} rows of {} pairs, {} into {}, {} of them there and back, {} taken in by a thread of the kernel: \
         {} frames sent, {} of them lost where a counter saw it, 0 unexplained",
        tally.rows_count,
        tally.pairs.len(),
        backends.into_iter().collect::<Vec<_>>().join(", "),
        sinks.into_iter().collect::<Vec<_>>().join(", "),
        tally.echo_rows_count,
        tally.thread_rows_count,
        tally.frames_count,
        tally.lost_count
    );
}

/// Rings in memory have themselves only, and the replies to an AF_XDP sender come to its own program, native or generic as the
/// echo is (docs/src/experiments/packet-rate.md).
fn speak(backend: &str, sink: &str) -> bool {
    match backend {
        "loopback" | "shm" => sink == "same",
        "af-xdp" | "af-xdp-spin" => sink != "xdp-echo-generic",
        "af-xdp-generic" => sink != "xdp-echo",
        _ => true,
    }
}

/// One run, added up again by what the record says.
fn account_of(seed: u64) -> Tally {
    let scratch = Scratch::new();
    let out = scratch.join("run");
    let seed_text = seed.to_string();
    // Thirty runs have every group of back ends with every group of sinks, ninety each of these with every size.
    let of = |choices: &'static [&'static str], index: u64| choices[(index % choices.len() as u64) as usize];
    let output = run(&[
        "run",
        "packet-rate",
        "--budget",
        "500ms",
        "--seed",
        &seed_text,
        "--axis",
        of(&FRAME_BYTES, seed / 2 + seed / 30),
        "--axis",
        of(&SINKS, seed),
        "--backend",
        of(&BACKENDS, seed),
        "--out",
        &out,
    ]);
    // 1: a claim about speed may fail; 3: a busy machine may make rows INVALID. The account has to close all the same.
    assert!(
        matches!(output.status.code(), Some(0 | 1 | 3)),
        "seed {seed}: {}: {}",
        output.status,
        stderr(&output)
    );
    let records = fs::read_to_string(format!("{out}/records.jsonl")).expect("records");
    let lines: Vec<Value> = records
        .lines()
        .map(|line| serde_json::from_str(line).expect("every line is JSON"))
        .collect();
    let rows: Vec<&Value> = lines.iter().filter(|line| line["record"] == "row").collect();
    assert!(rows.len() >= 6, "seed {seed}: {} rows", rows.len());
    let mut tally = Tally::default();
    for row in rows {
        add_up(seed, row, &mut tally);
    }
    let verdict = lines
        .iter()
        .find(|line| line["record"] == "verdict" && line["claim"] == "every-frame-accounted")
        .expect("the claim is judged");
    assert_eq!(verdict["outcome"]["is"], "holds", "seed {seed}: {verdict:#}");
    tally
}

/// By the losses that the row names, not by its own sum.
fn add_up(seed: u64, row: &Value, tally: &mut Tally) {
    let metrics = row["metrics"].as_object().expect("metrics");
    let count = |name: &str| metrics[name]["value"].as_f64().expect("a number") as i64;
    let lost_by = |is_meant: fn(&str) -> bool| -> i64 {
        let names = metrics.keys().filter(|name| is_meant(name) && *name != "lost_ratio");
        names.map(|name| count(name)).sum()
    };
    let lost = lost_by(|name| name.starts_with("lost_"));
    assert_eq!(count("sent"), count("received") + lost, "seed {seed}: {row:#}");
    let sink = row["axis"]["sink"].as_str().expect("a word");
    tally.thread_rows_count += u64::from(["xdp-drop-threaded", "xdp-drop-same-cpu"].contains(&sink));
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
        tally.echo_rows_count += 1;
    }
    assert_eq!(count("duplicates"), 0, "seed {seed}: {row:#}");
    assert!(count("sent") > 0, "seed {seed}: {row:#}");
    tally.rows_count += 1;
    tally.frames_count += count("sent");
    tally.lost_count += lost;
    let backend = row["backend"].as_str().expect("a name");
    tally.pairs.insert((backend.to_owned(), sink.to_owned()));
}
