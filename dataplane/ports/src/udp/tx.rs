//! The sending half. No call waits: a frame that the kernel has no room for is lost and counted.

use std::{io, net::UdpSocket};

use dataplane_waist::{Peer, PortStats};

use super::{Batching, GSO_FRAMES_MAX, MULTI_FRAMES_MAX, TrainStats, peers::PeerTable};
use crate::sys::{
    inet::{self, RawAddr},
    mmsg::{TxBatch, TxTrains},
};

/// A train is one datagram to the IP layer before it is cut, so its length must fit that header (65 535 bytes with
/// headers, IPv6 extension headers included).
const TRAIN_BYTES_MAX: usize = 65_000;
/// Trains per sendmmsg(2).
const TRAINS_MAX: usize = MULTI_FRAMES_MAX;

/// Frames that wait for [`Tx::flush`].
#[derive(Debug)]
pub(super) enum Tx {
    /// None ever waits.
    Single {
        buffer: Box<[u8]>,
    },
    Multi(TxBatch),
    Gso(Trains),
}

/// Trains in the order in which they were begun.
#[derive(Debug)]
pub(super) struct Trains {
    batch: TxTrains,
    trains: Vec<Train>,
    /// Frames this long or longer were refused as trains, and each goes by itself.
    refused_bytes_min: usize,
}

/// Frames to one peer: equally long, but for the last, which may be shorter (UDP_SEGMENT cuts from the front).
#[derive(Clone, Copy, Debug)]
struct Train {
    to: Peer,
    /// The first frame's length.
    frame_bytes: usize,
    frames_count: usize,
    bytes: usize,
}

impl Train {
    fn takes(&self, to: Peer, len_bytes: usize, refused_bytes_min: usize) -> bool {
        self.to == to
            && self.frames_count < GSO_FRAMES_MAX
            // The kernel cannot cut a datagram into empty ones, and what is behind a shorter frame would be cut wrong.
            && (1..=self.frame_bytes).contains(&len_bytes)
            && self.bytes == self.frames_count * self.frame_bytes
            && self.bytes + len_bytes <= TRAIN_BYTES_MAX
            && self.frame_bytes < refused_bytes_min
    }
}

/// What sending needs of the port.
pub(super) struct Way<'a> {
    pub(super) socket: &'a UdpSocket,
    pub(super) peers: &'a PeerTable,
    pub(super) stats: &'a mut PortStats,
    pub(super) trains: &'a mut TrainStats,
}

impl Tx {
    pub(super) fn new(batching: Batching, frame_bytes_max: usize) -> Tx {
        match batching {
            Batching::Single => Tx::Single {
                buffer: vec![0; frame_bytes_max].into_boxed_slice(),
            },
            Batching::Multi => Tx::Multi(TxBatch::new(MULTI_FRAMES_MAX, frame_bytes_max)),
            Batching::Gso => Tx::Gso(Trains {
                batch: TxTrains::new(TRAINS_MAX, TRAIN_BYTES_MAX.max(frame_bytes_max)),
                trains: Vec::with_capacity(TRAINS_MAX),
                refused_bytes_min: usize::MAX,
            }),
        }
    }

    /// Takes a frame to a known peer, of a length within the port's. Sends earlier ones if they are in its way.
    #[inline]
    pub(super) fn queue(
        &mut self,
        way: &mut Way<'_>,
        to: Peer,
        len_bytes: usize,
        fill: &mut dyn FnMut(&mut [u8]),
    ) -> io::Result<()> {
        match self {
            Tx::Single { buffer } => {
                let frame = &mut buffer[..len_bytes];
                fill(frame);
                way.send_one(way.peers.destination(to), frame)
            }
            Tx::Multi(batch) => {
                if batch.is_full() {
                    way.send_batch(batch)?;
                }
                batch.queue(way.peers.destination(to), len_bytes, fill);
                Ok(())
            }
            Tx::Gso(trains) => {
                let refused_bytes_min = trains.refused_bytes_min;
                let last = trains.trains.last();
                if !last.is_some_and(|last| last.takes(to, len_bytes, refused_bytes_min)) {
                    if trains.trains.len() == TRAINS_MAX {
                        way.send_trains(trains)?;
                    }
                    trains.trains.push(Train {
                        to,
                        frame_bytes: len_bytes,
                        frames_count: 0,
                        bytes: 0,
                    });
                }
                let index = trains.trains.len() - 1;
                let train = &mut trains.trains[index];
                trains.batch.push(index, train.bytes, len_bytes, fill);
                train.bytes += len_bytes;
                train.frames_count += 1;
                Ok(())
            }
        }
    }

    #[inline]
    pub(super) fn flush(&mut self, way: &mut Way<'_>) -> io::Result<()> {
        match self {
            Tx::Single { .. } => Ok(()),
            Tx::Multi(batch) => way.send_batch(batch),
            Tx::Gso(trains) => way.send_trains(trains),
        }
    }
}

