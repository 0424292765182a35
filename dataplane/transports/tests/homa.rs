//! Homa among hosts on one switch with priorities: messages arrive once whatever is lost, short ones hardly wait for long ones, and
//! grants go to the shortest.
#![forbid(unsafe_code)]

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use dataplane_transports::homa::{HomaKind, HomaOptions, HomaPacket, HomaReceiver, HomaSender};
use dataplane_waist::Instant;

const DELAY_NS: u64 = 1_000;
const SEC: u64 = 1_000_000_000;

/// A frame's time at 10 Gbit/s: headers of 64 bytes, and 24 between frames.
fn wire_ns(packet: &HomaPacket) -> u64 {
    let payload = if packet.kind == HomaKind::Data {
        packet.len_bytes
    } else {
        0
    };
    u64::from(payload + 64 + 24) * 8 / 10
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Begin { message: u32 },
    NicFree { host: usize },
    AtSwitch { from: usize, to: usize, packet: HomaPacket },
    PortFree { host: usize },
    AtHost { from: usize, to: usize, packet: HomaPacket },
    Wake { host: usize },
}

struct Message {
    from: usize,
    to: usize,
    bytes: u32,
    begun_ns: u64,
    done_ns: Option<u64>,
}

struct Network {
    now_ns: u64,
    senders: Vec<HomaSender>,
    receivers: Vec<HomaReceiver>,
    messages: Vec<Message>,
    nic_busy: Vec<bool>,
    port_busy: Vec<bool>,
    /// By host, by priority.
    ports: Vec<[VecDeque<(usize, HomaPacket)>; 8]>,
    calendar: BTreeMap<(u64, u64), Event>,
    events_count: u64,
    lose_one_in: u64,
    carried_count: u64,
    seen_priorities: [u64; 8],
}

impl Network {
    fn new(options: HomaOptions, hosts_count: usize) -> Network {
        Network {
            now_ns: 0,
            senders: (0..hosts_count).map(|_| HomaSender::new(&options)).collect(),
            receivers: (0..hosts_count).map(|_| HomaReceiver::new(&options)).collect(),
            messages: Vec::new(),
            nic_busy: vec![false; hosts_count],
            port_busy: vec![false; hosts_count],
            ports: (0..hosts_count).map(|_| Default::default()).collect(),
            calendar: BTreeMap::new(),
            events_count: 0,
            lose_one_in: 0,
            carried_count: 0,
            seen_priorities: [0; 8],
        }
    }

    fn plan(&mut self, at_ns: u64, event: Event) {
        self.events_count += 1;
        self.calendar.insert((at_ns, self.events_count), event);
    }

    fn send(&mut self, from: usize, to: usize, bytes: u32, begun_ns: u64) {
        let message = self.messages.len() as u32;
        self.messages.push(Message {
            from,
            to,
            bytes,
            begun_ns,
            done_ns: None,
        });
        self.plan(begun_ns, Event::Begin { message });
    }

    /// A host's link takes the next packet when it is free: control first, then what SRPT says.
    fn serve_nic(&mut self, host: usize) {
        for wake in [self.senders[host].wake_at(), self.receivers[host].wake_at()]
            .into_iter()
            .flatten()
        {
            self.plan(wake.as_ns().max(self.now_ns), Event::Wake { host });
        }
        if self.nic_busy[host] {
            return;
        }
        let now = Instant::from_ns(self.now_ns);
        let (to, packet) = match self.receivers[host].poll_transmit(now) {
            Some((to, packet)) => (to as usize, packet),
            None => match self.senders[host].poll_transmit(now) {
                Some(packet) => (self.messages[packet.message as usize].to, packet),
                None => return,
            },
        };
        self.nic_busy[host] = true;
        let ns = wire_ns(&packet);
        self.plan(self.now_ns + ns, Event::NicFree { host });
        self.carried_count += 1;
        // Not every third: what is asked for again and again could be the third each time.
        let is_lost = self.lose_one_in > 0 && draw(&mut self.carried_count.clone()).is_multiple_of(self.lose_one_in);
        if !is_lost {
            self.plan(self.now_ns + ns + DELAY_NS, Event::AtSwitch { from: host, to, packet });
        }
    }

    fn serve_port(&mut self, host: usize) {
        let next = self.ports[host].iter_mut().rev().find_map(VecDeque::pop_front);
        self.port_busy[host] = next.is_some();
        if let Some((from, packet)) = next {
            let ns = wire_ns(&packet);
            self.plan(self.now_ns + ns, Event::PortFree { host });
            self.plan(self.now_ns + ns + DELAY_NS, Event::AtHost { from, to: host, packet });
        }
    }

