//! The sending half. No call waits: a frame that the kernel has no room for is lost and counted.

use std::{io, net::UdpSocket};

use dataplane_waist::{Peer, PortStats};

use super::{Batching, GSO_FRAMES_MAX, MULTI_FRAMES_MAX, TrainStats, peers::PeerTable};
use crate::sys::{
    inet::{self, RawAddr},
    mmsg::{TxBatch, TxTrain},
};

/// A train is one datagram to the IP layer before it is cut, so its length must fit that header (65 535 bytes with
/// headers, IPv6 extension headers included).
const TRAIN_BYTES_MAX: usize = 65_000;

/// Frames that wait for [`Tx::flush`].
#[derive(Debug)]
pub(super) enum Tx {
    /// None ever waits.
    Single {
        buffer: Box<[u8]>,
    },
    Multi(TxBatch),
    Gso(Train),
}

/// Equally long frames to one peer.
#[derive(Debug)]
pub(super) struct Train {
    train: TxTrain,
    to: Peer,
    frame_bytes: usize,
    frames_count: usize,
    /// Trains of frames this long or longer were refused, and are not tried again.
    refused_bytes_min: usize,
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
            Batching::Gso => Tx::Gso(Train {
                train: TxTrain::new(TRAIN_BYTES_MAX.max(frame_bytes_max)),
                to: Peer(0),
                frame_bytes: 0,
                frames_count: 0,
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
            Tx::Gso(train) => {
                let fits = train.to == to
                    && train.frame_bytes == len_bytes
                    && train.frames_count < GSO_FRAMES_MAX
                    && train.train.room_bytes() >= len_bytes
                    // The kernel cannot cut a datagram into empty ones.
                    && len_bytes > 0;
                if !fits {
                    way.send_train(train)?;
                    (train.to, train.frame_bytes) = (to, len_bytes);
                }
                train.train.push(len_bytes, fill);
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
            Tx::Gso(train) => way.send_train(train),
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

    fn send_train(&mut self, train: &mut Train) -> io::Result<()> {
        let result = self.send_train_frames(train);
        train.train.clear();
        train.frames_count = 0;
        result
    }

    fn send_train_frames(&mut self, train: &mut Train) -> io::Result<()> {
        if train.frames_count == 0 {
            return Ok(());
        }
        let to = self.peers.destination(train.to);
        let mut retried = false;
        while train.frames_count > 1 && train.frame_bytes < train.refused_bytes_min {
            self.stats.syscalls_count += 1;
            match train
                .train
                .send(self.socket, to, train.frame_bytes as u16, libc::MSG_DONTWAIT)
            {
                Ok(()) => {
                    self.stats.tx_frames_count += train.frames_count as u64;
                    self.trains.tx_train_frames_count += train.frames_count as u64;
                    return Ok(());
                }
                // EINVAL: a segment is above the path's MTU; EIO: the device computes no checksums (udp_send_skb of
                // net/ipv4/udp.c); EMSGSIZE: as EINVAL since Linux 6.16. One by one, IP may fragment them.
                Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::EIO | libc::EMSGSIZE)) => {
                    self.trains.tx_refused_count += 1;
                    train.refused_bytes_min = train.frame_bytes;
                }
                Err(error) => match self.after(error, &mut retried)? {
                    Next::Retry => {}
                    Next::Lost => {
                        // `after` has counted one frame of the train.
                        self.stats.tx_dropped_count += train.frames_count as u64 - 1;
                        return Ok(());
                    }
                },
            }
        }
        if train.frame_bytes == 0 {
            return (0..train.frames_count).try_for_each(|_| self.send_one(to, &[]));
        }
        train
            .train
            .bytes()
            .chunks_exact(train.frame_bytes)
            .try_for_each(|frame| self.send_one(to, frame))
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
