//! Frames with a code behind them, so that nobody without the cluster's key can speak to it.
//!
//! ```text
//!  +---------------------+----------+
//!  | frame of the caller | 16 bytes |     the code: HMAC-SHA-256 (RFC 2104) of the frame, its first half
//!  +---------------------+----------+
//! ```
//!
//! The key of the code is one of this cluster, this sender and this receiver ([`keys`]), so nothing about them needs to be
//! sent: a frame that is sent back to whom it came from, passed on to another replica, or played to another cluster does
//! not verify.

mod keys;

#[cfg(test)]
mod tests;

use std::{io, net::SocketAddr, os::fd::BorrowedFd, time::Duration};

use hmac::Mac;

use self::keys::HmacSha256;
pub use self::keys::{ClusterKey, ClusterKeyError, KEY_BYTES_MIN};
use crate::{Misplaced, Peer, Port, PortCaps, PortStats, RxFrame, TxError};

/// What a frame grows by. RFC 2104, section 5: not below half of the hash's output, and not below 80 bits.
pub const TAG_BYTES: usize = 16;

/// The node number of every client.
pub const CLIENT_NODE: u32 = u32::MAX;

/// A port that authenticates what passes.
///
/// What it promises: a frame that is handed up was sent, as it is, by somebody who has the key, as this node's peer, to
/// this node, in this cluster. What it does not promise:
///
/// - **That the frame is new.** A recorded frame can be played again to whom it was meant for, as any network may deliver
///   a frame twice, late or out of order. The protocols above are made for that; one that is not must number its frames.
/// - **Secrecy.** Frames can be read on the way.
/// - **Which client it was.** All clients are [`CLIENT_NODE`] and have the cluster's key: they are trusted alike.
/// - **A bound on strangers below.** A port that learns peers learns them before this one sees their frames.
#[derive(Debug)]
pub struct Sealed<P> {
    port: P,
    /// By the index of [`Peer`].
    peers: Vec<Pair>,
    /// For every peer behind those: a client's. A client itself has no such peers.
    clients: Option<Pair>,
    counts: SealedCounts,
    /// The last of [`SealedCounts::misplaced_count`].
    misplaced: Option<Misplaced>,
    /// How many forged frames from addresses that are no peer's are not looked at more closely before the next one is.
    closer_in: u64,
}

/// Who this end is, and who its peers are.
#[derive(Clone, Debug)]
pub struct SealedOptions {
    /// What all nodes and clients of the cluster share.
    pub key: ClusterKey,
    /// The cluster's number. Two clusters with one key do not hear each other.
    pub cluster: u64,
    /// This node's number; [`CLIENT_NODE`] at a client.
    pub node: u32,
    /// The node numbers of the port's peers, in their order. At a replica every peer behind them is a client; at a client
    /// there is no other.
    pub peer_nodes: Vec<u32>,
}

/// Why a port cannot be sealed so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealedOptionsError {
    /// A peer has this node's own number: their frames could be reflected.
    #[error("peer {peer_index} has the number of this node, {node}; give every replica a number of its own")]
    OwnNode {
        /// Which peer.
        peer_index: usize,
        /// The number.
        node: u32,
    },
    /// The port below cannot carry a code and anything before it.
    #[error(
        "the port carries frames of {frame_bytes_max} bytes, and the code alone has {TAG_BYTES}; choose larger frames"
    )]
    FrameBytes {
        /// The largest frame below.
        frame_bytes_max: usize,
    },
}

/// Of the forged frames from addresses that are no peer's, each how-many-eth is compared with what the peers would have sent, from
/// the first on. A replica that was started twice sends some ten frames a second to each of the others, so it shows at once; a
/// flood costs a sixteenth more for each peer, and not a multiple.
const LOOK_CLOSER_EVERY: u64 = 16;

/// Frames that came and were not handed up. [`PortStats::malformed_count`] has the first two, too, and
/// [`PortStats::strangers_count`] the third.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SealedCounts {
    /// Too short to have a code.
    pub short_count: u64,
    /// Whose code is not the one that the peer would have made for this node.
    pub forged_count: u64,
    /// Of each sixteenth forged frame that did not come from a peer's address, those that a peer has made for this node: that
    /// peer's number is in use at two addresses ([`Port::misplaced`] names the last). They are not in `forged_count`.
    pub misplaced_count: u64,
}

/// The keys between this node and one peer, set up: a frame's code begins with a copy.
#[derive(Clone, Debug)]
struct Pair {
    peer_node: u32,
    tx: HmacSha256,
    rx: HmacSha256,
}

impl Pair {
    fn new(options: &SealedOptions, peer_node: u32) -> Pair {
        let SealedOptions { key, cluster, node, .. } = options;
        Pair {
            peer_node,
            tx: key.code(
                *cluster,
                keys::Way {
                    from: *node,
                    to: peer_node,
                },
            ),
            rx: key.code(
                *cluster,
                keys::Way {
                    from: peer_node,
                    to: *node,
                },
            ),
        }
    }

    fn seal(&self, frame_and_tag: &mut [u8]) {
        let (frame, tag) = frame_and_tag.split_at_mut(frame_and_tag.len() - TAG_BYTES);
        let code = self.tx.clone().chain_update(frame).finalize().into_bytes();
        tag.copy_from_slice(&code[..TAG_BYTES]);
    }

