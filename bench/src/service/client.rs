//! A client with a policy: calls begin at their times, whatever became of earlier ones; the policy says whom to ask, and when it
//! wants to be woken; an answer ends a call, or its patience does.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::Context as _;
use dataplane_service::{
    message::{self, FRAME_BYTES, Message, NODE_DRAWS, Verb},
    policy::{Act, Call, Context, Counts, Loads, Policy},
    random::{Random, mix},
    service_time::ServiceTime,
    sim::Outcome,
};
use dataplane_waist::{Clock, Peer, Port, PortStats, TxError};

use crate::{load::schedule::Schedule, measure::Recorder};

/// The longest frame of a service.
pub const FRAME_BYTES_MAX: usize = 128;

/// Time between the end of the set-up and the first call, so that it is not late already.
const LEAD: Duration = Duration::from_millis(2);

/// How a client asks.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Written into each request, so that answers to an earlier client are told apart.
    pub client: u32,
    /// How many nodes there are; node `n` is the port's peer `n`.
    pub nodes_count: usize,
    /// A call that takes longer than this is lost.
    pub patience: Duration,
    /// How long a request takes, drawn here, so that arms that are compared have the same; `None`: the node draws.
    pub service: Option<ServiceTime>,
    /// A call that takes longer than this is a slow one.
    pub slow_over: Duration,
    /// Calls before this moment of the schedule count for nothing.
    pub warm_up: Duration,
    /// What became of each call is kept, and not only counted.
    pub keeps_outcomes: bool,
    /// Everything that is drawn is drawn from this.
    pub seed: u64,
}

/// What a client found.
#[derive(Debug)]
pub struct Found {
    /// Of calls, from their intended begin; those lost or given up are in it.
    pub latency: Recorder,
    /// How late calls began.
    pub lag: Recorder,
    /// From the arrival at a node to its answer, by the node's own clock, of the answers that ended calls.
    pub node_time: Recorder,
    /// What the policy cost.
    pub counts: Counts,
    /// Calls over [`ClientOptions::slow_over`], the lost among them.
    pub slow_count: u64,
    /// Calls that count.
    pub calls_count: u64,
    /// Answers that had come when each call was done, all together.
    pub answered_count: u64,
    /// What became of each call that counts, in the order of their ends, if that was wanted. Times are from the schedule's begin.
    pub outcomes: Vec<Outcome>,
    /// Requests for which the port had no room.
    pub unsent_count: u64,
    /// How long it took, in seconds.
    pub elapsed_s: f64,
    /// When it began, on its clock, in nanoseconds.
    pub start_ns: u64,
    /// It was told to end early.
    pub interrupted: bool,
    /// The port's counters.
    pub port: PortStats,
}

struct Slot {
    call: Call,
    generation: u32,
    is_open: bool,
    counts: bool,
    work_ns: u64,
    flow: u32,
}

/// All that a client has.
struct Client<'a> {
    port: &'a mut dyn Port,
    options: &'a ClientOptions,
    policy: Box<dyn Policy>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    loads: Loads,
    dice: Random,
    works: Random,
    acts: Vec<Act>,
    /// When policies want to be woken, and for which calls.
    wakes: BinaryHeap<Reverse<(u64, u64)>>,
    /// When calls are lost, in order.
    losses: VecDeque<(u64, u64)>,
    queued_count: usize,
    found: Found,
}

/// A call's number in frames: where it is, and which of those that were there.
fn number(slot: u32, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(slot)
}

