//! The other end: an echo node, or a sink that only counts, in a process of its own (so that it can be stopped, killed
//! and charged for its CPU time), or in a thread where the back end has no second process.
//!
//! The process is this same program under a hidden name. It reads its wiring from its first argument, opens its port,
//! drops every privilege, says "ready" on stdout, and turns until its stdin closes. It dies with its parent
//! (PR_SET_PDEATHSIG), also when the parent is killed, also while it is stopped. On another machine the parent is an agent,
//! and this end asks it.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader, Read, Write},
    net::SocketAddr,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, bail};
use caps::{CapSet, Capability, CapsHashSet};
use dataplane_echo::EchoServer;
use dataplane_waist::{
    Clock, Effects, Input, Instant, MemoryLog, MonotonicClock, Node, NodeStats, Peer, Port, PortCaps, PortStats,
    Protocol, RxFrame, TxError,
};
use dataplane_wire::Reject;
use ebpf_host::{Count, Mode, Program};
use nix::{
    sys::{
        prctl,
        signal::{self, Signal},
    },
    unistd::Pid,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    agent::{Agent, protocol::Start},
    backends::{self, Kind, Opened, Wiring, xdp},
    host::{self, RunTime, Seat},
    measure::Recorder,
    record::QuantileValue,
    sink::{self, Expected, SinkReport},
};

/// The hidden subcommand.
pub const SUBCOMMAND: &str = "serve";

/// What the server's process is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServerConfig {
    /// Who starts it; it ends when that process does.
    pub parent_pid: u32,
    /// Name in [`backends::BACKENDS`].
    pub backend: String,
    /// How to open the port.
    pub wiring: Wiring,
    /// Where it is to run.
    pub seat: Seat,
    /// What it does with what it receives.
    pub role: Role,
}

/// What the server does with what it receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Sends it back.
    Echo {
        /// Time burnt for each request before it is answered.
        service_spin: Duration,
        /// Time each turn ([`ServerReport::service_ns`]); costs two clock reads a turn.
        times_turns: bool,
    },
    /// Counts it.
    Sink {
        /// The stream whose frames count.
        stream_id: u32,
    },
}

impl Role {
    /// What facts of a row call this end.
    fn end_name(self) -> &'static str {
        match self {
            Role::Echo { .. } => "server",
            Role::Sink { .. } => "sink",
        }
    }
}

/// The first line on the server's stdout.
#[derive(Debug, Serialize, Deserialize)]
struct Ready {
    /// The UDP address it really has, where it has one.
    addr: Option<SocketAddr>,
    /// How it runs: pinned where, which scheduler.
    facts: BTreeMap<String, String>,
}

/// The last line on the server's stdout.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerReport {
    /// Frames received and answered.
    pub rx_frames_count: u64,
    /// Frames that the receive side lost and told us of.
    pub rx_dropped_count: u64,
    /// Replies that could not be sent.
    pub tx_dropped_count: u64,
    /// Frames not understood, by reason; only reasons that occurred.
    pub rejects: BTreeMap<String, u64>,
    /// What one request takes when others wait behind it, by the server's own clock; if it was asked for.
    pub service_ns: Option<u64>,
    /// What a sink has counted.
    pub sink: Option<SinkReport>,
}

impl From<NodeStats> for ServerReport {
    fn from(stats: NodeStats) -> ServerReport {
        let rejects = Reject::ALL
            .iter()
            .map(|reason| (reason.name().to_owned(), stats.rejects[reason.index()]))
            .filter(|(_, count)| *count > 0)
            .collect();
        ServerReport {
            rx_frames_count: stats.port.rx_frames_count,
            rx_dropped_count: stats.port.rx_dropped_count,
            tx_dropped_count: stats.port.tx_dropped_count + stats.refused_count,
            rejects,
            service_ns: None,
            sink: None,
        }
    }
}

