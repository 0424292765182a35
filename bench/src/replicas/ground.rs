//! Where the hosts of a measured cluster are: all on this machine's loopback, or each in a namespace of its own, on one switch.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    path::PathBuf,
};

use anyhow::{Context, bail};
use dataplane_netns::{Card, Network, NetworkOptions, Topology};
use dataplane_wire::ethernet::Mac;
use ebpf_host::{Attachment, Hub, HubPort, Loaded, Lossy, Mode, Program, Settings};
use serde::{Deserialize, Serialize};

use super::FanOut;
use crate::place::{CLIENT_PORT, Endpoint, LOOPBACK_MTU_BYTES, SERVER_PORT, VETH_CAVEAT};

/// The client's host.
const CLIENT_HOST: usize = 0;
/// An address that is no host's: the switch sends a frame to it everywhere. It is not one of a multicast, of which the bridge
/// would deliver a copy to itself.
const GROUP_MAC: [u8; 6] = [0x02, b'd', b'p', 0xff, 0, 0xfa];
/// The same as an address of many (the first byte's lowest bit, IEEE 802): whoever wants it may have it, a bridge itself too.
const MULTICAST_MAC: [u8; 6] = [GROUP_MAC[0] | 1, b'd', b'p', 0xff, 0, 0xfa];
/// Of the hosts' own network, where no host is: a socket of a leader in user space can send to it.
const GROUP_IPV4: Ipv4Addr = Ipv4Addr::new(10, 203, 0, 250);
/// An Ethernet's: a longer frame would come to a program in pieces.
const MTU_BYTES_OF_PROGRAMS: u32 = 1500;

/// Where a replica's programs are, if not in its own host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CardPlace {
    /// The card's network namespace, while the process lives that made it.
    pub namespace: PathBuf,
    /// Its interface to the switch.
    pub interface: String,
}

/// The hosts of a cluster and its client.
#[derive(Debug)]
pub enum Ground {
    /// One host.
    Loopback,
    /// The client is host 0, node `n` is host `n + 1`.
    Bridge(Box<Network>),
    /// The same hosts, whose switch is a program: see [`Ground::hub`].
    Hub(Box<HubAndHosts>),
    /// The client and one other host, without a switch between them.
    Direct(Box<Network>),
}

/// Programs go before the interfaces that they are on.
#[derive(Debug)]
pub struct HubAndHosts {
    _hub: Hub,
    _client: Attachment,
    network: Network,
}

impl Ground {
    /// Namespaces for `replicas_count` replicas and a client. The bridge has no netfilter hooks: the namespaces are new, and
    /// nobody put any there.
    ///
    /// # Errors
    /// They could not be made.
    pub fn bridge(replicas_count: usize) -> anyhow::Result<Ground> {
        let hosts = replicas_count + 1;
        let options = NetworkOptions::new(Topology::Star { hosts });
        let network = Network::build(&options).context("making hosts on a bridge as network namespaces")?;
        Ok(Ground::Bridge(Box::new(network)))
    }

    /// As [`Ground::bridge`], as programs in the driver like it: frames of 1500 bytes lie in one buffer, and what a leader sends
    /// to an address that is no host's, which is how it reaches all replicas at once, is kept from the client.
    ///
    /// # Errors
    /// They could not be made.
    pub fn bridge_for_programs(replicas_count: usize) -> anyhow::Result<Ground> {
        Ground::bridge_with(replicas_count, false)
    }

    /// As [`Ground::bridge_for_programs`], with a card in the wire in front of each replica's host, which has its program.
    ///
    /// # Errors
    /// They could not be made.
    pub fn bridge_with_cards(replicas_count: usize) -> anyhow::Result<Ground> {
        Ground::bridge_with(replicas_count, true)
    }

    fn bridge_with(replicas_count: usize, has_cards: bool) -> anyhow::Result<Ground> {
        let mut options = for_programs(replicas_count);
        if has_cards {
            options.cards = (1..=replicas_count).collect();
        }
        let network = Network::build(&options).context("making hosts on a bridge as network namespaces")?;
        Ok(Ground::Bridge(Box::new(network)))
    }

