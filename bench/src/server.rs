//! The other end: an echo node, or a sink that only counts, in a process of its own (so that it can be stopped, killed
//! and charged for its CPU time), or in a thread where the back end has no second process.
//!
//! The process is this same program under a hidden name. It reads its wiring from its first argument, opens its port,
//! drops every privilege, says "ready" on stdout, and turns until its stdin closes. It dies with its parent
//! (PR_SET_PDEATHSIG), also when the parent is killed, also while it is stopped. On another machine the parent is an agent,
//! and this end asks it.

mod node;
mod process;

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
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
use dataplane_waist::{NodeStats, Port};
use dataplane_wire::Reject;
use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    agent::{Agent, protocol::Start},
    backends::Wiring,
    breakdown::stages::Stations,
    host::{self, RunTime, Seat},
    sink::{Expected, SinkReport},
};

use node::{Signals, serve};
pub use process::{
    die_with, drop_privileges, main, say, say_ready, say_ready_with_programs, settle_and_say_ready, stop_at_eof,
};

/// The fact that says that a server has a machine of its own: its CPUs are none of the client's, whatever their numbers.
pub const MACHINE: &str = "server_machine";

/// The hidden subcommand.
pub const SUBCOMMAND: &str = "serve-trial";

/// What the server's process is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServerConfig {
    /// Who starts it; it ends when that process does.
    pub parent_pid: u32,
    /// Name in [`crate::backends::BACKENDS`].
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
#[serde(rename_all = "snake_case", deny_unknown_fields)]
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
    /// What a server that stamps knows of its clocks.
    pub stamps: Option<StampClocks>,
}

/// The clocks of a server that writes stamps into its replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StampClocks {
    /// How exactly it knew the offset between them, in nanoseconds.
    pub error_ns: u64,
    /// By how much its wall clock was stepped meanwhile, if it was.
    pub step_ns: Option<i64>,
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
            stamps: None,
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
        /// Frames that a sink is to wait for when it is ended, once that is known.
        expected_count: Option<u64>,
    },
}

/// A server's process that has not said yet that it is ready. Dropping it ends it.
#[derive(Debug)]
pub struct Starting(Server);

impl Starting {
    /// Waits until it is ready.
    ///
    /// # Errors
    /// It ended, or took too long; its own words are on stderr already.
    pub fn ready(mut self) -> anyhow::Result<Server> {
        let Server::Process {
            child,
            stdout,
            addr,
            facts,
            ..
        } = &mut self.0
        else {
            unreachable!("only a process is started in two halves")
        };
        let mut line = String::new();
        let read = within(child.id(), || stdout.take(REPORT_BYTES_MAX).read_line(&mut line));
        let said = read
            .map_err(anyhow::Error::from)
            .and_then(|_| Ok(serde_json::from_str(&line)?));
        let Ok(ready): Result<Ready, _> = said else {
            let _ = child.kill();
            let status = child.wait().context("waiting for the server's process")?;
            bail!("its process did not become ready ({status})");
        };
        (*addr, *facts) = (ready.addr, ready.facts);
        Ok(self.0)
    }
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
        Server::begin_as(subcommand, config)?.ready()
    }

    /// The first half of [`Server::spawn_as`]: does not wait until the process is ready, so that several get ready side by side.
    ///
    /// # Errors
    /// It could not be started.
    pub fn begin_as(subcommand: &str, config: &impl Serialize) -> anyhow::Result<Starting> {
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
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        Ok(Starting(Server::Process {
            child,
            stdin,
            stdout,
            addr: None,
            facts: BTreeMap::new(),
        }))
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
        Ok(Server::remote(agent, agent.start(start)?))
    }

    /// Has an agent start one that stamps ([`crate::breakdown`]).
    ///
    /// # Errors
    /// As [`Server::start_remote`].
    pub fn start_remote_stamped(agent: &Arc<Agent>, start: Start, stations: Stations) -> anyhow::Result<Server> {
        Ok(Server::remote(agent, agent.start_stamped(start, stations)?))
    }

    fn remote(agent: &Arc<Agent>, (addr, mut facts): (SocketAddr, BTreeMap<String, String>)) -> Server {
        facts.insert(MACHINE.to_owned(), "the agent's".to_owned());
        Server::Remote {
            agent: Some(agent.clone()),
            addr,
            facts,
            expected_count: None,
        }
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

    /// How often it has gone to sleep so far, all its threads together; known of a process on this machine alone.
    pub fn sleeps_count(&self) -> Option<u64> {
        match self {
            Server::Process { child, .. } => host::process_sleeps_count(child.id()),
            Server::Thread { .. } | Server::Remote { .. } => None,
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

    /// The process's number, if it is one of this machine.
    pub fn pid(&self) -> Option<u32> {
        match self {
            Server::Process { child, .. } => Some(child.id()),
            Server::Thread { .. } | Server::Remote { .. } => None,
        }
    }

    /// Ends a process at once, as a crash does (SIGKILL). It has no report any more: drop it.
    ///
    /// # Errors
    /// When it is gone already, or is no process of this machine.
    pub fn kill(&self) -> anyhow::Result<()> {
        match self {
            // Nobody has waited for it yet, so its number is nobody else's.
            Server::Process { child, .. } => {
                signal::kill(Pid::from_raw(child.id() as i32), Signal::SIGKILL).context("sending SIGKILL")
            }
            Server::Thread { .. } | Server::Remote { .. } => bail!("only a process of this machine can be killed"),
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
            // Goes with the question that ends it: until then nothing waits.
            Server::Remote { expected_count, .. } => {
                *expected_count = Some(frames_count);
                Ok(())
            }
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
            Server::Remote {
                agent, expected_count, ..
            } => agent.take().expect("finish is called once").finish(*expected_count),
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
                    let _ = agent.finish(None);
                }
            }
        }
    }
}
