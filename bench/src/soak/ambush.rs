//! Faults that wait for their moment. A list that is drawn before a history begins hits an election, or a leader whose lease
//! still runs, once in a thousand; an ambush looks at the replicas as they go, as an adversary would, and strikes then.
//!
//! What it does is what honest networks, processes and clocks do: links that are slow, repeat or say nothing, processes that
//! die and are back, hosts that stand still.

use dataplane_kv::Store;
use dataplane_quorum::{ReadMode, Replica, RoleName};
use dataplane_sim::{Crash, Fault, HostId, HostSet, LinkFaults, ScheduledFault, SimTime};
use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use rand_pcg::Pcg64Mcg;

use super::plan::{ELECTION_MIN, Plan};

/// An ambush, from when on it is laid.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ambush {
    /// When.
    pub at: SimTime,
    /// For what.
    pub aim: Aim,
    /// What its chances are drawn from.
    pub seed: u64,
}

/// What an ambush waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    /// Two candidates race in one term. Whoever has voted for one dies, is back at once, stands still for as long as it
    /// would believe in a leader, and then finds the other's question: who forgot its vote votes a second time.
    SecondVote,
    /// A leader is cut off from the other replicas, together with some clients, while its lease may still run. The other
    /// clients write at its successor: who relies on a lease too long gives old answers.
    OldLeader,
    /// A chain breaks at its beginning, while its end still hears the leader: what is on its way comes late and again, and the last
    /// follower gets the next entries by themselves. Then both are cut off from all others, who elect somebody else: an
    /// acknowledgement that spoke for one of them too many is an entry lost.
    EndOfChain,
}

/// Draws a history's ambushes, from a stream of their own: a plan without any is as it was before there were some.
pub(super) fn draw(plan: &mut Plan) {
    let mut rng = Pcg64Mcg::seed_from_u64(!plan.seed.rotate_left(32));
    if plan.replicas_count < 3 || plan.clients.len() < 2 || rng.random_bool(0.5) {
        return;
    }
    let old_leader_ratio = match plan.reads {
        ReadMode::Lease => 0.7,
        ReadMode::Index => 0.3,
    };
    let latest = SimTime::from_ps(plan.healed_at.as_ps() / 4 * 3);
    let ambushes = (0..rng.random_range(1..=2)).map(|_| Ambush {
        at: SimTime::from_ps(rng.random_range(0..latest.as_ps())),
        aim: match rng.random_bool(old_leader_ratio) {
            true => Aim::OldLeader,
            false => Aim::SecondVote,
        },
        seed: rng.random(),
    });
    plan.ambushes = ambushes.collect();
    plan.ambushes.sort_by_key(|ambush| ambush.at);
    if plan.ambushes.iter().any(|ambush| ambush.aim == Aim::OldLeader) {
        // Somebody who stays where it was answered, and often reads what others write.
        let reader = &mut plan.clients[0];
        (reader.reads_ratio, reader.strays_ratio) = (1.0, 0.1);
        reader.depth = reader.depth.max(2);
        reader.ops_count *= 2;
        reader.think_max /= 2;
    }
}

/// How often candidates are made to race before an ambush is given up.
const RACES_MAX: u32 = 4;

/// The plan's ambushes, one after the other.
#[derive(Debug)]
pub(super) struct Ambushes<'a> {
    plan: &'a Plan,
    next: usize,
    rng: Pcg64Mcg,
    race: Option<Race>,
    /// How many ambushes have struck.
    pub(super) struck_count: u64,
}

/// An election in which candidates are made to race.
#[derive(Clone, Copy, Debug)]
struct Race {
    number: u32,
    until: SimTime,
    /// The term and the candidate for which somebody has voted while another one stood.
    first: Option<(u64, u32)>,
    /// The voters that are to vote a second time, as bits.
    tempted: u64,
}

