//! A group of nodes: its queue of events, and what each event does. Groups meet at pipes alone.
//!
//! The order of events is (time, links before timers, number of the link or timer), which says nothing about groups: the
//! same network gives the same results whether it is computed as one group or as many, by one thread or by several.

use dataplane_queue::{DropReason, Enqueued, SharedBuffer, SimTime};

use super::{
    counters::Counters,
    edge::{Edge, HostApi},
    events::EventList,
    frame::{Packet, Token},
    lossless::Pauses,
    observe::{DepthSample, Sampler, TapEvent, TapSlot},
    port::{Destination, Flights, Node, Pipe, Port},
    routing::{Balance, Route, Way, pick},
    slab::Slab,
    wheel::{Fired, Wheel},
};
use crate::{EventHash, random::Random};

/// A group with the edge that its hosts run.
pub(crate) struct Group<E: Edge> {
    pub core: Core<E::Header>,
    pub edge: E,
}

/// Everything of a group but its edge.
#[derive(Debug)]
pub(crate) struct Core<H> {
    pub now: SimTime,
    pub events: EventList,
    pub timers: Wheel,
    pub timers_per_flow: u32,
    pub packets: Slab<Packet<H>>,
    /// The links that begin here, in the order of their numbers; and those numbers.
    pub ports: Vec<Port>,
    pub links: Vec<u32>,
    /// The links that end here, in that order.
    pub pipes: Vec<Pipe>,
    pub flights: Flights,
    /// Hosts have numbers in a row; the first.
    pub first_host: u32,
    pub hosts: Vec<Host>,
    pub switches: Vec<Switch>,
    /// What all network cards share, which is nothing; then each switch's memory.
    pub pools: Vec<SharedBuffer>,
    pub balance: Balance,
    pub returns_headers: bool,
    pub hosts_count: u32,
    pub counters: Counters,
    /// By other group: what leaves for it.
    pub outboxes: Vec<Vec<Message<H>>>,
    pub tap: TapSlot<H>,
    pub samplers: Vec<Sampler>,
    pub sample_at: SimTime,
    /// What a queue dropped when something left it. Empty between events.
    pub lost: Vec<(Token, DropReason)>,
    /// What is paused, where priorities are lossless.
    pub lossless: Option<Box<Pauses>>,
}

#[derive(Debug)]
pub(crate) struct Host {
    /// Its port among those of its group.
    pub nic: u32,
    pub random: Random,
    pub hash: EventHash,
}

#[derive(Debug)]
pub(crate) struct Switch {
    /// With the numbers of ports of its group in the place of links.
    pub route: Route,
    /// Its own, so that switches choose independently.
    pub salt: u32,
    pub random: Random,
    pub turn: u32,
    pub hash: EventHash,
}

/// A packet that goes to another group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<H> {
    pub pipe: u32,
    pub at: SimTime,
    pub token: Token,
    /// A pause is none.
    pub packet: Option<Packet<H>>,
}

impl<E: Edge> Group<E> {
    /// Tells the edge to begin.
    pub fn start(&mut self) {
        for host in 0..self.core.hosts.len() as u32 {
            let host = self.core.first_host + host;
            let core = &mut self.core;
            self.edge.on_start(&mut HostApi { core, host });
        }
    }

    /// Carries out what is due before `end`, or the first `events_max` of it. Says whether it got to the end.
    pub fn run(&mut self, end: SimTime, events_max: u64) -> bool {
        let stop_count = self.core.counters.events_count.saturating_add(events_max);
        let end_ps = end.as_ps();
        while self.core.counters.events_count < stop_count {
            let link_ps = self.core.events.next_at_ps();
            let timer_ps = self.core.timers.next_ps();
            if timer_ps < link_ps {
                if timer_ps >= end_ps {
                    return true;
                }
                if let Some(fired) = self.core.timers.step() {
                    self.fire(fired);
                }
                continue;
            }
            if link_ps >= end_ps {
                return true;
            }
            let Some(event) = self.core.events.pop() else {
                return true;
            };
            self.core.advance(SimTime::from_ps(event.at_ps));
            match (event.id as usize).checked_sub(self.core.ports.len()) {
                None => self.core.wire_is_free(event.id),
                Some(pipe) => self.arrive(pipe),
            }
        }
        false
    }

