//! A cluster in virtual time: replicas and their clients as hosts of the simulator, every turn of a replica looked at. The
//! soak runs faults over it, the simulated experiments measure with it.

use std::{fmt, io};

use dataplane_kv::{Store, StoreOptions};
use dataplane_quorum::{
    Config, Replica, RoleName,
    check::{self, Observer, Violation},
};
use dataplane_sim::{Event, EventKind, HostId, HostOptions, LinkOptions, Sim, SimTime};
use dataplane_waist::{Effects, Input, Instant, Log, Protocol};

use crate::soak::DrivenHost;

/// Everybody in a cluster.
pub enum Actor<C> {
    /// One of the first hosts.
    Replica(Box<Replica<Store>>),
    /// One of the first hosts, with a program that does its fast path.
    Driven(Box<DrivenHost>),
    /// One of those behind them.
    Client(Box<C>),
}

impl<C: Protocol> Protocol for Actor<C> {
    fn handle(&mut self, now: Instant, input: Input<'_>, out: &mut Effects) {
        match self {
            Actor::Replica(replica) => replica.handle(now, input, out),
            Actor::Driven(host) => host.handle(now, input, out),
            Actor::Client(client) => client.handle(now, input, out),
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        match self {
            Actor::Replica(replica) => replica.wake_at(),
            Actor::Driven(host) => host.wake_at(),
            Actor::Client(client) => client.wake_at(),
        }
    }
}

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Everything that is drawn is drawn from this.
    pub seed: u64,
    /// Hosts with a replica: the first so many. The others are clients.
    pub replicas_count: u32,
    /// All hosts.
    pub hosts: Vec<HostOptions>,
    /// All links.
    pub link: LinkOptions,
    /// Bounds of every replica's store.
    pub store: StoreOptions,
}

/// What must not happen, whatever else goes wrong.
#[derive(Debug)]
pub enum Broken {
    /// An invariant of the replicas does not hold.
    Invariant(Violation),
    /// A replica could not start from what it had written, or wrote what a log does not take.
    Process {
        /// Which.
        node: u32,
        /// What it did, and the error.
        why: String,
    },
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broken::Invariant(violation) => violation.fmt(f),
            Broken::Process { node, why } => write!(f, "node {node} {why}"),
        }
    }
}

impl std::error::Error for Broken {}

/// How many turns of replicas lie between two comparisons of whole logs.
const COMPARE_EVERY_TURNS: u64 = 400;

/// A cluster and its clients.
pub struct SimCluster<C> {
    /// The hosts and what is between them.
    pub sim: Sim<Actor<C>>,
    replicas_count: u32,
    observer: Observer,
    turns_count: u64,
}

