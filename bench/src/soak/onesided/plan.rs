//! What the seed of a one-sided history decides before it begins.

use std::time::Duration;

use dataplane_quorum::onesided::{Config, Layout, Limits, Mutation, Start, Timing};
use dataplane_sim::{
    Crash, FabricOptions, Fault, FaultBounds, FaultKind, HostId, HostOptions, Latency, LinkOptions, Placement,
    ScheduledFault, SimTime, generate,
};
use dataplane_waist::Peer;
use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use rand_pcg::Pcg64Mcg;

use super::super::client::Habits;

/// What is asked of one-sided histories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Fewest and most replicas.
    pub nodes: (u32, u32),
    /// Whether anything goes wrong.
    pub has_faults: bool,
    /// A mistake to make on purpose.
    pub mutation: Option<Mutation>,
}

/// A history before it begins.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What everything is drawn from.
    pub seed: u64,
    /// Hosts with a replica: the first so many. Behind them come the clients.
    pub replicas_count: u32,
    /// The windows.
    pub layout: Layout,
    /// Timers.
    pub timing: Timing,
    /// Bounds.
    pub limits: Limits,
    /// What is between the windows.
    pub fabric: FabricOptions,
    /// All hosts.
    pub hosts: Vec<HostOptions>,
    /// The clients' links.
    pub link: LinkOptions,
    /// The clients.
    pub clients: Vec<Habits>,
    /// What goes wrong. A crash that would leave no majority of memories is left out when its time comes.
    pub faults: Vec<ScheduledFault>,
    /// By then everything is whole again.
    pub healed_at: SimTime,
    /// How long it may take until all is answered, and all replicas are equal, after that.
    pub recovery_max: SimTime,
    /// A mistake to make on purpose.
    pub mutation: Option<Mutation>,
}

/// The longest entry: of a compare-and-swap of the clients'.
const ENTRY_BYTES_MAX: usize = 24 + 1 + 2 * super::super::plan::VALUE_BYTES_MAX;

impl Plan {
    /// The plan of `seed`.
    pub fn draw(seed: u64, options: &Options) -> Plan {
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let replicas_count = rng.random_range(options.nodes.0..=options.nodes.1);
        let healed_at = SimTime::from_us(rng.random_range(3_000..8_000));
        let slots_count = *[8, 16, 32, 64].choose(&mut rng).expect("four");
        let layout = Layout {
            slots_count,
            entry_bytes_max: ENTRY_BYTES_MAX,
            snapshot_bytes_max: 1 << 15,
        };
        let limits = Limits {
            in_flight_slots: rng.random_range(1..=slots_count / 2),
            queued_max: rng.random_range(2..=16),
            sessions_max: rng.random_range(5..=8),
            session_replies: rng.random_range(4..=16),
            request_bytes_max: layout.slot_bytes() * rng.random_range(1..=4),
        };
        let fabric = draw_fabric(&mut rng, layout);
        let replica = |rng: &mut Pcg64Mcg| HostOptions {
            clock_skew_ns: rng.random_range(0..1_000_000),
            clock_drift_ppm: rng.random_range(-500..=500),
            turn: SimTime::from_ns(rng.random_range(100..1_500)),
            restart: SimTime::from_us(rng.random_range(50..1_000)),
            ..HostOptions::default()
        };
        let mut hosts: Vec<HostOptions> = (0..replicas_count).map(|_| replica(&mut rng)).collect();
        let clients_count = rng.random_range(2..=4);
        let ops_count = rng.random_range(40..160) / clients_count;
        let keys_count = rng.random_range(1..=3);
        let think_max = Duration::from_nanos(2 * healed_at.as_ns() / u64::from(ops_count));
        let clients: Vec<Habits> = (0..clients_count)
            .map(|_| Habits {
                depth: *[1, 1, 2, 4].choose(&mut rng).expect("four"),
                ops_count,
                think_max: think_max.mul_f64(rng.random_range(0.1..0.9)),
                timeout: Duration::from_micros(rng.random_range(150..800)),
                reads_ratio: *[0.2, 0.5, 0.8].choose(&mut rng).expect("three"),
                puts_ratio: 0.0,
                strays_ratio: 0.7,
                gives_up_ratio: *[0.0, 0.0, 0.1].choose(&mut rng).expect("three"),
                keys_count,
                sequences_max: limits.session_replies as u64,
            })
            .collect();
        hosts.extend(clients.iter().map(|_| HostOptions {
            effects_actions_max: 64,
            effects_bytes_max: 1 << 14,
            ..HostOptions::default()
        }));
        let mut plan = Plan {
            seed,
            replicas_count,
            layout,
            timing: Timing {
                heartbeat: Duration::from_micros(rng.random_range(20..60)),
            },
            limits,
            fabric,
            hosts,
            link: LinkOptions {
                latency: Latency::uniform(SimTime::from_us(2), SimTime::from_us(4)),
                ..LinkOptions::default()
            },
            clients,
            faults: Vec::new(),
            healed_at,
            recovery_max: SimTime::from_ms(100),
            mutation: options.mutation,
        };
        if options.has_faults {
            draw_faults(&mut rng, &mut plan);
        }
        plan
    }

