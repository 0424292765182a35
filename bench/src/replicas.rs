//! A cluster for a measurement: replicas in processes of their own on this machine, and one client beside them; or an echo
//! in the same process and over the same sockets, so that a commit stands beside the ping-pong that it is made of.

mod broadcast;
pub(crate) mod chaining;
mod client;
mod driver;
mod echo;
mod events;
pub(crate) mod grants;
mod ground;
mod hosted;
mod open_loop;
mod parts;
mod port;
mod process;
mod receive;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Context;
use clap::ValueEnum;
use dataplane_quorum::{Limits, Timing, majorities};
use dataplane_wal::Engine;
use ebpf_host::Mode;
use serde::{Deserialize, Serialize};

use crate::{
    host::{RunTime, Scheduler, Seat},
    place::Endpoint,
    record::Better,
    server::{Server, Starting},
};

pub use client::{Asked, Client, ClientOptions};
pub use events::{Event, Happened, Observer};
pub use ground::{CardPlace, Ground, Losing};
pub use hosted::{Shards, main as main_hosted};
pub use open_loop::{Answer, Arrivals, Kept, OpenClient, OpenOptions};
pub use parts::Parts;
pub use port::Network;
pub use process::main;
pub use receive::{ReceiveCpu, ReceiveThreads};

/// One number for all clusters that are measured: they never meet.
const CLUSTER: u64 = 0x6470_6c61_6221;

/// The hidden subcommand.
pub const SUBCOMMAND: &str = "serve-replica";
/// The same for a process with a replica of each of several clusters.
pub const SUBCOMMAND_HOSTED: &str = "serve-shards";

/// What a replica's process is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReplicaConfig {
    /// Who starts it; it ends when that process does.
    pub parent_pid: u32,
    /// A back end's name.
    pub backend: String,
    /// What lies between it and the others.
    pub network: Network,
    /// Its number, an index of `endpoints`.
    pub node: u32,
    /// Of all replicas; one alone is an echo.
    pub endpoints: Vec<Endpoint>,
    /// Where the client is, if that must be known beforehand; others are learned.
    pub client: Option<Endpoint>,
    /// An address that is every replica's: what the switch floods.
    pub group: Option<Endpoint>,
    /// Where its programs are, if not in its own host.
    pub card: Option<CardPlace>,
    /// What it does.
    pub role: ReplicaRole,
    /// Where it is to run.
    pub seat: Seat,
    /// How.
    pub manner: Manner,
}

/// How replicas run, besides where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manner {
    /// How often a leader lets everybody hear from it; all other timers follow ([`timing_of`]). `None`: as a cluster of one
    /// rack ([`Timing::LOCAL`]).
    pub heartbeat: Option<Duration>,
    /// Who decides when it runs.
    pub scheduler: Scheduler,
    /// Who is told of elections ([`Observer`]).
    pub observer: Option<SocketAddr>,
    /// How entries get from a leader's program to its followers'.
    pub fan_out: FanOut,
    /// The length of a segment of its log on disk; `None`: the log's own choice. Each is written once before it is used, which
    /// takes long where there are many logs.
    pub segment_bytes: Option<u64>,
    /// How often a replica's programs are replaced by newly loaded ones while it runs, as by an upgrade. They are loaded before it
    /// gives up its privileges.
    pub reloads_count: u32,
}

/// One frame of a leader's program, and how it reaches all followers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum FanOut {
    /// To an address that is nobody's, which a switch floods: each follower acknowledges its own copy.
    #[default]
    Flood,
    /// As [`FanOut::Flood`], to a multicast address of Ethernet: a bridge gives itself a copy, too.
    Multicast,
    /// To the first, which hands it on to the second, and so on; the last acknowledges for all.
    Chain,
}

/// A follower that has heard nothing for this many heartbeats may stand for election: three misses, the usual "suspect after
/// three".
pub const MISSES_MIN: u32 = 3;
/// And one that has heard nothing for this many does. The draw between the two keeps two followers from standing at once
/// (Raft, section 9.3: a spread of the time-out's own size).
pub const MISSES_MAX: u32 = 6;

/// The timers that belong to a heartbeat.
pub fn timing_of(heartbeat: Duration) -> Timing {
    Timing {
        heartbeat,
        election_min: heartbeat * MISSES_MIN,
        election_max: heartbeat * MISSES_MAX,
        ..Timing::LOCAL
    }
}

