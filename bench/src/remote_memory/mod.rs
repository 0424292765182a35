//! Clusters that replicate by writing each other's memory, over real providers of RDMA in software: threads of this process, one for
//! each role, so that what each role costs is that thread's CPU time.
//!
//! ```text
//!  leader's thread        cards' thread                         a thread for each follower's process
//!  client, replica    ⇄   what NICs would do, for all of them   replica: polls its memory, or stands still
//! ```
//!
//! A NIC moves bytes without its host's CPU. These providers have no NIC: the *cards' thread* stands for those of all nodes
//! ([`rdma::card`]), and what it costs is counted as the cards', not as the leader's or the followers'.

pub mod af_xdp;
pub mod asked;
mod cards;
mod client;
pub mod pair;
pub mod served;
mod told;
mod wires;

use std::{sync::Mutex, time::Duration};

use anyhow::Context;
use dataplane_kv::{Store, StoreOptions};
use dataplane_quorum::onesided::{Config, Layout, Limits, Planes, Replica, Start, Timing};
use dataplane_waist::{Clock, Effects, Instant, MonotonicClock, Peer, Window};
use rdma::{
    Provider, QpOptions, RdmaWindow, WindowOptions,
    card::{self, Card, Host},
};

use crate::measure::gates::Observation;

pub use self::{
    cards::{Cards, Service},
    client::Client,
    told::Told,
    wires::{Wires, open_roce, open_shm},
};

/// Slots of the log: as many commits pass a follower that stands still.
pub const SLOTS_COUNT: u64 = 8192;

/// What stands where in the windows, where no entry is longer than a put of so many bytes. Slots are no longer than that takes: more
/// would be memory between them that nobody writes, and every entry would be where no cache has been.
pub fn layout_of(value_bytes_max: usize) -> Layout {
    Layout {
        slots_count: SLOTS_COUNT,
        entry_bytes_max: Client::new(value_bytes_max).put_bytes(),
        snapshot_bytes_max: 1 << 18,
    }
}

/// The leader leads no more: a follower has let another one in. What was written without permission has broken a connection, and who set
/// the cluster up sets none up again.
#[derive(Debug, thiserror::Error)]
#[error("another replica took the leader for dead, and was let in")]
pub struct Deposed;

/// What a trial has seen; nothing, and that is noted, where its leader was deposed.
///
/// # Errors
/// Whatever else went wrong in it.
pub fn unless_deposed<T>(seen: anyhow::Result<T>, observed: &mut Vec<Observation>) -> anyhow::Result<Option<T>> {
    match seen {
        Err(error) if error.is::<Deposed>() => {
            observed.push(Observation::Deposed);
            Ok(None)
        }
        seen => seen.map(Some),
    }
}

/// A node's two windows, and its replica.
pub struct Node<P> {
    background: RdmaWindow<Host<P>>,
    replication: RdmaWindow<Host<P>>,
    layout: Layout,
    replica: Replica<Told<Store>>,
    out: Effects,
}

impl<P: Provider> Node<P> {
    /// Lets the replica look at everything once.
    pub fn turn(&mut self, now: Instant) {
        let mut planes = Planes {
            background: &mut self.background,
            replication: &mut self.replication,
        };
        self.replica.turn(now, &mut planes, &mut self.out);
    }

    /// Whether it has led ever since it first did.
    ///
    /// # Errors
    /// It leads no more, or another one led in between.
    pub fn still_leads(&self) -> Result<(), Deposed> {
        let is_first_reign = self.replica.counters().stepped_down_count == 0;
        (is_first_reign && self.replica.leads().is_some())
            .then_some(())
            .ok_or(Deposed)
    }

    /// Does what takes a leader. Whatever goes wrong there once it leads no more, went wrong because of that.
    ///
    /// # Errors
    /// [`Deposed`], or the work's.
    pub fn while_it_leads<T>(&mut self, work: impl FnOnce(&mut Self) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let done = work(self);
        done.map_err(|error| self.still_leads().err().map_or(error, Into::into))
    }

    /// Whether the last turn has answered somebody.
    pub fn has_answers(&self) -> bool {
        self.out.sends_count() > 0
    }

    /// The first bytes of a slot of the log, as they stand in this node's memory.
    pub fn slot(&self, slot: u64, len_bytes: usize) -> Vec<u8> {
        let mut bytes = vec![0; len_bytes];
        self.replication.load(self.layout.slot_at(slot), &mut bytes);
        bytes
    }

    /// The replica.
    pub fn replica(&self) -> &Replica<Told<Store>> {
        &self.replica
    }

    /// When the replica, as the leader, knew last that an entry is committed. By the cluster's clock.
    pub fn committed_at(&self) -> Option<Instant> {
        self.replica.machine().told_at()
    }
}

/// Windows beside the cluster's, as many, connected in the same way: a write from one to another is what a commit is compared with.
pub struct Yardstick<P> {
    /// As the leader's: the far one is its first peer.
    pub near: Mutex<RdmaWindow<Host<P>>>,
    /// As a follower's.
    pub far: Mutex<RdmaWindow<Host<P>>>,
    /// As the other followers': nothing is written there. A thread looks at their cards, too.
    _others: Vec<RdmaWindow<Host<P>>>,
}

/// Every node's cards, by plane, and the yardstick's.
struct Planned<P> {
    background: Vec<Card<P>>,
    replication: Vec<Card<P>>,
    yardstick: Vec<Card<P>>,
}