    /// A replica's configuration at its start of that number.
    pub fn config(&self, node: u32, starts_count: u32) -> Config {
        Config {
            cluster: 7,
            node,
            peers: (0..self.replicas_count)
                .filter(|&other| other != node)
                .map(|other| (other, Peer(other)))
                .collect(),
            life: starts_count,
            start: match starts_count {
                0 => Start::First,
                _ => Start::Again,
            },
            layout: self.layout,
            timing: self.timing,
            limits: self.limits,
            mutation: self.mutation,
        }
    }

    /// Where replicas' words become visible, and how late.
    pub fn window_bytes(layout: &Layout) -> usize {
        layout.replication_bytes().max(layout.background_bytes())
    }
}

fn draw_fabric(rng: &mut Pcg64Mcg, layout: Layout) -> FabricOptions {
    FabricOptions {
        window_bytes: Plan::window_bytes(&layout),
        latency: match rng.random_bool(0.7) {
            true => FabricOptions::default().latency,
            false => Latency {
                min: SimTime::from_ns(600),
                spread: SimTime::from_us(rng.random_range(1..10)),
                tail_ratio: 0.02,
                tail: SimTime::from_us(100),
            },
        },
        // Long enough that turns fall into it: a NIC under load, or a write of several packets.
        landing: SimTime::from_ns(*[100, 1_000, 5_000].choose(rng).expect("three")),
        placement: *[Placement::Rising, Placement::Any].choose(rng).expect("two"),
        timeout: SimTime::from_us(rng.random_range(50..400)),
        requests_max: rng.random_range(32..=128),
        repair: SimTime::from_us(rng.random_range(10..200)),
        crash_cuts_ratio: 0.5,
    }
}

fn draw_faults(rng: &mut Pcg64Mcg, plan: &mut Plan) {
    let end = plan.healed_at;
    let bounds = FaultBounds {
        hosts_count: plan.replicas_count,
        begin: SimTime::ZERO,
        end,
        faults_max: rng.random_range(1..10),
        lasts_max: SimTime::from_ps(end.as_ps() / 4),
        down_hosts_max: plan.replicas_count as usize,
        kinds: vec![
            FaultKind::CrashPower,
            FaultKind::Pause,
            FaultKind::Pause,
            FaultKind::Partition,
            FaultKind::Block,
            FaultKind::Degrade,
            FaultKind::Drift,
        ],
        drift_ppm_max: 500,
        jump_ns_max: 0,
    };
    let mut faults = generate(rng.random(), &bounds);
    // Those who lead are the lowest: trouble among them is trouble for the log. One after the other, a little apart.
    for _ in 0..rng.random_range(0..4) {
        let mut at = SimTime::from_ps(rng.random_range(0..end.as_ps()));
        for _ in 0..rng.random_range(1..6) {
            let host = HostId(rng.random_range(0..plan.replicas_count.min(3)));
            let lasts = SimTime::from_us(rng.random_range(20..1_200));
            if at + lasts < end {
                let fault = draw_trouble(rng, host, lasts, plan.replicas_count);
                faults.push(ScheduledFault { at, fault });
            }
            at += SimTime::from_us(rng.random_range(1..500));
        }
    }
    faults.sort_by_key(|fault| fault.at);
    plan.faults = faults;
}

fn draw_trouble(rng: &mut Pcg64Mcg, host: HostId, lasts: SimTime, replicas_count: u32) -> Fault {
    let of = |host: HostId| dataplane_sim::HostSet::of([host]);
    let other = HostId((host.0 + rng.random_range(1..replicas_count.max(2))) % replicas_count);
    match rng.random_range(0..6) {
        0 => Fault::Crash {
            host,
            crash: Crash::Power,
            lasts,
        },
        1 | 2 => Fault::Pause { host, lasts },
        3 => Fault::Block {
            from: of(host),
            to: of(other),
            lasts,
        },
        4 => Fault::Block {
            from: of(other),
            to: of(host),
            lasts,
        },
        _ => Fault::Partition { side: of(host), lasts },
    }
}
