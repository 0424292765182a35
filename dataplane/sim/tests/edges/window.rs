//! A window that grows and halves, cumulative acknowledgements, three duplicates, a retransmission timer: TCP's outline.

use std::sync::Arc;

use dataplane_queue::Ecn;
use dataplane_sim::{
    SimTime,
    packet::{Edge, HostApi, Packet},
};

use super::{Flow, flows_from};

#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// A packet's number; of an acknowledgement, that of the packet which is missing.
    number: u32,
    is_ack: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct Sender {
    /// Acknowledged, sent, and the most that was ever sent.
    acked: u32,
    next: u32,
    sent_max: u32,
    window: f32,
    threshold: f32,
    duplicates: u32,
    /// Until that is acknowledged, the window is not halved again.
    recover: u32,
    backoffs: u32,
    pub done_at: SimTime,
}

#[derive(Debug)]
pub struct WindowEdge {
    flows: Arc<[Flow]>,
    pub senders: Vec<Sender>,
    /// By flow: the number of the first missing packet.
    pub expected: Vec<u32>,
    /// What came, a bit for each packet, in so many words for each flow.
    came: Vec<u64>,
    words_per_flow: usize,
    pub rto: SimTime,
    pub done_count: usize,
    capable: bool,
    /// Flows have priorities in turn, so many.
    pub priorities_count: u8,
}

const INITIAL_WINDOW: f32 = 10.0;
const ACK_BYTES: u32 = 64;
const BACKOFFS_MAX: u32 = 8;

impl WindowEdge {
    pub fn new(flows: &Arc<[Flow]>, rto: SimTime, capable: bool) -> WindowEdge {
        let most = flows.iter().map(|flow| flow.packets_count).max().unwrap_or(0);
        let words_per_flow = most.div_ceil(64) as usize;
        let fresh = Sender {
            acked: 0,
            next: 0,
            sent_max: 0,
            window: INITIAL_WINDOW,
            threshold: f32::INFINITY,
            duplicates: 0,
            recover: 0,
            backoffs: 0,
            done_at: SimTime::FOREVER,
        };
        WindowEdge {
            flows: Arc::clone(flows),
            senders: vec![fresh; flows.len()],
            expected: vec![0; flows.len()],
            came: vec![0; flows.len() * words_per_flow],
            words_per_flow,
            rto,
            done_count: 0,
            capable,
            priorities_count: 1,
        }
    }

    fn send(&mut self, flow: u32, host: &mut HostApi<'_, Header>) {
        let spec = self.flows[flow as usize];
        loop {
            let sender = &mut self.senders[flow as usize];
            let end = (sender.acked + sender.window as u32).min(spec.packets_count);
            if sender.next >= end {
                break;
            }
            let number = sender.next;
            sender.next += 1;
            sender.sent_max = sender.sent_max.max(sender.next);
            self.put(flow, number, host);
        }
        let backoffs = self.senders[flow as usize].backoffs;
        let rto = SimTime::from_ps(self.rto.as_ps() << backoffs);
        host.set_timer(flow, 0, host.now() + rto);
    }

    fn put(&self, flow: u32, number: u32, host: &mut HostApi<'_, Header>) {
        let spec = self.flows[flow as usize];
        host.send(self.packet(flow, &spec, number, false));
    }

    fn on_ack(&mut self, flow: u32, number: u32, ecn: Ecn, host: &mut HostApi<'_, Header>) {
        let packets_count = self.flows[flow as usize].packets_count;
        let sender = &mut self.senders[flow as usize];
        if sender.acked == packets_count {
            return;
        }
        if number <= sender.acked {
            sender.duplicates += 1;
            if sender.duplicates == 3 && sender.acked >= sender.recover {
                sender.recover = sender.sent_max;
                sender.threshold = (sender.window / 2.0).max(2.0);
                sender.window = sender.threshold;
                let number = sender.acked;
                self.put(flow, number, host);
            }
            return;
        }
        let more = (number - sender.acked) as f32;
        let is_recovering = number < sender.recover;
        sender.acked = number;
        sender.next = sender.next.max(number);
        sender.duplicates = 0;
        sender.backoffs = 0;
        if ecn == Ecn::Experienced && !is_recovering {
            sender.recover = sender.sent_max;
            sender.threshold = (sender.window / 2.0).max(2.0);
            sender.window = sender.threshold;
        } else if sender.window < sender.threshold {
            sender.window += more;
        } else {
            sender.window += more / sender.window;
        }
        if number == packets_count {
            sender.done_at = host.now();
            self.done_count += 1;
            host.cancel_timer(flow, 0);
            return;
        }
        if is_recovering {
            self.put(flow, number, host);
        }
        self.send(flow, host);
    }

    fn on_data(&mut self, flow: u32, number: u32, ecn: Ecn, host: &mut HostApi<'_, Header>) {
        let words = &mut self.came[flow as usize * self.words_per_flow..];
        words[number as usize / 64] |= 1 << (number % 64);
        let expected = &mut self.expected[flow as usize];
        let count = self.flows[flow as usize].packets_count;
        while *expected < count && words[*expected as usize / 64] >> (*expected % 64) & 1 == 1 {
            *expected += 1;
        }
        let spec = self.flows[flow as usize];
        let number = *expected;
        let mut ack = self.packet(flow, &spec, number, true);
        // The mark goes back as it came.
        ack.ecn = ecn;
        host.send(ack);
    }

    fn packet(&self, flow: u32, spec: &Flow, number: u32, is_ack: bool) -> Packet<Header> {
        let (from, to, bytes) = match is_ack {
            true => (spec.to, spec.from, ACK_BYTES),
            false => (spec.from, spec.to, spec.packet_bytes),
        };
        Packet {
            flow,
            from,
            to,
            bytes,
            priority: (flow % u32::from(self.priorities_count)) as u8,
            ecn: if self.capable { Ecn::Capable } else { Ecn::NotCapable },
            is_control: is_ack,
            is_trimmed: false,
            is_returned: false,
            path: 0,
            header: Header { number, is_ack },
        }
    }
}

impl Edge for WindowEdge {
    type Header = Header;
    const TIMERS_PER_FLOW: u8 = 1;

    fn on_start(&mut self, host: &mut HostApi<'_, Header>) {
        for flow in flows_from(&self.flows, host.host()) {
            host.set_timer(flow as u32, 0, self.flows[flow].start);
        }
    }

    fn on_packet(&mut self, packet: &Packet<Header>, host: &mut HostApi<'_, Header>) {
        let Header { number, is_ack } = packet.header;
        match (is_ack, packet.is_trimmed || packet.is_returned) {
            (true, _) => self.on_ack(packet.flow, number, packet.ecn, host),
            (false, false) => self.on_data(packet.flow, number, packet.ecn, host),
            (false, true) => (),
        }
    }

    fn on_timer(&mut self, flow: u32, _timer: u8, host: &mut HostApi<'_, Header>) {
        let sender = &mut self.senders[flow as usize];
        if sender.sent_max > 0 {
            sender.threshold = (sender.window / 2.0).max(2.0);
            sender.window = 1.0;
            sender.next = sender.acked;
            sender.recover = sender.acked;
            sender.duplicates = 0;
            sender.backoffs = (sender.backoffs + 1).min(BACKOFFS_MAX);
        }
        self.send(flow, host);
    }
}
