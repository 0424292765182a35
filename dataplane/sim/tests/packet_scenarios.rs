//! Random networks under random load: whatever is drawn, packets are conserved, queues are bounded, time goes forward, every
//! flow ends, and the same seed gives the same hash.
//!
//! `DPLAB_PACKET_SCENARIOS` says how many are drawn (200); a failure prints the seed, and `DPLAB_PACKET_SEED` repeats it.
#![forbid(unsafe_code)]

mod edges;

use std::{
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::Duration,
};

use dataplane_queue::{
    CoDelOptions, Discipline, DropTailOptions, FqCoDelOptions, Limit, Marking, Pfc, PfcOptions, RedOptions, Sharing,
    TrimmingOptions,
};
use dataplane_sim::{
    SimTime,
    packet::{
        Balance, Cable, Computing, Counters, Edge, Forwarding, Grouping, Headroom, HostOptions, LeafSpine, Link,
        Lossless, Outcome, Packet, PacketSim, SwitchOptions, Tap, TapEvent, Topology,
    },
};
use dataplane_transports::{ControllerKind, EcnMode, ReceiverOptions, SenderOptions};
use edges::{Flow, pull::PullEdge, tcp::TcpEdge, window::WindowEdge};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

static GO: AtomicBool = AtomicBool::new(false);

/// Longer than any of these takes: a flow that is not done by then starves.
const END: SimTime = SimTime::from_ms(2_000_000);

fn number_from(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}

#[test]
fn whatever_is_drawn_the_rules_hold() {
    if let Some(seed) = number_from("DPLAB_PACKET_SEED") {
        check(seed);
        return;
    }
    let seeds = 0..number_from("DPLAB_PACKET_SCENARIOS").unwrap_or(600).max(600);
    let checked = seeds.map(|seed| {
        let shown = Shown(seed);
        let counters = check(seed);
        std::mem::forget(shown);
        counters
    });
    // Six hundred scenarios see everything that can happen to a packet.
    let all: Counters = checked.sum();
    let drops = all.drops;
    let seen = [
        drops.queue_full_count,
        drops.buffer_full_count,
        drops.early_count,
        drops.delay_count,
        drops.header_queue_full_count,
        drops.wire_count,
        drops.headroom_full_count,
        all.pauses_count,
        all.marks_count,
        all.trims_count,
        all.returned_count,
    ];
    assert!(seen.iter().all(|&count| count > 0), "{all:?}");
}

/// Says which scenario it was if the check panics.
struct Shown(u64);

impl Drop for Shown {
    fn drop(&mut self) {
        eprintln!("this was DPLAB_PACKET_SEED={}", self.0);
    }
}

/// A scenario, drawn from its seed.
#[derive(Debug)]
struct Scenario {
    topology: Topology,
    flows: Arc<[Flow]>,
    who: Who,
    /// Flows have priorities in turn, so many.
    priorities_count: u8,
    capable: bool,
    steps: Vec<SimTime>,
    /// No queue of a switch may hold more packets or bytes.
    packets_max: u32,
    bytes_max: u64,
}

/// What hosts do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Pulls,
    Window,
    /// The transports' TCP with this controller.
    Tcp(ControllerKind),
}

impl Scenario {
    /// The most bytes of packets that are not lossless, in a queue of a switch.
    fn other_bytes_max(&self) -> u64 {
        self.bytes_max
            .min(u64::from(self.packets_max).saturating_mul(FRAME_BYTES_MAX.into()))
    }
}

