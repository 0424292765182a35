//! From a scenario file to setups: one for each arm and each value of what is varied.

use std::sync::atomic::AtomicBool;

use anyhow::Context;
use dataplane_queue::{
    CoDelOptions, Discipline, DropTailOptions, FqCoDelOptions, Limit, Marking, PfcOptions, RedOptions, Sharing,
    TrimmingOptions,
};
use dataplane_sim::{
    SimTime,
    packet::{Balance, Cable, Forwarding, Headroom, HostOptions, LeafSpine, Lossless, SwitchOptions, Topology},
};
use dataplane_transports::ndp::NdpOptions;

use super::{
    observe::Observer,
    outcome::Outcome,
    setup::{Flow, FlowKind, FlowOptions, Query, Setup},
    tcp::{flow_options, over},
};
use crate::scenario::{
    file::{
        Arm, BalanceKind, LoadFile, LoadKind, MarkWhen, QueueFile, QueueKind, ScenarioFile, TcpFile, TopologyKind,
        TransportKind, Varied,
    },
    units::Size,
};

/// A scenario wants what this build has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this dplab was built without quinn: build it with --features quinn, which needs a C compiler")]
pub struct NotBuilt;

/// One run of a scenario.
#[derive(Clone, Copy, Debug)]
pub struct Point<'a> {
    pub(super) file: &'a ScenarioFile,
    /// The arm, if there is more than one way.
    pub arm: Option<&'a Arm>,
    /// The value of what is varied.
    pub value: Option<f64>,
}

/// All runs of a scenario: for each value, each arm.
pub fn points(file: &ScenarioFile) -> Vec<Point<'_>> {
    let values: Vec<Option<f64>> = match &file.vary {
        Some(vary) => vary.values.get_ref().iter().copied().map(Some).collect(),
        None => vec![None],
    };
    let arms: Vec<Option<&Arm>> = match file.arm.is_empty() {
        true => vec![None],
        false => file.arm.iter().map(Some).collect(),
    };
    let with_arms = |value: Option<f64>| arms.clone().into_iter().map(move |arm| Point { file, arm, value });
    values.into_iter().flat_map(with_arms).collect()
}

/// A question's frame, where a scenario does not say: a small request in one segment.
const REQUEST_BYTES: u32 = 200;

/// Endless flows are measured after this part of a run: they have found their windows by then.
const WARM_UP_RATIO: f64 = 0.2;

impl<'a> Point<'a> {
    /// The run of `arm` at `value`.
    ///
    /// # Errors
    /// No arm has that name.
    pub fn of(file: &'a ScenarioFile, arm: &str, value: Option<f64>) -> anyhow::Result<Point<'a>> {
        let found = file.arm.iter().find(|known| known.name == arm);
        let arm = Some(found.with_context(|| format!("scenario {} has no arm {arm:?}", file.name))?);
        Ok(Point { file, arm, value })
    }

    /// The same at another value.
    pub fn with_value(self, value: Option<f64>) -> Point<'a> {
        Point { value, ..self }
    }

    /// Arm and value, for people.
    pub fn name(&self) -> String {
        let arm = self.arm.map_or("", |arm| arm.name.as_str());
        match self.value {
            Some(value) => format!("{arm} {value}").trim().to_owned(),
            None => arm.to_owned(),
        }
    }