    fn run_until(&mut self, end_ns: u64) {
        while let Some((&(at_ns, _), _)) = self.calendar.first_key_value() {
            if at_ns > end_ns {
                break;
            }
            let (_, event) = self.calendar.pop_first().expect("it was just there");
            self.now_ns = at_ns;
            let now = Instant::from_ns(at_ns);
            match event {
                Event::Begin { message } => {
                    let Message { from, bytes, .. } = self.messages[message as usize];
                    self.senders[from].send(now, message, bytes);
                    self.serve_nic(from);
                }
                Event::NicFree { host } => {
                    self.nic_busy[host] = false;
                    self.serve_nic(host);
                }
                Event::AtSwitch { from, to, packet } => {
                    self.seen_priorities[usize::from(packet.priority)] += u64::from(packet.kind == HomaKind::Data);
                    self.ports[to][usize::from(packet.priority)].push_back((from, packet));
                    if !self.port_busy[to] {
                        self.serve_port(to);
                    }
                }
                Event::PortFree { host } => self.serve_port(host),
                Event::AtHost { from, to, packet } => {
                    if packet.kind == HomaKind::Data {
                        if self.receivers[to].on_packet(now, from as u32, &packet) {
                            let message = &mut self.messages[packet.message as usize];
                            assert_eq!(message.done_ns, None, "a message is complete twice");
                            message.done_ns = Some(at_ns);
                        }
                    } else {
                        self.senders[to].on_packet(now, &packet);
                    }
                    self.serve_nic(to);
                }
                Event::Wake { host } => {
                    let sender_due = self.senders[host].wake_at().is_some_and(|wake| wake <= now);
                    let receiver_due = self.receivers[host].wake_at().is_some_and(|wake| wake <= now);
                    if sender_due {
                        self.senders[host].on_wake(now);
                    }
                    if receiver_due {
                        self.receivers[host].on_wake(now);
                    }
                    if sender_due || receiver_due {
                        self.serve_nic(host);
                    }
                }
            }
        }
    }

    fn assert_all_is_done(&self) {
        for (number, message) in self.messages.iter().enumerate() {
            assert!(
                message.done_ns.is_some(),
                "message {number} of {} bytes is not complete",
                message.bytes
            );
        }
        assert!(
            self.senders.iter().all(|sender| sender.messages_count() == 0),
            "a sender holds a message that is complete"
        );
        assert!(self.receivers.iter().all(|receiver| receiver.messages_count() == 0));
        assert!(self.senders.iter().all(|sender| sender.stats().malformed_count == 0));
        assert!(
            self.receivers
                .iter()
                .all(|receiver| receiver.stats().malformed_count == 0)
        );
    }
}

