//! What is connected to what: hosts first, then switches, and a link for each direction of each cable.

mod builder;
#[cfg(test)]
mod tests;

use dataplane_queue::{Discipline, DropTailOptions, Limit, Marking, PfcOptions, Sharing};
use thiserror::Error;

use self::builder::{Builder, at_least, count};
use super::routing::{Balance, Route};
use crate::SimTime;

/// A cable, the same in both directions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cable {
    /// Bits each second.
    pub bits_per_sec: u64,
    /// From a bit's beginning of its way to its end.
    pub delay: SimTime,
    /// Packets that vanish on the way, 0 to 1, drawn for each from the link's own stream.
    pub loss_ratio: f64,
}

impl Cable {
    /// A cable that loses nothing.
    pub const fn new(bits_per_sec: u64, delay: SimTime) -> Cable {
        Cable {
            bits_per_sec,
            delay,
            loss_ratio: 0.0,
        }
    }
}

/// When a switch begins to send a packet on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Forwarding {
    /// When its last bit has come.
    #[default]
    StoreAndForward,
    /// When its header has come ([`CUT_THROUGH_BYTES`]), if no port of the switch is faster than the one that it comes
    /// by: a faster one would run out of bits. Otherwise as above.
    CutThrough,
}

/// What a switch must have seen of a frame before it knows where it goes: preamble 8, Ethernet 14, IPv4 20, ports of TCP
/// or UDP 4 (IEEE 802.3 §3.1.1, RFC 791, RFC 768), rounded up to a chunk of 64, as pipelines read them.
pub const CUT_THROUGH_BYTES: u32 = 64;

/// What all switches of a topology are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SwitchOptions {
    /// What its ports do with packets.
    pub discipline: Discipline,
    /// How its ports share memory.
    pub sharing: Sharing,
    /// When it sends a packet on.
    pub forwarding: Forwarding,
    /// How it chooses among equal ports.
    pub balance: Balance,
    /// A header for which there is no room is sent back to its sender, if it does not itself come back
    /// (NDP, SIGCOMM'17, section 3.2.4).
    pub returns_headers: bool,
    /// From a packet's arrival to its place in a queue. None by default, as in the peers that we compare with.
    pub latency: SimTime,
    /// Priorities that are paused instead of dropped.
    pub lossless: Option<Lossless>,
}

/// Priorities that are paused instead of dropped (priority flow control, IEEE 802.1Qbb). Queues are drop-tail or of priorities; a
/// queue without priorities is one class, which any pause stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lossless {
    /// Bit n: priority n.
    pub priorities: u8,
    /// When a pause is asked for and taken back: by what came in by one link with one priority, and waits.
    pub thresholds: PfcOptions,
    /// What is kept free above that.
    pub headroom: Headroom,
}

/// What each end of a link at a switch keeps free, of each lossless priority, for what still comes after a pause was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Headroom {
    /// As much as can come, if frames have so many bytes at most ([`dataplane_queue::Pfc::headroom_bytes`]).
    Enough {
        /// The longest frame, without what Ethernet adds.
        packet_bytes_max: u32,
    },
    /// So many bytes. Too few, and packets are dropped.
    Bytes(u64),
}

impl Default for SwitchOptions {
    fn default() -> SwitchOptions {
        SwitchOptions {
            discipline: drop_tail(Limit::Packets(100)),
            sharing: Sharing::Static,
            forwarding: Forwarding::StoreAndForward,
            balance: Balance::FlowHash,
            returns_headers: false,
            latency: SimTime::ZERO,
            lossless: None,
        }
    }
}

/// What all hosts of a topology are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HostOptions {
    /// What waits before its network card. Without a bound by default: a sender's own window bounds it.
    pub discipline: Discipline,
    /// From an edge's decision to send to the packet's first bit on the wire, if nothing is before it. See
    /// [`super::costs`].
    pub tx_latency: SimTime,
    /// From a packet's last bit to the edge.
    pub rx_latency: SimTime,
}

impl Default for HostOptions {
    fn default() -> HostOptions {
        HostOptions {
            discipline: drop_tail(Limit::NONE),
            tx_latency: SimTime::ZERO,
            rx_latency: SimTime::ZERO,
        }
    }
}

fn drop_tail(limit: Limit) -> Discipline {
    let marking = Marking::Never;
    Discipline::DropTail(DropTailOptions { limit, marking })
}

/// One direction of a cable, with the queue before it. Its number is its place in [`Topology::links`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// The node that sends.
    pub from: u32,
    /// The node that receives.
    pub to: u32,
    /// The wire.
    pub cable: Cable,
    /// What waits before it, and how.
    pub discipline: Discipline,
}

