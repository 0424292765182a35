//! A replicated store of real processes on this machine's loopback: what the commands say, and what survives when
//! processes are killed. Every wait has a bound, and no test judges how long something took.
#![forbid(unsafe_code)]

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead, BufReader},
    net::UdpSocket,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use tests::{Scratch, dplab, stderr, stdout};

/// Longer than anything here takes on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);

/// Replicas in a folder, some of which run.
struct Lab {
    scratch: Scratch,
    program: PathBuf,
    running: BTreeMap<u32, Child>,
    more: Vec<String>,
}

impl Lab {
    /// A cluster file of `count` nodes on free ports, of which the first three vote.
    fn new(count: u32, more: &[&str]) -> Lab {
        let scratch = Scratch::new();
        // Held at the same time, so that they differ; then free for the replicas.
        let sockets: Vec<UdpSocket> = (0..count)
            .map(|_| UdpSocket::bind("127.0.0.1:0").expect("a free port"))
            .collect();
        let mut text = format!("cluster = lab-{}\nvoters = 1 2 3\n", std::process::id());
        for (node, socket) in (1..).zip(&sockets) {
            text += &format!("node {node} = {}\n", socket.local_addr().expect("bound"));
        }
        fs::write(scratch.path().join("file.cluster"), text).expect("ours");
        Lab {
            scratch,
            program: dplab(),
            running: BTreeMap::new(),
            more: more.iter().map(|&word| word.to_owned()).collect(),
        }
    }

    fn path(&self, name: &str) -> String {
        self.scratch.path().join(name).display().to_string()
    }

    /// A replica with its folder; it ends when the test's process does, however that ends.
    fn command(&self, node: u32, data: &str) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args([
                "serve",
                "--cluster",
                &self.path("file.cluster"),
                "--node",
                &node.to_string(),
            ])
            .args(["--data", &self.path(data)])
            .args(["--parent", &std::process::id().to_string()])
            .args(&self.more)
            .stdin(Stdio::null());
        command
    }

    fn start(&mut self, node: u32) {
        self.start_as(node, self.command(node, &format!("data-{node}")));
    }

    /// Starts a replica that this lab knows under `node`.
    fn start_as(&mut self, node: u32, mut command: Command) {
        let said = File::options()
            .create(true)
            .append(true)
            .open(self.path(&format!("said-{node}")))
            .expect("ours");
        command.stdout(said.try_clone().expect("a file")).stderr(said);
        let child = command.spawn().expect("dplab starts");
        assert!(self.running.insert(node, child).is_none(), "node {node} runs already");
    }

    /// Starts a replica that is to refuse, and says what it said.
    fn refusal(&self, node: u32) -> String {
        let output = finish(
            self.command(node, &format!("data-{node}"))
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("it starts"),
        );
        assert_eq!(output.status.code(), Some(2), "{}", stdout(&output));
        stderr(&output)
    }

    fn end(&mut self, node: u32, how: Signal) -> std::process::ExitStatus {
        let child = self.running.remove(&node).expect("it runs");
        signal::kill(Pid::from_raw(child.id() as i32), how).expect("it is ours");
        finish(child).status
    }

    fn said(&self, node: u32) -> String {
        fs::read_to_string(self.path(&format!("said-{node}"))).unwrap_or_default()
    }

    fn kv(&self, args: &[&str]) -> Output {
        self.kv_within("30s", args)
    }

    fn kv_within(&self, timeout: &str, args: &[&str]) -> Output {
        let mut command = Command::new(&self.program);
        command
            .args(["kv", "--cluster", &self.path("file.cluster"), "--timeout", timeout])
            .args(args);
        command.output().expect("dplab starts")
    }

    fn get(&self, key: &str) -> Option<String> {
        let output = self.kv(&["get", key]);
        match output.status.code() {
            Some(0) => Some(stdout(&output).trim_end().to_owned()),
            Some(1) => None,
            _ => panic!("get {key}: {}", stderr(&output)),
        }
    }

    fn put(&self, key: &str, value: &str) {
        let output = self.kv(&["put", key, value]);
        assert!(output.status.success(), "put {key}: {}", stderr(&output));
    }

    fn leader(&self) -> u32 {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            let output = self.kv(&["members"]);
            let text = stdout(&output);
            let leads = text.lines().find(|line| line.contains(" leader "));
            if let Some(node) = leads.and_then(|line| line.split_whitespace().next()) {
                return node.parse().expect("a node's number");
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("nobody leads");
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for (node, mut child) in std::mem::take(&mut self.running) {
            let _ = child.kill();
            let _ = child.wait();
            if thread::panicking() {
                eprintln!("node {node} said:\n{}", self.said(node));
            }
        }
    }
}

