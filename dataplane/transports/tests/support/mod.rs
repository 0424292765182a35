//! A path for tests: one bottleneck of a rate and a queue, a fixed delay, and whatever a test does to single segments.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;

use dataplane_transports::{Controller, Phase, Receiver, ReceiverOptions, Segment, Sender, SenderOptions};
use dataplane_waist::Instant;

pub const US: u64 = 1_000;
pub const MS: u64 = 1_000_000;
pub const SEC: u64 = 1_000_000_000;

/// What happens to a data segment on its way into the bottleneck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Pass,
    Drop,
    Twice,
    /// It arrives later than it would, by nanoseconds: overtaken.
    Late(u64),
    /// It arrives at this time, if it would arrive before: the path stands still, and keeps the order.
    Until(u64),
}

#[derive(Clone, Copy, Debug)]
pub struct PathOptions {
    pub bits_per_sec: u64,
    /// There and back, without queue and serialisation.
    pub rtt_ns: u64,
    /// What the queue holds; more is dropped.
    pub queue_bytes_max: u64,
    /// Segments that find more than this in the queue are marked; 0: none.
    pub mark_above_bytes: u64,
}

impl Default for PathOptions {
    fn default() -> PathOptions {
        PathOptions {
            bits_per_sec: 100_000_000,
            rtt_ns: 10 * MS,
            queue_bytes_max: 1 << 40,
            mark_above_bytes: 0,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Data { flow: usize, segment: Segment, ce: bool },
    Ack { flow: usize, segment: Segment },
    Wake { flow: usize },
}

pub struct Flow<C> {
    pub sender: Sender<C>,
    pub receiver: Receiver,
    /// The wake that is in the calendar.
    planned_ns: u64,
    pub done_ns: Option<u64>,
}

/// What becomes of a flow's segment, by flow, number of transmission (from 0) and segment.
pub type Fates = Box<dyn FnMut(usize, u64, &Segment) -> Fate>;
/// What is asked after every step, of the time and a flow.
pub type Check<C> = Box<dyn FnMut(u64, &Flow<C>)>;

/// Flows over one bottleneck, in virtual time.
pub struct Path<C> {
    pub options: PathOptions,
    pub now_ns: u64,
    pub flows: Vec<Flow<C>>,
    calendar: BTreeMap<(u64, u64), Event>,
    events_count: u64,
    free_at_ns: u64,
    pub fate: Fates,
    pub ack_fate: Fates,
    sent_count: u64,
    acks_count: u64,
    pub dropped_count: u64,
    pub queue_bytes_highest: u64,
    pub check: Check<C>,
    /// Every segment that left a sender: when, and which.
    pub trace: Vec<(u64, usize, Segment)>,
}

impl<C: Controller> Path<C> {
    pub fn new(options: PathOptions) -> Path<C> {
        Path {
            options,
            now_ns: 0,
            flows: Vec::new(),
            calendar: BTreeMap::new(),
            events_count: 0,
            free_at_ns: 0,
            fate: Box::new(|_, _, _| Fate::Pass),
            ack_fate: Box::new(|_, _, _| Fate::Pass),
            sent_count: 0,
            acks_count: 0,
            dropped_count: 0,
            queue_bytes_highest: 0,
            check: Box::new(|_, _| {}),
            trace: Vec::new(),
        }
    }

    pub fn add(&mut self, sender: &SenderOptions, receiver: &ReceiverOptions, controller: C) -> usize {
        self.flows.push(Flow {
            sender: Sender::new(sender, controller),
            receiver: Receiver::new(receiver),
            planned_ns: u64::MAX,
            done_ns: None,
        });
        self.flows.len() - 1
    }

    pub fn write(&mut self, flow: usize, bytes: u64) {
        self.flows[flow].done_ns = None;
        self.flows[flow].sender.write(bytes);
        self.settle(flow);
    }

    fn plan(&mut self, at_ns: u64, event: Event) {
        self.events_count += 1;
        self.calendar.insert((at_ns, self.events_count), event);
    }

    /// What the queue holds now, in bytes.
    pub fn queue_bytes(&self) -> u64 {
        let wait_ns = self.free_at_ns.saturating_sub(self.now_ns);
        (u128::from(wait_ns) * u128::from(self.options.bits_per_sec) / 8 / u128::from(SEC)) as u64
    }

    /// Sends what may leave, and plans the wake.
    fn settle(&mut self, flow: usize) {
        let now = Instant::from_ns(self.now_ns);
        let mut sent_count = 0;
        let mut probes_count = self.flows[flow].sender.stats().probes_count;
        while let Some(segment) = self.flows[flow].sender.poll_transmit(now) {
            let sender = &self.flows[flow].sender;
            let is_probe = sender.stats().probes_count > probes_count;
            probes_count = sender.stats().probes_count;
            let (in_flight, window) = (sender.in_flight_bytes(), sender.window_bytes());
            let bound = window.max(segment.len_bytes.into());
            // The fast retransmission does not wait for the window (RFC 6675 §5, step 4.3).
            let is_free = is_probe || segment.is_retransmission && sender.phase() == Phase::Recovery;
            assert!(
                is_free || in_flight <= bound,
                "{in_flight} bytes are in flight and the window is {window}"
            );
            self.forward(flow, segment);
            sent_count += 1;
            assert!(sent_count < 1_000_000, "a sender sends without end");
        }
        while let Some(segment) = self.flows[flow].receiver.poll_transmit(now) {
            let number = self.acks_count;
            self.acks_count += 1;
            let arrives_ns = self.now_ns + self.options.rtt_ns / 2;
            match (self.ack_fate)(flow, number, &segment) {
                Fate::Drop => {}
                Fate::Pass => self.plan(arrives_ns, Event::Ack { flow, segment }),
                Fate::Late(ns) => self.plan(arrives_ns + ns, Event::Ack { flow, segment }),
                Fate::Until(ns) => self.plan(arrives_ns.max(ns), Event::Ack { flow, segment }),
                Fate::Twice => {
                    self.plan(arrives_ns, Event::Ack { flow, segment });
                    self.plan(arrives_ns, Event::Ack { flow, segment });
                }
            }
        }
        let ends = &mut self.flows[flow];
        if ends.sender.done() && ends.done_ns.is_none() {
            ends.done_ns = Some(self.now_ns);
        }
        let wakes = [ends.sender.wake_at(), ends.receiver.wake_at()];
        let wake_ns = wakes
            .into_iter()
            .flatten()
            .min()
            .map_or(u64::MAX, Instant::as_ns)
            .max(self.now_ns);
        if wake_ns != u64::MAX && wake_ns != ends.planned_ns {
            ends.planned_ns = wake_ns;
            self.plan(wake_ns, Event::Wake { flow });
        }
        let sender = &self.flows[flow].sender;
        assert!(
            sender.outstanding_bytes() == 0 || sender.wake_at().is_some(),
            "outstanding, and no wake: {:?}",
            sender.stats()
        );
        assert!(
            self.flows[flow].receiver.received_bytes() <= sender.sent_bytes(),
            "more arrived than was sent"
        );
        (self.check)(self.now_ns, &self.flows[flow]);
    }

    fn forward(&mut self, flow: usize, segment: Segment) {
        self.trace.push((self.now_ns, flow, segment));
        let number = self.sent_count;
        self.sent_count += 1;
        let fate = (self.fate)(flow, number, &segment);
        let queue_bytes = self.queue_bytes();
        let bytes = u64::from(segment.len_bytes);
        if fate == Fate::Drop || queue_bytes + bytes > self.options.queue_bytes_max {
            self.dropped_count += 1;
            return;
        }
        self.queue_bytes_highest = self.queue_bytes_highest.max(queue_bytes + bytes);
        let ce = segment.ect && self.options.mark_above_bytes > 0 && queue_bytes > self.options.mark_above_bytes;
        let serial_ns = bytes * 8 * SEC / self.options.bits_per_sec;
        self.free_at_ns = self.free_at_ns.max(self.now_ns) + serial_ns;
        let arrives_ns = self.free_at_ns + self.options.rtt_ns / 2;
        let event = Event::Data { flow, segment, ce };
        match fate {
            Fate::Late(ns) => self.plan(arrives_ns + ns, event),
            Fate::Until(ns) => self.plan(arrives_ns.max(ns), event),
            Fate::Twice => {
                self.plan(arrives_ns, event);
                self.plan(arrives_ns, event);
            }
            _ => self.plan(arrives_ns, event),
        }
    }

    /// Runs until `end_ns`, or until nothing happens any more.
    pub fn run_until(&mut self, end_ns: u64) {
        while let Some((&key, _)) = self.calendar.first_key_value() {
            if key.0 > end_ns {
                break;
            }
            assert!(
                self.events_count < 3_000_000,
                "it does not come to an end: {:?}",
                self.flows[0].sender.stats()
            );
            let event = self.calendar.remove(&key).expect("it was just there");
            self.now_ns = key.0;
            let now = Instant::from_ns(self.now_ns);
            let flow = match event {
                Event::Data { flow, segment, ce } => {
                    self.flows[flow].receiver.on_segment(now, &segment, ce);
                    flow
                }
                Event::Ack { flow, segment } => {
                    self.flows[flow].sender.on_segment(now, &segment);
                    flow
                }
                Event::Wake { flow } => {
                    let ends = &mut self.flows[flow];
                    if ends.planned_ns != self.now_ns {
                        continue;
                    }
                    ends.planned_ns = u64::MAX;
                    ends.sender.on_wake(now);
                    ends.receiver.on_wake(now);
                    flow
                }
            };
            self.settle(flow);
        }
        self.now_ns = self.now_ns.max(end_ns);
    }

    /// Runs until every flow is done, at most until `end_ns`; answers when the last was.
    pub fn run_to_the_end(&mut self, end_ns: u64) -> Option<u64> {
        self.run_until(end_ns);
        self.flows
            .iter()
            .map(|flow| flow.done_ns)
            .collect::<Option<Vec<_>>>()?
            .into_iter()
            .max()
    }
}
