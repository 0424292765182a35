//! The command as a user meets it: right words, wrong words, folders that cannot be written, an interrupt.
#![forbid(unsafe_code)]

use std::{
    fs,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use ebpf_host::Program;
use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use tests::{Scratch, dplab, run, stderr, stdout};

/// A run that is over within seconds.
const SHORT: &[&str] = &[
    "run",
    "rtt-ladder",
    "--backend",
    "loopback,udp-blocking",
    "--axis",
    "frame_bytes=64",
    "--axis",
    "cpus=two",
];

/// The same with programs in the kernel.
const SHORT_XDP: &[&str] = &[
    "run",
    "rtt-ladder",
    "--backend",
    "udp-blocking,af-xdp-spin,xdp-echo",
    "--axis",
    "frame_bytes=64",
    "--axis",
    "cpus=two",
];

#[test]
fn help_names_every_command() {
    let output = run(&["--help"]);
    assert!(output.status.success());
    for word in [
        "list",
        "probe",
        "run",
        "verify",
        "agent",
        "serve",
        "kv",
        "wal",
        "compare",
        "report",
        "explain",
        "completions",
        "man",
    ] {
        assert!(stdout(&output).contains(word), "--help does not name {word}");
    }
    for verb in ["run", "report", "compare", "explain", "serve", "kv", "wal"] {
        assert!(run(&[verb, "--help"]).status.success());
    }
}

#[test]
fn wrong_words_end_with_2_and_the_nearest_name() {
    for (args, near) in [
        (vec!["run", "rtt-lader"], "rtt-ladder"),
        (vec!["run", "--backend", "udp-sping"], "udp-spin"),
        (vec!["run", "rtt-ladder", "--axis", "frame_bits=64"], "frame_bytes"),
        (vec!["run", "rtt-ladder", "--axis", "frame_bytes=1"], "44"),
        (vec!["run", "load-latency", "--axis", "load_ratio=0"], "0.01"),
        (vec!["run", "--budget", "0s"], "100ms"),
        (vec!["explain", "co-ordinated-omission"], "coordinated-omission"),
        (vec!["rum"], "run"),
    ] {
        let output = run(&args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).contains(near), "{args:?} says {}", stderr(&output));
        assert!(stdout(&output).is_empty(), "{args:?} printed on stdout");
    }
}

#[test]
fn list_probe_explain_tell_without_measuring() {
    let list = run(&["list"]);
    assert!(list.status.success() && stdout(&list).contains("coordinated-omission"));
    let list: serde_json::Value = serde_json::from_str(&stdout(&run(&["list", "--json"]))).expect("JSON");
    assert!(
        list["experiments"]
            .as_array()
            .is_some_and(|experiments| experiments.len() >= 5)
    );
    let probe = run(&["doctor"]);
    assert!(
        probe.status.success() && stdout(&probe).contains("udp-blocking"),
        "{}",
        stderr(&probe)
    );
    let probe: serde_json::Value = serde_json::from_str(&stdout(&run(&["probe", "--json"]))).expect("JSON");
    assert_eq!(probe["backends"][0]["support"]["is"], "native");
    let explained = run(&["explain", "client-bias"]);
    assert!(stdout(&explained).contains("Lancet"));
    assert!(stdout(&run(&["completions", "bash"])).contains("dplab"));
    assert!(stdout(&run(&["man"])).contains(".TH"));
}

