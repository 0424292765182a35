//! The edge of the network: TCP's halves on their hosts, and the questions that make them send.

use std::{ops::Range, sync::Arc};

use dataplane_queue::Ecn;
use dataplane_sim::{
    SimTime,
    packet::{Edge, HostApi, Packet},
};
use dataplane_transports::{AnyController, Controller, Receiver, Segment, Sender};
use dataplane_waist::Instant;

use super::{
    outcome::QueryRecord,
    quinn::{Payloads, QuinnFlows},
    setup::{Flow, FlowKind, Query, Setup},
};

/// Ethernet's header; the check sequence belongs to what the wire adds.
const ETHERNET_HEADER_BYTES: u32 = 14;
/// The shortest frame, without its check sequence (IEEE 802.3, clause 4.2.3.3).
pub(super) const FRAME_BYTES_MIN: u32 = 60;

const SENDER_TIMER: u8 = 0;
const RECEIVER_TIMER: u8 = 1;
/// What the two ends of any flow wait by.
#[cfg_attr(not(feature = "quinn"), expect(dead_code, reason = "quinn's ends use them"))]
pub(super) const TIMERS: (u8, u8) = (SENDER_TIMER, RECEIVER_TIMER);
/// A flow begins, or a server has thought about its answer.
const WRITE_TIMER: u8 = 2;
/// A query is asked; the flow is its first.
const ASK_TIMER: u8 = 3;
/// A question of which nothing has been heard is asked again.
const RETRY_TIMER: u8 = 4;
/// The sender's host comes to what acknowledgements allow.
const PROCESSING_TIMER: u8 = 5;

/// No place: this end of the flow is on a host of another group.
const ELSEWHERE: u32 = u32::MAX;

/// What a packet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// A segment of TCP.
    Segment(Segment),
    /// The question of a query, in so many rounds before it.
    Ask {
        /// The round's number.
        round: u32,
    },
    /// A datagram of quinn's.
    Datagram {
        /// Where its bytes wait.
        place: u32,
    },
}

/// What is seen of a sending half from outside, whatever transport it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sending {
    /// What its controller allows to be in flight.
    pub window_bytes: u64,
    /// What is thought to be in the network.
    pub in_flight_bytes: u64,
    /// Smoothed round trip, 0 before the first.
    pub srtt_ns: u64,
    /// Its controller is in slow start.
    pub is_slow_start: bool,
    /// Retransmission timers that fired.
    pub timeouts_count: u64,
    /// Data segments that were sent, and those that were sent again.
    pub segments_count: u64,
    /// Segments sent again.
    pub retransmissions_count: u64,
}

/// A query in the asking.
#[derive(Clone, Copy, Debug)]
struct Asking {
    begun: SimTime,
    rounds_done_count: u32,
    waiting_count: u32,
}

/// The flows' ends on the hosts of one group.
#[derive(Debug)]
pub struct Hosts {
    flows: Arc<[Flow]>,
    queries: Arc<[Query]>,
    seed: u64,
    processing: SimTime,
    /// By flow: the places of its ends below.
    sender_places: Vec<u32>,
    receiver_places: Vec<u32>,
    senders: Vec<Sender<AnyController>>,
    /// By sender: rounds whose question has come. One that is asked twice is answered once.
    asked_counts: Vec<u32>,
    /// By sender: acknowledgements are there with which its host has not dealt.
    is_processing: Vec<bool>,
    receivers: Vec<Receiving>,
    /// Flows that are none of TCP's.
    quinn: QuinnFlows,
    /// By query.
    asking: Vec<Asking>,
    /// Finished rounds.
    pub(super) rounds: Vec<QueryRecord>,
    /// When retransmission timers fired, and of which flow.
    pub(super) timeouts: Vec<(SimTime, u32)>,
    /// When finite flows had arrived.
    pub(super) ended: Vec<(SimTime, u32)>,
    /// Finite flows and rounds that are not finished.
    pub(super) unfinished_count: u64,
}

/// The receiving half, and when what was asked for is there.
#[derive(Debug)]
struct Receiving {
    half: Receiver,
    due_bytes: u64,
}

fn instant(at: SimTime) -> Instant {
    Instant::from_ns(at.as_ns())
}

impl Hosts {
    /// The ends that are on `hosts`, all that there are.
    pub fn new(setup: &Setup, hosts: Range<u32>) -> Hosts {
        Hosts::with_payloads(setup, hosts, Payloads::default())
    }

