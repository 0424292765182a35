//! One history of one-sided replicas: run, watched at every turn, and judged at the end.

use std::io;

use dataplane_kv::{Store, StoreOptions};
use dataplane_quorum::onesided::{
    Counters, Planes, Replica,
    check::{self, Observer, Violation},
};
use dataplane_sim::{Event, EventKind, Fabric, Fault, HostId, Mesh, ScheduledFault, Sim, SimTime, SimWindow};
use dataplane_waist::{Effects, Input, Instant, Log, Protocol};

use super::{
    super::{
        client::Client,
        finding::{Finding, FindingKind, finding},
        judge::judge,
        plan::VALUE_BYTES_MAX,
    },
    plan::Plan,
};

/// What a history came to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What did not hold, if anything.
    pub finding: Option<Finding>,
    /// The simulator's hash over all events, those in memory included.
    pub hash: u64,
    /// Which paths were taken how often.
    pub paths: Paths,
}

/// A replica and its windows.
pub struct Member {
    replica: Replica<Store>,
    background: SimWindow,
    replication: SimWindow,
    must_turn: bool,
}

impl Protocol for Member {
    fn handle(&mut self, now: Instant, input: Input<'_>, out: &mut Effects) {
        match input {
            Input::Frame { from, bytes } => {
                self.must_turn = true;
                self.replica.on_frame(from, bytes, out);
            }
            Input::Tick => {
                self.must_turn = false;
                let mut planes = Planes {
                    background: &mut self.background,
                    replication: &mut self.replication,
                };
                self.replica.turn(now, &mut planes, out);
            }
            Input::Durable(_) => {}
        }
    }

    /// At once, where a poller would find something.
    fn wake_at(&self) -> Option<Instant> {
        match self.must_turn || self.background.is_touched() || self.replication.is_touched() {
            true => Some(Instant::ZERO),
            false => Some(self.replica.wake_at()),
        }
    }
}

enum Actor {
    Member(Box<Member>),
    Client(Box<Client>),
}

impl Protocol for Actor {
    fn handle(&mut self, now: Instant, input: Input<'_>, out: &mut Effects) {
        match self {
            Actor::Member(member) => member.handle(now, input, out),
            Actor::Client(client) => client.handle(now, input, out),
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        match self {
            Actor::Member(member) => member.wake_at(),
            Actor::Client(client) => client.wake_at(),
        }
    }
}

macro_rules! paths {
    ($($field:ident),* $(,)?) => {
        /// Which paths were taken how often: a soak that takes none of them proves nothing.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[expect(missing_docs, reason = "the names say it; most are dataplane_quorum::onesided::Counters' fields")]
        pub struct Paths {
            pub histories_count: u64,
            pub ops_count: u64,
            pub undecided_count: u64,
            pub faults_count: u64,
            pub crashes_count: u64,
            pub spared_count: u64,
            pub leaders_count: u64,
            pub recovery_us_max: u64,
            $(pub $field: u64,)*
        }

        impl Paths {
            fn add_counters(&mut self, counters: &Counters) {
                $(self.$field += counters.$field;)*
            }

            /// Adds another history's.
            pub fn add(&mut self, other: &Paths) {
                self.histories_count += other.histories_count;
                self.ops_count += other.ops_count;
                self.undecided_count += other.undecided_count;
                self.faults_count += other.faults_count;
                self.crashes_count += other.crashes_count;
                self.spared_count += other.spared_count;
                self.leaders_count += other.leaders_count;
                self.recovery_us_max = self.recovery_us_max.max(other.recovery_us_max);
                $(self.$field += other.$field;)*
            }

            /// Name and count of each path.
            pub fn list(&self) -> Vec<(&'static str, u64)> {
                vec![
                    ("ops_count", self.ops_count),
                    ("faults_count", self.faults_count),
                    ("crashes_count", self.crashes_count),
                    ("crashes_spared_count", self.spared_count),
                    ("leaders_count", self.leaders_count),
                    $((stringify!($field), self.$field),)*
                ]
            }
        }
    };
}

paths!(
    applied_count,
    appended_count,
    written_count,
    repeated_count,
    busy_count,
    not_leader_count,
    expired_count,
    round_reads_count,
    stale_reads_count,
    stood_count,
    led_count,
    stepped_down_count,
    refused_writes_count,
    lost_links_count,
    adopted_count,
    repaired_count,
    torn_count,
    grants_count,
    offers_count,
    snapshots_fetched_count,
    recovered_count,
    dropped_slow_count,
    recheck_failed_count,
    spoilt_offers_count,
    ring_full_count,
    posted_count,
);

/// How many events of a history may happen.
const EVENTS_MAX: u64 = 5_000_000;

struct World<'a> {
    plan: &'a Plan,
    sim: Sim<Actor>,
    observer: Observer,
    running: Vec<Counters>,
    paths: Paths,
}

