//! From the loads of a scenario file to flows and questions.

use dataplane_sim::SimTime;

use super::{
    Point,
    setup::{Flow, FlowKind, FlowOptions, Query},
    tcp::{flow_options, over},
};
use crate::scenario::file::{LoadFile, LoadKind, TcpFile, TopologyKind, Varied};

/// A question's frame, where a scenario does not say: a small request in one segment.
const REQUEST_BYTES: u32 = 200;

pub(super) struct Builder<'a> {
    pub(super) point: Point<'a>,
    pub(super) hosts_count: u32,
    pub(super) options: Vec<FlowOptions>,
    pub(super) flows: Vec<Flow>,
    pub(super) queries: Vec<Query>,
    pub(super) watched_host: Option<u32>,
    /// A load of long flows has been.
    pub(super) has_long: bool,
    /// Where a list of flows stands in the loads' place: which options the flows of each load have.
    pub(super) listed: Vec<u8>,
    pub(super) seed: u64,
}

impl Builder<'_> {
    /// Which options the flows of a load have.
    pub(super) fn load_options(&mut self, load: &LoadFile, tcp: &TcpFile) -> u8 {
        let Some(own) = load.tcp else { return 0 };
        self.options.push(flow_options(&over(own, *tcp)));
        (self.options.len() - 1) as u8
    }

    pub(super) fn load(&mut self, load: &LoadFile, options: u8) {
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