#[test]
fn a_short_run_leaves_records_and_a_report() {
    let scratch = Scratch::new();
    let out = scratch.join("run");
    let output = run(&[SHORT, &["--budget", "3s", "--seed", "7", "--out", &out]].concat());
    assert!(matches!(output.status.code(), Some(0 | 1 | 3)), "{}", stderr(&output));
    assert!(stdout(&output).contains("report.html"));
    // What is said beside the progress is said where there is no terminal to show it, too.
    let said = stderr(&output);
    assert!(said.contains("Measuring in ") && said.contains("seed 7"), "{said}");
    let records = fs::read_to_string(format!("{out}/records.jsonl")).expect("records");
    let lines: Vec<serde_json::Value> = records
        .lines()
        .map(|line| serde_json::from_str(line).expect("every line is JSON"))
        .collect();
    assert_eq!(lines[0]["record"], "run");
    assert_eq!(lines[0]["seed"], 7);
    assert_eq!(lines.last().expect("lines")["record"], "end");
    let rows: Vec<_> = lines.iter().filter(|line| line["record"] == "row").collect();
    assert!(rows.iter().any(|row| row["backend"] == "loopback"));
    assert!(
        rows.iter()
            .any(|row| row["backend"] == "udp-blocking" && row["twin"] == true)
    );
    for row in &rows {
        // Two spinning ends that must share their CPUs with others may manage a handful of round trips: such a row is
        // kept, but never as a valid one.
        let samples_count = row["latency"]["samples_count"].as_u64().expect("a count");
        assert!(
            samples_count > 100 || row["validity"]["is"] == "invalid",
            "a valid row of {samples_count} samples: {row}"
        );
        assert!(row["mode"]["is"].is_string());
    }
    assert!(fs::read_dir(format!("{out}/histograms")).expect("histograms").count() >= rows.len());
    assert!(
        fs::read_to_string(format!("{out}/report.html"))
            .expect("a report")
            .contains("udp-blocking")
    );

    // The same run again: the folder is taken, and nothing in it is touched.
    let again = run(&[SHORT, &["--budget", "3s", "--out", &out]].concat());
    assert_eq!(again.status.code(), Some(2));
    assert_eq!(
        fs::read_to_string(format!("{out}/records.jsonl")).expect("records"),
        records
    );

    // Reports and comparisons need no measuring.
    assert!(run(&["report", &out, "--format", "terminal"]).status.success());
    assert!(run(&["report", &out, "--format", "markdown"]).status.success());
    let compared = run(&["compare", &out, &out, "--format", "json"]);
    assert!(compared.status.success(), "{}", stderr(&compared));
}

#[test]
fn a_round_trip_is_told_in_stages_that_add_up() {
    let scratch = Scratch::new();
    let out = scratch.join("run");
    let smallest = ["run", "rtt-breakdown", "--axis", "ends=blocking", "--axis", "cpus=one"];
    let output = run(&[&smallest[..], &["--budget", "2s", "--seed", "7", "--out", &out]].concat());
    assert!(matches!(output.status.code(), Some(0 | 1 | 3)), "{}", stderr(&output));
    let records = fs::read_to_string(format!("{out}/records.jsonl")).expect("records");
    let lines = records
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("every line is JSON"));
    let rows: Vec<_> = lines.filter(|line| line["record"] == "row").collect();
    let is_ring = |row: &serde_json::Value| row["backend"] == "af-xdp-stamped";
    let is_apart = |row: &&serde_json::Value| row["backend"] == "udp-stamped" || is_ring(row);
    let totals = rows
        .iter()
        .filter(is_apart)
        .filter(|row| row["axis"]["stage"] == "total");
    let (mut told_count, mut told_of_rings_count) = (0, 0);
    for total in totals {
        let samples_count = total["latency"]["samples_count"].as_u64().unwrap_or(0);
        // A measurement's rows have one start.
        let stages: Vec<_> = rows
            .iter()
            .filter(is_apart)
            .filter(|row| row["at_s"] == total["at_s"] && row["axis"]["stage"] != "total")
            .collect();
        // With an XDP program at each interface, where that is possible, and without.
        let stages_count = match (is_ring(total), total["axis"]["driver"] == "xdp") {
            (true, _) => 5,
            (false, true) => 10,
            (false, false) => 8,
        };
        assert_eq!(stages.len(), stages_count, "{total}");
        let mean_ns = |row: &serde_json::Value| row["latency"]["mean_ns"].as_f64().unwrap_or(0.0);
        let sum_ns: f64 = stages.iter().map(|row| mean_ns(row)).sum();
        if total["validity"]["is"] == "valid" {
            assert!((sum_ns / mean_ns(total) - 1.0).abs() < 0.02, "{sum_ns} of {total}");
        }
        let sent = stages
            .iter()
            .find(|row| row["axis"]["stage"] == "01 client app to driver");
        assert_eq!(sent.is_some(), is_ring(total), "{total}");
        if let Some(sent) = sent {
            let clocks = sent["facts"]["clocks"]
                .as_str()
                .expect("each stage says of which clocks");
            assert!(clocks.contains("CLOCK_TAI (AF_XDP, completion)"), "{clocks}");
            told_of_rings_count += samples_count;
        }
        for stage in stages {
            assert_eq!(stage["latency"]["samples_count"].as_u64().unwrap_or(0), samples_count);
            assert!(
                stage["facts"]["clocks"]
                    .as_str()
                    .is_some_and(|clocks| clocks.contains("CLOCK_"))
            );
            assert_eq!(stage["validity"], total["validity"], "they stand and fall together");
        }
        told_count += samples_count;
    }
    assert!(told_count > 100, "{told_count} round trips were told in stages");
    match rows.iter().find(|row| row["backend"] == "af-xdp") {
        None => println!("AF_XDP in stages: not run: there is none here (two namespaces and XDP need root)"),
        Some(whole) => match whole["facts"]["ring_stamps"].as_str() {
            Some(why) => println!("AF_XDP in stages: not run: {why}"),
            None => assert!(told_of_rings_count > 100, "{told_of_rings_count} over AF_XDP"),
        },
    }
    let plain = rows
        .iter()
        .find(|row| row["backend"] == "udp-blocking" && row["axis"]["stage"] == "total");
    assert!(plain.is_some(), "the round trip without stamps stands beside");
}

