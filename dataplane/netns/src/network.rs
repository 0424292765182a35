//! Building a network from its plan, and taking it down again.

use crate::host::{Card, Host, Interface, Switch};
use crate::names::{Maker, Published, prepare_names_dir};
use crate::namespace::Namespace;
use crate::offload::{self, OffloadState, Offloads};
use crate::plan::{BRIDGE, End, INNER, OUTER, Plan, SpaceKind, networks};
use crate::wire::{VethEnd, Wire};
use crate::{NetError, Topology, sysctl, thread};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Smallest MTU that IPv6 works with (RFC 8200 section 5).
pub const MTU_BYTES_MIN: u32 = 1280;
/// Largest MTU of a veth (drivers/net/veth.c: ETH_MAX_MTU).
pub const MTU_BYTES_MAX: u32 = 65_535;
/// 9000 is what jumbo frames carry: an IPv4 header, a UDP header and 8972 bytes.
pub const MTU_BYTES_DEFAULT: u32 = 9000;

/// A veth has carrier as soon as both ends are up; the kernel's link watch may take a second to say so.
const READY_WAIT_MAX: Duration = Duration::from_secs(10);
const READY_POLL: Duration = Duration::from_millis(1);

/// What to build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkOptions {
    /// How hosts are joined.
    pub topology: Topology,
    /// IP MTU of every interface (without the Ethernet header), [`MTU_BYTES_MIN`] to [`MTU_BYTES_MAX`].
    pub mtu_bytes: u32,
    /// Checksum, segmentation and coalescing offloads of every interface.
    pub offloads: Offloads,
    /// Also show the hosts under /run/netns, for `ip netns exec`. Needs root; without it the facts say why there is no name.
    pub publish_names: bool,
    /// A star's hosts that get no frames to addresses which the switch does not know, by number; all others do.
    pub unflooded_hosts: Vec<usize>,
    /// A star's hosts with a card in front, by number: a namespace that bridges between the host and the switch, as a SmartNIC
    /// with an operating system of its own stands in the wire.
    pub cards: Vec<usize>,
    /// An IPv4 address that every host believes to be at this hardware address, though nobody has it: a star's switch floods
    /// what is sent there.
    pub group: Option<(Ipv4Addr, [u8; 6])>,
    /// A star's switch has ports and no bridge: nothing passes from one to another, unless a program there does it
    /// ([`Network::switch`]).
    pub bare_switch: bool,
}

impl NetworkOptions {
    /// MTU 9000, offloads off, names published.
    pub fn new(topology: Topology) -> NetworkOptions {
        NetworkOptions {
            topology,
            mtu_bytes: MTU_BYTES_DEFAULT,
            offloads: Offloads::Off,
            publish_names: true,
            unflooded_hosts: Vec::new(),
            cards: Vec::new(),
            group: None,
            bare_switch: false,
        }
    }
}

/// What was built, as the kernel tells it: belongs in the record of every measurement made over it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkFacts {
    /// Driver of every interface.
    pub driver: &'static str,
    /// How hosts are joined.
    pub topology: Topology,
    /// IP MTU of every interface, read back.
    pub mtu_bytes: u32,
    /// Offloads of every interface, read back, in the order of the links.
    pub offloads: Vec<InterfaceOffloads>,
    /// Whether the hosts have IPv6 addresses.
    pub has_ipv6: bool,
    /// Names under /run/netns.
    pub names: Names,
}

/// Offloads of one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceOffloads {
    /// Name of the host, or "switch".
    pub host: String,
    /// Name of the interface there.
    pub interface: String,
    /// What the kernel answered.
    pub state: OffloadState,
}

/// Whether the hosts can be found by `ip netns`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Names {
    /// By these paths, in the order of the hosts; a star's switch comes behind them, and its cards behind that.
    Published(Vec<PathBuf>),
    /// Not.
    Hidden {
        /// Not asked for, or what the kernel answered.
        why: String,
    },
}

/// Hosts joined by links. Dropping it, on any thread, removes everything; so does the death of the process, but for the
/// published names, which the next [`sweep`](crate::sweep) removes.
#[derive(Debug)]
pub struct Network {
    made: Made,
    hosts: Vec<Host>,
    cards: Vec<Card>,
    switch: Option<Switch>,
    facts: NetworkFacts,
}

