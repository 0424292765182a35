//! Hosts as network namespaces, on the real kernel: they reach each other, say the truth about themselves, and are gone
//! afterwards. Without the privilege to make them a test prints the reason and passes.

use dataplane_netns::{Host, Network, NetworkOptions, OffloadState, Privilege, Topology, prepare};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);

/// Whether this process may build networks; prints why not.
fn may_build(test: &str) -> bool {
    match prepare() {
        Privilege::None { why } => {
            println!("{test}: not run: {why}");
            false
        }
        _ => true,
    }
}

fn build(topology: Topology) -> Network {
    Network::build(&NetworkOptions::new(topology)).unwrap()
}

fn socket_in(host: &Host, address: IpAddr) -> UdpSocket {
    let socket = host.run(|| UdpSocket::bind((address, 0))).unwrap().unwrap();
    socket.set_read_timeout(Some(ANSWER_WAIT_MAX)).unwrap();
    socket
}

/// Sends `len_bytes` from one to the other and back; the bytes must come back as they were.
fn ping(from: &Host, from_address: IpAddr, to: &Host, to_address: IpAddr, len_bytes: usize) -> io::Result<()> {
    let (near, far) = (socket_in(from, from_address), socket_in(to, to_address));
    let sent: Vec<u8> = (0..len_bytes).map(|at| (at % 251) as u8).collect();
    let mut buffer = vec![0; 65_536];
    near.send_to(&sent, far.local_addr()?)?;
    let (len_bytes, back): (usize, SocketAddr) = far.recv_from(&mut buffer)?;
    far.send_to(&buffer[..len_bytes], back)?;
    let len_bytes = near.recv(&mut buffer)?;
    assert!(buffer[..len_bytes] == sent, "what came back is not what was sent");
    Ok(())
}

/// Every host pings every other, by both families.
fn all_reach_all(network: &Network) {
    for from in network.hosts() {
        for to in network.hosts().iter().filter(|to| to.name() != from.name()) {
            ping(from, from.ipv4().into(), to, to.ipv4().into(), 64).unwrap();
            let (Some(from_ipv6), Some(to_ipv6)) = (from.ipv6(), to.ipv6()) else {
                println!("no IPv6 in this kernel");
                continue;
            };
            ping(from, from_ipv6.into(), to, to_ipv6.into(), 64).unwrap();
        }
    }
}

#[test]
fn a_pair_reaches_each_other_and_its_facts_are_read_back() {
    if !may_build("pair") {
        return;
    }
    let network = build(Topology::Pair);
    all_reach_all(&network);
    let facts = network.facts();
    assert_eq!((facts.driver, facts.mtu_bytes), ("veth", 9000));
    assert_eq!(facts.offloads.len(), 2);
    for interface in &facts.offloads {
        assert_eq!(
            interface.state,
            OffloadState::Off,
            "{} in {}",
            interface.interface,
            interface.host
        );
    }
    network.remove().unwrap();
}

#[test]
fn every_host_of_a_star_reaches_every_other() {
    if !may_build("star") {
        return;
    }
    let network = build(Topology::Star { hosts: 4 });
    assert_eq!(network.hosts().len(), 4, "the switch is not a host");
    all_reach_all(&network);
    assert_eq!(network.facts().offloads.len(), 8, "both ends of four links");
}

#[test]
fn the_ends_of_a_chain_reach_each_other_through_the_middle() {
    if !may_build("chain") {
        return;
    }
    let network = build(Topology::Chain { hosts: 3 });
    all_reach_all(&network);
    assert_eq!(network.hosts()[1].interfaces().len(), 2);
}
