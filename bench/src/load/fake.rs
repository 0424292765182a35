//! A port and a clock in virtual time, so that what the loops record can be compared with arithmetic.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use dataplane_waist::{Clock, Instant, Peer, Port, PortCaps, PortStats, RxFrame, TxError, Wake};
use dataplane_wire::frame::{self, Header, Kind};

pub(super) const SERVER: Peer = Peer(0);

/// Time that stands still until the port waits.
#[derive(Clone, Debug, Default)]
pub(super) struct FakeClock(Arc<AtomicU64>);

impl FakeClock {
    pub(super) fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_nanos() as u64, Relaxed);
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Instant {
        Instant::from_ns(self.0.load(Relaxed))
    }
}

/// When the server answers a request that reaches it at the given time: no time is a lost request, two are a reply and
/// its duplicate.
pub(super) type Server = Box<dyn FnMut(u64) -> Vec<u64> + Send>;

/// Changes a reply on its way, given its number.
pub(super) type Damage = Box<dyn FnMut(u64, &mut Vec<u8>) + Send>;

pub(super) struct FakePort {
    clock: FakeClock,
    server: Server,
    damage: Damage,
    pub(super) from: Peer,
    /// Frames that fit between two flushes.
    pub(super) tx_room: usize,
    /// Frames that the queue takes at all; those beyond find it full even after a flush.
    pub(super) tx_total: u64,
    queued: usize,
    replies: BinaryHeap<Reverse<(u64, u64, Vec<u8>)>>,
    stats: PortStats,
}

impl FakePort {
    pub(super) fn new(clock: &FakeClock, server: Server) -> FakePort {
        FakePort {
            clock: clock.clone(),
            server,
            damage: Box::new(|_, _| {}),
            from: SERVER,
            tx_room: 64,
            tx_total: u64::MAX,
            queued: 0,
            replies: BinaryHeap::new(),
            stats: PortStats::default(),
        }
    }

    pub(super) fn damaging(mut self, damage: Damage) -> FakePort {
        self.damage = damage;
        self
    }
}

/// A server that takes `service` for each request, one after the other, and stands still for the last `stalled` of
/// each second; requests beyond `queue_max` that wait for it are dropped.
pub(super) fn stalling(service: Duration, stalled: Duration, queue_max: usize) -> Server {
    const SECOND_NS: u64 = 1_000_000_000;
    let (service_ns, stalled_ns) = (service.as_nanos() as u64, stalled.as_nanos() as u64);
    let mut ends_ns = std::collections::VecDeque::new();
    Box::new(move |at_ns| {
        while ends_ns.front().is_some_and(|&end_ns| end_ns <= at_ns) {
            ends_ns.pop_front();
        }
        if ends_ns.len() >= queue_max {
            return Vec::new();
        }
        let mut begin_ns = ends_ns.back().copied().unwrap_or(0).max(at_ns);
        if begin_ns % SECOND_NS >= SECOND_NS - stalled_ns {
            begin_ns = begin_ns.next_multiple_of(SECOND_NS);
        }
        ends_ns.push_back(begin_ns + service_ns);
        vec![begin_ns + service_ns]
    })
}

impl Port for FakePort {
    fn caps(&self) -> PortCaps {
        PortCaps {
            name: "fake",
            frame_bytes_max: 2_048,
            batch_frames_max: 64,
            wake: Wake::Sleeps,
        }
    }

    fn wait(&mut self, max: Duration) -> io::Result<()> {
        let now_ns = self.clock.now().as_ns();
        let max_ns = now_ns + max.as_nanos() as u64;
        let until_ns = self
            .replies
            .peek()
            .map_or(max_ns, |Reverse((at_ns, ..))| (*at_ns).min(max_ns));
        self.clock
            .advance(Duration::from_nanos(until_ns.saturating_sub(now_ns)));
        Ok(())
    }

    fn rx_burst(&mut self, sink: &mut dyn FnMut(RxFrame<'_>)) -> io::Result<usize> {
        let now_ns = self.clock.now().as_ns();
        let mut frames_count = 0;
        while frames_count < self.caps().batch_frames_max
            && self.replies.peek().is_some_and(|Reverse((at_ns, ..))| *at_ns <= now_ns)
        {
            let Some(Reverse((_, _, bytes))) = self.replies.pop() else {
                break;
            };
            sink(RxFrame {
                from: self.from,
                bytes: &bytes,
                stamp: None,
            });
            frames_count += 1;
        }
        self.stats.rx_frames_count += frames_count as u64;
        Ok(frames_count)
    }

    fn tx(&mut self, to: Peer, len_bytes: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<(), TxError> {
        if to != SERVER {
            return Err(TxError::NoPeer);
        }
        if self.queued == self.tx_room || self.stats.tx_frames_count == self.tx_total {
            return Err(TxError::Full);
        }
        self.queued += 1;
        self.stats.tx_frames_count += 1;
        let mut bytes = vec![0; len_bytes];
        fill(&mut bytes);
        let request = frame::parse(&bytes).expect("the client writes whole frames");
        assert_eq!(request.header.kind, Kind::EchoRequest);
        let header = Header {
            kind: Kind::EchoReply,
            ..request.header
        };
        for at_ns in (self.server)(self.clock.now().as_ns()) {
            let mut reply = bytes.clone();
            frame::emit(&header, &mut reply);
            (self.damage)(header.slot, &mut reply);
            self.replies.push(Reverse((at_ns, header.slot, reply)));
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.queued = 0;
        Ok(())
    }

    fn stats(&self) -> PortStats {
        self.stats
    }
}
