//! `dplab serve`: one replica of a cluster, from its folder to its last word.

use std::{
    fmt::Display,
    io::{self, Write},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use dataplane_kv::Store;
use dataplane_quorum::{
    Config, Replica, Timing,
    guarantees::{Guarantees, Keeps},
};
use dataplane_waist::{Log, MonotonicClock, Node, Port};
use signal_hook::{consts, flag};

use super::{
    args::ServeArgs,
    file::{Cluster, node_list},
    folder::{self, Owner},
    port,
    watch::{View, Watch, role_in_words, watched},
};
use crate::{load::thread as seat, server};

/// How often the printing thread looks whether there is something to print, or to end.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often what is wrong is said again.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// Runs the replica until SIGINT or SIGTERM.
///
/// # Errors
/// What keeps it from starting, or what made it step down.
pub fn serve(args: &ServeArgs) -> anyhow::Result<()> {
    if let Some(parent) = args.parent {
        server::die_with(parent)?;
    }
    let cluster = Cluster::read(&args.cluster)?;
    let node = args.node;
    let Some(&address) = cluster.nodes.get(&node) else {
        bail!(
            "the cluster file {} has no node {node}; its nodes are {}",
            args.cluster.display(),
            numbers(&cluster)
        );
    };
    let keeps = if args.memory { Keeps::Memory } else { Keeps::Durable };
    let listen = args.listen.unwrap_or(address);
    let key = port::key(&cluster, Some(listen), args.key_file.as_deref())?;
    let port = port::open_replica(&cluster, node, listen, key.as_ref(), args.spin)
        .with_context(|| format!("node {node} cannot listen on {listen}"))?;
    // Before the folder is opened: what could not be written to later without them is refused now.
    let privileges = server::drop_privileges();
    let path = args
        .data
        .clone()
        .unwrap_or_else(|| folder::default_path(&cluster, node));
    let owner = Owner {
        cluster: &cluster,
        node,
        keeps,
    };
    let mut opened = folder::open(&path, owner, args.wal)?;
    let config = Config {
        cluster: cluster.number(keeps),
        node,
        peers: port.peers.clone(),
        members: cluster.members,
        reads: args.reads.mode(),
        timing: Timing::LOCAL,
        limits: cluster.limits(),
        seed: rand::random(),
        mutation: None,
    };
    let guarantees = Guarantees::of(keeps, cluster.members, config.reads, &config.timing);
    let store = Store::new(cluster.store_options())?;
    let mut replica = Replica::recover(config, store, &mut opened.log)
        .with_context(|| format!("node {node} cannot go on from {}", path.display()))?;
    replica.prefault();

    introduce(
        &cluster,
        &replica,
        port.local,
        port.is_sealed,
        &privileges,
        &opened.facts,
    );
    say(Guarantees {
        members: replica.members(),
        ..guarantees
    });
    if keeps == Keeps::Memory {
        say(format_args!(
            "node {node} keeps its vote and its log in memory: when this process ends it cannot come back, and must be \
             replaced (`dplab kv add-node`, `dplab kv remove-node {node}`)"
        ));
    }
    let effects = replica.effects(port.port.caps().batch_frames_max);
    let replica_node = Node::with_effects(port.port, opened.log, replica, effects);
    run(replica_node, node, args.cpu)
}

fn introduce(
    cluster: &Cluster,
    replica: &Replica<Store>,
    local: SocketAddr,
    is_sealed: bool,
    privileges: &str,
    facts: &[String],
) {
    let status = replica.status();
    let sealed = match is_sealed {
        true => "every frame is authenticated",
        false => "frames are not authenticated: this machine only",
    };
    say(format_args!(
        "node {} of cluster {} ({:#018x}) on {local}; {sealed}; privileges {privileges}",
        status.node, cluster.name, status.cluster
    ));
    facts.iter().for_each(say);
    say(format_args!(
        "it begins in term {} with a log up to slot {}; members {}",
        status.term,
        status.log_end,
        node_list(status.members.voters)
    ));
    if !status.members.contains(status.node) {
        say(format_args!(
            "node {0} does not vote: it follows until `dplab kv add-node {0}`",
            status.node
        ));
    }
}

fn numbers(cluster: &Cluster) -> String {
    node_list(cluster.nodes.keys().fold(0, |nodes, node| nodes | 1 << node))
}

/// A line for whoever looks. That nobody does is no reason to end.
fn say(line: impl Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

type ReplicaNode = Node<Box<dyn Port>, Box<dyn Log + Send>, Replica<Store>>;

/// Turns the node in a thread of its own and prints beside it.
fn run(mut replica_node: ReplicaNode, node: u32, cpu: Option<usize>) -> anyhow::Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [consts::SIGINT, consts::SIGTERM] {
        // The second one ends at once: the log is made for that.
        flag::register_conditional_shutdown(signal, 128 + signal, stop.clone()).context("handling signals")?;
        flag::register(signal, stop.clone()).context("handling signals")?;
    }
    let asked = Arc::new(AtomicBool::new(false));
    flag::register(consts::SIGUSR1, asked.clone()).context("handling signals")?;

    let watch = Watch::new();
    let (mut watched, changes) = watched(&watch);
    let ended = AtomicBool::new(false);
    let (outcome, cpu_fact) = thread::scope(|scope| {
        let turning = scope.spawn(|| {
            let pinned = cpu.map(seat::pin);
            if pinned.as_ref().is_none_or(|pinned| pinned.done) {
                seat::tighten_timers();
            }
            let is_seated = pinned.as_ref().is_none_or(|pinned| pinned.done);
            let outcome = match is_seated {
                true => replica_node.run_watched(&MonotonicClock::new(), &mut |replica_node| {
                    watched.look(replica_node);
                    stop.load(Ordering::Relaxed)
                }),
                false => Ok(()),
            };
            ended.store(true, Ordering::Release);
            (outcome, pinned)
        });
        let mut printed: Option<View> = None;
        let mut warned_at = Instant::now();
        let mut is_asked = false;
        while !ended.load(Ordering::Acquire) && !turning.is_finished() {
            thread::sleep(LOOK_EVERY);
            for status in changes.try_iter() {
                say(format_args!("node {node}: {}", role_in_words(&status)));
            }
            if asked.swap(false, Ordering::Relaxed) {
                is_asked = true;
                watch.want();
            }
            if warned_at.elapsed() >= WARN_EVERY {
                warned_at = Instant::now();
                watch.want();
            }
            if let Some(view) = watch.take() {
                if std::mem::take(&mut is_asked) {
                    say(format_args!("node {node}: {}", view.line()));
                }
                for warning in view.warnings(printed.as_ref()) {
                    say(format_args!("node {node}: warning: {warning}"));
                }
                printed = Some(view);
            }
        }
        turning.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    if let Some(refused) = cpu_fact.filter(|pinned| !pinned.done) {
        bail!("node {node} cannot stay on the CPU that --cpu names: {}", refused.fact);
    }
    let status = replica_node.protocol().status();
    outcome.with_context(|| {
        format!(
            "node {node} steps down ({}): what it acknowledged is safe as far as the guarantees say, and it says nothing more; \
             the others go on if they are a quorum",
            role_in_words(&status)
        )
    })?;
    say(format_args!(
        "node {node}: ended on request, {}; log end {}, committed {}",
        role_in_words(&status),
        status.log_end,
        status.commit_end
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io;

    use dataplane_ports::udp::{UdpOptions, UdpPort};
    use dataplane_waist::{Durable, MemoryLog, Recovered, Slot, Snapshot, Term};

    use super::*;

    /// A log whose sync fails once it holds a slot.
    struct Failing {
        inner: MemoryLog,
        kind: io::ErrorKind,
        slots_count: u64,
    }

    impl Log for Failing {
        fn append(&mut self, slot: Slot, term: Term, payload: &[u8]) -> io::Result<()> {
            self.slots_count += 1;
            self.inner.append(slot, term, payload)
        }
        fn set_state(&mut self, state: &[u8]) -> io::Result<()> {
            self.inner.set_state(state)
        }
        fn install(&mut self, snapshot: &Snapshot) -> io::Result<()> {
            self.inner.install(snapshot)
        }
        fn sync(&mut self) -> io::Result<()> {
            match self.slots_count {
                0 => self.inner.sync(),
                _ => Err(self.kind.into()),
            }
        }
        fn durable(&mut self) -> io::Result<Durable> {
            self.inner.durable()
        }
        fn recover(&mut self, visit: &mut dyn FnMut(Recovered<'_>)) -> io::Result<Slot> {
            self.inner.recover(visit)
        }
    }

    /// A cluster of one elects itself, and its first entry is the first that the disk does not take.
    #[test]
    fn a_replica_whose_disk_fails_steps_down_with_the_reason() {
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::ReadOnlyFilesystem] {
            let cluster = Cluster::parse("cluster = one\nnode 0 = 127.0.0.1:9\n").expect("sound");
            let mut log: Box<dyn Log + Send> = Box::new(Failing {
                inner: MemoryLog::new(),
                kind,
                slots_count: 0,
            });
            let config = Config {
                cluster: 1,
                node: 0,
                peers: Vec::new(),
                members: cluster.members,
                reads: dataplane_quorum::ReadMode::Index,
                timing: Timing::LOCAL,
                limits: cluster.limits(),
                seed: 1,
                mutation: None,
            };
            let store = Store::new(cluster.store_options()).expect("sound");
            let replica = Replica::recover(config, store, &mut log).expect("an empty log");
            let port: Box<dyn Port> = Box::new(UdpPort::open(&UdpOptions::default()).expect("loopback"));
            let effects = replica.effects(1);
            let error = run(Node::with_effects(port, log, replica, effects), 0, None).expect_err("the disk fails");
            let error = format!("{error:#}");
            assert!(error.contains("node 0 steps down"), "{error}");
            assert!(error.contains(&io::Error::from(kind).to_string()), "{error}");
        }
    }
}
