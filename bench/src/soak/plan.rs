//! A history's plan: everything that its seed decides before it begins.

use std::time::Duration;

use dataplane_quorum::{Config, Limits, Mutation, ReadMode, Timing, majorities};
use dataplane_sim::{DiskOptions, HostOptions, Latency, LinkOptions, ScheduledFault, SimTime, costs};
use dataplane_waist::Peer;
use dataplane_wire::quorum::members::Members;
use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use rand_pcg::Pcg64Mcg;

use super::{
    ambush::{self, Ambush},
    client::Habits,
    driver::{self, DriverKind, DriverPlan, Flaw},
    faults,
};
use crate::replicas::FanOut;

/// What is asked of a soak.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Fewest and most replicas.
    pub nodes: (u32, u32),
    /// Whether anything goes wrong at all.
    pub has_faults: bool,
    /// A mistake to make on purpose.
    pub breaks: Option<Break>,
    /// Who does the fast path.
    pub driver: DriverKind,
    /// How a leader's program reaches the followers; `None`: as each history draws it.
    pub fan_out: Option<FanOut>,
    /// A mistake of whoever does.
    pub flaw: Option<Flaw>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            nodes: (3, 7),
            has_faults: true,
            breaks: None,
            driver: DriverKind::None,
            fan_out: None,
            flaw: None,
        }
    }
}

/// A mistake that a soak must see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// In the protocol.
    Mutation(Mutation),
    /// In the disks: syncs that keep nothing.
    LyingDisk,
}

impl Break {
    /// All of them.
    pub fn all() -> Vec<Break> {
        let mutations = Mutation::ALL.into_iter().map(Break::Mutation);
        mutations.chain([Break::LyingDisk]).collect()
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Break::Mutation(Mutation::SmallCommitQuorum) => "small-commit-quorum",
            Break::Mutation(Mutation::SmallElectionQuorum) => "small-election-quorum",
            Break::Mutation(Mutation::ForgottenVote) => "forgotten-vote",
            Break::Mutation(Mutation::StaleLease) => "stale-lease",
            Break::Mutation(Mutation::CommitsOldTerms) => "commits-old-terms",
            Break::Mutation(Mutation::NoMatching) => "no-matching",
            Break::Mutation(Mutation::AckBeforeDurable) => "ack-before-durable",
            Break::Mutation(Mutation::ForgetsSessions) => "forgets-sessions",
            Break::Mutation(Mutation::VotesForAnybody) => "votes-for-anybody",
            Break::Mutation(Mutation::UncheckedRead) => "unchecked-read",
            Break::LyingDisk => "lying-disk",
        }
    }
}

/// A history before it begins.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What everything is drawn from.
    pub seed: u64,
    /// Hosts with a replica: the first so many. Behind them come the clients.
    pub replicas_count: u32,
    /// Who votes at first.
    pub members: Members,
    /// How reads are made linearizable.
    pub reads: ReadMode,
    /// The replicas' timers.
    pub timing: Timing,
    /// Their bounds.
    pub limits: Limits,
    /// The hosts, replicas and clients.
    pub hosts: Vec<HostOptions>,
    /// All links.
    pub link: LinkOptions,
    /// The clients.
    pub clients: Vec<Habits>,
    /// When somebody asks for other members.
    pub changes: Vec<SimTime>,
    /// The fewest voters that a change may leave.
    pub voters_min: u32,
    /// What goes wrong.
    pub faults: Vec<ScheduledFault>,
    /// What goes wrong at a moment that only the history shows.
    pub ambushes: Vec<Ambush>,
    /// By then everything is whole again.
    pub healed_at: SimTime,
    /// How long it may take until all is answered, and all replicas are equal, after that.
    pub recovery_max: SimTime,
    /// A mistake to make on purpose.
    pub breaks: Option<Break>,
    /// Programs that do the replicas' fast path.
    pub driver: Option<DriverPlan>,
}