/// Hosts, switches and links. Nodes are numbered: hosts from 0, then switches.
#[derive(Clone, Debug, PartialEq)]
pub struct Topology {
    /// What the hosts are.
    pub host: HostOptions,
    /// What the switches are.
    pub switch: SwitchOptions,
    /// How many hosts there are.
    pub hosts_count: u32,
    /// Where hosts lie, by switch.
    pub routes: Vec<Route>,
    /// The links. Those that leave a node are neighbours. A scenario may change a cable or a discipline.
    pub links: Vec<Link>,
    /// By host: the link that leaves it.
    pub nics: Vec<u32>,
    /// By node: the group that it is computed with. A group is a pod or a rack; its hosts are neighbours.
    pub groups: Vec<u32>,
}

/// Why there is no such topology.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum TopologyError {
    /// Too few or too many of something.
    #[error("{what} of {seen}: {why}")]
    Count {
        /// Of what.
        what: &'static str,
        /// How many were asked for.
        seen: u32,
        /// What is wrong with that, and what would do.
        why: &'static str,
    },
    /// A rate of nothing.
    #[error("the link from node {from} to node {to} has a rate of 0 bit/s: nothing would ever arrive; try 10 Gbit/s")]
    Rate {
        /// Its beginning.
        from: u32,
        /// Its end.
        to: u32,
    },
    /// A ratio that is none.
    #[error("the link from node {from} to node {to} loses a ratio of {ratio}: a ratio lies between 0 and 1")]
    Loss {
        /// Its beginning.
        from: u32,
        /// Its end.
        to: u32,
        /// What was asked for.
        ratio: f64,
    },
    /// What must not be dropped would be.
    #[error("lossless priorities: {why}")]
    Lossless {
        /// What is wrong, and what would do.
        why: &'static str,
    },
}

impl Topology {
    /// Two hosts and a cable.
    pub fn pair(cable: Cable, host: HostOptions) -> Result<Topology, TopologyError> {
        let mut builder = Builder::new(2, host, SwitchOptions::default());
        builder.link(0, 1, cable);
        builder.link(1, 0, cable);
        builder.finish()
    }

    /// Hosts around one switch.
    pub fn star(hosts: u32, cable: Cable, host: HostOptions, switch: SwitchOptions) -> Result<Topology, TopologyError> {
        at_least("a star", hosts, 2, "it needs at least 2 hosts")?;
        let mut builder = Builder::new(hosts, host, switch);
        let center = builder.switch(0);
        builder.host_links(0..hosts, center, cable);
        builder.down(center, 0..hosts, 1, (0..hosts).collect(), cable);
        builder.finish()
    }

    /// Hosts at both ends of one cable between two switches: the first `left` hosts on one side, the others on the other.
    pub fn dumbbell(
        sides: (u32, u32),
        edge: Cable,
        middle: Cable,
        host: HostOptions,
        switch: SwitchOptions,
    ) -> Result<Topology, TopologyError> {
        let (left, right) = sides;
        at_least("a side", left.min(right), 1, "a dumbbell needs at least 1 host on each")?;
        let mut builder = Builder::new(count(left, 1, right)?, host, switch);
        let ranges = [0..left, left..left + right];
        let switches = [builder.switch(0), builder.switch(1)];
        for (side, hosts) in ranges.into_iter().enumerate() {
            builder.host_links(hosts.clone(), switches[side], edge);
            hosts.clone().for_each(|host| builder.set_group(host, side as u32));
            builder.down(switches[side], hosts.clone(), 1, hosts.collect(), edge);
            builder.up(switches[side], vec![switches[1 - side]], middle);
        }
        builder.finish()
    }

    /// Racks of hosts, each leaf switch connected to each spine switch.
    pub fn leaf_spine(
        shape: LeafSpine,
        edge: Cable,
        core: Cable,
        host: HostOptions,
        switch: SwitchOptions,
    ) -> Result<Topology, TopologyError> {
        let LeafSpine {
            leaves_count: leaves,
            hosts_per_leaf: per_leaf,
            spines_count: spines,
        } = shape;
        at_least(
            "leaves",
            leaves,
            2,
            "a leaf-spine needs at least 2 leaf switches; one alone is a star",
        )?;
        at_least("hosts per leaf", per_leaf, 1, "each leaf needs a host")?;
        at_least("spines", spines, 1, "without a spine the leaves do not connect; try 1")?;
        let hosts = count(0, leaves, per_leaf)?;
        let mut builder = Builder::new(hosts, host, switch);
        let leaf_nodes: Vec<u32> = (0..leaves).map(|leaf| builder.switch(leaf)).collect();
        let spine_nodes: Vec<u32> = (0..spines).map(|spine| builder.switch(spine % leaves)).collect();
        for leaf in 0..leaves {
            let (below, node) = (leaf * per_leaf..(leaf + 1) * per_leaf, leaf_nodes[leaf as usize]);
            below.clone().for_each(|host| builder.set_group(host, leaf));
            builder.host_links(below.clone(), node, edge);
            builder.down(node, below.clone(), 1, below.collect(), edge);
            builder.up(node, spine_nodes.clone(), core);
        }
        for spine in spine_nodes {
            builder.down(spine, 0..hosts, per_leaf, leaf_nodes.clone(), core);
        }
        builder.finish()
    }