#[test]
fn wake_ups_are_measured_with_and_without_a_network() {
    let scratch = Scratch::new();
    let out = scratch.join("run");
    let args = [
        "run",
        "wakeup-model",
        "--axis",
        "ends=blocking,client-blocks",
        "--seed",
        "7",
    ];
    let output = run(&[&args[..], &["--budget", "2s", "--out", &out]].concat());
    assert!(matches!(output.status.code(), Some(0 | 1 | 3)), "{}", stderr(&output));
    let records = fs::read_to_string(format!("{out}/records.jsonl")).expect("records");
    let rows: Vec<serde_json::Value> = records
        .lines()
        .map(|line| serde_json::from_str(line).expect("every line is JSON"))
        .filter(|line: &serde_json::Value| line["record"] == "row")
        .collect();
    let has = |backend: &str, ends: &str, cpus: &str| {
        rows.iter()
            .any(|row| row["backend"] == backend && row["axis"]["ends"] == ends && row["axis"]["cpus"] == cpus)
    };
    for cpus in ["one", "two"] {
        assert!(has("eventfd", "no-network", cpus), "no bare wake-up on {cpus}");
        assert!(has("udp-blocking", "blocking", cpus), "no blocking ends on {cpus}");
    }
    assert!(has("udp-spin", "client-blocks", "two"));
    assert!(
        !has("udp-spin", "client-blocks", "one"),
        "a spinning end has a CPU of its own or none"
    );
    let client = rows.iter().find(|row| row["axis"]["ends"] == "client-blocks");
    assert_eq!(
        client.map(|row| &row["facts"]["client_backend"]),
        Some(&"udp-blocking".into())
    );
}

#[test]
fn the_switch_in_user_space_is_asked_and_knows_where_every_frame_went() {
    if !tests::programs::can("the_switch_in_user_space") {
        return;
    }
    let scratch = Scratch::new();
    let out = scratch.join("run");
    let args = ["run", "emulated-switch", "--axis", "frame_bytes=512", "--seed", "7"];
    let output = run(&[&args[..], &["--budget", "400ms", "--queue-log", "50", "--out", &out]].concat());
    assert!(matches!(output.status.code(), Some(0 | 1 | 3)), "{}", stderr(&output));
    let records = fs::read_to_string(format!("{out}/records.jsonl")).expect("records");
    let rows: Vec<serde_json::Value> = records
        .lines()
        .map(|line| serde_json::from_str(line).expect("every line is JSON"))
        .filter(|line: &serde_json::Value| line["record"] == "row")
        .collect();
    let floor = rows
        .iter()
        .find(|row| row["axis"]["check"] == "floor")
        .expect("a plain loop");
    assert_eq!(floor["backend"], "plain-loop");
    assert!(
        floor["metrics"]["frames_per_cpu_second"]["value"].as_f64() > Some(0.0),
        "{floor}"
    );
    for check in ["capacity", "rate", "delay"] {
        let row = rows.iter().find(|row| row["axis"]["check"] == check);
        let row = row.unwrap_or_else(|| panic!("no row of {check}: {}", stderr(&output)));
        let metric = |name: &str| row["metrics"][name]["value"].as_f64().expect(name);
        assert!(metric("delivered") > 0.0, "{row}");
        assert_eq!(metric("unexplained"), 0.0, "{row}");
        let log = row["facts"]["queue_log"].as_str().expect("a file is named");
        let file = log.split(',').next().expect("its name");
        let text = fs::read_to_string(format!("{out}/{file}")).expect("a file");
        // Two lines about it, one of names, and the events.
        assert_eq!(text.lines().count(), 3 + 50, "{log}");
    }
    // The report says over what the frames went: not over the lab's own veth pair.
    let report = fs::read_to_string(format!("{out}/report.md")).expect("a report");
    assert!(
        report.contains("at a soft switch") && !report.contains("joined by one veth pair"),
        "{report}"
    );
}

