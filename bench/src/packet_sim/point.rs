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
    loads::Builder,
    observe::Observer,
    outcome::Outcome,
    setup::{Flow, FlowKind, Setup},
    tcp::{flow_options, over},
};
use crate::scenario::{
    file::{
        Arm, BalanceKind, LoadFile, MarkWhen, QueueFile, QueueKind, ScenarioFile, TcpFile, TopologyFile, TopologyKind,
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

    /// The TCP of this run, before a load says otherwise.
    pub fn tcp(&self) -> TcpFile {
        self.arm.map_or(self.file.tcp, |arm| over(arm.tcp, self.file.tcp))
    }

    /// The TCP of a load's flows.
    pub fn load_tcp(&self, load: &LoadFile) -> TcpFile {
        load.tcp.map_or(self.tcp(), |own| over(own, self.tcp()))
    }

    /// The loads of this run.
    pub fn loads(&self) -> impl Iterator<Item = &'a LoadFile> + use<'a, '_> {
        let loads = self.file.load.iter().map(|load| load.get_ref());
        loads.filter(|load| self.has(load))
    }

    /// The file's topology, as it stands there.
    pub fn topology_file(&self) -> &'a TopologyFile {
        &self.file.topology
    }

    /// The switches' ports, and how they share memory.
    pub fn port(&self) -> (Discipline, Sharing) {
        let switch = self.switch();
        (switch.discipline, switch.sharing)
    }

    /// Packets that vanish on the way, 0 to 1.
    pub fn loss_ratio(&self) -> f64 {
        let file = self.file.topology.loss_ratio.as_ref();
        self.varied(Varied::LossRatio)
            .or(file.map(|ratio| *ratio.get_ref()))
            .unwrap_or(0.0)
    }

    /// What is simulated.
    ///
    /// # Errors
    /// A topology that cannot be.
    pub fn setup(&self, seed: u64) -> anyhow::Result<Setup> {
        let topology = self.topology()?;
        let tcp = self.tcp();
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
            host_processing: self.file.host.processing.map_or(SimTime::ZERO, |span| span.sim()),
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
    pub fn varied(&self, what: Varied) -> Option<f64> {
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
        let loss_ratio = self.loss_ratio();
        let edge = Cable {
            loss_ratio: if has_core { 0.0 } else { loss_ratio },
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
            loss_ratio,
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
        let tcp = self.tcp();
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
