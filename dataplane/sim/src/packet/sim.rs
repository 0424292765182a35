//! The simulator of packets: built from a topology, run until a time, looked into.

use std::{fmt, ops::Range, sync::atomic::AtomicBool};

use dataplane_queue::{SharedBuffer, Sharing, SimTime};

use super::{
    core::{Core, Group, Host, Switch},
    counters::{Counters, LinkCounters},
    edge::{Edge, HostApi},
    events::EventList,
    observe::{DepthSeries, Sampler, Tap, TapSlot},
    parallel,
    port::{Destination, Flights, Node, Pipe, Port},
    slab::Slab,
    topology::{Forwarding, Topology},
    wheel::Wheel,
};
use crate::{
    EventHash,
    random::{Purpose, Random},
};

/// How a simulation is computed. None of it changes the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Computing {
    /// Threads, at most one for each group.
    pub threads_count: usize,
    /// Which nodes are computed together. A single group needs no synchronisation.
    pub grouping: Grouping,
}

/// Which nodes are computed together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Grouping {
    /// All.
    One,
    /// Pods or racks, as [`Topology::groups`] says.
    ByTopology,
    /// As many groups as threads, each of neighbouring pods or racks: the fewest packets go from one to another.
    #[default]
    PerThread,
}

impl Default for Computing {
    fn default() -> Computing {
        Computing {
            threads_count: 1,
            grouping: Grouping::default(),
        }
    }
}

/// Why a run came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is due any more.
    Idle,
    /// It got to the time that was asked for.
    Time,
    /// Somebody raised the flag.
    Interrupted,
}

/// A network and what its hosts do.
pub struct PacketSim<E: Edge> {
    pub(super) groups: Vec<Group<E>>,
    /// By link: its group, and its port there.
    ports: Vec<(u32, u32)>,
    /// By host: its group.
    homes: Vec<u32>,
    /// A packet takes at least that from one group to another.
    pub(super) lookahead: SimTime,
    threads_count: usize,
    now: SimTime,
    is_started: bool,
}

impl<E: Edge> PacketSim<E> {
    /// A network at time zero. `edge` is asked for each group's edge, with the numbers of its hosts.
    ///
    /// # Panics
    /// If a group of the topology has hosts whose numbers are not in a row, or a link's rate is 0 (see
    /// [`Topology::check`]).
    pub fn new(
        topology: &Topology,
        computing: Computing,
        seed: u64,
        mut edge: impl FnMut(Range<u32>) -> E,
    ) -> PacketSim<E> {
        let plan = Plan::new(topology, computing);
        let mut ports = vec![(0, 0); topology.links.len()];
        let groups = (0..plan.groups_count).map(|group| {
            let core = plan.core(topology, group, seed, E::TIMERS_PER_FLOW);
            for (port, &link) in core.links.iter().enumerate() {
                ports[link as usize] = (group, port as u32);
            }
            let hosts = core.first_host..core.first_host + core.hosts.len() as u32;
            let edge = edge(hosts);
            Group { core, edge }
        });
        PacketSim {
            groups: groups.collect(),
            ports,
            homes: plan.group_of[..topology.hosts_count as usize].to_vec(),
            lookahead: plan.lookahead,
            threads_count: computing.threads_count.max(1),
            now: SimTime::ZERO,
            is_started: false,
        }
    }

    /// Carries out everything that is due before `end`. `stop` is looked at every few thousand events.
    pub fn run_until(&mut self, end: SimTime, stop: &AtomicBool) -> Outcome
    where
        E: Send,
        E::Header: Send,
    {
        if !self.is_started {
            self.is_started = true;
            self.groups.iter_mut().for_each(Group::start);
        }
        let outcome = parallel::run(&mut self.groups, self.lookahead, self.threads_count, end, stop);
        let last = self.groups.iter().map(|group| group.core.now).max();
        self.now = match outcome {
            Outcome::Time => end,
            Outcome::Idle | Outcome::Interrupted => last.unwrap_or(end).max(self.now),
        };
        if outcome != Outcome::Interrupted {
            for group in &mut self.groups {
                group.core.sample(self.now);
            }
        }
        outcome
    }

