//! The agent as the measuring machine sees it: one connection, one request at a time.

use std::{
    io::Write,
    net::{SocketAddr, TcpStream},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, bail};

use super::{
    channel::{BODY_BYTES_MAX, Frame, Kind, Timed, harmless},
    handshake::{self, HANDSHAKE_MAX},
    key::Key,
    protocol::{Answer, Request, Start},
    session::Session,
    told,
};
use crate::{
    account::Counters, breakdown::stages::Stations, environment, host::RunTime, record::AgentRecord,
    server::ServerReport,
};

/// Connecting takes no longer.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Nor does any answer: the longest work behind one is capturing the agent's environment (two seconds) or ending a
/// server that does not end by itself (ten).
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// A connection to an agent.
#[derive(Debug)]
pub struct Agent {
    addr: SocketAddr,
    record: AgentRecord,
    channel: Mutex<Channel>,
}

#[derive(Debug)]
struct Channel {
    stream: TcpStream,
    session: Session,
    /// What ended the connection: after that nothing can be asked.
    broken: Option<String>,
}

impl Agent {
    /// Connects, shows the key, and asks who is there.
    ///
    /// # Errors
    /// Nobody answers, the keys or the versions differ, or the agent is busy.
    pub fn connect(addr: SocketAddr, key: &Key) -> anyhow::Result<Agent> {
        let context = || format!("the agent at {addr}");
        let stream = TcpStream::connect_timeout(&addr, CONNECT_MAX)
            .with_context(|| format!("connecting to {addr}; is `dplab agent --listen {addr}` running there?"))
            .with_context(context)?;
        stream.set_nodelay(true).with_context(context)?;
        let session = handshake::greet(&mut Timed::new(&stream, HANDSHAKE_MAX), key).with_context(context)?;
        let mut channel = Channel {
            stream,
            session,
            broken: None,
        };
        let hello = Request::Hello {
            version: environment::build::version().to_owned(),
        };
        let answer = channel.ask(&hello).with_context(context)?;
        let Answer::Hello(record) = answer else {
            bail!("the agent at {addr} gave an answer that does not fit the question");
        };
        Ok(Agent {
            addr,
            record: *record,
            channel: Mutex::new(channel),
        })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Who it is.
    pub fn record(&self) -> &AgentRecord {
        &self.record
    }

    /// Starts a server there: where it answers, and how it runs.
    ///
    /// # Errors
    /// The agent refused, or the connection is gone.
    pub fn start(&self, start: Start) -> anyhow::Result<(SocketAddr, std::collections::BTreeMap<String, String>)> {
        self.ready(&Request::Start(start))
    }

    /// Starts one that stamps.
    ///
    /// # Errors
    /// As [`Agent::start`].
    pub fn start_stamped(
        &self,
        start: Start,
        stations: Stations,
    ) -> anyhow::Result<(SocketAddr, std::collections::BTreeMap<String, String>)> {
        self.ready(&Request::StartStamped { start, stations })
    }

    fn ready(&self, request: &Request) -> anyhow::Result<(SocketAddr, std::collections::BTreeMap<String, String>)> {
        match self.ask(request)? {
            Answer::Ready { addr, facts } => Ok((addr, facts)),
            _ => self.misfit(),
        }
    }

    /// Stops the server in its tracks, or lets it go on. By the time this returns it has happened; when exactly in
    /// between, this machine's clock cannot tell.
    ///
    /// # Errors
    /// As [`Agent::start`].
    pub fn pause(&self, paused: bool) -> anyhow::Result<()> {
        match self.ask(&Request::Pause { paused })? {
            Answer::Done => Ok(()),
            _ => self.misfit(),
        }
    }

    /// What the server has used of its CPU.
    ///
    /// # Errors
    /// As [`Agent::start`].
    pub fn run_time(&self) -> anyhow::Result<Option<RunTime>> {
        match self.ask(&Request::RunTime)? {
            Answer::RunTime { used } => Ok(used),
            _ => self.misfit(),
        }
    }

    /// What the kernel of its machine counts at its interface and above.
    ///
    /// # Errors
    /// As [`Agent::start`]; also counters that no kernel has.
    pub fn counters(&self) -> anyhow::Result<Counters> {
        match self.ask(&Request::Counters)? {
            Answer::Counters { counters } => {
                told::check_counters(&counters).with_context(|| format!("the agent at {}", self.addr))?;
                Ok(counters)
            }
            _ => self.misfit(),
        }
    }

    /// Ends the server and takes its report; a sink waits for `expected_count` frames before, if it is given.
    ///
    /// # Errors
    /// As [`Agent::start`]; also a report of counts that nothing could have counted.
    pub fn finish(&self, expected_count: Option<u64>) -> anyhow::Result<ServerReport> {
        match self.ask(&Request::Finish { expected_count })? {
            Answer::Report(report) => {
                told::check_report(&report).with_context(|| format!("the agent at {}", self.addr))?;
                Ok(report)
            }
            _ => self.misfit(),
        }
    }

    fn misfit<T>(&self) -> anyhow::Result<T> {
        bail!(
            "the agent at {} gave an answer that does not fit the question",
            self.addr
        )
    }

    fn ask(&self, request: &Request) -> anyhow::Result<Answer> {
        // A thread that panicked in here has left its request unanswered or not, and a message out of turn is noticed.
        let mut channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        channel
            .ask(request)
            .with_context(|| format!("the agent at {}", self.addr))
    }
}

impl Channel {
    fn ask(&mut self, request: &Request) -> anyhow::Result<Answer> {
        if let Some(why) = &self.broken {
            bail!("the connection is gone: {why}");
        }
        match self.exchange(request) {
            Ok(Answer::Refused { why }) => bail!("refused: {}", harmless(why.as_bytes())),
            Ok(answer) => Ok(answer),
            Err(error) => {
                self.broken = Some(format!("{error:#}"));
                Err(error)
            }
        }
    }

    fn exchange(&mut self, request: &Request) -> anyhow::Result<Answer> {
        self.send(request)?;
        let frame = Frame::read(&mut Timed::new(&self.stream, ANSWER_MAX), BODY_BYTES_MAX)?;
        if frame.kind == Kind::Refusal {
            bail!("it ended the session: {}", harmless(&frame.body));
        }
        let message = self.session.open(&frame)?;
        serde_json::from_slice(&message).context("its answer was not understood")
    }

    fn send(&mut self, request: &Request) -> anyhow::Result<()> {
        let sealed = self.session.seal(&serde_json::to_vec(request)?);
        Timed::new(&self.stream, ANSWER_MAX)
            .write_all(&sealed)
            .context("asking")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let channel = self.channel.get_mut().unwrap_or_else(PoisonError::into_inner);
        if channel.broken.is_none() {
            // Without it the agent would call the end a lost connection.
            let _ = channel.send(&Request::Bye);
        }
    }
}