    /// What is simulated.
    ///
    /// # Errors
    /// A topology that cannot be.
    pub fn setup(&self, seed: u64) -> anyhow::Result<Setup> {
        let topology = self.topology()?;
        let tcp = self.arm.map_or(self.file.tcp, |arm| over(arm.tcp, self.file.tcp));
        let mut builder = Builder {
            point: *self,
            hosts_count: topology.hosts_count,
            options: vec![flow_options(&tcp)],
            flows: Vec::new(),
            queries: Vec::new(),
            // The first load's receiver: where a queue grows.
            watched_host: None,
            has_long: false,
            listed: Vec::new(),
            seed,
        };
        for load in self.file.load.iter().map(|load| load.get_ref()) {
            let options = builder.load_options(load, &tcp);
            match &self.file.list {
                Some(_) => builder.listed.push(options),
                None if self.has(load) => builder.load(load, options),
                None => {}
            }
        }
        if let Some(list) = &self.file.list {
            builder.list(list);
        }
        let is_quinn = |flow: &Flow| builder.options[usize::from(flow.options)].quinn.is_some();
        let asks = |flow: &Flow| matches!(flow.kind, FlowKind::Answer { .. });
        anyhow::ensure!(
            !builder.flows.iter().any(|flow| is_quinn(flow) && asks(flow)),
            "an answer to a question goes over TCP here: quinn's flows are long ones, or of a list, or a permutation"
        );
        if !cfg!(feature = "quinn") && builder.flows.iter().any(is_quinn) {
            return Err(NotBuilt.into());
        }
        let horizon = self.file.horizon.sim();
        Ok(Setup {
            watched_link: self.watched_link(&topology, builder.watched_host.unwrap_or(0)),
            topology,
            options: builder.options.into(),
            flows: builder.flows.into(),
            queries: builder.queries.into(),
            horizon,
            measured_from: SimTime::from_ps((horizon.as_ps() as f64 * WARM_UP_RATIO) as u64),
            seed,
        })
    }

    /// Whether the arm has that load.
    pub(super) fn has(&self, load: &LoadFile) -> bool {
        let name = self.arm.map_or("", |arm| arm.name.as_str());
        load.arms
            .as_ref()
            .is_none_or(|arms| arms.iter().any(|arm| arm.get_ref() == name))
    }

    /// Simulates what [`Point::setup`] made of it, with whichever transport the file names. `observer` sees TCP's alone.
    pub fn run(&self, setup: &Setup, observer: &mut Observer, stop: &AtomicBool) -> Outcome {
        match self.transport() {
            TransportKind::Tcp => setup.run_observed(observer, stop),
            TransportKind::Ndp => setup.run_ndp(&self.ndp_options(), stop),
            TransportKind::Homa => setup.run_homa(stop),
        }
    }

    /// Whether its transport is TCP, or another's endpoints in TCP's place.
    pub fn is_tcp(&self) -> bool {
        self.transport() == TransportKind::Tcp
    }

    fn transport(&self) -> TransportKind {
        let own = self.arm.and_then(|arm| arm.transport.as_ref());
        let transport = own.or(self.file.transport.as_ref());
        transport.map_or(TransportKind::default(), |transport| *transport.get_ref())
    }

    fn ndp_options(&self) -> NdpOptions {
        let (file, defaults) = (&self.file.ndp, NdpOptions::default());
        NdpOptions {
            payload_bytes: file.payload.map_or(defaults.payload_bytes, |size| size.bytes as u32),
            initial_window_packets: file.initial_window.map_or(defaults.initial_window_packets, u32::from),
            ..defaults
        }
    }

    /// The value, if that is what is varied.
    fn varied(&self, what: Varied) -> Option<f64> {
        let vary = self.file.vary.as_ref().filter(|vary| vary.what == what);
        vary.and(self.value)
    }