    /// The time up to which everything has happened. After an interruption, that of the last event.
    pub fn now(&self) -> SimTime {
        self.now
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.groups.iter().map(|group| group.core.counters).sum()
    }

    /// What happened at a link so far.
    ///
    /// # Panics
    /// If there is no such link.
    pub fn link_counters(&self, link: u32) -> LinkCounters {
        let (group, port) = self.ports[link as usize];
        self.groups[group as usize].core.ports[port as usize].counters
    }

    /// What waits before a link now: packets and bytes.
    ///
    /// # Panics
    /// If there is no such link.
    pub fn queue_depth(&self, link: u32) -> (u32, u64) {
        let (group, port) = self.ports[link as usize];
        let port = &self.groups[group as usize].core.ports[port as usize];
        (port.waiting_count(), port.waiting_bytes())
    }

    /// A hash over everything that happened at every node, in the nodes' order. It does not depend on groups or threads.
    pub fn hash(&self) -> EventHash {
        let mut hash = EventHash::EMPTY;
        let hosts = self.groups.iter().flat_map(|group| &group.core.hosts);
        hosts.for_each(|host| hash.add(host.hash.value()));
        let switches = self.groups.iter().flat_map(|group| &group.core.switches);
        let mut switches: Vec<(u32, u64)> = switches.map(|switch| (switch.salt, switch.hash.value())).collect();
        switches.sort_unstable();
        switches.into_iter().for_each(|(_, value)| hash.add(value));
        hash
    }

    /// Looks for every packet that was sent, and was neither delivered nor dropped, and counts them.
    ///
    /// # Panics
    /// If a packet is missing or there is one too many.
    pub fn assert_conserved(&self) -> u64 {
        let found_count: u64 = self.groups.iter().map(|group| group.core.found_count()).sum();
        let counters = self.counters();
        assert_eq!(
            found_count,
            counters.in_flight_count(),
            "packets found, by {counters:?}"
        );
        found_count
    }

    /// The edges, in the order of their hosts.
    pub fn edges(&self) -> impl Iterator<Item = &E> {
        self.groups.iter().map(|group| &group.edge)
    }

    /// The edge that runs a host.
    ///
    /// # Panics
    /// If there is no such host.
    pub fn edge_of(&self, host: u32) -> &E {
        &self.groups[self.homes[host as usize] as usize].edge
    }

    /// Calls `act` with the edge that runs a host, as if something had happened there now.
    ///
    /// # Panics
    /// If there is no such host.
    pub fn with_host<R>(&mut self, host: u32, act: impl FnOnce(&mut E, &mut HostApi<'_, E::Header>) -> R) -> R {
        let now = self.now;
        let Group { core, edge } = &mut self.groups[self.homes[host as usize] as usize];
        core.now = core.now.max(now);
        act(edge, &mut HostApi { core, host })
    }

    /// Puts a tap on each group; it hears of packets at the group's own links.
    pub fn set_taps(&mut self, mut tap: impl FnMut() -> Box<dyn Tap<E::Header>>) {
        for group in &mut self.groups {
            group.core.tap = TapSlot(Some(tap()));
        }
    }

    /// Samples the queue before a link from now on, `samples_max` times.
    ///
    /// # Panics
    /// If there is no such link, or the time between samples is zero.
    pub fn sample(&mut self, link: u32, every: SimTime, samples_max: usize) {
        assert!(
            every > SimTime::ZERO,
            "samples of link {link} without time between them"
        );
        let (group, port) = self.ports[link as usize];
        let core = &mut self.groups[group as usize].core;
        let samples = Vec::new();
        let series = DepthSeries { link, every, samples };
        let next_at = self.now;
        core.samplers.push(Sampler {
            port,
            next_at,
            samples_max,
            series,
        });
        core.sample_at = core.sample_at.min(next_at);
    }

    /// The series that were asked for.
    pub fn series(&self) -> impl Iterator<Item = &DepthSeries> {
        let samplers = self.groups.iter().flat_map(|group| &group.core.samplers);
        samplers.map(|sampler| &sampler.series)
    }
}

impl<E: Edge> fmt::Debug for PacketSim<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("PacketSim");
        let shown = shown.field("now", &self.now).field("groups_count", &self.groups.len());
        shown.field("counters", &self.counters()).finish_non_exhaustive()
    }
}