impl Network {
    /// Builds what the options say. When this returns, every link has carrier, every address is usable, and every setting was
    /// read back. The calling thread stays where it is.
    ///
    /// # Errors
    /// Options out of bounds, a missing privilege, an exhausted limit, a setting that did not take. What had been made
    /// until then is removed again.
    pub fn build(options: &NetworkOptions) -> Result<Network, NetError> {
        if !(MTU_BYTES_MIN..=MTU_BYTES_MAX).contains(&options.mtu_bytes) {
            return Err(NetError::Refused {
                option: "mtu_bytes",
                why: format!(
                    "{}; an MTU is {MTU_BYTES_MIN} to {MTU_BYTES_MAX} bytes",
                    options.mtu_bytes
                ),
            });
        }
        let plan = Plan::of(options.topology, &options.cards)?;
        thread::run("dplab-netns", || build_on_this_thread(options, &plan))?
    }

    /// The hosts in order. A star's switch is not among them.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The cards, in the order in which they were asked for.
    pub fn cards(&self) -> &[Card] {
        &self.cards
    }

    /// A star's switch.
    pub fn switch(&self) -> Option<&Switch> {
        self.switch.as_ref()
    }

    /// What was built, read back.
    pub fn facts(&self) -> &NetworkFacts {
        &self.facts
    }

    /// Removes everything and says what could not be removed. Links are gone when this returns, also where a child
    /// process or a [`Host`] still holds a namespace open.
    ///
    /// # Errors
    /// The first thing that could not be removed; the others were tried all the same.
    pub fn remove(mut self) -> Result<(), NetError> {
        self.made.remove()
    }
}

/// What has to be removed, from the first namespace on: dropped half-filled when building fails.
#[derive(Debug, Default)]
struct Made {
    namespaces: Vec<Arc<Namespace>>,
    names: Vec<Published>,
    /// One end of every veth pair: its namespace and its name. The other end goes with it.
    veths: Vec<(usize, String)>,
}

impl Made {
    fn remove(&mut self) -> Result<(), NetError> {
        let names = std::mem::take(&mut self.names);
        let named = names.into_iter().map(Published::remove).fold(Ok(()), Result::and);
        let veths = std::mem::take(&mut self.veths);
        let namespaces = std::mem::take(&mut self.namespaces);
        let unlinked = if veths.is_empty() {
            Ok(())
        } else {
            thread::run("dplab-netns", || {
                veths
                    .iter()
                    .map(|(space, interface)| unlink(&namespaces[*space], interface))
                    .fold(Ok(()), Result::and)
            })
            .and_then(|result| result)
        };
        named.and(unlinked)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        // Names are tried again by the next sweep; links go with their namespaces once the last file is closed.
        let _ = self.remove();
    }
}

/// Runs on a thread that is thrown away.
fn unlink(namespace: &Namespace, interface: &str) -> Result<(), NetError> {
    namespace.move_into()?;
    let wire = Wire::open_here(namespace.name())?;
    let link = match wire.link(interface) {
        Err(error) if error.errno() == Some(nix::errno::Errno::ENODEV as i32) => return Ok(()),
        link => link?,
    };
    wire.delete(link.index, interface)
}

/// Runs on a thread that is thrown away: it wanders from namespace to namespace.
fn build_on_this_thread(options: &NetworkOptions, plan: &Plan) -> Result<Network, NetError> {
    let has_ipv6 = sysctl::has_ipv6();
    let mut made = Made::default();
    let mut wires = Vec::new();
    for space in &plan.spaces {
        let namespace = Namespace::create(&space.name)?;
        let forwards = space.kind == SpaceKind::Host { forwards: true };
        sysctl::settle(&space.name, forwards, has_ipv6)?;
        let wire = Wire::open_here(&space.name)?;
        wire.up(wire.link("lo")?.index, "lo")?;
        let is_bare = space.kind == SpaceKind::Switch && options.bare_switch;
        if space.kind.is_bridge() && !is_bare {
            wire.add_bridge(options.mtu_bytes)?;
            sysctl::settle_switch(&space.name)?;
        }
        wires.push(wire);
        made.namespaces.push(Arc::new(namespace));
    }
    let names = publish(options, &mut made);
    for (near, far) in &plan.veths {
        let end = |end: &'_ End| (end.interface.clone(), end.mac);
        let ((near_name, near_mac), (far_name, far_mac)) = (end(near), end(far));
        wires[near.space].add_veth(
            &VethEnd {
                interface: &near_name,
                mac: near_mac,
            },
            &VethEnd {
                interface: &far_name,
                mac: far_mac,
            },
            made.namespaces[far.space].as_fd(),
            options.mtu_bytes,
        )?;
        made.veths.push((near.space, near_name));
    }
    let builder = Builder {
        options,
        plan,
        has_ipv6,
        wires,
    };
    builder.configure(&made.namespaces)?;
    let offloads = builder.verify(&made.namespaces)?;
    let hosts = hosts(plan, &made.namespaces, has_ipv6);
    let cards = cards(plan, &made.namespaces);
    let switch = switch(plan, &made.namespaces);
    Ok(Network {
        made,
        hosts,
        cards,
        switch,
        facts: NetworkFacts {
            driver: "veth",
            topology: options.topology,
            mtu_bytes: options.mtu_bytes,
            offloads,
            has_ipv6,
            names,
        },
    })
}