/// Makes the calls of `schedule`.
///
/// # Errors
/// A port that breaks.
pub fn run(
    port: &mut dyn Port,
    clock: &dyn Clock,
    schedule: &Schedule,
    policy: Box<dyn Policy>,
    options: &ClientOptions,
    stop: &AtomicBool,
    begun: &mut dyn FnMut(u64),
) -> anyhow::Result<Found> {
    let start_ns = (clock.now() + LEAD).as_ns();
    begun(start_ns);
    let mut client = Client {
        port,
        options,
        policy,
        slots: Vec::new(),
        free: Vec::new(),
        loads: Loads::new(options.nodes_count),
        dice: Random::new(options.seed, 5),
        works: Random::new(options.seed, 7),
        acts: Vec::new(),
        wakes: BinaryHeap::new(),
        losses: VecDeque::new(),
        queued_count: 0,
        found: Found {
            latency: Recorder::new(),
            lag: Recorder::new(),
            node_time: Recorder::new(),
            counts: Counts::default(),
            slow_count: 0,
            calls_count: 0,
            answered_count: 0,
            outcomes: Vec::new(),
            unsent_count: 0,
            elapsed_s: 0.0,
            start_ns,
            interrupted: false,
            port: PortStats::default(),
        },
    };
    let warm_ns = start_ns + options.warm_up.as_nanos() as u64;
    let offsets_ns = schedule.offsets_ns();
    let mut next = 0;
    loop {
        let now_ns = clock.now().as_ns();
        while let Some(offset_ns) = offsets_ns.get(next)
            && start_ns + offset_ns <= now_ns
        {
            let intended_ns = start_ns + offset_ns;
            client.begin(intended_ns, clock.now().as_ns(), intended_ns >= warm_ns)?;
            next += 1;
        }
        client.wake_and_lose(now_ns)?;
        client.flush()?;
        if next == offsets_ns.len() && client.free.len() == client.slots.len() {
            break;
        }
        if stop.load(Ordering::Relaxed) {
            client.found.interrupted = true;
            break;
        }
        let sends_ns = offsets_ns.get(next).map_or(u64::MAX, |offset_ns| start_ns + offset_ns);
        let until_ns = sends_ns.min(client.due_ns());
        let now_ns = clock.now().as_ns();
        if until_ns > now_ns {
            let rest = Duration::from_nanos(until_ns - now_ns).min(Duration::from_millis(20));
            client.port.wait(rest).context("waiting for answers")?;
        }
        client.receive(clock)?;
        client.flush()?;
    }
    let mut found = client.found;
    found.elapsed_s = clock.now().as_ns().saturating_sub(start_ns) as f64 / 1e9;
    found.port = client.port.stats();
    Ok(found)
}

