//! Replicas of a key-value store and one client in virtual time: what a schedule of partitions and deaths makes of what
//! was acknowledged. The replicas, the client and the loop that turns them are those of `dplab serve`; the network, the
//! disks and the clock are the simulator's.

use std::{io, time::Duration};

use dataplane_kv::{Store, StoreOptions};
use dataplane_quorum::{
    Config, Limits, Mutation, ReadMode, Replica, RoleName, Timing,
    client::{Ask, Client, ClientOptions, Route, Verdict},
};
use dataplane_sim::{Boot, Crash, Fault, HostId, HostOptions, HostSet, LinkOptions, Sim, SimTime};
use dataplane_waist::{Effects, Input, Instant, Log, Peer, Protocol};
use dataplane_wire::quorum::{members::Members, reply::Outcome, request::Command};

/// Whoever lives on a host.
enum Actor {
    Replica(Box<Replica<Store>>),
    Client(Box<Client>),
}

impl Protocol for Actor {
    fn handle(&mut self, now: Instant, input: Input<'_>, out: &mut Effects) {
        match self {
            Actor::Replica(replica) => replica.handle(now, input, out),
            Actor::Client(client) => client.handle(now, input, out),
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        match self {
            Actor::Replica(replica) => replica.wake_at(),
            Actor::Client(client) => client.wake_at(),
        }
    }
}

/// What the client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is done: acknowledged.
    Done,
    /// The key's value.
    Value(String),
    /// There is no such key.
    Absent,
    /// Another answer, in words.
    Other(String),
    /// Nobody answered in time. It may have been done, or be done yet.
    Unknown,
}

/// A cluster. Its replicas are nodes 0 to `replicas_count - 1`, its client is the node behind them.
pub struct Cluster {
    sim: Sim<Actor>,
    replicas_count: u32,
    /// Keys and values that the client was told are kept, in order.
    acknowledged: Vec<(String, String)>,
}

/// How long the client asks before it gives up.
const PATIENCE: Duration = Duration::from_secs(2);
/// Virtual time that nothing here takes.
const FOREVER: Duration = Duration::from_secs(60);
const STEP: SimTime = SimTime::from_ms(1);