/// Waits for a process that ends.
fn finish(mut child: Child) -> Output {
    let began = Instant::now();
    while child.try_wait().expect("it is ours").is_none() {
        if began.elapsed() > PATIENCE {
            let _ = child.kill();
            panic!("a process does not end");
        }
        thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().expect("it has ended")
}

/// How many words go under one key, so that its value fits a frame.
const PIECE_WORDS: u64 = 100;

fn piece_of(key: &str, number: u64) -> String {
    format!("{key}{}", number / PIECE_WORDS)
}

#[test]
fn killed_replicas_lose_nothing_that_was_acknowledged() {
    let mut lab = Lab::new(3, &[]);
    for node in 1..=3 {
        lab.start(node);
    }
    lab.put("begun", "yes");

    let stop = AtomicBool::new(false);
    let program = lab.program.clone();
    let file = lab.path("file.cluster");
    // Two writers, each with a list that grows over keys of its own: what is appended twice or lost shows.
    let write = |key: &'static str| {
        let (program, file, stop) = (program.clone(), file.clone(), &stop);
        move || {
            let mut acknowledged = Vec::new();
            let mut unknown = Vec::new();
            let began = Instant::now();
            for number in 0.. {
                if stop.load(Ordering::Relaxed) || began.elapsed() > PATIENCE {
                    break;
                }
                let (word, key) = (format!("{number},"), piece_of(key, number));
                let output = Command::new(&program)
                    .args(["kv", "--cluster", &file, "--timeout", "20s", "append", &key, &word])
                    .output()
                    .expect("dplab starts");
                match output.status.code() {
                    Some(0) => acknowledged.push(number),
                    Some(3) => unknown.push(number),
                    _ => panic!("append {number}: {}", stderr(&output)),
                }
            }
            (acknowledged, unknown)
        }
    };
    let mut kills = Vec::new();
    let written = thread::scope(|scope| {
        let writers = ["a", "b"].map(|key| (key, scope.spawn(write(key))));
        // Pauses of no pattern, and no randomness that a failure could not repeat.
        for (round, pause_ms) in [170u64, 430, 90, 310, 230, 370].into_iter().enumerate() {
            thread::sleep(Duration::from_millis(pause_ms));
            let leader = lab.leader();
            let victim = match round % 2 {
                0 => leader,
                _ => (1..=3).find(|&node| node != leader).expect("three nodes"),
            };
            kills.push((victim, victim == leader));
            lab.end(victim, Signal::SIGKILL);
            thread::sleep(Duration::from_millis(pause_ms / 2));
            lab.start(victim);
            lab.leader();
        }
        stop.store(true, Ordering::Relaxed);
        writers.map(|(key, writer)| (key, writer.join().expect("a writer")))
    });
    assert!(
        kills.iter().any(|&(_, led)| led) && kills.iter().any(|&(_, led)| !led),
        "{kills:?}"
    );

    // All at once, too: what is durable needs nobody's memory.
    for node in 1..=3 {
        lab.end(node, Signal::SIGKILL);
    }
    for node in 1..=3 {
        lab.start(node);
    }
    for (key, (acknowledged, unknown)) in written {
        assert!(!acknowledged.is_empty(), "nothing was written under {key}");
        let numbers = acknowledged.iter().chain(&unknown);
        let pieces_count = numbers.max().map_or(0, |last| last / PIECE_WORDS + 1);
        let pieces = (0..pieces_count).filter_map(|piece| lab.get(&piece_of(key, piece * PIECE_WORDS)));
        let value: String = pieces.collect();
        let there: Vec<u64> = value
            .split_terminator(',')
            .map(|word| word.parse().expect("a number"))
            .collect();
        let unexpected: Vec<u64> = there
            .iter()
            .copied()
            .filter(|number| !acknowledged.contains(number) && !unknown.contains(number))
            .collect();
        let lost: Vec<u64> = acknowledged
            .iter()
            .copied()
            .filter(|number| !there.contains(number))
            .collect();
        assert_eq!((lost, unexpected), (vec![], vec![]), "{key} = {value}");
        assert!(there.is_sorted_by(|a, b| a < b), "twice, or out of order: {value}");
        println!(
            "{key}: {} acknowledged, {} unknown, kills {kills:?}",
            acknowledged.len(),
            unknown.len()
        );
    }
}

