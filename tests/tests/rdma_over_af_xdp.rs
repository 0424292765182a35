//! Every case of RDMA's conformance suite between two namespaces, over AF_XDP.

#[path = "../../rdma/tests/conformance/cases.rs"]
mod cases;
#[path = "../../rdma/tests/conformance/failures.rs"]
mod failures;
#[path = "../../rdma/tests/conformance/messages.rs"]
mod messages;
#[path = "../../rdma/tests/conformance/pair.rs"]
mod pair;
#[path = "../../rdma/tests/conformance/suite.rs"]
mod suite;
#[path = "../../rdma/tests/conformance/taken_back.rs"]
mod taken_back;
#[path = "../../rdma/tests/conformance/windows.rs"]
mod windows;

use std::{
    cell::Cell,
    net::{IpAddr, SocketAddr},
};

use bench::{
    place::Endpoint,
    remote_memory::af_xdp::{self, XdpWire, XdpWireOptions},
};
use dataplane_netns::{Host, Network, NetworkOptions, Privilege, Topology, prepare};
use dataplane_ports::xdp::Mac;
use dataplane_waist::Support;
use ebpf_host::Mode;

fn endpoint(network: &Network, host: &Host, local: IpAddr) -> Endpoint {
    Endpoint {
        addr: SocketAddr::new(local, 0),
        interface: host.interface().name.clone(),
        mac: host.mac(),
        mtu_bytes: network.facts().mtu_bytes,
    }
}

#[test]
fn roce_over_af_xdp_conforms() {
    if let Privilege::None { why } = prepare() {
        eprintln!("skipped: no hosts of our own: {why}");
        return;
    }
    let network = Network::build(&NetworkOptions::new(Topology::Pair)).expect("hosts of our own");
    let [a, b] = network.hosts() else {
        unreachable!("a pair has two hosts")
    };
    let probed = a.run(|| af_xdp::probe(&a.interface().name));
    match probed.expect("a host of our own") {
        Ok(Support::Native) => {}
        other => {
            eprintln!("skipped: {other:?}");
            return;
        }
    }
    let open = |host: &Host, local, other: (&Host, IpAddr)| {
        let options = XdpWireOptions {
            local: endpoint(&network, host, local),
            neighbours: vec![(other.1, Mac(other.0.mac()))],
            mode: Mode::Native,
            frames_max: 2048,
        };
        let wire = host.run(|| XdpWire::open(&options)).expect("a host of our own");
        suite::device(wire.expect("its port and its queue are free there"))
    };
    // The cases go over IPv4 and IPv6 in turn: sockets, rings and programs for each of twice as many would be most of the time.
    let families = match (a.ipv6(), b.ipv6()) {
        (Some(of_a), Some(of_b)) => vec![(a.ipv4().into(), b.ipv4().into()), (of_a.into(), of_b.into())],
        _ => vec![(a.ipv4().into(), b.ipv4().into())],
    };
    let opened_count = Cell::new(0);
    suite::conform(suite::real(), || {
        let (local_a, local_b): (IpAddr, IpAddr) =
            families[opened_count.replace(opened_count.get() + 1) % families.len()];
        (open(a, local_a, (b, local_b)), open(b, local_b, (a, local_a)))
    });
}