    fn fire(&mut self, Fired { at_ps, timer, host }: Fired) {
        let core = &mut self.core;
        core.advance(SimTime::from_ps(at_ps));
        core.counters.timers_count += 1;
        let (flow, kind) = (timer / core.timers_per_flow, timer % core.timers_per_flow);
        let hash = &mut core.hosts[(host - core.first_host) as usize].hash;
        hash.add(at_ps);
        hash.add(u64::from(timer));
        self.edge.on_timer(flow, kind as u8, &mut HostApi { core, host });
    }

    #[inline]
    fn arrive(&mut self, pipe: usize) {
        let core = &mut self.core;
        let Pipe { to, link, .. } = core.pipes[pipe];
        let first = core.flights.pop(&mut core.pipes[pipe]);
        let (token, next_at) = first.expect("a pipe is planned when something is in it");
        if let Some(at) = next_at {
            core.events.insert((core.ports.len() + pipe) as u32, at.as_ps());
        }
        match to {
            Node::Switch(switch) => core.forward(switch, token),
            Node::LosslessSwitch(switch) => core.arrive_lossless(switch, pipe as u32, token),
            Node::LosslessHost(host) if core.is_pause_for_host(host, pipe as u32, token) => (),
            Node::Host(host) | Node::LosslessHost(host) => {
                let packet = core.deliver(host, link, token);
                let host = core.first_host + host;
                self.edge.on_packet(&packet, &mut HostApi { core, host });
            }
        }
    }
}

impl<H: Copy> Core<H> {
    /// Time passes.
    #[inline]
    fn advance(&mut self, now: SimTime) {
        debug_assert!(now >= self.now, "{now} after {}", self.now);
        if now > self.sample_at {
            self.sample(now);
        }
        self.now = now;
        self.counters.events_count += 1;
    }

    pub fn send(&mut self, host: u32, packet: Packet<H>) {
        let Packet { from, to, .. } = packet;
        assert!(
            from == host && to != host && to < self.hosts_count,
            "host {host} of {} sends a packet from {from} to {to}",
            self.hosts_count
        );
        self.counters.sent_count += 1;
        let place = self.packets.insert(packet);
        let nic = self.hosts[(host - self.first_host) as usize].nic;
        self.enqueue(nic, Token::new(&packet, place));
    }

    /// A switch got a packet.
    #[inline]
    fn forward(&mut self, switch: u32, token: Token) {
        let port = self.port_to(switch, &token);
        self.enqueue(port, token);
    }

    /// The port of a switch that a packet leaves by.
    #[inline]
    pub(super) fn port_to(&mut self, switch: u32, token: &Token) -> u32 {
        let (now, balance) = (self.now, self.balance);
        let switch = &mut self.switches[switch as usize];
        switch.hash.add(now.as_ps());
        switch.hash.add(token.digest());
        match switch.route.to(token.to) {
            Way::One(port) => port,
            Way::Any(first, count) => first + switch.choose(balance, token, count),
        }
    }

    /// A host got a packet.
    #[inline]
    fn deliver(&mut self, host: u32, link: u32, token: Token) -> Packet<H> {
        let hash = &mut self.hosts[host as usize].hash;
        hash.add(self.now.as_ps());
        hash.add(token.digest());
        let mut packet = self.packets.remove(token.place);
        token.update(&mut packet);
        self.counters.delivered_count += 1;
        self.counters.returned_count += u64::from(packet.is_returned);
        if let Some(tap) = &mut self.tap.0 {
            tap.on_packet(self.now, link, TapEvent::Delivered, &packet);
        }
        packet
    }

