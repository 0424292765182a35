//! The edge of the network when it speaks Homa: calls and their answers of the same length, as the paper's echo servers give them.

use std::{ops::Range, sync::Arc};

use dataplane_queue::{ETHERNET_OVERHEAD_BYTES, Ecn};
use dataplane_sim::{
    SimTime,
    packet::{Edge, HostApi, Packet},
};
use dataplane_transports::homa::{HomaKind, HomaOptions, HomaPacket, HomaReceiver, HomaSender, PRIORITIES_COUNT};
use dataplane_waist::Instant;

/// Of a host, whose number is that of the timers' flow.
const LINK_TIMER: u8 = 0;
const SENDER_TIMER: u8 = 1;
const RECEIVER_TIMER: u8 = 2;
const CALL_TIMER: u8 = 3;

/// Everything of a frame but payload, so that 1,400 B of payload make 1,500.
const HEADERS_BYTES: u32 = 100;

/// A call. Its number is its place in the list, and lists are sorted by start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HomaCall {
    /// Who calls.
    pub client: u32,
    /// Who answers.
    pub server: u32,
    /// Of the question, and of the answer.
    pub bytes: u32,
    /// When it is called.
    pub start: SimTime,
}

/// A data packet's frame.
pub fn homa_frame_bytes(payload_bytes: u32) -> u32 {
    HEADERS_BYTES + payload_bytes
}

/// What hosts agree on who make these calls: priorities are shared out by the bytes that leave unasked and those that are granted
/// (section 3.4).
pub fn homa_options(calls: &[HomaCall]) -> HomaOptions {
    let base = HomaOptions::default();
    let mut lengths: Vec<u32> = calls.iter().map(|call| call.bytes).collect();
    let all: u64 = lengths.iter().map(|&bytes| u64::from(bytes)).sum();
    let unasked: u64 = lengths.iter().map(|&bytes| u64::from(bytes.min(base.rtt_bytes))).sum();
    let granted_share = (all - unasked) as f64 / all.max(1) as f64;
    let levels = (granted_share * f64::from(PRIORITIES_COUNT)).round() as u8;
    let mut options = HomaOptions {
        scheduled_levels: levels.clamp(1, PRIORITIES_COUNT - 1),
        ..base
    };
    options.unscheduled_cutoffs_bytes = options.cutoffs(&mut lengths);
    options
}

/// The hosts of one group.
#[derive(Debug)]
pub struct HomaHosts {
    calls: Arc<[HomaCall]>,
    hosts: Range<u32>,
    bits_per_sec: u64,
    ends: Vec<End>,
    /// Calls whose answer has arrived whole: when, and which.
    pub ended: Vec<(SimTime, u32)>,
}

/// A host.
#[derive(Debug)]
struct End {
    sender: HomaSender,
    receiver: HomaReceiver,
    /// Its calls that have not begun, the next last.
    calls: Vec<u32>,
    /// When its link has sent what was given to it.
    link_free: SimTime,
}

fn instant(at: SimTime) -> Instant {
    Instant::from_ns(at.as_ns())
}

/// A call's question and its answer are two messages; no number is used twice.
fn question(call: u32) -> u32 {
    2 * call
}

impl HomaHosts {
    /// The hosts of a group, whose links carry `bits_per_sec`.
    pub fn new(calls: &Arc<[HomaCall]>, hosts: Range<u32>, options: &HomaOptions, bits_per_sec: u64) -> HomaHosts {
        let mut ends: Vec<End> = hosts
            .clone()
            .map(|_| End {
                sender: HomaSender::new(options),
                receiver: HomaReceiver::new(options),
                calls: Vec::new(),
                link_free: SimTime::ZERO,
            })
            .collect();
        for (number, call) in calls.iter().enumerate().rev() {
            if hosts.contains(&call.client) {
                ends[(call.client - hosts.start) as usize].calls.push(number as u32);
            }
        }
        HomaHosts {
            calls: Arc::clone(calls),
            hosts,
            bits_per_sec,
            ends,
            ended: Vec::new(),
        }
    }

    /// Packets sent again, by the hosts here.
    pub fn retransmissions_count(&self) -> u64 {
        let of = |end: &End| end.sender.stats().retransmissions_count;
        self.ends.iter().map(of).sum()
    }

    fn end(&mut self, host: &HostApi<'_, HomaPacket>) -> &mut End {
        &mut self.ends[(host.host() - self.hosts.start) as usize]
    }

