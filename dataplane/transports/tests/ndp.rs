//! NDP through one trimming port: every byte of an incast arrives, at the link's rate, whatever is trimmed, returned or lost.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, VecDeque};

use dataplane_transports::ndp::{NdpKind, NdpOptions, NdpPacket, NdpReceiver, NdpSender, PullPacer};
use dataplane_waist::Instant;

const GAP_NS: u64 = 7_200;
const HEADER_NS: u64 = 51;
const DELAY_NS: u64 = 10_000;
const SEC: u64 = 1_000_000_000;

#[derive(Clone, Copy, Debug)]
enum Event {
    ToPort {
        flow: usize,
        packet: NdpPacket,
    },
    PortFree,
    ToReceiver {
        flow: usize,
        packet: NdpPacket,
        trimmed: bool,
    },
    ToSender {
        flow: usize,
        packet: NdpPacket,
        returned: bool,
    },
    WakeSender {
        flow: usize,
    },
    WakeReceiver {
        flow: usize,
    },
    WakePacer,
}

/// Senders, and one receiving host behind a port with NDP's two queues.
struct Incast {
    now_ns: u64,
    senders: Vec<NdpSender>,
    receivers: Vec<NdpReceiver>,
    is_queued: Vec<bool>,
    pacer: PullPacer,
    calendar: BTreeMap<(u64, u64), Event>,
    events_count: u64,
    data: VecDeque<(usize, NdpPacket)>,
    headers: VecDeque<(usize, NdpPacket)>,
    data_max: usize,
    headers_max: usize,
    is_port_busy: bool,
    /// Packets of any kind that vanish: one in this many; 0: none.
    lose_one_in: u64,
    carried_count: u64,
    returned_count: u64,
}

impl Incast {
    fn new(options: NdpOptions, flows_count: usize, bytes: u64) -> Incast {
        Incast {
            now_ns: 0,
            senders: (0..flows_count).map(|_| NdpSender::new(&options, bytes)).collect(),
            receivers: (0..flows_count).map(|_| NdpReceiver::new(&options)).collect(),
            is_queued: vec![false; flows_count],
            // 9 KB at 10 Gbit/s.
            pacer: PullPacer::new(10_000_000_000, 9_000),
            calendar: BTreeMap::new(),
            events_count: 0,
            data: VecDeque::new(),
            headers: VecDeque::new(),
            data_max: 8,
            headers_max: 1_000,
            is_port_busy: false,
            lose_one_in: 0,
            carried_count: 0,
            returned_count: 0,
        }
    }

    fn plan(&mut self, at_ns: u64, event: Event) {
        self.events_count += 1;
        self.calendar.insert((at_ns, self.events_count), event);
    }

    fn is_lost(&mut self) -> bool {
        self.carried_count += 1;
        self.lose_one_in > 0 && self.carried_count.is_multiple_of(self.lose_one_in)
    }

    fn settle_sender(&mut self, flow: usize) {
        let now = Instant::from_ns(self.now_ns);
        let mut at_ns = self.now_ns;
        while let Some(packet) = self.senders[flow].poll_transmit(now) {
            // Its own link's time.
            at_ns += GAP_NS;
            self.plan(at_ns + DELAY_NS, Event::ToPort { flow, packet });
        }
        if let Some(wake) = self.senders[flow].wake_at() {
            self.plan(wake.as_ns().max(self.now_ns), Event::WakeSender { flow });
        }
    }

    fn settle_receiver(&mut self, flow: usize) {
        if self.receivers[flow].owes_pulls() && !self.is_queued[flow] {
            self.is_queued[flow] = true;
            self.pacer.add(flow as u32, false);
        }
        if let Some(wake) = self.receivers[flow].wake_at() {
            self.plan(wake.as_ns().max(self.now_ns), Event::WakeReceiver { flow });
        }
        self.settle_pacer();
    }

    fn settle_pacer(&mut self) {
        let now = Instant::from_ns(self.now_ns);
        let Self {
            pacer,
            receivers,
            is_queued,
            ..
        } = self;
        let pulled = pacer.poll(now, |flow| {
            let receiver = &mut receivers[flow as usize];
            let pull = receiver.pull(now);
            is_queued[flow as usize] = pull.is_some() && receiver.owes_pulls();
            pull.map(|packet| (packet, receiver.owes_pulls()))
        });
        if let Some((flow, packet)) = pulled
            && !self.is_lost()
        {
            self.plan(
                self.now_ns + 2 * DELAY_NS,
                Event::ToSender {
                    flow: flow as usize,
                    packet,
                    returned: false,
                },
            );
        }
        if let Some(wake) = self.pacer.wake_at() {
            self.plan(wake.as_ns().max(self.now_ns), Event::WakePacer);
        }
    }