/// All of it.
pub struct Cluster<P> {
    /// By number; the first leads.
    pub nodes: Vec<Mutex<Node<P>>>,
    /// Beside it.
    pub yardstick: Yardstick<P>,
    cards: Planned<P>,
    clock: MonotonicClock,
}

/// Devices of one plane, by node.
pub type Devices<P> = Vec<P>;

impl<P: Provider + Send> Cluster<P> {
    /// A cluster over the two planes' devices, and a yardstick over as many more: two or more.
    ///
    /// # Errors
    /// A handshake failed, or a device had no room.
    pub fn new(
        planes: [Devices<P>; 2],
        yardstick: Devices<P>,
        (timing, layout): (Timing, Layout),
    ) -> anyhow::Result<Cluster<P>> {
        let clock = MonotonicClock::new();
        let [background, replication] = planes;
        let request_bytes_max = layout.slot_bytes() * SLOTS_AT_ONCE;
        let connected = |devices: Vec<P>, window_bytes| -> anyhow::Result<_> {
            let (hosts, cards): (Vec<_>, Vec<_>) = devices.into_iter().map(card::split).unzip();
            Ok((connected(hosts, window_bytes, request_bytes_max)?, cards))
        };
        let (background, background_cards) = connected(background, layout.background_bytes())?;
        let (replication, replication_cards) = connected(replication, layout.replication_bytes())?;
        let nodes_count = background.len() as u32;
        let pairs = background.into_iter().zip(replication);
        let nodes = (0..nodes_count)
            .zip(pairs)
            .map(|(node, (mut background, replication))| {
                // A request that comes before its owner's first turn would break the connection, and nothing sets it up again here.
                background.open()?;
                anyhow::Ok(Mutex::new(Node {
                    background,
                    replication,
                    layout,
                    replica: replica(node, nodes_count, (timing, layout), clock)?,
                    out: Effects::with_capacity(64, 1 << 16),
                }))
            });
        let nodes = nodes.collect::<anyhow::Result<_>>()?;
        let (mut ends, yardstick_cards) = connected(yardstick, layout.replication_bytes())?;
        anyhow::ensure!(ends.len() >= 2, "a yardstick has two ends, and here are {}", ends.len());
        let others = ends.split_off(2);
        let (far, near) = (ends.pop(), ends.pop());
        let (near, mut far) = near.zip(far).context("two are left")?;
        far.open()?;
        Ok(Cluster {
            nodes,
            yardstick: Yardstick {
                near: Mutex::new(near),
                far: Mutex::new(far),
                _others: others,
            },
            cards: Planned {
                background: background_cards,
                replication: replication_cards,
                yardstick: yardstick_cards,
            },
            clock,
        })
    }

    /// Time, for turns.
    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Turns a node until it `is_so`.
    ///
    /// # Errors
    /// What `is_so` said, or that it was not so within [`PATIENCE`]: `what` is amiss, and what the replica says of itself.
    pub fn turn_until(
        &self,
        node: &mut Node<P>,
        what: &str,
        mut is_so: impl FnMut(&mut Node<P>, Instant) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let begun = self.now();
        let mut now = begun;
        while !is_so(node, now)? {
            anyhow::ensure!(now < begun + PATIENCE, "{what}: {}", node.replica().describe());
            node.turn(now);
            now = self.now();
        }
        Ok(())
    }
}

/// Nothing that a cluster does takes so long, not on a machine with one CPU either.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What a read of somebody's log brings at once.
const SLOTS_AT_ONCE: usize = 4;

fn replica(
    node: u32,
    nodes_count: u32,
    (timing, layout): (Timing, Layout),
    clock: MonotonicClock,
) -> anyhow::Result<Replica<Told<Store>>> {
    let store = Store::new(StoreOptions {
        bytes_max: 1 << 16,
        value_bytes_max: 1024,
        range_bytes_max: 4096,
    })?;
    let others = (0..nodes_count).filter(|&other| other != node);
    let config = Config {
        cluster: 1,
        node,
        // In the order in which `connected` joins them.
        peers: others.zip(0..).map(|(other, index)| (other, Peer(index))).collect(),
        life: 1,
        start: Start::First,
        layout,
        timing,
        limits: Limits {
            in_flight_slots: 64,
            queued_max: 64,
            sessions_max: 64,
            session_replies: 64,
            request_bytes_max: layout.slot_bytes() * SLOTS_AT_ONCE,
        },
        mutation: None,
    };
    Ok(Replica::new(config, Told::new(store, clock))?)
}

/// A window for each device, each connected to each other one: to the lower numbers first.
fn connected<P: Provider + Send>(
    devices: Devices<P>,
    window_bytes: usize,
    request_bytes_max: usize,
) -> anyhow::Result<Vec<RdmaWindow<P>>> {
    let options = WindowOptions {
        window_bytes,
        request_bytes_max,
        requests_max: 128,
        qp: QpOptions {
            // A slot is one packet.
            path_mtu: rdma::PathMtu::B2048,
            ..QpOptions::default()
        },
        ..WindowOptions::default()
    };
    let mut windows: Vec<RdmaWindow<P>> = devices
        .into_iter()
        .map(|device| RdmaWindow::new(device, options))
        .collect();
    for low in 0..windows.len() {
        for high in low + 1..windows.len() {
            let (lower, upper) = windows.split_at_mut(high);
            wires::connect(&mut lower[low], &mut upper[0])
                .with_context(|| format!("connecting the windows of nodes {low} and {high}"))?;
        }
    }
    Ok(windows)
}