/// A scenario of the simulator's on real kernels: both rows have the metric that they are compared by, and the kernel's connections left
/// what they did in a file.
#[test]
fn a_scenario_runs_at_both_levels() {
    let scratch = Scratch::new();
    let out = scratch.join("run");
    let output = run(&[
        "run",
        "real-mathis",
        "--axis",
        "loss_ratio=0.01",
        "--budget",
        "1s",
        "--seed",
        "5",
        "--out",
        &out,
    ]);
    assert!(matches!(output.status.code(), Some(0 | 1 | 3)), "{}", stderr(&output));
    let records = fs::read_to_string(format!("{out}/records.jsonl")).expect("records");
    let rows: Vec<serde_json::Value> = records
        .lines()
        .map(|line| serde_json::from_str(line).expect("every line is JSON"))
        .filter(|line: &serde_json::Value| line["record"] == "row")
        .collect();
    let of = |backend: &str| rows.iter().find(|row| row["backend"] == backend);
    let goodput = |row: &serde_json::Value| row["metrics"]["long_goodput_mbit_per_sec"]["value"].as_f64();
    let simulated = of("sim").expect("a row in virtual time");
    assert!(goodput(simulated).is_some_and(|rate| rate > 1.0), "{simulated}");
    let Some(kernel) = of("kernel-tcp") else {
        assert!(
            stderr(&output).contains("no row of this machine's kernel"),
            "{}",
            stderr(&output)
        );
        return;
    };
    assert!(goodput(kernel).is_some_and(|rate| rate > 0.0), "{kernel}");
    assert!(stderr(&output).contains("2.0 s instead of 25 s"), "{}", stderr(&output));
    let file = kernel["facts"]["connections"].as_str().expect("a file's name");
    let series = fs::read_to_string(format!("{out}/{file}")).expect("it is there");
    assert!(series.contains("at_ns,flow,window_segments"), "{series}");
}

/// The kernel's row is there where there can be one, and then no byte of it is without an owner; the simulator's is always.
#[test]
fn incast_is_measured_at_both_levels_from_one_file() {
    let scratch = Scratch::new();
    let out = scratch.join("run");
    let args = [
        "run",
        "real-incast",
        "--axis",
        "servers=4",
        "--axis",
        "arm=cubic-no-tlp-floor",
    ];
    let output = run(&[&args[..], &["--budget", "1s", "--seed", "5", "--out", &out]].concat());
    assert!(matches!(output.status.code(), Some(0 | 1 | 3)), "{}", stderr(&output));
    let records = fs::read_to_string(format!("{out}/records.jsonl")).expect("records");
    let rows: Vec<serde_json::Value> = records
        .lines()
        .map(|line| serde_json::from_str(line).expect("every line is JSON"))
        .filter(|line: &serde_json::Value| line["record"] == "row")
        .collect();
    let simulated = rows
        .iter()
        .find(|row| row["backend"] == "sim")
        .expect("a row in virtual time");
    let Some(kernel) = rows.iter().find(|row| row["backend"] == "kernel-tcp") else {
        assert!(
            stderr(&output).contains("no row of this machine's kernel"),
            "{}",
            stderr(&output)
        );
        return;
    };
    assert_eq!(
        simulated["facts"]["scenario_sha256"],
        kernel["facts"]["scenario_sha256"]
    );
    let fact = |name: &str| {
        kernel["facts"][name]
            .as_str()
            .unwrap_or_else(|| panic!("no {name}: {kernel}"))
    };
    assert!(fact("servers").contains("tcp_early_retrans=0"), "{kernel}");
    assert_eq!(
        fact("bytes"),
        "of every flow, as many received as asked for",
        "{kernel}"
    );
    let metric = |name: &str| kernel["metrics"][name]["value"].as_f64().expect(name);
    assert_eq!(metric("loss_probes"), 0.0, "probes are off: {kernel}");
    assert!(
        metric("goodput_mbit_per_sec") > 0.0 && metric("queries") > 0.0,
        "{kernel}"
    );
}

