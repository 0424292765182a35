//! Two hosts with a wire between them: real packets, over IPv4 and IPv6.

use std::net::IpAddr;

use dataplane_netns::{Host, Network, NetworkOptions, Privilege, Topology, prepare};

use crate::place::{Inside, Place};

#[test]
fn roce_between_namespaces_conforms() {
    if let Privilege::None { why } = prepare() {
        eprintln!("skipped: no hosts of our own: {why}");
        return;
    }
    let network = Network::build(&NetworkOptions::new(Topology::Pair)).expect("hosts of our own");
    let [a, b] = network.hosts() else {
        unreachable!("a pair has two hosts")
    };
    let between = |local_a: IpAddr, local_b: IpAddr| {
        crate::conform(crate::real(), || {
            let device = |host: &Host, local| crate::device(Inside::open(&Place::Host(host.clone()), local));
            (device(a, local_a), device(b, local_b))
        });
    };
    between(a.ipv4().into(), b.ipv4().into());
    match (a.ipv6(), b.ipv6()) {
        (Some(local_a), Some(local_b)) => between(local_a.into(), local_b.into()),
        _ => eprintln!("skipped: no IPv6 here"),
    }
}
