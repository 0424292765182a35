//! A real interface as an end of a measurement: what it is, which address of it is meant, and the guard that keeps a
//! measurement off the interface through which this machine is reached.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use anyhow::{Context, anyhow, bail};
use dataplane_netns::{OffloadState, read_link, read_offloads};
use ebpf_host::{HostError, refuse_default_route};
use nix::{
    ifaddrs::getifaddrs,
    net::if_::InterfaceFlags,
    sys::socket::{AddressFamily, SockaddrLike, SockaddrStorage},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{advice::advice, environment::sysfs::Sysfs};

/// An address and how much of it is the link's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// Bits that all addresses of the link have in common.
    pub prefix_bits: u8,
}

impl Address {
    /// Would a packet to `other` go there without a router?
    pub fn shares_link_with(&self, other: IpAddr) -> bool {
        let same_bits = match (self.ip, other) {
            (IpAddr::V4(own), IpAddr::V4(other)) => (own.to_bits() ^ other.to_bits()).leading_zeros(),
            (IpAddr::V6(own), IpAddr::V6(other)) => (own.to_bits() ^ other.to_bits()).leading_zeros(),
            _ => return false,
        };
        same_bits >= u32::from(self.prefix_bits)
    }
}

/// What is known of an interface, as the kernel tells it to the calling thread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Ethernet address; all zero where it has none.
    pub mac: [u8; 6],
    /// The longest IP packet, in bytes.
    pub mtu_bytes: u32,
    /// What drives it: a driver's name, or the kind of a virtual link ("veth"). `None` where neither is told.
    pub driver: Option<String>,
    /// Which of its offloads are on, in groups; the environment has each by name.
    pub offloads: String,
    /// Its addresses, IPv4 first, without those that are valid on one link only (fe80::/10).
    pub addresses: Vec<Address>,
}

/// Addresses of one interface at most; a host with thousands would fill every message.
const ADDRESSES_MAX: usize = 64;

impl Interface {
    /// Finds `name`, which must be up, running and addressed, and must not be this machine's way out unless `force`.
    ///
    /// # Errors
    /// A sentence that says what was seen and what to try.
    pub fn find(name: &str, force: bool) -> anyhow::Result<Interface> {
        let known: Vec<_> = getifaddrs().context("asking for this machine's interfaces")?.collect();
        let own: Vec<_> = known.iter().filter(|entry| entry.interface_name == name).collect();
        let Some(first) = own.first() else {
            let mut names: Vec<&str> = known.iter().map(|entry| entry.interface_name.as_str()).collect();
            names.sort_unstable();
            names.dedup();
            bail!("no interface is called {name:?}; {}", advice(name, names));
        };
        if !first.flags.contains(InterfaceFlags::IFF_UP) {
            bail!("interface {name} is down, so nothing can be sent over it; try `ip link set {name} up`");
        }
        if !first.flags.contains(InterfaceFlags::IFF_RUNNING) {
            bail!("interface {name} is up but has no carrier; is its cable, or its other end, connected?");
        }
        refuse_default_route(name, force).map_err(|error| match error {
            HostError::DefaultRoute { route, .. } => anyhow!(
                "interface {name} carries this machine's default route ({route}): a measurement would load the way by which \
                 it is reached, ssh included, and other traffic would be in the figures; name another interface, or add \
                 --force-interface if that is meant"
            ),
            other => anyhow!(other).context(format!(
                "asking whether {name} carries the default route; --force-interface goes on without asking"
            )),
        })?;
        let addresses = addresses(own.iter().map(|entry| (entry.address, entry.netmask)));
        if addresses.is_empty() {
            bail!(
                "interface {name} has no address that others can reach; try `ip addr add 192.0.2.1/24 dev {name}` with an \
                 address of your network"
            );
        }
        let link = read_link(name).with_context(|| format!("asking for interface {name}"))?;
        let offloads = match read_offloads(name) {
            OffloadState::Off => "offloads off".to_owned(),
            OffloadState::On { features } => format!("offloads on: {}", groups(&features).join(", ")),
            OffloadState::Unknown { .. } => "offloads unknown".to_owned(),
        };
        Ok(Interface {
            name: name.to_owned(),
            mac: link.mac,
            mtu_bytes: link.mtu_bytes,
            driver: link.kind.or_else(|| driver(&Sysfs::new("/"), name, link.mac)),
            offloads,
            addresses,
        })
    }