#[test]
fn a_store_answers_and_exits_as_the_help_says() {
    let mut lab = Lab::new(3, &["--reads", "lease", "--wal", "file"]);
    for node in 1..=3 {
        lab.start(node);
    }
    let says = |args: &[&str], code: i32, printed: &str| {
        let output = lab.kv(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), printed, "{args:?}");
        stderr(&output)
    };
    says(&["put", "a", "1"], 0, "");
    says(&["get", "a"], 0, "1\n");
    says(&["append", "a", "2"], 0, "");
    says(&["cas", "a", "12", "3"], 0, "");
    says(&["cas", "a", "12", "4"], 1, "3\n");
    says(&["put", "b", "tab\there"], 0, "");
    says(&["range", "a"], 0, "a\t3\nb\ttab\\x09here\n");
    says(&["range", "a", "b"], 0, "a\t3\n");
    says(&["range", "a", "--max", "1"], 0, "a\t3\n");
    says(&["delete", "a"], 0, "");
    assert!(says(&["delete", "a"], 1, "").contains("no such key"));
    assert!(says(&["get", "a"], 1, "").contains("no such key"));
    assert!(says(&["get", ""], 2, "").contains("a key of 0 bytes"));
    let long = "x".repeat(2000);
    assert!(says(&["put", "long", &long], 2, "").contains("store less under one key"));
    assert!(says(&["get", "b", "--stale", "9"], 2, "").contains("node 9"));
    // A replica that follows answers in its own time.
    let began = Instant::now();
    while lab.kv(&["get", "b", "--stale", "2"]).status.code() != Some(0) {
        assert!(began.elapsed() < PATIENCE, "node 2 never heard of it");
    }

    // Asked by a signal it says more; asked to end it ends with 0.
    let leader = lab.leader();
    let pid = Pid::from_raw(lab.running[&leader].id() as i32);
    signal::kill(pid, Signal::SIGUSR1).expect("it is ours");
    let began = Instant::now();
    while !lab.said(leader).contains("requests appended") {
        assert!(began.elapsed() < PATIENCE, "{}", lab.said(leader));
        thread::sleep(Duration::from_millis(10));
    }
    assert!(lab.end(leader, Signal::SIGINT).success());
    let said = lab.said(leader);
    for words in ["guarantees (durable)", "lease of", "leader of term", "ended on request"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let follower = *lab.running.keys().next().expect("two are left");
    assert!(lab.end(follower, Signal::SIGTERM).success());

    // One is left: no quorum.
    let output = lab.kv_within("1s", &["put", "b", "2"]);
    assert_eq!(output.status.code(), Some(3));
    let said = stderr(&output);
    assert!(
        said.contains("nothing was done") && said.contains("no answer"),
        "{said}"
    );
}

