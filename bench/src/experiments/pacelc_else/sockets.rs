//! The same reads over real sockets: three `dplab serve` in processes of their own on this machine's loopback, and the same
//! caller as in virtual time.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::Ordering,
    time::Duration,
};

use anyhow::{Context, bail};
use dataplane_quorum::client::{ClientOptions, ClientTiming};
use dataplane_waist::{Clock, MemoryLog, MonotonicClock, Node, Port, Wake};

use super::{Arm, DISK, REPLICAS, VALUE_BYTES, axis, follower_of, kind};
use crate::{
    caller::{Caller, Kind, Load},
    cluster::{Cluster, port},
    experiment::Lab,
    host::{self, Seat},
    measure::{
        QUANTILES, Recorder, Watch,
        gates::{self, Limits, Observation},
    },
    record::{Better, Metric, ModeRecord, Row},
};

/// What `dplab serve` and `dplab kv` receive and send with.
pub const BACKEND: &str = "udp-epoll";
/// The way to disk of arms with a disk.
const ENGINE: &str = "dsync";
/// How long a cluster gets to elect its first leader and to answer the first put.
const ELECTION_MAX: Duration = Duration::from_secs(10);
const WARM_UP: Duration = Duration::from_millis(30);
/// After the measured time, the last answer is waited for so long.
const LINGER: Duration = Duration::from_millis(200);

/// Three replicas' processes. Dropping this ends them.
pub struct Cell {
    children: Vec<Child>,
    cluster: Cluster,
    folder: PathBuf,
}

impl Drop for Cell {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Cell {
    /// Starts them.
    pub fn start(lab: &Lab<'_>, log: &str, is_lease: bool) -> anyhow::Result<Cell> {
        let folder = lab.folder.path().join("replicas");
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let sockets: Vec<UdpSocket> = (0..REPLICAS)
            .map(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)))
            .collect::<Result<_, _>>()
            .context("looking for free ports on 127.0.0.1")?;
        let mut text = "cluster = pacelc-else\n".to_owned();
        for (node, socket) in sockets.iter().enumerate() {
            text += &format!(
                "node {node} = {}\n",
                socket.local_addr().context("asking for a socket's address")?
            );
        }
        drop(sockets);
        let file = folder.join("cluster");
        fs::write(&file, &text).with_context(|| format!("writing {}", file.display()))?;
        let mut cell = Cell {
            children: Vec::new(),
            cluster: Cluster::read(&file)?,
            folder,
        };
        for node in 0..REPLICAS {
            let child = cell.spawn(lab, &file, node, log, is_lease);
            cell.children
                .push(child.with_context(|| format!("starting replica {node}"))?);
        }
        Ok(cell)
    }

    fn spawn(&self, lab: &Lab<'_>, file: &Path, node: u32, log: &str, is_lease: bool) -> anyhow::Result<Child> {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new(std::env::current_exe().context("finding this program's own file")?);
        command
            .arg("serve")
            .arg("--cluster")
            .arg(file)
            .args(["--node", &node.to_string()]);
        command.args(["--parent", &std::process::id().to_string()]);
        command.arg("--data").arg(self.folder.join(format!("node-{node}")));
        command.args(["--reads", if is_lease { "lease" } else { "index" }]);
        match log {
            DISK => command.args(["--wal", ENGINE]),
            _ => command.arg("--memory"),
        };
        if let Some(cpu) = lab.place.cpus().first() {
            command.args(["--cpu", &cpu.to_string()]);
        }
        // A group of its own: Ctrl-C at the terminal is ours to handle.
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
        Ok(command.spawn()?)
    }
}