    /// A packet comes to a port.
    #[inline]
    pub(super) fn enqueue(&mut self, number: u32, token: Token) {
        let now = self.now;
        let port = &mut self.ports[number as usize];
        if port.passes(now, token.bytes) {
            return self.transmit(number, token);
        }
        let lost = match port.enqueue(now, token, &mut self.pools[port.pool as usize]) {
            Enqueued::Queued => None,
            Enqueued::Marked => {
                port.counters.marks_count += 1;
                self.counters.marks_count += 1;
                None
            }
            Enqueued::Trimmed => {
                port.counters.trims_count += 1;
                self.counters.trims_count += 1;
                None
            }
            Enqueued::Dropped { packet, why } => Some((packet, why)),
        };
        if !port.is_planned && port.waiting_count() > 0 {
            let free_at = port.wire.free_at();
            if free_at <= now {
                self.wire_is_free(number);
            } else {
                port.is_planned = true;
                self.events.insert(number, free_at.as_ps());
            }
        }
        if let Some((token, why)) = lost {
            self.lose(number, token, why);
        }
    }

    /// The next packet goes, if there is one.
    #[inline]
    fn wire_is_free(&mut self, number: u32) {
        if self.lossless.is_some() {
            return self.wire_is_free_lossless(number);
        }
        let now = self.now;
        let port = &mut self.ports[number as usize];
        port.is_planned = false;
        let token = port.dequeue(now, &mut self.pools[port.pool as usize], &mut self.lost);
        if let Some(token) = token {
            self.transmit(number, token);
        }
        while let Some((token, why)) = self.lost.pop() {
            self.lose(number, token, why);
        }
    }

    /// Puts a packet on the free wire.
    #[inline]
    pub(super) fn transmit(&mut self, number: u32, token: Token) {
        let port = &mut self.ports[number as usize];
        let at = port.transmit(self.now, token.bytes);
        self.counters.hops_count += 1;
        if port.waiting_count() > 0 {
            port.is_planned = true;
            self.events.insert(number, port.wire.free_at().as_ps());
        }
        let to = port.to;
        let is_lost = match &mut port.loss {
            None => false,
            Some(loss) => loss.random.chance(loss.ratio),
        };
        if self.tap.0.is_some() {
            self.tell(number, &token, TapEvent::Sent);
        }
        match to {
            _ if is_lost => self.lose_on_wire(number, token),
            Destination::Pipe(pipe) => self.put_in_pipe(pipe, at, token),
            Destination::Elsewhere { group, pipe } => {
                let packet = Some(self.packets.remove(token.place));
                let message = Message {
                    pipe,
                    at,
                    token,
                    packet,
                };
                self.outboxes[group as usize].push(message);
            }
        }
    }

    #[inline]
    pub(super) fn put_in_pipe(&mut self, number: u32, at: SimTime, token: Token) {
        let is_first = self.flights.push(&mut self.pipes[number as usize], at, token);
        if is_first {
            let event = self.ports.len() as u32 + number;
            self.events.insert(event, at.as_ps());
        }
    }

    /// A packet from another group is on its way here.
    pub fn take_in(&mut self, message: &Message<H>) {
        let Message { pipe, at, packet, .. } = *message;
        let mut token = message.token;
        if let Some(packet) = packet {
            token.place = self.packets.insert(packet);
        }
        self.put_in_pipe(pipe, at, token);
    }

    /// A queue dropped a packet: it ends here, or goes back as a header.
    #[cold]
    pub(super) fn lose(&mut self, number: u32, mut token: Token, why: DropReason) {
        let can_return = self.returns_headers && why == DropReason::HeaderQueueFull;
        if can_return && token.is_trimmed() && !token.is_returned() {
            let pool = self.ports[number as usize].pool;
            token.send_back(self.packets.get(token.place).from);
            // The pool before the switches' is that of the network cards, which do not return what they have not sent.
            if let Some(switch) = pool.checked_sub(1) {
                return self.forward(switch, token);
            }
        }
        self.tell(number, &token, TapEvent::Dropped(why));
        self.packets.remove(token.place);
        self.counters.drops.add(why);
        self.ports[number as usize].counters.drops_count += 1;
    }