    /// Compares in constant time: how much of a guess was right must not be measurable.
    fn is_genuine(&self, frame: &[u8], tag: &[u8; TAG_BYTES]) -> bool {
        let code = self.rx.clone().chain_update(frame);
        code.verify_truncated_left(tag).is_ok()
    }
}

impl<P: Port> Sealed<P> {
    /// Seals what leaves through `port`, and checks what comes.
    ///
    /// # Errors
    /// [`SealedOptionsError`].
    pub fn new(port: P, options: &SealedOptions) -> Result<Sealed<P>, SealedOptionsError> {
        let frame_bytes_max = port.caps().frame_bytes_max;
        if frame_bytes_max <= TAG_BYTES {
            return Err(SealedOptionsError::FrameBytes { frame_bytes_max });
        }
        let node = options.node;
        if let Some(peer_index) = options.peer_nodes.iter().position(|&peer_node| peer_node == node) {
            return Err(SealedOptionsError::OwnNode { peer_index, node });
        }
        let pair = |peer_node| Pair::new(options, peer_node);
        Ok(Sealed {
            port,
            peers: options.peer_nodes.iter().copied().map(pair).collect(),
            clients: (node != CLIENT_NODE).then(|| pair(CLIENT_NODE)),
            counts: SealedCounts::default(),
            misplaced: None,
            closer_in: 0,
        })
    }

    /// What was refused so far.
    pub fn counts(&self) -> SealedCounts {
        self.counts
    }

    /// The port below.
    pub fn port_mut(&mut self) -> &mut P {
        &mut self.port
    }
}

/// The keys of a peer, if it can be one.
fn pair_of<'a>(peers: &'a [Pair], clients: &'a Option<Pair>, peer: Peer) -> Option<&'a Pair> {
    peers.get(peer.0 as usize).or(clients.as_ref())
}

/// Which peer has made a frame that is not what its address should send, if it is one's that was sent from elsewhere; seldom
/// looked at.
fn misplaced_node(peers: &[Pair], closer_in: &mut u64, from: Peer, bytes: &[u8], tag: &[u8; TAG_BYTES]) -> Option<u32> {
    if (from.0 as usize) < peers.len() {
        return None;
    }
    let Some(later) = closer_in.checked_sub(1) else {
        *closer_in = LOOK_CLOSER_EVERY - 1;
        let maker = peers.iter().find(|pair| pair.is_genuine(bytes, tag));
        return maker.map(|pair| pair.peer_node);
    };
    *closer_in = later;
    None
}

impl<P: Port> Port for Sealed<P> {
    fn caps(&self) -> PortCaps {
        let caps = self.port.caps();
        PortCaps {
            frame_bytes_max: caps.frame_bytes_max - TAG_BYTES,
            ..caps
        }
    }

    fn wait(&mut self, max: Duration) -> io::Result<()> {
        self.port.wait(max)
    }

    fn wait_or(&mut self, max: Duration, bell: BorrowedFd<'_>) -> io::Result<()> {
        self.port.wait_or(max, bell)
    }

    fn rx_burst(&mut self, sink: &mut dyn FnMut(RxFrame<'_>)) -> io::Result<usize> {
        let Sealed {
            port,
            peers,
            clients,
            counts,
            misplaced,
            closer_in,
        } = self;
        let mut last_misplaced = None;
        let mut handed_count = 0;
        port.rx_burst(&mut |frame| {
            let Some((bytes, tag)) = frame.bytes.split_last_chunk::<TAG_BYTES>() else {
                counts.short_count += 1;
                return;
            };
            if !pair_of(peers, clients, frame.from).is_some_and(|pair| pair.is_genuine(bytes, tag)) {
                match misplaced_node(peers, closer_in, frame.from, bytes, tag) {
                    Some(node) => {
                        counts.misplaced_count += 1;
                        last_misplaced = Some((node, frame.from));
                    }
                    None => counts.forged_count += 1,
                }
                return;
            }
            handed_count += 1;
            sink(RxFrame { bytes, ..frame });
        })?;
        if let Some((node, from)) = last_misplaced {
            // At once: a flood can give the number to another address.
            let address = port.peer_addr(from);
            *misplaced = Some(Misplaced { node, address });
        }
        Ok(handed_count)
    }

    fn tx(&mut self, to: Peer, len_bytes: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<(), TxError> {
        let pair = pair_of(&self.peers, &self.clients, to).ok_or(TxError::NoPeer)?;
        let sealed_bytes = len_bytes.checked_add(TAG_BYTES).ok_or(TxError::TooLong)?;
        self.port.tx(to, sealed_bytes, &mut |bytes| {
            fill(&mut bytes[..len_bytes]);
            pair.seal(bytes);
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.port.flush()
    }

    fn stats(&self) -> PortStats {
        let stats = self.port.stats();
        let SealedCounts {
            short_count,
            forged_count,
            misplaced_count,
        } = self.counts;
        let refused_count = short_count + forged_count;
        PortStats {
            rx_frames_count: stats.rx_frames_count.saturating_sub(refused_count + misplaced_count),
            malformed_count: stats.malformed_count + refused_count,
            strangers_count: stats.strangers_count + misplaced_count,
            ..stats
        }
    }

    fn peer_addr(&self, peer: Peer) -> Option<SocketAddr> {
        self.port.peer_addr(peer)
    }

    fn misplaced(&self) -> Option<Misplaced> {
        self.misplaced
    }
}