/// A running server, whichever way it runs. Dropping it ends it.
#[derive(Debug)]
pub enum Server {
    /// A child process.
    Process {
        /// The child; `None` once it was waited for.
        child: Child,
        /// Open as long as the server is to run.
        stdin: Option<ChildStdin>,
        /// Its report comes from here.
        stdout: BufReader<ChildStdout>,
        /// The address it has.
        addr: Option<SocketAddr>,
        /// How it runs.
        facts: BTreeMap<String, String>,
    },
    /// A thread of this process.
    Thread {
        /// Its thread; `None` once it was joined.
        handle: Option<JoinHandle<anyhow::Result<ServerReport>>>,
        /// Tells it to end.
        stop: Arc<AtomicBool>,
        /// Tells it to rest: what SIGSTOP does to a process.
        pause: Arc<AtomicBool>,
        /// Tells a sink how many frames there are.
        expected: Arc<Expected>,
        /// Its thread id.
        tid: i32,
        /// How it runs.
        facts: BTreeMap<String, String>,
    },
    /// A child process of an agent on another machine.
    Remote {
        /// Who runs it; `None` once it was finished.
        agent: Option<Arc<Agent>>,
        /// The address it has.
        addr: SocketAddr,
        /// How it runs.
        facts: BTreeMap<String, String>,
    },
}

impl Server {
    /// Starts a process. Call it inside the server's namespace, from a thread that outlives the server.
    ///
    /// # Errors
    /// When it could not be started or did not become ready; with what it printed.
    pub fn spawn(config: &ServerConfig) -> anyhow::Result<Server> {
        Server::spawn_as(SUBCOMMAND, config).with_context(|| format!("starting a server over {}", config.backend))
    }

    /// As [`Server::spawn`], for any hidden subcommand that prints the same lines.
    ///
    /// # Errors
    /// As [`Server::spawn`].
    pub fn spawn_as(subcommand: &str, config: &impl Serialize) -> anyhow::Result<Server> {
        use std::os::unix::process::CommandExt;
        let program = std::env::current_exe().context("finding this program's own file")?;
        let mut child = Command::new(program)
            .arg(subcommand)
            .arg(serde_json::to_string(config)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            // A group of its own: Ctrl-C at the terminal is the parent's to handle.
            .process_group(0)
            .spawn()
            .context("starting the server's process")?;
        let stdin = child.stdin.take();
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut line = String::new();
        let read = within(child.id(), || (&mut stdout).take(REPORT_BYTES_MAX).read_line(&mut line));
        let ready: Ready = match read
            .map_err(anyhow::Error::from)
            .and_then(|_| Ok(serde_json::from_str(&line)?))
        {
            Ok(ready) => ready,
            Err(_) => {
                // Its own words are on stderr already.
                let _ = child.kill();
                let status = child.wait().context("waiting for the server's process")?;
                bail!("its process did not become ready ({status})");
            }
        };
        Ok(Server::Process {
            child,
            stdin,
            stdout,
            addr: ready.addr,
            facts: ready.facts,
        })
    }

    /// Starts a thread around `port`.
    ///
    /// # Errors
    /// When the system has no room for a thread.
    pub fn start_thread(port: Box<dyn Port>, config: &ServerConfig) -> anyhow::Result<Server> {
        let stop = Arc::new(AtomicBool::new(false));
        let pause = Arc::new(AtomicBool::new(false));
        let expected = Arc::new(Expected::default());
        let (tell, told) = mpsc::channel();
        let (thread_stop, thread_pause, config) = (stop.clone(), pause.clone(), config.clone());
        let thread_expected = expected.clone();
        let handle = thread::Builder::new()
            .name("dplab-server".to_owned())
            .spawn(move || -> anyhow::Result<ServerReport> {
                let facts = host::settle(config.role.end_name(), config.seat);
                let _ = tell.send((nix::unistd::gettid().as_raw(), facts));
                let signals = Signals {
                    stop: &thread_stop,
                    pause: &thread_pause,
                    expected: &thread_expected,
                };
                serve(port, config.role, host::thread_cpu_ns, signals)
            })
            .context("starting the server's thread")?;
        let (tid, facts) = told.recv().context("the server's thread ended at once")?;
        Ok(Server::Thread {
            handle: Some(handle),
            stop,
            pause,
            expected,
            tid,
            facts,
        })
    }

    /// Has an agent start one.
    ///
    /// # Errors
    /// It refused, or cannot be reached any more.
    pub fn start_remote(agent: &Arc<Agent>, start: Start) -> anyhow::Result<Server> {
        let (addr, facts) = agent.start(start)?;
        Ok(Server::Remote {
            agent: Some(agent.clone()),
            addr,
            facts,
        })
    }

    /// The UDP address it has, where it has one.
    pub fn addr(&self) -> Option<SocketAddr> {
        match self {
            Server::Process { addr, .. } => *addr,
            Server::Thread { .. } => None,
            Server::Remote { addr, .. } => Some(*addr),
        }
    }

    /// Does it run on another machine?
    pub fn is_remote(&self) -> bool {
        matches!(self, Server::Remote { .. })
    }

    /// How it runs.
    pub fn facts(&self) -> &BTreeMap<String, String> {
        match self {
            Server::Process { facts, .. } | Server::Thread { facts, .. } | Server::Remote { facts, .. } => facts,
        }
    }

    /// What it has used of its CPU so far, all its threads and its io_uring workers together.
    pub fn run_time(&self) -> Option<RunTime> {
        match self {
            Server::Process { child, .. } => host::process_run_time(child.id()),
            Server::Thread { tid, .. } => host::thread_run_time(*tid),
            // By the other machine's clock alone: only differences are used, and they are durations. Whatever broke the
            // connection, `finish` will say.
            Server::Remote { agent, .. } => agent.as_ref()?.run_time().ok()?,
        }
    }

    /// Stops it in its tracks, or lets it go on: SIGSTOP and SIGCONT for a process; a thread rests by itself; an agent is
    /// asked, which takes a round trip.
    ///
    /// # Errors
    /// When the process, or the agent, is gone.
    pub fn pause(&self, paused: bool) -> anyhow::Result<()> {
        match self {
            Server::Process { child, .. } => {
                let signal = if paused { Signal::SIGSTOP } else { Signal::SIGCONT };
                signal::kill(Pid::from_raw(child.id() as i32), signal).with_context(|| format!("sending {signal}"))
            }
            Server::Thread { pause, .. } => {
                pause.store(paused, Ordering::Release);
                Ok(())
            }
            Server::Remote { agent, .. } => agent.as_ref().context("the server is finished")?.pause(paused),
        }
    }

    /// Tells a sink how many frames have been sent, so that it waits for them when it is ended.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn expect(&mut self, frames_count: u64) -> anyhow::Result<()> {
        match self {
            Server::Process { stdin: Some(stdin), .. } => {
                writeln!(stdin, "{frames_count}").context("telling the sink what was sent")
            }
            Server::Process { stdin: None, .. } => Ok(()),
            Server::Thread { expected, .. } => {
                expected.set(frames_count);
                Ok(())
            }
            Server::Remote { .. } => bail!("an agent runs no sinks"),
        }
    }