    fn serve(&mut self) {
        // Headers first (the paper's switch: 10 headers to 1 packet).
        let (flow, packet, trimmed, ns) = match (self.headers.pop_front(), self.data.front()) {
            (Some((flow, packet)), _) => (flow, packet, true, HEADER_NS),
            (None, Some(&(flow, packet))) => {
                self.data.pop_front();
                (flow, packet, false, GAP_NS)
            }
            (None, None) => {
                self.is_port_busy = false;
                return;
            }
        };
        self.is_port_busy = true;
        self.plan(self.now_ns + ns, Event::PortFree);
        if !self.is_lost() {
            self.plan(self.now_ns + ns + DELAY_NS, Event::ToReceiver { flow, packet, trimmed });
        }
    }

    /// When every flow was done.
    fn run(&mut self) -> Option<u64> {
        for flow in 0..self.senders.len() {
            self.settle_sender(flow);
        }
        while let Some(((at_ns, _), event)) = self.calendar.pop_first() {
            assert!(self.events_count < 20_000_000, "it does not come to an end");
            self.now_ns = at_ns;
            let now = Instant::from_ns(at_ns);
            match event {
                Event::ToPort { flow, packet } => {
                    if self.data.len() < self.data_max {
                        self.data.push_back((flow, packet));
                    } else if self.headers.len() < self.headers_max {
                        self.headers.push_back((flow, packet));
                    } else {
                        self.returned_count += 1;
                        self.plan(
                            at_ns + DELAY_NS,
                            Event::ToSender {
                                flow,
                                packet,
                                returned: true,
                            },
                        );
                    }
                    if !self.is_port_busy {
                        self.serve();
                    }
                }
                Event::PortFree => self.serve(),
                Event::ToReceiver { flow, packet, trimmed } => {
                    let answer = self.receivers[flow]
                        .on_data(now, &packet, trimmed)
                        .expect("it is data of this flow");
                    if !self.is_lost() {
                        self.plan(
                            at_ns + 2 * DELAY_NS,
                            Event::ToSender {
                                flow,
                                packet: answer,
                                returned: false,
                            },
                        );
                    }
                    self.settle_receiver(flow);
                }
                Event::ToSender { flow, packet, returned } => {
                    if returned {
                        self.senders[flow].on_returned(now, &packet);
                    } else {
                        self.senders[flow].on_packet(now, &packet);
                    }
                    self.settle_sender(flow);
                }
                Event::WakeSender { flow } => {
                    if self.senders[flow].wake_at().is_some_and(|wake| wake <= now) {
                        self.senders[flow].on_wake(now);
                        self.settle_sender(flow);
                    }
                }
                Event::WakeReceiver { flow } => {
                    if self.receivers[flow].wake_at().is_some_and(|wake| wake <= now) {
                        self.receivers[flow].on_wake(now);
                        self.settle_receiver(flow);
                    }
                }
                Event::WakePacer => {
                    if self.pacer.wake_at().is_some_and(|wake| wake <= now) {
                        self.settle_pacer();
                    }
                }
            }
            if self.senders.iter().all(NdpSender::done) {
                return Some(at_ns);
            }
        }
        None
    }
}

#[test]
fn an_incast_is_as_fast_as_the_link() {
    // SIGCOMM'17 figure 20's flows: 30 packets of 9 KB each, IW 23, 8-packet queues; 100 of them.
    let options = NdpOptions {
        initial_window_packets: 23,
        ..NdpOptions::default()
    };
    let bytes = 30 * u64::from(options.payload_bytes);
    let mut incast = Incast::new(options, 100, bytes);
    let done_ns = incast.run().expect("it ends");
    let ideal_ns = 100 * 30 * GAP_NS;
    let over = done_ns as f64 / ideal_ns as f64;
    assert!((1.0..1.05).contains(&over), "{over:.3} of the ideal");
    for (sender, receiver) in incast.senders.iter().zip(&incast.receivers) {
        assert_eq!(receiver.received_bytes(), bytes);
        assert_eq!(
            (sender.stats().timeouts_count, receiver.stats().duplicates_count),
            (0, 0)
        );
        assert_eq!((sender.heap_bytes(), receiver.heap_bytes()), (0, 0));
        assert_eq!(
            (sender.stats().malformed_count, receiver.stats().malformed_count),
            (0, 0)
        );
    }
    assert!(
        incast.senders.iter().any(|sender| sender.stats().nacks_count > 0),
        "nothing was trimmed"
    );
}

