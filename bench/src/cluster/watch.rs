//! What a replica's thread tells those who print: changes of role as they come, everything else when it is asked for.
//! The data path never waits for a terminal.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
    mpsc::{Receiver, SyncSender, sync_channel},
};

use dataplane_kv::Store;
use dataplane_quorum::{Counters, Replica};
use dataplane_waist::{Log, Misplaced, Node, NodeStats, Port};
use dataplane_wire::quorum::status::Status;

/// Changes that wait to be printed. Beyond, the oldest news are what is printed, and the next look shows the present.
const CHANGES_MAX: usize = 64;

/// Everything that can be seen of a replica.
#[derive(Clone, Copy, Debug)]
pub struct View {
    pub status: Status,
    pub counters: Counters,
    pub stats: NodeStats,
    pub keys_count: usize,
    pub used_bytes: u64,
    pub is_damaged: bool,
    /// Whose frames came last from an address that is not its, and from which.
    pub misplaced: Option<Misplaced>,
}

/// The printing side.
#[derive(Debug)]
pub struct Watch {
    wanted: AtomicBool,
    view: Mutex<Option<View>>,
}

impl Watch {
    pub const fn new() -> Watch {
        Watch {
            wanted: AtomicBool::new(false),
            view: Mutex::new(None),
        }
    }

    /// Asks for a view; it is there a turn later.
    pub fn want(&self) {
        self.wanted.store(true, Ordering::Release);
    }

    /// The view that was asked for, once.
    pub fn take(&self) -> Option<View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The replica's side: called between turns.
#[derive(Debug)]
pub struct Watched<'a> {
    watch: &'a Watch,
    changes: SyncSender<Status>,
    last: Option<(u64, Option<u32>, u8)>,
    wrong_address_count: u64,
    misplaced: Option<Misplaced>,
}

/// Both ends of the news of changes.
pub fn watched(watch: &Watch) -> (Watched<'_>, Receiver<Status>) {
    let (changes, to_print) = sync_channel(CHANGES_MAX);
    let watched = Watched {
        watch,
        changes,
        last: None,
        wrong_address_count: 0,
        misplaced: None,
    };
    (watched, to_print)
}

impl Watched<'_> {
    /// Looks at the node. A few comparisons as long as nothing changes and nobody asks.
    pub fn look<P: Port, L: Log>(&mut self, node: &Node<P, L, Replica<Store>>) {
        let replica = node.protocol();
        let now = (replica.term().0, replica.leader(), replica.role() as u8);
        if self.last != Some(now) {
            self.last = Some(now);
            // Full: nobody prints, so nobody misses it.
            let _ = self.changes.try_send(replica.status());
        }
        let wrong_address_count = replica.counters().wrong_address_count;
        if self.wrong_address_count != wrong_address_count {
            self.wrong_address_count = wrong_address_count;
            // At once: a flood can give the peer's number to another address.
            self.misplaced = replica.misplaced().map(|(maker, peer)| Misplaced {
                node: maker,
                address: node.port().peer_addr(peer),
            });
        }
        if self.watch.wanted.load(Ordering::Relaxed) {
            self.watch.wanted.store(false, Ordering::Relaxed);
            let view = View {
                status: replica.status(),
                counters: *replica.counters(),
                stats: node.stats(),
                keys_count: replica.machine().entries_count(),
                used_bytes: replica.machine().used_bytes(),
                is_damaged: replica.is_damaged(),
                // With a key the port tells, and the replica hears nothing of it.
                misplaced: self.misplaced.or_else(|| node.port().misplaced()),
            };
            *self.watch.view.lock().unwrap_or_else(PoisonError::into_inner) = Some(view);
        }
    }
}