/// Which node belongs to which group, and what that means for links.
struct Plan {
    groups_count: u32,
    /// By node.
    group_of: Vec<u32>,
    /// By node: its number among the hosts or switches of its group.
    local: Vec<u32>,
    /// By link: its number among the ports of the group where it begins, and among the pipes of that where it ends.
    port_of: Vec<u32>,
    pipe_of: Vec<u32>,
    /// By switch: whether the next node need not wait for a frame's end, if it came by a link of that rate or faster.
    cuts_from_bits_per_sec: Vec<Option<u64>>,
    lookahead: SimTime,
}

impl Plan {
    fn new(topology: &Topology, computing: Computing) -> Plan {
        let nodes_count = topology.nodes_count() as usize;
        let given_count = topology.groups.iter().max().map_or(1, |last| last + 1);
        let wanted_count = match computing.grouping {
            Grouping::One => 1,
            Grouping::ByTopology => given_count,
            Grouping::PerThread => given_count.min(computing.threads_count.max(1) as u32),
        };
        // Neighbours stay neighbours, and no group is larger than another by more than one.
        let merged = topology.groups.iter().map(|group| group * wanted_count / given_count);
        let mut group_of: Vec<u32> = merged.collect();
        let latency = |link: &super::topology::Link| link.cable.delay + latency(topology, link);
        let crossing = |group_of: &[u32]| {
            let links = topology.links.iter();
            let links = links.filter(|link| group_of[link.from as usize] != group_of[link.to as usize]);
            links.map(latency).min().unwrap_or(SimTime::FOREVER)
        };
        let mut lookahead = crossing(&group_of);
        // Without a delay between groups nobody may run ahead of anybody.
        if lookahead == SimTime::ZERO {
            group_of = vec![0; nodes_count];
            lookahead = SimTime::FOREVER;
        }
        let groups_count = group_of.iter().max().map_or(1, |last| last + 1);
        let hosts_count = topology.hosts_count as usize;
        let (hosts, switches) = group_of.split_at(hosts_count);
        let mut local = number(hosts.iter().copied(), groups_count);
        local.extend(number(switches.iter().copied(), groups_count));
        let begins = topology.links.iter().map(|link| group_of[link.from as usize]);
        let ends = topology.links.iter().map(|link| group_of[link.to as usize]);
        let mut fastest = vec![0; topology.routes.len()];
        for link in &topology.links {
            if let Some(switch) = (link.from as usize).checked_sub(hosts_count) {
                fastest[switch] = link.cable.bits_per_sec.max(fastest[switch]);
            }
        }
        let cuts = topology.switch.forwarding == Forwarding::CutThrough;
        Plan {
            groups_count,
            port_of: number(begins, groups_count),
            pipe_of: number(ends, groups_count),
            local,
            cuts_from_bits_per_sec: fastest.into_iter().map(|rate| cuts.then_some(rate)).collect(),
            lookahead,
            group_of,
        }
    }

