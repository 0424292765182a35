//! From a topology to groups: which node is computed where, and what each group begins with.

use std::collections::HashMap;

use dataplane_queue::{ETHERNET_OVERHEAD_BYTES, PAUSE_FRAME_BYTES, Pfc, Serializer, SharedBuffer, Sharing, SimTime};

use super::{
    core::{Core, Host, Switch},
    counters::Counters,
    events::EventList,
    lossless::{EndPlan, Pauses},
    observe::TapSlot,
    port::{Destination, Flights, Node, Pipe, Port},
    sim::{Computing, Grouping},
    slab::Slab,
    topology::{Forwarding, Headroom, Link, Lossless, Topology},
    wheel::Wheel,
};
use crate::{
    EventHash,
    random::{Purpose, Random},
};

/// Which node belongs to which group, and what that means for links.
pub(super) struct Plan {
    pub groups_count: u32,
    /// By node.
    pub group_of: Vec<u32>,
    /// By node: its number among the hosts or switches of its group.
    local: Vec<u32>,
    /// By link: its number among the ports of the group where it begins, and among the pipes of that where it ends.
    port_of: Vec<u32>,
    pipe_of: Vec<u32>,
    /// By link: the one of the same cable in the other direction, where that matters.
    back_of: Vec<u32>,
    /// By switch: whether the next node need not wait for a frame's end, if it came by a link of that rate or faster.
    cuts_from_bits_per_sec: Vec<Option<u64>>,
    /// A packet takes at least that from one group to another.
    pub lookahead: SimTime,
}

impl Plan {
    pub fn new(topology: &Topology, computing: Computing) -> Plan {
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
        let latency = |link: &Link| link.cable.delay + latency(topology, link);
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
            back_of: if topology.switch.lossless.is_some() {
                back_of(topology)
            } else {
                Vec::new()
            },
            local,
            cuts_from_bits_per_sec: fastest.into_iter().map(|rate| cuts.then_some(rate)).collect(),
            lookahead,
            group_of,
        }
    }

    pub fn core<H: Copy>(&self, topology: &Topology, group: u32, seed: u64, timers_per_flow: u8) -> Core<H> {
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
                let to = match (link.to < hosts_count, topology.switch.lossless.is_some()) {
                    (true, false) => Node::Host(local),
                    (false, false) => Node::Switch(local),
                    (true, true) => Node::LosslessHost(local),
                    (false, true) => Node::LosslessSwitch(local),
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
        let lossless = topology.switch.lossless.as_ref().map(|lossless| {
            let ends = pipes.iter().map(|pipe| self.end(topology, lossless, pipe.link));
            Box::new(Pauses::new(lossless, ports.len(), ends))
        });
        Core {
            lossless,
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

    /// What a link's end needs for pauses.
    fn end(&self, topology: &Topology, lossless: &Lossless, number: u32) -> EndPlan {
        let link = &topology.links[number as usize];
        let back_number = self.back_of[number as usize];
        let back = &topology.links[back_number as usize];
        let headroom_bytes = match lossless.headroom {
            Headroom::Bytes(bytes) => bytes,
            Headroom::Enough { packet_bytes_max } => {
                // A pause that waits on a slower way back waits longer than this link takes for as many bytes.
                let wait = |link: &Link| {
                    let wire = Serializer::new(link.cable.bits_per_sec, ETHERNET_OVERHEAD_BYTES);
                    wire.time_of(packet_bytes_max) + wire.time_of(PAUSE_FRAME_BYTES)
                };
                let longer = wait(back).saturating_since(wait(link));
                let cables = link.cable.delay + back.cable.delay;
                let round_trip = cables + latency(topology, link) + latency(topology, back) + longer;
                Pfc::headroom_bytes(link.cable.bits_per_sec, round_trip, packet_bytes_max)
            }
        };
        EndPlan {
            is_at_switch: link.to >= topology.hosts_count,
            room_bytes: lossless.thresholds.pause_bytes.saturating_add(headroom_bytes),
            back: self.port_of[back_number as usize],
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
        port.may_pass(&link.discipline, &sharing, topology.switch.lossless.is_some());
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
fn latency(topology: &Topology, link: &Link) -> SimTime {
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

/// By link: the one in the other direction. Between two nodes there is one cable.
fn back_of(topology: &Topology) -> Vec<u32> {
    let ends = |link: &Link| (link.from, link.to);
    let by_ends: HashMap<(u32, u32), u32> = topology.links.iter().map(ends).zip(0..).collect();
    let back = |link: &Link| by_ends[&(link.to, link.from)];
    topology.links.iter().map(back).collect()
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