    /// Gives the link what comes next, when it has nothing: a short message must not wait behind what was given too early.
    fn pump(&mut self, host: &mut HostApi<'_, HomaPacket>) {
        let (me, now, bits_per_sec) = (host.host(), host.now(), self.bits_per_sec);
        let end = &mut self.ends[(me - self.hosts.start) as usize];
        let wire = |bytes: u32| {
            let bits = u64::from(bytes + ETHERNET_OVERHEAD_BYTES) * 8;
            SimTime::from_ps(bits * 1_000_000_000_000 / bits_per_sec)
        };
        while let Some((to, packet)) = end.receiver.poll_transmit(instant(now)) {
            end.link_free = end.link_free.max(now) + wire(HEADERS_BYTES);
            host.send(frame(me, to, HEADERS_BYTES, packet));
        }
        if end.link_free <= now
            && let Some(packet) = end.sender.poll_transmit(instant(now))
        {
            let call = self.calls[packet.message as usize / 2];
            let to = if call.client == me { call.server } else { call.client };
            let bytes = homa_frame_bytes(packet.len_bytes);
            end.link_free = now + wire(bytes);
            host.send(frame(me, to, bytes, packet));
        }
        if end.link_free > now {
            host.set_timer(me, LINK_TIMER, end.link_free);
        }
        set_timer(host, SENDER_TIMER, end.sender.wake_at());
        set_timer(host, RECEIVER_TIMER, end.receiver.wake_at());
    }

    /// Begins the calls that are due, and waits for the next.
    fn call(&mut self, host: &mut HostApi<'_, HomaPacket>) {
        let now = host.now();
        let calls = Arc::clone(&self.calls);
        let end = self.end(host);
        while let Some(&number) = end.calls.last() {
            let call = calls[number as usize];
            if call.start > now {
                host.set_timer(host.host(), CALL_TIMER, call.start);
                break;
            }
            end.calls.pop();
            end.sender.send(instant(now), question(number), call.bytes);
        }
    }

    fn on_data(&mut self, packet: &Packet<HomaPacket>, host: &mut HostApi<'_, HomaPacket>) {
        let now = instant(host.now());
        let end = self.end(host);
        if !end.receiver.on_packet(now, packet.from, &packet.header) {
            return;
        }
        let (message, bytes) = (packet.header.message, packet.header.message_bytes);
        let number = message / 2;
        if message == question(number) {
            end.sender.send(now, message + 1, bytes);
        } else {
            self.ended.push((host.now(), number));
        }
    }
}

impl Edge for HomaHosts {
    type Header = HomaPacket;
    const TIMERS_PER_FLOW: u8 = CALL_TIMER + 1;

    fn on_start(&mut self, host: &mut HostApi<'_, HomaPacket>) {
        self.call(host);
        self.pump(host);
    }

    fn on_packet(&mut self, packet: &Packet<HomaPacket>, host: &mut HostApi<'_, HomaPacket>) {
        match packet.header.kind {
            HomaKind::Data => self.on_data(packet, host),
            _ => {
                let now = instant(host.now());
                self.end(host).sender.on_packet(now, &packet.header);
            }
        }
        self.pump(host);
    }

    fn on_timer(&mut self, _host: u32, timer: u8, host: &mut HostApi<'_, HomaPacket>) {
        let now = instant(host.now());
        match timer {
            SENDER_TIMER => self.end(host).sender.on_wake(now),
            RECEIVER_TIMER => self.end(host).receiver.on_wake(now),
            CALL_TIMER => self.call(host),
            _ => (),
        }
        self.pump(host);
    }
}

fn frame(from: u32, to: u32, bytes: u32, header: HomaPacket) -> Packet<HomaPacket> {
    Packet {
        flow: header.message,
        from,
        to,
        bytes,
        priority: header.priority,
        ecn: Ecn::NotCapable,
        is_control: header.kind != HomaKind::Data,
        is_trimmed: false,
        is_returned: false,
        path: 0,
        header,
    }
}

fn set_timer(host: &mut HostApi<'_, HomaPacket>, timer: u8, at: Option<Instant>) {
    let me = host.host();
    match at {
        Some(at) => host.set_timer(me, timer, SimTime::from_ns(at.as_ns())),
        None => host.cancel_timer(me, timer),
    }
}