    fn core<H: Copy>(&self, topology: &Topology, group: u32, seed: u64, timers_per_flow: u8) -> Core<H> {
        let hosts_count = topology.hosts_count;
        let is_here = |node: u32| self.group_of[node as usize] == group;
        let here: Vec<u32> = (0..hosts_count).filter(|&host| is_here(host)).collect();
        let first_host = here.first().copied().unwrap_or(0);
        assert!(
            here.iter().zip(first_host..).all(|(&host, expected)| host == expected),
            "the hosts of group {group} are not in a row: {here:?}"
        );
        let (mut ports, mut pipes, mut links) = (Vec::new(), Vec::new(), Vec::new());
        let mut horizon = SimTime::ZERO;
        for (number, link) in (0u32..).zip(&topology.links) {
            if is_here(link.from) {
                let port = self.port(topology, number, seed);
                horizon = horizon.max(port.wire.time_of(HORIZON_BYTES) + link.cable.delay);
                ports.push(port);
                links.push(number);
            }
            if is_here(link.to) {
                let local = self.local[link.to as usize];
                let to = match link.to < hosts_count {
                    true => Node::Host(local),
                    false => Node::Switch(local),
                };
                pipes.push(Pipe::new(to, number));
            }
        }
        let switch_nodes = (hosts_count..topology.nodes_count()).filter(|&node| is_here(node));
        let switches: Vec<Switch> = switch_nodes.map(|node| self.switch(topology, node, seed)).collect();
        let mut pools = vec![SharedBuffer::default()];
        pools.extend(switches.iter().map(|_| SharedBuffer::new(topology.switch.sharing)));
        let host = |&host: &u32| Host {
            nic: self.port_of[topology.nics[host as usize] as usize],
            random: Random::new(seed, Purpose::PacketHost, host, 0),
            hash: EventHash::EMPTY,
        };
        Core {
            now: SimTime::ZERO,
            events: EventList::new(ports.len() + pipes.len(), horizon.as_ps()),
            timers: Wheel::new(),
            timers_per_flow: u32::from(timers_per_flow),
            packets: Slab::new(),
            ports,
            links,
            pipes,
            flights: Flights::new(),
            first_host,
            hosts: here.iter().map(host).collect(),
            switches,
            pools,
            balance: topology.switch.balance,
            returns_headers: topology.switch.returns_headers,
            hosts_count,
            counters: Counters::default(),
            outboxes: (0..self.groups_count).map(|_| Vec::new()).collect(),
            tap: TapSlot(None),
            samplers: Vec::new(),
            sample_at: SimTime::FOREVER,
            lost: Vec::new(),
        }
    }

    fn port(&self, topology: &Topology, number: u32, seed: u64) -> Port {
        let link = &topology.links[number as usize];
        let cuts_through = (link.to as usize)
            .checked_sub(topology.hosts_count as usize)
            .and_then(|switch| self.cuts_from_bits_per_sec[switch])
            .is_some_and(|fastest| link.cable.bits_per_sec >= fastest);
        let mut port = Port::new(link, number, latency(topology, link), cuts_through, seed);
        let is_nic = link.from < topology.hosts_count;
        let sharing = if is_nic {
            Sharing::Static
        } else {
            topology.switch.sharing
        };
        port.may_pass(&link.discipline, &sharing);
        port.pool = if is_nic { 0 } else { self.local[link.from as usize] + 1 };
        let group = self.group_of[link.to as usize];
        let pipe = self.pipe_of[number as usize];
        port.to = match group == self.group_of[link.from as usize] {
            true => Destination::Pipe(pipe),
            false => Destination::Elsewhere { group, pipe },
        };
        port
    }

    fn switch(&self, topology: &Topology, node: u32, seed: u64) -> Switch {
        let mut route = topology.routes[(node - topology.hosts_count) as usize].clone();
        // Links that leave a node are neighbours, so their ports are, too.
        let port = |link: u32| self.port_of.get(link as usize).copied().unwrap_or(0);
        route.first_down = port(route.first_down);
        route.first_up = port(route.first_up);
        Switch {
            route,
            salt: node,
            random: Random::new(seed, Purpose::Spray, node, 0),
            turn: 0,
            hash: EventHash::EMPTY,
        }
    }
}

/// A jumbo frame: what lies further ahead than its transmission and delay is far.
const HORIZON_BYTES: u32 = 9_000;

/// What nodes add to a cable's delay.
fn latency(topology: &Topology, link: &super::topology::Link) -> SimTime {
    let is_host = |node: u32| node < topology.hosts_count;
    let before = match is_host(link.from) {
        true => topology.host.tx_latency,
        false => SimTime::ZERO,
    };
    let after = match is_host(link.to) {
        true => topology.host.rx_latency,
        false => topology.switch.latency,
    };
    before + after
}

/// Numbers things within their groups, in their order.
fn number(groups: impl Iterator<Item = u32>, groups_count: u32) -> Vec<u32> {
    let mut counts = vec![0; groups_count as usize];
    let next = |group: u32| {
        let count = &mut counts[group as usize];
        *count += 1;
        *count - 1
    };
    groups.map(next).collect()
}
