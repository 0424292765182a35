//! An RDMA device without I/O: protection domains, memory regions, queue pairs. Packets from the wire go in, packets for the
//! wire come out; ICRC, IP and UDP are the business of whoever moves them ([`crate::device`]).

use std::net::IpAddr;

use dataplane_waist::Instant;

use std::sync::Arc;

use crate::{
    memory::Memory,
    qp::{Due, Path, QpCounters, QpOptions, QueuePair},
    region::{Access, HomeWork, MemoryKey, MemoryWindow, Need, Pd, Regions, Registered},
    wire::{Headers, PKEY_DEFAULT, Packet, Psn, QpNumber},
    work::{Completion, PostError, ReceiveRequest, SendRequest},
};

/// The most queue pairs of a device: 12 of a number's 24 bits find it, the others are drawn at random.
pub const QUEUE_PAIRS_MAX: usize = 1 << SLOT_BITS;
const SLOT_BITS: u32 = 12;

/// What an endpoint does not take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointCounters {
    /// What queue pairs did and saw.
    pub qp: QpCounters,
    /// Packets for a queue pair that is not there.
    pub no_qp_count: u64,
    /// Packets for a queue pair that has not come so far, or is broken.
    pub wrong_state_count: u64,
    /// Packets from another address than the peer's.
    pub wrong_peer_count: u64,
    /// Packets of another partition.
    pub wrong_partition_count: u64,
}

/// A packet to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// To whom.
    pub to: IpAddr,
    /// Which queue pair's it is; the source port follows from it.
    pub qp: QpNumber,
    /// Its length, without ICRC.
    pub len_bytes: usize,
}

/// Where random numbers come from: keys and sequence numbers must not be guessed.
pub type Randomness = Box<dyn FnMut() -> u64 + Send>;

/// A device. See the module.
pub struct Endpoint {
    regions: Regions,
    pds_count: u32,
    queue_pairs: Vec<Option<QueuePair>>,
    random: Randomness,
    counters: EndpointCounters,
    /// Where the next look for something to send begins: each gets its turn.
    turn: usize,
    /// The same for completions.
    poll_turn: usize,
    /// Nobody had anything to send, and nothing has happened since.
    is_quiet: bool,
    /// The same for completions.
    is_polled: bool,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

impl Endpoint {
    /// Without regions and queue pairs.
    pub fn new(random: Randomness) -> Endpoint {
        Endpoint {
            regions: Regions::default(),
            pds_count: 0,
            queue_pairs: Vec::new(),
            random,
            counters: EndpointCounters::default(),
            turn: 0,
            poll_turn: 0,
            is_quiet: false,
            is_polled: false,
        }
    }

    /// Counters since it was made.
    pub fn counters(&self) -> &EndpointCounters {
        &self.counters
    }

    pub(crate) fn create_pd(&mut self) -> Pd {
        self.pds_count += 1;
        Pd(self.pds_count)
    }

    pub(crate) fn register(&mut self, pd: Pd, memory: Arc<Memory>, access: Access) -> Registered {
        self.regions.register(pd, memory, access, &mut self.random)
    }

    pub(crate) fn deregister(&mut self, key: MemoryKey) -> bool {
        self.regions.deregister(key)
    }

    pub(crate) fn set_access(&mut self, key: MemoryKey, access: Access) -> bool {
        self.regions.set_access(key, access)
    }

    pub(crate) fn allocate_window(&mut self, pd: Pd) -> MemoryWindow {
        self.regions.allocate_window(pd, &mut self.random)
    }

    pub(crate) fn free_window(&mut self, window: MemoryWindow) -> bool {
        self.regions.free_window(window)
    }

    fn free_windows_through(&mut self, number: QpNumber) {
        for window in self.regions.windows_through(number) {
            self.regions.free_window(window);
        }
    }

