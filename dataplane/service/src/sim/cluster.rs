//! A client with a policy, and many nodes, in virtual time: calls come at random, messages take a fixed time, nodes serve, stand
//! still and lose messages as they are told to.
//!
//! Messages under way take the same time all, so those to nodes and those to the client are in order by themselves: two queues,
//! and a heap for what ends at other times.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

use crate::{
    discipline::{Arrival, SingleQueue},
    policy::{Act, Call, Context, Counts, Loads, Policy},
    queue::LocalQueue,
    random::{Random, mix},
    service_time::ServiceTime,
    stalls::{StallPattern, Stalls},
    workers::{Event, Overhead, Work, WorkerCounts, Workers},
};

/// What a cluster is.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// How many nodes.
    pub nodes_count: usize,
    /// Of each node, with one queue for all of them.
    pub workers_count: usize,
    /// What a request takes a worker.
    pub service: ServiceTime,
    /// Calls, in nanoseconds from one to the next on average.
    pub gap_ns_mean: f64,
    /// A message's way, in nanoseconds.
    pub way_ns: u64,
    /// How many of all messages are lost, 0 to 1.
    pub loss_ratio: f64,
    /// How nodes stand still, if they do.
    pub stalls: Option<StallPattern>,
    /// All at the same time.
    pub stalls_are_shared: bool,
    /// The time, in nanoseconds, between which and the second calls come `surge.2` times as fast: what triggers a failure.
    pub surge: Option<(u64, u64, f64)>,
    /// A call that is not answered after so long, in nanoseconds, is lost.
    pub patience_ns: u64,
    /// Everything that is drawn is drawn from this.
    pub seed: u64,
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// When it began, in nanoseconds.
    pub started_ns: u64,
    /// How long it took, in nanoseconds; `None` for one that was given up or lost.
    pub took_ns: Option<u64>,
    /// Answers that had come when it was done.
    pub answered_count: u32,
}

/// Which call, in the memory of the client. A slot is used again; its generation is another then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct CallId {
    slot: u32,
    generation: u32,
}

#[derive(Clone, Copy, Debug)]
struct ToNode {
    at_ns: u64,
    node: u32,
    call: CallId,
    what: Asked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Serve { tells: bool },
    Withdraw,
}

#[derive(Clone, Copy, Debug)]
struct ToClient {
    at_ns: u64,
    node: u32,
    call: CallId,
    is_done: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// A slice of a node's worker is over.
    Slice { node: u32 },
    /// A policy wants to be woken.
    Wake(CallId),
    /// A client's patience is over.
    Lost(CallId),
}

/// A request at a node.
#[derive(Clone, Copy, Debug)]
struct Job {
    call: CallId,
    tells: bool,
}

type NodeWorkers = Workers<Job, SingleQueue<LocalQueue<Work<Job>>>>;

struct Node {
    workers: NodeWorkers,
    services: Random,
    /// The earliest end that is in the heap.
    due_ns: u64,
}

struct Slot {
    call: Call,
    generation: u32,
    is_open: bool,
}

/// See the module.
pub struct Cluster {
    options: ClusterOptions,
    policy: Box<dyn Policy>,
    nodes: Vec<Node>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    loads: Loads,
    arrivals: Random,
    dice: Random,
    losses: Random,
    to_nodes: VecDeque<ToNode>,
    to_client: VecDeque<ToClient>,
    due: BinaryHeap<Reverse<(u64, Due)>>,
    next_call_ns: f64,
    now_ns: u64,
    acts: Vec<Act>,
    counts: Counts,
    events_count: u64,
    event_hash: u64,
}