/// What a replica's process does with its port.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplicaRole {
    /// Sends back what comes: the floor.
    Echo,
    /// A program at its host's interface sends back what comes.
    Reflector {
        /// Where frames meet it.
        mode: ProgramMode,
    },
    /// Replicates and keeps its log in memory.
    Memory,
    /// Replicates and keeps its log in this folder, by this way to disk; one whose name ends in [`INLINE`] is written to in
    /// the replica's own turn.
    Durable(PathBuf, String),
    /// Replicates; programs at its host's interface do the normal case, or parts of it, in its place.
    Driver {
        /// Where frames meet them.
        mode: ProgramMode,
        /// What programs do.
        parts: Parts,
        /// Keeps its log in this folder, by this way to disk, and acknowledges nothing before it is there; in memory without.
        disk: Option<(PathBuf, String)>,
    },
}

/// A [`Mode`] on a command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProgramMode {
    /// [`Mode::Generic`].
    Generic,
    /// [`Mode::Native`].
    Native,
    /// [`Mode::Offload`].
    Offload,
}

impl From<Mode> for ProgramMode {
    fn from(mode: Mode) -> ProgramMode {
        match mode {
            Mode::Generic => ProgramMode::Generic,
            Mode::Native => ProgramMode::Native,
            Mode::Offload => ProgramMode::Offload,
        }
    }
}

impl From<ProgramMode> for Mode {
    fn from(mode: ProgramMode) -> Mode {
        match mode {
            ProgramMode::Generic => Mode::Generic,
            ProgramMode::Native => Mode::Native,
            ProgramMode::Offload => Mode::Offload,
        }
    }
}

/// The last line on a replica's stdout.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ReplicaReport {
    /// Frames sent and received over its whole life, heartbeats and elections included.
    pub tx_frames_count: u64,
    /// See `tx_frames_count`.
    pub rx_frames_count: u64,
    /// Frames lost at its own socket, as far as the kernel says.
    pub dropped_count: u64,
    /// Entries applied.
    pub applied_count: u64,
    /// Entries sent again.
    pub resent_count: u64,
    /// Elections it stood for.
    pub elections_count: u64,
    /// Frames that a correct cluster cannot send.
    pub impossible_count: u64,
    /// Flushes of a log with a thread of its own.
    pub flushes_count: u64,
    /// How often its replica had to wait for the disk because the queue was full.
    pub log_stalls_count: u64,
    /// The log in memory, as far as it is committed.
    pub log: LogDigest,
    /// What its programs in the driver counted, and what its replica did with them.
    pub programs: BTreeMap<String, u64>,
}

/// A log in a few numbers: two that agree in them are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogDigest {
    /// The first slot that is still in memory.
    pub begin: u64,
    /// Everything before is committed.
    pub commit_end: u64,
    /// Requests of clients in it, each counted once however often it is there.
    pub requests_count: u64,
    /// CRC-32C over the term and the checksum of each entry.
    pub crc: u32,
}

