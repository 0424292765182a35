//! The simulation itself: one queue of events, and the hosts and the network that they happen to.

mod faults;

use std::{io, mem};

use dataplane_waist::{Instant, NodeStats, Peer, Protocol};
use dataplane_wire::checksum::crc32c;

use crate::{
    Boot, Crash, EventHash, Fabric, Fault, HostId, HostOptions, LinkOptions, Mesh, Network, SimLog, SimTime,
    host::Host,
    queue::EventQueue,
    random::{Purpose, derive},
};

/// Makes a host's protocol, when the simulation begins and after each crash: recover from the log that is lent.
///
/// An error leaves the host down ([`Sim::error`] keeps it).
pub type BootFn<M> = dyn FnMut(Boot<'_>) -> io::Result<M>;

/// Hosts that run protocols `M` over a network `N`, in virtual time.
///
/// `M` is one type, so that whoever runs the simulation can look into every host: an enum, where hosts differ.
pub struct Sim<M, N = Mesh> {
    seed: u64,
    now: SimTime,
    queue: EventQueue<Planned>,
    hosts: Vec<Host<M>>,
    network: N,
    fabrics: Vec<Fabric>,
    boot: Box<BootFn<M>>,
    /// Frames under way, by index, and the indices that are free.
    frames: Vec<Flying>,
    free_frames: Vec<u32>,
    pool: Vec<Vec<u8>>,
    faults: Vec<Fault>,
    /// Indices of the faults that last, oldest first.
    active: Vec<usize>,
    hash: EventHash,
    events_count: u64,
    counts: FrameCounts,
}

/// What became of frames outside the ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameCounts {
    /// Frames that left a host.
    pub sent_count: u64,
    /// Frames that the network lost, by chance, by a partition or for want of room.
    pub lost_count: u64,
    /// Copies that the network made.
    pub duplicated_count: u64,
    /// Frames that came to a host, its port's losses included.
    pub delivered_count: u64,
    /// Frames that came while their host was down.
    pub to_nobody_count: u64,
}

/// Something that happened; by [`Sim::step`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub at: SimTime,
    /// What.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A frame came to a host; its turn follows.
    Delivered {
        /// Who sent it.
        from: HostId,
        /// Where it came to.
        to: HostId,
    },
    /// A host took a turn.
    Turned(HostId),
    /// A host's process ended by itself, with an error ([`Sim::error`]).
    Failed(HostId),
    /// A host was started, or tried to.
    Started(HostId),
    /// The fault of this number in the order of scheduling began.
    FaultBegan(usize),
    /// It ended.
    FaultEnded(usize),
}

#[derive(Clone, Copy, Debug)]
enum Planned {
    Deliver(u32),
    Turn(u32),
    Start(u32),
    FaultBegins(u32),
    FaultEnds(u32),
}

#[derive(Debug, Default)]
struct Flying {
    from: u32,
    to: u32,
    bytes: Vec<u8>,
}

