//! `quorum-ladder`: what a replicated commit costs, in round trips of the same sockets on the same CPUs.

mod claims;
mod disk;
mod row;
mod rungs;

use std::time::Duration;

use self::{
    claims::CLAIMS,
    row::{Grounds, measure},
    rungs::{AXES, REFERENCE, rungs},
};
use crate::{
    claim::Claim,
    experiment::{Axis, Depth, Experiment, Lab},
};

/// See the module.
#[derive(Debug)]
pub struct QuorumLadder;

impl Experiment for QuorumLadder {
    fn id(&self) -> &'static str {
        "quorum-ladder"
    }

    fn title(&self) -> &'static str {
        "The quorum ladder"
    }

    fn question(&self) -> &'static str {
        "What does a replicated commit cost, in round trips over the same sockets, and what does the disk add?"
    }

    fn how(&self) -> &'static str {
        "Replicas in processes of their own elect a leader, on this machine's loopback or each in a namespace of its own on one \
         bridge; a client keeps puts under way there and measures each from its first send to the answer, which comes once a \
         majority has the entry. The same client measures an echo in the same process over the same port in the same round; \
         and, where logs are durable, what one entry takes on the disk alone. What nobody names is varied by itself: one axis \
         away from three replicas in memory over udp-blocking. Arms are measured in an order shuffled by the seed; \
         udp-blocking with three replicas is measured twice per round. CPU time is what the kernel charged to each process."
    }

    fn axes(&self) -> &'static [Axis] {
        AXES
    }

    fn backends(&self) -> Vec<&'static str> {
        // `loopback` and `shm` join two ends, and a cluster has more.
        vec![
            REFERENCE,
            "udp-poll",
            "udp-epoll",
            "udp-mmsg",
            "uring",
            "af-packet",
            "af-packet-spin",
            "af-xdp",
            "af-xdp-spin",
        ]
    }

    fn tour_backends(&self) -> Vec<&'static str> {
        vec![REFERENCE]
    }

    fn claims(&self) -> &'static [Claim] {
        CLAIMS
    }

    fn tour_weight(&self) -> f64 {
        1.0
    }

    fn needs_one_machine(&self) -> Option<&'static str> {
        Some("its replicas are processes of this machine; `dplab serve` runs them on several")
    }

    fn run(&self, lab: &mut Lab<'_>) -> anyhow::Result<()> {
        let rungs = rungs(self, lab);
        let grounds = Grounds::of(&rungs)?;
        let trial_min = match lab.choice.depth {
            Depth::Tour => Duration::from_millis(150),
            Depth::Full | Depth::Smallest => Duration::from_millis(300),
        };
        // A cluster is started and elects its leader before anything is measured, which the plan does not know of.
        let plan = lab.plan(rungs.len(), trial_min);
        lab.in_rounds(&rungs, plan.rounds_count, |lab, turn| {
            let rung = turn.arm;
            lab.progress
                .set_message(format!("{}, round {}", rung.describe(), turn.round + 1));
            lab.record_until_valid(|lab| measure(lab, (&grounds, rung), turn.round, plan.trial))
        })
    }
}
