//! One history: a cluster and its clients in the simulator, watched at every turn, and judged at the end.

use std::io;

use dataplane_history::{Answer, History, Limits as CheckLimits, Op, Verdict};
use dataplane_kv::{Store, StoreOptions};
use dataplane_quorum::{
    Replica, RoleName,
    check::{self, Observer},
    majorities,
};
use dataplane_sim::{Event, EventKind, Fault, HostId, ScheduledFault, Sim, SimTime};
use dataplane_waist::{Effects, Input, Instant, Log, Protocol};
use dataplane_wire::quorum::members::Members;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::{
    ambush::Ambushes,
    client::{Answered, Asked, Client},
    coverage::Coverage,
    plan::{Plan, VALUE_BYTES_MAX},
};

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

/// Something that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What kind.
    pub kind: FindingKind,
    /// In words, with all that explains it.
    pub text: String,
}

/// What does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FindingKind {
    /// An invariant of the replicas.
    Invariant,
    /// What clients were answered: no order explains it, or something acknowledged is lost.
    Linearizability,
    /// After all faults had ended, something was not answered, or replicas did not become equal.
    Recovery,
    /// A replica could not start from what it had written, or wrote what a log does not take.
    Process,
    /// A replica panicked.
    Panic,
}

/// Everybody in a history.
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

/// How many events of a history may happen: many times what one takes, so that a cluster that never falls silent ends.
const EVENTS_MAX: u64 = 3_000_000;

/// How many turns lie between two comparisons of whole logs.
const COMPARE_EVERY_TURNS: u64 = 400;

/// How much the search for an order may cost, for one key. Histories here are short; far less is needed.
const CHECK_LIMITS: CheckLimits = CheckLimits {
    steps_max: 20_000_000,
    memory_bytes_max: 512 << 20,
};

/// Runs the history of `plan`.
pub fn run(plan: &Plan) -> Outcome {
    let mut world = World::new(plan);
    let finding = world.run().err();
    world.coverage.add_sim(world.sim.counts());
    world.coverage.ambushes_count = world.ambushes.struck_count;
    Outcome {
        finding,
        struck: world.struck,
        hash: world.sim.hash().value(),
        coverage: world.coverage,
    }
}

struct World<'a> {
    plan: &'a Plan,
    sim: Sim<Actor>,
    observer: Observer,
    coverage: Coverage,
    turns_count: u64,
    ambushes: Ambushes<'a>,
    /// What ambushes did; the simulator counts these faults behind the plan's.
    struck: Vec<ScheduledFault>,
    rng: Pcg64Mcg,
}

