//! A client that keeps a number of requests under way at one server and measures each from its first send: commits at a
//! leader, or echoes. The same loop for both, so that their ratio is that of the servers.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context, bail};
use dataplane_ports::udp::{UdpOptions, UdpPort};
use dataplane_waist::{Clock, Instant, Peer, Port};
use dataplane_wire::{
    frame::{self, Header, Kind},
    quorum::{
        reply::{self, Outcome},
        request::{self, Command, Request},
    },
};

use super::{BUFFER_BYTES, FRAME_BYTES_MAX};
use crate::{
    backends::{BackEnd, Kind as How},
    measure::Recorder,
};

/// Whom to ask, and how.
#[derive(Clone, Copy, Debug)]
pub struct ClientOptions {
    /// Requests under way at once.
    pub in_flight: usize,
    /// Bytes of each value; an echo is as long as the request would be.
    pub value_bytes: usize,
    /// An answer that has not come by then is asked for again, under the same number.
    pub retry: Duration,
}

/// What became of the requests.
#[derive(Debug)]
pub struct Asked {
    /// From the first send of each to its answer.
    pub latency: Recorder,
    /// Answered.
    pub answered_count: u64,
    /// Sent again.
    pub retries_count: u64,
    /// Answers that another replica leads.
    pub redirects_count: u64,
    /// How long it took.
    pub elapsed: Duration,
}

/// The client's end.
pub struct Client {
    port: UdpPort,
    server: Peer,
    session: Option<u64>,
    next_sequence: u64,
    frame: Vec<u8>,
    options: ClientOptions,
}

/// A request under way.
#[derive(Clone, Copy, Debug)]
struct Flight {
    sequence: u64,
    first_sent: Instant,
    last_sent: Instant,
}

/// How long a cluster gets to elect its first leader.
const ELECTION_MAX: Duration = Duration::from_secs(10);
const KEY: &[u8] = b"key";

impl Client {
    /// Opens a port of `backend`'s kind that knows `servers`.
    ///
    /// # Errors
    /// No socket could be had, or the back end is not a UDP socket.
    pub fn open(backend: &BackEnd, servers: &[SocketAddr], options: ClientOptions) -> anyhow::Result<Client> {
        let How::Udp(wait, batch) = backend.kind else {
            bail!("{} is not a UDP socket", backend.name);
        };
        let port = UdpPort::open(&UdpOptions {
            local: (Ipv4Addr::LOCALHOST, 0).into(),
            peers: servers.to_vec(),
            wait,
            batch,
            recv_buffer_bytes: BUFFER_BYTES,
            frame_bytes_max: FRAME_BYTES_MAX,
            ..UdpOptions::default()
        })?;
        let value = vec![0x61; options.value_bytes];
        let command = Command::Put {
            key: KEY,
            value: &value,
        };
        let request = Request {
            client: 0,
            sequence: 0,
            command,
        };
        let mut bytes = vec![0; frame::HEADER_BYTES + request.len_bytes()];
        request::emit(&request, &mut bytes[frame::HEADER_BYTES..]);
        Ok(Client {
            port,
            server: Peer(0),
            session: None,
            next_sequence: 1,
            frame: bytes,
            options,
        })
    }

    /// Finds the leader among the first `count` peers and opens a session there; says its node.
    ///
    /// # Errors
    /// Nobody leads in time.
    pub fn find_leader(&mut self, count: u32, clock: &dyn Clock, stop: &AtomicBool) -> anyhow::Result<u32> {
        let deadline = clock.now() + ELECTION_MAX;
        let open = Request {
            client: 0,
            sequence: 1,
            command: Command::Open,
        };
        let mut bytes = vec![0; frame::HEADER_BYTES + open.len_bytes()];
        request::emit(&open, &mut bytes[frame::HEADER_BYTES..]);
        frame::emit(&header(Kind::QuorumRequest, 1, 0), &mut bytes);
        while clock.now() < deadline && !stop.load(Ordering::Relaxed) {
            for node in 0..count {
                self.port
                    .tx(Peer(node), bytes.len(), &mut |out| out.copy_from_slice(&bytes))
                    .context("asking a replica")?;
                self.port.flush().context("asking a replica")?;
            }
            let until = clock.now() + Duration::from_millis(20);
            while clock.now() < until {
                self.port
                    .wait(Duration::from_millis(10))
                    .context("waiting for a replica")?;
                let mut found = None;
                self.port.rx_burst(&mut |rx| {
                    if let Ok(frame) = frame::parse(rx.bytes)
                        && let Ok(reply) = reply::parse(frame.payload)
                        && let Outcome::Opened { client } = reply.outcome
                    {
                        found = Some((rx.from, client));
                    }
                })?;
                if let Some((from, client)) = found {
                    self.server = from;
                    self.session = Some(client);
                    return Ok(from.0);
                }
            }
        }
        bail!("no replica said that it leads within {ELECTION_MAX:?}")
    }