/// Runs the history of `plan`.
pub fn run(plan: &Plan) -> Outcome {
    let mut world = World::new(plan);
    let finding = world.run().err();
    world.paths.histories_count = 1;
    world.paths.leaders_count = world.observer.leaders_count() as u64;
    for counters in &world.running {
        world.paths.add_counters(counters);
    }
    Outcome {
        finding,
        hash: world.sim.hash().value(),
        paths: world.paths,
    }
}

impl<'a> World<'a> {
    fn new(plan: &'a Plan) -> World<'a> {
        let hosts_count = plan.hosts.len() as u32;
        let background = Fabric::new(plan.fabric, hosts_count, plan.seed);
        let replication = Fabric::new(plan.fabric, hosts_count, !plan.seed);
        let fabrics = vec![background.clone(), replication.clone()];
        let mesh = Mesh::new(plan.link, hosts_count, plan.seed);
        let booted = plan.clone();
        let mut sim = Sim::with_fabrics(plan.seed, &plan.hosts, (mesh, fabrics), move |boot| {
            boot.log.recover(&mut |_| ())?;
            let host = boot.host.0;
            if host >= booted.replicas_count {
                let habits = booted.clients[(host - booted.replicas_count) as usize];
                let client = Client::new(host, booted.replicas_count, habits, boot.seed);
                return Ok(Actor::Client(Box::new(client)));
            }
            let store = Store::new(StoreOptions {
                bytes_max: 1 << 14,
                value_bytes_max: VALUE_BYTES_MAX,
                range_bytes_max: 512,
            });
            let config = booted.config(host, boot.starts_count);
            let replica = Replica::new(config, store.map_err(io::Error::other)?);
            Ok(Actor::Member(Box::new(Member {
                replica: replica.map_err(io::Error::other)?,
                background: background.window(boot.host),
                replication: replication.window(boot.host),
                must_turn: true,
            })))
        });
        let is_crash = |fault: &&ScheduledFault| matches!(fault.fault, Fault::Crash { .. });
        let others: Vec<ScheduledFault> = plan.faults.iter().filter(|fault| !is_crash(fault)).copied().collect();
        sim.schedule(&others);
        World {
            plan,
            sim,
            observer: Observer::default(),
            running: vec![Counters::default(); plan.replicas_count as usize],
            paths: Paths {
                faults_count: plan.faults.len() as u64,
                ..Paths::default()
            },
        }
    }

    fn replica(&self, node: u32) -> Option<&Replica<Store>> {
        match self.sim.protocol(HostId(node))? {
            Actor::Member(member) => Some(&member.replica),
            Actor::Client(_) => None,
        }
    }

    fn clients(&self) -> Vec<(u32, &Client)> {
        let hosts = self.plan.replicas_count..self.plan.hosts.len() as u32;
        let client = |host: u32| match self.sim.protocol(HostId(host)) {
            Some(Actor::Client(client)) => Some((host, &**client)),
            _ => None,
        };
        hosts.filter_map(client).collect()
    }

    fn run(&mut self) -> Result<(), Finding> {
        let plan = self.plan;
        for scheduled in &plan.faults {
            if let Fault::Crash { host, .. } = scheduled.fault {
                self.run_until(scheduled.at)?;
                match self.can_do_without(host) {
                    true => {
                        self.paths.crashes_count += 1;
                        self.sim.inject(scheduled.fault);
                    }
                    false => self.paths.spared_count += 1,
                }
            }
        }
        self.run_until(plan.healed_at)?;
        for host in plan.replicas_count..plan.hosts.len() as u32 {
            self.sim.with_protocol(HostId(host), |actor, now| {
                if let Actor::Client(client) = actor {
                    client.finish(now);
                }
            });
        }
        self.recover()?;
        for node in 1..plan.replicas_count {
            if let (Some(first), Some(other)) = (self.replica(0), self.replica(node)) {
                check::same_state(first, other).map_err(broken)?;
            }
        }
        let judged = judge(&self.clients())?;
        self.paths.ops_count = judged.ops_count;
        self.paths.undecided_count = u64::from(!judged.is_decided);
        Ok(())
    }

    /// Whether a majority has all that it ever had, also without `host`.
    fn can_do_without(&self, host: HostId) -> bool {
        let is_full = |&node: &u32| self.replica(node).is_some_and(Replica::is_full);
        let nodes = (0..self.plan.replicas_count).filter(|&node| node != host.0);
        let left_count = nodes.filter(is_full).count() as u32;
        // Who is not full counts for nothing, and may die as it likes.
        left_count > self.plan.replicas_count / 2 || self.replica(host.0).is_some_and(|replica| !replica.is_full())
    }

    fn run_until(&mut self, until: SimTime) -> Result<(), Finding> {
        while let Some(event) = self.sim.step(until) {
            self.watch(event)?;
        }
        Ok(())
    }

    fn watch(&mut self, event: Event) -> Result<(), Finding> {
        if self.sim.events_count() > EVENTS_MAX {
            return Err(finding(FindingKind::Recovery, "the cluster never falls silent"));
        }
        match event.kind {
            EventKind::Turned(HostId(node)) if node < self.plan.replicas_count => {
                if let Some(Actor::Member(member)) = self.sim.protocol(HostId(node)) {
                    self.observer.observe(&member.replica).map_err(broken)?;
                    self.running[node as usize] = *member.replica.counters();
                }
            }
            EventKind::Started(HostId(node)) if node < self.plan.replicas_count => {
                let before = std::mem::take(&mut self.running[node as usize]);
                self.paths.add_counters(&before);
            }
            EventKind::Failed(host) => {
                let why = self.sim.error(host).map(ToString::to_string).unwrap_or_default();
                return Err(finding(FindingKind::Process, format!("host {} failed: {why}", host.0)));
            }
            _ => {}
        }
        Ok(())
    }

    /// Until all is answered, everybody has everything, and nobody is ahead.
    fn recover(&mut self) -> Result<(), Finding> {
        let until = self.plan.healed_at + self.plan.recovery_max;
        let mut at = self.plan.healed_at;
        while at < until {
            at += SimTime::from_us(100);
            self.run_until(at)?;
            if self.clients().iter().all(|(_, client)| client.is_done()) && self.is_even() {
                let took_us = (at - self.plan.healed_at).as_ns() / 1_000;
                self.paths.recovery_us_max = self.paths.recovery_us_max.max(took_us);
                return Ok(());
            }
        }
        let mut text =
            "not everything was answered, or not every replica was even, long after the last fault:".to_owned();
        for node in 0..self.plan.replicas_count {
            text += &match self.replica(node) {
                Some(replica) => format!("\n  {}\n    {:?}", replica.describe(), replica.counters()),
                None => format!("\n  node {node} is down"),
            };
        }
        for (host, client) in self.clients() {
            if !client.is_done() {
                text += &format!(
                    "\n  client {host}: {} operations, {:?}",
                    client.records.len(),
                    client.counts
                );
            }
        }
        Err(finding(FindingKind::Recovery, text))
    }

    fn is_even(&self) -> bool {
        let end = self.observer.applied_end();
        let mut nodes = 0..self.plan.replicas_count;
        nodes.all(|node| {
            let replica = self.replica(node);
            replica.is_some_and(|replica| replica.is_full() && replica.applied_end() == end)
        })
    }
}

fn broken(violation: Violation) -> Finding {
    finding(FindingKind::Invariant, violation.to_string())
}