impl<'a> World<'a> {
    fn new(plan: &'a Plan) -> World<'a> {
        let boot_plan = plan.clone();
        let mut sim = Sim::new(plan.seed, &plan.hosts, plan.link, move |boot| {
            let host = boot.host.0;
            if let Some(client) = host.checked_sub(boot_plan.replicas_count) {
                boot.log.recover(&mut |_| ())?;
                let habits = boot_plan.clients[client as usize];
                let client = Client::new(host, boot_plan.replicas_count, habits, boot.seed);
                return Ok(Actor::Client(Box::new(client)));
            }
            let store = Store::new(StoreOptions {
                bytes_max: 1 << 16,
                value_bytes_max: VALUE_BYTES_MAX,
                range_bytes_max: 512,
            })
            .map_err(io::Error::other)?;
            let replica =
                Replica::recover(boot_plan.config(host, boot.seed), store, boot.log).map_err(io::Error::other)?;
            Ok(Actor::Replica(Box::new(replica)))
        });
        sim.schedule(&plan.faults);
        World {
            plan,
            sim,
            observer: Observer::new(),
            coverage: Coverage::default(),
            turns_count: 0,
            ambushes: Ambushes::new(plan),
            struck: Vec::new(),
            // Another stream than the plan's.
            rng: Pcg64Mcg::seed_from_u64(!plan.seed),
        }
    }

    fn run(&mut self) -> Result<(), Finding> {
        let plan = self.plan;
        for &at in &plan.changes {
            self.run_until(at)?;
            self.ask_for_change();
        }
        self.run_until(plan.healed_at)?;
        // The simulator has ended every fault by now; what is left to do is due.
        for host in self.clients() {
            self.sim.with_protocol(host, |actor, now| {
                if let Actor::Client(client) = actor {
                    client.finish(now);
                }
            });
        }
        self.recover()?;
        self.compare()?;
        self.judge()
    }

    fn clients(&self) -> impl Iterator<Item = HostId> + use<> {
        (self.plan.replicas_count..self.plan.hosts.len() as u32).map(HostId)
    }

    fn replicas(&self) -> impl Iterator<Item = &Replica<Store>> {
        replicas(&self.sim, self.plan.replicas_count)
    }

    fn client(&self, host: HostId) -> &Client {
        match self.sim.protocol(host) {
            Some(Actor::Client(client)) => client,
            _ => unreachable!("clients are spared, and stand behind the replicas"),
        }
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
            EventKind::Turned(host) if host.0 < self.plan.replicas_count => {
                let Some(Actor::Replica(replica)) = self.sim.protocol(host) else {
                    return Ok(());
                };
                self.coverage.watch(host.0, replica.counters());
                self.observer.observe(replica).map_err(broken)?;
                self.turns_count += 1;
                if self.turns_count.is_multiple_of(COMPARE_EVERY_TURNS) {
                    self.compare()?;
                }
                self.lie_in_wait(host, event.at);
            }
            EventKind::Started(host) => {
                self.observer.restarted(host.0);
                self.coverage.restarted(host.0);
                if self.sim.protocol(host).is_none() {
                    let why = self.sim.error(host).map_or(String::new(), io::Error::to_string);
                    let text = format!("node {} cannot start from its log: {why}", host.0);
                    return Err(finding(FindingKind::Process, text));
                }
            }
            EventKind::Failed(host) => {
                let error = self.sim.error(host);
                // The disk's own errors are of another kind; this one is the log's opinion of its user.
                if let Some(error) = error.filter(|error| error.kind() == io::ErrorKind::InvalidInput) {
                    let text = format!("node {} wrote what a log does not take: {error}", host.0);
                    return Err(finding(FindingKind::Process, text));
                }
                self.coverage.disk_errors_count += 1;
            }
            EventKind::FaultBegan(index) => {
                let mut faults = self.plan.faults.iter().chain(&self.struck);
                let began = faults.nth(index).expect("the simulator has no other faults");
                self.coverage.fault(&began.fault);
            }
            EventKind::Turned(_) | EventKind::Delivered { .. } | EventKind::FaultEnded(_) => {}
        }
        Ok(())
    }

    /// `host` has had its turn: an ambush may strike.
    fn lie_in_wait(&mut self, host: HostId, now: SimTime) {
        if self.ambushes.are_far(now) {
            return;
        }
        let Some(Actor::Replica(turned)) = self.sim.protocol(host) else {
            return;
        };
        let before_count = self.struck.len();
        let all = replicas(&self.sim, self.plan.replicas_count);
        self.ambushes.watch(now, turned, all, &mut self.struck);
        self.sim.schedule(&self.struck[before_count..]);
    }

    fn compare(&self) -> Result<(), Finding> {
        let replicas: Vec<&Replica<Store>> = self.replicas().collect();
        check::all_agree(&replicas).map_err(broken)
    }

