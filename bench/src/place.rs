//! Where the packets of a run go: two hosts as network namespaces where that is allowed, loopback otherwise, or, for whoever
//! names one, a real interface and another machine behind it.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use anyhow::{Context, bail};
use dataplane_netns::{Host, InterfaceOffloads, Network, NetworkOptions, OffloadState, Privilege, Topology};
use ebpf_host::{MTU_BYTES_OF_ONE_BUFFER, takes_one_buffer_only};

use crate::{
    agent::{
        Agent,
        key::Key,
        protocol::{NO_SHARED_MEMORY, have_macs, needs_one_link},
    },
    backends::{BackEnd, Kind},
    cli::Wire,
    environment,
    interface::{Interface, frame_bytes_max},
    record::SupportRecord,
};

/// The client's UDP port.
pub const CLIENT_PORT: u16 = 7001;
/// The server's UDP port.
pub const SERVER_PORT: u16 = 7000;

/// Of `lo` on every kernel (drivers/net/loopback.c).
pub const LOOPBACK_MTU_BYTES: u32 = 65_536;

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
    Namespaces(Box<Network>),
    Loopback {
        why: String,
    },
    Wire(Box<Ends>),
    Nowhere,
}

/// Two machines.
#[derive(Debug)]
struct Ends {
    interface: Interface,
    client: Endpoint,
    server: Endpoint,
    /// Without a router in between.
    share_link: bool,
    agent: Arc<Agent>,
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
                let mut options = NetworkOptions::new(Topology::Pair);
                if takes_one_buffer_only() {
                    options.mtu_bytes = MTU_BYTES_OF_ONE_BUFFER;
                }
                let network = Network::build(&options).context("making two hosts as network namespaces")?;
                Ground::Namespaces(Box::new(network))
            }
        };
        Ok(Place { ground, cpus })
    }

    /// Where nothing is sent: everything that is measured happens in virtual time.
    pub fn nowhere() -> Place {
        Place {
            ground: Ground::Nowhere,
            cpus: crate::load::thread::usable_cpus(),
        }
    }

    /// Connects to the agent on the other machine and finds the two addresses that are measured between.
    ///
    /// # Errors
    /// The interface cannot be used, or the agent: what was seen, and what to try.
    pub fn between_machines(wire: &Wire) -> anyhow::Result<Place> {
        let key = Key::read(&wire.key_file)?;
        let interface = Interface::find(&wire.interface, wire.force_interface)?;
        let local = interface.address(wire.local_address)?;
        let agent = Agent::connect(wire.peer, &key)?;
        let other = &agent.record().interface;
        let remote = other.address_towards(local.ip).with_context(|| {
            format!(
                "interface {} of the agent's machine has no address of the family of {}; try another --local-address",
                other.name, local.ip
            )
        })?;
        interface.leads_to(remote.ip)?;
        let share_link = local.shares_link_with(remote.ip) && remote.shares_link_with(local.ip);
        if agent.record().git_commit.as_deref() != environment::build::git_commit() {
            eprintln!(
                "warning: the agent's dplab was built from other sources; rows are only as comparable as the two are"
            );
        }
        let endpoint = |interface: &Interface, ip, port| Endpoint {
            addr: SocketAddr::new(ip, port),
            interface: interface.name.clone(),
            mac: interface.mac,
            mtu_bytes: interface.mtu_bytes,
        };
        Ok(Place {
            cpus: crate::load::thread::usable_cpus(),
            ground: Ground::Wire(Box::new(Ends {
                client: endpoint(&interface, local.ip, wire.client_port),
                server: endpoint(other, remote.ip, wire.server_port),
                interface,
                share_link,
                agent: Arc::new(agent),
            })),
        })
    }

    /// Who runs the servers, where that is another machine.
    pub fn agent(&self) -> Option<&Arc<Agent>> {
        match &self.ground {
            Ground::Wire(ends) => Some(&ends.agent),
            Ground::Namespaces(_) | Ground::Loopback { .. } | Ground::Nowhere => None,
        }
    }

    /// The largest frame that goes through in one packet, where interfaces set a limit.
    pub fn frame_bytes_max(&self) -> Option<usize> {
        match &self.ground {
            Ground::Wire(ends) => {
                let mtu_bytes = ends.interface.mtu_bytes.min(ends.agent.record().interface.mtu_bytes);
                Some(frame_bytes_max(mtu_bytes, ends.client.addr.ip()))
            }
            Ground::Namespaces(network) => {
                let client = network.hosts()[0].ipv4();
                Some(frame_bytes_max(network.facts().mtu_bytes, client.into()))
            }
            Ground::Loopback { .. } | Ground::Nowhere => None,
        }
    }

    /// Does each end of a trial with [`crate::trial::Cpus::Two`] have a CPU to itself?
    pub fn has_a_cpu_each(&self) -> bool {
        self.agent().is_some() || self.cpus.len() > 1
    }

    /// What a back end is in this place, when it is `here` on this machine: between two, what both of them say.
    pub fn support(&self, backend: &BackEnd, here: SupportRecord) -> SupportRecord {
        let Ground::Wire(ends) = &self.ground else {
            return here;
        };
        let why = match backend.kind {
            Kind::Loopback | Kind::Shm => Some(NO_SHARED_MEMORY.to_owned()),
            Kind::Packet(_) | Kind::AfXdp(..) if !(ends.share_link && have_macs(ends.client.mac, ends.server.mac)) => {
                Some(needs_one_link(ends.server.addr.ip()))
            }
            _ => None,
        };
        match why {
            Some(why) => SupportRecord::Absent { why },
            None => both(here, ends.agent.record().supports.get(backend.name)),
        }
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
                let short = match facts.mtu_bytes {
                    MTU_BYTES_OF_ONE_BUFFER => {
                        ", because this kernel's programs take no longer frames (Linux 5.18 does)"
                    }
                    _ => "",
                };
                format!(
                    "two network namespaces on this machine, joined by one veth pair (MTU {}{short}, {offloads}); \
                     {VETH_CAVEAT}",
                    facts.mtu_bytes
                )
            }
            Ground::Loopback { why } => format!("the loopback interface of this machine, because {why}"),
            Ground::Nowhere => {
                "virtual time: nothing is sent anywhere, and how fast this machine is changes no figure".to_owned()
            }
            Ground::Wire(ends) => format!(
                "interface {} with {} to agent {}, whose {} has {}{}{}",
                ends.interface.describe(),
                ends.client.addr.ip(),
                ends.agent.addr(),
                ends.agent.record().interface.describe(),
                ends.server.addr.ip(),
                if ends.share_link { "" } else { ", behind a router" },
                if self.is_veth() {
                    format!("; {VETH_CAVEAT}")
                } else {
                    String::new()
                }
            ),
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
            Ground::Loopback { .. } | Ground::Nowhere => Endpoint {
                addr: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
                interface: "lo".to_owned(),
                mac: [0; 6],
                mtu_bytes: LOOPBACK_MTU_BYTES,
            },
            Ground::Wire(ends) => match end {
                End::Client => ends.client.clone(),
                End::Server => ends.server.clone(),
            },
        }
    }

    /// The end of a server that says it is at `addr`.
    ///
    /// # Errors
    /// An agent answers at another address than it was found at.
    pub fn server_at(&self, addr: Option<SocketAddr>) -> anyhow::Result<Endpoint> {
        let mut endpoint = self.endpoint(End::Server);
        let Some(addr) = addr else {
            return Ok(endpoint);
        };
        if self.agent().is_some() && addr.ip() != endpoint.addr.ip() {
            bail!(
                "the agent answers at {}, and {} was expected; were its addresses changed?",
                addr.ip(),
                endpoint.addr.ip()
            );
        }
        endpoint.addr = addr;
        Ok(endpoint)
    }

    /// Are addresses known before the ends are opened? On loopback the kernel chooses ports.
    pub fn has_fixed_addresses(&self) -> bool {
        matches!(self.ground, Ground::Namespaces(_) | Ground::Wire(_))
    }

    /// Why more hosts cannot be made here, if they cannot.
    pub fn cannot_make_hosts(&self) -> Option<&str> {
        match &self.ground {
            Ground::Namespaces(_) => None,
            Ground::Loopback { why } => Some(why),
            Ground::Wire(_) => Some("between two machines no hosts are made"),
            Ground::Nowhere => Some("in virtual time no hosts are made"),
        }
    }

    /// Do packets cross a veth pair?
    pub fn is_veth(&self) -> bool {
        match &self.ground {
            Ground::Namespaces(_) => true,
            Ground::Loopback { .. } | Ground::Nowhere => false,
            Ground::Wire(ends) => ends.interface.is_veth(),
        }
    }

    /// Runs `f` on this thread inside the namespace of `end`; sockets and children made there stay there.
    ///
    /// # Errors
    /// When the namespace could not be entered, or is another machine's.
    pub fn inside<T>(&self, end: End, f: impl FnOnce() -> T) -> anyhow::Result<T> {
        if end == End::Server && self.agent().is_some() {
            bail!("the server's end is another machine: only its agent works there");
        }
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
            (Ground::Loopback { .. } | Ground::Wire(_) | Ground::Nowhere, _) => None,
        }
    }
}

