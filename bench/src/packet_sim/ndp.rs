//! The edge of the network when it speaks NDP: senders, receivers, and each host's one queue of pulls.

use std::{ops::Range, sync::Arc};

use dataplane_queue::{ETHERNET_OVERHEAD_BYTES, Ecn};
use dataplane_sim::{
    SimTime,
    packet::{Edge, HostApi, Packet, TRIMMED_BYTES},
};
use dataplane_transports::ndp::{NdpKind, NdpOptions, NdpPacket, NdpReceiver, NdpSender, PullPacer};
use dataplane_waist::Instant;

/// Of a flow's sender. A host's pacer has the first timer of a flow behind the last.
const SENDER_TIMER: u8 = 0;
const RECEIVER_TIMER: u8 = 1;
const START_TIMER: u8 = 2;

/// No place: this end of the flow is on a host of another group.
const ELSEWHERE: u32 = u32::MAX;

/// A flow. Its number is its place in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NdpFlow {
    /// The host that sends.
    pub from: u32,
    /// The host that receives.
    pub to: u32,
    /// How much.
    pub bytes: u64,
    /// When it begins.
    pub start: SimTime,
}

/// The frame of a full packet: a header of 64 B, which is what trimming leaves, and the payload.
pub fn frame_bytes(payload_bytes: u32) -> u32 {
    TRIMMED_BYTES + payload_bytes
}

/// The flows' ends on the hosts of one group.
#[derive(Debug)]
pub struct NdpHosts {
    flows: Arc<[NdpFlow]>,
    hosts: Range<u32>,
    /// By flow: the places of its ends below.
    sender_places: Vec<u32>,
    receiver_places: Vec<u32>,
    senders: Vec<Sending>,
    receivers: Vec<Receiving>,
    /// By host of this group.
    pacers: Vec<PullPacer>,
    /// Flows that have arrived whole: when, and which.
    pub ended: Vec<(SimTime, u32)>,
}

#[derive(Debug)]
struct Sending {
    half: NdpSender,
    /// Each packet takes another path.
    path: u16,
}

#[derive(Debug)]
struct Receiving {
    half: NdpReceiver,
    /// It waits in its host's queue of pulls.
    is_queued: bool,
    is_whole: bool,
}

/// What all flows' senders counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NdpCounts {
    /// Data packets sent, those sent again among them.
    pub packets_count: u64,
    /// Packets sent again.
    pub retransmissions_count: u64,
    /// Nacks.
    pub nacks_count: u64,
    /// Headers that came back.
    pub returned_count: u64,
    /// Packets that nothing was heard of.
    pub timeouts_count: u64,
    /// The most headers that came back to one flow.
    pub returned_count_max: u64,
}

fn instant(at: SimTime) -> Instant {
    Instant::from_ns(at.as_ns())
}

fn sim_time(at: Instant) -> SimTime {
    SimTime::from_ns(at.as_ns())
}

impl NdpHosts {
    /// The ends that are on `hosts`, whose links carry `bits_per_sec`.
    pub fn new(flows: &Arc<[NdpFlow]>, hosts: Range<u32>, options: &NdpOptions, bits_per_sec: u64) -> NdpHosts {
        let wire_bytes = frame_bytes(options.payload_bytes) + ETHERNET_OVERHEAD_BYTES;
        let mut edge = NdpHosts {
            flows: Arc::clone(flows),
            hosts: hosts.clone(),
            sender_places: vec![ELSEWHERE; flows.len()],
            receiver_places: vec![ELSEWHERE; flows.len()],
            senders: Vec::new(),
            receivers: Vec::new(),
            pacers: hosts
                .clone()
                .map(|_| PullPacer::new(bits_per_sec, wire_bytes))
                .collect(),
            ended: Vec::new(),
        };
        for (number, flow) in flows.iter().enumerate() {
            if hosts.contains(&flow.from) {
                edge.sender_places[number] = edge.senders.len() as u32;
                edge.senders.push(Sending {
                    half: NdpSender::new(options, flow.bytes),
                    path: 0,
                });
            }
            if hosts.contains(&flow.to) {
                edge.receiver_places[number] = edge.receivers.len() as u32;
                edge.receivers.push(Receiving {
                    half: NdpReceiver::new(options),
                    is_queued: false,
                    is_whole: false,
                });
            }
        }
        edge
    }

    /// Adds what the senders here counted.
    pub fn add_counts(&self, counts: &mut NdpCounts) {
        for sender in &self.senders {
            let stats = sender.half.stats();
            counts.packets_count += stats.packets_count;
            counts.retransmissions_count += stats.retransmissions_count;
            counts.nacks_count += stats.nacks_count;
            counts.returned_count += stats.returned_count;
            counts.timeouts_count += stats.timeouts_count;
            counts.returned_count_max = counts.returned_count_max.max(stats.returned_count);
        }
    }

    /// Sends what has credit, and waits for what is next.
    fn pump_sender(&mut self, number: u32, host: &mut HostApi<'_, NdpPacket>) {
        let flow = self.flows[number as usize];
        let sender = &mut self.senders[self.sender_places[number as usize] as usize];
        while let Some(data) = sender.half.poll_transmit(instant(host.now())) {
            sender.path = sender.path.wrapping_add(1);
            host.send(Packet {
                bytes: frame_bytes(data.len_bytes),
                is_control: false,
                ..control(number, flow.from, flow.to, sender.path, data)
            });
        }
        set_timer(host, number, SENDER_TIMER, sender.half.wake_at());
    }

