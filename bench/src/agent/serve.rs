//! `dplab agent`: listens, admits one client at a time, and runs servers for it. Whatever a peer does, the agent goes on.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, bail};
use nix::sys::socket::{setsockopt, sockopt};

use super::{
    channel::{BODY_BYTES_MAX, Frame, FrameError, Timed, harmless},
    handshake::{self, HANDSHAKE_MAX},
    key::Key,
    protocol::{Answer, Request, Start},
    session::Session,
};
use crate::{
    account::Counters,
    backends::{BACKENDS, Kind, Room, SINKS, Wiring},
    breakdown::{self, StampedConfig, stages::Stations},
    environment,
    host::Seat,
    interface::Interface,
    load::thread::usable_cpus,
    place::{End, Endpoint},
    record::{AgentRecord, SupportRecord},
    server::{self, Role, Server, ServerConfig, ServerReport},
};

/// How an agent is started.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// The interface that is measured.
    pub interface: String,
    /// Also where it carries the default route.
    pub force_interface: bool,
    /// Where requests come in.
    pub listen: SocketAddr,
    /// The shared key.
    pub key_file: PathBuf,
    /// Whose end is the agent's, too: the process that has started it.
    pub parent: Option<u32>,
}

/// Strangers that may be shaking hands at the same time.
const STRANGERS_MAX: usize = 8;
/// A client that asks nothing for so long is gone; the longest trial is far shorter.
const IDLE_MAX: Duration = Duration::from_secs(15 * 60);
/// Sending an answer takes no longer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// A pause between two attempts to accept, when the system has no room.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

/// Runs until it is ended by a signal. The server's process dies with this one.
///
/// # Errors
/// The key, the interface or the address cannot be used, or the parent is gone.
pub fn serve(options: &AgentOptions) -> anyhow::Result<()> {
    if let Some(parent) = options.parent {
        server::die_with(parent)?;
    }
    let key = Key::read(&options.key_file)?;
    let interface = Interface::find(&options.interface, options.force_interface)?;
    let listener = TcpListener::bind(options.listen).with_context(|| {
        format!(
            "listening on {}; is it an address of this machine, and free?",
            options.listen
        )
    })?;
    let addr = listener.local_addr().context("asking where this listens")?;
    if addr.ip().is_unspecified() {
        log("warning: this listens on every interface of this machine; --listen with one address is safer");
    }
    println!(
        "dplab agent: listening on {addr}, measures over interface {}",
        interface.describe()
    );
    io::stdout().flush()?;

    let agent = Arc::new(Shared {
        options: options.clone(),
        key,
        strangers_count: AtomicUsize::new(0),
        is_busy: AtomicBool::new(false),
    });
    loop {
        match listener.accept() {
            Ok((stream, peer)) => agent.clone().receive(stream, peer),
            // EMFILE and its like: nothing of ours is broken, and others may end meanwhile (accept(2)).
            Err(error) => {
                log(&format!("a connection could not be accepted: {error}"));
                thread::sleep(ACCEPT_AGAIN);
            }
        }
    }
}

/// Log lines go to stderr; stdout says once where the agent listens.
fn log(line: &str) {
    eprintln!("dplab agent: {line}");
}

/// What the threads of an agent share.
#[derive(Debug)]
struct Shared {
    options: AgentOptions,
    key: Key,
    /// Connections whose peer has not shown the key.
    strangers_count: AtomicUsize,
    /// A client is being served.
    is_busy: AtomicBool,
}

/// Lowers a flag or a count when its holder is done, also by a panic.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

impl Shared {
    /// A thread of its own for each connection, so that a stranger who says nothing keeps nobody waiting.
    fn receive(self: Arc<Shared>, stream: TcpStream, peer: SocketAddr) {
        if self.strangers_count.fetch_add(1, Ordering::AcqRel) >= STRANGERS_MAX {
            self.strangers_count.fetch_sub(1, Ordering::AcqRel);
            log(&format!("{peer}: sent away, {STRANGERS_MAX} others are shaking hands"));
            return;
        }
        let agent = self.clone();
        let spawned = thread::Builder::new().name("dplab-client".to_owned()).spawn(move || {
            if let Err(error) = agent.attend(&stream, peer) {
                log(&format!("{peer}: {error:#}"));
            }
        });
        if let Err(error) = spawned {
            self.strangers_count.fetch_sub(1, Ordering::AcqRel);
            log(&format!(
                "{peer}: sent away, the system has no room for a thread: {error}"
            ));
        }
    }