impl<M: Protocol> Sim<M, Mesh> {
    /// Hosts that are linked with each other, all with equal links. Every host is started, in order, at time zero.
    pub fn new(
        seed: u64,
        hosts: &[HostOptions],
        link: LinkOptions,
        boot: impl FnMut(Boot<'_>) -> io::Result<M> + 'static,
    ) -> Sim<M, Mesh> {
        let mesh = Mesh::new(link, hosts.len() as u32, seed);
        Sim::with_network(seed, hosts, mesh, boot)
    }
}

impl<M: Protocol, N: Network> Sim<M, N> {
    /// As [`Sim::new`], over another network.
    pub fn with_network(
        seed: u64,
        hosts: &[HostOptions],
        network: N,
        boot: impl FnMut(Boot<'_>) -> io::Result<M> + 'static,
    ) -> Sim<M, N> {
        Sim::with_fabrics(seed, hosts, (network, Vec::new()), boot)
    }

    /// As [`Sim::with_network`]; the hosts' memory is in `fabrics`, too. A host dies there as it dies here, what cuts it off the
    /// network cuts it off there, and it takes a turn when something has happened to its windows: as if it looked all the time.
    pub fn with_fabrics(
        seed: u64,
        hosts: &[HostOptions],
        (network, fabrics): (N, Vec<Fabric>),
        boot: impl FnMut(Boot<'_>) -> io::Result<M> + 'static,
    ) -> Sim<M, N> {
        let hosts_count = hosts.len() as u32;
        let host = |(number, options): (usize, &HostOptions)| Host::new(*options, hosts_count, seed, number as u32);
        let mut sim = Sim {
            seed,
            now: SimTime::ZERO,
            queue: EventQueue::new(),
            hosts: hosts.iter().enumerate().map(host).collect(),
            network,
            fabrics,
            boot: Box::new(boot),
            frames: Vec::new(),
            free_frames: Vec::new(),
            pool: Vec::new(),
            faults: Vec::new(),
            active: Vec::new(),
            hash: EventHash::EMPTY,
            events_count: 0,
            counts: FrameCounts::default(),
        };
        for host in 0..hosts_count {
            sim.start(host);
        }
        sim
    }

    /// Lets the next event happen, if it is due at `until` or earlier; otherwise it is then `until`.
    pub fn step(&mut self, until: SimTime) -> Option<Event> {
        loop {
            self.run_fabrics(until);
            let Some((at, planned)) = self.queue.pop_until(until) else {
                self.now = self.now.max(until);
                self.run_fabrics(until);
                return None;
            };
            self.now = at;
            for fabric in &self.fabrics {
                fabric.run_until(at);
            }
            let kind = match planned {
                Planned::Deliver(frame) => Some(self.deliver(frame)),
                Planned::Turn(host) => self.turn(host),
                Planned::Start(host) => self.start_again(host),
                Planned::FaultBegins(index) => Some(self.begin_fault(index as usize)),
                Planned::FaultEnds(index) => Some(self.end_fault(index as usize)),
            };
            if let Some(kind) = kind {
                self.events_count += 1;
                return Some(Event { at, kind });
            }
        }
    }

    /// Lets everything happen that is due at `until` or earlier.
    pub fn run_until(&mut self, until: SimTime) {
        while self.step(until).is_some() {}
    }

    /// The simulator's time.
    pub fn now(&self) -> SimTime {
        self.now
    }

    /// How many events have happened.
    pub fn events_count(&self) -> u64 {
        self.events_count
    }

    /// The hash over all of them: kind, time, host, the frames' and the log's bytes, and what happened in memory.
    pub fn hash(&self) -> EventHash {
        let mut hash = self.hash;
        for fabric in &self.fabrics {
            hash.add(fabric.hash().value());
        }
        hash
    }

    /// What became of frames.
    pub fn counts(&self) -> FrameCounts {
        self.counts
    }

    /// All hosts' numbers.
    pub fn hosts(&self) -> impl Iterator<Item = HostId> + use<M, N> {
        (0..self.hosts.len() as u32).map(HostId)
    }

    /// A host's protocol, unless it is down.
    pub fn protocol(&self, host: HostId) -> Option<&M> {
        self.host(host).node().map(|node| node.protocol())
    }

    /// Changes a host's protocol between two events (a client is given a command); the host takes a turn as soon as it
    /// can. `None` if it is down.
    pub fn with_protocol<T>(&mut self, host: HostId, change: impl FnOnce(&mut M, Instant) -> T) -> Option<T> {
        let (index, now) = (host.0, self.now);
        let host = &mut self.hosts[index as usize];
        let local = host.clock.local(now);
        let result = change(host.node_mut()?.protocol_mut(), local);
        host.must_turn = true;
        let turn_at = host.busy_until.max(host.paused_until).max(now);
        self.plan_turn(index, turn_at);
        Some(result)
    }

    /// A host's log and disk, whether it is up or down.
    pub fn log(&self, host: HostId) -> &SimLog {
        self.host(host).log()
    }

    /// A host's counters, unless it is down; those that are not its port's begin again with each start.
    pub fn stats(&self, host: HostId) -> Option<NodeStats> {
        self.host(host).node().map(|node| node.stats())
    }

    /// What a host's clock shows.
    pub fn local_now(&self, host: HostId) -> Instant {
        self.host(host).clock.local(self.now)
    }

    /// How often a host has started.
    pub fn starts_count(&self, host: HostId) -> u32 {
        self.host(host).starts_count
    }

    /// Why a host's last process ended by itself, or why it could not start.
    pub fn error(&self, host: HostId) -> Option<&io::Error> {
        self.host(host).error.as_ref()
    }

    /// The network, to be changed.
    pub fn network_mut(&mut self) -> &mut N {
        &mut self.network
    }

    fn host(&self, host: HostId) -> &Host<M> {
        &self.hosts[host.0 as usize]
    }

    fn note(&mut self, word: Word, host: u32, detail: u64) {
        self.hash.add(self.now.as_ps());
        self.hash.add((word as u64) << 32 | u64::from(host));
        self.hash.add(detail);
    }

    /// Lets happen in memory what comes before the next event here; whoever sees something of it takes a turn.
    fn run_fabrics(&mut self, until: SimTime) {
        if self.fabrics.is_empty() {
            return;
        }
        let mut touched = Vec::new();
        loop {
            let next = self
                .fabrics
                .iter()
                .enumerate()
                .map(|(index, fabric)| (fabric.next_at(), index));
            let Some((at, index)) = next.min().filter(|&(at, _)| at <= until.min(self.queue.next_at())) else {
                return;
            };
            self.now = at;
            self.fabrics[index].run_until(at);
            self.fabrics[index].take_touched(&mut touched);
            for host in touched.drain(..) {
                let host_state = &mut self.hosts[host.0 as usize];
                if host_state.node().is_some() {
                    host_state.must_turn = true;
                    let turn_at = host_state.busy_until.max(host_state.paused_until).max(at);
                    self.plan_turn(host.0, turn_at);
                }
            }
        }
    }

    fn deliver(&mut self, frame: u32) -> EventKind {
        let Flying { from, to, bytes } = mem::take(&mut self.frames[frame as usize]);
        self.free_frames.push(frame);
        self.note(Word::Delivered, to, u64::from(from) << 32 | u64::from(crc32c(&bytes)));
        let host = &mut self.hosts[to as usize];
        let turn_at = host.busy_until.max(host.paused_until).max(self.now);
        match host.node_mut() {
            Some(node) => {
                self.counts.delivered_count += 1;
                let unused = node.port_mut().deliver(Peer(from), bytes);
                self.pool.extend(unused);
                self.plan_turn(to, turn_at);
            }
            None => {
                self.counts.to_nobody_count += 1;
                self.pool.push(bytes);
            }
        }
        EventKind::Delivered {
            from: HostId(from),
            to: HostId(to),
        }
    }

    /// Plans a turn, unless one is planned that is not later.
    fn plan_turn(&mut self, host: u32, at: SimTime) {
        let turn_at = &mut self.hosts[host as usize].turn_at;
        if at < *turn_at {
            *turn_at = at;
            self.queue.push(at, Planned::Turn(host));
        }
    }

    fn turn(&mut self, index: u32) -> Option<EventKind> {
        let now = self.now;
        let host = &mut self.hosts[index as usize];
        if host.turn_at != now {
            // An earlier one took its place.
            return None;
        }
        host.turn_at = SimTime::FOREVER;
        let ready_at = host.busy_until.max(host.paused_until);
        if ready_at > now {
            self.plan_turn(index, ready_at);
            return None;
        }
        let local = host.clock.local(now);
        host.shown.set(local);
        if !mem::take(&mut host.must_turn) {
            // A timer that was set anew since this turn was planned is not due yet.
            let wants_turn_at = host.wants_turn_at(now);
            if wants_turn_at > now {
                self.plan_turn(index, wants_turn_at);
                return None;
            }
        }
        let options = host.options;
        let node = host.node_mut()?;
        node.log_mut().advance(now);
        mem::swap(&mut node.port_mut().pool, &mut self.pool);
        let turned = node.turn(local);
        mem::swap(&mut node.port_mut().pool, &mut self.pool);
        let log_hash = node.log().hash();
        let rx_frames_count = match turned {
            Ok(count) => count,
            Err(error) => {
                host.error = Some(error);
                self.note(Word::Failed, index, log_hash);
                self.crash(HostId(index), Crash::Process);
                self.queue.push(now + options.restart, Planned::Start(index));
                return Some(EventKind::Failed(HostId(index)));
            }
        };
        let mut sent = mem::take(&mut node.port_mut().sent);
        let frames_count = (rx_frames_count + sent.len()) as u64;
        let frames_ps = options.frame.as_ps().saturating_mul(frames_count);
        let takes = (options.turn + SimTime::from_ps(frames_ps)).max(SimTime::from_ns(1));
        host.busy_until = now + takes;
        let done_at = host.busy_until;
        for (to, bytes) in sent.drain(..) {
            self.send(done_at, index, to.0, bytes);
        }
        let host = &mut self.hosts[index as usize];
        if let Some(node) = host.node_mut() {
            // The list goes back for its memory.
            node.port_mut().sent = sent;
        }
        let wants_turn_at = host.wants_turn_at(now);
        self.plan_turn(index, wants_turn_at);
        self.note(Word::Turned, index, log_hash);
        Some(EventKind::Turned(HostId(index)))
    }

    fn send(&mut self, at: SimTime, from: u32, to: u32, bytes: Vec<u8>) {
        self.counts.sent_count += 1;
        let [first, copy] = self.network.carry(at, from, to, bytes.len());
        if let Some(arrival) = copy {
            self.counts.duplicated_count += 1;
            let mut copied = self.pool.pop().unwrap_or_default();
            copied.clear();
            copied.extend_from_slice(&bytes);
            self.fly(
                arrival,
                Flying {
                    from,
                    to,
                    bytes: copied,
                },
            );
        }
        match first {
            Some(arrival) => self.fly(arrival, Flying { from, to, bytes }),
            None => {
                self.counts.lost_count += 1;
                self.pool.push(bytes);
            }
        }
    }

    fn fly(&mut self, arrival: crate::Arrival, mut frame: Flying) {
        if let Some(pick) = arrival.flipped_bit
            && !frame.bytes.is_empty()
        {
            let bit = (pick % (frame.bytes.len() as u64 * 8)) as usize;
            frame.bytes[bit / 8] ^= 1 << (bit % 8);
        }
        let index = match self.free_frames.pop() {
            Some(index) => {
                self.frames[index as usize] = frame;
                index
            }
            None => {
                self.frames.push(frame);
                (self.frames.len() - 1) as u32
            }
        };
        self.queue.push(arrival.at, Planned::Deliver(index));
    }

    fn start(&mut self, index: u32) {
        let (seed, now) = (self.seed, self.now);
        let host = &mut self.hosts[index as usize];
        if host.node().is_some() {
            return;
        }
        let (starts_count, local) = (host.starts_count, host.clock.local(now));
        host.shown.set(local);
        host.log_mut().advance(now);
        for fabric in &self.fabrics {
            fabric.restart(HostId(index));
        }
        let clock = host.shown.clone();
        let boot = &mut self.boot;
        let started = host.start(|log| {
            boot(Boot {
                host: HostId(index),
                starts_count,
                now: local,
                clock,
                seed: derive(seed, Purpose::Boot, index, starts_count),
                log,
            })
        });
        match started {
            Ok(()) => {
                // The log has something to say that no sync announces.
                host.must_turn = true;
                self.plan_turn(index, now);
            }
            Err(error) => host.error = Some(error),
        }
        self.note(Word::Started, index, u64::from(starts_count));
    }

    fn start_again(&mut self, index: u32) -> Option<EventKind> {
        if self.hosts[index as usize].node().is_some() {
            return None;
        }
        self.start(index);
        Some(EventKind::Started(HostId(index)))
    }
}

/// What the hash tells apart.
#[derive(Clone, Copy, Debug)]
enum Word {
    Delivered = 1,
    Turned,
    Failed,
    Crashed,
    Started,
    FaultBegan,
    FaultEnded,
}