    fn on_data(&mut self, packet: &Packet<NdpPacket>, host: &mut HostApi<'_, NdpPacket>) {
        let number = packet.flow;
        let receiving = &mut self.receivers[self.receiver_places[number as usize] as usize];
        let answer = receiving
            .half
            .on_data(instant(host.now()), &packet.header, packet.is_trimmed);
        if let Some(answer) = answer {
            host.send(control(number, packet.to, packet.from, packet.path, answer));
        }
        if receiving.half.done() && !receiving.is_whole {
            receiving.is_whole = true;
            self.ended.push((host.now(), number));
        }
        set_timer(host, number, RECEIVER_TIMER, receiving.half.wake_at());
        self.queue_pulls(number, host);
    }

    /// Puts a flow into its host's queue of pulls, if it owes any and is not there.
    fn queue_pulls(&mut self, number: u32, host: &mut HostApi<'_, NdpPacket>) {
        let receiving = &mut self.receivers[self.receiver_places[number as usize] as usize];
        if receiving.half.owes_pulls() && !receiving.is_queued {
            receiving.is_queued = true;
            self.pacers[(host.host() - self.hosts.start) as usize].add(number, false);
            self.pump_pulls(host);
        }
    }

    /// Sends the pulls whose time has come.
    fn pump_pulls(&mut self, host: &mut HostApi<'_, NdpPacket>) {
        let me = host.host();
        let now = instant(host.now());
        let pacer = &mut self.pacers[(me - self.hosts.start) as usize];
        let (receivers, places) = (&mut self.receivers, &self.receiver_places);
        let mut take = |number: u32| {
            let receiving = &mut receivers[places[number as usize] as usize];
            let pull = receiving.half.pull(now);
            receiving.is_queued = pull.is_some() && receiving.half.owes_pulls();
            pull.map(|pull| (pull, receiving.is_queued))
        };
        let mut pulled: Option<u32> = None;
        while let Some((number, pull)) = pacer.poll(now, &mut take) {
            let to = self.flows[number as usize].from;
            host.send(control(number, me, to, pull.pulls_count as u16, pull));
            debug_assert!(pulled.is_none(), "a pull takes the link some time");
            pulled = Some(number);
        }
        set_timer(host, self.flows.len() as u32 + me, SENDER_TIMER, pacer.wake_at());
        if let Some(number) = pulled {
            let receiving = &self.receivers[self.receiver_places[number as usize] as usize];
            set_timer(host, number, RECEIVER_TIMER, receiving.half.wake_at());
        }
    }
}

impl Edge for NdpHosts {
    type Header = NdpPacket;
    const TIMERS_PER_FLOW: u8 = START_TIMER + 1;

    fn on_start(&mut self, host: &mut HostApi<'_, NdpPacket>) {
        for (number, flow) in (0_u32..).zip(self.flows.iter()) {
            if flow.from == host.host() {
                host.set_timer(number, START_TIMER, flow.start);
            }
        }
    }

    fn on_packet(&mut self, packet: &Packet<NdpPacket>, host: &mut HostApi<'_, NdpPacket>) {
        if packet.header.kind == NdpKind::Data && !packet.is_returned {
            return self.on_data(packet, host);
        }
        let sender = &mut self.senders[self.sender_places[packet.flow as usize] as usize].half;
        match packet.is_returned {
            true => sender.on_returned(instant(host.now()), &packet.header),
            false => sender.on_packet(instant(host.now()), &packet.header),
        }
        self.pump_sender(packet.flow, host);
    }

    fn on_timer(&mut self, number: u32, timer: u8, host: &mut HostApi<'_, NdpPacket>) {
        if number as usize >= self.flows.len() {
            return self.pump_pulls(host);
        }
        if timer == RECEIVER_TIMER {
            let receiving = &mut self.receivers[self.receiver_places[number as usize] as usize].half;
            receiving.on_wake(instant(host.now()));
            set_timer(host, number, RECEIVER_TIMER, receiving.wake_at());
            return self.queue_pulls(number, host);
        }
        if timer == SENDER_TIMER {
            let sender = &mut self.senders[self.sender_places[number as usize] as usize].half;
            sender.on_wake(instant(host.now()));
        }
        self.pump_sender(number, host);
    }
}

fn control(flow: u32, from: u32, to: u32, path: u16, header: NdpPacket) -> Packet<NdpPacket> {
    Packet {
        flow,
        from,
        to,
        bytes: TRIMMED_BYTES,
        priority: 0,
        ecn: Ecn::NotCapable,
        is_control: true,
        is_trimmed: false,
        is_returned: false,
        path,
        header,
    }
}

fn set_timer(host: &mut HostApi<'_, NdpPacket>, flow: u32, timer: u8, at: Option<Instant>) {
    match at {
        Some(at) => host.set_timer(flow, timer, sim_time(at)),
        None => host.cancel_timer(flow, timer),
    }
}
