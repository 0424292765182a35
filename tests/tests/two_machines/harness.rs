//! Two hosts, an agent on one of them, runs on the other; each process is killed when it is no longer needed.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{self, Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use dataplane_netns::{Host, Network, NetworkOptions, Privilege, Topology, prepare};
use tests::{Scratch, dplab, stderr};

/// Bounds every wait.
const WAIT_MAX: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_millis(20);

/// Two hosts, a key that both know, and a folder.
pub struct Machines {
    network: Network,
    pub scratch: Scratch,
    program: PathBuf,
}

impl Machines {
    /// `None`, with the reason printed, where hosts cannot be made.
    pub fn make(test: &str) -> Option<Machines> {
        Machines::joined_as(Topology::Pair, test)
    }

    /// The same with a host between them that forwards.
    pub fn behind_a_router(test: &str) -> Option<Machines> {
        Machines::joined_as(Topology::Chain { hosts: 3 }, test)
    }

    fn joined_as(topology: Topology, test: &str) -> Option<Machines> {
        match prepare() {
            Privilege::Root => {}
            other => {
                println!("{test}: not run: needs root, and this is {other:?}");
                return None;
            }
        }
        let network = Network::build(&NetworkOptions::new(topology)).expect("hosts");
        let machines = Machines {
            network,
            scratch: Scratch::new(),
            program: dplab(),
        };
        let made = Command::new(&machines.program)
            .args(["agent", "--new-key", &machines.key()])
            .output()
            .expect("dplab starts");
        assert!(made.status.success(), "{}", stderr(&made));
        Some(machines)
    }

    pub fn key(&self) -> String {
        self.scratch.join("key")
    }

    pub fn here(&self) -> &Host {
        &self.network.hosts()[0]
    }

    pub fn there(&self) -> &Host {
        self.network.hosts().last().expect("two or more")
    }

    /// The host in between.
    pub fn router(&self) -> &Host {
        &self.network.hosts()[1]
    }

    /// Starts `dplab agent` on the other host.
    pub fn agent(&self) -> Agent {
        let log = self.scratch.join("agent.log");
        let own_pid = process::id().to_string();
        let words = self.agent_words();
        let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
        words.extend(["--parent", &own_pid]);
        let mut child = self.start(self.there(), &words, Stdio::from(File::create(&log).expect("writable")));
        let mut line = String::new();
        BufReader::new(child.0.stdout.take().expect("piped"))
            .read_line(&mut line)
            .expect("readable");
        let addr = line
            .strip_prefix("dplab agent: listening on ")
            .and_then(|rest| rest.split(',').next())
            .unwrap_or_else(|| {
                panic!(
                    "the agent said {line:?}, and {}",
                    fs::read_to_string(&log).unwrap_or_default()
                )
            });
        Agent {
            addr: addr.parse().expect("an address"),
            child,
            log,
        }
    }

    fn agent_words(&self) -> Vec<String> {
        let listen = format!("{}:0", self.there().ipv4());
        [
            "agent",
            "--interface",
            "eth0",
            "--listen",
            &listen,
            "--key-file",
            &self.key(),
        ]
        .map(str::to_owned)
        .to_vec()
    }

    /// An agent that a shell has started, in the place of a test's process; the shell, and the agent's number once it listens.
    pub fn agent_of_a_shell(&self) -> (Killed, u32) {
        let mut shell = Command::new("sh");
        shell
            .args(["-c", "\"$@\" --parent $$ & echo $!; wait", "sh"])
            .arg(&self.program)
            .args(self.agent_words());
        let mut shell = spawn(self.there(), &mut shell, Stdio::null());
        // Either can be first.
        let lines = BufReader::new(shell.0.stdout.take().expect("piped")).lines();
        let lines: Vec<String> = lines.map_while(Result::ok).take(2).collect();
        assert!(lines.iter().any(|line| line.contains("listening on")), "{lines:?}");
        let agent = lines.iter().find_map(|line| line.parse().ok());
        (shell, agent.expect("its number"))
    }

    pub fn start(&self, host: &Host, args: &[&str], log: Stdio) -> Killed {
        spawn(host, Command::new(&self.program).args(args), log)
    }

    /// Starts a run on this host.
    pub fn start_run(&self, peer: SocketAddr, out: &str, more: &[&str]) -> Killed {
        let (peer, out, key) = (peer.to_string(), self.scratch.join(out), self.key());
        let mut args = vec!["run", "--interface", "eth0", "--peer", &peer, "--key-file", &key];
        args.extend(["--out", &out, "--seed", "7"]);
        args.extend(more);
        self.start(self.here(), &args, Stdio::piped())
    }

    pub fn run(&self, peer: SocketAddr, out: &str, more: &[&str]) -> Output {
        self.start_run(peer, out, more).output()
    }

    pub fn records(&self, out: &str) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.scratch.join(&format!("{out}/records.jsonl"))).unwrap_or_default();
        // The last line of a run that goes on may be half written.
        text.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// A connection from this host to the agent.
    pub fn connect(&self, to: SocketAddr) -> TcpStream {
        let stream = self.here().run(|| TcpStream::connect(to)).expect("a namespace");
        let stream = stream.expect("the agent listens");
        stream.set_read_timeout(Some(WAIT_MAX)).expect("not zero");
        stream
    }
}

fn spawn(host: &Host, command: &mut Command, log: Stdio) -> Killed {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    Killed(host.run(|| command.spawn()).expect("a namespace").expect("it starts"))
}

/// A process that is killed when it is no longer needed.
pub struct Killed(Child);

impl Killed {
    pub fn output(mut self) -> Output {
        let until = Instant::now() + WAIT_MAX;
        let drain = |from: Option<Box<dyn Read + Send>>| {
            thread::spawn(move || {
                let mut bytes = Vec::new();
                from.map(|mut from| from.read_to_end(&mut bytes));
                bytes
            })
        };
        let stdout = drain(self.0.stdout.take().map(|pipe| Box::new(pipe) as _));
        let stderr = drain(self.0.stderr.take().map(|pipe| Box::new(pipe) as _));
        let status = loop {
            if let Some(status) = self.0.try_wait().expect("ours") {
                break status;
            }
            assert!(Instant::now() < until, "it still runs after {WAIT_MAX:?}");
            thread::sleep(STEP);
        };
        Output {
            status,
            stdout: stdout.join().expect("read"),
            stderr: stderr.join().expect("read"),
        }
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running agent.
pub struct Agent {
    pub addr: SocketAddr,
    child: Killed,
    log: String,
}

impl Agent {
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn wait_for(&self, words: &str) {
        until(&format!("the agent's log has {words:?}"), || self.log().contains(words));
    }

    /// The processes that it has started.
    pub fn children(&self) -> Vec<u32> {
        children_of(self.child.0.id())
    }
}

fn children_of(parent: u32) -> Vec<u32> {
    let own = format!("PPid:\t{parent}");
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            status.lines().any(|line| line == own)
        })
        .collect()
}

/// Also one that has ended and that nobody has waited for has no program any more.
pub fn runs(pid: u32) -> bool {
    fs::exists(format!("/proc/{pid}/exe")).unwrap_or(false)
}

#[track_caller]
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + WAIT_MAX;
    while !is_so() {
        assert!(Instant::now() < end, "not so after {WAIT_MAX:?}: {what}");
        thread::sleep(STEP);
    }
}