/// Measures one kind of read at a cluster.
pub fn measure(lab: &Lab<'_>, cell: &Cell, arm: &Arm, round: u32, duration: Duration) -> anyhow::Result<Row> {
    let at_s = lab.run_started.elapsed().as_secs_f64();
    let watch = Watch::begin();
    let client = std::thread::scope(|scope| {
        let client = scope.spawn(|| ask(lab, cell, arm, duration));
        client
            .join()
            .unwrap_or_else(|_| Err(anyhow::anyhow!("the client's thread panicked")))
    });
    let mut seen = watch.end();
    let (caller, mut facts, elapsed) = client?;
    if let Some(odd) = &caller.odd {
        bail!("{odd}");
    }
    if caller.done.is_empty() {
        seen.push(Observation::Silence { sent_count: 1 });
    }
    let mut recorder = Recorder::new();
    for done in &caller.done {
        recorder.record(done.latency().as_nanos() as u64);
    }
    (0..caller.lost_count).for_each(|_| recorder.record_lost());
    facts.insert("guarantee".to_owned(), arm.read.promise().to_owned());
    facts.insert(
        "log".to_owned(),
        match arm.log.as_str() {
            DISK => format!("on disk, by {ENGINE}; all replicas' logs are on one disk"),
            _ => "in memory".to_owned(),
        },
    );
    let mut metrics = BTreeMap::new();
    let mut put = |name: &str, value: f64, unit: &str| {
        let (unit, better) = (unit.to_owned(), Better::Neither);
        metrics.insert(name.to_owned(), Metric { value, unit, better });
    };
    put("answered", caller.done.len() as f64, "count");
    put("goodput", caller.done.len() as f64 / elapsed.as_secs_f64(), "1/s");
    put("retries", caller.client().counters().timeouts_count as f64, "count");
    Ok(Row {
        experiment: "pacelc-else".to_owned(),
        backend: BACKEND.to_owned(),
        mode: ModeRecord::Native,
        axis: axis(arm),
        round,
        twin: false,
        seed: lab.choice.seed,
        at_s,
        elapsed_s: elapsed.as_secs_f64(),
        latency: (recorder.total_count() > 0).then(|| recorder.distribution(&QUANTILES)),
        service: None,
        schedule_lag: None,
        metrics,
        series: Vec::new(),
        facts,
        validity: gates::judge(&seen, &Limits::for_wake(Wake::Sleeps)),
    })
}

type Asking = Node<Box<dyn Port>, MemoryLog, Caller>;

/// The client's thread: finds the leader with a put, warms up, and asks for `duration`.
fn ask(
    lab: &Lab<'_>,
    cell: &Cell,
    arm: &Arm,
    duration: Duration,
) -> anyhow::Result<(Caller, BTreeMap<String, String>, Duration)> {
    let seat = Seat {
        cpu: lab.place.cpus().first().copied(),
        spins: false,
        is_shared: true,
    };
    let facts = host::settle("client", seat);
    let opened = port::open_client(&cell.cluster, None)?;
    let mut options = ClientOptions::new(opened.peers, &cell.cluster.limits(), rand::random());
    options.timing = ClientTiming::LOCAL;
    let caller = Caller::new(options, VALUE_BYTES)?;
    let mut node: Asking = Node::new(opened.port, MemoryLog::new(), caller, 4);
    let clock = MonotonicClock::new();

    let first = Load {
        kind: Kind::Put,
        ops_count: 1,
        ..Load::NONE
    };
    run(lab, &mut node, &clock, first, ELECTION_MAX)?;
    if node.protocol().done.is_empty() {
        bail!("no replica answered a put within {ELECTION_MAX:?}; what they said is above");
    }
    let leader = node.protocol().client().leader();
    let load = Load {
        kind: kind(arm.read, leader, follower_of(leader)),
        ops_count: u64::MAX,
        ..Load::NONE
    };
    // A follower hears of the first put's commit with the next heartbeat at the latest.
    run(lab, &mut node, &clock, load, WARM_UP)?;
    let begun = clock.now();
    run(lab, &mut node, &clock, load, duration)?;
    let elapsed = clock.now() - begun;
    let (_, _, caller) = node.into_parts();
    Ok((caller, facts, elapsed))
}

/// Asks until all is answered, or for as long as `duration` and until what is under way then is answered.
fn run(lab: &Lab<'_>, node: &mut Asking, clock: &MonotonicClock, load: Load, duration: Duration) -> anyhow::Result<()> {
    let end = clock.now() + duration;
    node.protocol_mut().begin(clock.now(), load);
    let is_over =
        |node: &Asking, end| node.protocol().is_done() || clock.now() >= end || lab.stop.load(Ordering::Relaxed);
    node.run_watched(clock, &mut |node| is_over(node, end))
        .context("the client's port failed")?;
    node.protocol_mut().stop();
    let end = clock.now() + LINGER;
    node.run_watched(clock, &mut |node| is_over(node, end))
        .context("the client's port failed")
}