    /// The ends that are on `hosts`; the groups of a run share what is under way.
    pub fn with_payloads(setup: &Setup, hosts: Range<u32>, payloads: Payloads) -> Hosts {
        let mut edge = Hosts {
            flows: setup.flows.clone(),
            queries: setup.queries.clone(),
            seed: setup.seed,
            processing: setup.host_processing,
            sender_places: vec![ELSEWHERE; setup.flows.len()],
            receiver_places: vec![ELSEWHERE; setup.flows.len()],
            senders: Vec::new(),
            asked_counts: Vec::new(),
            is_processing: Vec::new(),
            receivers: Vec::new(),
            quinn: QuinnFlows::new(setup, &hosts, payloads),
            asking: Vec::new(),
            rounds: Vec::new(),
            timeouts: Vec::new(),
            ended: Vec::new(),
            unfinished_count: 0,
        };
        for (number, flow) in (0_u32..).zip(setup.flows.iter()) {
            let options = &setup.options[usize::from(flow.options)];
            let is_tcp = options.quinn.is_none();
            if hosts.contains(&flow.from) && is_tcp {
                let mut sender = options.sender;
                sender.seed = mix(edge.seed, number.into());
                sender.timer_tick_phase = edge.phase(flow.from, sender.timer_tick);
                edge.sender_places[number as usize] = edge.senders.len() as u32;
                edge.senders.push(Sender::new(&sender, options.controller(&sender)));
                edge.asked_counts.push(0);
                edge.is_processing.push(false);
            }
            if hosts.contains(&flow.to) {
                edge.unfinished_count += u64::from(matches!(flow.kind, FlowKind::Finite { .. }));
            }
            if hosts.contains(&flow.to) && is_tcp {
                let mut receiver = options.receiver;
                receiver.timer_tick_phase = edge.phase(flow.to, receiver.timer_tick);
                let due_bytes = match flow.kind {
                    FlowKind::Finite { bytes, .. } => bytes,
                    FlowKind::Answer { .. } | FlowKind::Endless { .. } => u64::MAX,
                };
                edge.receiver_places[number as usize] = edge.receivers.len() as u32;
                let half = Receiver::new(&receiver);
                edge.receivers.push(Receiving { half, due_bytes });
            }
        }
        for query in setup.queries.iter() {
            edge.asking.push(Asking {
                begun: SimTime::ZERO,
                rounds_done_count: 0,
                waiting_count: 0,
            });
            let is_here = hosts.contains(&query.client);
            edge.unfinished_count += if is_here { u64::from(query.rounds_count) } else { 0 };
        }
        edge
    }

    /// Hosts were not switched on in the same instant: each has its ticks elsewhere.
    fn phase(&self, host: u32, tick: std::time::Duration) -> std::time::Duration {
        let tick_ns = tick.as_nanos() as u64;
        let drawn = mix(self.seed ^ 0x7069_636b, host.into());
        std::time::Duration::from_nanos(drawn.checked_rem(tick_ns).unwrap_or(0))
    }

    /// What a flow's sending half has come to, if its host is here.
    pub fn sending(&self, flow: u32) -> Option<Sending> {
        let Some(sender) = self.sender(flow) else {
            return self.quinn.sending(flow);
        };
        let stats = sender.stats();
        Some(Sending {
            window_bytes: sender.controller().window_bytes(),
            in_flight_bytes: sender.in_flight_bytes(),
            srtt_ns: sender.srtt_ns(),
            is_slow_start: sender.controller().is_slow_start(),
            timeouts_count: stats.timeouts_count.into(),
            segments_count: stats.segments_count,
            retransmissions_count: stats.retransmissions_count,
        })
    }

    /// Payload of a flow that has arrived in order, if its receiver is here.
    pub fn received_bytes(&self, flow: u32) -> Option<u64> {
        let tcp = self.receiver(flow).map(Receiver::received_bytes);
        tcp.or_else(|| self.quinn.received_bytes(flow))
    }

    /// The sending half of a flow, if its host is here.
    pub fn sender(&self, flow: u32) -> Option<&Sender<AnyController>> {
        self.senders.get(self.sender_places[flow as usize] as usize)
    }

    /// The receiving half of a flow, if its host is here.
    pub fn receiver(&self, flow: u32) -> Option<&Receiver> {
        self.receivers
            .get(self.receiver_places[flow as usize] as usize)
            .map(|receiving| &receiving.half)
    }

    /// When finite flows had arrived, and which.
    pub fn arrivals(&self) -> &[(SimTime, u32)] {
        &self.ended
    }

    /// Sends what may leave, and waits for what is next.
    fn pump_sender(&mut self, number: u32, host: &mut HostApi<'_, Header>) {
        let flow = self.flows[number as usize];
        let sender = &mut self.senders[self.sender_places[number as usize] as usize];
        let now = instant(host.now());
        while let Some(segment) = sender.poll_transmit(now) {
            host.send(packet(number, flow.from, flow.to, segment));
        }
        set_timer(host, number, SENDER_TIMER, sender.wake_at());
    }

