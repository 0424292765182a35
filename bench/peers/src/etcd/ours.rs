//! Our side of `etcd`: three `dplab serve` on loopback, and a client that keeps several puts under way.
//!
//! The client is the one behind `dplab kv` (dataplane-quorum's) over the same UDP port.

use std::{
    collections::HashMap,
    fmt::Write,
    fs,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::Path,
    time::Duration,
};

use anyhow::{Context, bail};
use dataplane_ports::udp::{Batching, UdpOptions, UdpPort, WaitHow};
use dataplane_quorum::{
    Limits,
    client::{Ask, AskError, Client, ClientOptions, Route, Ticket, Verdict},
};
use dataplane_waist::{Clock, Effects, Instant, MemoryLog, MonotonicClock, Node, Peer, middleware::TAG_BYTES};
use dataplane_wire::quorum::{reply::Outcome, request::Command};

use super::{ELECTION_MAX, Load, MEMBERS, Seen, key};
use crate::scratch::{Process, Stop};

/// As many as a session's answers are remembered at least.
pub const IN_FLIGHT_MAX: usize = 1024;
/// What a cluster file says that says nothing of it (bench/src/cluster/file.rs): one Ethernet frame.
const FRAME_BYTES: usize = 1472;
const BUFFER_BYTES: usize = 4 << 20;
/// As `dplab kv`'s (bench/src/cluster/port.rs).
const LOOK_MAX: Duration = Duration::from_micros(50);

/// Running replicas.
pub struct Cluster {
    replicas: Vec<Process>,
    addresses: Vec<SocketAddr>,
}

impl Cluster {
    /// Starts them; `folder` takes their cluster file, their data and what they print.
    ///
    /// # Errors
    /// One cannot be started.
    pub fn start(dplab: &Path, wal: &str, folder: &Path) -> anyhow::Result<Cluster> {
        let sockets: Vec<UdpSocket> = (0..MEMBERS)
            .map(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)))
            .collect::<Result<_, _>>()
            .context("looking for free UDP ports on 127.0.0.1")?;
        let addresses: Vec<SocketAddr> = sockets
            .iter()
            .map(UdpSocket::local_addr)
            .collect::<Result<_, _>>()
            .context("asking for a socket's address")?;
        drop(sockets);
        let mut text = "cluster = beside-etcd\n".to_owned();
        for (node, address) in addresses.iter().enumerate() {
            writeln!(text, "node {} = {address}", node + 1)?;
        }
        let file = folder.join("cluster");
        fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
        let replicas = (1..=MEMBERS).map(|node| {
            let data = folder.join(format!("node-{node}"));
            let args = [
                "serve",
                "--cluster",
                &file.display().to_string(),
                "--node",
                &node.to_string(),
                "--data",
                &data.display().to_string(),
                "--wal",
                wal,
            ]
            .map(String::from);
            Process::start(dplab, &args, &folder.join(format!("node-{node}.log")))
        });
        Ok(Cluster {
            replicas: replicas.collect::<anyhow::Result<_>>()?,
            addresses,
        })
    }

    /// Keeps puts under way for as long as `load` says.
    ///
    /// # Errors
    /// A replica has ended, nobody leads, or a put is refused.
    pub fn ask(&mut self, load: Load, stop: &Stop) -> anyhow::Result<Seen> {
        for replica in &mut self.replicas {
            replica.check()?;
        }
        let limits = Limits {
            frame_bytes_max: FRAME_BYTES - TAG_BYTES,
            ..Limits::SMALL
        };
        let port = UdpPort::open(&UdpOptions {
            peers: self.addresses.clone(),
            wait: WaitHow::Epoll,
            look_max: LOOK_MAX,
            batch: Batching::Gso,
            recv_buffer_bytes: BUFFER_BYTES,
            frame_bytes_max: FRAME_BYTES,
            ..UdpOptions::default()
        })?;
        let nodes = (0..MEMBERS as u32).map(|index| (index + 1, Peer(index))).collect();
        let client = Client::new(ClientOptions {
            in_flight_max: load.in_flight,
            ..ClientOptions::new(nodes, &limits, rand::random())
        })
        .context("making a client")?;
        let room = 4 * load.in_flight.max(16);
        let effects = Effects::with_capacity(room, room * limits.frame_bytes_max);
        let clock = MonotonicClock::new();
        let mut asker = Asker {
            node: Node::with_effects(port, MemoryLog::new(), client, effects),
            clock: &clock,
            value: vec![0x61; load.value_bytes],
            flights: HashMap::with_capacity(load.in_flight),
            asked_count: 0,
        };
        // The first put opens a session, at whoever leads.
        let mut first = Seen::new()?;
        asker.put()?;
        asker.finish(&mut first)?;

        let mut seen = Seen::new()?;
        let begin = clock.now();
        let end = begin + load.duration;
        while clock.now() < end && !stop.is_wanted() {
            while asker.flights.len() < load.in_flight && asker.put()? {}
            asker.turn(&mut seen)?;
        }
        // What is under way was asked within the time, and is answered a moment later: both count.
        asker.finish(&mut seen)?;
        seen.elapsed = clock.now() - begin;
        Ok(seen)
    }
}

/// A client with puts under way.
struct Asker<'a> {
    node: Node<UdpPort, MemoryLog, Client>,
    clock: &'a MonotonicClock,
    value: Vec<u8>,
    flights: HashMap<Ticket, Instant>,
    asked_count: u64,
}

impl Asker<'_> {
    /// Asks for the next put. `false`: not before a verdict is taken, because one request has become so old that its answer and the
    /// next one's would not both be remembered.
    fn put(&mut self) -> anyhow::Result<bool> {
        let now = self.clock.now();
        let key = key(self.asked_count);
        let ask = Ask {
            command: Command::Put {
                key: key.as_bytes(),
                value: &self.value,
            },
            route: Route::Leader,
            deadline: now + ELECTION_MAX,
        };
        let ticket = match self.node.protocol_mut().ask(&ask) {
            Ok(ticket) => ticket,
            Err(AskError::Full { .. }) => return Ok(false),
            Err(error) => return Err(error).context("asking for a put"),
        };
        self.asked_count += 1;
        self.flights.insert(ticket, now);
        Ok(true)
    }

    fn turn(&mut self, seen: &mut Seen) -> anyhow::Result<()> {
        self.node
            .run_watched(self.clock, &mut |node| node.protocol().has_verdict())
            .context("speaking to the cluster")?;
        let now = self.clock.now();
        let mut odd = None;
        while self.node.protocol_mut().take(|ticket, verdict| {
            let asked = self.flights.remove(&ticket);
            match (verdict, asked) {
                (Verdict::Answered(Outcome::Done), Some(asked)) => {
                    // An automatic histogram grows.
                    let _ = seen.latency.record((now - asked).as_nanos() as u64);
                }
                (verdict, _) => odd = Some(format!("{verdict:?}")),
            }
        }) {}
        match odd {
            None => Ok(()),
            Some(verdict) => bail!("a put was not done: {verdict}"),
        }
    }

    fn finish(&mut self, seen: &mut Seen) -> anyhow::Result<()> {
        while !self.flights.is_empty() {
            self.turn(seen)?;
        }
        Ok(())
    }
}
