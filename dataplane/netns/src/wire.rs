//! Links, addresses, neighbours and routes of one namespace, over rtnetlink. The crate is asynchronous and this use is
//! not: a small runtime of its own drives one request at a time, each with a bound.

use crate::plan::{Addresses, BRIDGE, IPV4_PREFIX_LEN, IPV6_PREFIX_LEN};
use crate::{NetError, RouteMetrics};
use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, State};
use rtnetlink::packet_route::neighbour::{NeighbourFlags, NeighbourState};
use rtnetlink::packet_route::route::{RouteAttribute, RouteMetric, RouteScope};
use rtnetlink::{Handle, LinkBridge, LinkBridgePort, LinkUnspec, LinkVeth, RouteMessageBuilder};
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;
use tokio::runtime::Runtime;

/// The kernel answers within microseconds, unless another process holds its one lock for all of this (RTNL).
const REQUEST_WAIT_MAX: Duration = Duration::from_secs(10);

/// A netlink socket belongs to the namespace in which it was opened, wherever its user stands later.
pub(crate) struct Wire {
    runtime: Runtime,
    handle: Handle,
    name: String,
}

/// What the kernel says about a link.
#[derive(Debug)]
pub(crate) struct Link {
    pub index: u32,
    pub mtu_bytes: u32,
    pub mac: Vec<u8>,
    /// "veth", "bridge", "vlan": what a virtual link is; hardware has none.
    pub kind: Option<String>,
    /// Administratively up, with a peer that is up too, and through with coming up.
    pub is_running: bool,
}

/// One end of a veth pair to be made.
pub(crate) struct VethEnd<'a> {
    pub interface: &'a str,
    pub mac: [u8; 6],
}

impl Wire {
    /// Opens a socket in the namespace in which the thread stands; `name` names it in errors.
    pub fn open_here(name: &str) -> Result<Wire, NetError> {
        let fail = |error| NetError::kernel("opening a netlink socket in", name, error);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(fail)?;
        let entered = runtime.enter();
        let (connection, handle, _unasked) = rtnetlink::new_connection().map_err(fail)?;
        runtime.spawn(connection);
        drop(entered);
        Ok(Wire {
            runtime,
            handle,
            name: name.to_owned(),
        })
    }

    /// For requests that this file does not know.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    pub fn link(&self, interface: &str) -> Result<Link, NetError> {
        let request = self.handle.link().get().match_name(interface.to_owned()).execute();
        let message = self.ask("asking for", interface, async move {
            let mut request = std::pin::pin!(request);
            request.try_next().await
        })?;
        let Some(message) = message else {
            return Err(NetError::Answer {
                operation: "asking for",
                object: self.object(interface),
                what: "no link and no error".to_owned(),
            });
        };
        let mut link = Link {
            index: message.header.index,
            mtu_bytes: 0,
            mac: Vec::new(),
            kind: None,
            is_running: false,
        };
        let mut state = State::Unknown;
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::Mtu(mtu) => link.mtu_bytes = mtu,
                LinkAttribute::Address(mac) => link.mac = mac,
                LinkAttribute::OperState(now) => state = now,
                LinkAttribute::LinkInfo(infos) => {
                    link.kind = infos.into_iter().find_map(|info| match info {
                        LinkInfo::Kind(kind) => Some(kind.to_string()),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        link.is_running = state == State::Up && message.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp);
        Ok(link)
    }

    /// Both ends get their names, addresses and MTU as they are made, so nobody ever sees them otherwise.
    pub fn add_veth(
        &self,
        near: &VethEnd<'_>,
        far: &VethEnd<'_>,
        far_namespace: BorrowedFd<'_>,
        mtu_bytes: u32,
    ) -> Result<(), NetError> {
        let peer = LinkUnspec::new_with_name(far.interface)
            .address(far.mac.to_vec())
            .mtu(mtu_bytes)
            .setns_by_fd(far_namespace.as_raw_fd())
            .build();
        let veth = LinkVeth::new(near.interface, far.interface)
            .address(near.mac.to_vec())
            .mtu(mtu_bytes)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        self.ask(
            "creating the veth pair",
            near.interface,
            self.handle.link().add(veth).execute(),
        )
    }

    /// A switch that only forwards: no spanning tree, no multicast snooping.
    pub fn add_bridge(&self, mtu_bytes: u32) -> Result<(), NetError> {
        let bridge = LinkBridge::new(BRIDGE).mtu(mtu_bytes).mcast_snooping(false).build();
        self.ask("creating the bridge", BRIDGE, self.handle.link().add(bridge).execute())
    }

    pub fn add_to_bridge(&self, port_index: u32, bridge_index: u32, interface: &str) -> Result<(), NetError> {
        let change = LinkUnspec::new_with_index(port_index).controller(bridge_index).build();
        self.ask(
            "adding to the bridge",
            interface,
            self.handle.link().change(change).execute(),
        )
    }

    pub fn up(&self, index: u32, interface: &str) -> Result<(), NetError> {
        let change = LinkUnspec::new_with_index(index).up().build();
        self.ask("bringing up", interface, self.handle.link().change(change).execute())
    }

    pub fn delete(&self, index: u32, interface: &str) -> Result<(), NetError> {
        self.ask("removing", interface, self.handle.link().del(index).execute())
    }

    pub fn add_address(&self, index: u32, interface: &str, address: IpAddr) -> Result<(), NetError> {
        let prefix_len = if address.is_ipv4() {
            IPV4_PREFIX_LEN
        } else {
            IPV6_PREFIX_LEN
        };
        let mut request = self.handle.address().add(index, address, prefix_len);
        if address.is_ipv6() {
            request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        }
        self.ask("adding an address to", interface, request.execute())
    }

    pub fn add_neighbour(&self, index: u32, interface: &str, address: IpAddr, mac: [u8; 6]) -> Result<(), NetError> {
        let request = self.handle.neighbours().add(index, address).link_layer_address(&mac);
        self.ask("adding a neighbour to", interface, request.execute())
    }

    /// Tells the bridge behind which port a host is, so that no first frame is flooded to all.
    pub fn add_forwarding(&self, port_index: u32, interface: &str, mac: [u8; 6]) -> Result<(), NetError> {
        let request = self
            .handle
            .neighbours()
            .add_bridge(port_index, &mac)
            .state(NeighbourState::Noarp)
            .flags(NeighbourFlags::Controller)
            // The bridge may have learned the host already, from what its kernel says to multicast groups.
            .replace();
        self.ask("adding a forwarding entry to", interface, request.execute())
    }

    /// Keeps frames to addresses that the bridge does not know from this port, and to multicasts that nobody has joined there.
    pub fn do_not_flood(&self, port_index: u32, interface: &str) -> Result<(), NetError> {
        let change = LinkBridgePort::new(port_index).flood(false).mcast_flood(false).build();
        let request = self.handle.link().set_port(change).execute();
        self.ask("ending floods to", interface, request)
    }

    /// Keeps the bridge from noting, for each frame, behind which port its sender is: it has been told.
    pub fn do_not_learn(&self, port_index: u32, interface: &str) -> Result<(), NetError> {
        let change = LinkBridgePort::new(port_index).learning(false).build();
        let request = self.handle.link().set_port(change).execute();
        self.ask("ending to learn at", interface, request)
    }

    pub fn add_route_ipv4(
        &self,
        index: u32,
        interface: &str,
        network: Ipv4Addr,
        gateway: Ipv4Addr,
    ) -> Result<(), NetError> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(network, IPV4_PREFIX_LEN)
            .gateway(gateway)
            .output_interface(index)
            .build();
        self.ask("adding a route to", interface, self.handle.route().add(route).execute())
    }

