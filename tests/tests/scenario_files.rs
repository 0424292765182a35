//! A scenario of one's own on the command line: it runs without hosts, a mistake in it is shown where it is, an interrupt keeps rows.
#![forbid(unsafe_code)]

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use serde_json::Value;
use tests::{Scratch, dplab, run, stderr, stdout};

const GOOD: &str = r#"
name = "mine"
title = "Answers from a few servers"
horizon = "60 s"
topology = { kind = "star", hosts = 9, rate = "1 Gbit/s", delay = "20 us" }
tcp = { rto_min = "10 ms" }
load = [{ kind = "incast", servers = 8, bytes = "100 KB", rounds = 5 }]
vary = { what = "servers", values = [1, 8] }
"#;

/// Two points: one is over at once, the other takes minutes.
const LONG: &str = r#"
name = "long"
title = "More answers than anybody waits for"
horizon = "100000 s"
topology = { kind = "star", hosts = 9, rate = "1 Gbit/s", delay = "20 us" }
load = [{ kind = "incast", servers = 8, bytes = "1 MB", rounds = 20 }]
vary = { what = "servers", values = [1, 5000] }
"#;

fn written(scratch: &Scratch, name: &str, text: &str) -> String {
    let path = scratch.join(name);
    fs::write(&path, text).expect("a file for the test");
    path
}

fn records(out: &str) -> Vec<Value> {
    let text = fs::read_to_string(format!("{out}/records.jsonl")).unwrap_or_default();
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

fn rows(out: &str) -> Vec<Value> {
    let mut rows = records(out);
    rows.retain(|record| record["record"] == "row");
    rows
}

#[test]
fn help_says_that_a_file_may_be_run() {
    let help = stdout(&run(&["run", "--help"]));
    assert!(help.contains("FILE.toml") && help.contains("scenario"), "{help}");
}

#[test]
fn a_good_file_is_run_without_hosts_and_the_same_again() {
    let scratch = Scratch::new();
    let file = written(&scratch, "mine.toml", GOOD);
    let hashes = |name: &str| {
        let out = scratch.join(name);
        let output = run(&["run", &file, "--seed", "7", "--out", &out]);
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(!stdout(&output).contains("namespaces"), "{}", stdout(&output));
        assert!(
            stdout(&output).contains("Answers from a few servers"),
            "{}",
            stdout(&output)
        );
        assert!(Path::new(&out).join("report.html").is_file());
        let rows = rows(&out);
        let servers: Vec<_> = rows.iter().map(|row| row["axis"]["servers"].as_str()).collect();
        assert_eq!(servers, [Some("1"), Some("8")]);
        for row in &rows {
            assert_eq!(row["mode"]["is"], "simulated");
            assert_eq!(row["metrics"]["queries"]["value"], 5.0);
            assert_eq!(row["metrics"]["unfinished"]["value"], 0.0);
        }
        rows.into_iter()
            .map(|row| row["facts"]["event_hash"].clone())
            .collect::<Vec<_>>()
    };
    let first = hashes("first");
    assert!(first.iter().all(Value::is_string), "{first:?}");
    assert_eq!(first, hashes("second"));
}

#[test]
fn a_mistake_is_shown_where_it_is_and_nothing_is_run() {
    let scratch = Scratch::new();
    for (name, from, to, wanted) in [
        ("key.toml", "horizon", "horizn", ["key.toml:4:1", "horizon"]),
        ("rate.toml", "1 Gbit/s", "0 Gbit/s", ["rate.toml:5:", "rate"]),
        ("kind.toml", "\"star\"", "\"stra\"", ["kind.toml:5:", "star"]),
    ] {
        let file = written(&scratch, name, &GOOD.replace(from, to));
        let out = scratch.join("none");
        let output = run(&["run", &file, "--out", &out]);
        assert_eq!(output.status.code(), Some(2), "{name}: {}", stderr(&output));
        for word in wanted {
            assert!(stderr(&output).contains(word), "{name}, {word}: {}", stderr(&output));
        }
        assert!(stdout(&output).is_empty() && !Path::new(&out).exists(), "{name}");
    }
    let absent = scratch.join("absent.toml");
    let output = run(&["run", &absent]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("absent.toml"), "{}", stderr(&output));
}

#[test]
fn ctrl_c_ends_a_simulation_and_keeps_the_rows_so_far() {
    let scratch = Scratch::new();
    let file = written(&scratch, "long.toml", LONG);
    let out = scratch.join("run");
    let mut child = Command::new(dplab())
        .args(["run", &file, "--seed", "1", "--out", &out])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("dplab starts");
    let deadline = Instant::now() + Duration::from_secs(60);
    while rows(&out).is_empty() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    signal::kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).expect("it runs");
    let deadline = Instant::now() + Duration::from_secs(60);
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child") {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().expect("it runs");
            panic!("it goes on after an interrupt");
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(status.code().is_some(), "it ended by itself: {status}");
    let records = records(&out);
    let end = records.last().expect("records");
    assert_eq!(
        (&end["record"], &end["interrupted"]),
        (&Value::from("end"), &Value::from(true))
    );
    let servers: Vec<_> = rows(&out).iter().map(|row| row["axis"]["servers"].clone()).collect();
    assert_eq!(
        servers,
        ["1"],
        "the first point is kept, and nothing of the one that was not finished"
    );
    let report = fs::read_to_string(format!("{out}/report.html")).expect("a report");
    assert!(report.to_lowercase().contains("interrupted"));
}

