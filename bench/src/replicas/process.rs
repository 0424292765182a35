//! A replica's own process in a measurement: opens its port and its log, gives up its privileges, turns until its stdin
//! closes.

use std::{
    collections::{BTreeMap, HashSet},
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
use dataplane_quorum::{Config, ReadMode, Replica, Timing, driver::Driven, majorities};
use dataplane_waist::{Log, MemoryLog, MonotonicClock, Node, Peer, Port, PortStats, Protocol, Slot};
use dataplane_wal::{FolderStorage, ThreadedStats, ThreadedWal, Wal, WalOptions};
use dataplane_wire::{
    checksum::crc32c,
    quorum::entry::{self, Entry},
};
use ebpf_host::{Mode, Program};

use super::{
    CLUSTER, INLINE, LogDigest, Manner, ReplicaConfig, ReplicaReport, ReplicaRole,
    driver::{InDriver, InDriverOptions},
    engine,
    events::Herald,
    limits,
    port::{self, Opened},
    timing_of,
};
use crate::{
    backends::{self, xdp},
    host,
    place::Endpoint,
    server,
};

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
        match config.role {
            ReplicaRole::Driver { .. } => server::say_ready_with_programs(Some(own), facts)?,
            _ => server::say_ready(Some(own), facts)?,
        }
        Ok(server::stop_at_eof(|_| {}, || {}))
    })?;
    server::say(&report)
}

/// Opens a replica's port and log, and turns it on the calling thread until the flag that `begin` gives is set. `begin` is
/// called once everything is open; its facts say how the replica runs.
pub(super) fn serve(config: &ReplicaConfig, begin: impl FnOnce(Facts) -> Begun) -> anyhow::Result<ReplicaReport> {
    let backend = backends::by_name(&config.backend).with_context(|| format!("no back end {:?}", config.backend))?;
    let local = &config.endpoints[config.node as usize];
    if let ReplicaRole::Reflector { mode } = config.role {
        return reflect(local, config, mode.into(), begin);
    }
    let Opened {
        port,
        peers,
        keeps: _program,
    } = {
        let broadcasts = matches!(&config.role, ReplicaRole::Driver { parts, .. } if parts.broadcasts);
        let group = config.group.as_ref().filter(|_| broadcasts);
        let known = (&config.endpoints[..], config.client.as_ref(), group);
        port::open(backend, &config.network, Some(config.node), local, known)?
    };
    match &config.role {
        ReplicaRole::Reflector { .. } => unreachable!("it has no port"),
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
            replicate((port, peers), log, None, config, begin)
        }
        ReplicaRole::Driver { mode, parts, disk } => {
            let options = InDriverOptions {
                mode: (*mode).into(),
                parts: *parts,
                waits_for_disk: disk.is_some(),
                fan_out: config.manner.fan_out,
            };
            let Some((folder, name)) = disk else {
                let bounds = limits(port.caps().frame_bytes_max);
                let log = MemoryLog::with_capacity(bounds.window_slots, bounds.window_bytes);
                let programs = InDriver::attach(config, options)?;
                return replicate((port, peers), log, Some(programs), config, begin);
            };
            let (wal, is_threaded) = open_log(folder, name, &config.manner)?;
            let programs = Some(InDriver::attach(config, options)?);
            match is_threaded {
                true => replicate((port, peers), ThreadedWal::new(wal)?, programs, config, begin),
                false => replicate((port, peers), wal, programs, config, begin),
            }
        }
        ReplicaRole::Durable(folder, name) => {
            let (wal, is_threaded) = open_log(folder, name, &config.manner)?;
            match is_threaded {
                true => replicate((port, peers), ThreadedWal::new(wal)?, None, config, begin),
                false => replicate((port, peers), wal, None, config, begin),
            }
        }
    }
}

/// The program does it all; this process holds it.
fn reflect(
    local: &Endpoint,
    config: &ReplicaConfig,
    mode: Mode,
    begin: impl FnOnce(Facts) -> Begun,
) -> anyhow::Result<ReplicaReport> {
    let _program = xdp::attach(Program::Echo, local, mode)?;
    let stop = begin(host::settle("replica", config.seat))?;
    while !stop.load(Ordering::Acquire) {
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(ReplicaReport::default())
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
    (port, peers): (Box<dyn Port>, Vec<(u32, Peer)>),
    mut log: L,
    programs: Option<InDriver>,
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
    let mut replica = Replica::recover(settings, store, &mut log).context("making the replica")?;
    replica.prefault();
    let effects = replica.effects(port.caps().batch_frames_max);
    let mut herald = Herald::open(config.manner.observer, config.node)?;
    let mut look = |replica: &Replica<Store>| {
        if let Some(herald) = &mut herald {
            herald.look(replica);
        }
    };
    let Some(programs) = programs else {
        let node = Node::with_effects(port, log, replica, effects);
        let (port, log, replica) = turn(node, config, begin, look)?;
        return Ok(report(&port, log.counts(), &replica));
    };
    let mode = programs.mode();
    let node = Node::with_effects(port, log, Driven::new(replica, programs), effects);
    let begin = |mut facts: Facts| {
        facts.insert(
            "replica_programs".to_owned(),
            format!("quorum_leader and quorum_follower, {mode}"),
        );
        begin(facts)
    };
    let (port, log, driven) = turn(node, config, begin, |driven: &Driven<Store, InDriver>| {
        look(driven.replica());
    })?;
    let counters = driven.counters();
    let mut report = report(&port, log.counts(), driven.replica());
    report.programs = driven.driver().counts()?;
    report.programs.extend([
        ("grants".to_owned(), counters.grants_count),
        ("revokes".to_owned(), counters.revokes_count),
        ("entries_taken_over".to_owned(), counters.entries_count),
        ("answered_by_program".to_owned(), counters.answered_count),
        ("frames_kept_waiting".to_owned(), counters.waited_count),
    ]);
    Ok(report)
}

fn report(port: &PortStats, log: ThreadedStats, replica: &Replica<Store>) -> ReplicaReport {
    let counters = replica.counters();
    ReplicaReport {
        tx_frames_count: port.tx_frames_count,
        rx_frames_count: port.rx_frames_count,
        dropped_count: port.rx_dropped_count + port.tx_dropped_count,
        applied_count: counters.applied_count,
        resent_count: counters.resent_count,
        elections_count: counters.elections_count,
        impossible_count: counters.impossible_count,
        flushes_count: log.flushes_count,
        log_stalls_count: log.stalls_count,
        log: digest(replica),
        programs: BTreeMap::new(),
    }
}

fn digest(replica: &Replica<Store>) -> LogDigest {
    let window = replica.window();
    let (begin, commit_end) = (window.begin().0, replica.commit_end().0.min(window.end().0));
    let mut requests = HashSet::new();
    let mut words = Vec::new();
    for view in (begin..commit_end).filter_map(|slot| window.get(Slot(slot))) {
        words.extend_from_slice(&view.term.0.to_be_bytes());
        words.extend_from_slice(&view.crc.to_be_bytes());
        if let Ok(Entry::Request(request)) = entry::parse(view.bytes) {
            requests.insert((request.client, request.sequence));
        }
    }
    LogDigest {
        begin,
        commit_end,
        requests_count: requests.len() as u64,
        crc: crc32c(&words),
    }
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