    /// The address to use: `wanted` if it is one of its own, else the first.
    ///
    /// # Errors
    /// `wanted` is not its own.
    pub fn address(&self, wanted: Option<IpAddr>) -> anyhow::Result<Address> {
        let Some(wanted) = wanted else {
            return Ok(self.addresses[0]);
        };
        let found = self.addresses.iter().find(|address| address.ip == wanted);
        found.copied().with_context(|| {
            let own: Vec<String> = self.addresses.iter().map(|address| address.ip.to_string()).collect();
            format!(
                "{wanted} is not an address of interface {}, which has {}",
                self.name,
                own.join(", ")
            )
        })
    }

    /// The address at which `peer` is to find it: the first on a link with it, else the first of its family.
    pub fn address_towards(&self, peer: IpAddr) -> Option<Address> {
        let of_family = || self.addresses.iter().filter(|own| own.ip.is_ipv4() == peer.is_ipv4());
        let on_its_link = of_family().find(|own| own.shares_link_with(peer));
        on_its_link.or_else(|| of_family().next()).copied()
    }

    /// Checks that packets to `peer` leave through this interface: a measurement named after one cable must not go through
    /// another.
    ///
    /// # Errors
    /// They do not, or `peer` is this machine itself.
    pub fn leads_to(&self, peer: IpAddr) -> anyhow::Result<()> {
        let is_own = |entry: &nix::ifaddrs::InterfaceAddress| entry.address.and_then(ip_of) == Some(peer);
        if getifaddrs()
            .context("asking for this machine's addresses")?
            .any(|entry| is_own(&entry))
        {
            bail!(
                "{peer} is an address of this machine, so packets to it would never reach a wire; run the agent on the other \
                 machine, or leave --interface out to measure between namespaces of this one"
            );
        }
        let any: IpAddr = match peer {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        // Connecting a datagram socket sends nothing; the kernel chooses a source address by its routes, and the address
        // tells the interface. The port is discard's (RFC 863).
        let socket = UdpSocket::bind((any, 0)).context("opening a socket to ask for a route")?;
        socket
            .connect(SocketAddr::new(peer, 9))
            .with_context(|| format!("there is no route to {peer}; try `ip route get {peer}`"))?;
        let source = socket.local_addr().context("asking for a route")?.ip();
        if !self.addresses.iter().any(|address| address.ip == source) {
            bail!(
                "packets to {peer} would leave from {source}, which is not an address of interface {}; look at \
                 `ip route get {peer}`, and name the interface that it names or give the two ends addresses of one network",
                self.name
            );
        }
        Ok(())
    }

    /// One end of a veth pair?
    pub fn is_veth(&self) -> bool {
        self.driver.as_deref() == Some("veth")
    }

    /// In one phrase: "eth1 (driver veth, MTU 9000, offloads off)".
    pub fn describe(&self) -> String {
        let driver = match &self.driver {
            Some(driver) => format!("driver {driver}"),
            None => "driver not told".to_owned(),
        };
        format!("{} ({driver}, MTU {}, {})", self.name, self.mtu_bytes, self.offloads)
    }
}

/// A NIC has dozens of offloads; for a sentence it takes what they do.
fn groups(features: &[String]) -> Vec<&'static str> {
    // Names: net/ethtool/common.c, `netdev_features_strings`.
    let group = |name: &str| match name {
        _ if name.starts_with("tx-checksum") => "sent checksums",
        _ if name.starts_with("rx-checksum") => "received checksums",
        _ if name.starts_with("rx-gro") || name.starts_with("rx-udp-gro") => "GRO",
        _ if name.starts_with("rx-lro") => "LRO",
        _ => "segmentation",
    };
    let mut groups: Vec<&str> = features.iter().map(|name| group(name)).collect();
    groups.sort_unstable();
    groups.dedup();
    groups
}

/// The largest frame that goes through both interfaces in one IP packet: a fragmented one would measure something else.
pub fn frame_bytes_max(mtu_bytes: u32, ip: IpAddr) -> usize {
    /// RFC 768.
    const UDP_HEADER_BYTES: usize = 8;
    // Without options (RFC 791, section 3.1) and extension headers (RFC 8200, section 3).
    let ip_header_bytes = if ip.is_ipv4() { 20 } else { 40 };
    (mtu_bytes as usize).saturating_sub(ip_header_bytes + UDP_HEADER_BYTES)
}