impl Cluster {
    /// One at rest.
    ///
    /// # Panics
    /// Without nodes, or as [`Workers::new`].
    pub fn new(options: ClusterOptions, policy: Box<dyn Policy>) -> Cluster {
        assert!(options.nodes_count > 0, "a cluster without nodes answers nobody");
        let stalls = |node: usize| match options.stalls {
            None => Stalls::never(),
            Some(pattern) => {
                let whose = if options.stalls_are_shared { 0 } else { node as u64 + 1 };
                Stalls::new(pattern, mix(options.seed ^ whose << 20))
            }
        };
        let nodes = (0..options.nodes_count)
            .map(|node| Node {
                workers: Workers::new(
                    options.workers_count,
                    SingleQueue::new(),
                    Overhead::default(),
                    stalls(node),
                ),
                services: Random::new(options.seed, 1_000 + node as u64),
                due_ns: u64::MAX,
            })
            .collect();
        let mut arrivals = Random::new(options.seed, 1);
        Cluster {
            next_call_ns: arrivals.exponential(options.gap_ns_mean),
            arrivals,
            dice: Random::new(options.seed, 5),
            losses: Random::new(options.seed, 6),
            loads: Loads::new(options.nodes_count),
            options,
            policy,
            nodes,
            slots: Vec::new(),
            free: Vec::new(),
            to_nodes: VecDeque::new(),
            to_client: VecDeque::new(),
            due: BinaryHeap::new(),
            now_ns: 0,
            acts: Vec::new(),
            counts: Counts::default(),
            events_count: 0,
            event_hash: 0,
        }
    }

    /// Lets `calls_count` calls begin, and goes on until all that began are done, given up or lost. `sink` hears of each, in the
    /// order in which that happens.
    pub fn run(&mut self, calls_count: u64, sink: &mut dyn FnMut(Outcome)) {
        let last = self.counts.calls_count + calls_count;
        loop {
            let may_begin = self.counts.calls_count < last;
            let begins_ns = if may_begin { self.next_call_ns as u64 } else { u64::MAX };
            let to_node_ns = self.to_nodes.front().map_or(u64::MAX, |message| message.at_ns);
            let to_client_ns = self.to_client.front().map_or(u64::MAX, |message| message.at_ns);
            let due_ns = self.due.peek().map_or(u64::MAX, |Reverse((at_ns, _))| *at_ns);
            let next_ns = begins_ns.min(to_node_ns).min(to_client_ns).min(due_ns);
            if !may_begin && self.free.len() == self.slots.len() {
                return;
            }
            assert!(next_ns != u64::MAX, "calls are open, and nothing will happen any more");
            self.now_ns = next_ns;
            self.events_count += 1;
            // Answers before new questions, so that what a client knows at a moment is all that there is.
            if to_client_ns == next_ns {
                let message = self.to_client.pop_front().expect("it has a front");
                self.note(1, message.node, message.call);
                self.come_back(message, sink);
            } else if due_ns == next_ns {
                let Reverse((_, due)) = self.due.pop().expect("it has a top");
                match due {
                    Due::Slice { node } => self.slices_end(node),
                    Due::Wake(call) => self.wake(call, sink),
                    Due::Lost(call) => self.lose(call, sink),
                }
            } else if to_node_ns == next_ns {
                let message = self.to_nodes.pop_front().expect("it has a front");
                self.note(2, message.node, message.call);
                self.arrive(message);
            } else {
                self.begin();
            }
        }
    }

    /// What the policy cost so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// What all nodes have counted together; of the waiting the most at any.
    pub fn node_counts(&self) -> WorkerCounts {
        let all = self.nodes.iter().map(|node| node.workers.counts());
        all.fold(WorkerCounts::default(), |sum, of| WorkerCounts {
            served_count: sum.served_count + of.served_count,
            preempted_count: sum.preempted_count + of.preempted_count,
            withdrawn_count: sum.withdrawn_count + of.withdrawn_count,
            waiting_count_max: sum.waiting_count_max.max(of.waiting_count_max),
            served_ns: sum.served_ns + of.served_ns,
        })
    }

    /// Virtual time so far, in nanoseconds.
    pub fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// How much happened, and a hash of it.
    pub fn events(&self) -> (u64, u64) {
        (self.events_count, self.event_hash)
    }

    fn note(&mut self, what: u64, node: u32, call: CallId) {
        let event = self.now_ns ^ what << 60 ^ u64::from(node) << 40 ^ u64::from(call.slot);
        self.event_hash = (self.event_hash ^ event)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .rotate_left(23);
    }