impl<C: Protocol + 'static> SimCluster<C> {
    /// Starts all hosts. `config` says what replica `n` is told, with another seed at each start; `client` makes the client
    /// of a host, with a seed of its own.
    pub fn new(
        options: &ClusterOptions,
        config: impl Fn(u32, u64) -> Config + 'static,
        client: impl FnMut(HostId, u64) -> io::Result<C> + 'static,
    ) -> SimCluster<C> {
        let alone = |replica, _| Ok(Actor::Replica(Box::new(replica)));
        SimCluster::driven(options, config, client, alone)
    }

    /// As [`SimCluster::new`]; `actor` puts something before a replica, at each start, with a seed of its own.
    pub fn driven(
        options: &ClusterOptions,
        config: impl Fn(u32, u64) -> Config + 'static,
        mut client: impl FnMut(HostId, u64) -> io::Result<C> + 'static,
        mut actor: impl FnMut(Replica<Store>, u64) -> io::Result<Actor<C>> + 'static,
    ) -> SimCluster<C> {
        let (replicas_count, store) = (options.replicas_count, options.store);
        let sim = Sim::new(options.seed, &options.hosts, options.link, move |boot| {
            if boot.host.0 >= replicas_count {
                boot.log.recover(&mut |_| ())?;
                return Ok(Actor::Client(Box::new(client(boot.host, boot.seed)?)));
            }
            let store = Store::new(store).map_err(io::Error::other)?;
            let replica =
                Replica::recover(config(boot.host.0, boot.seed), store, boot.log).map_err(io::Error::other)?;
            actor(replica, !boot.seed)
        });
        SimCluster {
            sim,
            replicas_count,
            observer: Observer::new(),
            turns_count: 0,
        }
    }

    /// Lets the next event happen, if it is due at `until` or earlier, and looks at whoever took a turn.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn step(&mut self, until: SimTime) -> Result<Option<Event>, Broken> {
        let Some(event) = self.sim.step(until) else {
            return Ok(None);
        };
        match event.kind {
            EventKind::Turned(host) if host.0 < self.replicas_count => {
                if let Some(replica) = replica_of(&self.sim, host) {
                    self.observer.observe(replica).map_err(Broken::Invariant)?;
                    self.turns_count += 1;
                    if self.turns_count.is_multiple_of(COMPARE_EVERY_TURNS) {
                        self.compare()?;
                    }
                }
            }
            EventKind::Started(host) if host.0 < self.replicas_count => {
                self.observer.restarted(host.0);
                if self.sim.protocol(host).is_none() {
                    let why = self.sim.error(host).map_or(String::new(), io::Error::to_string);
                    return Err(self.process(host, &format!("cannot start from its log: {why}")));
                }
            }
            EventKind::Failed(host) => {
                // The disk's own errors are of another kind; this one is the log's opinion of its user.
                let error = self.sim.error(host);
                if let Some(error) = error.filter(|error| error.kind() == io::ErrorKind::InvalidInput) {
                    return Err(self.process(host, &format!("wrote what a log does not take: {error}")));
                }
            }
            _ => {}
        }
        Ok(Some(event))
    }

    fn process(&self, host: HostId, why: &str) -> Broken {
        Broken::Process {
            node: host.0,
            why: why.to_owned(),
        }
    }

    /// Lets everything happen that is due at `until` or earlier, or until `is_done` says so after an event; says whether it did.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn run_until(&mut self, until: SimTime, mut is_done: impl FnMut(&Self, Event) -> bool) -> Result<bool, Broken> {
        while let Some(event) = self.step(until)? {
            if is_done(self, event) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Compares all replicas' logs and states with each other.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn compare(&self) -> Result<(), Broken> {
        let replicas: Vec<&Replica<Store>> = self.replicas().collect();
        check::all_agree(&replicas).map_err(Broken::Invariant)
    }

    /// The hosts of clients.
    pub fn clients(&self) -> impl Iterator<Item = HostId> + use<C> {
        let (first, all) = (self.replicas_count, self.sim.hosts());
        all.filter(move |host| host.0 >= first)
    }

    /// The replicas that are up.
    pub fn replicas(&self) -> impl Iterator<Item = &Replica<Store>> {
        (0..self.replicas_count).filter_map(|node| self.replica(node))
    }

    /// A replica, unless it is down.
    pub fn replica(&self, node: u32) -> Option<&Replica<Store>> {
        replica_of(&self.sim, HostId(node))
    }

    /// A replica with its program, unless it is down or has none.
    pub fn driven_host(&self, node: u32) -> Option<&DrivenHost> {
        match self.sim.protocol(HostId(node)) {
            Some(Actor::Driven(host)) => Some(host),
            _ => None,
        }
    }

    /// The client of a host.
    ///
    /// # Panics
    /// If the host is no client's, or is down: nothing here ends clients.
    pub fn client(&self, host: HostId) -> &C {
        match self.sim.protocol(host) {
            Some(Actor::Client(client)) => client,
            _ => unreachable!("clients are spared, and stand behind the replicas"),
        }
    }

    /// Changes a client between two events; it takes a turn as soon as it can.
    ///
    /// # Panics
    /// As [`SimCluster::client`].
    pub fn with_client<T>(&mut self, host: HostId, change: impl FnOnce(&mut C, Instant) -> T) -> T {
        let changed = self.sim.with_protocol(host, |actor, now| match actor {
            Actor::Client(client) => change(client, now),
            Actor::Replica(_) | Actor::Driven(_) => unreachable!("{host:?} is a replica's"),
        });
        changed.expect("clients are spared")
    }

    /// Who leads, in the newest term that anybody leads.
    pub fn leader(&self) -> Option<&Replica<Store>> {
        self.replicas()
            .filter(|replica| replica.role() == RoleName::Leader)
            .max_by_key(|replica| replica.term())
    }

    /// What was seen of all replicas.
    pub fn observer(&self) -> &Observer {
        &self.observer
    }

    /// After how many turns of replicas the invariants were looked at.
    pub fn checks_count(&self) -> u64 {
        self.turns_count
    }
}

fn replica_of<C: Protocol>(sim: &Sim<Actor<C>>, host: HostId) -> Option<&Replica<Store>> {
    match sim.protocol(host)? {
        Actor::Replica(replica) => Some(replica),
        Actor::Driven(host) => Some(host.replica()),
        Actor::Client(_) => None,
    }
}
