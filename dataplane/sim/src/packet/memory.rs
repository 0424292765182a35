//! What a simulation will take, before it takes it.

use super::{
    core::{Host, Switch},
    edge::Edge,
    events::EventList,
    frame::{Packet, Token},
    port::{Flight, Pipe, Port},
    topology::Topology,
    wheel::Wheel,
};

/// Bytes of memory that a simulation is about to take, without what its edges keep of flows: the network, the flows'
/// timers, and packets under way if each flow has so many of them at once. Queues and pipes grow by doubling, so the
/// truth lies within a factor of two for packets, and close for the rest.
pub fn memory_estimate_bytes<E: Edge>(topology: &Topology, flows_count: u64, packets_per_flow: u64) -> u64 {
    let links_count = topology.links.len();
    let of_link = size_of::<Port>() + size_of::<Pipe>();
    let nodes_bytes = topology.hosts_count as usize * size_of::<Host>() + topology.routes.len() * size_of::<Switch>();
    let network_bytes = links_count * of_link + EventList::memory_bytes(2 * links_count) + nodes_bytes;
    let timers_count = flows_count as usize * usize::from(E::TIMERS_PER_FLOW);
    // A packet has a place in the slab, one in the list of free places, and a token in a queue or in a pipe.
    let of_packet = size_of::<Packet<E::Header>>() + size_of::<u32>() + size_of::<Token>() + size_of::<Flight>();
    let packets_bytes = flows_count
        .saturating_mul(packets_per_flow)
        .saturating_mul(of_packet as u64);
    (network_bytes + Wheel::memory_bytes(timers_count)) as u64 + packets_bytes
}
