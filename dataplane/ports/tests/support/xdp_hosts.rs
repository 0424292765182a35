//! Two hosts for AF_XDP: a veth pair between namespaces of our own, and ports with the program that brings frames to them.

use std::os::fd::AsFd;

use dataplane_netns::{Host, Network, NetworkOptions, Privilege, Topology, prepare};
use dataplane_ports::xdp::{Mac, PacketPeer, XdpCopy, XdpOptions, XdpPort, XdpWait, probe};
use dataplane_waist::Support;
use dataplane_wire::frame::{
    self,
    Kind::{EchoReply, EchoRequest, QuorumReply, QuorumRequest},
};
use ebpf_host::{Attachment, Loaded, Mode, Program, Settings, kinds};

/// Hosts joined as `topology` says, or `None` with the reason printed.
pub fn hosts(topology: Topology, mtu_bytes: u32) -> Option<Network> {
    if prepare() != Privilege::Root {
        println!("skipped: needs root, for network namespaces and for BPF");
        return None;
    }
    if let Err(error) = Loaded::load(Program::Steer, &Settings::default()) {
        println!("skipped: {error}");
        return None;
    }
    let network = Network::build(&NetworkOptions {
        mtu_bytes,
        publish_names: false,
        ..NetworkOptions::new(topology)
    })
    .expect("root can build hosts");
    let host = &network.hosts()[0];
    match host
        .run(|| probe(&host.interface().name, XdpCopy::Copy))
        .expect("in the host")
    {
        Ok(Support::Native) => Some(network),
        Ok(other) => {
            println!("skipped: {other:?}");
            None
        }
        Err(error) => {
            println!("skipped: {error}");
            None
        }
    }
}

/// A port on `host`'s first interface, UDP port 4001, that knows nobody.
pub fn options(host: &Host, wait: XdpWait) -> XdpOptions {
    XdpOptions::new(
        &host.interface().name,
        (host.ipv4(), 4001).into(),
        Mac(host.mac()),
        wait,
    )
}

/// `host`'s port 4001 as a peer.
pub fn peer(host: &Host) -> PacketPeer {
    PacketPeer {
        addr: (host.ipv4(), 4001).into(),
        mac: Mac(host.mac()),
    }
}

/// A port, and the program that steers to it every frame of the lab that is for its address.
pub fn steered(host: &Host, options: &XdpOptions, mode: Mode) -> (XdpPort, Attachment) {
    let port = host
        .run(|| XdpPort::open(options))
        .expect("in the host")
        .unwrap_or_else(|error| panic!("{error}"));
    let attachment = steer_to(host, &port, port.queue(), mode);
    (port, attachment)
}

/// The program that brings frames for `host`'s UDP port 4001 to an AF_XDP socket.
pub fn steer_to(host: &Host, socket: &impl AsFd, queue: u32, mode: Mode) -> Attachment {
    let settings = Settings {
        local_mac: Mac(host.mac()),
        local_ipv4: Some(host.ipv4()),
        local_ipv6: host.ipv6(),
        local_port: 4001,
        kinds: kinds(&[EchoRequest, EchoReply, QuorumRequest, QuorumReply]),
        frags: true,
        ..Settings::default()
    };
    host.run(|| {
        let loaded = Loaded::load(Program::Steer, &settings).expect("it loaded before");
        let mut attachment = loaded.attach(&host.interface().name, mode).expect("it attaches");
        attachment.set_socket(queue, socket.as_fd()).expect("an AF_XDP socket");
        attachment
    })
    .expect("in the host")
}

/// What the program takes: `payload` in a frame of the lab.
pub fn enveloped(payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; frame::HEADER_BYTES + payload.len()];
    bytes[frame::HEADER_BYTES..].copy_from_slice(payload);
    envelope(&mut bytes);
    bytes
}

/// Writes the header in front of a payload that stands there.
pub fn envelope(bytes: &mut [u8]) {
    let header = frame::Header {
        kind: EchoRequest,
        term: 0,
        slot: 0,
        sent_ns: 0,
    };
    frame::emit(&header, bytes);
}