    fn begin(&mut self) {
        let now_ns = self.now_ns;
        let faster = match self.options.surge {
            Some((from_ns, to_ns, times)) if (from_ns..to_ns).contains(&now_ns) => times,
            _ => 1.0,
        };
        self.next_call_ns += self.arrivals.exponential(self.options.gap_ns_mean / faster);
        self.counts.calls_count += 1;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                call: Call::default(),
                generation: 0,
                is_open: false,
            });
            self.slots.len() as u32 - 1
        });
        let open = &mut self.slots[slot as usize];
        open.generation = open.generation.wrapping_add(1);
        open.is_open = true;
        open.call.reset(now_ns);
        let id = CallId {
            slot,
            generation: open.generation,
        };
        self.due
            .push(Reverse((now_ns + self.options.patience_ns, Due::Lost(id))));
        self.with_policy(id, |policy, call, context| policy.begin(call, context));
    }

    /// The slot of a call that is not over.
    fn is_open(&self, id: CallId) -> bool {
        let slot = &self.slots[id.slot as usize];
        slot.is_open && slot.generation == id.generation
    }

    fn with_policy(&mut self, id: CallId, step: impl FnOnce(&mut dyn Policy, &mut Call, &mut Context<'_>)) {
        let call = &mut self.slots[id.slot as usize].call;
        let wake_before = call.wake_ns;
        let mut context = Context {
            now_ns: self.now_ns,
            random: &mut self.dice,
            loads: &self.loads,
            acts: &mut self.acts,
        };
        step(&mut *self.policy, call, &mut context);
        if let Some(at_ns) = call.wake_ns
            && call.wake_ns != wake_before
        {
            self.due.push(Reverse((at_ns, Due::Wake(id))));
        }
        let at_ns = self.now_ns + self.options.way_ns;
        for act in self.acts.drain(..) {
            let (node, what) = match act {
                Act::Ask { node, tells } => {
                    self.counts.asked_count += 1;
                    self.loads.add(node);
                    (node, Asked::Serve { tells })
                }
                Act::Withdraw { node } => {
                    self.counts.withdrawn_count += 1;
                    (node, Asked::Withdraw)
                }
            };
            if self.options.loss_ratio > 0.0 && self.losses.chance(self.options.loss_ratio) {
                continue;
            }
            self.to_nodes.push_back(ToNode {
                at_ns,
                node,
                call: id,
                what,
            });
        }
    }

    fn arrive(&mut self, message: ToNode) {
        let node = &mut self.nodes[message.node as usize];
        let id = u64::from(message.call.generation) << 32 | u64::from(message.call.slot);
        match message.what {
            Asked::Withdraw => node.workers.withdraw(id),
            Asked::Serve { tells } => {
                let work_ns = self.options.service.draw(&mut node.services);
                let job = Job {
                    call: message.call,
                    tells,
                };
                let arrival = Arrival { flow: 0, dice: 0 };
                let told = &mut Told {
                    to_client: &mut self.to_client,
                    loads: &mut self.loads,
                    node: message.node,
                    at_ns: self.now_ns + self.options.way_ns,
                    loss: (self.options.loss_ratio, &mut self.losses),
                };
                node.workers
                    .arrive(self.now_ns, job, id, work_ns, arrival, |event| told.tell(event));
                self.look_again(message.node);
            }
        }
    }

    fn slices_end(&mut self, index: u32) {
        let node = &mut self.nodes[index as usize];
        if node.due_ns != self.now_ns {
            // It was told to look earlier, and has.
            return;
        }
        node.due_ns = u64::MAX;
        let told = &mut Told {
            to_client: &mut self.to_client,
            loads: &mut self.loads,
            node: index,
            at_ns: self.now_ns + self.options.way_ns,
            loss: (self.options.loss_ratio, &mut self.losses),
        };
        while let Some((worker, end_ns)) = node.workers.first_end()
            && end_ns <= self.now_ns
        {
            node.workers.end(worker, end_ns, |event| told.tell(event));
        }
        self.look_again(index);
    }

    /// Notes when the node's next slice ends, if that is not noted yet.
    fn look_again(&mut self, index: u32) {
        let node = &mut self.nodes[index as usize];
        if let Some((_, end_ns)) = node.workers.first_end()
            && end_ns < node.due_ns
        {
            node.due_ns = end_ns;
            self.due.push(Reverse((end_ns, Due::Slice { node: index })));
        }
    }

    fn come_back(&mut self, message: ToClient, sink: &mut dyn FnMut(Outcome)) {
        let ToClient {
            node, call, is_done, ..
        } = message;
        if !self.is_open(call) {
            return;
        }
        if !is_done {
            self.with_policy(call, |policy, call, context| policy.began(call, node, context));
            return;
        }
        self.slots[call.slot as usize].call.answered_count += 1;
        self.with_policy(call, |policy, call, context| policy.answered(call, node, context));
        self.end_if_done(call, sink);
    }

    fn wake(&mut self, id: CallId, sink: &mut dyn FnMut(Outcome)) {
        if !self.is_open(id) || self.slots[id.slot as usize].call.wake_ns != Some(self.now_ns) {
            return;
        }
        self.slots[id.slot as usize].call.wake_ns = None;
        self.with_policy(id, |policy, call, context| policy.wake(call, context));
        self.end_if_done(id, sink);
    }

    fn end_if_done(&mut self, id: CallId, sink: &mut dyn FnMut(Outcome)) {
        let call = &self.slots[id.slot as usize].call;
        if call.is_done {
            let outcome = Outcome {
                started_ns: call.started_ns,
                took_ns: (!call.is_given_up).then(|| self.now_ns - call.started_ns),
                answered_count: call.answered_count,
            };
            self.counts.given_up_count += u64::from(call.is_given_up);
            self.close(id);
            sink(outcome);
        }
    }

    fn lose(&mut self, id: CallId, sink: &mut dyn FnMut(Outcome)) {
        if self.is_open(id) {
            let call = &self.slots[id.slot as usize].call;
            let outcome = Outcome {
                started_ns: call.started_ns,
                took_ns: None,
                answered_count: call.answered_count,
            };
            self.close(id);
            sink(outcome);
        }
    }

    fn close(&mut self, id: CallId) {
        self.slots[id.slot as usize].is_open = false;
        self.free.push(id.slot);
    }
}