impl Cluster {
    /// A cluster that has just been switched on, with a mistake in its replicas if one is wanted.
    ///
    /// # Panics
    /// For members that do not begin with node 0 or leave a gap, or whose quorums are unsound.
    pub fn new(members: Members, mutation: Option<Mutation>, seed: u64) -> Cluster {
        let replicas_count = members.count();
        assert!(
            members.voters == (1 << replicas_count) - 1,
            "nodes 0 to {replicas_count} vote"
        );
        let boot = move |boot: Boot<'_>| match boot.host.0 == replicas_count {
            true => {
                boot.log.recover(&mut |_| ())?;
                let nodes = (0..replicas_count).map(|node| (node, Peer(node))).collect();
                let client = Client::new(ClientOptions::new(nodes, &Limits::SMALL, boot.seed));
                Ok(Actor::Client(Box::new(client.map_err(io::Error::other)?)))
            }
            false => {
                let store = Store::new(StoreOptions::default()).map_err(io::Error::other)?;
                let config = config(boot.host.0, members, mutation, boot.seed);
                let replica = Replica::recover(config, store, boot.log).map_err(io::Error::other)?;
                Ok(Actor::Replica(Box::new(replica)))
            }
        };
        let host = HostOptions {
            effects_actions_max: 4096,
            effects_bytes_max: 1 << 20,
            ..HostOptions::default()
        };
        let hosts = vec![host; replicas_count as usize + 1];
        let cluster = Cluster {
            sim: Sim::new(seed, &hosts, LinkOptions::default(), boot),
            replicas_count,
            acknowledged: Vec::new(),
        };
        for node in 0..replicas_count {
            let error = cluster.sim.error(HostId(node));
            assert!(error.is_none(), "node {node} does not start: {error:?}");
        }
        cluster
    }

    /// The client's node number.
    pub fn client(&self) -> u32 {
        self.replicas_count
    }

    /// Lets time pass.
    pub fn run_for(&mut self, time: Duration) {
        let until = self.sim.now() + sim_time(time);
        self.sim.run_until(until);
    }

    /// Who leads in the newest term, as far as those say who are up. Waits until somebody does.
    ///
    /// # Panics
    /// If nobody does, ever.
    pub fn leader(&mut self) -> u32 {
        let until = self.sim.now() + sim_time(FOREVER);
        loop {
            let leaders = (0..self.replicas_count).filter_map(|node| match self.sim.protocol(HostId(node)) {
                Some(Actor::Replica(replica)) if replica.role() == RoleName::Leader => Some((replica.term(), node)),
                _ => None,
            });
            if let Some((_, node)) = leaders.max() {
                return node;
            }
            assert!(self.sim.now() < until, "nobody leads");
            let next = self.sim.now() + STEP;
            self.sim.run_until(next);
        }
    }

    /// Asks to put `value` under `key`, and writes down what was acknowledged.
    pub fn put(&mut self, key: &str, value: &str) -> Answer {
        let answer = self.ask(
            Command::Put {
                key: key.as_bytes(),
                value: value.as_bytes(),
            },
            PATIENCE,
        );
        if answer == Answer::Done {
            self.acknowledged.push((key.to_owned(), value.to_owned()));
        }
        answer
    }

    /// Asks to put `value` behind what stands under `key`, for so long at most.
    pub fn append(&mut self, key: &str, value: &str, within: Duration) -> Answer {
        let (key, value) = (key.as_bytes(), value.as_bytes());
        self.ask(Command::Append { key, value }, within)
    }

    /// What stands under `key`.
    pub fn get(&mut self, key: &str) -> Answer {
        self.ask(Command::Get { key: key.as_bytes() }, PATIENCE)
    }

    /// Asks until an answer comes, under one request number.
    fn ask(&mut self, command: Command<'_>, within: Duration) -> Answer {
        let host = HostId(self.client());
        let asked = self.sim.with_protocol(host, |actor, now| match actor {
            Actor::Client(client) => client.ask(&Ask {
                command,
                route: Route::Leader,
                deadline: now + within,
            }),
            Actor::Replica(_) => unreachable!("the client is the last host"),
        });
        asked.expect("the client is up").expect("one request at a time");
        loop {
            let next = self.sim.now() + STEP;
            self.sim.run_until(next);
            let mut answer = None;
            self.sim.with_protocol(host, |actor, _| {
                if let Actor::Client(client) = actor {
                    client.take(|_, verdict| answer = Some(Answer::from(verdict)));
                }
            });
            if let Some(answer) = answer {
                return answer;
            }
        }
    }

    /// From now on nothing passes between `nodes` and all others; the client is one of them or of the others. Replaces what
    /// was cut before.
    pub fn cut_off(&mut self, nodes: &[u32]) {
        for from in 0..=self.replicas_count {
            for to in (0..=self.replicas_count).filter(|&to| to != from) {
                let mut link = LinkOptions::default();
                link.faults.blocked = nodes.contains(&from) != nodes.contains(&to);
                self.sim.network_mut().set_link(from, to, link);
            }
        }
    }

    /// Everything passes again.
    pub fn heal(&mut self) {
        self.cut_off(&[]);
    }

    /// For so long, no replica's frames come to the client; what it says, they hear.
    pub fn deafen_client(&mut self, lasts: Duration) {
        self.sim.inject(Fault::Block {
            from: HostSet::of((0..self.replicas_count).map(HostId)),
            to: HostSet::of([HostId(self.client())]),
            lasts: sim_time(lasts),
        });
    }

    /// The power of a node goes.
    pub fn kill(&mut self, node: u32) {
        self.sim.crash(HostId(node), Crash::Power);
    }

    /// It comes back.
    pub fn restart(&mut self, node: u32) {
        self.sim.restart(HostId(node));
    }

    /// How many puts were acknowledged.
    pub fn acknowledged_count(&self) -> usize {
        self.acknowledged.len()
    }

    /// Mends the network, waits a while, and says which puts were acknowledged and are not there. Only of keys that were put
    /// once can that be said.
    pub fn lost(&mut self) -> Vec<String> {
        self.heal();
        self.run_for(Duration::from_secs(2));
        let acknowledged = std::mem::take(&mut self.acknowledged);
        let gone = acknowledged.into_iter().filter_map(|(key, value)| {
            let answer = self.get(&key);
            (answer != Answer::Value(value.clone()))
                .then(|| format!("{key} = {value} was acknowledged; now: {answer:?}"))
        });
        gone.collect()
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("replicas_count", &self.replicas_count)
            .field("acknowledged", &self.acknowledged)
            .finish_non_exhaustive()
    }
}

impl From<Verdict<'_>> for Answer {
    fn from(verdict: Verdict<'_>) -> Answer {
        match verdict {
            Verdict::Answered(Outcome::Done) => Answer::Done,
            Verdict::Answered(Outcome::Absent) => Answer::Absent,
            Verdict::Answered(Outcome::Value(value)) => Answer::Value(String::from_utf8_lossy(value).into_owned()),
            Verdict::Answered(other) => Answer::Other(format!("{other:?}")),
            Verdict::Expired { .. } | Verdict::TimedOut { .. } => Answer::Unknown,
        }
    }
}

fn sim_time(time: Duration) -> SimTime {
    SimTime::from_ns(time.as_nanos() as u64)
}

fn config(node: u32, members: Members, mutation: Option<Mutation>, seed: u64) -> Config {
    Config {
        cluster: 9,
        node,
        peers: (0..members.count())
            .filter(|&other| other != node)
            .map(|other| (other, Peer(other)))
            .collect(),
        members,
        reads: ReadMode::Index,
        timing: Timing::LOCAL,
        limits: Limits::SMALL,
        seed,
        mutation,
    }
}