fn scenario(seed: u64) -> Scenario {
    let mut draw = Pcg64Mcg::seed_from_u64(seed);
    let rates = [1_000_000_000, 10_000_000_000, 25_000_000_000, 3_333_333_333];
    let cable = |draw: &mut Pcg64Mcg| Cable {
        bits_per_sec: rates[draw.random_range(0..rates.len())],
        delay: SimTime::from_ns([0, draw.random_range(500..20_000)][draw.random_range(0..2)]),
        loss_ratio: if draw.random_bool(0.3) {
            draw.random_range(0.0..0.02)
        } else {
            0.0
        },
    };
    let who = match draw.random_range(0..10) {
        0..3 => Who::Pulls,
        3..7 => Who::Window,
        7 => Who::Tcp(ControllerKind::ALL[draw.random_range(0..ControllerKind::ALL.len())]),
        _ => Who::Tcp(ControllerKind::Swift),
    };
    let limit = draw.random_range(2..40);
    let (discipline, packets_max, bytes_max) = discipline(&mut draw, who == Who::Pulls, limit);
    let can_pause = matches!(discipline, Discipline::DropTail(_) | Discipline::Priority(_));
    let lossless = (can_pause && draw.random_bool(0.5)).then(|| lossless(&mut draw));
    let switch = SwitchOptions {
        discipline,
        sharing: match draw.random_bool(0.3) && lossless.is_none() {
            true => Sharing::Dynamic {
                memory_bytes: draw.random_range(20_000..200_000),
                alpha: [0.25, 1.0, 4.0][draw.random_range(0..3)],
            },
            false => Sharing::Static,
        },
        forwarding: [Forwarding::StoreAndForward, Forwarding::CutThrough][draw.random_range(0..2)],
        balance: [Balance::FlowHash, Balance::SprayRandom, Balance::SprayRoundRobin][draw.random_range(0..3)],
        returns_headers: draw.random_bool(0.5),
        latency: SimTime::from_ns(draw.random_range(0..500)),
        lossless,
    };
    let host = HostOptions {
        discipline: match switch.discipline {
            Discipline::Priority(options) => Discipline::Priority(DropTailOptions {
                limit: Limit::NONE,
                ..options
            }),
            _ => HostOptions::default().discipline,
        },
        ..HostOptions::default().with_latency(SimTime::from_ns(draw.random_range(0..2_000)))
    };
    let (edge, core) = (cable(&mut draw), cable(&mut draw));
    let topology = match draw.random_range(0..5) {
        0 => Topology::pair(edge, host),
        1 => Topology::star(draw.random_range(2..20), edge, host, switch),
        2 => Topology::dumbbell(
            (draw.random_range(1..8), draw.random_range(1..8)),
            edge,
            core,
            host,
            switch,
        ),
        3 => {
            let shape = LeafSpine {
                leaves_count: draw.random_range(2..5),
                hosts_per_leaf: draw.random_range(1..5),
                spines_count: draw.random_range(1..4),
            };
            Topology::leaf_spine(shape, edge, core, host, switch)
        }
        _ => Topology::fat_tree([2, 4][draw.random_range(0..2)], edge, host, switch),
    };
    let mut topology = topology.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    let hosts = topology.hosts_count;
    if draw.random_bool(0.3) {
        // Each host is another way off, there as back.
        let delays: Vec<SimTime> = (0..hosts)
            .map(|_| SimTime::from_ns(draw.random_range(0..50_000)))
            .collect();
        for link in &mut topology.links {
            let host = delays.get(link.from.min(link.to) as usize);
            link.cable.delay = host.copied().unwrap_or(link.cable.delay);
        }
    }
    topology.check().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    let mut flows: Vec<Flow> = (0..draw.random_range(1..25))
        .map(|_| {
            let from = draw.random_range(0..hosts);
            Flow {
                from,
                to: (from + draw.random_range(1..hosts)) % hosts,
                packets_count: draw.random_range(1..40),
                packet_bytes: draw.random_range(100..1_515),
                start: SimTime::from_ns(draw.random_range(0..100_000)),
            }
        })
        .collect();
    flows.sort_by_key(|flow| flow.from);
    let mut steps: Vec<_> = (0..4)
        .map(|_| SimTime::from_ns(draw.random_range(0..3_000_000)))
        .collect();
    steps.sort();
    Scenario {
        topology,
        flows: flows.into(),
        who,
        priorities_count: draw.random_range(1..9),
        capable: draw.random_bool(0.5),
        steps,
        packets_max,
        bytes_max,
    }
}

/// Lossless priorities; half of the time without enough headroom.
fn lossless(draw: &mut Pcg64Mcg) -> Lossless {
    // Less than a frame would never let one pass.
    let pause_bytes = draw.random_range(FRAME_BYTES_MAX.into()..12_000);
    Lossless {
        priorities: draw.random_range(1..=255),
        thresholds: PfcOptions {
            pause_bytes,
            resume_bytes: draw.random_range(0..pause_bytes),
        },
        headroom: match draw.random_bool(0.5) {
            true => Headroom::Enough {
                packet_bytes_max: FRAME_BYTES_MAX,
            },
            false => Headroom::Bytes(draw.random_range(0..3_000)),
        },
    }
}

