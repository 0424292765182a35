//! Receivers that pull, switches that trim: NDP's outline (Handley et al., SIGCOMM'17, section 3). A first window leaves at
//! once; each packet or header that comes earns a pull, and a receiver sends pulls at the rate of its link.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use dataplane_queue::{ETHERNET_OVERHEAD_BYTES, Ecn};
use dataplane_sim::{
    SimTime,
    packet::{Edge, HostApi, Packet, TRIMMED_BYTES},
};

use super::{Flow, flows_from};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Data,
    Ack,
    Nack,
    Pull,
}

#[derive(Clone, Copy, Debug)]
pub struct Header {
    kind: Kind,
    /// Of a packet; of a pull, how many of the flow there were.
    number: u32,
}

#[derive(Clone, Debug, Default)]
pub struct Sender {
    next: u32,
    pulled: u32,
    acked_count: u32,
    /// Numbers whose payload was cut off.
    again: VecDeque<u32>,
    /// What was acknowledged, a bit for each packet.
    acked: Vec<u64>,
    path: u16,
    pub done_at: Option<SimTime>,
    pub retransmitted_count: u32,
}

#[derive(Debug)]
pub struct PullEdge {
    flows: Arc<[Flow]>,
    pub senders: Vec<Sender>,
    /// By flow, at its receiver: how many packets came, which, and how many pulls were sent.
    came: Vec<Vec<u64>>,
    pulls: Vec<u32>,
    /// By host of this group: the flows that wait for a pull, and when the next may go.
    waiting: Vec<VecDeque<u32>>,
    pull_at: Vec<SimTime>,
    hosts: Range<u32>,
    window: u32,
    bits_per_sec: u64,
    rto: SimTime,
    pub done_count: usize,
}

impl PullEdge {
    pub fn new(flows: &Arc<[Flow]>, hosts: Range<u32>, window: u32, bits_per_sec: u64) -> PullEdge {
        PullEdge {
            flows: Arc::clone(flows),
            senders: vec![Sender::default(); flows.len()],
            came: vec![Vec::new(); flows.len()],
            pulls: vec![0; flows.len()],
            waiting: vec![VecDeque::new(); hosts.len()],
            pull_at: vec![SimTime::ZERO; hosts.len()],
            hosts,
            window,
            bits_per_sec,
            rto: SimTime::from_ms(1),
            done_count: 0,
        }
    }

    fn send_next(&mut self, flow: u32, host: &mut HostApi<'_, Header>) {
        let spec = self.flows[flow as usize];
        let sender = &mut self.senders[flow as usize];
        let number = match sender.again.pop_front() {
            Some(number) => {
                sender.retransmitted_count += 1;
                number
            }
            None if sender.next < spec.packets_count => {
                sender.next += 1;
                sender.next - 1
            }
            None => return,
        };
        sender.path = sender.path.wrapping_add(1);
        let path = sender.path;
        host.send(packet(flow, &spec, Kind::Data, number, path));
        host.set_timer(flow, 0, host.now() + self.rto);
    }

    fn on_ack(&mut self, flow: u32, number: u32, host: &mut HostApi<'_, Header>) {
        let count = self.flows[flow as usize].packets_count;
        let sender = &mut self.senders[flow as usize];
        if !set(&mut sender.acked, number) {
            return;
        }
        sender.acked_count += 1;
        if sender.acked_count == count {
            sender.done_at = Some(host.now());
            self.done_count += 1;
            host.cancel_timer(flow, 0);
        }
    }

    /// Something of a flow came: it has earned a pull.
    fn on_data(&mut self, packet: &Packet<Header>, host: &mut HostApi<'_, Header>) {
        let (flow, number) = (packet.flow, packet.header.number);
        let spec = self.flows[flow as usize];
        let kind = match packet.is_trimmed {
            true => Kind::Nack,
            false => {
                set(&mut self.came[flow as usize], number);
                Kind::Ack
            }
        };
        host.send(packet_back(flow, &spec, kind, number, packet.path));
        let local = (host.host() - self.hosts.start) as usize;
        self.waiting[local].push_back(flow);
        if self.waiting[local].len() == 1 {
            let at = self.pull_at[local].max(host.now());
            host.set_timer(self.pacer(host.host()), 1, at);
        }
    }