    /// Hosts whose switch is the program `hub`, native on each of its ports: what a program in a host's driver sends stays an XDP
    /// frame until it is at the next host. There a native program must be, also where nobody needs one: see
    /// [`Ground::let_in`]. The client's has one.
    ///
    /// # Errors
    /// They could not be made, or the kernel takes no such program.
    pub fn hub(replicas_count: usize) -> anyhow::Result<Ground> {
        let options = NetworkOptions {
            bare_switch: true,
            ..for_programs(replicas_count)
        };
        let network = Network::build(&options).context("making hosts on a hub as network namespaces")?;
        let switch = network.switch().context("a star has a switch")?;
        let numbered = network.hosts().iter().zip(switch.ports()).enumerate();
        let ports: Vec<HubPort<'_>> = numbered
            .map(|(host, (there, port))| HubPort {
                interface: port,
                mac: Mac(there.mac()),
                is_in_group: host != CLIENT_HOST,
            })
            .collect();
        let hub = switch
            .run(|| Hub::attach(&ports, Mac(GROUP_MAC)))?
            .context("making the hub")?;
        let client = pass_at(&network, CLIENT_HOST)?;
        Ok(Ground::Hub(Box::new(HubAndHosts {
            _hub: hub,
            _client: client,
            network,
        })))
    }

    /// A client and one server on a veth pair of their own: an echo that no switch is in the way of.
    ///
    /// # Errors
    /// They could not be made.
    pub fn direct() -> anyhow::Result<Ground> {
        let options = NetworkOptions {
            mtu_bytes: MTU_BYTES_OF_PROGRAMS,
            ..NetworkOptions::new(Topology::Pair)
        };
        let network = Network::build(&options).context("making two hosts as network namespaces")?;
        Ok(Ground::Direct(Box::new(network)))
    }

    /// Lets frames come in to the first `count` replicas, which have no programs of their own, for as long as what is returned is
    /// held: behind a hub that takes one that passes everything.
    ///
    /// # Errors
    /// It could not be attached.
    pub fn let_in(&self, count: usize) -> anyhow::Result<Vec<Attachment>> {
        match self {
            Ground::Hub(ground) => (1..=count).map(|host| pass_at(&ground.network, host)).collect(),
            _ => Ok(Vec::new()),
        }
    }

    fn network(&self) -> Option<&Network> {
        match self {
            Ground::Loopback => None,
            Ground::Bridge(network) | Ground::Direct(network) => Some(network),
            Ground::Hub(ground) => Some(&ground.network),
        }
    }

    /// In one sentence, for records.
    pub fn describe(&self) -> String {
        let joined = match self {
            Ground::Loopback => return "the loopback interface of this machine".to_owned(),
            Ground::Bridge(network) if network.cards().is_empty() => "joined by a bridge over veth pairs",
            Ground::Bridge(_) => {
                "joined by a bridge over veth pairs, each replica's behind a card: one more namespace, with a bridge in it"
            }
            Ground::Hub(_) => "joined by an XDP program that redirects frames between veth pairs",
            Ground::Direct(_) => "joined by one veth pair",
        };
        let mtu_bytes = self.network().map_or(0, |network| network.facts().mtu_bytes);
        format!("a network namespace for each process on this machine, {joined} (MTU {mtu_bytes}); {VETH_CAVEAT}")
    }

    /// Do frames cross veth pairs?
    pub fn is_veth(&self) -> bool {
        self.network().is_some()
    }

    /// Where `count` replicas are, by node. Replicas must know each other before any of them is there.
    ///
    /// # Errors
    /// No ports are free.
    ///
    /// # Panics
    /// If there are fewer hosts.
    pub fn replicas(&self, count: usize) -> anyhow::Result<Vec<Endpoint>> {
        match self.network() {
            None => Ok(free_addresses(count)?.into_iter().map(on_loopback).collect()),
            Some(network) => Ok((1..=count).map(|host| on_host(network, host, SERVER_PORT)).collect()),
        }
    }

    /// Where the client is.
    pub fn client(&self) -> Endpoint {
        match self.network() {
            None => on_loopback((Ipv4Addr::LOCALHOST, 0).into()),
            Some(network) => on_host(network, CLIENT_HOST, CLIENT_PORT),
        }
    }

    /// What reaches every replica at once, and nobody else: an address that programs in the driver listen for beside their own. A
    /// hub knows no multicast.
    pub fn group(&self, fan_out: FanOut) -> Option<Endpoint> {
        let mac = match (self, fan_out) {
            (Ground::Bridge(_), FanOut::Multicast) => MULTICAST_MAC,
            _ => GROUP_MAC,
        };
        match self {
            Ground::Loopback | Ground::Direct(_) => None,
            Ground::Bridge(_) | Ground::Hub(_) => self.network().map(|network| Endpoint {
                addr: SocketAddr::new(IpAddr::V4(GROUP_IPV4), SERVER_PORT),
                mac,
                ..on_host(network, CLIENT_HOST, SERVER_PORT)
            }),
        }
    }

