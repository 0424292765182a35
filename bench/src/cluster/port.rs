//! The way to the cluster: a UDP socket, and the authentication around it where there is a key.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use anyhow::{Context, bail};
use dataplane_ports::udp::{Batching, PEERS_COUNT_MAX, UdpOptions, UdpPort, WaitHow};
use dataplane_waist::{
    Peer, Port,
    middleware::{CLIENT_NODE, ClusterKey, Sealed, SealedOptions},
};

use super::file::Cluster;
use crate::agent::key;

/// Room for what comes while a replica waits for its disk; the kernel may grant less.
const BUFFER_BYTES: usize = 4 << 20;

/// How long a replica or a client looks for frames before it sleeps: half of what a fast disk takes to flush. A replica that has
/// nothing to do wakes for a heartbeat every 20 ms, so this is a four-hundredth of a CPU.
const LOOK_MAX: Duration = Duration::from_micros(50);

/// A port with its peers, by node number.
pub struct Opened {
    pub port: Box<dyn Port>,
    pub peers: Vec<(u32, Peer)>,
    pub local: SocketAddr,
    pub is_sealed: bool,
}

/// The cluster's key, if it is needed or given.
///
/// # Errors
/// It is needed and not given, or the file is not a key's.
pub fn key(cluster: &Cluster, listen: Option<SocketAddr>, file: Option<&Path>) -> anyhow::Result<Option<ClusterKey>> {
    if let Some(path) = file {
        let secret = key::read_secret(path)?;
        let key = ClusterKey::new(&secret).with_context(|| format!("the key file {}", path.display()))?;
        return Ok(Some(key));
    }
    let outside = cluster.nodes.values().copied().chain(listen);
    if let Some(address) = outside.into_iter().find(|address| !address.ip().is_loopback()) {
        bail!(
            "{address} can be reached from other machines, and whoever can send there could write into the store: give the \
             cluster's key with --key-file; `dplab agent --new-key FILE` makes one, and every replica and client needs a \
             copy of it (on 127.0.0.1 no key is needed)"
        );
    }
    Ok(None)
}

/// A replica's port: it knows the other nodes, and learns its clients.
///
/// # Errors
/// The address cannot be had: in use, not this host's.
pub fn open_replica(
    cluster: &Cluster,
    node: u32,
    listen: SocketAddr,
    key: Option<&ClusterKey>,
    spins: bool,
) -> anyhow::Result<Opened> {
    let others: Vec<(u32, SocketAddr)> = cluster
        .nodes
        .iter()
        .filter(|&(&other, _)| other != node)
        .map(|(&other, &address)| (other, address))
        .collect();
    let options = UdpOptions {
        local: listen,
        peers: others.iter().map(|&(_, address)| address).collect(),
        learn_peers_max: PEERS_COUNT_MAX - others.len(),
        forget_peers: true,
        wait: if spins { WaitHow::Spin } else { WaitHow::Epoll },
        look_max: LOOK_MAX,
        batch: Batching::Gso,
        recv_buffer_bytes: BUFFER_BYTES,
        send_buffer_bytes: BUFFER_BYTES,
        frame_bytes_max: cluster.frame_bytes,
        connect: false,
    };
    open(cluster, node, &others, &options, key)
}

/// A client's port: it knows the nodes and nobody else.
///
/// # Errors
/// No socket could be had.
pub fn open_client(cluster: &Cluster, key: Option<&ClusterKey>) -> anyhow::Result<Opened> {
    let nodes: Vec<(u32, SocketAddr)> = cluster.nodes.iter().map(|(&node, &address)| (node, address)).collect();
    let is_ipv4 = nodes.iter().all(|(_, address)| address.is_ipv4());
    let ip: IpAddr = match (is_ipv4, cluster.is_local()) {
        (true, true) => Ipv4Addr::LOCALHOST.into(),
        (true, false) => Ipv4Addr::UNSPECIFIED.into(),
        (false, true) => Ipv6Addr::LOCALHOST.into(),
        (false, false) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let options = UdpOptions {
        local: (ip, 0).into(),
        peers: nodes.iter().map(|&(_, address)| address).collect(),
        wait: WaitHow::Epoll,
        look_max: LOOK_MAX,
        batch: Batching::Gso,
        frame_bytes_max: cluster.frame_bytes,
        ..UdpOptions::default()
    };
    open(cluster, CLIENT_NODE, &nodes, &options, key)
}

fn open(
    cluster: &Cluster,
    node: u32,
    others: &[(u32, SocketAddr)],
    options: &UdpOptions,
    key: Option<&ClusterKey>,
) -> anyhow::Result<Opened> {
    // A kernel, or what stands for one, that cannot receive trains is spoken to frame by frame.
    let port = UdpPort::open(options).or_else(|_| {
        UdpPort::open(&UdpOptions {
            batch: Batching::Multi,
            ..options.clone()
        })
    })?;
    let local = port.local_addr();
    let peers = (0u32..)
        .zip(others)
        .map(|(index, &(other, _))| (other, Peer(index)))
        .collect();
    let port: Box<dyn Port> = match key {
        Some(key) => Box::new(Sealed::new(
            port,
            &SealedOptions {
                key: key.clone(),
                cluster: cluster.key_number(),
                node,
                peer_nodes: others.iter().map(|&(other, _)| other).collect(),
            },
        )?),
        None => Box::new(port),
    };
    Ok(Opened {
        port,
        peers,
        local,
        is_sealed: key.is_some(),
    })
}