#[test]
fn json_puts_records_and_nothing_else_on_stdout() {
    let scratch = Scratch::new();
    let output = run(&[SHORT, &["--budget", "2s", "--json", "--out", &scratch.join("run")]].concat());
    let text = stdout(&output);
    assert!(!text.is_empty(), "{}", stderr(&output));
    for line in text.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("every line of stdout is JSON");
        assert!(line["record"].is_string());
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let scratch = Scratch::new();
    let file = scratch.join("file");
    fs::write(&file, "in the way").expect("a file");
    let output = run(&[SHORT, &["--out", &format!("{file}/run")]].concat());
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains(&file), "{}", stderr(&output));
}

#[test]
fn a_newer_record_is_refused_and_a_torn_one_is_read() {
    let scratch = Scratch::new();
    let out = scratch.join("run");
    run(&[SHORT, &["--budget", "2s", "--out", &out]].concat());
    let file = format!("{out}/records.jsonl");
    let records = fs::read_to_string(&file).expect("records");
    fs::write(&file, &records[..records.len() - 40]).expect("a torn file");
    let report = run(&["report", &out, "--format", "terminal"]);
    assert!(report.status.success(), "{}", stderr(&report));
    let newer = records.replacen("\"schema_version\":1", "\"schema_version\":99", 1);
    assert_ne!(newer, records);
    fs::write(&file, &newer).expect("a newer file");
    let report = run(&["report", &out]);
    assert_eq!(report.status.code(), Some(2));
    assert!(stderr(&report).contains("99"), "{}", stderr(&report));
    assert_eq!(fs::read_to_string(&file).expect("records"), newer);
}

/// The rows of a run folder.
fn rows_of(out: &str) -> Vec<serde_json::Value> {
    let records = fs::read_to_string(format!("{out}/records.jsonl")).expect("records");
    let lines = records
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("every line is JSON"));
    lines.filter(|line| line["record"] == "row").collect()
}

#[test]
fn commits_by_one_sided_writes_cost_no_follower_anything() {
    let scratch = Scratch::new();
    let out = scratch.join("run");
    let quorum = [
        "run",
        "rdma-quorum",
        "--axis",
        "work=commit,write",
        "--budget",
        "300ms",
        "--seed",
        "7",
        "--out",
        &out,
    ];
    let output = run(&quorum);
    assert!(matches!(output.status.code(), Some(0 | 1 | 3)), "{}", stderr(&output));
    let rows = rows_of(&out);
    for provider in ["rdma-shm", "rdma-roce"] {
        for work in ["commit", "write"] {
            // A round in which the machine kept the leader from its CPU until another one took it for dead says so, and has no operations.
            let of = |row: &&serde_json::Value| {
                row["backend"] == provider
                    && row["axis"]["work"] == work
                    && row["metrics"]["operations"]["value"] != 0.0
            };
            let row = rows
                .iter()
                .find(of)
                .unwrap_or_else(|| panic!("no {work} over {provider}"));
            let metric = |name: &str| row["metrics"][name]["value"].as_f64().expect("a number");
            assert_eq!(metric("followers_cpu"), 0.0, "{row}");
            assert_eq!(metric("followers_requests"), 0.0, "{row}");
        }
    }
    let wrong = run(&[
        "run",
        "rdma-quorum",
        "--axis",
        "provider=rdma-verbs",
        "--out",
        &scratch.join("no"),
    ]);
    assert_ne!(wrong.status.code(), Some(0));
    assert!(stderr(&wrong).contains("rdma-shm, rdma-roce"), "{}", stderr(&wrong));
}