#[test]
fn a_memory_replica_runs_once_and_is_replaced() {
    let mut lab = Lab::new(4, &["--memory"]);
    for node in 1..=4 {
        lab.start(node);
    }
    lab.put("a", "1");
    let leader = lab.leader();
    lab.end(leader, Signal::SIGKILL);
    assert!(lab.said(leader).contains("NOT on disk"));
    let refused = lab.refusal(leader);
    assert!(
        refused.contains("could vote twice") && refused.contains("add-node"),
        "{refused}"
    );
    assert_eq!(lab.get("a").as_deref(), Some("1"));
    // Another one takes its place.
    let added = lab.kv(&["add-node", "4"]);
    assert!(added.status.success(), "{}", stderr(&added));
    let began = Instant::now();
    loop {
        let removed = lab.kv(&["remove-node", &leader.to_string()]);
        if removed.status.success() {
            break;
        }
        assert!(
            stderr(&removed).contains("change_under_way") && began.elapsed() < PATIENCE,
            "{}",
            stderr(&removed)
        );
    }
    lab.put("a", "2");
    let members = stdout(&lab.kv(&["members"]));
    assert!(
        members.contains("memory") && members.contains("no answer") && members.contains("of 3"),
        "{members}"
    );
    assert_eq!(lab.get("a").as_deref(), Some("2"));
    // Nobody may be added who does not run.
    let absent = lab.kv(&["add-node", &leader.to_string()]);
    assert_eq!(absent.status.code(), Some(2));
    assert!(stderr(&absent).contains("does not answer"));
}

#[test]
fn what_cannot_be_is_refused_with_what_to_try() {
    let mut lab = Lab::new(3, &[]);
    lab.start(1);
    let began = Instant::now();
    while !lab.said(1).contains("follower of nobody") {
        assert!(began.elapsed() < PATIENCE, "{}", lab.said(1));
        thread::sleep(Duration::from_millis(10));
    }
    let again = lab.refusal(1);
    assert!(again.contains("cannot listen") && again.contains("in use"), "{again}");
    assert!(lab.refusal(9).contains("has no node 9; its nodes are 1 2 3"));

    let file = fs::read_to_string(lab.path("file.cluster")).expect("ours");
    let (program, other_file) = (lab.program.clone(), lab.path("other.cluster"));
    let refusal_with = |text: &str, node: u32, more: &[&str]| {
        fs::write(&other_file, text).expect("ours");
        let output = Command::new(&program)
            .args(["serve", "--cluster", &other_file, "--node", &node.to_string()])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let output = finish(output);
        assert_eq!(output.status.code(), Some(2), "{}", stdout(&output));
        stderr(&output)
    };
    // A file that is wrong, by its line.
    assert!(refusal_with("cluster = x\nnode 1 = here:1\n", 1, &[]).contains("line 2"));
    let twice = refusal_with(&format!("{file}node 1 = 127.0.0.1:9\n"), 1, &[]);
    assert!(twice.contains("node 1 is named twice"), "{twice}");
    // In use, and a folder of another node.
    let data_1 = lab.path("data-1");
    let in_use = refusal_with(&file, 2, &["--data", &data_1]);
    assert!(in_use.contains("in use by another process"), "{in_use}");
    // Outside, without a key, or with one that others can read.
    let outside = "cluster = x\nnode 1 = 192.0.2.1:7101\n";
    let no_key = refusal_with(outside, 1, &[]);
    assert!(
        no_key.contains("--key-file") && no_key.contains("--new-key"),
        "{no_key}"
    );
    let listens_outside = refusal_with(&file, 2, &["--listen", "0.0.0.0:0"]);
    assert!(listens_outside.contains("with its port"), "{listens_outside}");
    let listens_outside = refusal_with(&file, 2, &["--listen", "0.0.0.0:9"]);
    assert!(listens_outside.contains("--key-file"), "{listens_outside}");
    fs::write(lab.path("key"), "0123456789abcdef0123456789abcdef").expect("ours");
    let open_key = refusal_with(outside, 1, &["--key-file", &lab.path("key")]);
    assert!(open_key.contains("chmod 600"), "{open_key}");
    assert!(refusal_with(&file, 2, &["--memory", "--wal", "file"]).contains("cannot be used with"));
    assert!(refusal_with(&file, 2, &["--wal", "tape"]).contains("dsync"));

    // Its folder under another file.
    assert!(lab.end(1, Signal::SIGTERM).success());
    let other = refusal_with(&file.replace("lab-", "labor-"), 1, &["--data", &data_1]);
    assert!(
        other.contains("there `cluster = lab-") && other.contains("here `cluster = labor-"),
        "{other}"
    );
    let other = refusal_with(&file, 1, &["--data", &data_1, "--memory"]);
    assert!(other.contains("there `keeps = durable`"), "{other}");
    let other = refusal_with(&file, 2, &["--data", &data_1]);
    assert!(other.contains("there `node = 1`"), "{other}");
    // A newer one's.
    let text = fs::read_to_string(format!("{data_1}/REPLICA")).expect("it was written");
    fs::write(format!("{data_1}/REPLICA"), text.replace("replica 1", "replica 7")).expect("ours");
    assert!(lab.refusal(1).contains("version 7"));
}

