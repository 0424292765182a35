//! What ours and ns-3 are compared on: networks, flows with exact times, and the settings of TCP that both have.

use std::fmt::Write as _;

use bench::packet_sim::{Flow, FlowKind, FlowOptions, Setup};
use dataplane_queue::{Discipline, DropTailOptions, Limit, Marking};
use dataplane_sim::{
    SimTime,
    packet::{Cable, HostOptions, Link, SwitchOptions, Topology},
};
use dataplane_transports::{
    ControllerKind, EcnMode, Ns3Ways, ReceiverOptions, RecoveryTimer, SenderOptions, Unproven,
    controllers::{DctcpOptions, Growth},
};

/// The rate of the one cable that all share.
pub const BITS_PER_SEC: u64 = 10_000_000_000;
/// The rate of the others. Were it the same, a sender's packets would come at the very picoseconds at which the queue gives packets
/// out, and whoever is served first at a tie decides whether it ever loses one.
pub const HOST_BITS_PER_SEC: u64 = 25_000_000_000;
/// The delay of the cable that all share.
pub const DELAY: SimTime = SimTime::from_us(5);
/// Each host's cable is longer by a draw of up to this, more than a packet's time on the shared one. Were all as long, what timers send
/// would come at the very picoseconds at which the queue gives packets out: acks leave it a packet's time apart, and timers keep that.
const HOST_DELAY_SPREAD_NS: u64 = 2_000;
/// What waits before a switch's port.
pub const LIMIT_PACKETS: u32 = 100;
/// Payload of a segment: 1500 bytes of IP with timestamps.
pub const MSS_BYTES: u32 = 1_448;
/// RFC 6928.
pub const INITIAL_WINDOW_SEGMENTS: u32 = 10;
/// Samples of a queue; the simulator's own bound.
pub const SAMPLES_COUNT: u64 = 20_000;
/// Endless flows are looked at after a fifth of the run.
pub const WARM_UP_DIVISOR: u64 = 5;

/// Who sends to whom, when.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Load {
    /// So many hosts send 450 KB to one more, all within 10 µs.
    Incast(u32),
    /// So many hosts send 450 KB to one more again and again: all together offer this part of its wire, at random times.
    Random { senders: u32, flows: u32, load: f64 },
    /// So many hosts on the left of a dumbbell send without end, each to its own on the right; each begins 1 ms later.
    Endless(u32),
}

/// One comparison.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub name: &'static str,
    pub load: Load,
    pub controller: ControllerKind,
    pub sack: bool,
    /// Reductions over a round trip (RFC 6937), ns-3's default; otherwise at once.
    pub prr: bool,
    /// Queues longer than that mark.
    pub mark_at: Option<u32>,
    pub rto_min_ms: u64,
    pub seeds_count: u64,
    /// Endless flows run for as long as [`SAMPLES_COUNT`] of these take.
    pub sample_every_us: u64,
}

const FLOW_BYTES: u64 = 450_000;
/// After that long what is not there yet counts as unfinished.
const HORIZON: SimTime = SimTime::from_ms(120_000);

const NEWRENO: Case = Case {
    name: "",
    load: Load::Incast(100),
    controller: ControllerKind::NewReno,
    sack: true,
    prr: false,
    mark_at: None,
    rto_min_ms: 10,
    seeds_count: 5,
    sample_every_us: 10,
};
const NO_SACK: Case = Case { sack: false, ..NEWRENO };
const DCTCP: Case = Case {
    controller: ControllerKind::Dctcp,
    mark_at: Some(65),
    ..NEWRENO
};
const RANDOM: Load = Load::Random {
    senders: 16,
    flows: 400,
    load: 0.6,
};