    /// Ends it and takes its report.
    ///
    /// # Errors
    /// When it had died before, or its port had failed.
    pub fn finish(mut self) -> anyhow::Result<ServerReport> {
        match &mut self {
            Server::Process { .. } => self.finish_as(),
            Server::Thread { handle, stop, .. } => {
                stop.store(true, Ordering::Release);
                let handle = handle.take().expect("finish is called once");
                handle.join().unwrap_or_else(|_| bail!("the server's thread panicked"))
            }
            Server::Remote { agent, .. } => agent.take().expect("finish is called once").finish(),
        }
    }
}

impl Server {
    /// Ends a process and takes the report that its subcommand prints.
    ///
    /// # Errors
    /// As [`Server::finish`].
    ///
    /// # Panics
    /// For a thread, and for a server of an agent: they have no subcommand.
    pub fn finish_as<Report: DeserializeOwned>(mut self) -> anyhow::Result<Report> {
        let Server::Process {
            child, stdin, stdout, ..
        } = &mut self
        else {
            panic!("only a process prints a report of its own kind")
        };
        drop(stdin.take());
        let mut line = String::new();
        within(child.id(), || stdout.take(REPORT_BYTES_MAX).read_to_string(&mut line))
            .context("reading the server's report")?;
        let status = child.wait().context("waiting for the server's process")?;
        serde_json::from_str(&line).with_context(|| format!("the server ended early ({status})"))
    }
}

/// The longest line that is read from a server.
const REPORT_BYTES_MAX: u64 = 64 * 1024;