/// What a back end is between two machines: the lesser of what it is on each.
fn both(here: SupportRecord, there: Option<&SupportRecord>) -> SupportRecord {
    let Some(there) = there else {
        return SupportRecord::Absent {
            why: "the agent does not know it".to_owned(),
        };
    };
    match (here, there) {
        (SupportRecord::Native, SupportRecord::Native) => SupportRecord::Native,
        (here @ (SupportRecord::Absent { .. } | SupportRecord::Unknown { .. }), _) => here,
        (_, SupportRecord::Absent { why }) => SupportRecord::Absent {
            why: format!("on the agent's machine: {why}"),
        },
        (_, SupportRecord::Unknown { why }) => SupportRecord::Unknown {
            why: format!("on the agent's machine: {why}"),
        },
        (SupportRecord::Emulated { by }, SupportRecord::Native) => SupportRecord::Emulated { by },
        (SupportRecord::Native, SupportRecord::Emulated { by }) => SupportRecord::Emulated {
            by: format!("{by}, on the agent's machine"),
        },
        (SupportRecord::Emulated { by }, SupportRecord::Emulated { by: there }) => SupportRecord::Emulated {
            by: format!("{by}; on the agent's machine by {there}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_back_end_between_machines_is_the_lesser_of_the_two() {
        let absent = |why: &str| SupportRecord::Absent { why: why.to_owned() };
        let emulated = |by: &str| SupportRecord::Emulated { by: by.to_owned() };
        assert_eq!(
            both(SupportRecord::Native, Some(&SupportRecord::Native)),
            SupportRecord::Native
        );
        assert_eq!(both(absent("x"), Some(&SupportRecord::Native)), absent("x"));
        assert_eq!(
            both(SupportRecord::Native, Some(&absent("x"))),
            absent("on the agent's machine: x")
        );
        assert_eq!(both(emulated("a"), Some(&SupportRecord::Native)), emulated("a"));
        assert_eq!(
            both(emulated("a"), Some(&absent("x"))),
            absent("on the agent's machine: x")
        );
        assert!(matches!(
            both(SupportRecord::Native, None),
            SupportRecord::Absent { .. }
        ));
    }
}