    /// A FatTree of `k`-port switches (Al-Fares, Loukissas and Vahdat, SIGCOMM'08, section 3): k pods of k/2 edge and k/2
    /// aggregation switches, k²/4 core switches, k³/4 hosts. A pod is a group; core switches are dealt out among the pods.
    pub fn fat_tree(k: u32, cable: Cable, host: HostOptions, switch: SwitchOptions) -> Result<Topology, TopologyError> {
        let range = "a FatTree's switches have an even number of ports, from 2 to 32";
        if !(2..=32).contains(&k) || !k.is_multiple_of(2) {
            let (what, seen, why) = ("k", k, range);
            return Err(TopologyError::Count { what, seen, why });
        }
        let half = k / 2;
        let (per_edge, per_pod) = (half, half * half);
        let hosts = k * per_pod;
        let mut builder = Builder::new(hosts, host, switch);
        let mut layer = |per_pod: u32| -> Vec<Vec<u32>> {
            let pods = 0..k;
            pods.map(|pod| (0..per_pod).map(|_| builder.switch(pod)).collect())
                .collect()
        };
        let edges = layer(half);
        let aggregations = layer(half);
        let cores: Vec<u32> = (0..per_pod).map(|core| builder.switch(core % k)).collect();
        for pod in 0..k {
            let in_pod = pod * per_pod..(pod + 1) * per_pod;
            in_pod.clone().for_each(|host| builder.set_group(host, pod));
            for (index, &edge) in (0..).zip(&edges[pod as usize]) {
                let begin = in_pod.start + index * per_edge;
                let below = begin..begin + per_edge;
                builder.host_links(below.clone(), edge, cable);
                builder.down(edge, below.clone(), 1, below.collect(), cable);
                builder.up(edge, aggregations[pod as usize].clone(), cable);
            }
            for (index, &aggregation) in aggregations[pod as usize].iter().enumerate() {
                builder.down(
                    aggregation,
                    in_pod.clone(),
                    per_edge,
                    edges[pod as usize].clone(),
                    cable,
                );
                let begin = index * half as usize;
                builder.up(aggregation, cores[begin..begin + half as usize].to_vec(), cable);
            }
        }
        for (index, &core) in cores.iter().enumerate() {
            let below = aggregations.iter().map(|pod| pod[index / half as usize]).collect();
            builder.down(core, 0..hosts, per_pod, below, cable);
        }
        builder.finish()
    }

    /// How many nodes there are.
    pub fn nodes_count(&self) -> u32 {
        self.hosts_count + self.routes.len() as u32
    }

    /// The number of the link between two nodes.
    pub fn link_between(&self, from: u32, to: u32) -> Option<u32> {
        let link = self.links.iter().position(|link| link.from == from && link.to == to);
        link.map(|link| link as u32)
    }

    /// Whether every link can be simulated: call it after a change.
    ///
    /// # Errors
    /// The first link that cannot.
    pub fn check(&self) -> Result<(), TopologyError> {
        for &Link { from, to, cable, .. } in &self.links {
            if cable.bits_per_sec == 0 {
                return Err(TopologyError::Rate { from, to });
            }
            if !(0.0..=1.0).contains(&cable.loss_ratio) {
                let ratio = cable.loss_ratio;
                return Err(TopologyError::Loss { from, to, ratio });
            }
        }
        self.switch
            .lossless
            .map_or(Ok(()), |lossless| self.check_lossless(lossless))
    }

    fn check_lossless(&self, lossless: Lossless) -> Result<(), TopologyError> {
        let never_drops = |link: &Link| matches!(link.discipline, Discipline::DropTail(_) | Discipline::Priority(_));
        let why = if lossless.priorities == 0 {
            "there are none; name at least one"
        } else if lossless.thresholds.resume_bytes >= lossless.thresholds.pause_bytes {
            "a pause would be taken back at a length at which it is asked for; resume at less"
        } else if self.switch.sharing != Sharing::Static {
            "each link has memory of its own for them; take static buffers"
        } else if !self.links.iter().all(never_drops) {
            "other queues than drop-tail and priority drop or cut by their nature; take one of these"
        } else {
            return Ok(());
        };
        Err(TopologyError::Lossless { why })
    }
}

/// How many racks, and how large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeafSpine {
    /// Racks: each has one leaf switch.
    pub leaves_count: u32,
    /// Hosts in each rack.
    pub hosts_per_leaf: u32,
    /// Spine switches.
    pub spines_count: u32,
}
