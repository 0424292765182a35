//! Where the packets of a run go: two hosts as network namespaces where that is allowed, loopback otherwise.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::Context;
use dataplane_netns::{Host, InterfaceOffloads, Network, NetworkOptions, OffloadState, Privilege, Topology};

/// The client's UDP port inside its own namespace.
const CLIENT_PORT: u16 = 7001;
/// The server's UDP port inside its own namespace.
const SERVER_PORT: u16 = 7000;

/// Of `lo` on every kernel (drivers/net/loopback.c).
const LOOPBACK_MTU_BYTES: u32 = 65_536;

/// What must stand beside every figure of a veth pair.
pub const VETH_CAVEAT: &str = "a veth pair is memory, not a card and a wire: no figure here is a NIC's";

/// Two ends and what lies between them.
#[derive(Debug)]
pub struct Place {
    ground: Ground,
    /// CPUs this process may use.
    cpus: Vec<usize>,
}

#[derive(Debug)]
enum Ground {
    /// Client is host 0, server is host 1.
    Namespaces(Network),
    Loopback {
        why: String,
    },
}

/// Which end of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum End {
    /// Asks.
    Client,
    /// Answers.
    Server,
}

/// How an end is addressed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Endpoint {
    /// UDP address. Port 0 on loopback: the kernel chooses.
    pub addr: SocketAddr,
    /// The interface that has it.
    pub interface: String,
    /// The interface's MAC address (zero on loopback).
    pub mac: [u8; 6],
    /// The interface's MTU: the longest IP packet.
    pub mtu_bytes: u32,
}

impl Place {
    /// Makes the two hosts, or says why it is loopback.
    ///
    /// # Errors
    /// When namespaces are allowed and yet could not be made: that is a defect to be seen, not a reason to measure
    /// something else.
    pub fn prepare(privilege: &Privilege) -> anyhow::Result<Place> {
        let cpus = crate::load::thread::usable_cpus();
        let ground = match privilege {
            Privilege::None { why } => Ground::Loopback { why: why.clone() },
            Privilege::Root | Privilege::UserNamespace => {
                let options = NetworkOptions::new(Topology::Pair);
                Ground::Namespaces(Network::build(&options).context("making two hosts as network namespaces")?)
            }
        };
        Ok(Place { ground, cpus })
    }

    /// The place in one sentence, for records and reports.
    pub fn describe(&self) -> String {
        match &self.ground {
            Ground::Namespaces(network) => {
                let facts = network.facts();
                let offloads = match facts
                    .offloads
                    .iter()
                    .find(|interface| interface.state != OffloadState::Off)
                {
                    None => "offloads off".to_owned(),
                    Some(InterfaceOffloads { interface, state, .. }) => format!("offloads of {interface}: {state:?}"),
                };
                format!(
                    "two network namespaces on this machine, joined by one veth pair (MTU {}, {offloads}); {VETH_CAVEAT}",
                    facts.mtu_bytes
                )
            }
            Ground::Loopback { why } => format!("the loopback interface of this machine, because {why}"),
        }
    }

    /// An end's address.
    pub fn endpoint(&self, end: End) -> Endpoint {
        match &self.ground {
            Ground::Namespaces(network) => {
                let (host, port) = match end {
                    End::Client => (&network.hosts()[0], CLIENT_PORT),
                    End::Server => (&network.hosts()[1], SERVER_PORT),
                };
                Endpoint {
                    addr: SocketAddr::new(IpAddr::V4(host.ipv4()), port),
                    interface: host.interface().name.clone(),
                    mac: host.mac(),
                    mtu_bytes: network.facts().mtu_bytes,
                }
            }
            Ground::Loopback { .. } => Endpoint {
                addr: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
                interface: "lo".to_owned(),
                mac: [0; 6],
                mtu_bytes: LOOPBACK_MTU_BYTES,
            },
        }
    }

    /// Are addresses known before the ends are opened? On loopback the kernel chooses ports.
    pub fn has_fixed_addresses(&self) -> bool {
        matches!(self.ground, Ground::Namespaces(_))
    }

    /// Do packets cross a veth pair?
    pub fn is_veth(&self) -> bool {
        matches!(self.ground, Ground::Namespaces(_))
    }

    /// Runs `f` on this thread inside the namespace of `end`; sockets and children made there stay there.
    ///
    /// # Errors
    /// When the namespace could not be entered.
    pub fn inside<T>(&self, end: End, f: impl FnOnce() -> T) -> anyhow::Result<T> {
        match self.host(end) {
            Some(host) => host
                .run(f)
                .with_context(|| format!("entering the namespace of {end:?}")),
            None => Ok(f()),
        }
    }

    /// CPUs this process may use.
    pub fn cpus(&self) -> &[usize] {
        &self.cpus
    }

    fn host(&self, end: End) -> Option<&Host> {
        match (&self.ground, end) {
            (Ground::Namespaces(network), End::Client) => Some(&network.hosts()[0]),
            (Ground::Namespaces(network), End::Server) => Some(&network.hosts()[1]),
            (Ground::Loopback { .. }, _) => None,
        }
    }
}