/// SplitMix64.
fn draw(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[test]
fn short_messages_hardly_wait_for_long_ones() {
    let mut network = Network::new(HomaOptions::default(), 9);
    let mut random = 1;
    let mut at_ns = 0;
    // Eight hosts to one: mostly short messages, most bytes in long ones, 80 % of the link.
    while at_ns < 50_000_000 {
        let is_short = draw(&mut random) % 10 < 9;
        let bytes = if is_short { 200 } else { 100_000 };
        let mean_ns = (0.9 * 200.0 + 0.1 * 100_000.0) * 0.8 / 0.8;
        let uniform = (draw(&mut random) >> 11) as f64 / (1_u64 << 53) as f64;
        at_ns += (-(1.0 - uniform).ln() * mean_ns) as u64;
        network.send((draw(&mut random) % 8) as usize, 8, bytes, at_ns);
    }
    network.run_until(SEC);
    network.assert_all_is_done();
    let took_ns = |bytes| {
        let of_length = network.messages.iter().filter(move |message| message.bytes == bytes);
        let mut took: Vec<_> = of_length
            .map(|message| message.done_ns.expect("done") - message.begun_ns)
            .collect();
        took.sort_unstable();
        took
    };
    let (short, long) = (took_ns(200), took_ns(100_000));
    let p99 = |took: &[u64]| took[took.len() * 99 / 100];
    // Alone a short message takes 2 × (0.23 + 1) µs; a long frame before it at either hop 1.2 more.
    assert!(p99(&short) < 6_000, "{} ns", p99(&short));
    assert!(p99(&long) > 100_000, "{} ns: the link was not loaded", p99(&long));
}

#[test]
fn messages_arrive_once_whatever_is_lost() {
    for lose_one_in in [3, 10, 100] {
        let mut network = Network::new(HomaOptions::default(), 5);
        network.lose_one_in = lose_one_in;
        let mut random = lose_one_in;
        for number in 0..200_u64 {
            let (from, bytes) = (draw(&mut random) as usize % 4, 1 + (draw(&mut random) % 60_000) as u32);
            network.send(from, 4, bytes, number * 20_000);
        }
        network.run_until(10 * SEC);
        network.assert_all_is_done();
    }
}

#[test]
fn an_incast_of_long_messages_uses_the_lowest_priorities_and_keeps_the_link_busy() {
    // At the lowest priority packets wait for milliseconds, which is no loss here.
    let options = HomaOptions {
        resend_after: Duration::from_millis(20),
        ..HomaOptions::default()
    };
    let mut network = Network::new(options, 21);
    for from in 0..20 {
        network.send(from, 20, 500_000, from as u64);
    }
    network.run_until(SEC);
    network.assert_all_is_done();
    let done_ns = network
        .messages
        .iter()
        .filter_map(|message| message.done_ns)
        .max()
        .expect("all are done");
    let ideal_ns = 20.0 * 500_000.0 / 1_400.0 * (1_400.0 + 88.0) * 0.8;
    let over = done_ns as f64 / ideal_ns;
    assert!((1.0..1.02).contains(&over), "{over}");
    // SRPT: they end one after the other, and not together.
    let first_ns = network
        .messages
        .iter()
        .filter_map(|message| message.done_ns)
        .min()
        .expect("all are done");
    assert!(first_ns < done_ns / 4, "{first_ns} of {done_ns}");
    // Four scheduled levels, and the lowest unscheduled for the blind part of each.
    assert!(
        network.seen_priorities[..4].iter().all(|&count| count > 0),
        "{:?}",
        network.seen_priorities
    );
    assert_eq!(network.seen_priorities[4], 20 * 7, "{:?}", network.seen_priorities);
    assert_eq!(network.seen_priorities[5..], [0; 3]);
}

#[test]
fn a_lone_message_is_granted_at_the_lowest_priority() {
    let options = HomaOptions::default();
    let mut receiver = HomaReceiver::new(&options);
    let data = |message, from_bytes| HomaPacket {
        message,
        offset_bytes: from_bytes,
        len_bytes: 1_400,
        message_bytes: 50_000 + message,
        ..HomaPacket::default()
    };
    let now = Instant::ZERO;
    receiver.on_packet(now, 1, &data(1, 0));
    let (to, grant) = receiver.poll_transmit(now).expect("a grant");
    assert_eq!(
        (to, grant.kind, grant.offset_bytes, grant.grant_priority),
        (1, HomaKind::Grant, 11_100, 0)
    );
    // A second that has as much left comes above or below it by what is left; a third of the same sender waits.
    receiver.on_packet(now, 2, &data(2, 0));
    receiver.on_packet(now, 2, &data(3, 0));
    receiver.on_packet(now, 1, &data(1, 1_400));
    let grants: Vec<_> = std::iter::from_fn(|| receiver.poll_transmit(now)).collect();
    let seen: Vec<_> = grants
        .iter()
        .map(|(to, grant)| (*to, grant.message, grant.grant_priority))
        .collect();
    assert_eq!(seen, [(2, 2, 0), (1, 1, 1)]);
}

#[test]
fn nonsense_is_counted_and_ignored() {
    let options = HomaOptions::default();
    let (mut sender, mut receiver) = (HomaSender::new(&options), HomaReceiver::new(&options));
    let now = Instant::ZERO;
    sender.send(now, 7, 100);
    for packet in [
        HomaPacket {
            kind: HomaKind::Grant,
            message: 8,
            ..HomaPacket::default()
        },
        HomaPacket {
            kind: HomaKind::Grant,
            message: 7,
            offset_bytes: 101,
            ..HomaPacket::default()
        },
        HomaPacket {
            kind: HomaKind::Data,
            message: 7,
            ..HomaPacket::default()
        },
    ] {
        sender.on_packet(now, &packet);
    }
    assert_eq!(sender.stats().malformed_count, 3);
    let data = sender.poll_transmit(now).expect("the message");
    assert_eq!((data.offset_bytes, data.len_bytes, data.priority), (0, 100, 7));
    for packet in [
        HomaPacket { len_bytes: 101, ..data },
        HomaPacket { len_bytes: 0, ..data },
        HomaPacket {
            offset_bytes: u32::MAX,
            ..data
        },
        HomaPacket {
            kind: HomaKind::Done,
            ..data
        },
    ] {
        assert!(!receiver.on_packet(now, 0, &packet));
    }
    assert_eq!(receiver.stats().malformed_count, 4);
    assert!(receiver.on_packet(now, 0, &data));
    let (_, done) = receiver.poll_transmit(now).expect("done");
    sender.on_packet(now, &done);
    assert_eq!((sender.messages_count(), receiver.messages_count()), (0, 0));
}