    /// A queue pair in RESET; `None` if there are too many.
    pub(crate) fn create_qp(&mut self, pd: Pd, options: QpOptions) -> Option<QpNumber> {
        let free = self.queue_pairs.iter().position(Option::is_none);
        let slot = free.unwrap_or(self.queue_pairs.len());
        if slot == QUEUE_PAIRS_MAX {
            return None;
        }
        let number = loop {
            let number = ((self.random)() as u32) << SLOT_BITS | slot as u32;
            // 0 and 1 are management's (IBA §3.5.9).
            if QpNumber::new(number).get() > 1 {
                break QpNumber::new(number);
            }
        };
        let start_psn = self.start_psn(&options);
        if slot == self.queue_pairs.len() {
            self.queue_pairs.push(None);
        }
        self.queue_pairs[slot] = Some(QueuePair::new(number, pd, start_psn, options));
        Some(number)
    }

    fn start_psn(&mut self, options: &QpOptions) -> Psn {
        match options.start_psn {
            Some(psn) => psn,
            None => Psn::new((self.random)() as u32),
        }
    }

    pub(crate) fn destroy_qp(&mut self, number: QpNumber) {
        if self.qp(number).is_some() {
            self.free_windows_through(number);
            self.queue_pairs[slot_of(number)] = None;
        }
    }

    /// RESET, with a new start of the sequence.
    pub(crate) fn reset_qp(&mut self, number: QpNumber) {
        let Some(options) = self.qp(number).map(|qp| *qp.options()) else {
            return;
        };
        let start_psn = self.start_psn(&options);
        self.free_windows_through(number);
        if let Some(qp) = self.qp_mut(number) {
            qp.reset(start_psn);
        }
    }

    pub(crate) fn qp(&self, number: QpNumber) -> Option<&QueuePair> {
        let qp = self.queue_pairs.get(slot_of(number))?.as_ref()?;
        (qp.number == number).then_some(qp)
    }

    pub(crate) fn qp_mut(&mut self, number: QpNumber) -> Option<&mut QueuePair> {
        self.happens();
        let qp = self.queue_pairs.get_mut(slot_of(number))?.as_mut()?;
        (qp.number == number).then_some(qp)
    }

    pub(crate) fn connect_qp(&mut self, number: QpNumber, path: Path) {
        if let Some(qp) = self.qp_mut(number) {
            qp.ready_to_receive(path);
        }
    }

    pub(crate) fn post_receive(&mut self, number: QpNumber, request: ReceiveRequest) -> Result<(), PostError> {
        let qp = self.qp(number).ok_or(PostError::NoQueuePair)?;
        let checked = self.regions.check_local(qp.pd, &request.into, Need::LocalWrite);
        checked.map_err(PostError::Local)?;
        let qp = self.qp_mut(number).ok_or(PostError::NoQueuePair)?;
        qp.post_receive(request)
    }

    pub(crate) fn post_send(&mut self, number: QpNumber, request: &SendRequest<'_>) -> Result<(), PostError> {
        self.happens();
        let qp = self.queue_pairs.get_mut(slot_of(number)).and_then(Option::as_mut);
        let qp = qp.filter(|qp| qp.number == number).ok_or(PostError::NoQueuePair)?;
        let Some(work) = HomeWork::of(&request.operation) else {
            return qp.post_send(request, &self.regions);
        };
        let checked = self.regions.check_work((qp.pd, number), &work);
        checked.map_err(PostError::Bind)?;
        qp.post_send(request, &self.regions)?;
        self.regions.promise(number, &work);
        Ok(())
    }

    /// A queue pair may have something to send or to complete from now on.
    fn happens(&mut self) {
        self.is_quiet = false;
        self.is_polled = false;
    }

    fn around(&mut self, number: QpNumber) -> Option<(&mut QueuePair, crate::qp::Around<'_>)> {
        self.happens();
        let qp = self.queue_pairs.get_mut(slot_of(number))?.as_mut()?;
        let around = crate::qp::Around {
            regions: &self.regions,
            counters: &mut self.counters.qp,
        };
        (qp.number == number).then_some((qp, around))
    }

