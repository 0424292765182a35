//! Which port of a switch a packet leaves by. Nothing is looked up: where a host is follows from its number.
//!
//! Below every switch of our topologies lies a range of hosts, equally many behind each port; all others are behind any of
//! the ports up. A routing table for a FatTree of 8192 hosts would take 84 MB and a cache miss for each packet.

use std::ops::Range;

/// How a switch chooses among equal ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// By a hash of the flow, its destination and the packet's path: one path for a flow, unless its sender changes it
    /// (equal-cost multipath, RFC 2992).
    #[default]
    FlowHash,
    /// Each packet by a draw of its own.
    SprayRandom,
    /// The ports in turn.
    SprayRoundRobin,
}

/// Where hosts lie, seen from a switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The hosts below it.
    pub hosts: Range<u32>,
    /// How many of them are behind each port down.
    pub hosts_per_port: u32,
    /// The link to the first of them; the others follow.
    pub first_down: u32,
    /// The first link up; the others follow.
    pub first_up: u32,
    /// How many there are.
    pub ups_count: u32,
}

/// Ports that lead to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    One(u32),
    /// The first, and how many.
    Any(u32, u32),
}

impl Route {
    #[inline]
    pub(crate) fn to(&self, host: u32) -> Way {
        if self.hosts.contains(&host) {
            let offset = host - self.hosts.start;
            // Most ports down lead to one host; a division takes longer than this branch.
            let port = if self.hosts_per_port == 1 {
                offset
            } else {
                offset / self.hosts_per_port
            };
            return Way::One(self.first_down + port);
        }
        match self.ups_count {
            1 => Way::One(self.first_up),
            count => Way::Any(self.first_up, count),
        }
    }
}

/// A number from 0 to below `count`, the same for the same flow, destination, path and switch.
#[inline]
pub(crate) fn pick(flow: u32, to: u32, path: u16, salt: u32, count: u32) -> u32 {
    let hash = mix(flow ^ mix(to ^ mix(u32::from(path) ^ salt)));
    ((u64::from(hash) * u64::from(count)) >> 32) as u32
}

/// A permutation of 32 bits in which each input bit changes about half of the output's: the finalizer of MurmurHash3
/// (Appleby, `fmix32`).
#[inline]
pub(crate) fn mix(value: u32) -> u32 {
    let value = (value ^ value >> 16).wrapping_mul(0x85EB_CA6B);
    let value = (value ^ value >> 13).wrapping_mul(0xC2B2_AE35);
    value ^ value >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_spread_over_ports_and_stay_on_theirs() {
        let mut counts = [0u32; 8];
        for flow in 0..8_000 {
            let port = pick(flow, flow % 64, 0, 17, 8);
            assert_eq!(port, pick(flow, flow % 64, 0, 17, 8));
            counts[port as usize] += 1;
        }
        // 1000 each are expected, with a standard deviation of 30.
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
    }

    #[test]
    fn switches_choose_independently() {
        let same = (0..4_000)
            .filter(|&flow| pick(flow, 1, 0, 1, 4) == pick(flow, 1, 0, 2, 4))
            .count();
        assert!(
            (850..1150).contains(&same),
            "{same} of 4000 flows took the same port at both"
        );
    }
}
