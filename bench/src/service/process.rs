//! A process of service nodes: opens their ports, gives up its privileges, serves until its stdin closes.

use std::{
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use anyhow::Context;
use dataplane_service::{
    node::{Asked, NodeOptions, ServiceNode},
    queue::SharedQueue,
    random::mix,
    workers::Work,
};
use dataplane_waist::{MemoryLog, Node, Port};
use serde::{Deserialize, Serialize};

use super::{
    client::FRAME_BYTES_MAX,
    plan::{NodesPlan, WorkerPlan},
    threads,
};
use crate::{
    backends::{self, Room, Wiring},
    host::{self, MachineClock},
    place::End,
    server,
};

/// What all nodes of a process have counted together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodesReport {
    /// Requests that were served.
    pub served_count: u64,
    /// Quanta that were over before their request was, while others waited.
    pub preempted_count: u64,
    /// Requests that were withdrawn in time.
    pub withdrawn_count: u64,
    /// The most that waited at one node.
    pub waiting_count_max: u64,
    /// Service that was meant, in nanoseconds.
    pub served_ns: u64,
    /// Service that it really was, in nanoseconds: timers go off late, threads wake up late.
    pub took_ns: u64,
    /// What preempting cost, in nanoseconds: from the end of a slice to the begin of the next.
    pub switching_ns: u64,
    /// Frames that were lost at the nodes' own rings.
    pub dropped_count: u64,
    /// Frames that nobody understood.
    pub rejected_count: u64,
}

impl NodesReport {
    /// Both together.
    pub fn and(self, other: NodesReport) -> NodesReport {
        NodesReport {
            served_count: self.served_count + other.served_count,
            preempted_count: self.preempted_count + other.preempted_count,
            withdrawn_count: self.withdrawn_count + other.withdrawn_count,
            waiting_count_max: self.waiting_count_max.max(other.waiting_count_max),
            served_ns: self.served_ns + other.served_ns,
            took_ns: self.took_ns + other.took_ns,
            switching_ns: self.switching_ns + other.switching_ns,
            dropped_count: self.dropped_count + other.dropped_count,
            rejected_count: self.rejected_count + other.rejected_count,
        }
    }
}

/// What waits at a node while it stands still.
const ROOM: Room = Room { frames_count: 1024 };

/// The process: everything behind [`super::SUBCOMMAND`].
///
/// # Errors
/// A plan that cannot be read, a port that cannot be opened or that fails.
pub fn main(config: &str) -> anyhow::Result<()> {
    let plan: NodesPlan = serde_json::from_str(config).context("reading the nodes' plan")?;
    server::die_with(plan.parent_pid)?;
    let backend = backends::by_name(&plan.backend).with_context(|| format!("no back end {:?}", plan.backend))?;
    let ports = plan
        .locals
        .iter()
        .map(|local| {
            let opened = backend.open(&Wiring {
                end: End::Server,
                local: local.clone(),
                remote: None,
                members: Vec::new(),
                over_veth: plan.over_veth,
                frame_bytes_max: FRAME_BYTES_MAX,
                room: ROOM,
                untimed: false,
                region: None,
            })?;
            Ok(opened.port)
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let mut facts = host::settle_as("nodes", plan.seat, plan.scheduler);
    // Before anything is asked, and before privileges go: a file may have to be opened.
    let labours = match plan.node.workers {
        WorkerPlan::Timer => Vec::new(),
        _ => ports
            .iter()
            .map(|_| threads::labours(&plan.node))
            .collect::<anyhow::Result<Vec<_>>>()?,
    };
    if let Some(step_ns) = labours.first().and_then(|of_node| of_node.first()?.step_ns()) {
        facts.insert("work_step".to_owned(), format!("{step_ns:.0} ns"));
    }
    server::say_ready(plan.locals.first().map(|local| local.addr), facts)?;
    let stop = server::stop_at_eof(|_| {}, || {});
    let report = match plan.node.workers {
        WorkerPlan::Timer => timers(&plan, ports, &stop)?,
        _ => {
            let mut report = NodesReport::default();
            for (port, of_node) in ports.into_iter().zip(labours) {
                report = report.and(threads::serve(&plan.node, of_node, plan.seat, port, &stop)?);
            }
            report
        }
    };
    server::say(&report)
}

/// A thread for each node.
fn timers(plan: &NodesPlan, ports: Vec<Box<dyn Port>>, stop: &Arc<AtomicBool>) -> anyhow::Result<NodesReport> {
    let count = ports.len();
    let begin = Barrier::new(count);
    thread::scope(|scope| {
        let nodes: Vec<_> = (plan.first_node..)
            .zip(ports)
            .map(|(number, port)| {
                let (begin, stop) = (&begin, stop.clone());
                scope.spawn(move || -> anyhow::Result<NodesReport> {
                    if count > 1 {
                        host::settle_as("nodes", plan.seat, plan.scheduler);
                    }
                    begin.wait();
                    timer_node(plan, number, port, &stop)
                })
            })
            .collect();
        nodes.into_iter().try_fold(NodesReport::default(), |sum, node| {
            let report = node
                .join()
                .unwrap_or_else(|_| anyhow::bail!("a node's thread panicked"))?;
            Ok(sum.and(report))
        })
    })
}

fn timer_node(plan: &NodesPlan, number: u32, port: Box<dyn Port>, stop: &AtomicBool) -> anyhow::Result<NodesReport> {
    let options = NodeOptions {
        workers_count: plan.node.workers_count,
        service: plan.node.service.model()?,
        seed: mix(plan.node.seed ^ u64::from(number) << 24),
        stalls: plan.node.stalls(number),
    };
    let discipline = plan.node.discipline::<Work<Asked>, SharedQueue<Work<Asked>>>()?;
    let node = ServiceNode::new(options, discipline);
    // An answer that it is done, one that the next has begun.
    let mut node = Node::new(port, MemoryLog::new(), node, 2 * plan.node.workers_count);
    node.run(&MachineClock, &mut || stop.load(Ordering::Relaxed))
        .context("a node's port")?;
    let stats = node.stats();
    let counts = node.protocol().counts();
    Ok(NodesReport {
        served_count: counts.served_count,
        preempted_count: counts.preempted_count,
        withdrawn_count: counts.withdrawn_count,
        waiting_count_max: counts.waiting_count_max as u64,
        served_ns: counts.served_ns,
        took_ns: counts.served_ns + node.protocol().late_ns_sum(),
        switching_ns: 0,
        dropped_count: stats.port.rx_dropped_count + stats.port.tx_dropped_count + stats.refused_count,
        rejected_count: stats.rejects.iter().sum(),
    })
}