#[test]
fn an_exported_list_of_flows_gives_the_same_hash_on_the_command_line_and_in_a_file() {
    let scratch = Scratch::new();
    let file = written(&scratch, "mine.toml", GOOD);
    let hash = |name: &str, file: &str, more: &[&str]| {
        let out = scratch.join(name);
        let output = run(&[&["run", file, "--seed", "7", "--out", &out], more].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        let rows = rows(&out);
        assert_eq!(rows.len(), 1, "{rows:?}");
        rows[0]["facts"]["event_hash"].clone()
    };
    let eight = ["--axis", "servers=8"];
    let first = hash("first", &file, &[&eight[..], &["--flows-out"]].concat());
    let list = scratch.join("first/flows/mine.servers=8.csv");
    let text = fs::read_to_string(&list).expect("a list");
    assert!(
        text.contains("scenario mine, sha256 ") && text.contains("seed 7"),
        "{text}"
    );
    assert_eq!(hash("again", &file, &[&eight[..], &["--flows", &list]].concat()), first);

    let listed = GOOD.replace("vary = { what = \"servers\", values = [1, 8] }", "");
    let listed = format!("flows = \"first/flows/mine.servers=8.csv\"\n{listed}");
    let listed = written(&scratch, "listed.toml", &listed);
    assert_eq!(hash("in-a-file", &listed, &[]), first);

    // One flow is another: the hash is another.
    let other = written(&scratch, "other.csv", &text.replacen("0,8,0,", "0,7,0,", 1));
    assert_ne!(
        hash("other", &file, &[&eight[..], &["--flows", &other]].concat()),
        first
    );
}

#[test]
fn a_bad_list_of_flows_is_answered_with_its_place_before_anything_runs() {
    let scratch = Scratch::new();
    let file = written(&scratch, "mine.toml", GOOD);
    let out = scratch.join("out");
    let refused = |args: &[&str], parts: &[&str]| {
        let output = run(&[&["run", "--out", &out], args].concat());
        assert_eq!(output.status.code(), Some(2), "{}", stdout(&output));
        for part in parts {
            assert!(stderr(&output).contains(part), "{part}: {}", stderr(&output));
        }
        assert!(!Path::new(&out).exists(), "{args:?}");
    };
    let typo = written(&scratch, "typo.csv", "start_ns,source,destinaton,bytes\n0,1,0,5\n");
    refused(
        &[&file, "--flows", &typo],
        &["typo.csv:1:17", "did you mean destination"],
    );
    let itself = written(&scratch, "itself.csv", "start_ns,source,destination,bytes\n0,1,1,5\n");
    refused(&[&file, "--flows", &itself], &["itself.csv:2:5", "to itself"]);
    let named =
        format!("flows = \"typo.csv\"\n{GOOD}").replace("servers\", values = [1, 8]", "delay_us\", values = [1]");
    let named = written(&scratch, "named.toml", &named);
    refused(&[&named], &["typo.csv:1:17"]);
    let missing = written(
        &scratch,
        "missing.toml",
        &format!("flows = \"none.csv\"\n{GOOD}").replace("vary", "# vary"),
    );
    refused(&[&missing], &["missing.toml:1:9", "none.csv"]);
    refused(
        &["self-test", "--flows", &itself],
        &["--flows is about scenarios", "incast-dctcp-fig18"],
    );
}

/// Text of tshark about a file, if there is a tshark.
fn tshark(args: &[&str]) -> Option<String> {
    let output = Command::new("tshark").args(args).output();
    match output {
        Ok(output) if output.status.success() => Some(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(output) => panic!("tshark {args:?}: {}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => {
            eprintln!("skipped: no tshark ({error}); apt-get install tshark");
            None
        }
    }
}

#[test]
fn traces_and_series_say_what_they_are_and_change_nothing() {
    let scratch = Scratch::new();
    let file = written(&scratch, "mine.toml", GOOD);
    let hash = |name: &str, more: &[&str]| {
        let out = scratch.join(name);
        let args = ["run", &file, "--seed", "7", "--axis", "servers=8", "--out", &out];
        let output = run(&[&args[..], more].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        (rows(&out)[0]["facts"]["event_hash"].clone(), stderr(&output))
    };
    let (plain, _) = hash("plain", &[]);
    let wanted = [
        "--trace",
        "host=0,queue",
        "--snap-bytes",
        "2000",
        "--series",
        "csv",
        "--series-every",
        "100us",
    ];
    let (observed, said) = hash("observed", &wanted);
    assert_eq!(observed, plain);
    assert!(said.contains("Trace: ") && said.contains(" packets\n"), "{said}");

    let read = |name: &str| fs::read_to_string(scratch.join(name)).expect("a series");
    let queue = read("observed/series/mine.servers=8.queue.csv");
    let head: Vec<&str> = queue.lines().take_while(|line| line.starts_with('#')).collect();
    assert!(
        head.iter()
            .any(|line| line.contains("seed 7") && line.contains("sha256 ")),
        "{head:?}"
    );
    assert!(
        queue.contains("\nat_ns,queue_packets,queue_bytes\n0,0,0\n100000,"),
        "{}",
        &queue[..600]
    );
    let flows = read("observed/series/mine.servers=8.flows.csv");
    assert!(
        flows.contains("\nat_ns,flow,window_bytes,in_flight_bytes,srtt_ns,is_slow_start\n0,0,"),
        "{}",
        &flows[..600]
    );

    let trace = scratch.join("observed/traces/mine.servers=8.pcapng");
    let fields = [
        "-r",
        &trace,
        "-o",
        "tcp.check_checksum:TRUE",
        "-o",
        "ip.check_checksum:TRUE",
        "-T",
        "fields",
        "-e",
        "tcp.stream",
        "-e",
        "tcp.checksum.status",
        "-e",
        "ip.checksum.status",
        "-e",
        "_ws.malformed",
    ];
    if let Some(text) = tshark(&fields) {
        assert!(text.lines().count() > 500, "{text}");
        let times = tshark(&["-r", &trace, "-T", "fields", "-e", "frame.time_relative"]).unwrap_or_default();
        let times: Vec<f64> = times.lines().filter_map(|line| line.parse().ok()).collect();
        // Five rounds of 8 × 100 KB over 1 Gbit/s, and what tshark makes of the stamps goes forward.
        assert!(times.is_sorted() && times.last() > Some(&0.03), "{times:?}");
        // A stream, two good checksums, nothing malformed.
        assert!(text.lines().all(|line| line.ends_with("\t1\t1\t")), "{text}");
    }

    let (cut, said) = hash("cut", &["--trace", "queue", "--trace-packets", "10"]);
    assert_eq!(cut, plain);
    assert!(
        said.contains("10 packets, and ") && said.contains("--trace-packets"),
        "{said}"
    );
    let out = scratch.join("refused");
    for (args, part) in [
        (&["--trace", "host=9"][..], "from 0 to 8"),
        (&["--trace", "everywhere"][..], "host=NUMBER"),
        (&["--snap-bytes", "96"][..], "--trace"),
    ] {
        let output = run(&[&["run", &file, "--out", &out][..], args].concat());
        assert!(!output.status.success(), "{args:?}");
        // What is found when the network is built ends the run; the rest is found before.
        let said = stderr(&output) + &stdout(&output);
        assert!(said.contains(part), "{part}: {said}");
        let _ = fs::remove_dir_all(&out);
    }
}

/// The program of these tests is one without quinn, unless somebody builds it otherwise.
#[test]
fn a_build_without_quinn_says_what_would_help_and_decides_nothing() {
    let scratch = Scratch::new();
    let out = scratch.join("out");
    let arm = ["--axis", "arm=quinn-cubic", "--axis", "loss_ratio=0.01"];
    let output = run(&[&["run", "cc-quinn", "--seed", "1", "--out", &out], &arm[..]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    match stderr(&output).contains("--features quinn") {
        true => {
            assert_eq!(rows(&out), Vec::<Value>::new());
            let verdicts = records(&out).into_iter().filter(|record| record["record"] == "verdict");
            assert!(verdicts.clone().count() > 0);
            verdicts.for_each(|verdict| assert_eq!(verdict["outcome"]["is"], "not_measured", "{verdict}"));
        }
        false => assert_eq!(rows(&out).len(), 1),
    }
}