struct Builder<'a> {
    options: &'a NetworkOptions,
    plan: &'a Plan,
    has_ipv6: bool,
    wires: Vec<Wire>,
}

impl Builder<'_> {
    /// A port of a switch without a bridge.
    fn is_bare(&self, end: &End) -> bool {
        self.options.bare_switch && self.plan.spaces[end.space].kind == SpaceKind::Switch
    }

    /// Everything between the bare links and a network that carries packets.
    fn configure(&self, namespaces: &[Arc<Namespace>]) -> Result<(), NetError> {
        for end in self.plan.ends() {
            let wire = &self.wires[end.space];
            namespaces[end.space].move_into()?;
            offload::apply(self.options.offloads, &end.interface, &self.object(end))?;
            let index = wire.link(&end.interface)?.index;
            match end.addresses {
                Some(addresses) => {
                    for address in addresses.usable(self.has_ipv6) {
                        wire.add_address(index, &end.interface, address)?;
                    }
                }
                None if self.is_bare(end) => {}
                None => wire.add_to_bridge(index, wire.link(BRIDGE)?.index, &end.interface)?,
            }
            wire.up(index, &end.interface)?;
        }
        for end in self.plan.ends() {
            namespaces[end.space].move_into()?;
            self.await_ready(end)?;
        }
        // Only now: going down, or losing carrier, would have flushed them.
        for port in self.plan.ends() {
            let Some((host, mac)) = port.leads_to else { continue };
            if self.is_bare(port) {
                continue;
            }
            let wire = &self.wires[port.space];
            let index = wire.link(&port.interface)?.index;
            wire.add_forwarding(index, &port.interface, mac)?;
            wire.do_not_learn(index, &port.interface)?;
            let is_switch = self.plan.spaces[port.space].kind == SpaceKind::Switch;
            if is_switch && self.options.unflooded_hosts.contains(&host) {
                wire.do_not_flood(index, &port.interface)?;
            }
        }
        for neighbour in &self.plan.neighbours {
            let wire = &self.wires[neighbour.space];
            let index = wire.link(&neighbour.interface)?.index;
            for address in neighbour.addresses.usable(self.has_ipv6) {
                wire.add_neighbour(index, &neighbour.interface, address, neighbour.mac)?;
            }
        }
        if let Some((ipv4, mac)) = self.options.group {
            for end in self.plan.ends().filter(|end| end.addresses.is_some()) {
                let wire = &self.wires[end.space];
                let index = wire.link(&end.interface)?.index;
                wire.add_neighbour(index, &end.interface, IpAddr::V4(ipv4), mac)?;
            }
        }
        for route in &self.plan.routes {
            let wire = &self.wires[route.space];
            let index = wire.link(&route.interface)?.index;
            let to = networks(route.link);
            wire.add_route_ipv4(index, &route.interface, to.ipv4, route.gateway.ipv4)?;
            if self.has_ipv6 {
                wire.add_route_ipv6(index, &route.interface, to.ipv6, route.gateway.ipv6)?;
            }
        }
        Ok(())
    }

    /// Until the link carries and the host takes what comes for its addresses.
    fn await_ready(&self, end: &End) -> Result<(), NetError> {
        let wire = &self.wires[end.space];
        self.wait("waiting for the carrier of", end, || {
            Ok(wire.link(&end.interface)?.is_running)
        })?;
        match end.addresses {
            Some(addresses) if self.has_ipv6 => self.wait("waiting for the IPv6 address of", end, || {
                sysctl::takes_ipv6_for(addresses.ipv6)
            }),
            _ => Ok(()),
        }
    }

    fn wait(
        &self,
        operation: &'static str,
        end: &End,
        mut is_done: impl FnMut() -> Result<bool, NetError>,
    ) -> Result<(), NetError> {
        let deadline = Instant::now() + READY_WAIT_MAX;
        while !is_done()? {
            if Instant::now() >= deadline {
                return Err(NetError::Late {
                    operation,
                    object: self.object(end),
                    waited_ms: READY_WAIT_MAX.as_millis(),
                });
            }
            std::thread::sleep(READY_POLL);
        }
        Ok(())
    }

    /// Asks the kernel for what it was told, interface by interface.
    fn verify(&self, namespaces: &[Arc<Namespace>]) -> Result<Vec<InterfaceOffloads>, NetError> {
        let mut offloads = Vec::new();
        for end in self.plan.ends() {
            let object = self.object(end);
            let link = self.wires[end.space].link(&end.interface)?;
            let differs = |setting, seen: String, wanted: String| NetError::NotAsAsked {
                setting,
                object: object.clone(),
                seen,
                wanted,
                mend: "another program of this machine may configure new interfaces: look for one (NetworkManager, systemd-networkd, udev rules)",
            };
            if link.mtu_bytes != self.options.mtu_bytes {
                return Err(differs(
                    "mtu_bytes",
                    link.mtu_bytes.to_string(),
                    self.options.mtu_bytes.to_string(),
                ));
            }
            if link.mac != end.mac {
                return Err(differs("mac", format!("{:x?}", link.mac), format!("{:x?}", end.mac)));
            }
            namespaces[end.space].move_into()?;
            offloads.push(InterfaceOffloads {
                host: self.plan.spaces[end.space].name.clone(),
                interface: end.interface.clone(),
                state: offload::verify(self.options.offloads, &end.interface, &object)?,
            });
        }
        Ok(offloads)
    }

    fn object(&self, end: &End) -> String {
        format!("{} in {}", end.interface, self.plan.spaces[end.space].name)
    }
}

