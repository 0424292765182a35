//! A port's bounded table of addresses: who is [`Peer`]`(i)`, and who may still become one.

use std::net::{IpAddr, SocketAddr};

use dataplane_waist::Peer;

use super::UdpOptions;
use crate::sys::inet::{AddrKey, RawAddr};

/// Known addresses, in the order of their numbers.
pub(super) struct PeerTable {
    keys: Vec<AddrKey>,
    addresses: Vec<RawAddr>,
    /// When each was last heard, in changes of who speaks. Empty where nobody is ever forgotten.
    heard: Vec<u64>,
    changes_count: u64,
    /// The first of them were given, and stay.
    given_count: usize,
    /// Room for learned peers included.
    count_max: usize,
    /// Where the last frame came from: most often the next one does too.
    last_found: usize,
    /// The kernel accepts frames of the only peer alone, and needs no address to send.
    connected: bool,
}

impl PeerTable {
    pub(super) fn new(options: &UdpOptions) -> PeerTable {
        let given_count = options.peers.len();
        let count_max = given_count + options.learn_peers_max;
        let mut table = PeerTable {
            keys: Vec::with_capacity(count_max),
            addresses: Vec::with_capacity(count_max),
            heard: vec![0; if options.forget_peers { count_max } else { 0 }],
            changes_count: 0,
            given_count,
            count_max,
            last_found: 0,
            connected: options.connect,
        };
        for peer in &options.peers {
            table.keys.push(AddrKey::new(*peer));
            table.addresses.push(RawAddr::new(as_family_of(options.local, *peer)));
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
            None => self.learn(key, from)?,
        };
        self.changes_count += 1;
        if let Some(heard) = self.heard.get_mut(found) {
            *heard = self.changes_count;
        }
        self.last_found = found;
        Some(Peer(found as u32))
    }

    /// A place for who was not known, if there is one.
    #[cold]
    fn learn(&mut self, key: AddrKey, from: &RawAddr) -> Option<usize> {
        if self.keys.len() < self.count_max {
            self.keys.push(key);
            self.addresses.push(*from);
            return Some(self.keys.len() - 1);
        }
        let learned = self.given_count..self.heard.len();
        let silent_longest = learned.min_by_key(|&index| self.heard[index])?;
        self.keys[silent_longest] = key;
        self.addresses[silent_longest] = *from;
        Some(silent_longest)
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