impl Way<'_> {
    #[inline]
    fn send_one(&mut self, to: Option<&RawAddr>, frame: &[u8]) -> io::Result<()> {
        let mut retried = false;
        loop {
            self.stats.syscalls_count += 1;
            let result = match to {
                Some(to) => inet::send_to(self.socket, frame, libc::MSG_DONTWAIT, to),
                None => inet::send(self.socket, frame, libc::MSG_DONTWAIT),
            };
            match result {
                Ok(()) => {
                    self.stats.tx_frames_count += 1;
                    return Ok(());
                }
                Err(error) => match self.after(error, &mut retried)? {
                    Next::Retry => {}
                    Next::Lost => return Ok(()),
                },
            }
        }
    }

    fn send_batch(&mut self, batch: &mut TxBatch) -> io::Result<()> {
        let mut from = 0;
        let mut retried = false;
        while from < batch.queued_count() {
            self.stats.syscalls_count += 1;
            match batch.send(self.socket, from, libc::MSG_DONTWAIT) {
                Ok(sent_count) => {
                    self.stats.tx_frames_count += sent_count as u64;
                    from += sent_count;
                    retried = false;
                }
                Err(error) => match self.after(error, &mut retried) {
                    Ok(Next::Retry) => {}
                    Ok(Next::Lost) => {
                        from += 1;
                        retried = false;
                    }
                    Err(error) => {
                        batch.clear();
                        return Err(error);
                    }
                },
            }
        }
        batch.clear();
        Ok(())
    }

    fn send_trains(&mut self, trains: &mut Trains) -> io::Result<()> {
        for (index, train) in trains.trains.iter().enumerate() {
            let to = self.peers.destination(train.to);
            let segment_bytes = (train.frames_count > 1).then_some(train.frame_bytes as u16);
            trains.batch.address(index, to, train.bytes, segment_bytes);
        }
        let result = self.send_addressed(trains);
        trains.trains.clear();
        result
    }

    fn send_addressed(&mut self, trains: &mut Trains) -> io::Result<()> {
        let mut from = 0;
        let mut retried = false;
        while let Some(train) = trains.trains.get(from).copied() {
            self.stats.syscalls_count += 1;
            let frames_count = train.frames_count as u64;
            match trains
                .batch
                .send(self.socket, from, trains.trains.len(), libc::MSG_DONTWAIT)
            {
                Ok(sent_count) => {
                    for train in &trains.trains[from..from + sent_count] {
                        let frames_count = train.frames_count as u64;
                        self.stats.tx_frames_count += frames_count;
                        self.trains.tx_train_frames_count += if frames_count > 1 { frames_count } else { 0 };
                    }
                    from += sent_count;
                    retried = false;
                }
                // EINVAL: a segment is above the path's MTU; EIO: the device computes no checksums (udp_send_skb of
                // net/ipv4/udp.c); EMSGSIZE: as EINVAL since Linux 6.16. One by one, IP may fragment them.
                Err(e)
                    if frames_count > 1
                        && matches!(e.raw_os_error(), Some(libc::EINVAL | libc::EIO | libc::EMSGSIZE)) =>
                {
                    self.trains.tx_refused_count += 1;
                    trains.refused_bytes_min = trains.refused_bytes_min.min(train.frame_bytes);
                    let to = self.peers.destination(train.to);
                    for frame in trains.batch.bytes(from, train.bytes).chunks(train.frame_bytes) {
                        self.send_one(to, frame)?;
                    }
                    from += 1;
                    retried = false;
                }
                Err(error) => match self.after(error, &mut retried)? {
                    Next::Retry => {}
                    Next::Lost => {
                        // `after` has counted one frame of the train.
                        self.stats.tx_dropped_count += frames_count - 1;
                        from += 1;
                        retried = false;
                    }
                },
            }
        }
        Ok(())
    }

    /// What to do after a failed call: lost frames are counted here.
    #[inline(never)]
    fn after(&mut self, error: io::Error, retried: &mut bool) -> io::Result<Next> {
        if error.kind() == io::ErrorKind::ConnectionRefused && !*retried {
            // The answer of the network to an *earlier* frame; this one was not sent (sock_alloc_send_pskb reports a
            // pending socket error first), and the error is now cleared.
            self.stats.tx_dropped_count += 1;
            *retried = true;
            return Ok(Next::Retry);
        }
        if error.kind() == io::ErrorKind::Interrupted && !*retried {
            *retried = true;
            return Ok(Next::Retry);
        }
        if is_loss(&error) || error.kind() == io::ErrorKind::Interrupted {
            self.stats.tx_dropped_count += 1;
            return Ok(Next::Lost);
        }
        Err(error)
    }
}

enum Next {
    Retry,
    Lost,
}

/// The network or a full queue said no to one frame; the socket is as good as before (udp(7), ip(7)).
pub(super) fn is_loss(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EAGAIN
                | libc::ENOBUFS
                | libc::ENOMEM
                | libc::ECONNREFUSED
                | libc::ENETUNREACH
                | libc::EHOSTUNREACH
                | libc::EHOSTDOWN
                | libc::ENETDOWN
                | libc::EPERM
                | libc::EACCES
                | libc::EPROTO
                | libc::EMSGSIZE
        )
    )
}