    fn attend(&self, stream: &TcpStream, peer: SocketAddr) -> anyhow::Result<()> {
        let stranger = OnDrop(|| {
            self.strangers_count.fetch_sub(1, Ordering::AcqRel);
        });
        stream.set_nodelay(true).context("preparing the connection")?;
        let session = match handshake::admit(&mut Timed::new(stream, HANDSHAKE_MAX), &self.key) {
            Ok(session) => session,
            Err(error) => {
                handshake::refuse(stream, &error.to_string());
                bail!("refused: {error}");
            }
        };
        drop(stranger);
        let mut client = Client { stream, session };
        if self.is_busy.swap(true, Ordering::AcqRel) {
            let why = "another client is being served; try again when it is done";
            // To its first request.
            let _ = client.next(HANDSHAKE_MAX);
            client.answer(&Answer::Refused { why: why.to_owned() })?;
            bail!("refused: {why}");
        }
        let _busy = OnDrop(|| self.is_busy.store(false, Ordering::Release));
        notice_dead_peers(stream)?;
        log(&format!("{peer}: admitted"));
        self.converse(&mut client)?;
        log(&format!("{peer}: done"));
        Ok(())
    }

    /// Answers one client until it is done. The server, if one runs, ends with this: it is dropped.
    fn converse(&self, client: &mut Client<'_>) -> anyhow::Result<()> {
        let mut interface = None;
        let mut server: Option<Server> = None;
        loop {
            let request = match client.next(IDLE_MAX) {
                Ok(request) => request,
                Err(error) => {
                    let had = if server.is_some() { "; its server is ended" } else { "" };
                    return Err(error.context(format!("disconnected{had}")));
                }
            };
            let answer = match request {
                Request::Bye => return Ok(()),
                Request::Hello { version } if version != environment::build::version() => Err(anyhow::anyhow!(
                    "the agent is dplab {}, the client {}; run the same dplab on both machines",
                    environment::build::version(),
                    harmless(version.as_bytes())
                )),
                Request::Hello { .. } => self.introduce().map(|record| {
                    interface = Some(record.interface.clone());
                    Answer::Hello(Box::new(record))
                }),
                Request::Start(start) => begin(&interface, &mut server, |interface| started(&start, None, interface)),
                Request::StartStamped { start, stations } => begin(&interface, &mut server, |interface| {
                    started(&start, Some(stations), interface)
                }),
                Request::Pause { paused } => running(&server)
                    .and_then(|server| server.pause(paused))
                    .map(|()| Answer::Done),
                Request::RunTime => running(&server).map(|server| Answer::RunTime {
                    used: server.run_time(),
                }),
                Request::Counters => interface.as_ref().context(NO_HELLO).map(|interface| Answer::Counters {
                    counters: Counters::read(&interface.name),
                }),
                Request::Finish { expected_count } => running(&server)
                    // One that stands still could not end.
                    .and_then(|server| server.pause(false))
                    .and_then(|()| finished(server.take().context(NO_SERVER)?, expected_count))
                    .map(Answer::Report),
            };
            client.answer(&answer.unwrap_or_else(|error| Answer::Refused {
                why: format!("{error:#}"),
            }))?;
        }
    }

    fn introduce(&self) -> anyhow::Result<AgentRecord> {
        let interface = Interface::find(&self.options.interface, self.options.force_interface)?;
        let supports: BTreeMap<String, SupportRecord> = BACKENDS
            .iter()
            .chain(SINKS)
            .filter(|backend| !matches!(backend.kind, Kind::Loopback | Kind::Shm))
            .map(|backend| (backend.name.to_owned(), backend.probe(&interface.name).into()))
            .collect();
        Ok(AgentRecord {
            version: environment::build::version().to_owned(),
            git_commit: environment::build::git_commit().map(str::to_owned),
            build_profile: environment::build::profile().to_owned(),
            cpus: usable_cpus(),
            environment: environment::capture(std::slice::from_ref(&interface.name)),
            interface,
            supports,
        })
    }
}

const NO_SERVER: &str = "no server runs";
const NO_HELLO: &str = "say hello first";

/// Ends a server. Any number may be expected: a sink waits for some seconds at most.
fn finished(mut server: Server, expected_count: Option<u64>) -> anyhow::Result<ServerReport> {
    if let Some(frames_count) = expected_count {
        // A sink that is gone says so when it is finished.
        let _ = server.expect(frames_count);
    }
    server.finish()
}

fn running(server: &Option<Server>) -> anyhow::Result<&Server> {
    server.as_ref().context(NO_SERVER)
}

/// Starts a server by `start`, if it is time for one.
fn begin(
    interface: &Option<Interface>,
    server: &mut Option<Server>,
    start: impl FnOnce(&Interface) -> anyhow::Result<(Server, Answer)>,
) -> anyhow::Result<Answer> {
    match (interface, &server) {
        (None, _) => bail!(NO_HELLO),
        (_, Some(_)) => bail!("a server runs already; finish it first"),
        (Some(interface), None) => {
            let (started, answer) = start(interface)?;
            *server = Some(started);
            Ok(answer)
        }
    }
}