    fn topology(&self) -> anyhow::Result<Topology> {
        let file = &self.file.topology;
        let delay = |span: SimTime| match self.varied(Varied::DelayUs) {
            Some(us) => SimTime::from_ns((us * 1e3).round() as u64),
            None => span,
        };
        let kind = *file.kind.get_ref();
        let has_core = !matches!(kind, TopologyKind::Pair | TopologyKind::Star);
        let loss_ratio = self
            .varied(Varied::LossRatio)
            .or(file.loss_ratio.as_ref().map(|ratio| *ratio.get_ref()));
        let edge = Cable {
            loss_ratio: if has_core { 0.0 } else { loss_ratio.unwrap_or(0.0) },
            ..Cable::new(
                file.rate.bits_per_sec,
                if has_core {
                    file.delay.sim()
                } else {
                    delay(file.delay.sim())
                },
            )
        };
        let core = Cable {
            loss_ratio: loss_ratio.unwrap_or(0.0),
            ..Cable::new(
                file.core_rate.unwrap_or(file.rate).bits_per_sec,
                delay(file.core_delay.unwrap_or(file.delay).sim()),
            )
        };
        let host = HostOptions {
            tx_latency: self.file.host.tx_latency.map_or(SimTime::ZERO, |span| span.sim()),
            rx_latency: self.file.host.rx_latency.map_or(SimTime::ZERO, |span| span.sim()),
            discipline: match self.transport() {
                // The highest priority first at network cards, too.
                TransportKind::Homa => Discipline::Priority(DropTailOptions {
                    limit: Limit::NONE,
                    marking: Marking::Never,
                }),
                TransportKind::Tcp | TransportKind::Ndp => HostOptions::default().discipline,
            },
        };
        let switch = self.switch();
        let count = |value: Option<u32>| value.unwrap_or(0);
        let topology = match kind {
            TopologyKind::Pair => Topology::pair(edge, host),
            TopologyKind::Star => Topology::star(
                count(file.hosts.as_ref().map(|hosts| *hosts.get_ref())),
                edge,
                host,
                switch,
            ),
            TopologyKind::Dumbbell => {
                Topology::dumbbell((count(file.left), count(file.right)), edge, core, host, switch)
            }
            TopologyKind::LeafSpine => {
                let shape = LeafSpine {
                    leaves_count: count(file.leaves),
                    hosts_per_leaf: count(file.hosts_per_leaf),
                    spines_count: count(file.spines),
                };
                Topology::leaf_spine(shape, edge, core, host, switch)
            }
            TopologyKind::FatTree => Topology::fat_tree(count(file.k), edge, host, switch),
        };
        let mut topology = topology.with_context(|| format!("the topology of scenario {}", self.file.name))?;
        let varied = self
            .varied(Varied::HostDelayUs)
            .map(|us| SimTime::from_ns((us * 1e3).round() as u64));
        for (index, own) in file.host_delays.iter().enumerate() {
            let host = *own.host.get_ref();
            let delay = varied.filter(|_| index == 0).unwrap_or(own.delay.sim());
            for link in &mut topology.links {
                if link.from == host || link.to == host {
                    link.cable.delay = delay;
                }
            }
        }
        Ok(topology)
    }

    fn switch(&self) -> SwitchOptions {
        let file = &self.file.switch;
        let queue = self.arm.and_then(|arm| arm.queue).unwrap_or(file.queue);
        let sharing = match file.memory {
            Some(Size { bytes }) => Sharing::Dynamic {
                memory_bytes: bytes,
                alpha: file.alpha.unwrap_or(1.0),
            },
            None => Sharing::Static,
        };
        SwitchOptions {
            discipline: self.discipline(&queue),
            sharing,
            forwarding: if file.cut_through {
                Forwarding::CutThrough
            } else {
                Forwarding::StoreAndForward
            },
            balance: match file.balance {
                BalanceKind::FlowHash => Balance::FlowHash,
                BalanceKind::SprayRandom => Balance::SprayRandom,
                BalanceKind::SprayRoundRobin => Balance::SprayRoundRobin,
            },
            returns_headers: queue.kind == QueueKind::Trimming,
            latency: file.latency.map_or(SimTime::ZERO, |span| span.sim()),
            lossless: self.lossless(),
        }
    }

    fn lossless(&self) -> Option<Lossless> {
        let own = self.arm.and_then(|arm| arm.pfc.as_ref());
        let pfc = own.or(self.file.switch.pfc.as_ref())?.get_ref();
        let tcp = self.arm.map_or(self.file.tcp, |arm| over(arm.tcp, self.file.tcp));
        let mss_bytes = |tcp: &TcpFile| flow_options(tcp).sender.mss_bytes;
        let loads = self.file.load.iter().filter_map(|load| load.get_ref().tcp);
        let longest_bytes = loads.map(|own| mss_bytes(&over(own, tcp))).max().unwrap_or(0);
        Some(Lossless {
            priorities: u8::MAX,
            thresholds: PfcOptions {
                pause_bytes: pfc.pause_at.bytes,
                resume_bytes: pfc.resume_at.bytes,
            },
            headroom: match pfc.headroom {
                Some(Size { bytes }) => Headroom::Bytes(bytes),
                None => Headroom::Enough {
                    packet_bytes_max: longest_bytes.max(mss_bytes(&tcp)) + HEADERS_BYTES_MAX,
                },
            },
        })
    }