impl<'a> Ambushes<'a> {
    pub(super) fn new(plan: &'a Plan) -> Ambushes<'a> {
        Ambushes {
            plan,
            next: 0,
            rng: Pcg64Mcg::seed_from_u64(0),
            race: None,
            struck_count: 0,
        }
    }

    /// Whether a look at the replicas would be for nothing.
    pub(super) fn are_far(&self, now: SimTime) -> bool {
        let next = self.plan.ambushes.get(self.next);
        now >= self.plan.healed_at || next.is_none_or(|ambush| now < ambush.at)
    }

    /// `turned` has had its turn, `all` are up: adds what is to go wrong now, or soon, to `faults`.
    pub(super) fn watch<'r>(
        &mut self,
        now: SimTime,
        turned: &Replica<Store>,
        mut all: impl Iterator<Item = &'r Replica<Store>>,
        faults: &mut Vec<ScheduledFault>,
    ) {
        let ambush = self.plan.ambushes[self.next];
        let (node, term) = (turned.node(), turned.term());
        let plan = self.plan;
        let mut strike = Strike {
            now,
            plan,
            rng: &mut self.rng,
            faults,
        };
        if ambush.aim != Aim::SecondVote {
            // One that has committed something of its own term has a lease, as a rule.
            let is_settled = turned.commit_end() == turned.window().end();
            if turned.role() == RoleName::Leader && is_settled && all.all(|other| other.term() <= term) {
                *strike.rng = Pcg64Mcg::seed_from_u64(ambush.seed);
                match ambush.aim {
                    Aim::EndOfChain => strike.break_chain(node),
                    _ => strike.cut_off(node),
                }
                self.struck_count += 1;
                self.next += 1;
            }
            return;
        }
        let Some(mut race) = self.race else {
            *strike.rng = Pcg64Mcg::seed_from_u64(ambush.seed);
            strike.start_race();
            self.race = Some(Race::new(now, 1));
            return;
        };
        if now >= race.until {
            let again = race.first.is_none() && race.number < RACES_MAX;
            self.race = again.then_some(Race::new(now, race.number + 1));
            match again {
                true => strike.start_race(),
                false => self.next += 1,
            }
            return;
        }
        let Some(voted_for) = turned.vote_given().filter(|&candidate| candidate != node) else {
            return;
        };
        let election = (term.0, voted_for);
        if race.tempted >> node & 1 == 1 || race.first.is_some_and(|first| first != election) {
            return;
        }
        let is_rival = |other: &Replica<Store>| {
            let (rival, is_candidate) = (other.node(), other.role() == RoleName::Candidate);
            is_candidate && other.term() == term && rival != voted_for && other.vote_given() == Some(rival)
        };
        if race.first.is_none() && !all.any(is_rival) {
            return;
        }
        if race.first.is_none() {
            strike.silence(voted_for);
            race.first = Some(election);
            race.until = now + elections(3.0);
            self.struck_count += 1;
        }
        strike.tempt(node);
        race.tempted |= 1 << node;
        self.race = Some(race);
    }
}

impl Race {
    fn new(now: SimTime, number: u32) -> Race {
        Race {
            number,
            until: now + elections(4.0),
            first: None,
            tempted: 0,
        }
    }
}

fn elections(count: f64) -> SimTime {
    SimTime::from_ns(ELECTION_MIN.mul_f64(count).as_nanos() as u64)
}

/// What goes wrong at one moment.
struct Strike<'a> {
    now: SimTime,
    plan: &'a Plan,
    rng: &'a mut Pcg64Mcg,
    faults: &'a mut Vec<ScheduledFault>,
}

