//! The receiving half: one datagram or many per system call, handed on as frames.

use std::{io, net::UdpSocket};

use dataplane_waist::{Peer, PortCaps, PortStats, RxFrame};
use libc::c_int;

use super::{Batching, MULTI_FRAMES_MAX, TrainStats, peers::PeerTable, tx::is_loss};
use crate::sys::{
    inet::{self, RawAddr},
    mmsg::RxBatch,
};

/// A GRO train is received whole: the largest datagram there is.
const TRAIN_BYTES_MAX: usize = 1 << 16;
/// Trains per recvmmsg(2): who hears many senders gets one from each. Each has room for the longest, and memory that none
/// was long enough to reach is not touched.
const TRAINS_MAX: usize = MULTI_FRAMES_MAX;

/// What was fetched and not yet delivered.
#[derive(Debug)]
pub(super) enum Rx {
    /// One datagram at a time. The buffer is one byte longer than the largest frame: a datagram that fills it is too long.
    Single {
        buffer: Box<[u8]>,
        pending: Option<(usize, RawAddr)>,
        connected: bool,
    },
    /// Up to as many datagrams as `batch` has slots, each one frame or a train.
    Many {
        batch: RxBatch,
        fetched_count: usize,
        /// The next frame: in this datagram, at this byte.
        next: usize,
        at_bytes: usize,
    },
}

impl Rx {
    pub(super) fn new(batching: Batching, frame_bytes_max: usize, connected: bool) -> Rx {
        let batch = match batching {
            Batching::Single => {
                return Rx::Single {
                    buffer: vec![0; frame_bytes_max + 1].into_boxed_slice(),
                    pending: None,
                    connected,
                };
            }
            Batching::Multi => RxBatch::new(MULTI_FRAMES_MAX, frame_bytes_max, false),
            Batching::Gso => RxBatch::new(TRAINS_MAX, TRAIN_BYTES_MAX, true),
        };
        Rx::Many {
            batch,
            fetched_count: 0,
            next: 0,
            at_bytes: 0,
        }
    }

    #[inline]
    pub(super) fn holds_frames(&self) -> bool {
        match self {
            Rx::Single { pending, .. } => pending.is_some(),
            Rx::Many {
                fetched_count, next, ..
            } => next < fetched_count,
        }
    }

    /// Forgets what was fetched.
    pub(super) fn clear(&mut self) {
        match self {
            Rx::Single { pending, .. } => *pending = None,
            Rx::Many { fetched_count, .. } => *fetched_count = 0,
        }
    }

    /// One system call. Nothing there, a timeout, a signal and what ICMP said about frames sent earlier are no errors.
    #[inline]
    pub(super) fn fetch(&mut self, socket: &UdpSocket, flags: c_int, stats: &mut PortStats) -> io::Result<()> {
        stats.syscalls_count += 1;
        let result = match self {
            Rx::Single {
                buffer,
                pending,
                connected,
            } => {
                let received = if *connected {
                    // No address to copy out: connect(2) has said whose frames these are.
                    inet::recv(socket, buffer, flags).map(|len_bytes| (len_bytes, RawAddr::unspecified()))
                } else {
                    inet::recv_from(socket, buffer, flags)
                };
                received.map(|received| *pending = Some(received))
            }
            Rx::Many {
                batch,
                fetched_count,
                next,
                at_bytes,
            } => {
                (*fetched_count, *next, *at_bytes) = (0, 0, 0);
                batch
                    .recv(socket, flags | libc::MSG_WAITFORONE)
                    .map(|count| *fetched_count = count)
            }
        };
        match result {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock || e.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(e) if is_loss(&e) => {
                stats.tx_dropped_count += 1;
                Ok(())
            }
            result => result,
        }
    }

    /// Hands on what was fetched, up to the port's batch.
    #[inline]
    pub(super) fn deliver(
        &mut self,
        caps: &PortCaps,
        peers: &mut PeerTable,
        stats: &mut PortStats,
        trains: &mut TrainStats,
        sink: &mut dyn FnMut(RxFrame<'_>),
    ) -> usize {
        match self {
            Rx::Single { buffer, pending, .. } => {
                let Some((len_bytes, from)) = pending.take() else {
                    return 0;
                };
                let Some(from) = peers.find(&from) else {
                    stats.strangers_count += 1;
                    return 0;
                };
                if len_bytes > caps.frame_bytes_max {
                    stats.malformed_count += 1;
                    return 0;
                }
                sink(frame(from, &buffer[..len_bytes]));
                1
            }
            Rx::Many {
                batch,
                fetched_count,
                next,
                at_bytes,
            } => {
                let mut frames_count = 0;
                while *next < *fetched_count && frames_count < caps.batch_frames_max {
                    let datagram = batch.datagram(*next);
                    let whole = datagram.bytes.len();
                    let segment_bytes = datagram.segment_bytes.unwrap_or(whole).max(1);
                    let end = (*at_bytes + segment_bytes).min(whole);
                    let bytes = &datagram.bytes[*at_bytes..end];
                    *at_bytes = end;
                    if end == whole {
                        (*next, *at_bytes) = (*next + 1, 0);
                    }
                    let Some(from) = peers.find(datagram.from) else {
                        stats.strangers_count += 1;
                        continue;
                    };
                    if datagram.truncated || bytes.len() > caps.frame_bytes_max {
                        stats.malformed_count += 1;
                        continue;
                    }
                    if segment_bytes < whole {
                        trains.rx_train_frames_count += 1;
                    }
                    sink(frame(from, bytes));
                    frames_count += 1;
                }
                frames_count
            }
        }
    }
}

#[inline]
fn frame(from: Peer, bytes: &[u8]) -> RxFrame<'_> {
    RxFrame {
        from,
        bytes,
        stamp: None,
    }
}
