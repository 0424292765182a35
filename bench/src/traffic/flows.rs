//! The connections, and the one thread that drives all of their ends: it reads questions, writes answers, and counts both.
//!
//! A question is a number of bytes, and the answer is as many. What the receiver has read is compared with what the sender was asked
//! for, connection by connection: nothing is sent that nobody accounts for.

use std::{
    ffi::OsString,
    io::{self, Read, Write},
    net::{SocketAddrV4, TcpListener, TcpStream},
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};
use dataplane_netns::Host;
use dataplane_ports::tcp::{self, TcpInfo};
use nix::{
    errno::Errno,
    sys::{
        epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
        socket::{
            AddressFamily, SockFlag, SockType, SockaddrIn, connect, getsockopt, setsockopt, socket,
            sockopt::{SendTimeout, TcpCongestion, TcpNoDelay},
        },
        time::{TimeVal, TimeValLike},
    },
};

/// A handshake through an overfull queue may lose its SYN a few times (1 + 2 + 4 s, RFC 6298 §5.7).
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// One write: more than a socket's buffer takes at a time on these links.
const WRITE_BYTES_MAX: usize = 64 << 10;
const READ_BYTES_MAX: usize = 256 << 10;
/// Of one wait.
const EVENTS_MAX: usize = 256;
const QUESTION_BYTES: usize = 8;
/// A question for bytes without an end.
pub(super) const ENDLESS: u64 = u64::MAX;

/// One connection: data goes from the sender, in its own host, to the receiver, in the client's.
#[derive(Debug)]
struct Flow {
    sender: TcpStream,
    receiver: TcpStream,
    /// Of the sender: what it was asked for and has not handed to its kernel yet, and what it has.
    owed_bytes: u64,
    sent_bytes: u64,
    /// A question as far as it has come.
    question: [u8; QUESTION_BYTES],
    question_len: usize,
    /// The kernel's buffer is full; it says when it is not.
    is_blocked: bool,
    /// Of the receiver.
    asked_bytes: u64,
    received_bytes: u64,
}

/// What went over one connection, as its two ends say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowTotals {
    /// Payload that the sender handed to its kernel.
    pub sent_bytes: u64,
    /// Payload that the receiver read.
    pub received_bytes: u64,
    /// Payload that the receiver asked for; endless for a long flow.
    pub asked_bytes: u64,
}

/// Connections from many hosts to one.
#[derive(Debug)]
pub struct Flows {
    flows: Vec<Flow>,
    epoll: Epoll,
    scratch: Vec<u8>,
    zeros: Vec<u8>,
    /// As the kernel said right after the handshake, sender by sender.
    begun: Vec<TcpInfo>,
    /// When the first answer to the questions that were asked last was begun.
    answering: Option<Instant>,
    /// From then until the last of these answers was.
    answer_spread: Duration,
}

impl Flows {
    /// One connection from each of `senders` to `client`, all with the congestion controller of that name, paced at no more than so
    /// many bytes a second, if that is set.
    ///
    /// # Errors
    /// The kernel refused, or a handshake took longer than ten seconds.
    pub fn open(
        client: &Host,
        senders: &[&Host],
        controller: &str,
        pacing_bytes_per_sec_max: Option<u64>,
    ) -> anyhow::Result<Flows> {
        let ends: Vec<(&Host, &str)> = senders.iter().map(|host| (*host, controller)).collect();
        Flows::open_each(client, &ends, pacing_bytes_per_sec_max)
    }