/// All of them.
pub const CASES: &[Case] = &[
    Case {
        name: "newreno-incast-10",
        load: Load::Incast(10),
        seeds_count: 20,
        ..NEWRENO
    },
    Case {
        name: "newreno-incast-40",
        load: Load::Incast(40),
        seeds_count: 10,
        ..NEWRENO
    },
    Case {
        name: "newreno-incast-100",
        ..NEWRENO
    },
    Case {
        name: "newreno-incast-100-200ms",
        rto_min_ms: 200,
        ..NEWRENO
    },
    Case {
        name: "newreno-random",
        load: RANDOM,
        ..NEWRENO
    },
    Case {
        name: "newreno-endless-8",
        load: Load::Endless(8),
        ..NEWRENO
    },
    Case {
        name: "nosack-incast-10",
        load: Load::Incast(10),
        seeds_count: 20,
        ..NO_SACK
    },
    Case {
        name: "nosack-incast-100",
        ..NO_SACK
    },
    Case {
        name: "nosack-random",
        load: RANDOM,
        ..NO_SACK
    },
    Case {
        name: "nosack-endless-8",
        load: Load::Endless(8),
        ..NO_SACK
    },
    Case {
        name: "dctcp-incast-10",
        load: Load::Incast(10),
        seeds_count: 20,
        ..DCTCP
    },
    Case {
        name: "dctcp-incast-40",
        load: Load::Incast(40),
        seeds_count: 10,
        ..DCTCP
    },
    Case {
        name: "dctcp-incast-100",
        ..DCTCP
    },
    Case {
        name: "dctcp-incast-100-200ms",
        rto_min_ms: 200,
        ..DCTCP
    },
    Case {
        name: "dctcp-random",
        load: RANDOM,
        ..DCTCP
    },
    Case {
        name: "dctcp-endless-2",
        load: Load::Endless(2),
        ..DCTCP
    },
    Case {
        name: "dctcp-endless-8",
        load: Load::Endless(8),
        ..DCTCP
    },
];

impl Case {
    /// The flows of one run: all that is drawn in it.
    pub fn flows(&self, seed: u64) -> Vec<Flow> {
        let mut random = Random(seed);
        match self.load {
            Load::Incast(senders) => (0..senders)
                .map(|from| finite(from, senders, SimTime::from_ns(random.below(10_000))))
                .collect(),
            Load::Random { senders, flows, load } => {
                let gap_ns = FLOW_BYTES as f64 * 8e9 / (load * BITS_PER_SEC as f64);
                let mut at_ns = 0.0;
                (0..flows)
                    .map(|_| {
                        at_ns -= gap_ns * random.unit().ln();
                        let from = random.below(senders.into()) as u32;
                        finite(from, senders, SimTime::from_ns(at_ns as u64))
                    })
                    .collect()
            }
            Load::Endless(senders) => (0..senders)
                .map(|from| Flow {
                    from,
                    to: senders + from,
                    options: 0,
                    kind: FlowKind::Endless {
                        start: SimTime::from_ns(u64::from(from) * 1_000_000 + random.below(10_000)),
                    },
                })
                .collect(),
        }
    }

    /// How long each host's cable is.
    pub fn delays(&self, seed: u64) -> Vec<SimTime> {
        // A stream of its own, so that flows are the same whatever cables are.
        let mut random = Random(!seed);
        let (hosts, _) = self.hosts();
        let mut draw = || DELAY + SimTime::from_ns(random.below(HOST_DELAY_SPREAD_NS));
        (0..hosts).map(|_| draw()).collect()
    }

    /// Hosts, and how many of them are on the left of a dumbbell; 0 of a star.
    pub fn hosts(&self) -> (u32, u32) {
        match self.load {
            Load::Incast(senders) | Load::Random { senders, .. } => (senders + 1, 0),
            Load::Endless(senders) => (2 * senders, senders),
        }
    }

    pub fn horizon(&self) -> SimTime {
        match self.load {
            Load::Endless(_) => SimTime::from_us(self.sample_every_us * SAMPLES_COUNT),
            _ => HORIZON,
        }
    }

    pub fn sampled_from(&self) -> SimTime {
        match self.load {
            Load::Endless(_) => SimTime::from_ps(self.horizon().as_ps() / WARM_UP_DIVISOR),
            _ => SimTime::ZERO,
        }
    }