/// What went wrong among replicas, or might have: name, sum over all, and which way is better.
pub fn troubles(reports: &[ReplicaReport]) -> [(&'static str, f64, Better); 3] {
    let sum = |of: fn(&ReplicaReport) -> u64| reports.iter().map(of).sum::<u64>() as f64;
    [
        ("entries_sent_again", sum(|report| report.resent_count), Better::Lower),
        ("elections", sum(|report| report.elections_count), Better::Neither),
        (
            "impossible_frames",
            sum(|report| report.impossible_count),
            Better::Lower,
        ),
    ]
}

/// Behind the name of a way to disk: without the thread that a log with it has otherwise.
pub const INLINE: &str = "-inline";

/// The bounds of replicas that are measured.
fn limits(frame_bytes_max: usize) -> Limits {
    Limits {
        frame_bytes_max,
        ..Limits::SMALL
    }
}

/// The way to disk of that name.
pub fn engine(name: &str) -> Option<Engine> {
    Engine::NAMED.into_iter().find(|engine| engine.name() == name)
}

/// What an answer of a cluster of `count` replicas means, in a line.
pub fn guarantee(is_durable: bool, count: usize) -> String {
    let quorum = majorities(u32::MAX >> (32 - count)).commit_count;
    match is_durable {
        false => format!("{quorum} of {count} processes have it in memory; it is gone when a majority of them ends"),
        true => format!("{quorum} of {count} replicas have it on disk; it survives the end of all processes"),
    }
}

/// Running replicas. Dropping them ends them.
#[derive(Debug)]
pub struct Replicas {
    servers: Vec<Server>,
    configs: Vec<ReplicaConfig>,
    /// Where they are, by node.
    pub endpoints: Vec<Endpoint>,
}

impl Replicas {
    /// Starts one process for each seat. `role` says what node `n` does.
    ///
    /// # Errors
    /// One could not be started, or did not become ready.
    pub fn start(
        backend: &str,
        way: (&Ground, Network),
        seats: &[Seat],
        role: impl Fn(usize) -> ReplicaRole,
    ) -> anyhow::Result<Replicas> {
        Replicas::start_as(backend, way, seats, Manner::default(), role)
    }

    /// [`Replicas::start`], in another manner than the usual one.
    ///
    /// # Errors
    /// As there.
    pub fn start_as(
        backend: &str,
        (ground, network): (&Ground, Network),
        seats: &[Seat],
        manner: Manner,
        role: impl Fn(usize) -> ReplicaRole,
    ) -> anyhow::Result<Replicas> {
        let endpoints = ground.replicas(seats.len())?;
        let config = |(index, &seat): (usize, &Seat)| ReplicaConfig {
            parent_pid: std::process::id(),
            backend: backend.to_owned(),
            network,
            node: index as u32,
            endpoints: endpoints.clone(),
            client: matches!(role(index), ReplicaRole::Driver { .. }).then(|| ground.client()),
            group: ground.group(manner.fan_out),
            card: ground.card(index),
            role: role(index),
            seat,
            manner,
        };
        let configs: Vec<ReplicaConfig> = seats.iter().enumerate().map(config).collect();
        // Side by side: programs in the driver take the kernel a while to verify.
        let starting: Vec<Starting> = configs
            .iter()
            .map(|config| begin_one(ground, config))
            .collect::<anyhow::Result<_>>()?;
        let servers = configs
            .iter()
            .zip(starting)
            .map(|(config, starting)| ready_one(config, starting));
        Ok(Replicas {
            servers: servers.collect::<anyhow::Result<_>>()?,
            configs,
            endpoints,
        })
    }

    /// Starts a replica again that was killed: with the log that it left on disk, if it keeps one there. One that kept it in
    /// memory has forgotten what it promised, and is no replica of the cluster any more.
    ///
    /// # Errors
    /// As [`Replicas::start`].
    pub fn start_again(&mut self, ground: &Ground, node: usize) -> anyhow::Result<()> {
        let config = &self.configs[node];
        self.servers[node] = ready_one(config, begin_one(ground, config)?)?;
        Ok(())
    }

    /// How each runs, as facts of a row.
    pub fn facts(&self) -> impl Iterator<Item = (String, String)> + '_ {
        let numbered = self.servers.iter().enumerate();
        numbered.flat_map(|(node, server)| {
            let facts = server.facts().iter();
            facts.map(move |(name, value)| (format!("node_{node}_{name}"), value.clone()))
        })
    }

    /// CPU time of each so far.
    pub fn run_times(&self) -> Vec<Option<RunTime>> {
        self.servers.iter().map(Server::run_time).collect()
    }

    /// How often each has gone to sleep so far.
    pub fn sleeps_counts(&self) -> Vec<Option<u64>> {
        self.servers.iter().map(Server::sleeps_count).collect()
    }

    /// Stops a replica in its tracks (SIGSTOP), or lets it go on.
    ///
    /// # Errors
    /// It is gone.
    pub fn pause(&self, node: usize, paused: bool) -> anyhow::Result<()> {
        self.servers[node].pause(paused)
    }

    /// Ends a replica as a crash does (SIGKILL).
    ///
    /// # Errors
    /// It is gone.
    pub fn kill(&self, node: usize) -> anyhow::Result<()> {
        self.servers[node].kill()
    }

    /// Ends all but those that were killed, and takes their reports with their nodes.
    ///
    /// # Errors
    /// Another one had died before.
    pub fn finish_but(self, killed: &[usize]) -> anyhow::Result<Vec<(usize, ReplicaReport)>> {
        let living = self
            .servers
            .into_iter()
            .enumerate()
            .filter(|(node, _)| !killed.contains(node));
        living.map(|(node, server)| Ok((node, server.finish_as()?))).collect()
    }

    /// Ends them and takes their reports, by node.
    ///
    /// # Errors
    /// One had died before.
    pub fn finish(self) -> anyhow::Result<Vec<ReplicaReport>> {
        self.servers.into_iter().map(Server::finish_as).collect()
    }
}

fn begin_one(ground: &Ground, config: &ReplicaConfig) -> anyhow::Result<Starting> {
    let begun = ground.inside_replica(config.node as usize, || Server::begin_as(SUBCOMMAND, config))?;
    begun.with_context(|| starting(config))
}

fn ready_one(config: &ReplicaConfig, begun: Starting) -> anyhow::Result<Server> {
    begun.ready().with_context(|| starting(config))
}

fn starting(config: &ReplicaConfig) -> String {
    format!("starting replica {} over {}", config.node, config.backend)
}