/// What a port of a switch may hold of lossless priorities: what every link to the switch may.
fn lossless_bytes_max(topology: &Topology, switch: u32) -> u64 {
    let Some(lossless) = topology.switch.lossless else {
        return 0;
    };
    let of_link = |link: &&Link| link.to == switch;
    let room_bytes = |link: &Link| {
        let is_host = link.from < topology.hosts_count;
        let ends = match is_host {
            true => topology.host.tx_latency + topology.switch.latency + topology.host.rx_latency,
            false => topology.switch.latency + topology.switch.latency,
        };
        let round_trip = link.cable.delay + link.cable.delay + ends;
        let headroom_bytes = match lossless.headroom {
            Headroom::Bytes(bytes) => bytes,
            Headroom::Enough { packet_bytes_max } => {
                Pfc::headroom_bytes(link.cable.bits_per_sec, round_trip, packet_bytes_max)
            }
        };
        lossless.thresholds.pause_bytes + headroom_bytes
    };
    let links: u64 = topology.links.iter().filter(of_link).map(room_bytes).sum();
    links * u64::from(lossless.priorities.count_ones())
}

/// One of the disciplines, and the most packets and bytes that it may hold.
fn discipline(draw: &mut Pcg64Mcg, pulls: bool, limit: u32) -> (Discipline, u32, u64) {
    let threshold = Limit::Packets(limit / 2);
    let markings = [
        Marking::Never,
        Marking::AtEnqueue(threshold),
        Marking::AtDequeue(threshold),
    ];
    let marking = markings[draw.random_range(0..3)];
    let packets = Limit::Packets(limit);
    let bytes_max = u64::from(limit) * 1_500;
    if pulls || draw.random_bool(0.15) {
        let options = TrimmingOptions {
            data: packets,
            headers: packets,
            headers_per_data: draw.random_range(1..12),
        };
        return (Discipline::Trimming(options), 2 * limit, u64::MAX);
    }
    let codel = CoDelOptions {
        limit: packets,
        target: SimTime::from_us(20),
        interval: SimTime::from_us(200),
        ..CoDelOptions::default()
    };
    let discipline = match draw.random_range(0..6) {
        0 => {
            let limit = Limit::Bytes(bytes_max);
            return (
                Discipline::DropTail(DropTailOptions { limit, marking }),
                u32::MAX,
                bytes_max,
            );
        }
        1 => Discipline::Priority(DropTailOptions {
            limit: packets,
            marking,
        }),
        2 => Discipline::CoDel(codel),
        3 => Discipline::FqCoDel(FqCoDelOptions {
            packets_max: limit,
            codel,
            ..FqCoDelOptions::default()
        }),
        4 => Discipline::Red(RedOptions {
            limit: packets,
            min_packets: f64::from(limit) / 4.0,
            max_packets: f64::from(limit) / 2.0,
            max_p: 0.1,
            weight_exponent: 4,
            is_gentle: draw.random_bool(0.5),
            marks: draw.random_bool(0.5),
            packet_time: SimTime::from_us(1),
        }),
        _ => Discipline::DropTail(DropTailOptions {
            limit: packets,
            marking,
        }),
    };
    (discipline, limit, u64::MAX)
}

/// A full frame of the transports' TCP: 1,448 B and its headers.
const FRAME_BYTES_MAX: u32 = 1_514;

trait Counted: Edge {
    fn done_count(&self) -> usize;
}

impl Counted for WindowEdge {
    fn done_count(&self) -> usize {
        self.done_count
    }
}

impl Counted for TcpEdge {
    fn done_count(&self) -> usize {
        self.done_count
    }
}

impl Counted for PullEdge {
    fn done_count(&self) -> usize {
        self.done_count
    }
}

fn check(seed: u64) -> Counters {
    let scenario = scenario(seed);
    let flows = &scenario.flows;
    let rate = scenario.topology.links[0].cable.bits_per_sec;
    let run = |threads_count, grouping| {
        let computing = Computing {
            threads_count,
            grouping,
        };
        match scenario.who {
            Who::Pulls => run(&scenario, seed, computing, |hosts| {
                PullEdge::new(flows, hosts, 12, rate)
            }),
            Who::Window => run(&scenario, seed, computing, |_| {
                let mut edge = WindowEdge::new(flows, SimTime::from_ms(1), scenario.capable);
                edge.priorities_count = scenario.priorities_count;
                edge
            }),
            Who::Tcp(kind) => run(&scenario, seed, computing, |_| {
                let bytes = u64::from(flows[0].packets_count) * u64::from(flows[0].packet_bytes);
                let ecn = match (kind, scenario.capable) {
                    (ControllerKind::Dctcp, _) => EcnMode::Dctcp,
                    (_, true) => EcnMode::Classic,
                    (_, false) => EcnMode::Off,
                };
                let sender = SenderOptions {
                    rto_min: Duration::from_millis(1),
                    ecn,
                    ..SenderOptions::default()
                };
                let receiver = ReceiverOptions {
                    ecn,
                    ..ReceiverOptions::default()
                };
                let mut edge = TcpEdge::new(flows, bytes, kind, &sender, &receiver);
                edge.priorities_count = scenario.priorities_count;
                edge
            }),
        }
    };
    let one = run(1, Grouping::One);
    let threads_count = if seed.is_multiple_of(8) { 2 } else { 1 };
    let many = run(threads_count, Grouping::ByTopology);
    assert_eq!(many, one, "in groups, by {threads_count} threads");
    one.1
}