#[test]
fn with_a_key_nobody_else_is_heard() {
    let mut lab = Lab::new(3, &[]);
    let keys = ["key", "other-key"].map(|name| lab.path(name));
    for key in &keys {
        assert!(tests::run(&["agent", "--new-key", key]).status.success());
    }
    lab.more = vec!["--key-file".to_owned(), keys[0].clone()];
    for node in 1..=3 {
        lab.start(node);
    }
    let with_key = |args: &[&str]| lab.kv(&[&["--key-file", &keys[0]], args].concat());
    assert!(with_key(&["put", "a", "1"]).status.success());
    assert_eq!(stdout(&with_key(&["get", "a"])), "1\n");
    for stranger in [&[][..], &["--key-file", &keys[1]]] {
        let output = lab.kv_within("500ms", &[stranger, &["get", "a"]].concat());
        assert_eq!(output.status.code(), Some(3), "{stranger:?}");
        assert!(
            stderr(&output).contains("no answer; does it run, and with this key"),
            "{}",
            stderr(&output)
        );
        assert!(stdout(&output).is_empty());
    }
}

#[test]
fn a_client_of_another_cluster_is_told_before_it_writes() {
    let mut lab = Lab::new(3, &[]);
    for node in 1..=3 {
        lab.start(node);
    }
    lab.put("a", "1");
    let file = fs::read_to_string(lab.path("file.cluster")).expect("ours");
    for other in [file.replace("lab-", "labor-"), format!("{file}elect = 3\n")] {
        fs::write(lab.path("other.cluster"), other).expect("ours");
        let output = Command::new(&lab.program)
            .args(["kv", "--cluster", &lab.path("other.cluster"), "put", "a", "2"])
            .output()
            .expect("dplab starts");
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains("belongs to cluster"), "{}", stderr(&output));
    }
    assert_eq!(lab.get("a").as_deref(), Some("1"));
}

