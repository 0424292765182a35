//! Which of the port's peers is which node.

use dataplane_waist::Peer;

use crate::config::NODES_MAX;

/// A two-way table, made once.
#[derive(Clone, Debug)]
pub(crate) struct Nodes {
    peers: [Option<Peer>; NODES_MAX],
    /// By peer number, as far as the replicas' numbers go.
    nodes: Vec<Option<u32>>,
}

impl Nodes {
    pub(crate) fn new(pairs: &[(u32, Peer)]) -> Nodes {
        let mut peers = [None; NODES_MAX];
        let peers_count = pairs.iter().map(|&(_, peer)| peer.0 as usize + 1).max().unwrap_or(0);
        let mut nodes = vec![None; peers_count];
        for &(node, peer) in pairs {
            peers[node as usize] = Some(peer);
            nodes[peer.0 as usize] = Some(node);
        }
        Nodes { peers, nodes }
    }

    pub(crate) fn peer(&self, node: u32) -> Option<Peer> {
        self.peers.get(node as usize).copied().flatten()
    }

    pub(crate) fn node(&self, peer: Peer) -> Option<u32> {
        self.nodes.get(peer.0 as usize).copied().flatten()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, Peer)> + '_ {
        let numbered = (0u32..).zip(self.peers.iter());
        numbered.filter_map(|(node, peer)| peer.map(|peer| (node, peer)))
    }
}
