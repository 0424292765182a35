//! A replica's own process in a measurement: opens its port and its log, gives up its privileges, turns until its stdin
//! closes.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use dataplane_echo::EchoServer;
use dataplane_kv::{Store, StoreOptions};
use dataplane_quorum::{Config, ReadMode, Replica, Timing, majorities};
use dataplane_waist::{Log, MemoryLog, MonotonicClock, Node, Peer, Port, Protocol};
use dataplane_wal::{FolderStorage, ThreadedStats, ThreadedWal, Wal, WalOptions};

use super::{
    CLUSTER, INLINE, Manner, ReplicaConfig, ReplicaReport, ReplicaRole, engine,
    events::Herald,
    limits,
    port::{self, Opened},
    timing_of,
};
use crate::{backends, host, server};

/// How a replica runs, as facts of a row.
pub(super) type Facts = BTreeMap<String, String>;
/// What ends a replica, once it has begun.
pub(super) type Begun = anyhow::Result<Arc<AtomicBool>>;

/// The replica's process: everything behind [`super::SUBCOMMAND`].
///
/// # Errors
/// A configuration that cannot be read, a port or a log that cannot be opened or that fails.
pub fn main(config: &str) -> anyhow::Result<()> {
    let config: ReplicaConfig = serde_json::from_str(config).context("reading the replica's configuration")?;
    server::die_with(config.parent_pid)?;
    let own = config.endpoints[config.node as usize].addr;
    let report = serve(&config, |facts| {
        server::say_ready(Some(own), facts)?;
        Ok(server::stop_at_eof(|_| {}, || {}))
    })?;
    server::say(&report)
}

/// Opens a replica's port and log, and turns it on the calling thread until the flag that `begin` gives is set. `begin` is
/// called once everything is open; its facts say how the replica runs.
pub(super) fn serve(config: &ReplicaConfig, begin: impl FnOnce(Facts) -> Begun) -> anyhow::Result<ReplicaReport> {
    let backend = backends::by_name(&config.backend).with_context(|| format!("no back end {:?}", config.backend))?;
    let local = &config.endpoints[config.node as usize];
    let Opened {
        port,
        peers,
        keeps: _program,
    } = port::open(backend, &config.network, Some(config.node), local, &config.endpoints)?;
    match &config.role {
        ReplicaRole::Echo => {
            let node = Node::new(port, MemoryLog::new(), EchoServer, 1);
            let (port, ..) = turn(node, config, begin, |_| {})?;
            Ok(ReplicaReport {
                tx_frames_count: port.tx_frames_count,
                rx_frames_count: port.rx_frames_count,
                dropped_count: port.rx_dropped_count + port.tx_dropped_count,
                ..ReplicaReport::default()
            })
        }
        ReplicaRole::Memory => {
            let bounds = limits(port.caps().frame_bytes_max);
            let log = MemoryLog::with_capacity(bounds.window_slots, bounds.window_bytes);
            replicate(port, peers, log, config, begin)
        }
        ReplicaRole::Durable(folder, name) => {
            let (wal, is_threaded) = open_log(folder, name, &config.manner)?;
            match is_threaded {
                true => replicate(port, peers, ThreadedWal::new(wal)?, config, begin),
                false => replicate(port, peers, wal, config, begin),
            }
        }
    }
}

/// The log, and whether a thread of its own is to write it.
fn open_log(folder: &Path, name: &str, manner: &Manner) -> anyhow::Result<(Wal, bool)> {
    let is_inline = name.ends_with(INLINE);
    let engine =
        engine(name.strip_suffix(INLINE).unwrap_or(name)).with_context(|| format!("no way to disk {name:?}"))?;
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let storage = FolderStorage::open(folder, engine)?;
    let mut options = WalOptions::new(CLUSTER);
    options.segment_bytes = manner.segment_bytes.unwrap_or(options.segment_bytes);
    let wal = Wal::open(Box::new(storage), options)?;
    Ok((wal, engine.blocks() && !is_inline))
}

fn replicate<L: Log + Counts>(
    port: Box<dyn Port>,
    peers: Vec<(u32, Peer)>,
    mut log: L,
    config: &ReplicaConfig,
    begin: impl FnOnce(Facts) -> Begun,
) -> anyhow::Result<ReplicaReport> {
    let count = config.endpoints.len() as u32;
    let settings = Config {
        cluster: CLUSTER,
        node: config.node,
        peers,
        members: majorities(u32::MAX >> (32 - count)),
        reads: ReadMode::Index,
        timing: config.manner.heartbeat.map_or(Timing::LOCAL, timing_of),
        limits: limits(port.caps().frame_bytes_max),
        seed: u64::from(config.parent_pid),
        mutation: None,
    };
    let store = Store::new(StoreOptions::default())?;
    let replica = Replica::recover(settings, store, &mut log).context("making the replica")?;
    let effects = replica.effects(port.caps().batch_frames_max);
    let node = Node::with_effects(port, log, replica, effects);
    let mut herald = Herald::open(config.manner.observer, config.node)?;
    let (port, log, replica) = turn(node, config, begin, |replica: &Replica<Store>| {
        if let Some(herald) = &mut herald {
            herald.look(replica);
        }
    })?;
    let counters = replica.counters();
    let log = log.counts();
    Ok(ReplicaReport {
        tx_frames_count: port.tx_frames_count,
        rx_frames_count: port.rx_frames_count,
        dropped_count: port.rx_dropped_count + port.tx_dropped_count,
        applied_count: counters.applied_count,
        resent_count: counters.resent_count,
        elections_count: counters.elections_count,
        impossible_count: counters.impossible_count,
        flushes_count: log.flushes_count,
        log_stalls_count: log.stalls_count,
    })
}

/// A replica that only has its heartbeats to send and a client's slow stream to serve sleeps many times in so long; a
/// real-time one that does not, spins by mistake.
const REALTIME_MAX: Duration = Duration::from_secs(3);

/// Turns the node until the parent has had enough; `watch` looks at the protocol after each turn.
fn turn<L: Log, M: Protocol>(
    mut node: Node<Box<dyn Port>, L, M>,
    config: &ReplicaConfig,
    begin: impl FnOnce(Facts) -> Begun,
    mut watch: impl FnMut(&M),
) -> anyhow::Result<(dataplane_waist::PortStats, L, M)> {
    let mut facts = host::settle_as("replica", config.seat, config.manner.scheduler);
    // One that a closed loop keeps busy need not sleep at all.
    if config.manner.observer.is_some()
        && let Some(why) = host::bound_realtime(REALTIME_MAX)
    {
        facts.insert("replica_realtime".to_owned(), why);
    }
    let stop = begin(facts)?;
    host::own_files();
    let mut look = |node: &Node<Box<dyn Port>, L, M>| {
        watch(node.protocol());
        stop.load(Ordering::Acquire)
    };
    node.run_watched(&MonotonicClock::new(), &mut look)
        .context("the replica's port or log failed")?;
    let stats = node.stats();
    let (_, log, protocol) = node.into_parts();
    Ok((stats.port, log, protocol))
}

/// What a log with a thread of its own has counted; nothing for others.
trait Counts {
    fn counts(&self) -> ThreadedStats {
        ThreadedStats::default()
    }
}

impl Counts for MemoryLog {}
impl Counts for Wal {}
impl Counts for ThreadedWal {
    fn counts(&self) -> ThreadedStats {
        self.stats()
    }
}