/// A missing name changes no measurement, so it is a fact and not an error.
fn publish(options: &NetworkOptions, made: &mut Made) -> Names {
    static NETWORKS_COUNT: AtomicU32 = AtomicU32::new(0);
    if !options.publish_names {
        return Names::Hidden {
            why: "not asked for".to_owned(),
        };
    }
    let network = NETWORKS_COUNT.fetch_add(1, Ordering::Relaxed);
    let published = prepare_names_dir().and_then(|()| {
        let maker = Maker::this_process()?;
        made.namespaces
            .iter()
            .map(|namespace| Published::publish(&maker, network, namespace))
            .collect::<Result<Vec<Published>, _>>()
    });
    match published {
        Ok(names) => {
            let paths = names.iter().map(|name| name.path().to_owned()).collect();
            made.names = names;
            Names::Published(paths)
        }
        Err(error) => Names::Hidden {
            why: format!("naming the hosts under /run/netns failed ({error}); it needs root"),
        },
    }
}

fn hosts(plan: &Plan, namespaces: &[Arc<Namespace>], has_ipv6: bool) -> Vec<Host> {
    let mut hosts = Vec::new();
    for (space, namespace) in namespaces.iter().enumerate() {
        if plan.spaces[space].kind.is_bridge() {
            continue;
        }
        let interfaces = plan.ends_of(space).filter_map(|end| {
            let addresses = end.addresses?;
            Some(Interface {
                name: end.interface.clone(),
                mac: end.mac,
                ipv4: addresses.ipv4,
                ipv6: has_ipv6.then_some(addresses.ipv6),
            })
        });
        hosts.push(Host::new(namespace.clone(), interfaces.collect()));
    }
    hosts
}

fn cards(plan: &Plan, namespaces: &[Arc<Namespace>]) -> Vec<Card> {
    let spaces = plan.spaces.iter().zip(namespaces);
    spaces
        .filter_map(|(space, namespace)| match space.kind {
            SpaceKind::Card { host } => Some(Card::new(namespace.clone(), host, (INNER, OUTER))),
            _ => None,
        })
        .collect()
}

fn switch(plan: &Plan, namespaces: &[Arc<Namespace>]) -> Option<Switch> {
    let space = plan.spaces.iter().position(|space| space.kind == SpaceKind::Switch)?;
    let ports = plan.ends_of(space).map(|end| end.interface.clone());
    Some(Switch::new(namespaces[space].clone(), ports.collect()))
}