#[test]
fn headers_come_back_when_their_queue_is_full_too() {
    let mut incast = Incast::new(NdpOptions::default(), 300, 30 * 8_936);
    incast.headers_max = 50;
    let done_ns = incast.run().expect("it ends");
    assert!(incast.returned_count > 1_000, "{}", incast.returned_count);
    let over = done_ns as f64 / (300 * 30 * GAP_NS) as f64;
    assert!(over < 1.1, "{over:.3} of the ideal");
    assert!(
        incast
            .receivers
            .iter()
            .all(|receiver| receiver.received_bytes() == 30 * 8_936)
    );
}

#[test]
fn lost_packets_acks_and_pulls_delay_and_nothing_more() {
    for lose_one_in in [3, 7, 50] {
        let mut incast = Incast::new(NdpOptions::default(), 20, 100 * 8_936 + 1);
        incast.lose_one_in = lose_one_in;
        let done_ns = incast.run();
        assert!(
            done_ns.is_some_and(|ns| ns < 10 * SEC),
            "1 in {lose_one_in}: {done_ns:?}"
        );
        assert!(
            incast
                .receivers
                .iter()
                .all(|receiver| receiver.received_bytes() == 100 * 8_936 + 1)
        );
    }
}

#[test]
fn nonsense_is_counted_and_ignored() {
    let options = NdpOptions::default();
    let now = Instant::ZERO;
    let mut sender = NdpSender::new(&options, 1);
    let mut receiver = NdpReceiver::new(&options);
    sender.on_packet(
        now,
        &NdpPacket {
            kind: NdpKind::Ack,
            packet_index: 7,
            ..NdpPacket::default()
        },
    );
    sender.on_packet(
        now,
        &NdpPacket {
            kind: NdpKind::Nack,
            packet_index: 0,
            ..NdpPacket::default()
        },
    );
    sender.on_packet(now, &NdpPacket::default());
    sender.on_returned(
        now,
        &NdpPacket {
            packet_index: u32::MAX,
            ..NdpPacket::default()
        },
    );
    assert_eq!(sender.stats().malformed_count, 4);
    let data = sender.poll_transmit(now).expect("one packet");
    assert_eq!((data.len_bytes, data.packets_count), (1, 1));
    assert_eq!(
        receiver.on_data(
            now,
            &NdpPacket {
                packet_index: 1,
                ..data
            },
            false
        ),
        None
    );
    assert_eq!(
        receiver.on_data(
            now,
            &NdpPacket {
                kind: NdpKind::Pull,
                ..data
            },
            false
        ),
        None
    );
    assert_eq!(receiver.stats().malformed_count, 2);
    let ack = receiver.on_data(now, &data, false).expect("an ack");
    sender.on_packet(now, &ack);
    assert!(sender.done() && receiver.done() && !receiver.owes_pulls());
}

#[test]
fn flows_share_the_pulls_in_turn_and_a_preferred_one_goes_first() {
    let mut pacer = PullPacer::new(10_000_000_000, 9_000);
    for flow in [1, 2, 3] {
        pacer.add(flow, flow == 3);
    }
    let mut order = Vec::new();
    let mut left = [0, 2, 2, 2];
    for _ in 0..6 {
        let now = pacer.wake_at().expect("pulls are left");
        let pulled = pacer.poll(now, |flow| {
            left[flow as usize] -= 1;
            Some((NdpPacket::default(), left[flow as usize] > 0))
        });
        order.push((now.as_ns() / GAP_NS, pulled.expect("it is time").0));
    }
    assert_eq!(order, [(0, 3), (1, 3), (2, 1), (3, 2), (4, 1), (5, 2)]);
    assert_eq!(pacer.wake_at(), None);
}
