//! What will be built, as plain data: hosts, links, addresses, routes. No I/O, so it is tested without privilege.
//!
//! ```text
//! Pair            h0 ──────── h1
//! Star{hosts:3}   h0 ──┐
//!                 h1 ──┤ br0 (in a namespace of its own, "switch")
//!                 h2 ──┘
//! Chain{hosts:3}  h0 ── h1 ── h2        h1 forwards
//!
//! a star's host with a card:  h1 (eth0) ── (inner) card1, a bridge (outer) ── (p1) switch
//! ```
//!
//! Host `h` on link `l` is 10.203.`l`.`h+1`/24 and fd00:203:`l`::`h+1`/64: the last number says who, the one before says where.
//! All addresses live in namespaces of our own, so two networks may use the same ones at the same time.

use crate::{NetError, Topology};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Most hosts of one network: a client, 64 servers and a few beside them. Every pair of hosts on one link needs a neighbour entry, so the work grows with the square.
pub const HOSTS_COUNT_MAX: usize = 72;
/// Prefix lengths of every link's two networks.
pub(crate) const IPV4_PREFIX_LEN: u8 = 24;
pub(crate) const IPV6_PREFIX_LEN: u8 = 64;
/// The bridge of a star.
pub(crate) const BRIDGE: &str = "br0";
/// A card's interface to its host, and to the switch.
pub(crate) const INNER: &str = "inner";
pub(crate) const OUTER: &str = "outer";

/// One namespace to be made.
pub(crate) struct Space {
    pub name: String,
    pub kind: SpaceKind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpaceKind {
    Host {
        forwards: bool,
    },
    /// A card in front of this host: a bridge between its two interfaces.
    Card {
        host: usize,
    },
    Switch,
}

impl SpaceKind {
    /// Has it a bridge, to which all its interfaces belong?
    pub fn is_bridge(self) -> bool {
        !matches!(self, SpaceKind::Host { .. })
    }
}

/// One end of a veth pair.
pub(crate) struct End {
    /// Index into [`Plan::spaces`].
    pub space: usize,
    pub interface: String,
    pub mac: [u8; 6],
    /// `None` for a port of a bridge.
    pub addresses: Option<Addresses>,
    /// A bridge's port that leads to one host: its number and its MAC.
    pub leads_to: Option<(usize, [u8; 6])>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Addresses {
    pub ipv4: Ipv4Addr,
    pub ipv6: Ipv6Addr,
}

/// A static neighbour entry: in `space`, on `interface`, `addresses` are at `mac`.
pub(crate) struct Neighbour {
    pub space: usize,
    pub interface: String,
    pub addresses: Addresses,
    pub mac: [u8; 6],
}

/// In `space`, the networks of `link` are reached through `gateway` on `interface`.
pub(crate) struct Route {
    pub space: usize,
    pub interface: String,
    pub link: usize,
    pub gateway: Addresses,
}

/// Everything that [`Network::build`](crate::Network::build) makes, in the order in which it makes it.
pub(crate) struct Plan {
    pub spaces: Vec<Space>,
    /// Veth pairs; in a star the second end is the switch port.
    pub veths: Vec<(End, End)>,
    pub neighbours: Vec<Neighbour>,
    pub routes: Vec<Route>,
}

impl Plan {
    /// `cards` are numbers of a star's hosts.
    pub fn of(topology: Topology, cards: &[usize]) -> Result<Plan, NetError> {
        let (plan, hosts_count) = match topology {
            Topology::Pair => (chain(2), 0),
            Topology::Chain { hosts } => (chain(bounded(hosts)?), 0),
            Topology::Star { hosts } => (star(bounded(hosts)?), hosts),
        };
        let mut plan = plan;
        for (index, &host) in cards.iter().enumerate() {
            if host >= hosts_count || cards[..index].contains(&host) {
                return Err(NetError::Refused {
                    option: "cards",
                    why: format!("host {host}: a card is in front of one host of a star, and no host has two"),
                });
            }
            plan.add_card(host);
        }
        Ok(plan)
    }

    /// Puts a card between `host` of a star and its port.
    fn add_card(&mut self, host: usize) {
        let space = self.spaces.len();
        self.spaces.push(Space {
            name: format!("card{host}"),
            kind: SpaceKind::Card { host },
        });
        let end = |interface: &str, side: u8, leads_to| End {
            space,
            interface: interface.to_owned(),
            mac: [0x02, b'd', b'p', 0x02, side, host as u8 + 1],
            addresses: None,
            leads_to,
        };
        let (near, port) = &mut self.veths[host];
        let inner = end(INNER, 0, Some((host, near.mac)));
        let port = std::mem::replace(port, inner);
        self.veths.push((end(OUTER, 1, None), port));
    }

    /// The interfaces of one space, in the order of the links.
    pub fn ends_of(&self, space: usize) -> impl Iterator<Item = &End> {
        self.ends().filter(move |end| end.space == space)
    }

