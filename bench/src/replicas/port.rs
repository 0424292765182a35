//! A port into a measured cluster: of any back end, on a network that may lose frames, authenticated or not.

use dataplane_waist::{
    MonotonicClock, Peer, Port,
    middleware::{CLIENT_NODE, ClusterKey, FaultOptions, FaultRates, Faults, Sealed, SealedOptions},
};
use ebpf_host::Attachment;
use serde::{Deserialize, Serialize};

use super::{CLUSTER, broadcast::Broadcast};
use crate::{
    backends::{BackEnd, Room, Wiring},
    place::{End, Endpoint},
};

/// Our frames over an Ethernet of 1500 bytes.
const FRAME_BYTES_MAX: usize = 1472;
/// What waits while a replica has no CPU or waits for its disk.
const ROOM: Room = Room { frames_count: 2048 };
/// Everybody's key in a measurement: what it costs to check does not depend on what it is.
const SECRET: &[u8; 32] = b"a key for measuring, and no more";

/// What lies between the ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// Every frame carries a code that proves who sent it.
    pub is_sealed: bool,
    /// How many of all frames are lost, whoever sends them; 0 to 1.
    pub loss_ratio: f64,
    /// What decides which.
    pub seed: u64,
    /// They are lost at the switch, and not at whoever sends them: a program in the driver sends, too.
    pub loses_at_switch: bool,
    /// Frames cross veth pairs.
    pub over_veth: bool,
}

/// An opened port, and who its peers are.
pub(super) struct Opened {
    pub(super) port: Box<dyn Port>,
    /// Replicas by node, as the port knows them.
    pub(super) peers: Vec<(u32, Peer)>,
    /// The program that feeds the port, if there is one; goes after it.
    pub(super) keeps: Option<Attachment>,
}

/// Opens node `node`'s port, or with `None` the client's. A client that is named is the peer behind the replicas, and a group, to
/// which entries are then sent instead of to each of them, the one behind it; others are learned.
pub(super) fn open(
    backend: &BackEnd,
    network: &Network,
    node: Option<u32>,
    local: &Endpoint,
    (replicas, client, group): (&[Endpoint], Option<&Endpoint>, Option<&Endpoint>),
) -> anyhow::Result<Opened> {
    let others: Vec<(u32, &Endpoint)> = (0..).zip(replicas).filter(|&(other, _)| Some(other) != node).collect();
    let opened = backend.open(&Wiring {
        end: match node {
            None => End::Client,
            Some(_) => End::Server,
        },
        local: local.clone(),
        remote: None,
        members: others
            .iter()
            .map(|&(_, endpoint)| endpoint)
            .chain(client)
            .chain(group)
            .cloned()
            .collect(),
        over_veth: network.over_veth,
        frame_bytes_max: FRAME_BYTES_MAX,
        room: ROOM,
        untimed: false,
        region: None,
    })?;
    let mut port = opened.port;
    if group.is_some() {
        let members_count = others.len() as u32 + u32::from(client.is_some());
        port = Box::new(Broadcast::new(port, Peer(members_count)));
    }
    if network.loss_ratio > 0.0 && !network.loses_at_switch {
        // Every frame is sent once, so that it is lost there, once, stands for both directions of every link.
        let options = FaultOptions {
            seed: network.seed ^ u64::from(node.map_or(0, |node| node + 1)),
            tx: FaultRates {
                loss_ratio: network.loss_ratio,
                ..FaultRates::default()
            },
            ..FaultOptions::default()
        };
        port = Box::new(Faults::new(port, MonotonicClock::new(), options)?);
    }
    if network.is_sealed {
        let options = SealedOptions {
            key: ClusterKey::new(SECRET)?,
            cluster: CLUSTER,
            node: node.unwrap_or(CLIENT_NODE),
            peer_nodes: others.iter().map(|&(other, _)| other).collect(),
        };
        port = Box::new(Sealed::new(port, &options)?);
    }
    Ok(Opened {
        port,
        peers: (0..)
            .map(Peer)
            .zip(&others)
            .map(|(peer, &(other, _))| (other, peer))
            .collect(),
        keeps: opened.keeps,
    })
}
