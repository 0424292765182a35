//! AF_XDP through the same checks. The program that brings frames to the port takes frames of the lab only, and the checks
//! send any bytes; so each is put into the lab's frame on the way out and taken out of it on the way in.

use std::{io, net::UdpSocket, os::fd::BorrowedFd, sync::Arc, time::Duration};

use dataplane_netns::{Network, Topology};
use dataplane_ports::xdp::{BusyPoll, XdpOptions, XdpPort, XdpWait};
use dataplane_waist::{Peer, Port, PortCaps, PortStats, RxFrame, TxError};
use dataplane_wire::frame;
use ebpf_host::{Attachment, Mode};

use crate::{
    checks::{Link, conform},
    starvation::{Receiver, overrun},
    xdp_hosts::{envelope, enveloped, hosts, options, peer, steered},
};

/// A port in the lab's frames, with what it stands on.
struct Enveloped {
    // In the order in which it is taken down.
    port: XdpPort,
    _attachment: Attachment,
    _network: Arc<Network>,
}

impl Port for Enveloped {
    fn caps(&self) -> PortCaps {
        let caps = self.port.caps();
        PortCaps {
            frame_bytes_max: caps.frame_bytes_max - frame::HEADER_BYTES,
            ..caps
        }
    }

    fn wait(&mut self, max: Duration) -> io::Result<()> {
        self.port.wait(max)
    }

    fn wait_or(&mut self, max: Duration, bell: BorrowedFd<'_>) -> io::Result<()> {
        self.port.wait_or(max, bell)
    }

    fn rx_burst(&mut self, sink: &mut dyn FnMut(RxFrame<'_>)) -> io::Result<usize> {
        self.port.rx_burst(&mut |outer| {
            let inner = frame::parse(outer.bytes).expect("both ends envelope");
            sink(RxFrame {
                bytes: inner.payload,
                ..outer
            });
        })
    }

    fn tx(&mut self, to: Peer, len_bytes: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<(), TxError> {
        self.port.tx(to, len_bytes + frame::HEADER_BYTES, &mut |bytes| {
            fill(&mut bytes[frame::HEADER_BYTES..]);
            envelope(bytes);
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.port.flush()
    }

    fn stats(&self) -> PortStats {
        self.port.stats()
    }
}

/// Jumbo frames of the lab: 9000 bytes and the envelope.
fn jumbo(mut options: XdpOptions) -> XdpOptions {
    options.frame_bytes_max = 9000 + frame::HEADER_BYTES;
    options
}

fn link(wait: XdpWait, mode: Mode) -> Option<Link> {
    let network = Arc::new(hosts(Topology::Pair, 9100)?);
    let [client, server] = network.hosts() else {
        unreachable!("a pair has two hosts")
    };
    let server_options = XdpOptions {
        learn_peers_max: 1,
        ..jumbo(options(server, wait))
    };
    let client_options = XdpOptions {
        peers: vec![peer(server)],
        learn_peers_max: 0,
        ..jumbo(options(client, wait))
    };
    let boxed = |(port, attachment)| {
        Box::new(Enveloped {
            port,
            _attachment: attachment,
            _network: network.clone(),
        })
    };
    Some(Link {
        b: boxed(steered(server, &server_options, mode)),
        a: boxed(steered(client, &client_options, mode)),
        a_to_b: Peer(0),
    })
}

fn conform_xdp(wait: XdpWait, mode: Mode) {
    // Says why, if not.
    if link(wait, mode).is_some() {
        conform(&|| link(wait, mode).expect("as a moment ago"));
    }
}

const BUSY_POLL: XdpWait = XdpWait::BusyPoll(BusyPoll {
    microseconds: 20,
    budget: 64,
});

#[test]
fn xdp_conforms() {
    conform_xdp(XdpWait::Poll, Mode::Native);
}

#[test]
fn xdp_spin_conforms() {
    conform_xdp(XdpWait::Spin, Mode::Native);
}

#[test]
fn xdp_busy_poll_conforms() {
    conform_xdp(BUSY_POLL, Mode::Native);
}

#[test]
fn xdp_conforms_in_generic_mode() {
    conform_xdp(XdpWait::Poll, Mode::Generic);
}

/// Generic mode: in the driver, a veth's own ring of 256 loses frames before there is a socket to count them.
#[test]
fn xdp_is_overrun_and_goes_on() {
    for wait in [XdpWait::Poll, BUSY_POLL, XdpWait::Spin] {
        let Some(network) = hosts(Topology::Pair, 1500) else {
            return;
        };
        let network = Arc::new(network);
        overrun(&|| {
            let [client, server] = network.hosts() else {
                unreachable!("a pair has two hosts")
            };
            let server_options = XdpOptions {
                learn_peers_max: 1,
                ring_frames: 64,
                ..options(server, wait)
            };
            let (port, attachment) = steered(server, &server_options, Mode::Generic);
            let to = port.local_addr();
            Receiver {
                port: Box::new(Enveloped {
                    port,
                    _attachment: attachment,
                    _network: network.clone(),
                }),
                to,
                socket: client
                    .run(|| UdpSocket::bind((client.ipv4(), 0)))
                    .expect("in the host")
                    .expect("its address"),
                frame: enveloped(&[7; 64]),
            }
        });
    }
}