    pub fn ends(&self) -> impl Iterator<Item = &End> {
        self.veths.iter().flat_map(|(first, second)| [first, second])
    }
}

fn bounded(hosts: usize) -> Result<usize, NetError> {
    if (2..=HOSTS_COUNT_MAX).contains(&hosts) {
        return Ok(hosts);
    }
    Err(NetError::Refused {
        option: "topology",
        why: format!("{hosts} hosts; a network has 2 to {HOSTS_COUNT_MAX}"),
    })
}

/// Two hosts in a chain are a pair.
fn chain(hosts: usize) -> Plan {
    let mut plan = Plan {
        spaces: (0..hosts)
            .map(|host| host_space(host, host > 0 && host + 1 < hosts))
            .collect(),
        veths: Vec::new(),
        neighbours: Vec::new(),
        routes: Vec::new(),
    };
    for link in 0..hosts - 1 {
        let left = host_end(link, link, chain_interface(link, link));
        let right = host_end(link, link + 1, chain_interface(link + 1, link));
        plan.neighbours
            .extend([knows(&left, &right), knows(&right, &left)].into_iter().flatten());
        plan.veths.push((left, right));
    }
    for host in 0..hosts {
        for link in 0..hosts - 1 {
            // Host h sits on links h-1 and h; every other link lies behind one of its two neighbours.
            let (via_host, via_link) = if link > host {
                (host + 1, host)
            } else if link + 1 < host {
                (host - 1, host - 1)
            } else {
                continue;
            };
            plan.routes.push(Route {
                space: host,
                interface: chain_interface(host, via_link),
                link,
                gateway: addresses(via_link, via_host),
            });
        }
    }
    plan
}

/// The first host has only the link to its right; all others have the left one as eth0 and the right one as eth1.
fn chain_interface(host: usize, link: usize) -> String {
    let is_right = link == host;
    format!("eth{}", u8::from(is_right && host > 0))
}

fn star(hosts: usize) -> Plan {
    let switch = hosts;
    let mut spaces: Vec<Space> = (0..hosts).map(|host| host_space(host, false)).collect();
    spaces.push(Space {
        name: "switch".to_owned(),
        kind: SpaceKind::Switch,
    });
    let port = |host: usize| End {
        space: switch,
        interface: format!("p{host}"),
        mac: [0x02, b'd', b'p', 0x01, 0, host as u8 + 1],
        addresses: None,
        leads_to: Some((host, host_mac(0, host))),
    };
    let veths: Vec<(End, End)> = (0..hosts)
        .map(|host| (host_end(0, host, "eth0".to_owned()), port(host)))
        .collect();
    let mut neighbours = Vec::new();
    for (one, _) in &veths {
        for (other, _) in veths.iter().filter(|(other, _)| other.space != one.space) {
            neighbours.extend(knows(one, other));
        }
    }
    Plan {
        spaces,
        veths,
        neighbours,
        routes: Vec::new(),
    }
}

fn host_space(host: usize, forwards: bool) -> Space {
    Space {
        name: format!("h{host}"),
        kind: SpaceKind::Host { forwards },
    }
}

fn host_end(link: usize, host: usize, interface: String) -> End {
    End {
        space: host,
        interface,
        mac: host_mac(link, host),
        addresses: Some(addresses(link, host)),
        leads_to: None,
    }
}

/// 0x02 is the locally administered bit (IEEE 802): no vendor owns these. "dp", then which link, then which host.
fn host_mac(link: usize, host: usize) -> [u8; 6] {
    [0x02, b'd', b'p', 0x00, link as u8, host as u8 + 1]
}

fn knows(one: &End, other: &End) -> Option<Neighbour> {
    Some(Neighbour {
        space: one.space,
        interface: one.interface.clone(),
        addresses: other.addresses?,
        mac: other.mac,
    })
}

/// `host` on `link`; both are below [`HOSTS_COUNT_MAX`], so they fit in a byte.
pub(crate) fn addresses(link: usize, host: usize) -> Addresses {
    Addresses {
        ipv4: Ipv4Addr::new(10, 203, link as u8, host as u8 + 1),
        ipv6: Ipv6Addr::new(0xfd00, 0x0203, link as u16, 0, 0, 0, 0, host as u16 + 1),
    }
}

/// The two networks of a link.
pub(crate) fn networks(link: usize) -> Addresses {
    Addresses {
        ipv4: Ipv4Addr::new(10, 203, link as u8, 0),
        ipv6: Ipv6Addr::new(0xfd00, 0x0203, link as u16, 0, 0, 0, 0, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// Follows routes hop by hop, as the kernels of the hosts would.
    fn reaches(plan: &Plan, from: usize, target: Ipv4Addr) -> bool {
        let mut at = from;
        for _hop in 0..plan.spaces.len() {
            let mine: Vec<&End> = plan.ends_of(at).collect();
            if mine.iter().any(|end| end.addresses.is_some_and(|a| a.ipv4 == target)) {
                return true;
            }
            let on_link = mine
                .iter()
                .any(|end| end.addresses.is_some_and(|a| a.ipv4.octets()[2] == target.octets()[2]));
            let next_ip = if on_link {
                target
            } else {
                match plan
                    .routes
                    .iter()
                    .find(|r| r.space == at && r.link == usize::from(target.octets()[2]))
                {
                    Some(route) => route.gateway.ipv4,
                    None => return false,
                }
            };
            match plan.ends().find(|end| end.addresses.is_some_and(|a| a.ipv4 == next_ip)) {
                Some(end) => at = end.space,
                None => return false,
            }
        }
        false
    }

    #[test]
    fn every_host_reaches_every_address() {
        let topologies = [
            Topology::Pair,
            Topology::Star { hosts: 5 },
            Topology::Chain { hosts: 3 },
            Topology::Chain { hosts: 12 },
        ];
        for topology in topologies {
            let plan = Plan::of(topology, &[]).unwrap();
            for (from, space) in plan.spaces.iter().enumerate() {
                if space.kind == SpaceKind::Switch {
                    continue;
                }
                for target in plan.ends().filter_map(|end| end.addresses) {
                    assert!(
                        reaches(&plan, from, target.ipv4),
                        "{topology:?}: h{from} to {}",
                        target.ipv4
                    );
                }
            }
        }
    }

    #[test]
    fn macs_and_addresses_are_unique_and_interface_names_are_unique_within_a_host() {
        for topology in [
            Topology::Star { hosts: HOSTS_COUNT_MAX },
            Topology::Chain { hosts: HOSTS_COUNT_MAX },
        ] {
            let plan = Plan::of(topology, &[]).unwrap();
            let mut macs = HashSet::new();
            let mut ips = HashSet::new();
            let mut names = HashSet::new();
            for end in plan.ends() {
                assert!(macs.insert(end.mac), "{:x?} twice", end.mac);
                assert!(
                    names.insert((end.space, &end.interface)),
                    "{} twice in {}",
                    end.interface,
                    end.space
                );
                assert_eq!(end.mac[0] & 0b11, 0b10, "locally administered and unicast");
                if let Some(addresses) = end.addresses {
                    assert!(ips.insert(addresses.ipv4) && addresses.ipv4.is_private());
                }
            }
        }
    }

    #[test]
    fn too_few_and_too_many_hosts_are_refused_with_the_bound() {
        for hosts in [0, 1, HOSTS_COUNT_MAX + 1, usize::MAX] {
            for topology in [Topology::Star { hosts }, Topology::Chain { hosts }] {
                let Err(error) = Plan::of(topology, &[]) else {
                    panic!("{topology:?} was accepted")
                };
                assert!(error.to_string().contains("2 to 72"), "{error}");
            }
        }
    }

    #[test]
    fn only_the_middle_of_a_chain_forwards() {
        let plan = Plan::of(Topology::Chain { hosts: 4 }, &[]).unwrap();
        let forwards: Vec<bool> = plan
            .spaces
            .iter()
            .map(|s| s.kind == SpaceKind::Host { forwards: true })
            .collect();
        assert_eq!(forwards, [false, true, true, false]);
    }

    #[test]
    fn a_card_is_between_its_host_and_the_switch() {
        let plan = Plan::of(Topology::Star { hosts: 3 }, &[1, 2]).unwrap();
        let spaces: Vec<&str> = plan.spaces.iter().map(|space| space.name.as_str()).collect();
        assert_eq!(spaces, ["h0", "h1", "h2", "switch", "card1", "card2"]);
        let named = |end: &End| format!("{} {}", plan.spaces[end.space].name, end.interface);
        let veths: Vec<(String, String)> = plan.veths.iter().map(|(near, far)| (named(near), named(far))).collect();
        let words = |near: &str, far: &str| (near.to_owned(), far.to_owned());
        assert_eq!(
            veths,
            [
                words("h0 eth0", "switch p0"),
                words("h1 eth0", "card1 inner"),
                words("h2 eth0", "card2 inner"),
                words("card1 outer", "switch p1"),
                words("card2 outer", "switch p2"),
            ]
        );
        let macs: HashSet<[u8; 6]> = plan.ends().map(|end| end.mac).collect();
        assert_eq!(macs.len(), 10);
        // Whoever looks for the host finds it behind the card's inner interface and behind the switch's port.
        let leads: Vec<String> = plan
            .ends()
            .filter(|end| end.leads_to == Some((1, host_mac(0, 1))))
            .map(named)
            .collect();
        assert_eq!(leads, ["card1 inner", "switch p1"]);
    }

    #[test]
    fn cards_are_in_front_of_hosts_that_there_are_once() {
        for (topology, cards) in [
            (Topology::Pair, vec![0]),
            (Topology::Chain { hosts: 3 }, vec![1]),
            (Topology::Star { hosts: 3 }, vec![3]),
            (Topology::Star { hosts: 3 }, vec![1, 1]),
        ] {
            let Err(error) = Plan::of(topology, &cards) else {
                panic!("{cards:?} of {topology:?} was accepted")
            };
            assert!(error.to_string().contains("no host has two"), "{error}");
        }
    }
}