    /// One run, for our simulator.
    pub fn setup(&self, seed: u64) -> Setup {
        let (hosts, left) = self.hosts();
        let (cable, bar) = (Cable::new(HOST_BITS_PER_SEC, DELAY), Cable::new(BITS_PER_SEC, DELAY));
        let marking = self
            .mark_at
            .map_or(Marking::Never, |packets| Marking::AtEnqueue(Limit::Packets(packets)));
        let limit = Limit::Packets(LIMIT_PACKETS);
        let switch = SwitchOptions {
            discipline: Discipline::DropTail(DropTailOptions { limit, marking }),
            ..SwitchOptions::default()
        };
        let flows = self.flows(seed);
        let host = HostOptions::default();
        let topology = match left {
            0 => Topology::star(hosts, cable, host, switch),
            _ => Topology::dumbbell((left, hosts - left), cable, bar, host, switch),
        };
        let mut topology = topology.expect("a network of these hosts");
        for (host, delay) in (0..).zip(self.delays(seed)) {
            let its = |link: &&mut Link| link.from == host || link.to == host;
            topology
                .links
                .iter_mut()
                .filter(its)
                .for_each(|link| link.cable.delay = delay);
        }
        if left == 0 {
            let receiver = flows[0].to;
            let its = |link: &&mut Link| link.from == receiver || link.to == receiver;
            let widen = |link: &mut Link| link.cable.bits_per_sec = BITS_PER_SEC;
            topology.links.iter_mut().filter(its).for_each(widen);
        }
        let watched = match left {
            0 => topology.link_between(hosts, flows[0].to),
            _ => topology.link_between(hosts, hosts + 1),
        };
        Setup {
            watched_link: watched.expect("the link is there"),
            topology,
            options: [self.tcp()].into(),
            flows: flows.into(),
            queries: [].into(),
            horizon: self.horizon(),
            host_processing: SimTime::ZERO,
            measured_from: self.sampled_from(),
            seed,
        }
    }

    fn tcp(&self) -> FlowOptions {
        let ecn = match self.mark_at {
            Some(_) => EcnMode::Dctcp,
            None => EcnMode::Off,
        };
        let rto_min = std::time::Duration::from_millis(self.rto_min_ms);
        let sender = SenderOptions {
            unproven: Unproven::Everything,
            recovery_timer: RecoveryTimer::FirstPartial,
            ns3: Ns3Ways {
                halves_pipe: true,
                partial_ack_sends: true,
                repeated_timeouts_reduce: true,
                grows_per_ack: true,
                keeps_guesses: true,
                marks_end_recovery: true,
                timeout_ends_without_growth: true,
                resent_stays_in_flight: true,
                recovers_on_dupacks: true,
                waits_below_segment: true,
            },
            mss_bytes: MSS_BYTES,
            initial_window_segments: INITIAL_WINDOW_SEGMENTS,
            sack: self.sack,
            prr: self.prr,
            timestamps: true,
            rto_min,
            // ns-3's connections have measured a round trip when they were opened.
            rto_initial: rto_min,
            ecn,
            ..SenderOptions::default()
        };
        let receiver = ReceiverOptions {
            mss_bytes: MSS_BYTES,
            sack: self.sack,
            ecn,
            marks_must_advance: true,
            ..ReceiverOptions::default()
        };
        FlowOptions {
            sender,
            receiver,
            controller: self.controller,
            dctcp: Some(DctcpOptions {
                window_min_segments: 0,
                losses_are_marks: true,
                first_window_is_whole: true,
                counts_acks: true,
                growth: Growth::Segments,
                ..DctcpOptions::default()
            }),
            bbr1: None,
            swift: None,
            quinn: None,
        }
    }
}

/// The list of flows as a table: from, to, bytes (0: without end), start in ns.
pub fn flows_csv(flows: &[Flow]) -> String {
    let mut csv = String::new();
    for flow in flows {
        let (bytes, start) = match flow.kind {
            FlowKind::Finite { bytes, start } => (bytes, start),
            FlowKind::Endless { start } => (0, start),
            FlowKind::Answer { .. } => unreachable!("no questions are asked here"),
        };
        let _ = writeln!(csv, "{},{},{bytes},{}", flow.from, flow.to, start.as_ns());
    }
    csv
}

fn finite(from: u32, to: u32, start: SimTime) -> Flow {
    Flow {
        from,
        to,
        options: 0,
        kind: FlowKind::Finite {
            bytes: FLOW_BYTES,
            start,
        },
    }
}

/// SplitMix64 (Steele, Lea, Flood, OOPSLA'14): the lists of flows are the same for ever, whatever else changes.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Above 0, at most 1.
    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }
}