    pub fn add_route_ipv6(
        &self,
        index: u32,
        interface: &str,
        network: Ipv6Addr,
        gateway: Ipv6Addr,
    ) -> Result<(), NetError> {
        let route = RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(network, IPV6_PREFIX_LEN)
            .gateway(gateway)
            .output_interface(index)
            .build();
        self.ask("adding a route to", interface, self.handle.route().add(route).execute())
    }

    /// In place of the route that came with the address: the same, and what it tells connections.
    pub fn replace_route_ipv4(
        &self,
        index: u32,
        interface: &str,
        source: Ipv4Addr,
        metrics: RouteMetrics,
    ) -> Result<(), NetError> {
        let network = Ipv4Addr::from_bits(source.to_bits() & !(u32::MAX >> IPV4_PREFIX_LEN));
        let mut route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(network, IPV4_PREFIX_LEN)
            .pref_source(source)
            .output_interface(index)
            .scope(RouteScope::Link)
            .build();
        let window = metrics.initial_window_segments.map(RouteMetric::InitCwnd);
        let quick = metrics.quick_acks.then_some(RouteMetric::QuickAck(1));
        let told: Vec<RouteMetric> = window.into_iter().chain(quick).collect();
        if !told.is_empty() {
            route.attributes.push(RouteAttribute::Metrics(told));
        }
        let request = self.handle.route().add(route).replace().execute();
        self.ask("replacing the route of", interface, request)
    }

    fn object(&self, interface: &str) -> String {
        format!("{interface} in {}", self.name)
    }

    pub fn ask<T>(
        &self,
        operation: &'static str,
        interface: &str,
        request: impl Future<Output = Result<T, rtnetlink::Error>>,
    ) -> Result<T, NetError> {
        let bounded = async { tokio::time::timeout(REQUEST_WAIT_MAX, request).await };
        match self.runtime.block_on(bounded) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(rtnetlink::Error::NetlinkError(message))) => {
                Err(NetError::kernel(operation, self.object(interface), message.to_io()))
            }
            Ok(Err(other)) => Err(NetError::kernel(
                operation,
                self.object(interface),
                io::Error::other(other),
            )),
            Err(_elapsed) => Err(NetError::Late {
                operation,
                object: self.object(interface),
                waited_ms: REQUEST_WAIT_MAX.as_millis(),
            }),
        }
    }
}

impl Addresses {
    /// The addresses that this kernel can use.
    pub fn usable(&self, has_ipv6: bool) -> impl Iterator<Item = IpAddr> {
        [Some(IpAddr::V4(self.ipv4)), has_ipv6.then_some(IpAddr::V6(self.ipv6))]
            .into_iter()
            .flatten()
    }
}