fn ip_of(address: SockaddrStorage) -> Option<IpAddr> {
    match address.family()? {
        AddressFamily::Inet => Some(address.as_sockaddr_in()?.ip().into()),
        AddressFamily::Inet6 => Some(address.as_sockaddr_in6()?.ip().into()),
        _ => None,
    }
}

fn addresses(entries: impl Iterator<Item = (Option<SockaddrStorage>, Option<SockaddrStorage>)>) -> Vec<Address> {
    let mut addresses: Vec<Address> = entries
        .filter_map(|(address, netmask)| {
            let prefix_bits = match ip_of(netmask?)? {
                IpAddr::V4(mask) => mask.to_bits().count_ones(),
                IpAddr::V6(mask) => mask.to_bits().count_ones(),
            };
            Some(Address {
                ip: ip_of(address?)?,
                prefix_bits: prefix_bits as u8,
            })
        })
        .filter(|address| match address.ip {
            IpAddr::V4(_) => true,
            IpAddr::V6(ip) => !ip.is_unicast_link_local(),
        })
        .collect();
    // Stable: the kernel lists the primary address of a family first.
    addresses.sort_by_key(|address| address.ip.is_ipv6());
    addresses.truncate(ADDRESSES_MAX);
    addresses
}

/// The driver by /sys, if the interface of that name there is the one with our address and not another namespace's.
fn driver(machine: &Sysfs, name: &str, mac: [u8; 6]) -> Option<String> {
    let folder = format!("/sys/class/net/{name}");
    let shown = machine.text(&format!("{folder}/address"))?;
    (shown == mac_text(mac)).then(|| machine.link_name(&format!("{folder}/device/driver")))?
}

/// As `ip link` prints it.
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_shared_by_prefix_and_family() {
        let address = |ip: &str, prefix_bits| Address {
            ip: ip.parse().unwrap(),
            prefix_bits,
        };
        let shares = |own: Address, other: &str| own.shares_link_with(other.parse().unwrap());
        assert!(shares(address("192.0.2.1", 24), "192.0.2.200"));
        assert!(!shares(address("192.0.2.1", 24), "192.0.3.1"));
        assert!(!shares(address("192.0.2.1", 32), "192.0.2.2"));
        assert!(shares(address("192.0.2.1", 0), "203.0.113.1"));
        assert!(shares(address("2001:db8::1", 64), "2001:db8::2"));
        assert!(!shares(address("2001:db8::1", 64), "192.0.2.1"));
    }

    #[test]
    fn offloads_are_told_in_groups() {
        let features = [
            "tx-checksum-ip-generic",
            "tx-checksum-sctp",
            "tx-tcp-segmentation",
            "tx-gso-list",
            "rx-gro",
        ]
        .map(String::from);
        assert_eq!(groups(&features), ["GRO", "segmentation", "sent checksums"]);
    }

    #[test]
    fn a_frame_fits_an_mtu() {
        assert_eq!(frame_bytes_max(1500, Ipv4Addr::LOCALHOST.into()), 1472);
        assert_eq!(frame_bytes_max(1500, Ipv6Addr::LOCALHOST.into()), 1452);
        assert_eq!(frame_bytes_max(0, Ipv4Addr::LOCALHOST.into()), 0);
    }

    #[test]
    fn typos_find_the_interface() {
        let error = Interface::find("loo", false)
            .expect_err("no such interface")
            .to_string();
        assert!(error.contains("\"loo\""), "{error}");
        assert!(error.contains("lo"), "{error}");
    }

    #[test]
    fn an_own_address_is_refused_as_a_peer() {
        let lo = Interface::find("lo", false).expect("a loopback interface");
        let error = lo
            .leads_to(Ipv4Addr::LOCALHOST.into())
            .expect_err("its own")
            .to_string();
        assert!(error.contains("this machine"), "{error}");
        assert!(lo.address(Some("192.0.2.77".parse().unwrap())).is_err());
        assert_eq!(
            lo.address(None).expect("the first").ip,
            IpAddr::from(Ipv4Addr::LOCALHOST)
        );
    }
}