    #[cold]
    fn lose_on_wire(&mut self, number: u32, token: Token) {
        self.tell(number, &token, TapEvent::Lost);
        self.packets.remove(token.place);
        self.counters.drops.wire_count += 1;
        self.ports[number as usize].counters.drops_count += 1;
    }

    fn tell(&mut self, number: u32, token: &Token, event: TapEvent) {
        if let Some(tap) = &mut self.tap.0 {
            let mut packet = *self.packets.get(token.place);
            token.update(&mut packet);
            tap.on_packet(self.now, self.links[number as usize], event, &packet);
        }
    }

    pub fn set_timer(&mut self, host: u32, flow: u32, timer: u8, at: SimTime) {
        let (number, at) = (self.timer(flow, timer), at.max(self.now));
        self.timers.set(number, host, at.as_ps());
    }

    pub fn cancel_timer(&mut self, flow: u32, timer: u8) {
        let number = self.timer(flow, timer);
        self.timers.cancel(number);
    }

    fn timer(&self, flow: u32, timer: u8) -> u32 {
        let count = self.timers_per_flow;
        assert!(u32::from(timer) < count, "timer {timer} of a flow that has {count}");
        flow * count + u32::from(timer)
    }

    pub fn nic_backlog_bytes(&self, host: u32) -> u64 {
        let nic = self.hosts[(host - self.first_host) as usize].nic;
        self.ports[nic as usize].waiting_bytes()
    }

    pub fn random(&mut self, host: u32) -> &mut Random {
        &mut self.hosts[(host - self.first_host) as usize].random
    }

    /// When something is next due here; a timer's time may be earlier than what it leads to.
    pub fn next_at(&mut self) -> SimTime {
        SimTime::from_ps(self.events.next_at_ps().min(self.timers.next_ps()))
    }

    /// Takes the samples that are due before `now`.
    #[cold]
    pub fn sample(&mut self, now: SimTime) {
        self.sample_at = SimTime::FOREVER;
        for sampler in &mut self.samplers {
            let port = &self.ports[sampler.port as usize];
            while sampler.next_at < now && sampler.series.samples.len() < sampler.samples_max {
                sampler.series.samples.push(DepthSample {
                    at: sampler.next_at,
                    packets_count: port.waiting_count(),
                    bytes: port.waiting_bytes(),
                });
                sampler.next_at += sampler.series.every;
            }
            if sampler.series.samples.len() < sampler.samples_max {
                self.sample_at = self.sample_at.min(sampler.next_at);
            }
        }
    }

    /// Packets that wait, are on wires, or leave for other groups, counted where they are.
    pub fn found_count(&self) -> u64 {
        let waiting: usize = self.ports.iter().map(|port| port.waiting_count() as usize).sum();
        let in_pipes: usize = self.pipes.iter().map(|pipe| self.flights.count(pipe)).sum();
        let found_count = waiting + in_pipes;
        assert_eq!(found_count, self.packets.count(), "packets found, packets in the slab");
        let leaving = self.outboxes.iter().flatten();
        (found_count + leaving.filter(|message| message.packet.is_some()).count()) as u64
    }
}

impl Switch {
    fn choose(&mut self, balance: Balance, token: &Token, count: u32) -> u32 {
        match balance {
            Balance::FlowHash => pick(token.flow, token.to, token.path, self.salt, count),
            Balance::SprayRandom => self.random.up_to(u64::from(count) - 1) as u32,
            Balance::SprayRoundRobin => {
                self.turn = if self.turn + 1 >= count { 0 } else { self.turn + 1 };
                self.turn
            }
        }
    }
}