    fn discipline(&self, queue: &QueueFile) -> Discipline {
        let packets = |value: f64| Limit::Packets(value as u32);
        let limit = self
            .varied(Varied::LimitPackets)
            .map(packets)
            .or(queue.limit.map(|length| length.0));
        let limit = limit.unwrap_or(Limit::Packets(100));
        let mark_at = self
            .varied(Varied::MarkAtPackets)
            .map(packets)
            .or(queue.mark_at.map(|length| length.0));
        let marking = match (mark_at, queue.mark_when) {
            (None, _) => Marking::Never,
            (Some(threshold), MarkWhen::Enqueue) => Marking::AtEnqueue(threshold),
            (Some(threshold), MarkWhen::Dequeue) => Marking::AtDequeue(threshold),
        };
        let defaults = CoDelOptions::default();
        let codel = CoDelOptions {
            limit,
            target: queue.target.map_or(defaults.target, |span| span.sim()),
            interval: queue.interval.map_or(defaults.interval, |span| span.sim()),
            marks: queue.marks,
            ..defaults
        };
        match queue.kind {
            QueueKind::DropTail => Discipline::DropTail(DropTailOptions { limit, marking }),
            QueueKind::Priority => Discipline::Priority(DropTailOptions { limit, marking }),
            QueueKind::Codel => Discipline::CoDel(codel),
            QueueKind::FqCodel => Discipline::FqCoDel(FqCoDelOptions {
                packets_max: match limit {
                    Limit::Packets(packets) => packets,
                    Limit::Bytes(bytes) => u32::try_from(bytes / u64::from(FRAME_BYTES)).unwrap_or(u32::MAX),
                },
                codel,
                ..FqCoDelOptions::default()
            }),
            QueueKind::Red => Discipline::Red(RedOptions {
                limit,
                min_packets: queue.min_packets.unwrap_or(5.0),
                max_packets: queue.max_packets.unwrap_or(15.0),
                max_p: queue.max_p.unwrap_or(0.1),
                weight_exponent: queue.weight_exponent.unwrap_or(9),
                is_gentle: queue.gentle,
                marks: queue.marks,
                packet_time: SimTime::from_ps(
                    u64::from(FRAME_BYTES) * 8_000_000_000_000 / self.file.topology.rate.bits_per_sec,
                ),
            }),
            QueueKind::Trimming => Discipline::Trimming(TrimmingOptions {
                data: limit,
                // As many bytes as the data's, SIGCOMM 2017, section 3.1.
                headers: match limit {
                    Limit::Packets(packets) => Limit::Bytes(u64::from(packets) * 9_000),
                    bytes => bytes,
                },
                headers_per_data: 10,
            }),
        }
    }

    /// The link whose queue is worth looking at: between a dumbbell's switches if that is the slower one, otherwise the last
    /// one to `host`.
    fn watched_link(&self, topology: &Topology, host: u32) -> u32 {
        let last = |to: u32| {
            topology
                .links
                .iter()
                .position(|link| link.to == to)
                .map_or(0, |link| link as u32)
        };
        let file = &self.file.topology;
        let is_core_slower = file
            .core_rate
            .is_none_or(|core| core.bits_per_sec <= file.rate.bits_per_sec);
        match file.kind.get_ref() {
            TopologyKind::Dumbbell if is_core_slower => {
                let switches = (topology.hosts_count, topology.hosts_count + 1);
                topology.link_between(switches.0, switches.1).unwrap_or(0)
            }
            _ => last(host),
        }
    }
}

