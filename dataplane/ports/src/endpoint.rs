//! Between Ethernet frames and datagrams, for the ports that speak raw Ethernet: who we are, whom we know, and what a
//! received frame is.

use std::{
    net::{IpAddr, SocketAddr},
    ops::Range,
};

use dataplane_waist::Peer;
use dataplane_wire::{
    datagram::{self, Header},
    ethernet::Mac,
    internet::Addresses,
    udp::Verify,
};

use crate::peer_table::PeerTable;

/// Somebody on the same link, or behind a router on it (then the MAC is the router's).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketPeer {
    /// Its UDP address.
    pub addr: SocketAddr,
    /// The next station on the way there. All zeros on `lo`.
    pub mac: Mac,
}

/// A received frame, lent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PacketView<'a> {
    /// From the Ethernet header on.
    pub(crate) bytes: &'a [u8],
    /// The frame was longer than its place in the ring.
    pub(crate) is_cut: bool,
    /// The kernel took a VLAN tag off.
    pub(crate) is_tagged: bool,
    /// The checksums are known to be right, or are not made yet because the frame never left this host.
    pub(crate) skip_checksum: bool,
}

/// What [`Endpoint::new`] needs to know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EndpointConfig<'a> {
    pub(crate) local: SocketAddr,
    pub(crate) local_mac: Mac,
    /// All of `local`'s family.
    pub(crate) peers: &'a [PacketPeer],
    pub(crate) learn_peers_max: usize,
    pub(crate) frame_bytes_max: usize,
}

/// Who we are and whom we know: what turns frames into datagrams and back.
#[derive(Debug)]
pub(crate) struct Endpoint {
    local: SocketAddr,
    local_mac: Mac,
    frame_bytes_max: usize,
    peers: PeerTable<SocketAddr>,
    /// By [`Peer`] number. Has the capacity that `peers` has.
    macs: Vec<Mac>,
}

/// What a received frame is.
pub(crate) enum Heard {
    /// A datagram of a peer: its payload, as a range of the frame.
    Frame(Peer, Range<usize>),
    Stranger,
    Malformed,
}

impl Endpoint {
    /// Ours, with the peers of the options.
    pub(crate) fn new(config: &EndpointConfig<'_>) -> Endpoint {
        let addresses: Vec<SocketAddr> = config.peers.iter().map(|peer| normal(peer.addr)).collect();
        let peers = PeerTable::new(&addresses, config.learn_peers_max);
        let mut macs = Vec::with_capacity(peers.rows_max());
        macs.extend(config.peers.iter().map(|peer| peer.mac));
        Endpoint {
            local: normal(config.local),
            local_mac: config.local_mac,
            frame_bytes_max: config.frame_bytes_max,
            peers,
            macs,
        }
    }

    /// Our address.
    pub(crate) fn local(&self) -> SocketAddr {
        self.local
    }

    /// What a received frame is; learns its sender if there is room.
    pub(crate) fn hear(&mut self, view: PacketView<'_>) -> Heard {
        if view.is_cut || view.is_tagged {
            return Heard::Malformed;
        }
        let verify = match view.skip_checksum {
            true => Verify::Nothing,
            false => Verify::Checksum,
        };
        let Ok(parsed) = datagram::parse(view.bytes, verify) else {
            return Heard::Malformed;
        };
        let header = parsed.header;
        let to = SocketAddr::new(destination(&header.addresses), header.dst_port);
        if to != self.local || header.dst_mac != self.local_mac {
            return Heard::Stranger;
        }
        // Our answers would go out untagged, into another network.
        if header.vlan.is_some() || parsed.payload.len() > self.frame_bytes_max {
            return Heard::Malformed;
        }
        let from = SocketAddr::new(header.addresses.src(), header.src_port);
        let Some((peer, is_new)) = self.peers.find_or_learn(from) else {
            return Heard::Stranger;
        };
        if is_new {
            self.macs.push(header.src_mac);
        }
        Heard::Frame(peer, parsed.payload)
    }