    /// Keeps requests under way for `duration`.
    ///
    /// # Errors
    /// The port failed, or the cluster answered something that a put is not answered with.
    pub fn ask(&mut self, clock: &dyn Clock, duration: Duration, stop: &AtomicBool) -> anyhow::Result<Asked> {
        let mut flights: Vec<Flight> = Vec::with_capacity(self.options.in_flight);
        let mut asked = Asked {
            latency: Recorder::new(),
            answered_count: 0,
            retries_count: 0,
            redirects_count: 0,
            elapsed: Duration::ZERO,
        };
        let start = clock.now();
        let end = start + duration;
        let mut odd = None;
        let mut now = start;
        while (now < end && !stop.load(Ordering::Relaxed)) || !flights.is_empty() {
            if now > end + self.options.retry * 4 {
                break;
            }
            let mut sent = false;
            while flights.len() < self.options.in_flight && now < end {
                let flight = Flight {
                    sequence: self.next_sequence,
                    first_sent: now,
                    last_sent: now,
                };
                self.next_sequence += 1;
                self.send(flight)?;
                flights.push(flight);
                sent = true;
            }
            for flight in &mut flights {
                if now >= flight.last_sent + self.options.retry {
                    flight.last_sent = now;
                    self.send(*flight)?;
                    asked.retries_count += 1;
                    sent = true;
                }
            }
            if sent {
                self.port.flush().context("sending")?;
            }
            self.port.wait(self.options.retry).context("waiting for an answer")?;
            let session = self.session;
            let mut leader = None;
            self.port.rx_burst(&mut |rx| {
                let Ok(frame) = frame::parse(rx.bytes) else { return };
                let sequence = match (session, frame.header.kind) {
                    (None, Kind::EchoReply) => frame.header.slot,
                    (Some(_), Kind::QuorumReply) => match reply::parse(frame.payload) {
                        Ok(reply) if reply.outcome == Outcome::Done => reply.sequence,
                        Ok(reply) if reply.outcome == Outcome::Busy => return,
                        Ok(reply) if let Outcome::NotLeader { leader: next } = reply.outcome => {
                            leader = next;
                            return;
                        }
                        Ok(reply) => {
                            odd = Some(format!("{:?}", reply.outcome));
                            return;
                        }
                        Err(_) => return,
                    },
                    _ => return,
                };
                let Some(index) = flights.iter().position(|flight| flight.sequence == sequence) else {
                    return;
                };
                let flight = flights.swap_remove(index);
                asked
                    .latency
                    .record((clock.now() - flight.first_sent).as_nanos() as u64);
                asked.answered_count += 1;
            })?;
            now = clock.now();
            if let Some(leader) = leader {
                // Another was elected meanwhile: what is under way goes there with the next retry.
                self.server = Peer(leader);
                asked.redirects_count += 1;
            }
            if let Some(outcome) = &odd {
                bail!("a put was answered with {outcome}");
            }
        }
        for _ in &flights {
            asked.latency.record_lost();
        }
        asked.elapsed = clock.now() - start;
        Ok(asked)
    }

    fn send(&mut self, flight: Flight) -> anyhow::Result<()> {
        let kind = match self.session {
            None => Kind::EchoRequest,
            Some(session) => {
                let payload = &mut self.frame[frame::HEADER_BYTES..];
                payload[request::field::CLIENT].copy_from_slice(&session.to_be_bytes());
                payload[request::field::SEQUENCE].copy_from_slice(&flight.sequence.to_be_bytes());
                Kind::QuorumRequest
            }
        };
        frame::emit(
            &header(kind, flight.sequence, flight.first_sent.as_ns()),
            &mut self.frame,
        );
        let frame = &self.frame;
        match self
            .port
            .tx(self.server, frame.len(), &mut |out| out.copy_from_slice(frame))
        {
            Ok(()) => Ok(()),
            // Its queue is full: what is there goes out first.
            Err(_) => {
                self.port.flush().context("sending")?;
                let again = self
                    .port
                    .tx(self.server, frame.len(), &mut |out| out.copy_from_slice(frame));
                again.context("queueing a request")
            }
        }
    }
}

fn header(kind: Kind, slot: u64, sent_ns: u64) -> Header {
    Header {
        kind,
        term: 0,
        slot,
        sent_ns,
    }
}