/// Ethernet, IPv4, and TCP with as many options as fit: 14 + 20 + 60.
const HEADERS_BYTES_MAX: u32 = 94;

/// A full frame of Ethernet without its check sequence.
const FRAME_BYTES: u32 = 1_514;

pub(super) struct Builder<'a> {
    point: Point<'a>,
    hosts_count: u32,
    options: Vec<FlowOptions>,
    pub(super) flows: Vec<Flow>,
    queries: Vec<Query>,
    pub(super) watched_host: Option<u32>,
    /// A load of long flows has been.
    has_long: bool,
    /// Where a list of flows stands in the loads' place: which options the flows of each load have.
    pub(super) listed: Vec<u8>,
    seed: u64,
}

impl Builder<'_> {
    /// Which options the flows of a load have.
    fn load_options(&mut self, load: &LoadFile, tcp: &TcpFile) -> u8 {
        let Some(own) = load.tcp else { return 0 };
        self.options.push(flow_options(&over(own, *tcp)));
        (self.options.len() - 1) as u8
    }

    fn load(&mut self, load: &LoadFile, options: u8) {
        let start = load.start.map_or(SimTime::ZERO, |span| span.sim());
        let number = |value: &Option<serde_spanned::Spanned<u32>>| value.as_ref().map(|value| *value.get_ref());
        let bytes = load.bytes.map(|size| size.bytes);
        match load.kind {
            LoadKind::Incast => {
                let client = number(&load.client).unwrap_or(0);
                let servers = self
                    .point
                    .varied(Varied::Servers)
                    .map_or(number(&load.servers).unwrap_or(1), |n| n as u32);
                let each = bytes.unwrap_or_else(|| {
                    let total = load.bytes_total.map_or(0, |size| size.bytes);
                    (total / u64::from(servers)).max(1)
                });
                let first = number(&load.first_server).unwrap_or((client + 1) % self.hosts_count);
                let hosts = self.others(client, first).take(servers as usize).collect();
                self.query(load, client, hosts, each, options, start);
            }
            LoadKind::AllToAll => {
                let mut random = Shuffle(self.seed);
                for client in 0..self.hosts_count {
                    let mut hosts: Vec<u32> = (0..self.hosts_count).filter(|host| *host != client).collect();
                    // Were all to ask in the order of numbers, no two would ask the same host at the same time.
                    random.shuffle(&mut hosts);
                    self.query(load, client, hosts, bytes.unwrap_or(1), options, start);
                }
            }
            LoadKind::Long => {
                let (from, to) = (number(&load.from).unwrap_or(0), number(&load.to).unwrap_or(1));
                self.watched_host.get_or_insert(to);
                // Only the first such load is varied: the others stand beside it.
                let varied = self.point.varied(Varied::Flows).filter(|_| !self.has_long);
                self.has_long = true;
                let flows = varied.map_or(number(&load.flows).unwrap_or(1), |n| n as u32);
                let stagger = load.stagger.map_or(SimTime::ZERO, |span| span.sim());
                let mut start = start;
                for from in self.senders(from, to).into_iter().cycle().take(flows as usize) {
                    let kind = FlowKind::Endless { start };
                    self.flows.push(Flow {
                        from,
                        to,
                        options,
                        kind,
                    });
                    start += stagger;
                }
            }
            LoadKind::Mesh => {
                let hosts = number(&load.from).unwrap_or(0)..=number(&load.to).unwrap_or(self.hosts_count - 1);
                let stagger = load.stagger.map_or(SimTime::ZERO, |span| span.sim());
                let mut random = Shuffle(self.seed);
                let mut start = start;
                for from in hosts.clone() {
                    let mut others: Vec<u32> = hosts.clone().filter(|host| *host != from).collect();
                    random.shuffle(&mut others);
                    for to in others
                        .into_iter()
                        .cycle()
                        .take(number(&load.flows).unwrap_or(1) as usize)
                    {
                        self.watched_host.get_or_insert(to);
                        let kind = FlowKind::Endless { start };
                        self.flows.push(Flow {
                            from,
                            to,
                            options,
                            kind,
                        });
                        start += stagger;
                    }
                }
            }
            LoadKind::Flows => {
                for flow in &load.list {
                    let start = start + flow.start.map_or(SimTime::ZERO, |span| span.sim());
                    let (from, to) = (*flow.from.get_ref(), *flow.to.get_ref());
                    self.watched_host.get_or_insert(to);
                    let kind = FlowKind::Finite {
                        bytes: flow.bytes.bytes,
                        start,
                    };
                    self.flows.push(Flow {
                        from,
                        to,
                        options,
                        kind,
                    });
                }
            }
            LoadKind::Permutation => {
                // One cycle through all hosts in a drawn order: nobody sends to itself, everybody receives once.
                let mut order: Vec<u32> = (0..self.hosts_count).collect();
                Shuffle(self.seed).shuffle(&mut order);
                for (index, &from) in order.iter().enumerate() {
                    let to = order[(index + 1) % order.len()];
                    self.watched_host.get_or_insert(to);
                    let kind = FlowKind::Finite {
                        bytes: bytes.unwrap_or(1),
                        start,
                    };
                    self.flows.push(Flow {
                        from,
                        to,
                        options,
                        kind,
                    });
                }
            }
        }
    }

    /// All hosts but one, round and round, from `first` on.
    fn others(&self, not: u32, first: u32) -> impl Iterator<Item = u32> + use<> {
        let hosts_count = self.hosts_count;
        (first..hosts_count)
            .chain(0..first)
            .cycle()
            .filter(move |host| *host != not)
    }

    /// The hosts that send long flows: from `from` on, those on the same side as it.
    fn senders(&self, from: u32, to: u32) -> Vec<u32> {
        let end = match (self.point.file.topology.kind.get_ref(), self.point.file.topology.left) {
            (TopologyKind::Dumbbell, Some(left)) if from < left => left,
            _ => self.hosts_count,
        };
        (from..end).filter(|host| *host != to).collect()
    }

    fn query(
        &mut self,
        load: &LoadFile,
        client: u32,
        servers: Vec<u32>,
        answer_bytes: u64,
        options: u8,
        start: SimTime,
    ) {
        let query = Query {
            client,
            flows_first: 0,
            flows_count: servers.len() as u32,
            is_fresh: load.fresh,
            answer_bytes,
            rounds_count: load.rounds.unwrap_or(1),
            start,
            pause: load.pause.map_or(SimTime::ZERO, |span| span.sim()),
            jitter: load.jitter.map_or(SimTime::ZERO, |span| span.sim()),
            retry: SimTime::ZERO,
            request_bytes: load.request.map_or(REQUEST_BYTES, |size| size.bytes as u32),
        };
        self.ask(query, servers, options);
    }

    /// Adds a question, and the flows that answer it.
    pub(super) fn ask(&mut self, query: Query, servers: Vec<u32>, options: u8) {
        let client = query.client;
        self.watched_host.get_or_insert(client);
        let kind = FlowKind::Answer {
            query: self.queries.len() as u32,
        };
        self.queries.push(Query {
            flows_first: self.flows.len() as u32,
            retry: SimTime::from_ns(self.options[usize::from(options)].sender.rto_min.as_nanos() as u64),
            ..query
        });
        for _ in 0..if query.is_fresh { query.rounds_count } else { 1 } {
            self.flows.extend(servers.iter().map(|&from| Flow {
                from,
                to: client,
                options,
                kind,
            }));
        }
    }
}

/// Draws for a shuffle (SplitMix64, as in `dataplane-queue`).
struct Shuffle(u64);

impl Shuffle {
    fn shuffle(&mut self, hosts: &mut [u32]) {
        for last in (1..hosts.len()).rev() {
            hosts.swap(last, self.below(last + 1));
        }
    }

    fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % count as u64) as usize
    }
}