/// A share of the time in which things go wrong, for what has to do with elections.
pub const ELECTION_MIN: Duration = Duration::from_millis(10);

/// The longest value: with it, the longest answer fits into the shortest frame.
pub const VALUE_BYTES_MAX: usize = 120;

impl Plan {
    /// The plan of `seed`.
    pub fn draw(seed: u64, options: &Options) -> Plan {
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let replicas_count = rng.random_range(options.nodes.0..=options.nodes.1);
        let changes_members = rng.random_bool(0.25);
        let members = draw_members(&mut rng, replicas_count, changes_members);
        let reads = match rng.random_bool(0.5) {
            true => ReadMode::Index,
            false => ReadMode::Lease,
        };
        let timing = draw_timing(&mut rng);
        let healed_at = SimTime::from_ms(rng.random_range(120..300));
        let (link, disk) = (draw_link(&mut rng), draw_disk(&mut rng));
        // Two clocks may differ by the whole ratio, so each from the true time by a little less than half of it.
        let drift_ppm_max = (timing.drift_ratio * 0.49 * 1e6) as i32;
        let replica = |rng: &mut Pcg64Mcg| HostOptions {
            disk,
            clock_skew_ns: rng.random_range(0..1_000_000_000),
            clock_drift_ppm: rng.random_range(-drift_ppm_max..=drift_ppm_max),
            effects_actions_max: 1024,
            effects_bytes_max: 1 << 18,
            restart: SimTime::from_us(rng.random_range(100..10_000)),
            ..HostOptions::default()
        };
        let mut hosts: Vec<HostOptions> = (0..replicas_count).map(|_| replica(&mut rng)).collect();
        let limits = draw_limits(&mut rng);
        let clients_count = rng.random_range(2..=5);
        let ops_count = rng.random_range(60..260) / clients_count;
        let keys_count = rng.random_range(1..=4);
        let think_max = Duration::from_nanos(2 * healed_at.as_ns() / u64::from(ops_count));
        let clients = (0..clients_count).map(|_| Habits {
            depth: *[1, 1, 2, 4].choose(&mut rng).expect("four"),
            ops_count,
            think_max: think_max.mul_f64(rng.random_range(0.3..0.9)),
            timeout: Duration::from_micros(rng.random_range(2_000..15_000)),
            reads_ratio: *[0.2, 0.5, 0.8].choose(&mut rng).expect("three"),
            puts_ratio: 0.0,
            strays_ratio: 0.7,
            gives_up_ratio: *[0.0, 0.0, 0.1].choose(&mut rng).expect("three"),
            keys_count,
            sequences_max: limits.session_replies as u64,
        });
        let clients: Vec<Habits> = clients.collect();
        hosts.extend(clients.iter().map(|_| HostOptions {
            effects_actions_max: 64,
            effects_bytes_max: 1 << 14,
            ..HostOptions::default()
        }));
        let changes = match changes_members {
            true => (0..rng.random_range(1..6))
                .map(|_| SimTime::from_ps(rng.random_range(0..healed_at.as_ps())))
                .collect(),
            false => Vec::new(),
        };
        let mut plan = Plan {
            seed,
            replicas_count,
            members,
            reads,
            timing,
            limits,
            hosts,
            link,
            clients,
            changes,
            voters_min: 2,
            faults: Vec::new(),
            ambushes: Vec::new(),
            healed_at,
            recovery_max: SimTime::from_ms(2_000),
            breaks: options.breaks,
            driver: None,
        };
        plan.changes.sort();
        if options.has_faults {
            faults::draw(&mut rng, &mut plan, drift_ppm_max);
            ambush::draw(&mut plan);
        }
        if options.driver != DriverKind::None {
            driver::draw(&mut plan, options);
        }
        plan
    }

    /// Whether entries visit the followers in a chain.
    pub fn has_chains(&self) -> bool {
        self.driver.as_ref().is_some_and(|driver| driver.chain.is_some())
    }

