//! A port's bounded table of addresses: who is [`Peer`]`(i)`, and who may still become one.

use std::net::{IpAddr, SocketAddr};

use dataplane_waist::Peer;

use crate::sys::inet::{AddrKey, RawAddr};

/// Known addresses, in the order of their numbers.
pub(super) struct PeerTable {
    keys: Vec<AddrKey>,
    addresses: Vec<RawAddr>,
    /// Room for learned peers included.
    count_max: usize,
    /// Where the last frame came from: most often the next one does too.
    last_found: usize,
    /// The kernel accepts frames of the only peer alone, and needs no address to send.
    connected: bool,
}

impl PeerTable {
    pub(super) fn new(local: SocketAddr, peers: &[SocketAddr], learn_peers_max: usize, connected: bool) -> PeerTable {
        let count_max = peers.len() + learn_peers_max;
        let mut table = PeerTable {
            keys: Vec::with_capacity(count_max),
            addresses: Vec::with_capacity(count_max),
            count_max,
            last_found: 0,
            connected,
        };
        for peer in peers {
            table.keys.push(AddrKey::new(*peer));
            table.addresses.push(RawAddr::new(as_family_of(local, *peer)));
        }
        table
    }

    #[inline]
    pub(super) fn contains(&self, peer: Peer) -> bool {
        (peer.0 as usize) < self.keys.len()
    }

    /// Where to send for a peer that the table contains; `None` if the socket is connected.
    ///
    /// # Panics
    /// If the table does not contain it.
    #[inline]
    pub(super) fn destination(&self, peer: Peer) -> Option<&RawAddr> {
        if self.connected {
            None
        } else {
            Some(&self.addresses[peer.0 as usize])
        }
    }

    pub(super) fn address(&self, peer: Peer) -> Option<SocketAddr> {
        self.keys.get(peer.0 as usize).map(AddrKey::address)
    }

    /// Whose address this is. Learns it if there is room.
    #[inline]
    pub(super) fn find(&mut self, from: &RawAddr) -> Option<Peer> {
        if self.connected {
            return Some(Peer(0));
        }
        let key = from.key()?;
        if self.keys.get(self.last_found) == Some(&key) {
            return Some(Peer(self.last_found as u32));
        }
        let found = match self.keys.iter().position(|known| *known == key) {
            Some(found) => found,
            None if self.keys.len() < self.count_max => {
                self.keys.push(key);
                self.addresses.push(*from);
                self.keys.len() - 1
            }
            None => return None,
        };
        self.last_found = found;
        Some(Peer(found as u32))
    }
}

/// An IPv4 peer of an IPv6 socket is written to at its mapped address.
pub(super) fn as_family_of(local: SocketAddr, peer: SocketAddr) -> SocketAddr {
    match (local, peer.ip()) {
        (SocketAddr::V6(_), IpAddr::V4(v4)) => SocketAddr::from((v4.to_ipv6_mapped(), peer.port())),
        _ => peer,
    }
}

impl std::fmt::Debug for PeerTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.keys.iter().map(AddrKey::address)).finish()
    }
}
