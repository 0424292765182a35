//! Every port through the same checks. A new port is one function that opens a link, and one line below.

mod checks;
mod starvation;
mod xdp;
#[path = "../support/xdp_hosts.rs"]
mod xdp_hosts;

use std::net::SocketAddr;

use checks::{Link, conform};
use dataplane_ports::{
    af_packet::{self, Mac, PacketOptions, PacketPeer, PacketPort, PacketWait},
    loopback, shm,
    udp::{Batching, UdpOptions, UdpPort, WaitHow, probe},
    uring::{self, UringOptions, UringPort, UringVariant, UringWait},
};
use dataplane_waist::{Peer, Port, Support};
use starvation::{Receiver, overrun};

fn loopback_link() -> Link {
    let (a, b) = loopback::pair(&loopback::RingOptions::default());
    Link {
        a: Box::new(a),
        a_to_b: Peer(0),
        b: Box::new(b),
    }
}

fn shm_link(region: shm::ShmRegion) -> Link {
    let same = shm::ShmRegion::open(&region.path_for(std::process::id())).expect("the same region, mapped again");
    Link {
        a: Box::new(shm::ShmPort::connect(&region, shm::Side::A).expect("side A")),
        a_to_b: Peer(0),
        b: Box::new(shm::ShmPort::connect(&same, shm::Side::B).expect("side B")),
    }
}

/// A connected client and a server that learns it.
fn udp_link(local: &str, wait: WaitHow, batch: Batching) -> Link {
    let options = UdpOptions {
        local: local.parse().expect("an address"),
        wait,
        batch,
        // The checks expect a burst of 64 to fit, skb overhead included.
        recv_buffer_bytes: 1 << 20,
        ..UdpOptions::default()
    };
    let b = UdpPort::open(&UdpOptions {
        learn_peers_max: 1,
        ..options.clone()
    })
    .expect("server");
    let a = UdpPort::open(&UdpOptions {
        peers: vec![b.local_addr()],
        connect: true,
        ..options
    })
    .expect("client");
    Link {
        a: Box::new(a),
        a_to_b: Peer(0),
        b: Box::new(b),
    }
}

/// Runs the checks, or prints why this machine cannot.
fn conform_udp(wait: WaitHow, batch: Batching) {
    match probe(wait, batch) {
        Ok(Support::Absent { why }) => eprintln!("skipped: {why}"),
        Ok(_) => conform(&|| udp_link("127.0.0.1:0", wait, batch)),
        Err(error) => eprintln!("skipped: {error}"),
    }
}

#[test]
fn loopback_conforms() {
    conform(&loopback_link);
}

#[test]
fn shm_conforms() {
    conform(&|| shm_link(shm::ShmRegion::create(&shm::RingOptions::default()).expect("region")));
}

#[test]
fn shm_futex_conforms() {
    conform(&|| shm_link(shm::ShmRegion::create_sleeping(&shm::RingOptions::default()).expect("region")));
}

#[test]
fn udp_blocking_conforms() {
    conform_udp(WaitHow::Blocking, Batching::Single);
    conform_udp(WaitHow::Blocking, Batching::Multi);
    conform_udp(WaitHow::Blocking, Batching::Gso);
}

#[test]
fn udp_poll_conforms() {
    conform_udp(WaitHow::Poll, Batching::Single);
    conform_udp(WaitHow::Poll, Batching::Multi);
}

#[test]
fn udp_epoll_conforms() {
    conform_udp(WaitHow::Epoll, Batching::Single);
    conform_udp(WaitHow::Epoll, Batching::Gso);
}

#[test]
fn udp_spin_conforms() {
    conform_udp(WaitHow::Spin, Batching::Single);
    conform_udp(WaitHow::Spin, Batching::Multi);
    conform_udp(WaitHow::Spin, Batching::Gso);
}

#[test]
fn udp_busy_poll_conforms() {
    conform_udp(WaitHow::BusyPoll { microseconds: 50 }, Batching::Single);
}

#[test]
fn udp_over_ipv6_conforms() {
    let here = SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, 0));
    match std::net::UdpSocket::bind(here) {
        Ok(_) => conform(&|| udp_link("[::1]:0", WaitHow::Blocking, Batching::Single)),
        Err(error) => eprintln!("skipped: no IPv6 loopback here ({error})"),
    }
}

/// A client and a server that learns it, connected or not, with and without zero-copy.
fn conform_uring(wait: UringWait) {
    for zero_copy_send in [false, true] {
        let variant = UringVariant {
            zero_copy_send,
            ..UringVariant::new(wait)
        };
        match uring::probe(&variant) {
            Ok(Support::Absent { why }) => eprintln!("skipped: {why}"),
            Ok(_) => {
                conform(&|| uring_link(variant, false));
                conform(&|| uring_link(variant, true));
            }
            Err(error) => eprintln!("skipped: {error}"),
        }
    }
}

fn uring_link(variant: UringVariant, connect: bool) -> Link {
    let here = SocketAddr::from(([127, 0, 0, 1], 0));
    let options = UringOptions {
        learn_peers_max: 1,
        recv_buffer_bytes: 1 << 20,
        ..UringOptions::new(here, variant)
    };
    let b = UringPort::open(&options).expect("server");
    let a = UringPort::open(&UringOptions {
        peers: vec![b.local_addr()],
        learn_peers_max: 0,
        variant: UringVariant { connect, ..variant },
        ..options
    })
    .expect("client");
    Link {
        a: Box::new(a),
        a_to_b: Peer(0),
        b: Box::new(b),
    }
}