#[test]
fn operations_of_rdma_are_measured_over_every_provider_that_is_here() {
    let scratch = Scratch::new();
    let out = scratch.join("run");
    let ladder = [
        "run",
        "rdma-ladder",
        "--axis",
        "bytes=64,4096",
        "--axis",
        "in_flight=1",
        "--axis",
        "provider=udp-spin,rdma-shm,rdma-roce,rdma-roce-af-xdp,rdma-verbs",
        "--budget",
        "100ms",
        "--seed",
        "7",
        "--out",
        &out,
    ];
    let output = run(&ladder);
    assert!(matches!(output.status.code(), Some(0 | 1 | 3)), "{}", stderr(&output));
    let rows = rows_of(&out);
    for (operation, bytes) in [
        ("send", "64"),
        ("write", "4096"),
        ("write-imm", "4096"),
        ("read", "4096"),
        ("cas", "8"),
        ("faa", "8"),
    ] {
        for provider in ["rdma-shm", "rdma-roce", "rdma-roce-af-xdp", "rdma-verbs"] {
            let of = |row: &&serde_json::Value| {
                row["backend"] == provider && row["axis"]["operation"] == operation && row["axis"]["bytes"] == bytes
            };
            match rows.iter().find(of) {
                Some(row) => {
                    let count = row["metrics"]["operations"]["value"].as_f64().expect("a number");
                    assert!(count > 0.0 && row["latency"].is_object(), "{row}");
                }
                // Where it is not here, the run says so.
                None => assert!(
                    stderr(&output).contains(&format!("{provider} is not measured here because")),
                    "no {operation} over {provider}: {}",
                    stderr(&output)
                ),
            }
        }
    }
    assert!(rows.iter().any(|row| row["backend"] == "udp-spin"));
}

#[test]
fn many_connections_write_into_one_memory() {
    let scratch = Scratch::new();
    let out = scratch.join("run");
    let incast = [
        "run",
        "incast-write",
        "--axis",
        "writers=1,5",
        "--axis",
        "provider=rdma-shm,rdma-roce",
        "--budget",
        "200ms",
        "--seed",
        "7",
        "--out",
        &out,
    ];
    let output = run(&incast);
    assert!(matches!(output.status.code(), Some(0 | 1 | 3)), "{}", stderr(&output));
    let rows = rows_of(&out);
    for provider in ["rdma-shm", "rdma-roce"] {
        for (writers, operation) in [("1", "write"), ("5", "write"), ("5", "write-imm")] {
            let of = |row: &&serde_json::Value| {
                row["backend"] == provider && row["axis"]["writers"] == writers && row["axis"]["operation"] == operation
            };
            let row = rows
                .iter()
                .find(of)
                .unwrap_or_else(|| panic!("no {writers} over {provider}"));
            assert!(
                row["metrics"]["goodput"]["value"].as_f64().expect("a number") > 0.0,
                "{row}"
            );
            assert!(row["metrics"]["resent_packets"]["value"].is_number(), "{row}");
        }
    }
}

#[test]
fn ways_to_the_disk_are_measured_and_their_files_removed() {
    let scratch = Scratch::new();
    let (out, dir) = (scratch.join("run"), scratch.join("files"));
    let ladder = [
        "run",
        "wal-ladder",
        "--axis",
        "work=append,read",
        "--axis",
        "record_bytes=64,4096",
        "--axis",
        "in_flight=4",
        "--axis",
        "beside=hogs",
        "--axis",
        "way=wal-file,pwrite-fdatasync,blocking-direct,uring-iopoll",
    ];
    let output = run(&[
        &ladder[..],
        &["--budget", "2s", "--seed", "7", "--out", &out, "--dir", &dir],
    ]
    .concat());
    if stderr(&output).contains("is memory") {
        println!("not run: {}", stderr(&output));
        return;
    }
    assert!(matches!(output.status.code(), Some(0 | 1 | 3)), "{}", stderr(&output));
    assert_eq!(fs::read_dir(&dir).expect("the folder stays").count(), 0, "and is empty");
    let rows = rows_of(&out);
    for (backend, work) in [
        ("wal-file", "append"),
        ("pwrite-fdatasync", "append"),
        ("blocking-direct", "read"),
    ] {
        let row = rows
            .iter()
            .find(|row| row["backend"] == backend && row["axis"]["work"] == work);
        let Some(row) = row else {
            let said = stderr(&output);
            assert!(said.contains(&format!("{backend} is left out")), "{backend}: {said}");
            continue;
        };
        assert!(row["metrics"]["operations"]["value"].as_f64() > Some(0.0), "{row}");
        assert!(row["facts"]["hogs"].is_string() && row["facts"]["guarantee"].is_string());
        assert_eq!(row["facts"]["yardstick"].is_string(), backend != "wal-file");
    }
    // What the log writes for a record is what the device without a log is given.
    let block_bytes = |backend: &str, record_bytes: &str| {
        let row = rows
            .iter()
            .find(|row| row["backend"] == backend && row["axis"]["record_bytes"] == record_bytes)?;
        row["metrics"]["block_bytes"]["value"].as_f64()
    };
    assert_eq!(block_bytes("pwrite-fdatasync", "64"), Some(512.0));
    assert_eq!(block_bytes("pwrite-fdatasync", "4096"), Some(4608.0));
}