impl Strike<'_> {
    /// From `least` to `most` times the shortest election time-out.
    fn elections(&mut self, least: f64, most: f64) -> SimTime {
        elections(self.rng.random_range(least..most))
    }

    /// Cut to the time in which things go wrong.
    fn push(&mut self, at: SimTime, fault: impl FnOnce(SimTime) -> Fault, lasts: SimTime) {
        if at < self.plan.healed_at {
            let fault = fault(lasts.min(self.plan.healed_at - at));
            self.faults.push(ScheduledFault { at, fault });
        }
    }

    fn block(&mut self, from: HostSet, to: HostSet, lasts: SimTime) {
        self.push(self.now, |lasts| Fault::Block { from, to, lasts }, lasts);
    }

    fn replicas(&self) -> HostSet {
        HostSet((1 << self.plan.replicas_count) - 1)
    }

    /// Everybody begins again at the same time, over links on which a candidate's question takes about as long as the next
    /// one's patience, and comes twice.
    fn start_race(&mut self) {
        let replicas = self.replicas();
        for host in (0..self.plan.replicas_count).map(HostId) {
            let (crash, lasts) = (Crash::Process, SimTime::from_us(50));
            self.push(self.now, |lasts| Fault::Crash { host, crash, lasts }, lasts);
        }
        let faults = LinkFaults {
            slow: self.elections(0.05, 0.3),
            duplicate_ratio: 0.8,
            reorder: self.elections(0.5, 1.5),
            ..LinkFaults::default()
        };
        let (from, to, lasts) = (replicas, replicas, elections(4.0));
        let degrade = |lasts| Fault::Degrade {
            from,
            to,
            faults,
            lasts,
        };
        self.push(self.now, degrade, lasts);
    }

    /// A candidate that is elected tells the other replicas nothing of it.
    fn silence(&mut self, candidate: u32) {
        let lasts = self.elections(2.0, 4.0);
        self.block(HostSet::of([HostId(candidate)]), self.replicas(), lasts);
    }

    /// A voter dies, begins again, and stands still until it would believe in no leader any more, however slow its clock.
    fn tempt(&mut self, voter: u32) {
        let host = HostId(voter);
        let crash = *[Crash::Process, Crash::Power].choose(self.rng).expect("two");
        let down = SimTime::from_us(self.rng.random_range(20..200));
        self.push(self.now, |lasts| Fault::Crash { host, crash, lasts }, down);
        let stands_still = self.elections(1.06, 1.25);
        let begun_at = self.now + down + SimTime::from_us(1);
        self.push(begun_at, |lasts| Fault::Pause { host, lasts }, stands_still);
    }

    /// Everybody between `leader` and the last of its followers is soon cut off from both.
    fn break_chain(&mut self, leader: u32) {
        let last = (0..self.plan.replicas_count).rfind(|&node| node != leader);
        let ends = HostSet::of([HostId(leader), HostId(last.unwrap_or(leader))]);
        let between = HostSet(self.replicas().0 & !ends.0);
        let faults = LinkFaults {
            duplicate_ratio: 0.9,
            reorder_ratio: 0.3,
            reorder: self.elections(0.3, 1.5),
            ..LinkFaults::default()
        };
        let warning = self.elections(0.2, 1.0);
        let degrade = |lasts| Fault::Degrade {
            from: between,
            to: ends,
            faults,
            lasts,
        };
        self.push(self.now, degrade, warning);
        // They are still heard, so the leader goes on; and what is under way between them arrives.
        let lasts = self.elections(0.2, 1.5);
        self.push(
            self.now + warning,
            |lasts| Fault::Block {
                from: ends,
                to: between,
                lasts,
            },
            lasts,
        );
        let cut_at = self.now + warning + lasts;
        let lasts = self.elections(3.0, 6.0);
        for (from, to) in [(ends, between), (between, ends)] {
            self.push(cut_at, |lasts| Fault::Block { from, to, lasts }, lasts);
        }
    }

    /// A leader and some clients are soon among themselves; the others do not hear them. What its followers answered before
    /// comes a second time, late: so it goes on believing that they are there, and does not step down (check-quorum) for
    /// some time after another one is elected.
    fn cut_off(&mut self, leader: u32) {
        let leader = HostSet::of([HostId(leader)]);
        let others = HostSet(self.replicas().0 & !leader.0);
        // The first client reads; another one, where there is one, goes on writing elsewhere.
        let (reader, hosts_count) = (self.plan.replicas_count, self.plan.hosts.len() as u32);
        let clients = HostSet((1 << hosts_count) - (1 << reader));
        let writer = match hosts_count - reader {
            0 | 1 => HostSet::default(),
            _ => HostSet::of([HostId(self.rng.random_range(reader + 1..hosts_count))]),
        };
        let captives = HostSet((self.rng.random::<u64>() | 1 << reader) & clients.0 & !writer.0);
        let free = HostSet(clients.0 & !captives.0);
        let faults = LinkFaults {
            duplicate_ratio: 0.9,
            reorder: self.elections(1.0, 4.0),
            ..LinkFaults::default()
        };
        let warning = self.elections(0.2, 1.0);
        let degrade = |lasts| Fault::Degrade {
            from: others,
            to: leader,
            faults,
            lasts,
        };
        self.push(self.now, degrade, warning);
        let lasts = self.elections(3.0, 6.0);
        for (from, to) in [(leader, others), (others, leader), (captives, others), (free, leader)] {
            self.push(self.now + warning, |lasts| Fault::Block { from, to, lasts }, lasts);
        }
    }
}