#[test]
fn uring_conforms() {
    conform_uring(UringWait::Enter);
    conform_uring(UringWait::NapiBusyPoll { microseconds: 20 });
}

#[test]
fn uring_spin_conforms() {
    conform_uring(UringWait::Spin);
}

#[test]
fn uring_sqpoll_conforms() {
    conform_uring(UringWait::SqPoll { idle_ms: 10 });
}

fn packet_link(wait: PacketWait) -> Link {
    let here = SocketAddr::from(([127, 0, 0, 1], 0));
    let options = PacketOptions {
        learn_peers_max: 1,
        frame_bytes_max: 9000,
        ..PacketOptions::new("lo", here, Mac::default(), wait)
    };
    let b = PacketPort::open(&options).expect("server");
    let a = PacketPort::open(&PacketOptions {
        peers: vec![PacketPeer {
            addr: b.local_addr(),
            mac: Mac::default(),
        }],
        learn_peers_max: 0,
        ..options
    })
    .expect("client");
    Link {
        a: Box::new(a),
        a_to_b: Peer(0),
        b: Box::new(b),
    }
}

#[test]
fn af_packet_conforms() {
    match af_packet::probe("lo") {
        Ok(Support::Absent { why }) => eprintln!("skipped: {why}"),
        Ok(_) => {
            conform(&|| packet_link(PacketWait::Poll));
            conform(&|| packet_link(PacketWait::Spin));
        }
        Err(error) => eprintln!("skipped: {error}"),
    }
}

/// A receiver with room for a burst or so.
fn udp_receiver(wait: WaitHow, batch: Batching) -> (Box<dyn Port + Send>, SocketAddr) {
    let port = UdpPort::open(&UdpOptions {
        wait,
        batch,
        learn_peers_max: 1,
        recv_buffer_bytes: 64 << 10,
        ..UdpOptions::default()
    })
    .expect("server");
    let address = port.local_addr();
    (Box::new(port), address)
}

#[test]
fn udp_is_overrun_and_goes_on() {
    for (wait, batch) in [
        (WaitHow::Blocking, Batching::Single),
        (WaitHow::Poll, Batching::Multi),
        (WaitHow::Epoll, Batching::Gso),
        (WaitHow::Spin, Batching::Multi),
    ] {
        match probe(wait, batch) {
            Ok(Support::Absent { why }) => eprintln!("skipped: {why}"),
            Ok(_) => overrun(&|| Receiver::here(udp_receiver(wait, batch))),
            Err(error) => eprintln!("skipped: {error}"),
        }
    }
}

/// Few buffers, so that the multishot receive ends all the time.
fn uring_receiver(variant: UringVariant, entries: u16, buffers: u16) -> (Box<dyn Port + Send>, SocketAddr) {
    let here = SocketAddr::from(([127, 0, 0, 1], 0));
    let port = UringPort::open(&UringOptions {
        learn_peers_max: 1,
        recv_buffer_bytes: 64 << 10,
        entries,
        buffers,
        ..UringOptions::new(here, variant)
    })
    .expect("server");
    let address = port.local_addr();
    (Box::new(port), address)
}

/// Every way to end and to begin again: more buffers than the socket holds frames, fewer, and one per frame of a burst.
fn overrun_uring(variant: UringVariant) {
    match uring::probe(&variant) {
        Ok(Support::Absent { why }) => eprintln!("skipped: {why}"),
        Ok(_) => {
            for (entries, buffers) in [(32, 128), (4, 8), (1, 1)] {
                overrun(&|| Receiver::here(uring_receiver(variant, entries, buffers)));
            }
        }
        Err(error) => eprintln!("skipped: {error}"),
    }
}

#[test]
fn uring_is_overrun_and_goes_on() {
    for (zero_copy_send, submit_with_wait) in [(false, false), (false, true), (true, false)] {
        overrun_uring(UringVariant {
            zero_copy_send,
            submit_with_wait,
            ..UringVariant::new(UringWait::Enter)
        });
    }
}

#[test]
fn uring_spin_and_sqpoll_are_overrun_and_go_on() {
    overrun_uring(UringVariant::new(UringWait::Spin));
    overrun_uring(UringVariant::new(UringWait::SqPoll { idle_ms: 2 }));
}

fn packet_receiver(wait: PacketWait) -> (Box<dyn Port + Send>, SocketAddr) {
    let here = SocketAddr::from(([127, 0, 0, 1], 0));
    let port = PacketPort::open(&PacketOptions {
        learn_peers_max: 1,
        ring_frames: 64,
        ..PacketOptions::new("lo", here, Mac::default(), wait)
    })
    .expect("server");
    let address = port.local_addr();
    (Box::new(port), address)
}

#[test]
fn af_packet_is_overrun_and_goes_on() {
    match af_packet::probe("lo") {
        Ok(Support::Absent { why }) => eprintln!("skipped: {why}"),
        Ok(_) => {
            overrun(&|| Receiver::here(packet_receiver(PacketWait::Poll)));
            overrun(&|| Receiver::here(packet_receiver(PacketWait::Spin)));
        }
        Err(error) => eprintln!("skipped: {error}"),
    }
}