/// A server's process opens its port, or ends, within milliseconds; one that takes longer than this never will.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Does `work`, which waits for a child that nobody has waited for yet, and kills the child when it takes too long.
fn within<T>(child_pid: u32, work: impl FnOnce() -> T) -> T {
    let (done, is_done) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let watch = move || {
            if is_done.recv_timeout(ANSWER_MAX) == Err(mpsc::RecvTimeoutError::Timeout) {
                let _ = signal::kill(Pid::from_raw(child_pid as i32), Signal::SIGKILL);
            }
        };
        // Where the system has no room for a thread, the wait has no bound.
        let _ = thread::Builder::new()
            .name("dplab-watch".to_owned())
            .spawn_scoped(scope, watch);
        let value = work();
        drop(done);
        value
    })
}

impl Drop for Server {
    fn drop(&mut self) {
        match self {
            Server::Process { child, .. } => {
                let _ = child.kill();
                let _ = child.wait();
            }
            Server::Thread { handle, stop, .. } => {
                stop.store(true, Ordering::Release);
                if let Some(handle) = handle.take() {
                    let _ = handle.join();
                }
            }
            Server::Remote { agent, .. } => {
                if let Some(agent) = agent.take() {
                    let _ = agent.finish();
                }
            }
        }
    }
}

/// The server's process: everything behind [`SUBCOMMAND`].
///
/// # Errors
/// A configuration that cannot be read, a port that cannot be opened or that fails.
pub fn main(config: &str) -> anyhow::Result<()> {
    let config: ServerConfig = serde_json::from_str(config).context("reading the server's configuration")?;
    die_with(config.parent_pid)?;
    let backend =
        backends::sink_by_name(&config.backend).with_context(|| format!("no back end {:?}", config.backend))?;
    if let Kind::XdpEcho(mode, _) = backend.kind {
        return serve_in_driver(&config, mode);
    }
    if let Kind::XdpDrop(mode, _) = backend.kind {
        return sink_in_driver(&config, mode);
    }
    let Opened {
        port,
        addr,
        closer,
        keeps: _program,
    } = backend.open(&config.wiring)?;
    settle_and_say_ready(config.role.end_name(), addr, config.seat)?;
    // A sink still takes in what is on its way.
    let may_close = matches!(config.role, Role::Echo { .. });
    let expected = Arc::new(Expected::default());
    let to_tell = expected.clone();
    let hear = move |words: &str| to_tell.hear(words);
    let stop = stop_at_eof(hear, move || {
        if let Some(closer) = closer.filter(|_| may_close) {
            closer.close();
        }
    });
    host::own_files();
    let signals = Signals {
        stop: &stop,
        pause: &AtomicBool::new(false),
        expected: &expected,
    };
    let report = serve(port, config.role, host::process_cpu_ns, signals)?;
    say(&report)
}

/// The server is a program in the kernel: this process only holds it, and reads its counters in the end. It cannot be
/// stopped (a stall does nothing to it), burns no time per request, and drops nothing that it could tell of.
fn serve_in_driver(config: &ServerConfig, mode: Mode) -> anyhow::Result<()> {
    let attachment = xdp::attach(Program::Echo, &config.wiring, mode)?;
    let mut facts = BTreeMap::from([("server_program".to_owned(), format!("{}, {mode}", Program::Echo.name()))]);
    // Before Linux 6.0 a map may be read with this capability only (kernel/bpf/syscall.c, `__sys_bpf`).
    let kept = CapsHashSet::from([Capability::CAP_BPF]);
    facts.insert("privileges".to_owned(), keep_privileges(&kept));
    say(&Ready {
        addr: Some(config.wiring.local.addr),
        facts,
    })?;
    io::stdin()
        .read_to_end(&mut Vec::new())
        .context("waiting to be ended")?;
    let counts = attachment.counts().context("reading what the program counted")?;
    let rejects = counts
        .non_zero()
        .filter(|(count, _)| *count != Count::Taken)
        .map(|(count, frames_count)| (count.name().to_owned(), frames_count))
        .collect();
    say(&ServerReport {
        rx_frames_count: counts.get(Count::Taken),
        rejects,
        ..ServerReport::default()
    })
}