    /// The flow whose timer is a host's: its number says nothing of groups.
    fn pacer(&self, host: u32) -> u32 {
        self.flows.len() as u32 + host
    }

    fn pull(&mut self, host: &mut HostApi<'_, Header>) {
        let local = (host.host() - self.hosts.start) as usize;
        let Some(flow) = self.waiting[local].pop_front() else {
            return;
        };
        let spec = self.flows[flow as usize];
        self.pulls[flow as usize] += 1;
        let pulls = self.pulls[flow as usize];
        host.send(packet_back(flow, &spec, Kind::Pull, pulls, pulls as u16));
        let bits = u64::from(spec.packet_bytes + ETHERNET_OVERHEAD_BYTES) * 8;
        self.pull_at[local] = host.now() + SimTime::from_ps(bits * 1_000_000_000_000 / self.bits_per_sec);
        if !self.waiting[local].is_empty() {
            host.set_timer(self.pacer(host.host()), 1, self.pull_at[local]);
        }
    }
}

/// Sets a bit; whether it was not set before.
fn set(words: &mut Vec<u64>, bit: u32) -> bool {
    let word = bit as usize / 64;
    if word >= words.len() {
        words.resize(word + 1, 0);
    }
    let is_new = words[word] >> (bit % 64) & 1 == 0;
    words[word] |= 1 << (bit % 64);
    is_new
}

fn packet_back(flow: u32, spec: &Flow, kind: Kind, number: u32, path: u16) -> Packet<Header> {
    let (from, to) = (spec.to, spec.from);
    let bytes = TRIMMED_BYTES;
    Packet {
        from,
        to,
        bytes,
        is_control: true,
        ..packet(flow, spec, kind, number, path)
    }
}

fn packet(flow: u32, spec: &Flow, kind: Kind, number: u32, path: u16) -> Packet<Header> {
    Packet {
        flow,
        from: spec.from,
        to: spec.to,
        bytes: spec.packet_bytes,
        priority: 0,
        ecn: Ecn::NotCapable,
        is_control: false,
        is_trimmed: false,
        is_returned: false,
        path,
        header: Header { kind, number },
    }
}

impl Edge for PullEdge {
    type Header = Header;
    const TIMERS_PER_FLOW: u8 = 2;

    fn on_start(&mut self, host: &mut HostApi<'_, Header>) {
        for flow in flows_from(&self.flows, host.host()) {
            host.set_timer(flow as u32, 0, self.flows[flow].start);
        }
    }

    fn on_packet(&mut self, packet: &Packet<Header>, host: &mut HostApi<'_, Header>) {
        let (flow, Header { kind, number }) = (packet.flow, packet.header);
        if packet.is_returned {
            // It found no room, not even for its header: once more.
            self.senders[flow as usize].again.push_back(number);
            return self.send_next(flow, host);
        }
        match kind {
            Kind::Data => self.on_data(packet, host),
            Kind::Ack => self.on_ack(flow, number, host),
            Kind::Nack => self.senders[flow as usize].again.push_back(number),
            Kind::Pull => {
                let sender = &mut self.senders[flow as usize];
                let count = number.saturating_sub(sender.pulled);
                sender.pulled = number.max(sender.pulled);
                (0..count).for_each(|_| self.send_next(flow, host));
            }
        }
    }

    fn on_timer(&mut self, flow: u32, timer: u8, host: &mut HostApi<'_, Header>) {
        if timer == 1 {
            return self.pull(host);
        }
        let spec = self.flows[flow as usize];
        let sender = &mut self.senders[flow as usize];
        if sender.next == 0 {
            let window = self.window.min(spec.packets_count);
            (0..window).for_each(|_| self.send_next(flow, host));
            return;
        }
        // Silence: what is not acknowledged may be lost. One goes again; what it earns brings the rest.
        let missing = (0..sender.next).find(|&number| !is_set(&sender.acked, number));
        sender.again.extend(missing);
        self.send_next(flow, host);
    }
}

fn is_set(words: &[u64], bit: u32) -> bool {
    words
        .get(bit as usize / 64)
        .is_some_and(|word| word >> (bit % 64) & 1 == 1)
}