    /// The same, where each connection has a congestion controller of its own. A host may have several connections.
    ///
    /// # Errors
    /// As [`Flows::open`].
    pub fn open_each(
        client: &Host,
        senders: &[(&Host, &str)],
        pacing_bytes_per_sec_max: Option<u64>,
    ) -> anyhow::Result<Flows> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("opening an epoll")?;
        let mut flows: Vec<Flow> = Vec::with_capacity(senders.len());
        let mut begun = Vec::with_capacity(senders.len());
        for (index, (host, controller)) in senders.iter().enumerate() {
            let name = OsString::from(controller);
            let listener = host
                .run(|| TcpListener::bind((host.ipv4(), 0)))?
                .with_context(|| format!("listening in {}", host.name()))?;
            setsockopt(&listener, TcpCongestion, &name)
                .with_context(|| format!("choosing the congestion controller {controller}"))?;
            let address = match listener.local_addr()? {
                std::net::SocketAddr::V4(address) => address,
                other => return Err(anyhow!("{other} is no address of IPv4")),
            };
            let receiver = client
                .run(|| connect_with(&name, address))?
                .with_context(|| format!("connecting to {}", host.name()))?;
            let (sender, _) = listener.accept().context("taking a connection")?;
            let chosen = getsockopt(&sender, TcpCongestion).context("asking for the congestion controller")?;
            if chosen != name {
                return Err(anyhow!(
                    "a connection has the congestion controller {} and not {controller}",
                    chosen.display()
                ));
            }
            if let Some(rate) = pacing_bytes_per_sec_max {
                tcp::set_pacing_max(&sender, rate).context("setting a pacing rate")?;
            }
            for end in [&sender, &receiver] {
                end.set_nonblocking(true)?;
                setsockopt(end, TcpNoDelay, &true)?;
            }
            begun.push(tcp::info(&sender)?);
            let at = index as u64;
            epoll.add(&sender, EpollEvent::new(EpollFlags::EPOLLIN, 2 * at))?;
            epoll.add(&receiver, EpollEvent::new(EpollFlags::EPOLLIN, 2 * at + 1))?;
            flows.push(Flow {
                sender,
                receiver,
                owed_bytes: 0,
                sent_bytes: 0,
                question: [0; QUESTION_BYTES],
                question_len: 0,
                is_blocked: false,
                asked_bytes: 0,
                received_bytes: 0,
            });
        }
        Ok(Flows {
            flows,
            epoll,
            scratch: vec![0; READ_BYTES_MAX],
            zeros: vec![0; WRITE_BYTES_MAX],
            begun,
            answering: None,
            answer_spread: Duration::ZERO,
        })
    }

    /// How many connections there are.
    pub fn count(&self) -> usize {
        self.flows.len()
    }

    /// What each sender's kernel said right after the handshake: its first window and its first timeout.
    pub fn begun(&self) -> &[TcpInfo] {
        &self.begun
    }

    /// What each sender's kernel says now.
    ///
    /// # Errors
    /// A connection is gone.
    pub fn infos(&self) -> io::Result<Vec<TcpInfo>> {
        self.flows.iter().map(|flow| tcp::info(&flow.sender)).collect()
    }

    /// What one sender's kernel says now.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn info(&self, flow: usize) -> io::Result<TcpInfo> {
        tcp::info(&self.flows[flow].sender)
    }

    /// What went over each connection.
    pub fn totals(&self) -> Vec<FlowTotals> {
        let totals = |flow: &Flow| FlowTotals {
            sent_bytes: flow.sent_bytes,
            received_bytes: flow.received_bytes,
            asked_bytes: flow.asked_bytes,
        };
        self.flows.iter().map(totals).collect()
    }

    /// Payload that the receivers read of one connection.
    pub(super) fn received_bytes(&self, flow: usize) -> u64 {
        self.flows[flow].received_bytes
    }

    /// Whether everything that was asked for over these connections has come.
    pub(super) fn is_answered(&self, of: std::ops::Range<usize>) -> bool {
        self.flows[of]
            .iter()
            .all(|flow| flow.received_bytes >= flow.asked_bytes)
    }

    /// Asks one sender for so many bytes more.
    pub(super) fn ask(&mut self, flow: usize, bytes: u64) -> io::Result<()> {
        let flow = &mut self.flows[flow];
        // Eight bytes into an empty buffer: all or nothing.
        match flow.receiver.write(&bytes.to_be_bytes()) {
            Ok(QUESTION_BYTES) => {
                flow.asked_bytes = flow.asked_bytes.saturating_add(bytes);
                Ok(())
            }
            Ok(len) => Err(io::Error::other(format!(
                "a question of {QUESTION_BYTES} bytes left in parts ({len})"
            ))),
            Err(error) => Err(error),
        }
    }

    /// Waits for something to do, no longer than `timeout`, and does it.
    pub(super) fn turn(&mut self, timeout: Duration) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); EVENTS_MAX];
        let wait = EpollTimeout::try_from(timeout).unwrap_or(EpollTimeout::from(100u16));
        let count = match self.epoll.wait(&mut events, wait) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(errno) => return Err(errno.into()),
        };
        for event in &events[..count] {
            let flow = &mut self.flows[(event.data() / 2) as usize];
            if event.data() % 2 == 1 {
                flow.receive(&mut self.scratch)?;
            } else {
                if event
                    .events()
                    .intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR)
                    && flow.take_questions()?
                {
                    let began = *self.answering.get_or_insert_with(Instant::now);
                    self.answer_spread = began.elapsed();
                }
                let was_blocked = flow.is_blocked;
                flow.answer(&self.zeros)?;
                if flow.is_blocked != was_blocked {
                    let mut wanted = EpollFlags::EPOLLIN;
                    wanted.set(EpollFlags::EPOLLOUT, flow.is_blocked);
                    self.epoll
                        .modify(&flow.sender, &mut EpollEvent::new(wanted, event.data()))?;
                }
            }
        }
        Ok(())
    }

    /// How long after the first answer to the last questions the last one was begun: hosts that answer at once do not do so in the
    /// same instant. Forgets it.
    pub(super) fn take_answer_spread(&mut self) -> Duration {
        self.answering = None;
        std::mem::take(&mut self.answer_spread)
    }
}