/// The sink is a program in the kernel: this process only holds it, and reads its counters until they stand still. The
/// program's work is done on the CPU of whoever brings the frames there; this process has none.
fn sink_in_driver(config: &ServerConfig, mode: Mode) -> anyhow::Result<()> {
    let attachment = xdp::attach(Program::CountDrop, &config.wiring, mode)?;
    let mut facts = BTreeMap::from([(
        "sink_program".to_owned(),
        format!("{}, {mode}", Program::CountDrop.name()),
    )]);
    let kept = CapsHashSet::from([Capability::CAP_BPF]);
    facts.insert("privileges".to_owned(), keep_privileges(&kept));
    say(&Ready {
        addr: Some(config.wiring.local.addr),
        facts,
    })?;
    let expected = Expected::default();
    expected.hear(&words_until_eof().context("waiting to be ended")?);
    let taken_count = || -> anyhow::Result<u64> {
        let counts = attachment.counts().context("reading what the program counted")?;
        Ok(counts.get(Count::Taken))
    };
    let report = sink::drain(&MonotonicClock::new(), &expected, taken_count)?;
    say(&ServerReport {
        rx_frames_count: report.received_count,
        sink: Some(report),
        ..ServerReport::default()
    })
}

/// One line for the parent.
///
/// # Errors
/// Nobody reads stdout.
pub fn say(line: &impl Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(line)?);
    io::stdout().flush().context("telling the parent")
}

/// Ends this process when its parent does, however that ends.
///
/// # Errors
/// The parent is gone already.
pub fn die_with(parent_pid: u32) -> anyhow::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL).context("asking to die with the parent")?;
    if nix::unistd::getppid().as_raw() as u32 != parent_pid {
        bail!("the parent is gone already");
    }
    Ok(())
}

/// Takes a server's seat, drops every privilege, and says on stdout that it is ready at `addr`.
///
/// # Errors
/// Nobody reads stdout.
pub fn settle_and_say_ready(end_name: &str, addr: Option<SocketAddr>, seat: Seat) -> anyhow::Result<()> {
    let mut facts = host::settle(end_name, seat);
    facts.insert("privileges".to_owned(), drop_privileges());
    say(&Ready { addr, facts })
}

/// What is set when stdin closes: the parent wants a server to end. `hear` is called before that with the parent's last
/// words, `then` after it.
pub fn stop_at_eof(hear: impl FnOnce(&str) + Send + 'static, then: impl FnOnce() + Send + 'static) -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let on_eof = stop.clone();
    thread::spawn(move || {
        hear(&words_until_eof().unwrap_or_default());
        on_eof.store(true, Ordering::Release);
        then();
    });
    stop
}

/// Waits until the parent closes our stdin; what it wrote there before.
fn words_until_eof() -> io::Result<String> {
    let mut words = String::new();
    io::stdin().take(REPORT_BYTES_MAX).read_to_string(&mut words)?;
    Ok(words)
}

/// Gives up every capability: from here on only frames are handled, and nobody's frame needs them.
fn drop_privileges() -> String {
    keep_privileges(&CapsHashSet::new())
}

/// Gives up every capability but `kept`.
fn keep_privileges(kept: &CapsHashSet) -> String {
    let none = CapsHashSet::new();
    // What is permitted bounds what is effective, so it goes last.
    for (set, kept) in [
        (CapSet::Inheritable, &none),
        (CapSet::Effective, kept),
        (CapSet::Permitted, kept),
    ] {
        if let Err(error) = caps::set(None, set, kept) {
            return format!("kept: {error}");
        }
    }
    match prctl::set_no_new_privs() {
        Ok(()) if kept.is_empty() => "dropped".to_owned(),
        Ok(()) => format!("dropped, but for {kept:?}"),
        Err(error) => format!("dropped, but new ones could be gained: {error}"),
    }
}

/// What a serving thread is told while it runs.
#[derive(Clone, Copy)]
struct Signals<'a> {
    stop: &'a AtomicBool,
    pause: &'a AtomicBool,
    expected: &'a Expected,
}