/// "leader of term 3", "follower of node 2 in term 3".
pub fn role_in_words(status: &Status) -> String {
    use dataplane_wire::quorum::status::Role;
    let term = status.term;
    match (status.role, status.leader) {
        (Role::Leader, _) => format!("leader of term {term}"),
        (Role::Candidate, _) => format!("candidate in term {term}"),
        (Role::Follower, Some(leader)) => format!("follower of node {leader} in term {term}"),
        (Role::Follower, None) => format!("follower of nobody in term {term}"),
    }
}

impl View {
    /// One line for people.
    pub fn line(&self) -> String {
        let View {
            status,
            counters,
            stats,
            ..
        } = self;
        let mut line = format!(
            "{}; log end {}, committed {}, applied {}; {} keys, {} bytes; {} requests appended, {} reads, {} stale; frames \
             {} in, {} out",
            role_in_words(status),
            status.log_end,
            status.commit_end,
            status.applied_end,
            self.keys_count,
            self.used_bytes,
            counters.appended_count,
            counters.index_reads_count + counters.lease_reads_count,
            counters.stale_reads_count,
            stats.port.rx_frames_count,
            stats.port.tx_frames_count,
        );
        for (count, words) in [
            (counters.busy_count, "refused for want of room"),
            (counters.expired_count, "of sessions that are gone"),
            (counters.refused_count, "refused for what they ask"),
            (counters.resent_count, "entries sent again"),
            (counters.snapshots_count, "snapshots taken"),
            (counters.snapshots_installed_count, "snapshots installed"),
            (stats.port.rx_dropped_count, "frames lost at our door"),
            (stats.port.malformed_count, "frames malformed or forged"),
            (
                counters.wrong_address_count + stats.port.strangers_count,
                "frames of a node from an address that is not its",
            ),
            (stats.rejects.iter().sum(), "frames not understood"),
            (stats.unsent_count, "frames not sent"),
        ] {
            if count > 0 {
                line += &format!(", {count} {words}");
            }
        }
        if self.is_damaged {
            line += "; part of what it once acknowledged is unreadable, and is being fetched from the others";
        }
        line
    }

    /// "node 3's by what they say, and came from another address (last 127.0.0.1:7009) than the cluster file has for it".
    fn misplaced_in_words(&self) -> String {
        let node = match self.misplaced {
            Some(Misplaced { node, .. }) => format!("node {node}"),
            None => "another node".to_owned(),
        };
        let last = match self.misplaced.and_then(|misplaced| misplaced.address) {
            Some(address) => format!(" (last {address})"),
            None => String::new(),
        };
        format!("{node}'s by what they say, and came from another address{last} than the cluster file has for it")
    }

    /// What somebody should look into, of what is new since `earlier`.
    pub fn warnings(&self, earlier: Option<&View>) -> Vec<String> {
        let before = |count: fn(&View) -> u64| earlier.map_or(0, count);
        let mut warnings = Vec::new();
        let mut warn = |count: fn(&View) -> u64, words: &str| {
            let new_count = count(self) - before(count);
            if new_count > 0 {
                warnings.push(format!("{new_count} frames {words}"));
            }
        };
        warn(
            |view| view.counters.wrong_cluster_count,
            "came from nodes of another cluster or another configuration: compare the cluster files (name, voters, quorums, \
             frame-bytes) and --memory; they were dropped",
        );
        warn(
            |view| view.counters.wrong_node_count,
            "name another node than the cluster file has at their address: two replicas with one --node, or files that differ; \
             they were dropped",
        );
        warn(
            |view| view.counters.wrong_address_count + view.stats.port.strangers_count,
            &format!(
                "are {}: a second replica with the same --node (then end one of the two), or one with --listen or another \
                 file (then correct the files); they were dropped",
                self.misplaced_in_words()
            ),
        );
        warn(
            |view| view.stats.port.malformed_count,
            "were malformed or not signed with this cluster's key: another key, another cluster file, or a stranger; they were \
             dropped",
        );
        warn(
            |view| view.counters.impossible_count,
            "say what a sound cluster cannot say (two leaders of one term, say): a replica was started with a log that is not \
             its own; stop the cluster and compare",
        );
        warnings
    }
}