    /// A replica's configuration; `seed` is another one at each start.
    pub fn config(&self, node: u32, seed: u64) -> Config {
        Config {
            cluster: 7,
            node,
            peers: (0..self.replicas_count)
                .filter(|&other| other != node)
                .map(|other| (other, Peer(other)))
                .collect(),
            members: self.members,
            reads: self.reads,
            timing: self.timing,
            limits: self.limits,
            seed,
            mutation: match self.breaks {
                Some(Break::Mutation(mutation)) => Some(mutation),
                _ => None,
            },
        }
    }
}

fn draw_members(rng: &mut Pcg64Mcg, replicas_count: u32, changes_members: bool) -> Members {
    let everybody = (1 << replicas_count) - 1;
    let voters = match changes_members && replicas_count > 3 && rng.random_bool(0.5) {
        // The last ones stand by.
        true => everybody >> rng.random_range(0..=replicas_count - 3),
        false => everybody,
    };
    let mut members = majorities(voters);
    if rng.random_bool(0.3) {
        // A small quorum for commits and a large one for elections (Flexible Paxos, §4), or both larger than they must be.
        let count = members.count() as u8;
        members.elect_count = rng.random_range(members.elect_count..=count);
        members.commit_count = rng
            .random_range(count - members.elect_count + 1..=count.div_ceil(2) + 1)
            .min(count);
    }
    assert!(members.is_sound(), "{members:?}");
    members
}

fn draw_timing(rng: &mut Pcg64Mcg) -> Timing {
    Timing {
        heartbeat: Duration::from_micros(rng.random_range(2_000..=5_000)),
        election_min: ELECTION_MIN,
        election_max: ELECTION_MIN.mul_f64(*[1.2, 1.5, 2.0, 2.5].choose(rng).expect("four")),
        retransmit: Duration::from_micros(rng.random_range(300..2_000)),
        drift_ratio: *[0.01, 0.1].choose(rng).expect("two"),
    }
}

/// Small bounds, so that each is reached.
fn draw_limits(rng: &mut Pcg64Mcg) -> Limits {
    let window_slots = *[64, 128, 256].choose(rng).expect("three");
    Limits {
        window_slots,
        window_bytes: *[4 << 10, 16 << 10].choose(rng).expect("two"),
        in_flight_slots: rng.random_range(4..=window_slots as u64 / 4),
        pipeline_slots: rng.random_range(1..=24),
        held_slots: rng.random_range(2..=16),
        frame_bytes_max: *[400, 700, 1472].choose(rng).expect("three"),
        snapshot_slots: rng.random_range(12..=window_slots as u64 / 2).min(50),
        catch_up_slots: rng.random_range(0..window_slots as u64 / 4).min(20),
        snapshot_bytes_max: 1 << 20,
        sessions_max: rng.random_range(4..=8),
        session_replies: rng.random_range(4..=16),
        reads_max: rng.random_range(2..=32),
    }
}

/// Hosts side by side, or far apart: then an election takes as long as its time-out.
fn draw_link(rng: &mut Pcg64Mcg) -> LinkOptions {
    let latency = match rng.random_bool(0.6) {
        true => costs::LINK,
        false => Latency {
            min: SimTime::from_us(rng.random_range(50..1_000)),
            spread: SimTime::from_us(rng.random_range(50..1_000)),
            tail_ratio: 0.02,
            tail: SimTime::from_us(5_000),
        },
    };
    LinkOptions {
        latency,
        ..LinkOptions::default()
    }
}

fn draw_disk(rng: &mut Pcg64Mcg) -> DiskOptions {
    let sync = match rng.random_bool(0.6) {
        true => costs::SYNC,
        false => Latency {
            min: SimTime::from_us(rng.random_range(100..1_500)),
            spread: SimTime::from_us(rng.random_range(100..1_500)),
            tail_ratio: 0.02,
            tail: SimTime::from_us(10_000),
        },
    };
    DiskOptions {
        sync,
        reorders: rng.random_bool(0.8),
    }
}
