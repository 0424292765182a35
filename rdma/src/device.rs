//! An [`Endpoint`] and a wire: a provider in software.

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use dataplane_waist::{Clock, Instant};

use crate::{
    endpoint::{Endpoint, EndpointCounters, QUEUE_PAIRS_MAX, Randomness, Transmit},
    memory::Memory,
    provider::{Error, Init, Provider, ProviderError, Qp, QpAddress, Reset, Rtr, Rts, TakesReceives},
    qp::{Path, QpOptions},
    region::{Access, MemoryKey, MemoryWindow, Pd, Registered},
    wire::{HEADERS_BYTES_MAX, ICRC_BYTES, Packet, QpNumber},
    work::{Completion, PostError, ReceiveRequest, SendRequest},
};

/// What moves packets between devices: sockets, shared memory, a test. Loss is ordinary.
pub trait Wire {
    /// See [`Wire::clock`].
    type Clock: Clock + std::fmt::Debug;
    /// The provider's name over this wire.
    fn name(&self) -> &'static str;
    /// This end's address.
    fn local(&self) -> IpAddr;
    /// The clock that retransmission goes by: whatever is handed out says the same.
    fn clock(&self) -> Self::Clock;
    /// Prepares for packets of a queue pair to a peer.
    ///
    /// # Errors
    /// The peer cannot be reached over this wire.
    fn connect(&mut self, qp: QpNumber, to: IpAddr) -> io::Result<()>;
    /// No more packets of this queue pair.
    fn disconnect(&mut self, qp: QpNumber);
    /// Hands received packets that came as they were sent (their ICRC is right) to `sink`, at most `packets_max`, without
    /// waiting; says how many.
    ///
    /// # Errors
    /// What the system said; the wire is then unusable.
    fn receive(&mut self, packets_max: usize, sink: &mut dyn FnMut(IpAddr, &Packet<'_>)) -> io::Result<usize>;
    /// Sends the first `transmit.len_bytes` of `packet`; behind them is room for the ICRC. What there is no room for is lost.
    ///
    /// # Errors
    /// As [`Wire::receive`].
    fn send(&mut self, transmit: &Transmit, packet: &mut [u8]) -> io::Result<()>;
    /// Lets packets go that [`Wire::send`] has only queued. Called after each batch.
    ///
    /// # Errors
    /// As [`Wire::receive`].
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
    /// Rests until a packet may be there, at most `max`.
    ///
    /// # Errors
    /// As [`Wire::receive`].
    fn wait(&mut self, max: Duration) -> io::Result<()>;
}

/// The largest packet, with ICRC: headers, the largest path MTU.
pub const PACKET_BYTES_MAX: usize = HEADERS_BYTES_MAX + 4096 + ICRC_BYTES;

/// Packets that one [`Provider::progress`] takes in, and sends: enough for batches, few enough that neither side of a device
/// starves the other.
const BATCH_PACKETS_MAX: usize = 64;

/// A timer runs for milliseconds, and who waits looks several times in a microsecond. Reading a clock takes as long as a look, so that is
/// done at every so many.
const LOOKS_PER_CLOCK: u32 = 8;

/// A device in software, over `W`.
#[derive(Debug)]
pub struct Device<W: Wire> {
    endpoint: Endpoint,
    wire: W,
    clock: W::Clock,
    packet: Box<[u8]>,
    /// Packets to take in before the next answer.
    receive_packets_max: usize,
    /// Looks since the clock was read.
    looks_count: u32,
}

impl<W: Wire> Device<W> {
    /// Without regions and queue pairs. Keys and sequence numbers come from `random`.
    pub fn new(wire: W, random: Randomness) -> Device<W> {
        Device {
            endpoint: Endpoint::new(random),
            clock: wire.clock(),
            wire,
            packet: vec![0; PACKET_BYTES_MAX].into(),
            receive_packets_max: 1,
            looks_count: 0,
        }
    }

    /// What came and was not taken, what was sent again.
    pub fn counters(&self) -> &EndpointCounters {
        self.endpoint.counters()
    }

    /// What moves its packets.
    pub fn wire(&self) -> &W {
        &self.wire
    }

    /// What moves its packets.
    pub fn wire_mut(&mut self) -> &mut W {
        &mut self.wire
    }

    /// Sends what there is to say, at most so many packets; says how many.
    fn transmit(&mut self, packets_max: usize) -> io::Result<usize> {
        let mut count = 0;
        while count < packets_max {
            let Some(transmit) = self.endpoint.poll_transmit(&mut self.packet) else {
                break;
            };
            self.wire.send(&transmit, &mut self.packet)?;
            count += 1;
        }
        if count > 0 {
            self.wire.flush()?;
        }
        Ok(count)
    }

    /// Takes in at most so many packets; says how many.
    fn receive(&mut self, packets_max: usize) -> io::Result<usize> {
        let endpoint = &mut self.endpoint;
        self.wire
            .receive(packets_max, &mut |from, packet| endpoint.handle(from, packet))
    }

    /// Says what there is to say, and again what was not answered in time; how many packets that were.
    fn speak(&mut self) -> io::Result<usize> {
        self.looks_count += 1;
        if self.looks_count >= LOOKS_PER_CLOCK {
            self.looks_count = 0;
            if self.endpoint.due().is_timed {
                self.look_at_clock()?;
            }
        }
        match self.endpoint.is_quiet() {
            true => Ok(0),
            false => self.transmit(BATCH_PACKETS_MAX),
        }
    }

    /// Lets time pass; says which it is.
    fn look_at_clock(&mut self) -> io::Result<Instant> {
        self.looks_count = 0;
        let now = self.clock.now();
        if self.endpoint.due().at.is_some_and(|at| at <= now) {
            // Whoever did not look for a while has no right to call a peer silent: an answer that came meanwhile moves the timer.
            self.receive(BATCH_PACKETS_MAX)?;
        }
        self.endpoint.tick(now);
        Ok(now)
    }
}

pub(crate) fn check(options: &QpOptions) -> Result<(), ProviderError> {
    let bounds = [
        (
            "send_requests_max",
            options.send_requests_max as u64,
            1..=65_536,
            "it is 1 to 65536",
        ),
        (
            "receive_requests_max",
            options.receive_requests_max as u64,
            1..=65_536,
            "it is 1 to 65536",
        ),
        (
            "inline_bytes_max",
            options.inline_bytes_max as u64,
            0..=4096,
            "it is at most 4096",
        ),
        (
            "initiator_reads_max",
            options.initiator_reads_max as u64,
            1..=128,
            "it is 1 to 128",
        ),
        (
            "responder_reads_max",
            options.responder_reads_max as u64,
            1..=128,
            "it is 1 to 128",
        ),
        ("window_packets", options.window_packets, 1..=1 << 20, "it is 1 to 2^20"),
        ("rnr_timer", options.rnr_timer.into(), 0..=31, "it is a code of 5 bits"),
        (
            "rnr_retries_max",
            options.rnr_retries_max.into(),
            0..=7,
            "it is 0 to 6, or 7 for ever",
        ),
        (
            "timeout (ns)",
            options.timeout.as_nanos() as u64,
            1_000..=1 << 43,
            "it is 1 us to 2 h",
        ),
    ];
    for (option, seen, bound, why) in bounds {
        if !bound.contains(&seen) {
            return Err(ProviderError::Option { option, seen, why });
        }
    }
    Ok(())
}

impl<W: Wire> Provider for Device<W> {
    fn name(&self) -> &'static str {
        self.wire.name()
    }

    fn local(&self) -> IpAddr {
        self.wire.local()
    }

    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn create_pd(&mut self) -> Pd {
        self.endpoint.create_pd()
    }

    fn register(&mut self, pd: Pd, memory: Arc<Memory>, access: Access) -> Registered {
        self.endpoint.register(pd, memory, access)
    }

    fn deregister(&mut self, key: MemoryKey) -> bool {
        self.endpoint.deregister(key)
    }

    fn set_access(&mut self, key: MemoryKey, access: Access) -> bool {
        self.endpoint.set_access(key, access)
    }

    fn allocate_window(&mut self, pd: Pd) -> Result<MemoryWindow, ProviderError> {
        Ok(self.endpoint.allocate_window(pd))
    }

    fn free_window(&mut self, window: MemoryWindow) -> bool {
        self.endpoint.free_window(window)
    }

    fn create_qp(&mut self, pd: Pd, options: &QpOptions) -> Result<Qp<Reset>, ProviderError> {
        check(options)?;
        let number = self.endpoint.create_qp(pd, *options);
        number.map(Qp::new).ok_or(ProviderError::QueuePairs {
            queue_pairs_max: QUEUE_PAIRS_MAX,
        })
    }

    fn address<S>(&self, qp: &Qp<S>) -> Option<QpAddress> {
        let of = self.endpoint.qp(qp.number())?;
        Some(QpAddress {
            ip: self.wire.local(),
            qp: qp.number(),
            start_psn: of.start_psn,
            path_mtu: of.options().path_mtu,
        })
    }

    fn init(&mut self, qp: Qp<Reset>) -> Qp<Init> {
        if let Some(of) = self.endpoint.qp_mut(qp.number()) {
            of.init();
        }
        Qp::new(qp.number())
    }

    fn ready_to_receive(&mut self, qp: Qp<Init>, peer: &QpAddress) -> Result<Qp<Rtr>, ProviderError> {
        let number = qp.number();
        let ours = self.endpoint.qp(number).map(|of| of.options().path_mtu);
        if let Some(ours) = ours
            && ours != peer.path_mtu
        {
            let theirs = peer.path_mtu;
            return Err(ProviderError::PathMtu { ours, theirs });
        }
        let connected = self.wire.connect(number, peer.ip);
        connected.map_err(|error| ProviderError::System {
            asked: "preparing the path to the peer",
            error,
        })?;
        let path = Path {
            address: peer.ip,
            qp: peer.qp,
            start_psn: peer.start_psn,
        };
        self.endpoint.connect_qp(number, path);
        Ok(Qp::new(number))
    }

    fn ready_to_send(&mut self, qp: Qp<Rtr>) -> Qp<Rts> {
        if let Some(of) = self.endpoint.qp_mut(qp.number()) {
            of.ready_to_send();
        }
        Qp::new(qp.number())
    }

    fn take_down<S>(&mut self, qp: Qp<S>) -> Qp<Error> {
        if let Some(of) = self.endpoint.qp_mut(qp.number()) {
            of.break_off();
        }
        Qp::new(qp.number())
    }

    fn reset(&mut self, qp: Qp<Error>) -> Qp<Reset> {
        self.wire.disconnect(qp.number());
        self.endpoint.reset_qp(qp.number());
        Qp::new(qp.number())
    }

    fn destroy<S>(&mut self, qp: Qp<S>) {
        self.wire.disconnect(qp.number());
        self.endpoint.destroy_qp(qp.number());
    }

    fn is_broken<S>(&self, qp: &Qp<S>) -> bool {
        self.endpoint.qp(qp.number()).is_none_or(|of| of.is_broken())
    }

    fn post_receive<S: TakesReceives>(&mut self, qp: &Qp<S>, request: ReceiveRequest) -> Result<(), PostError> {
        self.endpoint.post_receive(qp.number(), request)
    }

    fn post_send(&mut self, qp: &Qp<Rts>, request: &SendRequest<'_>) -> Result<(), PostError> {
        self.endpoint.post_send(qp.number(), request)
    }

    fn poll_cq(&mut self, count_max: usize, sink: &mut dyn FnMut(Completion)) -> usize {
        self.endpoint.poll_cq(count_max, sink)
    }

    fn poll_qp<S>(&mut self, qp: &Qp<S>, count_max: usize, sink: &mut dyn FnMut(Completion)) -> usize {
        self.endpoint.poll_qp(qp.number(), count_max, sink)
    }

    fn flush(&mut self) -> io::Result<usize> {
        self.transmit(BATCH_PACKETS_MAX)
    }

    /// What was posted leaves before anything is looked for. A single packet is answered before the next is looked for, since
    /// looking costs a system call on some wires; while packets come one behind the other a batch is taken in each time, so that
    /// one answer does for many. No more leave than can come in, or what waits on the wire would only grow.
    fn progress(&mut self) -> io::Result<usize> {
        let posted_count = self.speak()?;
        let received_count = self.receive(self.receive_packets_max)?;
        self.receive_packets_max = if received_count == 0 { 1 } else { BATCH_PACKETS_MAX };
        let answered_count = match received_count {
            0 => 0,
            _ => self.transmit(BATCH_PACKETS_MAX - posted_count)?,
        };
        Ok(posted_count + received_count + answered_count)
    }

    fn wait(&mut self, max: Duration) -> io::Result<()> {
        let mut until_timer = None;
        if self.endpoint.due().is_timed {
            let now = self.look_at_clock()?;
            let due = self.endpoint.due();
            if due.now {
                return Ok(());
            }
            until_timer = due.at.map(|at| at.saturating_since(now));
        }
        // Time passes: the next look is at the clock.
        self.looks_count = LOOKS_PER_CLOCK;
        self.wire.wait(until_timer.map_or(max, |until| until.min(max)))
    }
}