/// What a node tells the client.
struct Told<'a> {
    to_client: &'a mut VecDeque<ToClient>,
    loads: &'a mut Loads,
    node: u32,
    at_ns: u64,
    loss: (f64, &'a mut Random),
}

impl Told<'_> {
    fn tell(&mut self, event: Event<Job>) {
        let (job, is_done) = match event {
            Event::Began(job) if job.tells => (job, false),
            Event::Began(_) => return,
            Event::Withdrawn(_) => {
                self.loads.remove(self.node);
                return;
            }
            Event::Done(job) => {
                self.loads.remove(self.node);
                (job, true)
            }
        };
        if self.loss.0 > 0.0 && self.loss.1.chance(self.loss.0) {
            return;
        }
        self.to_client.push_back(ToClient {
            at_ns: self.at_ns,
            node: self.node,
            call: job.call,
            is_done,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        oracle::{Mm1, Sojourn, kth_of_n_within, slow_ratio},
        policy::{Budget, Choice, FanOut, Hedge, HedgeAfter, Retry, Tied},
    };

    const MS: u64 = 1_000_000;

    fn options(nodes_count: usize) -> ClusterOptions {
        ClusterOptions {
            nodes_count,
            workers_count: 1,
            service: ServiceTime::Deterministic { ns: MS },
            gap_ns_mean: 100.0 * MS as f64,
            way_ns: 10_000,
            loss_ratio: 0.0,
            stalls: None,
            stalls_are_shared: false,
            surge: None,
            patience_ns: 10_000 * MS,
            seed: 1,
        }
    }

    fn all(options: ClusterOptions, policy: impl Policy + 'static, calls_count: u64) -> (Vec<Outcome>, Cluster) {
        let mut cluster = Cluster::new(options, Box::new(policy));
        let mut outcomes = Vec::new();
        cluster.run(calls_count, &mut |outcome| outcomes.push(outcome));
        assert_eq!(outcomes.len() as u64, calls_count, "every call ends once");
        (outcomes, cluster)
    }

    fn beyond(outcomes: &[Outcome], ns: u64) -> f64 {
        let slow = outcomes
            .iter()
            .filter(|outcome| outcome.took_ns.is_none_or(|took| took > ns));
        slow.count() as f64 / outcomes.len() as f64
    }

    fn fan_out(of: u32, needed_count: u32) -> FanOut {
        FanOut {
            asked_count: of,
            needed_count,
            choice: Choice::Random,
        }
    }

    #[test]
    fn a_fan_out_is_as_slow_as_arithmetic_says() {
        let service = ServiceTime::Bimodal {
            short_ns: MS,
            long_ns: 50 * MS,
            long_ratio: 0.01,
        };
        let options = ClusterOptions {
            service,
            workers_count: 8,
            ..options(100)
        };
        let (outcomes, _) = all(options.clone(), fan_out(100, 100), 10_000);
        // Four standard deviations are 1.9 points.
        assert!((beyond(&outcomes, 10 * MS) - slow_ratio(0.01, 100)).abs() < 0.02);
        let (outcomes, _) = all(options, fan_out(100, 99), 10_000);
        let expected = 1.0 - kth_of_n_within(0.99, 99, 100);
        assert!((beyond(&outcomes, 10 * MS) - expected).abs() < 0.02);
    }

    #[test]
    fn one_node_is_a_queue() {
        let load = 0.7;
        let options = ClusterOptions {
            service: ServiceTime::Exponential { mean_ns: MS as f64 },
            gap_ns_mean: MS as f64 / load,
            ..options(1)
        };
        let (outcomes, cluster) = all(options, fan_out(1, 1), 300_000);
        let oracle = Mm1::new(load, MS as f64);
        for q in [0.5, 0.9, 0.99] {
            let limit_ns = oracle.quantile_ns(q) as u64 + 20_000;
            assert!((1.0 - beyond(&outcomes, limit_ns) - q).abs() < 0.01);
        }
        let busy = cluster.node_counts().served_ns as f64 / cluster.now_ns() as f64;
        assert!((busy - load).abs() < 0.01, "{busy}");
    }

    #[test]
    fn hedging_helps_unless_all_stand_still_together() {
        let run = |is_shared, hedges: bool| {
            let options = ClusterOptions {
                stalls: Some(StallPattern {
                    gap_ns_mean: 1_960.0 * MS as f64,
                    stall_ns: 40 * MS,
                }),
                stalls_are_shared: is_shared,
                gap_ns_mean: 10.0 * MS as f64,
                workers_count: 8,
                ..options(8)
            };
            let ns = if hedges { 2 * MS } else { 5_000 * MS };
            let policy = Hedge::new(HedgeAfter::Fixed { ns }, Choice::Random, false);
            let (outcomes, cluster) = all(options, policy, 100_000);
            let mut took: Vec<u64> = outcomes.iter().filter_map(|outcome| outcome.took_ns).collect();
            took.sort_unstable();
            (took[took.len() * 999 / 1000], cluster.counts().extra_ratio(1))
        };
        let ((alone, _), (hedged, extra)) = (run(false, false), run(false, true));
        assert!(alone > 10 * hedged && extra < 0.05, "{alone} and {hedged}, {extra}");
        let ((alone, _), (hedged, _)) = (run(true, false), run(true, true));
        assert!(alone < hedged * 12 / 10, "{alone} and {hedged}");
    }

    #[test]
    fn of_tied_requests_one_is_served() {
        let options = ClusterOptions {
            service: ServiceTime::Exponential { mean_ns: MS as f64 },
            gap_ns_mean: MS as f64 / 1.2,
            ..options(2)
        };
        let tied = Tied {
            delay_ns: 0,
            choice: Choice::Random,
        };
        let (tied_outcomes, cluster) = all(options.clone(), tied, 50_000);
        let counts = cluster.node_counts();
        assert_eq!(
            counts.served_count + counts.withdrawn_count,
            cluster.counts().asked_count
        );
        // Both are served where both nodes were idle; at a load of 0.6 that is a part only.
        assert!(counts.withdrawn_count > 20_000, "{}", counts.withdrawn_count);
        let (alone, _) = all(options, fan_out(1, 1), 50_000);
        assert!(beyond(&tied_outcomes, 6 * MS) < beyond(&alone, 6 * MS));
    }

    #[test]
    fn lost_messages_are_lost_calls_unless_somebody_asks_again() {
        let options = ClusterOptions {
            loss_ratio: 0.05,
            gap_ns_mean: 20.0 * MS as f64,
            ..options(4)
        };
        let (outcomes, _) = all(options.clone(), fan_out(1, 1), 10_000);
        let lost = outcomes.iter().filter(|outcome| outcome.took_ns.is_none()).count();
        // Either of two messages.
        assert!((870..=1_080).contains(&lost), "{lost}");
        let retry = Retry::new(10 * MS, 5, Budget::Unbounded, Choice::Random);
        let (outcomes, _) = all(options, retry, 10_000);
        let lost = outcomes.iter().filter(|outcome| outcome.took_ns.is_none()).count();
        assert!(lost <= 3, "{lost}");
    }

    #[test]
    fn a_seed_is_a_run() {
        let run = |seed| {
            let options = ClusterOptions { seed, ..options(5) };
            all(options, fan_out(5, 3), 500).1.events()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }
}
