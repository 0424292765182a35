//! A client with a policy, and many nodes, in virtual time: calls come at random, messages take a fixed time, nodes serve, stand
//! still and lose messages as they are told to.
//!
//! Messages under way take the same time all, so those to nodes and those to the client are in order by themselves: two queues,
//! and a heap for what ends at other times.

mod parts;
#[cfg(test)]
mod tests;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

use crate::{
    discipline::{Arrival, SingleQueue},
    policy::{Act, Call, Context, Counts, Loads, Policy},
    random::{Random, mix},
    stalls::Stalls,
    workers::{Overhead, WorkerCounts, Workers},
};

use parts::{Asked, CallId, Due, Job, Node, Slot, ToClient, ToNode, Told};
pub use parts::{ClusterOptions, Outcome};

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