fn run<E: Counted + Send>(
    scenario: &Scenario,
    seed: u64,
    computing: Computing,
    edge: impl FnMut(std::ops::Range<u32>) -> E,
) -> (u64, Counters)
where
    E::Header: Send,
{
    let topology = &scenario.topology;
    let mut sim = PacketSim::new(topology, computing, seed, edge);
    let heard = Arc::new(Mutex::new(Heard::default()));
    sim.set_taps(|| {
        Box::new(Watch {
            last: SimTime::ZERO,
            heard: Arc::clone(&heard),
        })
    });
    for &step in &scenario.steps {
        sim.run_until(step, &GO);
        sim.assert_conserved();
    }
    assert_eq!(sim.run_until(END, &GO), Outcome::Idle, "{:?}", sim.counters());
    assert_eq!(sim.assert_conserved(), 0);
    let done: usize = sim.edges().map(Counted::done_count).sum();
    assert_eq!(done, scenario.flows.len(), "flows that ended, of all");

    let memory_bytes = match topology.switch.sharing {
        Sharing::Static => u64::MAX,
        Sharing::Dynamic { memory_bytes, .. } => memory_bytes,
    };
    for (number, link) in (0u32..).zip(&topology.links) {
        let counters = sim.link_counters(number);
        let lossless_bytes = lossless_bytes_max(topology, link.from);
        let bytes_max = scenario.bytes_max.min(memory_bytes).saturating_add(lossless_bytes);
        let is_bounded = match lossless_bytes {
            0 => counters.queue_packets_max <= scenario.packets_max && counters.queue_bytes_max <= bytes_max,
            // Lossless packets are bounded in bytes, and others by their number.
            _ => counters.queue_bytes_max <= bytes_max.min(scenario.other_bytes_max().saturating_add(lossless_bytes)),
        };
        assert!(
            is_bounded || link.from < topology.hosts_count,
            "link {number}: {counters:?}"
        );
    }
    let counters = sim.counters();
    if let Some(Lossless {
        headroom: Headroom::Enough { .. },
        priorities: 255,
        ..
    }) = topology.switch.lossless
    {
        assert_eq!(
            counters.drops.count(),
            counters.drops.wire_count,
            "every class is lossless"
        );
    }
    if matches!(
        topology.switch.lossless,
        None | Some(Lossless {
            headroom: Headroom::Enough { .. },
            ..
        })
    ) {
        assert_eq!(counters.drops.headroom_full_count, 0);
    }
    let heard = *heard.lock().expect("nobody panicked");
    assert_eq!(heard.sent_count, counters.hops_count);
    assert_eq!(heard.delivered_count, counters.delivered_count);
    assert_eq!(heard.ended_count, counters.drops.count());
    (sim.hash().value(), counters)
}

#[derive(Clone, Copy, Default)]
struct Heard {
    sent_count: u64,
    delivered_count: u64,
    ended_count: u64,
}

/// Counts, and sees that time goes forward.
struct Watch {
    last: SimTime,
    heard: Arc<Mutex<Heard>>,
}

impl<H> Tap<H> for Watch {
    fn on_packet(&mut self, now: SimTime, _link: u32, event: TapEvent, _packet: &Packet<H>) {
        assert!(now >= self.last, "{now} after {}", self.last);
        self.last = now;
        let mut heard = self.heard.lock().expect("nobody panicked");
        match event {
            TapEvent::Sent => heard.sent_count += 1,
            TapEvent::Delivered => heard.delivered_count += 1,
            TapEvent::Dropped(_) | TapEvent::Lost => heard.ended_count += 1,
        }
    }
}