impl Flow {
    /// Whether there was one.
    fn take_questions(&mut self) -> io::Result<bool> {
        let owed_bytes = self.owed_bytes;
        loop {
            match self.sender.read(&mut self.question[self.question_len..]) {
                Ok(0) => return Err(self.ended("receiver")),
                Ok(len) => self.question_len += len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(self.owed_bytes > owed_bytes),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            if self.question_len == QUESTION_BYTES {
                self.owed_bytes = self.owed_bytes.saturating_add(u64::from_be_bytes(self.question));
                self.question_len = 0;
            }
        }
    }

    fn answer(&mut self, zeros: &[u8]) -> io::Result<()> {
        self.is_blocked = false;
        while self.owed_bytes > 0 {
            let len = zeros.len().min(usize::try_from(self.owed_bytes).unwrap_or(usize::MAX));
            match self.sender.write(&zeros[..len]) {
                Ok(written) => {
                    self.sent_bytes += written as u64;
                    if self.owed_bytes != ENDLESS {
                        self.owed_bytes -= written as u64;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.is_blocked = true;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Once per event: the next wait brings what is left, and the others have their turn meanwhile.
    fn receive(&mut self, scratch: &mut [u8]) -> io::Result<()> {
        match self.receiver.read(scratch) {
            Ok(0) => Err(self.ended("sender")),
            Ok(len) => {
                self.received_bytes += len as u64;
                Ok(())
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn ended(&self, who: &str) -> io::Error {
        io::Error::other(format!(
            "the {who} of a connection (socket {}) closed it",
            self.sender.as_raw_fd()
        ))
    }
}

/// A connection whose controller is chosen before the handshake, because that is when ECN is asked for.
fn connect_with(controller: &OsString, to: SocketAddrV4) -> io::Result<TcpStream> {
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, TcpCongestion, controller)?;
    // It bounds connect(2), too (socket(7)).
    setsockopt(&fd, SendTimeout, &TimeVal::milliseconds(CONNECT_MAX.as_millis() as i64))?;
    connect(fd.as_raw_fd(), &SockaddrIn::from(to))?;
    Ok(TcpStream::from(fd))
}
