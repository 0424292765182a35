//! From a failing one-sided history to a short one that fails in the same way.

use std::cell::Cell;

use super::{super::finding::Finding, plan::Plan, world::Outcome};

/// Drops faults, then clients, then operations, as long as the history fails in the same way; runs at most `tries_max` histories.
/// Says how many it has run.
pub fn shrink(plan: &Plan, finding: &Finding, tries_max: u32, run: &dyn Fn(&Plan) -> Outcome) -> (Plan, Finding, u32) {
    let tried_count = Cell::new(0);
    let fails = |plan: &Plan| -> bool {
        if tried_count.get() == tries_max {
            return false;
        }
        tried_count.set(tried_count.get() + 1);
        run(plan).finding.is_some_and(|found| found.kind == finding.kind)
    };
    let mut small = plan.clone();
    if fails(plan) {
        small.faults = dataplane_sim::shrink(&plan.faults, |faults| {
            faults.len() == plan.faults.len() || {
                let mut tried = plan.clone();
                tried.faults = faults.to_vec();
                fails(&tried)
            }
        });
    }
    for index in (0..small.clients.len()).rev() {
        let mut tried = small.clone();
        if tried.clients.len() > 1 {
            tried.clients.remove(index);
            tried.hosts.remove(small.replicas_count as usize + index);
            if fails(&tried) {
                small = tried;
            }
        }
    }
    for divisor in [2, 4, 8] {
        let mut tried = small.clone();
        for client in &mut tried.clients {
            client.ops_count /= divisor;
        }
        if fails(&tried) {
            small = tried;
        }
    }
    let found = run(&small).finding.unwrap_or_else(|| finding.clone());
    (small, found, tried_count.get())
}