/// Starts what was asked for, within its bounds, as an experiment on this machine would; with `stations` one that stamps.
fn started(start: &Start, stations: Option<Stations>, interface: &Interface) -> anyhow::Result<(Server, Answer)> {
    let (backend, addr) = start.check(interface).map_err(anyhow::Error::msg)?;
    interface.leads_to(start.client.ip())?;
    let is_sink = matches!(start.role, Role::Sink { .. });
    let config = ServerConfig {
        parent_pid: std::process::id(),
        backend: backend.name.to_owned(),
        wiring: Wiring {
            end: End::Server,
            local: Endpoint {
                addr,
                interface: interface.name.clone(),
                mac: interface.mac,
                mtu_bytes: interface.mtu_bytes,
            },
            remote: Some(Endpoint {
                addr: start.client,
                interface: String::new(),
                mac: start.client_mac,
                mtu_bytes: interface.mtu_bytes,
            }),
            members: Vec::new(),
            over_veth: interface.is_veth(),
            frame_bytes_max: start.frame_bytes_max,
            room: Room {
                frames_count: start.room_frames_count,
            },
            // A sink looks now and then whether it has come to its end.
            untimed: !is_sink,
            region: None,
        },
        seat: Seat {
            // The first CPU is where interrupts land unless somebody has moved them.
            cpu: match usable_cpus().as_slice() {
                [_, second, ..] => Some(*second),
                [only] => Some(*only),
                [] => None,
            },
            // A flood leaves a sleeping end no time to sleep.
            spins: is_sink || !backend.sleeps(),
            is_shared: false,
        },
        role: start.role,
    };
    let server = match stations {
        None => Server::spawn(&config),
        Some(stations) => Server::spawn_as(breakdown::SUBCOMMAND, &StampedConfig::from_plain(config, stations)?),
    };
    let server = server.context("the agent's log has the server's own words")?;
    let answer = Answer::Ready {
        addr: server.addr().unwrap_or(addr),
        facts: server.facts().clone(),
    };
    Ok((server, answer))
}

/// A client that shows no more life than a cable does must not keep the agent for itself: the kernel asks for it (tcp(7),
/// TCP_KEEPIDLE) after twenty seconds and gives up after twenty more. A probe is one small packet a row at most.
fn notice_dead_peers(stream: &TcpStream) -> anyhow::Result<()> {
    setsockopt(stream, sockopt::KeepAlive, &true)
        .and_then(|()| setsockopt(stream, sockopt::TcpKeepIdle, &20))
        .and_then(|()| setsockopt(stream, sockopt::TcpKeepInterval, &5))
        .and_then(|()| setsockopt(stream, sockopt::TcpKeepCount, &4))
        .context("preparing the connection")
}

/// An admitted peer.
struct Client<'a> {
    stream: &'a TcpStream,
    session: Session,
}

impl Client<'_> {
    /// Its next request, which may be long in coming but, once begun, not in arriving.
    fn next(&mut self, idle_max: Duration) -> anyhow::Result<Request> {
        let frame = Frame::read(&mut Arriving::new(self.stream, idle_max), BODY_BYTES_MAX);
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => {
                if !matches!(error, FrameError::Closed | FrameError::Io(_)) {
                    self.dismiss(&error.to_string());
                }
                return Err(error.into());
            }
        };
        let message = match self.session.open(&frame) {
            Ok(message) => message,
            Err(error) => {
                self.dismiss(&error.to_string());
                return Err(error.into());
            }
        };
        match serde_json::from_slice(&message) {
            Ok(request) => Ok(request),
            Err(error) => {
                let why = format!("a request that was not understood: {error}");
                self.answer(&Answer::Refused { why: why.clone() })?;
                bail!("{}", harmless(why.as_bytes()));
            }
        }
    }

    fn dismiss(&self, why: &str) {
        handshake::refuse(self.stream, why);
    }

    fn answer(&mut self, answer: &Answer) -> anyhow::Result<()> {
        let mut message = serde_json::to_vec(answer)?;
        if message.len() > BODY_BYTES_MAX / 2 {
            let why = format!("the answer has {} bytes, more than the protocol carries", message.len());
            message = serde_json::to_vec(&Answer::Refused { why })?;
        }
        let sealed = self.session.seal(&message);
        Timed::new(self.stream, ANSWER_MAX)
            .write_all(&sealed)
            .context("answering")
    }
}

/// A stream whose first byte may take long, and whose others may not.
struct Arriving<'a> {
    stream: &'a TcpStream,
    timed: Timed<'a>,
    has_begun: bool,
}

impl<'a> Arriving<'a> {
    fn new(stream: &'a TcpStream, idle_max: Duration) -> Arriving<'a> {
        Arriving {
            stream,
            timed: Timed::new(stream, idle_max),
            has_begun: false,
        }
    }
}

impl io::Read for Arriving<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.timed.read(into)?;
        if !self.has_begun {
            self.has_begun = true;
            self.timed = Timed::new(self.stream, ANSWER_MAX);
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
