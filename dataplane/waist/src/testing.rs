//! What tests of ports, protocols and middleware share: a port whose queues can be looked into, a clock set by hand.
//!
//! Behind the feature `testing`, so that no measurement can be built on it by accident. The real in-memory back end is
//! `dataplane_ports::loopback`.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    os::fd::BorrowedFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{Clock, Instant, Peer, Port, PortCaps, PortStats, RxFrame, TxError, Wake};

/// A clock that stands still until it is told otherwise. Copies share the time.
#[derive(Clone, Debug, Default)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// A clock at [`Instant::ZERO`].
    pub fn new() -> ManualClock {
        ManualClock::default()
    }

    /// Lets `step` pass.
    pub fn advance(&self, step: Duration) {
        self.0.fetch_add(step.as_nanos() as u64, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Instant {
        Instant::from_ns(self.0.load(Ordering::Relaxed))
    }
}

/// A port onto two queues of its own. Frames put with [`TestPort::put_rx`] are received in order; frames sent wait in
/// a batch until `flush`, then in a queue for [`TestPort::take_tx`].
#[derive(Debug)]
pub struct TestPort {
    caps: PortCaps,
    rx: Slots,
    batch: Slots,
    tx: Slots,
    stats: PortStats,
    waits: Vec<Duration>,
    /// How often it was to rest on a bell as well ([`Port::wait_or`]).
    pub bells_count: u64,
    /// The next `flush` fails with this.
    pub fail_flush: Option<io::ErrorKind>,
}

/// Waits that [`TestPort::waits`] remembers.
const WAITS_MAX: usize = 64;

impl TestPort {
    /// A port of these bounds; either queue keeps up to four batches, its batch one. All memory is taken now.
    pub fn new(frame_bytes_max: usize, batch_frames_max: usize) -> TestPort {
        TestPort {
            caps: PortCaps {
                name: "test",
                frame_bytes_max,
                batch_frames_max,
                wake: Wake::Spins,
            },
            rx: Slots::new(4 * batch_frames_max, frame_bytes_max),
            batch: Slots::new(batch_frames_max, frame_bytes_max),
            tx: Slots::new(4 * batch_frames_max, frame_bytes_max),
            stats: PortStats::default(),
            waits: Vec::with_capacity(WAITS_MAX),
            bells_count: 0,
            fail_flush: None,
        }
    }

    /// Lets a frame arrive. `false` if the queue is full or the frame too long.
    pub fn put_rx(&mut self, from: Peer, bytes: &[u8]) -> bool {
        self.rx
            .push(from, bytes.len(), |slot| slot.copy_from_slice(bytes))
            .is_some()
    }

    /// Hands over the oldest frame that was sent and flushed. `false` if there is none.
    pub fn take_tx(&mut self, visit: impl FnOnce(Peer, &[u8])) -> bool {
        self.tx.pop(visit)
    }

    /// All frames that were sent and flushed, oldest first; they are then gone.
    pub fn drain_tx(&mut self) -> Vec<(Peer, Vec<u8>)> {
        let mut frames = Vec::new();
        while self.take_tx(|to, bytes| frames.push((to, bytes.to_vec()))) {}
        frames
    }

    /// The address that it has for a peer, whoever that is.
    pub fn addr_of(peer: Peer) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::from(peer.0), 1))
    }

    /// How long the first 64 calls of [`Port::wait`] were to rest at most.
    pub fn waits(&self) -> &[Duration] {
        &self.waits
    }
}

impl Port for TestPort {
    fn caps(&self) -> PortCaps {
        self.caps
    }

    fn wait(&mut self, max: Duration) -> io::Result<()> {
        if self.waits.len() < WAITS_MAX {
            self.waits.push(max);
        }
        Ok(())
    }

    fn wait_or(&mut self, max: Duration, _bell: BorrowedFd<'_>) -> io::Result<()> {
        self.bells_count += 1;
        self.wait(max)
    }

    fn rx_burst(&mut self, sink: &mut dyn FnMut(RxFrame<'_>)) -> io::Result<usize> {
        let mut frames_count = 0;
        while frames_count < self.caps.batch_frames_max
            && self.rx.pop(|from, bytes| {
                sink(RxFrame {
                    from,
                    bytes,
                    stamp: None,
                })
            })
        {
            frames_count += 1;
        }
        self.stats.rx_frames_count += frames_count as u64;
        Ok(frames_count)
    }

    fn tx(&mut self, to: Peer, len_bytes: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<(), TxError> {
        if len_bytes > self.caps.frame_bytes_max {
            return Err(TxError::TooLong);
        }
        self.batch.push(to, len_bytes, fill).ok_or_else(|| {
            self.stats.tx_dropped_count += 1;
            TxError::Full
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some(kind) = self.fail_flush.take() {
            return Err(kind.into());
        }
        let TestPort { batch, tx, stats, .. } = self;
        while batch.pop(
            |to, bytes| match tx.push(to, bytes.len(), |slot| slot.copy_from_slice(bytes)) {
                Some(()) => stats.tx_frames_count += 1,
                None => stats.tx_dropped_count += 1,
            },
        ) {}
        Ok(())
    }

    fn stats(&self) -> PortStats {
        self.stats
    }

    fn peer_addr(&self, peer: Peer) -> Option<SocketAddr> {
        Some(TestPort::addr_of(peer))
    }
}

/// A ring of fixed slots: `oldest_index` is popped next, and `frames_count` of them are taken.
#[derive(Debug)]
struct Slots {
    slots: Box<[Held]>,
    oldest_index: usize,
    frames_count: usize,
}

#[derive(Debug)]
struct Held {
    peer: Peer,
    len_bytes: usize,
    bytes: Box<[u8]>,
}

impl Slots {
    fn new(frames_max: usize, frame_bytes_max: usize) -> Slots {
        let empty = || Held {
            peer: Peer(0),
            len_bytes: 0,
            bytes: vec![0; frame_bytes_max].into(),
        };
        Slots {
            slots: (0..frames_max).map(|_| empty()).collect(),
            oldest_index: 0,
            frames_count: 0,
        }
    }

    fn push(&mut self, peer: Peer, len_bytes: usize, fill: impl FnOnce(&mut [u8])) -> Option<()> {
        if self.frames_count == self.slots.len() {
            return None;
        }
        let index = (self.oldest_index + self.frames_count) % self.slots.len();
        let slot = &mut self.slots[index];
        fill(slot.bytes.get_mut(..len_bytes)?);
        (slot.peer, slot.len_bytes) = (peer, len_bytes);
        self.frames_count += 1;
        Some(())
    }

    fn pop(&mut self, visit: impl FnOnce(Peer, &[u8])) -> bool {
        if self.frames_count == 0 {
            return false;
        }
        let slot = &self.slots[self.oldest_index];
        visit(slot.peer, &slot.bytes[..slot.len_bytes]);
        self.oldest_index = (self.oldest_index + 1) % self.slots.len();
        self.frames_count -= 1;
        true
    }
}