    fn pump_receiver(&mut self, number: u32, host: &mut HostApi<'_, Header>) {
        let flow = self.flows[number as usize];
        let receiver = &mut self.receivers[self.receiver_places[number as usize] as usize].half;
        let now = instant(host.now());
        while let Some(segment) = receiver.poll_transmit(now) {
            host.send(packet(number, flow.to, flow.from, segment));
        }
        set_timer(host, number, RECEIVER_TIMER, receiver.wake_at());
    }

    fn on_data(&mut self, number: u32, segment: &Segment, is_marked: bool, host: &mut HostApi<'_, Header>) {
        let receiving = &mut self.receivers[self.receiver_places[number as usize] as usize];
        receiving.half.on_segment(instant(host.now()), segment, is_marked);
        let is_there = receiving.half.received_bytes() >= receiving.due_bytes;
        if is_there {
            receiving.due_bytes = u64::MAX;
        }
        self.pump_receiver(number, host);
        if is_there {
            self.on_whole(number, host);
        }
    }

    /// All that was asked of a flow has arrived.
    fn on_whole(&mut self, number: u32, host: &mut HostApi<'_, Header>) {
        let FlowKind::Answer { query: index } = self.flows[number as usize].kind else {
            self.ended.push((host.now(), number));
            self.unfinished_count -= 1;
            return;
        };
        host.cancel_timer(number, RETRY_TIMER);
        let (query, asking) = (&self.queries[index as usize], &mut self.asking[index as usize]);
        asking.waiting_count -= 1;
        if asking.waiting_count > 0 {
            return;
        }
        self.unfinished_count -= 1;
        self.rounds.push(QueryRecord {
            query: index,
            begun: asking.begun,
            ended: host.now(),
        });
        asking.rounds_done_count += 1;
        if asking.rounds_done_count < query.rounds_count {
            host.set_timer(query.flows_first, ASK_TIMER, host.now() + query.pause);
        }
    }

    /// Asks all servers of a query.
    fn ask(&mut self, index: u32, host: &mut HostApi<'_, Header>) {
        let query = self.queries[index as usize];
        let asking = &mut self.asking[index as usize];
        (asking.begun, asking.waiting_count) = (host.now(), query.flows_count);
        for number in query.flows_of(asking.rounds_done_count) {
            let receiving = &mut self.receivers[self.receiver_places[number as usize] as usize];
            receiving.due_bytes = receiving.half.received_bytes() + query.answer_bytes;
            // A question carries the acknowledgement that waited for something to travel with.
            if let Some(at) = receiving.half.wake_at() {
                receiving.half.on_wake(at);
                self.pump_receiver(number, host);
            }
            self.ask_one(number, index, host);
        }
    }

    /// Asks one server, and again after the least retransmission timeout if nothing is heard: a question is a segment, too.
    fn ask_one(&self, number: u32, index: u32, host: &mut HostApi<'_, Header>) {
        let (flow, query) = (self.flows[number as usize], &self.queries[index as usize]);
        let round = self.asking[index as usize].rounds_done_count;
        host.send(Packet {
            bytes: query.request_bytes.max(FRAME_BYTES_MIN),
            header: Header::Ask { round },
            ..packet(number, flow.to, flow.from, Segment::default())
        });
        host.set_timer(number, RETRY_TIMER, host.now() + query.retry);
    }

    /// A question has been open for a while: was it lost?
    fn retry(&mut self, number: u32, host: &mut HostApi<'_, Header>) {
        let FlowKind::Answer { query: index } = self.flows[number as usize].kind else {
            return;
        };
        let receiving = &self.receivers[self.receiver_places[number as usize] as usize];
        let answer_bytes = self.queries[index as usize].answer_bytes;
        if receiving.due_bytes.checked_sub(answer_bytes) == Some(receiving.half.received_bytes()) {
            self.timeouts.push((host.now(), number));
            self.ask_one(number, index, host);
        }
    }

    /// Gives the sending half what it is to send.
    fn write(&mut self, number: u32, host: &mut HostApi<'_, Header>) {
        /// Nothing sends an exabyte, and sums of it still fit.
        const ENDLESS_BYTES: u64 = 1 << 60;
        let bytes = match self.flows[number as usize].kind {
            FlowKind::Answer { query } => self.queries[query as usize].answer_bytes,
            FlowKind::Finite { bytes, .. } => bytes,
            FlowKind::Endless { .. } => ENDLESS_BYTES,
        };
        if self.quinn.has(number) {
            return self.quinn.write(number, bytes, host);
        }
        self.senders[self.sender_places[number as usize] as usize].write(bytes);
        self.pump_sender(number, host);
    }
}

