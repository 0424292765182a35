//! What a cluster is made of: its options, what is under way, a node, and what a node tells the client.

use std::collections::VecDeque;

use crate::{
    discipline::SingleQueue,
    policy::{Call, Loads},
    queue::LocalQueue,
    random::Random,
    service_time::ServiceTime,
    stalls::StallPattern,
    workers::{Event, Work, Workers},
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
pub(super) struct CallId {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct ToNode {
    pub(super) at_ns: u64,
    pub(super) node: u32,
    pub(super) call: CallId,
    pub(super) what: Asked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Serve { tells: bool },
    Withdraw,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct ToClient {
    pub(super) at_ns: u64,
    pub(super) node: u32,
    pub(super) call: CallId,
    pub(super) is_done: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// A slice of a node's worker is over.
    Slice { node: u32 },
    /// A policy wants to be woken.
    Wake(CallId),
    /// A client's patience is over.
    Lost(CallId),
}

/// A request at a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job {
    pub(super) call: CallId,
    pub(super) tells: bool,
}

pub(super) type NodeWorkers = Workers<Job, SingleQueue<LocalQueue<Work<Job>>>>;

pub(super) struct Node {
    pub(super) workers: NodeWorkers,
    pub(super) services: Random,
    /// The earliest end that is in the heap.
    pub(super) due_ns: u64,
}

pub(super) struct Slot {
    pub(super) call: Call,
    pub(super) generation: u32,
    pub(super) is_open: bool,
}

/// What a node tells the client.
pub(super) struct Told<'a> {
    pub(super) to_client: &'a mut VecDeque<ToClient>,
    pub(super) loads: &'a mut Loads,
    pub(super) node: u32,
    pub(super) at_ns: u64,
    pub(super) loss: (f64, &'a mut Random),
}

impl Told<'_> {
    pub(super) fn tell(&mut self, event: Event<Job>) {
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
