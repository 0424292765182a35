//! The TCP of `dataplane-transports` at hosts of the simulator: enough of the seam for a measurement. `bench` has all of it.

use std::sync::Arc;

use dataplane_queue::Ecn;
use dataplane_sim::{
    SimTime,
    packet::{Edge, HostApi, Packet},
};
use dataplane_transports::{AnyController, ControllerKind, Receiver, ReceiverOptions, Segment, Sender, SenderOptions};
use dataplane_waist::Instant;

use super::{Flow, flows_from};

/// An Ethernet header; the check sequence is counted with the wire's overhead (IEEE 802.3 §3.1.1).
const ETHERNET_HEADER_BYTES: u32 = 14;

const SENDER: u8 = 0;
const RECEIVER: u8 = 1;

#[derive(Clone, Copy, Debug)]
pub struct Header {
    segment: Segment,
    is_ack: bool,
}

pub struct TcpEdge {
    flows: Arc<[Flow]>,
    bytes_per_flow: u64,
    senders: Vec<Sender<AnyController>>,
    receivers: Vec<Receiver>,
    pub done_count: usize,
    /// Flows have priorities in turn, so many.
    pub priorities_count: u8,
}

impl TcpEdge {
    pub fn new(
        flows: &Arc<[Flow]>,
        bytes_per_flow: u64,
        kind: ControllerKind,
        sender: &SenderOptions,
        receiver: &ReceiverOptions,
    ) -> TcpEdge {
        TcpEdge {
            flows: Arc::clone(flows),
            bytes_per_flow,
            senders: flows.iter().map(|_| Sender::new(sender, kind.build(sender))).collect(),
            receivers: flows.iter().map(|_| Receiver::new(receiver)).collect(),
            done_count: 0,
            priorities_count: 1,
        }
    }

    fn send(&mut self, flow: u32, now: Instant, host: &mut HostApi<'_, Header>) {
        let spec = self.flows[flow as usize];
        let sender = &mut self.senders[flow as usize];
        while let Some(segment) = sender.poll_transmit(now) {
            host.send(packet(
                flow,
                self.priorities_count,
                (spec.from, spec.to),
                segment,
                false,
            ));
        }
        wake(flow, SENDER, sender.wake_at(), host);
    }

    fn answer(&mut self, flow: u32, now: Instant, host: &mut HostApi<'_, Header>) {
        let spec = self.flows[flow as usize];
        let receiver = &mut self.receivers[flow as usize];
        while let Some(segment) = receiver.poll_transmit(now) {
            host.send(packet(flow, self.priorities_count, (spec.to, spec.from), segment, true));
        }
        wake(flow, RECEIVER, receiver.wake_at(), host);
    }
}

fn wake(flow: u32, timer: u8, at: Option<Instant>, host: &mut HostApi<'_, Header>) {
    match at {
        Some(at) => host.set_timer(flow, timer, SimTime::from_ns(at.as_ns())),
        None => host.cancel_timer(flow, timer),
    }
}

fn packet(flow: u32, priorities_count: u8, ends: (u32, u32), segment: Segment, is_ack: bool) -> Packet<Header> {
    let (from, to) = ends;
    Packet {
        flow,
        from,
        to,
        bytes: segment.ip_bytes() + ETHERNET_HEADER_BYTES,
        priority: (flow % u32::from(priorities_count)) as u8,
        ecn: if segment.ect { Ecn::Capable } else { Ecn::NotCapable },
        is_control: is_ack,
        is_trimmed: false,
        is_returned: false,
        path: 0,
        header: Header { segment, is_ack },
    }
}

impl Edge for TcpEdge {
    type Header = Header;
    const TIMERS_PER_FLOW: u8 = 2;

    fn on_start(&mut self, host: &mut HostApi<'_, Header>) {
        for flow in flows_from(&self.flows, host.host()) {
            host.set_timer(flow as u32, SENDER, self.flows[flow].start);
        }
    }

    fn on_packet(&mut self, packet: &Packet<Header>, host: &mut HostApi<'_, Header>) {
        // TCP knows neither: what lost its payload or came back is lost.
        if packet.is_trimmed || packet.is_returned {
            return;
        }
        let now = Instant::from_ns(host.now().as_ns());
        let (flow, Header { segment, is_ack }) = (packet.flow, &packet.header);
        if !is_ack {
            let is_marked = packet.ecn == Ecn::Experienced;
            self.receivers[flow as usize].on_segment(now, segment, is_marked);
            return self.answer(flow, now, host);
        }
        let sender = &mut self.senders[flow as usize];
        let was_done = sender.done();
        sender.on_segment(now, segment);
        self.done_count += usize::from(sender.done() && !was_done);
        self.send(flow, now, host);
    }

    fn on_timer(&mut self, flow: u32, timer: u8, host: &mut HostApi<'_, Header>) {
        let now = Instant::from_ns(host.now().as_ns());
        if timer == RECEIVER {
            self.receivers[flow as usize].on_wake(now);
            return self.answer(flow, now, host);
        }
        let sender = &mut self.senders[flow as usize];
        match sender.sent_bytes() == 0 && sender.outstanding_bytes() == 0 && sender.done() {
            // The first time: the flow begins.
            true => sender.write(self.bytes_per_flow),
            false => sender.on_wake(now),
        }
        self.send(flow, now, host);
    }
}
