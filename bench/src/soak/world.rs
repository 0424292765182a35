//! One history: a cluster and its clients in the simulator, watched at every turn, and judged at the end.

use std::io;

use dataplane_kv::StoreOptions;
use dataplane_quorum::{Replica, RoleName, majorities};
use dataplane_sim::{Crash, Event, EventKind, Fault, HostId, ScheduledFault, SimTime};
use dataplane_wire::quorum::members::Members;
use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use rand_pcg::Pcg64Mcg;

use super::{
    ambush::Ambushes,
    client::Client,
    coverage::Coverage,
    driver::{DrivenHost, Nic},
    finding::{Finding, FindingKind, finding},
    judge::judge,
    plan::{Plan, VALUE_BYTES_MAX},
};
use crate::sim_cluster::{Actor, Broken, ClusterOptions, SimCluster};

/// What a history came to.
#[derive(Debug)]
pub struct Outcome {
    /// What did not hold, if anything.
    pub finding: Option<Finding>,
    /// What ambushes did.
    pub struck: Vec<ScheduledFault>,
    /// The simulator's hash over all events.
    pub hash: u64,
    /// Which paths were taken how often.
    pub coverage: Coverage,
}

/// How many events of a history may happen: many times what one takes, so that a cluster that never falls silent ends.
const EVENTS_MAX: u64 = 3_000_000;

/// Runs the history of `plan`.
pub fn run(plan: &Plan) -> Outcome {
    let mut world = World::new(plan);
    let finding = world.run().err();
    world.coverage.add_sim(world.cluster.sim.counts());
    world.coverage.ambushes_count = world.ambushes.struck_count;
    Outcome {
        finding,
        struck: world.struck,
        hash: world.cluster.sim.hash().value(),
        coverage: world.coverage,
    }
}

struct World<'a> {
    plan: &'a Plan,
    cluster: SimCluster<Client>,
    coverage: Coverage,
    ambushes: Ambushes<'a>,
    /// What ambushes did; the simulator counts these faults behind the plan's.
    struck: Vec<ScheduledFault>,
    /// Processes that are to end as soon as they may, and for how long.
    retiring: Vec<(HostId, SimTime)>,
    rng: Pcg64Mcg,
}

/// What somebody does at a time that the plan has set. In this order, should two of them fall together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// Other members are asked for.
    Change,
    /// A program is replaced.
    Swap(HostId),
    /// A process is ended in good order, and is away for as long.
    Restart(HostId, SimTime),
}

/// Room for all that clients write. In some histories with programs, which answer puts before they are applied, too little of it:
/// for two entries or so, or so little that it could be if they were longer.
fn store_bytes_max(plan: &Plan) -> u64 {
    match (&plan.driver, plan.seed % 16) {
        (Some(_), 0) => 450,
        (Some(_), 1) => 1_200,
        _ => 1 << 16,
    }
}