    /// Lets the switch lose `loss_ratio` of all frames, as each comes in from whichever host, for as long as what is returned is
    /// held. What a leader sends to all followers at once is then lost for all of them.
    ///
    /// # Errors
    /// There is no switch, or its ports take no program.
    pub fn lose(&self, loss_ratio: f64, seed: u64) -> anyhow::Result<Losing> {
        let Ground::Bridge(network) = self else {
            bail!("only a bridge has ports that can be made to lose frames");
        };
        let switch = network.switch().context("a star has a switch")?;
        let numbered = switch.ports().iter().zip(0u64..);
        let attach = || {
            numbered
                .map(|(port, index)| {
                    // Each port draws from a stream of its own.
                    let settings = Settings::default().losing(loss_ratio, seed ^ (index << 32));
                    Loaded::load(Program::Lossy, &settings)?.attach(port, Mode::Generic)
                })
                .collect::<Result<Vec<Attachment>, _>>()
        };
        let ports = switch.run(attach)?.context("letting the switch's ports lose frames")?;
        Ok(Losing { ports })
    }

    /// The card in front of node `n`, if it has one, as another process finds it.
    pub fn card(&self, node: usize) -> Option<CardPlace> {
        let card = self.cards().iter().find(|card| card.host() == node + 1)?;
        Some(CardPlace {
            namespace: card.path(),
            interface: card.outer().to_owned(),
        })
    }

    /// The cards, by node, where the replicas have some.
    pub fn cards(&self) -> &[Card] {
        self.network().map_or(&[], Network::cards)
    }

    /// Runs `f` on this thread in node `n`'s namespace; sockets and children made there stay there.
    ///
    /// # Errors
    /// The namespace could not be entered.
    pub fn inside_replica<T>(&self, node: usize, f: impl FnOnce() -> T) -> anyhow::Result<T> {
        self.inside(node + 1, f)
    }

    /// As [`Ground::inside_replica`], for the client.
    ///
    /// # Errors
    /// As there.
    pub fn inside_client<T>(&self, f: impl FnOnce() -> T) -> anyhow::Result<T> {
        self.inside(CLIENT_HOST, f)
    }

    fn inside<T>(&self, host: usize, f: impl FnOnce() -> T) -> anyhow::Result<T> {
        match self.network() {
            None => Ok(f()),
            Some(network) => {
                let host_there = &network.hosts()[host];
                host_there
                    .run(f)
                    .with_context(|| format!("entering the namespace of host {host}"))
            }
        }
    }
}

/// A switch that loses frames. Dropping it mends the switch.
#[derive(Debug)]
pub struct Losing {
    ports: Vec<Attachment>,
}

impl Losing {
    /// Frames lost so far.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn lost_count(&self) -> anyhow::Result<u64> {
        let lost = self.ports.iter().map(|port| port.loaded().lost(Lossy::Dropped));
        Ok(lost.sum::<Result<u64, _>>()?)
    }
}

fn for_programs(replicas_count: usize) -> NetworkOptions {
    let hosts = replicas_count + 1;
    NetworkOptions {
        mtu_bytes: MTU_BYTES_OF_PROGRAMS,
        unflooded_hosts: vec![CLIENT_HOST],
        group: Some((GROUP_IPV4, GROUP_MAC)),
        ..NetworkOptions::new(Topology::Star { hosts })
    }
}

/// Attaches a program that passes everything, natively.
fn pass_at(network: &Network, host: usize) -> anyhow::Result<Attachment> {
    let there = &network.hosts()[host];
    let attach = || Loaded::load(Program::Pass, &Settings::default())?.attach(&there.interface().name, Mode::Native);
    there
        .run(attach)?
        .with_context(|| format!("letting frames in to host {host}"))
}

fn on_loopback(addr: SocketAddr) -> Endpoint {
    Endpoint {
        addr,
        interface: "lo".to_owned(),
        mac: [0; 6],
        mtu_bytes: LOOPBACK_MTU_BYTES,
    }
}

fn on_host(network: &Network, host: usize, port: u16) -> Endpoint {
    let host = &network.hosts()[host];
    Endpoint {
        addr: SocketAddr::new(IpAddr::V4(host.ipv4()), port),
        interface: host.interface().name.clone(),
        mac: host.mac(),
        mtu_bytes: network.facts().mtu_bytes,
    }
}

/// Addresses on loopback that nobody has at this moment.
fn free_addresses(count: usize) -> anyhow::Result<Vec<SocketAddr>> {
    let sockets: Vec<UdpSocket> = (0..count)
        .map(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)))
        .collect::<Result<_, _>>()
        .context("looking for free ports on 127.0.0.1")?;
    let addresses = sockets.iter().map(UdpSocket::local_addr);
    addresses
        .collect::<Result<_, _>>()
        .context("asking for a socket's address")
}