#[test]
fn a_flush_carries_the_records_of_all_that_wait() {
    let scratch = Scratch::new();
    let out = scratch.join("run");
    let args = ["run", "wal-group-commit", "--axis", "writers=1,8", "--axis", "log=file"];
    let output = run(&[&args[..], &["--budget", "2s", "--seed", "7", "--out", &out]].concat());
    assert!(matches!(output.status.code(), Some(0 | 1 | 3)), "{}", stderr(&output));
    if stderr(&output).contains("nothing is measured") {
        println!("not run: {}", stderr(&output));
        return;
    }
    let per_flush = |writers: &str| -> Vec<f64> {
        let rows = rows_of(&out)
            .into_iter()
            .filter(|row| row["axis"]["writers"] == writers);
        rows.map(|row| row["metrics"]["records_per_flush"]["value"].as_f64().expect("counted"))
            .collect()
    };
    assert!(per_flush("1").iter().all(|&records| records == 1.0));
    assert!(
        per_flush("8").iter().any(|&records| records > 1.0),
        "{:?}",
        per_flush("8")
    );
    let left = fs::read_dir(&out).expect("the run's folder").flatten();
    assert!(
        left.into_iter()
            .all(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
    );
}

#[test]
fn a_place_for_files_must_be_a_disk_and_mean_something() {
    let scratch = Scratch::new();
    let misplaced = run(&[SHORT, &["--dir", &scratch.join("files")]].concat());
    assert_eq!(misplaced.status.code(), Some(2));
    assert!(stderr(&misplaced).contains("wal-ladder"), "{}", stderr(&misplaced));
    let shm = std::path::Path::new("/dev/shm");
    let is_tmpfs = fs::read_to_string("/proc/mounts")
        .is_ok_and(|mounts| mounts.lines().any(|line| line.starts_with("tmpfs /dev/shm ")));
    if !is_tmpfs {
        println!("memory as a disk: not run: /dev/shm is none");
        return;
    }
    let before = fs::read_dir(shm).expect("it is there").count();
    let args = [
        "run",
        "wal-ladder",
        "--budget",
        "1s",
        "--dir",
        "/dev/shm",
        "--out",
        &scratch.join("run"),
    ];
    let output = run(&args);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    let told = format!("{}{}", stdout(&output), stderr(&output));
    assert!(told.contains("is memory"), "{told}");
    assert_eq!(
        fs::read_dir(shm).expect("it is there").count(),
        before,
        "nothing was made there"
    );
}

#[test]
fn ctrl_c_removes_the_files_of_a_disk_experiment() {
    let scratch = Scratch::new();
    let (out, dir) = (scratch.join("run"), scratch.join("files"));
    let mut child = Command::new(dplab())
        .args(["run", "wal-ladder", "--axis", "way=wal-file", "--axis", "work=append"])
        .args(["--budget", "60s", "--out", &out, "--dir", &dir])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("dplab starts");
    let deadline = Instant::now() + Duration::from_secs(60);
    let has_rows = || {
        fs::read_to_string(format!("{out}/records.jsonl")).is_ok_and(|records| records.contains("\"record\":\"row\""))
    };
    while !has_rows() && Instant::now() < deadline && child.try_wait().expect("a child").is_none() {
        std::thread::sleep(Duration::from_millis(20));
    }
    let has_measured = has_rows();
    if has_measured {
        assert!(fs::read_dir(&dir).expect("a folder").count() > 0);
    }
    // It may have ended by itself, where there is no disk.
    let _ = signal::kill(Pid::from_raw(child.id() as i32), Signal::SIGINT);
    let status = child.wait().expect("it ends");
    match has_measured {
        true => assert!(status.code().is_some(), "{status:?}"),
        false => println!("not run: no disk at {dir}"),
    }
    assert_eq!(fs::read_dir(&dir).map_or(0, Iterator::count), 0);
}

#[test]
fn ctrl_c_keeps_the_rows_so_far() {
    let scratch = Scratch::new();
    let out = scratch.join("run");
    let mut child = Command::new(dplab())
        .args([SHORT, &["--budget", "60s", "--out", &out]].concat())
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
    signal::kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).expect("it runs");
    let status = child.wait().expect("it ends");
    assert!(status.code().is_some(), "it ended by itself: {status}");
    let records = fs::read_to_string(&file).expect("records");
    let end: serde_json::Value = serde_json::from_str(records.lines().last().expect("lines")).expect("JSON");
    assert_eq!(end["record"], "end");
    assert_eq!(end["interrupted"], true);
    let report = fs::read_to_string(format!("{out}/report.html")).expect("a report");
    assert!(report.to_lowercase().contains("interrupted"));
}