    /// One voter more, one less, or other quorums, as the newest leader sees the members.
    fn ask_for_change(&mut self) {
        let Some(old) = self.leader().map(Replica::members) else {
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
        let asked = self.sim.with_protocol(host, |actor, now| match actor {
            Actor::Client(client) => client.reconfigure(now, new),
            Actor::Replica(_) => false,
        });
        self.coverage.changes_asked_count += u64::from(asked == Some(true));
    }

    fn leader(&self) -> Option<&Replica<Store>> {
        self.replicas()
            .filter(|replica| replica.role() == RoleName::Leader)
            .max_by_key(|replica| replica.term())
    }

    /// Until all is answered and all members are equal.
    fn recover(&mut self) -> Result<(), Finding> {
        let until = self.plan.healed_at + self.plan.recovery_max;
        let mut at = self.plan.healed_at;
        while at < until {
            at += SimTime::from_ms(5);
            self.run_until(at)?;
            if self.clients().all(|host| self.client(host).is_done()) && self.is_even() {
                let took_ms = (at - self.plan.healed_at).as_ns() / 1_000_000;
                self.coverage.recovery_ms_max = self.coverage.recovery_ms_max.max(took_ms);
                return Ok(());
            }
        }
        Err(finding(FindingKind::Recovery, self.describe()))
    }

    /// Whether every member has applied what the leader has, which is all of its log.
    fn is_even(&self) -> bool {
        let Some(leader) = self.leader() else { return false };
        let (members, end) = (leader.members(), leader.window().end());
        let mut even = self.replicas().filter(|replica| members.contains(replica.node()));
        even.all(|replica| replica.applied_end() == end)
    }

    fn describe(&self) -> String {
        let mut text = format!(
            "{} ms after the last fault had ended, not everything was answered, or not every member was even:",
            self.plan.recovery_max.as_ns() / 1_000_000
        );
        for replica in self.replicas() {
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
        for host in self.clients().filter(|&host| !self.client(host).is_done()) {
            text += &format!("\n  client {}: {:?}", host.0, self.client(host));
        }
        text
    }

    /// Whether one order explains what the clients were answered.
    fn judge(&mut self) -> Result<(), Finding> {
        let history = self.history();
        for host in self.clients() {
            let counts = self.client(host).counts;
            self.coverage.add_client(&counts);
        }
        self.coverage.ops_count += history.op_count() as u64;
        self.coverage.terms_count += self.observer.led_terms_count() as u64;
        match history.check_stale(&CHECK_LIMITS) {
            Verdict::Linearizable => Ok(()),
            Verdict::Violation(violation) => Err(finding(FindingKind::Linearizability, violation.to_string())),
            Verdict::Unknown { .. } => {
                self.coverage.undecided_count += 1;
                Ok(())
            }
        }
    }

    fn history(&self) -> History {
        // (instant, answer after invocation, host, record): what happened in one nanosecond may have overlapped.
        let mut events = Vec::new();
        for host in self.clients() {
            for (index, record) in self.client(host).records.iter().enumerate() {
                events.push((record.invoked_ns, false, host, index));
                if let Some((answered_ns, _)) = &record.answered {
                    events.push((*answered_ns, true, host, index));
                }
            }
        }
        events.sort();
        let mut history = History::new();
        let mut ids = vec![Vec::new(); self.plan.hosts.len()];
        for (at_ns, is_answer, host, index) in events {
            let record = &self.client(host).records[index];
            let key = &[b'a' + record.key][..];
            if is_answer {
                let (_, answered) = record.answered.as_ref().expect("it was put on the list for its answer");
                history
                    .answer(ids[host.0 as usize][index], at_ns, answer(&record.asked, answered))
                    .expect("a client writes down one answer, later than its question");
                continue;
            }
            let op = match &record.asked {
                Asked::Get => Op::Get { key },
                Asked::StaleGet => Op::StaleGet { key },
                Asked::Put(value) => Op::Put { key, value },
                Asked::Append(value) => Op::Append { key, value },
                Asked::CompareAndSwap(expected, value) => Op::CompareAndSwap {
                    key,
                    expected: Some(expected),
                    new: value,
                },
                Asked::Delete => Op::Delete { key },
            };
            // Stale reads go to any replica, one ahead of the other, so each is a client's of its own.
            let client = match record.asked {
                Asked::StaleGet => 1_000_000 + history.op_count() as u32,
                _ => host.0,
            };
            ids[host.0 as usize].push(history.invoke(client, at_ns, op));
        }
        history
    }
}

/// The replicas that are up.
fn replicas(sim: &Sim<Actor>, replicas_count: u32) -> impl Iterator<Item = &Replica<Store>> {
    (0..replicas_count).filter_map(|host| match sim.protocol(HostId(host)) {
        Some(Actor::Replica(replica)) => Some(&**replica),
        _ => None,
    })
}

fn answer<'a>(asked: &Asked, answered: &'a Answered) -> Answer<'a> {
    match (asked, answered) {
        (_, Answered::Refused) => Answer::Refused,
        (_, Answered::Lost) => Answer::Lost,
        (Asked::CompareAndSwap(..), Answered::Done) => Answer::Swapped,
        (Asked::CompareAndSwap(..), Answered::Absent) => Answer::Mismatch { found: None },
        (Asked::Delete, Answered::Done) => Answer::Deleted { existed: true },
        (Asked::Delete, Answered::Absent) => Answer::Deleted { existed: false },
        (_, Answered::Done) => Answer::Done,
        (_, Answered::Absent) => Answer::Value(None),
        (_, Answered::Value(value)) => Answer::Value(Some(value)),
        (_, Answered::Mismatch(value)) => Answer::Mismatch { found: Some(value) },
    }
}

fn broken(violation: check::Violation) -> Finding {
    finding(FindingKind::Invariant, violation.to_string())
}

fn finding(kind: FindingKind, text: impl Into<String>) -> Finding {
    let text = text.into();
    Finding { kind, text }
}