impl<'a> World<'a> {
    fn new(plan: &'a Plan) -> World<'a> {
        let options = ClusterOptions {
            seed: plan.seed,
            replicas_count: plan.replicas_count,
            hosts: plan.hosts.clone(),
            link: plan.link,
            store: StoreOptions {
                bytes_max: store_bytes_max(plan),
                value_bytes_max: VALUE_BYTES_MAX,
                range_bytes_max: 512,
            },
        };
        let (replicas_plan, clients_plan) = (plan.clone(), plan.clone());
        let driver_plan = plan.clone();
        let mut cluster = SimCluster::driven(
            &options,
            move |node, seed| replicas_plan.config(node, seed),
            move |host, seed| {
                let replicas_count = clients_plan.replicas_count;
                let habits = clients_plan.clients[(host.0 - replicas_count) as usize];
                Ok(Client::new(host.0, replicas_count, habits, seed))
            },
            move |replica, seed| {
                let Some(driver) = &driver_plan.driver else {
                    return Ok(Actor::Replica(Box::new(replica)));
                };
                let nic = Nic::new(driver, replica.node(), driver_plan.replicas_count, seed);
                let host = DrivenHost::new(replica, nic.map_err(io::Error::other)?);
                Ok(Actor::Driven(Box::new(host)))
            },
        );
        cluster.sim.schedule(&plan.faults);
        World {
            plan,
            cluster,
            coverage: Coverage::default(),
            ambushes: Ambushes::new(plan),
            struck: Vec::new(),
            retiring: Vec::new(),
            // Another stream than the plan's.
            rng: Pcg64Mcg::seed_from_u64(!plan.seed),
        }
    }

    fn run(&mut self) -> Result<(), Finding> {
        let plan = self.plan;
        let mut due: Vec<(SimTime, Due)> = plan.changes.iter().map(|&at| (at, Due::Change)).collect();
        if let Some(driver) = &plan.driver {
            self.coverage.driver_histories(driver);
            due.extend(driver.swaps.iter().map(|&(at, host)| (at, Due::Swap(host))));
            let restarts = driver.chain.iter().flat_map(|chain| &chain.restarts);
            due.extend(restarts.map(|&(at, host, away)| (at, Due::Restart(host, away))));
            due.sort();
        }
        for (at, due) in due {
            self.run_until(at)?;
            match due {
                Due::Change => self.ask_for_change(),
                Due::Swap(host) => self.swap(host)?,
                Due::Restart(host, away) => self.retire(host, away),
            }
        }
        self.run_until(plan.healed_at)?;
        if plan.has_chains() {
            self.retiring.clear();
            for host in (0..plan.replicas_count).map(HostId) {
                self.with_driven(host, DrivenHost::heal);
            }
        }
        // The simulator has ended every fault by now; what is left to do is due.
        for host in self.cluster.clients() {
            self.cluster.with_client(host, Client::finish);
        }
        self.recover()?;
        self.cluster.compare().map_err(broken)?;
        self.judge()
    }

    fn run_until(&mut self, until: SimTime) -> Result<(), Finding> {
        while let Some(event) = self.cluster.step(until).map_err(broken)? {
            self.watch(event)?;
        }
        Ok(())
    }

    fn watch(&mut self, event: Event) -> Result<(), Finding> {
        if self.cluster.sim.events_count() > EVENTS_MAX {
            return Err(finding(FindingKind::Recovery, "the cluster never falls silent"));
        }
        match event.kind {
            EventKind::Turned(host) => {
                if let Some(replica) = self.cluster.replica(host.0) {
                    self.coverage.watch(host.0, replica.counters());
                }
                if let Some(driven) = self.cluster.driven_host(host.0) {
                    self.coverage.watch_driver(host.0, driven.counts());
                }
                self.lie_in_wait(host, event.at);
                self.end_if_due(host, event.at);
            }
            EventKind::Started(host) => {
                self.coverage.restarted(host.0);
                if self.plan.has_chains() && event.at >= self.plan.healed_at {
                    self.with_driven(host, DrivenHost::heal);
                }
            }
            EventKind::Failed(_) => self.coverage.disk_errors_count += 1,
            EventKind::FaultBegan(index) => {
                let mut faults = self.plan.faults.iter().chain(&self.struck);
                let began = faults.nth(index).expect("the simulator has no other faults");
                self.coverage.fault(&began.fault);
            }
            EventKind::Delivered { .. } | EventKind::FaultEnded(_) => {}
        }
        Ok(())
    }

    /// `host` has had its turn: an ambush may strike.
    fn lie_in_wait(&mut self, host: HostId, now: SimTime) {
        if self.ambushes.are_far(now) {
            return;
        }
        let Some(turned) = self.cluster.replica(host.0) else {
            return;
        };
        let before_count = self.struck.len();
        let all = self.cluster.replicas();
        self.ambushes.watch(now, turned, all, &mut self.struck);
        self.cluster.sim.schedule(&self.struck[before_count..]);
    }

    /// Another program comes in the place of a host's, while it works.
    fn swap(&mut self, host: HostId) -> Result<(), Finding> {
        let plan = self.plan;
        let Some(driver) = &plan.driver else { return Ok(()) };
        let nic = Nic::new(driver, host.0, plan.replicas_count, plan.seed);
        let nic = nic.map_err(|error| finding(FindingKind::Process, error.to_string()))?;
        self.with_driven(host, |host| host.swap(nic));
        Ok(())
    }

    fn with_driven(&mut self, host: HostId, change: impl FnOnce(&mut DrivenHost)) {
        self.cluster.sim.with_protocol(host, |actor, _| {
            if let Actor::Driven(host) = actor {
                change(host);
            }
        });
    }

    /// A process is told to end in good order, and to be away for as long.
    fn retire(&mut self, host: HostId, away: SimTime) {
        self.with_driven(host, DrivenHost::retire);
        self.retiring.push((host, away));
    }

    /// `host` has had its turn: if it was to end, and may, it does.
    fn end_if_due(&mut self, host: HostId, now: SimTime) {
        let Some(index) = self.retiring.iter().position(|&(retired, _)| retired == host) else {
            return;
        };
        let may_end = self.cluster.driven_host(host.0).is_some_and(DrivenHost::may_end);
        if !may_end || now >= self.plan.healed_at {
            return;
        }
        let (_, away) = self.retiring.swap_remove(index);
        let crash = *[Crash::Process, Crash::Power].choose(&mut self.rng).expect("two");
        let lasts = away.min(self.plan.healed_at - now);
        let fault = Fault::Crash { host, crash, lasts };
        self.struck.push(ScheduledFault { at: now, fault });
        self.cluster.sim.schedule(&self.struck[self.struck.len() - 1..]);
        self.coverage.chain_restarts_count += 1;
    }

    /// One voter more, one less, or other quorums, as the newest leader sees the members.
    fn ask_for_change(&mut self) {
        let Some(old) = self.cluster.leader().map(Replica::members) else {
            return;
        };
        let node = self.rng.random_range(0..self.plan.replicas_count);
        let mut new = majorities(old.voters ^ 1 << node);
        if self.rng.random_bool(0.2) {
            let count = old.count() as u8;
            let elect_count = self.rng.random_range(count / 2 + 1..=count);
            new = Members {
                voters: old.voters,
                elect_count,
                commit_count: (count - elect_count + 1).max(2).min(count),
            };
        }
        // Where a log is damaged, its host may have to be done without, by elections too: it promises more than others have.
        let is_damaged = |scheduled: &ScheduledFault| matches!(scheduled.fault, Fault::Damage { .. });
        let needs_everybody = u32::from(new.elect_count) == new.count();
        if needs_everybody && self.plan.faults.iter().any(is_damaged) {
            return;
        }
        if new.count() < self.plan.voters_min || !new.is_sound() {
            return;
        }
        let host = HostId(self.plan.replicas_count);
        let asked = self
            .cluster
            .with_client(host, |client, now| client.reconfigure(now, new));
        self.coverage.changes_asked_count += u64::from(asked);
    }

    /// Until all is answered and all members are equal.
    fn recover(&mut self) -> Result<(), Finding> {
        let until = self.plan.healed_at + self.plan.recovery_max;
        let mut at = self.plan.healed_at;
        while at < until {
            at += SimTime::from_ms(5);
            self.run_until(at)?;
            if self.cluster.clients().all(|host| self.cluster.client(host).is_done()) && self.is_even() {
                let took_ms = (at - self.plan.healed_at).as_ns() / 1_000_000;
                self.coverage.recovery_ms_max = self.coverage.recovery_ms_max.max(took_ms);
                return Ok(());
            }
        }
        Err(finding(FindingKind::Recovery, self.describe()))
    }

    /// Whether every member has applied what the leader has, which is all of its log.
    fn is_even(&self) -> bool {
        let Some(leader) = self.cluster.leader() else {
            return false;
        };
        let (members, end) = (leader.members(), leader.window().end());
        let mut even = self
            .cluster
            .replicas()
            .filter(|replica| members.contains(replica.node()));
        even.all(|replica| replica.applied_end() == end)
    }

    fn describe(&self) -> String {
        let mut text = format!(
            "{} ms after the last fault had ended, not everything was answered, or not every member was even:",
            self.plan.recovery_max.as_ns() / 1_000_000
        );
        for replica in self.cluster.replicas() {
            let window = replica.window();
            text += &format!(
                "\n  node {}: {:?} of term {}, log {}..{}, committed to {}, applied to {}, {:?}{}",
                replica.node(),
                replica.role(),
                replica.term().0,
                window.begin().0,
                window.end().0,
                replica.commit_end().0,
                replica.applied_end().0,
                replica.members(),
                if replica.is_damaged() { ", damaged" } else { "" },
            );
            if replica.applied_end() != window.end() || replica.role() == RoleName::Leader {
                text += &format!("\n    {:?}", replica.counters());
            }
        }
        for host in self
            .cluster
            .clients()
            .filter(|&host| !self.cluster.client(host).is_done())
        {
            text += &format!("\n  client {}: {:?}", host.0, self.cluster.client(host));
        }
        text
    }

    /// Whether one order explains what the clients were answered.
    fn judge(&mut self) -> Result<(), Finding> {
        let clients: Vec<(u32, &Client)> = self
            .cluster
            .clients()
            .map(|host| (host.0, self.cluster.client(host)))
            .collect();
        let judged = judge(&clients)?;
        for host in self.cluster.clients() {
            let counts = self.cluster.client(host).counts;
            self.coverage.add_client(&counts);
        }
        if self.plan.has_chains() {
            self.coverage.chain_changes_count += self.coverage.changes_count;
        }
        self.coverage.ops_count += judged.ops_count;
        self.coverage.terms_count += self.cluster.observer().led_terms_count() as u64;
        self.coverage.undecided_count += u64::from(!judged.is_decided);
        Ok(())
    }
}

fn broken(broken: Broken) -> Finding {
    let kind = match broken {
        Broken::Invariant(_) => FindingKind::Invariant,
        Broken::Process { .. } => FindingKind::Process,
    };
    finding(kind, broken.to_string())
}