/// Kills runs at random moments, then looks for what is left. `DPLAB_KILLS` sets how many (the soak takes 50).
#[test]
fn kill_9_leaves_nothing_that_the_next_start_does_not_sweep() {
    let kills_count: u64 = std::env::var("DPLAB_KILLS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(4);
    let program = dplab();
    let scratch = Scratch::new();
    let newest_id = programs_since(0).into_iter().map(|(id, _)| id).max().unwrap_or(0);
    for kill in 0..kills_count {
        let out = scratch.join(&format!("run-{kill}"));
        let backends = if kill % 2 == 0 { SHORT } else { SHORT_XDP };
        let mut child = Command::new(&program)
            .args([backends, &["--budget", "20s", "--out", &out]].concat())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("dplab starts");
        // Spread over start-up and the first trials, the same on every run of the test.
        std::thread::sleep(Duration::from_millis(20 + kill * 7919 % 1500));
        signal::kill(Pid::from_raw(child.id() as i32), Signal::SIGKILL).expect("it runs");
        child.wait().expect("it is gone");
        wait_for_no_server(child.id());
        if let Ok(records) = fs::read_to_string(format!("{out}/records.jsonl")) {
            let torn = records
                .lines()
                .filter(|line| serde_json::from_str::<serde_json::Value>(line).is_err())
                .count();
            assert!(torn <= 1, "only the last line may be torn");
            if records
                .lines()
                .next()
                .is_some_and(|line| serde_json::from_str::<serde_json::Value>(line).is_ok())
            {
                let report = run(&["report", &out, "--format", "terminal"]);
                assert!(report.status.success(), "kill {kill}: {}", stderr(&report));
            }
        }
        let probe = run(&["probe"]);
        assert!(probe.status.success(), "kill {kill}: {}", stderr(&probe));
        assert_eq!(
            names_of(child.id()),
            Vec::<String>::new(),
            "kill {kill}: names are left"
        );
        wait_for_no_program(newest_id, kill);
    }
}

/// The kernel's programs with a number above `id`: number and name. None where we may not ask.
fn programs_since(id: u32) -> Vec<(u32, String)> {
    aya::programs::loaded_programs()
        .flatten()
        .filter(|info| info.id() > id)
        .map(|info| (info.id(), info.name_as_str().unwrap_or_default().to_owned()))
        .collect()
}

/// A program that nobody holds is freed by a work item of the kernel; its maps go with it.
fn wait_for_no_program(newest_id: u32, kill: u64) {
    let is_ours = |name: &str| Program::ALL.iter().any(|program| name.starts_with(program.name()));
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let mut left = programs_since(newest_id);
        left.retain(|(_, name)| is_ours(name));
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "kill {kill}: programs are left: {left:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Names under /run/netns that belong to that process.
fn names_of(pid: u32) -> Vec<String> {
    let prefix = format!("dplab-{pid}-");
    fs::read_dir("/run/netns")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(&prefix))
        .collect()
}

/// The servers of a killed run die with it (PR_SET_PDEATHSIG); the kernel needs a moment.
fn wait_for_no_server(parent_pid: u32) {
    let wanted = format!("\"parent_pid\":{parent_pid}");
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let left = fs::read_dir("/proc")
            .expect("/proc")
            .flatten()
            .filter(|entry| fs::read_to_string(entry.path().join("cmdline")).is_ok_and(|line| line.contains(&wanted)))
            .count();
        if left == 0 {
            return;
        }
        assert!(Instant::now() < deadline, "{left} servers outlive their run");
        std::thread::sleep(Duration::from_millis(20));
    }
}