/// Every other test here relies on it: one that is killed leaves no replica behind.
#[test]
fn a_replica_ends_with_whoever_started_it() {
    let lab = Lab::new(3, &[]);
    // A shell in the place of a test's process.
    let mut shell = Command::new("sh");
    shell.args(["-c", "\"$@\" --parent $$ & echo $!; wait", "sh"]);
    shell
        .arg(&lab.program)
        .args(["serve", "--cluster", &lab.path("file.cluster")]);
    shell.args(["--node", "1", "--data", &lab.path("data-1")]);
    let mut shell = shell
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a shell");
    let lines = BufReader::new(shell.stdout.take().expect("it is piped")).lines();
    let mut lines = lines.map_while(Result::ok);
    let replica: i32 = lines.next().and_then(|line| line.parse().ok()).expect("its number");
    // It runs, and will not end by itself.
    assert!(lines.any(|line| line.contains("follower of nobody")));
    let runs = || fs::read(format!("/proc/{replica}/cmdline")).is_ok_and(|words| !words.is_empty());
    assert!(runs());
    shell.kill().expect("it is ours");
    shell.wait().expect("it has ended");
    let began = Instant::now();
    while runs() {
        assert!(began.elapsed() < PATIENCE, "replica {replica} runs on");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The second node 3 has a folder of its own and listens elsewhere, so nothing in it fails: only the others can tell.
#[test]
fn a_second_replica_with_a_number_that_runs_is_not_heard_and_the_others_say_so() {
    for is_sealed in [false, true] {
        let mut lab = Lab::new(3, &[]);
        if is_sealed {
            let key = lab.path("key");
            assert!(tests::run(&["agent", "--new-key", &key]).status.success());
            lab.more = vec!["--key-file".to_owned(), key];
        }
        for node in 1..=3 {
            lab.start(node);
        }
        let key_words = lab.more.clone();
        let with_key: Vec<&str> = key_words.iter().map(String::as_str).collect();
        let put = |lab: &Lab, value: &str| {
            let output = lab.kv(&[&with_key[..], &["put", "a", value]].concat());
            assert!(output.status.success(), "{}", stderr(&output));
        };
        put(&lab, "1");

        let free = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let elsewhere = free.local_addr().expect("bound").to_string();
        drop(free);
        let mut second = lab.command(3, "data-second");
        second.args(["--listen", &elsewhere]);
        lab.start_as(9, second);
        for node in 1..=2 {
            let began = Instant::now();
            while !lab.said(node).contains("a second replica with the same --node") {
                assert!(began.elapsed() < PATIENCE, "{}", lab.said(node));
                thread::sleep(Duration::from_millis(10));
            }
            let names_it = format!("are node 3's by what they say, and came from another address (last {elsewhere})");
            assert!(lab.said(node).contains(&names_it), "{}", lab.said(node));
        }
        put(&lab, "2");
        assert!(lab.end(9, Signal::SIGTERM).success(), "{}", lab.said(9));
        let got = lab.kv(&[&with_key[..], &["get", "a"]].concat());
        assert_eq!(stdout(&got), "2\n");
    }
}

/// Noise of every length, more bytes than any frame has, and nothing at all.
fn nonsense(number: u64) -> Vec<u8> {
    match number % 4 {
        0 => vec![0x5a; 60_000],
        1 => Vec::new(),
        _ => (0..(number * 37) % 1400)
            .map(|index| (number * 131 + index * 7) as u8)
            .collect(),
    }
}

#[test]
fn a_flood_from_a_stranger_is_counted_and_delays_nothing_for_good() {
    let mut lab = Lab::new(3, &[]);
    for node in 1..=3 {
        lab.start(node);
    }
    lab.put("a", "0");
    let file = fs::read_to_string(lab.path("file.cluster")).expect("ours");
    let addresses = file
        .lines()
        .filter_map(|line| line.strip_prefix("node ")?.split_once("= "));
    let addresses: Vec<String> = addresses.map(|(_, address)| address.to_owned()).collect();
    assert_eq!(addresses.len(), 3);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
            let numbers = (0..).take_while(|_| !stop.load(Ordering::Relaxed));
            for number in numbers {
                for address in &addresses {
                    // A full buffer is a frame less.
                    let _ = socket.send_to(&nonsense(number), address);
                }
                // Some thousands a second: a flood that fills the receive buffers drops sound frames in the kernel.
                thread::sleep(Duration::from_micros(200));
            }
        });
        for number in 1..20 {
            lab.put("a", &number.to_string());
            assert_eq!(lab.get("a"), Some(number.to_string()));
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(lab.get("a").as_deref(), Some("19"));
    for node in 1..=3 {
        let began = Instant::now();
        while !lab
            .said(node)
            .contains("malformed or not signed with this cluster's key")
        {
            assert!(began.elapsed() < PATIENCE, "{}", lab.said(node));
            thread::sleep(Duration::from_millis(10));
        }
        assert!(lab.end(node, Signal::SIGTERM).success(), "{}", lab.said(node));
    }
}