fn serve(port: Box<dyn Port>, role: Role, cpu_ns: fn() -> u64, signals: Signals<'_>) -> anyhow::Result<ServerReport> {
    let Signals { stop, pause, expected } = signals;
    let clock = MonotonicClock::new();
    let mut stop = || {
        while pause.load(Ordering::Acquire) && !stop.load(Ordering::Acquire) {
            thread::sleep(PAUSE_STEP);
        }
        stop.load(Ordering::Acquire)
    };
    match role {
        Role::Echo {
            service_spin,
            times_turns,
        } => echo(port, clock, service_spin, times_turns, &mut stop),
        Role::Sink { stream_id } => {
            let report =
                sink::run(port, stream_id, &clock, cpu_ns, expected, &mut stop).context("the sink's port failed")?;
            Ok(ServerReport {
                rx_frames_count: report.received_count,
                rx_dropped_count: report.rx_dropped_count,
                sink: Some(report),
                ..ServerReport::default()
            })
        }
    }
}

fn echo(
    port: Box<dyn Port>,
    clock: MonotonicClock,
    service_spin: Duration,
    times_turns: bool,
    stop: &mut dyn FnMut() -> bool,
) -> anyhow::Result<ServerReport> {
    let protocol = Working {
        inner: EchoServer,
        clock,
        work: service_spin,
    };
    if !times_turns {
        let mut node = Node::new(port, MemoryLog::new(), protocol, 1);
        node.run(&clock, stop).context("the server's port failed")?;
        return Ok(node.stats().into());
    }
    let mut node = Node::new(Gaps::new(port, clock), MemoryLog::new(), protocol, 1);
    node.run(&clock, stop).context("the server's port failed")?;
    let report = ServerReport::from(node.stats());
    let (gaps, ..) = node.into_parts();
    Ok(ServerReport {
        service_ns: gaps.service_ns(),
        ..report
    })
}

/// Times the gaps between one batch of replies and the next. While requests wait, one follows the other at once, so the
/// shortest gaps are what a request takes.
struct Gaps {
    port: Box<dyn Port>,
    clock: MonotonicClock,
    per_frame: Recorder,
    frames_count: usize,
    last: Option<Instant>,
}

impl Gaps {
    fn new(port: Box<dyn Port>, clock: MonotonicClock) -> Gaps {
        Gaps {
            port,
            clock,
            per_frame: Recorder::new(),
            frames_count: 0,
            last: None,
        }
    }

    /// One frame in twenty came after a gap this short or shorter: a server that was stopped for a fifth of the time finds at least
    /// that many requests waiting.
    fn service_ns(&self) -> Option<u64> {
        match self.per_frame.quantile_of_sample(0.05) {
            QuantileValue::Ns(ns) => Some(ns),
            QuantileValue::Lost | QuantileValue::Unsupported => None,
        }
    }
}

impl Port for Gaps {
    fn caps(&self) -> PortCaps {
        self.port.caps()
    }

    fn wait(&mut self, max: Duration) -> io::Result<()> {
        self.port.wait(max)
    }

    fn rx_burst(&mut self, sink: &mut dyn FnMut(RxFrame<'_>)) -> io::Result<usize> {
        self.frames_count = self.port.rx_burst(sink)?;
        Ok(self.frames_count)
    }

    fn tx(&mut self, to: Peer, len_bytes: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<(), TxError> {
        self.port.tx(to, len_bytes, fill)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.port.flush()?;
        if self.frames_count > 0 {
            let now = self.clock.now();
            if let Some(last) = self.last {
                // Each frame counts once: a backlog comes in few, large bursts.
                let per_frame_ns = (now - last).as_nanos() as u64 / self.frames_count as u64;
                (0..self.frames_count).for_each(|_| self.per_frame.record(per_frame_ns));
            }
            self.last = Some(now);
        }
        Ok(())
    }

    fn stats(&self) -> PortStats {
        self.port.stats()
    }
}

/// How exactly a paused thread notices that it may go on.
const PAUSE_STEP: Duration = Duration::from_micros(100);

/// A protocol that burns CPU time before it answers: work of a known length.
#[derive(Debug)]
struct Working<P> {
    inner: P,
    clock: MonotonicClock,
    work: Duration,
}

impl<P: Protocol> Protocol for Working<P> {
    fn handle(&mut self, now: Instant, input: Input<'_>, out: &mut Effects) {
        if !self.work.is_zero() && matches!(input, Input::Frame { .. }) {
            let end = self.clock.now() + self.work;
            while self.clock.now() < end {
                std::hint::spin_loop();
            }
        }
        self.inner.handle(now, input, out);
    }

    fn wake_at(&self) -> Option<Instant> {
        self.inner.wake_at()
    }
}