impl Edge for Hosts {
    type Header = Header;
    const TIMERS_PER_FLOW: u8 = PROCESSING_TIMER + 1;

    fn on_start(&mut self, host: &mut HostApi<'_, Header>) {
        let me = host.host();
        for (number, flow) in (0_u32..).zip(self.flows.clone().iter()) {
            if let FlowKind::Finite { start, .. } | FlowKind::Endless { start } = flow.kind
                && flow.from == me
            {
                host.set_timer(number, WRITE_TIMER, start);
            }
        }
        for query in self.queries.clone().iter().filter(|query| query.client == me) {
            host.set_timer(query.flows_first, ASK_TIMER, query.start);
        }
    }

    fn on_packet(&mut self, packet: &Packet<Header>, host: &mut HostApi<'_, Header>) {
        let number = packet.flow;
        match &packet.header {
            Header::Segment(segment) if segment.len_bytes > 0 => {
                self.on_data(number, segment, packet.ecn == Ecn::Experienced, host);
            }
            Header::Segment(segment) => {
                let place = self.sender_places[number as usize] as usize;
                self.senders[place].on_segment(instant(host.now()), segment);
                match self.processing {
                    SimTime::ZERO => self.pump_sender(number, host),
                    most if !self.is_processing[place] => {
                        self.is_processing[place] = true;
                        let later = host.random_span(most);
                        host.set_timer(number, PROCESSING_TIMER, host.now() + later);
                    }
                    _ => {}
                }
            }
            &Header::Datagram { place } => {
                if self.quinn.on_packet(packet, place, host) {
                    self.on_whole(number, host);
                }
            }
            &Header::Ask { round } => {
                let FlowKind::Answer { query } = self.flows[number as usize].kind else {
                    return;
                };
                let asked_count = &mut self.asked_counts[self.sender_places[number as usize] as usize];
                if round < *asked_count {
                    return;
                }
                *asked_count = round + 1;
                match self.queries[query as usize].jitter {
                    SimTime::ZERO => self.write(number, host),
                    jitter => {
                        let later = host.random_span(jitter);
                        host.set_timer(number, WRITE_TIMER, host.now() + later);
                    }
                }
            }
        }
    }

    fn on_timer(&mut self, number: u32, timer: u8, host: &mut HostApi<'_, Header>) {
        match timer {
            SENDER_TIMER | RECEIVER_TIMER if self.quinn.has(number) => self.quinn.on_timer(number, host),
            SENDER_TIMER => {
                let sender = &mut self.senders[self.sender_places[number as usize] as usize];
                let before_count = sender.stats().timeouts_count;
                sender.on_wake(instant(host.now()));
                if sender.stats().timeouts_count > before_count {
                    self.timeouts.push((host.now(), number));
                }
                self.pump_sender(number, host);
            }
            RECEIVER_TIMER => {
                let receiver = &mut self.receivers[self.receiver_places[number as usize] as usize].half;
                receiver.on_wake(instant(host.now()));
                self.pump_receiver(number, host);
            }
            PROCESSING_TIMER => {
                self.is_processing[self.sender_places[number as usize] as usize] = false;
                self.pump_sender(number, host);
            }
            WRITE_TIMER => self.write(number, host),
            RETRY_TIMER => self.retry(number, host),
            _ => {
                if let FlowKind::Answer { query } = self.flows[number as usize].kind {
                    self.ask(query, host);
                }
            }
        }
    }
}

fn packet(flow: u32, from: u32, to: u32, segment: Segment) -> Packet<Header> {
    Packet {
        flow,
        from,
        to,
        bytes: (segment.ip_bytes() + ETHERNET_HEADER_BYTES).max(FRAME_BYTES_MIN),
        priority: 0,
        ecn: if segment.ect { Ecn::Capable } else { Ecn::NotCapable },
        is_control: segment.len_bytes == 0,
        is_trimmed: false,
        is_returned: false,
        path: 0,
        header: Header::Segment(segment),
    }
}

fn set_timer(host: &mut HostApi<'_, Header>, flow: u32, timer: u8, at: Option<Instant>) {
    match at {
        Some(at) => host.set_timer(flow, timer, SimTime::from_ns(at.as_ns())),
        None => host.cancel_timer(flow, timer),
    }
}

/// A number that looks drawn, of two.
pub(super) fn mix(a: u64, b: u64) -> u64 {
    let mut mixed = a ^ b.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for _ in 0..2 {
        mixed = (mixed ^ (mixed >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    }
    mixed ^ (mixed >> 29)
}