    /// The headers of a frame to `peer`; `None` if it is not known.
    pub(crate) fn header_to(&self, peer: Peer) -> Option<Header> {
        let to = *self.peers.get(peer)?;
        let addresses = match (self.local.ip(), to.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => Addresses::V4 { src, dst },
            (IpAddr::V6(src), IpAddr::V6(dst)) => Addresses::V6 { src, dst },
            (src, dst) => unreachable!("{src} and {dst}: checked at open; learned peers have our family"),
        };
        Some(Header {
            dst_mac: self.macs[peer.0 as usize],
            src_mac: self.local_mac,
            vlan: None,
            addresses,
            src_port: self.local.port(),
            dst_port: to.port(),
        })
    }
}

/// Without scope and flow label, which a frame does not have.
fn normal(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port())
}

fn destination(addresses: &Addresses) -> IpAddr {
    match *addresses {
        Addresses::V4 { dst, .. } => dst.into(),
        Addresses::V6 { dst, .. } => dst.into(),
    }
}

#[cfg(test)]
mod tests {
    use dataplane_wire::{ethernet::Vlan, udp::Checksum};
    use proptest::prelude::*;

    use super::*;

    const LOCAL_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const PEER_MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);

    fn endpoint() -> Endpoint {
        Endpoint {
            local: ([10, 0, 0, 1], 7).into(),
            local_mac: LOCAL_MAC,
            frame_bytes_max: 20,
            peers: PeerTable::new(&[([10, 0, 0, 2], 8).into()], 0),
            macs: vec![PEER_MAC],
        }
    }

    /// What the peer would send us.
    fn frame(payload_bytes: usize) -> (Header, Vec<u8>) {
        let header = endpoint().header_to(Peer(0)).expect("it is known").reversed();
        let mut frame = vec![0x5a; header.len_bytes() + payload_bytes];
        datagram::emit(&header, Checksum::Full, &mut frame);
        (header, frame)
    }

    fn view(bytes: &[u8]) -> PacketView<'_> {
        PacketView {
            bytes,
            is_cut: false,
            is_tagged: false,
            skip_checksum: false,
        }
    }

    #[test]
    fn hears_its_peer_and_counts_the_rest() {
        let mut endpoint = endpoint();
        let (header, whole) = frame(20);
        let heard = endpoint.hear(view(&whole));
        assert!(matches!(heard, Heard::Frame(Peer(0), range) if range == (42..62)));

        for odd in [
            PacketView {
                is_cut: true,
                ..view(&whole)
            },
            PacketView {
                is_tagged: true,
                ..view(&whole)
            },
            view(&whole[..50]),
            view(&frame(21).1),
        ] {
            assert!(matches!(endpoint.hear(odd), Heard::Malformed), "{odd:?}");
        }

        let tagged_header = Header {
            vlan: Some(Vlan(7)),
            ..header
        };
        let mut tagged = vec![0x5a; tagged_header.len_bytes() + 20];
        datagram::emit(&tagged_header, Checksum::Full, &mut tagged);
        assert!(matches!(endpoint.hear(view(&tagged)), Heard::Malformed));

        let mut bad_sum = whole.clone();
        bad_sum[61] ^= 1;
        assert!(matches!(endpoint.hear(view(&bad_sum)), Heard::Malformed));
        // Sent on this host and never on a wire: the sum is not made, and the kernel says so.
        let unmade = PacketView {
            skip_checksum: true,
            ..view(&bad_sum)
        };
        assert!(matches!(endpoint.hear(unmade), Heard::Frame(..)));

        let mistaken = [
            Header {
                dst_mac: PEER_MAC,
                ..header
            },
            Header { dst_port: 9, ..header },
            Header { src_port: 9, ..header },
            Header {
                addresses: header.addresses.reversed(),
                ..header
            },
        ];
        for header in mistaken {
            let mut frame = whole.clone();
            datagram::emit(&header, Checksum::Full, &mut frame);
            assert!(matches!(endpoint.hear(view(&frame)), Heard::Stranger), "{header:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200), skip_checksum: bool) {
            let heard = endpoint().hear(PacketView { skip_checksum, ..view(&bytes) });
            prop_assert!(!matches!(heard, Heard::Frame(..)), "random bytes are nobody's");
        }
    }
}
