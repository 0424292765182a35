//! Puts a topology together: hosts in their order, and the ports of each switch side by side.

use super::{Cable, HostOptions, Link, SwitchOptions, Topology, TopologyError};
use crate::packet::routing::Route;

pub(super) fn at_least(what: &'static str, seen: u32, min: u32, why: &'static str) -> Result<(), TopologyError> {
    match seen >= min {
        true => Ok(()),
        false => Err(TopologyError::Count { what, seen, why }),
    }
}

/// The most hosts: a number of each fits into 24 bits with room to spare for links.
const HOSTS_MAX: u32 = 1 << 24;

/// `more` plus `times` × `each` hosts, if that is not too many.
pub(super) fn count(more: u32, times: u32, each: u32) -> Result<u32, TopologyError> {
    let hosts = times.checked_mul(each).and_then(|hosts| hosts.checked_add(more));
    hosts.filter(|&hosts| hosts <= HOSTS_MAX).ok_or(TopologyError::Count {
        what: "hosts",
        seen: hosts.unwrap_or(u32::MAX),
        why: "16777216 are the most that can be numbered",
    })
}

pub(super) struct Builder {
    topology: Topology,
}

impl Builder {
    pub(super) fn new(hosts_count: u32, host: HostOptions, switch: SwitchOptions) -> Builder {
        let topology = Topology {
            host,
            switch,
            hosts_count,
            routes: Vec::new(),
            links: Vec::new(),
            nics: Vec::new(),
            groups: vec![0; hosts_count as usize],
        };
        Builder { topology }
    }

    pub(super) fn switch(&mut self, group: u32) -> u32 {
        self.topology.routes.push(Route {
            hosts: 0..0,
            hosts_per_port: 1,
            first_down: 0,
            first_up: 0,
            ups_count: 0,
        });
        self.topology.groups.push(group);
        self.topology.nodes_count() - 1
    }

    pub(super) fn set_group(&mut self, node: u32, group: u32) {
        self.topology.groups[node as usize] = group;
    }

    /// The number of a new link.
    pub(super) fn link(&mut self, from: u32, to: u32, cable: Cable) -> u32 {
        let is_host = from < self.topology.hosts_count;
        let discipline = match is_host {
            true => self.topology.host.discipline,
            false => self.topology.switch.discipline,
        };
        let number = self.topology.links.len() as u32;
        if is_host {
            assert_eq!(
                from as usize,
                self.topology.nics.len(),
                "hosts are connected in their order"
            );
            self.topology.nics.push(number);
        }
        let link = Link {
            from,
            to,
            cable,
            discipline,
        };
        self.topology.links.push(link);
        number
    }

    pub(super) fn host_links(&mut self, hosts: std::ops::Range<u32>, switch: u32, cable: Cable) {
        for host in hosts {
            self.link(host, switch, cable);
        }
    }

    /// Ports from a switch down to `nodes`, behind which lie `hosts`.
    pub(super) fn down(
        &mut self,
        switch: u32,
        hosts: std::ops::Range<u32>,
        hosts_per_port: u32,
        nodes: Vec<u32>,
        cable: Cable,
    ) {
        let first = self.topology.links.len() as u32;
        for node in nodes {
            self.link(switch, node, cable);
        }
        let route = self.route(switch);
        route.hosts = hosts;
        route.hosts_per_port = hosts_per_port;
        route.first_down = first;
    }

    /// Ports from a switch up to `nodes`.
    pub(super) fn up(&mut self, switch: u32, nodes: Vec<u32>, cable: Cable) {
        let (first, ups_count) = (self.topology.links.len() as u32, nodes.len() as u32);
        for node in nodes {
            self.link(switch, node, cable);
        }
        let route = self.route(switch);
        route.first_up = first;
        route.ups_count = ups_count;
    }

    fn route(&mut self, switch: u32) -> &mut Route {
        let index = switch - self.topology.hosts_count;
        &mut self.topology.routes[index as usize]
    }

    pub(super) fn finish(self) -> Result<Topology, TopologyError> {
        self.topology.check()?;
        Ok(self.topology)
    }
}
