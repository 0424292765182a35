//! Two hosts with a wire between them: real packets, over IPv4 and IPv6.

use std::{io, net::IpAddr, time::Duration};

use dataplane_netns::{Host, Network, NetworkOptions, Privilege, Topology, prepare};
use dataplane_waist::Instant;
use rdma::{
    Transmit, Wire,
    roce::{ReceiveHow, RoceOptions, RoceWire},
    wire::{Packet, QpNumber},
};

/// A wire whose sockets are all opened inside its host, though one thread drives both ends.
struct Inside {
    host: Host,
    wire: RoceWire,
}

impl Inside {
    fn open(host: &Host, local: IpAddr) -> Inside {
        let receive = if local.is_ipv4() {
            ReceiveHow::Raw
        } else {
            ReceiveHow::Datagram
        };
        let options = RoceOptions {
            receive,
            ..RoceOptions::new(local)
        };
        let wire = host.run(|| RoceWire::open(&options)).expect("a host of ours");
        Inside {
            host: host.clone(),
            wire: wire.expect("a host of ours has its port free"),
        }
    }
}

impl Wire for Inside {
    fn name(&self) -> &'static str {
        self.wire.name()
    }
    fn local(&self) -> IpAddr {
        self.wire.local()
    }
    fn now(&self) -> Instant {
        self.wire.now()
    }
    fn connect(&mut self, qp: QpNumber, to: IpAddr) -> io::Result<()> {
        let wire = &mut self.wire;
        self.host.run(|| wire.connect(qp, to)).map_err(io::Error::other)?
    }
    fn disconnect(&mut self, qp: QpNumber) {
        self.wire.disconnect(qp);
    }
    fn receive(&mut self, packets_max: usize, sink: &mut dyn FnMut(IpAddr, &Packet<'_>)) -> io::Result<usize> {
        self.wire.receive(packets_max, sink)
    }
    fn send(&mut self, transmit: &Transmit, packet: &mut [u8]) -> io::Result<()> {
        self.wire.send(transmit, packet)
    }
    fn wait(&mut self, max: Duration) -> io::Result<()> {
        self.wire.wait(max)
    }
}

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
            let device = |host, local| crate::device(Inside::open(host, local));
            (device(a, local_a), device(b, local_b))
        });
    };
    between(a.ipv4().into(), b.ipv4().into());
    match (a.ipv6(), b.ipv6()) {
        (Some(local_a), Some(local_b)) => between(local_a.into(), local_b.into()),
        _ => eprintln!("skipped: no IPv6 here"),
    }
}