    /// A packet has come, with its ICRC checked.
    pub fn handle(&mut self, from: IpAddr, packet: &Packet<'_>) {
        if packet.bth.pkey & 0x7fff != PKEY_DEFAULT & 0x7fff {
            self.counters.wrong_partition_count += 1;
            return;
        }
        let Some((qp, around)) = self.around(packet.bth.dest_qp) else {
            self.counters.no_qp_count += 1;
            return;
        };
        match qp.path().map(|path| path.address) {
            Some(address) if address != from => self.counters.wrong_peer_count += 1,
            Some(_) if qp.handle(packet, around) => {
                if matches!(packet.headers, Headers::Invalidate(_))
                    && let Some(key) = qp.take_invalidated()
                {
                    self.regions.take_back(key);
                }
            }
            _ => self.counters.wrong_state_count += 1,
        }
    }

    /// Writes the next packet, without ICRC, into `into`. Every queue pair gets its turn.
    pub fn poll_transmit(&mut self, into: &mut [u8]) -> Option<Transmit> {
        // What cannot be sent is completed with an error.
        self.is_polled = false;
        let count = self.queue_pairs.len();
        for slot in (self.turn..count).chain(0..self.turn) {
            let Some(qp) = &mut self.queue_pairs[slot] else {
                continue;
            };
            if qp.has_home_work() {
                qp.work_at_home(&mut self.regions, &mut self.counters.qp);
            }
            let around = crate::qp::Around {
                regions: &self.regions,
                counters: &mut self.counters.qp,
            };
            let Some(len_bytes) = qp.poll_transmit(into, around) else {
                continue;
            };
            self.turn = next(slot, count);
            let to = qp.path().expect("whoever has something to say has a peer").address;
            return Some(Transmit {
                to,
                qp: qp.number,
                len_bytes,
            });
        }
        self.is_quiet = true;
        None
    }

    /// Whether [`Endpoint::poll_transmit`] has found nothing, and nothing has happened since: it will find nothing again.
    pub fn is_quiet(&self) -> bool {
        self.is_quiet
    }

    /// When [`Endpoint::poll_transmit`] has something to do.
    pub fn due(&self) -> Due {
        let mut all = Due::default();
        for Due { now, is_timed, at } in self.queue_pairs.iter().flatten().map(QueuePair::due) {
            all.now |= now;
            all.is_timed |= is_timed;
            all.at = all.at.into_iter().chain(at).min();
        }
        all
    }

    /// Time has passed. Timers that were asked for since the last time begin, and those that have run out take effect. Only this needs a
    /// clock; between two calls may be as much time as a timer may be late.
    pub fn tick(&mut self, now: Instant) {
        self.happens();
        for qp in self.queue_pairs.iter_mut().flatten() {
            let around = crate::qp::Around {
                regions: &self.regions,
                counters: &mut self.counters.qp,
            };
            qp.tick(now, around);
        }
    }

    /// As [`Endpoint::poll_cq`], of one queue pair.
    pub(crate) fn poll_qp(&mut self, number: QpNumber, count_max: usize, sink: &mut dyn FnMut(Completion)) -> usize {
        let Some(qp) = self.qp_mut(number) else {
            return 0;
        };
        let done = std::iter::from_fn(|| qp.completions().pop()).take(count_max);
        done.map(sink).count()
    }

    /// Hands finished requests to `sink`, at most `count_max`; says how many. Those of one queue pair come in order.
    pub(crate) fn poll_cq(&mut self, count_max: usize, sink: &mut dyn FnMut(Completion)) -> usize {
        if self.is_polled {
            return 0;
        }
        let mut polled_count = 0;
        let count = self.queue_pairs.len();
        for slot in (self.poll_turn..count).chain(0..self.poll_turn) {
            let Some(qp) = &mut self.queue_pairs[slot] else {
                continue;
            };
            while polled_count < count_max {
                let Some(completion) = qp.completions().pop() else {
                    break;
                };
                polled_count += 1;
                sink(completion);
            }
        }
        self.poll_turn = next(self.poll_turn, count);
        self.is_polled = polled_count < count_max;
        polled_count
    }
}

/// The place behind `slot`, of so many, around.
fn next(slot: usize, count: usize) -> usize {
    match slot + 1 < count {
        true => slot + 1,
        false => 0,
    }
}

fn slot_of(number: QpNumber) -> usize {
    number.get() as usize % QUEUE_PAIRS_MAX
}