impl Client<'_> {
    fn begin(&mut self, intended_ns: u64, now_ns: u64, counts: bool) -> anyhow::Result<()> {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                call: Call::default(),
                generation: 0,
                is_open: false,
                counts: false,
                work_ns: 0,
                flow: 0,
            });
            self.slots.len() as u32 - 1
        });
        let draw = &self.options.service;
        let open = &mut self.slots[slot as usize];
        open.generation = open.generation.wrapping_add(1);
        open.is_open = true;
        open.counts = counts;
        open.work_ns = draw
            .as_ref()
            .map_or(NODE_DRAWS, |service| service.draw(&mut self.works).max(1));
        open.flow = mix(intended_ns) as u32;
        open.call.reset(intended_ns);
        let id = number(slot, open.generation);
        self.losses
            .push_back((now_ns + self.options.patience.as_nanos() as u64, id));
        if counts {
            self.found.calls_count += 1;
            self.found.counts.calls_count += 1;
            self.found.lag.record(now_ns - intended_ns);
        }
        self.with_policy(id, now_ns, |policy, call, context| policy.begin(call, context))
    }

    /// The slot of a call that is not over.
    fn open(&self, id: u64) -> Option<usize> {
        let (slot, generation) = (id as u32 as usize, (id >> 32) as u32);
        let there = self.slots.get(slot)?;
        (there.is_open && there.generation == generation).then_some(slot)
    }

    fn with_policy(
        &mut self,
        id: u64,
        now_ns: u64,
        step: impl FnOnce(&mut dyn Policy, &mut Call, &mut Context<'_>),
    ) -> anyhow::Result<()> {
        let Some(index) = self.open(id) else { return Ok(()) };
        let slot = &mut self.slots[index];
        let wake_before = slot.call.wake_ns;
        let mut context = Context {
            now_ns,
            random: &mut self.dice,
            loads: &self.loads,
            acts: &mut self.acts,
        };
        step(&mut *self.policy, &mut slot.call, &mut context);
        if let Some(at_ns) = slot.call.wake_ns
            && slot.call.wake_ns != wake_before
        {
            self.wakes.push(Reverse((at_ns, id)));
        }
        let message = Message {
            client: self.options.client,
            call: id,
            sent_ns: slot.call.started_ns,
            verb: Verb::Serve,
            flow: slot.flow,
            work_ns: slot.work_ns,
            node_ns: 0,
        };
        let counts = u64::from(slot.counts);
        let mut acts = std::mem::take(&mut self.acts);
        for act in acts.drain(..) {
            let (node, verb) = match act {
                Act::Ask { node, tells } => {
                    self.loads.add(node);
                    self.found.counts.asked_count += counts;
                    (node, if tells { Verb::ServeAndTell } else { Verb::Serve })
                }
                Act::Withdraw { node } => {
                    self.found.counts.withdrawn_count += counts;
                    (node, Verb::Withdraw)
                }
            };
            self.send(node, Message { verb, ..message })?;
        }
        self.acts = acts;
        Ok(())
    }

    fn send(&mut self, node: u32, message: Message) -> anyhow::Result<()> {
        let mut fill = |bytes: &mut [u8]| message::emit(&message, bytes);
        let mut sent = self.port.tx(Peer(node), FRAME_BYTES, &mut fill);
        if sent == Err(TxError::Full) {
            self.flush()?;
            sent = self.port.tx(Peer(node), FRAME_BYTES, &mut fill);
        }
        self.found.unsent_count += u64::from(sent.is_err());
        self.queued_count += 1;
        if self.queued_count >= self.port.caps().batch_frames_max {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        if self.queued_count > 0 {
            self.queued_count = 0;
            self.port.flush().context("sending requests")?;
        }
        Ok(())
    }

    /// When something is to be done, whether or not an answer comes.
    fn due_ns(&self) -> u64 {
        let wakes_ns = self.wakes.peek().map_or(u64::MAX, |Reverse((at_ns, _))| *at_ns);
        let lost_ns = self.losses.front().map_or(u64::MAX, |(at_ns, _)| *at_ns);
        wakes_ns.min(lost_ns)
    }

    fn wake_and_lose(&mut self, now_ns: u64) -> anyhow::Result<()> {
        while let Some(Reverse((at_ns, id))) = self.wakes.peek().copied()
            && at_ns <= now_ns
        {
            self.wakes.pop();
            let Some(slot) = self.open(id) else { continue };
            if self.slots[slot].call.wake_ns != Some(at_ns) {
                continue;
            }
            self.slots[slot].call.wake_ns = None;
            self.with_policy(id, now_ns, |policy, call, context| policy.wake(call, context))?;
            self.end_if_done(slot, now_ns, None);
        }
        while let Some((at_ns, id)) = self.losses.front().copied() {
            let open = self.open(id);
            if open.is_some() && at_ns > now_ns {
                break;
            }
            self.losses.pop_front();
            if let Some(slot) = open {
                self.end(slot, None, None);
            }
        }
        Ok(())
    }

    fn receive(&mut self, clock: &dyn Clock) -> anyhow::Result<()> {
        // Taken out first: an answer can cause a question.
        let mut came: Vec<(u32, Message)> = Vec::new();
        let client = self.options.client;
        self.port
            .rx_burst(&mut |frame| {
                if let Ok(message) = message::parse(frame.bytes)
                    && message.client == client
                {
                    came.push((frame.from.0, message));
                }
            })
            .context("receiving answers")?;
        let now_ns = clock.now().as_ns();
        for (node, message) in came {
            let Some(slot) = self.open(message.call) else {
                if message.verb == Verb::Done {
                    self.loads.remove(node);
                }
                continue;
            };
            match message.verb {
                Verb::Began => {
                    self.with_policy(message.call, now_ns, |policy, call, context| {
                        policy.began(call, node, context);
                    })?;
                }
                Verb::Done => {
                    self.loads.remove(node);
                    self.slots[slot].call.answered_count += 1;
                    self.with_policy(message.call, now_ns, |policy, call, context| {
                        policy.answered(call, node, context);
                    })?;
                    self.end_if_done(slot, now_ns, Some(message.node_ns));
                }
                Verb::Serve | Verb::ServeAndTell | Verb::Withdraw => {}
            }
        }
        Ok(())
    }

    fn end_if_done(&mut self, slot: usize, now_ns: u64, node_ns: Option<u64>) {
        let call = &self.slots[slot].call;
        if self.slots[slot].is_open && call.is_done {
            let took_ns = (!call.is_given_up).then(|| now_ns.saturating_sub(call.started_ns));
            self.end(slot, took_ns, node_ns);
        }
    }

    fn end(&mut self, slot: usize, took_ns: Option<u64>, node_ns: Option<u64>) {
        let over = &mut self.slots[slot];
        over.is_open = false;
        self.free.push(slot as u32);
        if !over.counts {
            return;
        }
        let found = &mut self.found;
        found.answered_count += u64::from(over.call.answered_count);
        found.counts.given_up_count += u64::from(over.call.is_given_up);
        if self.options.keeps_outcomes {
            found.outcomes.push(Outcome {
                started_ns: over.call.started_ns.saturating_sub(found.start_ns),
                took_ns,
                answered_count: over.call.answered_count,
            });
        }
        match took_ns {
            Some(ns) => found.latency.record(ns),
            None => found.latency.record_lost(),
        }
        if let Some(ns) = node_ns {
            found.node_time.record(ns);
        }
        let is_slow = took_ns.is_none_or(|ns| ns > self.options.slow_over.as_nanos() as u64);
        found.slow_count += u64::from(is_slow);
    }
}
